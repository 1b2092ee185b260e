//! What is done when the refresh token was sent and no answer came back.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Now;
use crate::token::InDoubt;

/// The longest quarantine, unless the first one is longer already.
const MOST_QUARANTINE: Duration = Duration::from_secs(300);

/// What to do when a reissue was sent and no answer came that could be used: a connection that broke,
/// a deadline, half an answer, a 500. The issuer may have replaced the refresh token, and the
/// new one is lost.
///
/// There are only two things left to try, and which of them is right depends on the issuer. One
/// that rotates refresh tokens takes each of them once; many accept the one before for some more
/// seconds, so that a client that lost an answer can ask again (a *grace* window), and the others take
/// a second use for theft and end the login on all devices ([`strict`](Self::strict), unless set).
///
/// | issuer | documented window | what to give |
/// |---|---|---|
/// | Okta | 30 s unless configured, 0 to 60 s | [`OKTA`](Self::OKTA) |
/// | WorkOS | 30 s, in which the same pair comes back | [`WORKOS`](Self::WORKOS) |
/// | Supabase Auth | 10 s unless configured | [`SUPABASE`](Self::SUPABASE) |
/// | Connect2id | 5 s unless configured | [`CONNECT2ID`](Self::CONNECT2ID) |
/// | Curity | none unless configured | [`CURITY`](Self::CURITY) |
/// | Keycloak | none unless configured (where refresh tokens are revoked at all) | [`KEYCLOAK`](Self::KEYCLOAK) |
/// | Auth0, AWS Cognito, Ory Hydra and others | as configured there | [`grace`](Self::grace) with that time |
///
/// **Within a grace window** the same refresh token is presented again at once, up to three times in
/// all, and each of these is sent inside the window and inside the
/// [`reissue_timeout`](crate::SessionBuilder::reissue_timeout). Nobody who waits notices more than the
/// time it takes.
///
/// **Otherwise** the first request may still be on its way: were a second one served before it
/// arrives, it would be the reuse that ends the login. So the refresh token is *in doubt* and stays
/// unused for a [`quarantine`](Self::quarantine). Then the store is read again, and unless somebody else has put newer tokens
/// there, it is presented once more. Unanswered again, it stays in doubt and the quarantine doubles, up to five
/// minutes. That never ends a session; an answer does, one way or the other.
///
/// The doubt is a part of the tokens ([`TokenSet::in_doubt`](crate::TokenSet::in_doubt)), which the store
/// keeps, and it is told to those who follow the
/// [`SessionStatus`](crate::SessionStatus). Where nothing was sent, which the ready-made reissuers can often tell,
/// nothing is in doubt.
///
/// ```
/// use std::time::Duration;
/// use tower_token_refresh::{LostReply, ReissueError, Session, reissue_fn};
///
/// # fn main() -> Result<(), tower_token_refresh::ConfigError> {
/// # let issuer = reissue_fn(|_| async { Err(ReissueError::refused("no")) });
/// let session = Session::builder(issuer)
///     .lost_reply(LostReply::grace(Duration::from_secs(20)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostReply {
    grace: Option<Duration>,
    /// The reissue's own deadline unless set.
    quarantine: Option<Duration>,
}

impl LostReply {
    /// Connect2id server: 5 s, unless it is configured otherwise.
    pub const CONNECT2ID: Self = Self::grace(Duration::from_secs(5));
    /// Curity Identity Server: no window, unless it is configured otherwise.
    pub const CURITY: Self = Self::strict();
    /// Keycloak with *revoke refresh token*: no window (*refresh token max reuse* is 0), unless it is configured otherwise.
    pub const KEYCLOAK: Self = Self::strict();
    /// Okta with rotation: 30 s, unless the application is configured otherwise.
    pub const OKTA: Self = Self::grace(Duration::from_secs(30));
    /// Supabase Auth: 10 s, unless the project is configured otherwise.
    pub const SUPABASE: Self = Self::grace(Duration::from_secs(10));
    /// WorkOS: 30 s.
    pub const WORKOS: Self = Self::grace(Duration::from_secs(30));

    /// A second use of a refresh token may end the login. This is assumed unless set.
    #[must_use]
    pub const fn strict() -> Self {
        Self {
            grace: None,
            quarantine: None,
        }
    }

    /// For so long after its use, the issuer takes a refresh token again.
    #[must_use]
    pub const fn grace(window: Duration) -> Self {
        Self {
            grace: Some(window),
            quarantine: None,
        }
    }

    /// How long a refresh token in doubt is not presented again: at least as long as a request can take to
    /// arrive and be processed after it was given up. As long as the
    /// [`reissue_timeout`](crate::SessionBuilder::reissue_timeout) unless set.
    #[must_use]
    pub const fn quarantine(mut self, time: Duration) -> Self {
        self.quarantine = Some(time);
        self
    }

