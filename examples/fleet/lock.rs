//! A lock that runs out, as many write it by hand: in a file, a row of PostgreSQL, or a key of Redis.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use redis::{Script, aio::MultiplexedConnection};
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use crate::{proxy::now, stores::Database};

const LIFETIME: Duration = Duration::from_secs(2);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS fleet_lock \
    (name text PRIMARY KEY, holder bigint NOT NULL, until timestamptz NOT NULL)";
const TAKE: &str = "INSERT INTO fleet_lock VALUES ($1, $2, now() + $3 * interval '1 ms') \
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until \
    WHERE fleet_lock.until <= now()";
const GIVE: &str = "DELETE FROM fleet_lock WHERE name = $1 AND holder = $2";

/// Only where it is ours still.
const GIVE_KEY: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end";

pub enum Lock {
    File(PathBuf),
    /// With a connection, once there was a need for one.
    Postgres(Box<Config>, String, Option<Client>),
    Redis(redis::Client, String, Option<MultiplexedConnection>),
}

impl Lock {
    pub fn file(path: PathBuf) -> Self {
        Self::File(path)
    }

    pub fn database(database: Database, session: &str) -> Self {
        let name = format!("lock of {session}");
        match database {
            Database::Postgres(config) => Self::Postgres(config, name, None),
            Database::Redis(client) => Self::Redis(client, name, None),
        }
    }

    /// Before anybody wants it.
    pub async fn prepare(&mut self) -> anyhow::Result<()> {
        if let Self::Postgres(config, _, connection) = self {
            let client = postgres(config, connection).await?;
            client.batch_execute(TABLE).await?;
        }
        Ok(())
    }

    /// In one step. `false` where somebody else holds it.
    pub async fn try_acquire(&mut self, process: u64) -> anyhow::Result<bool> {
        let milliseconds = LIFETIME.as_millis() as u64;
        match self {
            Self::File(path) => Ok(in_one_step(path, |holder| {
                let is_free = holder.is_none_or(|(_, until)| until <= now());
                is_free.then(|| Some((process, now() + milliseconds)))
            })?),
            Self::Postgres(config, name, connection) => {
                let client = postgres(config, connection).await?;
                let (holder, milliseconds) = (process as i64, milliseconds as f64);
                let taken = client
                    .execute(TAKE, &[name, &holder, &milliseconds])
                    .await?;
                Ok(taken == 1)
            }
            Self::Redis(client, name, connection) => {
                let mut set = redis::cmd("SET");
                let set = set.arg(&*name).arg(process).arg("NX").arg("PX");
                let connection = redis(client, connection).await?;
                let taken: Option<String> = set.arg(milliseconds).query_async(connection).await?;
                Ok(taken.is_some())
            }
        }
    }

    /// Unless it has run out, and is somebody else's by now.
    pub async fn release(&mut self, process: u64) -> anyhow::Result<()> {
        match self {
            Self::File(path) => {
                let is_ours =
                    |holder: Option<(u64, u64)>| holder.is_some_and(|(it, _)| it == process);
                in_one_step(path, |holder| is_ours(holder).then_some(None))?;
            }
            Self::Postgres(config, name, connection) => {
                let client = postgres(config, connection).await?;
                client.execute(GIVE, &[name, &(process as i64)]).await?;
            }
            Self::Redis(client, name, connection) => {
                let connection = redis(client, connection).await?;
                let script = Script::new(GIVE_KEY);
                let mut call = script.key(&*name);
                let _: Option<u64> = call.arg(process).invoke_async(connection).await?;
            }
        }
        Ok(())
    }
}

async fn postgres<'a>(
    config: &Config,
    connection: &'a mut Option<Client>,
) -> anyhow::Result<&'a Client> {
    if connection.as_ref().is_none_or(Client::is_closed) {
        let (client, driver) = config.connect(NoTls).await?;
        tokio::spawn(driver);
        *connection = Some(client);
    }
    connection.as_ref().context("no connection")
}

async fn redis<'a>(
    client: &redis::Client,
    connection: &'a mut Option<MultiplexedConnection>,
) -> anyhow::Result<&'a mut MultiplexedConnection> {
    if connection.is_none() {
        *connection = Some(client.get_multiplexed_async_connection().await?);
    }
    connection.as_mut().context("no connection")
}

/// Sets who holds the lock, and until when, if `change` gives something for who holds it now.
fn in_one_step(
    path: &Path,
    change: impl FnOnce(Option<(u64, u64)>) -> Option<Option<(u64, u64)>>,
) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    let mut file: File = options.truncate(false).open(path)?;
    // Held for no longer than this function, and not the lock that all this is about.
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let holder = serde_json::from_str(&text).unwrap_or_default();
    let Some(holder) = change(holder) else {
        return Ok(false);
    };
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", json!(holder))?;
    Ok(true)
}
