//! What the coordinator does with a store that several processes share: reads, compare-and-set, and
//! the rule that memory only ever moves on from the record it came from.
//!
//! That record is *known*. What is found later is judged against it ([`lease::news`]), and what is
//! written takes the place of what it says and of nothing newer.

use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::future::select;
use tokio::time::Instant;

use super::Coordinator;
use super::Inner;
use super::Outcome;
use super::claims::Claims;
use super::lease;
use super::lease::Denied;
use super::lease::News;
use super::login::settle_replaced;
use super::stats::count;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::say::say;
use crate::store::Claim;
use crate::store::DynSharedTokenStore;
use crate::store::DynTokenStore;
use crate::store::Record;
use crate::store::StoreLock;
use crate::store::Swap;
use crate::store::Turn;
use crate::store::epoch_at;
use crate::time::Now;
use crate::time::Skew;
use crate::time::timeout;
use crate::token::TokenSet;

/// A change is tried so often, where others change the record all the time.
const MOST_SWAPS: usize = 64;

/// So many swaps without an answer are remembered.
const MOST_UNANSWERED: usize = 32;

/// Between two looks at a store that says at once that something may have changed, or fails; and at one that
/// goes on showing an older record, at the most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After so long the store is read although nothing has been heard.
const LOOK: Duration = Duration::from_secs(30);

/// Clocks that agree so far are taken for the same, beside what an answer takes.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Where the tokens are kept.
pub(crate) enum Storage {
    /// For this process alone.
    Own(Box<dyn DynTokenStore>),
    /// For several.
    Shared(SharedStore),
}

pub(super) type SharedStore = Arc<dyn DynSharedTokenStore>;

/// What is remembered of the others who share the login.
#[derive(Default)]
pub(super) struct Peers {
    /// The record that memory comes from, and the login here that it belongs to.
    known: Option<(Record, u64)>,
    /// The newest that the store has shown, or was given, whether memory has come to it or not: what a store
    /// that can lose something is to have.
    newest: Option<Record>,
    /// The record's epoch that a login, logout or end of here takes the place of, once it is known.
    replaces: Option<u64>,
    /// The record's epoch that this process has stored last. Its answer may come when the user has logged in or out
    /// once more, which takes its place.
    stored: u64,
    /// The user has logged out, and the store was not told yet.
    logs_out: bool,
    /// When the user has logged in or out last.
    acted: Option<Now>,
    /// What the store held then could not be read: nobody waits for its being written any more.
    is_late: bool,
    /// Swaps of ours without an answer, from the last one on: they may be done, or be done yet.
    unanswered: VecDeque<Unanswered>,
    swaps: u64,
    /// What its attempts have claimed.
    pub(super) claims: Claims,
    /// The store's lock, and the attempt that took it.
    pub(super) lock: Option<(u64, StoreLock)>,
    watched: bool,
    /// Nobody follows the store any more: the next request sees to it.
    pub(super) deaf: bool,
    /// The store's clock against ours. It stays as it is where it may, so that a record that is read and
    /// written again keeps its times.
    skew: Skew,
}

/// A swap in place of this version. The login or end that it would store.
struct Unanswered {
    number: u64,
    version: u64,
    epoch: u64,
    tokens: Option<u64>,
}

/// What became of a change.
pub(super) enum Change {
    Done(Record),
    /// It is not for us to make it, as this record says.
    Denied(Denied, Record),
}

/// What the store is to be told.
enum Truth {
    /// The login of the known record goes on with these tokens.
    Commit(Record, TokenSet),
    End(Option<Record>, EndReason),
    Login(TokenSet),
    /// An attempt has left this claim, and brought no new token.
    Release(Claim, Option<TokenSet>),
    /// It knows already.
    Told,
}

impl Peers {
    /// The record that memory comes from.
    pub(super) fn known(&self) -> Record {
        let known = self.known.as_ref().map(|(record, _)| record.clone());
        known.unwrap_or_else(Record::empty)
    }

