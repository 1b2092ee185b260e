//! Proves P8: a request is never sent again, and a result never stored or published, across a login,
//! a logout or an end.

mod support;

use http::StatusCode;
use support::World;
use support::refresh_error;
use support::settle_down;
use tower_token_refresh::EndReason;
use tower_token_refresh::SessionStatus;

// shows B68, B70, B73, S4: the late answer of the old login is neither stored nor used.
#[tokio::test]
async fn another_login_during_the_reissue_keeps_the_users_apart() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("a").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let rejected = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let held = tokio::spawn(client.get());
    settle_down().await;
    session.login(world.tokens("b")).await.unwrap();
    world.release_reissues();

    let rejected = rejected.await.unwrap().unwrap();
    assert_eq!(rejected.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        rejected.why.unwrap().end_reason(),
        Some(EndReason::Replaced)
    );
    let held = held.await.unwrap().unwrap_err();
    assert_eq!(
        refresh_error(&held).end_reason(),
        Some(EndReason::Replaced),
        "nothing was sent"
    );
    settle_down().await;
    assert_eq!(client.get().await.unwrap().user, "b");
    assert!(store.access_token().unwrap().starts_with("a-b-"));
    assert_eq!(world.counts().requests, 2);
}

// shows B68, B73
#[tokio::test]
async fn a_logout_during_the_reissue_settles_everybody_and_leaves_nothing_behind() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("a").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let requests: Vec<_> = (0..10).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.reissues == 1).await;
    session.logout().await.unwrap();
    world.release_reissues();
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::LoggedOut));
    }
    settle_down().await;
    assert!(store.tokens().is_none());
    assert_eq!(session.status(), SessionStatus::LoggedOut);
}

// shows B69: the write that lost is undone, by the one that won.
#[tokio::test]
async fn a_logout_during_the_save_of_new_tokens_leaves_the_store_empty() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("a").await;
    let client = world.client(&session);
    world.expire();
    store.hold_writes();
    let request = tokio::spawn(client.get());
    store.until_written(2).await;
    let logout = tokio::spawn({
        let session = session.clone();
        async move { session.logout().await }
    });
    settle_down().await;
    store.writes.add_permits(100);
    logout.await.unwrap().unwrap();
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::LoggedOut));
    settle_down().await;
    assert!(store.tokens().is_none());
}

// shows B70 at the same place.
#[tokio::test]
async fn a_login_during_the_save_of_new_tokens_leaves_the_new_login_in_the_store() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("a").await;
    let client = world.client(&session);
    world.expire();
    store.hold_writes();
    let request = tokio::spawn(client.get());
    store.until_written(2).await;
    let tokens = world.tokens("b");
    let login = support::log_in(&session, tokens);
    settle_down().await;
    store.writes.add_permits(100);
    login.await.unwrap().unwrap();
    assert_eq!(request.await.unwrap().unwrap().user, "");
    settle_down().await;
    assert!(store.access_token().unwrap().starts_with("a-b-"));
    assert_eq!(client.get().await.unwrap().user, "b");
}

// shows P8: what went out bare is not sent with the token of a login that came later.
#[tokio::test]
async fn a_request_that_went_out_bare_is_not_sent_again_after_a_login() {
    let world = World::new();
    let session = world.session();
    let client = world.client(&session);
    world.hold_answers();
    let bare = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.login(world.tokens("b")).await.unwrap();
    world.release_answers(10);
    let answer = bare.await.unwrap().unwrap();
    assert_eq!(
        (answer.status, answer.user.as_str()),
        (StatusCode::UNAUTHORIZED, "")
    );
    assert_eq!(world.counts().requests, 1);
}

// shows B35, B42: but inside one epoch it is.
#[tokio::test]
async fn a_request_that_went_out_bare_is_sent_again_when_tokens_were_adopted() {
    let world = World::new();
    let session = world.session();
    let client = world.client(&session);
    world.hold_answers();
    let bare = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.adopt(world.tokens("a")).await.unwrap();
    world.release_answers(10);
    assert_eq!(bare.await.unwrap().unwrap().user, "a");
    assert_eq!(world.counts().reissues, 0);
    let sent: Vec<_> = world.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!(sent, [None, Some("a-a-1".to_owned())]);
    assert_eq!(session.stats().late_rejections, 1);
}

// shows B42: tokens adopted while a rejection is under way are used.
#[tokio::test]
async fn adopted_tokens_are_used_for_a_rejection_that_comes_late() {
    let world = World::new();
    let session = world.logged_in("a").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.adopt(world.tokens("a")).await.unwrap();
    world.release_answers(10);
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!((world.counts().reissues, session.stats().adopted), (0, 1));
}

