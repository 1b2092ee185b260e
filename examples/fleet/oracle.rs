//! What the issuer and the store have seen, and what follows from it: pure, without a clock.
//!
//! The proxy tells it of each reissue in the order in which the issuer handles them. A refresh token
//! that is presented once more after it was spent is a *reuse*. It was **avoidable** if at that moment
//! somebody alive had, or could still get, what had come in its place:
//!
//! - its successor was in the store already, or
//! - the answer with the successor had been handed to a process that was not killed since, or
//! - that answer was still on its way to a process that was not killed since. A process that is stopped
//!   is alive: it finds the answer when it goes on.
//!
//! Otherwise nobody could know the successor, and presenting the old token again was all that was left.
//! An answer counts as gone when it was lost on the way, or when the process had hung up before it came.

use std::collections::{HashMap, HashSet};

use crate::fingerprint::Fingerprint;

/// Tokens as a login or a reissue brings them. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub access: Fingerprint,
    pub refresh: Fingerprint,
    pub expires_at: u64,
}

/// One reissue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReissueId(usize);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Access tokens that had expired when they were replaced.
    pub expiries: u64,
    /// Those that the issuer answered with new tokens.
    pub reissues: u64,
    /// All that reached it.
    pub presented: u64,
    /// Refresh tokens that were presented again when they were spent.
    pub reused: u64,
    /// Those of them where that was avoidable.
    pub avoidable: u64,
    /// Logins that ended by it.
    pub families_ended: u64,
    /// Reissues whose new tokens nobody has ever stored.
    pub in_doubt: u64,
    /// Answers that their process could not get.
    pub lost: u64,
    /// Processes that were killed.
    pub killed: u64,
}

#[derive(Default)]
pub struct Oracle {
    reissues: Vec<Reissue>,
    /// By the refresh token.
    pairs: HashMap<Fingerprint, Known>,
    killed: HashSet<u64>,
    /// The one that was stored last.
    current: Option<Fingerprint>,
    families: u64,
    ended: HashSet<u64>,
    reused: HashSet<Fingerprint>,
    avoidable: HashSet<Fingerprint>,
    expiries: u64,
    remarks: Vec<String>,
}

struct Reissue {
    process: u64,
    refresh: Fingerprint,
    arrived: bool,
    successor: Option<Fingerprint>,
    /// Its process can't get the answer any more.
    lost: bool,
    delivered: bool,
}

/// What is known of a pair.
struct Known {
    pair: Pair,
    family: u64,
    stored: bool,
    /// Counted as an expiry.
    expired: bool,
}

impl Oracle {
    /// Somebody has logged in, and stored what that gave.
    pub fn login(&mut self, pair: Pair, now: u64) {
        if let Some(before) = self.current {
            self.replaced(before, now);
        }
        self.families += 1;
        self.learn(pair, self.families);
        self.stored(pair.refresh);
    }

    /// A process has sent a reissue.
    pub fn sent(&mut self, process: u64, refresh: Fingerprint) -> ReissueId {
        self.reissues.push(Reissue {
            process,
            refresh,
            arrived: false,
            successor: None,
            lost: false,
            delivered: false,
        });
        ReissueId(self.reissues.len() - 1)
    }

    /// It has reached the issuer, who handles it before any other.
    pub fn arrived(&mut self, id: ReissueId) {
        let refresh = self.reissues[id.0].refresh;
        self.reissues[id.0].arrived = true;
        if let Some(known) = self.pairs.get_mut(&refresh) {
            // Whoever presents it has it.
            known.stored = true;
        }
        let Some(first) = self.spent_by(refresh) else {
            return;
        };
        let (why, spender) = (self.still_held(first), first.process);
        let is_new = self.reused.insert(refresh);
        if let Some(known) = self.pairs.get(&refresh) {
            self.ended.insert(known.family);
        }
        // Once the issuer has ended the login for it, it may come any number of times.
        if is_new || why.is_some() {
            self.remarks.push(format!(
                "process {} presented what process {spender} had spent: {}",
                self.reissues[id.0].process,
                why.unwrap_or("its successor was lost")
            ));
        }
        if why.is_some() {
            self.avoidable.insert(refresh);
        }
    }

