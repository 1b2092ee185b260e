//! Proves P9: everything has a bound, and each bound an outcome with a name.

mod support;

use std::time::Duration;

use http::StatusCode;
use support::Client;
use support::Script;
use support::World;
use support::refresh_error;
use tokio::time::advance;
use tower::Layer;
use tower_token_refresh::FailureStats;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplaySafe;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::Verdict;
use tower_token_refresh::classify_fn;
use tower_token_refresh::reissue_fn;

// shows B74, B79, B80, P9
#[tokio::test]
async fn a_request_is_sent_again_once() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::DeadToken);
    let answer = client.get().await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::UNAUTHORIZED, "the server's own words")
    );
    assert!(answer.why.unwrap().is_not_replayed());
    assert_eq!((world.counts().requests, world.counts().reissues), (2, 1));
    assert!(session.status().is_logged_in(), "the session lives");
}

// shows B79, P2: the rejection of a replay is no reason to refresh once more.
#[tokio::test(start_paused = true)]
async fn a_token_whose_replay_was_rejected_is_too_fresh_to_be_replaced() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::DeadToken);
    client.get().await.unwrap();
    let answer = client.get().await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::UNAUTHORIZED, "the server's own words")
    );
    let why = answer.why.unwrap();
    assert!(why.is_too_fresh() && why.is_transient());
    assert_eq!((world.counts().requests, world.counts().reissues), (3, 1));
    assert_eq!(session.stats().failures, FailureStats::default());
    advance(Duration::from_secs(5)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!((world.counts().requests, world.counts().reissues), (5, 2));
}

// shows B81, S12, S19, P5: a server that rejects everything.
#[tokio::test(start_paused = true)]
async fn a_server_that_rejects_everything_gets_one_reissue_at_once_and_few_later() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    for _ in 0..100 {
        world.script(Script::DeadToken);
    }
    let why = client.get().await.unwrap().why.unwrap();
    assert!(why.is_not_replayed());
    for _ in 0..99 {
        let why = client.get().await.unwrap().why.unwrap();
        assert!(why.is_too_fresh());
    }
    assert_eq!((world.counts().requests, world.counts().reissues), (101, 1));
    for _ in 0..600 {
        advance(Duration::from_secs(1)).await;
        client.get().await.unwrap();
    }
    // After 5 s and as often again until the pauses are longer, then after 8 s, 16 s and so on.
    assert_eq!(world.counts().reissues, 10);
    assert!(session.status().is_logged_in());
}

// shows B81, B82, P9
#[tokio::test(start_paused = true)]
async fn the_sixth_reissue_in_thirty_seconds_is_refused_by_name() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    for reissues in 1..=5 {
        world.expire();
        assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
        assert_eq!(world.counts().reissues, reissues);
    }
    world.expire();
    for _ in 0..100 {
        let why = client.get().await.unwrap().why.unwrap();
        assert!(why.is_reissue_limit());
    }
    assert_eq!(world.counts().reissues, 5);
    advance(Duration::from_secs(30)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 6, "a new window");
}

// shows B83
#[tokio::test]
async fn with_a_limit_of_zero_every_reissue_is_refused() {
    let world = World::new();
    let builder = world.builder().reissue_limit(0, Duration::from_secs(1));
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    let why = world.client(&session).get().await.unwrap().why.unwrap();
    assert!(why.is_reissue_limit());
    assert_eq!(world.counts().reissues, 0);
}

// shows B83: it can be as good as off.
#[tokio::test]
async fn with_the_highest_limit_no_reissue_is_refused() {
    let world = World::new();
    let builder = world.builder();
    let builder = builder.reissue_limit(u32::MAX, Duration::from_secs(3600));
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    for _ in 0..1000 {
        session.refresh().await.unwrap();
    }
    world.has_reissued(1000);
}

// shows B84: what failed has counted as well, and what was adopted takes nothing off.
#[tokio::test(start_paused = true)]
async fn neither_a_failure_nor_an_adoption_makes_room_in_the_window() {
    let world = World::new();
    let builder = world.builder().reissue_limit(2, Duration::from_secs(30));
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.script(Script::Transient);
    assert!(session.refresh().await.unwrap_err().is_transient());
    advance(Duration::from_secs(1)).await;
    session.refresh().await.unwrap();
    for _ in 0..2 {
        assert!(session.refresh().await.unwrap_err().is_reissue_limit());
        session.adopt(world.tokens("u")).await.unwrap();
    }
    advance(Duration::from_secs(28)).await;
    assert!(session.refresh().await.unwrap_err().is_reissue_limit());
    advance(Duration::from_secs(1)).await;
    session.refresh().await.unwrap();
    world.has_reissued(3);
}

