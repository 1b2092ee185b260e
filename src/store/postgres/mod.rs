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
use zeroize::Zeroizing;

use self::connect::Over;
use self::connect::Servers;
use self::failure::BUSY;
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
use super::doubts::Doubts;
use super::notices::Notices;
use super::notices::Subject;
use super::notices::notice;
use super::seal::Seal;
use crate::error::BoxError;
use crate::error::ConfigError;

/// A statement that fails because of what others did at the same moment is run so often.
const TRIES: usize = 8;

/// Keeps the record of a session in a row of a PostgreSQL table: one login for processes on many machines.
///
/// ```no_run
/// use tokio_postgres::NoTls;
/// use tower_token_refresh::{BoxError, PostgresStore, Session};
/// # use tower_token_refresh::{ReissueError, TokenSet, reissue_fn};
///
/// # async fn set_up() -> Result<(), BoxError> {
/// # let reissue = reissue_fn(|_| async { TokenSet::new("second").map_err(ReissueError::unknown) });
/// # let secret = [0; 32];
/// let config = "postgres://gateway@db.example.com/app".parse()?;
/// let store = PostgresStore::new(config, NoTls, "gateway").secret(secret)?;
/// store.create_table().await?;
/// let session = Session::builder(reissue)
///     .shared_store(store)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// TLS is that of `tokio-postgres`: `tokio-postgres-rustls` and `postgres-native-tls` are two that fit.
/// A `Config` from a URL asks for it with `?sslmode=require`.
///
/// # Many sessions
///
/// [`session`](Self::session) gives the store of another session. All that come from one share two
/// connections, whatever their number: one for statements, and one on which changes are told. They
/// are made at the first use, on the runtime of whoever needs them first, and closed when the last of
/// these stores is gone.
///
/// # What is stored
///
/// One row for each session in the table `token_refresh_sessions`, or [another one](Self::table): a hash of
/// the session's name, the record's version, the record, and when it was changed. Without a
/// [secret](Self::secret) the tokens are in it as they are: whoever can read the table, its backups or a log of
/// statements with parameters can use them. With one they are encrypted, and a row that was copied from another
/// session or changed is refused.
///
/// Reads and swaps take one statement and one transaction each. A swap that is done is on the disk of the server
/// (`synchronous_commit` is raised to `on` where it is `off`, for this transaction alone). Whether it is on
/// that of a standby is up to the server's settings. Where the server waits for a synchronous one and has no answer
/// from it, it shows what the standby does not have all the same, once the wait for it is given up: so a swap that was
/// not answered is believed only after another commit that is. A failover to a standby that was not waited for
/// shows an older record, which the session finds out.
///
/// # Changes
///
/// They are told by `NOTIFY`, so that other processes see them within milliseconds. Whether that
/// works is tried every 5 s. Where it does not, each session in use looks at its row three times a second (where
/// one process has more than 500 of them, less often: 1,700 looks a second in all).
///
/// # PgBouncer
///
/// In session mode all is as without it. In transaction mode, which gives each statement any connection,
/// nothing can be told, so that rows are looked at as above; statements wait for each other's
/// answers, and nothing is left behind in connections that others use. Where there are thousands of
/// sessions in a process, give the store a way around such a pooler.
///
/// # Failures
///
/// A call fails when nobody can say what the record is: the session goes on with a valid access token then and
/// reissues nothing. What the error says is what to do, with the server's SQLSTATE, and nothing that the
/// server quotes. A connection that fails, or that leaves a call without an answer until its deadline, is given up,
/// and the next call makes a new one, at once. So a server that was stopped, cut off or replaced
/// behind its address is found again by the call after. Of several hosts (`host=a,b`) the first that
/// takes writes is used, and where it does not any more, the next. A standby is never read, as it may lag behind.
///
/// Where the `Config` says nothing of it: a host has 2.5 s to let the store in (the 1.5 s of its
/// `connect_timeout`, and one more), what was sent is given up when it is not acknowledged for 10 s, an idle
/// connection is probed every 30 s, and the application is called `tower-token-refresh`.
///
/// # Cancel safety
///
/// All calls may be dropped. The server is asked to cancel a statement whose caller is gone; one that is done all the
/// same is done once, and only if the version was still right.
#[derive(Clone)]
pub struct PostgresStore {
    seal: Seal,
    name: String,
    link: Arc<Link>,
    table: Arc<Table>,
    doubts: Arc<Doubts>,
    changes: Subject,
}

