//! Proves P14 over real connections: whatever becomes of a rejection, its connection is used again or
//! closed, and never leaked.

#[path = "support/server.rs"]
mod server;

use std::future::ready;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use futures::Stream;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::join;
use futures::future::join_all;
use futures::stream;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use server::Server;
use server::log_in_old;
use server::old_for_new;
use server::pooling_client;
use server::token;
use tokio::time::timeout;
use tower::Layer;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

/// Whatever still waits then, waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

const PARALLEL: usize = 64;
const POOL: usize = 4;

/// Of what is read of a rejection.
const LIMIT: usize = 64 * 1024;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// How many rejections there are to be.
fn wanted() -> usize {
    let wanted = std::env::var("REJECTIONS");
    wanted.map_or(5000, |wanted| wanted.parse().unwrap())
}

/// An API whose tokens are good for so many requests each.
struct Api {
    server: Server,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// The token that is good now: its number.
    good: AtomicU64,
    accepted: AtomicUsize,
    rejections: AtomicUsize,
}

impl Api {
    async fn start(uses: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let its = counts.clone();
        let server = Server::start(move |request| {
            let counts = its.clone();
            async move { counts.answer(uses, request) }
        })
        .await;
        Self { server, counts }
    }

    /// A session that gets the token that is good.
    async fn session(&self) -> Session {
        let counts = self.counts.clone();
        let reissue = reissue_fn(move |_| {
            let serial = counts.good.fetch_add(1, Ordering::Relaxed) + 1;
            async move { Ok(TokenSet::new(serial.to_string()).unwrap()) }
        });
        let builder = Session::builder(reissue).reissue_limit(u32::MAX, Duration::from_secs(1));
        let session = builder.build().unwrap();
        log_in_old(&session).await;
        session
    }
}

