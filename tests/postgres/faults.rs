//! What a call says when its connection or its server fails, and that the next call finds the server that is
//! there by then.

use std::net::SocketAddr;

use futures::future::join_all;
use tokio_postgres::Config;
use tokio_postgres::NoTls;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::proxy::Proxy;
use crate::proxy::Way;
use crate::scene::Database;
use crate::scene::config;
use crate::scene::in_time;
use crate::scene::read;
use crate::scene::record;
use crate::scene::refusal;
use crate::scene::said;
use crate::scene::settle_down;
use crate::scene::swap;
use crate::servers::PgBouncer;
use crate::servers::Postgres;
use crate::trouble::unanswered;

const TABLE: &str = "token_refresh_sessions";

fn address(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once('@').unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    address.parse().unwrap()
}

/// The URL by which the same is found through this proxy.
fn through(proxy: &Proxy, url: &str) -> String {
    url.replace(&address(url).to_string(), &proxy.address.to_string())
}

/// A store with version 1, behind a proxy.
async fn behind_a_proxy() -> (Database, Proxy, PostgresStore) {
    let database = Database::with_table().await;
    let proxy = Proxy::to(address(&database.url).port()).await;
    let store = PostgresStore::new(config(&through(&proxy, &database.url)), NoTls, "any");
    assert_eq!(swap(&store, 0).await.unwrap(), Swap::Done);
    (database, proxy, store)
}

fn versions(version: u64) -> String {
    format!("SELECT count(*) FROM {TABLE} WHERE version = {version}")
}

async fn finds(store: &PostgresStore, version: u64) {
    assert_eq!(read(store).await.unwrap().version(), version);
}

/// A server that reloads its configuration tells its log, and then each of its sessions, which takes some reads.
async fn comes_to_find(store: &PostgresStore, version: u64) {
    for _ in 0..10_000 {
        if read(store).await.unwrap().version() == version {
            return;
        }
    }
    finds(store, version).await;
}

// "Cannot say": it is done, and nobody was told.
#[tokio::test]
async fn a_swap_whose_answer_is_cut_off_is_an_error_and_done() {
    let (database, proxy, store) = behind_a_proxy().await;
    proxy.set(Way::ANSWERS_HELD);
    let swapping = store.clone();
    let swapped = tokio::spawn(async move { swap(&swapping, 1).await });
    database.until(&versions(2), 1).await;
    proxy.cut();
    let error = swapped.await.unwrap().unwrap_err();
    assert!(said(&error).contains("connection"), "{error}");
    // Within one call.
    finds(&store, 2).await;
    assert_eq!(swap(&store, 1).await.unwrap(), Swap::Conflict);
}

#[tokio::test]
async fn a_swap_that_is_cut_off_before_it_arrives_is_an_error_and_not_done() {
    let (_database, proxy, store) = behind_a_proxy().await;
    proxy.set(Way::REQUESTS_HELD);
    let swapping = store.clone();
    let swapped = tokio::spawn(async move { swap(&swapping, 1).await });
    in_time(proxy.until_stopped(Way::REQUESTS_HELD)).await;
    proxy.cut();
    let error = swapped.await.unwrap().unwrap_err();
    assert!(said(&error).contains("connection"), "{error}");
    finds(&store, 1).await;
    assert_eq!(swap(&store, 1).await.unwrap(), Swap::Done);
}

