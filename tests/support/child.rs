//! Processes that a test waits for, and that are killed when they do not come to their end.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// More than anything takes: some are built first, while all other tests are running.
const LIMIT: Duration = Duration::from_secs(600);

fn give_up(child: &mut Child, what: &str) -> ! {
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("{what}");
}

pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > LIMIT {
            give_up(child, "it does not end");
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// How it ended, and what it printed, if that fits into a pipe.
pub fn output(command: &mut Command) -> (ExitStatus, String) {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = wait(&mut child);
    let mut printed = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    (status, printed)
}

/// The first line that it prints. What comes after it is not read.
pub fn first_line(child: &mut Child) -> String {
    let stdout = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = tell.send(read.map(|_| line));
    });
    match told.recv_timeout(LIMIT) {
        Ok(line) => line.unwrap(),
        Err(_) => give_up(child, "it does not say a word"),
    }
}