    /// The issuer has answered: with new tokens, or not.
    pub fn answered(&mut self, id: ReissueId, successor: Option<Pair>, now: u64) {
        let Some(pair) = successor else {
            return;
        };
        let refresh = self.reissues[id.0].refresh;
        self.replaced(refresh, now);
        let family = self.pairs.get(&refresh).map_or(0, |known| known.family);
        self.learn(pair, family);
        self.reissues[id.0].successor = Some(pair.refresh);
    }

    /// The answer was handed to its process.
    pub fn delivered(&mut self, id: ReissueId) {
        self.reissues[id.0].delivered = true;
    }

    /// The answer was not handed to it, and won't be.
    pub fn lost(&mut self, id: ReissueId) {
        self.reissues[id.0].lost = true;
    }

    pub fn killed(&mut self, process: u64) {
        self.killed.insert(process);
    }

    /// This refresh token is in the store.
    pub fn stored(&mut self, refresh: Fingerprint) {
        if let Some(known) = self.pairs.get_mut(&refresh) {
            known.stored = true;
            self.current = Some(refresh);
        }
    }

    /// The pair that was stored last.
    pub fn current(&self) -> Option<Pair> {
        Some(self.pairs.get(&self.current?)?.pair)
    }

    /// The login that the store is about has ended. It need not be the last: without a fence, the answer to
    /// an older one can take its place.
    pub fn is_over(&self) -> bool {
        let known = self.current.and_then(|current| self.pairs.get(&current));
        known.is_some_and(|known| self.ended.contains(&known.family))
    }

    /// What was remarkable, since the last time.
    pub fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    pub fn counts(&self) -> Counts {
        let count = |what: fn(&&Reissue) -> bool| self.reissues.iter().filter(what).count() as u64;
        let successors = self.reissues.iter().filter_map(|it| it.successor);
        let is_unknown = |refresh: &Fingerprint| !self.pairs[refresh].stored;
        Counts {
            expiries: self.expiries,
            reissues: count(|it| it.successor.is_some()),
            presented: count(|it| it.arrived),
            reused: self.reused.len() as u64,
            avoidable: self.avoidable.len() as u64,
            families_ended: self.ended.len() as u64,
            in_doubt: successors.filter(is_unknown).count() as u64,
            lost: count(|it| it.lost),
            killed: self.killed.len() as u64,
        }
    }

    fn learn(&mut self, pair: Pair, family: u64) {
        let known = Known {
            pair,
            family,
            stored: false,
            expired: false,
        };
        self.pairs.insert(pair.refresh, known);
    }

    /// Something has come in place of this pair.
    fn replaced(&mut self, refresh: Fingerprint, now: u64) {
        if let Some(known) = self.pairs.get_mut(&refresh)
            && known.pair.expires_at <= now
            && !std::mem::replace(&mut known.expired, true)
        {
            self.expiries += 1;
        }
    }

    /// The reissue that this refresh token was good for.
    fn spent_by(&self, refresh: Fingerprint) -> Option<&Reissue> {
        let is_it = |it: &&Reissue| it.refresh == refresh && it.successor.is_some();
        self.reissues.iter().find(is_it)
    }

    /// Where somebody alive has the new tokens of this reissue, or could get them.
    fn still_held(&self, first: &Reissue) -> Option<&'static str> {
        let successor = self.pairs.get(&first.successor?)?;
        let is_alive = !self.killed.contains(&first.process);
        match first {
            _ if successor.stored => Some("its successor was in the store"),
            Reissue {
                delivered: true, ..
            } if is_alive => Some("a living process had its successor"),
            Reissue { lost: false, .. } if is_alive => {
                Some("its successor was on its way to a living process")
            }
            _ => None,
        }
    }
}
