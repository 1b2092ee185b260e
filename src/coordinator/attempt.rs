//! One attempt: the transaction with the store and the issuer, in a task of its own.
//!
//! Gate, then the store once more, then adopt or reissue, then *save, then publish*, then settle.
//! Up to the answer of the issuer a login or logout stops it at once; from there on it runs to its
//! end, so that no token that was handed out is lost.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_timer::Delay;
use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::future::select;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::Span;
use tracing::field;

use super::Coordinator;
use super::Gate;
use super::Offer;
use super::Outcome;
use super::Running;
use super::lease;
use super::lease::Denied;
use super::lost_reply::Tries;
use super::shared;
use super::shared::Change;
use super::shared::Storage;
use super::state::Cause;
use super::state::Failure;
use super::state::Settled;
use super::state::Start;
use super::stats::count;
use super::turn::Granted;
use super::watchdog::watch;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::reissue::ReissueError;
use crate::reissue::ReissueErrorKind;
use crate::reissue::ReissueRequest;
use crate::say::say;
use crate::seeded::seeded;
use crate::store::Record;
use crate::time::Now;
use crate::time::timeout;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// A timer that comes so much too late shows that nothing was driven meanwhile.
const LATE: Duration = Duration::from_millis(20);

/// How long an answer is waited for when its time is up, so that what has arrived is read.
const ONE_MORE_LOOK: Duration = Duration::from_millis(250);

tokio::task_local! {
    /// The coordinator whose reissue this task is in.
    static REISSUING: usize;
}

/// Is the caller a part of the reissue of this coordinator?
pub(super) fn is_reissuing(coordinator: &Coordinator) -> bool {
    REISSUING
        .try_with(|id| *id == id_of(coordinator))
        .unwrap_or(false)
}

fn id_of(coordinator: &Coordinator) -> usize {
    std::ptr::from_ref(coordinator).addr()
}

/// How an attempt comes to its end.
#[derive(Debug)]
pub(super) enum Completion {
    Ended(RefreshError),
    Failed(RefreshError, Option<Duration>),
    Installed(Box<Fetched>, bool),
    Loaded(Option<Box<TokenSet>>),
    Refused(RefreshError),
    Saved(bool),
    /// This record is of another login than the one that the attempt was for.
    TakenOver(Box<Record>),
    Unchanged,
}

/// Tokens that nobody uses yet.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) tokens: TokenSet,
    pub(super) from: From,
    /// The shared record that has them.
    pub(super) record: Option<Record>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Issuer,
    /// From an offer: the store may not have them.
    Offer,
    Store,
}

/// Settles its attempt whatever becomes of the task: when it panics, is dropped, or is never run.
pub(super) struct Guard {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) start: Start,
    outcome: watch::Receiver<Option<Outcome>>,
    on_drop: Option<Completion>,
    began: Instant,
    span: Span,
    watchdog: Option<Delay>,
    /// Its turn among those who share the store.
    pub(super) granted: Option<Granted>,
}

/// Runs one attempt to its end.
pub(super) async fn run(guard: Guard, gate: Gate) {
    let span = guard.span.clone();
    transact(guard, gate).instrument(span).await;
}

async fn transact(mut guard: Guard, gate: Gate) {
    let mut turn = Turn::of(&guard);
    let superseded = superseded(guard.outcome.clone());
    // The gate stays closed until the outcome is saved and settled.
    let prepared = match select(pin!(prepare(&mut guard, gate)), pin!(superseded)).await {
        Either::Left((prepared, _)) => Some(prepared),
        Either::Right(_) => None,
    };
    let _permit = match prepared {
        Some(Ok((permit, Ok(fetched)))) => {
            guard.commit(fetched).await;
            Some(permit)
        }
        Some(Ok((permit, Err(completion)))) => {
            guard.conclude(completion).await;
            Some(permit)
        }
        // It has not got through the gate: there is nothing that it could write, or give back.
        Some(Err(error)) => {
            guard.fail(error);
            None
        }
        None => {
            guard.disarm();
            None
        }
    };
    turn.is_over = true;
    turn.coordinator.watch_peers();
    if seeded!(ClaimOfAnother) {
        drop(_permit);
        return turn.give_back_late().await;
    }
    // Before the gate opens for the next one.
    drop(turn);
}

