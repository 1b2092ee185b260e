//! What a session counts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::error::Kind;

/// What a session has done since it was built. See [`Session::stats`](crate::Session::stats).
///
/// ```
/// # let session = tower_token_refresh::Session::builder(tower_token_refresh::reissue_fn(
/// #     |_| async { Err(tower_token_refresh::ReissueError::refused("no")) })).build().unwrap();
/// let stats = session.stats();
/// assert_eq!((stats.reissues, stats.waiters), (0, 0));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reissues sent to the issuer.
    pub reissues: u64,
    /// Pairs taken over that somebody else had fetched.
    pub adopted: u64,
    /// Requests that were sent a second time.
    pub replays: u64,
    /// Replays that needed no reissue, because there was a newer token when the rejection came.
    pub late_rejections: u64,
    /// Times that the session ended; logouts are not counted.
    pub ends: u64,
    /// Requests that wait for a refresh now.
    pub waiters: usize,
    /// Attempts that failed, by kind.
    pub failures: FailureStats,
}

/// Attempts that failed, by kind: a part of [`Stats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureStats {
    /// The issuer refused the refresh token.
    pub refused: u64,
    /// Not processed: the connection was refused, the issuer overloaded.
    pub transient: u64,
    /// The issuer does not take the request as it is made.
    pub misconfigured: u64,
    /// The outcome is unknown: a deadline, a broken connection, an unreadable answer, a panic.
    pub unknown: u64,
    /// The store could not be read or written.
    pub store: u64,
    /// A limit of the session's own, or no runtime to run on.
    pub other: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reissues: AtomicU64,
    pub(crate) adopted: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) late_rejections: AtomicU64,
    pub(crate) ends: AtomicU64,
    pub(crate) waiters: AtomicUsize,
    refused: AtomicU64,
    transient: AtomicU64,
    misconfigured: AtomicU64,
    unknown: AtomicU64,
    store: AtomicU64,
    other: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn failed(&self, kind: Kind) {
        count(match kind {
            Kind::Refused | Kind::Ended(_) => &self.refused,
            Kind::Transient | Kind::SameToken => &self.transient,
            Kind::Misconfigured => &self.misconfigured,
            Kind::OutcomeUnknown | Kind::Interrupted => &self.unknown,
            Kind::Store | Kind::NotSaved => &self.store,
            _ => &self.other,
        });
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            reissues: read(&self.reissues),
            adopted: read(&self.adopted),
            replays: read(&self.replays),
            late_rejections: read(&self.late_rejections),
            ends: read(&self.ends),
            waiters: self.waiters.load(Ordering::Relaxed),
            failures: FailureStats {
                refused: read(&self.refused),
                transient: read(&self.transient),
                misconfigured: read(&self.misconfigured),
                unknown: read(&self.unknown),
                store: read(&self.store),
                other: read(&self.other),
            },
        }
    }
}