    /// The durations that were set, by name.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let grace = self.grace.map(|it| ("the grace window of lost_reply", it));
        let quarantine = self.quarantine;
        let quarantine = quarantine.map(|it| ("the quarantine of lost_reply", it));
        grace.into_iter().chain(quarantine)
    }

    /// With the deadline of a reissue as its quarantine, unless one was set.
    pub(crate) fn or_quarantine(self, deadline: Duration) -> Self {
        let quarantine = self.quarantine.or(Some(deadline));
        Self { quarantine, ..self }
    }

    /// How long all tries of one attempt may take together, where there may be several.
    fn tries_within(&self, reissue_timeout: Duration) -> Option<Duration> {
        self.grace.map(|window| window.min(reissue_timeout))
    }

    /// Until when a refresh token in doubt is left alone. `asked` is when it was first sent in the
    /// attempt that has just been lost.
    pub(super) fn until(&self, doubt: &InDoubt, asked: Instant, now: &Now) -> Instant {
        let age = now.instant.saturating_duration_since(asked);
        now.instant + self.pause(doubt.tries, age)
    }

    /// The same for a doubt that was read from a store, by the wall clock: whatever became of that
    /// meanwhile, it is not left alone for longer than it would have been at first.
    pub(super) fn until_restored(&self, doubt: &InDoubt, now: &Now) -> Instant {
        let age = now.wall.duration_since(doubt.since).unwrap_or_default();
        now.instant + self.pause(doubt.tries, age).saturating_sub(age)
    }

    fn pause(&self, tries: u32, age: Duration) -> Duration {
        if tries <= 1 && self.grace.is_some_and(|window| age < window) {
            return Duration::ZERO;
        }
        let first = self.quarantine.unwrap_or_default();
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1));
        let longer = first.saturating_mul(doubled.unwrap_or(u32::MAX));
        longer.min(MOST_QUARANTINE.max(first))
    }
}

impl Default for LostReply {
    fn default() -> Self {
        Self::strict()
    }
}

/// The tries of one attempt inside a grace window.
#[derive(Debug)]
pub(super) struct Tries {
    left: u32,
    deadline: Instant,
}

impl Tries {
    const MOST: u32 = 3;

    /// `limit` is for all of them together.
    pub(super) fn new(policy: &LostReply, reissue_timeout: Duration, now: Instant) -> Self {
        let shared = policy.tries_within(reissue_timeout);
        Self {
            left: shared.map_or(1, |_| Self::MOST),
            deadline: now + shared.unwrap_or(reissue_timeout),
        }
    }

    /// The limit of the next try: each but the last leaves half of the time to those after it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let rest = self.deadline.saturating_duration_since(now);
        self.left = self.left.checked_sub(1)?;
        (!rest.is_zero()).then(|| match self.left {
            0 => rest,
            _ => rest / 2,
        })
    }

    /// How long to wait before the next one, if there is one: the second is sent at once, the third
    /// may give an issuer that restarts a moment.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let rest = self.deadline.saturating_duration_since(now);
        match self.left {
            0 => None,
            1 => Some((rest / 4).min(Duration::from_secs(1))),
            _ => Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn strict() -> LostReply {
        LostReply::strict().or_quarantine(seconds(10))
    }

    fn doubt(now: &Now, tries: u32) -> InDoubt {
        InDoubt::new(now.wall, tries)
    }

    fn left(policy: LostReply, tries: u32, asked_ago: u64) -> Duration {
        let now = Now::read();
        let asked = now.instant;
        let now = Now {
            instant: asked + seconds(asked_ago),
            wall: now.wall,
        };
        policy.until(&doubt(&now, tries), asked, &now) - now.instant
    }

    #[test]
    fn the_quarantine_doubles_up_to_five_minutes() {
        let pauses = [1, 2, 3, 5, 6, 40, u32::MAX].map(|tries| left(strict(), tries, 0).as_secs());
        assert_eq!(pauses, [10, 20, 40, 160, 300, 300, 300]);
        let long = strict().quarantine(seconds(1000));
        assert_eq!(left(long, 1, 0), seconds(1000));
        assert_eq!(left(long, 9, 0), seconds(1000));
    }

    #[test]
    fn inside_a_grace_window_there_is_no_quarantine_and_after_it_there_is() {
        let grace = LostReply::OKTA.or_quarantine(seconds(10));
        assert_eq!(left(grace, 1, 29), Duration::ZERO);
        assert_eq!(left(grace, 1, 30), seconds(10));
        assert_eq!(left(grace, 2, 1), seconds(20));
    }

    // shows S22: a clock that jumps neither shortens a quarantine that has just begun nor makes one
    // that lasts for years.
    #[test]
    fn a_restored_doubt_waits_out_what_is_left_of_its_quarantine() {
        let now = Now::read();
        let year = seconds(365 * 24 * 3600);
        let since = |at| InDoubt::new(at, 2);
        let left = |at| strict().until_restored(&since(at), &now) - now.instant;
        assert_eq!(left(now.wall), seconds(20));
        assert_eq!(left(now.wall - seconds(15)), seconds(5));
        assert_eq!(left(now.wall - seconds(25)), Duration::ZERO);
        assert_eq!(left(now.wall - 10 * year), Duration::ZERO);
        assert_eq!(left(now.wall + 10 * year), seconds(20));
        assert_eq!(left(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }

    #[test]
    fn there_is_one_try_or_there_are_three_that_share_the_time() {
        let now = Instant::now();
        let mut tries = Tries::new(&strict(), seconds(10), now);
        assert_eq!(tries.next(now), Some(seconds(10)));
        assert_eq!((tries.pause(now), tries.next(now)), (None, None));

        let mut tries = Tries::new(&LostReply::SUPABASE, seconds(12), now);
        assert_eq!(tries.next(now), Some(seconds(5)));
        assert_eq!(tries.pause(now), Some(Duration::ZERO));
        assert_eq!(tries.next(now + seconds(4)), Some(seconds(3)));
        assert_eq!(tries.pause(now + seconds(8)), Some(seconds(2) / 4));
        assert_eq!(tries.next(now + seconds(8)), Some(seconds(2)));
        assert_eq!(tries.next(now + seconds(8)), None);

        let mut tries = Tries::new(&LostReply::SUPABASE, seconds(12), now);
        assert_eq!(tries.next(now + seconds(10)), None, "the window is over");
    }
}
