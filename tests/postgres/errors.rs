//! What is wrong is said at the first use, with what to do and the server's code, and nothing is quoted.

use std::net::TcpListener;

use serde_json::json;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::plain::plain;
use crate::scene::Database;
use crate::scene::access_token;
use crate::scene::config;
use crate::scene::in_time;
use crate::scene::read;
use crate::scene::record;
use crate::scene::record_of;
use crate::scene::refusal;
use crate::scene::said;
use crate::scene::swap;
use crate::scene::url_of;
use crate::servers::PgBouncer;
use crate::servers::Postgres;

const TABLE: &str = "token_refresh_sessions";

#[track_caller]
fn says(said: &str, what: &[&str]) {
    for what in what {
        assert!(said.contains(what), "no {what:?} in: {said}");
    }
}

async fn done(store: &PostgresStore, version: u64) {
    assert_eq!(swap(store, version).await.unwrap(), Swap::Done);
}

#[tokio::test]
async fn a_table_that_is_not_there() {
    let database = Database::new().await;
    let store = database.store("any");
    says(&refusal(&store).await, &["create_table", TABLE, "42P01"]);
    let other = store.clone().table("nowhere.sessions").unwrap();
    says(
        &refusal(&other).await,
        &["create_table", "nowhere.sessions"],
    );
    let error = in_time(other.create_table()).await.unwrap_err();
    says(&said(&error), &["nowhere.sessions", "3F000"]);
    in_time(store.create_table()).await.unwrap();
    done(&store, 0).await;
}

#[tokio::test]
async fn a_table_with_other_columns() {
    for (columns, reads) in [
        ("session text PRIMARY KEY, version bigint", false),
        (
            "session text PRIMARY KEY, version text, record text, changed_at timestamptz",
            false,
        ),
        (
            "session text PRIMARY KEY, version bigint, record json, changed_at timestamptz",
            false,
        ),
        (
            "session text PRIMARY KEY, version bigint, record text",
            true,
        ),
        (
            "session text, version bigint, record text, changed_at timestamptz",
            true,
        ),
        (
            "session text PRIMARY KEY, version bigint, record text, changed_at timestamptz, \
          more text NOT NULL",
            true,
        ),
    ] {
        let database = Database::new().await;
        database
            .sql(&format!("CREATE TABLE {TABLE} ({columns})"))
            .await;
        let store = database.store("any");
        if !reads {
            let error = read(&store).await.expect_err(columns);
            says(&said(&error), &["columns", "create_table_sql", TABLE]);
            continue;
        }
        let error = swap(&store, 0).await.expect_err(columns);
        says(&said(&error), &["columns", "create_table_sql", TABLE]);
    }
}

#[tokio::test]
async fn a_table_that_has_a_column_too_few_is_not_taken_for_one_that_was_created() {
    let database = Database::new().await;
    database
        .sql(&format!("CREATE TABLE {TABLE} (session text PRIMARY KEY)"))
        .await;
    let error = in_time(database.store("any").create_table())
        .await
        .unwrap_err();
    says(
        &said(&error),
        &["columns", "create_table_sql", TABLE, "42703"],
    );
}

#[tokio::test]
async fn a_right_that_is_missing() {
    let database = Database::with_table().await;
    let config = database.config_of_another().await;
    let user = config.get_user().unwrap().to_owned();
    let store = PostgresStore::new(config, NoTls, "any");
    let error = in_time(store.create_table()).await.unwrap_err();
    says(&said(&error), &["CREATE", "right", "42501"]);
    says(
        &refusal(&store).await,
        &["SELECT, INSERT and UPDATE", TABLE, "42501"],
    );
    database
        .sql(&format!("GRANT SELECT ON {TABLE} TO {user}"))
        .await;
    assert_eq!(read(&store).await.unwrap().version(), 0);
    let error = swap(&store, 0).await.unwrap_err();
    says(
        &said(&error),
        &["SELECT, INSERT and UPDATE", TABLE, "42501"],
    );
    database
        .sql(&format!("GRANT INSERT, UPDATE ON {TABLE} TO {user}"))
        .await;
    done(&store, 0).await;
    done(&store, 1).await;
    // It may not make one, and need not.
    in_time(store.create_table()).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_read_only() {
    let database = Database::with_table().await;
    database.set("default_transaction_read_only = on").await;
    let store = database.store("any");
    says(&refusal(&store).await, &["takes no writes", "primary"]);
    database
        .sql("SET default_transaction_read_only = off")
        .await;
    database.set("default_transaction_read_only = off").await;
    done(&store, 0).await;
}

#[tokio::test]
async fn no_connection_left() {
    let database = Database::with_table().await;
    let config = database.config_of_another().await;
    let user = config.get_user().unwrap().to_owned();
    database
        .sql(&format!("GRANT ALL ON {TABLE} TO {user}"))
        .await;
    database
        .sql(&format!("ALTER ROLE {user} CONNECTION LIMIT 0"))
        .await;
    let store = PostgresStore::new(config, NoTls, "any");
    says(&refusal(&store).await, &["no connection left", "53300"]);
    database
        .sql(&format!("ALTER ROLE {user} CONNECTION LIMIT 1"))
        .await;
    done(&store, 0).await;
}

// shows P12
#[tokio::test]
async fn a_password_that_is_wanted() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url()).await;
    let open = database.store("any");
    in_time(open.create_table()).await.unwrap();
    server.require_password("opensesame").unwrap();
    let mut config = database.config();
    says(&refusal(&database.store("any")).await, &["password"]);
    config.password("canary-password");
    let wrong = refusal(&PostgresStore::new(config.clone(), NoTls, "any")).await;
    says(&wrong, &["the user or the password", "28P01"]);
    assert!(!wrong.contains("canary"), "{wrong}");
    config.password("opensesame");
    done(&PostgresStore::new(config, NoTls, "any"), 0).await;
    done(&open, 1).await;
}