// shows B85: all at once, each with the server's own answer.
#[tokio::test]
async fn all_parallel_requests_are_told_of_the_limit() {
    let world = World::new();
    let builder = world.builder().reissue_limit(1, Duration::from_secs(3600));
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let client = world.client(&session);
    session.refresh().await.unwrap();
    // One that is accepted is no longer too fresh to be replaced.
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.expire();
    world.hold_answers();
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.rejections == 100).await;
    world.release_answers(1 << 20);
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!(answer.body, "the server's own words");
        assert!(answer.why.unwrap().is_reissue_limit());
    }
    assert_eq!((world.counts().reissues, world.counts().requests), (1, 101));
    assert!(session.status().is_logged_in());
}

// shows B91: a comparison that never is content costs two sends of each request, and no more reissues than any.
#[tokio::test(start_paused = true)]
async fn a_classifier_that_takes_everything_for_a_rejection_cannot_loop() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let layer = layer.classify(classify_fn(|_, _| Verdict::Refresh));
    let client = Client::new(layer.layer(world.api()));
    for _ in 0..100 {
        let mut request = support::get("/items");
        request.extensions_mut().insert(ReplaySafe);
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "the server was content");
        assert!(answer.why.is_some());
    }
    assert!(world.counts().requests <= 200, "{:?}", world.counts());
    assert!(world.counts().reissues <= 5, "{:?}", world.counts());
    assert!(session.status().is_logged_in());
}

// shows S9, P9
#[tokio::test]
async fn who_comes_when_too_many_wait_is_told_at_once() {
    let world = World::new();
    let session = world.builder().waiter_limit(3).build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    world.hold_reissues();
    let rejected: Vec<_> = (0..2).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.rejections == 2).await;
    world.release_answers(2);
    world.until(|counts| counts.reissues == 1).await;
    let held = tokio::spawn(client.get());
    support::settle_down().await;
    assert_eq!(session.stats().waiters, 3);
    let error = client.get().await.unwrap_err();
    assert!(refresh_error(&error).is_waiter_limit(), "nothing was sent");
    world.release_reissues();
    world.release_answers(10);
    for request in rejected.into_iter().chain([held]) {
        assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    }
}

// shows P10, and the limit on kept bytes.
#[tokio::test]
async fn the_limits_of_a_layer_can_be_set() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let client = Client::new(
        layer
            .response_limit(4, Duration::from_secs(1))
            .layer(world.api()),
    );
    world.expire();
    let answer = client.get().await.unwrap();
    assert_eq!(
        answer.body, "the server's own words",
        "whole, though longer than the limit"
    );
    assert!(answer.why.unwrap().is_not_replayed());
    assert_eq!(
        client.get().await.unwrap().status,
        StatusCode::OK,
        "it was refreshed all the same"
    );
}

// shows B141: what is wrong is said when it is built.
#[tokio::test]
async fn durations_of_zero_and_absurd_ones_are_refused_by_name() {
    let builder = || Session::builder(reissue_fn(|_| async { Err(ReissueError::refused("no")) }));
    let second = Duration::from_secs(1);
    for bad in [Duration::ZERO, Duration::MAX] {
        for (builder, name) in [
            (builder().reissue_timeout(bad), "reissue_timeout"),
            (builder().store_timeout(bad), "store_timeout"),
            (builder().wait_timeout(bad), "wait_timeout"),
            (builder().refresh_ahead(bad), "refresh_ahead"),
            (builder().reissue_limit(5, bad), "reissue_limit"),
            (builder().cool_down(bad, second), "cool_down"),
            (builder().cool_down(second, bad), "cool_down"),
        ] {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
    let twisted = builder().cool_down(second * 2, second).build().unwrap_err();
    assert!(twisted.to_string().contains("longer"));
    assert!(
        builder()
            .waiter_limit(0)
            .build()
            .unwrap_err()
            .to_string()
            .contains("waiter_limit")
    );
    assert!(builder().header("no header", "Bearer").build().is_err());
}
