//! What several processes know of the login they share: one [`Record`], which a store keeps and
//! replaces as a whole.

use std::any::Any;
use std::fmt;
use std::time::SystemTime;

use crate::error::EndReason;
use crate::token::TokenSet;

/// What the processes that share a login know of it: the tokens, who presents the refresh token now,
/// and after the end, how it ended.
///
/// A [`SharedTokenStore`](crate::SharedTokenStore) keeps it and looks at its [`version`](Self::version)
/// alone. What may become of a record is decided by the session; a store that writes it down does so
/// as [`to_json`](Self::to_json) says.
#[derive(Clone)]
pub struct Record {
    /// Grows by one with each change; 0 where nothing was stored yet.
    pub(crate) version: u64,
    /// Grows with each login, logout and end.
    pub(crate) epoch: u64,
    pub(crate) tokens: Option<TokenSet>,
    pub(crate) turn: Turn,
    /// Written by a newer version of this crate: to be read only.
    pub(crate) foreign: bool,
}

/// Who may present the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The login is over. Such a record is kept, so that nobody takes the tokens of before for good.
    Ended(EndReason),
    /// Whoever claims it.
    Free,
    /// Nobody: the issuer has refused it, while the access token was still good.
    Refused,
    /// Its owner alone, who may have sent it already.
    Sent(Claim),
}

/// A claim on the refresh token, written before its bytes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Which session of which process: a random number.
    pub(crate) owner: u64,
    /// The version of the record with which it began: no two claims have the same.
    pub(crate) fence: u64,
    /// By the store's clock, as the deadline.
    pub(crate) sent_at: SystemTime,
    /// When the owner gives up waiting for the answer, at the latest.
    pub(crate) deadline: SystemTime,
}

impl Record {
    /// The record of a store that holds nothing yet. Its version is 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: 0,
            epoch: 0,
            tokens: None,
            turn: Turn::Free,
            foreign: false,
        }
    }

    /// Which record this is: a store replaces one by the next only where this has not changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tokens of the login, if there is one.
    #[must_use]
    pub fn tokens(&self) -> Option<&TokenSet> {
        self.tokens.as_ref()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("epoch", &self.epoch)
            .field("tokens", &self.tokens)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// A lock that a [`SharedTokenStore`](crate::SharedTokenStore) holds for one process: dropping it
/// sets it free, as does the death of the process.
pub struct StoreLock {
    _held: Box<dyn Any + Send>,
}

impl StoreLock {
    /// Keeps what holds the lock, a locked file say, and drops it with the lock.
    #[must_use]
    pub fn new(held: impl Any + Send) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

impl fmt::Debug for StoreLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLock").finish_non_exhaustive()
    }
}
