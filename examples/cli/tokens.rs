//! Where the tokens are kept: whether it can be used, and what the user has to know of it.

use std::{
    fmt, fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::Value;
use tower_token_refresh::{FileStore, InDoubt, SessionBuilder};

use super::{
    options::{Common, Place},
    shared::Shared,
    stores::Store,
    turn::InTurn,
    words,
};

/// A refresh token in doubt is left alone for as long as a reissue may take, then for twice as long
/// each time, and for five minutes at most: as the session does unless it is told otherwise.
const FIRST_QUARANTINE: Duration = Duration::from_secs(10);
const MOST_QUARANTINE: Duration = Duration::from_secs(300);

/// Where the tokens are kept: in a file or a database, or only in memory if there is none.
pub struct Tokens {
    kept: Option<Kept>,
    /// The store, for the session.
    in_turn: Option<InTurn>,
    /// The first one comes from the issuer as well.
    needs_no_login: bool,
}

enum Kept {
    File(InFile),
    Shared(Box<Shared>),
}

struct InFile {
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
    pub fn new(options: &Common) -> Self {
        let (kept, store) = match &options.place {
            Place::Memory => (None, None),
            Place::File(path) => {
                let store = FileStore::new(path);
                let path = path.clone();
                let file = InFile {
                    path,
                    store: store.clone(),
                };
                (Some(Kept::File(file)), Some(Store::File(store)))
            }
            Place::Shared(shared) => (
                Some(Kept::Shared(shared.clone())),
                Some(shared.store.clone()),
            ),
        };
        Self {
            kept,
            in_turn: store.map(InTurn::new),
            needs_no_login: options.issuer.needs_no_login(),
        }
    }

    pub fn keep(&self, session: SessionBuilder) -> SessionBuilder {
        match &self.in_turn {
            Some(store) => session.shared_store(store.clone()),
            None => session,
        }
    }

    /// Reads them, before anything is sent.
    pub async fn check(&self) -> Result<(), Unusable> {
        let kept = match &self.kept {
            None => return Ok(()),
            Some(Kept::Shared(shared)) => return shared.check(self.needs_no_login).await,
            Some(Kept::File(kept)) => kept,
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

    /// Whether the refresh token that is kept may be spent.
    pub async fn doubt(&self) -> Option<InDoubt> {
        match self.kept.as_ref()? {
            Kept::File(kept) => kept.store.load().await.ok()??.in_doubt(),
            Kept::Shared(shared) => shared.doubt().await,
        }
    }

    /// The refresh has not come to its turn: another process gets new tokens now.
    pub fn is_waiting(&self) -> bool {
        self.in_turn.as_ref().is_some_and(InTurn::is_waiting)
    }

    /// Resolves when it does not come to its turn for a while, and then it never does.
    pub async fn give_up_turn(&self) {
        match &self.in_turn {
            Some(in_turn) => in_turn.give_up().await,
            None => pending().await,
        }
    }

    pub fn others_turn(&self) -> String {
        format!(
            "another process is refreshing the tokens, and does not end: it holds {}.lock; if it is \
             stopped, let it go on (fg, kill -CONT); nothing was lost here",
            self.name()
        )
    }

    pub fn log_in_again(&self) -> String {
        if self.needs_no_login {
            return "the session has ended; the next run begins another".to_owned();
        }
        if let Some(Kept::Shared(shared)) = &self.kept {
            return shared.log_in_again();
        }
        format!(
            "the session has ended: log in again, and replace what is in {} by the new tokens",
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

    pub fn in_doubt(&self, doubt: &InDoubt) -> String {
        let lost = format!(
            "an answer of the issuer was lost, so nobody knows whether the refresh token in {} is \
             spent",
            self.name()
        );
        match quarantine_left(doubt).as_secs() {
            0 => format!("{lost}: it is presented once more when it is needed next"),
            left => format!(
                "{lost}: it is not presented again for another {left} s, and a request that needs \
                 new tokens before that fails at once"
            ),
        }
    }

    fn name(&self) -> String {
        match &self.kept {
            Some(Kept::File(kept)) => kept.path.display().to_string(),
            Some(Kept::Shared(shared)) => shared.name.clone(),
            None => "a tokens file".to_owned(),
        }
    }
}

/// In whole seconds, rounded up.
fn quarantine_left(doubt: &InDoubt) -> Duration {
    let doubled = 1_u32.checked_shl(doubt.tries.saturating_sub(1));
    let pause = FIRST_QUARANTINE
        .saturating_mul(doubled.unwrap_or(u32::MAX))
        .min(MOST_QUARANTINE);
    let age = SystemTime::now().duration_since(doubt.since);
    let left = pause.saturating_sub(age.unwrap_or_default());
    Duration::from_secs(left.as_millis().div_ceil(1000) as u64)
}

impl InFile {
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
