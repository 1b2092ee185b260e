//! Proves that the servers which tests and `fleet` start are real ones, keep what they are to keep when they
//! are killed, and are never left behind.

#![cfg(unix)]

#[path = "support/built.rs"]
mod built;
#[path = "support/child.rs"]
mod child;
#[cfg(target_os = "linux")]
#[path = "support/processes.rs"]
mod processes;
#[path = "../examples/servers/mod.rs"]
mod servers;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use built::eventually;
#[cfg(target_os = "linux")]
use processes::children;
#[cfg(target_os = "linux")]
use processes::is_running;
#[cfg(target_os = "linux")]
use processes::state;
use redis::AsyncTypedCommands;
use redis::aio::MultiplexedConnection;
use servers::PgBouncer;
use servers::Postgres;
use servers::Redis;
use servers::RedisOptions;
use tokio_postgres::Client;
use tokio_postgres::Error;
use tokio_postgres::NoTls;

/// Only the module `built` needs to know: no program is run here.
const PROGRAM: &str = "fleet";

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn number(client: &Client, query: &str) -> i32 {
    let row = client.query_one(query, &[]).await.expect("a row");
    row.get(0)
}

async fn redis(server: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("a connection")
}

#[tokio::test]
async fn postgres_keeps_what_was_committed_when_it_is_killed() {
    let server = Postgres::start().expect("PostgreSQL");
    let client = connect(&server.url()).await.expect("a connection");
    let made = client.batch_execute("CREATE TABLE kept AS SELECT 42 AS it");
    made.await.expect("made");
    let [first, url] = [server.pid().map(|it| it.to_string()), Some(server.url())];
    server.kill().expect("killed");
    assert_eq!(server.pid(), None);
    assert!(number_or(&client).await.is_err(), "it answers");
    assert!(connect(&server.url()).await.is_err(), "it listens");
    server.restart().expect("restarted");
    assert_ne!(server.pid().map(|it| it.to_string()), first);
    assert_eq!(Some(server.url()), url);
    let client = connect(&server.url()).await.expect("a connection");
    assert_eq!(number(&client, "SELECT it FROM kept").await, 42);
    assert_eq!(shown(&client, "fsync").await, "on");
    // It was no orderly end.
    let line = server.wait_for_line(0, "database system was not properly shut down");
    line.expect("crash recovery");
}

async fn number_or(client: &Client) -> Result<i32, Error> {
    Ok(client.query_one("SELECT 1", &[]).await?.get(0))
}

async fn shown(client: &Client, setting: &str) -> String {
    let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
    row.expect("a row").get(0)
}

#[tokio::test]
async fn databases_of_one_server_know_nothing_of_each_other() {
    let server = Postgres::start_with(&["fsync=off"]).expect("PostgreSQL");
    for name in ["one", "other"] {
        let url = server.create_database(name).expect("made");
        let client = connect(&url).await.expect("a connection");
        let made = client.batch_execute("CREATE TABLE mine (it int)").await;
        made.expect("nobody else has made it");
        assert_eq!(shown(&client, "fsync").await, "off");
    }
}

#[tokio::test]
async fn a_password_is_demanded_from_then_on() {
    let server = Postgres::start().expect("PostgreSQL");
    let open = server.url();
    let before = connect(&open).await.expect("a connection");
    server.require_password("right").expect("set");
    assert_ne!(server.url(), open);
    let wrong = server.url().replace(":right@", ":wrong@");
    for refused in [&open, &wrong] {
        assert!(connect(refused).await.is_err(), "{refused}");
    }
    let after = connect(&server.url()).await.expect("a connection");
    for client in [before, after] {
        assert_eq!(number(&client, "SELECT 1").await, 1);
    }
}

