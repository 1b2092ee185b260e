//! Where a session's tokens are kept between two uses of the program.
//!
//! [`TokenStore`] is for one process. What several processes share needs more than `load` and
//! `save`: a claim on the reissue, which only a compare-and-set can give. That is
//! [`SharedTokenStore`].

#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
mod blocking;
mod document;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod doubts;
#[cfg(feature = "file")]
mod file;
mod memory;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod notices;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod seal;
mod shared;

#[cfg(feature = "file")]
pub use file::FileStore;
pub use memory::MemoryStore;
pub(crate) use memory::OwnMemory;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub(crate) use record::Claim;
pub(crate) use record::LARGEST;
pub use record::Record;
pub use record::StoreLock;
pub(crate) use record::Turn;
pub(crate) use record::epoch_at;
#[cfg(feature = "redis")]
pub use redis::RedisStore;
pub(crate) use shared::DynSharedTokenStore;
pub use shared::SharedTokenStore;
pub use shared::Swap;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::BoxError;
use crate::token::TokenSet;

/// Keeps the tokens of one session, for one process.
///
/// The crate calls one method at a time for a session, gives each a deadline
/// ([`SessionBuilder::store_timeout`](crate::SessionBuilder::store_timeout)) and takes a panic for
/// a failure. A call may be dropped at its deadline; one that did write all the same is made good
/// by the next write.
///
/// A store that writes the tokens down takes them apart with [`TokenSet::access_token`],
/// [`refresh_token`](TokenSet::refresh_token), [`expires_at`](TokenSet::expires_at),
/// [`obtained_at`](TokenSet::obtained_at), [`in_doubt`](TokenSet::in_doubt) and
/// [`identity`](TokenSet::identity), and makes a set of them again with
/// [`with_expires_at`](TokenSet::with_expires_at) and its like: a lifetime would count from that
/// moment. With the feature `test-util`, `test_util::check_token_store` tells in a test whether all
/// of that is right.
///
/// ```
/// use tower_token_refresh::{BoxError, TokenSet, TokenStore};
/// # use std::collections::HashMap; use std::sync::Mutex;
/// # struct Database(Mutex<HashMap<&'static str, TokenSet>>);
/// struct Row { database: Database }
///
/// impl TokenStore for Row {
///     async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
///         Ok(self.database.0.lock().map_err(|_| "the database is broken")?.get("me").cloned())
///     }
///     async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
///         self.database.0.lock().map_err(|_| "the database is broken")?.insert("me", tokens.clone());
///         Ok(())
///     }
///     async fn clear(&self) -> Result<(), BoxError> {
///         self.database.0.lock().map_err(|_| "the database is broken")?.remove("me");
///         Ok(())
///     }
/// }
/// ```
///
/// A store that several processes share is another trait, [`SharedTokenStore`], and no type of this crate is
/// both: given as this one it would keep the tokens, and let two processes present one refresh token.
///
/// ```compile_fail,E0277
/// use tower_token_refresh::{MemoryStore, SessionBuilder};
///
/// fn keep(session: SessionBuilder, store: MemoryStore) -> SessionBuilder {
///     session.store(store) // the compiler says: `.shared_store(…)`
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `TokenStore`, which is for one process alone",
    label = "no `TokenStore`",
    note = "a store that several processes share (`MemoryStore`, `FileStore`, `PostgresStore`, `RedisStore`, or a \
            `SharedTokenStore` of your own) is given with `.shared_store(…)`, and checked with \
            `check_shared_token_store`"
)]
pub trait TokenStore: Send + Sync + 'static {
    /// The tokens that are kept, or `None` where there was no login yet, or a logout since.
    ///
    /// It is read before the first request, before each reissue and once more before a session is
    /// ended. An error means "cannot say" and never "no tokens": nothing is reissued then.
    fn load(&self) -> impl Future<Output = Result<Option<TokenSet>, BoxError>> + Send;

    /// Keeps these tokens in place of what was there. Nobody uses them before this returns.
    fn save(&self, tokens: &TokenSet) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Forgets the tokens: the session was logged out, or has ended.
    fn clear(&self) -> impl Future<Output = Result<(), BoxError>> + Send;
}

impl<T: TokenStore> TokenStore for Arc<T> {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        T::load(self).await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        T::save(self, tokens).await
    }

    async fn clear(&self) -> Result<(), BoxError> {
        T::clear(self).await
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type BoxResult<'a, T> = BoxFuture<'a, Result<T, BoxError>>;

/// [`TokenStore`] with its type erased: it is called once per login or reissue.
pub(crate) trait DynTokenStore: Send + Sync {
    fn load(&self) -> BoxResult<'_, Option<TokenSet>>;
    fn save<'a>(&'a self, tokens: &'a TokenSet) -> BoxResult<'a, ()>;
    fn clear(&self) -> BoxResult<'_, ()>;
}

impl<T: TokenStore> DynTokenStore for T {
    fn load(&self) -> BoxResult<'_, Option<TokenSet>> {
        Box::pin(async move { TokenStore::load(self).await })
    }

    fn save<'a>(&'a self, tokens: &'a TokenSet) -> BoxResult<'a, ()> {
        Box::pin(async move { TokenStore::save(self, tokens).await })
    }

    fn clear(&self) -> BoxResult<'_, ()> {
        Box::pin(async move { TokenStore::clear(self).await })
    }
}
