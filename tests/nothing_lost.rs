//! Proves P10: a response is never swallowed, a body never sent again empty or in part.

mod support;

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Body;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use support::Answer;
use support::Client;
use support::World;
use support::post;
use support::read;
use tokio::sync::mpsc;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;
use tower::util::ServiceFn;
use tower_token_refresh::BoxError;
use tower_token_refresh::Classify;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ReplaySafe;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::Verdict;
use tower_token_refresh::classify_fn;

type Sent = Request<ReplayBody<Full<Bytes>>>;

fn layer(session: &Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap()
}

/// A body of these pieces, whose length is not known beforehand.
fn stream_of(
    pieces: &[&'static str],
) -> impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + use<> {
    let frames: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
        .collect();
    StreamBody::new(stream::iter(frames))
}

async fn send<B>(world: &World, session: &Session, limit: usize, body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let service = layer(session).replay_limit(limit).layer(world.api());
    let request = Request::post(format!("{}/echo", support::ORIGIN))
        .body(body)
        .unwrap();
    read(service.oneshot(request).await.unwrap()).await.unwrap()
}

// shows B110, B111, B117
#[tokio::test]
async fn the_replay_is_the_same_request_with_another_token() {
    let world = World::new();
    let session = world.logged_in("u").await;
    world.expire();
    let mut request = post("/echo?q=1", "the body");
    request
        .headers_mut()
        .insert("x-trace", "7".parse().unwrap());
    let answer = world.client(&session).send(request).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "the body")
    );
    let seen = world.seen();
    assert_eq!(
        (&seen[0].method, &seen[0].uri),
        (&Method::POST, &seen[1].uri)
    );
    assert_eq!(
        (&seen[0].method, &seen[0].body),
        (&seen[1].method, &seen[1].body)
    );
    assert_ne!(seen[0].token, seen[1].token);
}

// shows B110: headers and extensions too.
#[tokio::test]
async fn the_replay_has_the_same_headers_and_extensions() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let api = {
        let heads = heads.clone();
        service_fn(move |request: Sent| {
            let (mut head, _) = request.into_parts();
            head.headers.remove("authorization");
            heads
                .lock()
                .unwrap()
                .push((head.headers.clone(), head.extensions.get::<u8>().copied()));
            let status = 200 + 201 * u16::from(heads.lock().unwrap().len() == 1);
            ready(
                Response::builder()
                    .status(status)
                    .body(Full::<Bytes>::default()),
            )
        })
    };
    let session = World::new().logged_in("u").await;
    let mut request = post("/", "x");
    request.headers_mut().append("x-a", "1".parse().unwrap());
    request.headers_mut().append("x-a", "2".parse().unwrap());
    request.extensions_mut().insert(7_u8);
    let answer = Client::new(layer(&session).layer(api))
        .send(request)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[0], heads[1]);
    assert_eq!(
        (heads[0].0.get_all("x-a").iter().count(), heads[0].1),
        (2, Some(7))
    );
}

// shows B111, S13
#[tokio::test]
async fn a_streamed_body_is_sent_again_whole() {
    for limit in [13, 1000] {
        let world = World::new();
        let session = world.logged_in("u").await;
        world.expire();
        let answer = send(
            &world,
            &session,
            limit,
            stream_of(&["one ", "two ", "three"]),
        )
        .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::OK, "one two three")
        );
    }
}

// shows B113, B114, B115: over the limit the send goes on, the answer is the server's own, and the
// token is fresh for the next request.
#[tokio::test]
async fn a_body_over_the_limit_is_sent_once_and_the_token_is_refreshed_all_the_same() {
    let world = World::new();
    let session = world.logged_in("u").await;
    world.expire();
    let answer = send(&world, &session, 12, stream_of(&["one ", "two ", "three"])).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::UNAUTHORIZED, "the server's own words")
    );
    let why = answer.why.unwrap();
    assert!(
        why.is_not_replayed() && why.to_string().contains("larger"),
        "{why}"
    );
    assert_eq!(world.seen()[0].body, b"one two three");
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!((world.counts().requests, world.counts().reissues), (2, 1));
}

