//! What is wrong with a server, or with what it is asked, is said early, with what to do and the server's
//! code, and nothing of what is secret is in it (P12).

use std::error::Error;
use std::net::SocketAddr;

use futures::StreamExt;
use redis::Client;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::test_util::check_unreadable_shared_token_store;

use crate::common::HANG;
use crate::common::Place;
use crate::common::SECRET;
use crate::common::admin;
use crate::common::ask;
use crate::common::client;
use crate::common::done;
use crate::common::read;
use crate::common::record;
use crate::common::replica_of;
use crate::common::server;
use crate::common::set;
use crate::common::swap;
use crate::common::version;
use crate::servers::Redis;
use crate::servers::RedisOptions;

const PASSWORD: &str = "hunter2-password";
const USER: &str = "canary-user";

/// Those that the page of `RedisStore` lists.
const RIGHTS: [&str; 8] = [
    "+evalsha",
    "+script|load",
    "+hget",
    "+hmget",
    "+hset",
    "+hdel",
    "+hlen",
    "+time",
];

/// Everything that can be printed of an error.
fn printed(error: &BoxError) -> String {
    let mut text = String::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        text += &format!("{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    text
}

/// It says this, and nothing that is secret or not to be known.
#[track_caller]
fn says(error: &BoxError, what: &str) {
    let printed = printed(error);
    assert!(printed.contains(what), "{printed}");
    for canary in [
        PASSWORD,
        USER,
        "session",
        "access-",
        "127.0.0.1",
        "@user_script",
        "hunter",
    ] {
        // In words of ours, it is no name.
        let printed = printed
            .replace("the session's record", "")
            .replace("a session", "");
        assert!(!printed.contains(canary), "{canary}: {printed}");
    }
}

async fn with_user(server: &Redis, rights: &[&str]) -> Client {
    let mut admin = admin(&server.url()).await;
    let password = format!(">{PASSWORD}");
    let mut words = vec!["ACL", "SETUSER", USER, "reset", "on", &password];
    words.extend(rights);
    let _: String = ask(&mut admin, &words).await;
    client(&format!(
        "redis://{USER}:{PASSWORD}@127.0.0.1:{}",
        server.port()
    ))
}

#[tokio::test]
async fn a_password_that_is_wanted_or_wrong_is_said() {
    let server = Redis::start_with(RedisOptions {
        in_memory: true,
        password: Some("the right one".replace(' ', "-")),
        ..RedisOptions::default()
    })
    .unwrap();
    let at = format!("127.0.0.1:{}", server.port());
    for (url, what) in [
        (
            format!("redis://{at}"),
            "put one into the URL of the client (NOAUTH)",
        ),
        (
            format!("redis://:{PASSWORD}@{at}"),
            "Redis refuses the user or the password in the URL of the client (WRONGPASS)",
        ),
        (
            format!("redis://{USER}:{PASSWORD}@{at}"),
            "Redis refuses the user or the password in the URL of the client (WRONGPASS)",
        ),
        (
            format!("redis://{USER}:{PASSWORD}@{at}/?protocol=resp3"),
            "Redis refuses the user or the password in the URL of the client (WRONGPASS)",
        ),
        (
            format!("redis://{at}/?protocol=resp3"),
            "put one into the URL of the client (NOAUTH)",
        ),
    ] {
        let open = || RedisStore::new(client(&url), "session");
        let error = check_unreadable_shared_token_store(async || open()).await;
        says(&error.unwrap(), what);
    }
    let place = Place::of(&server);
    done(&place.store(), 0).await;
}

// The password was put right on the server: nothing has to be started anew.
#[tokio::test]
async fn after_the_password_is_put_right_it_goes_on() {
    let server = server(&[]);
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port());
    let mut admin = admin(&server.url()).await;
    set(&mut admin, "requirepass", "another").await;
    let store = RedisStore::new(client(&url), "session");
    says(&read(&store).await.unwrap_err(), "(WRONGPASS)");
    set(&mut admin, "requirepass", PASSWORD).await;
    done(&store, 0).await;
}

#[tokio::test]
async fn the_newer_protocol_does_as_well() {
    let place = Place::new();
    let url = format!("{}?protocol=resp3", place.url);
    let store = RedisStore::new(client(&url), "session").prefix(&place.prefix);
    assert_eq!(version(&store).await, 0);
    done(&store, 0).await;
    assert_eq!(version(&store).await, 1);
}

