//! Proves P6 and P7: what ends a session, that its end is told once, and that it is cheap.

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::join_all;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use support::Client;
use support::Script;
use support::World;
use support::refresh_error;
use tower::Layer;
use tower::service_fn;
use tower_token_refresh::BoxError;
use tower_token_refresh::EndReason;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::MemoryStore;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;
use tower_token_refresh::Verdict;
use tower_token_refresh::classify_fn;

// shows B56, B64, P7
#[tokio::test]
async fn a_refusal_ends_the_session_for_everybody_once() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Refuse);
    world.hold_reissues();
    let mut status = session.subscribe();
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.get())).collect();
    world.until(|counts| counts.reissues == 1).await;
    world.release_reissues();
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::Refused));
    }
    assert_eq!(session.stats().ends, 1);
    assert!(status.has_changed().unwrap());
    assert_eq!(
        status.borrow_and_update().end_reason(),
        Some(EndReason::Refused)
    );
    for _ in 0..3 {
        client.get().await.unwrap();
    }
    assert!(!status.has_changed().unwrap(), "it is told once");
}

// shows B65, B66, P7
#[tokio::test(start_paused = true)]
async fn after_the_end_requests_go_out_bare_and_the_issuer_is_left_alone() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Refuse);
    client.get().await.unwrap();
    let begun = tokio::time::Instant::now();
    for answer in join_all((0..10).map(|_| client.get())).await {
        let answer = answer.unwrap();
        assert_eq!(answer.body, "the server's own words");
        let reason = answer.why.unwrap().end_reason();
        assert_eq!(reason, Some(EndReason::Refused), "the very same");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody has waited");
    assert!(world.seen()[1..].iter().all(|seen| seen.token.is_none()));
    assert_eq!(world.counts().reissues, 1);
}

// shows B8, B9, B66: the other policy.
#[tokio::test]
async fn a_layer_that_requires_a_token_sends_nothing_without_one() {
    let world = World::new();
    let session = world.session();
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone())
        .unwrap()
        .require_token();
    let client = Client::new(layer.layer(world.api()));
    assert!(refresh_error(&client.get().await.unwrap_err()).is_session_ended());
    session.login(world.tokens("u")).await.unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    session.logout().await.unwrap();
    let error = client.get().await.unwrap_err();
    assert_eq!(
        refresh_error(&error).end_reason(),
        Some(EndReason::LoggedOut)
    );
    assert_eq!(world.counts().requests, 1);
}

// shows B67, P7
#[tokio::test]
async fn a_new_login_arms_everything_again() {
    let world = World::new();
    let session = world.session();
    let client = world.client(&session);
    let mut status = session.subscribe();
    for ends in 1..=7 {
        session.login(world.tokens("u")).await.unwrap();
        world.expire();
        assert_eq!(
            client.get().await.unwrap().status,
            StatusCode::OK,
            "the refresh works again"
        );
        world.expire();
        world.script(Script::Refuse);
        client.get().await.unwrap();
        assert!(
            status.borrow_and_update().end_reason().is_some(),
            "the end is told again"
        );
        assert_eq!(session.stats().ends, ends);
    }
}

// shows B136, P6
#[tokio::test]
async fn a_refusal_ends_nothing_when_the_store_holds_a_newer_pair() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Refuse);
    world.hold_reissues();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    store.put(Some(world.tokens("u")));
    world.release_reissues();
    assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    let stats = session.stats();
    assert_eq!((stats.adopted, stats.ends), (1, 0));
}

// shows B132: before it asks the issuer, too.
#[tokio::test]
async fn a_newer_pair_in_the_store_is_adopted_without_a_reissue() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    world.expire();
    store.put(Some(world.tokens("u")));
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!((world.counts().reissues, session.stats().adopted), (0, 1));
}

// shows B133: what somebody else has fetched may have expired as well by then.
#[tokio::test]
async fn a_newer_pair_in_the_store_that_has_expired_is_refreshed_in_place_of_ours() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let past = SystemTime::now() - Duration::from_secs(60);
    store.put(Some(world.tokens("u").with_expires_at(past)));
    world.expire();
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    world.has_reissued(1);
    assert_eq!(store.access_token().as_deref(), Some("a-u-3"));
    let sent: Vec<_> = world.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!(sent, [Some("a-u-1".to_owned()), Some("a-u-3".to_owned())]);
}