    /// Memory is in line with this record, in the login of this epoch.
    fn know(&mut self, record: Record, epoch: u64) {
        // Whoever has read it before a login was taken over speaks of the login before that.
        let is_less = |(known, its): &(Record, u64)| {
            *its > epoch || lease::is_before(&record, known) || lease::is_half_of(&record, known)
        };
        if !self.known.as_ref().is_some_and(is_less) {
            self.replaces = None;
            self.known = Some((record, epoch));
        }
    }

    fn see(&mut self, record: &Record) {
        let is_newer = |newest: &Record| {
            lease::is_before(newest, record) && !lease::is_half_of(record, newest)
        };
        if self.newest.as_ref().is_none_or(is_newer) {
            self.newest = Some(record.clone());
        }
    }

    /// A login or logout of here takes the place of whatever the store holds by then.
    pub(super) fn replace_any(&mut self, logs_out: bool, now: &Now) {
        self.replaces = None;
        self.is_late = false;
        self.logs_out = logs_out;
        self.acted = Some(*now);
    }
}

impl Inner {
    /// What this record says that memory does not.
    pub(super) fn news(&self, found: &Record) -> News {
        lease::news(&self.peers.known(), found)
    }

    /// Memory was in line with this record in the login of this epoch. A login that came since must
    /// not pass for the one that the record is of (P8).
    pub(super) fn know(&mut self, record: Record, epoch: u64) {
        self.peers.know(record, epoch);
    }

    /// The same, and this process has stored it: a claim that was left is not there any more.
    pub(super) fn committed(&mut self, record: Record, epoch: u64) {
        self.peers.claims.stored(&record);
        self.peers.stored = self.peers.stored.max(record.epoch);
        self.know(record, epoch);
    }

    /// Somebody else has heard from the issuer, and there is no doubt any more.
    pub(super) fn drop_doubt(&mut self, found: &Record) {
        if tries(found.tokens()) == 0 && tries(self.tokens.as_ref()) > 0 && !self.dirty {
            self.tokens = self.tokens.take().map(TokenSet::without_doubt);
            self.state.set_doubt(None);
        }
    }

    /// What a store that can lose something has lost, as this was found there.
    fn lost(&self, found: &Record) -> Option<Record> {
        let peers = &self.peers;
        let newest = peers.newest.as_ref()?;
        if lease::is_before(found, newest) {
            return Some(newest.clone());
        }
        // When it is over, it may be ours that is found.
        let running = self.running.as_ref().map(|running| running.start.number);
        let claim = peers.claims.of(running?)?;
        let (known, _) = peers.known.as_ref()?;
        lease::lacks(found, known, &claim).then(|| known.clone())
    }

    /// Whoever has logged in or out in this epoch is told what became of it, or is gone.
    pub(super) fn mark_late(&mut self, epoch: u64) {
        self.peers.is_late |= self.peers.replaces.is_none() && self.state.stamp().epoch == epoch;
    }

    fn begin_swap(&mut self, version: u64, record: &Record) -> u64 {
        let number = self.peers.swaps;
        self.peers.swaps += 1;
        self.peers.unanswered.truncate(MOST_UNANSWERED - 1);
        self.peers.unanswered.push_front(Unanswered {
            number,
            version,
            epoch: record.epoch,
            tokens: self.mark(record.tokens()),
        });
        number
    }

    /// Has this come of a swap of ours without an answer, for another login than this one?
    fn is_ours(&self, found: &Record, login: Option<&TokenSet>, can_lose: bool) -> bool {
        let (tokens, login) = (self.mark(found.tokens()), self.mark(login));
        self.peers.unanswered.iter().any(|it| {
            // Epochs are numbers that others take as well, unless they tell the time.
            let is_it = can_lose || it.tokens == tokens;
            let is_other = login.is_none() || it.tokens != login;
            it.epoch == found.epoch && it.version < found.version && is_it && is_other
        })
    }

