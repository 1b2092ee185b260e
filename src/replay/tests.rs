//! Proves that a replay is what the first send was, or is refused, wherever the first send got to.

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomPinned;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::thread;

use http::HeaderMap;
use http::HeaderValue;
use http_body_util::Empty;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

const LIMIT: usize = 64 * 1024;

/// Long enough to be kept without a copy.
const SHARED: usize = 512;

/// Yields what it is told to.
#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    /// Whether it says how long it is, and when it is at its end.
    tells: bool,
    polls: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Error,
    Panic,
    Pending,
    Trailers,
}

use Step::Error;
use Step::Panic;
use Step::Pending;
use Step::Trailers;

fn keep<B: Body + 'static>(body: B, limit: usize) -> (ReplayBody<B>, Kept<B>) {
    ReplayBody::keep(body, &ReplayLimits::new(limit, usize::MAX))
}

fn data(bytes: impl Into<Bytes>) -> Step {
    Step::Data(bytes.into())
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(
        http::header::ETAG,
        HeaderValue::from_static("\"of the whole\""),
    )])
}

fn script(steps: impl IntoIterator<Item = Step>) -> Script {
    Script {
        steps: steps.into_iter().collect(),
        tells: true,
        polls: Arc::default(),
    }
}

impl Script {
    fn silent(self) -> Self {
        Self {
            tells: false,
            ..self
        }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<&'static str> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        match self.steps.pop_front() {
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers())))),
            Some(Error) => Poll::Ready(Some(Err("broken"))),
            Some(Panic) => panic!("the body panics"),
            Some(Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.tells {
            SizeHint::with_exact(sum(&self.steps) as u64)
        } else {
            SizeHint::new()
        }
    }
}

fn sum<'a>(steps: impl IntoIterator<Item = &'a Step>) -> usize {
    let len = |step: &Step| match step {
        Step::Data(data) => data.len(),
        _ => 0,
    };
    steps.into_iter().map(len).sum()
}

fn poll<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Polled<B::Error> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

fn poll_times<B: Body + Unpin>(body: &mut ReplayBody<B>, times: usize) {
    for _ in 0..times {
        let _ = poll(body);
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Received {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    failed: bool,
}

impl Received {
    fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            data: bytes.into(),
            ..Self::default()
        }
    }
}

/// Reads to the end, and checks on the way that the body says the truth about what it has left.
#[track_caller]
fn read<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Received {
    let mut received = Received::default();
    let mut promised = None;
    loop {
        let (hint, had) = (body.size_hint(), received.data.len() as u64);
        promised = promised.or_else(|| hint.exact().map(|exact| exact + had));
        assert!(
            hint.exact().is_none() || hint.exact().map(|exact| exact + had) == promised,
            "{hint:?} after {had} does not add up to {promised:?}"
        );
        let was_over = body.is_end_stream();
        let next = match poll(body) {
            Poll::Pending => continue,
            Poll::Ready(next) => next,
        };
        assert!(next.is_none() || !was_over, "more after the end");
        match next {
            None => break,
            Some(Err(_)) => {
                received.failed = true;
                return received;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => received.data.extend_from_slice(&data),
                Err(frame) => received.trailers = frame.into_trailers().ok(),
            },
        }
    }
    assert!(promised.is_none_or(|promised| promised == received.data.len() as u64));
    assert!(matches!(poll(body), Poll::Ready(None)), "not at its end");
    received
}

#[track_caller]
fn assert_replays(steps: &[Step], expected: &Received) {
    for (tells, polls) in [true, false]
        .iter()
        .flat_map(|tells| (0..=steps.len() + 1).map(move |polls| (*tells, polls)))
    {
        let body = Script {
            tells,
            ..script(steps.iter().cloned())
        };
        let (mut first, kept) = keep(body, LIMIT);
        poll_times(&mut first, polls);
        drop(first);
        assert_eq!(kept.lost(), None);
        let mut replay = kept.take().unwrap();
        assert_eq!(
            read(&mut replay),
            *expected,
            "after {polls} polls, tells {tells}"
        );
    }
    let (mut first, kept) = keep(script(steps.iter().cloned()), LIMIT);
    assert_eq!(read(&mut first), *expected, "the first send");
    // Still there, but at its end.
    assert_eq!(read(&mut kept.take().unwrap()), *expected);
}

