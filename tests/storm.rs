//! Proves the example `storm` and its contract: each scenario keeps its promises against a real server, and a
//! promise that is broken shows in the exit status. That its checks notice what goes wrong is shown by seeded
//! faults: see `docs/seeded-faults.md`.

#[path = "support/built.rs"]
mod built;

use std::fs;
use std::path::Path;

use built::Ran;
use built::prepare;
use built::program;
use serde_json::Value;
use tokio::process::Command;

const PROGRAM: &str = "storm";

async fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(program());
    let child = prepare(command.args(arguments)).spawn();
    Ran::of(child.expect("it starts")).await
}

async fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program());
    command.env("TMPDIR", folder).args(arguments);
    let child = prepare(&mut command).spawn();
    Ran::of(child.expect("it starts")).await
}

/// One round with 30 requests, which has to keep every promise.
async fn kept(arguments: &[&str]) -> Value {
    let ran = run(&[&["--json", "--requests", "30"], arguments].concat()).await;
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
    let line = ran.json();
    let mut names: Vec<_> = line.as_object().expect("an object").keys().collect();
    names.sort_unstable();
    let mut promised = [
        "scenario",
        "requests",
        "rounds",
        "ok",
        "failed",
        "dropped",
        "hung",
        "reissues",
        "replays",
        "wire_requests",
        "wall_ms",
    ];
    promised.sort_unstable();
    assert_eq!(names, promised);
    line
}

#[track_caller]
fn counts(line: &Value, expected: [(&str, u64); 4]) {
    for (name, number) in expected {
        assert_eq!(line[name], number, "{name}: {line}");
    }
}

// shows P1, P2
#[tokio::test]
async fn all_who_meet_an_expired_token_are_served_with_one_reissue() {
    let all_well = [("ok", 30), ("hung", 0), ("reissues", 1), ("failed", 0)];
    counts(&kept(&["--scenario", "expired"]).await, all_well);
    counts(&kept(&["--scenario", "late"]).await, all_well);
    counts(
        &kept(&["--scenario", "expired", "--no-rotate"]).await,
        all_well,
    );
    let line = kept(&["--scenario", "expired"]).await;
    assert_eq!(line["wire_requests"], 61);
}

// shows P5, P6: an issuer that fails twice costs no login, and each of its pauses is kept.
#[tokio::test]
async fn an_issuer_that_fails_twice_is_asked_three_times_and_ends_nothing() {
    let line = kept(&["--scenario", "flaky"]).await;
    counts(
        &line,
        [("ok", 30), ("hung", 0), ("reissues", 3), ("failed", 0)],
    );
}

// shows P6, P7, P9
#[tokio::test]
async fn a_dead_login_ends_once_and_dead_tokens_are_given_up() {
    let line = kept(&["--scenario", "fails"]).await;
    counts(
        &line,
        [("ok", 0), ("hung", 0), ("reissues", 1), ("failed", 30)],
    );
    let line = kept(&["--scenario", "dead"]).await;
    assert_eq!((&line["ok"], &line["failed"]), (&0.into(), &30.into()));
    assert!(line["reissues"].as_u64() <= Some(5), "{line}");
}

// shows P3, P8: three rounds have the users change in each of the moments.
#[tokio::test]
async fn callers_and_users_may_change_in_the_middle_of_it() {
    let line = kept(&["--scenario", "cancel"]).await;
    counts(
        &line,
        [("ok", 20), ("hung", 0), ("dropped", 10), ("failed", 0)],
    );
    let line = kept(&["--scenario", "logout", "--rounds", "3"]).await;
    assert_eq!(line["hung"], 0);
}

#[tokio::test]
async fn a_valid_token_costs_nothing() {
    let line = kept(&["--scenario", "steady"]).await;
    counts(
        &line,
        [("ok", 30), ("hung", 0), ("reissues", 0), ("failed", 0)],
    );
    assert_eq!(line["wire_requests"], 30);
}

// A promise that is broken shows in the exit status: here nobody can be as fast as that.
#[tokio::test]
async fn what_does_not_settle_in_time_is_hung() {
    let ran = run(&["--json", "--requests", "30", "--deadline", "1us"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.json()["hung"], 30);
    ran.says("broken in round 1: nothing hangs");
}

// Under a name that is always the same it could take the place of somebody else's.
#[tokio::test]
async fn each_picture_has_a_name_of_its_own_or_the_one_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let pictures = || fs::read_dir(folder.path()).expect("a folder").count();
    for number in 1..=2 {
        let ran = run_in(folder.path(), &["--requests", "3"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("✓   nothing hangs"), "{}", ran.stdout);
        assert_eq!(pictures(), number);
    }
    let ran = run_in(folder.path(), &["--requests", "3", "--json"]).await;
    assert_eq!((ran.code, pictures()), (Some(0), 2));
    let plot = folder.path().join("plot.svg");
    let plot = plot.to_str().expect("text");
    let ran = run_in(
        folder.path(),
        &["--requests", "3", "--json", "--plot", plot],
    )
    .await;
    assert_eq!((ran.code, pictures()), (Some(0), 3));
    assert!(
        fs::read_to_string(plot)
            .expect("it is there")
            .contains("<svg")
    );
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once() {
    for arguments in [
        ["--requests", "0"],
        ["--scenario", "sunny"],
        ["--plot", "/nowhere/to/be/found.svg"],
    ] {
        let ran = run(&arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

// Whoever has had enough of it gets the prompt back, and no line that says nothing any more.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_signal_ends_it_with_the_status_that_shells_know() {
    use rustix::process::Pid;
    use rustix::process::Signal;
    use rustix::process::kill_process;
    use tokio::io::AsyncReadExt;

    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = Command::new(program());
        // Which takes some seconds.
        command.args(["--scenario", "flaky", "--requests", "3", "--rounds", "20"]);
        let mut child = prepare(&mut command).spawn().expect("it starts");
        let id = child.id().expect("it runs");
        built::eventually(|| hears(id, code - 128)).await;
        let pid = Pid::from_raw(id as i32).expect("an id");
        kill_process(pid, signal).expect("signalled");
        let ended = tokio::time::timeout(built::LIMIT, child.wait()).await;
        let ended = ended.expect("it ends").expect("a status");
        assert_eq!(ended.code(), Some(code));
        let mut printed = String::new();
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_to_string(&mut printed).await.expect("text");
        assert_eq!(printed, "");
    }
}

/// This signal does not simply end it any more.
#[cfg(target_os = "linux")]
fn hears(id: u32, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let caught = lines.find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
