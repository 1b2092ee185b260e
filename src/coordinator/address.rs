//! What is remembered of the addresses that reject the token. Pure, as [`state`](super::state) is.
//!
//! Some addresses answer 401 for reasons of their own: a missing permission, a broken proxy. A new
//! token does not help there, and each one that is fetched for them is fetched in vain: two reissues for
//! each such call were measured, and requests to healthy addresses waited for them. So an address that
//! rejects the new token as well as the old one is *not cured*: it is left alone for a pause, and it
//! alone.
//!
//! An entry lives from a rejection at an address to the next acceptance there, and no longer than
//! [`REMEMBERED`]. Their number is bounded: beyond it all addresses share one entry.

use std::time::Duration;

use tokio::time::Instant;

/// So many addresses have an entry of their own.
const MOST: usize = 64;
/// The first pause of an address; each one that follows is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so long without a rejection an address is as good as any other. Longer than any pause.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Where a request goes: its origin and its path without the query, as a keyed hash. The query is
/// left out, for it differs with each request; and no path is kept, for there may be secrets in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) const fn new(hash: u64) -> Self {
        Self(hash)
    }

    /// One bit for many addresses, so that one that is not remembered is mostly known without a lock.
    pub(super) fn mark(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// The addresses of one login that have rejected the token, and have not accepted it since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    own: Vec<(Address, Entry)>,
    shared: Option<Entry>,
}

/// How an address stands that has just rejected the current token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has rejected this token and none before it: a new one may help.
    First,
    /// A new one did not help, and it is too soon for the next.
    Paused,
    /// A new one did not help, and the pause is over.
    NotCured,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The latest it has rejected while that was the current one.
    generation: u64,
    /// How many generations in a row it has rejected after the first.
    pauses: u32,
    paused_until: Instant,
    seen: Instant,
}

impl Entry {
    fn new(generation: u64, now: Instant) -> Self {
        Self {
            generation,
            pauses: 0,
            paused_until: now,
            seen: now,
        }
    }

    fn reject(&mut self, generation: u64, now: Instant) -> Standing {
        self.seen = now;
        if self.generation < generation {
            self.generation = generation;
            let doublings = 1_u32.checked_shl(self.pauses).unwrap_or(u32::MAX);
            let pause = FIRST_PAUSE.saturating_mul(doublings).min(LONGEST_PAUSE);
            self.paused_until = now + pause;
            self.pauses = self.pauses.saturating_add(1);
        }
        match self.is_cured() {
            true => Standing::First,
            false if now < self.paused_until => Standing::Paused,
            false => Standing::NotCured,
        }
    }

    /// As far as anybody knows.
    fn is_cured(&self) -> bool {
        self.pauses == 0
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= REMEMBERED
    }
}

impl Addresses {
    /// It has rejected this generation, which is the current one.
    pub(crate) fn reject(&mut self, address: Address, generation: u64, now: Instant) -> Standing {
        self.forget_old(now);
        self.entry(address, generation, now).reject(generation, now)
    }

    /// It has accepted this generation. What it says of an older one than it has rejected since is no
    /// news.
    pub(crate) fn accept(&mut self, address: Address, generation: u64) {
        let is_over = |entry: &Entry| entry.generation <= generation;
        let is_own = |(its, _): &(Address, Entry)| *its == address;
        match self.own.iter().position(is_own) {
            Some(at) if is_over(&self.own[at].1) => drop(self.own.swap_remove(at)),
            Some(_) => {}
            None => drop(self.shared.take_if(|entry| is_over(entry))),
        }
    }

