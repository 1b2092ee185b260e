//! What a store does when the way to its server is cut, or the server stops or dies: an answer that did not
//! come is an error, what was asked is done or not, and the next call finds the server again.

use std::time::Duration;

use redis::Client;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::test_util::check_unreadable_shared_token_store;

use crate::common::HANG;
use crate::common::Place;
use crate::common::access_token;
use crate::common::ask;
use crate::common::client;
use crate::common::done;
use crate::common::read;
use crate::common::record;
use crate::common::server;
use crate::common::swap;
use crate::common::version;
use crate::proxy::Proxy;
use crate::proxy::Way;
use crate::servers::Redis;
use crate::trouble::unanswered;

/// A store that has a proxy on its way, and one that has not; version 1 is there.
struct Scene {
    proxy: Proxy,
    store: RedisStore,
    direct: RedisStore,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        let direct = place.store();
        let port = Client::open(&*place.url).unwrap();
        let port = match port.get_connection_info().addr() {
            redis::ConnectionAddr::Tcp(_, port) => *port,
            other => panic!("{other}"),
        };
        let proxy = Proxy::to(port).await;
        let store = store(&proxy, &place.prefix);
        done(&store, 0).await;
        Self {
            proxy,
            store,
            direct,
        }
    }

    /// A swap that is dropped once the test has seen what it waits for.
    async fn drop_swap(&self, seen: impl Future<Output = ()>) {
        unanswered(self.store.swap(1, &record(2)), seen).await;
    }
}

fn store(proxy: &Proxy, prefix: &str) -> RedisStore {
    RedisStore::new(client(&format!("redis://{}", proxy.address)), "session").prefix(prefix)
}

// shows B137: it is done, nobody is told, and whoever reads it back finds out.
#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_an_error_and_is_found_to_be_done() {
    let scene = Scene::new().await;
    scene.proxy.set(Way::ANSWERS_LOST);
    let next = record(2);
    let cut = async {
        scene.proxy.until_answered().await;
        scene.proxy.cut();
    };
    let (swapped, ()) = tokio::join!(swap(&scene.store, 1, &next), cut);
    let error = swapped.unwrap_err().to_string();
    assert!(error.contains("may be done or not"), "{error}");
    let (found, _) = read(&scene.store).await.unwrap();
    assert_eq!(access_token(&found), Some("access-2"));
    // It was sent once.
    assert_eq!(version(&scene.direct).await, 2);
}

#[tokio::test]
async fn a_swap_that_never_arrives_is_an_error_and_is_found_not_to_be_done() {
    let scene = Scene::new().await;
    scene.proxy.set(Way::REQUESTS_LOST);
    let next = record(2);
    let cut = async {
        scene.proxy.until_requested().await;
        scene.proxy.cut();
    };
    let (swapped, ()) = tokio::join!(swap(&scene.store, 1, &next), cut);
    let error = swapped.unwrap_err().to_string();
    assert!(error.contains("may be done or not"), "{error}");
    assert_eq!(version(&scene.store).await, 1);
    done(&scene.store, 1).await;
}

// shows P3: whoever gives a call up does not wait for it again.
#[tokio::test]
async fn a_swap_that_is_dropped_unanswered_makes_the_next_call_connect_anew() {
    for way in [Way::ANSWERS_LOST, Way::REQUESTS_LOST] {
        let scene = Scene::new().await;
        scene.proxy.set(way);
        let connections = scene.proxy.count();
        scene.drop_swap(scene.proxy.until_stopped(way)).await;
        let expected = if way == Way::ANSWERS_LOST { 2 } else { 1 };
        assert_eq!(version(&scene.store).await, expected);
        assert_eq!(scene.proxy.count(), connections + 1);
    }
}

// It was given up by another one already, and the new one is somebody else's.
#[tokio::test]
async fn a_call_that_is_dropped_late_leaves_the_new_connection_alone() {
    let scene = Scene::new().await;
    scene.proxy.set(Way::ANSWERS_LOST);
    let mut early = Box::pin(scene.store.read());
    unanswered(&mut early, scene.proxy.until_answered()).await;
    scene.drop_swap(scene.proxy.until_answered()).await;
    assert_eq!(version(&scene.store).await, 2);
    let connections = scene.proxy.count();
    drop(early);
    assert_eq!(version(&scene.store).await, 2);
    assert_eq!(scene.proxy.count(), connections);
}

