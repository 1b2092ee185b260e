//! A session's record in a row of a PostgreSQL table.

mod connect;
mod failure;
mod link;
mod listen;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use tokio_postgres::Config;
use tokio_postgres::Row;
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::types::Type;

use self::connect::Over;
use self::connect::Servers;
use self::failure::Failure;
use self::failure::READ_ONLY;
use self::failure::Then;
use self::link::Link;
use self::link::Parameter;
use self::listen::Ears;
use self::table::Table;
use super::Record;
use super::SharedTokenStore;
use super::Swap;
use super::notices::Notices;
use super::notices::Subject;
use super::notices::notice;
use super::seal::Seal;
use crate::error::BoxError;
use crate::error::ConfigError;

/// A statement that fails because of what others did at the same moment is run so often.
const TRIES: usize = 8;

/// Keeps the record of a session in a row of a PostgreSQL table.
#[derive(Clone)]
pub struct PostgresStore {
    seal: Seal,
    name: String,
    link: Arc<Link>,
    table: Arc<Table>,
    changes: Subject,
}

impl PostgresStore {
    /// The store of the session with this name. It connects when it is first used.
    #[must_use]
    pub fn new<T>(config: Config, tls: T, session: &str) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let seal = Seal::new(session);
        let servers = Servers::new(config, Box::new(Over(tls)));
        Self {
            changes: Notices::new().subject(seal.key()),
            link: Arc::new(Link::new(Arc::new(servers))),
            table: Arc::default(),
            name: session.to_owned(),
            seal,
        }
    }

    /// Names are hashed with this secret, and records encrypted.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        self.seal = Seal::secret(secret.as_ref(), &self.name)?;
        self.changes = self.changes.other(self.seal.key());
        Ok(self)
    }

    /// Another table.
    pub fn table(mut self, table: &str) -> Result<Self, ConfigError> {
        self.table = Arc::new(Table::new(table)?);
        // What is told of another table is told on another channel.
        self.changes = Notices::new().subject(self.seal.key());
        Ok(self)
    }

    /// The store of another session, over the same connections.
    #[must_use]
    pub fn session(&self, session: &str) -> Self {
        let seal = self.seal.session(session);
        Self {
            changes: self.changes.other(seal.key()),
            seal,
            name: session.to_owned(),
            link: self.link.clone(),
            table: self.table.clone(),
        }
    }

    /// Creates the table, unless it is there.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        let name = &self.table.name;
        let mut created = self.link.execute(name, &self.table.create).await;
        for _ in 1..TRIES {
            // Others create it at the same moment, or it is there and nobody may create another.
            if created.is_ok() {
                break;
            }
            created = self.link.execute(name, &self.table.create).await;
        }
        let checked = self.link.execute(name, &self.table.check).await;
        match (created, checked) {
            (_, Ok(())) => Ok(()),
            (Err(failure), _) | (_, Err(failure)) => Err(failure.into()),
        }
    }

    /// What `create_table` does, for those who migrate by hand.
    #[must_use]
    pub fn create_table_sql(&self) -> String {
        format!("{};", self.table.create)
    }

    async fn stored(&self) -> Result<(Option<(u64, String)>, SystemTime), Failure> {
        let (table, read) = (&self.table.name, &self.table.read);
        let key = [(&self.seal.key() as _, Type::TEXT)];
        let first = self
            .link
            .query(table, read, &key, |rows| stored(table, rows))
            .await;
        match first {
            // The connection was of no use any more, be it since it was used last.
            Err(failure) if matches!(failure.then, Then::Lost | Then::Elsewhere) => {
                self.link
                    .query(table, read, &key, |rows| stored(table, rows))
                    .await
            }
            first => first,
        }
    }

    async fn replace(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let text = self.seal.close(record)?;
        let key = self.seal.key();
        let number = |version: u64| {
            i64::try_from(version).map_err(|_| "a version of a record is at most 2^63 - 1")
        };
        let (before, after) = (number(version)?, number(record.version())?);
        let told = notice(key, record.version());
        let all: [Parameter<'_>; 6] = [
            (&key, Type::TEXT),
            (&after, Type::INT8),
            (&text.as_str(), Type::TEXT),
            (&self.table.channel, Type::TEXT),
            (&told, Type::TEXT),
            (&before, Type::INT8),
        ];
        let (statement, parameters) = match version {
            0 => (&self.table.insert, &all[..5]),
            _ => (&self.table.update, &all[..]),
        };
        let mut moved = false;
        for _ in 0..TRIES {
            let swapped = self
                .link
                .query(&self.table.name, statement, parameters, |rows| {
                    Ok(rows.len())
                })
                .await;
            match swapped {
                Ok(0) => return Ok(Swap::Conflict),
                Ok(_) => return Ok(Swap::Done),
                Err(failure) => match failure.then {
                    Then::Again => {}
                    // The primary of before: who is it now?
                    Then::Elsewhere if !moved => moved = true,
                    _ => return Err(failure.into()),
                },
            }
        }
        Ok(Swap::Conflict)
    }
}

/// What a read has found, and when.
fn stored(table: &str, rows: &[Row]) -> Result<(Option<(u64, String)>, SystemTime), Failure> {
    let found = || {
        let row = rows.first()?;
        let version = row.try_get::<_, Option<i64>>(0).ok()?;
        let text = row.try_get::<_, Option<String>>(1).ok()?;
        let now = u64::try_from(row.try_get::<_, i64>(2).ok()?).ok()?;
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(now))?;
        let is_read_only = row.try_get::<_, bool>(3).ok()?;
        let record = match (version, text) {
            (None, None) => None,
            (version, text) => Some((u64::try_from(version?).ok()?, text?)),
        };
        Some((record, now, is_read_only))
    };
    match found() {
        // A standby may lag behind.
        Some((.., true)) => Err(Failure::new(READ_ONLY, Then::Elsewhere)),
        Some((record, now, false)) => Ok((record, now)),
        None => Err(Failure::other_columns(table)),
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.table.name)
            .field("is_hearing", &self.changes.is_hearing())
            .finish_non_exhaustive()
    }
}

impl SharedTokenStore for PostgresStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        let (stored, now) = self.stored().await?;
        let record = match stored {
            Some((version, text)) => self.seal.open(version, &text)?,
            None => Record::empty(),
        };
        Ok((record, now))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.replace(version, record).await
    }

    async fn changed(&self, version: u64) {
        let wire = || Arc::new(Ears::new(self.link.clone(), self.table.clone())) as _;
        self.changes.changed(version, wire).await;
    }
}
