//! An attempt of one process among others that share its login: whose turn it is to present the
//! refresh token.
//!
//! Read; adopt what is newer. Take the store's lock, if it has one, and read again. Presume lost what
//! was sent by somebody who is gone. Claim, which is the intent as well; and only then may bytes leave.
//! Meanwhile somebody else may be faster at any step: then it begins anew with what that one has stored.

use std::convert::Infallible;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::future::select;
use tokio::time::Instant;

use super::attempt::Completion;
use super::attempt::Fetched;
use super::attempt::From;
use super::attempt::Guard;
use super::attempt::failed;
use super::lease;
use super::lease::Denied;
use super::lease::News;
use super::shared::Change;
use super::shared::SharedStore;
use super::shared::Storage;
use super::shared::older;
use super::shared::read_only;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::say::say;
use crate::seeded::seeded;
use crate::store::Record;
use crate::store::StoreLock;
use crate::store::Swap;
use crate::store::Turn;
use crate::time::Now;
use crate::time::timeout;
use crate::token::TokenSet;

/// Between two looks at a store that says too early that something has changed.
const PAUSE: Duration = Duration::from_millis(5);

/// What waiting for the lock has come to.
enum Wait {
    Changed,
    Locked(Option<StoreLock>),
}

/// The right to present the refresh token, until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    until: Instant,
    /// It dies with its holder, as does the store's lock: else it is renewed while the issuer is waited for.
    has_lock: bool,
}

impl Guard {
    /// Reads the shared store for the first time.
    pub(super) async fn load_shared(
        &self,
        store: &SharedStore,
    ) -> Result<Option<TokenSet>, Completion> {
        let (mut found, _) = self.coordinator.read(store).await.map_err(failed)?;
        if matches!(found.turn, Turn::Ended(_)) {
            if !self.coordinator.settings.self_sufficient {
                return Err(Completion::TakenOver(Box::new(found)));
            }
            let reopened = self.coordinator.change(store, |found, now| {
                lease::reopen(found, self.coordinator.least_epoch(store, now))
            });
            found = match reopened.await.map_err(failed)? {
                Change::Done(record) | Change::Denied(_, record) => record,
            };
        }
        let tokens = found.tokens().cloned();
        self.coordinator.with(|inner, _| {
            // Else memory has not got these, and would pass for one that has.
            if inner.state.counts(self.start.number) {
                inner.know(found, self.epoch());
            }
        });
        Ok(tokens)
    }

    /// Newer tokens than ours, if another process has stored some.
    pub(super) async fn reread_shared(
        &self,
        store: &SharedStore,
    ) -> Result<Option<Fetched>, Completion> {
        let (found, _) = self.coordinator.read(store).await.map_err(failed)?;
        self.judge(&found)
    }

    /// Adopts what another process has fetched, or gets the right to reissue.
    pub(super) async fn renew_shared(
        &mut self,
        store: &SharedStore,
    ) -> Result<Option<Fetched>, Completion> {
        let offer = self.coordinator.with(|inner, _| inner.take_offer());
        if let Some(tokens) = offer {
            let newer = Fetched {
                tokens,
                from: From::Offer,
                record: None,
            };
            if newer.is_adopted() {
                return Ok(Some(newer));
            }
            self.go_on_with(newer);
        }
        if self.coordinator.lock().dirty {
            // The others must know of what we have before anybody presents a refresh token.
            self.coordinator.write_truth().await.map_err(failed)?;
            if self.coordinator.lock().state.stamp() != self.start.stamp {
                return Err(Completion::Unchanged);
            }
        }
        self.take_turn(store).await
    }

