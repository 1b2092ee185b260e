//! Proves that processes which share a login get into each other's way at any moment and lose nothing by
//! it: no login, no tokens, no doubt and no turn (P1, P5 to P9).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use http::StatusCode;
use shared::Common;
use shared::Fate;
use shared::Notice;
use shared::Process;
use shared::in_use;
use shared::pass;
use support::Client;
use support::Script;
use support::World;
use support::settle_down;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::advance;
use tokio::time::timeout;
use tower::Layer;
use tower_token_refresh::EndReason;
use tower_token_refresh::LostReply;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::Verdict;
use tower_token_refresh::classify_fn;
use tower_token_refresh::reissue_fn;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A process that is about to do something, and another. Both have used the login.
async fn two(world: &World) -> (Common, Process, Process) {
    two_with(world, |builder| builder).await
}

async fn two_with(
    world: &World,
    options: impl Fn(SessionBuilder) -> SessionBuilder,
) -> (Common, Process, Process) {
    let store = Common::new();
    let mut both = in_use(world, &store, 2, options).await;
    let other = both.remove(1);
    (store, both.remove(0), other)
}

/// It does not hang, and the session stands as it should.
async fn soon(process: &Process, condition: impl FnMut(&SessionStatus) -> bool) {
    let stands = timeout(seconds(300), process.until(condition)).await;
    stands.unwrap_or_else(|_| panic!("it stays {:?}", process.session.status()));
}

/// A request of the other one is on its way with the old user's token all the while: it is answered at
/// the end, and never sent again with the new user's. There is one login more after this.
async fn keeps_users_apart(world: &World, other: &Process, what: impl Future<Output = ()>) {
    world.expire();
    world.hold_answers();
    let before = world.counts().requests;
    let request = other.send();
    world.until(|counts| counts.requests == before + 1).await;
    what.await;
    assert_eq!(other.store.epoch().await, 2);
    settle_down().await;
    world.release_answers(1 << 20);
    let answer = request.await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::Replaced));
}

/// Begins this while a read or swap of the process is held, which goes on then.
async fn while_held(process: &Process, what: impl Future<Output = Result<(), RefreshError>>) {
    process.store.until_held().await;
    let release = async {
        settle_down().await;
        process.store.release();
    };
    tokio::join!(what, release).0.unwrap();
}

// shows P8
#[tokio::test(start_paused = true)]
async fn a_login_while_the_new_pair_is_stored_is_not_lost() {
    for fate in [Fate::HeldBefore, Fate::HeldAfter] {
        let world = World::new();
        let (_store, one, other) = two(&world).await;
        keeps_users_apart(&world, &other, async {
            // The claim, then the new pair.
            one.store.next_swaps([Fate::Done, fate]);
            let refresh = one.refresh();
            while_held(&one, one.session.login(world.tokens("v"))).await;
            let replaced = refresh.await.unwrap().unwrap_err();
            assert_eq!(replaced.end_reason(), Some(EndReason::Replaced));
            let token = one.session.token().await.unwrap();
            assert!(token.expose().starts_with("a-v"), "{fate:?}");
        })
        .await;
        one.session.login(world.tokens("w")).await.unwrap();
        settle_down().await;
        assert_eq!(other.get().await.user, "w");
    }
}

// shows P8
#[tokio::test(start_paused = true)]
async fn a_logout_while_the_new_pair_is_stored_is_not_undone() {
    for fate in [Fate::HeldBefore, Fate::HeldAfter] {
        let world = World::new();
        let (store, one, other) = two(&world).await;
        world.expire();
        one.store.next_swaps([Fate::Done, fate]);
        let request = one.send();
        while_held(&one, one.session.logout()).await;
        let why = request.await.unwrap().why.unwrap();
        assert_eq!(why.end_reason(), Some(EndReason::LoggedOut), "{fate:?}");
        assert_eq!(one.session.status(), SessionStatus::LoggedOut, "{fate:?}");
        assert!(store.tokens().await.is_none(), "{fate:?}");
        soon(&other, |status| !status.is_logged_in()).await;
    }
}

// shows P8: what is written down about the login of before does not make this one pass for it.
#[tokio::test(start_paused = true)]
async fn a_login_while_a_refusal_is_stored_is_another_one_to_all() {
    let world = World::new();
    let (_store, one, other) = two(&world).await;
    keeps_users_apart(&world, &other, async {
        world.script(Script::Refuse);
        one.store.next_swaps([Fate::Done, Fate::HeldAfter]);
        let refresh = one.refresh();
        while_held(&one, one.session.login(world.tokens("v"))).await;
        assert!(refresh.await.unwrap().is_err());
    })
    .await;
}

