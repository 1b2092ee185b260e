//! Both kinds of server, as one.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use redis::Client;
use tokio::task::spawn_blocking;
use tokio_postgres::NoTls;
use tower_token_refresh::BoxError;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::Record;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::servers::Guarded;
use crate::servers::Postgres;
use crate::servers::Redis;
use crate::servers::RedisOptions;

/// Of PostgreSQL, with no more rights than a store needs.
const USER: &str = "program";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Postgres, Self::Redis];
}

/// A server of the test's own. Clones are the same one.
#[derive(Clone)]
pub enum Server {
    Postgres(Arc<Postgres>),
    Redis(Arc<Redis>),
}

impl Server {
    /// One that keeps what it says it has kept.
    pub async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => {
                let server = blocking(|| {
                    let server = Postgres::start()?;
                    server.sql(&format!(
                        "{}; CREATE ROLE {USER} LOGIN; \
                         GRANT SELECT, INSERT, UPDATE ON token_refresh_sessions TO {USER}",
                        postgres(&server.url(), "any").create_table_sql()
                    ))?;
                    Ok(server)
                });
                Self::Postgres(Arc::new(server.await))
            }
            Kind::Redis => Self::redis(RedisOptions::default()).await,
        }
    }

    pub async fn redis(options: RedisOptions) -> Self {
        let started = blocking(|| Redis::start_with(options)).await;
        Self::Redis(Arc::new(started))
    }

    /// One that has what the server has, and follows it over this port, without having it wait.
    pub async fn replica(&self, port: u16) -> Self {
        match self {
            Self::Postgres(_) => {
                let started = blocking(move || Postgres::standby_of(port)).await;
                Self::Postgres(Arc::new(started))
            }
            Self::Redis(_) => {
                let options = RedisOptions {
                    replica_of: Some(port),
                    ..RedisOptions::default()
                };
                Self::redis(options).await
            }
        }
    }

    /// Makes a replica the one that takes writes.
    pub async fn promote(&self) {
        match self.clone() {
            Self::Postgres(server) => blocking(move || server.promote()).await,
            Self::Redis(_) => self.command(&["REPLICAOF", "NO", "ONE"]).await,
        }
    }

    /// Has a Redis do this.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let Self::Redis(server) = self else {
            panic!("it is no Redis");
        };
        let client = Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::Redis(server) => server.port(),
        }
    }

    /// A new handle, as another process would have it, on the way over this port.
    pub fn store(&self, port: u16, session: &str) -> Real {
        let url = match self {
            Self::Postgres(server) => server.url(),
            Self::Redis(server) => server.url(),
        };
        let own = format!(":{}/", self.port());
        let url = url.replace(&own, &format!(":{port}/"));
        match self {
            Self::Postgres(_) => {
                let url = url.replace("//postgres", &format!("//{USER}"));
                Real::Postgres(postgres(&url, session))
            }
            Self::Redis(_) => Real::Redis(RedisStore::new(Client::open(url).unwrap(), session)),
        }
    }

    pub async fn kill(&self) {
        self.change(Guarded::kill).await;
    }

    pub async fn restart(&self) {
        self.change(Guarded::restart).await;
    }

    pub async fn stop(&self) {
        self.change(Guarded::stop).await;
    }

    pub async fn resume(&self) {
        self.change(Guarded::resume).await;
    }

    async fn change(&self, how: fn(&Guarded) -> Result<()>) {
        match self.clone() {
            Self::Postgres(server) => blocking(move || how(&server)).await,
            Self::Redis(server) => blocking(move || how(&server)).await,
        }
    }
}

fn postgres(url: &str, session: &str) -> PostgresStore {
    PostgresStore::new(url.parse().unwrap(), NoTls, session)
}

/// What takes its time, while the sessions go on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap().unwrap()
}

/// A store, as a program would have it.
#[derive(Clone)]
pub enum Real {
    Postgres(PostgresStore),
    Redis(RedisStore),
}

impl SharedTokenStore for Real {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        match self {
            Self::Postgres(store) => store.read().await,
            Self::Redis(store) => store.read().await,
        }
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        match self {
            Self::Postgres(store) => store.swap(version, record).await,
            Self::Redis(store) => store.swap(version, record).await,
        }
    }

    async fn changed(&self, version: u64) {
        match self {
            Self::Postgres(store) => store.changed(version).await,
            Self::Redis(store) => store.changed(version).await,
        }
    }

    fn can_lose(&self) -> bool {
        match self {
            Self::Postgres(store) => store.can_lose(),
            Self::Redis(store) => store.can_lose(),
        }
    }
}