    /// Waits for its turn, and claims it: `None`. Or somebody else was faster.
    pub(super) async fn take_turn(
        &mut self,
        store: &SharedStore,
    ) -> Result<Option<Fetched>, Completion> {
        if seeded!(NoTurn) {
            return Ok(None);
        }
        let coordinator = self.coordinator.clone();
        let (owner, settings) = (coordinator.owner, &coordinator.settings);
        let deadline = Instant::now() + settings.others;
        self.drop_old_lock();
        // Whether the store has one, once it was asked for.
        let mut has_lock = None;
        let mut seen = None;
        loop {
            let began = Instant::now();
            let left = deadline.saturating_duration_since(began);
            if left.is_zero() {
                return Err(failed(others_are_busy()));
            }
            let (found, now) = coordinator.read(store).await.map_err(failed)?;
            match self.judge(&found)? {
                Some(_) if seeded!(NoSecondLook) => {}
                Some(newer) if newer.is_adopted() => return Ok(Some(newer)),
                Some(newer) => self.go_on_with(newer),
                None => {}
            }
            let Some(has_lock) = has_lock else {
                if seen.replace(found.version) == Some(found.version) {
                    // It was said to have changed, and has not.
                    let _: Option<()> = timeout(PAUSE.min(left), pending()).await;
                }
                match self.wait_for_lock(store, found.version, left).await? {
                    Wait::Changed => {}
                    Wait::Locked(lock) => {
                        has_lock = Some(lock.is_some());
                        self.hold(lock);
                    }
                }
                continue;
            };
            if has_lock && !self.holds_lock() {
                // It was given up, and so was its lock.
                return Err(failed(RefreshError::new(Kind::WaitTimeout)));
            }
            if let Some(lost) = lease::presume_lost(&found, now, has_lock) {
                say(|| tracing::warn!("the process that had claimed the refresh token is gone"));
                let swapped = coordinator.swap(store, found.version, &lost).await;
                let _: Swap = swapped.map_err(failed)?;
                continue;
            }
            let span = self.span(has_lock, settings.reissue_timeout);
            let claimed = match lease::claim(&found, owner, now, span, &settings.lost_reply) {
                Ok(claimed) => claimed,
                Err(Denied::Busy { until }) => {
                    let rest = until.duration_since(now).unwrap_or_default();
                    let changed = store.changed(found.version);
                    let changed = AssertUnwindSafe(changed).catch_unwind();
                    timeout(rest.min(left), changed).await;
                    // It may say so too early, and for ever.
                    let _: Option<()> = timeout(PAUSE.min(left), pending()).await;
                    continue;
                }
                Err(denied) => return Err(self.denied(denied, &found, now)),
            };
            let until = began + span;
            let granted = Granted { until, has_lock };
            if self
                .try_claim(store, found.version, &claimed, granted)
                .await?
            {
                return Ok(None);
            }
        }
    }

    /// Somebody else has fetched these, and they have expired since: they are what is presented next. If the
    /// issuer refuses them, they are known, and no news that could be adopted.
    pub(super) fn go_on_with(&mut self, newer: Fetched) {
        let is_stored = newer.from == From::Store;
        let stamp = self.coordinator.with(|inner, now| {
            if !inner.state.counts(self.start.number) {
                return self.start.stamp;
            }
            let facts = self.coordinator.facts(&newer.tokens, is_stored, now);
            inner.state.install(facts);
            inner.state.mark_expired();
            inner.put(&self.coordinator.settings.attach, Some(newer.tokens));
            inner.written(is_stored);
            if let Some(record) = newer.record {
                inner.know(record, self.epoch());
            }
            inner.state.stamp()
        });
        // These are what it replaces now.
        self.start.stamp = stamp;
    }

    async fn wait_for_lock(
        &self,
        store: &SharedStore,
        version: u64,
        left: Duration,
    ) -> Result<Wait, Completion> {
        let lock = AssertUnwindSafe(async { store.lock(left).await }).catch_unwind();
        let lock = timeout(left + self.coordinator.settings.store_timeout, lock);
        let changed = AssertUnwindSafe(async { store.changed(version).await }).catch_unwind();
        let store_failed = |error: BoxError| failed(RefreshError::with_source(Kind::Store, error));
        match select(pin!(lock), pin!(changed)).await {
            Either::Left((Some(Ok(Ok(lock))), _)) => Ok(Wait::Locked(lock)),
            Either::Left((Some(Ok(Err(error))), _)) => Err(store_failed(error)),
            Either::Left((Some(Err(_)), _)) => Err(store_failed("it panicked".into())),
            Either::Left((None, _)) => Err(failed(others_are_busy())),
            Either::Right(_) => Ok(Wait::Changed),
        }
    }

    /// Keeps the lock until the attempt is over, and its outcome stored.
    fn hold(&self, lock: Option<StoreLock>) {
        let number = self.start.number;
        let old = self
            .coordinator
            .with(|inner, _| match inner.state.counts(number) {
                true => std::mem::replace(&mut inner.peers.lock, lock.map(|lock| (number, lock))),
                false => lock.map(|lock| (number, lock)),
            });
        drop(old);
    }

