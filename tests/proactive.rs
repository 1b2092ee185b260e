//! Shows group H: a refresh ahead of expiry, which delays nobody and harms nobody.

mod support;

use std::time::Duration;
use std::time::SystemTime;

use futures::future::join_all;
use http::StatusCode;
use support::Script;
use support::Store;
use support::World;
use support::refresh_error;
use support::settle_down;
use tokio::time::advance;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ahead(world: &World) -> Session {
    world.builder().refresh_ahead(seconds(10)).build().unwrap()
}

fn expiring(world: &World, n: u64) -> TokenSet {
    world.tokens("u").with_expires_in(seconds(n))
}

// shows B101, B103, B105
#[tokio::test(start_paused = true)]
async fn a_token_about_to_expire_is_refreshed_once_in_the_background() {
    let world = World::new();
    let session = ahead(&world);
    session.login(expiring(&world, 100)).await.unwrap();
    let client = world.client(&session);
    world.hold_reissues();
    advance(seconds(89)).await;
    client.get().await.unwrap();
    settle_down().await;
    assert_eq!(world.counts().reissues, 0);
    advance(seconds(1)).await;
    for answer in join_all((0..10).map(|_| client.get())).await {
        assert_eq!(
            answer.unwrap().status,
            StatusCode::OK,
            "with the old token, at once"
        );
    }
    settle_down().await;
    assert_eq!(world.counts().reissues, 1);
    world.release_reissues();
    settle_down().await;
    client.get().await.unwrap();
    assert_eq!(world.seen().last().unwrap().token.as_deref(), Some("a-u-2"));
    assert_eq!(world.counts().reissues, 1);
}

// shows B101, B103
#[tokio::test(start_paused = true)]
async fn an_expired_token_is_refreshed_before_anything_is_sent() {
    let world = World::new();
    let session = ahead(&world);
    session.login(expiring(&world, 100)).await.unwrap();
    advance(seconds(100)).await;
    world.expire();
    let client = world.client(&session);
    for answer in join_all((0..10).map(|_| client.get())).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert_eq!((world.counts().reissues, world.counts().rejections), (1, 0));
}

// shows B102
#[tokio::test(start_paused = true)]
async fn without_a_known_expiry_or_without_the_option_the_server_decides() {
    for (session, tokens) in [
        (ahead(&World::new()), None),
        (World::new().session(), Some(seconds(100))),
    ] {
        let world = World::new();
        let tokens = match tokens {
            Some(lifetime) => world.tokens("u").with_expires_in(lifetime),
            None => world.tokens("u"),
        };
        session.login(tokens).await.unwrap();
        advance(seconds(100_000)).await;
        assert_eq!(
            world.client(&session).get().await.unwrap().status,
            StatusCode::OK
        );
        settle_down().await;
        assert_eq!(session.stats().reissues, 0);
    }
}

// shows B106: a failure in the background fails no request, and is tried again after its cool-down.
#[tokio::test(start_paused = true)]
async fn a_failure_ahead_of_expiry_fails_no_request() {
    let world = World::new();
    let session = ahead(&world);
    session.login(expiring(&world, 100)).await.unwrap();
    let client = world.client(&session);
    advance(seconds(91)).await;
    world.script(Script::Transient);
    for _ in 0..10 {
        let answer = client.get().await.unwrap();
        assert!(answer.status == StatusCode::OK && answer.why.is_none());
        settle_down().await;
    }
    assert_eq!(world.counts().reissues, 1);
    advance(seconds(1)).await;
    client.get().await.unwrap();
    settle_down().await;
    assert_eq!(
        (world.counts().reissues, session.stats().failures.transient),
        (2, 1)
    );
}

// shows B82: the limit of reissues holds ahead of expiry as well, and delays nobody there.
#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_over_the_limit_is_not_made_and_the_token_goes_on_being_used() {
    let world = World::new();
    let builder = world.builder().refresh_ahead(seconds(10));
    let session = builder.reissue_limit(1, seconds(3600)).build().unwrap();
    session.login(expiring(&world, 100)).await.unwrap();
    let client = world.client(&session);
    world.script(Script::ExpiresIn(seconds(100)));
    for reissues in [1, 1] {
        advance(seconds(91)).await;
        for _ in 0..3 {
            let answer = client.get().await.unwrap();
            assert!(answer.status == StatusCode::OK && answer.why.is_none());
            settle_down().await;
        }
        assert_eq!(world.counts().reissues, reissues);
    }
    // One that has lived out its time is replaced, and not counted.
    advance(seconds(9)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.has_reissued(2);
}

