//! Proves P1 between processes, with the example `fleet`: real processes on one file of tokens, some of
//! which are killed, stopped, or left without an answer. Proves its oracle and its contract as well.

#[path = "support/built.rs"]
mod built;
#[path = "../examples/fleet/fingerprint.rs"]
#[expect(dead_code, reason = "the program uses all of it")]
mod fingerprint;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "../examples/fleet/oracle.rs"]
mod oracle;
#[cfg(target_os = "linux")]
#[path = "support/processes.rs"]
mod processes;

#[cfg(target_os = "linux")]
use built::LIMIT;
#[cfg(target_os = "linux")]
use built::eventually;
#[cfg(target_os = "linux")]
use built::prepare;
#[cfg(target_os = "linux")]
use built::program;
use fingerprint::Fingerprint;
use fleet::is_as_promised;
use fleet::is_undisturbed;
use fleet::run;
use oracle::Counts;
use oracle::Oracle;
use oracle::Pair;
use oracle::ReissueId;
#[cfg(target_os = "linux")]
use processes::children;
#[cfg(target_os = "linux")]
use processes::is_running;
#[cfg(target_os = "linux")]
use tokio::io::AsyncBufReadExt;
#[cfg(target_os = "linux")]
use tokio::io::BufReader;
#[cfg(target_os = "linux")]
use tokio::process::Command;
#[cfg(target_os = "linux")]
use tokio::time::timeout;

const PROGRAM: &str = "fleet";

