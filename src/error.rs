//! The errors a user meets: [`ConfigError`] when something is built, [`RefreshError`] in use.
//!
//! Both are opaque: what matters is asked with `is_…()`, so that new causes need no new major
//! version. Neither ever holds a token, a body or a URL's query (P12).

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error type of tower's own middleware: any error, boxed.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A configuration that cannot work, said when it is built and not in use.
///
/// The message names what is wrong and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    message: String,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConfigError {}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Why a session, or one login of it, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// [`Session::logout`](crate::Session::logout) was called.
    LoggedOut,
    /// The issuer refused the refresh token, and nobody had stored a newer one.
    Refused,
    /// The classifier read an answer of the API as final
    /// ([`Verdict::EndSession`](crate::Verdict::EndSession)).
    Rejected,
    /// Another [`Session::login`](crate::Session::login) took its place.
    Replaced,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoggedOut => "it was logged out",
            Self::Refused => "the issuer refused the refresh token",
            Self::Rejected => "the server declared it over",
            Self::Replaced => "another login took its place",
        })
    }
}

/// Why a request could not be given a fresh token, or could not be sent again with it.
///
/// It is met in two places: in the extensions of a rejection that is returned as the server sent
/// it (`response.extensions().get::<RefreshError>()`), and as the error of the service where
/// nothing was sent (inside tower's `BoxError`). Clones are cheap, and everybody who waited for
/// one refresh sees the same [`source`](Error::source).
#[derive(Clone)]
pub struct RefreshError {
    kind: Kind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What happened. Private: the questions of [`RefreshError`] are the public face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ended(EndReason),
    NotLoggedIn,
    Transient,
    Misconfigured,
    OutcomeUnknown,
    SameToken,
    ReissueLimit,
    WaiterLimit,
    WaitTimeout,
    NoRuntime,
    Interrupted,
    Store,
    NotSaved,
    NotStarted,
    NoRefreshToken,
    NotCured,
    Refused,
    TooFresh,
    WithinReissue,
    NotReplayed(NotReplayed),
}

/// Why a request was not sent a second time although the token is, or will be, fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReplayed {
    NotReady,
    BodyOverLimit,
    BodiesOverLimit,
    BodyFailed,
    BodyStillSending,
    RejectionUnread,
    MayBeProcessed,
    RejectedAgain,
}

