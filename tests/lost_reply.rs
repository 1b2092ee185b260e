//! Proves what is done when the refresh token was sent and no answer came back (a part of P5 and P6,
//! and of P1: one *answered* reissue): the quarantine, the grace window, and the doubt that is
//! kept.

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

use http::StatusCode;
use support::Answer;
use support::Client;
use support::Script;
use support::Store;
use support::World;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::advance;
use tokio::time::timeout;
use tower_token_refresh::EndReason;
use tower_token_refresh::InDoubt;
use tower_token_refresh::LostReply;
use tower_token_refresh::RefreshToken;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

const OKTA: LostReply = LostReply::OKTA;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A session that is logged in, its store, and a client that will be rejected.
async fn scene(world: &World, policy: LostReply) -> (Store, Session, Client) {
    let store = Store::new(None);
    let builder = world.builder().store(store.clone()).lost_reply(policy);
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    let client = world.client(&session);
    (store, session, client)
}

async fn get(client: &Client) -> Answer {
    client.get().await.unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn doubt(store: &Store) -> Option<u32> {
    Some(store.tokens()?.in_doubt()?.tries)
}

async fn until_saved(session: &Session) {
    let is_saved =
        |status: &SessionStatus| matches!(status, SessionStatus::LoggedIn { saved: true, .. });
    let mut status = session.subscribe();
    support::within(status.wait_for(is_saved)).await.unwrap();
}

/// It is rejected at once, and the issuer is not asked.
async fn is_left_alone(world: &World, client: &Client) {
    let before = world.counts().reissues;
    let answer = get(client).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().is_outcome_unknown());
    assert_eq!(world.counts().reissues, before);
}

// shows section 4, strict: wait the quarantine, read the store again, present it once.
#[tokio::test(start_paused = true)]
async fn a_token_in_doubt_is_presented_once_more_after_the_quarantine() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    assert!(get(&client).await.why.unwrap().is_outcome_unknown());
    assert!(session.status().is_in_doubt());
    assert_eq!(doubt(&store), Some(1), "the store keeps it");
    advance(seconds(9)).await;
    is_left_alone(&world, &client).await;
    advance(seconds(1)).await;
    assert_eq!(get(&client).await.status, StatusCode::OK);
    world.has_reissued(2);
    assert!(!session.status().is_in_doubt());
    assert_eq!(doubt(&store), None);
}

// shows section 7: a process that stood still finds that its time is up and that the answer is there, in
// this order. To give the answer up would be a reuse that can be avoided.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_when_the_time_is_up_is_read() {
    let world = World::new();
    let late = {
        let world = world.clone();
        reissue_fn(move |_| {
            let tokens = world.tokens("u");
            async move {
                let moment = Duration::from_millis(10_100);
                let _ = timeout(moment, std::future::pending::<()>()).await;
                Ok(tokens)
            }
        })
    };
    let session = Session::builder(late).build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    let client = world.client(&session);
    assert_eq!(get(&client).await.status, StatusCode::OK);
    assert!(!session.status().is_in_doubt());
}

// shows section 7: nor is the answer given up to what was sent only when the process went on.
#[tokio::test(start_paused = true)]
async fn after_a_standstill_the_answer_has_all_its_time() {
    let world = World::new();
    let (_, session, client) = scene(&world, LostReply::strict()).await;
    world.hold_reissues();
    let (answer, ()) = tokio::join!(get(&client), async {
        world.until(|counts| counts.reissues == 1).await;
        advance(seconds(15)).await;
        let five = timeout(seconds(5), std::future::pending::<()>());
        assert!(five.await.is_err());
        world.release_reissues();
    });
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!session.status().is_in_doubt());
}

// shows section 4: a strict issuer that has processed it ends the session at the second try, and not
// before.
#[tokio::test(start_paused = true)]
async fn only_an_answer_ends_a_session_in_doubt() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Lost);
    get(&client).await;
    assert!(session.status().is_logged_in());
    advance(seconds(10)).await;
    let why = get(&client).await.why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Refused));
    assert!(store.tokens().is_none());
}