    /// Has a swap of ours without an answer stored this very login, whatever became of its tokens since? To write
    /// it once more would take the turn away from another process that is using it.
    fn has_logged_in(&self, found: &Record, login: &TokenSet) -> bool {
        let login = self.mark(Some(login));
        let mut swaps = self.peers.unanswered.iter();
        swaps.any(|it| it.epoch == found.epoch && it.version < found.version && it.tokens == login)
    }

    /// May a login of ours yet take the place of this very record?
    fn is_awaited(&self, found: &Record) -> bool {
        let known = self.peers.known.as_ref();
        if known.is_some_and(|(known, _)| found.version < known.version) {
            // It has, since this was read: the answer of a slow read may be older than that of a write.
            return true;
        }
        let swaps = &self.peers.unanswered;
        swaps
            .iter()
            .any(|it| it.version == found.version && it.tokens.is_some())
    }

    fn mark(&self, tokens: Option<&TokenSet>) -> Option<u64> {
        tokens.map(|tokens| tokens.fingerprint(&self.key))
    }

    /// Is there a pair that the store does not have?
    pub(super) fn has_unsaved_pair(&self) -> bool {
        self.dirty && matches!(self.truth(), Truth::Commit(..))
    }

    fn truth(&self) -> Truth {
        let epoch = self.state.stamp().epoch;
        let known = self.peers.known.as_ref();
        let current = known.filter(|(_, its)| *its == epoch);
        if self.tokens.is_none() && self.peers.logs_out {
            return Truth::End(None, EndReason::LoggedOut);
        }
        match (&self.tokens, current) {
            (tokens, Some((known, _))) if lease::same_pair(tokens.as_ref(), known.tokens()) => {
                self.nothing_but_claims()
            }
            (Some(tokens), Some((known, _))) => Truth::Commit(known.clone(), tokens.clone()),
            (Some(tokens), None) => Truth::Login(tokens.clone()),
            (None, _) => match self.state.absence().and_then(|it| it.end_reason()) {
                Some(reason) => {
                    let known = known.map(|(known, _)| known.clone());
                    Truth::End(known, reason)
                }
                None => self.nothing_but_claims(),
            },
        }
    }

    fn nothing_but_claims(&self) -> Truth {
        match self.peers.claims.left() {
            Some(claim) => Truth::Release(claim, self.tokens.clone()),
            None => Truth::Told,
        }
    }
}

impl Coordinator {
    /// The record, and what time it is: all told by our clock. What the store has lost is written back.
    pub(super) async fn read(
        &self,
        store: &SharedStore,
    ) -> Result<(Record, SystemTime), RefreshError> {
        for _ in 0..MOST_SWAPS {
            let (found, now) = self.read_once(store).await?;
            let lost = self.with(|inner, _| inner.lost(&found));
            let Some(Ok(restored)) = lost.map(|newest| lease::restore(&found, &newest)) else {
                return Ok((found, now));
            };
            match self.swap_once(store, found.version, &restored).await {
                Some(Ok(Swap::Done)) => {
                    say(|| {
                        tracing::warn!(
                            "the token store has lost what was stored: it was written back"
                        );
                    });
                    return Ok((restored, now));
                }
                // It was older than what has been stored meanwhile, or somebody else was faster.
                Some(Ok(Swap::Conflict)) => {}
                // What is there must not be taken for what was: a login would take its place.
                Some(Err(error)) => return Err(error),
                None => return Err(super::storage::no_answer()),
            }
        }
        Err(too_fast())
    }

