//! What a session does when something is wrong with its database: a valid token is used, nothing is reissued, the
//! reason is told, and all goes on when it is put right (B7, S14).

use tokio_postgres::NoTls;
use tower_token_refresh::PostgresStore;

use crate::scene::Database;
use crate::servers::PgBouncer;
use crate::servers::Postgres;
use crate::trouble::InUse;

const TABLE: &str = "token_refresh_sessions";

#[tokio::test]
async fn a_database_that_takes_no_writes() {
    let database = Database::with_table().await;
    let config = database.config_of_another().await;
    let user = config.get_user().unwrap().to_owned();
    let grant = format!("GRANT SELECT, INSERT, UPDATE ON {TABLE} TO {user}");
    database.sql(&grant).await;
    let scene = InUse::new(PostgresStore::new(config, NoTls, "any")).await;
    database
        .sql(&format!("REVOKE UPDATE ON {TABLE} FROM {user}"))
        .await;
    scene.bears_it("42501").await;
    database.sql(&grant).await;
    scene.goes_on().await;
}

#[tokio::test]
async fn a_table_that_is_away() {
    let database = Database::with_table().await;
    let scene = InUse::new(database.store("any")).await;
    database
        .sql(&format!("ALTER TABLE {TABLE} RENAME TO away"))
        .await;
    scene.bears_it("create_table").await;
    database
        .sql(&format!("ALTER TABLE away RENAME TO {TABLE}"))
        .await;
    scene.goes_on().await;
}

#[tokio::test]
async fn the_record_of_another_session() {
    let database = Database::with_table().await;
    let store = database.store("any");
    let scene = InUse::new(store.clone()).await;
    let other = InUse::new(store.session("other")).await;
    let keep = format!("CREATE TABLE kept AS TABLE {TABLE}");
    database.sql(&keep).await;
    let copy = format!(
        "UPDATE {TABLE} SET record = kept.record FROM kept WHERE kept.session <> {TABLE}.session"
    );
    database.sql(&copy).await;
    scene.bears_it("another session").await;
    let back = format!(
        "UPDATE {TABLE} SET record = kept.record FROM kept WHERE kept.session = {TABLE}.session"
    );
    database.sql(&back).await;
    scene.goes_on().await;
    other.is_ok().await;
}

#[tokio::test]
async fn a_server_that_is_killed() {
    let server = Postgres::start().unwrap();
    let database = Database::with_table_on(&server.url()).await;
    let scene = InUse::new(database.store("any")).await;
    server.kill().unwrap();
    scene.bears_it("the connection to PostgreSQL").await;
    server.restart().unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_server_that_is_stopped() {
    let server = Postgres::start().unwrap();
    let database = Database::with_table_on(&server.url()).await;
    let scene = InUse::impatient(database.store("any")).await;
    server.stop().unwrap();
    scene.bears_it("").await;
    server.resume().unwrap();
    scene.goes_on().await;
}

// shows P1: processes on several machines, and the pooler that they have in common.
#[tokio::test]
async fn processes_that_share_a_login_make_one_reissue() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    for url in [server.url(), pooler.url()] {
        let database = Database::with_table_on(&url).await;
        let scene = InUse::new(database.store("any")).await;
        scene.shares((0..4).map(|_| database.store("any"))).await;
    }
}
