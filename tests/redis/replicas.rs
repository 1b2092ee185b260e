//! What replicas and their absence do to a record: with `wait`, nothing is said to be done, nor shown, that a
//! replica does not have; and what a failover loses without it (DESIGN section 7).

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_token_refresh::Record;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::test_util::check_shared_token_store;

use crate::common::HANG;
use crate::common::Place;
use crate::common::access_token;
use crate::common::admin;
use crate::common::ask;
use crate::common::caught_up;
use crate::common::client;
use crate::common::done;
use crate::common::read;
use crate::common::record;
use crate::common::replica_of;
use crate::common::server;
use crate::common::swap;
use crate::common::version;
use crate::proxy::Proxy;
use crate::proxy::Way;
use crate::servers::Redis;
use crate::trouble::unanswered;

/// For what will not come about.
const SHORT: Duration = Duration::from_millis(20);

/// Two servers, and one address that leads to the primary of both.
struct Pair {
    primary: Redis,
    replica: Redis,
    proxy: Proxy,
    /// From the replica to its primary. What is on the way to a replica that is stopped arrives all the
    /// same: the system keeps it.
    between: Proxy,
    prefix: String,
}

impl Pair {
    async fn new() -> Self {
        let primary = server(&[]);
        let between = Proxy::to(primary.port()).await;
        let port = between.address.port();
        let replica = spawn_blocking(move || replica_of(port)).await.unwrap();
        Self {
            between,
            proxy: Proxy::to(primary.port()).await,
            prefix: Place::of(&primary).prefix,
            primary,
            replica,
        }
    }

    /// Past replicas.
    fn plain(&self) -> RedisStore {
        let url = format!("redis://{}", self.proxy.address);
        RedisStore::new(client(&url), "session").prefix(&self.prefix)
    }

    fn waits(&self, limit: Duration) -> RedisStore {
        self.plain().wait(1, limit)
    }

    /// From now on the replica gets nothing.
    fn part(&self) {
        self.between.set(Way::ANSWERS_LOST);
        self.between.set_next(None);
    }

    /// The primary dies, and the replica takes its place behind the same address.
    async fn fail_over(&self) {
        self.primary.kill().unwrap();
        let mut admin = admin(&self.replica.url()).await;
        let _: String = ask(&mut admin, &["REPLICAOF", "NO", "ONE"]).await;
        self.proxy.lead_to(self.replica.port());
        self.proxy.cut();
    }
}

fn is_short(error: impl ToString) {
    let error = error.to_string();
    assert!(
        error.contains("0 of the 1 replicas have got the write within"),
        "{error}"
    );
}

/// What is shown once the replica has it, which may take longer than the store waits for it.
async fn confirmed(store: &RedisStore) -> Record {
    let shown = async {
        loop {
            match read(store).await {
                Ok((record, _)) => return record,
                Err(error) => is_short(error),
            }
        }
    };
    timeout(HANG, shown).await.expect("it hangs")
}

/// So often a command was called there.
async fn calls(admin: &mut MultiplexedConnection, command: &str) -> u64 {
    let stats: String = ask(admin, &["INFO", "commandstats"]).await;
    let name = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&name));
    let number = line.map(|line| line.split(',').next().unwrap().parse().unwrap());
    number.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_waits_for_replicas_passes_what_every_store_must() {
    let pair = Pair::new().await;
    check_shared_token_store(async || pair.waits(HANG))
        .await
        .unwrap();
}

// shows P13: the answer comes when a replica has it.
#[tokio::test]
async fn a_swap_that_is_done_is_on_the_replica() {
    let pair = Pair::new().await;
    let store = pair.waits(HANG);
    for version in 0..10 {
        done(&store, version).await;
    }
    pair.fail_over().await;
    let (found, _) = read(&pair.plain()).await.unwrap();
    assert_eq!(access_token(&found), Some("access-10"));
}

// shows P1: a claim that no replica has sends no refresh token, for it is not taken for done either when it is
// read back.
#[tokio::test]
async fn what_no_replica_has_is_unknown_and_not_shown_until_it_has() {
    let pair = Pair::new().await;
    let (store, other) = (pair.waits(SHORT), pair.plain());
    done(&pair.waits(HANG), 0).await;
    pair.replica.stop().unwrap();
    is_short(swap(&store, 1, &record(2)).await.unwrap_err());
    let mut admin = admin(&pair.primary.url()).await;
    let writes = calls(&mut admin, "hset").await;
    for handle in [&store, &store.clone()] {
        for _ in 0..2 {
            is_short(read(handle).await.unwrap_err());
        }
    }
    // `WAIT` may count from what was written on its own connection, which can be a new one.
    assert_eq!(calls(&mut admin, "hset").await, writes + 4);
    // It was not written for another session, nor by another process.
    assert_eq!(version(&store.session("another")).await, 0);
    assert_eq!(version(&other).await, 2);
    pair.replica.resume().unwrap();
    let found = confirmed(&store).await;
    assert_eq!(access_token(&found), Some("access-2"));
    // It does not have to be confirmed for ever.
    pair.replica.stop().unwrap();
    assert_eq!(version(&store).await, 2);
}

