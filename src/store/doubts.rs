//! Swaps that a database may have done without being sure to keep them.
//!
//! A database that answers a write when its replicas have it may show it before: to whoever reads it, and so to
//! the session, which asks for what became of a swap that had no answer, and would take it for done. So what
//! was not confirmed is remembered, and a read that would show it has it confirmed first.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// By key: the swaps that may be done without being confirmed.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<String, Vec<Doubt>>>);

/// Swaps in place of the record of one version.
struct Doubt {
    version: u64,
    swaps: u64,
}

impl Doubts {
    /// A swap in place of this version is about to be sent.
    pub(super) fn begin(&self, key: &str, version: u64) {
        let mut doubts = self.lock();
        let of_key = doubts.entry(key.to_owned()).or_default();
        match of_key.iter_mut().find(|doubt| doubt.version == version) {
            Some(doubt) => doubt.swaps += 1,
            None => of_key.push(Doubt { version, swaps: 1 }),
        }
    }

    /// It was not done.
    pub(super) fn give_up(&self, key: &str, version: u64) {
        self.change(key, |doubt| {
            if doubt.version == version {
                doubt.swaps -= 1;
            }
            doubt.swaps > 0
        });
    }

    /// The record of this version, and so what came before it, has been confirmed. A swap in place of it
    /// may come later.
    pub(super) fn settle(&self, key: &str, version: u64) {
        self.change(key, |doubt| doubt.version >= version);
    }

    /// May the record of this version be one that this process has written, and that is not confirmed?
    pub(super) fn is_in_doubt(&self, key: &str, version: u64) -> bool {
        let doubts = self.lock();
        let of_key = doubts.get(key).map(Vec::as_slice).unwrap_or_default();
        of_key.iter().any(|doubt| doubt.version < version)
    }

    fn change(&self, key: &str, stays: impl FnMut(&mut Doubt) -> bool) {
        let mut doubts = self.lock();
        if let Some(of_key) = doubts.get_mut(key) {
            of_key.retain_mut(stays);
            if of_key.is_empty() {
                doubts.remove(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Doubt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