#[tokio::test]
async fn no_such_database() {
    let database = Database::new().await;
    let config = config(&url_of(&database.url, "nowhere"));
    let store = PostgresStore::new(config, NoTls, "any");
    says(&refusal(&store).await, &["no such database", "3D000"]);
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    let config = crate::scene::config(&pooler.url_of("nowhere"));
    let store = PostgresStore::new(config, NoTls, "any");
    says(&refusal(&store).await, &["PostgreSQL", "SQLSTATE"]);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let config = config(&format!(
        "postgres://any:canary-password@127.0.0.1:{port}/any"
    ));
    let said = refusal(&PostgresStore::new(config, NoTls, "any")).await;
    says(&said, &["the connection to PostgreSQL", "refused"]);
    assert!(!said.contains("canary"), "{said}");
}

// As one does that is stopped, or that is no PostgreSQL.
#[tokio::test]
async fn somebody_listens_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = format!("postgres://any@127.0.0.1:{port}/any")
        .parse()
        .unwrap();
    let store = PostgresStore::new(config, NoTls, "any");
    let error = read(&store).await.unwrap_err();
    says(&said(&error), &["within 2500 ms", "connect_timeout"]);
}

#[tokio::test]
async fn encryption_that_is_wanted() {
    let database = Database::with_table().await;
    let mut config = database.config();
    config.ssl_mode(SslMode::Require);
    let said = refusal(&PostgresStore::new(config, NoTls, "any")).await;
    says(&said, &["the connection to PostgreSQL", "TLS"]);
}

#[tokio::test]
async fn nothing_to_connect_with() {
    let config = tokio_postgres::Config::new();
    let said = refusal(&PostgresStore::new(config, NoTls, "any")).await;
    says(&said, &["host"]);
}

#[test]
fn no_runtime() {
    let config = config("postgres://any@127.0.0.1:1/any");
    let store = PostgresStore::new(config, NoTls, "any");
    let error = futures::executor::block_on(store.read()).unwrap_err();
    says(&said(&error), &["runtime of tokio"]);
}

#[tokio::test]
async fn a_runtime_without_io() {
    let done = std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let config = config("postgres://any@127.0.0.1:1/any");
        let store = PostgresStore::new(config, NoTls, "any");
        said(&runtime.block_on(store.read()).unwrap_err())
    });
    says(&done.join().unwrap(), &["no I/O"]);
}

#[test]
fn a_name_that_is_none() {
    let store = PostgresStore::new(config("postgres://any@127.0.0.1:1/any"), NoTls, "any");
    let long = "x".repeat(64);
    for name in [
        "", ".", "a.", ".a", "a.b.c", "a b", "a\"b", "a;b", "1a", "a\0", "a'", "$a", &long,
    ] {
        let error = store.clone().table(name).expect_err(name);
        says(&error.to_string(), &["schema.table"]);
    }
    for name in ["a", "a.b", "A_1.b$2", "größe", &long[1..]] {
        assert!(store.clone().table(name).is_ok(), "{name}");
    }
}

