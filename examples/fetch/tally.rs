//! What the requests came to, in numbers.

use std::{collections::BTreeMap, time::Duration};

use ::http::Uri;
use serde::Serialize;
use tower_token_refresh::{RefreshError, Stats};

use crate::{
    cli::{
        Reasons,
        words::{HUNG, chain, explain, unwritten},
    },
    client::End,
    words,
};

#[derive(Default)]
pub struct Tally {
    /// All that were begun.
    pub sent: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer, or whose answer could not be shown.
    pub errors: u64,
    /// Unsettled at the deadline of their round.
    pub hung: u64,
    /// Why, for those that failed.
    pub reasons: Reasons,
    pub wall: Duration,
}

impl Tally {
    /// `place` is told with what failed, where there are several.
    pub fn count(&mut self, end: End, place: Option<&Uri>) {
        match end {
            End::Answered { status, why } => {
                *self.statuses.entry(status.as_u16()).or_default() += 1;
                if !status.is_success() {
                    let why = why.as_ref().map(explain);
                    self.explain(words::refused(status, why), place);
                }
            }
            End::Failed(error) => {
                self.errors += 1;
                let reason = match error.downcast_ref::<RefreshError>() {
                    Some(error) => format!("not sent: {}", explain(error)),
                    None => format!("no answer: {}", chain(&*error)),
                };
                self.explain(reason, place);
            }
            End::Unwritten(error) => {
                self.errors += 1;
                self.explain(unwritten(&error), place);
            }
        }
    }

    /// One that had not settled at the deadline.
    pub fn hang(&mut self, place: Option<&Uri>) {
        self.hung += 1;
        self.explain(HUNG.to_owned(), place);
    }

    /// Begun, and dropped before they had settled.
    pub fn dropped(&self) -> u64 {
        let answered: u64 = self.statuses.values().sum();
        self.sent.saturating_sub(answered + self.errors + self.hung)
    }

    /// Every request got a 2xx.
    pub fn is_good(&self, requests: u64) -> bool {
        let good = self.statuses.range(200..300).map(|(_, count)| count);
        good.sum::<u64>() == requests
    }

    /// The contract of `--json`.
    pub fn outcome(&self, stats: &Stats, is_over: bool) -> Outcome {
        Outcome {
            status: self.statuses.clone(),
            reissues: stats.reissues,
            replays: stats.replays,
            adopted: stats.adopted,
            errors: self.errors,
            hung: self.hung,
            ended: is_over.into(),
            wall_ms: u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn explain(&mut self, reason: String, place: Option<&Uri>) {
        let reason = match place {
            Some(uri) => format!("{}: {reason}", words::place(uri)),
            None => reason,
        };
        self.reasons.add(reason);
    }
}

/// The line that `--json` prints. All but `status` are counts.
#[derive(Serialize)]
pub struct Outcome {
    /// How many answers there were of each status.
    status: BTreeMap<u16, u64>,
    /// Sent by this process.
    reissues: u64,
    replays: u64,
    /// Pairs that another process had fetched.
    adopted: u64,
    errors: u64,
    hung: u64,
    /// 1 if the session is over, by this run or before it.
    ended: u64,
    wall_ms: u64,
}