// shows P6, and B7 over B127: a store that cannot be read is no reason to end a session.
#[tokio::test(start_paused = true)]
async fn a_refusal_ends_nothing_while_the_store_cannot_be_read() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    world.expire();
    world.script(Script::Refuse);
    world.script(Script::Refuse);
    world.hold_reissues();
    let request = tokio::spawn(client.get());
    world.until(|counts| counts.reissues == 1).await;
    store.fail_loads(true);
    world.release_reissues();
    assert!(request.await.unwrap().unwrap().why.unwrap().is_store());
    assert!(session.status().is_logged_in());
    store.fail_loads(false);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(client.get().await.unwrap().why.unwrap().is_session_ended());
}

// shows B58, B59, B124: a reissuer that has nothing to give says so.
#[tokio::test]
async fn the_end_clears_the_store() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    world.expire();
    world.script(Script::Refuse);
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.body, "the server's own words");
    support::settle_down().await;
    assert!(store.tokens().is_none());
    assert_eq!(*store.written.borrow(), 2, "one save, one clear");
}

fn gone_is_final(status: StatusCode, _: &HeaderMap) -> Verdict {
    match status {
        StatusCode::UNAUTHORIZED => Verdict::EndSession,
        _ => Verdict::Accept,
    }
}

// shows P6: the classifier's word, for the current stamp and after a look at the store.
#[tokio::test]
async fn an_answer_declared_final_ends_the_session_without_a_reissue() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let client = Client::new(
        layer
            .classify(classify_fn(gone_is_final))
            .layer(world.api()),
    );
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    store.put(Some(world.tokens("u")));
    assert_eq!(
        client.get().await.unwrap().status,
        StatusCode::OK,
        "adopted"
    );
    world.expire();
    let why = client.get().await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Rejected));
    assert_eq!(world.counts().reissues, 0);
}

// shows P6: what was said once for good is not unsaid by a later answer that says less.
#[tokio::test(start_paused = true)]
async fn a_plain_rejection_after_a_final_one_leaves_it_final() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let calls = Arc::new(AtomicUsize::new(0));
    let first_is_final = classify_fn(move |status, _| match status {
        StatusCode::UNAUTHORIZED if calls.fetch_add(1, Ordering::Relaxed) == 0 => {
            Verdict::EndSession
        }
        StatusCode::UNAUTHORIZED => Verdict::Refresh,
        _ => Verdict::Accept,
    });
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let layer = layer.classify(Arc::new(first_is_final));
    let client = Client::new(layer.layer(world.api()));
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    store.fail_loads(true);
    for _ in 0..2 {
        let why = client.get().await.unwrap().why.unwrap();
        assert!(why.is_store(), "the end waits for a look at the store");
    }
    store.fail_loads(false);
    tokio::time::advance(Duration::from_secs(1)).await;
    let why = client.get().await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Rejected));
    assert_eq!((world.counts().reissues, session.stats().ends), (0, 1));
}