/// Sets the store's lock free when the attempt is over, or dropped.
struct Turn {
    coordinator: Arc<Coordinator>,
    number: u64,
    is_over: bool,
}

impl Turn {
    fn of(guard: &Guard) -> Self {
        Self {
            coordinator: guard.coordinator.clone(),
            number: guard.start.number,
            is_over: false,
        }
    }
}

impl Turn {
    /// For a seeded fault: an attempt that is over gives back what it finds, when others are at it.
    async fn give_back_late(self) {
        let coordinator = &self.coordinator;
        let pause = coordinator.settings.store_timeout;
        let _: Option<()> = timeout(pause, std::future::pending()).await;
        let claim = coordinator.with(|inner, _| {
            let found = inner.peers.claims.leave(self.number);
            inner.peers.claims.left().filter(|_| found)
        });
        if let (Some(claim), Storage::Shared(store)) = (claim, &coordinator.store) {
            let release = |found: &Record, _| lease::release(found, &claim, false);
            let _: Result<Change, _> = coordinator.change(store, release).await;
        }
    }
}

impl Drop for Turn {
    /// Where somebody is left to write, the others wait until all is written; else only for tokens
    /// that they cannot get in another way.
    fn drop(&mut self) {
        let is_over = self.is_over;
        self.coordinator.unlock(self.number, |inner| match is_over {
            true => inner.dirty,
            false => inner.has_unsaved_pair(),
        });
    }
}

/// Ends when a login or a logout has settled this attempt. Abandoning it is no reason to stop: its
/// result may still count.
async fn superseded(mut outcome: watch::Receiver<Option<Outcome>>) {
    if seeded!(StragglerEnds) {
        return std::future::pending().await;
    }
    let is_over =
        |outcome: &Option<Outcome>| matches!(outcome, Some(Err(error)) if error.is_session_ended());
    if outcome.wait_for(is_over).await.is_err() {
        std::future::pending().await
    }
}

pub(super) type Prepared = Result<Fetched, Completion>;
type Asked = Result<TokenSet, ReissueError>;

/// Waits for the gate, and does what is done behind it.
async fn prepare(
    guard: &mut Guard,
    gate: Gate,
) -> Result<(OwnedMutexGuard<()>, Prepared), RefreshError> {
    let limit = guard.coordinator.settings.store_timeout * 2;
    let permit = guard.coordinator.enter(gate, limit).await?;
    Ok((permit, guard.fetch().await))
}

