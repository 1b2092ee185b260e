//! What most requests need to know of all that was heard of the token: nothing to tell. Read without
//! a lock on the path of each request that is accepted.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::address::Address;
use super::state::State;
use crate::origin::Origin;

/// A part of the [`State`], published. What it says may be out of date by a moment: an acceptance that
/// is missed is made good by the next.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Makes the hashes worthless to others.
    key: RandomState,
    /// The newest generation that was accepted somewhere.
    accepted: AtomicU64,
    /// The marks of all addresses where an acceptance is news.
    marks: AtomicU64,
}

impl Heard {
    pub(super) fn address(&self, origin: &Origin, path: &str) -> Address {
        Address::new(self.key.hash_one((origin, path)))
    }

    /// Under the lock of the state.
    pub(super) fn publish(&self, state: &State) {
        self.accepted.store(state.accepted(), Ordering::Relaxed);
        self.marks.store(state.marks(), Ordering::Relaxed);
    }

    /// Can it be news, at one address or another, that this generation was accepted?
    #[inline]
    pub(super) fn may_be_news(&self, generation: u64) -> bool {
        self.is_first(generation) || self.marks.load(Ordering::Relaxed) != 0
    }

    /// Can it be news that it was accepted there?
    pub(super) fn is_news(&self, generation: u64, address: Address) -> bool {
        self.is_first(generation) || self.marks.load(Ordering::Relaxed) & address.mark() != 0
    }

    #[inline]
    fn is_first(&self, generation: u64) -> bool {
        self.accepted.load(Ordering::Relaxed) < generation
    }
}
