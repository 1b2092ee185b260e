//! Proves that an act while the store was away does not undo a later one (P7, P8).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use shared::Common;
use shared::Process;
use support::World;
use support::settle_down;
use tokio::time::advance;

async fn pass(time: u64) {
    for _ in 0..time * 4 {
        advance(Duration::from_millis(250)).await;
        settle_down().await;
    }
}

// shows P8: epochs tell the time where a store can lose something.
#[tokio::test(start_paused = true)]
async fn a_login_that_could_not_even_read_does_not_undo_a_login_minutes_later() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let one = Process::new(&world, &store);
    let other = Process::new(&world, &store);
    other.session.login(world.tokens("t")).await.unwrap();
    one.store.set_away(true);
    one.session.login(world.tokens("u")).await.unwrap_err();
    pass(300).await;
    other.session.login(world.tokens("v")).await.unwrap();
    one.store.set_away(false);
    pass(60).await;
    assert_eq!(other.get().await.user, "v");
    assert_eq!(one.get().await.user, "v");
}

#[tokio::test(start_paused = true)]
async fn a_logout_that_could_not_even_read_does_not_undo_a_login_minutes_later() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let one = Process::new(&world, &store);
    let other = Process::new(&world, &store);
    other.session.login(world.tokens("t")).await.unwrap();
    one.store.set_away(true);
    one.session.logout().await.unwrap_err();
    pass(300).await;
    other.session.login(world.tokens("v")).await.unwrap();
    one.store.set_away(false);
    pass(60).await;
    assert_eq!(other.get().await.user, "v");
}

// The same by one that has read the record before: that one is told.
#[tokio::test(start_paused = true)]
async fn a_logout_by_one_that_has_read_and_was_cut_off_does_not_undo_a_login_minutes_later() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let one = Process::new(&world, &store);
    let other = Process::new(&world, &store);
    other.session.login(world.tokens("t")).await.unwrap();
    one.is_ok().await;
    one.store.set_away(true);
    one.session.logout().await.unwrap_err();
    pass(300).await;
    other.session.login(world.tokens("v")).await.unwrap();
    one.store.set_away(false);
    pass(60).await;
    assert_eq!(other.get().await.user, "v");
}
