//! When a program that was started by another one should end.

use std::{
    fs::File,
    io::{self, Read},
};

use tokio::sync::oneshot;

/// Resolves when whoever started this program has gone, if they hold a pipe to it.
pub async fn closed() {
    match pipe() {
        Some(input) => wait_for_end(input).await,
        None => std::future::pending().await,
    }
}

async fn wait_for_end(mut pipe: File) {
    let (ended, end) = oneshot::channel::<()>();
    // A thread of its own: the runtime would wait for a read that can't be cancelled.
    std::thread::spawn(move || {
        let mut ignored = [0; 1024];
        while matches!(pipe.read(&mut ignored), Ok(n) if n > 0) {}
        drop(ended);
    });
    let _ = end.await;
}

/// Standard input, if it is a pipe or what programs use for one. A terminal, a file or `/dev/null`
/// says nothing about who is still there.
#[cfg(unix)]
fn pipe() -> Option<File> {
    use std::os::{fd::AsFd, unix::fs::FileTypeExt};

    let input = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let kind = input.metadata().ok()?.file_type();
    (kind.is_fifo() || kind.is_socket()).then_some(input)
}

#[cfg(not(unix))]
fn pipe() -> Option<File> {
    None
}
