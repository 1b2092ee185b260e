//! Proves that sessions which need no login find together after a logout in another process (P4, P7).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::Common;
use support::settle_down;
use tokio::time::advance;
use tower_token_refresh::ConfigError;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

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

async fn pass(time: u64) {
    for _ in 0..time * 4 {
        advance(Duration::from_millis(250)).await;
        settle_down().await;
    }
}

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
    one_that_missed_the_end_goes_on_after_another_has_begun_anew_and_died
    one_that_missed_the_end_and_one_that_has_begun_anew_do_not_fight
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