    async fn read_once(&self, store: &SharedStore) -> Result<(Record, SystemTime), RefreshError> {
        let began = Instant::now();
        // A user's code, so not under the lock.
        let can_lose = store.can_lose();
        let read = self.guarded(async { store.read().await });
        let (found, now) = read
            .await
            .unwrap_or_else(|| Err(super::storage::no_answer()))?;
        Ok(self.with(|inner, local| {
            let seen = Skew::between(now, local.wall);
            let kept = &mut inner.peers.skew;
            if !kept.is_near(&seen, TOLERANCE + began.elapsed()) {
                *kept = seen;
            }
            let skew = *kept;
            let found = found.by_clock(|time| skew.to_ours(time));
            if can_lose {
                inner.peers.see(&found);
            }
            (found, skew.to_ours(now))
        }))
    }

    async fn swap_once(
        &self,
        store: &SharedStore,
        version: u64,
        record: &Record,
    ) -> Option<Result<Swap, RefreshError>> {
        let skew = self.with(|inner, _| inner.peers.skew);
        let theirs = record.clone().by_clock(|time| skew.to_theirs(time));
        let swapped = self.guarded(async { store.swap(version, &theirs).await });
        let swapped = swapped.await;
        if store.can_lose() && matches!(swapped, Some(Ok(Swap::Done))) {
            self.with(|inner, _| inner.peers.see(record));
        }
        swapped
    }

    /// Reads the record, and puts what `judge` makes of it in its place.
    pub(super) async fn change(
        &self,
        store: &SharedStore,
        mut judge: impl FnMut(&Record, SystemTime) -> Result<Record, Denied>,
    ) -> Result<Change, RefreshError> {
        for _ in 0..MOST_SWAPS {
            let (found, now) = self.read(store).await?;
            let record = match judge(&found, now) {
                Ok(record) => record,
                Err(denied) => return Ok(Change::Denied(denied, found)),
            };
            if self.swap(store, found.version, &record).await? == Swap::Done {
                return Ok(Change::Done(record));
            }
        }
        Err(too_fast())
    }

    /// Where the answer is no answer, it is read back. One that has none is remembered, and so is one whose
    /// caller is gone.
    pub(super) async fn swap(
        &self,
        store: &SharedStore,
        version: u64,
        record: &Record,
    ) -> Result<Swap, RefreshError> {
        let number = self.with(|inner, _| inner.begin_swap(version, record));
        let swapped = self.swap_and_read_back(store, version, record).await;
        if swapped.is_ok() {
            self.with(|inner, _| inner.peers.unanswered.retain(|it| it.number != number));
        }
        swapped
    }

    async fn swap_and_read_back(
        &self,
        store: &SharedStore,
        version: u64,
        record: &Record,
    ) -> Result<Swap, RefreshError> {
        let error = match self.swap_once(store, version, record).await {
            Some(Ok(swap)) => return Ok(swap),
            Some(Err(error)) => error,
            None => super::storage::no_answer(),
        };
        let Ok((found, _)) = self.read_once(store).await else {
            return Err(error);
        };
        match found.version == version {
            true => Err(error),
            false if is_written(&found, record) => Ok(Swap::Done),
            false => Ok(Swap::Conflict),
        }
    }

    /// What the epoch of a login is at the least, if it comes about at this time.
    pub(super) fn least_epoch(&self, store: &SharedStore, now: SystemTime) -> u64 {
        match store.can_lose() {
            true => epoch_at(self.with(|inner, _| inner.peers.skew.to_theirs(now))),
            false => 0,
        }
    }

    /// How long ago the user has logged in or out.
    fn since_act(&self) -> Option<Duration> {
        self.with(|inner, local| {
            let acted = inner.peers.acted?;
            // One of these clocks stands still while the machine sleeps, and the other may be set.
            let slept = local.wall.duration_since(acted.wall).unwrap_or_default();
            Some(slept.max(local.instant.saturating_duration_since(acted.instant)))
        })
    }