// shows pitfall 8: a body that is still being sent is not sent again.
#[tokio::test]
async fn a_body_that_is_still_being_sent_is_not_sent_again() {
    let (keep, mut kept) = mpsc::unbounded_channel();
    let api = service_fn(move |request: Request<ReplayBody<_>>| {
        keep.send(request.into_body()).unwrap();
        ready(
            Response::builder()
                .status(401)
                .body(Full::<Bytes>::from("early")),
        )
    });
    let session = World::new().logged_in("u").await;
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post(format!("{}/", support::ORIGIN))
        .body(body)
        .unwrap();
    let response = layer(&session).layer(api).oneshot(request).await.unwrap();
    let answer = read(response).await.unwrap();
    assert_eq!(answer.body, "early");
    assert!(answer.why.unwrap().to_string().contains("still being sent"));
    assert!(support::within(kept.recv()).await.is_some() && kept.try_recv().is_err());
    assert_eq!(session.stats().reissues, 1);
}

/// A body of two pieces and then an error, or nothing more.
struct Broken {
    pieces: Vec<&'static str>,
    hangs: bool,
}

impl Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.pieces.pop() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(Some(Err("cut off".into()))),
        }
    }
}

type Broke = Result<Response<Broken>, http::Error>;

fn rejecting(hangs: bool) -> ServiceFn<impl FnMut(Sent) -> Ready<Broke> + Clone> {
    service_fn(move |_: Sent| {
        let pieces = vec!["words", "own "];
        ready(
            Response::builder()
                .status(401)
                .body(Broken { pieces, hangs }),
        )
    })
}

// shows B116 and the bad input "a server that closes in the middle of a 401's body".
#[tokio::test]
async fn a_rejection_that_is_cut_off_is_returned_with_its_pieces_and_its_error() {
    let session = World::new().logged_in("u").await;
    let service = layer(&session).layer(rejecting(false));
    let response = service.oneshot(post("/", "x")).await.unwrap();
    assert!(
        response
            .extensions()
            .get::<tower_token_refresh::RefreshError>()
            .unwrap()
            .is_not_replayed()
    );
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "own words");
    assert_eq!(
        body.frame().await.unwrap().unwrap_err().to_string(),
        "cut off"
    );
    assert!(body.frame().await.is_none());
    support::settle_down().await;
    assert_eq!(
        session.stats().reissues,
        1,
        "refreshed for the next request"
    );
}

// shows P10: all of it, trailers included.
#[tokio::test]
async fn a_rejection_that_is_returned_has_its_trailers() {
    let world = World::new();
    let session = world.logged_in("u").await;
    world.script(support::Script::Refuse);
    let api = service_fn(|_: Sent| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "7".parse().unwrap());
        let frames = [Frame::data(Bytes::from("words")), Frame::trailers(trailers)];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        ready(Response::builder().status(401).body(body))
    });
    let service = layer(&session).layer(api);
    let response = service.oneshot(post("/", "x")).await.unwrap();
    // Or a server that passes it on over HTTP/1 would leave the trailers out.
    assert_eq!(response.body().size_hint().exact(), None);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-checksum"], "7");
    assert_eq!(body.to_bytes(), "words");
}

// shows the bad input "drips it byte by byte", and P14: one second at most.
#[tokio::test(start_paused = true)]
async fn a_rejection_that_does_not_end_is_handed_on_after_a_second() {
    let session = World::new().logged_in("u").await;
    let service = layer(&session).layer(rejecting(true));
    let begun = tokio::time::Instant::now();
    let response = service.oneshot(post("/", "x")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let first = response.into_body().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "own words");
}