// shows B136: what is offered while the issuer refuses is taken.
#[tokio::test]
async fn tokens_offered_for_adoption_during_a_refused_reissue_save_the_session() {
    let world = World::new();
    let session = world.logged_in("a").await;
    let client = world.client(&session);
    world.expire();
    world.script(support::Script::Refuse);
    world.hold_reissues();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let tokens = world.tokens("a");
    let adoption = tokio::spawn({
        let session = session.clone();
        async move { session.adopt(tokens).await }
    });
    settle_down().await;
    world.release_reissues();
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    adoption.await.unwrap().unwrap();
    assert_eq!((session.stats().ends, session.stats().adopted), (0, 1));
}

// shows P8 for adoption: what was offered to one login is not adopted by the next, at none of its steps.
#[tokio::test]
async fn tokens_that_were_offered_to_one_login_are_not_adopted_by_the_next() {
    for step in ["before it is saved", "while it is saved"] {
        let world = World::new();
        let (store, session) = world.logged_in_and_stored("a").await;
        let client = world.client(&session);
        // The first step is behind the gate, which a reissue holds.
        let reissue = (step == "before it is saved").then(|| {
            world.hold_reissues();
            let session = session.clone();
            tokio::spawn(async move { session.refresh().await })
        });
        match reissue {
            Some(_) => world.until(|counts| counts.reissues == 1).await,
            None => store.hold_writes(),
        }
        let adoption = tokio::spawn({
            let (session, tokens) = (session.clone(), world.tokens("a"));
            async move { session.adopt(tokens).await }
        });
        settle_down().await;
        let login = support::log_in(&session, world.tokens("b"));
        settle_down().await;
        match reissue {
            Some(_) => world.release_reissues(),
            None => store.writes.add_permits(100),
        }
        login.await.unwrap().unwrap();
        let error = adoption.await.unwrap().unwrap_err();
        assert_eq!(error.end_reason(), Some(EndReason::Replaced), "{step}");
        settle_down().await;
        assert_eq!(client.get().await.unwrap().user, "b", "{step}");
        assert!(store.access_token().unwrap().starts_with("a-b-"), "{step}");
        assert_eq!(session.stats().adopted, 0, "{step}");
        if let Some(reissue) = reissue {
            let error = reissue.await.unwrap().unwrap_err();
            assert_eq!(error.end_reason(), Some(EndReason::Replaced));
        }
    }
}

#[tokio::test]
async fn after_a_logout_nothing_can_be_adopted() {
    let world = World::new();
    let session = world.logged_in("a").await;
    session.logout().await.unwrap();
    let error = session.adopt(world.tokens("a")).await.unwrap_err();
    assert_eq!(error.end_reason(), Some(EndReason::LoggedOut));
    assert!(!session.status().is_logged_in());
}

// shows P7, P8: the end of one login is no news for a request of the login before.
#[tokio::test]
async fn a_straggler_of_an_old_login_is_not_told_the_end_of_a_newer_one() {
    let world = World::new();
    let session = world.logged_in("a").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    let old = tokio::spawn(client.get());
    world.until(|counts| counts.rejections == 1).await;
    session.login(world.tokens("b")).await.unwrap();
    world.script(support::Script::Refuse);
    // Another API, which does not know the token.
    let newer = World::new().client(&session).get().await.unwrap();
    assert_eq!(newer.why.unwrap().end_reason(), Some(EndReason::Refused));
    world.release_answers(1);
    let old = old.await.unwrap().unwrap();
    assert_eq!(old.why.unwrap().end_reason(), Some(EndReason::Replaced));
}

// shows B6, B72
#[tokio::test]
async fn a_slow_load_does_not_overwrite_a_login_that_came_meanwhile() {
    let world = World::new();
    let (store, session) = world.stored(Some(world.tokens("old")));
    let client = world.client(&session);
    store.hold_loads();
    let waiting = tokio::spawn(client.get());
    store.until_loaded(1).await;
    session.login(world.tokens("new")).await.unwrap();
    store.loads.add_permits(10);
    assert!(
        waiting.await.unwrap().is_err(),
        "it waited for another login's token"
    );
    settle_down().await;
    assert_eq!(client.get().await.unwrap().user, "new");
}

// shows P8, P13 for a token that is asked for by hand.
#[tokio::test]
async fn a_token_that_was_asked_for_under_one_login_is_not_that_of_the_next() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("a").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    let token = tokio::spawn({
        let session = session.clone();
        async move { session.token().await }
    });
    settle_down().await;
    store.hold_writes();
    let login = support::log_in(&session, world.tokens("b"));
    let token = token.await.unwrap();
    assert_eq!(token.unwrap_err().end_reason(), Some(EndReason::Replaced));
    store.writes.add_permits(10);
    login.await.unwrap().unwrap();
    drop(request.await.unwrap());
}