// shows section 4: unanswered again, it stays in doubt, the quarantine doubles, and nothing ends.
#[tokio::test(start_paused = true)]
async fn the_quarantine_doubles_and_silence_never_ends_a_session() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    for (tries, pause) in [10, 20, 40, 80, 160, 300, 300, 300].into_iter().enumerate() {
        world.script(Script::Unknown);
        get(&client).await;
        assert_eq!(doubt(&store), u32::try_from(tries + 1).ok());
        advance(seconds(pause - 1)).await;
        is_left_alone(&world, &client).await;
        advance(seconds(1)).await;
    }
    assert!(session.status().is_logged_in());
    assert_eq!(get(&client).await.status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 9);
}

// shows section 4: the store is read again before the second try.
#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_fetched_meanwhile_is_adopted() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    store.put(Some(world.tokens("u")));
    advance(seconds(10)).await;
    assert_eq!(get(&client).await.status, StatusCode::OK);
    assert_eq!((world.counts().reissues, session.stats().adopted), (1, 1));
    assert!(!session.status().is_in_doubt());
}

// shows section 4, grace: all tries at once, inside one attempt, and nobody notices.
#[tokio::test(start_paused = true)]
async fn inside_a_grace_window_a_lost_answer_is_asked_for_again_at_once() {
    let world = World::new();
    world.grace(Duration::MAX);
    let (store, session, client) = scene(&world, OKTA).await;
    world.script(Script::Lost);
    let before = tokio::time::Instant::now();
    let statuses = session.subscribe();
    assert_eq!(get(&client).await.status, StatusCode::OK);
    assert_eq!(tokio::time::Instant::now(), before, "at once");
    assert_eq!(world.counts().reissues, 2);
    assert_eq!(session.stats().reissues, 2);
    assert!(!statuses.borrow().is_in_doubt());
    assert_eq!(store.access_token().as_deref(), Some("a-u-2"));
}

