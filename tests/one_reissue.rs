//! Proves P1 and P2: any number of rejections of one generation, parallel or late, lead to one
//! reissue, and everybody is sent again with the new token.

mod support;

use futures::future::join_all;
use http::StatusCode;
use support::Client;
use support::World;
use support::get;
use tower::ServiceBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::WithoutToken;

async fn all_ok(client: &Client, n: usize) {
    for answer in join_all((0..n).map(|_| client.get())).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
}

// shows B1, B2
#[tokio::test]
async fn a_good_token_is_put_on_each_request_and_nothing_else_happens() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    all_ok(&client, 3).await;
    assert!(
        world
            .seen()
            .iter()
            .all(|seen| seen.token.as_deref() == Some("a-u-1"))
    );
    assert_eq!((world.counts().requests, world.counts().reissues), (3, 0));
    assert_eq!(session.stats().reissues, 0);
}

// shows B31, B32, P1
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn parallel_rejections_lead_to_one_reissue() {
    for n in [1, 2, 10, 100, 1000] {
        let world = World::new();
        let session = world.logged_in("u").await;
        let client = world.client(&session);
        world.expire();
        world.hold_reissues();
        let requests = (0..n).map(|_| tokio::spawn(client.get()));
        let requests: Vec<_> = requests.collect();
        world.until(|counts| counts.reissues == 1).await;
        world.release_reissues();
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
        }
        let counts = world.counts();
        assert_eq!((counts.reissues, counts.reuses), (1, 0), "N = {n}");
        assert!(counts.requests <= 2 * n, "N = {n}: {counts:?}");
        assert_eq!(session.stats().reissues, 1);
    }
}

// shows P1, B80: everybody has met the rejection before the reissue is answered.
#[tokio::test]
async fn each_request_is_sent_twice_and_no_more() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    world.hold_reissues();
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.rejections == 100).await;
    world.release_answers(1 << 20);
    world.until(|counts| counts.reissues == 1).await;
    world.release_reissues();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(world.counts().requests, 200);
    assert_eq!(session.stats().replays, 100);
}

// shows B34, P2
#[tokio::test]
async fn a_late_rejection_is_sent_again_without_a_reissue() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.hold_answers();
    world.expire();
    let late = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.refresh().await.unwrap();
    world.release_answers(10);
    assert_eq!(late.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 1);
    assert_eq!(session.stats().late_rejections, 1);
}

// shows B37
#[tokio::test]
async fn later_cycles_behave_as_the_first() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    for cycle in 1..=3 {
        world.expire();
        all_ok(&client, 10).await;
        assert_eq!(world.counts().reissues, cycle);
    }
    assert_eq!(world.counts().reuses, 0);
}

// shows B33, B14: what comes while a refresh after a rejection runs waits for it.
#[tokio::test]
async fn requests_that_come_during_the_refresh_carry_the_new_token_at_once() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let first = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let during: Vec<_> = (0..10).map(|_| tokio::spawn(client.get())).collect();
    support::settle_down().await;
    assert_eq!(world.counts().requests, 1, "they are not sent yet");
    assert_eq!(session.stats().waiters, 11);
    world.release_reissues();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
    for request in during {
        assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(
        world.counts().requests,
        12,
        "the first twice, the others once"
    );
    assert_eq!(session.stats().waiters, 0);
}

// shows B38
#[tokio::test]
async fn a_refresh_by_hand_and_one_after_a_rejection_are_one() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let by_hand = tokio::spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    world.until(|counts| counts.reissues == 1).await;
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    world.release_reissues();
    by_hand.await.unwrap().unwrap();
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 1);
}

// shows B38, the other way round.
#[tokio::test]
async fn a_refresh_by_hand_joins_the_one_after_a_rejection() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let by_hand = tokio::spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    support::settle_down().await;
    world.release_reissues();
    by_hand.await.unwrap().unwrap();
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 1);
}

// shows B41: a refresh by hand is not satisfied with what was just read from the store.
#[tokio::test]
async fn a_refresh_by_hand_of_a_session_that_is_not_loaded_yet_reissues() {
    let world = World::new();
    let (_, session) = world.stored(Some(world.tokens("u")));
    session.refresh().await.unwrap();
    assert_eq!(world.counts().reissues, 1);
    assert_eq!(session.token().await.unwrap().expose(), "a-u-2");
}

// shows B39, B63
#[tokio::test]
async fn sessions_do_not_share_a_refresh_and_clones_of_one_do() {
    let world = World::new();
    let (one, other) = (world.logged_in("one").await, world.logged_in("other").await);
    world.expire();
    let clients = [
        world.client(&one),
        world.client(&one.clone()),
        world.client(&other),
    ];
    let answers = join_all(clients.iter().map(Client::get)).await;
    let users: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().user)
        .collect();
    assert_eq!(users, ["one", "one", "other"]);
    assert_eq!(world.counts().reissues, 2);
    assert_eq!((one.stats().reissues, other.stats().reissues), (1, 1));
}

// shows B12
#[tokio::test]
async fn a_request_that_opts_out_carries_no_token_and_its_rejection_starts_nothing() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let mut request = get("/public");
    request.extensions_mut().insert(WithoutToken);
    let answer = world.client(&session).send(request).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.seen()[0].token, None);
    assert_eq!(world.counts().reissues, 0);
    assert!(answer.why.is_none());
}

// shows B11: the caller's own header wins, and is neither doubled nor made good.
#[tokio::test]
async fn the_callers_own_authorization_wins() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let mut request = get("/items");
    request
        .headers_mut()
        .insert("authorization", "Bearer mine".parse().unwrap());
    let answer = world.client(&session).send(request).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.seen()[0].token.as_deref(), Some("mine"));
    assert_eq!(world.counts().reissues, 0);
}

// shows B143: it stands in a stack as any layer does.
#[tokio::test]
async fn the_layer_can_be_composed_in_a_service_builder() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let service = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(TokenRefreshLayer::new(support::ORIGIN, session).unwrap())
        .concurrency_limit(1)
        .service(world.api());
    world.expire();
    all_ok(&Client::new(service), 10).await;
    assert_eq!(world.counts().reissues, 1);
}