/// What all of its processes do.
#[cfg(target_os = "linux")]
fn states(first: u32) -> Vec<char> {
    let all = children(first).into_iter().chain([first]);
    all.map(|process| state(process).expect("it runs"))
        .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_is_stopped_does_nothing_until_it_goes_on() {
    let server = Postgres::start().expect("PostgreSQL");
    let client = connect(&server.url()).await.expect("a connection");
    let first = server.pid().expect("it runs");
    server.stop().expect("stopped");
    let stopped = states(first);
    // Itself, its helpers, and the one that serves this connection.
    assert!(stopped.len() > 3, "{stopped:?}");
    assert!(stopped.iter().all(|state| *state == 'T'), "{stopped:?}");
    server.resume().expect("goes on");
    assert_eq!(number(&client, "SELECT 1").await, 1);
    let bouncer = PgBouncer::start(&server).expect("PgBouncer");
    let redis = Redis::start().expect("Redis");
    bouncer.stop().expect("stopped");
    redis.stop().expect("stopped");
    for pid in [bouncer.pid(), redis.pid()] {
        assert_eq!(states(pid.expect("it runs")), ['T']);
    }
    bouncer.resume().expect("goes on");
    redis.resume().expect("goes on");
    assert!(connect(&bouncer.url()).await.is_ok());
    assert!(self::redis(&redis).await.ping().await.is_ok());
    // One that is stopped is ended as well.
    server.stop().expect("stopped");
}

#[tokio::test]
async fn pgbouncer_gives_each_transaction_a_connection() {
    let server = Postgres::start().expect("PostgreSQL");
    let bouncer = PgBouncer::start(&server).expect("PgBouncer");
    let client = connect(&bouncer.url()).await.expect("a connection");
    let mode = "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let mut others = Vec::new();
    for _ in 0..5 {
        let other = connect(&bouncer.url()).await.expect("a connection");
        other.batch_execute("SELECT 1").await.expect("an answer");
        others.push(other);
    }
    // All of them share the one that was free whenever one of them came.
    let simple = client.simple_query(mode).await.expect("an answer");
    let count = simple.iter().find_map(|it| match it {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    assert_eq!(count.as_deref(), Some("1"));
    bouncer.kill().expect("killed");
    assert!(connect(&bouncer.url()).await.is_err(), "it listens");
    bouncer.restart().expect("restarted");
    let client = connect(&bouncer.url()).await.expect("a connection");
    client.batch_execute("SELECT 1").await.expect("an answer");
}

#[tokio::test]
async fn redis_keeps_what_was_written_when_it_is_killed() {
    for (in_memory, kept) in [(false, Some("this".to_owned())), (true, None)] {
        let options = RedisOptions {
            in_memory,
            ..RedisOptions::default()
        };
        let server = Redis::start_with(options).expect("Redis");
        let mut connection = redis(&server).await;
        connection.set("it", "this").await.expect("written");
        server.kill().expect("killed");
        assert!(connection.ping().await.is_err(), "it answers");
        server.restart().expect("restarted");
        let mut connection = redis(&server).await;
        assert_eq!(connection.get("it").await.expect("read"), kept);
    }
}

#[tokio::test]
async fn a_replica_of_redis_has_what_its_primary_has() {
    let password = || Some("right".to_owned());
    let primary = Redis::start_with(RedisOptions {
        password: password(),
        ..RedisOptions::default()
    });
    let primary = primary.expect("Redis");
    let mut there = redis(&primary).await;
    there.set("it", "this").await.expect("written");
    let replica = Redis::start_with(RedisOptions {
        password: password(),
        replica_of: Some(primary.port()),
        ..RedisOptions::default()
    });
    let replica = replica.expect("a replica");
    let mut here = redis(&replica).await;
    assert_eq!(here.get("it").await.expect("read").as_deref(), Some("this"));
    assert!(here.set("it", "that").await.is_err(), "it can't be written");
    let client = redis::Client::open(replica.url().replace("right", "wrong")).expect("a URL");
    let refused = client.get_multiplexed_async_connection().await;
    assert!(refused.is_err(), "any password will do");
}

#[tokio::test]
async fn all_tests_of_a_process_share_the_servers_that_nobody_stops() {
    let [first, again] = [(); 2].map(|()| servers::postgres_url().expect("PostgreSQL"));
    assert_eq!(first, again);
    let client = connect(&first).await.expect("a connection");
    assert_eq!(number(&client, "SELECT 1").await, 1);
    let [first, again] = [(); 2].map(|()| servers::redis_url().expect("Redis"));
    assert_eq!(first, again);
    let client = redis::Client::open(first).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it is there");
    connection.ping().await.expect("an answer");
}

/// Set for the process that such a test starts: this program once more, with the same test.
const CHILD: &str = "SERVERS_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn same_test_in_a_process_of_its_own(test: &str) -> Command {
    let program = std::env::current_exe().expect("it knows where it is");
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "yes");
    command
        .env_remove("TEST_POSTGRES_URL")
        .env_remove("TEST_REDIS_URL");
    command
}

/// One of each, and all of their processes; PostgreSQL's have groups of their own.
#[cfg(target_os = "linux")]
fn one_of_each() -> (Postgres, PgBouncer, Redis, Vec<u32>) {
    let postgres = Postgres::start().expect("PostgreSQL");
    let bouncer = PgBouncer::start(&postgres).expect("PgBouncer");
    let redis = Redis::start().expect("Redis");
    let first = [postgres.pid(), bouncer.pid(), redis.pid()];
    let first = first.map(|pid| pid.expect("it runs"));
    let all = children(first[0]).into_iter().chain(first).collect();
    (postgres, bouncer, redis, all)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

/// Memory of PostgreSQL that the system keeps whoever lives.
#[cfg(target_os = "linux")]
fn shared_memory() -> Vec<String> {
    let list = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let ids = list.lines().skip(1);
    let ids = ids.filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_left_of_servers_whose_process_has_ended_or_was_killed() {
    const NAME: &str = "nothing_is_left_of_servers_whose_process_has_ended_or_was_killed";
    if is_child() {
        let (postgres, _bouncer, redis, all) = one_of_each();
        let all: Vec<_> = all.iter().map(u32::to_string).collect();
        // So that they can't see that they are alone.
        postgres.stop().expect("stopped");
        redis.stop().expect("stopped");
        println!("\nprocesses {}", all.join(" "));
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("read");
        return;
    }
    for is_killed in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        // The servers' users have to get there.
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).expect("set");
        let mut command = same_test_in_a_process_of_its_own(NAME);
        command.env("TMPDIR", folder.path()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let said = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(said).lines().map(|line| line.expect("text"));
        let all = lines.find_map(|line| line.strip_prefix("processes ").map(str::to_owned));
        let all = all.expect("they start");
        let all: Vec<u32> = all
            .split(' ')
            .map(|id| id.parse().expect("an id"))
            .collect();
        assert!(all.len() > 5, "{all:?}");
        assert!(all.iter().all(|process| is_running(*process)), "{all:?}");
        assert_eq!(entries(folder.path()), 3);
        end(&mut child, is_killed);
        if !is_killed {
            // They are gone before the process is.
            assert!(!all.iter().any(|process| is_running(*process)), "{all:?}");
            assert_eq!(entries(folder.path()), 0);
        }
        eventually(|| !all.iter().any(|process| is_running(*process))).await;
        eventually(|| entries(folder.path()) == 0).await;
    }
}

#[cfg(target_os = "linux")]
fn end(child: &mut Child, is_killed: bool) {
    match is_killed {
        true => child.kill().expect("killed"),
        false => drop(child.stdin.take()),
    }
    let status = child::wait(child);
    assert_eq!(status.success(), !is_killed, "{status}");
}

// What a server that is killed leaves in the system is taken away when nobody starts it again.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_postgres_that_stays_down_leaves_no_shared_memory() {
    let server = Postgres::start().expect("PostgreSQL");
    let list = fs::read_to_string(server.folder().join("postmaster.pid")).expect("its own file");
    let memory = list
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1));
    let memory = memory.expect("its shared memory").to_owned();
    server.kill().expect("killed");
    assert!(
        shared_memory().contains(&memory),
        "nothing is left to be taken away"
    );
    drop(server);
    assert!(!shared_memory().contains(&memory), "it is left");
}

#[test]
fn a_program_that_is_missing_is_named_with_what_to_do() {
    const NAME: &str = "a_program_that_is_missing_is_named_with_what_to_do";
    if is_child() {
        let error = Redis::start().err().map(|error| error.to_string());
        println!("\n{}", error.unwrap_or_default());
        return;
    }
    let mut command = same_test_in_a_process_of_its_own(NAME);
    let output = command.env("PATH", "/nowhere").output().expect("it runs");
    let said = String::from_utf8(output.stdout).expect("text");
    let expected = "`redis-server` is not on the PATH: install it (Debian: redis-server), or set \
                    TEST_REDIS_URL";
    assert!(said.contains(expected), "{said}");
}

// An error tells what the server has said itself.
#[test]
fn a_server_that_does_not_start_is_quoted() {
    let error = Postgres::start_with(&["max_connections=none"]).err();
    let error = error.expect("it can't start").to_string();
    assert!(error.contains("max_connections"), "{error}");
    let error = Redis::start_with(RedisOptions {
        more: vec!["--maxmemory".to_owned(), "much".to_owned()],
        ..RedisOptions::default()
    });
    let error = error.err().expect("it can't start").to_string();
    assert!(error.contains("maxmemory"), "{error}");
}
