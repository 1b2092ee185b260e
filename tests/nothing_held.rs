//! Proves P14: while it waits, a request holds no lock, no place in the service below, and no
//! connection.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use support::Client;
use support::World;
use support::get;
use support::settle_down;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::limit::ConcurrencyLimitLayer;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::WithoutToken;

fn layer(session: &Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap()
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
