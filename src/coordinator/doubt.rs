//! Which refresh tokens may be spent, and which are: what is remembered of them beside the state.

use tokio::time::Instant;

use super::Inner;
use super::Settings;
use super::state::Doubt;
use crate::time::Now;
use crate::token::InDoubt;
use crate::token::RefreshToken;
use crate::token::TokenSet;

impl Inner {
    /// Has this login used this refresh token up, and got another for it?
    pub(super) fn is_spent(&self, token: &RefreshToken) -> bool {
        self.spent.contains(&token.fingerprint(&self.key))
    }

    /// The answer to what this attempt has sent is lost: its refresh token is in doubt from now on.
    /// `false` where there is nothing to doubt, or no more than before.
    pub(super) fn lose_reply(&mut self, number: u64, settings: &Settings, now: &Now) -> bool {
        let sent = self.sent.clone().filter(|(attempt, _)| *attempt == number);
        let (Some(tokens), Some((_, sent))) = (self.tokens.clone(), sent) else {
            return false;
        };
        let Some(asked) = self.state.lose_reply(number) else {
            return false;
        };
        let policy = &settings.lost_reply;
        let is_same = tokens.refresh_token().is_some_and(|ours| ours.same(&sent));
        let before = tokens.in_doubt().zip(self.state.doubt());
        let before = before.filter(|_| is_same);
        let age = now.instant.saturating_duration_since(asked);
        let (tries, sent_at, open_until) = match before {
            Some((stored, known)) => (
                stored.tries.saturating_add(1),
                stored.sent_at,
                known.open_until,
            ),
            None => (1, now.wall.checked_sub(age), policy.open_until(asked)),
        };
        let doubt = InDoubt {
            sent_at,
            ..InDoubt::new(now.wall, tries)
        };
        self.state.set_doubt(Some(Doubt {
            open_until,
            closed_until: now.instant + policy.quarantined_for(tries),
        }));
        self.state.mark_saved(false);
        // It may have come from the store, where the access token beside it was no good.
        let tokens = tokens.rotated(sent).with_in_doubt(doubt);
        self.put(&settings.attach, Some(tokens));
        true
    }

    /// The end of the grace window of this refresh token, if it is in doubt.
    pub(super) fn open_until(&self, token: &RefreshToken) -> Option<Instant> {
        let ours = self.tokens.as_ref()?.refresh_token()?;
        let doubt = self.state.doubt().filter(|_| ours.same(token))?;
        Some(doubt.open_until)
    }

    /// Somebody else has stored our own tokens with a doubt that we do not have. `true` where they
    /// are left alone for it.
    pub(super) fn take_over_doubt(
        &mut self,
        stored: &TokenSet,
        settings: &Settings,
        now: &Now,
    ) -> bool {
        let Some(ours) = self.tokens.as_ref().filter(|it| it.same_tokens(stored)) else {
            return false;
        };
        let tries = |tokens: &TokenSet| tokens.in_doubt().map_or(0, |doubt| doubt.tries);
        let Some(doubt) = stored.in_doubt().filter(|it| it.tries > tries(ours)) else {
            return false;
        };
        self.tokens = Some(ours.clone().with_in_doubt(doubt));
        let restored = settings.lost_reply.restored(&doubt, now);
        self.state.set_doubt(Some(restored));
        restored.is_closed(now.instant)
    }
}
