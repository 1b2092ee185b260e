//! Users and refresh tokens, in SQLite. A copy of the database lets nobody in: it holds hashes only.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::secrets;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS refresh_tokens (
        hash BLOB PRIMARY KEY,
        family TEXT NOT NULL,
        user_id INTEGER NOT NULL REFERENCES users (id),
        expires_ms INTEGER NOT NULL,
        used INTEGER NOT NULL DEFAULT FALSE,
        revoked INTEGER NOT NULL DEFAULT FALSE
    );
    CREATE INDEX IF NOT EXISTS refresh_tokens_by_family ON refresh_tokens (family);
    CREATE INDEX IF NOT EXISTS refresh_tokens_by_expiry ON refresh_tokens (expires_ms);
";

/// For a day an expired token is still known as one; then it is forgotten.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// A user, as the outside may see one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: String,
    pub email: String,
}

/// A refresh token, as the database knows it.
pub struct Held {
    pub user: Arc<Identity>,
    /// The login it descends from.
    pub family: Arc<str>,
    pub used: bool,
    pub revoked: bool,
    pub expired: bool,
}

pub struct Store {
    connection: Connection,
}

impl Store {
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        // A commit then waits for no disk; what a power cut costs is a demonstration's login.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection })
    }

    pub fn put_user(&self, email: &str, password_hash: &str) -> Result<Identity> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO users (email, password_hash) VALUES (?1, ?2)
             ON CONFLICT (email) DO UPDATE SET password_hash = excluded.password_hash
             RETURNING id, email",
        )?;
        statement.query_row(params![email, password_hash], identity)
    }

    /// The user with this e-mail address, and the password's hash.
    pub fn user(&self, email: &str) -> Result<Option<(Identity, String)>> {
        self.connection
            .prepare_cached("SELECT id, email, password_hash FROM users WHERE email = ?1")?
            .query_row([email], |row| Ok((identity(row)?, row.get(2)?)))
            .optional()
    }

    /// Makes a refresh token. Only its hash stays here.
    pub fn add_token(&self, user: &Identity, family: &str, ttl: Duration) -> Result<String> {
        self.forget_expired()?;
        let token = secrets::random_hex::<32>();
        let expires_at = Timestamp::now()
            .checked_add(ttl)
            .unwrap_or(Timestamp::MAX)
            .as_millisecond();
        self.connection
            .prepare_cached(
                "INSERT INTO refresh_tokens (hash, family, user_id, expires_ms)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                secrets::fingerprint(&token),
                family,
                user.id,
                expires_at
            ])?;
        Ok(token)
    }

    pub fn find(&self, token: &str) -> Result<Option<Held>> {
        self.connection
            .prepare_cached(
                "SELECT users.id, email, family, used, revoked, expires_ms
                 FROM refresh_tokens JOIN users ON users.id = user_id WHERE hash = ?1",
            )?
            .query_row([secrets::fingerprint(token)], held)
            .optional()
    }

    /// Uses a token up, and makes the one that comes after it: both or neither.
    pub fn rotate(&self, token: &str, held: &Held, ttl: Duration) -> Result<String> {
        let transaction = self.connection.unchecked_transaction()?;
        self.mark_used(token)?;
        let next = self.add_token(&held.user, &held.family, ttl)?;
        transaction.commit()?;
        Ok(next)
    }

    fn mark_used(&self, token: &str) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE refresh_tokens SET used = TRUE WHERE hash = ?1")?
            .execute([secrets::fingerprint(token)])?;
        Ok(())
    }

    pub fn revoke_family(&self, family: &str) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE refresh_tokens SET revoked = TRUE WHERE family = ?1")?
            .execute([family])?;
        Ok(())
    }

    fn forget_expired(&self) -> Result<()> {
        let limit = (Timestamp::now() - REMEMBERED).as_millisecond();
        self.connection
            .prepare_cached("DELETE FROM refresh_tokens WHERE expires_ms < ?1")?
            .execute([limit])?;
        Ok(())
    }
}

fn identity(row: &Row<'_>) -> Result<Identity> {
    Ok(Identity {
        id: row.get::<_, i64>(0)?.to_string(),
        email: row.get(1)?,
    })
}

fn held(row: &Row<'_>) -> Result<Held> {
    let expires_ms: i64 = row.get(5)?;
    Ok(Held {
        user: Arc::new(identity(row)?),
        family: row.get::<_, String>(2)?.into(),
        used: row.get(3)?,
        revoked: row.get(4)?,
        expired: expires_ms <= Timestamp::now().as_millisecond(),
    })
}