// shows P9: the look at the body, and the reading of the rejection, have the second together.
#[tokio::test(start_paused = true)]
async fn a_rejection_that_is_looked_at_is_held_no_longer() {
    let session = World::new().logged_in("u").await;
    let codes = ErrorCodes::json("/code").expired("T-002");
    let layer = layer(&session).classify(codes.or(DefaultClassifier));
    let begun = tokio::time::Instant::now();
    let response = layer.layer(rejecting(true)).oneshot(post("/", "x")).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    let first = response
        .unwrap()
        .into_body()
        .frame()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.into_data().unwrap(), "own words");
}

/// Does as the streams of tokio do: each frame uses of what tokio allots to a task in one go.
async fn empty_frame(uses: usize) -> Option<(Result<Frame<Bytes>, Infallible>, usize)> {
    for _ in 0..uses {
        tokio::task::consume_budget().await;
    }
    Some((Ok(Frame::data(Bytes::new())), uses))
}

// shows P4, P9: time runs on for a body that always has something, and never says anything.
#[tokio::test]
async fn a_rejection_of_frames_without_end_does_not_hold_its_thread() {
    for uses in [0, 1, 2, 8] {
        let session = World::new().logged_in("u").await;
        let api = service_fn(move |_: Sent| {
            let body = StreamBody::new(stream::unfold(uses, empty_frame));
            ready(Response::builder().status(401).body(body))
        });
        let layer = layer(&session).response_limit(1024, Duration::from_millis(1));
        let sending = layer.layer(api).oneshot(post("/", "x"));
        let sending = tokio::time::timeout(Duration::from_secs(30), sending);
        let response = sending.await.expect("it ends").unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
}

// shows P9: a request that is done keeps nothing, also where its future is kept.
#[tokio::test]
async fn what_was_kept_is_given_back_when_the_answer_is_there() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let layer = layer(&session).total_replay_limit(10);
    let mut service = layer.layer(world.api());
    let request = || {
        let body = stream_of(&["01234", "56789"]).boxed_unsync();
        let uri = format!("{}/", support::ORIGIN);
        Request::post(uri).body(body).unwrap()
    };
    type Sent = Request<UnsyncBoxBody<Bytes, Infallible>>;
    ServiceExt::<Sent>::ready(&mut service).await.unwrap();
    let mut done = Box::pin(service.call(request()));
    assert_eq!((&mut done).await.unwrap().status(), StatusCode::OK);
    world.expire();
    ServiceExt::<Sent>::ready(&mut service).await.unwrap();
    let answer = service.call(request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "there is room");
}

/// An API that answers its first request with a code, in a rejection or in a success.
fn coded(session: &Session, success: bool) -> Client {
    let calls = Arc::new(Mutex::new(0));
    let api = service_fn(move |_: Sent| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let expired = *calls == 1;
        let body = if expired {
            r#"{"code":"T-002","message":"expired"}"#
        } else {
            "{}"
        };
        let status = if expired && !success { 401 } else { 200 };
        let answer = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        ready(answer.body(Full::<Bytes>::from(body)))
    });
    let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
    let codes = if success { codes.in_success() } else { codes };
    Client::new(layer(session).classify(codes).layer(api))
}

// shows B19, B30
#[tokio::test]
async fn a_code_in_the_body_of_a_rejection_refreshes_the_token() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let answer = coded(&session, false).send(post("/", "x")).await.unwrap();
    assert_eq!(answer.body, "{}");
    assert_eq!(session.stats().replays, 1);
}

/// Takes an answer for a rejection where its status, a header and its body say so together.
#[derive(Clone)]
struct AllThree;

impl Classify for AllThree {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        match status.as_u16() == 419 && headers.contains_key("x-session") {
            true => Verdict::Inspect,
            false => Verdict::Accept,
        }
    }

    fn inspect(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        assert!(status.as_u16() == 419 && headers.contains_key("x-session"));
        match body {
            Some(b"expired") => Verdict::Refresh,
            _ => Verdict::Accept,
        }
    }
}

