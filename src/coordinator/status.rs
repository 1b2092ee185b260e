//! What subscribers are told of a session.

use crate::error::EndReason;

/// Where a session stands. See [`Session::subscribe`](crate::Session::subscribe).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionStatus {
    /// The session is over, and was told to be exactly once (P7). A new
    /// [`login`](crate::Session::login) starts it again. It is this also where the end is found in a shared
    /// store at the start.
    #[non_exhaustive]
    Ended {
        /// How it ended.
        reason: EndReason,
    },
    /// There are tokens, and they are in use.
    #[non_exhaustive]
    LoggedIn {
        /// Grows with each access token: a change means that it was refreshed. The first one of a
        /// process is 1; it means nothing outside of it.
        generation: u64,
        /// The store has these tokens. While it does not, they are used from memory and saving goes
        /// on in the background (P13).
        saved: bool,
        /// The refresh token may be spent, as an answer of the issuer was lost: see
        /// [`LostReply`](crate::LostReply). The access token goes on being used.
        in_doubt: bool,
    },
    /// Nobody has logged in yet, or [`logout`](crate::Session::logout) was called.
    LoggedOut,
    /// The store has not been read yet: the first request does that.
    Unloaded,
}

impl SessionStatus {
    /// There are tokens, and they are in use.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        matches!(self, Self::LoggedIn { .. })
    }

    /// The refresh token may be spent, as an answer of the issuer was lost.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::LoggedIn { in_doubt: true, .. })
    }

    /// How the session ended, if it did.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        match self {
            Self::Ended { reason } => Some(*reason),
            _ => None,
        }
    }
}