/// Bytes that tell when they are freed.
fn owned(len: usize) -> (Bytes, Arc<AtomicUsize>) {
    struct Owner(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let freed = Arc::default();
    let owner = Owner(vec![7; len], Arc::clone(&freed));
    (Bytes::from_owner(owner), freed)
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_body_of_several_chunks_is_replayed_wherever_the_first_send_stopped() {
    let steps = [
        data("one "),
        data(vec![b'x'; SHARED]),
        data("two "),
        Pending,
        data("three"),
        data(vec![b'y'; 3 * SHARED]),
    ];
    let mut all = b"one ".to_vec();
    all.extend([b'x'; SHARED]);
    all.extend(b"two three");
    all.extend([b'y'; 3 * SHARED]);
    assert_replays(&steps, &Received::of(all));
}

#[test]
fn trailers_are_replayed() {
    let expected = |data: &str| Received {
        trailers: Some(trailers()),
        ..Received::of(data)
    };
    assert_replays(&[Trailers], &expected(""));
    assert_replays(&[data("a"), Pending, data("b"), Trailers], &expected("ab"));
}

#[test]
fn empty_frames_are_passed_on_and_not_kept() {
    assert_replays(
        &[data(""), data("a"), data(""), data("")],
        &Received::of("a"),
    );
    assert_replays(&[data("")], &Received::of(""));

    // No limit would hold if they were kept.
    let (mut first, kept) = keep(script(vec![data(""); 3]).silent(), 0);
    for _ in 0..3 {
        assert!(matches!(poll(&mut first), Poll::Ready(Some(Ok(frame))) if frame.is_data()));
    }
    drop(first);
    assert!(matches!(poll(&mut kept.take().unwrap()), Poll::Ready(None)));
}

#[test]
fn many_small_frames_are_kept_as_few_pieces() {
    let mut body = script((0..20_000).map(|n: u32| data(vec![n as u8]))).silent();
    body.steps.push_back(Trailers);
    let (mut first, kept) = keep(body, LIMIT);
    let sent = read(&mut first);
    let mut replay = kept.take().unwrap();
    let mut frames = 0;
    while let Poll::Ready(Some(Ok(frame))) = poll(&mut replay) {
        frames += 1;
        assert!(frame.data_ref().is_none_or(|data| data.len() <= 8 * 1024));
    }
    assert_eq!(sent.data.len(), 20_000);
    assert_eq!(frames, 3 + 1);
}

#[test]
fn nothing_is_polled_before_the_inner_service_does() {
    let body = script([data("a"), data("b")]);
    let polls = Arc::clone(&body.polls);
    let (mut first, kept) = keep(body, LIMIT);
    let _ = (first.size_hint(), first.is_end_stream(), kept.lost());
    assert_eq!(count(&polls), 0);
    poll_times(&mut first, 1);
    assert_eq!(count(&polls), 1);
    drop(first);
    let mut replay = kept.take().unwrap();
    let _ = (replay.size_hint(), replay.is_end_stream());
    // The first frame comes out of memory.
    poll_times(&mut replay, 1);
    assert_eq!(count(&polls), 1);
}

#[test]
fn a_first_send_that_still_reads_excludes_a_replay_and_goes_on() {
    for polls in 0..3 {
        let steps = [data("a"), data("b"), data("c")];
        let (mut first, kept) = keep(script(steps), LIMIT);
        poll_times(&mut first, polls);
        assert_eq!(kept.lost(), None);
        assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyStillSending);
        assert_eq!(read(&mut first).data, b"abc"[polls..]);
    }
}

#[test]
fn the_end_of_the_first_send_is_seen_without_another_poll() {
    let (mut first, kept) = keep(script([data("a")]), LIMIT);
    poll_times(&mut first, 1);
    assert!(first.is_end_stream());
    assert_eq!(read(&mut kept.take().unwrap()), Received::of("a"));

    let (mut first, kept) = keep(script([data("a"), Trailers]).silent(), LIMIT);
    poll_times(&mut first, 2);
    assert_eq!(read(&mut kept.take().unwrap()).trailers, Some(trailers()));
    assert!(matches!(poll(&mut first), Poll::Ready(None)));

    let (mut first, kept) = keep(script([data("a")]).silent(), LIMIT);
    poll_times(&mut first, 1);
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyStillSending);
}