impl Guard {
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        start: Start,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        let on_drop = match start.cause {
            Cause::Login => Completion::Saved(false),
            _ => Completion::Failed(RefreshError::new(Kind::NotStarted), None),
        };
        Self {
            coordinator,
            start,
            outcome,
            on_drop: Some(on_drop),
            began: Instant::now(),
            span: Span::none(),
            watchdog: None,
            granted: None,
        }
    }

    /// Starts the timer that needs no runtime. Not under the lock.
    pub(super) fn watch(&mut self) {
        self.watchdog = Some(watch(&self.coordinator, self.start.deadline));
    }

    /// Opens the span, too. Not under the lock: a subscriber is somebody else's code.
    pub(super) fn start(&mut self) {
        self.watch();
        let span = || {
            tracing::info_span!(
                "token_refresh",
                attempt = self.start.number,
                cause = ?self.start.cause,
                outcome = field::Empty,
                waiters = field::Empty,
                elapsed_ms = field::Empty,
            )
        };
        self.span = say(span).unwrap_or_else(Span::none);
    }

    /// The login that it belongs to.
    pub(super) fn epoch(&self) -> u64 {
        self.start.stamp.epoch
    }

    /// Settles at once with a failure.
    pub(super) fn fail(mut self, error: RefreshError) {
        self.finish(Completion::Failed(error, None));
    }

    /// The tokens of a login are published, saved or not.
    pub(super) fn finish_login(mut self, saved: bool) {
        self.finish(Completion::Saved(saved));
    }

    /// Somebody else has settled it.
    fn disarm(mut self) {
        self.on_drop = None;
    }

    /// Everything up to the new tokens.
    async fn fetch(&mut self) -> Prepared {
        match self.start.cause {
            Cause::End(reason) => self.reread(false).await.and_then(|newer| {
                newer.ok_or_else(|| Completion::Ended(RefreshError::ended(reason)))
            }),
            Cause::Load => self.load().await,
            Cause::Login => Err(Completion::Saved(false)),
            Cause::Reissue => self.renew().await,
        }
    }

    async fn load(&mut self) -> Prepared {
        let coordinator = self.coordinator.clone();
        let tokens = match &coordinator.store {
            Storage::Own(store) => coordinator.load(&**store).await.map_err(failed)?,
            Storage::Shared(store) => self.load_shared(store).await?,
        };
        match tokens {
            None if coordinator.settings.self_sufficient => {
                if let Storage::Shared(store) = &coordinator.store
                    && let Some(newer) = self.take_turn(store).await?
                {
                    return Ok(newer);
                }
                self.reissue(None).await
            }
            tokens => Err(Completion::Loaded(tokens.map(Box::new))),
        }
    }

    /// Adopts what somebody else has fetched, or reissues.
    async fn renew(&mut self) -> Prepared {
        if self.coordinator.lock().state.stamp() != self.start.stamp {
            return Err(Completion::Unchanged);
        }
        let coordinator = self.coordinator.clone();
        if let Storage::Shared(store) = &coordinator.store {
            return match self.renew_shared(store).await? {
                Some(newer) => Ok(newer),
                None => self.reissue(coordinator.tokens()).await,
            };
        }
        match self.reread(true).await? {
            Some(newer) if newer.is_adopted() => return Ok(newer),
            Some(newer) => self.go_on_with(newer),
            None => {}
        }
        self.reissue(coordinator.tokens()).await
    }

    /// Newer tokens than ours, if there are any to be had without the issuer.
    ///
    /// `reissues` says that our own would be presented next, unless somebody else has left word that
    /// they are in doubt.
    async fn reread(&self, reissues: bool) -> Result<Option<Fetched>, Completion> {
        let (offer, dirty) = self
            .coordinator
            .with(|inner, _| (inner.take_offer(), inner.dirty));
        if let Some(tokens) = offer {
            return Ok(Some(Fetched {
                tokens,
                from: From::Offer,
                record: None,
            }));
        }
        let store = match &self.coordinator.store {
            Storage::Own(store) => store,
            Storage::Shared(store) => return self.reread_shared(store).await,
        };
        if dirty {
            // What the store holds may be older than ours.
            return Ok(None);
        }
        let stored = self.coordinator.load(&**store).await.map_err(failed)?;
        let settings = &self.coordinator.settings;
        let news = self.coordinator.with(|inner, now| {
            let stored = stored?;
            if reissues && inner.take_over_doubt(&stored, settings, now) {
                return Some(Err(RefreshError::new(Kind::OutcomeUnknown)));
            }
            inner.is_news(&stored).then_some(Ok(stored))
        });
        let news = news.transpose().map_err(failed)?;
        Ok(news.map(|tokens| Fetched {
            tokens,
            from: From::Store,
            record: None,
        }))
    }

    async fn reissue(&mut self, current: Option<TokenSet>) -> Prepared {
        let settings = &self.coordinator.settings;
        let presented = self.presented(current.as_ref());
        let open_until = presented.and_then(|token| self.coordinator.lock().open_until(token));
        let mut tries = Tries::new(
            &settings.lost_reply,
            settings.reissue_timeout,
            Instant::now(),
            open_until,
        );
        let mut answer = self.try_once(&mut tries, &current).await?;
        let mut lost = is_lost(&answer);
        while is_lost(&answer) && self.presented(current.as_ref()).is_some() {
            let Some(pause) = tries.pause(Instant::now()) else {
                break;
            };
            let _: Option<()> = timeout(pause, std::future::pending()).await;
            match self.try_once(&mut tries, &current).await {
                Ok(next) => answer = next,
                Err(_) => break,
            }
            lost |= is_lost(&answer);
        }
        if seeded!(DoubleReissue)
            && let (Ok(first), Some(current)) = (&answer, &current)
        {
            let again = Some(first.clone().inherit(current));
            answer = self.try_once(&mut tries, &again).await?;
        }
        match answer {
            Ok(tokens) => self.accept(tokens, current).await,
            Err(error) => self.explain(error, lost).await,
        }
    }

    /// One try, unless there is no time left or a limit is reached.
    async fn try_once(
        &mut self,
        tries: &mut Tries,
        current: &Option<TokenSet>,
    ) -> Result<Asked, Completion> {
        let limit = tries.next(Instant::now());
        let limit = limit.ok_or_else(|| failed(RefreshError::new(Kind::OutcomeUnknown)))?;
        self.keep_turn(limit).await?;
        let number = self.start.number;
        let begun = self.coordinator.with(|inner, now| {
            inner.state.begin_reissue(number, now)?;
            let sent = self.presented(current.as_ref()).cloned();
            inner.sent = sent.map(|sent| (number, sent));
            Ok(())
        });
        begun.map_err(failed)?;
        count(&self.coordinator.counters.reissues);
        // Dropped from here on, nobody can say what became of the refresh token.
        self.on_drop = Some(failed(RefreshError::new(Kind::Interrupted)));
        Ok(self.ask(ReissueRequest::new(current.clone()), limit).await)
    }

    /// The refresh token that a reissue with these tokens uses, if it uses one.
    fn presented<'a>(&self, current: Option<&'a TokenSet>) -> Option<&'a RefreshToken> {
        let current = current.filter(|_| !self.coordinator.settings.self_sufficient);
        current.and_then(TokenSet::refresh_token)
    }

    /// Calls the reissuer, with a deadline; a panic is an unknown outcome.
    async fn ask(&self, request: ReissueRequest, limit: Duration) -> Asked {
        let coordinator = &*self.coordinator;
        let call = async { coordinator.reissue.reissue(request).await };
        let call = REISSUING.scope(id_of(coordinator), AssertUnwindSafe(call).catch_unwind());
        let answer = async {
            let mut call = pin!(call);
            let asked = Instant::now();
            let answer = timeout(limit, &mut call).await;
            if answer.is_some() {
                return answer;
            }
            // If the process stood still, or the machine, the answer may be here, and nobody has looked; or
            // the bytes are leaving only now.
            let stood_still = asked.elapsed() > limit + LATE;
            let more = if stood_still { limit } else { ONE_MORE_LOOK };
            timeout(limit.min(more), call).await
        };
        let answer = match select(pin!(answer), pin!(self.stay_alive())).await {
            Either::Left((answer, _)) => answer,
            Either::Right((never, _)) => match never {},
        };
        match answer {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(ReissueError::unknown("the reissuer panicked")),
            None if seeded!(GateFreedOnTimeout) => {
                Err(ReissueError::transient("no answer in time"))
            }
            None => Err(ReissueError::unknown(
                "no answer in the time allowed for a reissue",
            )),
        }
    }

    async fn accept(&self, tokens: TokenSet, current: Option<TokenSet>) -> Prepared {
        let tokens = self.coordinator.with(|_, now| tokens.received(now));
        let Some(current) = current else {
            return Ok(Fetched {
                tokens,
                from: From::Issuer,
                record: None,
            });
        };
        if tokens.access_token().same(current.access_token()) {
            // An answer, all the same: the refresh token it leaves us with is not spent.
            self.keep_certain(tokens.refresh_token()).await;
            return Err(Completion::Failed(RefreshError::new(Kind::SameToken), None));
        }
        let is_spent = |it| seeded!(RotatedTokenLost) || self.is_spent(it);
        let tokens = match tokens.refresh_token().is_some_and(is_spent) {
            true => tokens.without_refresh_token(),
            false => tokens,
        };
        let tokens = tokens.inherit(&current);
        Ok(Fetched {
            tokens,
            from: From::Issuer,
            record: None,
        })
    }

    /// What the issuer's refusal, or its silence, means for the session.
    async fn explain(&self, error: ReissueError, lost: bool) -> Prepared {
        if seeded!(FailureEnds) {
            return Err(Completion::Refused(RefreshError::ended(EndReason::Refused)));
        }
        let kind = match error.kind {
            ReissueErrorKind::Misconfigured => Kind::Misconfigured,
            ReissueErrorKind::Transient => Kind::Transient,
            ReissueErrorKind::Unknown => Kind::OutcomeUnknown,
            ReissueErrorKind::Refused => {
                let error = RefreshError::with_source(Kind::Ended(EndReason::Refused), error);
                // P6: only after the store has been read again.
                return match self.reread(false).await? {
                    Some(newer) => Ok(newer),
                    None => Err(Completion::Refused(error)),
                };
            }
        };
        match error.rotated.as_ref().filter(|it| !self.is_spent(it)) {
            Some(rotated) => self.keep_certain(Some(rotated)).await,
            None if lost => self.keep_doubt().await,
            None => {}
        }
        let retry_after = error.retry_after;
        Err(Completion::Failed(
            RefreshError::with_source(kind, error),
            retry_after,
        ))
    }

    /// An issuer may answer a second try with an older pair than one that is known already.
    fn is_spent(&self, token: &RefreshToken) -> bool {
        let is_spent = self.coordinator.lock().is_spent(token);
        if is_spent {
            say(|| tracing::warn!("the issuer handed out a refresh token that was used up before"));
        }
        is_spent
    }

    /// An answer without a new access token leaves no doubt: the refresh token is the one it brought,
    /// or still ours.
    async fn keep_certain(&self, rotated: Option<&RefreshToken>) {
        let rotated = rotated.filter(|it| !self.is_spent(it));
        let kept = self.coordinator.with(|inner, _| {
            let number = self.start.number;
            let tokens = inner.tokens.clone().filter(|_| inner.state.counts(number));
            let Some(tokens) = tokens else { return false };
            // Whatever becomes of this attempt now, its reply is not lost.
            let _: Option<Instant> = inner.state.lose_reply(number);
            let Some(token) = rotated.or_else(|| tokens.refresh_token()).cloned() else {
                return false;
            };
            if rotated.is_none() && tokens.in_doubt().is_none() {
                return false;
            }
            inner.put(
                &self.coordinator.settings.attach,
                Some(tokens.rotated(token)),
            );
            inner.state.set_doubt(None);
            inner.state.mark_saved(false);
            true
        });
        if kept {
            self.set_right().await;
        }
    }

    /// Nobody can say whether the refresh token is spent: that is kept before anybody is told.
    async fn keep_doubt(&self) {
        let settings = &self.coordinator.settings;
        let number = self.start.number;
        let unsaved = self.coordinator.with(|inner, now| {
            inner.state.counts(number) && (inner.lose_reply(number, settings, now) || inner.dirty)
        });
        if unsaved {
            self.set_right().await;
        }
    }

    /// Saves, then publishes, then settles (P13). Called with the gate held.
    async fn commit(mut self, fetched: Fetched) {
        let fetched = Box::new(fetched);
        self.on_drop = Some(Completion::Installed(fetched.clone(), false));
        let counts = self.coordinator.lock().state.counts(self.start.number);
        if !counts && !seeded!(EpochUnchecked) {
            self.coordinator.offer(&self.start, fetched.tokens);
            return self.disarm();
        }
        if seeded!(PublishedBeforeSaved) {
            self.finish(Completion::Installed(fetched.clone(), true));
        }
        let completion = self.save(fetched).await;
        let late = match &completion {
            Completion::Installed(fetched, _) => Some(fetched.clone()),
            _ => None,
        };
        let _unsaved = self.coordinator.sync_when_dropped();
        let counts = self.finish(completion);
        // Where the pair could not be stored, or was not what it had claimed the turn for.
        self.leave_turn();
        if counts {
            return;
        }
        // A login, a logout or a successor was faster: what was just saved is not the truth.
        match late.map(|it| *it) {
            Some(Fetched {
                record: Some(record),
                ..
            }) => {
                self.coordinator.take_in(record, self.epoch());
            }
            Some(Fetched { tokens, .. }) => self.coordinator.offer(&self.start, tokens),
            None => {}
        }
        self.set_right().await;
    }

    /// Puts tokens from the issuer into the store. In a shared one there may be newer ones by then:
    /// those are adopted (P13).
    async fn save(&self, mut fetched: Box<Fetched>) -> Completion {
        if fetched.from == From::Store {
            return Completion::Installed(fetched, true);
        }
        let saved = match &self.coordinator.store {
            Storage::Own(store) => self.coordinator.save(&**store, &fetched.tokens).await,
            Storage::Shared(store) => match self.coordinator.commit(store, &fetched.tokens).await {
                Ok(Change::Done(record)) => {
                    fetched.record = Some(record);
                    Ok(())
                }
                // It is away, and comes back: the pair is kept until then.
                Ok(Change::Denied(_, found)) if self.coordinator.is_older(&found) => {
                    Err(shared::older())
                }
                Ok(Change::Denied(Denied::Superseded, found)) => {
                    return match self.judge(&found) {
                        Ok(Some(newer)) => Completion::Installed(Box::new(newer), true),
                        Ok(None) => Completion::Installed(fetched, false),
                        Err(completion) => completion,
                    };
                }
                Ok(Change::Denied(..)) => Err(shared::read_only()),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &saved {
            say(|| {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "the new tokens could not be saved yet"
                );
            });
        }
        Completion::Installed(fetched, saved.is_ok())
    }

    /// Settles without new tokens. Called with the gate held.
    async fn conclude(mut self, completion: Completion) {
        let completion = self.store_end(completion).await;
        let may_end = matches!(completion, Completion::Ended(_) | Completion::Refused(_));
        let is_refused = matches!(completion, Completion::Refused(_));
        if !self.finish(completion) {
            return;
        }
        if may_end && self.coordinator.absence().is_some() {
            self.leave_turn();
            self.set_right().await;
        } else {
            self.give_turn_back(is_refused).await;
        }
    }

    /// Whatever it has claimed is given back by those who bring the store to the truth.
    fn leave_turn(&self) -> bool {
        let number = self.start.number;
        self.coordinator.with(|inner, _| inner.leave_claim(number))
    }

    /// Brings the store to the truth, now or later.
    pub(super) async fn set_right(&self) {
        let _unwritten = self.coordinator.sync_when_dropped();
        if let Err(error) = self.coordinator.write_truth().await {
            say(|| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the token store could not be written"
                );
            });
            self.coordinator
                .with(|inner, _| inner.state.mark_saved(!inner.dirty));
        }
    }

    /// Publishes and settles. `false` when the attempt no longer counts.
    fn finish(&mut self, completion: Completion) -> bool {
        self.on_drop = None;
        self.coordinator.finish(self, completion)
    }

    fn record(&self, outcome: &Outcome, joined: usize) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.span.record("waiters", joined);
        self.span.record("elapsed_ms", elapsed);
        let _entered = self.span.enter();
        match outcome {
            Ok(()) => {
                self.span.record("outcome", "ok");
                tracing::info!("the refresh has settled");
            }
            Err(error) => {
                self.span.record("outcome", field::display(error));
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "the refresh has failed"
                );
            }
        }
    }
}