impl PostgresStore {
    /// The store of the session with this name, which is never shown in the database.
    ///
    /// It connects at the first use, so what is wrong with the `config` is said then.
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
            doubts: Arc::default(),
            name: session.to_owned(),
            seal,
        }
    }

    /// Hashes the names of sessions with this secret, and encrypts their records.
    ///
    /// All who share a session need the same. Sessions that were stored without it, or with another one, are not
    /// found any more: they have to log in again.
    ///
    /// # Errors
    ///
    /// When it is shorter than 16 bytes. Take 32 random ones.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        self.seal = Seal::secret(secret.as_ref(), &self.name)?;
        self.changes = self.changes.other(self.seal.key());
        Ok(self)
    }

    /// Keeps the records in this table: `table`, or `schema.table`.
    ///
    /// The name counts as it is written, as in double quotes. Without a schema it is found by the
    /// `search_path` of the user.
    ///
    /// # Errors
    ///
    /// When a part of it is anything but letters, digits, `_` and `$`, or longer than 63 bytes.
    pub fn table(mut self, table: &str) -> Result<Self, ConfigError> {
        self.table = Arc::new(Table::new(table)?);
        // What is told of another table is told on another channel.
        self.changes = Notices::new().subject(self.seal.key());
        Ok(self)
    }

    /// The store of another session: over the same connections, in the same table, with the same secret.
    ///
    /// ```no_run
    /// # use tower_token_refresh::PostgresStore;
    /// # fn stores(store: PostgresStore) {
    /// let alice = store.session("alice");
    /// let bob = store.session("bob");
    /// # }
    /// ```
    #[must_use]
    pub fn session(&self, session: &str) -> Self {
        let seal = self.seal.session(session);
        Self {
            changes: self.changes.other(seal.key()),
            seal,
            name: session.to_owned(),
            link: self.link.clone(),
            table: self.table.clone(),
            doubts: Arc::default(),
        }
    }

    /// Creates the table, unless it is there, and checks that it has the columns it needs.
    ///
    /// Any number of processes may do so at once. A user who may not create it needs no right to where
    /// it is there: `SELECT`, `INSERT` and `UPDATE` are enough.
    ///
    /// # Errors
    ///
    /// When it cannot be created and is not there, when it has other columns, or when the server cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, the table may be created all the same.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        let name = &self.table.name;
        let created = self.link.execute(name, &self.table.create).await;
        // It may be there all the same: others create it at the same moment, which PostgreSQL finds out at
        // the end, or creating is forbidden.
        let checked = self.link.execute(name, &self.table.check).await;
        match (created, checked) {
            (_, Ok(())) => Ok(()),
            (Err(failure), _) | (_, Err(failure)) => Err(failure.into()),
        }
    }

    /// The statement by which [`create_table`](Self::create_table) creates it, for those who migrate by hand.
    #[must_use]
    pub fn create_table_sql(&self) -> String {
        format!("{};", self.table.create)
    }

    async fn stored(&self, read: &str) -> Result<(Option<Stored>, SystemTime), Failure> {
        let table = &self.table.name;
        let key = [(&self.seal.key() as _, Type::TEXT)];
        let mut is_lost = false;
        for _ in 0..TRIES {
            let read = self
                .link
                .query(table, read, &key, |rows| stored(table, rows))
                .await;
            match read {
                Err(failure) if failure.then == Then::Again => {}
                // The connection was of no use any more, be it since it was used last.
                Err(failure)
                    if !is_lost && matches!(failure.then, Then::Lost | Then::Elsewhere) =>
                {
                    is_lost = true;
                }
                read => return read,
            }
        }
        Err(Failure::new(BUSY, Then::Again))
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
        self.doubts.begin(version);
        let mut moved = false;
        for _ in 0..TRIES {
            let swapped = self
                .link
                .query(&self.table.name, statement, parameters, |rows| {
                    Ok(rows.len())
                })
                .await;
            match swapped {
                Ok(0) => break,
                Ok(_) => {
                    self.doubts.settle(record.version());
                    return Ok(Swap::Done);
                }
                Err(failure) => match failure.then {
                    Then::Again => {}
                    // The primary of before: who is it now?
                    Then::Elsewhere if !moved => moved = true,
                    _ => return Err(failure.into()),
                },
            }
        }
        self.doubts.give_up(version);
        Ok(Swap::Conflict)
    }
}

/// A version, and the text of the record.
type Stored = (u64, Zeroizing<String>);

/// What a read has found, and when.
fn stored(table: &str, rows: &[Row]) -> Result<(Option<Stored>, SystemTime), Failure> {
    let found = || {
        let row = rows.first()?;
        let version = row.try_get::<_, Option<i64>>(0).ok()?;
        let text = row.try_get::<_, Option<String>>(1).ok()?;
        let now = u64::try_from(row.try_get::<_, i64>(2).ok()?).ok()?;
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(now))?;
        let is_read_only = row.try_get::<_, bool>(3).ok()?;
        let record = match (version, text) {
            (None, None) => None,
            (version, text) => Some((u64::try_from(version?).ok()?, Zeroizing::new(text?))),
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
        let (mut stored, mut now) = self.stored(&self.table.read).await?;
        let version = |stored: &Option<Stored>| stored.as_ref().map_or(0, |(version, _)| *version);
        if self.doubts.has(version(&stored)) {
            (stored, now) = self.stored(&self.table.read_to_confirm).await?;
            self.doubts.settle(version(&stored));
        }
        let record = match stored {
            Some((version, text)) => self.seal.open_aside(version, text).await?,
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

    /// A failover to a standby that is not synchronous, or a restored backup.
    fn can_lose(&self) -> bool {
        true
    }
}
