//! What is seen to happen on the way: a check that never got to a takeover says little.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// What has been seen to happen. It is no part of a state, of which there would be more.
#[derive(Default)]
pub(super) struct Events([AtomicUsize; Event::Superseded as usize + 1]);

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// A process sees that another has fetched a pair.
    Adopted,
    Committed,
    /// A commit is judged anew, since another change came before it.
    CommitJudgedAnew,
    /// A pair is committed whose owner had let its time run out, or had given up.
    CommittedLate,
    /// A pair is committed whose refresh token was left in doubt by a process that died.
    CommittedForTheDead,
    /// The issuer has refused for good, and that is stored.
    Ended,
    /// A swap is done after its writer was told nothing.
    LandedLate,
    LoggedIn,
    LoggedOut,
    /// Before its deadline, under a lock.
    PresumedDead,
    PresumedLost,
    /// A claim on a refresh token in doubt.
    QuarantineOver,
    ReadBack,
    Released,
    Renewed,
    /// The issuer sees a refresh token again.
    SeenTwice,
    Settled,
    /// A change is not made, as what is there by now is newer.
    Superseded,
}

impl Events {
    pub(super) fn saw(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn times(&self, event: Event) -> usize {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}
