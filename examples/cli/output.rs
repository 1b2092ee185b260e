//! Standard output: the body of a single answer, or the one line for programs. Whoever has stopped
//! reading it ends nothing; what can't be written for another reason is told.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use serde::Serialize;
use tokio::io::{AsyncWriteExt, stdout};

/// The last byte of the body was no end of a line.
static IS_WITHIN_LINE: AtomicBool = AtomicBool::new(false);

/// A part of the body. `false` when nobody reads it any more.
pub async fn write(data: &[u8]) -> io::Result<bool> {
    let Some(last) = data.last() else {
        return Ok(true);
    };
    IS_WITHIN_LINE.store(*last != b'\n', Relaxed);
    let mut out = stdout();
    let mut written = out.write_all(data).await;
    if written.is_ok() {
        written = out.flush().await;
    }
    heard(written)
}

/// One line, the last.
pub fn print(line: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(line)?;
    let mut out = io::stdout();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    heard(written).map(drop)
}

/// On a terminal, neither a message nor the prompt follows the body on its line.
pub fn end_line() {
    if IS_WITHIN_LINE.swap(false, Relaxed) && io::stdout().is_terminal() {
        let _ = writeln!(io::stdout());
    }
}

fn heard(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
