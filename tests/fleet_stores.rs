//! Proves P1 between processes that share a login in PostgreSQL or Redis, with the example `fleet` on servers
//! that it starts itself: undisturbed, and with processes that are killed, stopped, or left without an answer.

#![cfg(target_os = "linux")]

#[path = "support/built.rs"]
mod built;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/processes.rs"]
mod processes;
#[path = "../examples/servers/mod.rs"]
mod servers;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use built::LIMIT;
use built::Ran;
use built::eventually;
use built::prepare;
use built::program;
use fleet::is_as_promised;
use fleet::is_undisturbed;
use fleet::run;
use futures::future::join_all;
use processes::children;
use processes::is_running;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

const PROGRAM: &str = "fleet";

const SPAWNED: [&str; 2] = ["spawn-postgres", "spawn-redis"];

/// A fleet on each of these servers, at once.
async fn run_on_each(arguments: &[&str]) -> [Ran; 2] {
    let [postgres, redis] = SPAWNED.map(|store| [&["--store", store], arguments].concat());
    let (postgres, redis) = tokio::join!(run(&postgres), run(&redis));
    [postgres, redis]
}

// shows P1, P3, B131, B132, B138
#[tokio::test]
async fn processes_that_share_a_database_make_one_reissue_for_each_expiry() {
    let fleet = ["--processes", "3", "--rounds", "4", "--json"];
    for ran in run_on_each(&fleet).await {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        is_undisturbed(&ran.json());
        ran.says("was started for this run");
        ran.says("to their first use by another process: p50");
        // Somebody did use what another one had stored.
        assert!(!ran.stderr.contains("(n = 0)"), "{}", ran.stderr);
    }
}

// shows P1, P4, P6, B134, B135, B136
#[tokio::test]
async fn nobody_uses_a_refresh_token_twice_while_somebody_alive_can_have_its_successor() {
    let faults = ["--kill", "--pause", "--lose-replies", "20", "--seed", "3"];
    let fleet = ["--processes", "3", "--rounds", "6", "--json"];
    for ran in run_on_each(&[&fleet[..], &faults[..]].concat()).await {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let line = ran.json();
        is_as_promised(&line);
        let wrong = (&line["avoidable_reuse"], &line["hung"]);
        assert_eq!(wrong, (&0.into(), &0.into()), "{}", ran.stderr);
        // Something did go wrong.
        assert!(line["recovery_ms"]["max"].as_u64() > Some(0), "{line}");
    }
}

// What the promises are worth: with a lock that runs out in the same server, the holder is stopped for longer.
#[tokio::test]
async fn with_a_lock_that_runs_out_they_are_used_twice() {
    let fleet = ["--processes", "3", "--rounds", "4"];
    let control = ["--protocol", "ttl-lock", "--pause", "--seed", "3", "--json"];
    for ran in run_on_each(&[&fleet[..], &control[..]].concat()).await {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let line = ran.json();
        is_as_promised(&line);
        assert!(line["avoidable_reuse"].as_u64() > Some(0), "{line}");
        assert!(line["families_ended"].as_u64() > Some(0), "{line}");
    }
}

// And where nobody is stopped, it keeps them apart: what is compared is a lock that works.
#[tokio::test]
async fn a_lock_that_does_not_run_out_keeps_them_apart() {
    let fleet = ["--processes", "3", "--rounds", "3"];
    let control = &["--protocol", "ttl-lock", "--json"];
    for ran in run_on_each(&[&fleet[..], control].concat()).await {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        is_undisturbed(&ran.json());
    }
}

// Each of them has a session of its own.
#[tokio::test]
async fn fleets_in_one_database_know_nothing_of_each_other() {
    let postgres = servers::postgres_url().expect("PostgreSQL");
    let redis = servers::redis_url().expect("Redis");
    for url in [format!("postgres:{postgres}"), format!("redis:{redis}")] {
        let fleet = [
            "--processes",
            "2",
            "--rounds",
            "2",
            "--store",
            &url,
            "--json",
        ];
        for ran in join_all([run(&fleet), run(&fleet)]).await {
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            is_undisturbed(&ran.json());
        }
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    for url in [
        format!("postgres://me:s3cret@{address}/it"),
        format!("redis://:s3cret@{address}/"),
    ] {
        let ran = run(&["--store", &url]).await;
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        ran.says("refused");
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

/// It, what it has started, and what these have started.
fn family(of: u32) -> Vec<u32> {
    let grandchildren = children(of).into_iter().flat_map(|child| {
        // One may end at this moment.
        let its_own = is_running(child).then(|| children(child));
        its_own.into_iter().flatten().chain([child])
    });
    grandchildren.collect()
}

#[tokio::test]
async fn a_fleet_that_is_killed_leaves_no_server_behind() {
    for store in SPAWNED {
        for (signal, code) in [(Signal::TERM, Some(143)), (Signal::KILL, None)] {
            let folder = tempfile::tempdir().expect("a folder");
            // PostgreSQL does not run as root, and has to get there.
            let everybody = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.path(), everybody).expect("set");
            let mut command = Command::new(program());
            command.env("TMPDIR", folder.path());
            command.args(["--processes", "3", "--rounds", "100", "--store", store]);
            let mut fleet = prepare(&mut command).spawn().expect("it starts");
            let id = fleet.id().expect("it runs");
            let stderr = fleet.stderr.take().expect("piped");
            let mut lines = BufReader::new(stderr).lines();
            for expected in ["was started for this run", "3 processes are ready"] {
                let line = timeout(LIMIT, lines.next_line()).await.expect("in time");
                let line = line.expect("a line").expect("a line");
                assert!(line.contains(expected), "{line}");
            }
            let all = family(id);
            // Three processes, the server, and whoever guards it.
            assert!(all.len() >= 5, "{all:?}");
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
            kill_process(Pid::from_raw(id as i32).expect("an id"), signal).expect("signalled");
            let ended = timeout(LIMIT, fleet.wait()).await.expect("in time");
            let ended = ended.expect("it ends");
            assert_eq!(ended.code(), code, "{signal:?}");
            eventually(|| !all.iter().any(|process| is_running(*process))).await;
            let is_empty = || fs::read_dir(folder.path()).expect("a folder").count() == 0;
            eventually(is_empty).await;
        }
    }
}
