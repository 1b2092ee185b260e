//! What all rounds come to, and what is promised of it.

use serde::Serialize;

use crate::{
    backend::Stats,
    options::{Options, Protocol},
    oracle::Counts,
    speed::{Percentiles, Speed},
};

pub struct Outcome {
    pub counts: Counts,
    /// The issuer's own.
    pub issuer: Stats,
    /// Processes that were killed or stopped.
    pub hits: u64,
    pub hung: u64,
    /// From the expiry until a process went on: in rounds where something went wrong, or in all of
    /// them if nothing was to.
    pub recovery: Percentiles,
    pub speed: Speed,
}

impl Outcome {
    /// What was promised and not kept. The comparison promises nothing.
    pub fn broken(&self, options: &Options) -> Vec<String> {
        let Counts {
            expiries,
            reissues,
            presented,
            reused,
            avoidable,
            families_ended,
            ..
        } = self.counts;
        let mut broken = Vec::new();
        let mut check = |is_kept: bool, what: String| {
            if !is_kept {
                broken.push(what);
            }
        };
        let issuer = &self.issuer;
        let theirs = [issuer.reissues, issuer.reuse_detected];
        check(
            theirs == [presented, families_ended],
            format!(
                "the issuer has counted {theirs:?} reissues and reuses, and the proxy \
                 {presented} and {families_ended}"
            ),
        );
        if options.protocol == Protocol::TtlLock {
            return broken;
        }
        check(
            avoidable == 0,
            format!("{avoidable} refresh tokens were used twice, and needlessly"),
        );
        check(self.hung == 0, format!("{} processes hung", self.hung));
        if !options.has_faults() {
            check(
                reissues == expiries,
                format!("{reissues} reissues for {expiries} expiries"),
            );
            check(
                reused == 0,
                format!("{reused} refresh tokens were used twice"),
            );
        }
        broken
    }

    /// The contract of `--json`.
    pub fn line(&self, options: &Options) -> Line {
        let ms = |time: std::time::Duration| time.as_millis() as u64;
        Line {
            processes: options.processes,
            rounds: options.rounds,
            expiries: self.counts.expiries,
            reissues: self.counts.reissues,
            reused: self.counts.reused,
            families_ended: self.counts.families_ended,
            avoidable_reuse: self.counts.avoidable,
            in_doubt: self.counts.in_doubt,
            hung: self.hung,
            recovery_ms: Recovery {
                p50: ms(self.recovery.p50),
                p99: ms(self.recovery.p99),
                max: ms(self.recovery.max),
            },
        }
    }
}

#[derive(Serialize)]
pub struct Line {
    processes: u32,
    rounds: u32,
    expiries: u64,
    reissues: u64,
    reused: u64,
    families_ended: u64,
    avoidable_reuse: u64,
    in_doubt: u64,
    hung: u64,
    recovery_ms: Recovery,
}

#[derive(Serialize)]
struct Recovery {
    p50: u64,
    p99: u64,
    max: u64,
}
