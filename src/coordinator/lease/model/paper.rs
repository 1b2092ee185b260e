//! A record and a clock that can be compared and counted through: small numbers in place of texts and
//! times, and the way to the real ones and back.

use std::time::Duration;
use std::time::SystemTime;

use crate::error::EndReason;
use crate::store::Claim;
use crate::store::Record;
use crate::store::Turn;
use crate::token::InDoubt;
use crate::token::TokenSet;

/// A tick of the store's clock.
pub(super) type Tick = u8;

/// A pair of tokens: the login it belongs to, then how many were handed out before it. 0 is none.
pub(super) type Pair = u8;

/// Pairs of one login.
pub(super) const LOGIN: Pair = 10;

/// The owner that nobody is any longer.
pub(super) const DEAD: u8 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Paper {
    pub(super) version: u8,
    pub(super) epoch: u8,
    pub(super) pair: Pair,
    pub(super) doubt: Option<Doubt>,
    pub(super) turn: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Doubt {
    pub(super) since: Tick,
    pub(super) tries: u8,
    pub(super) sent_at: Option<Tick>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Whose {
    LoggedOut,
    RefusedForGood,
    Free,
    Refused,
    Of(Lease),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lease {
    pub(super) owner: u8,
    pub(super) fence: u8,
    pub(super) sent_at: Tick,
    pub(super) deadline: Tick,
}

pub(super) fn at(tick: Tick) -> SystemTime {
    SystemTime::UNIX_EPOCH + ticks(tick)
}

pub(super) fn ticks(ticks: Tick) -> Duration {
    Duration::from_secs(ticks.into())
}

fn tick(at: SystemTime) -> Tick {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    small(since.expect("no time is before the first tick").as_secs())
}

fn small(number: u64) -> u8 {
    number.try_into().expect("the model is small")
}

/// The real tokens, which are made once.
pub(super) struct Tokens(Vec<TokenSet>);

impl Tokens {
    pub(super) fn new() -> Self {
        let tokens = (0..4 * LOGIN).map(|pair| {
            let tokens = TokenSet::new(format!("a{pair}")).and_then(|it| {
                it.with_refresh_token(format!("r{pair}"))
                    .map(|it| it.with_obtained_at(SystemTime::UNIX_EPOCH))
            });
            tokens.expect("letters and digits are a token")
        });
        Self(tokens.collect())
    }

    pub(super) fn of(&self, pair: Pair, doubt: Option<Doubt>) -> TokenSet {
        let tokens = self.0[usize::from(pair)].clone();
        match doubt {
            None => tokens,
            Some(doubt) => tokens.with_in_doubt(InDoubt {
                sent_at: doubt.sent_at.map(at),
                ..InDoubt::new(at(doubt.since), doubt.tries.into())
            }),
        }
    }

    pub(super) fn record(&self, paper: &Paper) -> Record {
        let turn = match paper.turn {
            Whose::LoggedOut => Turn::Ended(EndReason::LoggedOut),
            Whose::RefusedForGood => Turn::Ended(EndReason::Refused),
            Whose::Free => Turn::Free,
            Whose::Refused => Turn::Refused,
            Whose::Of(lease) => Turn::Sent(lease.real()),
        };
        Record {
            version: paper.version.into(),
            epoch: paper.epoch.into(),
            reissues: (paper.pair % LOGIN).into(),
            tokens: (paper.pair > 0).then(|| self.of(paper.pair, paper.doubt)),
            turn,
            foreign: false,
        }
    }
}

impl Lease {
    pub(super) fn real(self) -> Claim {
        Claim {
            owner: self.owner.into(),
            fence: self.fence.into(),
            sent_at: at(self.sent_at),
            deadline: at(self.deadline),
        }
    }
}

impl Paper {
    pub(super) fn of(record: &Record) -> Self {
        let tokens = record.tokens.as_ref();
        let number = |tokens: &TokenSet| {
            let text = tokens.refresh_token().map(|it| it.expose()[1..].parse());
            text.expect("each pair has a refresh token")
                .expect("its name is its number")
        };
        let doubt = |doubt: InDoubt| Doubt {
            since: tick(doubt.since),
            tries: small(doubt.tries.into()),
            sent_at: doubt.sent_at.map(tick),
        };
        let turn = match record.turn {
            Turn::Ended(EndReason::LoggedOut) => Whose::LoggedOut,
            Turn::Ended(_) => Whose::RefusedForGood,
            Turn::Free => Whose::Free,
            Turn::Refused => Whose::Refused,
            Turn::Sent(claim) => Whose::Of(Lease {
                owner: small(claim.owner),
                fence: small(claim.fence),
                sent_at: tick(claim.sent_at),
                deadline: tick(claim.deadline),
            }),
        };
        Self {
            version: small(record.version),
            epoch: small(record.epoch),
            pair: tokens.map_or(0, number),
            doubt: tokens.and_then(TokenSet::in_doubt).map(doubt),
            turn,
        }
    }

    /// The claim, if somebody has one.
    pub(super) fn lease(&self) -> Option<Lease> {
        match self.turn {
            Whose::Of(lease) => Some(lease),
            _ => None,
        }
    }

    /// As it is when these processes have other numbers.
    pub(super) fn renumber(&mut self, number: impl Fn(u8) -> u8) {
        if let Whose::Of(lease) = &mut self.turn {
            lease.owner = number(lease.owner);
        }
    }
}
