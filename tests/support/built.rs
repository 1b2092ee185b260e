//! The program under test itself (`PROGRAM`, an example), which is run as a user runs it.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Child;
use tokio::time::timeout;

use crate::PROGRAM;

/// No run of the program takes as long, so that a test cannot hang.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The program, built now: one that lies about from an earlier build would prove nothing.
pub fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--message-format=json"]);
        build.args(["--example", PROGRAM]);
        // What cargo tells this test of its package would have build scripts run anew that look at it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.output().expect("cargo runs");
        assert!(built.status.success(), "the program builds");
        let lines = built.stdout.split(|byte| *byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let ours = |message: &Value| message["target"]["name"] == PROGRAM;
        let executable = messages
            .filter(ours)
            .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
        executable.expect("cargo says where the program is")
    })
}

/// How the program ended, and what it said.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// When it has ended.
    pub async fn of(child: Child) -> Self {
        let ended = timeout(LIMIT, child.wait_with_output()).await;
        let output = ended.expect("it ends").expect("its output");
        let ran = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// The last line of the output.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last();
        let line = line.unwrap_or_else(|| panic!("no line: {}", self.stderr));
        serde_json::from_str(line).expect("JSON")
    }

    /// The members of that line, but for the time that it took.
    pub fn counts(&self) -> Value {
        let mut json = self.json();
        let wall = json.as_object_mut().expect("an object").remove("wall_ms");
        assert!(wall.expect("wall_ms").is_u64());
        json
    }

    #[track_caller]
    pub fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{what:?} in {:?}", self.stderr);
    }
}

/// As no user of this machine: no secret in the environment, and nothing to read.
pub fn prepare(command: &mut tokio::process::Command) -> &mut tokio::process::Command {
    command
        .env_remove("CLIENT_SECRET")
        .env_remove("SESSION_SECRET")
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
}

/// Asks again and again until it is so; a test must not hang when it never is.
pub async fn eventually(so: impl Fn() -> bool) {
    let asking = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, asking).await.expect("it comes about");
}
