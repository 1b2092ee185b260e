//! What the coordinator does with the store: each call with a deadline, a panic taken for a
//! failure, and one rule for putting things right: *write down what is true now*.
//!
//! Candidates (tokens that nobody uses yet) are saved before they are published. Everything else
//! that is written is the truth at that moment: the tokens of a login, nothing after a logout or an
//! end, and what a write that came too late has overwritten (P8, P13).

use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use super::Coordinator;
use super::Gate;
use super::Inner;
use super::Outcome;
use super::shared::Storage;
use crate::error::BoxError;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::say::say;
use crate::store::DynTokenStore;
use crate::time::timeout;
use crate::token::TokenSet;

/// Between two tries to make the store right again: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Between two such tries, at the least.
const LEAST_RETRY: Duration = Duration::from_millis(10);

impl Coordinator {
    pub(super) async fn load(
        &self,
        store: &dyn DynTokenStore,
    ) -> Result<Option<TokenSet>, RefreshError> {
        let load = self.guarded(async { store.load().await });
        load.await.unwrap_or_else(|| Err(no_answer()))
    }

    pub(super) async fn save(&self, store: &dyn DynTokenStore, tokens: &TokenSet) -> Outcome {
        let number = self.with(|inner, _| inner.begin_write());
        self.write(number, async { store.save(tokens).await }).await
    }

    /// The number is of the moment at which it was decided what is written.
    async fn write(
        &self,
        number: u64,
        write: impl Future<Output = Result<(), BoxError>>,
    ) -> Outcome {
        let straggler = Straggler(self);
        let written = self.guarded(write).await.ok_or_else(no_answer)?;
        // It has come to its end.
        mem::forget(straggler);
        let is_overtaken = self.with(|inner, _| {
            let is_overtaken = inner.writes != number;
            inner.dirty |= is_overtaken;
            // Not this one, though it ends after what was given up: the one after it is the first that is newer.
            inner.stragglers += u32::from(is_overtaken);
            is_overtaken
        });
        if is_overtaken {
            // The gate did not open for long, and others have written meanwhile. Which of them was the last is for the
            // store to know.
            self.sync_later();
        }
        written
    }

    /// Brings the store to the truth. To be called with the gate held.
    pub(super) async fn write_truth(&self) -> Outcome {
        let store = match &self.store {
            Storage::Own(store) => store,
            Storage::Shared(store) => return self.write_shared_truth(store).await,
        };
        let (tokens, revision, number) = self.with(|inner, _| {
            let number = inner.begin_write();
            (inner.tokens.clone(), inner.revision, number)
        });
        let write = async {
            match &tokens {
                Some(tokens) => store.save(tokens).await,
                None => store.clear().await,
            }
        };
        self.write(number, write).await?;
        let is_old = self.with(|inner, _| {
            let is_old = inner.revision != revision;
            if is_old {
                // It may have taken the place of what is true by now, and was stored a moment before.
                inner.dirty = true;
            } else {
                inner.written(true);
                inner.state.mark_saved(true);
            }
            is_old
        });
        if is_old {
            self.sync_later();
        }
        Ok(())
    }

    /// Does this in a task of its own, where there is a runtime for it, so that dropping the caller
    /// does not drop a write half-way. But the caller does not wait for a runtime that stands still.
    pub(super) async fn detached(
        &self,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Detached {
        let Some(runtime) = self.runtime() else {
            return Detached::Done(work.await);
        };
        let limit = self.settings.attempt + self.settings.store_timeout;
        match timeout(limit, runtime.spawn(work)).await {
            Some(Ok(outcome)) => Detached::Done(outcome),
            Some(Err(_)) => Detached::Gone,
            None => Detached::Late,
        }
    }

    /// How long the background task may take for one try, at the most.
    pub(super) fn patience(&self) -> Duration {
        self.retry().1 + self.settings.attempt
    }

    /// Between two tries to make the store right again. Those who share it take us for dead some time, and
    /// leave the refresh token alone for the quarantine: by then they must have what we have.
    fn retry(&self) -> (Duration, Duration) {
        let (first, longest) = RETRY;
        match self.store {
            Storage::Own(_) => RETRY,
            Storage::Shared(_) => {
                let quarantine = self.settings.lost_reply.quarantined_for(1);
                let soon = (quarantine / 4).max(LEAST_RETRY);
                (first.min(soon), longest.min(soon * 2))
            }
        }
    }

    /// Queues behind the gate, and writes the truth, if that is wanted by then.
    pub(super) async fn write_behind(
        &self,
        gate: Gate,
        is_wanted: impl FnOnce(&Inner) -> Outcome,
    ) -> Outcome {
        let _permit = self.enter(gate, self.settings.store_timeout * 2).await?;
        is_wanted(&self.lock())?;
        self.write_truth().await
    }

    /// Lets a write that fails, or is dropped half-way, be made good in the background (P13).
    pub(super) fn sync_when_dropped(self: &Arc<Self>) -> SyncWhenDropped {
        SyncWhenDropped {
            coordinator: self.clone(),
            act: None,
        }
    }

    /// The same for the login or logout that this epoch began with.
    pub(super) fn sync_act_when_dropped(self: &Arc<Self>, epoch: u64) -> SyncWhenDropped {
        SyncWhenDropped {
            coordinator: self.clone(),
            act: Some(epoch),
        }
    }

    /// Starts a task that brings the store to the truth after a pause, unless that holds. It takes the place
    /// of the one before it, which may be on a runtime that is not driven any more. Without a runtime
    /// it is left to the next request.
    pub(super) fn sync_later(&self) {
        self.sync_here(self.retry().0);
    }

    /// On the runtime of the caller, where it has one: then nobody else need see to it for some time.
    fn sync_here(&self, pause: Duration) {
        let runtime = self.runtime();
        let patience = runtime.as_ref().map(|_| self.patience());
        self.sync_after(pause, runtime, patience.unwrap_or_default());
    }

    /// The same without a pause, where nobody has tried yet: on this runtime, where the caller has none. That
    /// may be one which is not driven any more, so that the next who comes starts another task.
    pub(super) fn sync_at_once(&self, runtime: Option<Handle>) {
        self.sync_after(Duration::ZERO, self.runtime().or(runtime), Duration::ZERO);
    }

    fn sync_after(&self, pause: Duration, runtime: Option<Handle>, patience: Duration) {
        let number = self.with(|inner, now| {
            inner.sync_due = now.instant + patience;
            inner.sync += u64::from(inner.dirty);
            inner.dirty.then_some(inner.sync)
        });
        if let (Some(number), Some(runtime)) = (number, runtime) {
            say(|| {
                tracing::warn!(
                    "the token store may not hold the session's tokens; it is tried again"
                );
            });
            let task = Syncing {
                coordinator: self.me.clone(),
                number,
            };
            drop(runtime.spawn(sync(task, pause, self.gone())));
        }
    }

    /// The same for those who find that nobody has done so in time.
    pub(super) fn sync_overdue(&self) {
        self.sync_here(Duration::ZERO);
    }

    /// For those who find an attempt abandoned: nobody else may come for a long time.
    pub(super) fn sync_if_due(&self) {
        if self.with(|inner, now| inner.is_sync_due(now)) {
            self.sync_overdue();
        }
    }

    /// Ends when the session is dropped: what waits in the background ends with it.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut status = self.status.subscribe();
        async move { while status.changed().await.is_ok() {} }
    }

