//! What the server saw, counted on its side: the only witness of what clients really sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};

/// The answer of `GET /stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub logins: u64,
    /// Received by the reissue routes, refused ones included.
    pub reissues: u64,
    pub reissue_failures: u64,
    pub reuse_detected: u64,
    pub max_reissues_in_flight: u64,
    /// To the protected routes, by the answer's status. 499: the client left before it was decided.
    pub requests: BTreeMap<u16, u64>,
}

#[derive(Default)]
struct Inner {
    stats: Stats,
    reissues_in_flight: u64,
}

#[derive(Default)]
pub struct Counters(Mutex<Inner>);

impl Counters {
    pub fn snapshot(&self) -> Stats {
        self.lock().stats.clone()
    }

    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.stats = Stats {
            max_reissues_in_flight: inner.reissues_in_flight,
            ..Stats::default()
        };
    }

    pub fn login(&self) {
        self.lock().stats.logins += 1;
    }

    pub fn reissue_failed(&self) {
        self.lock().stats.reissue_failures += 1;
    }

    pub fn reuse_detected(&self) {
        self.lock().stats.reuse_detected += 1;
    }

    /// Counts a reissue, and has it in flight until the guard is dropped.
    pub fn reissue(&self) -> ReissueInFlight<'_> {
        let mut inner = self.lock();
        inner.reissues_in_flight += 1;
        inner.stats.reissues += 1;
        inner.stats.max_reissues_in_flight = inner
            .stats
            .max_reissues_in_flight
            .max(inner.reissues_in_flight);
        ReissueInFlight(self)
    }

    /// A protected request, which is counted once, whatever happens to it.
    pub fn request(&self) -> Undecided<'_> {
        Undecided {
            counters: self,
            status: 499,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

pub struct ReissueInFlight<'a>(&'a Counters);

impl Drop for ReissueInFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().reissues_in_flight -= 1;
    }
}

pub struct Undecided<'a> {
    counters: &'a Counters,
    status: u16,
}

impl Undecided<'_> {
    /// Counts it now: the answer may be kept back, and a client that leaves meanwhile was served.
    pub fn decided(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        *self
            .counters
            .lock()
            .stats
            .requests
            .entry(self.status)
            .or_default() += 1;
    }
}
