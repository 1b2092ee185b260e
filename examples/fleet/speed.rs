//! How long it takes from the moment that new tokens are in the store until another process uses them.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, SystemTime},
};

use crate::{fingerprint::Fingerprint, oracle::Pair, words::time};

/// The times of each access token that a reissue brought.
#[derive(Default)]
pub struct Speeds(HashMap<Fingerprint, Times>);

#[derive(Default)]
struct Times {
    /// Who fetched it, and when it expires.
    fetched: Option<(u64, SystemTime)>,
    stored: Option<SystemTime>,
    /// A request of another process arrived with it.
    used: Option<SystemTime>,
}

impl Speeds {
    pub fn fetched(&mut self, pair: &Pair, process: u64) {
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_millis(pair.expires_at);
        self.0.entry(pair.access).or_default().fetched = Some((process, expiry));
    }

    pub fn stored(&mut self, access: Fingerprint) {
        let times = self.0.entry(access).or_default();
        times.stored.get_or_insert_with(SystemTime::now);
    }

    pub fn used(&mut self, access: Fingerprint, process: u64) {
        let now = SystemTime::now();
        // Tokens of a login were fetched by nobody. And where none of the others wanted to go on when it came,
        // the first use is that of the next round.
        if let Some(times) = self.0.get_mut(&access)
            && times
                .fetched
                .is_some_and(|(holder, expiry)| holder != process && now < expiry)
        {
            times.used.get_or_insert(now);
        }
    }

    pub fn summary(&self) -> Speed {
        let from_one_to_the_other = |times: &Times| {
            let (stored, used) = times.stored.zip(times.used)?;
            // It may be seen in the store a moment after it came there.
            Some(used.duration_since(stored).unwrap_or_default())
        };
        let all = self.0.values().filter_map(from_one_to_the_other).collect();
        Speed(Percentiles::of(all))
    }
}

/// Over all reissues.
pub struct Speed(pub Percentiles);

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles { p50, p99, max, n } = self.0;
        let [p50, p99, max] = [p50, p99, max].map(time);
        write!(
            f,
            "from new tokens in the store to their first use by another process: p50 {p50}, p99 {p99}, \
             max {max} (n = {n})"
        )
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    pub n: usize,
}

impl Percentiles {
    /// All of them are zero where there is nothing.
    pub fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let nearest = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100);
            all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            p50: nearest(50),
            p99: nearest(99),
            max: nearest(100),
            n: all.len(),
        }
    }
}