impl Counts {
    fn answer(&self, uses: usize, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let good = self.good.load(Ordering::Relaxed).to_string();
        let mut answer = Response::new(Full::from("words"));
        if uses > 0 && token(&request) == good {
            // The last use: nobody has the next token yet.
            if (self.accepted.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(uses) {
                self.good.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.rejections.fetch_add(1, Ordering::Relaxed);
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        answer
    }
}

/// Many tasks send until there were so many rejections. How many of their requests were accepted.
async fn storm<S>(api: &Api, session: &Session, service: S, wanted: usize) -> usize
where
    S: Service<Request<ReplayBody<Full<Bytes>>>, Response = Response<Incoming>>,
    S: Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let layer = TokenRefreshLayer::new(&*api.server.base, session.clone()).unwrap();
    let service = layer.layer(service);
    let tasks = (0..PARALLEL).map(|_| {
        let (service, counts) = (service.clone(), api.counts.clone());
        let url = api.server.base.clone();
        tokio::spawn(async move {
            let mut ok = 0;
            while counts.rejections.load(Ordering::Relaxed) < wanted {
                let request = Request::get(&url).body(Full::default()).unwrap();
                let answer = service.clone().oneshot(request).await.unwrap();
                match answer.status() {
                    StatusCode::OK => ok += 1,
                    _ => assert!(is_left_alone(why(&answer)), "{:?}", why(&answer)),
                }
                let body = answer.into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes(), "words");
            }
            ok
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let patience = PATIENCE + Duration::from_millis(wanted as u64);
    let done = timeout(patience, join_all(tasks)).await.expect("it hangs");
    done.into_iter().map(Result::unwrap).sum()
}

/// What those are told whose rejection a new token does not make good.
fn is_left_alone(why: &RefreshError) -> bool {
    why.is_not_replayed() || why.is_too_fresh() || why.is_not_cured()
}

fn why<B>(answer: &Response<B>) -> &RefreshError {
    answer.extensions().get().expect("a reason")
}

/// As many requests are let through at once as the pool has room for.
async fn reject(http2: bool, uses: usize) -> (usize, Session) {
    let api = Api::start(uses).await;
    let session = api.session().await;
    let http: Http = pooling_client(http2, POOL);
    let service = ServiceBuilder::new().concurrency_limit(POOL).service(http);
    let ok = storm(&api, &session, service, wanted()).await;
    let most = if http2 { 1 } else { POOL + wanted() / 100 };
    let connections = api.server.connections();
    let rejections = api.counts.rejections.load(Ordering::Relaxed);
    println!("http2 {http2}, {rejections} rejections: {connections:?}");
    assert!(connections.opened <= most, "http2 {http2}: {connections:?}");
    timeout(PATIENCE, api.server.until_open(0)).await.unwrap();
    (ok, session)
}

// shows B116, P14: each is followed by a refresh, or finds one that is done, and is made good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_that_are_made_good_use_the_same_connections_again() {
    for http2 in [false, true] {
        let (ok, session) = reject(http2, 8).await;
        assert!(ok > wanted() / 2, "http2 {http2}: {ok}");
        assert!(session.stats().replays > 0, "http2 {http2}");
    }
}

// shows B116, S12: an API that rejects everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_that_stay_use_the_same_connections_again() {
    for http2 in [false, true] {
        let (ok, _) = reject(http2, 0).await;
        assert_eq!(ok, 0, "http2 {http2}");
    }
}

// shows B116, P14: what the pool has no room for is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_for_which_the_pool_has_no_room_are_closed() {
    let api = Api::start(64).await;
    let session = api.session().await;
    let http: Http = pooling_client(false, POOL);
    storm(&api, &session, http.clone(), 500).await;
    let opened = api.server.connections().opened;
    assert!(opened > POOL, "{opened}");
    timeout(PATIENCE, api.server.until_open(POOL))
        .await
        .unwrap();
    drop(http);
    timeout(PATIENCE, api.server.until_open(0)).await.unwrap();
}

/// What a rejection says after its head.
type Words = UnsyncBoxBody<Bytes, BoxError>;

fn words<T>(pieces: impl Stream<Item = Result<T, BoxError>> + Send + 'static) -> Words
where
    Bytes: From<T>,
{
    let frames = pieces.map(|piece| piece.map(|piece| Frame::data(piece.into())));
    StreamBody::new(frames).boxed_unsync()
}

/// Pieces that the test sends when it likes.
fn by_permission() -> (mpsc::Sender<Bytes>, Words) {
    let (sender, receiver) = mpsc::channel(0);
    (sender, words(receiver.map(Ok::<Bytes, _>)))
}

/// A client, and a server that rejects the token `old` in these words.
struct Scene {
    server: Server,
    session: Session,
    service: TokenRefresh<Http, Session, DefaultClassifier>,
}

type Answer = Response<ResponseBody<Incoming>>;

impl Scene {
    async fn new(http2: bool, time: Duration, said: Words) -> Self {
        let said = Arc::new(Mutex::new(Some(said)));
        let server = Server::start(move |request| {
            let said = match &*token(&request) {
                "new" => Full::from("welcome").map_err(Into::into).boxed_unsync(),
                _ => said.lock().unwrap().take().expect("rejected once"),
            };
            let status = if token(&request) == "new" { 200 } else { 401 };
            async move { Response::builder().status(status).body(said).unwrap() }
        })
        .await;
        let session = old_for_new().await;
        let layer = TokenRefreshLayer::new(&*server.base, session.clone()).unwrap();
        let layer = layer.response_limit(LIMIT, time);
        let service = layer.layer(pooling_client(http2, POOL));
        Self {
            server,
            session,
            service,
        }
    }

    async fn send(&self) -> Answer {
        let request = Request::get(&self.server.base).body(Full::default());
        let answer = self.service.clone().oneshot(request.unwrap());
        timeout(PATIENCE, answer).await.expect("it hangs").unwrap()
    }

    /// The next request is taken, and no connection is left when the client is gone.
    async fn stays_of_use(self, row: &str) {
        is_welcome(self.send().await, row).await;
        assert_eq!(self.session.stats().reissues, 1, "{row}");
        drop(self.service);
        let connections = self.server.connections();
        assert!(connections.opened <= 2, "{row}: {connections:?}");
        let closed = timeout(PATIENCE, self.server.until_open(0)).await;
        assert!(closed.is_ok(), "{row}: {:?}", self.server.connections());
    }
}

async fn is_welcome(answer: Answer, row: &str) {
    assert_eq!(answer.status(), StatusCode::OK, "{row}");
    assert_eq!(collect(answer).await.unwrap(), "welcome", "{row}");
}

async fn collect(answer: Answer) -> Result<Bytes, hyper::Error> {
    let body = timeout(PATIENCE, answer.into_body().collect()).await;
    Ok(body.expect("it hangs")?.to_bytes())
}

// shows P9, P10, P14, S7
#[tokio::test]
async fn a_rejection_of_any_size_is_made_good_or_handed_on_whole() {
    for http2 in [false, true] {
        for size in [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 10 << 20] {
            let row = format!("http2 {http2}, {size} bytes");
            let data: Bytes = (0..size).map(|n| (n % 251) as u8).collect();
            let said = Full::new(data.clone()).map_err(Into::into).boxed_unsync();
            let scene = Scene::new(http2, PATIENCE, said).await;
            let answer = scene.send().await;
            if size <= LIMIT {
                is_welcome(answer, &row).await;
            } else {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{row}");
                assert!(why(&answer).is_not_replayed(), "{row}");
                assert!(collect(answer).await.unwrap() == data, "{row}");
            }
            scene.stays_of_use(&row).await;
        }
    }
}

// shows P14: a byte at a time, and the last within the time allowed.
#[tokio::test]
async fn a_rejection_that_drips_is_read_to_its_end_and_made_good() {
    for http2 in [false, true] {
        let (mut drops, said) = by_permission();
        let scene = Scene::new(http2, PATIENCE, said).await;
        let drip = async {
            for byte in b"the server's own words" {
                drops
                    .send(Bytes::from_static(std::slice::from_ref(byte)))
                    .await
                    .unwrap();
            }
            drop(drops);
        };
        let (answer, ()) = join(scene.send(), drip).await;
        is_welcome(answer, "drips").await;
        scene.stays_of_use("drips").await;
    }
}

// shows P10, P14: the rest of it comes when the caller has it already.
#[tokio::test]
async fn a_rejection_that_drips_for_too_long_is_handed_on_whole() {
    for http2 in [false, true] {
        let (mut drops, said) = by_permission();
        drops.try_send("the server's ".into()).unwrap();
        let scene = Scene::new(http2, Duration::from_millis(1), said).await;
        let answer = scene.send().await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "http2 {http2}");
        assert!(why(&answer).is_not_replayed(), "http2 {http2}");
        let rest = async {
            for byte in b"own words" {
                drops
                    .send(Bytes::from_static(std::slice::from_ref(byte)))
                    .await
                    .unwrap();
            }
            drop(drops);
        };
        let (body, ()) = join(collect(answer), rest).await;
        assert_eq!(body.unwrap(), "the server's own words", "http2 {http2}");
        scene.stays_of_use("drips too long").await;
    }
}

// shows P10, P14
#[tokio::test]
async fn a_rejection_that_is_reset_is_handed_on_with_its_pieces_and_its_error() {
    for http2 in [false, true] {
        let (mut drops, first) = by_permission();
        drops.try_send("the server's ".into()).unwrap();
        let broken = stream::once(async { Err(BoxError::from("reset")) });
        let said = words(first.into_data_stream().chain(broken));
        let scene = Scene::new(http2, PATIENCE, said).await;
        // It breaks off when the head is there: the refresh begins with it.
        let mut status = scene.session.subscribe();
        let reset = async {
            let began = timeout(PATIENCE, status.changed()).await;
            began.expect("a refresh begins").unwrap();
            drop(drops);
        };
        let (answer, ()) = join(scene.send(), reset).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "http2 {http2}");
        assert!(why(&answer).is_not_replayed(), "http2 {http2}");
        let mut pieces = answer.into_body().into_data_stream();
        // Over HTTP/2 a reset may overtake them.
        let mut next = pieces.next().await.expect("pieces, or an error");
        if let Ok(piece) = &next {
            assert_eq!(piece, "the server's ", "http2 {http2}");
            next = pieces.next().await.expect("an error");
        } else {
            assert!(http2, "the first piece is lost");
        }
        next.unwrap_err();
        drop(pieces);
        scene.stays_of_use("reset").await;
    }
}

// shows P9, P14: it is cut at the limit or when the time is up, and its caller may drop it.
#[tokio::test]
async fn a_rejection_that_never_ends_is_handed_on_and_its_connection_is_closed_or_used_again() {
    for http2 in [false, true] {
        for (size, time) in [(LIMIT + 1, PATIENCE), (1, Duration::from_millis(1))] {
            let row = format!("http2 {http2}, {size} bytes");
            let data = Bytes::from(vec![b'x'; size]);
            let said = stream::once(ready(Ok(data))).chain(stream::pending());
            let scene = Scene::new(http2, time, words(said)).await;
            let answer = scene.send().await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{row}");
            assert!(why(&answer).is_not_replayed(), "{row}");
            let mut body = answer.into_body();
            let mut read = 0;
            while read < size {
                let frame = timeout(PATIENCE, body.frame()).await.unwrap();
                read += frame.unwrap().unwrap().into_data().unwrap().len();
            }
            assert_eq!(read, size, "{row}");
            drop(body);
            scene.stays_of_use(&row).await;
        }
    }
}
