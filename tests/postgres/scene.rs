//! What these tests have in common: a server, a database of the test's own, and stores on it.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::NoTls;
use tower_token_refresh::BoxError;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::servers;

pub const SECRET: &[u8] = b"a secret of more than sixteen bytes";

/// Far more than anything takes here.
pub const HANG: Duration = Duration::from_secs(60);

/// A database of the test's own, on the server that all these tests share, or on one of the test's own.
pub struct Database {
    pub url: String,
    pub name: String,
    admin: Client,
}

impl Database {
    pub async fn new() -> Self {
        Self::on(&servers::postgres_url().unwrap()).await
    }

    /// On the server that this leads to.
    pub async fn on(url: &str) -> Self {
        let name = format!("test_{:016x}", fastrand::u64(..));
        let make = format!("CREATE DATABASE {name}");
        client(url).await.batch_execute(&make).await.unwrap();
        let url = url_of(url, &name);
        let admin = client(&url).await;
        Self { url, name, admin }
    }

    pub async fn with_table() -> Self {
        Self::with_table_on(&servers::postgres_url().unwrap()).await
    }

    /// With the table of the stores.
    pub async fn with_table_on(url: &str) -> Self {
        let database = Self::on(url).await;
        database.store("any").create_table().await.unwrap();
        database
    }

    pub fn config(&self) -> Config {
        config(&self.url)
    }

    /// That of another user, who has no rights.
    pub async fn config_of_another(&self) -> Config {
        let name = format!("user_of_{}", self.name);
        self.sql(&format!("CREATE ROLE {name} LOGIN")).await;
        let mut config = self.config();
        config.user(&name);
        config
    }

    /// For connections that are made from now on.
    pub async fn set(&self, setting: &str) {
        let name = &self.name;
        self.sql(&format!("ALTER DATABASE {name} SET {setting}"))
            .await;
    }

    /// With connections of its own, as a process has that has just been started.
    pub fn store(&self, session: &str) -> PostgresStore {
        PostgresStore::new(self.config(), NoTls, session)
    }

    pub async fn sql(&self, text: &str) {
        self.admin.batch_execute(text).await.unwrap();
    }

    /// The number that this query finds.
    pub async fn count(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// The text that this query finds.
    pub async fn text(&self, query: &str) -> String {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until the query finds this.
    pub async fn until(&self, query: &str, wanted: i64) {
        let found = async {
            while self.count(query).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(HANG, found).await;
        found.unwrap_or_else(|_| panic!("{query} does not become {wanted}"));
    }
}

/// On a busy machine a login takes its time.
pub fn config(url: &str) -> Config {
    let mut config: Config = url.parse().unwrap();
    config.connect_timeout(HANG / 2);
    config
}

/// The same server, another database.
pub fn url_of(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}

/// A connection of the test's own.
pub async fn client(url: &str) -> Client {
    let (client, connection) = config(url).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A login whose tokens say which version they came with.
pub fn record(version: u64) -> Record {
    record_of(json!({"version": version, "epoch": 1, "access_token": format!("access-{version}")}))
}

pub fn record_of(mut record: Value) -> Record {
    if record.get("format").is_none() {
        record["format"] = json!(1);
    }
    Record::from_json(record.to_string().as_bytes()).unwrap()
}

pub fn access_token(record: &Record) -> Option<&str> {
    Some(record.tokens()?.access_token().expose())
}

/// What can go on has gone on, as far as this process is concerned.
pub async fn settle_down() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub async fn in_time<F: Future>(call: F) -> F::Output {
    let answer = tokio::time::timeout(HANG, call).await;
    answer.expect("it hangs")
}

pub async fn read(store: &PostgresStore) -> Result<Record, BoxError> {
    Ok(in_time(store.read()).await?.0)
}

pub async fn swap(store: &PostgresStore, version: u64) -> Result<Swap, BoxError> {
    in_time(store.swap(version, &record(version + 1))).await
}

/// What a store says when it neither reads nor writes.
pub async fn refusal(store: &PostgresStore) -> String {
    let error = read(store).await.expect_err("it is read");
    let swapped = swap(store, 0).await.expect_err("it is written");
    assert_eq!(error.to_string(), swapped.to_string());
    said(&error)
}

/// Everything that an error shows.
pub fn said(error: &BoxError) -> String {
    let mut said = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said} {error} {error:?}");
        source = error.source();
    }
    said
}

/// Waits until notifications arrive.
pub async fn until_it_hears(store: &PostgresStore) {
    let waits = {
        let store = store.clone();
        tokio::spawn(async move { store.changed(0).await })
    };
    let hears = async {
        while !format!("{store:?}").contains("is_hearing: true") {
            settle_down().await;
        }
    };
    in_time(hears).await;
    waits.await.unwrap();
}
