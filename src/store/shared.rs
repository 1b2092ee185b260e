//! A store that several processes share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use super::BoxFuture;
use super::BoxResult;
use super::Record;
use super::StoreLock;
use crate::error::BoxError;

/// Keeps the record of one login for all the processes that share it.
///
/// A session that is given such a store ([`SessionBuilder::shared_store`](crate::SessionBuilder::shared_store))
/// keeps the promises across processes: one reissue for all of them, the new pair adopted by the others, a
/// refresh token that may be spent left alone by all, and a login, logout or end known to all. All
/// that is the session's work. The store only keeps a [`Record`], hands out the one that was stored last, and
/// replaces it where it still is the one that the writer has seen. Whatever can compare and set can be
/// such a store. With the feature `test-util`, `test_util::check_shared_token_store` tells in a test
/// whether one of your own is right.
///
/// The crate gives each call a deadline
/// ([`SessionBuilder::store_timeout`](crate::SessionBuilder::store_timeout)) and takes a panic for a
/// failure. A call may be dropped at any time.
///
/// A [`TokenStore`](crate::TokenStore) cannot be shared, as it does not compare before it writes:
///
/// ```compile_fail,E0277
/// use tower_token_refresh::{SessionBuilder, TokenStore};
///
/// fn keep(session: SessionBuilder, store: impl TokenStore) -> SessionBuilder {
///     session.shared_store(store) // the compiler says: `.store(…)`
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `SharedTokenStore`, which is for several processes",
    label = "no `SharedTokenStore`",
    note = "a `TokenStore` of your own, which keeps the tokens for one process alone, is given with `.store(…)`, and \
            checked with `check_token_store`"
)]
pub trait SharedTokenStore: Send + Sync + 'static {
    /// The record that was stored last ([`Record::empty`] where none was), and what time it is by
    /// the store's own clock.
    ///
    /// It must not lag behind: a record whose `swap` has returned is what every later `read` gives, in
    /// every process, or a newer one. An error means "cannot say": nothing is reissued then.
    fn read(&self) -> impl Future<Output = Result<(Record, SystemTime), BoxError>> + Send;

    /// Puts `record` in the place of the one with this version, in one step: of several swaps with the
    /// same version at most one is done, whichever processes they come from. Version 0 means that
    /// none is there yet.
    ///
    /// An error means "cannot say": the record is read again to find out. After one, or when the call
    /// was dropped, the swap may still be done, once, and only if the version is still right by then.
    fn swap(
        &self,
        version: u64,
        record: &Record,
    ) -> impl Future<Output = Result<Swap, BoxError>> + Send;

    /// Waits until the record may be another than that of this version: for a notification, or for a
    /// while. It may return too early, and must not wait much longer than a second where there is no
    /// notification.
    fn changed(&self, version: u64) -> impl Future<Output = ()> + Send;

    /// Takes the lock that keeps all others from claiming the refresh token, where there is one that the
    /// system frees when its holder dies: then a claim that is found under the lock is that of a dead
    /// process. Waits for it for at most `limit`; an error says who or what holds it.
    ///
    /// `None`, unless it is written, is for a store without one: a claim then counts until it runs
    /// out.
    fn lock(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<Option<StoreLock>, BoxError>> + Send {
        let _ = limit;
        async { Ok(None) }
    }

    /// Whether it can lose what it has stored: by a failover to a replica that lags behind, a restart from
    /// a backup, an eviction. Then a session that finds an older record than it remembers, or none,
    /// writes what it remembers back.
    ///
    /// `false`, unless it is written: a session that finds such a record takes that for what somebody has
    /// done on purpose. It goes on with what it has, reissues nothing, and says so.
    fn can_lose(&self) -> bool {
        false
    }
}

/// What became of a [`swap`](SharedTokenStore::swap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Swap {
    /// The record is stored.
    Done,
    /// It is not: the one that is there has another version.
    Conflict,
}

impl<T: SharedTokenStore> SharedTokenStore for Arc<T> {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        T::read(self).await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        T::swap(self, version, record).await
    }

    async fn changed(&self, version: u64) {
        T::changed(self, version).await;
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        T::lock(self, limit).await
    }

    fn can_lose(&self) -> bool {
        T::can_lose(self)
    }
}

/// [`SharedTokenStore`] with its type erased.
pub(crate) trait DynSharedTokenStore: Send + Sync {
    fn read(&self) -> BoxResult<'_, (Record, SystemTime)>;
    fn swap<'a>(&'a self, version: u64, record: &'a Record) -> BoxResult<'a, Swap>;
    fn changed(&self, version: u64) -> BoxFuture<'_, ()>;
    fn lock(&self, limit: Duration) -> BoxResult<'_, Option<StoreLock>>;
    fn can_lose(&self) -> bool;
}

impl<T: SharedTokenStore> DynSharedTokenStore for T {
    fn read(&self) -> BoxResult<'_, (Record, SystemTime)> {
        Box::pin(SharedTokenStore::read(self))
    }

    fn swap<'a>(&'a self, version: u64, record: &'a Record) -> BoxResult<'a, Swap> {
        Box::pin(SharedTokenStore::swap(self, version, record))
    }

    fn changed(&self, version: u64) -> BoxFuture<'_, ()> {
        Box::pin(SharedTokenStore::changed(self, version))
    }

    fn lock(&self, limit: Duration) -> BoxResult<'_, Option<StoreLock>> {
        Box::pin(SharedTokenStore::lock(self, limit))
    }

    fn can_lose(&self) -> bool {
        SharedTokenStore::can_lose(self)
    }
}
