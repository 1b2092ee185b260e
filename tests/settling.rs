//! Proves P4: failure, panic, deadline, a runtime that shuts down or is no longer driven, no runtime
//! at all: every waiter gets an answer.

mod support;

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use http::StatusCode;
use support::Script;
use support::Store;
use support::World;
use support::refresh_error;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio::time::advance;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::reissue_fn;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A session whose deadlines are short, for the tests that cannot pause the clock.
fn hasty(world: &World) -> Session {
    let brief = Duration::from_millis(20);
    world
        .builder()
        .reissue_timeout(brief)
        .store_timeout(brief)
        .cool_down(brief, brief)
        .build()
        .unwrap()
}

// shows B47, B49, P4
#[tokio::test]
async fn a_reissuer_that_panics_settles_everybody() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Panic);
    for answer in join_all((0..10).map(|_| client.get())).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.why.unwrap().is_outcome_unknown());
    }
    assert_eq!(world.counts().reissues, 1);
    assert_eq!(session.stats().failures.unknown, 1);
}

// shows B61, P4
#[tokio::test(start_paused = true)]
async fn a_reissue_that_is_never_answered_settles_everybody_at_its_deadline() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Hang);
    let begun = Instant::now();
    for answer in join_all((0..10).map(|_| client.get())).await {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::UNAUTHORIZED, "the server's own words")
        );
        assert!(answer.why.unwrap().is_outcome_unknown());
    }
    assert_eq!(begun.elapsed().as_secs(), 10);
}

// shows P4: a waiter's own limit.
#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_wait_timeout() {
    let world = World::new();
    let session = world
        .builder()
        .wait_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let begun = Instant::now();
    let rejected = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let held = client.get().await.unwrap_err();
    assert!(
        refresh_error(&held).is_wait_timeout(),
        "nothing was sent: {held}"
    );
    let rejected = rejected.await.unwrap().unwrap();
    assert!(rejected.why.unwrap().is_wait_timeout());
    assert_eq!(begun.elapsed().as_secs(), 2);
    world.release_reissues();
    assert_eq!(
        client.get().await.unwrap().status,
        StatusCode::OK,
        "the refresh went on"
    );
    assert_eq!(world.counts().reissues, 1);
}

// shows P4
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_settles_everybody() {
    let world = World::new();
    let store = Store::new(None);
    store.hold_loads();
    let session = world.builder().store(store.clone()).build().unwrap();
    let client = world.client(&session);
    for answer in join_all((0..10).map(|_| client.get())).await {
        assert!(refresh_error(&answer.unwrap_err()).is_store());
    }
    assert_eq!(*store.loaded.borrow(), 1);
}

// shows B98, P4
#[test]
fn a_runtime_that_shuts_down_settles_those_who_wait_on_another() {
    let world = World::new();
    let session = hasty(&world);
    let client = world.client(&session);
    let other = runtime();
    other.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    let first = runtime();
    first.block_on(async {
        tokio::spawn(client.get());
        world.until(|counts| counts.reissues == 1).await;
    });
    let waiting = other.spawn(client.get());
    other.block_on(support::settle_down());
    drop(first);
    let answer = other.block_on(waiting).unwrap().unwrap();
    assert_eq!(
        answer.status,
        StatusCode::UNAUTHORIZED,
        "it was held back, and the server decided"
    );
    assert_eq!(session.stats().failures.unknown, 1);
}

// shows P4: the attempt sits on a runtime that nobody drives, and everybody waits elsewhere.
#[test]
fn a_runtime_that_is_no_longer_driven_delays_others_no_longer_than_the_deadline() {
    let world = World::new();
    let session = hasty(&world);
    let client = world.client(&session);
    let (stalled, other) = (runtime(), runtime());
    other.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    stalled.block_on(async {
        tokio::spawn(client.get());
        world.until(|counts| counts.reissues == 1).await;
    });
    world.release_reissues();
    let answer = other.block_on(client.get()).unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    // After the quarantine the next one starts anew, with another gate.
    other.block_on(async {
        loop {
            let answer = client.get().await.unwrap();
            if answer.status == StatusCode::OK {
                break;
            }
            assert!(answer.why.unwrap().is_outcome_unknown());
            tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    });
    assert_eq!(world.counts().reuses, 0);
}

// shows P4
#[test]
fn without_any_runtime_a_rejection_is_returned_with_its_reason() {
    let world = World::new();
    let session = world.session();
    // A login spawns nothing. But the first request of a session loads the store.
    block_on(session.login(world.tokens("u"))).unwrap();
    let client = world.client(&session);
    assert_eq!(block_on(client.get()).unwrap().status, StatusCode::OK);
    world.expire();
    let answer = block_on(client.get()).unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().to_string().contains("runtime"));
    let answer = runtime().block_on(client.get()).unwrap();
    assert_eq!(answer.status, StatusCode::OK, "no cool-down came of it");
}