// shows B19, B30: what is looked at and is none is given back as it was.
#[tokio::test]
async fn a_classifier_may_look_at_the_status_the_headers_and_the_body() {
    for (status, header, body, is_one) in [
        (419, true, "expired", true),
        (419, true, "busy", false),
        (419, false, "expired", false),
        (401, true, "expired", false),
    ] {
        let session = World::new().logged_in("u").await;
        let api = service_fn(move |request: Sent| {
            let is_new = request.headers()["authorization"] == "Bearer a-u-2";
            let answer = Response::builder().status(if is_new { 200 } else { status });
            let answer = match header {
                true => answer.header("x-session", "1"),
                false => answer,
            };
            ready(answer.body(Full::<Bytes>::from(body)))
        });
        let client = Client::new(layer(&session).classify(AllThree).layer(api));
        let answer = client.send(post("/", "x")).await.unwrap();
        assert_eq!(
            (answer.status == StatusCode::OK, &*answer.body),
            (is_one, body)
        );
        assert_eq!(session.stats().reissues, u64::from(is_one));
        assert!(answer.why.is_none());
    }
}

// shows B27, B119: a code inside a 200 may come after processing.
#[tokio::test]
async fn a_code_inside_a_success_is_replayed_only_where_the_caller_says_that_it_is_safe() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let answer = coded(&session, true).send(post("/", "x")).await.unwrap();
    assert!(answer.body.contains("T-002"), "given back whole");
    assert!(answer.why.unwrap().to_string().contains("processed"));
    support::settle_down().await;
    assert_eq!((session.stats().reissues, session.stats().replays), (1, 0));

    // Another login: the token of the first is too fresh.
    session.login(world.tokens("u")).await.unwrap();
    let mut request = post("/", "x");
    request.extensions_mut().insert(ReplaySafe);
    let answer = coded(&session, true).send(request).await.unwrap();
    assert_eq!(answer.body, "{}");
    assert_eq!(session.stats().replays, 1);
}

// shows B26: an answer that is not asked about streams as it comes.
#[tokio::test]
async fn an_accepted_response_is_not_read_by_the_layer() {
    let session = World::new().logged_in("u").await;
    let api = service_fn(|_: Sent| {
        ready(Response::builder().body(Broken {
            pieces: vec![],
            hangs: true,
        }))
    });
    let response = layer(&session)
        .layer(api)
        .oneshot(post("/", "x"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    assert!(futures::poll!(body.frame()).is_pending());
}

// shows B20
#[tokio::test]
async fn a_classifier_that_panics_harms_nobody() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let panicking = |_: StatusCode, _: &HeaderMap| -> Verdict { panic!("a bug in the classifier") };
    let service = layer(&session)
        .classify(classify_fn(panicking))
        .layer(world.api());
    let client = Client::new(service);
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.expire();
    assert_eq!(client.get().await.unwrap().body, "the server's own words");
    assert_eq!(world.counts().reissues, 0);
}

// shows B25
#[tokio::test]
async fn a_transport_error_is_passed_on_and_is_no_rejection() {
    let session = World::new().logged_in("u").await;
    let api = service_fn(|_: Sent| {
        ready(Err::<Response<Full<Bytes>>, _>(std::io::Error::other(
            "reset",
        )))
    });
    let error = layer(&session)
        .layer(api)
        .oneshot(post("/", "x"))
        .await
        .unwrap_err();
    assert_eq!(
        error.downcast_ref::<std::io::Error>().unwrap().to_string(),
        "reset"
    );
    assert_eq!(session.stats().reissues, 0);
}

// shows B118: an error of the replay is the answer.
#[tokio::test]
async fn an_error_of_the_replay_is_passed_on() {
    let session = World::new().logged_in("u").await;
    let calls = Arc::new(Mutex::new(0));
    let api = service_fn(move |_: Sent| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        ready(match *calls {
            1 => Ok(Response::builder()
                .status(401)
                .body(Full::<Bytes>::default())
                .unwrap()),
            _ => Err(std::io::Error::other("reset")),
        })
    });
    let error = layer(&session)
        .layer(api)
        .oneshot(post("/", "x"))
        .await
        .unwrap_err();
    assert!(error.is::<std::io::Error>());
}
