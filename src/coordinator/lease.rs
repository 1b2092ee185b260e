//! What may become of a [`Record`] that several processes share: each change a function from the
//! record that is there to the one that takes its place.
//!
//! No store, no clock and no task. Whoever calls it has read the record, and puts the outcome in its
//! place by compare-and-set, so that what is found here is what is replaced. That is the fence: a
//! process that was stopped for an hour finds another version, and its change is judged anew. The
//! model check in `model` runs these functions as they are.
//!
//! A claim is also the *intent*: written before the bytes leave, so that whoever finds it without its
//! owner knows that the refresh token may be spent. One write says both, and there is no moment in
//! which a claim was given and nobody knows whether it was used.

use std::time::Duration;
use std::time::SystemTime;

use super::lost_reply::LostReply;
use crate::error::EndReason;
use crate::store::Claim;
use crate::store::Record;
use crate::store::Turn;
use crate::token::InDoubt;
use crate::token::TokenSet;

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Somebody else may be presenting the refresh token, until then.
    Busy { until: SystemTime },
    /// The refresh token may be spent, and is left alone for now.
    InDoubt,
    /// The record is of a newer version of this crate.
    ReadOnly,
    /// The issuer has refused the refresh token.
    Refused,
    /// What is there is newer than what the change was made from.
    Superseded,
}

type Changed = Result<Record, Denied>;

/// What a record says that was not known before.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// A new login has taken the place of the one that is known, or is about to.
    Login,
    /// Nothing, but perhaps whose turn it is.
    Nothing,
    /// It is older than what was seen before, or has lost its tokens.
    Older,
    /// The login that is known is over.
    Over(EndReason),
    /// The same login has other tokens.
    Tokens(TokenSet),
}

/// Is `found` from before `known`? A later login comes after whatever was known of another, for a store
/// that has lost its records counts their versions anew.
pub(super) fn is_before(found: &Record, known: &Record) -> bool {
    let order = |record: &Record| (record.epoch, record.reissues, record.version);
    order(found) < order(known)
}

/// Has somebody written back what he knew from before this claim of ours, so that nobody seems to have one?
pub(super) fn lacks(found: &Record, known: &Record, claim: &Claim) -> bool {
    let has = |record: &Record| matches!(record.turn, Turn::Sent(its) if its.is_of(claim));
    found.version >= known.version
        && has(known)
        && found.turn == Turn::Free
        && is_same(found, known)
}

/// The same login with the same tokens, of which the same is to be feared.
fn is_same(found: &Record, known: &Record) -> bool {
    let tries = |record: &Record| Some(record.tokens.as_ref()?.in_doubt()?.tries);
    found.epoch == known.epoch
        && same_pair(found.tokens.as_ref(), known.tokens.as_ref())
        && tries(found) == tries(known)
}

/// Compares what is found with what was known.
pub(super) fn news(known: &Record, found: &Record) -> News {
    if is_before(found, known) {
        return News::Older;
    }
    match (&found.tokens, found.turn) {
        (None, Turn::Ended(_)) if known.tokens.is_none() && found.epoch == known.epoch => {
            News::Nothing
        }
        (None, Turn::Ended(reason)) => News::Over(reason),
        (None, _) if known.tokens.is_none() => News::Nothing,
        // It was over meanwhile, and somebody begins anew.
        (None, _) if found.epoch > known.epoch => News::Login,
        (None, _) => News::Older,
        (Some(_), _) if found.epoch > known.epoch => News::Login,
        (Some(tokens), _) if same_pair(known.tokens.as_ref(), Some(tokens)) => News::Nothing,
        _ if is_half_of(found, known) => News::Nothing,
        (Some(tokens), _) => News::Tokens(tokens.clone()),
    }
}

/// A record of a newer version shows no refresh token. Where its access token is known, so is the rest.
pub(super) fn is_half_of(found: &Record, known: &Record) -> bool {
    let access = |record: &Record| record.tokens.as_ref().map(|it| it.access_token().clone());
    let both = access(found).zip(access(known));
    found.foreign && both.is_some_and(|(found, known)| found.same(&known))
}

