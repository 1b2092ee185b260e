//! Everything that can be decided about a session, decided here: events in, decisions out.
//!
//! No lock, no clock, no channel, no task and no token: the callers bring the time, keep the tokens
//! and carry out what is decided. So each rule can be read, and tested, without any concurrency.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use super::address::Address;
use super::address::Addresses;
use super::address::Standing;
use super::status::SessionStatus;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::seeded::seeded;
use crate::time::Due;
use crate::time::Now;
use crate::token::Lifetime;
use crate::token::Stamp;

/// The longest wait that an issuer can ask for with `Retry-After`.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long an issuer that does not take the request as it is made is left alone.
const MISCONFIGURED: Duration = Duration::from_secs(60);

/// What the user may set.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The longest an attempt can take: past it, it is abandoned.
    pub(crate) attempt: Duration,
    /// How long nobody tries again after an attempt that was abandoned before the issuer was asked.
    pub(crate) abandoned: Duration,
    /// The first and the longest cool-down after a transient failure.
    pub(crate) cool_down: (Duration, Duration),
    /// At most so many reissues in so long a time.
    pub(crate) window: (u32, Duration),
    /// The reissuer needs no refresh token, and so no login either.
    pub(crate) self_sufficient: bool,
}

/// The state of one session.
#[derive(Debug, Clone)]
pub(crate) struct State {
    rules: Rules,
    epoch: u64,
    generation: u64,
    login: Login,
    /// The epoch of the latest login, if it is over.
    latest_login: u64,
    /// How that one ended. A logout that comes after does not change it.
    latest_end: Option<RefreshError>,
    attempt: Option<Attempt>,
    last_number: u64,
    cooling: Option<Cooling>,
    failures: u32,
    reissues: VecDeque<Instant>,
    /// The newest generation that some request was accepted with.
    accepted: u64,
    addresses: Addresses,
}

/// What is known of the login.
#[derive(Debug, Clone)]
enum Login {
    /// The store has not been read yet.
    Unloaded,
    /// Nobody has logged in.
    Absent,
    /// It was logged out, or has ended: why.
    Over(RefreshError),
    /// There is a token.
    Live(Token),
}

/// What matters of an access token, apart from itself.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) lifetime: Lifetime,
    /// A reissue can be made: there is a refresh token, or none is needed.
    pub(crate) renewable: bool,
    /// The store has it.
    pub(crate) saved: bool,
    /// The refresh token may be spent.
    pub(crate) in_doubt: Option<Doubt>,
    /// It was issued a moment ago. Until then a server that rejects it may not know it yet.
    pub(crate) settles: Option<Instant>,
    rejected: Rejected,
    /// A refresh ahead of expiry was refused: no further reissue is tried (P6).
    refused: Option<RefreshError>,
}

impl Token {
    pub(crate) fn new(lifetime: Lifetime, renewable: bool, saved: bool) -> Self {
        Self {
            lifetime,
            renewable,
            saved,
            in_doubt: None,
            settles: None,
            rejected: Rejected::No,
            refused: None,
        }
    }

    fn is_rejected(&self) -> bool {
        matches!(self.rejected, Rejected::Yes | Rejected::Finally)
    }
}

/// When a refresh token in doubt may be presented again: while the issuer takes it once more, and
/// when nothing of what was sent can be under way any longer. In between it is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The end of the issuer's grace window.
    pub(crate) open_until: Instant,
    /// The end of the quarantine.
    pub(crate) closed_until: Instant,
}

impl Doubt {
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.open_until <= now && now < self.closed_until
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rejected {
    No,
    /// Where others reject any token: the next request has it replaced, and does not wait for that.
    Alone,
    Yes,
    /// By an answer that the classifier declares final.
    Finally,
}

/// The running attempt, or one that was abandoned and has no successor yet.
#[derive(Debug, Clone)]
struct Attempt {
    number: u64,
    cause: Cause,
    deadline: Instant,
    /// New requests wait for it.
    blocking: bool,
    abandoned: bool,
    /// The issuer was asked: when first.
    asked: Option<Instant>,
    /// It has put the refresh token in doubt.
    doubted: bool,
    /// Somebody was rejected with the token that it is to replace.
    rejected: bool,
}

/// What an attempt is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Read the store again, and end the session unless somebody has stored newer tokens.
    End(EndReason),
    /// Read the store for the first time.
    Load,
    /// Save the tokens of a login.
    Login,
    /// Get new tokens from the issuer.
    Reissue,
}