#[test]
fn a_replay_is_not_at_its_end_because_the_first_send_was() {
    let (mut first, kept) = keep(script([data("abc"), data("de")]), LIMIT);
    read(&mut first);
    assert!(first.is_end_stream());
    assert_eq!(first.size_hint().exact(), Some(0));
    let mut replay = kept.take().unwrap();
    assert!(!replay.is_end_stream());
    assert_eq!(replay.size_hint().exact(), Some(5));
    read(&mut replay);
    assert!(replay.is_end_stream());
    assert_eq!(replay.size_hint().exact(), Some(0));

    let (mut first, kept) = keep(script([Trailers]), LIMIT);
    read(&mut first);
    assert!(!kept.take().unwrap().is_end_stream());
}

#[test]
fn size_hints_speak_of_the_readers_own_position() {
    let steps = || [data("abc"), data("de"), data("f")];
    let (mut first, kept) = keep(script(steps()), LIMIT);
    assert_eq!(first.size_hint().exact(), Some(6));
    poll_times(&mut first, 1);
    assert_eq!(first.size_hint().exact(), Some(3));
    drop(first);
    assert_eq!(kept.take().unwrap().size_hint().exact(), Some(6));

    let (mut first, kept) = keep(script(steps()).silent(), LIMIT);
    assert_eq!(first.size_hint().upper(), None);
    poll_times(&mut first, 2);
    drop(first);
    let mut replay = kept.take().unwrap();
    let hint = replay.size_hint();
    assert_eq!((hint.lower(), hint.upper()), (5, None));
    poll_times(&mut replay, 1);
    assert_eq!(replay.size_hint().lower(), 0);

    let passed = ReplayBody::pass(script(steps()));
    assert_eq!(passed.size_hint().exact(), Some(6));
}

/// Longer than can be counted.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled<&'static str> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from("on and on")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::MAX)
    }
}

#[test]
fn a_size_that_can_not_be_counted_has_no_upper_bound() {
    let (mut first, kept) = keep(Endless, usize::MAX);
    poll_times(&mut first, 1);
    drop(first);
    let hint = kept.take().unwrap().size_hint();
    assert_eq!((hint.lower(), hint.upper()), (u64::MAX, None));
}

#[test]
fn exactly_the_limit_is_replayed_and_one_byte_more_is_not() {
    for sizes in [
        &[1000][..],
        &[1, 999],
        &[600, 400],
        &[100; 10],
        &[0, 1000, 0],
    ] {
        let steps: Vec<_> = sizes.iter().map(|len| data(vec![b'x'; *len])).collect();
        for tells in [true, false] {
            let body = || Script {
                tells,
                ..script(steps.clone())
            };
            let (mut first, kept) = keep(body(), 1000);
            assert_eq!(read(&mut first).data.len(), 1000);
            assert_eq!(kept.lost(), None);
            assert_eq!(read(&mut kept.take().unwrap()).data.len(), 1000);

            let (mut first, kept) = keep(body(), 999);
            assert_eq!(read(&mut first).data.len(), 1000);
            assert_eq!(kept.lost(), Some(NotReplayed::BodyOverLimit));
            assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyOverLimit);
        }
    }
}

#[test]
fn a_body_that_says_it_is_over_the_limit_is_lost_at_once_and_not_boxed() {
    let (mut first, kept) = keep(script([data("abcd")]), 3);
    assert_eq!(kept.lost(), Some(NotReplayed::BodyOverLimit));
    assert!(matches!(first.state, State::Passed { .. }));
    assert_eq!(read(&mut first), Received::of("abcd"));
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyOverLimit);
}

