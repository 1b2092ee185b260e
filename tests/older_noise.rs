//! Proves that a store which keeps an older record for good is not asked and warned of without end.

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use shared::Common;
use shared::in_use;
use support::World;
use support::settle_down;
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn an_older_record_that_stays_is_looked_at_now_and_then() {
    let (world, store) = (World::new(), Common::new());
    let processes = in_use(&world, &store, 1, |builder| builder).await;
    let before = store.record().await;
    world.expire();
    processes[0].is_ok().await;
    store.fall_back(&before).await;
    settle_down().await;
    let reads = processes[0].store.reads();
    for _ in 0..600 {
        advance(Duration::from_millis(100)).await;
        settle_down().await;
    }
    let reads = processes[0].store.reads() - reads;
    assert!(reads <= 60, "{reads} reads and warnings in a minute");
}