// The record in question is confirmed, however it came about that nobody knows.
#[tokio::test]
async fn what_was_dropped_or_cut_is_confirmed_before_it_is_shown() {
    for is_cut in [false, true] {
        let pair = Pair::new().await;
        let store = pair.waits(SHORT);
        done(&pair.waits(HANG), 0).await;
        assert_eq!(version(&store).await, 1);
        // It has the connection that it writes on.
        assert_eq!(swap(&store, 0, &record(1)).await.unwrap(), Swap::Conflict);
        pair.replica.stop().unwrap();
        // The first is that of the one that has begun, the second reads.
        pair.proxy.set_one(2, Way::ANSWERS_LOST);
        unanswered(store.swap(1, &record(2)), pair.proxy.until_answered()).await;
        if is_cut {
            pair.proxy.cut();
        }
        is_short(read(&store).await.unwrap_err());
        pair.replica.resume().unwrap();
        assert_eq!(confirmed(&store).await.version(), 2);
    }
}

// A swap that was dropped may be done at any time while the version is right.
#[tokio::test]
async fn a_swap_that_comes_late_is_confirmed_before_it_is_shown() {
    let pair = Pair::new().await;
    let store = pair.waits(SHORT);
    done(&pair.waits(HANG), 0).await;
    assert_eq!(swap(&store, 0, &record(1)).await.unwrap(), Swap::Conflict);
    pair.proxy.set(Way::REQUESTS_HELD);
    unanswered(store.swap(1, &record(2)), pair.proxy.until_requested()).await;
    // Not yet done: nothing is in doubt of what is shown, as often as it is asked for.
    pair.replica.stop().unwrap();
    let direct = RedisStore::new(client(&pair.primary.url()), "session").prefix(&pair.prefix);
    for _ in 0..2 {
        assert_eq!(version(&direct).await, 1);
    }
    pair.proxy.set(Way::OPEN);
    // The bytes arrive.
    let arrived = async { while version(&direct).await == 1 {} };
    timeout(HANG, arrived).await.expect("it arrives");
    is_short(read(&store).await.unwrap_err());
}

// What is confirmed says nothing of what may still come in its place.
#[tokio::test]
async fn a_swap_that_comes_after_a_record_was_confirmed_is_confirmed_as_well() {
    let pair = Pair::new().await;
    let store = pair.waits(SHORT);
    done(&pair.waits(HANG), 0).await;
    pair.replica.stop().unwrap();
    is_short(swap(&store, 1, &record(2)).await.unwrap_err());
    // The first is that of the one that has begun.
    pair.proxy.set_one(1, Way::REQUESTS_HELD);
    unanswered(store.swap(2, &record(3)), pair.proxy.until_requested()).await;
    pair.replica.resume().unwrap();
    assert_eq!(confirmed(&store).await.version(), 2);
    pair.replica.stop().unwrap();
    pair.proxy.set_one(1, Way::OPEN);
    let direct = RedisStore::new(client(&pair.primary.url()), "session").prefix(&pair.prefix);
    let arrived = async { while version(&direct).await == 2 {} };
    timeout(HANG, arrived).await.expect("it arrives");
    is_short(read(&store).await.unwrap_err());
}

#[tokio::test]
async fn a_conflict_leaves_nothing_in_doubt() {
    let pair = Pair::new().await;
    let store = pair.waits(SHORT);
    done(&pair.waits(HANG), 0).await;
    pair.replica.stop().unwrap();
    assert_eq!(swap(&store, 0, &record(1)).await.unwrap(), Swap::Conflict);
    assert_eq!(version(&store).await, 1);
}

// While a server waits for replicas, it reads nothing else on that connection.
#[tokio::test]
async fn many_that_swap_at_once_wait_together() {
    const SESSIONS: usize = 100;

    let pair = Pair::new().await;
    let store = pair.waits(HANG);
    done(&store, 0).await;
    let mut admin = admin(&pair.primary.url()).await;
    let before = calls(&mut admin, "wait").await;
    pair.replica.stop().unwrap();
    let swaps = (0..SESSIONS).map(|i| {
        let store = store.session(&i.to_string());
        tokio::spawn(async move { store.swap(0, &record(1)).await.unwrap() })
    });
    let swaps: Vec<_> = swaps.collect();
    // All others read meanwhile.
    for _ in 0..10 {
        assert_eq!(version(&store).await, 1);
    }
    pair.replica.resume().unwrap();
    let swaps = futures::future::join_all(swaps);
    for swapped in timeout(HANG, swaps).await.expect("it hangs") {
        assert_eq!(swapped.unwrap(), Swap::Done);
    }
    let waits = calls(&mut admin, "wait").await - before;
    assert!((1..=3).contains(&waits), "{waits}");
}

