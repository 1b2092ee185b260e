//! The transitions that the model runs: those of `lease`, and five weaker protocols, each with one of
//! them replaced.

use std::time::Duration;
use std::time::SystemTime;

use super::super::Changed;
use super::super::claim;
use super::super::commit;
use super::super::next;
use super::super::presume_lost;
use crate::coordinator::lost_reply::LostReply;
use crate::store::Record;
use crate::store::Turn;
use crate::token::TokenSet;

type Claims = fn(&Record, u64, SystemTime, Duration, &LostReply) -> Changed;

#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) claim: Claims,
    pub(super) commit: fn(&Record, &Record, &TokenSet) -> Changed,
    pub(super) presume_lost: fn(&Record, SystemTime, bool) -> Option<Record>,
    /// The pair that is presented is the one that was read when the attempt began.
    pub(super) presents_the_first_read: bool,
    /// The owner says again and again that it is alive, while it waits for the answer.
    pub(super) renews_while_it_waits: bool,
    /// A store replaces only what the writer has seen.
    pub(super) compares: bool,
}

pub(super) const REAL: Rules = Rules {
    claim,
    commit,
    presume_lost,
    presents_the_first_read: false,
    renews_while_it_waits: true,
    compares: true,
};

/// (a) The lock is taken for the refresh token that was read before it.
pub(super) const READ_BEFORE_THE_LOCK: Rules = Rules {
    presents_the_first_read: true,
    ..REAL
};

/// (b) A lock that is older than a fixed time is nobody's.
pub(super) const FIXED_LIFETIME: Rules = Rules {
    presume_lost: outlived,
    ..REAL
};

/// (c) A lock that is not renewed any longer is nobody's.
pub(super) const RENEWAL_ONLY: Rules = Rules {
    presume_lost: unrenewed,
    ..REAL
};

/// (d) What may be spent is presented at once.
pub(super) const NO_QUARANTINE: Rules = Rules {
    claim: at_once,
    ..REAL
};

/// (e) The new pair is written over whatever is there.
pub(super) const NO_FENCE: Rules = Rules {
    commit: over_all,
    compares: false,
    ..REAL
};

fn outlived(found: &Record, now: SystemTime, _: bool) -> Option<Record> {
    match found.turn {
        Turn::Sent(claim) if now >= claim.sent_at + Duration::from_secs(1) => Some(freed(found)),
        _ => None,
    }
}

fn unrenewed(found: &Record, now: SystemTime, is_gone: bool) -> Option<Record> {
    presume_lost(found, now, is_gone).map(|_| freed(found))
}

fn freed(found: &Record) -> Record {
    Record {
        turn: Turn::Free,
        ..next(found)
    }
}

fn at_once(found: &Record, owner: u64, now: SystemTime, span: Duration, _: &LostReply) -> Changed {
    let none = LostReply::strict().quarantine(Duration::ZERO);
    claim(found, owner, now, span, &none)
}

fn over_all(found: &Record, _: &Record, tokens: &TokenSet) -> Changed {
    Ok(Record {
        tokens: Some(tokens.clone()),
        ..freed(found)
    })
}
