//! Proves that a claim which a failover has lost is written again before another one presents the token (P1).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use shared::Common;
use shared::Fate;
use shared::Notice;
use shared::in_use;
use support::World;
use support::settle_down;
use tokio::time::advance;
use tower_token_refresh::Record;

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
