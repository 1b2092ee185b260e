//! The contract of a shared store, on a PostgreSQL and behind a PgBouncer.

use tower_token_refresh::PostgresStore;
use tower_token_refresh::Swap;
use tower_token_refresh::test_util::check_shared_token_store;
use tower_token_refresh::test_util::check_unreadable_shared_token_store;

use crate::scene::Database;
use crate::scene::SECRET;
use crate::scene::swap;
use crate::servers::PgBouncer;
use crate::servers::Postgres;

/// As processes do that share a session.
async fn check(open: impl Fn() -> PostgresStore) {
    // What the suite keeps is too much for the stack of a test's thread, twice.
    Box::pin(check_plain(&open)).await;
    Box::pin(check_sealed(&open)).await;
}

async fn check_plain(open: impl Fn() -> PostgresStore) {
    open().create_table().await.unwrap();
    let checked = Box::pin(check_shared_token_store(async || open().session("plain"))).await;
    checked.unwrap_or_else(|fault| panic!("{fault}: {:?}", std::error::Error::source(&fault)));
}

async fn check_sealed(open: impl Fn() -> PostgresStore) {
    open().create_table().await.unwrap();
    let sealed = || open().secret(SECRET).unwrap().session("sealed");
    let checked = Box::pin(check_shared_token_store(async || sealed())).await;
    checked.unwrap_or_else(|fault| panic!("{fault}: {:?}", std::error::Error::source(&fault)));
}

// shows P1, P8, B131
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_of_a_shared_store() {
    let database = Database::new().await;
    check(|| database.store("any")).await;
}

#[tokio::test]
async fn it_keeps_the_contract_on_a_single_thread() {
    let database = Database::new().await;
    check_sealed(|| database.store("any")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_where_all_sessions_share_the_connections() {
    let database = Database::new().await;
    let store = database.store("any");
    check_plain(|| store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_behind_a_pooler_that_gives_each_statement_another_connection() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    let database = Database::on(&pooler.url()).await;
    check(|| database.store("any")).await;
}

// Both are levels at which a statement may fail because of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_at_stricter_levels_of_isolation() {
    for level in ["repeatable read", "serializable"] {
        let database = Database::new().await;
        let level = format!("default_transaction_isolation = '{level}'");
        database.set(&level).await;
        check_plain(|| database.store("any")).await;
    }
}

// shows B7: what can't be read is no empty storage.
#[tokio::test]
async fn a_damaged_record_is_an_error() {
    let database = Database::with_table().await;
    let store = || database.store("any").secret(SECRET).unwrap();
    assert_eq!(swap(&store(), 0).await.unwrap(), Swap::Done);
    database
        .sql("UPDATE token_refresh_sessions SET record = left(record, 50)")
        .await;
    let error = check_unreadable_shared_token_store(async || store()).await;
    let error = error.unwrap_or_else(|fault| panic!("{fault}")).to_string();
    assert!(error.contains("changed by hand"), "{error}");
}
