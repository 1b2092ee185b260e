//! A session's record in a file, for all processes of one host.
//!
//! [`disk`] knows how the file is read and replaced, [`lock`] how processes keep each other out, and
//! [`witness`] what was there last; what the text means is for [`document`](super::document). Here is
//! what binds them: look at the file and its witness, decide, and write under the lock.

mod disk;
mod lock;
mod witness;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use self::disk::Contents;
use self::disk::FileError;
use self::disk::Place;
use self::disk::Signature;
use self::lock::LockFile;
use self::lock::Locked;
use self::witness::Mark;
use self::witness::Witness;
use self::witness::new_id;
use super::Record;
use super::SharedTokenStore;
use super::StoreLock;
use super::Swap;
use super::Turn;
use super::blocking::on_blocking_thread;
use super::document::Defect;
use super::document::Document;
use super::document::Format;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::say::say;
use crate::time::timeout;
use crate::token::TokenSet;

/// How long a write waits for the writes of other processes: each takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// And at least so long after those of this process that came before it.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// What to do about another process that keeps the lock.
const STOPPED: &str = ". If it is stopped, let it go on (`fg`, `kill -CONT`): it may have the new tokens. If it is ended, the \
     refresh token is in doubt. `fuser`, say, finds it";

/// Between two looks for a change: the shortest pause and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));

/// Keeps a login in a file: for a program that is started again, and for all processes of one host
/// that name the file.
///
/// Needs the feature `file`. It is a [`SharedTokenStore`]. Without a session, tokens are put into the file and
/// looked at with [`save`](Self::save) and [`load`](Self::load). Clones share the file, and one write waits for
/// the other.
///
/// ```
/// use tower_token_refresh::{BoxError, FileStore, ReissueError, Session, TokenSet, reissue_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("session.json");
/// # let issuer = || reissue_fn(|_| async { Err(ReissueError::refused("not asked here")) });
/// let session = Session::builder(issuer()).shared_store(FileStore::new(&path)).build()?;
/// session.login(TokenSet::new("access")?.with_refresh_token("refresh")?).await?;
///
/// // The program ends, and is started again.
/// let session = Session::builder(issuer()).shared_store(FileStore::new(&path)).build()?;
/// assert_eq!(session.token().await?.expose(), "access");
/// # Ok(())
/// # }
/// ```
///
/// # What the file may be
///
/// A JSON object of at most 1 MiB, of which the identity is at most 64 KiB. Somebody else may have written it, by hand or with the answer of
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
/// | `identity_apart` | replaced at the first save | those members of the identity that have a name of this table, as an object |
/// | `format` | | `1` |
/// | `obtained_at` | | RFC 3339: when the tokens were received |
/// | `in_doubt` | | `{"since": RFC 3339, "tries": n, "sent_at": RFC 3339}`: [`TokenSet::in_doubt`] |
/// | `version`, `epoch`, `reissues`, `turn`, `no_tokens` | replaced at the first save | as [`Record::to_json`] says |
/// | `record_id` | replaced at the first save | 16 hexadecimal digits: whose record this is. It stays over all changes, logins too |
/// | `logged_out`, `ended` | replaced at the first save | `true` and why, after a logout or the end of the login, in place of the tokens and what belongs to them |
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
/// # Several processes
///
/// Two more files lie beside it. They hold no token, are never removed, and are private like the file
/// itself:
///
/// - `NAME.witness` is locked for the milliseconds that a write takes, and notes the `record_id`, the
///   version and the epoch that were written last. A write that finds it locked for two seconds is an
///   error.
/// - `NAME.lock` is locked by the process that presents the refresh token, until it has stored the
///   answer. The others wait for it, and go on reading; a login or logout does not wait.
///
/// The system frees both locks when their holder dies, however it dies, and others go on at once. *A
/// holder that is stopped* (by a debugger, or by `SIGSTOP`) keeps its lock: nobody takes that away from
/// it, as it may present the refresh token the moment it goes on. The others use the access token as
/// long as that is valid, and their refreshes fail with an error that names the lock file.
///
/// What another process writes is noticed after a twentieth of the time that has passed since the last
/// change, and after a second at most.
///
/// *By hand*, this can be done while programs use the file:
///
/// - **Remove it**: there are no tokens then, and the next login counts on from the version that the
///   witness has noted.
/// - **Put a plain token file in its place**: that is a login like any other, and no process writes over
///   it before it has read it.
/// - **Move it** elsewhere, without the other two files: it goes on there.
/// - **Put a backup back**, or the file of another session: both are refused, with an error, as a
///   refresh token that was used since must not be presented again, and tokens of one user must not
///   become those of another. To use such a file all the same, remove the witness and start the
///   programs anew: a running one remembers what it has seen. To do without it, remove it and log in
///   again. Only a *record* is recognised: a copy that was made while the file was still plain, before
///   its first save, is taken for a login, and its refresh token is presented.
///
/// # What is promised
///
/// - A new text takes the place of the old one as a whole: it is written to a file of its own,
///   synced, renamed over the old one, and the folder is synced. A process that is killed at any
///   moment leaves the old pair or the new one. It may leave that other file as well
///   (`.NAME.tmp-` and eight letters or digits), which a save removes once it is a minute old.
/// - After a failure (a full disk, a missing right) the old file is as it was, and nothing but the two
///   files above is left. There is one exception: where the folder cannot be synced, the new text is in
///   place, and that is an error as it may be lost if the machine fails now.
/// - All three files can be read and written by their owner alone (0600), whatever the process's mask
///   (Unix). A token file that others can read is read with a warning.
/// - Symbolic links, folders, pipes and devices are refused in place of each of the three, and so are
///   files that belong to somebody else than the user this process runs as (Unix). The folders on the
///   way may be links.
/// - A file without the right to write (0400) is not replaced.
/// - Buffers with tokens are wiped, and no error quotes what the file holds.
///
/// # What is not
///
/// - Network file systems (NFS, SMB and their like) are not supported: whether a lock keeps others out
///   there, and whether a rename is atomic and lasts, depends on the server. Use a store in a database
///   for several hosts.
/// - Programs that write the file in place, a little at a time, can be read half-way: that is an error
///   until they are done. Let them write another file, and rename it.
/// - Group and access control lists of the old file are not carried over. A file with a second name (a
///   hard link) is read, and not written: whoever uses the other name would go on with the old tokens.
/// - The text is not encrypted, and whoever can write the folder can put back an older one, with a
///   witness that fits.
/// - Owners and modes are those of Unix: on other systems nothing is checked of them.
///
/// # Cancel safety
///
/// The file is read and written on a thread for blocking work where there is a tokio runtime, and
/// in the caller's own where there is none, or it was shut down. No thread waits for a lock. A call
/// that is dropped while it waits does nothing; later, it is done to its end all the same, once its
/// thread has begun. A save or clear that gets its turn after a later one of the same store does
/// nothing.
#[derive(Clone)]
pub struct FileStore {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    /// Its file is the lock of those who write, for a moment.
    witness: Witness,
    /// The lock of the one who presents the refresh token, while it does.
    lock: LockFile,
    /// Clones of this store wait for each other here, and not for the files.
    writing: Arc<AsyncMutex<()>>,
    presenting: Arc<AsyncMutex<()>>,
    /// Numbers the saves and clears in the order in which they were called.
    writes: AtomicU64,
    state: Mutex<State>,
}