#[tokio::test]
async fn a_read_that_is_cut_off_is_made_again_on_a_new_connection() {
    let (_database, proxy, store) = behind_a_proxy().await;
    for held in [Way::ANSWERS_HELD, Way::REQUESTS_HELD] {
        let connections = proxy.count();
        proxy.set(held);
        let reading = store.clone();
        let found = tokio::spawn(async move { read(&reading).await });
        in_time(proxy.until_stopped(held)).await;
        proxy.cut();
        assert_eq!(found.await.unwrap().unwrap().version(), 1);
        assert_eq!(proxy.count(), connections + 1);
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_while_nobody_used_it_is_noticed() {
    let (_database, proxy, store) = behind_a_proxy().await;
    for version in 1..5 {
        proxy.cut();
        // The store's runtime has seen the end by then, as a gateway's has.
        settle_down().await;
        assert_eq!(swap(&store, version).await.unwrap(), Swap::Done);
    }
    assert_eq!(proxy.count(), 5);
}

// shows that a call without an answer makes its connection suspect.
#[tokio::test]
async fn after_a_call_that_was_dropped_the_next_one_has_a_connection_of_its_own() {
    let (database, proxy, store) = behind_a_proxy().await;
    for held in [Way::ANSWERS_HELD, Way::REQUESTS_HELD] {
        let connections = proxy.count();
        proxy.set(held);
        unanswered(store.read(), proxy.until_stopped(held)).await;
        finds(&store, 1).await;
        // Over another one the server is asked to give up.
        assert!(proxy.count() > connections);
    }
    // Both kinds of call.
    proxy.set(Way::ANSWERS_HELD);
    unanswered(store.swap(1, &record(2)), database.until(&versions(2), 1)).await;
    finds(&store, 2).await;
    // Those that were given up are closed.
    let all = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name = 'tower-token-refresh'";
    database.until(all, 1).await;
}

#[tokio::test]
async fn forty_who_need_a_connection_wait_for_the_same() {
    let (_database, proxy, store) = behind_a_proxy().await;
    for held in [Way::REQUESTS_HELD, Way::ANSWERS_HELD] {
        let connections = proxy.count();
        proxy.cut();
        proxy.set_next(Some(held));
        let reads: Vec<_> = (0..40)
            .map(|i| {
                let store = store.session(&i.to_string());
                tokio::spawn(async move { read(&store).await.map(|record| record.version()) })
            })
            .collect();
        in_time(proxy.until_stopped(held)).await;
        settle_down().await;
        assert_eq!(proxy.count(), connections + 1);
        // Cut off in the middle of it, it is an error for all.
        proxy.cut();
        for read in reads {
            let error = read.await.unwrap().unwrap_err();
            assert!(said(&error).contains("connection"), "{error}");
        }
        proxy.set_next(Some(Way::OPEN));
        let sessions: Vec<_> = (0..40).map(|i| store.session(&i.to_string())).collect();
        let reads = join_all(sessions.iter().map(read)).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        assert_eq!(proxy.count(), connections + 2);
    }
}

// Connecting may take longer than the one call that has begun it.
#[tokio::test]
async fn connecting_goes_on_when_the_call_that_needed_it_is_dropped() {
    let (_database, proxy, store) = behind_a_proxy().await;
    let connections = proxy.count();
    proxy.cut();
    proxy.set_next(Some(Way::ANSWERS_HELD));
    unanswered(store.read(), proxy.until_stopped(Way::ANSWERS_HELD)).await;
    proxy.set(Way::OPEN);
    finds(&store, 1).await;
    assert_eq!(proxy.count(), connections + 1);
}

// The old one may be stopped, or cut off from here: nobody says goodbye.
#[tokio::test]
async fn a_server_that_was_replaced_behind_its_address_is_found_within_one_call() {
    let (old, new) = (Postgres::start().unwrap(), Postgres::start().unwrap());
    let proxy = Proxy::to(address(&old.url()).port()).await;
    let store = |url: &str| PostgresStore::new(config(url), NoTls, "any");
    in_time(store(&new.url()).create_table()).await.unwrap();
    for version in 0..2 {
        assert_eq!(swap(&store(&new.url()), version).await.unwrap(), Swap::Done);
    }
    let store = store(&through(&proxy, &old.url()));
    in_time(store.create_table()).await.unwrap();
    assert_eq!(swap(&store, 0).await.unwrap(), Swap::Done);
    old.stop().unwrap();
    proxy.lead_to(address(&new.url()).port());
    unanswered(store.read(), settle_down()).await;
    finds(&store, 2).await;
    old.resume().unwrap();
    finds(&store, 2).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_and_goes_on_is_found_within_one_call() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url()).await;
    let store = database.store("any");
    in_time(store.create_table()).await.unwrap();
    for version in 0..4 {
        server.stop().unwrap();
        unanswered(store.swap(version, &record(version + 1)), settle_down()).await;
        server.resume().unwrap();
        // The late one may be done, once; or nobody has sent it.
        match swap(&store, version).await.unwrap() {
            Swap::Done | Swap::Conflict => finds(&store, version + 1).await,
        }
    }
}

#[tokio::test]
async fn a_server_that_is_killed_and_restarted_is_found_within_one_call() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url()).await;
    let stores = [database.store("any"), database.store("any")];
    in_time(stores[0].create_table()).await.unwrap();
    for version in 0..3 {
        let (writes, reads) = (
            &stores[version as usize % 2],
            &stores[1 - version as usize % 2],
        );
        assert_eq!(swap(writes, version).await.unwrap(), Swap::Done);
        finds(reads, version + 1).await;
        server.kill().unwrap();
        assert!(refusal_of(writes).await.contains("connection"));
        server.restart().unwrap();
        finds(writes, version + 1).await;
        finds(reads, version + 1).await;
    }
}

async fn refusal_of(store: &PostgresStore) -> String {
    said(&read(store).await.unwrap_err())
}

// A pooler keeps its clients when its server is gone, for a while.
#[tokio::test]
async fn a_server_behind_a_pooler_that_is_killed_and_restarted_is_found() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    let stores = || PostgresStore::new(config(&pooler.url()), NoTls, "any");
    let stores = [stores(), stores()];
    in_time(stores[0].create_table()).await.unwrap();
    let mut version = 0;
    for _ in 0..3 {
        for store in &stores {
            assert_eq!(swap(store, version).await.unwrap(), Swap::Done);
            version += 1;
        }
        server.kill().unwrap();
        let reads = stores
            .iter()
            .map(|store| tokio::spawn(goes_on(store.clone())));
        let reads: Vec<_> = reads.collect();
        server.restart().unwrap();
        for read in reads {
            assert_eq!(read.await.unwrap(), version);
        }
    }
    pooler.kill().unwrap();
    pooler.restart().unwrap();
    finds(&stores[0], version).await;
}