// shows section 4, the table of servers: with what is known of each of them, a lost answer is made good,
// whether the connection broke or there is silence. Without a window it never is.
#[tokio::test(start_paused = true)]
async fn the_window_of_each_known_issuer_is_used() {
    let of = |n| LostReply::grace(seconds(n));
    let windows = [
        ("Auth0, with a leeway of 10 s", of(10), 10),
        ("Okta", LostReply::OKTA, 30),
        ("AWS Cognito, with the most it takes", of(60), 60),
        ("Supabase", LostReply::SUPABASE, 10),
        ("WorkOS", LostReply::WORKOS, 30),
        ("Connect2id", LostReply::CONNECT2ID, 5),
        ("Ory Hydra, with the most it takes", of(300), 300),
        (
            "Airlock: until the new tokens are used",
            of(14 * 24 * 3600),
            u64::MAX,
        ),
        ("Curity", LostReply::CURITY, 0),
        ("Keycloak", LostReply::KEYCLOAK, 0),
    ];
    for (issuer, policy, window) in windows {
        for lost in [Script::Lost, Script::LostAndHang] {
            let world = World::new();
            world.grace(seconds(window));
            let (_, session, client) = scene(&world, policy).await;
            world.script(lost);
            let answer = get(&client).await;
            if window > 0 {
                assert_eq!(answer.status, StatusCode::OK, "{issuer}");
                continue;
            }
            assert!(session.status().is_in_doubt(), "{issuer}");
            advance(seconds(10)).await;
            let why = get(&client).await.why.unwrap();
            assert_eq!(why.end_reason(), Some(EndReason::Refused), "{issuer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_three_tries_it_is_in_doubt_and_tried_again_soon() {
    let world = World::new();
    world.grace(Duration::MAX);
    let (store, session, client) = scene(&world, OKTA).await;
    world.script(Script::Lost);
    world.script(Script::Unknown);
    world.script(Script::Unknown);
    assert!(get(&client).await.why.unwrap().is_outcome_unknown());
    assert_eq!((world.counts().reissues, doubt(&store)), (3, Some(1)));
    assert!(session.status().is_in_doubt());
    // The usual pause after a failure: the window is still open.
    advance(seconds(1)).await;
    assert_eq!(get(&client).await.status, StatusCode::OK);
    assert_eq!(world.counts().reissues, 4);
}

// shows section 4: an issuer that hangs leaves time for another try inside the window.
#[tokio::test(start_paused = true)]
async fn a_silent_issuer_is_given_up_in_time_for_another_try() {
    for (policy, silence) in [
        (OKTA, 10),
        (LostReply::SUPABASE, 8),
        (LostReply::CONNECT2ID, 4),
    ] {
        let world = World::new();
        world.grace(Duration::MAX);
        let (_, _, client) = scene(&world, policy).await;
        world.script(Script::Hang);
        let before = tokio::time::Instant::now();
        assert_eq!(get(&client).await.status, StatusCode::OK);
        assert_eq!(before.elapsed().as_secs(), silence, "{policy:?}");

        let (_, session, client) = scene(&world, policy).await;
        (0..2).for_each(|_| world.script(Script::Hang));
        let before = tokio::time::Instant::now();
        assert!(get(&client).await.why.unwrap().is_outcome_unknown());
        assert_eq!(before.elapsed().as_secs(), silence + 10, "{policy:?}");
        assert!(session.status().is_in_doubt());
    }
}

/// Takes its time, and as each refresh token is taken again, that is all.
async fn slow(time: Duration) -> Result<TokenSet, ReissueError> {
    let _: Result<(), _> = timeout(time, std::future::pending()).await;
    TokenSet::new("fresh").map_err(ReissueError::unknown)
}

// shows section 4: an issuer that is only slow is not given up again and again.
#[tokio::test(start_paused = true)]
async fn a_slow_issuer_gets_to_answer_under_every_policy() {
    let policies = [
        LostReply::strict(),
        LostReply::CONNECT2ID,
        LostReply::SUPABASE,
        OKTA,
    ];
    for policy in policies {
        let issuer = reissue_fn(|_| slow(seconds(9)));
        let session = Session::builder(issuer).lost_reply(policy).build().unwrap();
        let tokens = TokenSet::new("old").unwrap().with_refresh_token("r1");
        session.login(tokens.unwrap()).await.unwrap();
        session.refresh().await.unwrap();
        assert_eq!(session.token().await.unwrap().expose(), "fresh");
    }
}

// shows section 4: the window is counted from the first time it was sent, and is followed by the
// quarantine.
#[tokio::test(start_paused = true)]
async fn a_window_does_not_begin_anew_with_each_attempt() {
    let world = World::new();
    let builder = world.builder().lost_reply(LostReply::CONNECT2ID);
    let session = builder.reissue_limit(100, seconds(30)).build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    let client = world.client(&session);
    (0..9).for_each(|_| world.script(Script::Unknown));
    get(&client).await;
    assert_eq!(world.counts().reissues, 3, "at 0 and 1 s");
    advance(seconds(2)).await;
    get(&client).await;
    assert_eq!(world.counts().reissues, 6, "at 3 s and a little later");
    advance(seconds(3)).await;
    is_left_alone(&world, &client).await;
    advance(seconds(12)).await;
    is_left_alone(&world, &client).await;
    // The quarantine has doubled.
    advance(seconds(5)).await;
    get(&client).await;
    assert_eq!(world.counts().reissues, 7, "once");
    assert!(session.status().is_logged_in());
}

// shows section 4: what comes after a lost answer does not take the doubt away, unless it is tokens.
#[tokio::test(start_paused = true)]
async fn a_busy_issuer_after_a_lost_answer_leaves_it_in_doubt() {
    let world = World::new();
    let (store, _, client) = scene(&world, OKTA).await;
    world.script(Script::Unknown);
    world.script(Script::Transient);
    assert!(get(&client).await.why.unwrap().is_transient());
    assert_eq!((world.counts().reissues, doubt(&store)), (2, Some(1)));
}

// shows B81, P9: each try counts.
#[tokio::test(start_paused = true)]
async fn the_limit_of_reissues_holds_for_tries_as_well() {
    let world = World::new();
    world.grace(Duration::MAX);
    let builder = world.builder().lost_reply(OKTA);
    let session = builder.reissue_limit(1, seconds(30)).build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    world.script(Script::Lost);
    assert!(
        get(&world.client(&session))
            .await
            .why
            .unwrap()
            .is_outcome_unknown()
    );
    assert_eq!(world.counts().reissues, 1);
    assert!(session.status().is_in_doubt());
}

// shows section 4: a program that is started again waits for what is left of the quarantine.
#[tokio::test(start_paused = true)]
async fn a_doubt_survives_a_restart() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    drop((client, session));

    let again = world.builder().store(store.clone()).build().unwrap();
    let client = world.client(&again);
    is_left_alone(&world, &client).await;
    assert!(again.status().is_in_doubt());
    advance(seconds(11)).await;
    world.script(Script::Unknown);
    get(&client).await;
    assert_eq!(doubt(&store), Some(2), "and counts on from there");
}

// shows S22: a clock that jumps by years neither forgets a doubt nor makes it last.
#[tokio::test(start_paused = true)]
async fn a_restored_doubt_is_never_longer_than_its_quarantine() {
    let years = seconds(10 * 365 * 24 * 3600);
    let now = SystemTime::now();
    for (since, pause) in [(now + years, 10), (now - years, 0)] {
        let world = World::new();
        let tokens = world.tokens("u").with_in_doubt(InDoubt::new(since, 1));
        world.expire();
        let (_, session) = world.stored(Some(tokens));
        let client = world.client(&session);
        if pause > 0 {
            is_left_alone(&world, &client).await;
        }
        advance(seconds(pause)).await;
        assert_eq!(get(&client).await.status, StatusCode::OK);
    }
}

// shows section 4, grace: after a restart inside the window nothing is waited for.
#[tokio::test(start_paused = true)]
async fn a_restored_doubt_inside_a_grace_window_is_tried_at_once() {
    let world = World::new();
    let tokens = world.tokens("u");
    world.expire();
    let now = SystemTime::now();
    let doubtful = tokens.with_in_doubt(InDoubt::new(now, 1).with_sent_at(now));
    let builder = world.builder().store(Store::new(Some(doubtful)));
    let session = builder.lost_reply(OKTA).build().unwrap();
    assert_eq!(get(&world.client(&session)).await.status, StatusCode::OK);
}

// shows section 4, P13: the doubt is in the store before anybody is told of the failure.
#[tokio::test(start_paused = true)]
async fn the_doubt_is_kept_before_it_is_told() {
    let world = World::new();
    let (store, _, client) = scene(&world, LostReply::strict()).await;
    store.hold_writes();
    world.script(Script::Unknown);
    let request = tokio::spawn(client.get());
    store.until_written(2).await;
    support::settle_down().await;
    assert!(!request.is_finished());
    store.writes.add_permits(10);
    assert!(request.await.unwrap().unwrap().why.is_some());
    assert_eq!(doubt(&store), Some(1));
}

// shows B126: a store that fails is no reason to forget it.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_cannot_be_stored_holds_in_memory_and_is_stored_later() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    store.fail_writes(true);
    world.script(Script::Unknown);
    get(&client).await;
    let status = session.status();
    assert!(
        matches!(
            status,
            SessionStatus::LoggedIn {
                saved: false,
                in_doubt: true,
                ..
            }
        ),
        "{status:?}"
    );
    is_left_alone(&world, &client).await;
    store.fail_writes(false);
    until_saved(&session).await;
    assert_eq!(doubt(&store), Some(1));
}

// shows B47
#[tokio::test(start_paused = true)]
async fn a_panic_leaves_it_in_doubt() {
    let world = World::new();
    let (store, _, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Panic);
    assert!(get(&client).await.why.unwrap().is_outcome_unknown());
    assert_eq!(doubt(&store), Some(1));
}

// shows B98: who waits on another runtime is told at once, and of the very doubt.
#[test]
fn a_runtime_that_goes_away_in_the_middle_leaves_it_in_doubt() {
    let world = World::new();
    let runtime = || {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let (_, session, client) = second.block_on(scene(&world, LostReply::strict()));
    world.hold_reissues();
    let refresh = first.spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    second.block_on(world.until(|counts| counts.reissues == 1));
    let waiting = second.spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    second.block_on(support::until_waiting(&session, 2));
    first.shutdown_background();
    second.block_on(async {
        let told = support::within(waiting).await.unwrap();
        assert!(told.unwrap_err().is_outcome_unknown());
        assert!(session.status().is_in_doubt());
        drop(support::within(refresh).await);
        is_left_alone(&world, &client).await;
    });
}

// shows P4: nobody drives the attempt any more, so nobody will ever know.
#[test]
fn an_attempt_that_is_abandoned_in_the_middle_leaves_it_in_doubt() {
    let world = World::new();
    let (stalled, driven) = (current_thread(), current_thread());
    let builder = world.builder().reissue_timeout(Duration::from_millis(20));
    let builder = builder.store_timeout(Duration::from_millis(20));
    let policy = LostReply::strict().quarantine(seconds(3600));
    let store = Store::new(None);
    let builder = builder.store(store.clone()).lost_reply(policy);
    let session = builder.build().unwrap();
    driven.block_on(session.login(world.tokens("u"))).unwrap();
    world.expire();
    world.hold_reissues();
    let refresh = stalled.spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    stalled.block_on(world.until(|counts| counts.reissues == 1));
    let client = world.client(&session);
    driven.block_on(async {
        assert!(get(&client).await.why.unwrap().is_outcome_unknown());
        assert!(session.status().is_in_doubt());
        // It is written down without the help of a later request.
        until_saved(&session).await;
        assert_eq!(doubt(&store), Some(1));
        is_left_alone(&world, &client).await;

        // What is adopted now is newer than what the issuer may still say.
        session.adopt(world.tokens("u")).await.unwrap();
    });
    world.script(Script::OnlyRotated("r-u-late"));
    world.release_reissues();
    drop(stalled.block_on(refresh));
    let adopted = store.tokens().unwrap();
    assert_eq!(adopted.refresh_token().unwrap().expose(), "r-u-2");
    assert_eq!(adopted.access_token().expose(), "a-u-2");
}

// shows P4, section 4: after a restart before the next request, the refresh token would be sent again at
// once, and the login would be over. Here the attempt is abandoned by a timer's thread, which cannot write, and
// the only one who waits is told of it later.
#[test]
fn a_doubt_is_stored_when_the_last_who_waited_is_told_and_no_request_comes() {
    let world = World::new();
    let (stalled, driven) = (current_thread(), current_thread());
    let brief = Duration::from_millis(20);
    let store = Store::new(None);
    let builder = world.builder().store(store.clone());
    let builder = builder.reissue_timeout(brief).store_timeout(brief);
    let session = builder.build().unwrap();
    driven.block_on(session.login(world.tokens("u"))).unwrap();
    world.hold_reissues();
    let refresh = || {
        let session = session.clone();
        async move { session.refresh().await }
    };
    let first = stalled.spawn(refresh());
    stalled.block_on(world.until(|counts| counts.reissues == 1));
    let mut second = Box::pin(refresh());
    driven.block_on(async { assert!(futures::poll!(&mut second).is_pending()) });
    // Neither runtime is driven meanwhile.
    let mut statuses = session.subscribe();
    futures::executor::block_on(statuses.wait_for(SessionStatus::is_in_doubt)).unwrap();
    assert_eq!(doubt(&store), None);
    driven.block_on(async {
        assert!(second.await.unwrap_err().is_outcome_unknown());
        let stored = timeout(seconds(30), until_saved(&session)).await;
        assert!(stored.is_ok(), "it is not stored: {:?}", session.status());
    });
    assert_eq!(doubt(&store), Some(1));
    drop(first);
}

// shows P3: a new refresh token that came with a useless answer outlives its runtime.
#[test]
fn a_rotated_token_is_not_replaced_by_the_one_before_it_when_its_save_is_cut_off() {
    let world = World::new();
    let (first, second) = (current_thread(), current_thread());
    let (store, session, _) = first.block_on(scene(&world, LostReply::strict()));
    store.hold_writes();
    world.script(Script::OnlyRotated("r-u-9"));
    let refresh = first.spawn({
        let session = session.clone();
        async move { session.refresh().await }
    });
    first.block_on(store.until_written(2));
    drop((first, refresh));
    store.writes.add_permits(10);
    second.block_on(async {
        session.token().await.unwrap();
        until_saved(&session).await;
    });
    let kept = store.tokens().unwrap();
    assert_eq!(kept.refresh_token().unwrap().expose(), "r-u-9");
    assert_eq!(doubt(&store), None);
}

// shows section 4: in doubt is the refresh token that was sent, also where it came from the store and
// the access token beside it had expired.
#[tokio::test(start_paused = true)]
async fn the_refresh_token_that_was_sent_is_the_one_in_doubt() {
    let world = World::new();
    let (store, _, client) = scene(&world, LostReply::strict()).await;
    let past = SystemTime::now() - seconds(60);
    store.put(Some(world.tokens("u").with_expires_at(past)));
    world.expire();
    world.script(Script::Unknown);
    get(&client).await;
    let stored = store.tokens().unwrap();
    assert_eq!(stored.refresh_token().unwrap().expose(), "r-u-2");
    assert_eq!(doubt(&store), Some(1));
}

// shows section 3: an answer that is of no use otherwise, but brings a refresh token, leaves no doubt.
#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_ends_the_doubt() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    advance(seconds(10)).await;
    world.script(Script::OnlyRotated("r-u-99"));
    get(&client).await;
    assert!(!session.status().is_in_doubt());
    let stored = store.tokens().unwrap();
    assert_eq!(stored.refresh_token().unwrap().expose(), "r-u-99");
    assert_eq!(doubt(&store), None);
    // The pause after a second failure in a row, and not a quarantine.
    advance(seconds(2)).await;
    assert_eq!(get(&client).await.status, StatusCode::OK);

    let (store, session, client) = scene(&world, OKTA).await;
    let before = world.counts().reissues;
    world.script(Script::OnlyRotated("r-u-100"));
    get(&client).await;
    assert_eq!(
        world.counts().reissues,
        before + 1,
        "the old one is not presented again"
    );
    assert!(!session.status().is_in_doubt());
    assert_eq!(
        store.tokens().unwrap().refresh_token().unwrap().expose(),
        "r-u-100"
    );
}

/// An issuer that answers with the oldest refresh token it was ever shown.
async fn answer_with_the_oldest(
    seen: Arc<Mutex<Vec<String>>>,
    request: ReissueRequest,
) -> Result<TokenSet, ReissueError> {
    let sent = request.refresh_token().unwrap().expose().to_owned();
    let mut seen = seen.lock().unwrap();
    seen.push(sent);
    let n = seen.len();
    let refresh_token = match n {
        1 => "r2".to_owned(),
        _ => seen[0].clone(),
    };
    let tokens =
        TokenSet::new(format!("a{n}")).and_then(|set| set.with_refresh_token(refresh_token));
    tokens.map_err(ReissueError::unknown)
}

// shows section 4: an older pair never replaces a newer one.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_was_used_up_is_not_taken_back() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let issuer = reissue_fn(move |request| answer_with_the_oldest(log.clone(), request));
    let session = Session::builder(issuer).build().unwrap();
    let first = TokenSet::new("a0").unwrap().with_refresh_token("r1");
    session.login(first.unwrap()).await.unwrap();
    for _ in 0..3 {
        session.refresh().await.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), ["r1", "r2", "r2"]);
    assert_eq!(session.token().await.unwrap().expose(), "a3");

    // Another login may well be given what the one before it has used up.
    let second = TokenSet::new("b0").unwrap().with_refresh_token("r9");
    session.login(second.unwrap()).await.unwrap();
    session.refresh().await.unwrap();
    session.refresh().await.unwrap();
    assert_eq!(seen.lock().unwrap()[3..], ["r9", "r1"]);
}

