//! Why a call has failed, in words that quote nothing of what the server was told.

use std::error::Error as _;
use std::fmt;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;
use tokio_postgres::error::Severity;
use tokio_postgres::error::SqlState;

pub(super) const BUSY: &str = "others change the same rows of PostgreSQL all the time";

/// What went wrong. It has no source: that of a database shows parameters and rows in its `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) what: String,
    pub(super) then: Then,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The server has refused that and would again; its connection is as good as before.
    Nothing,
    /// It was not done, because of what others did at the same moment.
    Again,
    /// It was not done, as this server takes no writes: another one may.
    Elsewhere,
    /// Nobody can say what was done, and the connection is of no use any more.
    Lost,
}

impl Failure {
    pub(super) fn new(what: impl Into<String>, then: Then) -> Self {
        Self {
            what: what.into(),
            then,
        }
    }

    /// What a statement on this table has come to.
    pub(super) fn of_statement(error: &Error, table: &str) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::of_connection(error);
        };
        let (what, then) = judge(said.code(), table);
        let then = match is_fatal(said) {
            true => Then::Lost,
            false => then,
        };
        Self::said(&what, said.code(), then)
    }

    /// What connecting has come to.
    pub(super) fn of_connection(error: &Error) -> Self {
        if let Some(said) = error.as_db_error() {
            let (what, _) = judge(said.code(), "");
            return Self::said(&what, said.code(), Then::Lost);
        }
        if is_read_only(error) {
            return Self::new(READ_ONLY, Then::Elsewhere);
        }
        // `Display` names the kind alone. What is below is of the system, of TLS or of the driver,
        // none of which know a statement's parameters.
        let mut what = format!("the connection to PostgreSQL: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            let said = error.to_string();
            if !what.ends_with(&said) {
                what = format!("{what}: {said}");
            }
            source = error.source();
        }
        Self::new(what, Then::Lost)
    }

    pub(super) fn other_columns(table: &str) -> Self {
        Self::new(other_columns(table), Then::Nothing)
    }

    fn said(what: &str, code: &SqlState, then: Then) -> Self {
        Self::new(format!("{what} (SQLSTATE {})", code.code()), then)
    }
}

pub(super) const READ_ONLY: &str = "the PostgreSQL server takes no writes: it is a standby, or set to read-only; the store needs \
     the primary";

/// What is wrong and what to do, and what can be done about it here.
fn judge(code: &SqlState, table: &str) -> (String, Then) {
    let (what, then) = match code.code() {
        "40001" | "40P01" => (BUSY, Then::Again),
        "25006" => (READ_ONLY, Then::Elsewhere),
        "42P01" | "3F000" => {
            let what = format!(
                "the table {table} is not there: make it with PostgresStore::create_table, or name \
                 another one with PostgresStore::table"
            );
            return (what, Then::Nothing);
        }
        "42703" | "42P10" | "42804" | "42883" | "23502" | "23514" | "22001" | "42809" | "428C9" => {
            return (other_columns(table), Then::Nothing);
        }
        "42501" => {
            let what = format!(
                "the PostgreSQL user lacks a right: SELECT, INSERT and UPDATE on the table {table}, \
                 or CREATE on its schema to make it"
            );
            return (what, Then::Nothing);
        }
        "28P01" => ("PostgreSQL refuses the user or the password", Then::Lost),
        "28000" => (
            "PostgreSQL does not let this user in from here: TLS or a rule for it (pg_hba.conf) may \
             be missing",
            Then::Lost,
        ),
        "3D000" => ("there is no such database on the server", Then::Lost),
        "08P01" => (
            "PostgreSQL, or the pooler before it, has turned this down: its log says why",
            Then::Lost,
        ),
        "53300" => ("PostgreSQL has no connection left", Then::Lost),
        "53100" => ("the disk of PostgreSQL is full", Then::Nothing),
        "53200" | "53400" => ("PostgreSQL is out of memory", Then::Nothing),
        "55P03" => (
            "somebody holds a lock on the row or the table",
            Then::Nothing,
        ),
        "57014" => (
            "PostgreSQL has cancelled the statement: it took too long, or somebody asked for it",
            Then::Nothing,
        ),
        "57P01" | "57P02" | "57P03" | "57P05" => {
            ("PostgreSQL is going down or coming up", Then::Lost)
        }
        code if code.starts_with("08") => ("the connection to PostgreSQL has failed", Then::Lost),
        _ => ("PostgreSQL has refused the statement", Then::Nothing),
    };
    (what.to_owned(), then)
}

fn other_columns(table: &str) -> String {
    format!(
        "the table {table} is not as PostgresStore::create_table_sql makes it: its columns or its \
         primary key are others"
    )
}

fn is_fatal(said: &DbError) -> bool {
    matches!(
        said.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// The driver has asked the server, and it is not what was wanted.
fn is_read_only(error: &Error) -> bool {
    let source = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    // One of the system has a number.
    source.is_some_and(|it| {
        it.kind() == io::ErrorKind::PermissionDenied && it.raw_os_error().is_none()
    })
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failure").field(&self.what).finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}
