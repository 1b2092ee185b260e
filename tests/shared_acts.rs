//! Proves that the latest login or logout counts: none is undone by an older one that comes late, of the same
//! process or of one that was cut off; and that whoever needs no login begins anew after an end (P4, P7, P8).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::Common;
use shared::Fate;
use shared::Notice;
use shared::Process;
use shared::expired;
use shared::pass;
use shared::pass_ms;
use support::Script;
use support::World;
use support::poll_then_drop;
use support::settle_down;
use tokio::runtime::Builder;
use tokio::time::advance;
use tower_token_refresh::ConfigError;
use tower_token_refresh::EndReason;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

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
    a_logout_by_one_who_is_out_already_is_made_good
    a_login_that_was_done_unanswered_takes_the_place_of_no_reissue
    one_that_missed_the_end_goes_on_after_another_has_begun_anew_and_died
    one_that_missed_the_end_and_one_that_has_begun_anew_do_not_fight
}

/// Nobody is logged in, as everybody knows.
async fn logged_out(process: &Process, store: &Common, case: &str) {
    pass(10).await;
    let stored = store.tokens().await;
    assert!(stored.is_none(), "{case}: {stored:?}");
    let status = process.session.status();
    assert!(!status.is_logged_in(), "{case}: {status:?}");
}

/// The user acts and the store is read for it; then what came late is done, and only then what he wants.
async fn meanwhile(
    process: &Process,
    act: impl Future<Output = Result<(), RefreshError>> + Send + 'static,
) -> Result<(), RefreshError> {
    process.store.until_held().await;
    advance(Duration::from_millis(500)).await;
    let act = tokio::spawn(act);
    for _ in 0..2 {
        settle_down().await;
        process.store.release();
    }
    settle_down().await;
    act.await.unwrap()
}

async fn logs_in_meanwhile(world: &World, process: &Process) {
    let (session, tokens) = (process.session.clone(), world.tokens("v"));
    let told = meanwhile(process, async move { session.login(tokens).await }).await;
    pass(10).await;
    assert_eq!(process.get().await.user, "v", "login told {told:?}");
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
    let session = one.session.clone();
    let told = meanwhile(&one, async move { session.logout().await }).await;
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
    logs_in_meanwhile(&world, &one).await;
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
    logs_in_meanwhile(&world, &one).await;
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
    logs_in_meanwhile(&world, &one).await;
}

// shows P7, P8: it says that it could not be stored, and is.
async fn a_logout_by_one_who_is_out_already_is_made_good(store: fn() -> Common) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    let other = Process::new(&world, &store);
    one.store.set_notice(Notice::Never);
    one.session.login(world.tokens("t")).await.unwrap();
    one.session.logout().await.unwrap();
    // It reads that there is another login, and can't write.
    other.session.login(world.tokens("u")).await.unwrap();
    assert!(!one.session.status().is_logged_in());
    one.store.next_swaps([Fate::Lost]);
    one.session.logout().await.unwrap_err();
    logged_out(&one, &store, "one").await;
    logged_out(&other, &store, "the other").await;
}

