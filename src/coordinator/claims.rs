//! Whose the claims are that this session has on a refresh token in a shared store.
//!
//! A claim belongs to the attempt that has made it, which is told by its number. No other attempt can
//! renew it, give it back or drop it.
//!
//! It was once one field for all attempts. Attempt 2 had waited in vain for the gate, and had claimed
//! nothing; when it failed it gave back what the field held, and that was the claim of attempt 3, whose
//! bytes were out. Another process then presented the same refresh token, and both were answered.

use crate::seeded::seeded;
use crate::store::Claim;
use crate::store::Record;
use crate::store::Turn;

/// The claims that are in the store, or may be: a swap without an answer may have been done.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(Holder, Claim)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The attempt with this number, alone.
    Attempt(u64),
    /// Nobody any more: its attempt is over or abandoned, and has not given it back. That is left to
    /// those who bring the store to the truth.
    Left,
}

impl Claims {
    /// This attempt is about to write a claim.
    pub(super) fn hold(&mut self, number: u64, claim: Claim) {
        self.discard(number);
        self.0.push((Holder::Attempt(number), claim));
    }

    /// The claim of this attempt, while it is its own.
    pub(super) fn of(&self, number: u64) -> Option<Claim> {
        self.first(Holder::Attempt(number))
    }

    /// The claim of this attempt is not in the store, and will not be.
    pub(super) fn discard(&mut self, number: u64) {
        self.0
            .retain(|(holder, _)| *holder != Holder::Attempt(number));
    }

    /// This attempt does nothing more about its claim. `true` where it had one.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        let own = self
            .0
            .iter_mut()
            .find(|(holder, _)| *holder == Holder::Attempt(number) || seeded!(ClaimOfAnother));
        match own {
            Some((holder, _)) => {
                *holder = Holder::Left;
                true
            }
            None => false,
        }
    }

    /// One that somebody has left.
    pub(super) fn left(&self) -> Option<Claim> {
        self.first(Holder::Left)
    }

    /// The store has been told of this one that was left, or has not got it any more.
    pub(super) fn discard_left(&mut self, claim: &Claim) {
        self.0
            .retain(|(holder, its)| *holder != Holder::Left || !its.is_of(claim));
    }

    /// This record was stored: of those that were left, the others are not in the store any more.
    pub(super) fn stored(&mut self, record: &Record) {
        let has = |claim: &Claim| matches!(record.turn, Turn::Sent(its) if its.is_of(claim));
        self.0
            .retain(|(holder, claim)| *holder != Holder::Left || has(claim));
    }

    fn first(&self, whose: Holder) -> Option<Claim> {
        let mut all = self.0.iter();
        let found = all.find(|(holder, _)| *holder == whose);
        found.map(|(_, claim)| *claim)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn claim(fence: u64) -> Claim {
        Claim {
            owner: 1,
            fence,
            sent_at: SystemTime::UNIX_EPOCH,
            deadline: SystemTime::UNIX_EPOCH,
        }
    }

    fn with_turn(turn: Turn) -> Record {
        Record {
            turn,
            ..Record::empty()
        }
    }

    // shows P1: what attempt 2 does concerns no claim but its own.
    #[test]
    fn an_attempt_reaches_no_claim_but_its_own() {
        let mut claims = Claims::default();
        claims.hold(3, claim(30));
        assert!(!claims.leave(2));
        claims.discard(2);
        assert_eq!((claims.of(2), claims.left()), (None, None));
        assert_eq!(claims.of(3), Some(claim(30)));
        // Nor does what is stored, or left by somebody else, take it away.
        claims.stored(&with_turn(Turn::Free));
        claims.discard_left(&claim(30));
        assert_eq!(claims.of(3), Some(claim(30)));
    }

    #[test]
    fn a_claim_that_was_left_is_nobody_s_own() {
        let mut claims = Claims::default();
        claims.hold(3, claim(30));
        assert!(claims.leave(3));
        assert!(!claims.leave(3), "once");
        assert_eq!((claims.of(3), claims.left()), (None, Some(claim(30))));
    }

    #[test]
    fn what_was_left_is_forgotten_when_the_store_has_another_record() {
        let mut claims = Claims::default();
        for number in [1, 2] {
            claims.hold(number, claim(number));
            claims.leave(number);
        }
        claims.stored(&with_turn(Turn::Sent(claim(2))));
        assert_eq!(claims.left(), Some(claim(2)));
        claims.stored(&with_turn(Turn::Free));
        assert_eq!(claims.left(), None);
    }

    #[test]
    fn an_attempt_that_claims_again_has_one_claim() {
        let mut claims = Claims::default();
        claims.hold(1, claim(1));
        claims.hold(1, claim(2));
        assert_eq!(claims.of(1), Some(claim(2)));
        claims.discard(1);
        assert_eq!(claims.of(1), None);
    }
}