/// What this store and its clones remember.
#[derive(Default)]
struct State {
    /// The last save or clear that was done.
    written: u64,
    warned_public: bool,
    warned_foreign: bool,
    /// How far the record has come, whatever becomes of the witness.
    known: Option<Mark>,
    /// The version that was read or written last, and what its file looks like.
    seen: Option<(u64, Option<Signature>)>,
}

/// What the file and its witness say.
struct Look {
    contents: Option<Contents>,
    record: Record,
    id: Option<u64>,
}

/// What takes the place of what is there, if anything does.
type Decision = Result<Option<Record>, FileError>;

impl FileStore {
    /// A store in this file. A relative path is meant from where the process stands now.
    ///
    /// Nothing is looked at yet: a path that cannot be used is an error at the first use.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let place = Place::new(path.into());
        Self {
            shared: Arc::new(Shared {
                witness: Witness::new(place.beside(".witness")),
                lock: LockFile::new(place.beside(".lock")),
                place,
                writing: Arc::default(),
                presenting: Arc::default(),
                writes: AtomicU64::new(0),
                state: Mutex::default(),
            }),
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.place.path()
    }

    /// Writes these tokens as a login, or that it is over.
    async fn write(&self, tokens: Option<TokenSet>) -> Result<(), BoxError> {
        let number = self.shared.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let decide = move |shared: &Shared, look: &Look| {
            let old = &look.record;
            let is_over = look.contents.is_none() || matches!(old.turn, Turn::Ended(_));
            if tokens.is_none() && is_over {
                return Ok(None);
            }
            let next = |count: u64| {
                let grown = count.checked_add(1);
                grown.ok_or_else(|| shared.place.error("its version cannot grow: remove it"))
            };
            let new = Record {
                version: next(old.version)?,
                epoch: next(old.epoch)?,
                reissues: 0,
                tokens: tokens.clone(),
                turn: match tokens {
                    Some(_) => Turn::Free,
                    None => Turn::Ended(EndReason::LoggedOut),
                },
                foreign: false,
            };
            Ok(Some(new))
        };
        self.change(move |shared| {
            // One that was given up, and waited here while a newer one was done.
            if number < shared.state().written {
                return Ok(Some(()));
            }
            Ok(shared.try_change(&decide)?.map(|_| {
                shared.state().written = number;
            }))
        })
        .await
    }

