//! Something is wrong with the server or with what it holds: the last good pair is kept, a valid access token
//! goes on being used, nothing is reissued, each failure is told within its deadline, and all goes on when it
//! is put right.

use std::fs;

use http::StatusCode;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::NoTls;

use crate::faults::Case;
use crate::faults::each;
use crate::kind::Kind;
use crate::kind::Server;
use crate::plain::plain;
use crate::scene::Scene;
use crate::scene::get;
use crate::scene::is_served;

const TABLE: &str = "token_refresh_sessions";

/// Of PostgreSQL, what the error says, and statements that make it wrong and right.
const WRONG_IN_POSTGRES: &[(&str, &[&str], &[&str])] = &[
    (
        "columns",
        &["ALTER TABLE token_refresh_sessions RENAME record TO other"],
        &["ALTER TABLE token_refresh_sessions RENAME other TO record"],
    ),
    (
        "is not there",
        &["ALTER TABLE token_refresh_sessions RENAME TO other"],
        &["ALTER TABLE other RENAME TO token_refresh_sessions"],
    ),
    (
        "lacks a right",
        &["REVOKE SELECT ON token_refresh_sessions FROM program"],
        &["GRANT SELECT ON token_refresh_sessions TO program"],
    ),
    (
        "lacks a right",
        &["REVOKE UPDATE ON token_refresh_sessions FROM program"],
        &["GRANT UPDATE ON token_refresh_sessions TO program"],
    ),
    (
        "takes no writes",
        &[
            "ALTER ROLE program SET default_transaction_read_only = on",
            DISCONNECT,
        ],
        &["ALTER ROLE program RESET default_transaction_read_only"],
    ),
    (
        "no connection left",
        &["ALTER ROLE program CONNECTION LIMIT 0", DISCONNECT],
        &["ALTER ROLE program CONNECTION LIMIT -1"],
    ),
    (
        "out of memory",
        &[
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53200'; END $$",
            "CREATE TRIGGER refuse BEFORE UPDATE ON token_refresh_sessions \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        ],
        &["DROP FUNCTION refuse CASCADE"],
    ),
    // Somebody who is in the middle of a transaction.
    (
        "no answer in time",
        &["BEGIN", "SELECT * FROM token_refresh_sessions FOR UPDATE"],
        &["ROLLBACK"],
    ),
];

const DISCONNECT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'program'";

/// The same for Redis; `KEY` is that of the record.
const WRONG_IN_REDIS: &[(&str, &[&str], &[&str])] = &[
    (
        "holds something else",
        &["RENAME KEY aside", "SET KEY text"],
        &["DEL KEY", "RENAME aside KEY"],
    ),
    (
        "holds something else",
        &["HSET KEY version one"],
        &["HSET KEY version VERSION"],
    ),
    (
        "lacks a right",
        &["ACL SETUSER default -hset"],
        &["ACL SETUSER default +hset"],
    ),
    (
        "lacks a right",
        &["ACL SETUSER default -evalsha -eval"],
        &["ACL SETUSER default +evalsha +eval"],
    ),
    (
        "read-only replica",
        &["REPLICAOF 127.0.0.1 1"],
        &["REPLICAOF NO ONE"],
    ),
    (
        "memory",
        &["CONFIG SET maxmemory 1"],
        &["CONFIG SET maxmemory 0"],
    ),
    (
        "wants a password",
        &["CONFIG SET requirepass sesame", "CLIENT KILL TYPE normal"],
        &["ACL SETUSER default nopass"],
    ),
];

/// Somebody who may do everything, and does it by hand. There is one record.
enum Admin {
    Postgres(Client),
    Redis(MultiplexedConnection),
}

impl Admin {
    async fn of(server: &Server) -> Self {
        match server {
            Server::Postgres(server) => {
                let (client, connection) =
                    tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
                tokio::spawn(connection);
                Self::Postgres(client)
            }
            Server::Redis(server) => {
                let client = redis::Client::open(server.url()).unwrap();
                Self::Redis(client.get_multiplexed_async_connection().await.unwrap())
            }
        }
    }

    /// Words or statements; those of Redis are about this key and version.
    async fn run(&mut self, all: &[&str], record: &Stored) {
        for one in all {
            match self {
                Self::Postgres(client) => client.batch_execute(one).await.unwrap(),
                Self::Redis(_) => {
                    let (key, version) = (&record.key, record.version.to_string());
                    let one = one.replace("KEY", key).replace("VERSION", &version);
                    self.ask::<redis::Value>(&one.split(' ').collect::<Vec<_>>())
                        .await;
                }
            }
        }
    }

    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let Self::Redis(connection) = self else {
            panic!("it is no Redis");
        };
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(connection).await.unwrap()
    }

    async fn remove_all(&mut self) {
        match self {
            Self::Postgres(client) => {
                let delete = format!("DELETE FROM {TABLE}");
                client.batch_execute(&delete).await.unwrap();
            }
            Self::Redis(_) => self.ask(&["FLUSHALL"]).await,
        }
    }

    async fn stored(&mut self) -> Stored {
        match self {
            Self::Postgres(client) => {
                let select = format!("SELECT session, version, record FROM {TABLE}");
                let row = client.query_one(&select, &[]).await.unwrap();
                Stored {
                    key: row.get(0),
                    version: u64::try_from(row.get::<_, i64>(1)).unwrap(),
                    text: row.get(2),
                }
            }
            Self::Redis(_) => {
                let keys: Vec<String> = self.ask(&["KEYS", "token-refresh:*"]).await;
                let [key] = &keys[..] else {
                    panic!("{keys:?}");
                };
                let (version, text) = self.ask(&["HMGET", key, "version", "record"]).await;
                let key = key.clone();
                Stored { key, version, text }
            }
        }
    }

    /// Whichever key that has, it is put under this one.
    async fn put(&mut self, key: &str, record: &Stored) {
        let (version, text) = (record.version, &record.text);
        match self {
            Self::Postgres(client) => {
                let update = format!("UPDATE {TABLE} SET version = {version}, record = $1");
                client.execute(&update, &[text]).await.unwrap();
            }
            Self::Redis(_) => {
                let version = version.to_string();
                let words = ["HSET", key, "version", &version, "record", text];
                self.ask(&words).await
            }
        }
    }
}

