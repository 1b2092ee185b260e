//! A server that the ordinary tests share, stores in it, and records to put there.

use std::time::Duration;
use std::time::SystemTime;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::Record;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::servers;
use crate::servers::Redis;
use crate::servers::RedisOptions;

/// Far more than anything here takes.
pub const HANG: Duration = Duration::from_secs(60);

pub const SECRET: &[u8] = b"a secret of more than 16 bytes";

/// An empty place in the server that the ordinary tests share.
pub struct Place {
    pub url: String,
    pub prefix: String,
}

impl Place {
    pub fn new() -> Self {
        Self::at(servers::redis_url().unwrap())
    }

    pub fn of(server: &Redis) -> Self {
        Self::at(server.url())
    }

    pub fn at(url: String) -> Self {
        Self {
            url,
            prefix: format!("test-{:016x}", fastrand::u64(..)),
        }
    }

    /// As another process would have it.
    pub fn store(&self) -> RedisStore {
        RedisStore::new(client(&self.url), "session").prefix(&self.prefix)
    }

    pub fn sealed(&self) -> RedisStore {
        self.store().secret(SECRET).unwrap()
    }

    pub async fn admin(&self) -> MultiplexedConnection {
        admin(&self.url).await
    }

    /// The keys that there are.
    pub async fn keys(&self) -> Vec<String> {
        let pattern = format!("{}:*", self.prefix);
        ask(&mut self.admin().await, &["KEYS", &pattern]).await
    }

    /// The only one.
    pub async fn key(&self) -> String {
        let mut keys = self.keys().await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys.remove(0)
    }
}

/// A server of its own, for a test that changes or kills it.
pub fn server(more: &[&str]) -> Redis {
    let more = more.iter().map(|&it| it.to_owned()).collect();
    let options = RedisOptions {
        in_memory: true,
        more,
        ..RedisOptions::default()
    };
    Redis::start_with(options).unwrap()
}

/// With all that its primary has.
pub fn replica_of(primary: u16) -> Redis {
    let options = RedisOptions {
        in_memory: true,
        replica_of: Some(primary),
        ..RedisOptions::default()
    };
    Redis::start_with(options).unwrap()
}

/// Waits until a replica has all that its primary has written. One that has just begun says for the first
/// time after a second what it has.
pub async fn caught_up(primary: &Redis) {
    let mut admin = admin(&primary.url()).await;
    let _: String = ask(&mut admin, &["SET", "harmless", "write"]).await;
    let replicas: u64 = ask(&mut admin, &["WAIT", "1", "60000"]).await;
    assert_eq!(replicas, 1);
}

pub fn client(url: &str) -> Client {
    Client::open(url).unwrap()
}

/// A connection past the store.
pub async fn admin(url: &str) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let client = client(url);
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    timeout(HANG, connection).await.expect("it hangs").unwrap()
}

/// A command, in words.
pub async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(connection).await.unwrap()
}

/// Changes a setting.
pub async fn set(connection: &mut MultiplexedConnection, name: &str, value: &str) {
    let _: String = ask(connection, &["CONFIG", "SET", name, value]).await;
}

/// A login whose tokens say which version they came with.
pub fn record(version: u64) -> Record {
    from(json!({"version": version, "epoch": 1, "access_token": format!("access-{version}")}))
}

pub fn from(mut record: Value) -> Record {
    record["format"] = json!(1);
    Record::from_json(record.to_string().as_bytes()).unwrap()
}

pub fn access_token(record: &Record) -> Option<&str> {
    Some(record.tokens()?.access_token().expose())
}

pub async fn read(store: &RedisStore) -> Result<(Record, SystemTime), BoxError> {
    timeout(HANG, store.read()).await.expect("it hangs")
}

pub async fn version(store: &RedisStore) -> u64 {
    read(store).await.unwrap().0.version()
}

pub async fn swap(store: &RedisStore, version: u64, record: &Record) -> Result<Swap, BoxError> {
    let swap = store.swap(version, record);
    timeout(HANG, swap).await.expect("it hangs")
}

/// Puts the next record in the place of this one.
#[track_caller]
pub fn done(store: &RedisStore, version: u64) -> impl Future<Output = ()> {
    let store = store.clone();
    async move {
        let swapped = swap(&store, version, &record(version + 1)).await;
        assert_eq!(swapped.unwrap(), Swap::Done);
    }
}