    /// Is there nothing left to do for this task?
    fn is_synced(&self, number: u64) -> bool {
        let inner = self.lock();
        !inner.dirty || inner.sync != number
    }

    /// One try to bring the store to the truth.
    pub(super) async fn sync_once(&self) -> Outcome {
        let gate = self.with(|inner, _| inner.gate.clone());
        let _permit: OwnedMutexGuard<()> = self.enter(gate, self.settings.attempt).await?;
        self.write_truth().await
    }

    /// A call of the store: `None` when it is given up at its deadline.
    pub(super) async fn guarded<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Option<Result<T, RefreshError>> {
        let call = AssertUnwindSafe(call).catch_unwind();
        let answer = timeout(self.settings.store_timeout, call).await?;
        Some(match answer {
            Ok(answer) => answer.map_err(|error| RefreshError::with_source(Kind::Store, error)),
            Err(_) => Err(RefreshError::with_source(Kind::Store, "it panicked")),
        })
    }
}

/// What became of work in a task of its own.
pub(super) enum Detached {
    Done(Outcome),
    /// Its runtime is gone, and the task with it.
    Gone,
    /// It goes on, or its runtime stands still.
    Late,
}

impl Inner {
    fn begin_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }
}

/// A write that is given up, at its deadline or with its attempt, may still be done.
struct Straggler<'a>(&'a Coordinator);

impl Drop for Straggler<'_> {
    fn drop(&mut self) {
        self.0.with(|inner, _| {
            inner.stragglers = inner.stragglers.max(1);
            // Also where somebody has written since: this one may be the last to come to its end.
            inner.dirty = true;
        });
        self.0.sync_later();
    }
}

pub(super) fn no_answer() -> RefreshError {
    RefreshError::with_source(Kind::Store, "no answer in time")
}

/// See [`Coordinator::sync_when_dropped`].
pub(super) struct SyncWhenDropped {
    coordinator: Arc<Coordinator>,
    act: Option<u64>,
}

impl Drop for SyncWhenDropped {
    fn drop(&mut self) {
        if let Some(epoch) = self.act {
            self.coordinator.with(|inner, _| inner.mark_late(epoch));
        }
        self.coordinator.sync_later();
    }
}

/// The background task's own. Keeps no session alive.
struct Syncing {
    coordinator: Weak<Coordinator>,
    number: u64,
}

impl Drop for Syncing {
    /// A task that ends before its work is done, with its runtime, leaves it to the next request.
    fn drop(&mut self) {
        if let Some(coordinator) = self.coordinator.upgrade()
            && !coordinator.is_synced(self.number)
        {
            coordinator.with(|inner, now| inner.sync_due = now.instant);
        }
    }
}

async fn sync(task: Syncing, pause: Duration, gone: impl Future<Output = ()>) {
    let Some((first, longest)) = task.coordinator.upgrade().map(|it| it.retry()) else {
        return;
    };
    let mut gone = pin!(gone);
    let mut delay = pause;
    loop {
        if !delay.is_zero() && timeout(delay, &mut gone).await.is_some() {
            return;
        }
        let Some(coordinator) = task.coordinator.upgrade() else {
            return;
        };
        if coordinator.is_synced(task.number) {
            return;
        }
        if let Err(error) = coordinator.sync_once().await {
            say(|| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the token store still does not hold the session's tokens"
                );
            });
        }
        if coordinator.is_synced(task.number) {
            return;
        }
        delay = (delay * 2).clamp(first, longest);
        coordinator
            .with(|inner, now| inner.sync_due = now.instant + delay + coordinator.patience());
    }
}