// shows B57, P6
#[tokio::test(start_paused = true)]
async fn a_refusal_ahead_of_expiry_lets_the_token_live_out_its_life() {
    let world = World::new();
    let store = Store::new(None);
    let session = world
        .builder()
        .store(store.clone())
        .refresh_ahead(seconds(10))
        .build()
        .unwrap();
    session.login(expiring(&world, 100)).await.unwrap();
    let client = world.client(&session);
    advance(seconds(91)).await;
    world.script(Script::Refuse);
    for _ in 0..5 {
        assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
        settle_down().await;
    }
    assert_eq!((world.counts().reissues, session.stats().ends), (1, 0));
    // To ask for it by hand changes nothing: the token still is good.
    assert!(session.refresh().await.unwrap_err().is_refused());
    assert!(session.status().is_logged_in());
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!((world.counts().reissues, session.stats().ends), (1, 0));
    advance(seconds(9)).await;
    let answer = client.get().await.unwrap();
    assert!(answer.why.unwrap().is_refused(), "now it has ended");
    assert_eq!((world.counts().reissues, session.stats().ends), (1, 1));
    settle_down().await;
    assert!(store.tokens().is_none());
}

// shows B86: a lifetime shorter than the window ahead.
#[tokio::test(start_paused = true)]
async fn a_short_lifetime_does_not_loop() {
    let world = World::new();
    let session = ahead(&world);
    session.login(expiring(&world, 4)).await.unwrap();
    let client = world.client(&session);
    for _ in 0..100 {
        world.script(Script::ExpiresIn(seconds(4)));
    }
    for _ in 0..10 {
        client.get().await.unwrap();
        settle_down().await;
    }
    assert_eq!(world.counts().reissues, 0, "not at once");
    for _ in 0..100 {
        advance(Duration::from_millis(100)).await;
        assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
        settle_down().await;
    }
    assert_eq!(world.counts().reuses, 0);
    assert!(world.counts().reissues <= 5, "{:?}", world.counts());
}

// shows B107, S22: clocks that are wrong by years.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_neither_loops_nor_locks_out() {
    let years = seconds(10 * 365 * 24 * 3600);
    for at in [
        SystemTime::now() - years,
        SystemTime::now() + years,
        SystemTime::UNIX_EPOCH,
    ] {
        let world = World::new();
        let session = ahead(&world);
        session
            .login(world.tokens("u").with_expires_at(at))
            .await
            .unwrap();
        for _ in 0..10 {
            let answer = world.client(&session).get().await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            settle_down().await;
        }
        assert_eq!(world.counts().reissues, 0);
    }
}

// shows B101 and B104 for a restored session: there the past counts, and who waited for the load is
// judged again.
#[tokio::test]
async fn a_restored_token_that_has_expired_is_refreshed_before_it_is_sent() {
    let world = World::new();
    let past = SystemTime::now() - seconds(1);
    let store = Store::new(Some(world.tokens("u").with_expires_at(past)));
    let session = world
        .builder()
        .store(store)
        .refresh_ahead(seconds(10))
        .build()
        .unwrap();
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!((world.counts().reissues, world.counts().requests), (1, 1));
}

// shows P5: an expired token and an issuer that is away: the server decides, nobody is locked out.
#[tokio::test(start_paused = true)]
async fn when_the_refresh_of_an_expired_token_fails_the_request_is_sent_all_the_same() {
    let world = World::new();
    let session = ahead(&world);
    session.login(expiring(&world, 100)).await.unwrap();
    advance(seconds(100)).await;
    world.script(Script::Transient);
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "the clock was wrong");
}

// shows P6, P7 for a layer that was told to send nothing without a token.
#[tokio::test]
async fn a_token_can_be_had_for_use_outside_of_the_layer() {
    let world = World::new();
    let session = world.session();
    assert!(session.token().await.unwrap_err().is_session_ended());
    session.login(world.tokens("u")).await.unwrap();
    assert_eq!(session.token().await.unwrap().expose(), "a-u-1");
    let error = Box::new(session.adopt(world.tokens("u")).await);
    assert!(error.is_ok());
    assert_eq!(session.token().await.unwrap().expose(), "a-u-2");
    session.logout().await.unwrap();
    let error: tower_token_refresh::BoxError = session.token().await.unwrap_err().into();
    assert!(refresh_error(&error).is_session_ended());
}