impl Coordinator {
    /// Brings the outcome of an attempt into the state, and settles those who wait for it.
    fn finish(self: &Arc<Self>, guard: &Guard, completion: Completion) -> bool {
        if matches!(&completion, Completion::Installed(fetched, _) if fetched.from != From::Issuer)
        {
            count(&self.counters.adopted);
        }
        // That is not a failure of the refresh.
        let is_taken_over = matches!(completion, Completion::TakenOver(_));
        // Kept until the lock is released, where the attempt no longer counts: its drop is a user's code.
        let _error = completion.error().cloned();
        let Some((outcome, ended, running)) = self.apply(guard.start.number, completion) else {
            return false;
        };
        if let Err(error) = &outcome
            && !is_taken_over
        {
            self.counters.failed(error.kind());
        }
        if ended {
            count(&self.counters.ends);
            if seeded!(EndToldTwice) {
                count(&self.counters.ends);
            }
        }
        let joined = running.as_ref().map_or(0, |running| running.joined);
        if let Some(running) = running {
            if seeded!(PanicUnsettled) && outcome.as_ref().is_err_and(is_panic) {
                std::mem::forget(running);
                return true;
            }
            running.outcome.send_replace(Some(outcome.clone()));
        }
        // Last: a subscriber is somebody else's code, which may take its time, or panic.
        say(|| guard.record(&outcome, joined));
        true
    }

