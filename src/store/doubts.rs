//! Swaps that a database may have done without being sure to keep them.
//!
//! A database that answers a write when its replicas have it may show it before: to whoever reads it, and so to
//! the session, which asks for what became of a swap that had no answer, and would take it for done. So what
//! was not confirmed is remembered, and a read that would show it has it confirmed first.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The swaps of one session's record that may be done without being confirmed.
#[derive(Default)]
pub(super) struct Doubts(Mutex<Vec<Doubt>>);

/// Swaps in place of the record of one version.
struct Doubt {
    version: u64,
    swaps: u64,
}

impl Doubts {
    /// A swap in place of this version is about to be sent.
    pub(super) fn begin(&self, version: u64) {
        let mut doubts = self.lock();
        match doubts.iter_mut().find(|doubt| doubt.version == version) {
            Some(doubt) => doubt.swaps += 1,
            None => doubts.push(Doubt { version, swaps: 1 }),
        }
    }

    /// It was not done.
    pub(super) fn give_up(&self, version: u64) {
        self.lock().retain_mut(|doubt| {
            if doubt.version == version {
                doubt.swaps -= 1;
            }
            doubt.swaps > 0
        });
    }

    /// The record of this version, and so what came before it, has been confirmed. A swap in place of it
    /// may come later.
    pub(super) fn settle(&self, version: u64) {
        self.lock().retain(|doubt| doubt.version >= version);
    }

    /// May the record of this version be one that was written here, and that is not confirmed?
    pub(super) fn has(&self, version: u64) -> bool {
        self.lock().iter().any(|doubt| doubt.version < version)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Doubt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
