//! What only the user does: log in, log out, adopt.
//!
//! Each counts at once, in memory and for everybody (P8). Its write to the store queues behind the
//! gate, in a task that no caller can drop half-way.

use std::sync::Arc;

use super::Admitted;
use super::Coordinator;
use super::Inner;
use super::Launch;
use super::Offer;
use super::Outcome;
use super::Running;
use super::lease::Denied;
use super::shared;
use super::shared::Change;
use super::shared::Storage;
use super::stats::count;
use super::storage::Detached;
use super::storage::no_answer;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::time::Now;
use crate::token::Stamp;
use crate::token::TokenSet;

impl Coordinator {
    /// See [`Session::login`](crate::Session::login).
    pub(crate) async fn login(self: &Arc<Self>, tokens: TokenSet) -> Outcome {
        let (previous, Launch { mut guard, gate }) = self.with(|inner, now| {
            let tokens = tokens.received(now);
            let start = inner.state.log_in(self.facts(&tokens, false, now), now);
            inner.put(&self.settings.attach, Some(tokens));
            inner.forget_login();
            inner.peers.replace_any(false, now);
            (inner.running.take(), inner.begin(self, start))
        });
        settle_replaced(previous, EndReason::Replaced);
        guard.watch();
        let this = self.clone();
        let saved = self.detached(async move {
            let _unsaved = this.sync_act_when_dropped(guard.epoch());
            // Whoever has ended this login by then writes.
            let is_current = |inner: &Inner| match inner.state.absence() {
                _ if inner.state.stamp().epoch == guard.epoch() => Ok(()),
                Some(error) => Err(error),
                None => Err(RefreshError::ended(EndReason::Replaced)),
            };
            let saved = this.write_behind(gate, is_current).await;
            guard.finish_login(saved.is_ok());
            this.watch_peers();
            saved
        });
        match saved.await {
            Detached::Done(saved) => saved,
            Detached::Gone => self.sync_once().await,
            Detached::Late => Err(no_answer()),
        }
    }

    /// See [`Session::logout`](crate::Session::logout).
    pub(crate) async fn logout(self: &Arc<Self>) -> Outcome {
        let (previous, gate, epoch) = self.with(|inner, now| {
            let ends = inner.state.log_out();
            // Whatever a shared store has by now is what the user logs out of, heard of or not.
            if ends || matches!(self.store, Storage::Shared(_)) {
                inner.put(&self.settings.attach, None);
            }
            inner.forget_login();
            inner.peers.replace_any(true, now);
            let epoch = inner.state.stamp().epoch;
            (inner.running.take(), inner.gate.clone(), epoch)
        });
        settle_replaced(previous, EndReason::LoggedOut);
        let this = self.clone();
        let cleared = self.detached(async move {
            let _uncleared = this.sync_act_when_dropped(epoch);
            // Unless there is a login by then. A logout that came after this one writes the same.
            let is_over = |inner: &Inner| match inner.state.absence() {
                Some(_) => Ok(()),
                None => Err(RefreshError::ended(EndReason::Replaced)),
            };
            let cleared = this.write_behind(gate, is_over).await;
            this.watch_peers();
            cleared
        });
        match cleared.await {
            // A login that came meanwhile has taken the logout's place: there is nothing to clear.
            Detached::Done(Err(error)) if error.is_session_ended() => Ok(()),
            Detached::Done(cleared) => cleared,
            Detached::Gone => self.sync_once().await,
            Detached::Late => Err(no_answer()),
        }
    }