// shows P9, S9
#[test]
fn the_bodies_of_all_requests_share_one_limit() {
    let limits = ReplayLimits::new(LIMIT, 10);
    let keep = |len| {
        let body = script([data(vec![b'x'; len]), data("x")]).silent();
        ReplayBody::keep(body, &limits)
    };
    let (mut first, kept) = keep(6);
    poll_times(&mut first, 1);
    let (mut other, lost) = keep(5);
    poll_times(&mut other, 1);
    assert_eq!(lost.lost(), Some(NotReplayed::BodiesOverLimit));
    assert_eq!(
        read(&mut other),
        Received::of("x"),
        "it is sent all the same"
    );
    assert_eq!(lost.take().unwrap_err(), NotReplayed::BodiesOverLimit);
    // What is lost, given up, or sent again has made room.
    let (mut third, dropped) = keep(3);
    assert_eq!(read(&mut third), Received::of("xxxx"));
    assert_eq!(dropped.lost(), None, "exactly at the limit");
    drop((third, dropped));
    assert_eq!(read(&mut first), Received::of("x"));
    let mut replay = kept.take().unwrap();
    assert_eq!(read(&mut replay), Received::of("xxxxxxx"));
    let (mut last, kept) = keep(9);
    read(&mut last);
    assert_eq!(kept.lost(), None, "all of it is free again");
}

#[test]
fn who_waits_for_the_first_send_is_woken_when_it_is_done() {
    type End = fn(ReplayBody<Script>);
    let at_its_end: End = |mut first| drop(read(&mut first));
    let over_the_limit: End = |mut first| poll_times(&mut first, 2);
    let ends: [(End, _); 3] = [(at_its_end, 100), (over_the_limit, 4), (drop, 100)];
    for (end, limit) in ends {
        let (mut first, kept) = keep(script([data("abc"), data("de")]).silent(), limit);
        poll_times(&mut first, 1);
        let mut released = tokio_test::task::spawn(kept.released());
        assert!(released.poll().is_pending());
        end(first);
        assert!(released.is_woken());
        assert!(released.poll().is_ready());
    }
    let (_first, kept) = keep(Full::new(Bytes::from("abc")), 0);
    assert!(tokio_test::task::spawn(kept.released()).poll().is_ready());
}

#[test]
fn going_over_the_limit_frees_what_was_kept_at_once() {
    let (bytes, freed) = owned(SHARED);
    let body = script([data(bytes), data("x"), data("y")]).silent();
    let (mut first, kept) = keep(body, SHARED);
    poll_times(&mut first, 1);
    assert_eq!((count(&freed), kept.lost()), (0, None));
    poll_times(&mut first, 1);
    assert_eq!(
        (count(&freed), kept.lost()),
        (1, Some(NotReplayed::BodyOverLimit))
    );
    assert_eq!(read(&mut first), Received::of("y"));
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyOverLimit);
}

#[test]
fn without_the_handle_nothing_is_kept() {
    let (bytes, freed) = owned(SHARED);
    let (later, freed_later) = owned(SHARED);
    let body = script([data(bytes), data(later), data("x")]);
    let (mut first, kept) = keep(body, LIMIT);
    poll_times(&mut first, 1);
    assert_eq!(count(&freed), 0);
    drop(kept);
    assert_eq!(count(&freed), 1);
    poll_times(&mut first, 1);
    assert_eq!(count(&freed_later), 1);
    assert_eq!(read(&mut first), Received::of("x"));
}

#[test]
fn a_refused_replay_frees_what_was_kept_at_once() {
    let (bytes, freed) = owned(SHARED);
    let (mut first, kept) = keep(script([data(bytes), data("x")]), LIMIT);
    poll_times(&mut first, 1);
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyStillSending);
    assert_eq!(count(&freed), 1);
    assert_eq!(read(&mut first), Received::of("x"));
}

#[test]
fn whoever_comes_last_frees_the_rest_of_the_body() {
    for first_goes_first in [true, false] {
        let (kept_bytes, freed) = owned(SHARED);
        let (rest, freed_rest) = owned(1);
        let body = script([data(kept_bytes), data(rest)]);
        let (mut first, kept) = keep(body, LIMIT);
        poll_times(&mut first, 1);
        if first_goes_first {
            drop(first);
            assert_eq!((count(&freed), count(&freed_rest)), (0, 0));
            drop(kept);
        } else {
            drop(kept);
            drop(first);
        }
        assert_eq!((count(&freed), count(&freed_rest)), (1, 1));
    }
}