// The rights that the page of `RedisStore` lists are enough, and each is needed.
#[tokio::test]
async fn a_user_needs_the_rights_that_the_docs_list_and_no_others() {
    let server = server(&[]);
    let place = Place::of(&server);
    let keys = format!("~{}:*", place.prefix);
    let all: Vec<&str> = RIGHTS.iter().copied().chain([keys.as_str()]).collect();
    let store = |client| RedisStore::new(client, "session").prefix(&place.prefix);
    let enough = store(with_user(&server, &all).await);
    for version in 0..3 {
        done(&enough, version).await;
    }
    for i in 0..all.len() {
        let mut some = all.clone();
        let missing = some.remove(i);
        let store = store(with_user(&server, &some).await);
        let mut admin = place.admin().await;
        let _: String = ask(&mut admin, &["SCRIPT", "FLUSH"]).await;
        let failed = match read(&store).await {
            Err(error) => Err(error),
            Ok(_) => swap(&store, 3, &record(4)).await.map(drop),
        };
        // It finds out whether this is a replica, where it may.
        if missing == "+hdel" {
            failed.unwrap();
            assert_eq!(version(&store).await, 4);
            continue;
        }
        says(
            &failed.expect_err(missing),
            "the user lacks a right in Redis",
        );
    }
}

// What is told goes to all who may listen.
#[tokio::test]
async fn a_user_with_the_rights_to_the_channel_tells_and_hears_of_changes() {
    let server = server(&[]);
    let place = Place::of(&server);
    let more = [
        "+publish",
        "+subscribe",
        &format!("~{}:*", place.prefix),
        &format!("&{}:*", place.prefix),
    ];
    let user = with_user(&server, &[&RIGHTS[..], &more].concat()).await;
    let store = RedisStore::new(user, "session").prefix(&place.prefix);
    let channel = format!("{}:changed", place.prefix);
    let mut ear = client(&place.url).get_async_pubsub().await.unwrap();
    ear.subscribe(&channel).await.unwrap();
    let mut told = ear.into_on_message();
    done(&store, 0).await;
    let first = timeout(HANG, told.next()).await.expect("it hangs").unwrap();
    let key = place.key().await;
    let key = key.rsplit(':').next().unwrap();
    assert_eq!(first.get_payload::<String>().unwrap(), format!("{key} 1"));
    // It waits, and so it listens: to the changes, and to what it tells itself.
    let waits = tokio::spawn({
        let store = store.clone();
        async move {
            for version in 1.. {
                store.changed(version).await;
            }
        }
    });
    let mut admin = place.admin().await;
    let all = async {
        loop {
            let channels: Vec<String> = ask(&mut admin, &["PUBSUB", "CHANNELS"]).await;
            let (_, ears): (String, u64) = ask(&mut admin, &["PUBSUB", "NUMSUB", &channel]).await;
            if channels.len() == 2 && ears == 2 {
                return;
            }
        }
    };
    timeout(HANG, all).await.expect("it listens");
    // The swap has told of itself, and it tells itself something: that is nobody else's business.
    let echoed = async {
        loop {
            let stats: String = ask(&mut admin, &["INFO", "commandstats"]).await;
            if !stats.contains("cmdstat_publish:calls=1,") {
                return;
            }
        }
    };
    timeout(HANG, echoed).await.expect("it tells itself");
    let _: u64 = ask(&mut admin, &["PUBLISH", &channel, "the next one"]).await;
    let next = timeout(HANG, told.next()).await.expect("it hangs").unwrap();
    assert_eq!(next.get_payload::<String>().unwrap(), "the next one");
    waits.abort();
}

#[tokio::test]
async fn a_database_that_there_is_not_is_said() {
    let server = server(&["--databases", "2"]);
    let url = |database| format!("redis://127.0.0.1:{}/{database}", server.port());
    done(&RedisStore::new(client(&url(1)), "session"), 0).await;
    let wrong = RedisStore::new(client(&url(2)), "session");
    says(
        &read(&wrong).await.unwrap_err(),
        "Redis refuses the database in the URL of the client (SELECT)",
    );
    // Databases do not see each other.
    let other = RedisStore::new(client(&url(0)), "session");
    assert_eq!(version(&other).await, 0);
}

