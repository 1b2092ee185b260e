//! The secrets: what the user hands over at login and the issuer hands out afterwards.
//!
//! A token is checked when it is made, so that nothing later can fail on it or smuggle a second
//! header into a request, and it is wiped from its buffer when the last clone is dropped. How far
//! the wiping goes: the buffers of this crate. What the HTTP client copies while sending, what was
//! left where the caller built the string, and pages the system swapped out are beyond it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::time::Due;
use crate::time::Now;

/// So long after its issue a token may be unknown to some server: not every one has it at once.
const SETTLING: Duration = Duration::from_secs(5);

/// What a request carried when it was sent: the number of the login and of the access token in
/// this process. Never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
}

/// A text that is no token. The message names what is wrong with it and quotes none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidToken {
    what: &'static str,
    why: &'static str,
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.what, self.why)
    }
}

impl Error for InvalidToken {}

impl From<Infallible> for InvalidToken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Visible ASCII only. RFC 6749 appendices A.12 and A.17 would allow spaces as well; RFC 6750
/// section 2.1 does not, and no issuer uses them.
fn check(what: &'static str, text: &str) -> Result<(), InvalidToken> {
    let why = if text.is_empty() {
        "is empty"
    } else if text.bytes().any(|byte| !byte.is_ascii()) {
        "contains a character that is not ASCII"
    } else if text.bytes().any(|byte| byte.is_ascii_control()) {
        "contains a control character, such as a line break"
    } else if text.contains(' ') {
        "contains a space"
    } else {
        return Ok(());
    };
    Err(InvalidToken { what, why })
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            text: Arc<Zeroizing<String>>,
        }

        impl $name {
            /// Checks the text and takes it over.
            ///
            /// # Errors
            ///
            /// When it is empty, or holds anything but visible ASCII characters.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidToken> {
                let text = Zeroizing::new(text.into());
                check($what, &text)?;
                Ok(Self { text: Arc::new(text) })
            }

            /// The secret itself. Whoever writes this into a log has published it.
            #[must_use]
            pub fn expose(&self) -> &str {
                &self.text
            }

            /// Compares without stopping at the first difference.
            #[must_use]
            pub(crate) fn same(&self, other: &Self) -> bool {
                let (ours, theirs) = (self.text.as_bytes(), other.text.as_bytes());
                let differences = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
                ours.len() == theirs.len() && std::hint::black_box(differences) == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidToken;

            fn try_from(text: &str) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidToken;

            fn try_from(text: String) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }
    };
}

secret! {
    /// The token that opens the API: it stands in the header of each request.
    AccessToken, "access token"
}

secret! {
    /// The token that buys new ones from the issuer, and goes nowhere else.
    RefreshToken, "refresh token"
}

impl RefreshToken {
    /// A mark to recognise it by, of no use to anybody without the key.
    pub(crate) fn fingerprint(&self, key: &RandomState) -> u64 {
        key.hash_one(self.expose())
    }
}

/// One login's tokens: what the issuer handed out together.
///
/// ```
/// use std::time::Duration;
/// use tower_token_refresh::TokenSet;
///
/// # fn main() -> Result<(), tower_token_refresh::InvalidToken> {
/// let tokens = TokenSet::new("the-access-token")?
///     .with_refresh_token("the-refresh-token")?
///     .with_expires_in(Duration::from_secs(900))
///     .with_identity("id", "7");
/// assert!(!format!("{tokens:?}").contains("the-access-token"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenSet {
    access_token: AccessToken,
    refresh_token: Option<RefreshToken>,
    identity: BTreeMap<String, Value>,
    obtained: Now,
    expires_in: Option<Duration>,
    expires_at: Option<SystemTime>,
    in_doubt: Option<InDoubt>,
}

/// The refresh token of a set was sent to the issuer, and no answer came that could be used: nobody
/// can say whether it is spent.
///
/// A store keeps this with the tokens, so that a program which is started again does not present the
/// refresh token sooner than the one before it would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InDoubt {
    /// When the last attempt was given up, by the wall clock.
    pub since: SystemTime,
    /// How many attempts in a row brought no answer: 1 or more.
    pub tries: u32,
    /// When the first of them sent it, if that is known: what a grace window counts from.
    pub sent_at: Option<SystemTime>,
}

impl InDoubt {
    /// What a store has kept.
    #[must_use]
    pub fn new(since: SystemTime, tries: u32) -> Self {
        let tries = tries.max(1);
        Self {
            since,
            tries,
            sent_at: None,
        }
    }

    /// With the moment when it was first sent.
    #[must_use]
    pub fn with_sent_at(mut self, at: SystemTime) -> Self {
        self.sent_at = Some(at);
        self
    }
}

