//! Records that are hard to keep, and what is wrong with one that came back.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::difference::difference;
use super::difference::time_within;
use super::samples::Samples;
use crate::error::EndReason;
use crate::store::Claim;
use crate::store::LARGEST;
use crate::store::Record;
use crate::store::Turn;
use crate::token::InvalidToken;
use crate::token::TokenSet;

/// What a claim hangs on is kept to the millisecond.
const PRECISION: Duration = Duration::from_millis(1);

/// A moment with all its digits: 2026-01-02.
const MOMENT: Duration = Duration::new(1_767_312_000, 987_654_321);

pub(super) struct RecordSample {
    pub(super) name: String,
    /// Its version counts only where it is above that of the record before.
    pub(super) record: Record,
}

pub(super) struct Records {
    /// To be swapped in one after another. The last is that of a logout.
    pub(super) in_turn: Vec<RecordSample>,
    /// Three that differ in everything, so that a mix of them shows.
    pub(super) old: Record,
    pub(super) new: Record,
    pub(super) next: Record,
}

impl Records {
    pub(super) fn new() -> Result<Self, InvalidToken> {
        let Samples {
            in_turn,
            old,
            new,
            next,
        } = Samples::new()?;
        let mut all: Vec<_> = in_turn
            .into_iter()
            .map(|sample| sampled(sample.name, 3, Some(&sample.tokens), Turn::Free))
            .collect();
        all.extend(turns(&old));
        all.extend(ends(&new));
        let largest = Claim {
            owner: u64::MAX,
            fence: LARGEST - 1,
            ..claim()
        };
        let ended = Turn::Ended(EndReason::LoggedOut);
        for (name, number, tokens, turn) in [
            (
                "large numbers",
                LARGEST - 1,
                Some(&old),
                Turn::Sent(largest),
            ),
            ("the largest numbers", LARGEST, None, ended),
        ] {
            let mut sample = sampled(name, number, tokens, turn);
            sample.record.version = number;
            all.push(sample);
        }
        Ok(Self {
            in_turn: all,
            old: record(5, Some(&old), Turn::Sent(claim())),
            new: record(6, Some(&new), Turn::Free),
            next: record(7, Some(&next), Turn::Refused),
        })
    }
}

/// Each differs from the one before it in one way.
fn turns(tokens: &TokenSet) -> Vec<RecordSample> {
    let sent = claim();
    let owner = Claim { owner: 7, ..sent };
    let fence = Claim { fence: 2, ..owner };
    let sent_at = Claim {
        sent_at: sent.sent_at + Duration::from_millis(2),
        ..fence
    };
    let deadline = Claim {
        deadline: sent.deadline + Duration::from_millis(2),
        ..sent_at
    };
    [
        ("tokens that are claimed", 4, Turn::Sent(sent)),
        ("the claim of another owner", 4, Turn::Sent(owner)),
        ("another claim of the same owner", 4, Turn::Sent(fence)),
        ("a claim that was sent 2 ms later", 4, Turn::Sent(sent_at)),
        ("a claim that ends 2 ms later", 4, Turn::Sent(deadline)),
        ("the same tokens in another epoch", 5, Turn::Sent(deadline)),
        ("tokens that were refused", 5, Turn::Refused),
        ("tokens that are free", 5, Turn::Free),
    ]
    .into_iter()
    .map(|(name, epoch, turn)| sampled(name, epoch, Some(tokens), turn))
    .collect()
}

/// Each end, and what follows one.
fn ends(tokens: &TokenSet) -> Vec<RecordSample> {
    let reasons = [
        EndReason::LoggedOut,
        EndReason::Refused,
        EndReason::Rejected,
        EndReason::Replaced,
    ];
    let mut all = Vec::new();
    for (reason, epoch) in reasons.into_iter().zip(6..) {
        let name = format!("an end, as {reason}");
        all.push(sampled(name, epoch, None, Turn::Ended(reason)));
    }
    all.extend([
        sampled("a login after an end", 10, Some(tokens), Turn::Free),
        sampled("a claim without tokens", 11, None, Turn::Sent(claim())),
        sampled("no tokens, and no claim", 11, None, Turn::Free),
    ]);
    all
}

fn sampled(
    name: impl Into<String>,
    epoch: u64,
    tokens: Option<&TokenSet>,
    turn: Turn,
) -> RecordSample {
    RecordSample {
        name: name.into(),
        record: record(epoch, tokens, turn),
    }
}

fn record(epoch: u64, tokens: Option<&TokenSet>, turn: Turn) -> Record {
    Record {
        epoch,
        reissues: epoch % 3,
        tokens: tokens.cloned(),
        turn,
        ..Record::empty()
    }
}

fn claim() -> Claim {
    let sent_at = UNIX_EPOCH + MOMENT;
    Claim {
        owner: 0xfedc_ba98_7654_3210,
        fence: 1,
        sent_at,
        deadline: sent_at + Duration::from_millis(10_345),
    }
}

/// The same with this version.
pub(super) fn at(version: u64, record: &Record) -> Record {
    Record {
        version,
        ..record.clone()
    }
}

/// `None` when all is as it should be.
pub(super) fn record_difference(expected: &Record, found: &Record) -> Option<String> {
    let foreign = found.foreign != expected.foreign;
    let all = [
        number("the version", expected.version, found.version),
        number("the epoch", expected.epoch, found.epoch),
        number("the number of reissues", expected.reissues, found.reissues),
        difference(expected.tokens.as_ref(), found.tokens.as_ref()),
        turn(expected.turn, found.turn),
        foreign.then(|| "a newer version of this crate is said to have written it".to_owned()),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn number(what: &str, expected: u64, found: u64) -> Option<String> {
    (expected != found).then(|| format!("{what} is {found} in place of {expected}"))
}

fn turn(expected: Turn, found: Turn) -> Option<String> {
    match (expected, found) {
        (expected, found) if expected == found => None,
        (Turn::Sent(expected), Turn::Sent(found)) => claims(expected, found),
        (Turn::Ended(expected), Turn::Ended(found)) => Some(format!(
            "it ended as {found}, where {expected} is what was written"
        )),
        (expected, found) => Some(format!(
            "the refresh token {}, where it {}",
            words(found),
            words(expected)
        )),
    }
}

fn words(turn: Turn) -> &'static str {
    match turn {
        Turn::Ended(_) => "is gone with its login",
        Turn::Free => "is free",
        Turn::Refused => "was refused",
        Turn::Sent(_) => "is claimed",
    }
}

fn claims(expected: Claim, found: Claim) -> Option<String> {
    let moment = |what, expected, found: SystemTime| {
        time_within(PRECISION, what, Some(expected), Some(found))
    };
    let owner = expected.owner != found.owner;
    let all = [
        owner.then(|| "the claim's owner is another".to_owned()),
        number("the claim's fence", expected.fence, found.fence),
        moment("when the claim was sent", expected.sent_at, found.sent_at),
        moment("the claim's deadline", expected.deadline, found.deadline),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}
