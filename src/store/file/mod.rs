//! A session's tokens in a file, for one process.
//!
//! [`record`] knows what the file says, [`disk`] how it is read and replaced. Here is what binds
//! them: one call after another, on a thread that may wait, and none that overtakes a newer one.

mod disk;
mod record;

use std::fmt;
use std::panic::resume_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::runtime::Handle;

use self::disk::Contents;
use self::disk::FileError;
use self::disk::Place;
use self::record::Login;
use self::record::Record;
use super::TokenStore;
use crate::error::BoxError;
use crate::token::TokenSet;

/// Keeps the tokens in a file, so that a program which is started again is still logged in.
///
/// Needs the feature `file`. Clones share the file, and one call waits for the other.
///
/// ```
/// use tower_token_refresh::{BoxError, FileStore, ReissueError, Session, TokenSet, reissue_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("session.json");
/// # let issuer = || reissue_fn(|_| async { Err(ReissueError::refused("not asked here")) });
/// let session = Session::builder(issuer()).store(FileStore::new(&path)).build()?;
/// session.login(TokenSet::new("access")?.with_refresh_token("refresh")?).await?;
///
/// // The program ends, and is started again.
/// let session = Session::builder(issuer()).store(FileStore::new(&path)).build()?;
/// assert_eq!(session.token().await?.expose(), "access");
/// # Ok(())
/// # }
/// ```
///
/// # What the file may be
///
/// A JSON object of at most 1 MiB. Somebody else may have written it, by hand or with the answer of
/// a login; reading alone never changes it. The first save makes it a *record*:
///
/// | member | in a file of somebody else | in a record |
/// |---|---|---|
/// | `access_token` or `accessToken` | must be there, a text | the same, under the name that the file had |
/// | `refresh_token` or `refreshToken` | a text | likewise |
/// | `expires_at`, `expiresAt` or `accessTokenExpiresAt` | RFC 3339, or seconds since 1970 | RFC 3339, if it is known |
/// | `expires_in` or `expiresIn` | seconds, a number or a text, from when the file was written; the time above wins | only where the file had it: the seconds that are left, or removed if unknown |
/// | `id`, `email` | the [identity](TokenSet::identity), of any JSON type | the identity, each member by its name |
/// | `identity_members` | | the names of the identity's members, where they are others |
/// | `format` | | `1` |
/// | `obtained_at` | | RFC 3339: when the tokens were received |
/// | `in_doubt` | | `{"since": RFC 3339, "tries": n, "sent_at": RFC 3339}`: [`TokenSet::in_doubt`] |
/// | `logged_out` | | `true` after a logout or the end of the login, in place of all the above but `format` |
/// | any other | kept | kept, in its place and to the letter, unless the identity gets a member of that name |
///
/// `null` counts as absent. A missing file means that nobody has logged in yet, and the first save
/// creates it; its folder must be there. Everything else is an error that names the file and what to
/// do, and leaves it as it is: no object, no access token, a token that is no text or has characters
/// that no token has, two names for one thing with different values, a name twice. A damaged file is
/// never "nobody is logged in", and never written over.
///
/// A `format` other than 1 is that of a newer version. Then the access token is read, without the
/// refresh token, as new tokens could not be saved; and nothing is written.
///
/// # What is promised
///
/// - A new text takes the place of the old one as a whole: it is written to a file of its own,
///   synced, renamed over the old one, and the folder is synced. A process that is killed at any
///   moment leaves the old pair or the new one. It may leave that other file as well
///   (`.NAME.tmp-` and eight letters or digits), which a save removes once it is a minute old.
/// - After a failure (a full disk, a missing right) the old file is as it was, and nothing else is
///   left.
/// - A file that is written can be read and written by its owner alone (0600), from its creation and
///   whatever the process's mask (Unix). One that others can read is read with a warning.
/// - Symbolic links, folders, pipes and devices are refused, and so are files that belong to somebody
///   else than the user this process runs as (Unix). The folders on the way may be links.
/// - A file without the right to write (0400) is not replaced.
/// - Buffers with tokens are wiped, and no error quotes what the file holds.
///
/// # What is not
///
/// - Several processes with one file, or several stores that were not cloned from each other: two of
///   them can present one refresh token, and the last to save wins. [Clone](Clone) the store, or the
///   [`Session`](crate::Session).
/// - Network file systems: whether a rename is atomic there, and lasts, depends on the server.
/// - Group, access control lists and hard links of the old file are not carried over.
/// - The text is not encrypted, and whoever can write the folder can put back an older one.
///
/// # Cancel safety
///
/// The file is read and written on a thread for blocking work where there is a tokio runtime, and
/// in the caller's own where there is none, or it was shut down. A call that is dropped is done to
/// its end all the same, once its thread has begun; but a write that gets its turn after a later one
/// does nothing.
#[derive(Clone)]
pub struct FileStore {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    /// Numbers the writes in the order in which they were called.
    writes: AtomicU64,
    turn: Mutex<Turn>,
}

