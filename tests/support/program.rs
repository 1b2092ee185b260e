//! A back end, a tokens file, and the program under test itself (`PROGRAM`, an example), which is run as
//! a user runs it.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

#[path = "built.rs"]
mod built;
#[path = "login.rs"]
mod login;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

pub use self::built::Ran;
pub use self::built::eventually;
use self::built::prepare;
use self::built::program;
use crate::backend::Backend;
use crate::backend::Config;
use crate::style::Style;

pub struct World {
    pub backend: Backend,
    folder: TempDir,
    /// Every token that was in the file at some time.
    seen: RefCell<Vec<String>>,
}

impl World {
    pub async fn new(config: Config) -> Self {
        Self {
            backend: Backend::start(config).await.expect("a back end"),
            folder: tempfile::tempdir().expect("a folder"),
            seen: RefCell::default(),
        }
    }

    /// With tokens that live long, until they are expired, and rotate.
    pub async fn rotating() -> Self {
        Self::new(Config {
            access_ttl: Duration::from_secs(3600),
            rotate: true,
            ..Config::default()
        })
        .await
    }

    /// The same, and logged in with a token that the server takes for expired.
    pub async fn expired() -> Self {
        let world = Self::rotating().await;
        world.log_in().await;
        world.backend.expire_access_tokens();
        world
    }

    /// The tokens' file.
    pub fn file(&self) -> PathBuf {
        self.path("session.json")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.backend.base())
    }

    /// Puts the answer of a login into the file, as a user would.
    pub async fn log_in(&self) {
        let answer = login::log_in(&self.backend).await;
        fs::write(self.file(), answer).expect("written");
        self.note_tokens();
    }

    /// What the file says.
    pub fn stored(&self) -> Value {
        let text = fs::read(self.file()).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    }

    pub fn stored_tokens(&self) -> [Option<String>; 2] {
        let stored = self.stored();
        let text = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| stored.get(name)?.as_str());
            value.map(str::to_owned)
        };
        [
            text(["accessToken", "access_token"]),
            text(["refreshToken", "refresh_token"]),
        ]
    }

    /// Whether this token was in the file at some time.
    pub fn has_held(&self, token: &str) -> bool {
        self.seen.borrow().iter().any(|seen| seen == token)
    }

    fn note_tokens(&self) {
        if self.file().is_file()
            && serde_json::from_slice::<Value>(&fs::read(self.file()).expect("a file")).is_ok()
        {
            let tokens = self.stored_tokens();
            self.seen.borrow_mut().extend(tokens.into_iter().flatten());
        }
    }

    /// The program with the file and this style.
    pub async fn run_as(&self, style: Style, arguments: &[&str]) -> Ran {
        let file = self.file();
        let given = style.arguments(&self.backend);
        let given = given.iter().map(String::as_str);
        let tokens = ["--tokens", file.to_str().expect("a readable path")];
        self.run(
            tokens
                .into_iter()
                .chain(given)
                .chain(arguments.iter().copied()),
        )
        .await
    }

    /// The program with these arguments alone.
    pub async fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let child = self.start(arguments);
        self.wait(child).await
    }

    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Child {
        let mut command = tokio::process::Command::new(program());
        prepare(command.args(arguments)).spawn().expect("it starts")
    }

    /// The same, with its output going there.
    pub fn start_into<A: AsRef<OsStr>>(
        &self,
        output: fs::File,
        arguments: impl IntoIterator<Item = A>,
    ) -> Child {
        let mut command = tokio::process::Command::new(program());
        let command = prepare(command.args(arguments)).stdout(output);
        command.spawn().expect("it starts")
    }

    /// The same, where the shell has run this before.
    pub fn start_after<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Child {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        let command = prepare(command.arg(program()).args(arguments));
        command.spawn().expect("it starts")
    }

    /// Waits for its end. Whatever it has said, no token is in it.
    pub async fn wait(&self, child: Child) -> Ran {
        let ran = Ran::of(child).await;
        self.note_tokens();
        for token in self.seen.borrow().iter() {
            assert!(!ran.stdout.contains(token), "a token on standard output");
            assert!(!ran.stderr.contains(token), "a token on standard error");
        }
        // A function of the crate is no advice for those who only run the program.
        assert!(!ran.stderr.contains("(…)"), "{}", ran.stderr);
        ran
    }
}