// shows P4: a runtime for the session, and requests outside of any.
#[test]
fn a_request_outside_of_any_runtime_uses_the_one_the_session_was_given() {
    let world = World::new();
    let driven = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let session = world
        .builder()
        .runtime(driven.handle().clone())
        .build()
        .unwrap();
    block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    let answer = block_on(world.client(&session).get()).unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

// shows P4: and where that one stands still, the request has a timer of its own.
#[test]
fn a_request_outside_of_any_runtime_does_not_wait_for_ever_for_one_that_stands_still() {
    let world = World::new();
    let stalled = runtime();
    let brief = Duration::from_millis(20);
    let session = world
        .builder()
        .runtime(stalled.handle().clone())
        .wait_timeout(brief)
        .build()
        .unwrap();
    stalled.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    let answer = block_on(world.client(&session).get()).unwrap();
    assert!(answer.why.unwrap().is_wait_timeout());
}

// shows P4: a login whose store hangs is used from memory when its time is up.
#[tokio::test(start_paused = true)]
async fn a_login_whose_store_hangs_is_used_from_memory_when_its_time_is_up() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.hold_writes();
    let login = support::log_in(&session, world.tokens("u"));
    support::settle_down().await;
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert!(login.await.unwrap().unwrap_err().is_not_saved());
}

// shows P4, P13: a login that nobody polls any more holds nobody up for longer than its deadline.
#[tokio::test(start_paused = true)]
async fn a_login_that_is_not_polled_any_more_holds_nobody_up_for_ever() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.hold_writes();
    let mut login = tokio_test::task::spawn(session.login(world.tokens("u")));
    tokio_test::assert_pending!(login.poll());
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert!(login.await.unwrap_err().is_not_saved());
}

// shows P4, P13: nor does it leave anybody without word of it, where there is no runtime that would drive it.
#[test]
fn a_login_that_nobody_drives_is_told_of_when_its_time_is_up() {
    let world = World::new();
    let store = Store::new(None);
    store.hold_writes();
    let brief = Duration::from_millis(20);
    let builder = world.builder().store(store);
    let builder = builder.store_timeout(brief).reissue_timeout(brief);
    let session = builder.build().unwrap();
    let mut statuses = session.subscribe();
    let mut login = tokio_test::task::spawn(session.login(world.tokens("u")));
    tokio_test::assert_pending!(login.poll());
    assert_eq!(session.status(), SessionStatus::Unloaded, "not yet");
    let told = statuses.wait_for(SessionStatus::is_logged_in);
    let told = runtime().block_on(async { support::within(told).await.map(|told| *told) });
    assert!(
        matches!(told, Ok(SessionStatus::LoggedIn { saved: false, .. })),
        "{told:?}"
    );
}

// shows P3, P6: what comes late is not lost where the issuer refuses the next one for it.
#[test]
fn the_late_tokens_of_an_abandoned_refresh_save_the_session_from_its_refused_successor() {
    let world = World::new();
    let session = world.session();
    let mut paused = Builder::new_current_thread();
    let other = paused.enable_all().start_paused(true).build().unwrap();
    let stalled = runtime();
    other.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    let client = world.client(&session);
    stalled.block_on(async {
        tokio::spawn(client.get());
        world.until(|counts| counts.reissues == 1).await;
    });
    world.script(Script::Refuse);
    other.block_on(async {
        let why = client.get().await.unwrap().why.unwrap();
        assert!(why.is_outcome_unknown(), "{why}");
        advance(Duration::from_secs(10)).await;
    });
    let second = other.spawn(client.get());
    other.block_on(world.until(|counts| counts.reissues == 2));
    world.answer_reissues(1);
    stalled.block_on(support::settle_down());
    world.release_reissues();
    let answer = other.block_on(second).unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((session.stats().adopted, session.stats().ends), (1, 0));
}

// shows P8, P13: a save that comes to its end after a logout is undone.
#[test]
fn a_save_that_was_held_up_past_a_logout_leaves_nothing_in_the_store() {
    let world = World::new();
    let store = Store::new(None);
    let brief = Duration::from_millis(20);
    let builder = world.builder().store(store.clone()).store_timeout(brief);
    let session = builder.build().unwrap();
    let (stalled, other) = (runtime(), runtime());
    other.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    store.hold_writes();
    let client = world.client(&session);
    let entered = stalled.enter();
    let request = tokio::spawn(client.get());
    stalled.block_on(store.until_written(2));
    drop(entered);
    other.block_on(async {
        session.logout().await.unwrap_err();
        store.writes.add_permits(100);
        store.until_written(3).await;
        support::settle_down().await;
    });
    assert!(store.tokens().is_none());
    stalled.block_on(support::settle_down());
    assert!(store.tokens().is_none(), "the late save was not undone");
    assert!(*store.written.borrow() > 3, "there was a late save");
    drop(request);
}

