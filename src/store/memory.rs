//! The stores that live and die with their process.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use tokio::sync::watch;

use super::Record;
use super::SharedTokenStore;
use super::Swap;
use super::TokenStore;
use crate::error::BoxError;
use crate::token::TokenSet;

/// Keeps a login in memory, for several sessions of one process that share it, and for tests of how
/// several processes do.
///
/// It is a [`SharedTokenStore`]: give each session an [`Arc`](std::sync::Arc) of it. A session that was given no
/// store keeps its tokens in memory as well, for itself alone. The clock is [`SystemTime::now`], and there is no
/// [`lock`](SharedTokenStore::lock): what dies with the process needs none.
///
/// ```
/// use std::sync::Arc;
/// use tower_token_refresh::{BoxError, MemoryStore, ReissueError, Session, TokenSet, reissue_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let issuer = || reissue_fn(|_| async { Err(ReissueError::refused("not asked here")) });
/// let store = Arc::new(MemoryStore::new());
/// let one = Session::builder(issuer()).shared_store(store.clone()).build()?;
/// let other = Session::builder(issuer()).shared_store(store).build()?;
/// one.login(TokenSet::new("access")?.with_refresh_token("refresh")?).await?;
/// assert_eq!(other.token().await?.expose(), "access");
/// # Ok(())
/// # }
/// ```
pub struct MemoryStore {
    /// In a channel, so that no change is missed by those that wait for one.
    record: watch::Sender<Record>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            record: watch::channel(Record::empty()).0,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("record", &*self.record.borrow())
            .finish()
    }
}

impl SharedTokenStore for MemoryStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        Ok((self.record.borrow().clone(), SystemTime::now()))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let swapped = self.record.send_if_modified(|kept| {
            let is_seen = kept.version == version;
            if is_seen {
                kept.clone_from(record);
            }
            is_seen
        });
        Ok(match swapped {
            true => Swap::Done,
            false => Swap::Conflict,
        })
    }

    async fn changed(&self, version: u64) {
        let mut record = self.record.subscribe();
        // It is never closed: the sender is the store itself.
        let _ = record.wait_for(|record| record.version != version).await;
    }
}

/// What a session keeps its tokens in that was given no store. A type of its own: one that could be
/// given to two sessions as well would not keep them from presenting one refresh token.
#[derive(Default)]
pub(crate) struct OwnMemory(Mutex<Option<TokenSet>>);

impl OwnMemory {
    fn replace(&self, tokens: Option<TokenSet>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
    }
}

impl TokenStore for OwnMemory {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        self.replace(Some(tokens.clone()));
        Ok(())
    }

    async fn clear(&self) -> Result<(), BoxError> {
        self.replace(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn a_swap_wakes_those_that_wait_for_a_change() {
        let store = MemoryStore::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut changed = pin!(store.changed(0));
        assert!(changed.as_mut().poll(&mut context).is_pending());
        let tokens = TokenSet::new("a").unwrap();
        let login = Record::empty()
            .with_login(tokens, SystemTime::now())
            .unwrap();
        assert_eq!(store.swap(0, &login).await.unwrap(), Swap::Done);
        assert!(changed.as_mut().poll(&mut context).is_ready());
    }
}
