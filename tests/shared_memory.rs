//! Proves that what one process remembers is written back after a failover, whoever else writes first
//! (P1, P8 between processes).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use http::StatusCode;
use shared::Common;
use shared::Fate;
use shared::Notice;
use shared::Process;
use shared::expired;
use shared::in_use;
use shared::pass;
use shared::pass_ms;
use support::Script;
use support::World;
use support::settle_down;
use tokio::time::advance;
use tower_token_refresh::Record;
use tower_token_refresh::SessionStatus;

// shows P1: the claim of one who waits for the issuer, where somebody who has not seen it was the first to
// write back what he remembers.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_has_lost_is_written_back_although_another_was_faster() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let before = store.record().await;
    let processes = expired(&world, &store, 3).await;
    world.hold_reissues();
    // This one hears nothing of the claim.
    processes[1].store.set_away(true);
    let first = processes[0].send_and_reissue(&world).await;
    // The failover; and the one that knows of no claim is the first to find out.
    processes[0].store.set_away(true);
    processes[2].store.set_away(true);
    store.fall_back(&before).await;
    processes[1].store.set_away(false);
    store.until(|record| record.tokens().is_some()).await;
    processes[0].store.set_away(false);
    processes[2].store.set_away(false);
    // Until it is renewed.
    pass(4).await;
    let second = processes[1].send();
    pass(2).await;
    world.release_reissues();
    assert!(first.await.is_ok() && second.await.is_ok());
    world.has_reissued(1);
}

// shows P1: a pair that only one remembers who has not seen the one before.
#[tokio::test(start_paused = true)]
async fn a_pair_that_a_failover_has_lost_is_written_back_although_the_record_has_moved_on() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let mut processes = expired(&world, &store, 1).await;
    let first = store.record().await;
    processes[0].is_ok().await;
    let newest = store.access().await;
    // It knows the second pair alone, and is the only one.
    let late = Process::new(&world, &store);
    late.is_ok().await;
    drop(processes.remove(0));
    late.store.set_away(true);
    store.fall_back(&first).await;
    // Another one begins with the first pair, and the issuer has no time.
    let fresh = Process::new(&world, &store);
    for _ in 0..3 {
        world.script(Script::Transient);
        assert!(fresh.session.refresh().await.is_err());
        pass(60).await;
    }
    late.store.set_away(false);
    pass(2).await;
    assert_eq!(late.session.token().await.unwrap().expose(), newest);
    world.expire();
    late.is_ok().await;
    fresh.is_ok().await;
    assert_eq!(world.counts().reuses, 0);
}

// shows P1: the same with two who remember, and the one with the older pair is faster.
#[tokio::test(start_paused = true)]
async fn the_newest_pair_wins_although_the_one_who_has_it_knows_of_no_other() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let mut processes = expired(&world, &store, 2).await;
    processes[1].store.set_away(true);
    processes[0].is_ok().await;
    let newest = store.access().await;
    let late = Process::new(&world, &store);
    late.is_ok().await;
    late.store.set_away(true);
    drop(processes.remove(0));
    let behind = processes.remove(0);
    let mut version = 0;
    // Each failover gives the older pair a higher version.
    for _ in 0..5 {
        store.fall_back(&Record::empty()).await;
        behind.store.set_away(false);
        store.until(|record| record.tokens().is_some()).await;
        assert!(store.record().await.version() >= version);
        version = store.record().await.version();
        settle_down().await;
    }
    late.store.set_away(false);
    pass(2).await;
    assert_eq!(store.access().await, newest);
    late.is_ok().await;
    behind.is_ok().await;
    assert_eq!(world.counts().reuses, 0);
}

// shows P8: a logout is not undone by a login from before it that the store had lost.
#[tokio::test(start_paused = true)]
async fn a_logout_after_a_failover_is_not_undone_by_a_login_that_was_lost() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let processes = in_use(&world, &store, 1, |builder| builder).await;
    let older = store.record().await;
    pass(5).await;
    processes[0].session.login(world.tokens("v")).await.unwrap();
    processes[0].store.set_away(true);
    store.fall_back(&older).await;
    let fresh = Process::new(&world, &store);
    fresh.is_ok().await;
    pass(1).await;
    fresh.session.logout().await.unwrap();
    processes[0].store.set_away(false);
    // Its version is one that this process has seen before, so that it takes a look of its own.
    pass(32).await;
    assert!(store.tokens().await.is_none(), "{}", store.access().await);
    assert!(!processes[0].session.status().is_logged_in());
}