// shows P1, P8: the login is stored, and others have reissued since, when it is tried again.
async fn a_login_that_was_done_unanswered_takes_the_place_of_no_reissue(store: fn() -> Common) {
    let (world, store) = (World::new(), store());
    let one = Process::new(&world, &store);
    one.store.set_notice(Notice::Never);
    one.store.next_swaps([Fate::Late]);
    let told = one.session.login(world.tokens("u")).await;
    assert!(told.unwrap_err().is_not_saved());
    one.store.until_held().await;
    one.store.release();
    store.until(|record| record.tokens().is_some()).await;
    let other = Process::new(&world, &store);
    other.is_ok().await;
    other.session.refresh().await.unwrap();
    let newest = store.access().await;
    pass(10).await;
    assert_eq!(store.access().await, newest);
    world.expire();
    one.get().await;
    other.is_ok().await;
    one.is_ok().await;
    assert_eq!(world.counts().reuses, 0);
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

#[derive(Clone, Default)]
struct Issuer {
    asked: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

impl Reissue for Issuer {
    async fn reissue(&self, _: ReissueRequest) -> Result<TokenSet, ReissueError> {
        let n = self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Err(ReissueError::transient("down"));
        }
        Ok(TokenSet::new(format!("token-{n}")).unwrap())
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

fn session(issuer: &Issuer, store: &Common) -> Session {
    let builder = Session::builder(issuer.clone()).shared_store(store.clone());
    builder.build().unwrap()
}

// shows P4
async fn one_that_missed_the_end_goes_on_after_another_has_begun_anew_and_died(
    store: fn() -> Common,
) {
    let (issuer, store) = (Issuer::default(), store());
    let (first, second) = (store.other(), store.other());
    let one = session(&issuer, &first);
    let other = session(&issuer, &second);
    one.token().await.unwrap();
    other.token().await.unwrap();
    // It looks only now and then.
    first.set_away(true);
    other.logout().await.unwrap();
    issuer.is_down.store(true, Ordering::Relaxed);
    let fresh = session(&issuer, &store.other());
    fresh.token().await.unwrap_err();
    drop((fresh, other));
    first.set_away(false);
    issuer.is_down.store(false, Ordering::Relaxed);
    pass(60).await;
    let mut told = Vec::new();
    for _ in 0..20 {
        pass(30).await;
        told.push(one.refresh().await);
    }
    assert!(told.iter().any(Result::is_ok), "{:?}", told.last());
}

// shows P7
async fn one_that_missed_the_end_and_one_that_has_begun_anew_do_not_fight(store: fn() -> Common) {
    let (issuer, store) = (Issuer::default(), store());
    let (first, second) = (store.other(), store.other());
    let one = session(&issuer, &first);
    let other = session(&issuer, &second);
    one.token().await.unwrap();
    other.token().await.unwrap();
    first.set_away(true);
    other.logout().await.unwrap();
    issuer.is_down.store(true, Ordering::Relaxed);
    let fresh = session(&issuer, &store.other());
    fresh.token().await.unwrap_err();
    let (epoch, version) = (store.epoch().await, store.record().await.version());
    first.set_away(false);
    let mut epochs = Vec::new();
    for _ in 0..20 {
        advance(Duration::from_millis(50)).await;
        settle_down().await;
        epochs.push(store.epoch().await);
    }
    let versions = store.record().await.version() - version;
    assert!(
        versions < 10 && epochs.iter().all(|it| *it >= epoch),
        "{versions} versions in a second; from {epoch} to {epochs:?}"
    );
    drop((one, fresh));
}

// shows P8: the logout fails because the transaction before it does not end; then somebody logs in elsewhere.
#[tokio::test(start_paused = true)]
async fn a_logout_that_did_not_even_get_to_the_store_does_not_undo_a_login_after_it() {
    for store in [Common::new as fn() -> _, Common::that_can_lose] {
        let (world, store) = (World::new(), store());
        let processes = expired(&world, &store, 2).await;
        let [one, other] = &processes[..] else {
            unreachable!()
        };
        // The claim, and the new pair; whether that is stored cannot be found out, either.
        one.store.set_notice(Notice::Never);
        one.store.next_swaps([Fate::Done, Fate::HeldBefore]);
        let request = one.send();
        one.store.until_held().await;
        settle_down().await;
        one.store.next_reads([Fate::HeldBefore, Fate::HeldBefore]);
        let session = one.session.clone();
        let logout = tokio::spawn(async move { session.logout().await });
        pass_ms(6500).await;
        assert!(logout.is_finished());
        let told = logout.await.unwrap();
        assert!(told.is_err(), "{told:?}");
        drop(request.await.unwrap());
        other.session.login(world.tokens("v")).await.unwrap();
        other.is_ok().await;
        one.store.release();
        pass(60).await;
        let status = other.session.status();
        assert!(status.is_logged_in(), "{status:?}");
        assert_eq!(other.get().await.user, "v");
    }
}

// shows P8: the same for one that was dropped while it read, where there is no runtime.
#[test]
fn a_logout_that_was_dropped_while_it_read_does_not_undo_a_login_after_it() {
    for store in [Common::new as fn() -> _, Common::that_can_lose] {
        let (world, store) = (World::new(), store());
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let (one, other) = runtime.block_on(async {
            let one = Process::new(&world, &store);
            let other = Process::new(&world, &store);
            other.session.login(world.tokens("t")).await.unwrap();
            one.is_ok().await;
            settle_down().await;
            (one, other)
        });
        one.store.next_reads([Fate::HeldBefore]);
        let dropped = futures::executor::block_on(poll_then_drop(one.session.logout(), 2));
        assert!(dropped.is_none());
        runtime.block_on(async {
            pass(10).await;
            other.session.login(world.tokens("v")).await.unwrap();
            // It sees to what is left to be written.
            drop(one.get().await);
            pass(10).await;
            let status = other.session.status();
            assert!(status.is_logged_in(), "{status:?}");
            assert_eq!(other.get().await.user, "v");
        });
    }
}

// shows P7: what those are told who are under way when the user logs out once more.
#[tokio::test(start_paused = true)]
async fn a_second_logout_changes_nothing_of_why_the_login_is_over() {
    for ends in [false, true] {
        let world = World::new();
        let session = world.logged_in("u").await;
        let client = world.client(&session);
        world.expire();
        world.hold_answers();
        let send = || {
            let client = client.clone();
            tokio::spawn(async move { client.get().await.unwrap() })
        };
        let (first, second) = (send(), send());
        world.until(|counts| counts.requests == 2).await;
        let expected = if ends {
            world.script(Script::Refuse);
            world.release_answers(1);
            EndReason::Refused
        } else {
            session.logout().await.unwrap();
            world.release_answers(1);
            EndReason::LoggedOut
        };
        settle_down().await;
        session.logout().await.unwrap();
        world.release_answers(1);
        for answer in [first.await.unwrap(), second.await.unwrap()] {
            let why = answer.why.unwrap();
            assert_eq!(why.end_reason(), Some(expected), "ends {ends}");
        }
    }
}
