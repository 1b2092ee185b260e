//! Where processes keep the login that they share: in a file, in PostgreSQL, or in Redis; and how a user
//! puts tokens there.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

mod database;

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::NoTls;
use tower_token_refresh::{
    BoxError, ConfigError, FileStore, PostgresStore, Record, RedisStore, SharedTokenStore,
    StoreLock, Swap, TokenSet,
};

pub use database::Database;

/// Whoever is overtaken so often while it logs in stops trying.
const TRIES: usize = 20;

#[derive(Clone)]
pub enum Store {
    File(FileStore),
    Postgres(PostgresStore),
    Redis(RedisStore),
}

impl Store {
    /// The session of this name in a database: with a secret, its name is hidden there, and its record
    /// encrypted.
    pub fn open(
        database: Database,
        session: &str,
        secret: Option<&str>,
    ) -> Result<Self, ConfigError> {
        Ok(match database {
            Database::Postgres(config) => {
                let store = PostgresStore::new(*config, NoTls, session);
                Self::Postgres(secret.map_or(Ok(store.clone()), |secret| store.secret(secret))?)
            }
            Database::Redis(client) => {
                let store = RedisStore::new(client, session);
                Self::Redis(secret.map_or(Ok(store.clone()), |secret| store.secret(secret))?)
            }
        })
    }

    /// Makes what is missing there before the first use: a table.
    pub async fn prepare(&self) -> Result<(), BoxError> {
        match self {
            Self::Postgres(store) => store.create_table().await,
            Self::File(_) | Self::Redis(_) => Ok(()),
        }
    }

    pub async fn tokens(&self) -> Result<Option<TokenSet>, BoxError> {
        match self {
            Self::File(store) => store.load().await,
            _ => Ok(self.read().await?.0.tokens().cloned()),
        }
    }

    /// These tokens are a new login: they take the place of whatever is there.
    pub async fn log_in(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        if let Self::File(store) = self {
            return store.save(tokens).await;
        }
        for _ in 0..TRIES {
            let before = self.read().await?;
            if self.log_in_after(&before, tokens).await? == Swap::Done {
                return Ok(());
            }
        }
        Err("the record changes all the time".into())
    }

    /// The same, unless something was stored since this was read.
    pub async fn log_in_after(
        &self,
        (before, now): &(Record, SystemTime),
        tokens: &TokenSet,
    ) -> Result<Swap, BoxError> {
        let login = before.with_login(tokens.clone(), *now)?;
        self.swap(before.version(), &login).await
    }
}

impl SharedTokenStore for Store {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        match self {
            Self::File(store) => store.read().await,
            Self::Postgres(store) => store.read().await,
            Self::Redis(store) => store.read().await,
        }
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        match self {
            Self::File(store) => store.swap(version, record).await,
            Self::Postgres(store) => store.swap(version, record).await,
            Self::Redis(store) => store.swap(version, record).await,
        }
    }

    async fn changed(&self, version: u64) {
        match self {
            Self::File(store) => store.changed(version).await,
            Self::Postgres(store) => store.changed(version).await,
            Self::Redis(store) => store.changed(version).await,
        }
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        match self {
            Self::File(store) => store.lock(limit).await,
            Self::Postgres(store) => store.lock(limit).await,
            Self::Redis(store) => store.lock(limit).await,
        }
    }

    fn can_lose(&self) -> bool {
        match self {
            Self::File(store) => store.can_lose(),
            Self::Postgres(store) => store.can_lose(),
            Self::Redis(store) => store.can_lose(),
        }
    }
}

/// The login is over, and its tokens are gone: that is not the same as a store without a record.
pub fn is_ended(record: &Record) -> bool {
    let members = members(record).unwrap_or_default();
    members["logged_out"] == true
}

fn members(record: &Record) -> Result<Value, BoxError> {
    Ok(serde_json::from_slice(&record.to_json()?)?)
}
