//! A place among those who wait for an attempt.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Coordinator;
use super::Outcome;
use super::state::Cause;
use super::state::Start;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::seeded::seeded;
use crate::time::timeout;

/// Waits for one attempt. Dropping it leaves at once, and concerns nobody else (P3).
pub(crate) struct Ticket {
    coordinator: Arc<Coordinator>,
    outcome: watch::Receiver<Option<Outcome>>,
    start: Start,
    /// The attempt's own deadline, or this waiter's where that is sooner.
    deadline: Instant,
}

impl Ticket {
    pub(super) fn new(
        coordinator: &Arc<Coordinator>,
        outcome: watch::Receiver<Option<Outcome>>,
        start: Start,
    ) -> Result<Self, RefreshError> {
        let waiters = &coordinator.counters.waiters;
        if waiters.fetch_add(1, Ordering::Relaxed) >= coordinator.settings().waiter_limit {
            waiters.fetch_sub(1, Ordering::Relaxed);
            return Err(RefreshError::new(Kind::WaiterLimit));
        }
        let own_deadline = Instant::now() + coordinator.settings().wait_timeout;
        Ok(Self {
            coordinator: coordinator.clone(),
            outcome,
            start,
            deadline: own_deadline.min(start.deadline),
        })
    }

    /// The login that this attempt belongs to.
    pub(crate) fn epoch(&self) -> u64 {
        self.start.stamp.epoch
    }

    /// What it waits for is the first look into the store.
    pub(crate) fn is_load(&self) -> bool {
        self.start.cause == Cause::Load
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// For a request that has waited before.
    pub(crate) fn no_later_than(mut self, deadline: Instant) -> Self {
        self.deadline = self.deadline.min(deadline);
        self
    }

    /// For a request that has a deadline of its own.
    pub(crate) fn within(self, deadline: Option<Instant>) -> Self {
        match deadline {
            Some(deadline) => self.no_later_than(deadline),
            None => self,
        }
    }

    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub(crate) async fn wait(mut self) -> Outcome {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if seeded!(PanicUnsettled) {
            return settled(&mut self.outcome).await;
        }
        let settled = timeout(left, settled(&mut self.outcome)).await;
        match settled {
            Some(Err(_)) if seeded!(FailureSettlesNobody) => std::future::pending().await,
            Some(outcome) => {
                if outcome.is_err() {
                    // It may have been abandoned by a thread that has no runtime to write on what it has
                    // left in doubt, and this waiter has one.
                    self.coordinator.sync_if_due();
                }
                outcome
            }
            None => self.overdue(),
        }
    }

    /// Nobody has settled it: if its own deadline has passed, this waiter abandons the attempt.
    fn overdue(&self) -> Outcome {
        self.coordinator.with(|_, _| ());
        self.coordinator.sync_if_due();
        let outcome = self.outcome.borrow().clone();
        outcome.unwrap_or_else(|| Err(RefreshError::new(Kind::WaitTimeout)))
    }
}

async fn settled(outcome: &mut watch::Receiver<Option<Outcome>>) -> Outcome {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
        // Its sender is dropped after it has settled, so this is never met.
        Err(_) => Err(RefreshError::new(Kind::Interrupted)),
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.coordinator
            .counters
            .waiters
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}
