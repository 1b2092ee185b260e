//! The shared coordinator of a session: at most one attempt to refresh, any number of waiters.
//!
//! - What each request reads is a [`Snapshot`], without a lock.
//! - What is decided is decided in [`state`], which is pure, under one short lock that nobody holds
//!   while waiting (P14).
//! - What takes time is an *attempt*: a task of its own ([`attempt`]) that no request owns, so that
//!   dropping a request stops nothing (P3). Attempts and all writes to the store go one at a time
//!   through a *gate*, a [`tokio::sync::Mutex`].
//! - Each attempt settles on a [`watch`] channel of its own, so that it wakes those who wait for it
//!   and nobody else; its outcome belongs to it and not to a generation (P5). The session's status
//!   is told on another.
//!
//! What addresses have said of the token is remembered in [`address`], pure too; that nothing need be
//! remembered, as for most requests, is known without a lock ([`heard`]).
//!
//! Where several processes share the store, an attempt also takes its turn among theirs ([`turn`]): what may become
//! of the record they share is decided in [`lease`], which is pure as well, and [`shared`] keeps memory in line with
//! that record.
//!
//! An attempt that is not driven any more (its runtime stands still) cannot settle anybody. So
//! waiters and newcomers hold its deadline themselves, and the first of them to find it passed
//! abandons the attempt (P4).

mod address;
mod attempt;
mod claims;
mod doubt;
mod heard;
mod lease;
mod login;
mod lost_reply;
mod shared;
mod state;
mod stats;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod ticket;
mod turn;
mod watchdog;

pub(crate) use address::Address;
pub use lost_reply::LostReply;
pub(crate) use shared::Storage;
pub(crate) use state::Rules;
pub use stats::FailureStats;
pub use stats::Stats;
pub(crate) use stats::count;
pub use status::SessionStatus;
pub(crate) use ticket::Ticket;

use std::collections::VecDeque;
use std::fmt;
use std::hash::RandomState;
use std::mem;
use std::sync::Arc;
#[cfg(not(shuttle))]
use std::sync::Mutex;
#[cfg(not(shuttle))]
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
// The explorer looks at what happens between two that take the lock.
#[cfg(shuttle)]
use shuttle::sync::Mutex;
#[cfg(shuttle)]
use shuttle::sync::MutexGuard;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;
use tokio::time::Instant;

use self::attempt::Guard;
use self::heard::Heard;
use self::shared::Peers;
use self::state::Admission;
use self::state::Recovery;
use self::state::Start;
use self::state::State;
use self::state::Token;
use self::state::View;
use self::stats::Counters;
use crate::attach::Attach;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::origin::Origin;
use crate::reissue::DynReissue;
use crate::say::say;
use crate::store::StoreLock;
use crate::time::Now;
use crate::time::timeout;
use crate::token::AccessToken;
use crate::token::RefreshToken;
use crate::token::Stamp;
use crate::token::TokenSet;

/// What the session was built with, beside the [`Rules`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) attach: Attach,
    /// The longest an attempt can take.
    pub(crate) attempt: Duration,
    /// How long a claim lasts that is not renewed, in a store without a lock.
    pub(crate) lease: Duration,
    pub(crate) lost_reply: LostReply,
    /// The longest wait for another process that shares the store.
    pub(crate) others: Duration,
    pub(crate) refresh_ahead: Option<Duration>,
    pub(crate) reissue_timeout: Duration,
    pub(crate) runtime: Option<Handle>,
    pub(crate) self_sufficient: bool,
    pub(crate) store_timeout: Duration,
    pub(crate) wait_timeout: Duration,
    pub(crate) waiter_limit: usize,
}

/// How an attempt ended, for those who waited for it.
pub(crate) type Outcome = Result<(), RefreshError>;

/// How many replaced tokens are remembered.
const MOST_PAST: usize = 32;

/// Through it goes one transaction at a time.
type Gate = Arc<tokio::sync::Mutex<()>>;

pub(crate) struct Coordinator {
    /// For the tasks that it starts.
    me: Weak<Self>,
    settings: Settings,
    store: Storage,
    /// What tells its claims on a shared store from those of others.
    owner: u64,
    reissue: Box<dyn DynReissue>,
    snapshot: ArcSwap<Snapshot>,
    inner: Mutex<Inner>,
    status: watch::Sender<SessionStatus>,
    heard: Heard,
    pub(crate) counters: Counters,
}