    /// An attempt before this one was given up while its bytes were out, and has kept the others away
    /// since.
    fn drop_old_lock(&self) {
        let number = self.start.number;
        let old = self.coordinator.with(|inner, _| {
            let lock = &mut inner.peers.lock;
            lock.take_if(|(holder, _)| *holder != number)
        });
        drop(old);
    }

    fn holds_lock(&self) -> bool {
        let inner = self.coordinator.lock();
        let holder = inner.peers.lock.as_ref().map(|(number, _)| *number);
        holder == Some(self.start.number)
    }

    async fn try_claim(
        &mut self,
        store: &SharedStore,
        version: u64,
        claimed: &Record,
        granted: Granted,
    ) -> Result<bool, Completion> {
        let Turn::Sent(claim) = claimed.turn else {
            return Ok(false);
        };
        let number = self.start.number;
        let counts = self.coordinator.with(|inner, _| {
            let counts = inner.state.counts(number);
            if counts {
                // Written or not: it may be in the store from here on, until this attempt has given it back.
                inner.peers.claims.hold(number, claim);
            }
            counts
        });
        if !counts {
            return Err(failed(RefreshError::new(Kind::WaitTimeout)));
        }
        let swapped = self.coordinator.swap(store, version, claimed).await;
        if swapped.map_err(failed)? == Swap::Conflict {
            self.coordinator
                .with(|inner, _| inner.peers.claims.discard(number));
            return Ok(false);
        }
        self.granted = Some(granted);
        self.coordinator.with(|inner, _| {
            if inner.state.counts(number) {
                inner.know(claimed.clone(), self.epoch());
            }
        });
        Ok(true)
    }

    /// How long a claim is for: with a lock nobody else looks at it, and it says how long the bytes may be
    /// under way.
    fn span(&self, has_lock: bool, limit: Duration) -> Duration {
        let settings = &self.coordinator.settings;
        match has_lock {
            true => limit + settings.store_timeout,
            false => settings.lease,
        }
    }

    /// Before each try: is there time left for it? Else the claim is renewed, unless somebody has taken
    /// this process for dead meanwhile.
    pub(super) async fn keep_turn(&mut self, limit: Duration) -> Result<(), Completion> {
        let Some(granted) = self.granted else {
            return Ok(());
        };
        let span = self.span(granted.has_lock, limit);
        let wanted = match granted.has_lock {
            true => limit,
            // For a renewal, which is two calls of a store that may be slow.
            false => span / 2,
        };
        if Instant::now() + wanted <= granted.until {
            return Ok(());
        }
        match self.renew_claim(span).await.map_err(failed)? {
            Some(until) => {
                self.granted = Some(Granted { until, ..granted });
                Ok(())
            }
            None => Err(failed(RefreshError::new(Kind::NotStarted))),
        }
    }

