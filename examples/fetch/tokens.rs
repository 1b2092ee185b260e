//! The tokens' file: whether it can be used, and what the user has to know of it.

use std::{fmt, path::Path};

use tower_token_refresh::{FileStore, SessionBuilder, TokenStore};

use crate::{options::Issuer, words};

/// Where the tokens are kept: in a file, or only in memory if there is none.
pub struct Tokens(Option<Kept>);

struct Kept {
    name: String,
    store: FileStore,
}

/// Why nothing is sent.
pub enum Unusable {
    /// It was logged out, or has ended in an earlier run.
    Over(String),
    Wrong(String),
}

impl Tokens {
    pub fn new(path: Option<&Path>) -> Self {
        Self(path.map(|path| Kept {
            name: path.display().to_string(),
            store: FileStore::new(path),
        }))
    }

    pub fn keep(&self, session: SessionBuilder) -> SessionBuilder {
        match &self.0 {
            Some(kept) => session.store(kept.store.clone()),
            None => session,
        }
    }

    /// Reads them, before anything is sent.
    pub async fn check(&self, issuer: &Issuer) -> Result<(), Unusable> {
        let Some(Kept { name, store }) = &self.0 else {
            return Ok(());
        };
        let tokens = store.load().await;
        let tokens = tokens.map_err(|error| Unusable::Wrong(words::chain(&*error)))?;
        if issuer.needs_no_login() {
            return Ok(());
        }
        let Some(tokens) = tokens else {
            return Err(match Path::new(name).exists() {
                true => Unusable::Over(self.log_in_again()),
                false => Unusable::Wrong(format!(
                    "{name} does not exist: log in, and put access_token and refresh_token into it \
                     as JSON"
                )),
            });
        };
        match tokens.refresh_token() {
            Some(_) => Ok(()),
            None => Err(Unusable::Wrong(format!(
                "{name} has no refresh token: log in, and put refresh_token into it"
            ))),
        }
    }

    pub async fn are_in_doubt(&self) -> bool {
        let Some(kept) = &self.0 else {
            return false;
        };
        let tokens = kept.store.load().await;
        matches!(tokens, Ok(Some(tokens)) if tokens.in_doubt().is_some())
    }

    pub fn log_in_again(&self) -> String {
        format!(
            "the session has ended: log in again, and put the new tokens into {}",
            self.name()
        )
    }

    pub fn not_saved(&self) -> String {
        format!(
            "the newest tokens could not be saved in {}, and are lost: see that it can be written, \
             and log in again if the old ones are refused",
            self.name()
        )
    }

    pub fn in_doubt(&self) -> String {
        format!(
            "an answer of the issuer was lost, so nobody knows whether the refresh token in {} is \
             spent: the next run waits a while before it tries it again",
            self.name()
        )
    }

    fn name(&self) -> &str {
        self.0.as_ref().map_or("a tokens file", |kept| &kept.name)
    }
}

impl Unusable {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Over(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}