// As the contract says: once, and only if the version is still right.
#[tokio::test]
async fn a_swap_that_was_dropped_may_come_late_and_takes_no_newer_records_place() {
    for is_overtaken in [false, true] {
        let scene = Scene::new().await;
        scene.proxy.set(Way::REQUESTS_HELD);
        scene.drop_swap(scene.proxy.until_requested()).await;
        assert_eq!(version(&scene.store).await, 1);
        if is_overtaken {
            let other = record(3);
            let swapped = swap(&scene.store, 1, &other).await.unwrap();
            assert_eq!(swapped, Swap::Done);
        }
        let arrives = scene.proxy.until_answered();
        scene.proxy.set_one(0, Way::ANSWERS_LOST);
        timeout(HANG, arrives).await.expect("it arrives");
        let expected = if is_overtaken { 3 } else { 2 };
        assert_eq!(version(&scene.store).await, expected);
    }
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_is_repeated_by_the_next_call() {
    let scene = Scene::new().await;
    scene.proxy.set(Way::ANSWERS_LOST);
    unanswered(scene.store.read(), scene.proxy.until_answered()).await;
    assert_eq!(version(&scene.store).await, 1);
}

// A server closes what was not used for a while (`timeout`), and what it had when it was started anew.
#[tokio::test]
async fn a_read_on_a_connection_that_was_closed_meanwhile_is_no_error() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        scene.proxy.cut();
        assert_eq!(version(&scene.store).await, 1);
    }
}

// Nothing was sent on it.
#[tokio::test]
async fn a_swap_on_a_connection_that_was_closed_meanwhile_is_no_error() {
    let server = server(&[]);
    let place = Place::of(&server);
    for store in [
        place.store(),
        place.store().session("another").wait(0, HANG),
    ] {
        done(&store, 0).await;
        let mut admin = place.admin().await;
        let killed: u64 = ask(&mut admin, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert!(killed > 0);
        // It takes a moment until that is known here.
        let known = async {
            let mut probe = place.admin().await;
            let _: String = ask(&mut probe, &["PING"]).await;
        };
        known.await;
        done(&store, 1).await;
    }
}

// What fails on a new connection is not tried again.
#[tokio::test]
async fn a_read_that_is_cut_after_the_connection_was_made_for_it_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            connections += 1;
            let mut bytes = [0; 4096];
            // The client says who it is; then it is asked for the record.
            for answer in [&b"+OK\r\n+OK\r\n"[..], b""] {
                while !bytes.starts_with(b"*") {
                    assert_ne!(stream.read(&mut bytes).await.unwrap(), 0);
                }
                bytes = [0; 4096];
                stream.write_all(answer).await.unwrap();
            }
            if connections == 2 {
                return;
            }
        }
    });
    let store = RedisStore::new(client(&format!("redis://{address}")), "session");
    for _ in 0..2 {
        assert!(!server.is_finished());
        let error = read(&store).await.unwrap_err().to_string();
        assert!(error.contains("the connection to Redis is lost"), "{error}");
    }
    timeout(HANG, server)
        .await
        .expect("two connections")
        .unwrap();
}

// Nobody hammers a server that is in trouble.
#[tokio::test]
async fn a_read_that_is_cut_on_a_new_connection_is_an_error() {
    let scene = Scene::new().await;
    let fresh = store(&scene.proxy, "another");
    scene.proxy.set_next(Some(Way::ANSWERS_LOST));
    let connections = scene.proxy.count();
    let cut = async {
        timeout(HANG, scene.proxy.until_answered())
            .await
            .expect("it connects");
        scene.proxy.cut();
    };
    let (found, ()) = tokio::join!(read(&fresh), cut);
    let error = found.unwrap_err().to_string();
    assert!(
        error.contains("has closed the connection at once"),
        "{error}"
    );
    assert_eq!(scene.proxy.count(), connections + 1);
}

