//! The table of the records, and the statements on it. Each is a transaction of its own and needs
//! nothing of the connection, so that a pooler may send it over any.

use std::fmt::Write;

use sha2::Digest;
use sha2::Sha256;

use crate::error::ConfigError;

const DEFAULT: &str = "token_refresh_sessions";

/// PostgreSQL cuts off what is longer.
const LONGEST_NAME: usize = 63;

pub(super) struct Table {
    /// As the user has named it.
    pub(super) name: String,
    /// What its changes are told on.
    pub(super) channel: String,
    pub(super) create: String,
    pub(super) check: String,
    pub(super) read: String,
    /// The same, after a commit that changes nothing: it is not answered before those that came earlier.
    pub(super) read_to_confirm: String,
    pub(super) insert: String,
    pub(super) update: String,
}

impl Default for Table {
    fn default() -> Self {
        Self::with(DEFAULT.to_owned(), &format!("\"{DEFAULT}\""))
    }
}

impl Table {
    pub(super) fn new(name: &str) -> Result<Self, ConfigError> {
        let parts: Vec<_> = name.split('.').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(ConfigError::new(format!(
                "a table is named `table` or `schema.table`, of letters, digits, `_` and `$`, each at most \
                 {LONGEST_NAME} bytes long"
            )));
        }
        let quoted: Vec<_> = parts.iter().map(|part| format!("\"{part}\"")).collect();
        Ok(Self::with(name.to_owned(), &quoted.join(".")))
    }

    fn with(name: String, quoted: &str) -> Self {
        // A commit that the server might forget would bring a spent refresh token back. What is stronger
        // than its default stays, and counts for this transaction alone.
        let durable = "CASE WHEN current_setting('synchronous_commit') = 'off' \
                       THEN set_config('synchronous_commit', 'on', true) END";
        let now = "floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
                   current_setting('transaction_read_only') = 'on'";
        let told = format!("SELECT pg_notify($4, $5), {durable} FROM done");
        Self {
            channel: channel(quoted),
            create: format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (\n    \
                     session text PRIMARY KEY,\n    \
                     version bigint NOT NULL,\n    \
                     record text NOT NULL,\n    \
                     changed_at timestamptz NOT NULL DEFAULT clock_timestamp()\n)"
            ),
            check: format!("SELECT session, version, record, changed_at FROM {quoted} WHERE false"),
            // One row, whether there is a record or not.
            read: format!(
                "SELECT stored.version, stored.record, {now} \
                 FROM (SELECT 1) AS one LEFT JOIN {quoted} AS stored ON stored.session = $1"
            ),
            read_to_confirm: format!(
                "WITH stored AS (\
                 UPDATE {quoted} SET version = version WHERE session = $1 RETURNING version, record) \
                 SELECT stored.version, stored.record, {now}, {durable} \
                 FROM (SELECT 1) AS one LEFT JOIN stored ON true"
            ),
            insert: format!(
                "WITH done AS (\
                 INSERT INTO {quoted} (session, version, record, changed_at) \
                 VALUES ($1, $2, $3, clock_timestamp()) \
                 ON CONFLICT (session) DO NOTHING RETURNING 1) {told}"
            ),
            update: format!(
                "WITH done AS (\
                 UPDATE {quoted} SET version = $2, record = $3, changed_at = clock_timestamp() \
                 WHERE session = $1 AND version = $6 RETURNING 1) {told}"
            ),
            name,
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_alphabetic() || c == '_';
    name.starts_with(is_first)
        && name.len() <= LONGEST_NAME
        && name
            .chars()
            .all(|c| is_first(c) || c.is_numeric() || c == '$')
}

/// One for each table. Of what it is called nothing is told, as anybody can listen.
fn channel(quoted: &str) -> String {
    let hash = Sha256::new()
        .chain_update(b"tower-token-refresh channel\0")
        .chain_update(quoted)
        .finalize();
    let mut name = "token_refresh_".to_owned();
    for byte in &hash[..16] {
        // Into a text, it can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