// shows P3: of two adoptions the later one wins, whoever leaves.
#[tokio::test]
async fn of_two_adoptions_the_later_one_wins() {
    for one_leaves in [false, true] {
        let world = World::new();
        let (store, session) = world.logged_in_and_stored("a").await;
        let adopt = || {
            let (session, tokens) = (session.clone(), world.tokens("a"));
            tokio::spawn(async move { session.adopt(tokens).await })
        };
        store.hold_writes();
        let (first, second) = (adopt(), adopt());
        settle_down().await;
        if one_leaves {
            first.abort();
            settle_down().await;
        }
        store.writes.add_permits(10);
        second.await.unwrap().unwrap();
        assert_eq!(session.token().await.unwrap().expose(), "a-a-3");
        assert_eq!(store.access_token().as_deref(), Some("a-a-3"));
    }
}

// shows P1 for adoption: what a refresh brings while they are offered is newer than what was offered.
#[tokio::test]
async fn tokens_that_a_refresh_has_brought_meanwhile_are_kept() {
    let world = World::new();
    let session = world.logged_in("a").await;
    world.hold_reissues();
    let refresh = tokio::spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    world.until(|counts| counts.reissues == 1).await;
    let adopt = tokio::spawn({
        let (session, tokens) = (session.clone(), world.tokens("a"));
        async move { session.adopt(tokens).await }
    });
    settle_down().await;
    world.release_reissues();
    refresh.await.unwrap().unwrap();
    adopt.await.unwrap().unwrap();
    assert_eq!(session.token().await.unwrap().expose(), "a-a-3");
    assert_eq!(session.stats().adopted, 0);
}

// shows P8: what is in the store of somebody else is not adopted.
#[tokio::test]
async fn tokens_of_another_user_in_the_store_are_not_adopted() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let login = world.tokens("a").with_identity("id", "a");
    session.login(login).await.unwrap();
    world.expire();
    store.put(Some(world.tokens("b").with_identity("id", "b")));
    assert_eq!(world.client(&session).get().await.unwrap().user, "a");
    assert_eq!((world.counts().reissues, session.stats().adopted), (1, 0));
}

// shows P3: the caller may have had the only copy of a pair that the issuer has rotated.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_adopted_before_the_store_was_read_are_not_lost_with_their_caller() {
    let world = World::new();
    let old = world.tokens("u");
    let newer = world.tokens("u");
    let (store, session) = world.stored(Some(old));
    store.hold_loads();
    let adopt = session.adopt(newer.clone());
    assert!(support::poll_then_drop(adopt, 1).await.is_none());
    store.loads.add_permits(100);
    support::settle_down().await;
    let kept = store.tokens().unwrap();
    assert_eq!(kept.access_token().expose(), newer.access_token().expose());
    let token = session.token().await.unwrap();
    assert_eq!(token.expose(), newer.access_token().expose());
    world.has_reissued(0);
}

// shows P3: where the store cannot be read they are kept, and used in place of what it holds.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_adopted_while_the_store_cannot_be_read_are_used_when_it_can() {
    let world = World::new();
    let old = world.tokens("u");
    world.expire();
    let newer = world.tokens("u");
    let (store, session) = world.stored(Some(old));
    store.fail_loads(true);
    let error = session.adopt(newer.clone()).await.unwrap_err();
    assert!(error.is_store() && !error.is_not_saved(), "{error}");
    store.fail_loads(false);
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
    let token = session.token().await.unwrap();
    assert_eq!(token.expose(), newer.access_token().expose());
    world.has_reissued(0);
}

// shows P4, P13: what is said to be in use is.
#[test]
fn tokens_that_are_adopted_behind_a_transaction_that_stands_still_are_in_use_and_stored_later() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let world = World::new();
    let (stalled, driven) = (runtime(), runtime());
    let brief = std::time::Duration::from_millis(20);
    let store = support::Store::new(None);
    let builder = world.builder().store(store.clone());
    let session = builder
        .reissue_timeout(brief)
        .store_timeout(brief)
        .build()
        .unwrap();
    driven.block_on(session.login(world.tokens("u"))).unwrap();
    world.hold_reissues();
    let refresh = stalled.spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    stalled.block_on(world.until(|counts| counts.reissues == 1));
    let newer = world.tokens("u");
    driven.block_on(async {
        let adopted = session.adopt(newer.clone()).await;
        assert!(adopted.unwrap_err().is_not_saved());
        let token = session.token().await.unwrap();
        assert_eq!(token.expose(), newer.access_token().expose());
        let saved = async {
            let mut status = session.subscribe();
            let is_saved = |status: &tower_token_refresh::SessionStatus| {
                matches!(
                    status,
                    tower_token_refresh::SessionStatus::LoggedIn { saved: true, .. }
                )
            };
            status.wait_for(is_saved).await.map(|_| ())
        };
        let minute = std::time::Duration::from_secs(60);
        tokio::time::timeout(minute, saved).await.unwrap().unwrap();
    });
    let kept = store.tokens().unwrap();
    assert_eq!(kept.access_token().expose(), newer.access_token().expose());
    drop(refresh);
}
