//! What several processes know of the login they share: one [`Record`], which a store keeps and
//! replaces as a whole.

use std::any::Any;
use std::fmt;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::document::Document;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::token::TokenSet;

/// The largest version and epoch. No record is changed so often, so that what is beyond is damage:
/// other programs would round it, and the next one might not exist.
pub(crate) const LARGEST: u64 = 1 << 53;

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
    /// Grows with each new pair of the login: an older pair is told from a newer one by it, whatever the
    /// version that a store which has lost some has counted up to meanwhile.
    pub(crate) reissues: u64,
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
    /// Until when the owner is taken to be alive, unless it renews the claim.
    pub(crate) deadline: SystemTime,
}

impl Claim {
    /// Is it the same one, renewed or not?
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (self.owner, self.fence) == (other.owner, other.fence)
    }
}

impl Record {
    /// The record of a store that holds nothing yet. Its version is 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: 0,
            epoch: 0,
            reissues: 0,
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

    /// For the explorer's oracle: has somebody a claim on it?
    #[cfg(shuttle)]
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        matches!(self.turn, Turn::Sent(_))
    }

    /// The tokens of the login, if there is one.
    #[must_use]
    pub fn tokens(&self) -> Option<&TokenSet> {
        self.tokens.as_ref()
    }

    /// The record of a new login with these tokens, to take the place of this one: for a program that
    /// hands a login over to those who use it, and has no session of its own.
    ///
    /// [`swap`](crate::SharedTokenStore::swap) it against the version of this one, which says whether
    /// somebody was faster; `now` is what the store has told with it. Where a session is at hand,
    /// [`Session::login`](crate::Session::login) does all that.
    ///
    /// ```
    /// use tower_token_refresh::{BoxError, SharedTokenStore, Swap, TokenSet};
    ///
    /// /// Unless somebody is, or was, logged in there.
    /// async fn seed(store: &impl SharedTokenStore, tokens: TokenSet) -> Result<bool, BoxError> {
    ///     let (empty, now) = store.read().await?;
    ///     if empty.version() > 0 {
    ///         return Ok(false);
    ///     }
    ///     Ok(store.swap(0, &empty.with_login(tokens, now)?).await? == Swap::Done)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When a newer version of this crate has written this record.
    pub fn with_login(&self, tokens: TokenSet, now: SystemTime) -> Result<Self, BoxError> {
        if self.foreign {
            return Err("a newer version of this crate has written the record".into());
        }
        Ok(Self {
            version: self.version + 1,
            epoch: epoch_at(now).max(self.epoch + 1),
            reissues: 0,
            tokens: Some(tokens),
            turn: Turn::Free,
            foreign: false,
        })
    }
}

/// The epoch of a login or an end at this time, by the store's clock, in a store that may have lost another:
/// no two shall have the same, and the later one counts.
pub(crate) fn epoch_at(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map(|since| u64::try_from(since.as_millis()));
    let since = since.ok().and_then(Result::ok);
    since.unwrap_or(1).clamp(1, LARGEST / 2)
}

impl Record {
    /// The same with all its times told by another clock.
    pub(crate) fn by_clock(mut self, to: impl Fn(SystemTime) -> SystemTime) -> Self {
        self.tokens = self.tokens.map(|tokens| tokens.by_clock(&to));
        if let Turn::Sent(claim) = &mut self.turn {
            claim.sent_at = to(claim.sent_at);
            claim.deadline = to(claim.deadline);
        }
        self
    }
}

impl Record {
    /// The record as text, for a store that writes it down: a JSON object, which
    /// [`from_json`](Self::from_json) reads.
    ///
    /// | member | |
    /// |---|---|
    /// | `format` | `1` |
    /// | `version`, `epoch`, `reissues` | integers up to 2^53 |
    /// | `turn` | who presents the refresh token: absent where anybody may; `{"state": "sent", "owner": 16 hexadecimal digits, "fence": n, "sent_at": RFC 3339, "deadline": RFC 3339}`; `{"state": "refused"}` |
    /// | `access_token`, `refresh_token` | texts |
    /// | `expires_at`, `obtained_at` | RFC 3339, by the wall clock |
    /// | `in_doubt` | `{"since": RFC 3339, "tries": n, "sent_at": RFC 3339}`: [`TokenSet::in_doubt`] |
    /// | `id`, `email` and others | the [identity](TokenSet::identity), each member by its name |
    /// | `identity_members` | the names of these, where they are others than `id` and `email` |
    /// | `identity_apart` | an object with those members of the identity whose names stand in this table |
    /// | `no_tokens` | `true` where there are none yet |
    /// | `logged_out`, `ended` | `true` and why (`logged_out`, `refused`, `rejected` or `replaced`) after the end of the login, in place of the tokens and all that belongs to them |
    ///
    /// What may be absent is absent, and never null. The tokens are in it as they are: whoever can
    /// read the text can use them. The buffer is wiped when it is dropped.
    ///
    /// # Errors
    ///
    /// When it would be longer than 1 MiB, or the identity longer than 64 KiB or nested more than 100 levels
    /// deep, or when a newer version of this crate has written the record.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        Ok(Document::default().with_record(self, None, SystemTime::now())?)
    }

    /// Reads what [`to_json`](Self::to_json) has written.
    ///
    /// Tokens that somebody else has written down, without `format`, are a login of version 0. Of a
    /// format that is newer than this crate, the access token alone is read: such a record is used, and
    /// neither reissued nor replaced.
    ///
    /// # Errors
    ///
    /// When the text is anything else. The error says what is wrong and what to do, and quotes nothing.
    /// A damaged record is never one without tokens.
    pub fn from_json(text: &[u8]) -> Result<Self, BoxError> {
        Ok(Document::parse(text)?.record(SystemTime::now())?)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("epoch", &self.epoch)
            .field("reissues", &self.reissues)
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
