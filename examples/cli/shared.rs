//! A session in a database, which may be that of many machines: whether it can be used, and what the user
//! has to know of it.

use std::{fs, future::Future, path::PathBuf, time::Duration};

use tokio::time::timeout;
use tower_token_refresh::{BoxError, InDoubt, Record, SharedTokenStore, Swap, TokenSet};

use super::{
    stores::{self, Store},
    tokens::Unusable,
    words,
};

/// Of several that bring the first tokens at once, each but the first finds those of another.
const TRIES: usize = 3;

#[derive(Clone)]
pub struct Shared {
    pub store: Store,
    /// For people.
    pub name: String,
    /// The file with the first tokens. It is read only, and only where there are none yet.
    pub seed: Option<PathBuf>,
    /// What is in the file takes the place of what is in the store.
    pub is_new_login: bool,
    pub deadline: Duration,
}

impl Shared {
    /// Reads the tokens, before anything is sent, and puts the first ones there.
    pub async fn check(&self, needs_no_login: bool) -> Result<(), Unusable> {
        self.in_time(self.store.prepare()).await?;
        if self.is_new_login {
            let tokens = self.read_file()?;
            return self.in_time(self.store.log_in(&tokens)).await;
        }
        for _ in 0..TRIES {
            let found = self.in_time(self.store.read()).await?;
            if needs_no_login || self.is_usable(&found.0)? {
                return Ok(());
            }
            let tokens = self.read_file()?;
            let seeded = self.store.log_in_after(&found, &tokens);
            if self.in_time(seeded).await? == Swap::Done {
                let file = self.seed.as_ref().map(|file| file.display().to_string());
                words::say(&format!(
                    "{} begins with the tokens in {}, which are spent from now on",
                    self.name,
                    file.unwrap_or_default()
                ));
                return Ok(());
            }
        }
        Err(Unusable::Wrong(format!(
            "{} changes all the time",
            self.name
        )))
    }

    pub async fn doubt(&self) -> Option<InDoubt> {
        self.store.tokens().await.ok()??.in_doubt()
    }

    pub fn log_in_again(&self) -> String {
        format!(
            "the session has ended: log in again, put the new tokens into a file, and name it with \
             --tokens and --new-login to begin {} anew",
            self.name
        )
    }

    /// `false` where tokens are to be put there.
    fn is_usable(&self, record: &Record) -> Result<bool, Unusable> {
        match record.tokens() {
            Some(tokens) if tokens.refresh_token().is_some() => Ok(true),
            // One of a newer version is not written.
            Some(_) if record.to_json().is_err() => {
                words::say(&format!(
                    "{} is of a newer version: its access token is used, and not renewed",
                    self.name
                ));
                Ok(true)
            }
            Some(_) => Err(Unusable::Wrong(format!(
                "{} has no refresh token: begin it anew with --new-login, and with one in --tokens",
                self.name
            ))),
            None if stores::is_ended(record) => Err(Unusable::Over(self.log_in_again())),
            None => Ok(false),
        }
    }

    /// What the user has put there.
    fn read_file(&self) -> Result<TokenSet, Unusable> {
        let Some(path) = &self.seed else {
            return Err(Unusable::Wrong(format!(
                "{} holds no tokens yet: log in, put access_token and refresh_token into a file as \
                 JSON, and name it with --tokens",
                self.name
            )));
        };
        let file = path.display();
        let wrong = |what: String| Unusable::Wrong(format!("{file} {what}"));
        let text = fs::read(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let record = Record::from_json(&text);
        let record =
            record.map_err(|error| wrong(format!("can't be used: {}", words::chain(&*error))))?;
        match record.tokens() {
            Some(tokens) if tokens.refresh_token().is_some() => Ok(tokens.clone()),
            Some(_) => Err(wrong(
                "has no refresh token: log in, and put refresh_token into it".to_owned(),
            )),
            None => Err(wrong(
                "is of a session that has ended: log in again".to_owned(),
            )),
        }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Unusable> {
        let wrong = |what: &str| Unusable::Wrong(format!("{}: {what}", self.name));
        match timeout(self.deadline, call).await {
            Ok(done) => done.map_err(|error| wrong(&words::chain(&*error))),
            Err(_) => Err(wrong(words::HUNG)),
        }
    }
}
