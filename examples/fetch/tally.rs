//! What the requests came to, in numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;
use tower_token_refresh::{RefreshError, Stats};

use crate::{client::End, words};

/// So many different reasons are told at the most.
const MOST_REASONS: usize = 5;

#[derive(Default)]
pub struct Tally {
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer.
    pub errors: u64,
    /// Unsettled at the deadline of their round.
    pub hung: u64,
    /// Why, for those that failed.
    pub reasons: BTreeSet<String>,
    pub wall: Duration,
}

impl Tally {
    pub fn count(&mut self, end: End) {
        match end {
            End::Answered { status, why } => {
                *self.statuses.entry(status.as_u16()).or_default() += 1;
                if !status.is_success() {
                    let why = why.as_ref().map(words::explain);
                    self.explain(words::refused(status, why));
                }
            }
            End::Failed(error) => {
                self.errors += 1;
                self.explain(match error.downcast_ref::<RefreshError>() {
                    Some(error) => format!("not sent: {}", words::explain(error)),
                    None => format!("no answer: {}", words::chain(&*error)),
                });
            }
        }
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

    fn explain(&mut self, reason: String) {
        if self.reasons.len() < MOST_REASONS {
            self.reasons.insert(reason);
        }
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