    /// While the issuer is waited for: renews the claim for as long as this is polled, so that nobody takes
    /// this process for dead. Where somebody has, or the store is away, there is nothing to be done but to
    /// wait for the answer.
    pub(super) async fn stay_alive(&self) -> Infallible {
        let Some(mut granted) = self.granted.filter(|granted| !granted.has_lock) else {
            return pending().await;
        };
        let span = self.coordinator.settings.lease;
        loop {
            let due = granted.until - span / 3 * 2;
            let rest = due.saturating_duration_since(Instant::now());
            let _: Option<()> = timeout(rest, pending()).await;
            match self.renew_claim(span).await {
                Ok(Some(until)) => granted.until = until,
                Ok(None) => return pending().await,
                Err(error) => {
                    say(|| {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the claim on the refresh token could not be renewed"
                        );
                    });
                    let _: Option<()> = timeout(span / 30, pending()).await;
                }
            }
        }
    }

    /// Until when it is ours now. `None` where somebody has taken it away.
    async fn renew_claim(&self, span: Duration) -> Result<Option<Instant>, RefreshError> {
        let coordinator = &self.coordinator;
        let Storage::Shared(store) = &coordinator.store else {
            return Ok(None);
        };
        let (claim, known) = {
            let inner = coordinator.lock();
            let claim = inner.peers.claims.of(self.start.number);
            (claim, inner.peers.known())
        };
        // Where this attempt was abandoned, it is not its own any more.
        let Some(claim) = claim.filter(|_| !seeded!(ClaimForgotten)) else {
            return Ok(None);
        };
        // The store's clock is read after this, so that we never think that there is more time.
        let mut began = Instant::now();
        let mut until = began;
        let renewed = coordinator.change(store, |found, now| {
            until = began + span;
            began = Instant::now();
            let renewed = lease::renew(found, &claim, now, span);
            renewed.or_else(|denied| match store.can_lose() {
                true => lease::claim_again(found, &known, &claim, now, span),
                false => Err(denied),
            })
        });
        match renewed.await? {
            Change::Done(record) => {
                coordinator.with(|inner, _| inner.know(record, self.epoch()));
                Ok(Some(until))
            }
            Change::Denied(..) => Ok(None),
        }
    }

    /// The attempt has brought no tokens, and is settled: it is the turn of others. Called with the gate held.
    pub(super) async fn give_turn_back(&self, is_refused: bool) {
        let Storage::Shared(store) = &self.coordinator.store else {
            return;
        };
        let number = self.start.number;
        let Some(claim) = self.coordinator.lock().peers.claims.of(number) else {
            return;
        };
        if is_refused {
            let refused = self
                .coordinator
                .change(store, |found, _| lease::refuse(found, &claim));
            if let Ok(Change::Done(record)) = refused.await {
                let epoch = self.epoch();
                self.coordinator.with(|inner, _| {
                    inner.peers.claims.discard(number);
                    inner.committed(record, epoch);
                });
                return;
            }
        }
        self.coordinator.with(|inner, _| inner.leave_claim(number));
        self.set_right().await;
    }

    /// The end is stored before it is told: somebody else may have stored newer tokens since they were
    /// looked for, and then there is none (P6).
    pub(super) async fn store_end(&self, completion: Completion) -> Completion {
        let Storage::Shared(store) = &self.coordinator.store else {
            return completion;
        };
        let (Completion::Ended(error) | Completion::Refused(error)) = &completion else {
            return completion;
        };
        let is_refused = matches!(completion, Completion::Refused(_));
        let number = self.start.number;
        let known = self.coordinator.with(|inner, now| {
            let ends = !is_refused || inner.state.ends_when_refused(now);
            (ends && inner.state.counts(number)).then(|| inner.peers.known())
        });
        let (Some(known), Some(reason)) = (known, error.end_reason()) else {
            return completion;
        };
        let ended = self
            .coordinator
            .change(store, |found, _| lease::end(found, &known, reason));
        match ended.await {
            Ok(Change::Denied(Denied::Superseded, found)) => match self.judge(&found) {
                Ok(Some(newer)) => Completion::Installed(Box::new(newer), true),
                Ok(None) => completion,
                Err(other) => other,
            },
            _ => completion,
        }
    }

    /// What a record means for this attempt: newer tokens, or another login.
    pub(super) fn judge(&self, found: &Record) -> Result<Option<Fetched>, Completion> {
        let settings = &self.coordinator.settings;
        self.coordinator.with(|inner, now| match inner.news(found) {
            News::Nothing => {
                if inner.state.counts(self.start.number) {
                    inner.know(found.clone(), self.epoch());
                    inner.drop_doubt(found);
                    // Or it would pass for one that the issuer has answered since.
                    if let Some(tokens) = found.tokens() {
                        inner.take_over_doubt(tokens, settings, now);
                    }
                }
                Ok(None)
            }
            News::Tokens(tokens) => Ok(Some(Fetched {
                tokens,
                from: From::Store,
                record: Some(found.clone()),
            })),
            News::Login | News::Over(_) => Err(Completion::TakenOver(Box::new(found.clone()))),
            News::Older => Err(failed(older())),
        })
    }

    /// Why the refresh token cannot be claimed.
    fn denied(&self, denied: Denied, found: &Record, now: SystemTime) -> Completion {
        match denied {
            Denied::InDoubt => {
                let settings = &self.coordinator.settings;
                self.coordinator.with(|inner, local| {
                    let now = Now {
                        wall: now,
                        ..*local
                    };
                    if let Some(tokens) = found.tokens() {
                        inner.take_over_doubt(tokens, settings, &now);
                    }
                });
                failed(RefreshError::new(Kind::OutcomeUnknown))
            }
            Denied::Refused => Completion::Refused(RefreshError::ended(EndReason::Refused)),
            Denied::ReadOnly => failed(read_only()),
            Denied::Busy { .. } | Denied::Superseded => failed(others_are_busy()),
        }
    }
}

fn others_are_busy() -> RefreshError {
    RefreshError::with_source(
        Kind::Store,
        "another process that shares the session is refreshing its token, and does not end",
    )
}
