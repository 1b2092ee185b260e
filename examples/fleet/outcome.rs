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
    /// Rounds in which no token was replaced that had expired.
    pub idle_rounds: Vec<u32>,
    /// How often a round took as long as a token lives.
    pub overtime: u64,
    /// From the expiry until a process went on: in rounds where something went wrong, or in all of
    /// them if nothing was to.
    pub recovery: Percentiles,
    pub speed: Speed,
}

/// One promise of all rounds.
pub struct Promise {
    pub what: &'static str,
    /// What was seen instead.
    pub broken: Option<String>,
}

fn check(what: &'static str, is_kept: bool, seen: impl FnOnce() -> String) -> Promise {
    let broken = (!is_kept).then(seen);
    Promise { what, broken }
}

impl Outcome {
    /// What is promised, and whether it was kept. The comparison promises nothing.
    pub fn promises(&self, options: &Options) -> Vec<Promise> {
        let mut promises = match (options.protocol, options.has_faults()) {
            (Protocol::TtlLock, _) => Vec::new(),
            (Protocol::Lease, true) => self.in_spite_of_faults(),
            (Protocol::Lease, false) => self.undisturbed(options),
        };
        let Counts {
            presented,
            families_ended,
            ..
        } = self.counts;
        let issuer = &self.issuer;
        let theirs = [issuer.reissues, issuer.reuse_detected];
        promises.push(check(
            "the issuer and the proxy before it have counted the same",
            theirs == [presented, families_ended],
            || {
                format!(
                    "the issuer has counted {theirs:?} reissues and reuses, and the proxy \
                     {presented} and {families_ended}"
                )
            },
        ));
        promises
    }

    fn undisturbed(&self, options: &Options) -> Vec<Promise> {
        let Counts {
            expiries,
            reissues,
            reused,
            families_ended,
            in_doubt,
            ..
        } = self.counts;
        let rounds = u64::from(options.rounds);
        // The token that a round brings may expire once more before the last process has gone on, but only
        // where that takes longer than it lives.
        let one_each = rounds..=rounds + self.overtime;
        vec![
            self.lived_out(),
            check(
                "one expiry in each round, and no other",
                one_each.contains(&expiries),
                || format!("{expiries} expiries in {rounds} rounds"),
            ),
            check(
                "exactly one reissue for each expiry",
                reissues == expiries,
                || format!("{reissues} reissues for {expiries} expiries"),
            ),
            check("no refresh token is used twice", reused == 0, || {
                format!("{reused} were, and {families_ended} logins have ended")
            }),
            check("nothing is in doubt", in_doubt == 0, || {
                format!("of {in_doubt} reissues nobody has stored the new tokens")
            }),
            self.nobody_hangs(),
        ]
    }

    fn in_spite_of_faults(&self) -> Vec<Promise> {
        let Counts {
            expiries,
            reissues,
            reused,
            avoidable,
            families_ended,
            in_doubt,
            lost,
            killed,
            ..
        } = self.counts;
        let taken = lost + killed;
        vec![
            self.lived_out(),
            check(
                "at most one reissue for each expiry",
                reissues <= expiries,
                || format!("{reissues} reissues for {expiries} expiries"),
            ),
            check(
                "no refresh token is used twice while somebody alive can have its successor",
                avoidable == 0,
                || format!("{avoidable} of {reused} that were used twice"),
            ),
            check(
                "in doubt is no more than what was lost on the way or with its process",
                in_doubt <= taken,
                || format!("{in_doubt} reissues; {lost} answers lost, {killed} processes killed"),
            ),
            check(
                "no login ends but for what nobody can know any more",
                families_ended <= in_doubt,
                || {
                    format!(
                        "{families_ended} logins have ended, and {in_doubt} reissues are in doubt"
                    )
                },
            ),
            self.nobody_hangs(),
        ]
    }

    fn lived_out(&self) -> Promise {
        check(
            "every round is lived out: its token expires, and new ones come in its place",
            self.idle_rounds.is_empty(),
            || format!("nothing of that in the rounds {:?}", self.idle_rounds),
        )
    }

    fn nobody_hangs(&self) -> Promise {
        check("every process goes on", self.hung == 0, || {
            format!("{} hung", self.hung)
        })
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