/// An attempt that the caller is to start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) number: u64,
    pub(crate) cause: Cause,
    pub(crate) deadline: Instant,
    /// The token it is to replace.
    pub(crate) stamp: Stamp,
}

/// After a failure: rejections get this error at once, until then.
#[derive(Debug, Clone)]
struct Cooling {
    until: Instant,
    error: RefreshError,
}

/// May this request be sent?
#[derive(Debug)]
pub(crate) enum Admission {
    /// There is no token and the attempt to get one has just failed.
    Fail(RefreshError),
    /// Yes, with what there is.
    Go,
    /// Yes, and start a refresh in the background.
    GoAndStart(Start),
    /// When the running attempt has settled.
    Join,
    /// When the attempt that the caller now starts has settled.
    Start(Start),
}

/// What to do about a rejection.
#[derive(Debug)]
pub(crate) enum Recovery {
    /// Nothing can be done.
    Fail(RefreshError),
    /// Wait for the running attempt.
    Join,
    /// Send it again: there is a newer token already.
    Replay,
    /// Start this attempt and wait for it.
    Start(Start),
}

/// What a rejection says of the current token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Nothing: it is of an older one.
    Late,
    /// Nothing that a reissue could help, now.
    InVain(Kind),
    /// It may be no good. As there are addresses that would say that of any token, only those wait for
    /// a better one who were rejected themselves.
    Alone,
    /// It is no good.
    Full,
    /// The same, by an answer that the classifier declares final.
    Final,
}

/// How an attempt went.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The session is over.
    Ended(RefreshError),
    /// No tokens, for this reason.
    Failed(Failure),
    /// New tokens, from the issuer or adopted.
    Installed(Token),
    /// The store was read: what it held.
    Loaded(Option<Token>),
    /// The issuer refused the refresh token, and the store holds no newer one.
    Refused(RefreshError),
    /// The tokens of a login are in the store, or could not be put there.
    Saved(bool),
    /// Another process has logged in, or out, or has seen the end: what those who waited are told.
    TakenOver(Option<Token>, RefreshError),
    /// Somebody had replaced the token before the attempt came to it.
    Unchanged,
}

/// A failure and what it asks for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RefreshError,
    pub(crate) retry_after: Option<Duration>,
    /// A number in `0.0..1.0` that spreads the next tries of many sessions.
    pub(crate) jitter: f64,
}

/// What an attempt that counted came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// For those who waited.
    pub(crate) outcome: Outcome,
    /// The session ended by it.
    pub(crate) ended: bool,
}

/// What each request needs to know, for the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) stamp: Stamp,
    /// Ask [`State::admit`] before sending.
    pub(crate) held: bool,
    /// Ask [`State::admit`] from this moment on.
    pub(crate) recheck: Due,
}