    fn apply(
        &self,
        number: u64,
        completion: Completion,
    ) -> Option<(Outcome, bool, Option<Running>)> {
        let attach = &self.settings.attach;
        self.with(|inner, now| {
            let facts = |tokens: &TokenSet, saved| self.facts(tokens, saved, now);
            if matches!(&completion, Completion::Failed(error, _) if error.kind() == Kind::Interrupted) {
                inner.lose_reply(number, &self.settings, now);
            }
            let mut issued = false;
            let mut record = None;
            let (settled, tokens) = match completion {
                Completion::Ended(error) => (Settled::Ended(error), None),
                Completion::Failed(error, retry_after) => {
                    let jitter = fastrand::f64();
                    let failure = Failure {
                        error,
                        retry_after,
                        jitter,
                    };
                    (Settled::Failed(failure), None)
                }
                Completion::Installed(fetched, saved) => {
                    issued = fetched.from == From::Issuer;
                    let is_old = fetched.from == From::Store && matches!(self.store, Storage::Own(_));
                    let token = match is_old {
                        true => facts(&fetched.tokens, saved),
                        false => self.facts_of_fresh(&fetched.tokens, saved, now),
                    };
                    record = fetched.record;
                    (Settled::Installed(token), Some((fetched.tokens, saved)))
                }
                Completion::Loaded(tokens) => {
                    let token = tokens.as_ref().map(|tokens| facts(tokens, true));
                    (Settled::Loaded(token), tokens.map(|tokens| (*tokens, true)))
                }
                Completion::Refused(error) => (Settled::Refused(error), None),
                // Where its own write has failed, another transaction may have written the same since.
                Completion::Saved(saved) => (Settled::Saved(saved || !inner.dirty), None),
                Completion::TakenOver(found) => {
                    let (token, error) = self.other_login(&found, now);
                    record = Some(*found);
                    (Settled::TakenOver(token, error), None)
                }
                Completion::Unchanged => (Settled::Unchanged, None),
            };
            let is_other = matches!(settled, Settled::TakenOver(..));
            let is_load = matches!(settled, Settled::Loaded(_));
            let verdict = inner.state.settle(number, settled, now)?;
            inner.sent.take_if(|(attempt, _)| *attempt == number);
            if is_load {
                inner.keep_offer();
            }
            if let Some((tokens, saved)) = tokens {
                inner.put(attach, Some(tokens));
                inner.written(saved);
            } else if verdict.ended {
                inner.put(attach, None);
                inner.forget_login();
            }
            match record {
                Some(record) if is_other => self.put_other_login(inner, &record),
                Some(record) => {
                    let epoch = inner.state.stamp().epoch;
                    // With a new pair in the record, nobody has the turn.
                    inner.peers.claims.discard(number);
                    inner.committed(record, epoch);
                }
                None => {}
            }
            if issued {
                inner.issued = inner.state.stamp().generation;
            }
            let running = inner
                .running
                .take_if(|running| running.start.number == number);
            Some((verdict.outcome, verdict.ended, running))
        })
    }

