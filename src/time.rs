//! Two clocks, and a timer that works everywhere.
//!
//! The monotonic clock stands still while the machine sleeps and means nothing in another process;
//! the wall clock jumps. So an expiry is judged by both, and either may say "due". Deadlines are
//! monotonic alone.

use std::future::Future;
#[cfg(not(shuttle))]
use std::panic::AssertUnwindSafe;
#[cfg(not(shuttle))]
use std::panic::catch_unwind;
use std::pin::pin;
use std::time::Duration;
use std::time::SystemTime;

#[cfg(not(shuttle))]
use futures_timer::Delay;
#[cfg(not(shuttle))]
use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::future::select;
#[cfg(not(shuttle))]
use tokio::runtime::Handle;
#[cfg(not(shuttle))]
use tokio::task::unconstrained;
use tokio::time::Instant;
#[cfg(not(shuttle))]
use tokio::time::Sleep;

/// So much later than tokio's timer, that of a thread takes its place.
#[cfg(not(shuttle))]
const SLACK: Duration = Duration::from_secs(1);

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self {
            instant: Instant::now(),
            wall: wall(),
        }
    }
}

#[cfg(not(shuttle))]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// The explorer moves both clocks.
#[cfg(shuttle)]
fn wall() -> SystemTime {
    tokio::model::wall()
}

/// A moment on both clocks; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) instant: Option<Instant>,
    pub(crate) wall: Option<SystemTime>,
}

impl Due {
    pub(crate) const NEVER: Self = Self {
        instant: None,
        wall: None,
    };

    /// On the monotonic clock alone.
    pub(crate) fn at(instant: Instant) -> Self {
        Self {
            instant: Some(instant),
            wall: None,
        }
    }

    /// Exactly at the moment counts as passed.
    pub(crate) fn passed(&self, now: &Now) -> bool {
        self.instant.is_some_and(|at| now.instant >= at)
            || self.wall.is_some_and(|at| now.wall >= at)
    }

    /// Then, or at this moment if that is sooner.
    pub(crate) fn or_at(self, moment: Instant) -> Self {
        Self {
            instant: Some(self.instant.map_or(moment, |instant| instant.min(moment))),
            ..self
        }
    }

    /// Spares the clocks where nothing will ever be due: most requests.
    pub(crate) fn passed_by_now(&self) -> bool {
        *self != Self::NEVER && self.passed(&Now::read())
    }

    /// The same, earlier by `lead`.
    pub(crate) fn earlier_by(self, lead: Duration) -> Self {
        Self {
            instant: self.instant.and_then(|at| at.checked_sub(lead)),
            wall: self.wall.and_then(|at| at.checked_sub(lead)),
        }
    }
}

/// How far another wall clock is from ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Skew {
    /// One of them is zero.
    ahead: Duration,
    behind: Duration,
}

impl Skew {
    pub(crate) fn between(theirs: SystemTime, ours: SystemTime) -> Self {
        Self {
            ahead: theirs.duration_since(ours).unwrap_or_default(),
            behind: ours.duration_since(theirs).unwrap_or_default(),
        }
    }

    /// Are they the same, as far as one can tell?
    pub(crate) fn is_near(&self, other: &Self, tolerance: Duration) -> bool {
        self.ahead.abs_diff(other.ahead) + self.behind.abs_diff(other.behind) <= tolerance
    }

    /// What ours shows when theirs shows this.
    pub(crate) fn to_ours(self, theirs: SystemTime) -> SystemTime {
        let earlier = theirs.checked_sub(self.ahead).unwrap_or(theirs);
        earlier.checked_add(self.behind).unwrap_or(earlier)
    }

    /// What theirs shows when ours shows this.
    pub(crate) fn to_theirs(self, ours: SystemTime) -> SystemTime {
        let later = ours.checked_add(self.ahead).unwrap_or(ours);
        later.checked_sub(self.behind).unwrap_or(later)
    }
}

/// Runs `future` for at most `limit`; `None` when the time is up.
pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(sleep(limit))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// Sleeps on tokio's clock where there is one that runs, else on a thread's (P4: a waiter without
/// a runtime, or on one without timers, must get its answer too).
#[cfg(not(shuttle))]
async fn sleep(limit: Duration) {
    let begun = Instant::now();
    if let Some(sleep) = tokio_sleep(limit) {
        // Panics when it is polled and its runtime was shut down meanwhile. It must not be held up by what
        // the future has used of the time that tokio allots to a task.
        let sleep = unconstrained(AssertUnwindSafe(sleep).catch_unwind());
        // Nobody may drive that runtime: it is entered, and somebody else polls.
        match select(pin!(sleep), Delay::new(limit.saturating_add(SLACK))).await {
            Either::Left((Ok(()), _)) | Either::Right(_) => return,
            Either::Left((Err(_), _)) => {}
        }
    }
    Delay::new(limit.saturating_sub(begun.elapsed())).await;
}

/// The explorer has one kind of timer, and it works everywhere.
#[cfg(shuttle)]
async fn sleep(limit: Duration) {
    tokio::time::sleep(limit).await;
}

#[cfg(not(shuttle))]
fn tokio_sleep(limit: Duration) -> Option<Sleep> {
    Handle::try_current().ok()?;
    // Panics on a runtime that was built without timers, and there is no way to ask.
    catch_unwind(|| tokio::time::sleep(limit)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour() -> Duration {
        Duration::from_secs(3600)
    }

    // shows B108: a machine that slept for an hour has an expired token by the wall clock alone.
    #[test]
    fn either_clock_alone_makes_a_moment_pass() {
        let now = Now::read();
        let due = Due {
            instant: Some(now.instant + hour()),
            wall: Some(now.wall + hour()),
        };
        assert!(!due.passed(&now));
        let slept = Now {
            instant: now.instant,
            wall: now.wall + hour(),
        };
        assert!(due.passed(&slept));
        let set_back = Now {
            instant: now.instant + hour(),
            wall: now.wall - hour(),
        };
        assert!(due.passed(&set_back));
    }

    // shows B101: the boundary itself is due.
    #[test]
    fn a_moment_has_passed_when_it_is_reached() {
        let now = Now::read();
        assert!(Due::at(now.instant).passed(&now));
        assert!(!Due::NEVER.passed(&now));
    }

    #[test]
    fn a_timeout_without_any_runtime_ends() {
        let waited = futures_util::future::FutureExt::now_or_never(timeout(hour(), async { 1 }));
        assert_eq!(waited, Some(Some(1)));
        let pending = timeout(Duration::from_millis(1), std::future::pending::<()>());
        assert_eq!(futures::executor::block_on(pending), None);
    }

    #[test]
    fn a_timeout_on_a_runtime_without_timers_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let pending = timeout(Duration::from_millis(1), std::future::pending::<()>());
        assert_eq!(runtime.block_on(pending), None);
    }
}