    /// Is there one where a new token did not help?
    pub(crate) fn any_not_cured(&self) -> bool {
        self.entries().any(|entry| !entry.is_cured())
    }

    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.own.retain(|(_, entry)| !entry.is_forgotten(now));
        self.shared.take_if(|entry| entry.is_forgotten(now));
    }

    pub(crate) fn forget_all(&mut self) {
        *self = Self::default();
    }

    /// The marks of all that are remembered.
    pub(crate) fn marks(&self) -> u64 {
        match self.shared {
            Some(_) => u64::MAX,
            None => self.own.iter().fold(0, |all, (its, _)| all | its.mark()),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.own.iter().map(|(_, entry)| entry).chain(&self.shared)
    }

    fn entry(&mut self, address: Address, generation: u64, now: Instant) -> &mut Entry {
        if let Some(at) = self.own.iter().position(|(its, _)| *its == address) {
            return &mut self.own[at].1;
        }
        if self.own.len() == MOST {
            self.make_room();
        }
        if self.own.len() == MOST {
            let new = || Entry::new(generation, now);
            return self.shared.get_or_insert_with(new);
        }
        self.own.push((address, Entry::new(generation, now)));
        let last = self.own.len() - 1;
        &mut self.own[last].1
    }

    /// An address that has rejected one token, and was not heard of again, must not take the place of
    /// one that is bad: paths with a number in them are many.
    fn make_room(&mut self) {
        let own = self.own.iter().enumerate();
        let cured = own.filter(|(_, (_, entry))| entry.is_cured());
        if let Some((oldest, _)) = cured.min_by_key(|(_, (_, entry))| entry.seen) {
            self.own.swap_remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// One that has rejected two generations.
    fn bad(addresses: &mut Addresses, n: u64, now: Instant) {
        addresses.reject(Address(n), 1, now);
        addresses.reject(Address(n), 2, now);
    }

    // shows P5: an address is left alone when a new token did not help there, and not before.
    #[test]
    fn an_address_pauses_when_it_has_rejected_a_newer_generation_and_each_pause_is_twice_as_long() {
        let begun = Instant::now();
        let mut addresses = Addresses::default();
        let mut reject = |generation, now| addresses.reject(Address(1), generation, now);
        for _ in 0..3 {
            assert_eq!(reject(1, begun), Standing::First);
        }
        let mut now = begun;
        for (generation, pause) in (2..).zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]) {
            for _ in 0..3 {
                assert_eq!(reject(generation, now), Standing::Paused);
            }
            let pause = seconds(pause);
            let almost = pause - Duration::from_nanos(1);
            assert_eq!(reject(generation, now + almost), Standing::Paused);
            now += pause;
            assert_eq!(reject(generation, now), Standing::NotCured);
        }
    }

    #[test]
    fn what_one_address_rejects_is_not_held_against_another() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        bad(&mut addresses, 1, now);
        assert!(addresses.any_not_cured());
        assert_eq!(addresses.reject(Address(2), 2, now), Standing::First);
        addresses.accept(Address(2), 2);
        assert!(addresses.any_not_cured());
        addresses.accept(Address(1), 2);
        assert!(!addresses.any_not_cured());
        assert_eq!(addresses.marks(), 0);
    }

    #[test]
    fn a_late_acceptance_of_an_older_generation_forgets_nothing() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        bad(&mut addresses, 1, now);
        addresses.accept(Address(1), 1);
        assert_eq!(addresses.reject(Address(1), 2, now), Standing::Paused);
    }

    #[test]
    fn an_address_is_forgotten_ten_minutes_after_its_last_rejection() {
        let begun = Instant::now();
        let mut addresses = Addresses::default();
        bad(&mut addresses, 1, begun);
        let later = begun + seconds(599);
        assert_eq!(addresses.reject(Address(1), 2, later), Standing::NotCured);
        addresses.forget_old(later + seconds(599));
        assert!(addresses.any_not_cured());
        addresses.forget_old(later + seconds(600));
        assert!(!addresses.any_not_cured());
        assert_eq!(addresses.marks(), 0);
    }

    // shows P9
    #[test]
    fn ten_thousand_bad_addresses_have_64_entries_and_one_that_all_others_share() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        for n in 0..10_000 {
            bad(&mut addresses, n, now);
            assert!(addresses.entries().count() <= MOST + 1);
        }
        assert_eq!(addresses.own.len(), MOST);
        assert_eq!(addresses.reject(Address(0), 2, now), Standing::Paused);
        let unheard_of = addresses.reject(Address(10_000), 2, now);
        assert_eq!(unheard_of, Standing::Paused, "it shares their entry");
        assert_eq!(addresses.marks(), u64::MAX);
        addresses.accept(Address(9_999), 2);
        assert!(addresses.shared.is_none());
    }

    #[test]
    fn addresses_that_have_rejected_one_token_make_room_for_those_that_are_bad() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        bad(&mut addresses, 0, now);
        for n in 1..10_000 {
            addresses.reject(Address(n), 2, now + Duration::from_millis(n));
            assert!(addresses.own.len() <= MOST);
        }
        assert!(addresses.shared.is_none());
        assert_eq!(addresses.reject(Address(0), 2, now), Standing::Paused);
    }

    #[test]
    fn each_address_that_is_remembered_has_its_mark() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        for n in [3, 70] {
            addresses.reject(Address(n), 1, now);
            assert_ne!(addresses.marks() & Address(n).mark(), 0);
        }
        assert_eq!(addresses.marks() & Address(4).mark(), 0);
    }
}