impl RefreshError {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn with_source(kind: Kind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(Arc::from(source.into())),
        }
    }

    /// The same cause under another name.
    pub(crate) fn renamed(&self, kind: Kind) -> Self {
        Self {
            kind,
            source: self.source.clone(),
        }
    }

    pub(crate) fn ended(reason: EndReason) -> Self {
        Self::new(Kind::Ended(reason))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The login this request belonged to is over, or there is none: only a new
    /// [`login`](crate::Session::login) helps.
    #[must_use]
    pub fn is_session_ended(&self) -> bool {
        matches!(self.kind, Kind::Ended(_) | Kind::NotLoggedIn)
    }

    /// How the session ended, where [`is_session_ended`](Self::is_session_ended) and there was one.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        match self.kind {
            Kind::Ended(reason) => Some(reason),
            _ => None,
        }
    }

    /// Trying again later may help, with neither a new login nor another configuration: the
    /// network, a busy or failing issuer, a store that is away, a limit, a deadline.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            Kind::Transient
                | Kind::OutcomeUnknown
                | Kind::SameToken
                | Kind::ReissueLimit
                | Kind::WaiterLimit
                | Kind::WaitTimeout
                | Kind::Interrupted
                | Kind::NotStarted
                | Kind::Store
                | Kind::TooFresh
        )
    }

    /// The issuer does not accept the reissue as it is configured, or the session holds nothing
    /// to make one with. The tokens are kept.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        matches!(
            self.kind,
            Kind::Misconfigured | Kind::NoRefreshToken | Kind::NoRuntime | Kind::WithinReissue
        )
    }

    /// The refresh token may have reached the issuer, and no answer that could be used came back.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self.kind, Kind::OutcomeUnknown | Kind::Interrupted)
    }

    /// The issuer refused the refresh token. Where [`is_session_ended`](Self::is_session_ended) is
    /// false, it was a refresh ahead, and the access token is still valid: it goes on being used, and
    /// the session ends with its rejection or expiry.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused | Kind::Ended(EndReason::Refused))
    }

    /// This waiter had waited for as long as it may (30 s unless set).
    #[must_use]
    pub fn is_wait_timeout(&self) -> bool {
        self.kind == Kind::WaitTimeout
    }

    /// There were too many reissues in the window (5 in 30 s unless set).
    #[must_use]
    pub fn is_reissue_limit(&self) -> bool {
        self.kind == Kind::ReissueLimit
    }

    /// Too many requests were waiting already (2^20 unless set).
    #[must_use]
    pub fn is_waiter_limit(&self) -> bool {
        self.kind == Kind::WaiterLimit
    }

    /// The issuer answered with the very access token that had been rejected.
    #[must_use]
    pub fn is_same_token(&self) -> bool {
        self.kind == Kind::SameToken
    }

    /// The rejected token was issued a moment ago, and no request was accepted with it yet: the server
    /// may not know it so soon. It is not replaced within its first 5 s, nor within more than half of
    /// its stated lifetime.
    #[must_use]
    pub fn is_too_fresh(&self) -> bool {
        self.kind == Kind::TooFresh
    }

    /// This address (origin and path, without the query) has rejected the token before it as well, so
    /// that a reissue does not help: the reason is in the server's answer. The address is left alone for a
    /// pause, 1 s at first and doubled each time up to five minutes, and one reissue is tried after it.
    #[must_use]
    pub fn is_not_cured(&self) -> bool {
        self.kind == Kind::NotCured
    }

    /// The token store could not be read or written in time.
    #[must_use]
    pub fn is_store(&self) -> bool {
        matches!(self.kind, Kind::Store | Kind::NotSaved)
    }

    /// The tokens are in use, from memory, but the store does not have them yet; saving goes on in
    /// the background.
    #[must_use]
    pub fn is_not_saved(&self) -> bool {
        self.kind == Kind::NotSaved
    }

    /// The token was, or is being, refreshed for the next request's benefit, but this request was
    /// not sent again: its body was not kept or is still being sent, the rejection was too large
    /// or too slow to read, the server may have processed it, or the replay was rejected too. The
    /// message says which.
    #[must_use]
    pub fn is_not_replayed(&self) -> bool {
        matches!(self.kind, Kind::NotReplayed(_))
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Ended(reason) => return write!(f, "session ended: {reason}"),
            Kind::NotLoggedIn => "not logged in",
            Kind::Transient => "the reissue failed and can be tried again later",
            Kind::Misconfigured => "the issuer does not accept the reissue as it is configured",
            Kind::OutcomeUnknown => "the reissue may have been processed, but its answer is lost",
            Kind::SameToken => "the issuer handed out the rejected access token again",
            Kind::ReissueLimit => "the limit of reissues in the window is reached",
            Kind::WaiterLimit => "too many requests are waiting for the refresh",
            Kind::WaitTimeout => "the refresh did not settle in the time allowed for waiting",
            Kind::NoRuntime => "there is no tokio runtime to refresh the token on",
            Kind::Interrupted => "the refresh was interrupted: it panicked or its runtime is gone",
            Kind::NotStarted => "the refresh was interrupted before the issuer was asked",
            Kind::Store => "the token store failed",
            Kind::NotSaved => "the tokens are in use but could not be saved",
            Kind::NoRefreshToken => "the session has no refresh token",
            Kind::NotCured => {
                "a new token did not help at this address, and it is left alone for now"
            }
            Kind::Refused => "the issuer refused the refresh token; the access token is still used",
            Kind::TooFresh => {
                "the token was issued a moment ago, and no server has accepted it yet"
            }
            Kind::WithinReissue => "a reissue cannot wait for itself",
            Kind::NotReplayed(NotReplayed::RejectedAgain) => {
                "the request was sent again with the new token, and that was rejected as well"
            }
            Kind::NotReplayed(why) => return write!(f, "the request was not sent again: {why}"),
        })
    }
}

impl fmt::Display for NotReplayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the service below was not ready for it",
            Self::BodyOverLimit => "its body is larger than the limit for kept bodies",
            Self::BodiesOverLimit => "the bodies of all requests are at the limit for kept bodies",
            Self::BodyFailed => "its body failed",
            Self::BodyStillSending => "its body is still being sent",
            Self::RejectionUnread => "the rejection was too large, too slow or cut off",
            Self::MayBeProcessed => "the server may have processed it already",
            Self::RejectedAgain => "it was sent again, and rejected as well",
        })
    }
}

impl fmt::Debug for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for RefreshError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
