//! Sees when new tokens appear in the store.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use futures::executor::block_on;
use tokio::{runtime, time::timeout};
use tower_token_refresh::{FileStore, SharedTokenStore, TokenSet};

use crate::{fingerprint::Fingerprint, proxy::Book, stores::Store};

/// How exactly it is known when they did.
const TICK: Duration = Duration::from_micros(500);
/// A server is not asked as often: that would take its time from the processes.
const SERVER_TICK: Duration = Duration::from_millis(2);

/// Notes them in the book, for as long as anybody else has that.
pub fn watch(store: Store, book: &Arc<Book>) -> io::Result<()> {
    let book = Arc::downgrade(book);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A thread of its own: whatever else is done here must not delay it.
    thread::spawn(move || match store {
        Store::File(store) => follow_file(&store, &book),
        store => runtime.block_on(follow_server(store, &book)),
    });
    Ok(())
}

fn follow_file(store: &FileStore, book: &Weak<Book>) {
    let mut last = None;
    while let Some(book) = book.upgrade() {
        if let Ok(version) = version(store.path())
            && last.as_ref() != Some(&version)
            // One that can't be read now is looked at again.
            && let Ok(tokens) = block_on(store.load())
        {
            last = Some(version);
            note(&book, tokens.as_ref());
        }
        drop(book);
        thread::sleep(TICK);
    }
}

async fn follow_server(store: Store, book: &Weak<Book>) {
    let mut last = 0;
    while let Some(book) = book.upgrade() {
        if let Ok((record, _)) = store.read().await
            && record.version() != last
        {
            last = record.version();
            note(&book, record.tokens());
        }
        drop(book);
        // Those who are told of a change are told no sooner than this one, so that it looks by itself too.
        let _ = timeout(SERVER_TICK, store.changed(last)).await;
    }
}

fn note(book: &Book, tokens: Option<&TokenSet>) {
    // After the end of a login there are none.
    if let Some((tokens, refresh)) =
        tokens.and_then(|tokens| Some((tokens, tokens.refresh_token()?)))
    {
        book.stored(
            Fingerprint::of(tokens.access_token().expose()),
            Fingerprint::of(refresh.expose()),
        );
    }
}

/// Each text of the file is a file of its own, which took the place of the one before.
#[cfg(unix)]
fn version(path: &Path) -> io::Result<impl PartialEq + use<>> {
    use std::os::unix::fs::MetadataExt;

    let file = fs::metadata(path)?;
    Ok((file.ino(), file.ctime(), file.ctime_nsec()))
}

#[cfg(not(unix))]
fn version(path: &Path) -> io::Result<impl PartialEq + use<>> {
    fs::metadata(path)?.modified()
}