impl TokenSet {
    /// A set of an access token alone. It counts as received now.
    ///
    /// # Errors
    ///
    /// When the text is no token: see [`AccessToken::new`].
    pub fn new<T>(access_token: T) -> Result<Self, InvalidToken>
    where
        T: TryInto<AccessToken, Error: Into<InvalidToken>>,
    {
        Ok(Self {
            access_token: access_token.try_into().map_err(Into::into)?,
            refresh_token: None,
            identity: BTreeMap::new(),
            obtained: Now::read(),
            expires_in: None,
            expires_at: None,
            in_doubt: None,
        })
    }

    /// Adds the refresh token.
    ///
    /// # Errors
    ///
    /// When the text is no token: see [`RefreshToken::new`].
    pub fn with_refresh_token<T>(mut self, refresh_token: T) -> Result<Self, InvalidToken>
    where
        T: TryInto<RefreshToken, Error: Into<InvalidToken>>,
    {
        self.refresh_token = Some(refresh_token.try_into().map_err(Into::into)?);
        Ok(self)
    }

    /// The access token's lifetime, counted from when this set was made (`expires_in` of RFC 6749
    /// section 5.1). Preferred over a time of day, as it needs no agreement of clocks.
    #[must_use]
    pub fn with_expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }

    /// When the access token expires, by the wall clock. Ignored where
    /// [`with_expires_in`](Self::with_expires_in) is given too.
    #[must_use]
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Adds what some issuers want to know of the user beside the refresh token, such as `id` or
    /// `email`. Not secret: it is shown by `Debug`. The stores of this crate keep up to 64 KiB of it, names
    /// and values together.
    #[must_use]
    pub fn with_identity(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.identity.insert(name.into(), value.into());
        self
    }

    /// Marks the refresh token as one that may be spent. For stores, which restore what they have
    /// saved.
    #[must_use]
    pub fn with_in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.in_doubt = Some(in_doubt);
        self
    }

    /// When the set was received, by the wall clock, in place of now. For stores, which restore what
    /// they have saved. A time to come counts as now.
    #[must_use]
    pub fn with_obtained_at(mut self, at: SystemTime) -> Self {
        let now = Now::read();
        let age = now.wall.duration_since(at).unwrap_or_default();
        self.obtained = Now {
            instant: now.instant.checked_sub(age).unwrap_or(now.instant),
            wall: now.wall - age,
        };
        self
    }

    /// The token that stands in the header of each request.
    #[must_use]
    pub fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// The token that buys new ones, if the issuer gave one.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    /// When the access token expires by the wall clock, if that is known.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        match self.expires_in {
            Some(lifetime) => self.obtained.wall.checked_add(lifetime),
            None => self.expires_at,
        }
    }

    /// When the set was received, by the wall clock.
    #[must_use]
    pub fn obtained_at(&self) -> SystemTime {
        self.obtained.wall
    }

    /// Whether the refresh token may be spent, as an answer of the issuer was lost.
    #[must_use]
    pub fn in_doubt(&self) -> Option<InDoubt> {
        self.in_doubt
    }

    /// What is known of the user, by name.
    #[must_use]
    pub fn identity(&self) -> &BTreeMap<String, Value> {
        &self.identity
    }

    /// A rotated refresh token replaces the old one, an absent one keeps it (RFC 6749 section 6);
    /// so does the identity.
    pub(crate) fn inherit(mut self, old: &Self) -> Self {
        self.refresh_token = self.refresh_token.or_else(|| old.refresh_token.clone());
        if self.identity.is_empty() {
            self.identity.clone_from(&old.identity);
        }
        self
    }

    /// The old access token under a new refresh token.
    pub(crate) fn rotated(&self, refresh_token: RefreshToken) -> Self {
        Self {
            refresh_token: Some(refresh_token),
            in_doubt: None,
            ..self.clone()
        }
    }

    /// The same, as the issuer has answered since.
    pub(crate) fn without_doubt(mut self) -> Self {
        self.in_doubt = None;
        self
    }

    /// The same without a refresh token.
    pub(crate) fn without_refresh_token(mut self) -> Self {
        self.refresh_token = None;
        self
    }

    /// A mark to recognise these tokens by, of no use to anybody without the key.
    pub(crate) fn fingerprint(&self, key: &RandomState) -> u64 {
        let refresh_token = self.refresh_token.as_ref().map(RefreshToken::expose);
        key.hash_one((self.access_token.expose(), refresh_token))
    }

    /// As far as both say whose they are.
    pub(crate) fn same_user(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.identity, &other.identity);
        ours.is_empty() || theirs.is_empty() || ours == theirs
    }

    pub(crate) fn same_tokens(&self, other: &Self) -> bool {
        let same_refresh = match (&self.refresh_token, &other.refresh_token) {
            (Some(ours), Some(theirs)) => ours.same(theirs),
            (None, None) => true,
            _ => false,
        };
        self.access_token.same(&other.access_token) & same_refresh
    }

    /// The same with its times told by another wall clock.
    pub(crate) fn by_clock(mut self, to: impl Fn(SystemTime) -> SystemTime) -> Self {
        self.obtained.wall = to(self.obtained.wall);
        self.expires_at = self.expires_at.map(&to);
        self.in_doubt = self.in_doubt.map(|doubt| InDoubt {
            since: to(doubt.since),
            sent_at: doubt.sent_at.map(&to),
            ..doubt
        });
        self
    }

    /// As if it had come then.
    #[cfg(test)]
    pub(crate) fn obtained(mut self, now: &Now) -> Self {
        self.obtained = *now;
        self
    }

    /// A clock that is wrong must not make a token that has just come look dead: an expiry that is
    /// already past at receipt is dropped, so that the token is sent at least once.
    pub(crate) fn received(mut self, now: &Now) -> Self {
        self.expires_in = self.expires_in.filter(|lifetime| !lifetime.is_zero());
        self.expires_at = self.expires_at.filter(|at| *at > now.wall);
        self
    }

    /// When it expires and when a refresh `ahead` of that is due. The window ahead is never more
    /// than half the lifetime, so that a short-lived token cannot loop. Without `ahead` the server
    /// decides alone.
    pub(crate) fn lifetime(&self, ahead: Option<Duration>, now: &Now) -> Lifetime {
        let Some((expires, stated)) = self.expiry(now) else {
            return Lifetime::UNKNOWN;
        };
        let lived_out = (stated >= Duration::from_secs(1)).then_some(expires);
        match ahead {
            None => Lifetime {
                lived_out,
                ..Lifetime::UNKNOWN
            },
            Some(ahead) => Lifetime {
                ahead: expires.earlier_by(ahead.min(stated / 2)),
                expires,
                lived_out,
            },
        }
    }

    /// Until when a server may not know it yet, as it was received a moment ago. By the wall clock, for
    /// it may have been received in another process.
    pub(crate) fn settles(&self, now: &Now) -> Instant {
        let stated = self.expiry(now).map(|(_, stated)| stated);
        let most = stated.map_or(SETTLING, |stated| SETTLING.min(stated / 2));
        let age = now.wall.duration_since(self.obtained.wall);
        now.instant + most.saturating_sub(age.unwrap_or_default())
    }

    fn expiry(&self, now: &Now) -> Option<(Due, Duration)> {
        if let Some(lifetime) = self.expires_in {
            let due = Due {
                instant: self.obtained.instant.checked_add(lifetime),
                wall: self.obtained.wall.checked_add(lifetime),
            };
            return Some((due, lifetime));
        }
        let at = self.expires_at?;
        let left = at.duration_since(now.wall).unwrap_or_default();
        let stated = at.duration_since(self.obtained.wall).unwrap_or_default();
        let due = Due {
            instant: now.instant.checked_add(left),
            wall: Some(at),
        };
        Some((due, stated))
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("access_token", &self.access_token)
            .field("refresh_token", &self.refresh_token)
            .field("identity", &self.identity)
            .field("expires_at", &self.expires_at())
            .field("in_doubt", &self.in_doubt)
            .finish_non_exhaustive()
    }
}

