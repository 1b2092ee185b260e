//! Proves that a login or logout is not undone by an older write of the same process that nobody answered (P7, P8).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::time::Duration;

use shared::Common;
use shared::Fate;
use shared::Process;
use support::Script;
use support::World;
use support::settle_down;
use tokio::time::advance;

async fn pass(time: u64) {
    for _ in 0..time * 4 {
        advance(Duration::from_millis(250)).await;
        settle_down().await;
    }
}

/// Each case is a test for a store that loses nothing, and one for a store that has failovers.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod that_keeps {
            $(#[tokio::test(start_paused = true)]
            async fn $case() { super::$case(super::Common::new).await; })*
        }
        mod that_can_lose {
            $(#[tokio::test(start_paused = true)]
            async fn $case() { super::$case(super::Common::that_can_lose).await; })*
        }
    };
}

on_both! {
    a_login_is_not_undone_by_the_login_before_it_that_is_done_meanwhile
    a_login_is_not_undone_by_the_logout_before_it_that_is_done_meanwhile
    a_login_is_not_undone_by_the_end_before_it_that_is_done_meanwhile
    a_logout_is_not_undone_by_the_login_before_it_that_is_done_meanwhile
    a_logout_is_not_undone_by_the_login_before_it_whose_swap_comes_late
    a_logout_is_one_while_an_older_logout_is_still_being_written
}

/// Nobody is logged in, as everybody knows.
async fn logged_out(process: &Process, store: &Common, case: &str) {
    pass(10).await;
    let stored = store.tokens().await;
    assert!(stored.is_none(), "{case}: {stored:?}");
    let status = process.session.status();
    assert!(!status.is_logged_in(), "{case}: {status:?}");
}

// shows P7, P8: the login's swap is not answered, the user logs out, and then the swap is done.
async fn a_logout_is_not_undone_by_the_login_before_it_whose_swap_comes_late(
    store: fn() -> Common,
) {
    for after_logout in [false, true] {
        let (world, store) = (World::new(), store());
        let one = Process::new(&world, &store);
        if after_logout {
            one.session.login(world.tokens("t")).await.unwrap();
            one.session.logout().await.unwrap();
        }
        one.store.next_swaps([Fate::Late]);
        let told = one.session.login(world.tokens("u")).await;
        assert!(told.unwrap_err().is_not_saved());
        one.session.logout().await.unwrap();
        one.store.release();
        settle_down().await;
        logged_out(&one, &store, &format!("after_logout {after_logout}")).await;
    }
}

// The same where the swap is done between the logout's read and its swap.
async fn a_logout_is_not_undone_by_the_login_before_it_that_is_done_meanwhile(
    store: fn() -> Common,
) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    one.session.login(world.tokens("t")).await.unwrap();
    one.store.next_swaps([Fate::Late, Fate::HeldBefore]);
    let told = one.session.login(world.tokens("u")).await;
    assert!(told.unwrap_err().is_not_saved());
    one.store.until_held().await;
    let session = one.session.clone();
    let logout = tokio::spawn(async move { session.logout().await });
    settle_down().await;
    // First the late login, then the logout.
    one.store.release();
    settle_down().await;
    one.store.release();
    settle_down().await;
    let told = logout.await.unwrap();
    logged_out(&one, &store, &format!("logout told {told:?}")).await;
}

// shows P8: the login's swap is not answered, somebody else logs in on the same device.
async fn a_login_is_not_undone_by_the_login_before_it_that_is_done_meanwhile(
    store: fn() -> Common,
) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    one.session.login(world.tokens("t")).await.unwrap();
    one.store.next_swaps([Fate::Late, Fate::HeldBefore]);
    let told = one.session.login(world.tokens("u")).await;
    assert!(told.unwrap_err().is_not_saved());
    one.store.until_held().await;
    advance(Duration::from_millis(500)).await;
    let session = one.session.clone();
    let tokens = world.tokens("v");
    let login = tokio::spawn(async move { session.login(tokens).await });
    settle_down().await;
    one.store.release();
    settle_down().await;
    one.store.release();
    settle_down().await;
    let told = login.await.unwrap();
    pass(10).await;
    assert_eq!(one.get().await.user, "v", "login told {told:?}");
}

// shows P8: a logout's swap is not answered, and the user logs in again.
async fn a_login_is_not_undone_by_the_logout_before_it_that_is_done_meanwhile(
    store: fn() -> Common,
) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    one.session.login(world.tokens("t")).await.unwrap();
    one.store.next_swaps([Fate::Late, Fate::HeldBefore]);
    let told = one.session.logout().await;
    assert!(told.unwrap_err().is_store());
    one.store.until_held().await;
    advance(Duration::from_millis(500)).await;
    let session = one.session.clone();
    let tokens = world.tokens("v");
    let login = tokio::spawn(async move { session.login(tokens).await });
    settle_down().await;
    one.store.release();
    settle_down().await;
    one.store.release();
    settle_down().await;
    let told = login.await.unwrap();
    pass(10).await;
    assert_eq!(one.get().await.user, "v", "login told {told:?}");
}

// shows P7: the first logout is still being written when the user logs out once more, of another login.
async fn a_logout_is_one_while_an_older_logout_is_still_being_written(store: fn() -> Common) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    let other = Process::new(&world, &store);
    one.session.login(world.tokens("t")).await.unwrap();
    other.is_ok().await;
    one.store.set_away(true);
    one.session.logout().await.unwrap_err();
    other.session.login(world.tokens("u")).await.unwrap();
    settle_down().await;
    // The store is back: one read to find that out, and one to write what is left.
    one.store.next_reads([Fate::Done, Fate::HeldBefore]);
    one.store.set_away(false);
    one.store.until_held().await;
    let session = one.session.clone();
    let logout = tokio::spawn(async move { session.logout().await });
    settle_down().await;
    one.store.release();
    let told = logout.await.unwrap();
    pass(10).await;
    let stored = store.tokens().await;
    let status = one.session.status();
    assert!(
        told.is_err() || (stored.is_none() && !status.is_logged_in()),
        "logout told {told:?}: {status:?} {stored:?}"
    );
}

// shows P8: the end's swap is not answered, and the user logs in again.
async fn a_login_is_not_undone_by_the_end_before_it_that_is_done_meanwhile(store: fn() -> Common) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    one.session.login(world.tokens("t")).await.unwrap();
    one.is_ok().await;
    world.expire();
    world.script(Script::Refuse);
    // The claim, the end, the end once more, and the login.
    one.store
        .next_swaps([Fate::Done, Fate::Late, Fate::Lost, Fate::HeldBefore]);
    let answer = one.get().await;
    assert!(answer.why.unwrap().is_session_ended());
    one.store.until_held().await;
    settle_down().await;
    let session = one.session.clone();
    let tokens = world.tokens("v");
    let login = tokio::spawn(async move { session.login(tokens).await });
    settle_down().await;
    one.store.release();
    settle_down().await;
    one.store.release();
    settle_down().await;
    let told = login.await.unwrap();
    pass(10).await;
    assert_eq!(one.get().await.user, "v", "login told {told:?}");
}