// shows P8
#[tokio::test(start_paused = true)]
async fn a_login_while_a_claim_is_renewed_is_another_one_to_all() {
    let world = World::new();
    let grace = |it: SessionBuilder| it.lost_reply(LostReply::grace(seconds(100)));
    let (_store, one, other) = two_with(&world, grace).await;
    keeps_users_apart(&world, &other, async {
        world.script(Script::Hang);
        one.store.next_swaps([Fate::Done, Fate::HeldAfter]);
        let refresh = one.refresh();
        one.store.until_held().await;
        one.store.release();
        // The claim is renewed, and nobody here knows yet.
        one.session.login(world.tokens("v")).await.unwrap();
        assert!(refresh.await.unwrap().is_err());
    })
    .await;
}

// shows P1: one that was taken for dead meanwhile does not try again.
#[tokio::test(start_paused = true)]
async fn one_whose_claim_was_taken_away_does_not_present_it_again() {
    let world = World::new();
    let grace = |it: SessionBuilder| it.lost_reply(LostReply::grace(seconds(100)));
    let (_store, one, other) = two_with(&world, grace).await;
    world.expire();
    world.script(Script::Hang);
    let request = one.send_and_reissue(&world).await;
    other.store.set_ahead(seconds(3600));
    assert!(other.get().await.why.unwrap().is_outcome_unknown());
    assert!(request.await.unwrap().why.is_some());
    assert_eq!(world.counts().reissues, 1);
}

// shows P8
#[tokio::test(start_paused = true)]
async fn a_login_while_the_store_is_read_for_the_first_time_is_another_one_to_all() {
    let world = World::new();
    let (store, _one, other) = two(&world).await;
    let late = Process::new(&world, &store);
    keeps_users_apart(&world, &other, async {
        late.store.next_reads([Fate::HeldAfter]);
        let session = late.session.clone();
        let token = tokio::spawn(async move { session.token().await });
        late.store.until_held().await;
        late.store.release();
        late.session.login(world.tokens("v")).await.unwrap();
        // Whichever of them it was answered for, it is none of the next login.
        drop(token.await.unwrap());
    })
    .await;
}

// shows P9: nothing is asked without end.
#[tokio::test(start_paused = true)]
async fn a_store_that_says_too_early_that_it_has_changed_is_not_asked_without_end() {
    let world = World::new();
    let (_store, one, other) = two(&world).await;
    world.expire();
    world.script(Script::Hang);
    let request = one.send_and_reissue(&world).await;
    other.store.set_notice(Notice::TooEarly);
    let before = other.store.reads();
    assert!(other.get().await.why.is_some());
    assert!(request.await.unwrap().why.is_some());
    let reads = other.store.reads() - before;
    assert!(reads < 10_000, "{reads}");
}

/// One that hears of nothing, while the answer to the other is lost: it comes to the store when the first
/// quarantine is over.
async fn one_that_has_missed_a_doubt(world: &World) -> (Common, Process, Process) {
    let (store, one, other) = two(world).await;
    other.store.set_notice(Notice::Never);
    settle_down().await;
    world.expire();
    world.script(Script::Unknown);
    other.store.next_reads([Fate::Lost]);
    assert!(one.get().await.why.unwrap().is_outcome_unknown());
    settle_down().await;
    advance(seconds(11)).await;
    assert!(!other.session.status().is_in_doubt());
    (store, one, other)
}

// shows section 4: an attempt that was not processed says nothing about the one before.
#[tokio::test(start_paused = true)]
async fn a_doubt_is_not_forgotten_by_one_that_has_not_heard_of_it() {
    let world = World::new();
    let (store, _one, other) = one_that_has_missed_a_doubt(&world).await;
    world.script(Script::Transient);
    assert!(other.get().await.why.unwrap().is_transient());
    assert!(store.doubt().await.is_some());
}

// shows section 4
#[tokio::test(start_paused = true)]
async fn a_reply_that_is_lost_again_is_in_quarantine_anew() {
    let world = World::new();
    let (store, one, other) = one_that_has_missed_a_doubt(&world).await;
    let before = store.doubt().await.unwrap();
    world.script(Script::Unknown);
    assert!(other.get().await.why.unwrap().is_outcome_unknown());
    let doubt = store.doubt().await.unwrap();
    assert_eq!(doubt.tries, before.tries + 1);
    assert!(doubt.since > before.since);
    assert!(one.get().await.why.unwrap().is_outcome_unknown());
    assert_eq!(world.counts().reissues, 2);
}

// shows section 4: the same where both try, as there is a grace window.
#[tokio::test(start_paused = true)]
async fn each_reply_that_is_lost_in_a_grace_window_counts() {
    let world = World::new();
    let grace = |it: SessionBuilder| it.lost_reply(LostReply::grace(seconds(20)));
    let (store, one, other) = two_with(&world, grace).await;
    world.expire();
    for _ in 0..3 {
        world.script(Script::Unknown);
    }
    for _ in 0..3 {
        world.script(Script::Hang);
    }
    let (first, second) = tokio::join!(one.get(), other.get());
    assert!(first.why.unwrap().is_outcome_unknown());
    assert!(second.why.unwrap().is_outcome_unknown());
    assert_eq!(store.doubt().await.unwrap().tries, 2);
}

