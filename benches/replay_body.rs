//! Shows what it costs that a request's body could be sent again: the body through the layer, to a
//! service that reads it, against the same body sent plain. What the layer costs beside, `empty` shows.
//!
//! The table comes first: the median of interleaved rounds, as the machine is noisy.

mod support;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use criterion::Criterion;
use http::Request;
use http::Response;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::Empty;
use http_body_util::Full;
use tower::Layer;
use tower::Service;
use tower_token_refresh::BoxError;

use self::support::clients::send;
use self::support::is_test;
use self::support::layer;
use self::support::request;
use self::support::rounds::Rounds;

const CHUNK: u64 = 64;

/// Frames and their size: those below 512 bytes are copied together, larger ones shared. All are within
/// the layer's limit.
const STREAMS: [(usize, usize); 5] = [(1, 64), (16, 64), (1, 1024), (16, 1024), (64, 1024)];

/// Sends so many requests, and says how long that took.
type Sending = Box<dyn FnMut(u64) -> Duration>;

/// One body, sent in each of the ways that are compared.
struct Case {
    name: String,
    frames: usize,
    ways: [(&'static str, Sending); 3],
}

fn main() -> Result<(), BoxError> {
    let mut cases = cases()?;
    println!("replay_body: nanoseconds for each request; unkept: the layer with a limit of 0");
    println!("body               plain  unkept   ours  ours/plain  (ours-unkept)/frame");
    for case in &mut cases {
        table(case);
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    for case in &mut cases {
        group(&mut criterion, case);
    }
    criterion.final_summary();
    Ok(())
}

fn cases() -> Result<Vec<Case>, BoxError> {
    let mut cases = vec![
        Case::new("empty", 0, Empty::<Bytes>::new)?,
        Case::new("full/1024", 1, || Full::new(Bytes::from(vec![b'x'; 1024])))?,
    ];
    for (frames, size) in STREAMS {
        let name = format!("stream/{frames}x{size}");
        cases.push(Case::new(name, frames, move || Stream::new(frames, size))?);
    }
    Ok(cases)
}

impl Case {
    fn new<B, F>(name: impl Into<String>, frames: usize, body: F) -> Result<Self, BoxError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
        F: Fn() -> B + Clone + 'static,
    {
        let unkept = layer()?.replay_limit(0).layer(Reader);
        Ok(Self {
            name: name.into(),
            frames,
            ways: [
                ("plain", sending(Reader, body.clone())),
                ("unkept", sending(unkept, body.clone())),
                ("ours", sending(layer()?.layer(Reader), body)),
            ],
        })
    }
}

fn table(case: &mut Case) {
    let (rounds, requests) = if is_test() { (1, 4) } else { (41, 8 * CHUNK) };
    let ways = &mut case.ways;
    let times = Rounds::run(ways.len(), rounds, |way| (ways[way].1)(requests));
    let [plain, unkept, ours] = [0, 1, 2].map(|way| times.median(way) / requests as f64);
    println!(
        "{:<17}  {plain:>5.0}  {unkept:>6.0}  {ours:>5.0}  {:>10.2}  {:>19.1}",
        case.name,
        times.ratio(2, 0),
        (ours - unkept) / case.frames.max(1) as f64,
    );
}

fn group(criterion: &mut Criterion, case: &mut Case) {
    let mut group = criterion.benchmark_group(format!("replay_body/{}", case.name));
    for (way, sending) in &mut case.ways {
        group.bench_function(*way, |bencher| bencher.iter_custom(&mut *sending));
    }
    group.finish();
}

/// Only the sending is timed, not the making of the requests.
fn sending<S, B>(mut service: S, body: impl Fn() -> B + 'static) -> Sending
where
    S: Service<Request<B>, Error: std::fmt::Debug> + 'static,
{
    Box::new(move |requests| {
        let mut time = Duration::ZERO;
        let mut left = requests;
        while left > 0 {
            let chunk = left.min(CHUNK);
            let made: Vec<_> = (0..chunk).map(|_| request(body())).collect();
            let start = Instant::now();
            made.into_iter().for_each(|it| send(&mut service, it));
            time += start.elapsed();
            left -= chunk;
        }
        time
    })
}

/// A service that reads the body to its end, then answers.
#[derive(Debug, Clone)]
struct Reader;

impl<B> Service<Request<B>> for Reader
where
    B: Body<Data = Bytes>,
{
    type Response = Response<Empty<Bytes>>;
    type Error = B::Error;
    type Future = Reading<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Reading<B> {
        Reading(Box::pin(request.into_body()))
    }
}

/// Boxed whatever the body is, so that it costs all the same.
struct Reading<B>(Pin<Box<B>>);

impl<B: Body<Data = Bytes>> Future for Reading<B> {
    type Output = Result<Response<Empty<Bytes>>, B::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match pin!(&mut self.0).as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => drop(black_box(frame)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(Response::new(Empty::new()))),
            }
        }
    }
}

/// A body of many frames, all of which are there already. It says how long it is.
struct Stream {
    frames: VecDeque<Bytes>,
    left: usize,
}

impl Stream {
    fn new(frames: usize, size: usize) -> Self {
        Self {
            frames: (0..frames).map(|_| Bytes::from(vec![b'x'; size])).collect(),
            left: frames * size,
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(data) = self.frames.pop_front() else {
            return Poll::Ready(None);
        };
        self.left -= data.len();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
