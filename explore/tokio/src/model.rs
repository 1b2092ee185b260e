//! Time, as the scheduler would have it.
//!
//! One clock for all of a schedule, with all timers that are set. It stands still while tasks take their steps, and
//! moves when the explorer calls [`fire`], which ends one timer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Add;
use std::ops::AddAssign;
use std::ops::Sub;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::SystemTime;

/// What the clocks show when a schedule begins: monotonic, so that there is a time before it, and of the wall.
const BEGIN: Duration = Duration::from_secs(1_000_000);
const WALL: Duration = Duration::from_secs(1_790_000_000);

thread_local! {
    /// Shuttle runs all tasks of a schedule on one thread.
    static CLOCK: RefCell<Clock> = const { RefCell::new(Clock::new()) };
}

struct Clock {
    now: Duration,
    last: u64,
    timers: BTreeMap<(Duration, u64), Option<Waker>>,
    tasks: usize,
}

impl Clock {
    const fn new() -> Self {
        Self {
            now: BEGIN,
            last: 0,
            timers: BTreeMap::new(),
            tasks: 0,
        }
    }
}

fn with<R>(change: impl FnOnce(&mut Clock) -> R) -> R {
    CLOCK.with(|clock| change(&mut clock.borrow_mut()))
}

/// A schedule begins.
pub fn begin() {
    let before = CLOCK.with(|clock| clock.replace(Clock::new()));
    drop(before);
}

/// How much time has passed since the schedule began.
pub fn elapsed() -> Duration {
    with(|clock| clock.now - BEGIN)
}

/// What the wall clock shows.
pub fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + WALL + elapsed()
}

/// How many tasks that were spawned on the runtime are not over.
pub fn tasks() -> usize {
    with(|clock| clock.tasks)
}

/// How many timers are set.
pub fn timers() -> usize {
    with(|clock| clock.timers.len())
}

/// Ends the timer that is the `nth` to be due, and moves the clock to that moment, unless it is past it already:
/// then those before it are late.
pub fn fire(nth: usize) {
    let waker = with(|clock| {
        let key = *clock.timers.keys().nth(nth)?;
        clock.now = clock.now.max(key.0);
        clock.timers.remove(&key)?
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A moment on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// See `tokio::time::Instant`, as for the others.
    pub fn now() -> Self {
        Self(with(|clock| clock.now))
    }

    /// Zero where that one is later.
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// The same.
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Since then.
    pub fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }

    /// `None` where there is no such moment.
    pub fn checked_add(&self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }

    /// `None` where there is no such moment.
    pub fn checked_sub(&self, time: Duration) -> Option<Self> {
        self.0.checked_sub(time).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        self.0 += time;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0 - time)
    }
}

/// Ends when the scheduler says so, and not before its time.
#[derive(Debug)]
pub struct Timer {
    due: Duration,
    /// The number under which it is set.
    set: Option<u64>,
    is_over: bool,
}

impl Timer {
    /// Set when it is first polled, but counted from now.
    pub fn new(time: Duration) -> Self {
        Self {
            due: with(|clock| clock.now.saturating_add(time)),
            set: None,
            is_over: false,
        }
    }

    /// As that of a future.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        let old = with(|clock| match self.set {
            Some(number) => match clock.timers.get_mut(&(self.due, number)) {
                Some(waker) => waker.replace(cx.waker().clone()),
                None => {
                    self.is_over = true;
                    None
                }
            },
            // It is looked at when it is set: one of no time at all does not wait.
            None if self.due <= clock.now => {
                self.is_over = true;
                None
            }
            None => {
                clock.last += 1;
                self.set = Some(clock.last);
                let waker = Some(cx.waker().clone());
                clock.timers.insert((self.due, clock.last), waker);
                None
            }
        });
        drop(old);
        match self.is_over {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(number) = self.set {
            let waker = with(|clock| clock.timers.remove(&(self.due, number)));
            drop(waker);
        }
    }
}

/// A task that is not over.
#[derive(Debug)]
pub(crate) struct Counted(());

impl Counted {
    pub(crate) fn new() -> Self {
        with(|clock| clock.tasks += 1);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        with(|clock| clock.tasks = clock.tasks.saturating_sub(1));
    }
}
