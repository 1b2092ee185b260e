//! The command line.

use std::{sync::OnceLock, time::Duration};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind, value_parser};
use serde::{Deserialize, Serialize};

use crate::stores::Database;

/// Many processes share one login; some are killed or stopped while they hold the refresh token.
///
/// Exit status: 0 when every promise was kept, 1 when one was broken, 2 for wrong usage, and 128 + n
/// when signal n has ended it (130 for Ctrl-C). `--protocol ttl-lock` promises nothing: 0, unless the
/// issuer and the proxy before it have counted differently.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleet")]
pub struct Options {
    /// How many processes.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(1..=256))]
    pub processes: u32,
    /// How many times the access token expires and all of them want to go on.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Where they keep the tokens: `file`, `postgres:URL`, `redis:URL`, or with `spawn-postgres` and
    /// `spawn-redis` in a server that is started for this run. In a database that is there already, a
    /// record is left behind.
    #[arg(long, value_name = "STORE", default_value = "file")]
    store: String,
    /// How they agree on who asks the issuer. `ttl-lock` is for comparison: a lock that runs out after
    /// 2 s, and the tokens read again once it is held.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// Kills processes (SIGKILL), and starts others in their place.
    #[arg(long)]
    pub kill: bool,
    /// Stops processes for a while (SIGSTOP, SIGCONT).
    #[arg(long)]
    pub pause: bool,
    /// How many of a hundred answers of the issuer get lost.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = value_parser!(u8).range(..=100))]
    pub lose_replies: u8,
    /// A process that has not gone on by then, counted from the expiry, is hung.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Prints one line of JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// The faults are drawn alike; who is hit may differ from run to run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[arg(skip)]
    drawn: OnceLock<u64>,
}

impl Options {
    /// Reads the command line. Whatever can't work ends the program here.
    pub fn read() -> Self {
        let options = Self::parse();
        if let Err(what) = options.wanted() {
            refuse(&what);
        }
        #[cfg(not(unix))]
        if options.pause {
            refuse("this system can't stop a process for a while");
        }
        options
    }

    /// Where the tokens are to be. An error quotes nothing: there may be a password in it.
    pub fn wanted(&self) -> Result<Wanted, String> {
        match self.store.as_str() {
            "file" => Ok(Wanted::File),
            #[cfg(unix)]
            "spawn-postgres" => Ok(Wanted::Spawned(Kind::Postgres)),
            #[cfg(unix)]
            "spawn-redis" => Ok(Wanted::Spawned(Kind::Redis)),
            url => match Database::parse(url) {
                Some(Ok(_)) => Ok(Wanted::Database(url.to_owned())),
                Some(Err(what)) => Err(format!("--store: {what}")),
                None => Err(
                    "--store: it is file, postgres:URL, redis:URL, spawn-postgres or spawn-redis"
                        .to_owned(),
                ),
            },
        }
    }

    /// The one that was given, or one drawn for this run.
    pub fn seed(&self) -> u64 {
        let drawn = || *self.drawn.get_or_init(|| fastrand::u64(..1_000_000));
        self.seed.unwrap_or_else(drawn)
    }

    /// Something goes wrong on purpose.
    pub fn has_faults(&self) -> bool {
        self.kill || self.pause || self.lose_replies > 0
    }
}

pub enum Wanted {
    File,
    /// With this URL.
    Database(String),
    Spawned(Kind),
}

/// Of a database.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Postgres,
    Redis,
}

/// Wrong usage: exit status 2.
fn refuse(what: &str) -> ! {
    let mut command = Options::command();
    command.error(ErrorKind::ValueValidation, what).exit()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Protocol {
    /// What the crate does.
    #[default]
    Lease,
    /// A plain lock with a lifetime.
    TtlLock,
}