    /// The epoch of what a login, or a logout, of here takes the place of: that of what was found when it came
    /// about, or of the time at which it did, and of whatever an earlier one of here has come to since.
    fn replaced(
        &self,
        store: &SharedStore,
        (found, acted): (&Record, Option<SystemTime>),
        login: Option<&TokenSet>,
        first: &mut Option<u64>,
    ) -> u64 {
        // Whatever has a later epoch came later, where epochs tell the time.
        let acted = acted.map_or(0, |acted| self.least_epoch(store, acted));
        let can_lose = store.can_lose();
        let inner = self.lock();
        let known = inner.peers.known.as_ref().map(|(known, _)| known.epoch);
        let there = match known {
            // Nobody can say what came first, but by the time, where epochs tell that.
            _ if inner.peers.is_late && can_lose => known.unwrap_or(0),
            Some(known) if inner.peers.is_late => known,
            _ => found.epoch,
        };
        // What came before it by the time may be lost at the moment, and be written back yet.
        let there = there.max(acted);
        let epoch = (*first.get_or_insert(there)).max(inner.peers.stored);
        match inner.is_ours(found, login, can_lose) {
            true => epoch.max(found.epoch),
            false => epoch,
        }
    }

    /// Puts these tokens in the place of those they come from. Memory does not have them yet.
    pub(super) async fn commit(
        &self,
        store: &SharedStore,
        tokens: &TokenSet,
    ) -> Result<Change, RefreshError> {
        let from = self.lock().peers.known();
        self.change(store, |found, _| lease::commit(found, &from, tokens))
            .await
    }

