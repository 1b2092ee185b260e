//! How new tokens are got from the issuer: the [`Reissue`] trait, and ready-made reissuers over any
//! tower HTTP service.
//!
//! A reissue never passes through the layer it serves (P15): the reissuer owns a client of its own.
//! What an answer means is decided here, in four words that the coordinator acts on: *refused*,
//! *transient*, *misconfigured* and *unknown*. See [`ReissueError`].

mod answer;
mod client_credentials;
mod cookie;
mod document;
mod dpop;
mod error_answer;
mod exchange;
mod function;
mod grant;
mod json;
mod refresh_grant;
mod settings;
#[cfg(test)]
mod tests;
mod unanswered;

pub use client_credentials::ClientCredentials;
pub use cookie::CookieReissue;
pub use dpop::DpopRequest;
pub use error_answer::ErrorAnswer;
pub use function::ReissueFn;
pub use function::reissue_fn;
pub use json::JsonReissue;
pub use refresh_grant::RefreshGrant;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::error::BoxError;
use crate::error::ConfigError;
use crate::token::AccessToken;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// One conversation with the issuer: refresh token in, new tokens out.
///
/// The crate calls it at most once at a time for a session, in a task that no request owns, gives
/// it a deadline ([`SessionBuilder::reissue_timeout`](crate::SessionBuilder::reissue_timeout)) and
/// takes a panic for a failure of unknown outcome. It must not retry by itself.
pub trait Reissue: Send + Sync + 'static {
    /// Asks the issuer for new tokens.
    ///
    /// A set without a refresh token, or without an identity, keeps the one there was.
    ///
    /// # Errors
    ///
    /// One of the four kinds of [`ReissueError`]: they decide whether the session ends.
    fn reissue(
        &self,
        request: ReissueRequest,
    ) -> impl Future<Output = Result<TokenSet, ReissueError>> + Send;

    /// Whether a reissue is made from a refresh token. One that needs none (client credentials)
    /// makes the first token of a session as well, without a login.
    fn needs_refresh_token(&self) -> bool {
        true
    }

    /// Says what is wrong with the configuration; called when the session is built.
    ///
    /// # Errors
    ///
    /// When this reissuer could never work.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

impl<T: Reissue> Reissue for Arc<T> {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        T::reissue(self, request).await
    }

    fn needs_refresh_token(&self) -> bool {
        T::needs_refresh_token(self)
    }

    fn check(&self) -> Result<(), ConfigError> {
        T::check(self)
    }
}

/// What a reissue is made from: the session's tokens, as the store holds them at this moment.
#[derive(Clone, Debug)]
pub struct ReissueRequest {
    tokens: Option<TokenSet>,
}

impl ReissueRequest {
    pub(crate) fn new(tokens: Option<TokenSet>) -> Self {
        Self { tokens }
    }

    /// The refresh token. It is there whenever [`Reissue::needs_refresh_token`].
    #[must_use]
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.tokens.as_ref()?.refresh_token()
    }

    /// Its text, where a reissuer cannot do without.
    fn refresh_token_to_send(&self) -> Result<&str, ReissueError> {
        let token = self.refresh_token().map(RefreshToken::expose);
        token.ok_or_else(|| ReissueError::misconfigured("there is no refresh token to send"))
    }

    /// The access token that is to be replaced, for issuers whose contract asks for it.
    #[must_use]
    pub fn access_token(&self) -> Option<&AccessToken> {
        self.tokens.as_ref().map(TokenSet::access_token)
    }

    /// What is known of the user, such as `id` and `email`, by name.
    pub fn identity(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.tokens
            .iter()
            .flat_map(|tokens| tokens.identity())
            .map(|(name, value)| (name.as_str(), value))
    }
}

/// Why a reissue brought no tokens. The kind decides what happens to the session.
#[derive(Debug)]
pub struct ReissueError {
    pub(crate) kind: ReissueErrorKind,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) rotated: Option<RefreshToken>,
    source: BoxError,
}

/// The four kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReissueErrorKind {
    Misconfigured,
    Refused,
    Transient,
    Unknown,
}

impl ReissueError {
    /// The issuer says that the refresh token is no good. The only kind that ends a session.
    pub fn refused(source: impl Into<BoxError>) -> Self {
        Self::new(ReissueErrorKind::Refused, source)
    }

    /// Not processed, and worth another try later: the issuer is overloaded, or it is certain that
    /// it never had the request, as where the connection was refused. The ready-made reissuers tell
    /// that by the client's error, of hyper, hyper-util and reqwest with the feature `hyper`: see
    /// [`JsonReissue`](crate::JsonReissue#when-there-is-no-answer).
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self::new(ReissueErrorKind::Transient, source)
    }

    /// The issuer does not take the request as it is made (a wrong address, a wrong client secret).
    /// The refresh token is kept.
    pub fn misconfigured(source: impl Into<BoxError>) -> Self {
        Self::new(ReissueErrorKind::Misconfigured, source)
    }

    /// The request may have been processed: a deadline, a connection that broke, an answer that
    /// cannot be read. The same refresh token is not presented again before it is certain that the
    /// first request is over.
    pub fn unknown(source: impl Into<BoxError>) -> Self {
        Self::new(ReissueErrorKind::Unknown, source)
    }

    /// The issuer asked not to be called before this time has passed (`Retry-After`, RFC 9110
    /// section 10.2.3). More than five minutes count as five.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The answer was of no use, but it did bring a new refresh token, which must not be lost.
    #[must_use]
    pub fn with_refresh_token(mut self, rotated: RefreshToken) -> Self {
        self.rotated = Some(rotated);
        self
    }

    /// The issuer says that the refresh token is no good.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kind == ReissueErrorKind::Refused
    }

    /// Not processed, and worth another try later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == ReissueErrorKind::Transient
    }

    /// The issuer does not take the request as it is made.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        self.kind == ReissueErrorKind::Misconfigured
    }

    /// The request may have been processed.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.kind == ReissueErrorKind::Unknown
    }

    fn new(kind: ReissueErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            retry_after: None,
            rotated: None,
            source: source.into(),
        }
    }
}

impl fmt::Display for ReissueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ReissueErrorKind::Misconfigured => "the issuer does not take the reissue as it is made",
            ReissueErrorKind::Refused => "the issuer refused the refresh token",
            ReissueErrorKind::Transient => "the issuer did not process the reissue",
            ReissueErrorKind::Unknown => "the issuer may have processed the reissue",
        })
    }
}

impl Error for ReissueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Result<TokenSet, ReissueError>> + Send + 'a>>;

/// [`Reissue`] with its type erased: it is called once per reissue.
pub(crate) trait DynReissue: Send + Sync {
    fn reissue(&self, request: ReissueRequest) -> BoxFuture<'_>;
}

impl<T: Reissue> DynReissue for T {
    fn reissue(&self, request: ReissueRequest) -> BoxFuture<'_> {
        Box::pin(async move { Reissue::reissue(self, request).await })
    }
}
