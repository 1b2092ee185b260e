//! Proves P1 and P2: any number of rejections of one generation, parallel or late, lead to one
//! reissue, and everybody is sent again with the new token.

mod support;

use std::sync::Arc;
use std::sync::Mutex;

use futures::future::join_all;
use http::Method;
use http::StatusCode;
use http::request::Parts;
use support::Client;
use support::World;
use support::get;
use support::post;
use tower::Layer;
use tower::ServiceBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::WithoutToken;
use tower_token_refresh::select_fn;

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

// shows B33, B139: what comes while a refresh after a rejection runs waits for it.
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
    let seen = world.seen();
    let new = |seen: &support::Seen| seen.token.as_deref() == Some("a-u-2");
    assert!(seen[1..].iter().all(new), "{seen:?}");
    assert_eq!(session.stats().waiters, 0);
}

// shows B36: at each step of bringing in the new pair, a rejection of the old one finds the refresh, or what it
// has brought.
#[tokio::test]
async fn a_rejection_at_any_step_of_the_refresh_starts_no_other() {
    for step in 0..60 {
        let world = World::new();
        let (store, session) = world.logged_in_and_stored("u").await;
        let client = world.client(&session);
        world.expire();
        world.hold_answers();
        world.hold_reissues();
        store.hold_writes();
        let (first, late) = (tokio::spawn(client.get()), tokio::spawn(client.get()));
        world.until(|counts| counts.rejections == 2).await;
        world.release_answers(1);
        world.until(|counts| counts.reissues == 1).await;
        world.release_reissues();
        // The save is held for the first half of the steps.
        for _ in 0..step {
            tokio::task::yield_now().await;
        }
        if step >= 30 {
            store.writes.add_permits(100);
            for _ in 30..step {
                tokio::task::yield_now().await;
            }
        }
        world.release_answers(100);
        support::settle_down().await;
        if step < 30 {
            store.writes.add_permits(100);
        }
        for request in [first, late] {
            let answer = request.await.unwrap().unwrap();
            assert_eq!(answer.status, StatusCode::OK, "step {step}");
        }
        world.has_reissued(1);
        assert_eq!(session.stats().replays, 2, "step {step}");
    }
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

// shows B13, B40: what a request is about decides which session it belongs to, and two of one user with two scopes
// are two.
#[tokio::test]
async fn requests_of_two_scopes_share_neither_a_token_nor_its_refresh() {
    let world = World::new();
    let (read, write) = (
        world.logged_in("read").await,
        world.logged_in("write").await,
    );
    let (reads, writes) = (read.clone(), write.clone());
    let select = select_fn(move |head: &Parts| match head.method {
        Method::GET => Some(reads.clone()),
        _ if head.uri.path().starts_with("/public") => None,
        _ => Some(writes.clone()),
    });
    let layer = TokenRefreshLayer::new(support::ORIGIN, select).unwrap();
    let client = Client::new(layer.layer(world.api()));
    world.expire();
    world.hold_reissues();
    let requests = [
        get("/items"),
        post("/items", "x"),
        get("/items"),
        post("/items", "y"),
    ];
    let requests = requests.map(|request| tokio::spawn(client.send(request)));
    world.until(|counts| counts.reissues == 2).await;
    world.release_reissues();
    let mut users = Vec::new();
    for request in requests {
        users.push(request.await.unwrap().unwrap().user);
    }
    assert_eq!(users, ["read", "write", "read", "write"]);
    world.has_reissued(2);
    assert_eq!((read.stats().reissues, write.stats().reissues), (1, 1));
    let public = client.send(post("/public", "z")).await.unwrap();
    assert_eq!(
        (public.status, public.why.is_none()),
        (StatusCode::UNAUTHORIZED, true)
    );
    assert_eq!(world.seen().last().unwrap().token, None);
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

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Notes that a request has passed here.
fn note<B>(log: &Log, place: &'static str) -> impl Fn(B) -> B + Clone + use<B> {
    let log = log.clone();
    move |request| {
        log.lock().unwrap().push(place);
        request
    }
}

// shows B143: it stands in a stack as any layer does, and the others stay where they are.
#[tokio::test]
async fn the_layers_above_and_below_keep_their_order() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let log = Log::default();
    let service = ServiceBuilder::new()
        .map_request(note(&log, "first"))
        .map_request(note(&log, "second"))
        .layer(TokenRefreshLayer::new(support::ORIGIN, session).unwrap())
        .map_request(note(&log, "third"))
        .map_request(note(&log, "fourth"))
        .service(world.api());
    let client = Client::new(service);
    all_ok(&client, 1).await;
    world.expire();
    all_ok(&client, 1).await;
    let (above, below) = (["first", "second"], ["third", "fourth"]);
    let expected = [above, below, above, below, below].concat();
    assert_eq!(*log.lock().unwrap(), expected);
}

// shows B143, P14: with a place for one above and below, too.
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