    /// Brings the shared store to the truth, or memory to what is newer there. To be called with the
    /// gate held.
    pub(super) async fn write_shared_truth(&self, store: &SharedStore) -> Outcome {
        let (truth, epoch, revision, mut replaces) = self.with(|inner, _| {
            let epoch = inner.state.stamp().epoch;
            (inner.truth(), epoch, inner.revision, inner.peers.replaces)
        });
        let login = match &truth {
            Truth::Login(tokens) => Some(tokens.clone()),
            _ => None,
        };
        let is_commit = matches!(truth, Truth::Commit(..));
        let is_logout = matches!(truth, Truth::End(_, EndReason::LoggedOut));
        let released = match &truth {
            Truth::Release(claim, _) => Some(*claim),
            _ => None,
        };
        // Measured before the store tells what time it is, so that an act is never from before it was one: in the
        // order of their times, whatever is told to be done comes before what begins after that.
        let since = self.since_act();
        let acted = |now: SystemTime| now.checked_sub(since?);
        let written = match truth {
            Truth::Commit(from, tokens) => {
                self.change(store, |found, _| lease::commit(found, &from, &tokens))
                    .await
            }
            Truth::End(Some(known), reason) if reason != EndReason::LoggedOut => {
                self.change(store, |found, _| lease::end(found, &known, reason))
                    .await
            }
            Truth::End(..) => {
                self.change(store, |found, now| {
                    self.is_act_to_be_stored(epoch)?;
                    let epoch = self.replaced(store, (found, acted(now)), None, &mut replaces);
                    let is_awaited = self.lock().is_awaited(found);
                    lease::log_out(found, epoch, is_awaited)
                })
                .await
            }
            Truth::Login(tokens) => {
                self.change(store, |found, now| {
                    self.is_act_to_be_stored(epoch)?;
                    if self.lock().has_logged_in(found, &tokens) {
                        return Err(Denied::Superseded);
                    }
                    let epoch =
                        self.replaced(store, (found, acted(now)), Some(&tokens), &mut replaces);
                    lease::login(found, epoch, &tokens)
                })
                .await
            }
            Truth::Release(claim, tokens) => {
                let ours = tries(tokens.as_ref());
                self.change(store, |found, now| {
                    // Told by the store's clock, as all others will read it.
                    match tries(found.tokens()) {
                        theirs if theirs < ours => lease::lose(found, &claim, now),
                        theirs => lease::release(found, &claim, ours == 0 && theirs > 0),
                    }
                })
                .await
            }
            Truth::Told => {
                self.told(None, released, epoch, revision);
                return Ok(());
            }
        };
        if replaces.is_some() {
            self.with(|inner, _| {
                if inner.state.stamp().epoch == epoch {
                    inner.peers.replaces = replaces;
                }
            });
        }
        let is_act = login.is_some() || is_logout;
        match written {
            Ok(Change::Done(record)) => {
                self.told(Some(record), released, epoch, revision);
                Ok(())
            }
            Ok(Change::Denied(..)) if is_act && self.is_act_to_be_stored(epoch).is_err() => Ok(()),
            Ok(Change::Denied(Denied::ReadOnly, _)) => Err(read_only()),
            Ok(Change::Denied(_, found)) if is_commit && self.is_older(&found) => Err(older()),
            // It was done when it was tried before, and the answer was lost.
            Ok(Change::Denied(_, found))
                if login.is_some() && lease::same_pair(found.tokens(), login.as_ref()) =>
            {
                self.told(Some(found), released, epoch, revision);
                Ok(())
            }
            Ok(Change::Denied(_, found)) if login.is_some() => {
                let there = found.epoch;
                if self.take_in(found, epoch) {
                    self.told(None, released, epoch, revision);
                    return Err(RefreshError::ended(EndReason::Replaced));
                }
                // Memory knew of that when the user logged in: the next try takes its place.
                self.with(|inner, _| {
                    if inner.state.stamp().epoch == epoch {
                        inner.peers.replaces = Some(there);
                    }
                });
                Err(too_fast())
            }
            Ok(Change::Denied(_, found)) => {
                self.told(None, released, epoch, revision);
                self.take_in(found, epoch);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Is the login or logout that this epoch began with still the latest here, and not stored yet? A write that was
    /// held up for long may find that another of ours has done it: to do it again would take a turn away from an
    /// attempt, or a login from another process.
    fn is_act_to_be_stored(&self, epoch: u64) -> Result<(), Denied> {
        let inner = self.lock();
        let is_stored = inner
            .peers
            .known
            .as_ref()
            .is_some_and(|(_, its)| *its == epoch);
        match inner.state.stamp().epoch == epoch && !is_stored {
            true => Ok(()),
            false => Err(Denied::Superseded),
        }
    }

    /// Is the record that memory comes from away, with an older one in its place or none?
    pub(super) fn is_older(&self, found: &Record) -> bool {
        matches!(self.lock().news(found), News::Older)
    }

    /// The store has the truth of that moment, and knows of this claim that was left.
    fn told(&self, record: Option<Record>, released: Option<Claim>, epoch: u64, revision: u64) {
        let unlocked = self.with(|inner, _| {
            if let Some(claim) = released {
                inner.peers.claims.discard_left(&claim);
            }
            if let Some(record) = record {
                // None of those before it is done any more.
                let version = record.version;
                inner.peers.unanswered.retain(|it| it.version >= version);
                inner.committed(record, epoch);
            }
            if inner.revision == revision {
                inner.peers.logs_out = false;
                inner.written(true);
                inner.state.mark_saved(true);
            }
            inner.take_unused_lock()
        });
        drop(unlocked);
    }

    /// Brings memory to what another process has stored, if it is still in the login of this epoch.
    /// `true` where that is another login, or the end of ours. To be called outside of an attempt, and
    /// with the gate held where it may be anything else.
    pub(super) fn take_in(&self, found: Record, epoch: u64) -> bool {
        let replaced = self.with(|inner, now| {
            if inner.state.stamp().epoch != epoch {
                inner.know(found, epoch);
                return None;
            }
            let is_over = inner
                .state
                .absence()
                .is_some_and(|it| it.end_reason().is_some());
            match inner.news(&found) {
                News::Older => return None,
                News::Nothing => {
                    if let Some(tokens) = found.tokens() {
                        inner.take_over_doubt(tokens, &self.settings, now);
                    }
                    inner.drop_doubt(&found);
                    inner.know(found, epoch);
                    return None;
                }
                News::Tokens(tokens) if !is_over => {
                    let facts = self.facts_of_fresh(&tokens, true, now);
                    inner.state.adopt(facts);
                    inner.put(&self.settings.attach, Some(tokens));
                    count(&self.counters.adopted);
                }
                News::Tokens(_) | News::Login => {
                    let running = inner.running.take();
                    self.take_over(inner, &found, now);
                    return Some((running, EndReason::Replaced));
                }
                News::Over(reason) => {
                    if !is_over {
                        let running = inner.running.take();
                        self.take_over(inner, &found, now);
                        return Some((running, reason));
                    }
                }
            }
            inner.written(true);
            inner.know(found, epoch);
            None
        });
        let Some((running, reason)) = replaced else {
            return false;
        };
        settle_replaced(running, reason);
        true
    }

    /// Another process has logged in, logged out, or seen the end: so has this one.
    fn take_over(&self, inner: &mut Inner, found: &Record, now: &Now) {
        let (token, error) = self.other_login(found, now);
        if inner.state.take_over(token, error) {
            count(&self.counters.ends);
        }
        self.put_other_login(inner, found);
    }

    /// What the state is told of a login, logout or end in another process.
    pub(super) fn other_login(
        &self,
        found: &Record,
        now: &Now,
    ) -> (Option<super::state::Token>, RefreshError) {
        let token = found.tokens().map(|tokens| self.facts(tokens, true, now));
        let reason = match found.turn {
            Turn::Ended(reason) => reason,
            _ => EndReason::Replaced,
        };
        (token, RefreshError::ended(reason))
    }

    /// The tokens of a login, logout or end in another process, when the state knows of it.
    pub(super) fn put_other_login(&self, inner: &mut Inner, found: &Record) {
        inner.put(&self.settings.attach, found.tokens().cloned());
        inner.forget_login();
        inner.written(true);
        let epoch = inner.state.stamp().epoch;
        inner.know(found.clone(), epoch);
    }

    /// Starts to follow what other processes store, where there is a runtime for it.
    pub(super) fn watch_peers(self: &Arc<Self>) {
        let (Storage::Shared(store), Some(runtime)) = (&self.store, self.runtime()) else {
            return;
        };
        let watched = self.with(|inner, _| {
            inner.peers.deaf = false;
            mem::replace(&mut inner.peers.watched, true)
        });
        if !watched {
            let coordinator = Arc::downgrade(self);
            let task = Watching { coordinator };
            drop(runtime.spawn(watch(store.clone(), task, self.gone())));
        }
    }

    /// Looks whether another process has stored something new. While a transaction is under way, which
    /// reads the store as well, only for another login or an end: as with those of here, nobody waits
    /// for it. `true` where the store holds an older record than it did before.
    async fn look(&self, store: &SharedStore) -> Result<bool, RefreshError> {
        let (gate, epoch) = self.with(|inner, _| (inner.gate.clone(), inner.state.stamp().epoch));
        let permit = gate.try_lock_owned();
        let (found, _) = self.read(store).await?;
        let (is_ours, is_older) = self.with(|inner, _| {
            // Whoever waits for the first look of all must not be told that this login is another.
            let is_loading = inner.peers.known.is_none() && inner.running.is_some();
            let news = inner.news(&found);
            let is_other = matches!(news, News::Login | News::Over(_));
            let is_ours = !inner.dirty && !is_loading && (permit.is_ok() || is_other);
            (is_ours, matches!(news, News::Older))
        });
        if is_ours {
            self.take_in(found, epoch);
        }
        Ok(is_older)
    }
}

impl Coordinator {
    /// The store is back: what could not be saved is wanted there before somebody takes its owner for
    /// dead. An attempt that is under way sees to that itself.
    async fn sync_now(&self) {
        let gate = self.with(|inner, _| inner.dirty.then(|| inner.gate.clone()));
        if let Some(Ok(_permit)) = gate.map(|gate| gate.try_lock_owned()) {
            // If it fails, there is a task that goes on trying.
            let _: Outcome = self.write_truth().await;
        }
    }
}

impl Inner {
    /// The lock of an attempt that is over, unless the store does not know yet what came of it.
    pub(super) fn take_unused_lock(&mut self) -> Option<StoreLock> {
        let running = self.running.as_ref().map(|running| running.start.number);
        let is_used = |number: u64| self.dirty || running == Some(number);
        if self
            .peers
            .lock
            .as_ref()
            .is_none_or(|(number, _)| is_used(*number))
        {
            return None;
        }
        self.peers.lock.take().map(|(_, lock)| lock)
    }
}

/// The task's that follows the store. Keeps no session alive.
struct Watching {
    coordinator: Weak<Coordinator>,
}

impl Drop for Watching {
    /// A task that ends with its runtime is started again by the next request.
    fn drop(&mut self) {
        if let Some(coordinator) = self.coordinator.upgrade() {
            coordinator.with(|inner, _| {
                inner.peers.watched = false;
                inner.peers.deaf = true;
            });
        }
    }
}

/// Ends at once when the session is dropped, whatever it waits for: a program that makes sessions all day
/// once had ten thousand such tasks, each waiting for its next look.
async fn watch(store: SharedStore, task: Watching, gone: impl Future<Output = ()>) {
    let mut gone = pin!(gone);
    let mut was_away = false;
    let mut pause = PAUSE;
    loop {
        let Some(coordinator) = task.coordinator.upgrade() else {
            return;
        };
        let version = coordinator.lock().peers.known().version;
        drop(coordinator);
        let changed = AssertUnwindSafe(async { store.changed(version).await }).catch_unwind();
        let heard = pin!(timeout(LOOK, changed));
        let panicked = match select(heard, &mut gone).await {
            Either::Left((heard, _)) => matches!(heard, Some(Err(_))),
            Either::Right(_) => return,
        };
        let Some(coordinator) = task.coordinator.upgrade() else {
            return;
        };
        let seen = coordinator.look(&store).await;
        let is_away = seen.is_err();
        if mem::replace(&mut was_away, is_away) && !is_away {
            coordinator.sync_now().await;
        }
        let moved = coordinator.lock().peers.known().version != version;
        drop(coordinator);
        match seen {
            Ok(true) => {
                if pause == PAUSE {
                    say(|| {
                        tracing::warn!("the token store holds an older record than it did before");
                    });
                }
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            _ => pause = PAUSE,
        }
        let pauses = panicked || is_away || !moved;
        if pauses && timeout(pause, &mut gone).await.is_some() {
            return;
        }
    }
}

/// How many attempts in a row have lost their answer.
fn tries(tokens: Option<&TokenSet>) -> u32 {
    tokens
        .and_then(TokenSet::in_doubt)
        .map_or(0, |doubt| doubt.tries)
}

/// Is this the record that was to be written?
fn is_written(found: &Record, record: &Record) -> bool {
    let same_turn = match (found.turn, record.turn) {
        (Turn::Sent(found), Turn::Sent(record)) => found.is_of(&record),
        (found, record) => found == record,
    };
    same_turn
        && (found.version, found.epoch) == (record.version, record.epoch)
        && lease::same_pair(found.tokens(), record.tokens())
}

fn too_fast() -> RefreshError {
    let why = "the record of the session changes faster than it can be written";
    RefreshError::with_source(Kind::Store, why)
}

pub(super) fn older() -> RefreshError {
    RefreshError::with_source(
        Kind::Store,
        "the token store holds an older record than it did before, or none any more: log in again, or \
         put the newer one back",
    )
}

pub(super) fn read_only() -> RefreshError {
    RefreshError::with_source(
        Kind::Store,
        "a newer version of this crate has written the record of the session, and this one only \
         reads it",
    )
}