    /// See [`Session::adopt`](crate::Session::adopt).
    pub(crate) async fn adopt(self: &Arc<Self>, tokens: TokenSet) -> Outcome {
        if self.is_reissuing_here() {
            return Err(RefreshError::new(Kind::WithinReissue));
        }
        // Kept from here on, before anything is waited for: the caller may have the only copy of a pair that the
        // issuer has rotated, and drop this. An attempt that needs a pair takes this one.
        let stamp = self.with(|inner, _| {
            let stamp = inner.state.stamp();
            inner.state.may_adopt(stamp.epoch)?;
            inner.offer = Some(Offer {
                stamp,
                tokens: tokens.clone(),
            });
            Ok(stamp)
        })?;
        let (this, offered) = (self.clone(), tokens.clone());
        let adopted = self.detached(async move {
            let _unsaved = this.sync_when_dropped();
            this.load_first().await?;
            let gate = this.with(|inner, _| inner.gate.clone());
            match this.enter(gate, this.settings.attempt).await {
                Ok(_permit) => this.adopt_now(stamp, offered).await,
                // Whoever has the gate is past all its deadlines.
                Err(error) => this.adopt_unsaved(stamp, offered, &error),
            }
        });
        match adopted.await {
            Detached::Done(adopted) => adopted,
            Detached::Gone | Detached::Late => {
                let _unsaved = self.sync_when_dropped();
                self.adopt_unsaved(stamp, tokens, &no_answer())
            }
        }
    }

    /// Waits until the store has been read for the first time, if it has not been yet.
    async fn load_first(self: &Arc<Self>) -> Outcome {
        if !self.lock().state.is_unloaded() {
            return Ok(());
        }
        match self.ask() {
            Admitted::Hold(ticket) => ticket.wait().await,
            Admitted::Refuse(error) => Err(error),
            Admitted::Go(..) | Admitted::Pass => Ok(()),
        }
    }

    /// Saves and installs tokens that were adopted when `stamp` was current, unless they are old
    /// news by now. To be called with the gate held.
    async fn adopt_now(&self, stamp: Stamp, tokens: TokenSet) -> Outcome {
        if !self.with(|inner, _| inner.wants(stamp, &tokens))? {
            return Ok(());
        }
        let (saved, record) = match &self.store {
            Storage::Own(store) => (self.save(&**store, &tokens).await, None),
            Storage::Shared(store) => match self.commit(store, &tokens).await {
                Ok(Change::Done(record)) => (Ok(()), Some(record)),
                Ok(Change::Denied(Denied::Superseded, found)) => {
                    // Another process has newer ones.
                    self.take_in(found, stamp.epoch);
                    return Ok(());
                }
                Ok(Change::Denied(..)) => (Err(shared::read_only()), None),
                Err(error) => (Err(error), None),
            },
        };
        self.with(|inner, now| {
            inner.state.may_adopt(stamp.epoch)?;
            self.install_adopted(inner, tokens, saved.is_ok(), now);
            if let Some(record) = record {
                inner.committed(record, stamp.epoch);
            }
            Ok(())
        })?;
        saved.map_err(|error| error.renamed(Kind::NotSaved))
    }

    /// Installs them without the gate, and leaves the save to the background.
    fn adopt_unsaved(&self, stamp: Stamp, tokens: TokenSet, why: &RefreshError) -> Outcome {
        self.with(|inner, now| {
            if inner.state.is_unloaded() {
                // They stay on offer: nobody can say yet whether the login that is stored is theirs.
                return Err(why.clone());
            }
            if !inner.wants(stamp, &tokens)? {
                return Ok(());
            }
            self.install_adopted(inner, tokens, false, now);
            Err(why.renamed(Kind::NotSaved))
        })
    }

    fn install_adopted(&self, inner: &mut Inner, tokens: TokenSet, saved: bool, now: &Now) {
        let facts = self.facts(&tokens, saved, now);
        inner.state.adopt(facts);
        inner.put(&self.settings.attach, Some(tokens));
        inner.written(saved);
        count(&self.counters.adopted);
    }
}

impl Inner {
    /// Are tokens that were offered when `stamp` was current to be adopted now? Not in place of some that the
    /// issuer has handed out since.
    fn wants(&mut self, stamp: Stamp, tokens: &TokenSet) -> Result<bool, RefreshError> {
        self.state.may_adopt(stamp.epoch)?;
        let wants = self.issued <= stamp.generation && self.is_news(tokens);
        if !wants {
            self.offer = None;
        }
        Ok(wants)
    }
}

pub(super) fn settle_replaced(running: Option<Running>, reason: EndReason) {
    if let Some(running) = running {
        running
            .outcome
            .send_replace(Some(Err(RefreshError::ended(reason))));
    }
}
