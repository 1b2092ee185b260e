//! What the calls came to, in numbers.

use std::time::Duration;

use serde::Serialize;
use tonic::{Code, Status};
use tower_token_refresh::Stats;

use crate::{
    cli::{
        Reasons,
        words::{HUNG, unwritten},
    },
    client::End,
    words,
};

#[derive(Default)]
pub struct Tally {
    /// All that were begun.
    pub sent: u64,
    pub ok: u64,
    pub unauthenticated: u64,
    /// With any other status, or with a reply that could not be shown.
    pub other: u64,
    /// Unsettled at the deadline.
    pub hung: u64,
    pub messages: u64,
    /// Why, for those that failed.
    pub reasons: Reasons,
    pub wall: Duration,
}

impl Tally {
    pub fn count(&mut self, end: End) {
        let reason = match &end {
            End::Ok => None,
            End::Failed(status) => Some(words::failed(status)),
            End::Unwritten(error) => Some(unwritten(error)),
        };
        reason
            .into_iter()
            .for_each(|reason| self.reasons.add(reason));
        *match end {
            End::Ok => &mut self.ok,
            End::Failed(status) if is_unauthenticated(&status) => &mut self.unauthenticated,
            End::Failed(_) | End::Unwritten(_) => &mut self.other,
        } += 1;
    }

    /// One that had not settled at the deadline.
    pub fn hang(&mut self) {
        self.hung += 1;
        self.reasons.add(HUNG.to_owned());
    }

    /// Begun, and dropped before they had settled.
    pub fn dropped(&self) -> u64 {
        let settled = self.ok + self.unauthenticated + self.other + self.hung;
        self.sent.saturating_sub(settled)
    }

    /// The contract of `--json`.
    pub fn outcome(&self, stats: &Stats, is_over: bool) -> Outcome {
        Outcome {
            ok: self.ok,
            unauthenticated: self.unauthenticated,
            other: self.other,
            hung: self.hung,
            messages: self.messages,
            reissues: stats.reissues,
            replays: stats.replays,
            ended: is_over.into(),
            wall_ms: u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn is_unauthenticated(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
}

/// The line that `--json` prints: counts.
#[derive(Serialize)]
pub struct Outcome {
    /// Calls that ended with the status OK.
    ok: u64,
    /// With UNAUTHENTICATED.
    unauthenticated: u64,
    /// With any other, or without one.
    other: u64,
    hung: u64,
    /// All replies received, those of calls that failed later as well.
    messages: u64,
    /// Sent by this process.
    reissues: u64,
    replays: u64,
    /// 1 if the session is over, by this run or before it.
    ended: u64,
    wall_ms: u64,
}