// shows section 4: nor where the answer is of no use otherwise.
#[tokio::test(start_paused = true)]
async fn a_used_up_refresh_token_in_a_useless_answer_is_not_taken_back() {
    let useless =
        || ReissueError::unknown("scripted").with_refresh_token(RefreshToken::new("r1").unwrap());
    for same_token in [true, false] {
        let asked = Arc::new(Mutex::new(0));
        let issuer = reissue_fn(move |_| {
            *asked.lock().unwrap() += 1;
            let answer = match *asked.lock().unwrap() {
                1 => TokenSet::new("a2").unwrap().with_refresh_token("r2"),
                _ if same_token => TokenSet::new("a2").unwrap().with_refresh_token("r1"),
                _ => return std::future::ready(Err(useless())),
            };
            std::future::ready(answer.map_err(ReissueError::unknown))
        });
        let store = Store::new(None);
        let session = Session::builder(issuer)
            .store(store.clone())
            .build()
            .unwrap();
        let tokens = TokenSet::new("a1").unwrap().with_refresh_token("r1");
        session.login(tokens.unwrap()).await.unwrap();
        session.refresh().await.unwrap();
        session.refresh().await.unwrap_err();
        let kept = store.tokens().unwrap();
        assert_eq!(kept.refresh_token().unwrap().expose(), "r2");
    }
}

