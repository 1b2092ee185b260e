//! The store of a session that lives and dies with its process.

use std::sync::Mutex;
use std::sync::PoisonError;

use super::TokenStore;
use crate::error::BoxError;
use crate::token::TokenSet;

/// Keeps the tokens in memory: the store of a session that was given none.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tokens: Mutex<Option<TokenSet>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn replace(&self, tokens: Option<TokenSet>) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
    }
}

impl TokenStore for MemoryStore {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tokens.clone())
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