impl State {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            epoch: 0,
            generation: 0,
            login: Login::Unloaded,
            latest_login: 0,
            latest_end: None,
            attempt: None,
            last_number: 0,
            cooling: None,
            failures: 0,
            reissues: VecDeque::new(),
            accepted: 0,
            addresses: Addresses::default(),
        }
    }

    /// A request wants to be sent.
    pub(crate) fn admit(&mut self, now: &Now) -> Admission {
        let usable = self.is_usable(now);
        let live = self.token().is_some();
        if let Some(attempt) = self.running() {
            // P1: whoever finds the token no longer good joins the refresh ahead that is under way.
            attempt.blocking |= live && !usable;
            return match attempt.blocking {
                true => Admission::Join,
                false => Admission::Go,
            };
        }
        match &self.login {
            Login::Unloaded => Admission::Start(self.start(Cause::Load, true, now.instant)),
            Login::Over(_) => Admission::Go,
            Login::Absent if self.rules.self_sufficient => match self.try_start(true, now) {
                Ok(start) => Admission::Start(start),
                Err(error) => Admission::Fail(error),
            },
            Login::Absent => Admission::Go,
            Login::Live(_) if !usable => {
                // In a cool-down it goes out as it is: the server decides (P5).
                self.try_start(true, now)
                    .map_or(Admission::Go, Admission::Start)
            }
            Login::Live(token)
                if token.rejected == Rejected::Alone
                    || token.refused.is_none() && token.lifetime.ahead.passed(now) =>
            {
                self.try_start(false, now)
                    .map_or(Admission::Go, Admission::GoAndStart)
            }
            Login::Live(_) => Admission::Go,
        }
    }

    /// The request with this stamp was rejected, there.
    pub(crate) fn reject(
        &mut self,
        stamp: Stamp,
        is_final: bool,
        address: Address,
        now: &Now,
    ) -> Recovery {
        if stamp.epoch != self.epoch {
            return Recovery::Fail(self.other_epoch(stamp));
        }
        if self.token().is_none() {
            return Recovery::Fail(self.no_login());
        }
        let weight = match stamp == self.stamp() || seeded!(LateRejectionCounts) {
            true if is_final => Weight::Final,
            true => self.weigh(address, now),
            false => Weight::Late,
        };
        let marked = self.mark(weight) || seeded!(LateRejectionReissues);
        if let Some(attempt) = self.running() {
            attempt.blocking |= marked;
            attempt.rejected |= weight != Weight::Late;
            return match attempt.blocking || weight != Weight::Late {
                true => Recovery::Join,
                false => Recovery::Replay,
            };
        }
        let start = match weight {
            Weight::Late if !marked => return Recovery::Replay,
            Weight::InVain(kind) => Err(RefreshError::new(kind)),
            Weight::Alone => self.try_start(false, now),
            Weight::Late | Weight::Full | Weight::Final => self.try_start(true, now),
        };
        if let (Ok(_), Some(attempt)) = (&start, &mut self.attempt) {
            attempt.rejected = true;
        }
        start.map_or_else(Recovery::Fail, Recovery::Start)
    }

    /// The same, told when its caller had got the answer already: nobody waits for a new token now, so
    /// that the next request is the first to need one (P10).
    pub(crate) fn reject_later(
        &mut self,
        stamp: Stamp,
        is_final: bool,
        address: Address,
        now: &Now,
    ) {
        if stamp == self.stamp() && self.token().is_some() {
            let weight = match is_final {
                true => Weight::Final,
                false => self.weigh(address, now),
            };
            self.mark(weight);
            if let Login::Live(token) = &mut self.login
                && weight == Weight::Alone
                && token.rejected == Rejected::No
            {
                token.rejected = Rejected::Alone;
            }
        }
    }

    /// The replay with this stamp was rejected, there. Its caller has got the answer, and for the next
    /// request it means nothing yet: only the address remembers it (P2).
    pub(crate) fn reject_replay(&mut self, stamp: Stamp, address: Address, now: &Now) {
        if stamp == self.stamp() && self.token().is_some() {
            self.addresses
                .reject(address, stamp.generation, now.instant);
        }
    }

    /// The request with this stamp was accepted, there.
    pub(crate) fn accept(&mut self, stamp: Stamp, address: Address) {
        self.accepted = self.accepted.max(stamp.generation.min(self.generation));
        if stamp.epoch != self.epoch {
            return;
        }
        self.addresses.accept(address, stamp.generation);
        let is_current = stamp == self.stamp();
        if let Login::Live(token) = &mut self.login
            && is_current
            && token.rejected != Rejected::Finally
        {
            // It is good after all, and it was another address that had something against it. Where a
            // refresh for that has failed, nobody waits for the next.
            token.rejected = Rejected::No;
        }
    }

    /// By the clock on the wall it is no good, whatever its lifetime says: it was fetched by somebody else.
    pub(crate) fn mark_expired(&mut self) {
        if let Login::Live(token) = &mut self.login
            && !token.is_rejected()
        {
            token.rejected = Rejected::Yes;
        }
    }

    /// The newest generation that was accepted somewhere.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The marks of all addresses where it is news that the token was accepted.
    pub(crate) fn marks(&self) -> u64 {
        match self.token() {
            Some(token) if matches!(token.rejected, Rejected::Alone | Rejected::Yes) => u64::MAX,
            _ => self.addresses.marks(),
        }
    }

    /// What it means for the token that this address has rejected it.
    fn weigh(&mut self, address: Address, now: &Now) -> Weight {
        let standing = self.addresses.reject(address, self.generation, now.instant);
        let is_over = self.has_lived_out(now);
        match self.token() {
            Some(token) if token.refused.is_some() => return Weight::Full,
            Some(token) if token.renewable && token.rejected != Rejected::Finally => {}
            _ => return Weight::Full,
        }
        match standing {
            _ if is_over => Weight::Full,
            _ if self.is_too_fresh(now.instant) => Weight::InVain(Kind::TooFresh),
            Standing::Paused => Weight::InVain(Kind::NotCured),
            // The others may need the rest of the window for a token that has died.
            Standing::NotCured if !self.is_window_half_free(now.instant) => {
                Weight::InVain(Kind::NotCured)
            }
            _ if self.addresses.any_not_cured() => Weight::Alone,
            _ => Weight::Full,
        }
    }

    /// Was it issued a moment ago, and nobody accepted with it yet?
    fn is_too_fresh(&self, now: Instant) -> bool {
        let settles = self.token().and_then(|token| token.settles);
        self.accepted < self.generation && settles.is_some_and(|until| now < until)
    }

    /// Remembers that the token is no good, where a rejection says so. `true` if it is remembered.
    fn mark(&mut self, weight: Weight) -> bool {
        let Login::Live(token) = &mut self.login else {
            return false;
        };
        match weight {
            Weight::Final => token.rejected = Rejected::Finally,
            Weight::Full if !token.is_rejected() => token.rejected = Rejected::Yes,
            _ => {}
        }
        token.is_rejected()
    }

    /// The user asks for a refresh, whatever the token's state.
    pub(crate) fn refresh(&mut self, now: &Now) -> Recovery {
        if self.running().is_some() {
            return Recovery::Join;
        }
        match &self.login {
            Login::Unloaded => Recovery::Start(self.start(Cause::Load, true, now.instant)),
            Login::Over(error) => Recovery::Fail(error.clone()),
            Login::Absent if !self.rules.self_sufficient => {
                Recovery::Fail(RefreshError::new(Kind::NotLoggedIn))
            }
            Login::Live(Token {
                refused: Some(error),
                ..
            }) => Recovery::Fail(error.clone()),
            Login::Absent | Login::Live(_) => self
                .try_start(!self.is_usable(now), now)
                .map_or_else(Recovery::Fail, Recovery::Start),
        }
    }

    /// A login: the token is there at once, and is held back until it is saved (P13).
    pub(crate) fn log_in(&mut self, token: Token, now: &Now) -> Start {
        self.new_epoch(Login::Live(token));
        self.generation += 1;
        self.start(Cause::Login, true, now.instant)
    }

    /// A logout, the user's last word, also where an end came before it. `false` when it is known here that
    /// there is nothing to log out of; it is another one than that before, all the same.
    pub(crate) fn log_out(&mut self) -> bool {
        let ends = !matches!(self.login, Login::Over(_));
        let error = RefreshError::ended(EndReason::LoggedOut);
        self.new_epoch(Login::Over(error));
        ends
    }

    /// Has the store not been read yet?
    pub(crate) fn is_unloaded(&self) -> bool {
        matches!(self.login, Login::Unloaded)
    }

    /// The errors that are remembered.
    pub(crate) fn errors(&self) -> [Option<RefreshError>; 3] {
        let cooling = self.cooling.as_ref().map(|cooling| cooling.error.clone());
        let over = match &self.login {
            Login::Over(error) => Some(error.clone()),
            _ => None,
        };
        let refused = self.token().and_then(|token| token.refused.clone());
        [cooling, over, refused]
    }

    /// May tokens be adopted: is it still the same login?
    pub(crate) fn may_adopt(&self, epoch: u64) -> Result<(), RefreshError> {
        match &self.login {
            Login::Over(error) => Err(error.clone()),
            _ if epoch != self.epoch => Err(RefreshError::ended(EndReason::Replaced)),
            _ => Ok(()),
        }
    }

    /// Tokens that somebody else has fetched for the same login. What an abandoned attempt may still
    /// bring is older.
    pub(crate) fn adopt(&mut self, token: Token) {
        self.attempt.take_if(|attempt| attempt.abandoned);
        self.install(token);
    }

    /// Another process has logged in with this token, or has made an end, or begins anew after one and has
    /// none yet. `true` when the session has ended by it (P7).
    pub(crate) fn take_over(&mut self, token: Option<Token>, error: RefreshError) -> bool {
        let was_live = matches!(self.login, Login::Live(_));
        let (login, ends) = match (token, error.end_reason()) {
            (Some(token), _) => (Login::Live(token), false),
            (None, Some(EndReason::Replaced)) => (Login::Absent, false),
            (None, reason) => (Login::Over(error), reason != Some(EndReason::LoggedOut)),
        };
        let is_live = matches!(login, Login::Live(_));
        self.new_epoch(login);
        self.generation += u64::from(is_live);
        was_live && ends
    }

    /// May this attempt ask the issuer now? Adoption does not count, so it is asked this late.
    pub(crate) fn begin_reissue(&mut self, number: u64, now: &Now) -> Result<(), RefreshError> {
        if self
            .running()
            .is_none_or(|attempt| attempt.number != number)
        {
            return Err(RefreshError::new(Kind::WaitTimeout));
        }
        if !self.has_lived_out(now) {
            self.check_window(now.instant)?;
            self.reissues.push_back(now.instant);
        }
        if let Some(attempt) = self.running() {
            attempt.asked.get_or_insert(now.instant);
        }
        Ok(())
    }

    /// Has this attempt asked the issuer?
    pub(crate) fn has_asked(&self, number: u64) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| attempt.number == number && attempt.asked.is_some())
    }

    /// When this attempt first asked the issuer, if its answer is lost now and was not lost before:
    /// an attempt puts its refresh token in doubt once.
    pub(crate) fn lose_reply(&mut self, number: u64) -> Option<Instant> {
        let attempt = self.attempt.as_mut()?;
        let asked = attempt.asked.filter(|_| attempt.number == number)?;
        (!std::mem::replace(&mut attempt.doubted, true)).then_some(asked)
    }

    pub(crate) fn set_doubt(&mut self, in_doubt: Option<Doubt>) {
        if let Login::Live(token) = &mut self.login {
            token.in_doubt = in_doubt;
        }
    }

    pub(crate) fn doubt(&self) -> Option<Doubt> {
        self.token()?.in_doubt
    }

    /// Until when a refresh token in doubt is left alone, if it is.
    fn closed_until(&self, now: Instant) -> Option<Instant> {
        let doubt = self.doubt().filter(|doubt| doubt.is_closed(now));
        doubt.map(|doubt| doubt.closed_until)
    }

    /// Would a refusal end the session now? Not while the access token is good (P6).
    pub(crate) fn ends_when_refused(&self, now: &Now) -> bool {
        let attempt = self.attempt.as_ref();
        !self.is_good_still(attempt.is_some_and(|attempt| attempt.rejected), now)
    }

    /// Is the token any good where it cannot be replaced? A rejection may say otherwise, though it is of an address
    /// that would reject any: unless somebody was accepted with this very token.
    fn is_good_still(&self, rejected: bool, now: &Now) -> bool {
        self.is_usable(now) && !(rejected && self.accepted < self.generation)
    }

    /// Does the result of this attempt still count? Not after a login, a logout, an end, or the
    /// start of its successor (P8).
    pub(crate) fn counts(&self, number: u64) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| attempt.number == number)
    }

    /// The attempt has come to its end. `None` when it no longer counts.
    pub(crate) fn settle(&mut self, number: u64, how: Settled, now: &Now) -> Option<Verdict> {
        let Some(attempt) = self.attempt.take_if(|attempt| attempt.number == number) else {
            return self.settle_straggler(how);
        };
        let mut ended = false;
        let outcome = match how {
            Settled::Installed(token) => {
                self.install(token);
                Ok(())
            }
            Settled::Loaded(token) => {
                self.load(token);
                Ok(())
            }
            Settled::Saved(saved) => {
                self.mark_saved(saved);
                Ok(())
            }
            Settled::TakenOver(token, error) => {
                ended = self.take_over(token, error.clone());
                Err(error)
            }
            Settled::Unchanged => Ok(()),
            Settled::Failed(failure) => Err(self.fail(&attempt, failure, now.instant)),
            Settled::Refused(error) if self.is_good_still(attempt.rejected, now) => {
                Err(self.keep_refused(&error))
            }
            Settled::Refused(error) | Settled::Ended(error) => {
                ended = true;
                self.new_epoch(Login::Over(error.clone()));
                Err(error)
            }
        };
        Some(Verdict { outcome, ended })
    }

    /// It does not count, unless by a fault that is seeded.
    fn settle_straggler(&mut self, how: Settled) -> Option<Verdict> {
        match how {
            Settled::Installed(token) if seeded!(EpochUnchecked) => {
                self.install(token);
                Some(Verdict {
                    outcome: Ok(()),
                    ended: false,
                })
            }
            Settled::Refused(error) | Settled::Ended(error) if seeded!(StragglerEnds) => {
                self.new_epoch(Login::Over(error.clone()));
                Some(Verdict {
                    outcome: Err(error),
                    ended: true,
                })
            }
            _ => None,
        }
    }

    /// Gives up on an attempt that is past its deadline, and says what its waiters are told: to be
    /// called before anything is decided. Its late result counts as long as it has no successor.
    pub(crate) fn abandon_overdue(&mut self, now: Instant) -> Option<(u64, Outcome)> {
        let attempt = self.running()?;
        if now < attempt.deadline {
            return None;
        }
        attempt.abandoned = true;
        let (number, cause, asked) = (attempt.number, attempt.cause, attempt.asked);
        let outcome = match cause {
            Cause::Load => {
                self.attempt = None;
                Err(RefreshError::new(Kind::WaitTimeout))
            }
            Cause::Login => {
                // The tokens are used from memory (P13).
                self.attempt = None;
                Ok(())
            }
            Cause::End(_) | Cause::Reissue => {
                let error = RefreshError::new(match asked {
                    Some(_) => Kind::OutcomeUnknown,
                    None => Kind::NotStarted,
                });
                self.cooling = Some(Cooling {
                    until: now + self.rules.abandoned,
                    error: error.clone(),
                });
                Err(error)
            }
        };
        Some((number, outcome))
    }

    /// The store holds the current token, or no longer does.
    pub(crate) fn mark_saved(&mut self, saved: bool) {
        if let Login::Live(token) = &mut self.login {
            token.saved = saved;
        }
    }

    pub(crate) fn view(&self, now: &Now) -> View {
        View {
            stamp: self.stamp(),
            held: self.is_held(),
            recheck: self.recheck(now),
        }
    }

    /// What subscribers are told; `None` while the tokens of a login are being saved, for they are
    /// told of it afterwards.
    pub(crate) fn status(&self) -> Option<SessionStatus> {
        let saving = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.cause == Cause::Login);
        (!saving).then(|| self.settled_status())
    }

    fn settled_status(&self) -> SessionStatus {
        match &self.login {
            Login::Unloaded => SessionStatus::Unloaded,
            Login::Absent => SessionStatus::LoggedOut,
            Login::Over(error) => match error.end_reason() {
                None | Some(EndReason::LoggedOut) => SessionStatus::LoggedOut,
                Some(reason) => SessionStatus::Ended { reason },
            },
            Login::Live(token) => SessionStatus::LoggedIn {
                generation: self.generation,
                saved: token.saved,
                in_doubt: token.in_doubt.is_some(),
            },
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            epoch: self.epoch,
            generation: self.generation,
        }
    }

    /// Why there is no token, where there is none.
    pub(crate) fn absence(&self) -> Option<RefreshError> {
        (!matches!(self.login, Login::Live(_))).then(|| self.no_login())
    }

    /// A token there is may be used: it was not rejected and has not expired.
    fn is_usable(&self, now: &Now) -> bool {
        self.token()
            .is_some_and(|token| !token.is_rejected() && !token.lifetime.expires.passed(now))
    }

    fn token(&self) -> Option<&Token> {
        match &self.login {
            Login::Live(token) => Some(token),
            _ => None,
        }
    }

    fn running(&mut self) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|attempt| !attempt.abandoned)
    }

    /// Starts what the token's state asks for, unless something forbids it.
    fn try_start(&mut self, blocking: bool, now: &Now) -> Result<Start, RefreshError> {
        let cause = self.cause()?;
        let is_end = matches!(cause, Cause::End(_));
        if let Some(cooling) = &self.cooling
            && (now.instant < cooling.until || seeded!(FailureKept))
            // The end needs no issuer, but it needs the store.
            && (!is_end || cooling.error.is_store())
        {
            return Err(cooling.error.clone());
        }
        if cause == Cause::Reissue {
            self.check_doubt(now.instant)?;
            if !self.has_lived_out(now) {
                self.check_window(now.instant)?;
            }
        }
        Ok(self.start(cause, blocking, now.instant))
    }

    /// A refresh token in doubt is left alone, whatever else allows a reissue.
    fn check_doubt(&self, now: Instant) -> Result<(), RefreshError> {
        if self.closed_until(now).is_none() {
            return Ok(());
        }
        let last = self.cooling.as_ref().map(|cooling| cooling.error.clone());
        Err(last.unwrap_or_else(|| RefreshError::new(Kind::OutcomeUnknown)))
    }

    fn cause(&self) -> Result<Cause, RefreshError> {
        match self.token() {
            Some(token) if token.rejected == Rejected::Finally => {
                Ok(Cause::End(EndReason::Rejected))
            }
            Some(token) if token.refused.is_some() => Ok(Cause::End(EndReason::Refused)),
            Some(token) if !token.renewable => Err(RefreshError::new(Kind::NoRefreshToken)),
            _ => Ok(Cause::Reissue),
        }
    }

    fn start(&mut self, cause: Cause, blocking: bool, now: Instant) -> Start {
        self.last_number += 1;
        let (number, deadline) = (self.last_number, now + self.rules.attempt);
        self.attempt = Some(Attempt {
            number,
            cause,
            deadline,
            blocking,
            abandoned: false,
            asked: None,
            doubted: false,
            rejected: false,
        });
        Start {
            number,
            cause,
            deadline,
            stamp: self.stamp(),
        }
    }

    fn has_lived_out(&self, now: &Now) -> bool {
        self.token()
            .and_then(|token| token.lifetime.lived_out)
            .is_some_and(|end| end.passed(now))
    }

    fn check_window(&mut self, now: Instant) -> Result<(), RefreshError> {
        let (most, _) = self.rules.window;
        match self.recent_reissues(now) < most || seeded!(NoReissueLimit) {
            true => Ok(()),
            false => Err(RefreshError::new(Kind::ReissueLimit)),
        }
    }

    fn is_window_half_free(&mut self, now: Instant) -> bool {
        let (most, _) = self.rules.window;
        self.recent_reissues(now) < most.div_ceil(2)
    }

    fn recent_reissues(&mut self, now: Instant) -> u32 {
        let (_, window) = self.rules.window;
        self.reissues.retain(|at| now.duration_since(*at) < window);
        u32::try_from(self.reissues.len()).unwrap_or(u32::MAX)
    }

    fn new_epoch(&mut self, login: Login) {
        if !matches!(self.login, Login::Over(_)) {
            self.latest_login = self.epoch;
            self.latest_end = match &login {
                Login::Over(error) => Some(error.clone()),
                _ => None,
            };
        }
        self.epoch += 1;
        self.login = login;
        self.attempt = None;
        self.cooling = None;
        self.failures = 0;
        self.reissues.clear();
        self.addresses.forget_all();
    }

    /// This is the token from now on. An attempt that is under way goes on.
    pub(crate) fn install(&mut self, token: Token) {
        self.generation += 1;
        self.login = Login::Live(token);
        self.cooling = None;
        self.failures = 0;
    }

    fn load(&mut self, token: Option<Token>) {
        match token {
            Some(token) => self.install(token),
            None => self.login = Login::Absent,
        }
    }

    fn keep_refused(&mut self, error: &RefreshError) -> RefreshError {
        let error = error.renamed(Kind::Refused);
        if let Login::Live(token) = &mut self.login {
            token.refused = Some(error.clone());
        }
        error
    }

    fn fail(&mut self, attempt: &Attempt, failure: Failure, now: Instant) -> RefreshError {
        let is_load = attempt.cause == Cause::Load;
        let asked = attempt.asked.is_some();
        if is_load && asked {
            // The store was read, and was empty: the issuer was asked for the first token.
            self.login = Login::Absent;
        }
        // B7: after a load that failed, the next request tries again. Nor is there a reason to wait
        // where nobody was asked for anything.
        let unasked = matches!(
            failure.error.kind(),
            Kind::NoRuntime | Kind::NotStarted | Kind::ReissueLimit
        );
        if (asked || !(is_load || unasked)) && !seeded!(NoCoolDown) {
            self.failures = self.failures.saturating_add(1);
            self.cooling = Some(Cooling {
                until: now + self.cool_down(&failure),
                error: failure.error.clone(),
            });
        }
        failure.error
    }

    fn cool_down(&self, failure: &Failure) -> Duration {
        let (first, most) = self.rules.cool_down;
        let doublings = 1_u32
            .checked_shl(self.failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let backoff = first.saturating_mul(doublings).min(most);
        let backoff = backoff.mul_f64(0.5 + failure.jitter.clamp(0.0, 1.0) / 2.0);
        let asked = failure
            .retry_after
            .unwrap_or_default()
            .min(MOST_RETRY_AFTER);
        let least = match failure.error.kind() {
            Kind::Misconfigured => MISCONFIGURED,
            _ => Duration::ZERO,
        };
        backoff.max(asked).max(least)
    }

    /// Why there is no token.
    pub(crate) fn no_login(&self) -> RefreshError {
        match &self.login {
            Login::Over(error) => error.clone(),
            _ => RefreshError::new(Kind::NotLoggedIn),
        }
    }

    /// What became of the login that a stamp of another epoch belonged to. Whatever went out without a token
    /// after it is told how things stand now.
    fn other_epoch(&self, stamp: Stamp) -> RefreshError {
        match &self.login {
            Login::Over(error) if stamp.epoch >= self.latest_login => {
                let its_end = self.latest_end.as_ref();
                let its_end = its_end.filter(|_| stamp.epoch == self.latest_login);
                its_end.unwrap_or(error).clone()
            }
            _ => RefreshError::ended(EndReason::Replaced),
        }
    }

    fn is_held(&self) -> bool {
        let blocked = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.blocking && !attempt.abandoned);
        blocked
            || match &self.login {
                Login::Unloaded => true,
                Login::Absent => self.rules.self_sufficient,
                Login::Over(_) => false,
                Login::Live(token) => token.rejected != Rejected::No,
            }
    }

    fn recheck(&self, now: &Now) -> Due {
        let Some(token) = self.token() else {
            return Due::NEVER;
        };
        let running = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| !attempt.abandoned);
        if running || token.refused.is_some() {
            return token.lifetime.expires;
        }
        let cooling = self.cooling.as_ref().map(|cooling| cooling.until);
        let cooling = cooling.filter(|until| now.instant < *until);
        match cooling.max(self.closed_until(now.instant)) {
            Some(until) if token.lifetime.ahead.passed(now) => Due::at(until),
            _ => token.lifetime.ahead,
        }
    }
}