// shows P4: a claim that was made by a wrong clock does not last until that time has come.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_for_a_moment_keeps_nobody_out() {
    let world = World::new();
    let (_store, one, other) = two(&world).await;
    world.expire();
    world.script(Script::Hang);
    one.store.set_ahead(seconds(365 * 86400));
    let request = one.send_and_reissue(&world).await;
    // It is dead, as far as the others can tell.
    one.store.set_away(true);
    drop(request);
    for _ in 0..20 {
        advance(seconds(60)).await;
        if other.get().await.status == StatusCode::OK {
            assert_eq!(world.counts().reuses, 0);
            return;
        }
    }
    panic!("20 minutes later nobody can refresh");
}

// shows P1: a clock that jumps ahead makes no claim run out whose owner is at it.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_does_not_make_two_present_it() {
    let world = World::new();
    let (_store, one, other) = two(&world).await;
    world.expire();
    world.hold_reissues();
    let request = one.send_and_reissue(&world).await;
    other.store.set_ahead(seconds(3600));
    let second = other.send();
    world.until(|counts| counts.rejections == 2).await;
    settle_down().await;
    assert_eq!(world.counts().reissues, 1);
    world.release_reissues();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    drop(second.await.unwrap());
    other.is_ok().await;
    world.has_reissued(1);
}

// shows P6, P7: between the last look at the store and the end, somebody has stored newer tokens.
#[tokio::test(start_paused = true)]
async fn an_end_is_told_only_where_it_is_one() {
    let world = World::new();
    let (store, one, other) = two(&world).await;
    world.expire();
    world.hold_reissues();
    world.script(Script::Refuse);
    let request = one.send_and_reissue(&world).await;
    one.store.next_swaps([Fate::HeldBefore]);
    world.release_reissues();
    one.store.until_held().await;
    assert!(one.session.status().is_logged_in());
    other.session.adopt(world.tokens("u")).await.unwrap();
    let newer = store.access().await;
    one.store.release();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    assert_eq!(one.session.stats().ends, 0);
    assert_eq!(store.access().await, newer);
}

// shows P5: the swap that claims had no answer, and is done when nobody is at it any more.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_written_too_late_costs_no_doubt() {
    let world = World::new();
    let (store, one, other) = two(&world).await;
    world.expire();
    one.store.next_swaps([Fate::Late]);
    assert!(one.get().await.why.unwrap().is_store());
    one.store.release();
    settle_down().await;
    other.is_ok().await;
    assert_eq!(store.doubt().await, None);
    world.has_reissued(1);
}

// shows P6: it is final for the token that was sent, and another process has a newer one, though the
// issuer does not rotate.
#[tokio::test(start_paused = true)]
async fn a_newer_access_token_with_the_same_refresh_token_is_adopted_and_not_ended() {
    let (world, store) = (World::new(), Common::new());
    let old = world.tokens("u");
    world.expire();
    let new = world.tokens("u").access_token().expose().to_owned();
    let way = store.other();
    let session = |store: &Common| {
        let new = new.clone();
        let issuer = reissue_fn(move |_| {
            let new = new.clone();
            async move { Ok(TokenSet::new(new).unwrap()) }
        });
        let builder = Session::builder(issuer).shared_store(store.clone());
        builder.build().unwrap()
    };
    let (one, other) = (session(&way), session(&store.other()));
    one.login(old).await.unwrap();
    other.token().await.unwrap();
    let is_final = classify_fn(|status, _| match status {
        StatusCode::UNAUTHORIZED => Verdict::EndSession,
        _ => Verdict::Accept,
    });
    let layer = TokenRefreshLayer::new(support::ORIGIN, one.clone()).unwrap();
    let client = Client::new(layer.classify(is_final).layer(world.api()));
    way.next_swaps([Fate::HeldBefore]);
    let request = tokio::spawn(async move { client.get().await.unwrap() });
    way.until_held().await;
    other.refresh().await.unwrap();
    way.release();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    settle_down().await;
    assert!(one.status().is_logged_in() && other.status().is_logged_in());
    assert_eq!(store.access().await, new);
}

