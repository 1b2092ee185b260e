//! Proves P13: a new pair is in the store before anybody uses it, and a store that fails costs
//! nobody the session.

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use support::Store;
use support::World;
use support::refresh_error;
use support::settle_down;
use tokio::sync::oneshot;
use tokio::time::advance;
use tower_token_refresh::BoxError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;
use tower_token_refresh::reissue_fn;

fn saved(session: &Session) -> bool {
    format!("{:?}", session.status()).contains("saved: true")
}

async fn until_saved(session: &Session) {
    let mut status = session.subscribe();
    let is_saved = status.wait_for(|_| saved(session));
    support::within(is_saved).await.unwrap();
}

// shows B77, B124, P13
#[tokio::test]
async fn a_new_pair_is_in_the_store_before_any_waiter_is_released() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    let mut status = session.subscribe();
    status.mark_unchanged();
    world.expire();
    store.hold_writes();
    let request = tokio::spawn(client.get());
    store.until_written(2).await;
    settle_down().await;
    assert!(!request.is_finished());
    assert!(!status.has_changed().unwrap(), "nor is it announced");
    assert_eq!(world.counts().requests, 1);
    store.writes.add_permits(1);
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(store.access_token().as_deref(), Some("a-u-2"));
    assert_eq!(*store.written.borrow(), 2, "written once per refresh");
}

// shows P13 for a login, B125: requests wait for its save.
#[tokio::test]
async fn requests_wait_for_the_save_of_a_login() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.hold_writes();
    let login = support::log_in(&session, world.tokens("u"));
    store.until_written(1).await;
    assert!(!session.status().is_logged_in());
    let request = tokio::spawn(world.client(&session).get());
    let token = tokio::spawn(async move { session.token().await });
    settle_down().await;
    assert_eq!(world.counts().requests, 0);
    assert!(!token.is_finished());
    store.writes.add_permits(1);
    login.await.unwrap().unwrap();
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(token.await.unwrap().unwrap().expose(), "a-u-1");
}

// shows B126, P13
#[tokio::test(start_paused = true)]
async fn a_pair_that_cannot_be_saved_is_used_and_saved_later_and_that_is_told() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    for broken in ["error", "panic"] {
        world.expire();
        store.fail_writes(broken == "error");
        store.panic(broken == "panic");
        assert_eq!(
            client.get().await.unwrap().status,
            StatusCode::OK,
            "{broken}"
        );
        assert!(!saved(&session));
        store.fail_writes(false);
        store.panic(false);
        until_saved(&session).await;
        let token = session.token().await.unwrap();
        assert_eq!(store.access_token().as_deref(), Some(token.expose()));
    }
}

// shows P13: what is unsaved is newer than what the store holds.
#[tokio::test(start_paused = true)]
async fn an_older_pair_in_the_store_is_not_adopted_over_an_unsaved_one() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    store.fail_writes(true);
    for _ in 0..3 {
        world.expire();
        assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    }
    world.has_reissued(3);
    assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_be_saved_says_so_and_counts() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.fail_writes(true);
    let error = session.login(world.tokens("u")).await.unwrap_err();
    assert!(error.is_not_saved() && error.is_store());
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    store.fail_writes(false);
    until_saved(&session).await;
    assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
}

// shows P8, P13: a logout that could not clear the store is made good later.
#[tokio::test(start_paused = true)]
async fn a_logout_that_cannot_clear_the_store_says_so_and_clears_it_later() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    store.fail_writes(true);
    assert!(session.logout().await.unwrap_err().is_store());
    assert!(!session.status().is_logged_in());
    store.fail_writes(false);
    let mut writes = store.written.subscribe();
    writes.mark_unchanged();
    support::within(writes.changed()).await.unwrap();
    settle_down().await;
    assert!(store.tokens().is_none());
}

// shows B4, B5
#[tokio::test]
async fn the_store_is_read_once_for_all_who_come_first() {
    let world = World::new();
    let (store, session) = world.stored(Some(world.tokens("u")));
    let client = world.client(&session);
    for answer in join_all((0..10).map(|_| client.get())).await {
        assert_eq!(answer.unwrap().user, "u");
    }
    assert_eq!(*store.loaded.borrow(), 1);
    client.get().await.unwrap();
    assert_eq!(*store.loaded.borrow(), 1, "and not again");
}

// shows B7
#[tokio::test]
async fn a_store_that_cannot_be_read_fails_the_first_requests_and_the_next_try_again() {
    let world = World::new();
    let (store, session) = world.stored(Some(world.tokens("u")));
    let client = world.client(&session);
    store.fail_loads(true);
    for answer in join_all((0..10).map(|_| client.get())).await {
        let error = answer.unwrap_err();
        assert!(refresh_error(&error).is_store() && refresh_error(&error).is_transient());
    }
    assert_eq!(
        world.counts().requests,
        0,
        "\"cannot say\" is not \"no token\""
    );
    store.fail_loads(false);
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
}

// shows pitfall "cold start": the stored token may be rejected too.
#[tokio::test]
async fn a_stored_token_that_has_expired_is_refreshed() {
    let world = World::new();
    let (_, session) = world.stored(Some(world.tokens("u")));
    world.expire();
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(world.counts().reissues, 1);
}