// shows P8: a server whose clock is behind takes over.
#[tokio::test(start_paused = true)]
async fn a_login_after_a_failover_to_a_slow_clock_is_the_newest() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let processes = in_use(&world, &store, 1, |builder| builder).await;
    let older = store.record().await;
    // The first server's clock.
    processes[0].store.set_ahead(Duration::from_secs(5));
    processes[0].session.login(world.tokens("v")).await.unwrap();
    processes[0].store.set_away(true);
    store.fall_back(&older).await;
    let fresh = Process::new(&world, &store);
    fresh.session.login(world.tokens("w")).await.unwrap();
    processes[0].store.set_ahead(Duration::ZERO);
    processes[0].store.set_notice(Notice::InTime);
    processes[0].store.set_away(false);
    pass(2).await;
    assert!(
        store.access().await.starts_with("a-w"),
        "{}",
        store.access().await
    );
}

// shows P8: a login that was the first, and whose answer was lost: what came after it stays.
#[tokio::test(start_paused = true)]
async fn a_first_login_that_is_unsure_undoes_no_logout_that_came_after_it() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let (unsure, other) = (Process::new(&world, &store), Process::new(&world, &store));
    unsure.store.next_swaps([Fate::Late]);
    assert!(unsure.session.login(world.tokens("u")).await.is_err());
    unsure.store.set_away(true);
    unsure.store.until_held().await;
    unsure.store.release();
    store.until(|record| record.tokens().is_some()).await;
    other.is_ok().await;
    other.session.refresh().await.unwrap();
    pass(1).await;
    other.session.logout().await.unwrap();
    pass(60).await;
    unsure.store.set_away(false);
    pass(32).await;
    assert!(store.tokens().await.is_none(), "{}", store.access().await);
    assert!(!unsure.session.status().is_logged_in());
}

// shows P8: a login that was not stored yet when the failover came.
#[tokio::test(start_paused = true)]
async fn a_login_that_could_not_be_saved_is_saved_after_a_failover() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let mut processes = in_use(&world, &store, 2, |builder| builder).await;
    let older = store.record().await;
    let other = processes.remove(1);
    let process = processes.remove(0);
    // It hears nothing of the login in between.
    process.store.set_away(true);
    other.session.login(world.tokens("v")).await.unwrap();
    other.store.set_away(true);
    process.store.set_away(false);
    process.store.next_swaps([Fate::Lost]);
    assert!(process.session.login(world.tokens("w")).await.is_err());
    store.fall_back(&older).await;
    pass(10).await;
    assert_eq!(process.get().await.user, "w");
    assert!(
        store.access().await.starts_with("a-w"),
        "{}",
        store.access().await
    );
    assert_eq!(Process::new(&world, &store).get().await.user, "w");
}

// shows P8: the same, and what the failover shows is news of the login before.
#[tokio::test(start_paused = true)]
async fn a_login_that_could_not_be_saved_gets_no_other_users_tokens_in_a_failover() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let mut processes = expired(&world, &store, 2).await;
    let other = processes.remove(1);
    let process = processes.remove(0);
    // It hears nothing of the login in between.
    process.store.set_away(true);
    other.is_ok().await;
    let older = store.record().await;
    pass(1).await;
    other.session.login(world.tokens("v")).await.unwrap();
    other.store.set_away(true);
    process.store.set_away(false);
    process.store.next_swaps([Fate::Lost]);
    assert!(process.session.login(world.tokens("w")).await.is_err());
    store.fall_back(&older).await;
    pass(10).await;
    assert_eq!(process.get().await.user, "w");
}

// shows P1, P8: what comes of an attempt of the login before says nothing of the login that took its place.
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_login_before_does_not_bring_back_a_spent_token_of_the_next_one() {
    let (world, store) = (World::new(), Common::new());
    let mut processes = expired(&world, &store, 2).await;
    let (other, process) = (processes.remove(1), processes.remove(0));
    world.hold_reissues();
    let request = process.send_and_reissue(&world).await;
    settle_down().await;
    // The answer is here, and the store is slow.
    process.store.next_reads([Fate::HeldBefore]);
    world.release_reissues();
    process.store.until_held().await;
    other.session.login(world.tokens("v")).await.unwrap();
    process
        .until(|status| matches!(status, SessionStatus::LoggedIn { generation: 2, .. }))
        .await;
    settle_down().await;
    other.session.refresh().await.unwrap();
    let newest = store.access().await;
    settle_down().await;
    process.store.release();
    drop(request.await);
    pass(10).await;
    assert_eq!(store.access().await, newest);
    world.expire();
    process.is_ok().await;
    other.is_ok().await;
    assert_eq!(world.counts().reuses, 0);
}

