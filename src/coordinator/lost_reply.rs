//! What is done when the refresh token was sent and no answer came back.

use std::time::Duration;
use std::time::SystemTime;

use tokio::time::Instant;

use super::state::Doubt;
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
/// all, each sent inside the window, which is counted from the first time. An issuer that does not answer
/// is given up at four fifths of a window that is shorter than the
/// [`reissue_timeout`](crate::SessionBuilder::reissue_timeout), so that there is time for another try;
/// the last try always has all the time of a reissue. Nobody who waits notices more than the time it
/// takes. As long as the window is open, later attempts present it too, after the usual pause.
///
/// **Otherwise** the first request may still be on its way: were a second one served before it
/// arrives, it would be the reuse that ends the login. So the refresh token is *in doubt* and stays
/// unused for a [`quarantine`](Self::quarantine). Then the store is read again, and unless somebody
/// else has put newer tokens there, it is presented once more. Unanswered again, it stays in doubt and
/// the quarantine doubles, up to five minutes. That never ends a session; an answer does, one way or
/// the other.
///
/// The doubt is a part of the tokens ([`TokenSet::in_doubt`](crate::TokenSet::in_doubt)), which the
/// store keeps, and it is told to those who follow the [`SessionStatus`](crate::SessionStatus). Where
/// nothing was sent, which the ready-made reissuers can often tell, nothing is in doubt.
///
/// Do not guess a window: an issuer that has none ends the login at the second try.
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

    /// Whether an attempt may present its refresh token more than once.
    pub(crate) fn tries_again(&self) -> bool {
        self.grace.is_some()
    }

    /// The end of the issuer's grace window for a refresh token that was sent then.
    pub(super) fn open_until(&self, sent: Instant) -> Instant {
        sent + self.grace.unwrap_or_default()
    }

    /// How long it is left alone after so many attempts that brought no answer.
    pub(super) fn quarantined_for(&self, tries: u32) -> Duration {
        let first = self.quarantine.unwrap_or_default();
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1));
        let longer = first.saturating_mul(doubled.unwrap_or(u32::MAX));
        longer.min(MOST_QUARANTINE.max(first))
    }

    /// Is a refresh token with this doubt left alone then?
    pub(super) fn is_closed_at(&self, doubt: &InDoubt, now: SystemTime) -> bool {
        let instant = Instant::now();
        self.restored(doubt, &Now { instant, wall: now })
            .is_closed(instant)
    }

    /// A doubt that was read from a store, by the wall clock: whatever became of that meanwhile,
    /// the refresh token is left alone for no longer than it would have been at first.
    pub(super) fn restored(&self, doubt: &InDoubt, now: &Now) -> Doubt {
        let age = |at| now.wall.duration_since(at).ok();
        let quarantine = self.quarantined_for(doubt.tries);
        let left = quarantine.saturating_sub(age(doubt.since).unwrap_or_default());
        // Without a moment, or with one to come, nobody can say whether the window is open.
        let open = doubt.sent_at.and_then(age).zip(self.grace);
        let open = open.map(|(age, window)| window.saturating_sub(age));
        Doubt {
            open_until: now.instant + open.unwrap_or_default(),
            closed_until: now.instant + left,
        }
    }
}

impl Default for LostReply {
    fn default() -> Self {
        Self::strict()
    }
}

/// The tries of one attempt: several, where the issuer has a grace window that is open.
#[derive(Debug)]
pub(super) struct Tries {
    sent: u32,
    most: u32,
    began: Instant,
    /// For one try.
    limit: Duration,
    open_until: Instant,
    /// The first ones are given up then, so that another can be sent inside the window.
    cut: Option<Instant>,
}

impl Tries {
    const MOST: u32 = 3;

    /// `limit` is for one try. A refresh token in doubt was sent before, and its window is open until
    /// `open_until`.
    pub(super) fn new(
        policy: &LostReply,
        limit: Duration,
        now: Instant,
        open_until: Option<Instant>,
    ) -> Self {
        let open_until = open_until.unwrap_or_else(|| policy.open_until(now));
        let window = open_until.saturating_duration_since(now);
        let cut = window / 5 * 4;
        Self {
            sent: 0,
            most: if window.is_zero() { 1 } else { Self::MOST },
            began: now,
            limit,
            open_until,
            // A shorter time would give up issuers that only need their time.
            cut: (cut >= limit / 4).then_some(now + cut),
        }
    }

