//! The tokens' file: whether it can be used, and what the user has to know of it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;
use tower_token_refresh::{FileStore, SessionBuilder, TokenStore};

use crate::{options::Options, words};

/// Where the tokens are kept: in a file, or only in memory if there is none.
pub struct Tokens {
    file: Option<Kept>,
    /// The first one comes from the issuer as well.
    needs_no_login: bool,
}

struct Kept {
    path: PathBuf,
    store: FileStore,
}

/// Why nothing is sent.
pub enum Unusable {
    /// It was logged out, or has ended in an earlier run.
    Over(String),
    Wrong(String),
}

impl Tokens {
    pub fn new(options: &Options) -> Self {
        let file = options.tokens.as_ref().map(|path| Kept {
            path: path.clone(),
            store: FileStore::new(path),
        });
        Self {
            file,
            needs_no_login: options.issuer.needs_no_login(),
        }
    }

    pub fn keep(&self, session: SessionBuilder) -> SessionBuilder {
        match &self.file {
            Some(kept) => session.store(kept.store.clone()),
            None => session,
        }
    }

    /// Reads them, before anything is sent.
    pub async fn check(&self) -> Result<(), Unusable> {
        let Some(kept) = &self.file else {
            return Ok(());
        };
        let name = self.name();
        let tokens = kept.store.load().await;
        let tokens = tokens.map_err(|error| Unusable::Wrong(words::chain(&*error)))?;
        match tokens {
            _ if self.needs_no_login => {}
            Some(tokens) if tokens.refresh_token().is_some() => {}
            Some(_) if kept.is_newer() => {
                words::say(&format!(
                    "{name} is of a newer version: its access token is used, and not renewed"
                ));
                return Ok(());
            }
            Some(_) => {
                return Err(Unusable::Wrong(format!(
                    "{name} has no refresh token: log in, and put refresh_token into it"
                )));
            }
            None if kept.path.exists() => return Err(Unusable::Over(self.log_in_again())),
            None => {
                return Err(Unusable::Wrong(format!(
                    "{name} does not exist: log in, and put access_token and refresh_token into it \
                     as JSON"
                )));
            }
        }
        kept.check_writable().map_err(|error| {
            Unusable::Wrong(format!(
                "{name} can't be written, so new tokens would be lost: {error}; give yourself the \
                 right to write it and its folder, or copy it to where you have that"
            ))
        })
    }

    pub async fn are_in_doubt(&self) -> bool {
        let Some(kept) = &self.file else {
            return false;
        };
        let tokens = kept.store.load().await;
        matches!(tokens, Ok(Some(tokens)) if tokens.in_doubt().is_some())
    }

    pub fn log_in_again(&self) -> String {
        if self.needs_no_login {
            return "the session has ended; the next run begins another".to_owned();
        }
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

    fn name(&self) -> String {
        let path = self
            .file
            .as_ref()
            .map(|kept| kept.path.display().to_string());
        path.unwrap_or_else(|| "a tokens file".to_owned())
    }
}

impl Kept {
    /// A newer version has written it, so that this one only reads it.
    fn is_newer(&self) -> bool {
        #[derive(Deserialize)]
        struct Record {
            format: Option<Value>,
        }
        let text = fs::read(&self.path).unwrap_or_default();
        let record = serde_json::from_slice::<Record>(&text);
        record.is_ok_and(|record| record.format.is_some_and(|format| format != 1))
    }

    /// Whether the first new tokens could be saved: found out while the old ones still count.
    fn check_writable(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|file| file.permissions().readonly()) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is write-protected",
            ));
        }
        let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
        // It has no name, and is gone at once.
        tempfile::tempfile_in(folder.unwrap_or_else(|| Path::new("."))).map(drop)
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