#[tokio::test]
async fn a_key_of_another_type_is_said_and_left_alone() {
    let place = Place::new();
    let store = place.store();
    done(&store, 0).await;
    let key = place.key().await;
    let mut admin = place.admin().await;
    for kind in [&["SET", "KEY", "x"][..], &["SADD", "KEY", "x"]] {
        let _: u64 = ask(&mut admin, &["DEL", &key]).await;
        let kind: Vec<_> = kind
            .iter()
            .map(|&it| if it == "KEY" { &key } else { it })
            .collect();
        let _: redis::Value = ask(&mut admin, &kind).await;
        let error = check_unreadable_shared_token_store(async || store.clone()).await;
        says(
            &error.unwrap(),
            "holds something else: remove it, or take another prefix (WRONGTYPE)",
        );
    }
    let _: u64 = ask(&mut admin, &["DEL", &key]).await;
    done(&store, 0).await;
}

// What is there can be read, and is kept.
#[tokio::test]
async fn a_server_without_memory_is_said_and_keeps_what_it_has() {
    let server = server(&["--maxmemory-policy", "noeviction"]);
    let place = Place::of(&server);
    let store = place.store();
    done(&store, 0).await;
    let mut admin = place.admin().await;
    set(&mut admin, "maxmemory", "1").await;
    let error = swap(&store, 1, &record(2)).await.unwrap_err();
    says(
        &error,
        "raise `maxmemory`, or remove what nobody needs (OOM)",
    );
    assert_eq!(version(&store).await, 1);
    set(&mut admin, "maxmemory", "0").await;
    done(&store, 1).await;
}

#[tokio::test]
async fn a_server_that_wants_more_replicas_is_said() {
    let server = server(&["--min-replicas-to-write", "1"]);
    let store = Place::of(&server).store();
    assert_eq!(version(&store).await, 0);
    let error = swap(&store, 0, &record(1)).await.unwrap_err();
    says(
        &error,
        "than `min-replicas-to-write` are in touch with it (NOREPLICAS)",
    );
}