/// Takes the turn, and says that bytes may leave from now on.
///
/// `span` is how long the owner may wait for the answer.
pub(super) fn claim(
    found: &Record,
    owner: u64,
    now: SystemTime,
    span: Duration,
    policy: &LostReply,
) -> Changed {
    check_format(found)?;
    match found.turn {
        Turn::Ended(_) => return Err(Denied::Superseded),
        Turn::Refused => return Err(Denied::Refused),
        Turn::Sent(claim) => {
            return Err(Denied::Busy {
                until: claim.deadline,
            });
        }
        Turn::Free => {}
    }
    let doubt = found.tokens.as_ref().and_then(TokenSet::in_doubt);
    if doubt.is_some_and(|doubt| policy.is_closed_at(&doubt, now)) {
        return Err(Denied::InDoubt);
    }
    let turn = Turn::Sent(Claim {
        owner,
        fence: found.version + 1,
        sent_at: now,
        deadline: now + span,
    });
    Ok(Record {
        turn,
        ..next(found)
    })
}

/// The same owner is still at it.
pub(super) fn renew(found: &Record, claim: &Claim, now: SystemTime, span: Duration) -> Changed {
    let claim = check_owner(found, claim)?;
    let turn = Turn::Sent(Claim {
        deadline: now + span,
        ..claim
    });
    Ok(Record {
        turn,
        ..next(found)
    })
}

/// The store has lost the claim of an owner that is still at it, and nobody has said since that the owner is
/// gone: it is as it was.
pub(super) fn claim_again(
    found: &Record,
    known: &Record,
    claim: &Claim,
    now: SystemTime,
    span: Duration,
) -> Changed {
    check_format(found)?;
    if !is_same(found, known) || found.turn != Turn::Free {
        return Err(Denied::Superseded);
    }
    let turn = Turn::Sent(Claim {
        deadline: now + span,
        ..*claim
    });
    Ok(Record {
        turn,
        ..next(found)
    })
}

/// The issuer has refused the refresh token, and the access token goes on being used.
pub(super) fn refuse(found: &Record, claim: &Claim) -> Changed {
    check_owner(found, claim)?;
    Ok(Record {
        turn: Turn::Refused,
        ..next(found)
    })
}

/// Gives the turn back without new tokens. `is_certain` says that the issuer has answered, so that a
/// doubt there was is gone; else what was sent, if anything, was not processed.
pub(super) fn release(found: &Record, claim: &Claim, is_certain: bool) -> Changed {
    if is_yet_to_come(found, claim) {
        return Ok(next(found));
    }
    check_owner(found, claim)?;
    let tokens = match is_certain {
        true => found.tokens.clone().map(TokenSet::without_doubt),
        false => found.tokens.clone(),
    };
    Ok(Record {
        tokens,
        turn: Turn::Free,
        ..next(found)
    })
}

/// Gives the turn back, and nobody knows what became of the refresh token.
///
/// It has been sent, so that the claim was stored.
pub(super) fn lose(found: &Record, claim: &Claim, now: SystemTime) -> Changed {
    let claim = check_owner(found, claim)?;
    Ok(lost(found, &claim, now))
}

/// Whoever had the turn is gone, or has let its time run out: its refresh token may be spent.
/// `is_gone` says that it is known to be dead. `None` where nobody has the turn, or its owner may
/// still be at it.
pub(super) fn presume_lost(found: &Record, now: SystemTime, is_gone: bool) -> Option<Record> {
    let Turn::Sent(claim) = found.turn else {
        return None;
    };
    // The clock was wrong when it was claimed, or is now.
    let span = claim.deadline.duration_since(claim.sent_at);
    let is_to_come = claim.sent_at > now + span.unwrap_or_default();
    if found.foreign || !(is_gone || is_to_come || now >= claim.deadline) {
        return None;
    }
    // Where only the clock says so, the clock may have jumped.
    let since = match is_gone {
        true => now.min(claim.deadline),
        false => now,
    };
    Some(lost(found, &claim, since))
}

fn lost(found: &Record, claim: &Claim, since: SystemTime) -> Record {
    let tokens = found.tokens.clone();
    Record {
        tokens: tokens.map(|tokens| doubt(tokens, claim, since)),
        turn: Turn::Free,
        ..next(found)
    }
}

/// Once more, if that has happened before.
fn doubt(tokens: TokenSet, claim: &Claim, since: SystemTime) -> TokenSet {
    if tokens.refresh_token().is_none() {
        return tokens;
    }
    let doubt = match tokens.in_doubt() {
        Some(before) => InDoubt {
            since,
            tries: before.tries.saturating_add(1),
            ..before
        },
        None => InDoubt::new(since, 1).with_sent_at(claim.sent_at),
    };
    tokens.with_in_doubt(doubt)
}

