//! A session's record in a row of a PostgreSQL table.

use std::fmt;
use std::future::pending;
use std::marker::PhantomData;
use std::time::SystemTime;

use tokio_postgres::Config;
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::tls::TlsConnect;

use super::Record;
use super::SharedTokenStore;
use super::Swap;
use super::seal::Seal;
use crate::error::BoxError;
use crate::error::ConfigError;

/// Keeps the record of a session in a row of a PostgreSQL table.
#[derive(Clone)]
pub struct PostgresStore {
    seal: Seal,
    name: String,
    _rest: PhantomData<()>,
}

impl PostgresStore {
    /// The store of the session with this name. It connects when it is first used.
    pub fn new<T>(config: Config, tls: T, session: &str) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let _ = (config, tls);
        Self {
            seal: Seal::new(session),
            name: session.to_owned(),
            _rest: PhantomData,
        }
    }

    /// Names are hashed with this secret, and records encrypted.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        self.seal = Seal::secret(secret.as_ref(), &self.name)?;
        Ok(self)
    }

    /// Another table.
    pub fn table(self, table: &str) -> Result<Self, ConfigError> {
        let _ = table;
        Ok(self)
    }

    /// The store of another session, over the same connections.
    #[must_use]
    pub fn session(&self, session: &str) -> Self {
        Self {
            seal: self.seal.session(session),
            name: session.to_owned(),
            _rest: PhantomData,
        }
    }

    /// Creates the table, unless it is there.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        Err("not there yet".into())
    }

    /// What `create_table` does, for those who migrate by hand.
    #[must_use]
    pub fn create_table_sql(&self) -> String {
        String::new()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl SharedTokenStore for PostgresStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        Err("not there yet".into())
    }

    async fn swap(&self, _version: u64, _record: &Record) -> Result<Swap, BoxError> {
        Err("not there yet".into())
    }

    async fn changed(&self, _version: u64) {
        pending().await
    }
}
