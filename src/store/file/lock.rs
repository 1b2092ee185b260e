//! The files beside the token file that processes lock, to keep each other out.
//!
//! The system frees such a lock when its holder dies. They are never removed: who removes one that
//! another is about to lock lets a third in.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use super::disk::FileError;
use super::disk::identity;
use super::disk::is_ours;
use super::disk::is_symlink;
use super::disk::make_private;
use super::disk::open_or_create;

/// A file that was removed while it was being locked is opened anew so many times.
const TRIES: usize = 16;

/// Where such a file is, or will be.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) file: File,
}

/// What became of locking a file that was open.
enum Attempt {
    Done(Locked),
    /// Somebody else holds it.
    Held,
    /// It was removed, or replaced, before it was locked.
    Gone,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it does so as well, but for a copy that a child of this process may have for a moment.
        let _ = self.file.unlock();
    }
}

impl LockFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `None` while somebody else holds it. It does not wait.
    pub(super) fn try_lock(&self) -> Result<Option<Locked>, FileError> {
        for _ in 0..TRIES {
            match self.try_lock_opened(self.open()?)? {
                Attempt::Done(locked) => return Ok(Some(locked)),
                Attempt::Held => break,
                Attempt::Gone => {}
            }
        }
        Ok(None)
    }

    fn try_lock_opened(&self, file: File) -> Result<Attempt, FileError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Held),
            Err(TryLockError::Error(error)) => {
                return Err(self.failed(
                    "it cannot be locked: keep the tokens on a file system that has locks",
                    error,
                ));
            }
        }
        let locked = Locked { file };
        let looked_at = |error| self.failed("it cannot be looked at", error);
        let ours = locked.file.metadata().map_err(looked_at)?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if identity(&there) == identity(&ours) => Ok(Attempt::Done(locked)),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(looked_at(error)),
            // A lock on a file that nobody finds any more keeps nobody out.
            _ => Ok(Attempt::Gone),
        }
    }

    pub(super) fn error(&self, what: impl Into<std::borrow::Cow<'static, str>>) -> FileError {
        FileError::new(&self.path, what)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> FileError {
        self.error(what).because(source)
    }

    fn open(&self) -> Result<File, FileError> {
        let file = open_or_create(&self.path).map_err(|error| {
            let what = match error.kind() {
                _ if is_symlink(&self.path) => {
                    "it is a symbolic link, which is not followed: remove it"
                }
                _ if self.path.is_dir() => {
                    "it is a folder, where this crate needs a file to lock: move the folder away, or \
                     give the token file another name"
                }
                ErrorKind::NotFound if !self.path.parent().is_some_and(Path::is_dir) => {
                    "its folder is missing: create it"
                }
                ErrorKind::PermissionDenied => {
                    "it cannot be opened or created, to lock it: give this process's user the right \
                     to write it and its folder"
                }
                _ => "it cannot be opened or created, to lock it",
            };
            self.failed(what, error)
        })?;
        let looked_at = |error| self.failed("it cannot be looked at", error);
        let metadata = file.metadata().map_err(looked_at)?;
        if !metadata.is_file() {
            return Err(self.error("it is no regular file: remove it"));
        }
        if !is_ours(&metadata) {
            return Err(self.error(
                "it belongs to another user than the one this process runs as: have it removed",
            ));
        }
        // Whatever the process's mask, and whoever may have opened it to others since.
        make_private(&file).map_err(looked_at)?;
        Ok(file)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_or_replaced_before_it_was_locked_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFile::new(folder.path().join("lock"));
        let (file, removed, replaced) = (lock.open(), lock.open(), lock.open());
        let tried = |file: Result<File, FileError>| lock.try_lock_opened(file.unwrap());
        assert!(matches!(tried(file), Ok(Attempt::Done(_))));
        fs::remove_file(lock.path()).unwrap();
        assert!(matches!(tried(removed), Ok(Attempt::Gone)));
        let held = lock.try_lock().unwrap();
        assert!(matches!(tried(replaced), Ok(Attempt::Gone)));
        assert!(held.is_some() && lock.try_lock().unwrap().is_none());
    }
}