#[tokio::test]
async fn many_that_need_a_connection_share_one_and_its_failure() {
    const TASKS: usize = 40;

    let scene = Scene::new().await;
    for next in [Some(Way::OPEN), Some(Way::REQUESTS_LOST), None] {
        let fresh = store(&scene.proxy, "another");
        scene.proxy.set_next(next);
        let connections = scene.proxy.count();
        let reads = (0..TASKS).map(|i| {
            let store = fresh.session(&i.to_string());
            async move { store.read().await.map(drop) }
        });
        let reads = futures::future::join_all(reads);
        let reads = timeout(HANG, reads).await.expect("it hangs");
        assert_eq!(scene.proxy.count(), connections + 1, "{next:?}");
        for read in reads {
            assert_eq!(read.is_ok(), next == Some(Way::OPEN), "{read:?}");
        }
    }
}

// Whoever connects may be dropped: the next one does it.
#[tokio::test]
async fn who_gives_up_connecting_leaves_it_to_the_others() {
    let scene = Scene::new().await;
    let fresh = store(&scene.proxy, "another");
    scene.proxy.set_next(Some(Way::REQUESTS_LOST));
    let connections = scene.proxy.count();
    let mut first = Box::pin(fresh.read());
    unanswered(&mut first, scene.proxy.until_connected(connections + 1)).await;
    scene.proxy.set_next(Some(Way::OPEN));
    let second = tokio::spawn({
        let fresh = fresh.clone();
        async move { version(&fresh).await }
    });
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(timeout(HANG, second).await.unwrap().unwrap(), 0);
    assert_eq!(scene.proxy.count(), connections + 2);
}

// shows P4: it is there, it takes connections, and it says nothing.
#[tokio::test]
async fn a_server_that_is_stopped_is_an_error_and_is_found_again_within_one_call() {
    let server = server(&[]);
    let store = Place::of(&server).store();
    done(&store, 0).await;
    server.stop().unwrap();
    let unanswered = timeout(Duration::from_millis(100), store.read()).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    let error = read(&store).await.unwrap_err().to_string();
    assert!(error.contains("Redis does not answer"), "{error}");
    server.resume().unwrap();
    assert_eq!(version(&store).await, 1);
    done(&store, 1).await;
}

// shows P13: what was answered is on the disk, scripts are sent again, and the next call finds it.
#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_has_the_record() {
    let server = Redis::start().unwrap();
    let place = Place::of(&server);
    let store = place.store();
    for version in 0..3 {
        done(&store, version).await;
        server.kill().unwrap();
        let error = check_unreadable_shared_token_store(async || store.clone())
            .await
            .unwrap()
            .to_string();
        assert!(
            error.contains("can't connect to Redis: connection refused"),
            "{error}"
        );
        server.restart().unwrap();
        let (found, _) = read(&store).await.unwrap();
        assert_eq!(found.version(), version + 1);
    }
    // It was away between two calls: the read before each swap finds out.
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(version(&store).await, 3);
    done(&store, 3).await;
}

// A server that is cleaned up by hand.
#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let server = server(&[]);
    let place = Place::of(&server);
    let store = place.store();
    let mut admin = place.admin().await;
    for version in 0..3 {
        done(&store, version).await;
        let _: String = ask(&mut admin, &["SCRIPT", "FLUSH"]).await;
    }
    assert_eq!(version(&store).await, 3);
}

#[tokio::test]
async fn nothing_that_listens_is_said_at_once() {
    let server = server(&[]);
    let place = Place::of(&server);
    drop(server);
    let error = read(&place.store()).await.unwrap_err().to_string();
    assert!(
        error.contains("can't connect to Redis: connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_is_not_known_is_said() {
    let store = RedisStore::new(client("redis://:hunter2@no-such-host.invalid/"), "session");
    let error = read(&store).await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(said.contains("can't connect to Redis"), "{said}");
    assert!(
        !said.contains("hunter2") && !said.contains("invalid"),
        "{said}"
    );
}
