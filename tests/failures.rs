//! Proves P5 and the part of P6 about failures that end nothing: an outcome belongs to its attempt,
//! and only the issuer's refusal ends a session.

mod support;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use support::Script;
use support::World;
use tokio::time::advance;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

// shows B48, B49, B50, B52, P5
#[tokio::test(start_paused = true)]
async fn a_failure_reaches_everybody_who_joined_with_one_source_and_the_servers_own_answer() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    world.script(Script::Transient);
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.rejections == 100).await;
    world.release_answers(1 << 20);
    let mut sources = Vec::new();
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!(answer.body, "the server's own words");
        let why = answer.why.unwrap();
        assert!(why.is_transient());
        sources.push(std::ptr::from_ref(why.source().unwrap()).addr());
    }
    sources.dedup();
    assert_eq!(sources.len(), 1);
    let counts = world.counts();
    assert_eq!(
        (counts.reissues, counts.requests),
        (1, 100),
        "and nobody is sent again"
    );
}

// shows B51, B53, B54, B62, P5
#[tokio::test(start_paused = true)]
async fn after_a_transient_failure_nobody_asks_the_issuer_until_the_cool_down_is_over() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Transient);
    for _ in 0..50 {
        assert!(client.get().await.unwrap().why.unwrap().is_transient());
    }
    assert_eq!(world.counts().reissues, 1);
    assert!(session.status().is_logged_in());
    advance(Duration::from_secs(1)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.has_reissued(2);
}

// shows B60
#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::TransientAfter(Duration::from_secs(100)));
    client.get().await.unwrap();
    advance(Duration::from_secs(99)).await;
    client.get().await.unwrap();
    assert_eq!(world.counts().reissues, 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
}

// shows B55, P6: four kinds of failure, and none but the refusal ends the session.
#[tokio::test(start_paused = true)]
async fn only_a_refusal_ends_the_session() {
    for (script, pause) in [
        (Script::Transient, 1),
        (Script::Misconfigured, 60),
        (Script::Unknown, 10),
    ] {
        let world = World::new();
        let session = world.logged_in("u").await;
        let client = world.client(&session);
        world.expire();
        world.script(script);
        let why = client.get().await.unwrap().why.unwrap();
        assert!(!why.is_session_ended(), "{why}");
        assert!(session.status().is_logged_in());
        advance(Duration::from_secs(pause)).await;
        assert_eq!(
            client.get().await.unwrap().status,
            StatusCode::OK,
            "after {pause} s"
        );
    }
}

// shows B87: a failure with a name of its own.
#[tokio::test(start_paused = true)]
async fn the_same_access_token_again_is_a_failure() {
    let world = World::new();
    let session = world.logged_in("u").await;
    world.expire();
    world.script(Script::SameToken);
    let answer = world.client(&session).get().await.unwrap();
    assert!(answer.why.unwrap().is_same_token());
    assert_eq!(
        world.counts().requests,
        1,
        "it is not sent again with the same token"
    );
}

// shows B54: the pause is that of one refresh token, and ends with it.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_adopted_in_a_pause_are_not_in_it() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::TransientAfter(Duration::from_secs(300)));
    client.get().await.unwrap();
    assert!(client.get().await.unwrap().why.unwrap().is_transient());
    session.adopt(world.tokens("u")).await.unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.expire();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.has_reissued(2);
}

// shows B129
#[tokio::test(start_paused = true)]
async fn a_failure_is_not_written_to_the_store() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    for script in [Script::Transient, Script::Misconfigured, Script::SameToken] {
        world.expire();
        world.script(script);
        assert!(client.get().await.unwrap().why.is_some());
        advance(Duration::from_secs(60)).await;
    }
    assert_eq!(world.counts().reissues, 3);
    assert_eq!(*store.written.borrow(), 1, "the login");
    assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
}

// shows B54: with another login it is over, and so with a logout.
#[tokio::test(start_paused = true)]
async fn a_login_ends_the_cool_down() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::TransientAfter(Duration::from_secs(300)));
    client.get().await.unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);

    world.script(Script::TransientAfter(Duration::from_secs(300)));
    session.refresh().await.unwrap_err();
    session.logout().await.unwrap();
    let why = client.get().await.unwrap().why.unwrap();
    assert!(why.is_session_ended(), "and not what was before: {why}");
    assert!(session.refresh().await.unwrap_err().is_session_ended());
}

// shows B63
#[tokio::test(start_paused = true)]
async fn a_failure_of_one_session_does_not_touch_another() {
    let world = World::new();
    let (one, other) = (world.logged_in("one").await, world.logged_in("other").await);
    world.expire();
    world.script(Script::Refuse);
    assert!(world.client(&one).get().await.unwrap().why.is_some());
    let answers = join_all((0..3).map(|_| world.client(&other).get())).await;
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status == StatusCode::OK)
    );
}

// shows B139
#[tokio::test(start_paused = true)]
async fn a_session_counts_what_it_does() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    let scenes = [
        None,
        Some(Script::Transient),
        Some(Script::Misconfigured),
        Some(Script::Unknown),
    ];
    for script in scenes {
        world.expire();
        script.into_iter().for_each(|script| world.script(script));
        client.get().await.unwrap();
        advance(Duration::from_secs(61)).await;
    }
    store.fail_loads(true);
    client.get().await.unwrap();
    store.fail_loads(false);
    advance(Duration::from_secs(61)).await;
    world.script(Script::Refuse);
    client.get().await.unwrap();
    let stats = session.stats();
    assert_eq!(
        (stats.reissues, stats.replays, stats.adopted, stats.ends),
        (5, 1, 0, 1)
    );
    assert_eq!((stats.waiters, stats.late_rejections), (0, 0));
    let failures = stats.failures;
    assert_eq!(
        (failures.transient, failures.misconfigured, failures.unknown),
        (1, 1, 1)
    );
    assert_eq!(
        (failures.store, failures.refused, failures.other),
        (1, 1, 0)
    );
}

// shows B139: what others have brought, who is waiting, and whose rejection came late.
#[tokio::test]
async fn a_session_counts_what_it_gets_without_a_reissue_too() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    let late = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.adopt(world.tokens("u")).await.unwrap();
    world.release_answers(100);
    assert_eq!(late.await.unwrap().unwrap().status, StatusCode::OK);
    let stats = session.stats();
    assert_eq!((stats.reissues, stats.adopted), (0, 1));
    assert_eq!((stats.replays, stats.late_rejections), (1, 1));

    world.expire();
    world.hold_reissues();
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.reissues == 1).await;
    support::settle_down().await;
    assert_eq!(session.stats().waiters, 3);
    world.release_reissues();
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().unwrap().status, StatusCode::OK);
    }
    let stats = session.stats();
    assert_eq!((stats.waiters, stats.reissues, stats.ends), (0, 1, 0));
}

/// A reissuer that needs no refresh token, and whose issuer is busy.
struct Busy(Arc<AtomicUsize>);

impl Reissue for Busy {
    async fn reissue(&self, _: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(ReissueError::transient("busy").with_retry_after(Duration::from_secs(100)))
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }
}

// shows P5 for the first token of a session without a login.
#[tokio::test(start_paused = true)]
async fn a_first_token_that_cannot_be_had_is_followed_by_a_cool_down_too() {
    let asked = Arc::new(AtomicUsize::new(0));
    let session = Session::builder(Busy(asked.clone())).build().unwrap();
    for _ in 0..20 {
        assert!(session.token().await.unwrap_err().is_transient());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    advance(Duration::from_secs(100)).await;
    session.token().await.unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
