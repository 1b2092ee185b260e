//! Runs of the example `fleet`.

use serde_json::Value;
use tokio::process::Command;

use crate::built::Ran;
use crate::built::prepare;
use crate::built::program;

pub async fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(program());
    let child = prepare(command.args(arguments)).spawn();
    Ran::of(child.expect("it starts")).await
}

/// The line's members are the promised ones, and no others.
pub fn is_as_promised(line: &Value) {
    let names = |value: &Value| -> Vec<String> {
        let members = value.as_object().expect("an object");
        members.keys().cloned().collect()
    };
    let mut expected = [
        "processes",
        "rounds",
        "expiries",
        "reissues",
        "reused",
        "families_ended",
        "avoidable_reuse",
        "in_doubt",
        "hung",
        "recovery_ms",
    ];
    expected.sort_unstable();
    assert_eq!(names(line), expected);
    assert_eq!(names(&line["recovery_ms"]), ["max", "p50", "p99"]);
    let numbers = line.as_object().expect("an object").values();
    let times = line["recovery_ms"].as_object().expect("an object").values();
    assert!(numbers.chain(times).all(|it| it.is_u64() || it.is_object()));
}

/// Nothing went wrong.
pub fn is_undisturbed(line: &Value) {
    is_as_promised(line);
    // More only where a process took so long that its token expired once more.
    assert!(
        line["expiries"].as_u64() >= line["rounds"].as_u64(),
        "{line}"
    );
    assert_eq!(line["reissues"], line["expiries"], "{line}");
    for none in [
        "reused",
        "families_ended",
        "avoidable_reuse",
        "in_doubt",
        "hung",
    ] {
        assert_eq!(line[none], 0, "{none}: {line}");
    }
}
