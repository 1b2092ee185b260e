//! Proves P3: dropping any request, the first one too, at any await point neither stops the refresh
//! nor loses its result, nor delays the others.

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;
use http::Version;
use support::World;
use support::poll_then_drop;
use support::post;
use support::settle_down;
use tokio::time::advance;
use tower_token_refresh::Reissue;
use tower_token_refresh::Session;
use tower_token_refresh::reissue_fn;

// shows B92, P3
#[tokio::test]
async fn a_dropped_leader_does_not_abandon_the_refresh() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let leader = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let follower = tokio::spawn(client.get());
    settle_down().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    world.release_reissues();
    assert_eq!(follower.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 1);
    assert_eq!(
        store.access_token().as_deref(),
        Some("a-u-2"),
        "the rotated pair is kept"
    );
}

// shows B93, B97
#[tokio::test]
async fn the_refresh_ends_and_is_kept_when_everybody_has_left() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let requests: Vec<_> = (0..10).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.reissues == 1).await;
    settle_down().await;
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    settle_down().await;
    assert_eq!(session.stats().waiters, 0);
    world.release_reissues();
    settle_down().await;
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let counts = world.counts();
    assert_eq!((counts.reissues, counts.reuses), (1, 0));
}

// shows B94, B95, B96: swept over every await point, of the leader and of a follower.
#[tokio::test]
async fn a_request_may_be_dropped_at_any_await_point() {
    for victim_leads in [true, false] {
        let mut polls = 0;
        loop {
            let world = World::new();
            let session = world.logged_in("u").await;
            let client = world.client(&session);
            world.expire();
            let other = match victim_leads {
                true => None,
                false => Some(tokio::spawn(client.get())),
            };
            let done = poll_then_drop(client.get(), polls).await.is_some();
            if let Some(other) = other {
                assert_eq!(other.await.unwrap().unwrap().status, StatusCode::OK);
            }
            let requests = world.counts().requests;
            settle_down().await;
            assert_eq!(
                world.counts().requests,
                requests,
                "nothing of a dropped request is sent"
            );
            assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
            assert_eq!(world.counts().reuses, 0, "dropped after {polls} polls");
            assert!(world.counts().reissues <= 1, "dropped after {polls} polls");
            assert_eq!(session.stats().waiters, 0);
            if done {
                assert!(polls > 1, "the sweep met some await points");
                break;
            }
            polls += 1;
            assert!(polls < 100, "it never ends");
        }
    }
}

// shows P3 for what the user calls: login, refresh, adopt, logout.
#[tokio::test]
async fn a_call_of_the_session_may_be_dropped_at_any_await_point() {
    for call in ["login", "refresh", "adopt", "logout"] {
        for polls in 0..12 {
            let world = World::new();
            let session = world.logged_in("u").await;
            let tokens = world.tokens("u");
            let handle = session.clone();
            let future = async move {
                match call {
                    "login" => handle.login(tokens).await,
                    "refresh" => handle.refresh().await,
                    "adopt" => handle.adopt(tokens).await,
                    _ => handle.logout().await,
                }
            };
            poll_then_drop(future, polls).await;
            settle_down().await;
            let answer = world.client(&session).get().await.unwrap();
            let logged_out = call == "logout" && polls > 0;
            let expected = if logged_out {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::OK
            };
            assert_eq!(
                answer.status, expected,
                "{call} dropped after {polls} polls"
            );
            assert_eq!(world.counts().reuses, 0);
        }
    }
}

// shows P3, P13: a login that is dropped while it is saved is a login all the same.
#[tokio::test(start_paused = true)]
async fn a_login_dropped_during_its_save_is_used_and_saved_later() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.hold_writes();
    let login = session.login(world.tokens("u"));
    assert!(poll_then_drop(login, 3).await.is_none());
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(store.access_token(), None);
    store.writes.add_permits(10);
    let mut status = session.subscribe();
    let is_saved = status.wait_for(|status| format!("{status:?}").contains("saved: true"));
    support::within(is_saved).await.unwrap();
    assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
}

tokio::task_local! {
    static OF_THE_REQUEST: ();
}

// shows B100: who starts a refresh gives it neither its own context nor its own deadline, nor its runtime to the
// next one.
#[tokio::test(start_paused = true)]
async fn nothing_of_the_request_that_starts_a_refresh_is_a_part_of_it() {
    let world = World::new();
    let (reissue, contexts) = (world.reissue(), Arc::new(Mutex::new(Vec::new())));
    let (reissue, noted) = (Arc::new(reissue), contexts.clone());
    let session = Session::builder(reissue_fn(move |request| {
        let is_seen = OF_THE_REQUEST.try_with(|()| ()).is_ok();
        noted.lock().unwrap().push(is_seen);
        let reissue = reissue.clone();
        async move { reissue.reissue(request).await }
    }));
    let session = session.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let client = world.client(&session);
    for cycle in 1..=2 {
        world.expire();
        world.hold_reissues();
        let mut call = post(&format!("/call/{cycle}"), "");
        *call.version_mut() = Version::HTTP_2;
        let second = "1S".parse().unwrap();
        call.headers_mut().insert("grpc-timeout", second);
        // Longer than the first one may wait.
        let brief = tokio::spawn(OF_THE_REQUEST.scope((), client.send(call)));
        world.until(|counts| counts.reissues == cycle).await;
        let patient = tokio::spawn(client.get());
        let why = brief.await.unwrap().unwrap().why.unwrap();
        assert!(why.is_wait_timeout(), "{why}");
        advance(Duration::from_secs(5)).await;
        world.release_reissues();
        assert_eq!(patient.await.unwrap().unwrap().status, StatusCode::OK);
        world.has_reissued(cycle);
    }
    assert_eq!(*contexts.lock().unwrap(), [false, false]);
}