// They fail together as well: nobody waits for what another one has waited for in vain.
#[tokio::test]
async fn many_that_no_replica_confirms_are_told_together() {
    const SESSIONS: usize = 100;

    let pair = Pair::new().await;
    let store = pair.waits(SHORT);
    done(&pair.waits(HANG), 0).await;
    pair.replica.stop().unwrap();
    let mut admin = admin(&pair.primary.url()).await;
    let before = calls(&mut admin, "wait").await;
    let swaps = (0..SESSIONS).map(|i| {
        let store = store.session(&i.to_string());
        tokio::spawn(async move { store.swap(0, &record(1)).await.map(drop) })
    });
    let swaps = futures::future::join_all(swaps.collect::<Vec<_>>());
    for swapped in timeout(HANG, swaps).await.expect("it hangs") {
        is_short(swapped.unwrap().unwrap_err());
    }
    let waits = calls(&mut admin, "wait").await - before;
    assert!((1..=4).contains(&waits), "{waits}");
}

// This is the limit that the page of `RedisStore` states: Redis answers before its replicas have the write.
#[tokio::test]
async fn without_waiting_a_failover_loses_what_the_replica_did_not_get() {
    for first in [0, 1] {
        let pair = Pair::new().await;
        let store = pair.plain();
        for version in 0..first {
            done(&store, version).await;
        }
        caught_up(&pair.primary).await;
        pair.part();
        done(&store, first).await;
        assert_eq!(version(&store).await, first + 1);
        pair.fail_over().await;
        // The older record, or none: no error, and no newer one.
        assert_eq!(version(&store).await, first);
        done(&store, first).await;
    }
}

// shows P1: nothing is lost that was said to be done, or shown.
#[tokio::test]
async fn with_waiting_a_failover_loses_nothing_that_was_said_to_be_done() {
    let pair = Pair::new().await;
    let store = pair.waits(SHORT);
    done(&pair.waits(HANG), 0).await;
    pair.part();
    is_short(swap(&store, 1, &record(2)).await.unwrap_err());
    is_short(read(&store).await.unwrap_err());
    pair.fail_over().await;
    // The swap was not said to be done, and is not.
    assert_eq!(version(&store).await, 1);
    // The new primary has no replica: what it is given does not count either.
    is_short(swap(&store, 1, &record(2)).await.unwrap_err());
    is_short(read(&store).await.unwrap_err());
}

// After a failover, the connections that there are may lead to what is a replica now.
#[tokio::test]
async fn a_connection_to_a_replica_is_given_up_for_one_to_the_primary() {
    let pair = Pair::new().await;
    let store = pair.plain();
    done(&store, 0).await;
    caught_up(&pair.primary).await;
    pair.proxy.lead_to(pair.replica.port());
    pair.proxy.cut();
    for _ in 0..2 {
        let error = read(&store).await.unwrap_err().to_string();
        assert!(error.contains("(READONLY)"), "{error}");
    }
    pair.proxy.lead_to(pair.primary.port());
    assert_eq!(version(&store).await, 1);
    done(&store, 1).await;
}

// An answer of the old primary is not confirmed by the new one, which never got the write.
#[tokio::test]
async fn what_one_server_has_written_another_one_does_not_confirm() {
    let pair = Pair::new().await;
    let store = pair.waits(HANG);
    done(&store, 0).await;
    pair.part();
    let next = record(2);
    let fails_over = async {
        let mut admin = admin(&pair.primary.url()).await;
        let blocked = async { while !is_blocked(&mut admin).await {} };
        timeout(HANG, blocked).await.expect("it waits");
        pair.fail_over().await;
    };
    let (swapped, ()) = tokio::join!(swap(&store, 1, &next), fails_over);
    let error = swapped.unwrap_err().to_string();
    assert!(error.contains("is lost"), "{error}");
    assert_eq!(version(&store).await, 1);
}

async fn is_blocked(admin: &mut MultiplexedConnection) -> bool {
    let clients: String = ask(admin, &["INFO", "clients"]).await;
    clients.contains("blocked_clients:1")
}

// It is the default: no connection more, no `WAIT`.
#[tokio::test]
async fn no_replicas_are_waited_for_where_none_are_asked_for() {
    let server = server(&[]);
    let place = Place::of(&server);
    for store in [
        place.store(),
        place.store().wait(0, HANG).session("another"),
    ] {
        done(&store, 0).await;
    }
    let mut admin = place.admin().await;
    assert_eq!(calls(&mut admin, "wait").await, 0);
}
