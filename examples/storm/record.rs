//! What rounds add up to.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde::Serialize;
use tower_token_refresh::RefreshError;

use crate::{
    afterwards::Afterwards,
    client::End,
    options::Options,
    promises::{Kept, Promise},
    storm::{Round, Users},
    trace::{Reissue, Times},
};

/// One round in numbers.
#[derive(Default)]
pub struct Tally {
    pub n: u64,
    pub ok: u64,
    pub failed: u64,
    pub dropped: u64,
    pub hung: u64,
    /// Those of them that had been sent, and that the server had not answered.
    pub unanswered: u64,
    /// Failures that are the server's own 401, with "session ended" known as the reason.
    pub ended: u64,
    /// Failures that are the server's own 401, for whatever reason.
    pub refused: u64,
    /// Answers to another request than this one, or about somebody who never logged in.
    pub misdelivered: u64,
    /// Requests that began before the other user's login, and were answered as that user.
    pub crossed: u64,
    /// Requests that began after it, and …
    pub after_login: u64,
    /// … were answered as that user.
    pub after_login_ok: u64,
    /// All of them had been sent before the server lost its patience and let rejections go.
    pub gathered: bool,
    pub failures: BTreeSet<String>,
    /// These two as the server counted them.
    pub reissues: u64,
    pub requests: u64,
    /// Reissues that it has refused, or could not grant.
    pub failed_reissues: u64,
    /// Refresh tokens that came once more when they were used.
    pub reuses: u64,
    /// Reissues that brought tokens, as the client saw it …
    pub renewals: u64,
    /// … those that began when the token they replace had not been rejected …
    pub needless: u64,
    /// … and different tokens that requests carried.
    pub presented: u64,
    /// Calls that were sent more often than twice for each time that the caller asked.
    pub sent_too_often: u64,
    /// Of each reissue that followed a failed one: how long the issuer was left alone, and how long it had
    /// to be at the least.
    pub pauses: Vec<(Duration, Duration)>,
    pub afterwards: Option<Afterwards>,
    pub replays: u64,
    pub late_rejections: u64,
    pub ends_counted: u64,
    pub ends_told: u64,
    pub wall: Duration,
}

/// The longest that the server holds a rejection, less what it takes to notice.
const HOLD: Duration = Duration::from_millis(4500);
/// The pause after a first failure lasts a second, and is spread from half of that.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

impl Tally {
    pub fn of(round: &mut Round) -> Self {
        let times: Vec<_> = round.lives.iter().map(|life| life.times()).collect();
        let mut tally = Self {
            n: round.ends.len() as u64,
            gathered: gathering(&times) < HOLD,
            reissues: round.server.reissues,
            requests: round.server.requests.values().sum(),
            failed_reissues: round.server.reissue_failures,
            reuses: round.server.reuse_detected,
            renewals: round.reissues.iter().filter(|it| it.is_good()).count() as u64,
            needless: round.needless,
            presented: round.presented,
            sent_too_often: times.iter().filter(|it| is_sent_too_often(it)).count() as u64,
            pauses: pauses(&round.reissues),
            afterwards: round.afterwards.take(),
            replays: round.replays,
            late_rejections: round.late_rejections,
            ends_counted: round.ends_counted,
            ends_told: round.ends_told,
            wall: round.wall,
            ..Self::default()
        };
        for (item, (end, times)) in (round.first_item..).zip(round.ends.iter().zip(&times)) {
            tally.count(end.as_ref(), item, times, &round.users);
        }
        tally
    }

    /// Protected requests and reissues.
    pub fn on_the_wire(&self) -> u64 {
        self.requests + self.reissues
    }

    fn count(&mut self, end: Option<&End>, asked: u64, times: &Times, users: &Users) {
        let after_login = began_after(times, users);
        self.after_login += u64::from(after_login);
        match end {
            None => {
                self.hung += 1;
                let last = times.sends.last();
                self.unanswered += u64::from(last.is_some_and(|send| send.answered.is_none()));
            }
            Some(End::Dropped) => self.dropped += 1,
            Some(End::Failed(_)) => self.fail(how(end)),
            Some(End::Accepted { item, owner }) => {
                self.ok += 1;
                let second = users.second.is_some() && users.second == *owner;
                let known = owner.as_ref().is_none_or(|it| second || *it == users.first);
                self.misdelivered += u64::from(*item != Some(asked) || !known);
                self.crossed += u64::from(second && began_before(times, users));
                self.after_login_ok += u64::from(second && after_login);
            }
            Some(End::Refused { status, code, why }) => {
                self.fail(how(end));
                // A code is in the server's own words only.
                if *status == StatusCode::UNAUTHORIZED && code.is_some() {
                    let why = why.as_ref();
                    self.refused += 1;
                    self.ended += u64::from(why.is_some_and(RefreshError::is_session_ended));
                }
            }
        }
    }

