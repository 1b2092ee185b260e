//! What the login is worth after the storm: whether it lives on with the tokens that came of it, and how
//! dearly it costs the issuer once it does not.
//!
//! What is counted here is in no other count: not in the table, nor in the line for programs.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::{
    backend::Backend,
    client::{Ask, Client, End},
    options::Scenario,
    record,
    trace::Life,
};

/// Callers of one expiry.
const MOST_CALLERS: u64 = 8;
/// What has no answer by then has none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reissues that are older than half a minute do not count any more, and on a machine that is so slow
/// nothing can be said of the limit.
const IN_WINDOW: Duration = Duration::from_secs(25);

/// A look at the login.
#[derive(Default)]
pub struct Afterwards {
    pub calls: u64,
    /// Those that ended as they have to.
    pub good: u64,
    pub expiries: u64,
    /// As the server counted them.
    pub reissues: u64,
    pub reuses: u64,
    /// How others ended.
    pub failures: BTreeSet<String>,
    /// A look at what comes after as many reissues as a login may have in half a minute.
    pub over_limit: Option<Box<Self>>,
}

/// What it is looked at with.
pub struct Looker<'a> {
    pub backend: &'a Backend,
    pub client: &'a Client,
    pub scenario: Scenario,
    /// Who is logged in.
    pub user: &'a str,
    pub requests: u64,
    /// Of the login.
    pub began: Instant,
}

/// How a call has to end.
#[derive(Clone, Copy)]
enum Due {
    Accepted,
    Ended,
    OverLimit,
    Refused,
}

impl Looker<'_> {
    pub async fn look(&self) -> Result<Afterwards> {
        let mut seen = Afterwards::default();
        let mut before = 0;
        match self.scenario {
            Scenario::Fails => self.call_together(Due::Ended, &mut seen).await,
            // One after the other, so that each finds what the one before it has left.
            Scenario::Dead => {
                for item in 0..MOST_CALLERS {
                    self.count(item, Due::Refused, &mut seen).await;
                }
            }
            _ => {
                // Nobody may have been accepted yet with a token whose callers are all gone, and one that is rejected in
                // its first seconds, before it was ever accepted, is not replaced.
                drop(self.call(0).await);
                before = self.backend.stats().reissues;
                for _ in 0..self.scenario.later_expiries() {
                    self.expire(&mut seen);
                    self.call_together(Due::Accepted, &mut seen).await;
                }
            }
        }
        let before = self.finish(&mut seen, before);
        if self.scenario == Scenario::Steady && self.began.elapsed() < IN_WINDOW {
            let mut over = Afterwards::default();
            self.expire(&mut over);
            self.call_together(Due::OverLimit, &mut over).await;
            self.finish(&mut over, before);
            // Was it still so at the end?
            seen.over_limit = (self.began.elapsed() < IN_WINDOW).then(|| Box::new(over));
        }
        Ok(seen)
    }

    fn expire(&self, seen: &mut Afterwards) {
        self.backend.expire_access_tokens();
        seen.expiries += 1;
    }

    /// `before` were counted before this look. Returns how many are counted now.
    fn finish(&self, seen: &mut Afterwards, before: u64) -> u64 {
        let stats = self.backend.stats();
        seen.reissues = stats.reissues - before;
        seen.reuses = stats.reuse_detected;
        stats.reissues
    }

    async fn call_together(&self, due: Due, seen: &mut Afterwards) {
        let callers = 0..self.requests.min(MOST_CALLERS);
        let ends = join_all(callers.map(|item| self.call(item))).await;
        for end in ends {
            self.judge(end, due, seen);
        }
    }

    async fn count(&self, item: u64, due: Due, seen: &mut Afterwards) {
        let end = self.call(item).await;
        self.judge(end, due, seen);
    }

    async fn call(&self, item: u64) -> Option<End> {
        let call = self.client.clone().call(Ask::Item(item), Life::default());
        timeout(PATIENCE, call).await.ok()
    }

    fn judge(&self, end: Option<End>, due: Due, seen: &mut Afterwards) {
        seen.calls += 1;
        let is_good = match (&end, due) {
            (Some(End::Accepted { owner, .. }), Due::Accepted) => {
                owner.as_deref() == Some(self.user)
            }
            (Some(End::Refused { code, why, .. }), due) => {
                let why = why.as_ref();
                // A code is in the server's own words only.
                code.is_some()
                    && match due {
                        Due::Accepted => false,
                        Due::Ended => why.is_some_and(|why| why.is_session_ended()),
                        Due::OverLimit => why.is_some_and(|why| why.is_reissue_limit()),
                        Due::Refused => why.is_none_or(|why| !why.is_session_ended()),
                    }
            }
            _ => false,
        };
        match is_good {
            true => seen.good += 1,
            false => {
                seen.failures.insert(record::how(end.as_ref()));
            }
        }
    }
}