// shows P1, P3, B131, B132, B138
#[tokio::test]
async fn processes_that_share_a_file_make_one_reissue_for_each_expiry() {
    let ran = run(&["--processes", "3", "--rounds", "5", "--json"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let line = ran.json();
    is_undisturbed(&line);
    assert_eq!(
        (&line["processes"], &line["rounds"]),
        (&3.into(), &5.into())
    );
    ran.says("to their first use by another process: p50");
}

// shows P1, P4, P6, B134, B135, B136
#[tokio::test]
async fn nobody_uses_a_refresh_token_twice_while_somebody_alive_can_have_its_successor() {
    let faults = ["--kill", "--pause", "--lose-replies", "20", "--seed", "3"];
    let fleet = [
        "--processes",
        "3",
        "--rounds",
        "6",
        "--store",
        "file",
        "--json",
    ];
    let ran = run(&[&fleet[..], &faults[..]].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let line = ran.json();
    is_as_promised(&line);
    assert_eq!(
        (&line["avoidable_reuse"], &line["hung"]),
        (&0.into(), &0.into())
    );
    // Something did go wrong.
    assert!(line["recovery_ms"]["max"].as_u64() > Some(0), "{line}");
}

// What the promises are worth: with a lock that runs out, the holder is stopped for longer than that.
#[tokio::test]
async fn with_a_lock_that_runs_out_they_are_used_twice() {
    let fleet = [
        "--processes",
        "3",
        "--rounds",
        "4",
        "--protocol",
        "ttl-lock",
    ];
    let ran = run(&[&fleet[..], &["--pause", "--seed", "3", "--json"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let line = ran.json();
    is_as_promised(&line);
    assert!(line["avoidable_reuse"].as_u64() > Some(0), "{line}");
    assert!(line["families_ended"].as_u64() > Some(0), "{line}");
}

// A promise that is broken shows in the exit status: here nobody can be as fast as that.
#[tokio::test]
async fn whoever_does_not_go_on_in_time_is_hung() {
    let fleet = ["--processes", "2", "--rounds", "1", "--deadline", "1ms"];
    let ran = run(&[&fleet[..], &["--json"]].concat()).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let line = ran.json();
    is_as_promised(&line);
    assert!(line["hung"].as_u64() > Some(0), "{line}");
    ran.says("broken: ");
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once() {
    let wrong: [&[&str]; 11] = [
        &["--processes", "0"],
        &["--rounds", "0"],
        &["--store", "redis"],
        &["--store", "redis:localhost"],
        &["--store", "postgres"],
        &["--store", "postgres:postgres://localhost/it"],
        &["--store", "spawn-mysql"],
        &["--protocol", "hope"],
        &["--lose-replies", "101"],
        &["--deadline", "soon"],
        &["more"],
    ];
    for arguments in wrong {
        let ran = run(arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
    let ran = run(&["--store", "redis"]).await;
    ran.says("file, postgres:URL, redis:URL, spawn-postgres or spawn-redis");
}

// A process that is stopped can't see that the fleet is gone.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_fleet_that_is_killed_leaves_no_process_behind() {
    use rustix::process::Pid;
    use rustix::process::Signal;
    use rustix::process::kill_process;

    for (signal, code) in [
        (Signal::INT, Some(130)),
        (Signal::TERM, Some(143)),
        (Signal::KILL, None),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program());
        command.env("TMPDIR", folder.path());
        command.args(["--processes", "3", "--rounds", "100"]);
        let mut fleet = prepare(&mut command).spawn().expect("it starts");
        let id = fleet.id().expect("it runs");
        let stderr = fleet.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let first = timeout(LIMIT, lines.next_line()).await.expect("in time");
        let first = first.expect("a line").expect("a line");
        assert!(first.starts_with("3 processes are ready"), "{first}");
        let workers = children(id);
        assert_eq!(workers.len(), 3);
        let pid = |id: u32| Pid::from_raw(id as i32).expect("an id");
        kill_process(pid(workers[0]), Signal::STOP).expect("stopped");
        kill_process(pid(id), signal).expect("signalled");
        let ended = timeout(LIMIT, fleet.wait()).await.expect("in time");
        let ended = ended.expect("it ends");
        assert_eq!(ended.code(), code, "{signal:?}");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        // Nothing can be done about it where nobody was asked.
        assert_eq!(left, usize::from(code.is_none()), "{signal:?}");
        eventually(|| !workers.iter().any(|worker| is_running(*worker))).await;
    }
}

/// Everything expires at a hundred.
const EXPIRY: u64 = 100;

fn pair(number: u32) -> Pair {
    Pair {
        access: Fingerprint::of(&format!("access {number}")),
        refresh: token(number),
        expires_at: EXPIRY,
    }
}

fn token(number: u32) -> Fingerprint {
    Fingerprint::of(&format!("refresh {number}"))
}

/// Somebody has logged in with pair 0.
fn logged_in() -> Oracle {
    let mut oracle = Oracle::default();
    oracle.login(pair(0), 0);
    oracle
}

/// A reissue with pair 0, which the issuer answers with pair 1, or not.
fn presented(oracle: &mut Oracle, process: u64, is_good: bool) -> ReissueId {
    let id = oracle.sent(process, token(0));
    oracle.arrived(id);
    oracle.answered(id, is_good.then(|| pair(1)), EXPIRY);
    id
}

fn reused(oracle: &Oracle) -> [u64; 3] {
    let counts = oracle.counts();
    [counts.reused, counts.avoidable, counts.families_ended]
}

#[test]
fn a_refresh_token_that_each_presents_once_is_no_reuse() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.delivered(first);
    oracle.stored(token(1));
    let second = oracle.sent(2, token(1));
    oracle.arrived(second);
    oracle.answered(second, Some(pair(2)), EXPIRY);
    oracle.delivered(second);
    oracle.stored(token(2));
    let expected = Counts {
        expiries: 2,
        reissues: 2,
        presented: 2,
        ..Counts::default()
    };
    assert_eq!(oracle.counts(), expected);
    assert_eq!(oracle.current(), Some(pair(2)));
    assert!(!oracle.is_over());
}

#[test]
fn a_reuse_was_avoidable_where_the_successor_is_stored() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.delivered(first);
    oracle.stored(token(1));
    oracle.killed(1);
    presented(&mut oracle, 2, false);
    assert_eq!(reused(&oracle), [1, 1, 1]);
    assert!(oracle.is_over());
}

#[test]
fn a_reuse_was_avoidable_where_a_living_process_has_the_answer() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.delivered(first);
    presented(&mut oracle, 2, false);
    assert_eq!(reused(&oracle), [1, 1, 1]);
    let remark = "process 2 presented what process 1 had spent: a living process had its successor";
    assert_eq!(oracle.remarks(), [remark]);
    assert_eq!(oracle.remarks(), [""; 0]);
}

#[test]
fn a_reuse_was_avoidable_where_a_living_process_can_still_get_the_answer() {
    let mut oracle = logged_in();
    presented(&mut oracle, 1, true);
    presented(&mut oracle, 2, false);
    assert_eq!(reused(&oracle), [1, 1, 1]);
}

#[test]
fn a_reuse_could_not_be_avoided_where_the_holder_was_killed_before_it_stored_the_answer() {
    for is_delivered in [false, true] {
        let mut oracle = logged_in();
        let first = presented(&mut oracle, 1, true);
        if is_delivered {
            oracle.delivered(first);
        }
        oracle.killed(1);
        presented(&mut oracle, 2, false);
        assert_eq!(reused(&oracle), [1, 0, 1]);
        assert_eq!(oracle.counts().in_doubt, 1);
    }
}

#[test]
fn a_reuse_could_not_be_avoided_where_the_answer_was_lost() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.lost(first);
    // The same process may be the one that tries again.
    presented(&mut oracle, 1, false);
    assert_eq!(reused(&oracle), [1, 0, 1]);
    assert_eq!((oracle.counts().in_doubt, oracle.counts().lost), (1, 1));
}

#[test]
fn a_killing_after_the_reuse_excuses_nothing() {
    let mut oracle = logged_in();
    presented(&mut oracle, 1, true);
    presented(&mut oracle, 2, false);
    oracle.killed(1);
    assert_eq!(reused(&oracle), [1, 1, 1]);
}

#[test]
fn what_comes_late_is_judged_by_who_was_served() {
    let mut oracle = logged_in();
    // The first one is still on its way when the second is served.
    let late = oracle.sent(1, token(0));
    oracle.killed(1);
    let served = presented(&mut oracle, 2, true);
    oracle.delivered(served);
    oracle.arrived(late);
    oracle.answered(late, None, EXPIRY);
    assert_eq!(reused(&oracle), [1, 1, 1]);
}

#[test]
fn a_token_counts_once_however_often_it_comes() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.lost(first);
    presented(&mut oracle, 2, false);
    presented(&mut oracle, 3, false);
    assert_eq!(reused(&oracle), [1, 0, 1]);
    assert_eq!(oracle.counts().presented, 3);
}

#[test]
fn a_token_that_was_refused_and_never_spent_is_no_reuse() {
    let mut oracle = logged_in();
    presented(&mut oracle, 1, false);
    presented(&mut oracle, 2, false);
    assert_eq!(reused(&oracle), [0, 0, 0]);
}

#[test]
fn whoever_presents_the_successor_had_it() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.delivered(first);
    let second = oracle.sent(1, token(1));
    oracle.arrived(second);
    assert_eq!(oracle.counts().in_doubt, 0);
}

#[test]
fn a_token_that_is_replaced_early_is_no_expiry() {
    let mut oracle = logged_in();
    let id = oracle.sent(1, token(0));
    oracle.arrived(id);
    oracle.answered(id, Some(pair(1)), EXPIRY - 1);
    let counts = oracle.counts();
    assert_eq!((counts.expiries, counts.reissues), (0, 1));
}

// What a lock without a fence lets happen.
#[test]
fn it_is_over_when_a_dead_login_is_stored_over_the_new_one() {
    let mut oracle = logged_in();
    presented(&mut oracle, 1, true);
    presented(&mut oracle, 2, false);
    oracle.login(pair(2), EXPIRY);
    assert!(!oracle.is_over());
    oracle.stored(token(1));
    assert!(oracle.is_over());
}

#[test]
fn a_login_takes_the_place_of_an_expired_token_too() {
    let mut oracle = logged_in();
    let first = presented(&mut oracle, 1, true);
    oracle.lost(first);
    presented(&mut oracle, 2, false);
    assert!(oracle.is_over());
    oracle.login(pair(2), EXPIRY);
    assert!(!oracle.is_over());
    // It was counted with the reissue already.
    assert_eq!(oracle.counts().expiries, 1);
    oracle.login(pair(3), EXPIRY);
    assert_eq!(oracle.counts().expiries, 2);
}