/// An access token's times, as the coordinator uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// From here on it is refreshed in the background.
    pub(crate) ahead: Due,
    /// From here on requests wait for a new one.
    pub(crate) expires: Due,
    /// The end of a stated lifetime of a second or more: a reissue after it does not count for the
    /// window of P9.
    pub(crate) lived_out: Option<Due>,
}

impl Lifetime {
    pub(crate) const UNKNOWN: Self = Self {
        ahead: Due::NEVER,
        expires: Due::NEVER,
        lived_out: None,
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn tokens() -> TokenSet {
        TokenSet::new("access").unwrap()
    }

    #[test]
    fn what_may_not_stand_in_a_header_is_no_token() {
        for text in [
            "",
            "a b",
            "a\rb",
            "a\nb",
            "a\0b",
            "t\u{f6}ken",
            "a\tb",
            "\u{7f}",
        ] {
            assert!(AccessToken::new(text).is_err(), "{text:?}");
            assert!(RefreshToken::new(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        // shows S6: whatever is taken for a token can stand in a header, and nothing else is.
        #[test]
        fn what_is_a_token_can_stand_in_a_header(seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut any_char = || match random.u8(..16) {
                0 => random.char(..),
                1 => char::from(random.u8(..)),
                _ => char::from(random.u8(b'!'..=b'~')),
            };
            let length = usize::from(seed.to_le_bytes()[0] % 12);
            let text: String = (0..length).map(|_| any_char()).collect();
            let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            match AccessToken::new(text.clone()) {
                Ok(token) => {
                    prop_assert!(is_token);
                    let header = http::HeaderValue::from_str(token.expose()).unwrap();
                    prop_assert_eq!(header.as_bytes(), text.as_bytes());
                }
                Err(_) => prop_assert!(!is_token),
            }
        }
    }

    // shows B130, P12
    #[test]
    fn an_invalid_token_is_not_quoted_by_its_error() {
        let error = AccessToken::new("s3cret\n").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn debug_shows_neither_token() {
        let set = tokens().with_refresh_token("refresh").unwrap();
        let shown = format!(
            "{set:?} {:#?} {:?}",
            set.refresh_token(),
            set.access_token()
        );
        assert!(
            !shown.contains("\"access") && !shown.contains("\"refresh"),
            "{shown}"
        );
        assert!(shown.contains("AccessToken(redacted)"));
    }

    #[test]
    fn tokens_are_the_same_only_when_all_of_them_is() {
        let token = |text: &str| AccessToken::new(text).unwrap();
        assert!(token("abc").same(&token("abc")));
        assert!(!token("abc").same(&token("abd")));
        assert!(!token("abc").same(&token("abcd")));
    }

    // shows B122
    #[test]
    fn an_absent_refresh_token_keeps_the_old_one_and_a_rotated_one_replaces_it() {
        let old = tokens().with_refresh_token("r1").unwrap();
        let kept = tokens().inherit(&old);
        assert_eq!(kept.refresh_token().unwrap().expose(), "r1");
        let rotated = tokens().with_refresh_token("r2").unwrap().inherit(&old);
        assert_eq!(rotated.refresh_token().unwrap().expose(), "r2");
    }

    // shows B86: a lifetime below the window ahead is not due at once.
    #[test]
    fn the_window_ahead_is_at_most_half_the_lifetime() {
        let set = tokens().with_expires_in(seconds(10));
        let now = set.obtained;
        let lifetime = set.lifetime(Some(seconds(3600)), &now);
        let after = |n| Now {
            instant: now.instant + seconds(n),
            wall: now.wall + seconds(n),
        };
        assert!(!lifetime.ahead.passed(&after(4)));
        assert!(lifetime.ahead.passed(&after(5)));
        assert!(!lifetime.expires.passed(&after(9)));
        assert!(lifetime.expires.passed(&after(10)));
    }

    // shows B102, and that without `ahead` the server decides.
    #[test]
    fn an_unknown_expiry_is_never_due() {
        let now = Now::read();
        assert_eq!(
            tokens().lifetime(Some(seconds(30)), &now),
            Lifetime::UNKNOWN
        );
        let told = tokens().with_expires_in(seconds(60)).lifetime(None, &now);
        assert_eq!((told.ahead, told.expires), (Due::NEVER, Due::NEVER));
    }

    // shows B107
    #[test]
    fn an_expiry_that_is_past_at_receipt_is_ignored() {
        let now = Now::read();
        let late = tokens().with_expires_at(now.wall - seconds(5));
        assert!(late.lifetime(Some(seconds(1)), &now).expires.passed(&now));
        let received = late.received(&now);
        assert_eq!(received.lifetime(Some(seconds(1)), &now), Lifetime::UNKNOWN);
    }

    #[test]
    fn a_restored_set_is_as_old_as_it_was() {
        let set = tokens().with_expires_in(seconds(600));
        let hour_ago = set.obtained_at() - seconds(3600);
        let old = set.clone().with_obtained_at(hour_ago);
        assert_eq!(old.obtained_at(), hour_ago);
        assert_eq!(old.expires_at(), Some(hour_ago + seconds(600)));
        assert!(
            old.lifetime(None, &Now::read())
                .lived_out
                .is_some_and(|due| due.passed_by_now())
        );
        let to_come = set.with_obtained_at(SystemTime::now() + seconds(3600));
        assert!(to_come.obtained_at() <= SystemTime::now());
    }

    #[test]
    fn absurd_lifetimes_do_not_panic() {
        let now = Now::read();
        let endless = tokens().with_expires_in(Duration::MAX);
        assert_eq!(endless.expires_at(), None);
        assert!(
            !endless
                .lifetime(Some(Duration::MAX), &now)
                .ahead
                .passed(&now)
        );
    }
}
