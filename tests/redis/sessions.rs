//! What a session does when something is wrong with its Redis: a valid token is used, nothing is reissued, the
//! reason is told, and all goes on when it is put right (B7, S14).

use std::time::Duration;

use sha2::Digest;
use sha2::Sha256;
use tower_token_refresh::RedisStore;

use crate::common::HANG;
use crate::common::Place;
use crate::common::SECRET;
use crate::common::access_token;
use crate::common::admin;
use crate::common::ask;
use crate::common::caught_up;
use crate::common::client;
use crate::common::read;
use crate::common::replica_of;
use crate::common::server;
use crate::common::set;
use crate::servers::Redis;
use crate::servers::RedisOptions;
use crate::trouble::InUse;

#[tokio::test]
async fn a_server_that_has_no_memory_left() {
    let server = server(&[]);
    let place = Place::of(&server);
    let scene = InUse::new(place.store()).await;
    let mut admin = place.admin().await;
    set(&mut admin, "maxmemory", "1").await;
    scene.bears_it("(OOM)").await;
    set(&mut admin, "maxmemory", "0").await;
    scene.goes_on().await;
}

#[tokio::test]
async fn a_server_that_becomes_a_replica() {
    let (primary, other) = (server(&[]), server(&[]));
    let place = Place::of(&primary);
    let scene = InUse::new(place.store()).await;
    let mut admin = place.admin().await;
    let port = other.port().to_string();
    // One that does not have what it has, and never gets to it.
    other.kill().unwrap();
    let _: String = ask(&mut admin, &["REPLICAOF", "127.0.0.1", &port]).await;
    scene.bears_it("(READONLY)").await;
    let _: String = ask(&mut admin, &["REPLICAOF", "NO", "ONE"]).await;
    scene.goes_on().await;
}

#[tokio::test]
async fn a_password_that_is_wrong_all_of_a_sudden() {
    let server = server(&[]);
    let mut admin = admin(&server.url()).await;
    set(&mut admin, "requirepass", "first").await;
    let url = format!("redis://:first@127.0.0.1:{}", server.port());
    let scene = InUse::new(RedisStore::new(client(&url), "any")).await;
    set(&mut admin, "requirepass", "second").await;
    // Those who are in stay so until their connections are closed.
    let _: u64 = ask(&mut admin, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    scene.bears_it("(WRONGPASS)").await;
    set(&mut admin, "requirepass", "first").await;
    scene.goes_on().await;
}

#[tokio::test]
async fn the_record_of_another_session() {
    for sealed in [false, true] {
        let place = Place::new();
        let store = match sealed {
            true => place.store().secret(SECRET).unwrap(),
            false => place.store(),
        };
        let scene = InUse::new(store.clone()).await;
        let our_key = place.key().await;
        let other = InUse::new(store.session("another")).await;
        let keys = place.keys().await;
        let their_key = keys.iter().find(|key| **key != our_key).unwrap();
        let mut admin = place.admin().await;
        let kept = format!("{}:kept", place.prefix);
        let rename = async |admin: &mut _, from: &str, to: &str| {
            let _: u64 = ask(admin, &["COPY", from, to, "REPLACE"]).await;
        };
        rename(&mut admin, &our_key, &kept).await;
        rename(&mut admin, their_key, &our_key).await;
        scene.bears_it("another session").await;
        rename(&mut admin, &kept, &our_key).await;
        scene.goes_on().await;
        other.is_ok().await;
    }
}

// shows S14: the pair of before is spent. Whoever remembers the newer one writes it back.
#[tokio::test]
async fn an_older_record_that_is_put_back() {
    let place = Place::new();
    let scene = InUse::new(place.store()).await;
    let key = place.key().await;
    let older = format!("{}:older", place.prefix);
    let mut admin = place.admin().await;
    let _: u64 = ask(&mut admin, &["COPY", &key, &older]).await;
    scene.world.expire();
    scene.goes_on().await;
    let _: u64 = ask(&mut admin, &["COPY", &older, &key, "REPLACE"]).await;
    scene.world.expire();
    scene.goes_on().await;
}

// shows P6: it is read and used, and neither reissued nor replaced.
#[tokio::test]
async fn a_record_that_a_newer_version_of_the_crate_has_written() {
    let place = Place::new();
    let store = place.store();
    let scene = InUse::new(store.clone()).await;
    let key = place.key().await;
    let mut admin = place.admin().await;
    let kept: Vec<String> = ask(&mut admin, &["HMGET", &key, "version", "record"]).await;
    let [version, text] = kept.as_slice() else {
        panic!("{kept:?}");
    };
    let newer = newer(
        key.rsplit(':').next().unwrap(),
        version.parse().unwrap(),
        text,
    );
    let _: u64 = ask(&mut admin, &["HSET", &key, "record", &newer]).await;
    let (found, _) = read(&store).await.unwrap();
    assert_eq!(found.version().to_string(), *version);
    assert!(access_token(&found).is_some());
    scene.bears_it("a newer version of this crate").await;
    let now: Vec<String> = ask(&mut admin, &["HMGET", &key, "version", "record"]).await;
    assert_eq!(now, [version.clone(), newer]);
    let _: u64 = ask(&mut admin, &["HSET", &key, "record", text]).await;
    scene.goes_on().await;
}

/// The record as such a one writes it.
fn newer(key: &str, version: u64, text: &str) -> String {
    let json = text.splitn(3, ' ').last().unwrap();
    let json = json.replacen("\"format\": 1", "\"format\": 2", 1);
    assert!(json.contains("\"format\": 2"), "{json}");
    let hash = Sha256::new()
        .chain_update("tower-token-refresh record\0")
        .chain_update(key)
        .chain_update(version.to_be_bytes())
        .chain_update(&json)
        .finalize();
    let hash: String = hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("plain1 {hash} {json}")
}

#[tokio::test]
async fn a_server_that_is_killed() {
    let server = Redis::start_with(RedisOptions::default()).unwrap();
    let scene = InUse::new(Place::of(&server).store()).await;
    server.kill().unwrap();
    scene.bears_it("Redis").await;
    server.restart().unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_server_that_is_stopped() {
    let server = server(&[]);
    let scene = InUse::impatient(Place::of(&server).store()).await;
    server.stop().unwrap();
    scene.bears_it("").await;
    server.resume().unwrap();
    scene.goes_on().await;
}

// shows P1: a claim that no replica has sends nothing.
#[tokio::test]
async fn a_replica_that_is_waited_for_in_vain() {
    let server = server(&[]);
    let replica = replica_of(server.port());
    caught_up(&server).await;
    let store = Place::of(&server).store();
    let scene = InUse::new(store.wait(1, Duration::from_secs(1))).await;
    replica.stop().unwrap();
    scene.bears_it("0 of the 1 replicas").await;
    replica.resume().unwrap();
    scene.goes_on().await;
}

// shows P1
#[tokio::test]
async fn processes_that_share_a_login_make_one_reissue() {
    let server = server(&[]);
    let _replica = replica_of(server.port());
    let place = Place::of(&server);
    let scene = InUse::new(place.store()).await;
    scene.shares((0..4).map(|_| place.store())).await;
    scene
        .shares((0..4).map(|_| place.store().wait(1, HANG)))
        .await;
}