/// What each request reads.
#[derive(Debug)]
pub(crate) struct Snapshot {
    view: View,
    /// Rendered when the token was installed.
    header: Option<HeaderValue>,
    revision: u64,
}

/// All that is behind the lock.
struct Inner {
    state: State,
    /// The truth, which the store is to hold as well.
    tokens: Option<TokenSet>,
    header: Option<HeaderValue>,
    /// Grows whenever `tokens` changes.
    revision: u64,
    /// Marks of the tokens that were replaced: a store that lags behind shows them
    /// again, and they are no news.
    past: VecDeque<u64>,
    /// The same of refresh tokens alone, of this login.
    spent: VecDeque<u64>,
    /// The refresh token that was sent last, and by which attempt.
    sent: Option<(u64, RefreshToken)>,
    /// Makes the marks worthless to others.
    key: RandomState,
    /// The store may not hold `tokens`.
    dirty: bool,
    /// So many writes more are to be made to be sure that the last one to come to its end is the newest: some were given
    /// up, and may still be done.
    stragglers: u32,
    /// How many writes to a store of its own have begun.
    writes: u64,
    /// The number of the task that makes that good.
    sync: u64,
    /// When that task should have done so: past it, the next request starts another.
    sync_due: Instant,
    /// The latest generation that came from the issuer.
    issued: u64,
    /// Tokens of the current login that somebody else has, or a late attempt had, fetched.
    offer: Option<Offer>,
    running: Option<Running>,
    gate: Gate,
    /// Of those who share the store, if it is shared.
    peers: Peers,
    told: SessionStatus,
}

struct Offer {
    stamp: Stamp,
    tokens: TokenSet,
}

/// The latest attempt's side that faces its waiters.
struct Running {
    start: Start,
    outcome: watch::Sender<Option<Outcome>>,
    joined: usize,
    /// Of whoever has started it.
    runtime: Option<Handle>,
}

/// An attempt that was given up, for when the lock is released: its waiters are to be told, and what it
/// has held is to be dropped.
struct Abandoned {
    waiters: Option<watch::Sender<Option<Outcome>>>,
    outcome: Outcome,
    /// Its drop is a user's code, and would deadlock if it asked the session for something.
    _lock: Option<StoreLock>,
    runtime: Option<Handle>,
}

/// What a change may replace whose drop is a user's code: the source of an error. Kept until the lock is
/// released.
struct Kept {
    _errors: [Option<RefreshError>; 3],
    _running: Option<watch::Sender<Option<Outcome>>>,
}

/// What a request that wants to be sent is to do.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// Be sent with this.
    Go(Stamp, Option<HeaderValue>),
    /// Wait first.
    Hold(Ticket),
    /// Be sent as it is: it is a part of the reissue itself (P15).
    Pass,
    /// Fail: there is no token and none can be had.
    Refuse(RefreshError),
}

/// What can be done about a rejection.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing can be done.
    Fail(RefreshError),
    /// Go on with the snapshot as it is.
    Go,
    /// Wait for the attempt, then go on.
    Wait(Ticket),
}

impl From<Joined> for Admitted {
    fn from(joined: Joined) -> Self {
        joined.map_or_else(Self::Refuse, Self::Hold)
    }
}

impl From<Joined> for Next {
    fn from(joined: Joined) -> Self {
        joined.map_or_else(Self::Fail, Self::Wait)
    }
}

/// A place among the waiters, where there was one left.
type Joined = Result<Ticket, RefreshError>;

/// An attempt whose guard is made, to be spawned when the lock is released.
struct Launch {
    guard: Guard,
    gate: Gate,
}

