//! The last resort of P4: a timer that needs no runtime.
//!
//! Waiters hold the attempt's deadline themselves, on the timers of their own runtime. Where those
//! stand still too (a runtime that was entered and is not driven, a future that was moved to
//! another one), nobody would abandon the attempt. So each attempt has a timer on a thread of its
//! own kind, which does.

use std::sync::Arc;
use std::sync::Weak;
use std::task::Context;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use futures_timer::Delay;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::Coordinator;

/// So that the deadline has passed for certain when it barks.
const SLACK: Duration = Duration::from_millis(10);

struct Watchdog(Weak<Coordinator>);

impl Wake for Watchdog {
    fn wake(self: Arc<Self>) {
        if let Some(coordinator) = self.0.upgrade() {
            coordinator.with(|_, _| ());
        }
    }
}

/// Abandons what is overdue at `deadline`, unless the timer is dropped before. Not to be called
/// under the lock: where the deadline has passed already, it is abandoned here and now.
pub(super) fn watch(coordinator: &Arc<Coordinator>, deadline: Instant) -> Delay {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut timer = Delay::new(left + SLACK);
    let waker = Waker::from(Arc::new(Watchdog(Arc::downgrade(coordinator))));
    // Polled once, it is the timer's thread that wakes.
    let _ = timer.poll_unpin(&mut Context::from_waker(&waker));
    timer
}
