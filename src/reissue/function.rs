//! A closure as a reissuer.

use std::fmt;
use std::future::Future;

use super::Reissue;
use super::ReissueError;
use super::ReissueRequest;
use crate::token::TokenSet;

/// A reissuer made of a closure. One that captures values is a closure around a block, as here: an async
/// closure (`async move |request| …`) that does is no `Fn`.
///
/// ```
/// use tower_token_refresh::{ReissueError, Session, TokenSet, reissue_fn};
///
/// let session = Session::builder(reissue_fn(|request| async move {
///     let refresh_token = request.refresh_token().ok_or_else(|| ReissueError::refused("none"))?;
///     // … ask the issuer …
///     TokenSet::new("new").map_err(ReissueError::unknown)
/// }))
/// .build();
/// # assert!(session.is_ok());
/// ```
pub fn reissue_fn<F, Fut>(function: F) -> ReissueFn<F>
where
    F: Fn(ReissueRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenSet, ReissueError>> + Send,
{
    ReissueFn { function }
}

/// See [`reissue_fn`].
#[derive(Clone)]
pub struct ReissueFn<F> {
    function: F,
}

impl<F, Fut> Reissue for ReissueFn<F>
where
    F: Fn(ReissueRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenSet, ReissueError>> + Send,
{
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        (self.function)(request).await
    }
}

impl<F> fmt::Debug for ReissueFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReissueFn").finish_non_exhaustive()
    }
}