/// It says this when it has tried to write to its disk.
async fn saves(server: &Redis, what: &str) {
    let from = server.lines();
    let _: String = ask(&mut admin(&server.url()).await, &["BGSAVE"]).await;
    server.wait_for_line(from, what).unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_write_to_its_disk_is_said() {
    let server = server(&["--save", "3600 1000000"]);
    let place = Place::of(&server);
    let store = place.store();
    done(&store, 0).await;
    let mut admin = place.admin().await;
    // A folder in the place of the file.
    let folder: Vec<String> = ask(&mut admin, &["CONFIG", "GET", "dir"]).await;
    std::fs::create_dir(format!("{}/dump.rdb", folder[1])).unwrap();
    saves(&server, "Background saving error").await;
    let error = swap(&store, 1, &record(2)).await.unwrap_err();
    says(
        &error,
        "as it can't write to its disk: its log says why (MISCONF)",
    );
    assert_eq!(version(&store).await, 1);
    std::fs::remove_dir(format!("{}/dump.rdb", folder[1])).unwrap();
    saves(&server, "Background saving terminated with success").await;
    done(&store, 1).await;
}

#[tokio::test]
async fn a_server_that_is_busy_with_somebodys_script_is_said() {
    let server = server(&["--lua-time-limit", "1"]);
    let place = Place::of(&server);
    let store = place.store();
    done(&store, 0).await;
    let mut other = place.admin().await;
    let endless = tokio::spawn(async move {
        let mut command = redis::cmd("EVAL");
        command.arg("while true do end").arg(0);
        command.exec_async(&mut other).await
    });
    // It says so once the script has run for a while.
    let error = loop {
        match read(&store).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    says(&error, "Redis is busy with a script of somebody else's");
    let mut admin = admin(&server.url()).await;
    let _: String = ask(&mut admin, &["SCRIPT", "KILL"]).await;
    assert!(endless.await.unwrap().is_err());
    done(&store, 1).await;
}

// shows P13: never from a replica.
#[tokio::test]
async fn a_read_only_replica_is_said_and_given_up() {
    let primary = server(&[]);
    let place = Place::of(&primary);
    done(&place.store(), 0).await;
    let replica = replica_of(primary.port());
    let store = RedisStore::new(client(&replica.url()), "session").prefix(&place.prefix);
    let what = "this Redis is a read-only replica, and the record is never read from one";
    let error = check_unreadable_shared_token_store(async || store.clone()).await;
    says(&error.unwrap(), what);
    let error = swap(&store, 1, &record(2)).await.unwrap_err();
    says(&error, "the new one (READONLY)");
    let mut admin = admin(&replica.url()).await;
    let _: String = ask(&mut admin, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(version(&store).await, 1);
    done(&store, 1).await;
}

#[tokio::test]
async fn a_replica_without_its_primary_is_said() {
    let server = server(&[
        "--replicaof",
        "127.0.0.1",
        "1",
        "--replica-serve-stale-data",
        "no",
    ]);
    let store = Place::of(&server).store();
    let error = read(&store).await.unwrap_err();
    says(&error, "a replica that has lost its primary");
}

#[tokio::test]
async fn a_cluster_is_said_to_be_none_of_ours() {
    let server = server(&["--cluster-enabled", "yes"]);
    let store = Place::of(&server).store();
    let what = "this Redis is a node of a cluster, which a `RedisStore` can't use";
    says(&read(&store).await.unwrap_err(), what);
}

#[tokio::test]
async fn too_many_clients_are_said() {
    let server = server(&["--maxclients", "1"]);
    let place = Place::of(&server);
    let only = place.admin().await;
    let error = read(&place.store()).await.unwrap_err();
    says(&error, "it takes no more clients (`maxclients`)");
    drop(only);
}

/// Something in the place of Redis that has these words for each command, and hangs up if it is told to.
async fn pretender(words: &'static [u8], hangs_up: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                    let commands = bytes[..n].windows(2).filter(|it| it[0] == b'*');
                    for _ in commands {
                        stream.write_all(words).await.unwrap();
                    }
                    if hangs_up {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn pretended(words: &'static [u8], hangs_up: bool) -> BoxError {
    let address = pretender(words, hangs_up).await;
    let store = RedisStore::new(client(&format!("redis://{address}")), "session");
    read(&store).await.unwrap_err()
}

// What does not speak its language: another server, or one that wants TLS.
#[tokio::test]
async fn what_is_no_redis_is_said() {
    const ALERT: &[u8] = &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];

    let what = "what answers is no Redis, or wants TLS (a URL with rediss://)";
    says(
        &pretended(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await,
        what,
    );
    says(&pretended(ALERT, false).await, what);
    says(
        &pretended(b"", true).await,
        "or wants TLS (a URL with rediss://)",
    );
    says(
        &pretended(b"+fine\r\n", false).await,
        "what answers is no Redis",
    );
    says(
        &pretended(b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n", false).await,
        "what answers is no Redis",
    );
}

// Those that no server here says so quickly, and what older ones make of them.
#[tokio::test]
async fn each_word_of_a_server_is_said_in_ours() {
    for (words, what) in [
        (
            &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
            "it answers when it has them (LOADING)",
        ),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "is a node of a cluster"),
        (b"-ASK 3999 127.0.0.1:6381\r\n", "is a node of a cluster"),
        (b"-CROSSSLOT Keys in request don't hash\r\n", "is a node of a cluster"),
        (b"-UNBLOCKED force unblock\r\n", "has become a replica while it waited"),
        (b"-NOSCRIPT No matching script\r\n", "has lost the script while it was called"),
        (
            b"-ERR Error running script (call to f_0): @user_script:3: -READONLY You can't write\r\n",
            "a read-only replica",
        ),
        (
            b"-@user_script: 3: -OOM command not allowed when used memory > 'maxmemory'.\r\n",
            "has used up its memory",
        ),
        (
            b"-ERR unknown command `evalsha`, with args beginning with: `session`\r\n",
            "Redis refuses what it was asked (ERR)",
        ),
        (
            b"-ERR ACL failure in script: User canary-user has no permissions to run the 'hset' command\r\n",
            "the user lacks a right in Redis",
        ),
        (b"-hunter2 is secret\r\n", "Redis refuses what it was asked (no code)"),
    ] {
        says(&pretended(words, false).await, what);
    }
}

#[tokio::test]
async fn tls_takes_a_feature_of_the_client() {
    let refused = Client::open("rediss://127.0.0.1");
    let error = match refused {
        Err(error) => error.to_string(),
        Ok(client) => {
            let error = read(&RedisStore::new(client, "session")).await.unwrap_err();
            error.to_string()
        }
    };
    assert!(error.contains("feature"), "{error}");
}

#[tokio::test]
async fn a_secret_that_is_short_is_refused() {
    let place = Place::new();
    let error = place.store().secret(&SECRET[..15]).unwrap_err();
    assert!(error.to_string().contains("at least 16 bytes"), "{error}");
    let swapped = swap(&place.sealed(), 0, &record(1)).await;
    assert_eq!(swapped.unwrap(), Swap::Done);
}
