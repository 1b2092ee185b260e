//! What a server says while it runs.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::guarded::lock;

/// How much of it an error shows.
const LAST: usize = 12;

#[derive(Default)]
pub struct Log {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// All of its processes are gone.
    is_over: bool,
}

/// What came of waiting for a line.
pub enum Heard {
    /// Here it is.
    Line(String),
    /// All its processes have ended without saying it.
    Over,
    Late,
}

impl Log {
    /// In a thread of its own, until its end.
    pub fn follow(output: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::<Self>::default();
        let writer = log.clone();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Some(Ok(line)) = lines.next() {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                lock(&writer.said).lines.push(line);
                writer.changed.notify_all();
            }
            lock(&writer.said).is_over = true;
            writer.changed.notify_all();
        });
        log
    }

    /// How many lines there are: what is said later has a number from this one on.
    pub fn len(&self) -> usize {
        lock(&self.said).lines.len()
    }

    /// Waits for such a line, among those from this number on.
    pub fn wait_for(&self, from: usize, is_it: impl Fn(&str) -> bool, limit: Duration) -> Heard {
        let deadline = Instant::now() + limit;
        let (mut said, mut next) = (lock(&self.said), from);
        loop {
            let new = said.lines.iter().skip(next);
            if let Some(line) = new.into_iter().find(|line| is_it(line)) {
                return Heard::Line(line.clone());
            }
            next = said.lines.len().max(from);
            let left = deadline.saturating_duration_since(Instant::now());
            match said.is_over {
                true => return Heard::Over,
                false if left.is_zero() => return Heard::Late,
                false => {}
            }
            let waited = self.changed.wait_timeout(said, left);
            said = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Waits until all of its processes are gone.
    pub fn wait_for_end(&self, limit: Duration) {
        self.wait_for(usize::MAX, |_| false, limit);
    }

    /// The last lines, for people.
    pub fn last(&self) -> String {
        let said = lock(&self.said);
        let first = said.lines.len().saturating_sub(LAST);
        said.lines[first..].join("\n")
    }
}
