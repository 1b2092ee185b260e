//! The store of a session that lives and dies with its process.

use std::fmt;
use std::time::SystemTime;

use tokio::sync::watch;

use super::Record;
use super::SharedTokenStore;
use super::Swap;
use super::TokenStore;
use super::Turn;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::token::TokenSet;

/// Keeps the tokens in memory: the store of a session that was given none.
///
/// As a [`SharedTokenStore`], in an [`Arc`](std::sync::Arc), it is for several sessions of one
/// process that share a login, and for tests of how several processes do. Its clock is
/// [`SystemTime::now`], and it has no [`lock`](SharedTokenStore::lock): what dies with the process
/// needs none.
///
/// Both faces show the same tokens: a [`save`](TokenStore::save) is a login to those that share it,
/// and a [`clear`](TokenStore::clear) a logout.
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

    /// Whoever has used the tokens of before knows by the epoch that these are of another login.
    fn replace(&self, tokens: Option<TokenSet>) {
        self.record.send_modify(|record| {
            *record = Record {
                version: record.version + 1,
                epoch: record.epoch + 1,
                reissues: 0,
                turn: match tokens {
                    Some(_) => Turn::Free,
                    None => Turn::Ended(EndReason::LoggedOut),
                },
                tokens,
                foreign: false,
            };
        });
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

impl TokenStore for MemoryStore {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(self.record.borrow().tokens.clone())
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;

    use super::*;

    fn tokens(access: &str) -> TokenSet {
        TokenSet::new(access).unwrap()
    }

    fn access(record: &Record) -> Option<&str> {
        let tokens = record.tokens()?;
        Some(tokens.access_token().expose())
    }

    // shows P8: what the one face writes is another login to the other.
    #[tokio::test]
    async fn a_save_is_a_login_and_a_clear_a_logout_to_those_that_share_the_store() {
        let store = MemoryStore::new();
        store.save(&tokens("a")).await.unwrap();
        let (saved, _) = store.read().await.unwrap();
        assert_eq!(access(&saved), Some("a"));
        assert_eq!((saved.version, saved.epoch), (1, 1));
        assert_eq!(saved.turn, Turn::Free);
        store.clear().await.unwrap();
        let (cleared, _) = store.read().await.unwrap();
        assert_eq!(access(&cleared), None);
        assert_eq!((cleared.version, cleared.epoch), (2, 2));
        assert_eq!(cleared.turn, Turn::Ended(EndReason::LoggedOut));
    }

    #[tokio::test]
    async fn tokens_that_were_swapped_in_are_loaded() {
        let store = MemoryStore::new();
        let record = Record {
            version: 1,
            tokens: Some(tokens("a")),
            ..Record::empty()
        };
        assert_eq!(store.swap(0, &record).await.unwrap(), Swap::Done);
        let loaded = store.load().await.unwrap().unwrap();
        assert_eq!(loaded.access_token().expose(), "a");
    }

    #[tokio::test]
    async fn a_save_wakes_those_that_wait_for_a_change() {
        let store = MemoryStore::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut changed = pin!(store.changed(0));
        assert!(changed.as_mut().poll(&mut context).is_pending());
        store.save(&tokens("a")).await.unwrap();
        assert!(changed.as_mut().poll(&mut context).is_ready());
    }
}
