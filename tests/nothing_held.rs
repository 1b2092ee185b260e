//! Proves P14: while it waits, a request holds no lock, no place in the service below, and no
//! connection.

mod support;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Full;
use support::Client;
use support::World;
use support::get;
use support::settle_down;
use tokio_test::assert_pending;
use tokio_test::assert_ready;
use tokio_test::task;
use tower::Layer;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::limit::ConcurrencyLimitLayer;
use tower_test::mock;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::EndReason;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseFuture;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::WithoutToken;

type Sent = Request<ReplayBody<Full<Bytes>>>;
type Received = Response<Full<Bytes>>;

fn layer(session: &Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap()
}

fn rejection() -> Received {
    Response::builder()
        .status(401)
        .body(Full::default())
        .unwrap()
}

// shows B44, P14: neither the rejected nor the held request keeps the only place below.
#[tokio::test]
async fn a_request_that_waits_holds_no_permit_of_the_service_below() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let service = ServiceBuilder::new()
        .layer(layer(&session))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api());
    let client = Client::new(service);
    world.expire();
    world.hold_reissues();
    let rejected = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let held = tokio::spawn(client.get());
    settle_down().await;
    let mut free = get("/public");
    free.extensions_mut().insert(WithoutToken);
    let answer = client.send(free).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "it got the place");
    world.release_reissues();
    assert_eq!(rejected.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK);
}

// shows B45
#[tokio::test]
async fn a_slow_replay_delays_nobody_else() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    let slow = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    world.release_answers(1);
    world.until(|counts| counts.requests == 2).await;
    let quick = tokio::spawn(client.get());
    world.until(|counts| counts.requests == 3).await;
    assert!(!slow.is_finished());
    world.release_answers(2);
    assert_eq!(quick.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(slow.await.unwrap().unwrap().status, StatusCode::OK);
}

// shows B118: the tower contract, spoken with a mock.
#[tokio::test]
async fn readiness_is_asked_again_for_the_replay() {
    let session = World::new().logged_in("u").await;
    let (inner, mut handle) = mock::pair::<Sent, Received>();
    handle.allow(1);
    let mut service = layer(&session).layer(inner);
    service.ready().await.unwrap();
    let mut future = task::spawn(service.call(get("/")));
    assert_pending!(future.poll());
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer a-u-1");
    respond.send_response(rejection());
    assert_pending!(future.poll());
    settle_down().await;
    assert_pending!(future.poll(), "the mock lets nobody through yet");
    handle.allow(1);
    settle_down().await;
    assert_pending!(future.poll());
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer a-u-2");
    respond.send_response(Response::new(Full::default()));
    assert_eq!(
        assert_ready!(future.poll()).unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn errors_of_readiness_are_passed_on() {
    let session = World::new().logged_in("u").await;
    let (inner, mut handle) = mock::pair::<Sent, Received>();
    let mut service = layer(&session).layer(inner);
    handle.send_error("closed");
    let error = service.ready().await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "closed");
}

type Sending = ResponseFuture<Inner, DefaultClassifier, Full<Bytes>, Full<Bytes>>;
type Inner = mock::Mock<Sent, Received>;

/// A request that was rejected, and whose refresh is done: only readiness is missing for the replay.
async fn rejected(session: &Session) -> (task::Spawn<Sending>, mock::Handle<Sent, Received>) {
    let (inner, mut handle) = mock::pair::<Sent, Received>();
    handle.allow(1);
    let mut service = layer(session).layer(inner);
    service.ready().await.unwrap();
    let mut future = task::spawn(service.call(get("/")));
    assert_pending!(future.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(rejection());
    assert_pending!(future.poll());
    settle_down().await;
    (future, handle)
}

// shows P10: a rejection is not swallowed because the service below can take no second request.
#[tokio::test]
async fn when_the_service_is_not_ready_for_the_replay_the_rejection_is_returned() {
    let session = World::new().logged_in("u").await;
    let (mut future, mut handle) = rejected(&session).await;
    handle.send_error("closed");
    let answer = assert_ready!(future.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why: &RefreshError = answer.extensions().get().unwrap();
    assert!(why.is_not_replayed());
    assert_eq!(why.source().unwrap().to_string(), "closed");
}

// shows P8 at the last moment: a logout while the replay waits for its place.
#[tokio::test]
async fn a_logout_while_the_replay_waits_for_readiness_is_seen() {
    let session = World::new().logged_in("u").await;
    let (mut future, mut handle) = rejected(&session).await;
    assert_pending!(future.poll());
    session.logout().await.unwrap();
    handle.allow(1);
    settle_down().await;
    let answer = assert_ready!(future.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why: &RefreshError = answer.extensions().get().unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
    assert_eq!(session.stats().replays, 0);
}

// shows B99: a deadline above spans both sends.
#[tokio::test(start_paused = true)]
async fn a_timeout_above_the_layer_covers_the_wait() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .layer(layer(&session))
        .service(world.api());
    world.expire();
    world.hold_reissues();
    let error = Client::new(service).get().await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    assert_eq!(session.stats().waiters, 0);
}

// shows P14 for a service that is kept: it gives its place back while its request is held.
#[tokio::test]
async fn a_service_whose_request_is_held_keeps_no_permit_of_the_service_below() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let mut kept = ServiceBuilder::new()
        .layer(layer(&session))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api());
    let client = Client::new(kept.clone());
    world.expire();
    world.hold_reissues();
    let rejected = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut kept);
    let held = ready.await.unwrap().call(get("/items"));
    let mut free = get("/public");
    free.extensions_mut().insert(WithoutToken);
    let answer = tokio::time::timeout(Duration::from_secs(5), client.send(free)).await;
    assert!(answer.is_ok(), "the place is taken");
    world.release_reissues();
    assert_eq!(held.await.unwrap().status(), StatusCode::OK);
    assert_eq!(rejected.await.unwrap().unwrap().status, StatusCode::OK);
    drop(kept);
}

// shows P14: a call that fails at once has no use for the place that its readiness reserved.
#[tokio::test]
async fn a_service_whose_request_was_refused_keeps_no_permit_of_the_service_below() {
    let world = World::new();
    let session = world.session();
    let mut kept = ServiceBuilder::new()
        .layer(layer(&session).require_token())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api());
    let mut other = kept.clone();
    session.logout().await.unwrap();
    let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut kept);
    ready.await.unwrap().call(get("/items")).await.unwrap_err();
    let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut other);
    let ready = tokio::time::timeout(Duration::from_secs(5), ready).await;
    assert!(ready.is_ok(), "the place is taken");
    drop(kept);
}