/// An API that knows no token, and says more in the body of its answers to the second one.
async fn refuse_with_codes<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
    let is_first = request.headers()[AUTHORIZATION] == "Bearer a-u-1";
    let code = if is_first { "T-002" } else { "T-003" };
    let body = Full::from(format!(r#"{{"code":"{code}"}}"#));
    let response = Response::builder().status(StatusCode::UNAUTHORIZED);
    let response = response.header(CONTENT_TYPE, "application/json");
    Ok(response.body(body)?)
}

// shows P6: where the verdict is in the body, that of the second answer is looked at as well.
#[tokio::test]
async fn a_code_in_the_body_of_the_second_answer_ends_the_session() {
    for ends in [true, false] {
        let world = World::new();
        let session = world.logged_in("u").await;
        let codes = ErrorCodes::json("/code").expired("T-002");
        let codes = if ends {
            codes.ended("T-003")
        } else {
            codes.expired("T-003")
        };
        let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
        let layer = layer.classify(codes);
        let client = Client::new(layer.layer(service_fn(refuse_with_codes)));
        let answer = client.get().await.unwrap();
        assert_eq!(answer.body, r#"{"code":"T-003"}"#, "whole");
        assert!(answer.why.is_some(), "ends: {ends}");
        support::settle_down().await;
        let reason = ends.then_some(EndReason::Rejected);
        assert_eq!(session.status().end_reason(), reason);
        assert_eq!(session.stats().replays, 1);
    }
}

// shows B76: who follows the status may use the session at once.
#[tokio::test]
async fn a_subscriber_may_log_in_again_when_it_hears_of_the_end() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    let mut status = session.subscribe();
    let subscriber = tokio::spawn({
        let (session, world, client) = (session.clone(), world.clone(), client.clone());
        async move {
            let ended = status.wait_for(|status| status.end_reason().is_some());
            support::within(ended).await.unwrap();
            session.login(world.tokens("u")).await.unwrap();
            client.get().await.unwrap().status
        }
    });
    world.expire();
    world.script(Script::Refuse);
    client.get().await.unwrap();
    assert_eq!(subscriber.await.unwrap(), StatusCode::OK);
}

// shows B78
#[tokio::test]
async fn a_subscriber_that_panics_harms_nobody() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    let follow = |panics: bool| {
        let mut status = session.subscribe();
        tokio::spawn(async move {
            let ended = |status: &SessionStatus| status.end_reason().is_some();
            let told = support::within(status.wait_for(ended)).await;
            let reason = told.unwrap().end_reason();
            assert!(!panics, "scripted");
            reason
        })
    };
    let (bad, good) = (follow(true), follow(false));
    // One that panics while it looks at the status, too.
    let (mut third, waits) = (session.subscribe(), client.clone());
    let looks = tokio::spawn(async move {
        support::within(third.changed()).await.unwrap();
        let _looked_at = third.borrow();
        panic!("scripted");
    });
    world.expire();
    world.script(Script::Refuse);
    let why = waits.get().await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Refused));
    assert!(bad.await.unwrap_err().is_panic());
    assert!(looks.await.unwrap_err().is_panic());
    assert_eq!(good.await.unwrap(), Some(EndReason::Refused));
    session.login(world.tokens("u")).await.unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
}

// shows B142: the last handle takes everything with it, a save that fails and is tried again, too.
#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_has_any_more_tells_and_writes_nothing() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let client = world.client(&session);
    store.fail_writes(true);
    session.login(world.tokens("u")).await.unwrap_err();
    let mut status = session.subscribe();
    drop(session);
    status.mark_unchanged();
    assert!(status.has_changed().is_ok(), "the client has it, too");
    drop(client);
    support::within(async { while status.changed().await.is_ok() {} }).await;
    let written = *store.written.borrow();
    tokio::time::advance(Duration::from_secs(3600)).await;
    support::settle_down().await;
    assert_eq!(*store.written.borrow(), written);
}

// shows B142
#[tokio::test]
async fn logging_out_twice_does_no_harm() {
    let world = World::new();
    let session = world.logged_in("u").await;
    session.logout().await.unwrap();
    session.logout().await.unwrap();
    assert_eq!(session.status(), SessionStatus::LoggedOut);
    assert_eq!(session.stats().ends, 0);
}

// shows P7
#[tokio::test(start_paused = true)]
async fn a_second_logout_changes_nothing_of_what_a_bare_request_is_told() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    session.logout().await.unwrap();
    world.hold_answers();
    let request = tokio::spawn(async move { client.get().await.unwrap() });
    world.until(|counts| counts.requests == 1).await;
    session.logout().await.unwrap();
    world.release_answers(1);
    let why = request.await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
}