/// New tokens of the same login, in place of those that they come from, and of no others. It does not
/// matter whose turn it is: an answer that comes late is as good, unless another was faster.
pub(super) fn commit(found: &Record, from: &Record, tokens: &TokenSet) -> Changed {
    check_format(found)?;
    let is_over = matches!(found.turn, Turn::Ended(_));
    let is_heir = same_pair(found.tokens.as_ref(), from.tokens.as_ref());
    if found.epoch != from.epoch || is_over || !is_heir {
        return Err(Denied::Superseded);
    }
    Ok(Record {
        reissues: found.reissues + 1,
        tokens: Some(tokens.clone()),
        turn: Turn::Free,
        ..next(found)
    })
}

/// A login, in place of the login with this epoch, or of one before it: also where that is not what is found, as a
/// failover may have brought an older one back.
pub(super) fn login(found: &Record, epoch: u64, tokens: &TokenSet) -> Changed {
    check_format(found)?;
    if found.epoch > epoch {
        return Err(Denied::Superseded);
    }
    Ok(Record {
        epoch: epoch + 1,
        reissues: 0,
        tokens: Some(tokens.clone()),
        turn: Turn::Free,
        ..next(found)
    })
}

/// The login of this record is over, unless somebody has stored other tokens for it: what stays is a
/// tombstone.
///
/// A failover may have brought that login back: its end, unlike a logout, is older than any login after it.
pub(super) fn end(found: &Record, from: &Record, reason: EndReason) -> Changed {
    check_format(found)?;
    let is_it = same_pair(found.tokens.as_ref(), from.tokens.as_ref());
    if found.epoch != from.epoch || found.tokens.is_none() || !is_it {
        return Err(Denied::Superseded);
    }
    Ok(tombstone(found, reason, found.epoch))
}

/// The user logs out of the login with this epoch, or of one before it, whichever tokens it has by now.
///
/// `is_awaited` says that a login from before may yet take the place of what is found: where nobody is logged
/// in, that is written once more, so that it can't.
pub(super) fn log_out(found: &Record, epoch: u64, is_awaited: bool) -> Changed {
    check_format(found)?;
    if found.epoch > epoch || (found.tokens.is_none() && !is_awaited) {
        return Err(Denied::Superseded);
    }
    Ok(tombstone(found, EndReason::LoggedOut, epoch))
}

/// In place of the login with this epoch.
fn tombstone(found: &Record, reason: EndReason, epoch: u64) -> Record {
    Record {
        epoch: epoch + 1,
        reissues: 0,
        tokens: None,
        turn: Turn::Ended(reason),
        ..next(found)
    }
}

/// The store has lost what was known, and shows an older record, or none: what was known takes its place
/// again.
pub(super) fn restore(found: &Record, known: &Record) -> Changed {
    check_format(found)?;
    check_format(known)?;
    Ok(Record {
        version: found.version.max(known.version) + 1,
        ..known.clone()
    })
}

/// A reissuer that needs no login begins anew after an end.
pub(super) fn reopen(found: &Record, least: u64) -> Changed {
    check_format(found)?;
    if !matches!(found.turn, Turn::Ended(_)) {
        return Err(Denied::Superseded);
    }
    Ok(Record {
        epoch: least.max(found.epoch + 1),
        turn: Turn::Free,
        ..next(found)
    })
}

fn next(found: &Record) -> Record {
    Record {
        version: found.version + 1,
        ..found.clone()
    }
}

fn check_format(found: &Record) -> Result<(), Denied> {
    match found.foreign {
        true => Err(Denied::ReadOnly),
        false => Ok(()),
    }
}

/// The claim's own swap had no answer, and may still be done: it takes the place of this version. Where
/// that is replaced by another, it never will be.
fn is_yet_to_come(found: &Record, claim: &Claim) -> bool {
    !found.foreign && found.version + 1 == claim.fence
}

/// The claim as it is stored by now.
fn check_owner(found: &Record, claim: &Claim) -> Result<Claim, Denied> {
    check_format(found)?;
    match found.turn {
        Turn::Sent(now) if now.is_of(claim) => Ok(now),
        _ => Err(Denied::Superseded),
    }
}

/// Are these the same tokens, or neither any?
pub(super) fn same_pair(one: Option<&TokenSet>, other: Option<&TokenSet>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.same_tokens(other),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