// shows P7: a new login re-arms everybody.
#[tokio::test(start_paused = true)]
async fn a_process_that_has_only_logged_out_hears_of_the_next_login() {
    let (world, store) = (World::new(), Common::new());
    let (one, other) = (Process::new(&world, &store), Process::new(&world, &store));
    other.session.logout().await.unwrap();
    one.session.login(world.tokens("u")).await.unwrap();
    soon(&other, SessionStatus::is_logged_in).await;
    other.is_ok().await;
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

// shows P7, for a session that is used on one runtime after another.
#[test]
fn after_the_end_a_session_on_another_runtime_hears_of_the_next_login() {
    let world = World::new();
    let (_store, one, other) = runtime().block_on(two(&world));
    runtime().block_on(async {
        one.session.logout().await.unwrap();
        world.expire();
        let why = other.get().await.why.unwrap();
        assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
    });
    let login = one.session.login(world.tokens("u"));
    runtime().block_on(login).unwrap();
    runtime().block_on(async {
        drop(other.get().await);
        soon(&other, SessionStatus::is_logged_in).await;
        other.is_ok().await;
    });
}

// shows P8, for the same.
#[test]
fn a_session_whose_first_runtime_is_gone_hears_of_other_logins() {
    let world = World::new();
    let (_store, one, other) = runtime().block_on(two(&world));
    let login = one.session.login(world.tokens("v"));
    runtime().block_on(login).unwrap();
    runtime().block_on(async {
        drop(other.get().await);
        let is_new = |status: &SessionStatus| {
            matches!(status, SessionStatus::LoggedIn { generation, .. } if *generation > 1)
        };
        soon(&other, is_new).await;
        assert_eq!(other.get().await.user, "v");
    });
}

// shows P8: "log out" is about the login that is there by then.
#[tokio::test(start_paused = true)]
async fn a_logout_is_one_even_where_the_login_was_not_yet_heard_of() {
    let world = World::new();
    let (store, one, other) = two(&world).await;
    one.session.logout().await.unwrap();
    soon(&other, |status| !status.is_logged_in()).await;
    settle_down().await;
    other.store.next_reads([Fate::HeldBefore]);
    one.session.login(world.tokens("v")).await.unwrap();
    other.session.logout().await.unwrap();
    assert!(store.tokens().await.is_none());
    soon(&one, |status| !status.is_logged_in()).await;
}

// shows P8: the same where whoever follows the store has just read of it, and memory has not got it yet.
#[tokio::test(start_paused = true)]
async fn a_login_that_is_heard_of_during_a_logout_does_not_undo_it() {
    let world = World::new();
    let (store, one, other) = two(&world).await;
    one.session.logout().await.unwrap();
    soon(&other, |status| !status.is_logged_in()).await;
    settle_down().await;
    other.store.next_reads([Fate::HeldAfter]);
    one.session.login(world.tokens("v")).await.unwrap();
    while_held(&other, other.session.logout()).await;
    assert!(store.tokens().await.is_none());
    soon(&one, |status| !status.is_logged_in()).await;
}

// shows P4: whoever follows the store goes with the session, whatever the store says.
#[tokio::test(start_paused = true)]
async fn nothing_follows_the_store_for_a_session_that_is_gone() {
    for notice in [Notice::Never, Notice::TooEarly] {
        let world = World::new();
        let (_store, one, other) = two(&world).await;
        other.store.set_notice(notice);
        one.session.login(world.tokens("v")).await.unwrap();
        let store = other.store.clone();
        drop(other);
        pass(40).await;
        assert_eq!(store.holders(), 1, "{notice:?}");
        assert!(store.reads() < 10_000, "{notice:?}");
    }
}

// shows P1, P8: the first look at the store fails, and the second one finds another pair than whoever
// follows the store has seen meanwhile.
#[tokio::test(start_paused = true)]
async fn one_that_is_told_of_the_login_while_it_reads_presents_no_older_token() {
    let world = World::new();
    let (store, one, _other) = two(&world).await;
    let late = Process::new(&world, &store);
    late.store.next_reads([Fate::Lost, Fate::HeldAfter]);
    assert!(late.session.token().await.unwrap_err().is_store());
    // Whoever follows the store reads the old pair, and is slow.
    late.store.until_held().await;
    advance(seconds(2)).await;
    one.session.refresh().await.unwrap();
    let request = late.send();
    settle_down().await;
    late.store.release();
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    settle_down().await;
    world.expire();
    late.is_ok().await;
    world.has_reissued(2);
}

// shows P14: a program that made a session for each of its users had ten thousand tasks that waited for their
// next look at the store.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_session_that_was_dropped() {
    let world = World::new();
    for notice in [Notice::InTime, Notice::Never] {
        let store = Common::new();
        let process = in_use(&world, &store, 1, |builder| builder).await.remove(0);
        process.store.set_notice(notice);
        settle_down().await;
        let Process {
            session,
            client,
            store,
        } = process;
        assert!(store.holders() > 1, "it follows the store");
        drop((session, client));
        settle_down().await;
        assert_eq!(store.holders(), 1, "{notice:?}");
    }
}