/// A record as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    key: String,
    version: u64,
    text: String,
}

impl Stored {
    fn pair(&self) -> [Value; 2] {
        ["access_token", "refresh_token"].map(|member| self.json()[member].clone())
    }

    fn json(&self) -> Value {
        let (_, json) = self.text.split_once('{').unwrap();
        serde_json::from_str(&format!("{{{json}")).unwrap()
    }
}

/// The valid token is used, and when it is no longer, nothing is reissued.
async fn bears_it(scene: &Scene, words: &str) {
    let reissues = scene.world.counts().reissues;
    for process in &scene.processes {
        is_served(process).await;
    }
    scene.world.expire();
    for process in &scene.processes {
        let answer = get(process).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let why = answer.why.unwrap();
        assert!(why.is_store() && why.is_transient(), "{why:?}");
        assert!(format!("{why:?}").contains(words), "no {words:?}: {why:?}");
        assert!(process.session.status().is_logged_in());
    }
    assert_eq!(scene.world.counts().reissues, reissues);
}

/// It is put right: the pair that was kept is good for a reissue.
async fn goes_on(scene: &Scene) {
    scene.goes_on().await;
    scene.has_reissued(1);
}

// shows B7, S14, S20
#[tokio::test]
async fn a_server_with_which_something_is_wrong_costs_no_more_than_the_refresh() {
    each(async |server: Server| {
        let mut admin = Admin::of(&server).await;
        let all = match server {
            Server::Postgres(_) => WRONG_IN_POSTGRES,
            Server::Redis(_) => WRONG_IN_REDIS,
        };
        for (words, wrong, right) in all {
            let _case = Case::new(&server, wrong);
            admin.remove_all().await;
            let scene = Scene::new(&server, 2).await;
            let before = admin.stored().await;
            admin.run(wrong, &before).await;
            bears_it(&scene, words).await;
            admin.run(right, &before).await;
            // The last good pair is there.
            let [kept, pair] = [admin.stored().await, before].map(|it| it.pair());
            assert_eq!(kept, pair);
            goes_on(&scene).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_postgres_that_begins_to_want_a_password_costs_no_more_than_the_refresh() {
    let server = Server::start(Kind::Postgres).await;
    let mut admin = Admin::of(&server).await;
    let scene = Scene::new(&server, 2).await;
    let before = admin.stored().await;
    let Server::Postgres(postgres) = &server else {
        unreachable!()
    };
    let rules = postgres.folder().join("pg_hba.conf");
    let open = fs::read(&rules).unwrap();
    postgres.require_password("sesame").unwrap();
    admin.run(&[DISCONNECT], &before).await;
    bears_it(&scene, "password").await;
    fs::write(&rules, open).unwrap();
    admin.run(&["SELECT pg_reload_conf()"], &before).await;
    goes_on(&scene).await;
}

// shows S14
#[tokio::test]
async fn a_record_with_which_something_is_wrong_is_neither_used_nor_replaced() {
    each(async |server: Server| {
        let mut admin = Admin::of(&server).await;
        let other = Scene::new(&server, 1).await;
        let others = admin.stored().await;
        drop(other);
        for words in [
            "another session",
            "changed by hand",
            "none that",
            "newer version",
        ] {
            let _case = Case::new(&server, words);
            admin.remove_all().await;
            let scene = Scene::new(&server, 2).await;
            let before = admin.stored().await;
            let mut wrong = before.clone();
            match words {
                "another session" => wrong.text = others.text.clone(),
                "changed by hand" => wrong.text = before.text.replace("a-u-", "a-v-"),
                "none that" => wrong.text = before.text[10..].to_owned(),
                _ => {
                    let mut json = before.json();
                    json["format"] = 2.into();
                    wrong.version += 1;
                    json["version"] = wrong.version.into();
                    let (_, key) = before.key.rsplit_once(':').unwrap_or(("", &before.key));
                    wrong.text = plain(key, wrong.version, &json.to_string());
                }
            }
            admin.put(&before.key, &wrong).await;
            bears_it(&scene, words).await;
            assert_eq!(admin.stored().await, wrong, "it was replaced");
            admin.put(&before.key, &before).await;
            goes_on(&scene).await;
        }
    })
    .await;
}