// shows P1: both are in touch with the store all the while; the one without the claim is the faster one to write back
// what it knows, under the very version that the claim had.
#[tokio::test(start_paused = true)]
async fn a_claim_is_written_again_where_another_one_has_written_back_what_was_before_it() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let processes = in_use(&world, &store, 2, |builder| builder).await;
    world.expire();
    world.hold_reissues();
    // The other one does not hear of the claim.
    processes[1].store.set_notice(Notice::Never);
    processes[1].store.next_reads([Fate::Lost]);
    let first = processes[0].send();
    world.until(|counts| counts.reissues == 1).await;
    settle_down().await;
    processes[0].store.next_reads([Fate::HeldBefore]);
    store.fall_back(&Record::empty()).await;
    processes[0].store.until_held().await;
    // It writes back what it knows, and can't claim yet.
    processes[1].store.next_swaps([Fate::Done, Fate::Lost]);
    processes[1].session.refresh().await.unwrap_err();
    processes[0].store.release();
    for _ in 0..20 {
        advance(Duration::from_millis(100)).await;
        settle_down().await;
    }
    let second = processes[1].send();
    for _ in 0..10 {
        advance(Duration::from_millis(50)).await;
        settle_down().await;
    }
    let presented = world.counts().reissues;
    world.release_reissues();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let counts = world.counts();
    assert_eq!(
        (presented, counts.reuses),
        (1, 0),
        "{counts:?} {:?} {:?}",
        first.why,
        second.why
    );
}

// shows P1: a pair that this process has read in the store, while a refresh of its own was waiting for an answer.
#[tokio::test(start_paused = true)]
async fn a_pair_that_was_read_while_a_refresh_was_under_way_is_remembered() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let mut processes = in_use(&world, &store, 2, |builder| builder).await;
    let before = store.record().await;
    world.expire();
    let other = processes.remove(1);
    other.store.next_reads([Fate::HeldBefore]);
    let waits = other.send();
    other.store.until_held().await;
    let reads = other.store.reads();
    processes[0].is_ok().await;
    settle_down().await;
    assert!(other.store.reads() > reads, "it has read the new pair");
    assert_eq!(world.counts().reissues, 1);
    // The one that has fetched it is gone, and the store falls back.
    processes.clear();
    settle_down().await;
    store.fall_back(&before).await;
    other.store.release();
    let answer = waits.await.unwrap();
    let counts = world.counts();
    assert_eq!((counts.reissues, counts.reuses), (1, 0), "{:?}", answer.why);
}

// shows P6, P8: one who has just been started finds what the failover has brought back of the login before, and its
// refresh token is refused. That is the end of that login, and not of the later one that others remember.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_login_that_a_failover_has_brought_back_does_not_end_the_later_one() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let one = Process::new(&world, &store);
    one.session.login(world.tokens("u")).await.unwrap();
    let before = store.record().await;
    one.session.refresh().await.unwrap();
    advance(Duration::from_secs(10)).await;
    one.session.login(world.tokens("v")).await.unwrap();
    assert_eq!(one.get().await.user, "v");
    advance(Duration::from_secs(10)).await;
    one.store.next_reads([Fate::HeldBefore]);
    store.fall_back(&before).await;
    one.store.until_held().await;
    let fresh = Process::new(&world, &store);
    fresh.session.refresh().await.unwrap_err();
    world.expire();
    let answer = fresh.get().await;
    assert!(answer.why.unwrap().is_session_ended());
    one.store.release();
    for _ in 0..20 {
        advance(Duration::from_millis(100)).await;
        settle_down().await;
    }
    assert_eq!(one.get().await.user, "v");
    assert_eq!(fresh.get().await.user, "v");
}

// shows P1, P6: the answer to the release takes longer than the cool-down.
#[tokio::test(start_paused = true)]
async fn a_turn_that_was_given_back_is_not_taken_again_by_the_next_attempt() {
    for store in [Common::new as fn() -> _, Common::that_can_lose] {
        let (world, store) = (World::new(), store());
        let processes = expired(&world, &store, 1).await;
        let one = &processes[0];
        world.script(Script::Transient);
        // The claim, and its end.
        one.store.next_swaps([Fate::Done, Fate::HeldAfter]);
        assert_eq!(one.get().await.status, StatusCode::UNAUTHORIZED);
        one.store.until_held().await;
        pass_ms(1200).await;
        let request = one.send();
        pass_ms(500).await;
        one.store.release();
        settle_down().await;
        pass_ms(500).await;
        assert!(request.is_finished(), "it waits for its own claim");
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
        assert_eq!(store.doubt().await, None);
    }
}

// shows P6: the successor was stored by one that is gone, and a claim of before is renewed.
#[tokio::test(start_paused = true)]
async fn a_claim_is_not_renewed_over_the_new_pair_of_another() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let processes = expired(&world, &store, 1).await;
    let one = &processes[0];
    let before = store.record().await;
    one.store.set_notice(Notice::Never);
    settle_down().await;
    world.script(Script::Hang);
    let first = one.send_and_reissue(&world).await;
    // It is renewed once.
    store
        .until(|record| record.version() == before.version() + 2)
        .await;
    store.fall_back(&before).await;
    {
        let other = Process::new(&world, &store);
        other.is_ok().await;
    }
    let newest = store.access().await;
    assert_eq!(store.record().await.version(), before.version() + 2);
    pass(5).await;
    assert_eq!(store.access().await, newest);
    pass(60).await;
    drop(first.await.unwrap());
    let fresh = Process::new(&world, &store);
    fresh.is_ok().await;
    assert_eq!(world.counts().reuses, 0);
}