    fn fail(&mut self, how: String) {
        self.failed += 1;
        if self.failures.len() < 5 {
            self.failures.insert(how);
        }
    }
}

/// How a call ended, for people.
pub fn how(end: Option<&End>) -> String {
    match end {
        None => "it did not settle".to_owned(),
        Some(End::Dropped) => "it was dropped".to_owned(),
        Some(End::Failed(error)) => format!("no answer: {}", chain(&**error)),
        Some(End::Accepted { .. }) => "200 OK".to_owned(),
        Some(End::Refused { status, code, why }) => {
            let code = code.as_deref().unwrap_or("no code");
            let why = why.as_ref();
            let reason = why.map_or_else(|| "no reason given".to_owned(), RefreshError::to_string);
            format!("{status}, {code}: {reason}")
        }
    }
}

fn is_sent_too_often(times: &Times) -> bool {
    times.sends.len() > 2 * times.tries
}

/// Failures in a row double the pause.
fn pauses(reissues: &[Reissue]) -> Vec<(Duration, Duration)> {
    let mut least = LEAST_PAUSE;
    let mut pauses = Vec::new();
    for pair in reissues.windows(2) {
        let [before, next] = pair else { continue };
        let Some(over) = before.over.filter(|_| before.has_failed()) else {
            least = LEAST_PAUSE;
            continue;
        };
        pauses.push((next.begun.saturating_duration_since(over), least));
        least *= 2;
    }
    pauses
}

/// It had its token, or its lack of one, before the other login: that other user is none of its affair.
fn began_before(times: &Times, users: &Users) -> bool {
    match (times.admitted, users.login_began) {
        (Some(admitted), Some(login)) => admitted < login,
        _ => false,
    }
}

fn began_after(times: &Times, users: &Users) -> bool {
    match (times.called, users.login_done) {
        (Some(called), Some(login)) => called > login,
        _ => false,
    }
}

/// From the first request sent to the last.
fn gathering(times: &[Times]) -> Duration {
    let first_sends = || {
        times
            .iter()
            .filter_map(|times| Some(times.sends.first()?.at))
    };
    let first: Option<Instant> = first_sends().min();
    let last = first_sends().max();
    first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| last - first)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// All rounds.
#[derive(Default)]
pub struct Record {
    pub ok: u64,
    pub failed: u64,
    pub dropped: u64,
    pub hung: u64,
    pub reissues: u64,
    pub on_the_wire: u64,
    pub replays: u64,
    pub late_rejections: u64,
    pub wall: Duration,
    pub shortest: Option<Duration>,
    pub longest: Duration,
    pub failures: BTreeSet<String>,
    pub promises: Vec<Kept>,
}

impl Record {
    pub fn add(&mut self, round: u32, tally: Tally, promises: Vec<Promise>) {
        self.ok += tally.ok;
        self.failed += tally.failed;
        self.dropped += tally.dropped;
        self.hung += tally.hung;
        self.reissues += tally.reissues;
        self.on_the_wire += tally.on_the_wire();
        self.replays += tally.replays;
        self.late_rejections += tally.late_rejections;
        self.wall += tally.wall;
        self.shortest = Some(self.shortest.map_or(tally.wall, |it| it.min(tally.wall)));
        self.longest = self.longest.max(tally.wall);
        self.failures.extend(tally.failures);
        Kept::note(&mut self.promises, round, promises);
    }

    pub fn is_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.broken.is_none())
    }

    /// The contract of `--json`.
    pub fn outcome(&self, options: &Options) -> Outcome {
        Outcome {
            scenario: options.scenario.to_string(),
            requests: options.requests,
            rounds: options.rounds,
            ok: self.ok,
            failed: self.failed,
            dropped: self.dropped,
            hung: self.hung,
            reissues: self.reissues,
            replays: self.replays,
            wire_requests: self.on_the_wire,
            wall_ms: self.wall.as_millis() as u64,
        }
    }
}

/// The line that `--json` prints: sums over the rounds, but for `requests`, which is of each.
#[derive(Serialize)]
pub struct Outcome {
    scenario: String,
    requests: u32,
    rounds: u32,
    ok: u64,
    failed: u64,
    dropped: u64,
    hung: u64,
    reissues: u64,
    replays: u64,
    wire_requests: u64,
    wall_ms: u64,
}