// shows P12: what a server says may quote rows and parameters. Each code is told with what to do.
#[tokio::test]
async fn of_what_the_server_says_only_the_code_is_passed_on() {
    let database = Database::with_table().await;
    let store = database.store("canary-session");
    for (code, what) in [
        ("53100", "disk"),
        ("53200", "memory"),
        ("53300", "no connection left"),
        ("57014", "cancelled"),
        ("55P03", "lock"),
        ("57P03", "going down or coming up"),
        ("23514", "create_table_sql"),
        ("22P02", "refused"),
        ("XX000", "refused"),
    ] {
        let raise = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'canary %', NEW.record USING ERRCODE = '{code}', \
             DETAIL = 'canary ' || NEW.record, HINT = 'canary'; END $$; \
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON {TABLE} \
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        database.sql(&raise).await;
        let canary = record_of(json!({"version": 1, "epoch": 1, "access_token": "canary-token"}));
        let error = in_time(store.swap(0, &canary)).await.unwrap_err();
        let said = said(&error);
        says(&said, &[code, what]);
        assert!(!said.contains("canary"), "{said}");
    }
    // The connection is as good as before.
    assert_eq!(read(&store).await.unwrap().version(), 0);
}

// Somebody else was in the way, and is not any more.
#[tokio::test]
async fn what_was_not_done_because_of_others_is_tried_again() {
    let database = Database::with_table().await;
    let store = database.store("any");
    for (version, code) in [(0, "40001"), (1, "40P01")] {
        let sequence = format!("tries_{version}");
        let raise = format!(
            "CREATE SEQUENCE {sequence}; \
             CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('{sequence}') < 4 THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; \
             RETURN NEW; END $$; \
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON {TABLE} \
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        database.sql(&raise).await;
        done(&store, version).await;
        let tries = format!("SELECT last_value FROM {sequence}");
        assert_eq!(database.count(&tries).await, 4);
    }
    let always = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                  RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
    database.sql(always).await;
    // It is not done, that is certain.
    assert_eq!(swap(&store, 2).await.unwrap(), Swap::Conflict);
    assert_eq!(read(&store).await.unwrap().version(), 2);
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_read_and_never_replaced() {
    let database = Database::with_table().await;
    let store = database.store("any");
    done(&store, 0).await;
    let key: String = database.text(&format!("SELECT session FROM {TABLE}")).await;
    let json = r#"{"format": 2, "version": 7, "epoch": 1, "access_token": "newer", "other": {}}"#;
    let text = plain(&key, 7, json);
    let write = format!("UPDATE {TABLE} SET version = 7, record = '{text}'");
    database.sql(&write).await;
    let found = read(&store).await.unwrap();
    assert_eq!((found.version(), access_token(&found)), (7, Some("newer")));
    let error = in_time(store.swap(7, &found)).await.unwrap_err();
    says(&said(&error), &["newer version"]);
    assert_eq!(
        database.text(&format!("SELECT record FROM {TABLE}")).await,
        text
    );
}

// shows S14
#[tokio::test]
async fn the_record_of_another_session_is_refused() {
    for secret in [false, true] {
        let database = Database::with_table().await;
        let store = |session| {
            let store = database.store("any");
            let store = match secret {
                true => store.secret(crate::scene::SECRET).unwrap(),
                false => store,
            };
            store.session(session)
        };
        let (one, other) = (store("one"), store("other"));
        done(&one, 0).await;
        let key = database.text(&format!("SELECT session FROM {TABLE}")).await;
        done(&other, 0).await;
        let copy = format!(
            "UPDATE {TABLE} SET record = (SELECT record FROM {TABLE} WHERE session <> '{key}') \
             WHERE session = '{key}'"
        );
        database.sql(&copy).await;
        let error = read(&one).await.unwrap_err();
        says(&said(&error), &["another session"]);
        assert_eq!(read(&other).await.unwrap().version(), 1);
        // With a version that it was not written with, either.
        let raise = format!("UPDATE {TABLE} SET version = 2 WHERE session <> '{key}'");
        database.sql(&raise).await;
        says(
            &said(&read(&other).await.unwrap_err()),
            &["another session"],
        );
    }
}

#[tokio::test]
async fn a_version_that_is_no_version_is_an_error() {
    let database = Database::with_table().await;
    let store = database.store("any");
    done(&store, 0).await;
    database
        .sql(&format!("UPDATE {TABLE} SET version = -1"))
        .await;
    says(&said(&read(&store).await.unwrap_err()), &["columns"]);
    let error = in_time(store.swap(u64::MAX, &record(1))).await.unwrap_err();
    says(&said(&error), &["version"]);
}