    /// Does this, one call after the other, until no other process keeps it out.
    async fn change<T, W>(&self, work: W) -> Result<T, BoxError>
    where
        T: Send + 'static,
        W: Fn(&Shared) -> Result<Option<T>, FileError> + Send + Sync + 'static,
    {
        let begun = Instant::now();
        let turn = Arc::new(self.shared.writing.clone().lock_owned().await);
        let since = Instant::now();
        let work = Arc::new(work);
        loop {
            let (turn, work) = (turn.clone(), work.clone());
            let once = move |shared: &Shared| {
                // A call that is dropped keeps its turn until this is done.
                let _turn = &turn;
                work(shared)
            };
            if let Some(done) = self.run(once).await? {
                return Ok(done);
            }
            if begun.elapsed() >= PATIENCE && since.elapsed() >= LEAST_PATIENCE {
                let what = "other processes have kept it locked for too long, to write the tokens: \
                            find the one that stands still (with `fuser`, say) and end it";
                return Err(self.shared.witness.file().error(what).into());
            }
            pause(1, 5).await;
        }
    }

    /// Does this on a thread that may wait.
    async fn run<T, W>(&self, work: W) -> Result<T, BoxError>
    where
        T: Send + 'static,
        W: Fn(&Shared) -> Result<T, FileError> + Send + Sync + 'static,
    {
        let shared = self.shared.clone();
        Ok(on_blocking_thread(move || work(&shared)).await?)
    }
}