/// As a session does it: a call has a deadline, and the next one follows.
async fn goes_on(store: PostgresStore) -> u64 {
    for _ in 0..100_000 {
        let deadline = std::time::Duration::from_secs(3);
        match tokio::time::timeout(deadline, store.read()).await {
            Ok(Ok((record, _))) => return record.version(),
            Ok(Err(_)) | Err(_) => tokio::task::yield_now().await,
        }
    }
    panic!("the server is not found")
}

/// Both servers, in this order.
fn both(first: &str, second: &str) -> Config {
    let (first, second) = (address(first), address(second));
    let text = format!(
        "host={},{} port={},{} user=postgres dbname=postgres",
        first.ip(),
        second.ip(),
        first.port(),
        second.port()
    );
    text.parse().unwrap()
}

/// With this version in it.
async fn server_with(version: u64) -> Postgres {
    let server = Postgres::start().unwrap();
    let store = PostgresStore::new(config(&server.url()), NoTls, "any");
    in_time(store.create_table()).await.unwrap();
    for version in 0..version {
        assert_eq!(swap(&store, version).await.unwrap(), Swap::Done);
    }
    server
}

// shows that a primary which was demoted is left for the new one, within the call that finds it out.
#[tokio::test]
async fn of_several_servers_the_one_that_takes_writes_is_found() {
    let (first, second) = (server_with(1).await, server_with(2).await);
    let (url, other) = (first.url(), second.url());
    let store = PostgresStore::new(both(&url, &other), NoTls, "any");
    finds(&store, 1).await;
    read_only(&first, "on");
    comes_to_find(&store, 2).await;
    // A new one begins with the first server.
    let another = PostgresStore::new(both(&url, &other), NoTls, "any");
    assert_eq!(swap(&another, 2).await.unwrap(), Swap::Done);
    read_only(&first, "off");
    read_only(&second, "on");
    // By a swap, too.
    assert_eq!(swap(&store, 1).await.unwrap(), Swap::Done);
    read_only(&first, "on");
    let said = refusal(&store).await;
    assert!(said.contains("takes no writes"), "{said}");
    read_only(&second, "off");
    finds(&store, 3).await;
}

/// For connections that are there as well.
fn read_only(server: &Postgres, value: &str) {
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    let lines = server.lines();
    server
        .sql(&format!("{set};\nSELECT pg_reload_conf();"))
        .unwrap();
    server
        .wait_for_line(lines, "\"default_transaction_read_only\" changed")
        .unwrap();
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_passed_over() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("x@{}/x", silent.local_addr().unwrap());
    let server = server_with(1).await;
    let store = PostgresStore::new(both(&silent, &server.url()), NoTls, "any");
    finds(&store, 1).await;
}

#[tokio::test]
async fn a_standby_is_an_error_until_it_is_promoted() {
    let server = std::sync::Arc::new(server_with(1).await);
    let store = PostgresStore::new(config(&server.url()), NoTls, "any");
    finds(&store, 1).await;
    server.kill().unwrap();
    std::fs::write(server.folder().join("standby.signal"), "").unwrap();
    let (restarting, url) = (server.clone(), server.url());
    // Until it can be used, which is when it was promoted.
    let restarted = std::thread::spawn(move || restarting.restart().unwrap());
    let is_up = async {
        while config(&url).connect(NoTls).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    in_time(is_up).await;
    let said = refusal(&store).await;
    assert!(
        said.contains("takes no writes") && said.contains("standby"),
        "{said}"
    );
    let promote = crate::scene::client(&url).await;
    promote
        .batch_execute("SELECT pg_promote(true, 60)")
        .await
        .unwrap();
    restarted.join().unwrap();
    finds(&store, 1).await;
    assert_eq!(swap(&store, 1).await.unwrap(), Swap::Done);
}

// Somebody has a transaction open on the row: what waits for it is not piled up in the server.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_cancelled_in_the_server() {
    let database = Database::with_table().await;
    let store = database.store("any");
    assert_eq!(swap(&store, 0).await.unwrap(), Swap::Done);
    let other = crate::scene::client(&database.url).await;
    let lock = format!("BEGIN; SELECT FROM {TABLE} FOR UPDATE");
    other.batch_execute(&lock).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..5 {
        unanswered(store.swap(1, &record(2)), database.until(waiting, 1)).await;
        database.until(waiting, 0).await;
    }
    other.batch_execute("COMMIT").await.unwrap();
    finds(&store, 1).await;
    assert_eq!(swap(&store, 1).await.unwrap(), Swap::Done);
}

// A runtime that is gone took its connection with it.
#[test]
fn a_store_outlives_the_runtime_on_which_it_was_connected() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    let (database, store) = first.block_on(async {
        let database = Database::with_table().await;
        let store = database.store("any");
        assert_eq!(swap(&store, 0).await.unwrap(), Swap::Done);
        (database, store)
    });
    drop(first);
    let second = runtime();
    second.block_on(finds(&store, 1));
    // This one is there, and nobody drives it: a session gives up at its deadline.
    let third = runtime();
    third.block_on(async {
        unanswered(store.read(), settle_down()).await;
        finds(&store, 1).await;
    });
    drop((database, second));
}