#[test]
fn a_replay_frees_each_frame_as_it_yields_it() {
    let (bytes, freed) = owned(SHARED);
    let (mut first, kept) = keep(script([data(bytes), data("x")]), LIMIT);
    poll_times(&mut first, 2);
    let mut replay = kept.take().unwrap();
    assert_eq!(count(&freed), 0);
    poll_times(&mut replay, 1);
    assert_eq!(count(&freed), 1);
}

#[test]
fn an_error_is_passed_on_and_loses_the_replay() {
    let (bytes, freed) = owned(SHARED);
    let (mut first, kept) = keep(script([data(bytes), Error, data("x")]), LIMIT);
    poll_times(&mut first, 1);
    assert_eq!(kept.lost(), None);
    assert!(matches!(poll(&mut first), Poll::Ready(Some(Err("broken")))));
    assert_eq!(kept.lost(), Some(NotReplayed::BodyFailed));
    assert_eq!(count(&freed), 1);
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyFailed);
    // Whatever the body does after an error, it does as if nobody stood between.
    assert_eq!(read(&mut first), Received::of("x"));
}

#[test]
fn an_error_in_the_unread_rest_reaches_the_replay() {
    let (mut first, kept) = keep(script([data("a"), Error]), LIMIT);
    poll_times(&mut first, 1);
    drop(first);
    let received = read(&mut kept.take().unwrap());
    assert_eq!((&received.data[..], received.failed), (&b"a"[..], true));
}

#[test]
fn a_body_that_panicked_is_not_read_again() {
    let (mut first, kept) = keep(script([data("a"), Panic, data("b")]), LIMIT);
    poll_times(&mut first, 1);
    catch_unwind(AssertUnwindSafe(|| poll_times(&mut first, 1))).unwrap_err();
    drop(first);
    assert_eq!(kept.lost(), Some(NotReplayed::BodyFailed));
    assert_eq!(kept.take().unwrap_err(), NotReplayed::BodyFailed);
}

#[test]
fn a_body_that_is_whole_in_memory_is_shared_whatever_the_limit_and_the_first_send() {
    #[track_caller]
    fn assert_shared<B: Body<Error: fmt::Debug> + Unpin + 'static>(body: impl Fn() -> B) {
        for polls in 0..3 {
            let (mut first, kept) = keep(body(), 0);
            assert!(matches!(first.state, State::Whole { .. }));
            assert_eq!(first.size_hint().exact(), Some(5));
            poll_times(&mut first, polls);
            assert_eq!(kept.lost(), None);
            // The first one lives on.
            let mut replay = kept.take().unwrap();
            assert_eq!(replay.size_hint().exact(), Some(5));
            assert!(!replay.is_end_stream());
            assert_eq!(read(&mut replay), Received::of("whole"));
            assert_eq!(
                read(&mut first).data,
                if polls == 0 { &b"whole"[..] } else { b"" }
            );
        }
    }
    assert_shared(|| Full::new(Bytes::from("whole")));
    assert_shared(|| Full::new(&b"whole"[..]));
    assert_shared(|| String::from("whole"));
}

#[test]
fn a_whole_body_is_shared_without_a_copy() {
    let (bytes, freed) = owned(9);
    let address = bytes.as_ptr();
    let (mut first, kept) = keep(Full::new(bytes), 0);
    for body in [&mut first, &mut kept.take().unwrap()] {
        let Poll::Ready(Some(Ok(frame))) = poll(body) else {
            panic!("{body:?} yields nothing")
        };
        assert_eq!(frame.data_ref().unwrap().as_ptr(), address);
    }
    drop(first);
    assert_eq!(count(&freed), 1);
}

#[test]
fn large_frames_are_kept_without_a_copy() {
    let (bytes, _) = owned(SHARED);
    let address = bytes.as_ptr();
    let (mut first, kept) = keep(script([data(bytes)]), LIMIT);
    poll_times(&mut first, 1);
    let Poll::Ready(Some(Ok(frame))) = poll(&mut kept.take().unwrap()) else {
        panic!("nothing replayed")
    };
    assert_eq!(frame.data_ref().unwrap().as_ptr(), address);
}