/// Needs no refresh token, and loses its first answer.
struct Machine(Mutex<u32>);

impl Reissue for Machine {
    async fn reissue(&self, _: ReissueRequest) -> Result<TokenSet, ReissueError> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        match *asked {
            1 => Err(ReissueError::unknown("scripted")),
            n => TokenSet::new(format!("a{n}")).map_err(ReissueError::unknown),
        }
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }
}

// shows B51: where no refresh token was sent, none is in doubt.
#[tokio::test(start_paused = true)]
async fn without_a_refresh_token_there_is_no_quarantine() {
    for policy in [LostReply::strict(), OKTA] {
        let builder = Session::builder(Machine(Mutex::new(0)));
        let session = builder.lost_reply(policy).build().unwrap();
        assert!(session.token().await.unwrap_err().is_outcome_unknown());
        advance(seconds(1)).await;
        assert_eq!(session.token().await.unwrap().expose(), "a2");

        // A refresh token that is there all the same is not sent, and so not in doubt.
        let session = Session::builder(Machine(Mutex::new(0)));
        let session = session.lost_reply(policy).build().unwrap();
        let tokens = TokenSet::new("a0").unwrap().with_refresh_token("unused");
        session.login(tokens.unwrap()).await.unwrap();
        session.refresh().await.unwrap_err();
        assert!(!session.status().is_in_doubt());
    }
}