// shows P13 over P5: a useless answer may bring a new refresh token, which must not be lost.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_comes_with_a_failure_is_kept() {
    let store = Store::new(None);
    let session = Session::builder(reissue_fn(|_| async {
        let rotated = tower_token_refresh::RefreshToken::new("rotated").unwrap();
        Err(ReissueError::unknown("half an answer").with_refresh_token(rotated))
    }))
    .store(store.clone())
    .build()
    .unwrap();
    let tokens = TokenSet::new("access")
        .unwrap()
        .with_refresh_token("first")
        .unwrap();
    session.login(tokens).await.unwrap();
    assert!(session.refresh().await.unwrap_err().is_outcome_unknown());
    let kept = store.tokens().unwrap();
    assert_eq!(kept.refresh_token().unwrap().expose(), "rotated");
    assert_eq!(session.token().await.unwrap().expose(), "access");
    advance(Duration::from_secs(1)).await;
}

// shows P3, P13: a logout that is dropped before the store is cleared clears it all the same.
#[tokio::test(start_paused = true)]
async fn a_logout_dropped_before_the_store_is_cleared_clears_it_all_the_same() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    store.hold_writes();
    let dropped = support::poll_then_drop(session.logout(), 3).await;
    assert!(dropped.is_none());
    store.writes.add_permits(10);
    settle_down().await;
    assert!(store.tokens().is_none());
}

/// A store whose first write is done by a thread that nobody can stop, and takes its time.
#[derive(Clone)]
struct Detached {
    tokens: Arc<Mutex<Option<TokenSet>>>,
    late: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

impl TokenStore for Detached {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(self.tokens.lock().unwrap().clone())
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        let (store, tokens) = (self.clone(), tokens.clone());
        let late = self.late.lock().unwrap().take();
        let write = async move {
            if let Some(late) = late {
                late.await.unwrap();
            }
            *store.tokens.lock().unwrap() = Some(tokens);
        };
        Ok(tokio::spawn(write).await?)
    }

    async fn clear(&self) -> Result<(), BoxError> {
        *self.tokens.lock().unwrap() = None;
        Ok(())
    }
}

// shows P8: a write that was given up, and comes to its end after the next one, is made good.
#[tokio::test(start_paused = true)]
async fn a_write_that_comes_to_its_end_too_late_is_overwritten() {
    let world = World::new();
    let (finish, late) = oneshot::channel();
    let store = Detached {
        tokens: Arc::default(),
        late: Arc::new(Mutex::new(Some(late))),
    };
    let session = world.builder().store(store.clone()).build().unwrap();
    session.login(world.tokens("u")).await.unwrap_err();
    session.logout().await.unwrap();
    finish.send(()).unwrap();
    settle_down().await;
    assert!(store.tokens.lock().unwrap().is_some(), "it was late");
    advance(Duration::from_secs(2)).await;
    settle_down().await;
    assert!(store.tokens.lock().unwrap().is_none());
}

// shows P13: a background save whose runtime is gone is taken up by the next request.
#[test]
fn a_save_that_lost_its_runtime_is_taken_up_by_the_next_request() {
    for without_runtime in [false, true] {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().unwrap()
        };
        let world = World::new();
        let (store, session) = world.stored(None);
        store.fail_writes(true);
        let login = session.login(world.tokens("u"));
        if without_runtime {
            futures::executor::block_on(login).unwrap_err();
        } else {
            runtime().block_on(login).unwrap_err();
        }
        store.fail_writes(false);
        runtime().block_on(async {
            world.client(&session).get().await.unwrap();
            until_saved(&session).await;
        });
        assert_eq!(store.access_token().as_deref(), Some("a-u-1"));
    }
}

// shows P13: two failures in a row are made good as well.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_again_and_again_is_tried_until_it_works() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.fail_writes(true);
    for _ in 0..3 {
        session.login(world.tokens("u")).await.unwrap_err();
        let mut writes = store.written.subscribe();
        let seen = *writes.borrow_and_update();
        let five_more = writes.wait_for(|n| *n >= seen + 5);
        support::within(five_more).await.unwrap();
    }
    store.fail_writes(false);
    until_saved(&session).await;
    assert_eq!(store.access_token().as_deref(), Some("a-u-3"));
}

// shows P13: a save that succeeds says nothing about the tokens that came while it ran.
#[tokio::test(start_paused = true)]
async fn the_save_of_one_login_does_not_stand_for_the_next() {
    let world = World::new();
    let (store, session) = world.stored(None);
    store.hold_writes();
    let first = support::log_in(&session, world.tokens("a"));
    store.until_written(1).await;
    let second = support::log_in(&session, world.tokens("b"));
    settle_down().await;
    store.writes.add_permits(1);
    drop(first.await.unwrap());
    store.until_written(2).await;
    store.fail_writes(true);
    store.writes.add_permits(1);
    assert!(second.await.unwrap().unwrap_err().is_not_saved());
    store.fail_writes(false);
    store.writes.add_permits(10);
    until_saved(&session).await;
    assert_eq!(store.access_token().as_deref(), Some("a-b-2"));
}

// shows P13: the background save does not depend on a runtime that stands still.
#[test]
fn a_save_is_made_good_on_another_runtime_when_the_first_stands_still() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let world = World::new();
    let (store, session) = world.stored(None);
    store.fail_writes(true);
    let (stalled, other) = (runtime(), runtime());
    stalled
        .block_on(session.login(world.tokens("u")))
        .unwrap_err();
    other
        .block_on(session.login(world.tokens("u")))
        .unwrap_err();
    store.fail_writes(false);
    other.block_on(async {
        until_saved(&session).await;
    });
    assert_eq!(store.access_token().as_deref(), Some("a-u-2"));
}