/// For so many milliseconds, so that those who wait for one thing do not ask in step.
async fn pause(least: u64, most: u64) {
    let micros = fastrand::u64(least * 1000..=most * 1000);
    timeout(Duration::from_micros(micros), std::future::pending::<()>()).await;
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<Record, FileError> {
        let look = self.look().inspect_err(|_| self.state().seen = None)?;
        self.warn(&look);
        Ok(look.record)
    }

    /// What is there now, or why it cannot be what belongs there. Takes no lock: the file is only
    /// ever replaced as a whole.
    fn look(&self) -> Result<Look, FileError> {
        // Before the file: what is written in between makes that newer than these, never older.
        let known = self.state().known;
        let witness = self.witness.read();
        let contents = self.place.read()?;
        let expected = [witness, known];
        let last = witness.or(known);
        let (record, id) = match &contents {
            // Somebody has removed it: a login goes on counting where it stood. That is a change, too, so
            // that no write of somebody who has not seen it brings back what was removed.
            None => {
                let record = Record {
                    version: last.map_or(0, |last| last.version.saturating_add(1)),
                    epoch: last.map_or(0, |last| last.epoch),
                    ..Record::empty()
                };
                (record, None)
            }
            Some(contents) => self.understand(contents, expected)?,
        };
        let look = Look {
            id: id.or_else(|| last.map(|last| last.id)),
            record,
            contents,
        };
        self.remember(&look, id);
        Ok(look)
    }

    fn understand(
        &self,
        contents: &Contents,
        expected: [Option<Mark>; 2],
    ) -> Result<(Record, Option<u64>), FileError> {
        let understood = Document::parse(&contents.text).and_then(|document| {
            let record = document.record(contents.modified)?;
            Ok((document.format(), record, document.id()?))
        });
        let (format, mut record, id) = understood.map_err(|defect| self.place.defect(defect))?;
        let expected = expected.into_iter().flatten();
        match format {
            Format::Foreign => {}
            Format::Plain => {
                // Whoever has put it there has logged in by hand. That is a change like any other, so
                // that no write of somebody who has not seen it takes its place.
                if let Some(last) = { expected }.next() {
                    record.version = last.version.saturating_add(1);
                    record.epoch = last.epoch.saturating_add(1);
                }
            }
            Format::Current => {
                for last in expected {
                    let what = if id.is_some_and(|id| id != last.id) {
                        "it is the record of another session than the one that was here: put that one \
                         back"
                    } else if record.version < last.version {
                        "it is older than what was here before, and its refresh token may be spent: put \
                         the newer one back, or remove it and log in again"
                    } else {
                        continue;
                    };
                    let witness = self.witness.file().path().display();
                    return Err(self.place.error(format!(
                        "{what} (or, to use it all the same, remove {witness} and start the programs \
                         anew that use it)"
                    )));
                }
            }
        }
        Ok((record, id))
    }

    fn remember(&self, look: &Look, id: Option<u64>) {
        let Record { version, epoch, .. } = look.record;
        let mut state = self.state();
        let signature = look.contents.as_ref().map(|contents| contents.signature);
        state.seen = Some((version, signature));
        if let Some(id) = id
            && state.known.is_none_or(|known| known.version < version)
        {
            state.known = Some(Mark { id, version, epoch });
        }
    }

    fn warn(&self, look: &Look) {
        let file = self.place.path().display();
        let is_public = look.contents.as_ref().is_some_and(|old| old.is_public);
        let mut state = self.state();
        if is_public && !std::mem::replace(&mut state.warned_public, true) {
            say(|| {
                tracing::warn!(
                    %file,
                    "other users of this machine can read the tokens in this file, until the next save"
                )
            });
        }
        if look.record.foreign && !std::mem::replace(&mut state.warned_foreign, true) {
            say(|| {
                tracing::warn!(
                    %file,
                    "a newer version of this crate has written this file: its access token is used, and \
                     nothing is reissued"
                )
            });
        }
    }

    /// Whether something was written, or `None` while somebody else writes.
    fn try_change(
        &self,
        decide: &dyn Fn(&Self, &Look) -> Decision,
    ) -> Result<Option<bool>, FileError> {
        // Where nothing is to be done, or it cannot be, no file is made beside it.
        if self.decide(decide)?.is_none() {
            return Ok(Some(false));
        }
        let Some(locked) = self.witness.try_lock()? else {
            return Ok(None);
        };
        let Some((look, record)) = self.decide(decide)? else {
            return Ok(Some(false));
        };
        self.write(&look, &record, &locked)?;
        Ok(Some(true))
    }

    fn decide(
        &self,
        decide: &dyn Fn(&Self, &Look) -> Decision,
    ) -> Result<Option<(Look, Record)>, FileError> {
        let look = self.look()?;
        let Some(record) = decide(self, &look)? else {
            return Ok(None);
        };
        self.check_writable(&look)?;
        Ok(Some((look, record)))
    }

    fn check_writable(&self, look: &Look) -> Result<(), FileError> {
        if look.record.foreign {
            return Err(self.place.defect(Defect::foreign()));
        }
        match &look.contents {
            Some(old) if old.is_protected => Err(self.place.error(
                "it is write-protected, and so not replaced: give its owner the right to write it",
            )),
            Some(old) if old.has_other_names => Err(self.place.error(
                "it has another name as well (a hard link), which would keep the old tokens: make a copy \
                 under this name in its place",
            )),
            _ => Ok(()),
        }
    }

    fn write(&self, look: &Look, record: &Record, locked: &Locked) -> Result<(), FileError> {
        let id = look.id.unwrap_or_else(new_id);
        let old = look.contents.as_ref();
        let text = old
            .map_or_else(|| Ok(Document::default()), |old| Document::parse(&old.text))
            .and_then(|document| document.with_record(record, Some(id), SystemTime::now()))
            .map_err(|defect| self.place.defect(defect))?;
        let signature = self.place.replace(&text)?;
        let Record { version, epoch, .. } = *record;
        let mark = Mark { id, version, epoch };
        if let Err(error) = self.witness.write(locked, mark) {
            let file = self.witness.file().path().display();
            say(
                || tracing::warn!(%file, %error, "the version that was written could not be noted"),
            );
        }
        let mut state = self.state();
        state.known = Some(mark);
        state.seen = Some((version, signature));
        Ok(())
    }

    /// Whether it may be worth a `read`, for somebody who has waited so long.
    fn has_changed(&self, version: u64, waited: Duration) -> bool {
        let seen = self.state().seen;
        match seen {
            Some((seen, signature)) if seen == version => {
                // Two changes within one tick of the file system's clock may look like none.
                let witness = self.witness.read();
                self.place.signature() != signature
                    || witness.is_some_and(|witness| witness.version > version)
            }
            // Somebody else who shares this store has read a newer one.
            Some(_) => true,
            // It cannot be read.
            None => waited >= LOOK_AGAIN.1,
        }
    }

    fn try_lock(&self) -> Result<Option<Locked>, FileError> {
        self.place.parts()?;
        self.lock.try_lock()
    }
}