/// A session whose issuer never answers, and a request that waits for it.
fn hopeless(world: &World) -> (Session, support::Client) {
    let session = hasty(world);
    block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    let client = world.client(&session);
    (session, client)
}

// shows P4: timers of a runtime that was entered and is not driven.
#[test]
fn a_request_on_a_runtime_that_was_entered_and_is_not_driven_gets_its_answer() {
    let world = World::new();
    let (_session, client) = hopeless(&world);
    let stalled = runtime();
    let _entered = stalled.enter();
    let why = block_on(client.get()).unwrap().why.unwrap();
    assert!(why.is_transient());
    assert!(!why.is_outcome_unknown(), "the issuer was never asked");
}

// shows P4: a request that moves while it waits, from a runtime that stands still or is gone.
#[test]
fn a_request_that_moves_to_another_runtime_while_it_waits_gets_its_answer() {
    for shut_down in [false, true] {
        let world = World::new();
        let (session, client) = hopeless(&world);
        let (first, other) = (runtime(), runtime());
        let mut request = client.get();
        first.block_on(async {
            while session.stats().waiters == 0 {
                assert!(futures::poll!(&mut request).is_pending());
                tokio::task::yield_now().await;
            }
        });
        if shut_down {
            first.shutdown_background();
        }
        let answer = other.block_on(request).unwrap();
        assert!(answer.why.unwrap().is_outcome_unknown());
    }
}

// shows P4, P15: a session that is used by its own reissuer.
#[test]
fn a_reissuer_that_calls_its_own_session_does_not_wait_for_itself() {
    for call in ["adopt", "refresh", "token", "login", "logout"] {
        let world = World::new();
        let cell = Arc::new(OnceLock::<Session>::new());
        let (session, calls) = (cell.clone(), world.clone());
        let reissue = reissue_fn(move |_| {
            let session = session.get().unwrap().clone();
            let tokens = calls.tokens("u");
            async move {
                let done = match call {
                    "adopt" => session.adopt(tokens).await,
                    "refresh" => session.refresh().await,
                    "token" => session.token().await.map(|_| ()),
                    "login" => session.login(tokens).await,
                    _ => session.logout().await,
                };
                Err(ReissueError::transient(format!("{done:?}")))
            }
        });
        let session = Session::builder(reissue).build().unwrap();
        assert!(cell.set(session.clone()).is_ok());
        let test = runtime();
        test.block_on(async {
            tokio::time::pause();
            session.login(world.tokens("u")).await.unwrap();
            let begun = Instant::now();
            let error = session.refresh().await.unwrap_err();
            let expected = match call {
                "login" => "another login",
                "logout" => "logged out",
                _ => "tried again",
            };
            assert!(error.to_string().contains(expected), "{call}: {error}");
            assert!(begun.elapsed().is_zero(), "{call}");
        });
    }
}

// shows P4: a handle on a runtime that is gone is no runtime.
#[test]
fn a_login_under_the_handle_of_a_runtime_that_is_gone_is_saved() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let gone = runtime();
    let handle = gone.handle().clone();
    drop(gone);
    let _entered = handle.enter();
    block_on(session.login(world.tokens("u"))).unwrap();
    assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
    let answer = block_on(world.client(&session).get()).unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    block_on(session.logout()).unwrap();
    assert!(store.tokens().is_none());
}

// shows P4: a runtime that is entered, and driven by nobody, has timers that never go off.
#[test]
fn a_login_in_a_runtime_that_nobody_drives_returns() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let home = runtime();
        let _entered = home.enter();
        let (world, moment) = (World::new(), Duration::from_millis(50));
        let builder = world.builder().store_timeout(moment);
        let session = builder.reissue_timeout(moment).build().unwrap();
        let login = block_on(session.login(world.tokens("u")));
        let _ = tell.send(login.is_err());
    });
    let is_err = told.recv_timeout(Duration::from_secs(60));
    assert_eq!(is_err, Ok(true), "its save was never driven");
}

// shows P4: the timers of a runtime that was shut down panic; the request that they belonged to does
// not, and still has its deadline.
#[test]
fn a_request_whose_runtime_was_shut_down_while_it_waited_gets_its_answer() {
    let world = World::new();
    let mut home = Builder::new_multi_thread();
    let home = home.worker_threads(1).enable_all().build().unwrap();
    let session = world
        .builder()
        .runtime(home.handle().clone())
        .wait_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    let mut request = world.client(&session).get();
    let first = Builder::new_multi_thread().enable_all().build().unwrap();
    first.block_on(async {
        while session.stats().waiters == 0 {
            assert!(futures::poll!(&mut request).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(futures::poll!(&mut request).is_pending());
    });
    first.shutdown_background();
    let answer = block_on(request).unwrap();
    assert!(answer.why.unwrap().is_wait_timeout());
}
