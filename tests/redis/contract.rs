//! What every store that several processes share must do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use futures::future::join_all;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::test_util::check_shared_token_store;
use tower_token_refresh::test_util::check_unreadable_shared_token_store;

use crate::common::HANG;
use crate::common::Place;
use crate::common::access_token;
use crate::common::ask;
use crate::common::done;
use crate::common::read;
use crate::common::record;
use crate::common::swap;
use crate::common::version;

// shows P1, P13, B131
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_what_every_store_must() {
    let place = Place::new();
    check_shared_token_store(async || place.store())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_with_a_secret_as_well() {
    let place = Place::new();
    check_shared_token_store(async || place.sealed())
        .await
        .unwrap();
}

// One thread, and all handles on the same connections.
#[tokio::test]
async fn it_passes_where_all_handles_share_the_connections() {
    let place = Place::new();
    let store = place.store();
    check_shared_token_store(async || store.clone())
        .await
        .unwrap();
}

// shows B7: a record that can't be read is no missing one.
#[tokio::test]
async fn a_record_that_is_damaged_is_an_error_and_never_replaced() {
    let damages: [&[&str]; 6] = [
        &["HSET", "KEY", "record", "plain1 "],
        &["HSET", "KEY", "version", "01"],
        &["HDEL", "KEY", "version"],
        &["HDEL", "KEY", "record"],
        &["HSET", "KEY", "record", "sealed9 AAAA"],
        &["HSET", "KEY", "version", "0"],
    ];
    for sealed in [false, true] {
        for damage in damages {
            let place = Place::new();
            let open = || match sealed {
                true => place.sealed(),
                false => place.store(),
            };
            done(&open(), 0).await;
            let key = place.key().await;
            let damage: Vec<_> = damage
                .iter()
                .map(|&it| if it == "KEY" { key.as_str() } else { it })
                .collect();
            let mut admin = place.admin().await;
            let _: u64 = ask(&mut admin, &damage).await;
            let error = check_unreadable_shared_token_store(async || open())
                .await
                .unwrap_or_else(|error| panic!("{damage:?}: {error}"));
            let said = error.to_string();
            assert!(said.contains("record"), "{said}");
        }
    }
}

#[tokio::test]
async fn the_clock_is_the_servers() {
    let place = Place::new();
    let store = place.store();
    let mut admin = place.admin().await;
    let mut time = async || {
        let (seconds, micros): (u64, u64) = ask(&mut admin, &["TIME"]).await;
        SystemTime::UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + micros)
    };
    let before = time().await;
    let (_, now) = read(&store).await.unwrap();
    let after = time().await;
    assert!(
        before <= now && now <= after,
        "{before:?} {now:?} {after:?}"
    );
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// Swaps on top of what it reads, until it has done so often; how often it was not the first.
async fn write(store: RedisStore, wins: Arc<[AtomicU64]>, mut writes: u64) -> u64 {
    let mut conflicts = 0;
    while writes > 0 {
        let version = store.read().await.unwrap().0.version();
        match store.swap(version, &record(version + 1)).await.unwrap() {
            Swap::Done => {
                wins[usize::try_from(version).unwrap()].fetch_add(1, Ordering::Relaxed);
                writes -= 1;
            }
            Swap::Conflict => conflicts += 1,
        }
    }
    conflicts
}

// shows P1: of those that have seen the same record, one replaces it, in whichever runtime they are.
#[test]
fn of_many_writers_in_two_runtimes_one_wins_each_version_and_nothing_is_lost() {
    const RUNTIMES: u64 = 2;
    const TASKS: u64 = 16;
    const WRITES: u64 = 25;

    let place = Place::new();
    let store = place.store();
    let wins: Arc<[AtomicU64]> = (0..RUNTIMES * TASKS * WRITES)
        .map(|_| AtomicU64::new(0))
        .collect();
    let runtimes: Vec<_> = (0..RUNTIMES).map(|_| runtime()).collect();
    let tasks: Vec<_> = (0..RUNTIMES * TASKS)
        .map(|i| {
            // Some have connections of their own, and some those of the other runtime.
            let store = match i % 4 {
                0 => place.store(),
                _ => store.clone(),
            };
            let runtime = &runtimes[usize::try_from(i % RUNTIMES).unwrap()];
            runtime.spawn(write(store, wins.clone(), WRITES))
        })
        .collect();
    let all = async { timeout(HANG, join_all(tasks)).await };
    let conflicts = runtimes[0].block_on(all).expect("it hangs");
    let conflicts: u64 = conflicts.into_iter().map(Result::unwrap).sum();
    assert!(conflicts > 0, "nobody was ever in anybody's way");
    for (version, wins) in wins.iter().enumerate() {
        assert_eq!(wins.load(Ordering::Relaxed), 1, "version {version}");
    }
    let end = runtimes[0].block_on(version(&place.store()));
    assert_eq!(end, RUNTIMES * TASKS * WRITES);
}

// shows P4: the connection ends with its runtime, and the others get one of their own.
#[test]
fn who_shares_a_connection_with_a_runtime_that_ends_goes_on() {
    let place = Place::new();
    let store = place.store();
    let (first, second) = (runtime(), runtime());
    first.block_on(done(&store, 0));
    second.block_on(done(&store, 1));
    drop(first);
    assert_eq!(second.block_on(version(&store)), 2);
    second.block_on(done(&store, 2));
}

// shows P4: neither does a connection that nobody drives, nor one that somebody has begun to make there.
#[test]
fn a_runtime_that_nobody_drives_holds_nobody_up_for_long() {
    let place = Place::new();
    let idle = Builder::new_current_thread().enable_all().build().unwrap();
    let driven = runtime();
    for polls in [0, 1] {
        let store = place.store();
        if polls == 0 {
            idle.block_on(version(&store));
        } else {
            let store = store.clone();
            // It has the right to connect, and is not polled again.
            idle.block_on(async {
                let task = tokio::spawn(async move { store.read().await.map(drop) });
                tokio::task::yield_now().await;
                assert!(!task.is_finished());
            });
        }
        driven.block_on(async {
            let dropped = timeout(Duration::from_millis(100), store.read()).await;
            assert!(polls == 1 || dropped.is_err(), "nobody drives it");
            assert_eq!(version(&store).await, 0);
        });
    }
}

// Above 2^53 a script would round them.
#[tokio::test]
async fn versions_that_are_close_are_told_apart() {
    let place = Place::new();
    let store = place.store();
    let most = 1 << 53;
    assert_eq!(
        swap(&store, 0, &record(most - 1)).await.unwrap(),
        Swap::Done
    );
    for other in [most - 2, most, most + 1, 0, 1] {
        let swapped = swap(&store, other, &record(most)).await.unwrap();
        assert_eq!(swapped, Swap::Conflict, "{other}");
    }
    done(&store, most - 1).await;
    assert_eq!(version(&store).await, most);
    for other in [most - 1, most + 1, most + 2] {
        let swapped = swap(&store, other, &record(most)).await.unwrap();
        assert_eq!(swapped, Swap::Conflict, "{other}");
    }
}

#[tokio::test]
async fn a_key_never_expires_and_is_one_hash_per_session() {
    let place = Place::new();
    let store = place.store();
    done(&store, 0).await;
    done(&store.session("another"), 0).await;
    let mut admin = place.admin().await;
    let keys = place.keys().await;
    assert_eq!(keys.len(), 2);
    for key in keys {
        let kind: String = ask(&mut admin, &["TYPE", &key]).await;
        let left: i64 = ask(&mut admin, &["TTL", &key]).await;
        let mut fields: Vec<String> = ask(&mut admin, &["HKEYS", &key]).await;
        fields.sort();
        assert_eq!((kind.as_str(), left), ("hash", -1));
        assert_eq!(fields, ["record", "version"]);
    }
}

// shows S14
#[tokio::test]
async fn another_sessions_record_is_refused_and_so_is_one_of_another_version() {
    for sealed in [false, true] {
        let place = Place::new();
        let ours = match sealed {
            true => place.sealed(),
            false => place.store(),
        };
        let theirs = ours.session("another");
        done(&ours, 0).await;
        let our_key = place.key().await;
        done(&theirs, 0).await;
        let keys = place.keys().await;
        let their_key = keys.iter().find(|key| **key != our_key).unwrap();
        let mut admin = place.admin().await;
        let (old, _): (String, u64) = (
            ask(&mut admin, &["HGET", &our_key, "record"]).await,
            ask(&mut admin, &["DEL", their_key]).await,
        );
        let _: u64 = ask(&mut admin, &["COPY", &our_key, their_key]).await;
        let error = read(&theirs).await.unwrap_err().to_string();
        assert!(error.contains("that of another session"), "{error}");
        // An older one, beside the newer version.
        done(&ours, 1).await;
        let _: u64 = ask(&mut admin, &["HSET", &our_key, "record", &old]).await;
        let error = read(&ours).await.unwrap_err().to_string();
        assert!(error.contains("changed by hand"), "{error}");
    }
}

// What a later version of the crate has written is used, and left alone.
#[tokio::test]
async fn a_record_of_a_newer_version_is_read_and_cannot_be_written() {
    let place = Place::new();
    let store = place.store();
    let newer = json!({"format": 2, "version": 1, "epoch": 1, "access_token": "a", "new": true});
    let newer = tower_token_refresh::Record::from_json(newer.to_string().as_bytes()).unwrap();
    assert_eq!(access_token(&newer), Some("a"));
    let error = swap(&store, 0, &newer).await.unwrap_err().to_string();
    assert!(error.contains("a newer version of this crate"), "{error}");
    assert_eq!(version(&store).await, 0);
}

// shows B138: whatever is told on the channel, waiting ends for the right ones.
#[tokio::test]
async fn a_change_is_told_to_those_that_wait_for_it() {
    let place = Place::new();
    let (ours, theirs) = (place.store(), place.store());
    done(&ours, 0).await;
    let changed = timeout(HANG, ours.changed(1));
    let (changed, ()) = tokio::join!(changed, done(&theirs, 1));
    changed.expect("it hangs");
    timeout(HANG, ours.changed(1)).await.expect("it hangs");
}
