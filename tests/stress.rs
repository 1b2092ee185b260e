//! Proves P1, P3 and P8 by force: many threads, many users, and everything that can happen to a
//! session at random. The issuer ends a login whose refresh token is used twice, so that any race
//! shows.

mod support;

use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use support::Client;
use support::World;
use support::get;
use support::poll_then_drop;
use tower::Layer;
use tower_token_refresh::Session;
use tower_token_refresh::SessionExtension;
use tower_token_refresh::TokenRefreshLayer;

const USERS: usize = 64;

fn session(world: &World) -> Session {
    // The window of P9 is not what is tried here.
    let builder = world
        .builder()
        .reissue_limit(u32::MAX, Duration::from_secs(1));
    builder.build().unwrap()
}

async fn one_request(client: &Client, user: usize, session: &Session) {
    let mut request = get("/items");
    request.extensions_mut().insert(session.clone());
    if fastrand::u8(..) < 64 {
        poll_then_drop(client.send(request), fastrand::usize(..8)).await;
        return;
    }
    let answer = client.send(request).await.unwrap();
    if answer.status == StatusCode::OK {
        assert_eq!(answer.user, format!("user{user}"), "another user's token");
    }
}

// shows B128, S4: one client, one layer, each user's own session.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_of_one_gateway_never_get_each_others_answers() {
    let world = World::new();
    let layer = TokenRefreshLayer::new(support::ORIGIN, SessionExtension).unwrap();
    let client = Client::new(layer.layer(world.api()));
    let users = (0..USERS).map(|user| {
        let (world, client) = (world.clone(), client.clone());
        tokio::spawn(async move {
            let session = session(&world);
            session
                .login(world.tokens(&format!("user{user}")))
                .await
                .unwrap();
            for _ in 0..100 {
                if fastrand::u8(..) < 8 {
                    world.expire();
                }
                join_all((0..4).map(|_| one_request(&client, user, &session))).await;
            }
            session
        })
    });
    for session in join_all(users).await {
        let session = session.unwrap();
        assert!(session.status().is_logged_in());
        assert_eq!((session.stats().waiters, session.stats().ends), (0, 0));
    }
    assert_eq!(world.counts().reuses, 0);
    assert!(world.counts().reissues > USERS, "something was refreshed");
}

// shows P8 by force: one session, and its user changes all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_whose_user_changes_never_answers_as_another_user() {
    let world = World::new();
    let session = session(&world);
    let client = world.client(&session);
    for round in 0..300 {
        let user = format!("user{round}");
        session.login(world.tokens(&user)).await.unwrap();
        let old: Vec<_> = (0..8).map(|_| tokio::spawn(client.get())).collect();
        if fastrand::bool() {
            world.expire();
        }
        for _ in 0..fastrand::usize(..20) {
            tokio::task::yield_now().await;
        }
        if fastrand::bool() {
            session.logout().await.unwrap();
        }
        session.login(world.tokens("next")).await.unwrap();
        for request in old {
            // `old` were called, and may have been sent, before the second login or after it.
            if let Ok(answer) = request.await.unwrap()
                && answer.status == StatusCode::OK
            {
                assert!(answer.user == user || answer.user == "next", "{answer:?}");
            }
        }
        assert_eq!(client.get().await.unwrap().user, "next");
    }
    assert_eq!(world.counts().reuses, 0);
    assert_eq!(session.stats().waiters, 0);
}

// shows P13 by force: in a pause after a failure each request asks the coordinator, and none of them
// gets hold of a token that is still being saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_carries_a_token_that_is_not_saved_yet() {
    let world = World::new();
    let (store, session) = world.stored(None);
    let client = world.client(&session);
    world.script(support::Script::TransientAfter(Duration::from_secs(300)));
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    client.get().await.unwrap();
    for _ in 0..300 {
        let requests: Vec<_> = (0..8).map(|_| tokio::spawn(client.get())).collect();
        let before = world.seen().len();
        store.hold_writes();
        let tokens = world.tokens("u");
        let unsaved = tokens.access_token().expose().to_owned();
        let login = support::log_in(&session, tokens);
        for _ in 0..fastrand::usize(..50) {
            tokio::task::yield_now().await;
        }
        let early = world.seen().split_off(before);
        assert!(
            early
                .iter()
                .all(|seen| seen.token.as_ref() != Some(&unsaved))
        );
        store.writes.add_permits(1 << 20);
        login.await.unwrap().unwrap();
        for request in requests {
            drop(request.await.unwrap());
        }
        world.script(support::Script::TransientAfter(Duration::from_secs(300)));
        world.expire();
        client.get().await.unwrap();
    }
}