// shows section 4: an answer ends the doubt, also one that is of no other use.
#[tokio::test(start_paused = true)]
async fn the_same_access_token_again_ends_the_doubt() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    advance(seconds(10)).await;
    world.script(Script::SameToken);
    assert!(get(&client).await.why.unwrap().is_same_token());
    assert!(!session.status().is_in_doubt());
    assert_eq!(doubt(&store), None);
}

// shows section 4: the store is read again before each try, and a doubt in it counts.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_somebody_else_has_stored_is_taken_over() {
    let past = SystemTime::now() - seconds(60);
    for theirs in ["the same pair", "a newer one that has expired"] {
        let world = World::new();
        let (store, session, client) = scene(&world, LostReply::strict()).await;
        let newer = world.tokens("u").with_expires_at(past);
        let ours = store.tokens().unwrap();
        let pair = if theirs == "the same pair" {
            ours
        } else {
            newer
        };
        world.expire();
        store.put(Some(pair.with_in_doubt(InDoubt::new(SystemTime::now(), 3))));
        for _ in 0..3 {
            assert_eq!(
                get(&client).await.status,
                StatusCode::UNAUTHORIZED,
                "{theirs}"
            );
        }
        assert_eq!(world.counts().reissues, 0, "{theirs}");
        assert!(session.status().is_in_doubt(), "{theirs}");
        advance(seconds(41)).await;
        assert_eq!(get(&client).await.status, StatusCode::OK, "{theirs}");
    }
}

