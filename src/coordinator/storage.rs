//! What the coordinator does with the store: each call with a deadline, a panic taken for a
//! failure, and one rule for putting things right: *write down what is true now*.
//!
//! Candidates (tokens that nobody uses yet) are saved before they are published. Everything else
//! that is written is the truth at that moment: the tokens of a login, nothing after a logout or an
//! end, and what a write that came too late has overwritten (P8, P13).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::OwnedMutexGuard;

use super::Coordinator;
use super::Gate;
use super::Outcome;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::time::timeout;
use crate::token::TokenSet;

/// Between two tries to make the store right again: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Coordinator {
    pub(super) async fn load(&self) -> Result<Option<TokenSet>, RefreshError> {
        self.guarded(async { self.store.load().await }).await
    }

    pub(super) async fn save(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        self.guarded(async { self.store.save(tokens).await }).await
    }

    /// Brings the store to the truth. To be called with the gate held.
    pub(super) async fn write_truth(&self) -> Result<(), RefreshError> {
        let (tokens, revision) = self.with(|inner, _| (inner.tokens.clone(), inner.revision));
        match &tokens {
            Some(tokens) => self.save(tokens).await?,
            None => self.guarded(async { self.store.clear().await }).await?,
        }
        self.with(|inner, _| {
            if inner.revision == revision {
                inner.dirty = false;
                inner.state.mark_saved(true);
            }
        });
        Ok(())
    }

    /// Queues behind the gate, and writes the truth, unless the login of this epoch is over by then:
    /// whoever ended it writes.
    pub(super) async fn write_behind(&self, gate: Gate, epoch: u64) -> Outcome {
        let _permit = self.enter(gate, self.settings.store_timeout * 2).await?;
        let superseded = {
            let inner = self.lock();
            (inner.state.stamp().epoch != epoch).then(|| inner.state.absence())
        };
        match superseded {
            None => self.write_truth().await,
            Some(None) => Err(RefreshError::ended(EndReason::Replaced)),
            Some(Some(error)) => Err(error),
        }
    }

    /// Lets a write that fails, or is dropped half-way, be made good in the background (P13).
    pub(super) fn sync_when_dropped(self: &Arc<Self>) -> SyncWhenDropped {
        SyncWhenDropped(self.clone())
    }

    /// Starts a task that brings the store to the truth, unless that holds. It takes the place of
    /// the one before it, which may be on a runtime that is not driven any more.
    fn sync_later(self: &Arc<Self>) {
        let number = self.with(|inner, _| {
            inner.sync += u64::from(inner.dirty);
            inner.dirty.then_some(inner.sync)
        });
        if let (Some(number), Some(runtime)) = (number, self.runtime()) {
            tracing::warn!("the token store does not hold the session's tokens; it is tried again");
            drop(runtime.spawn(sync(Arc::downgrade(self), number)));
        }
    }

    /// Is there nothing left to do for this task?
    fn is_synced(&self, number: u64) -> bool {
        let inner = self.lock();
        !inner.dirty || inner.sync != number
    }

    async fn sync_once(&self) -> Outcome {
        let gate = self.with(|inner, _| inner.gate.clone());
        let _permit: OwnedMutexGuard<()> = self.enter(gate, self.settings.attempt).await?;
        self.write_truth().await
    }

    async fn guarded<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, RefreshError> {
        let call = AssertUnwindSafe(call).catch_unwind();
        match timeout(self.settings.store_timeout, call).await {
            Some(Ok(Ok(value))) => Ok(value),
            Some(Ok(Err(error))) => Err(RefreshError::with_source(Kind::Store, error)),
            Some(Err(_)) => Err(RefreshError::with_source(Kind::Store, "it panicked")),
            None => Err(RefreshError::with_source(Kind::Store, "no answer in time")),
        }
    }
}

/// See [`Coordinator::sync_when_dropped`].
pub(super) struct SyncWhenDropped(Arc<Coordinator>);

impl Drop for SyncWhenDropped {
    fn drop(&mut self) {
        self.0.sync_later();
    }
}

/// Keeps no session alive.
async fn sync(coordinator: Weak<Coordinator>, number: u64) {
    let (mut delay, longest) = RETRY;
    loop {
        let _: Option<()> = timeout(delay, std::future::pending()).await;
        let Some(coordinator) = coordinator.upgrade() else {
            return;
        };
        if coordinator.is_synced(number) {
            return;
        }
        if let Err(error) = coordinator.sync_once().await {
            tracing::warn!(%error, "the token store still does not hold the session's tokens");
        }
        if coordinator.is_synced(number) {
            return;
        }
        delay = (delay * 2).min(longest);
    }
}