#[test]
fn a_body_that_is_at_its_end_is_replayed_as_empty() {
    #[track_caller]
    fn assert_empty<B: Body + Unpin + 'static>(body: B) {
        let (mut first, kept) = keep(body, 0);
        assert!(matches!(first.state, State::Whole { .. }));
        let mut replay = kept.take().unwrap();
        for body in [&mut first, &mut replay] {
            assert!(body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(0));
            assert_eq!(read(body), Received::default());
        }
    }
    assert_empty(Empty::<Bytes>::new());
    assert_empty(Full::<Bytes>::default());
    assert_empty(String::new());
    assert_empty(script([]));
}

#[test]
fn a_body_made_from_bytes_yields_them() {
    let mut body = ReplayBody::<Script>::from(Bytes::from("made"));
    assert_eq!(body.size_hint().exact(), Some(4));
    assert_eq!(read(&mut body), Received::of("made"));
    assert!(ReplayBody::<Script>::from(Bytes::new()).is_end_stream());
    assert_eq!(
        read(&mut ReplayBody::<Script>::default()),
        Received::default()
    );
}

#[test]
fn a_passed_body_yields_what_the_callers_body_yields() {
    let mut body = ReplayBody::pass(script([data("a"), Pending, data(""), data("b"), Trailers]));
    let received = read(&mut body);
    assert_eq!(
        (&received.data[..], received.trailers),
        (&b"ab"[..], Some(trailers()))
    );
    assert!(read(&mut ReplayBody::pass(script([Error]))).failed);
}

pin_project! {
    /// `!Unpin`, `!Sync`, and its data is not `Bytes`.
    struct Awkward {
        left: Cell<u8>,
        #[pin]
        _pinned: PhantomPinned,
    }
}

impl Body for Awkward {
    type Data = VecDeque<u8>;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let left = self.left.replace(self.left.get().saturating_sub(1));
        Poll::Ready((left > 0).then(|| Ok(Frame::data(VecDeque::from([left])))))
    }
}

#[test]
fn a_body_that_is_not_unpin_and_not_bytes_is_replayed() {
    for polls in 0..5 {
        let body = Awkward {
            left: Cell::new(3),
            _pinned: PhantomPinned,
        };
        let (first, kept) = keep(body, LIMIT);
        let mut first = Box::pin(first);
        for _ in 0..polls {
            let _ = poll(&mut first);
        }
        drop(first);
        let mut replay = Box::pin(kept.take().unwrap());
        assert_eq!(read(&mut replay), Received::of([3, 2, 1]));
    }
}

#[test]
fn bodies_can_be_sent_where_the_callers_can() {
    fn assert_send<T: Send>() {}
    fn assert_unpin<T: Unpin>() {}
    assert_send::<ReplayBody<Awkward>>();
    assert_send::<Kept<Awkward>>();
    assert_unpin::<Kept<Awkward>>();
    assert_unpin::<ReplayBody<Script>>();
}

#[test]
fn debug_shows_no_content() {
    let (bytes, _) = owned(SHARED);
    for body in [
        script([data("hunter2"), data(bytes)]),
        script([data("hunter2")]),
    ] {
        let (mut first, kept) = keep(body, LIMIT);
        poll_times(&mut first, 1);
        let shown = format!("{first:?} {kept:?}");
        drop(first);
        let shown = format!("{shown} {:#?}", kept.take());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let (first, kept) = keep(String::from("hunter2"), LIMIT);
    assert_eq!(
        format!("{first:?} {kept:?}"),
        "ReplayBody(whole) Kept(whole)"
    );
}

#[test]
fn a_replay_taken_while_the_first_send_ends_elsewhere_is_whole_or_refused() {
    let steps: Vec<_> = (0..4u8).map(|n| data(vec![n; SHARED])).collect();
    let expected: Vec<u8> = (0..4u8).flat_map(|n| [n; SHARED]).collect();
    for round in 0..500 {
        let (mut first, kept) = keep(script(steps.clone()), LIMIT);
        let sender = thread::spawn(move || poll_times(&mut first, round % 5));
        for _ in 0..round {
            std::hint::spin_loop();
        }
        match kept.take() {
            Ok(mut replay) => assert_eq!(read(&mut replay).data, expected),
            Err(why) => assert_eq!(why, NotReplayed::BodyStillSending),
        }
        sender.join().unwrap();
    }
}

/// A body whose frames come from elsewhere.
struct Channel(mpsc::UnboundedReceiver<&'static str>);

impl Body for Channel {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<&'static str> {
        self.0
            .poll_recv(cx)
            .map(|text| text.map(|text| Ok(Frame::data(text.into()))))
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_rest_of_a_body_wakes_the_replay_and_not_the_first_send() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (mut first, kept) = keep(Channel(receiver), LIMIT);
    let [one, two] = [(); 2].map(|()| Arc::new(Wakes::default()));
    let poll_as = |body: &mut ReplayBody<Channel>, wakes: &Arc<Wakes>| {
        Pin::new(body).poll_frame(&mut Context::from_waker(&Arc::clone(wakes).into()))
    };
    assert!(poll_as(&mut first, &one).is_pending());
    drop(first);
    let mut replay = kept.take().unwrap();
    assert!(poll_as(&mut replay, &two).is_pending());
    sender.send("late").unwrap();
    assert_eq!((count(&one.0), count(&two.0)), (0, 1));
    drop(sender);
    assert_eq!(read(&mut replay), Received::of("late"));
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Pending),
        1 => Just(data("")),
        6 => any_data(1..40),
        3 => any_data(SHARED - 2..SHARED + 3),
        1 => any_data(8_000..9_000),
    ]
}