// shows section 4: a doubt belongs to a refresh token, and not to the session.
#[tokio::test(start_paused = true)]
async fn the_doubt_of_one_refresh_token_does_not_count_for_the_next() {
    let now = SystemTime::now();
    let past = now - seconds(3600);
    let world = World::new();
    let (store, _, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    advance(seconds(10)).await;
    // Somebody else has fetched a pair, which has expired by now.
    store.put(Some(world.tokens("u").with_expires_at(past)));
    world.expire();
    world.script(Script::Unknown);
    get(&client).await;
    let kept = store.tokens().unwrap();
    assert_eq!(kept.refresh_token().unwrap().expose(), "r-u-2");
    assert_eq!(doubt(&store), Some(1));

    // A doubt in the store whose quarantine is over is no reason to wait.
    let world = World::new();
    let (store, _, client) = scene(&world, LostReply::strict()).await;
    let ours = store.tokens().unwrap();
    store.put(Some(ours.with_in_doubt(InDoubt::new(past, 1))));
    assert_eq!(get(&client).await.status, StatusCode::OK);
}

// shows B67: with a new login there is nothing in doubt.
#[tokio::test(start_paused = true)]
async fn a_login_ends_the_doubt() {
    let world = World::new();
    let (store, session, client) = scene(&world, LostReply::strict()).await;
    world.script(Script::Unknown);
    get(&client).await;
    session.login(world.tokens("u")).await.unwrap();
    assert!(!session.status().is_in_doubt());
    assert_eq!(doubt(&store), None);
    world.expire();
    assert_eq!(get(&client).await.status, StatusCode::OK);
}

// shows B141
#[test]
fn a_policy_that_cannot_work_is_told_when_the_session_is_built() {
    let world = World::new();
    let wrong = [
        LostReply::grace(Duration::ZERO),
        LostReply::grace(Duration::MAX),
        LostReply::strict().quarantine(Duration::ZERO),
        LostReply::strict().quarantine(Duration::MAX),
    ];
    for policy in wrong {
        assert!(
            world.builder().lost_reply(policy).build().is_err(),
            "{policy:?}"
        );
    }
    assert!(
        world
            .builder()
            .lost_reply(LostReply::CURITY)
            .build()
            .is_ok()
    );
}