    /// The limit of the next try, if there is one. The last has all the time of a reissue: so an issuer
    /// that is slow gets to answer.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let is_over = self.sent > 0 && now >= self.open_until;
        if self.sent == self.most || is_over {
            return None;
        }
        self.sent += 1;
        let is_late = now.saturating_duration_since(self.began) >= self.limit / 2;
        if is_late || self.cut.is_some_and(|cut| now >= cut) {
            self.most = self.sent;
        }
        let rest = self.cut.map(|cut| cut.saturating_duration_since(now));
        Some(match rest {
            Some(rest) if self.sent < self.most => rest.min(self.limit),
            _ => self.limit,
        })
    }

    /// How long to wait before the next one, if there is one: the second is sent at once, the third
    /// may give an issuer that restarts a moment.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let rest = self.open_until.saturating_duration_since(now);
        match self.most - self.sent {
            0 => None,
            1 => Some((rest / 4).min(Duration::from_secs(1))),
            _ => Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn strict() -> LostReply {
        LostReply::strict().or_quarantine(seconds(10))
    }

    #[test]
    fn the_quarantine_doubles_up_to_five_minutes() {
        let pauses = [1, 2, 3, 5, 6, 40, u32::MAX];
        let pauses = pauses.map(|tries| strict().quarantined_for(tries).as_secs());
        assert_eq!(pauses, [10, 20, 40, 160, 300, 300, 300]);
        let long = strict().quarantine(seconds(1000));
        assert_eq!(long.quarantined_for(1), seconds(1000));
        assert_eq!(long.quarantined_for(9), seconds(1000));
    }

    /// What is left of the window, and of the quarantine.
    fn left(policy: LostReply, doubt: InDoubt, now: &Now) -> (Duration, Duration) {
        let doubt = policy.restored(&doubt, now);
        let left = |at: Instant| at.saturating_duration_since(now.instant);
        (left(doubt.open_until), left(doubt.closed_until))
    }

    // shows S22: a clock that jumps neither shortens a quarantine that has just begun nor makes one
    // that lasts for years.
    #[test]
    fn a_restored_doubt_waits_out_what_is_left_of_its_quarantine() {
        let now = Now::read();
        let year = seconds(365 * 24 * 3600);
        let left = |at| left(strict(), InDoubt::new(at, 2), &now).1;
        assert_eq!(left(now.wall), seconds(20));
        assert_eq!(left(now.wall - seconds(15)), seconds(5));
        assert_eq!(left(now.wall - seconds(25)), Duration::ZERO);
        assert_eq!(left(now.wall - 10 * year), Duration::ZERO);
        assert_eq!(left(now.wall + 10 * year), seconds(20));
        assert_eq!(left(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }

    #[test]
    fn a_restored_window_counts_from_the_first_time_it_was_sent() {
        let now = Now::read();
        let okta = LostReply::OKTA.or_quarantine(seconds(10));
        let doubt = InDoubt::new(now.wall - seconds(1), 1);
        let sent = |ago| doubt.with_sent_at(now.wall - seconds(ago));
        assert_eq!(left(okta, sent(12), &now), (seconds(18), seconds(9)));
        assert_eq!(left(okta, sent(30), &now), (Duration::ZERO, seconds(9)));
        assert_eq!(left(okta, doubt, &now), (Duration::ZERO, seconds(9)));
        let to_come = doubt.with_sent_at(now.wall + seconds(5));
        assert_eq!(left(okta, to_come, &now), (Duration::ZERO, seconds(9)));
        assert_eq!(left(strict(), sent(2), &now).0, Duration::ZERO);
    }

    #[test]
    fn without_a_window_there_is_one_try() {
        let now = Instant::now();
        let later = now + seconds(1);
        for open_until in [None, Some(now)] {
            let policy = if open_until.is_some() {
                LostReply::OKTA
            } else {
                strict()
            };
            let mut tries = Tries::new(&policy, seconds(10), now, open_until);
            assert_eq!(tries.next(later), Some(seconds(10)));
            assert_eq!((tries.pause(later), tries.next(later)), (None, None));
        }
    }

    #[test]
    fn three_tries_follow_each_other_fast_where_the_connection_breaks() {
        let now = Instant::now();
        let mut tries = Tries::new(&LostReply::SUPABASE, seconds(10), now, None);
        assert_eq!(tries.next(now), Some(seconds(8)));
        assert_eq!(tries.pause(now), Some(Duration::ZERO));
        assert_eq!(tries.next(now), Some(seconds(8)));
        assert_eq!(tries.pause(now), Some(seconds(1)));
        assert_eq!(tries.next(now + seconds(1)), Some(seconds(10)));
        assert_eq!(tries.next(now + seconds(2)), None);
    }

    #[test]
    fn after_a_silence_there_is_one_more_inside_the_window_with_all_the_time_of_a_reissue() {
        let now = Instant::now();
        for (policy, first) in [
            (LostReply::CONNECT2ID, 4),
            (LostReply::SUPABASE, 8),
            (LostReply::OKTA, 10),
        ] {
            let mut tries = Tries::new(&policy, seconds(10), now, None);
            assert_eq!(tries.next(now), Some(seconds(first)));
            let then = now + seconds(first);
            assert_eq!(tries.next(then), Some(seconds(10)), "{policy:?}");
            assert_eq!(tries.next(then + seconds(10)), None);
        }
        // Too short a window to give up anything for it.
        let mut tries = Tries::new(&LostReply::grace(seconds(2)), seconds(10), now, None);
        assert_eq!(tries.next(now), Some(seconds(10)));
        assert_eq!(tries.next(now + seconds(1)), Some(seconds(10)));
        assert_eq!(tries.next(now + seconds(2)), None, "the window is over");
    }

    #[test]
    fn the_window_of_a_token_in_doubt_does_not_begin_anew() {
        let now = Instant::now();
        let open_until = Some(now + seconds(5));
        let mut tries = Tries::new(&LostReply::OKTA, seconds(10), now, open_until);
        assert_eq!(tries.next(now), Some(seconds(4)));
        assert_eq!(tries.next(now + seconds(5)), None);
    }
}