fn any_data(len: Range<usize>) -> impl Strategy<Value = Step> {
    (len, any::<u8>()).prop_map(|(len, seed)| {
        let bytes: Vec<_> = (0..len).map(|n| seed.wrapping_add(n as u8)).collect();
        data(bytes)
    })
}

/// What must come of a body that was polled `polls` times and then dropped or kept.
fn model(body: &Script, polls: usize, limit: usize, is_dropped: bool) -> Result<(), NotReplayed> {
    let polled = || body.steps.iter().take(polls);
    if sum(polled()) > limit || body.tells && sum(&body.steps) > limit {
        return Err(NotReplayed::BodyOverLimit);
    }
    if polled().any(|step| matches!(step, Error)) {
        return Err(NotReplayed::BodyFailed);
    }
    let last = polled().last();
    let is_seen_at_end = match body.steps.len() {
        0 => body.tells || polls > 0,
        len if polls == len => {
            matches!(last, Some(Trailers)) || body.tells && !matches!(last, Some(Pending))
        }
        len => polls > len,
    };
    if is_dropped || is_seen_at_end {
        Ok(())
    } else {
        Err(NotReplayed::BodyStillSending)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn any_body_is_replayed_whole_or_refused_for_the_right_reason(
        mut steps in proptest::collection::vec(any_step(), 0..25),
        end in prop_oneof![4 => Just(None), 2 => Just(Some(Trailers)), 1 => Just(Some(Error))],
        tells: bool,
        polls in 0..28usize,
        is_dropped: bool,
        limit in prop_oneof![3 => Just(1 << 20), 2 => 0..20_000usize],
        at_the_limit in prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1))],
    ) {
        steps.extend(end);
        let limit = at_the_limit.map_or(limit, |less| sum(&steps).saturating_sub(less));
        let body = || Script { tells, ..script(steps.clone()) };
        let expected = read(&mut ReplayBody::pass(body()));

        let (mut first, kept) = keep(body(), limit);
        let mut sent = Received::default();
        for _ in 0..polls {
            match poll(&mut first) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => sent.data.extend_from_slice(&data),
                    Err(frame) => sent.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(Some(Err(_))) => sent.failed = true,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        let first = (!is_dropped).then_some(first);
        let outcome = model(&body(), polls, limit, is_dropped);
        let lost = outcome.err().filter(|why| *why != NotReplayed::BodyStillSending);
        prop_assert_eq!(kept.lost(), lost);
        let replay = kept.take().map(|mut replay| read(&mut replay));
        prop_assert_eq!(replay, outcome.map(|()| expected.clone()));

        // And the first send never notices.
        if let Some(mut first) = first {
            let rest = read(&mut first);
            sent.data.extend(rest.data);
            sent.trailers = sent.trailers.or(rest.trailers);
            sent.failed |= rest.failed;
            prop_assert_eq!(sent, expected);
        }
    }
}