    /// A late attempt's tokens: its successor takes them where the issuer refuses it (P6).
    fn offer(&self, start: &Start, tokens: TokenSet) {
        self.with(|inner, _| {
            if inner.state.stamp() == start.stamp {
                inner.offer = Some(Offer {
                    stamp: start.stamp,
                    tokens,
                });
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let completion = self.on_drop.take();
        if self.leave_turn() {
            self.coordinator.sync_later();
        }
        if let Some(completion) = completion {
            let _unsaved = self.coordinator.sync_when_dropped();
            let coordinator = self.coordinator.clone();
            coordinator.finish(self, completion);
        }
    }
}

impl Completion {
    fn error(&self) -> Option<&RefreshError> {
        match self {
            Self::Ended(error) | Self::Failed(error, _) | Self::Refused(error) => Some(error),
            Self::Installed(..)
            | Self::Loaded(_)
            | Self::Saved(_)
            | Self::TakenOver(_)
            | Self::Unchanged => None,
        }
    }
}

impl Fetched {
    /// Are they to be adopted as they are? Not where they have expired: they are presented to the issuer. But one
    /// in doubt is adopted as well, for its doubt decides what comes next.
    pub(super) fn is_adopted(&self) -> bool {
        !has_expired(&self.tokens) || self.tokens.in_doubt().is_some()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// For a seeded fault: did the reissuer panic?
fn is_panic(error: &RefreshError) -> bool {
    let source = std::error::Error::source(error).and_then(std::error::Error::source);
    source.is_some_and(|source| source.to_string().contains("panicked"))
}

/// The refresh token may be spent, and nothing came back for it.
fn is_lost(answer: &Asked) -> bool {
    matches!(answer, Err(error) if error.kind == ReissueErrorKind::Unknown && error.rotated.is_none())
}

pub(super) fn failed(error: RefreshError) -> Completion {
    Completion::Failed(error, None)
}

/// By the wall clock: these tokens were fetched in another process.
fn has_expired(tokens: &TokenSet) -> bool {
    tokens.expires_at().is_some_and(|at| at <= Now::read().wall)
}
