//! Sees when new tokens appear in the file.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use futures::executor::block_on;
use tower_token_refresh::{FileStore, TokenStore};

use crate::{fingerprint::Fingerprint, proxy::Book};

/// How exactly it is known when they did.
const TICK: Duration = Duration::from_micros(500);

/// Notes them in the book, for as long as anybody else has that.
pub fn watch(store: &FileStore, book: &Arc<Book>) {
    let (store, book) = (store.clone(), Arc::downgrade(book));
    // A thread of its own: whatever else is done here must not delay it.
    thread::spawn(move || follow(&store, &book));
}

fn follow(store: &FileStore, book: &Weak<Book>) {
    let mut last = None;
    while let Some(book) = book.upgrade() {
        if let Ok(version) = version(store.path())
            && last.as_ref() != Some(&version)
            // One that can't be read now is looked at again.
            && let Ok(tokens) = block_on(store.load())
        {
            last = Some(version);
            // After the end of a login there are none.
            if let Some((tokens, refresh)) =
                tokens.and_then(|tokens| Some((tokens.clone(), tokens.refresh_token()?.clone())))
            {
                book.stored(
                    Fingerprint::of(tokens.access_token().expose()),
                    Fingerprint::of(refresh.expose()),
                );
            }
        }
        drop(book);
        thread::sleep(TICK);
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