/// Held by the one call that uses the file.
#[derive(Default)]
struct Turn {
    /// The last write that was done.
    written: u64,
    warned: bool,
}

impl FileStore {
    /// A store in this file. A relative path is meant from where the process stands now.
    ///
    /// Nothing is looked at yet: a path that cannot be used is an error at the first use.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                place: Place::new(path.into()),
                writes: AtomicU64::new(0),
                turn: Mutex::default(),
            }),
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.place.path()
    }

    async fn write(&self, tokens: Option<TokenSet>) -> Result<(), BoxError> {
        let number = self.shared.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.run(move |shared, turn| {
            // One that was given up, and waited here while a newer one was done.
            if number < turn.written {
                return Ok(());
            }
            shared.write(tokens.as_ref())?;
            turn.written = number;
            Ok(())
        })
        .await
    }

    /// Does this when it has its turn, on a thread that may wait.
    async fn run<T, W>(&self, work: W) -> Result<T, BoxError>
    where
        T: Send + 'static,
        W: Fn(&Shared, &mut Turn) -> Result<T, FileError> + Send + Sync + 'static,
    {
        let shared = self.shared.clone();
        let work = Arc::new(move || {
            let mut turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
            work(&shared, &mut turn)
        });
        if let Ok(runtime) = Handle::try_current() {
            let on_thread = work.clone();
            match runtime.spawn_blocking(move || on_thread()).await {
                Ok(done) => return Ok(done?),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime was shut down before it was begun.
                Err(_) => {}
            }
        }
        Ok(work()?)
    }
}

impl Shared {
    fn load(&self, turn: &mut Turn) -> Result<Option<TokenSet>, FileError> {
        let Some(contents) = self.place.read()? else {
            return Ok(None);
        };
        let file = self.place.path().display();
        if contents.is_public && !turn.warned {
            turn.warned = true;
            tracing::warn!(
                %file,
                "other users of this machine can read the tokens in this file, until the next save"
            );
        }
        Ok(match self.understand(&contents)?.1 {
            Login::LoggedIn(tokens) => Some(tokens),
            Login::LoggedOut => None,
            Login::Foreign(tokens) => {
                tracing::warn!(
                    %file,
                    "a newer version of this crate has written this file: its access token is used, \
                     and nothing is reissued"
                );
                Some(tokens)
            }
        })
    }

    /// Writes these tokens, or that there are none.
    fn write(&self, tokens: Option<&TokenSet>) -> Result<(), FileError> {
        let contents = self.place.read()?;
        let record = match (&contents, tokens) {
            (None, None) => return Ok(()),
            (None, Some(_)) => Record::default(),
            (Some(contents), _) => match self.understand(contents)? {
                (_, Login::Foreign(_)) => {
                    return Err(self.place.error(
                        "a newer version of this crate has written it (its \"format\" is not 1), \
                         and this one cannot: use the newer one, or another file",
                    ));
                }
                (_, Login::LoggedOut) if tokens.is_none() => return Ok(()),
                (record, _) => record,
            },
        };
        if contents.as_ref().is_some_and(|old| old.is_protected) {
            return Err(self.place.error(
                "it is write-protected, and so not replaced: give its owner the right to write it",
            ));
        }
        let text = record.with_login(tokens, SystemTime::now());
        let text = text.map_err(|defect| self.place.defect(defect))?;
        self.place.replace(&text)
    }

    fn understand<'a>(&self, contents: &'a Contents) -> Result<(Record<'a>, Login), FileError> {
        let understood = Record::parse(&contents.text)
            .and_then(|record| Ok((record.login(contents.modified)?, record)));
        match understood {
            Ok((login, record)) => Ok((record, login)),
            Err(defect) => Err(self.place.defect(defect)),
        }
    }
}

impl TokenStore for FileStore {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        self.run(Shared::load).await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        self.write(Some(tokens.clone())).await
    }

    async fn clear(&self) -> Result<(), BoxError> {
        self.write(None).await
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    // shows P8: a write that was given up at its deadline, and gets its turn after a newer one.
    #[test]
    fn a_write_that_was_overtaken_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("session.json"));
        let save = |token| block_on(store.save(&TokenSet::new(token).unwrap())).unwrap();
        store.shared.turn.lock().unwrap().written = 2;
        save("first");
        assert!(!store.path().exists());
        save("second");
        save("third");
        let kept = block_on(store.load()).unwrap().unwrap();
        assert_eq!(kept.access_token().expose(), "third");
    }
}