impl SharedTokenStore for FileStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        let record = self.run(Shared::read).await?;
        Ok((record, SystemTime::now()))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let record = record.clone();
        let decide = move |shared: &Shared, look: &Look| {
            if look.record.version != version {
                return Ok(None);
            }
            if record.version <= version {
                let what = "its next version must be a higher one: the program has a defect";
                return Err(shared.place.error(what));
            }
            Ok(Some(record.clone()))
        };
        let written = self.change(move |shared| shared.try_change(&decide));
        Ok(match written.await? {
            true => Swap::Done,
            false => Swap::Conflict,
        })
    }

    async fn changed(&self, version: u64) {
        let begun = Instant::now();
        loop {
            let longest = (begun.elapsed() / 20).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
            let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            pause((longest / 2).max(2), longest).await;
            let waited = begun.elapsed();
            let look = self.run(move |shared| Ok(shared.has_changed(version, waited)));
            if !matches!(look.await, Ok(false)) {
                return;
            }
        }
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        let begun = Instant::now();
        let held_by = |who, advice| {
            // What is left of somebody's patience is seldom round.
            let held = match limit.as_secs_f64().round() {
                0.0 => "holds it".to_owned(),
                seconds => format!("has held it for {seconds} s or more"),
            };
            let what = format!("{who} {held}, to get new tokens{advice}");
            self.shared.lock.error(what)
        };
        let turn = timeout(limit, self.shared.presenting.clone().lock_owned()).await;
        let turn = turn.ok_or_else(|| held_by("this process", ": wait for it"))?;
        loop {
            if let Some(locked) = self.run(Shared::try_lock).await? {
                // The file's lock first.
                return Ok(Some(StoreLock::new((locked, turn))));
            }
            if begun.elapsed() >= limit {
                return Err(held_by("another process", STOPPED).into());
            }
            pause(1, 10).await;
        }
    }
}

/// Without a session.
impl FileStore {
    /// The tokens that are in the file, or `None` where nobody is logged in.
    ///
    /// # Errors
    ///
    /// When that cannot be said. The error names the file and what to do.
    pub async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(self.run(Shared::read).await?.tokens)
    }

    /// Puts tokens into the file, in place of what was there: a login, to all sessions that share it.
    ///
    /// # Errors
    ///
    /// When they are not in the file. What was there before is, then, in whole.
    pub async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        self.write(Some(tokens.clone())).await
    }

    /// Takes the tokens out of the file: a logout, to all sessions that share it.
    ///
    /// # Errors
    ///
    /// When they may still be there.
    pub async fn clear(&self) -> Result<(), BoxError> {
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
        store.shared.state().written = 2;
        save("first");
        assert!(!store.path().exists());
        save("second");
        save("third");
        let kept = block_on(store.load()).unwrap().unwrap();
        assert_eq!(kept.access_token().expose(), "third");
    }

    // Two changes within one tick of the file system's clock may leave the file looking as it was.
    #[test]
    fn a_change_that_does_not_show_is_seen_by_the_witness() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("session.json"));
        for token in ["first", "second"] {
            block_on(store.save(&TokenSet::new(token).unwrap())).unwrap();
        }
        let shared = &store.shared;
        let waited = Duration::ZERO;
        assert!(!shared.has_changed(2, waited));
        shared.state().seen = Some((1, shared.place.signature()));
        assert!(shared.has_changed(1, waited));
    }

    // shows P1: what is decided before the lock is held only spares the lock.
    #[test]
    fn a_change_that_came_before_the_lock_is_seen_under_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.json");
        let (ours, theirs) = (FileStore::new(&path), FileStore::new(&path));
        let save = || block_on(theirs.save(&TokenSet::new("theirs").unwrap())).unwrap();
        save();
        let looked = std::cell::Cell::new(false);
        let decide = |_: &Shared, look: &Look| {
            let version = look.record.version;
            if !looked.replace(true) {
                save();
            }
            let next = Record {
                version: 2,
                ..look.record.clone()
            };
            Ok((version == 1).then_some(next))
        };
        assert_eq!(ours.shared.try_change(&decide).unwrap(), Some(false));
    }
}