impl Coordinator {
    pub(crate) fn new(
        settings: Settings,
        rules: Rules,
        store: Storage,
        reissue: Box<dyn DynReissue>,
    ) -> Arc<Self> {
        let state = State::new(rules);
        let snapshot = Snapshot {
            view: state.view(&Now::read()),
            header: None,
            revision: 0,
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            settings,
            store,
            owner: fastrand::u64(..),
            reissue,
            snapshot: ArcSwap::from_pointee(snapshot),
            inner: Mutex::new(Inner::new(state)),
            status: watch::channel(SessionStatus::Unloaded).0,
            heard: Heard::default(),
            counters: Counters::default(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a request that wants to be sent is to do.
    pub(crate) fn admit(self: &Arc<Self>) -> Admitted {
        if self.is_reissuing_here() {
            return Admitted::Pass;
        }
        let snapshot = self.snapshot.load();
        match snapshot.view.held || snapshot.view.recheck.passed_by_now() {
            true => self.ask(),
            false => Admitted::Go(snapshot.view.stamp, snapshot.header.clone()),
        }
    }

    /// What a request that is sent now carries.
    pub(crate) fn current(&self) -> (Stamp, Option<HeaderValue>) {
        let snapshot = self.snapshot.load();
        (snapshot.view.stamp, snapshot.header.clone())
    }

    /// Is this call a part of the reissue of this very session? It cannot wait for itself (P15).
    pub(crate) fn is_reissuing_here(&self) -> bool {
        attempt::is_reissuing(self)
    }

    /// The slow half of [`admit`](Self::admit). What is sent is read under the same lock as it is
    /// decided: a login that comes in between is held back until it is saved (P13).
    fn ask(self: &Arc<Self>) -> Admitted {
        let (admitted, launch, sync, deaf) = self.with(|inner, now| {
            let go = |inner: &Inner| Admitted::Go(inner.state.stamp(), inner.header.clone());
            let (admitted, launch) = match inner.state.admit(now) {
                Admission::Fail(error) => (Admitted::Refuse(error), None),
                Admission::Go => (go(inner), None),
                Admission::GoAndStart(start) => (go(inner), Some(inner.begin(self, start))),
                Admission::Join => (self.join(inner).into(), None),
                Admission::Start(start) => {
                    let (next, launch) = self.begin_and_join(inner, start);
                    (next.into(), launch)
                }
            };
            (admitted, launch, inner.is_sync_due(now), inner.peers.deaf)
        });
        self.launch(launch);
        if deaf {
            self.watch_peers();
        }
        if sync {
            self.sync_overdue();
        }
        admitted
    }

    /// Where a request to this path goes.
    pub(crate) fn address(&self, origin: &Origin, path: &str) -> Address {
        self.heard.address(origin, path)
    }

    /// The request with this stamp was rejected, there: [`Next::Go`] means that there is a newer token.
    pub(crate) fn reject(self: &Arc<Self>, stamp: Stamp, is_final: bool, address: Address) -> Next {
        if self.is_reissuing_here() {
            return Next::Fail(RefreshError::new(Kind::WithinReissue));
        }
        self.recover(|state, now| state.reject(stamp, is_final, address, now))
    }

    /// The same, for the next request's benefit.
    pub(crate) fn reject_later(&self, stamp: Stamp, is_final: bool, address: Address) {
        self.with(|inner, now| inner.state.reject_later(stamp, is_final, address, now));
    }

    /// So was the replay with this stamp.
    pub(crate) fn reject_replay(&self, stamp: Stamp, address: Address) {
        self.with(|inner, now| inner.state.reject_replay(stamp, address, now));
    }

    /// Can it be news that a request with this stamp was accepted? For most it is not, and that is all
    /// they pay.
    #[inline]
    pub(crate) fn may_be_news(&self, stamp: Stamp) -> bool {
        self.heard.may_be_news(stamp.generation)
    }

    /// The request with this stamp was accepted, there.
    pub(crate) fn accept(&self, stamp: Stamp, address: Address) {
        if self.heard.is_news(stamp.generation, address) {
            self.with(|inner, _| inner.state.accept(stamp, address));
        }
    }

    /// The user asks for a refresh.
    pub(crate) fn refresh(self: &Arc<Self>) -> Next {
        if self.is_reissuing_here() {
            return Next::Fail(RefreshError::new(Kind::WithinReissue));
        }
        self.recover(State::refresh)
    }

    /// Why there is no token, where there is none.
    pub(crate) fn absence(&self) -> Option<RefreshError> {
        self.lock().state.absence()
    }

    pub(crate) fn tokens(&self) -> Option<TokenSet> {
        self.lock().tokens.clone()
    }

    /// The access token, if it is still that of the login of this epoch (P8).
    pub(crate) fn access_token(&self, epoch: u64) -> Result<AccessToken, RefreshError> {
        let inner = self.lock();
        match &inner.tokens {
            Some(_) if inner.state.stamp().epoch != epoch => {
                Err(RefreshError::ended(EndReason::Replaced))
            }
            Some(tokens) => Ok(tokens.access_token().clone()),
            None => Err(inner.state.no_login()),
        }
    }

    pub(crate) fn status(&self) -> &watch::Sender<SessionStatus> {
        &self.status
    }

    /// Runs a rule that says how to recover, and carries out what it says.
    fn recover(self: &Arc<Self>, rule: impl FnOnce(&mut State, &Now) -> Recovery) -> Next {
        let (next, launch, sync) = self.with(|inner, now| {
            let (next, launch) = match rule(&mut inner.state, now) {
                Recovery::Fail(error) => (Next::Fail(error), None),
                Recovery::Replay => (Next::Go, None),
                Recovery::Join => (self.join(inner).into(), None),
                Recovery::Start(start) => {
                    let (joined, launch) = self.begin_and_join(inner, start);
                    (joined.into(), launch)
                }
            };
            (next, launch, inner.is_sync_due(now))
        });
        self.launch(launch);
        if sync {
            self.sync_overdue();
        }
        next
    }

    fn begin_and_join(
        self: &Arc<Self>,
        inner: &mut Inner,
        start: Start,
    ) -> (Joined, Option<Launch>) {
        let launch = inner.begin(self, start);
        (self.join(inner), Some(launch))
    }

    fn join(self: &Arc<Self>, inner: &mut Inner) -> Joined {
        let Some(running) = &mut inner.running else {
            return Err(RefreshError::new(Kind::Interrupted));
        };
        running.joined += 1;
        Ticket::new(self, running.outcome.subscribe(), running.start)
    }

    /// Not under the lock: a runtime that was shut down drops the task, and with it the guard, at
    /// once.
    fn launch(self: &Arc<Self>, launch: Option<Launch>) {
        let Some(Launch { mut guard, gate }) = launch else {
            return;
        };
        guard.start();
        match self.runtime() {
            Some(runtime) => drop(runtime.spawn(attempt::run(guard, gate))),
            None => guard.fail(RefreshError::new(Kind::NoRuntime)),
        }
    }

    fn runtime(&self) -> Option<Handle> {
        self.settings
            .runtime
            .clone()
            .or_else(|| Handle::try_current().ok())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` under the lock, and makes known what it changed.
    fn with<R>(&self, change: impl FnOnce(&mut Inner, &Now) -> R) -> R {
        let now = Now::read();
        let mut inner = self.lock();
        let kept = inner.kept();
        let abandoned = inner.abandon_overdue(&self.settings, &now);
        let was_dirty = inner.dirty;
        let result = change(&mut inner, &now);
        if inner.dirty && !was_dirty {
            inner.sync_due = now.instant + self.patience();
        }
        if abandoned.is_some() {
            // Nobody else writes what that has changed.
            inner.sync_due = now.instant;
        }
        self.publish(&inner, &now);
        let tell = inner
            .state
            .status()
            .is_some_and(|status| mem::replace(&mut inner.told, status) != status);
        let writes = abandoned.is_some() && inner.dirty;
        drop(inner);
        drop(kept);
        if tell {
            self.tell();
        }
        if let Some(abandoned) = abandoned {
            let runtime = abandoned.runtime.clone();
            abandoned.settle();
            if writes {
                // What it has left in doubt is stored now: the next request may come after a restart, which
                // would send the same refresh token again.
                self.sync_at_once(runtime);
            }
        }
        result
    }

    fn publish(&self, inner: &Inner, now: &Now) {
        self.heard.publish(&inner.state);
        let mut view = inner.state.view(now);
        if inner.dirty {
            view.recheck = view.recheck.or_at(inner.sync_due);
        }
        if inner.peers.deaf {
            view.recheck = view.recheck.or_at(now.instant);
        }
        let published = self.snapshot.load();
        if published.view != view || published.revision != inner.revision {
            self.snapshot.store(Arc::new(Snapshot {
                view,
                header: inner.header.clone(),
                revision: inner.revision,
            }));
        }
    }

    /// Reads the status afresh, so that two who tell at once leave the later one standing.
    fn tell(&self) {
        self.status.send_if_modified(|told| {
            let status = self.lock().told;
            mem::replace(told, status) != status
        });
    }

    fn facts(&self, tokens: &TokenSet, saved: bool, now: &Now) -> Token {
        let renewable = self.settings.self_sufficient || tokens.refresh_token().is_some();
        let lifetime = tokens.lifetime(self.settings.refresh_ahead, now);
        let restored = |doubt| self.settings.lost_reply.restored(&doubt, now);
        let mut token = Token::new(lifetime, renewable, saved);
        token.in_doubt = tokens.in_doubt().map(restored);
        token
    }

    /// The same of tokens that the issuer may have issued a moment ago. Not of those of a login, or those
    /// that a store of this process had kept: nobody knows how old they are.
    fn facts_of_fresh(&self, tokens: &TokenSet, saved: bool, now: &Now) -> Token {
        let mut token = self.facts(tokens, saved, now);
        token.settles = Some(tokens.settles(now));
        token
    }

    /// The attempt is over. Its lock is kept while that would lose something.
    fn unlock(&self, number: u64, loses: impl FnOnce(&Inner) -> bool) {
        let lock = self.with(|inner, _| {
            let loses = loses(inner);
            let lock = &mut inner.peers.lock;
            lock.take_if(|(holder, _)| *holder == number && !loses)
        });
        drop(lock);
    }

    /// Waits for the gate for at most `limit`: as long as those before it may take. A gate that does
    /// not open belongs to somebody who is not driven any more, and gets a successor.
    async fn enter(
        &self,
        gate: Gate,
        limit: Duration,
    ) -> Result<OwnedMutexGuard<()>, RefreshError> {
        match timeout(limit, gate.clone().lock_owned()).await {
            Some(permit) => Ok(permit),
            None => Err(self.with(|inner, _| inner.replace_gate(&gate))),
        }
    }
}

impl Inner {
    fn new(state: State) -> Self {
        Self {
            state,
            tokens: None,
            header: None,
            revision: 0,
            past: VecDeque::new(),
            spent: VecDeque::new(),
            sent: None,
            key: RandomState::new(),
            dirty: false,
            stragglers: 0,
            writes: 0,
            sync: 0,
            sync_due: Instant::now(),
            issued: 0,
            offer: None,
            running: None,
            gate: Gate::default(),
            peers: Peers::default(),
            told: SessionStatus::Unloaded,
        }
    }

    fn kept(&self) -> Kept {
        Kept {
            _errors: self.state.errors(),
            _running: self.running.as_ref().map(|it| it.outcome.clone()),
        }
    }

    /// What the store does not hold is to be written, and whoever should do so has not.
    fn is_sync_due(&self, now: &Now) -> bool {
        self.dirty && now.instant >= self.sync_due
    }

    /// Makes the waiters' side of an attempt and its guard, before anything is spawned.
    fn begin(&mut self, coordinator: &Arc<Coordinator>, start: Start) -> Launch {
        let (outcome, _) = watch::channel(None);
        let guard = Guard::new(coordinator.clone(), start, outcome.subscribe());
        self.running = Some(Running {
            start,
            outcome,
            joined: 0,
            runtime: Handle::try_current().ok(),
        });
        Launch {
            guard,
            gate: self.gate.clone(),
        }
    }

    /// Changes the truth, which the store does not have then.
    fn put(&mut self, attach: &Attach, tokens: Option<TokenSet>) {
        self.header = tokens
            .as_ref()
            .and_then(|tokens| attach.render(tokens.access_token()));
        #[cfg(seeded_faults)]
        if crate::seeded::seeded!(SameTokenForAllUsers) {
            self.header = crate::seeded::first(self.header.take());
        }
        if let Some(old) = mem::replace(&mut self.tokens, tokens) {
            self.remember(&old);
        }
        self.revision += 1;
        self.dirty = true;
        // What is on offer for another token than the one in use is of no use, and a secret.
        let stamp = self.state.stamp();
        self.offer.take_if(|offer| offer.stamp != stamp);
    }

    /// What was of the login before is of no use in this one, or after the end.
    fn forget_login(&mut self) {
        self.spent.clear();
        self.sent = None;
        self.offer = None;
    }

    fn remember(&mut self, old: &TokenSet) {
        let now = self.tokens.as_ref();
        if !now.is_some_and(|now| now.same_tokens(old)) {
            push(&mut self.past, old.fingerprint(&self.key));
        }
        let (old, now) = (old.refresh_token(), now.and_then(TokenSet::refresh_token));
        if let (Some(old), Some(now)) = (old, now)
            && !now.same(old)
        {
            push(&mut self.spent, old.fingerprint(&self.key));
        }
    }

    /// The store has been given the truth, or could not be. A write that was given up before may
    /// still come to its end after this one, so there is one more to be sure.
    fn written(&mut self, done: bool) {
        self.dirty = !done || self.stragglers > 0;
        if done {
            self.stragglers = self.stragglers.saturating_sub(1);
        }
    }

    /// What is on offer, if it is for the current token.
    fn offered(&self) -> Option<&TokenSet> {
        let offer = self.offer.as_ref()?;
        (offer.stamp == self.state.stamp()).then_some(&offer.tokens)
    }

    /// The store was read: what was on offer before is for the token that is in use now.
    fn keep_offer(&mut self) {
        if let Some(offer) = &mut self.offer {
            offer.stamp = self.state.stamp();
        }
    }

    fn take_offer(&mut self) -> Option<TokenSet> {
        let offered = self.offered().filter(|tokens| self.is_news(tokens));
        let tokens = offered.cloned();
        self.offer = None;
        tokens
    }

    /// Are these tokens of the same user, and neither those in use nor some that were?
    fn is_news(&self, tokens: &TokenSet) -> bool {
        let same = |ours: &TokenSet| ours.same_tokens(tokens) || !ours.same_user(tokens);
        !self.tokens.as_ref().is_some_and(same)
            && !self.past.contains(&tokens.fingerprint(&self.key))
    }

    fn replace_gate(&mut self, gate: &Gate) -> RefreshError {
        if Arc::ptr_eq(&self.gate, gate) {
            self.gate = Gate::default();
        }
        RefreshError::with_source(Kind::Store, "the transaction before this one does not end")
    }

    fn abandon_overdue(&mut self, settings: &Settings, now: &Now) -> Option<Abandoned> {
        let (number, outcome) = self.state.abandon_overdue(now.instant)?;
        self.gate = Gate::default();
        // Nobody may drive it any more: what it holds must not keep all others out. But where its bytes
        // are out, it may still get the answer, as one that is stopped may.
        let is_out = self.state.has_asked(number);
        let lock = &mut self.peers.lock;
        let lock = lock.take_if(|(holder, _)| *holder == number && !is_out);
        self.lose_reply(number, settings, now);
        self.leave_claim(number);
        let running = self.running.as_ref();
        let running = running.filter(|running| running.start.number == number);
        Some(Abandoned {
            waiters: running.map(|running| running.outcome.clone()),
            outcome,
            _lock: lock.map(|(_, lock)| lock),
            runtime: running.and_then(|running| running.runtime.clone()),
        })
    }

    /// This attempt does nothing more about its claim: whoever brings the store to the truth does.
    fn leave_claim(&mut self, number: u64) -> bool {
        let left = self.peers.claims.leave(number);
        self.dirty |= left;
        left
    }
}

impl Abandoned {
    /// Its waiters first: a subscriber is somebody else's code.
    fn settle(self) {
        if let Some(waiters) = self.waiters {
            waiters.send_replace(Some(self.outcome.clone()));
        }
        let outcome = self.outcome;
        say(|| tracing::warn!(?outcome, "a refresh is abandoned: it is past its deadline"));
    }
}

fn push(marks: &mut VecDeque<u64>, mark: u64) {
    marks.truncate(MOST_PAST - 1);
    marks.push_front(mark);
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}