// shows P7: the user's word is the last one, and those of the login that ended are told how it did.
#[tokio::test(start_paused = true)]
async fn a_logout_after_the_end_leaves_logged_out() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_answers();
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.get().await.unwrap() })
    };
    let (first, straggler) = (send(), send());
    world.until(|counts| counts.requests == 2).await;
    world.script(Script::Refuse);
    world.release_answers(1);
    let ended = first.await.unwrap().why.unwrap();
    assert_eq!(ended.end_reason(), Some(EndReason::Refused));
    let refused = SessionStatus::end_reason(&session.status());
    assert_eq!(refused, Some(EndReason::Refused));

    let mut told = session.subscribe();
    session.logout().await.unwrap();
    assert_eq!(session.status(), SessionStatus::LoggedOut);
    assert!(told.has_changed().unwrap());
    assert_eq!(*told.borrow_and_update(), SessionStatus::LoggedOut);
    let error = session.token().await.unwrap_err();
    assert_eq!(error.end_reason(), Some(EndReason::LoggedOut));
    let error = session.refresh().await.unwrap_err();
    assert_eq!(error.end_reason(), Some(EndReason::LoggedOut));
    let error = session.adopt(world.tokens("u")).await.unwrap_err();
    assert_eq!(error.end_reason(), Some(EndReason::LoggedOut));

    world.release_answers(1);
    let why = straggler.await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Refused));
    world.release_answers(1);
    let why = client.get().await.unwrap().why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
    assert_eq!(session.stats().ends, 1);
}

// shows P7: what a shared store says of the end is what the next session is told, too.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_found_in_the_store_is_an_end() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let open = || world.builder().shared_store(store.clone()).build().unwrap();
    let session = open();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    world.script(Script::Refuse);
    world.client(&session).get().await.unwrap();
    drop(session);
    let next = open();
    let error = next.token().await.unwrap_err();
    assert_eq!(error.end_reason(), Some(EndReason::Refused));
    assert_eq!(next.status().end_reason(), Some(EndReason::Refused));
    next.logout().await.unwrap();
    assert_eq!(next.status(), SessionStatus::LoggedOut);
}

// shows P6: the answer to the second send may be the final one.
#[tokio::test]
async fn a_final_answer_to_the_replay_ends_the_session() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let calls = Arc::new(AtomicUsize::new(0));
    let second_is_final = classify_fn(move |status, _| match status {
        StatusCode::UNAUTHORIZED if calls.fetch_add(1, Ordering::Relaxed) > 0 => {
            Verdict::EndSession
        }
        StatusCode::UNAUTHORIZED => Verdict::Refresh,
        _ => Verdict::Accept,
    });
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let layer = layer.classify(Arc::new(second_is_final));
    let client = Client::new(layer.layer(world.api()));
    world.expire();
    world.script(Script::DeadToken);
    assert_eq!(client.get().await.unwrap().status, StatusCode::UNAUTHORIZED);
    support::settle_down().await;
    assert_eq!(session.status().end_reason(), Some(EndReason::Rejected));
    client.get().await.unwrap();
    assert_eq!((world.counts().reissues, session.stats().ends), (1, 1));
}

/// A store whose reads lag one write behind.
#[derive(Default)]
struct Lagging(Mutex<[Option<TokenSet>; 2]>);

impl TokenStore for Lagging {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(self.0.lock().unwrap()[1].clone())
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        let mut state = self.0.lock().unwrap();
        let old = state[0].replace(tokens.clone());
        state[1] = old.or_else(|| state[0].clone());
        Ok(())
    }

    async fn clear(&self) -> Result<(), BoxError> {
        *self.0.lock().unwrap() = Default::default();
        Ok(())
    }
}

// shows P6: what is adopted is newer, and not merely different.
#[tokio::test]
async fn an_older_pair_that_a_lagging_store_shows_is_not_adopted() {
    let world = World::new();
    let session = world.builder().store(Lagging::default()).build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    for _ in 0..4 {
        session.refresh().await.unwrap();
    }
    let counts = world.counts();
    assert_eq!((counts.reissues, counts.reuses), (4, 0));
    assert_eq!(session.stats().adopted, 0);
}

// shows P6: the pair that the issuer has just refused once passed for a newer one, as memory had yet another.
#[tokio::test(start_paused = true)]
async fn a_pair_from_the_store_that_was_refused_is_not_adopted() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    world.expire();
    let expired = world.tokens("u").with_expires_at(std::time::UNIX_EPOCH);
    world.expire();
    store.put(Some(expired));
    world.script(Script::Refuse);
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::Refused));
    let counts = world.counts();
    assert_eq!((counts.reissues, counts.requests), (1, 1));
    assert_eq!(session.stats().adopted, 0);
    client.get().await.unwrap();
    assert_eq!(world.counts().reissues, 1);
}
