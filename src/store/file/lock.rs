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
            let file = self.open()?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(self.failed(
                        "it cannot be locked: keep the tokens on a file system that has locks",
                        error,
                    ));
                }
            }
            let locked = Locked { file };
            // A lock on a file that nobody finds any more keeps nobody out.
            if self.is_at_its_place(&locked.file)? {
                return Ok(Some(locked));
            }
        }
        Ok(None)
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

    fn is_at_its_place(&self, file: &File) -> Result<bool, FileError> {
        let looked_at = |error| self.failed("it cannot be looked at", error);
        let ours = file.metadata().map_err(looked_at)?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok(identity(&there) == identity(&ours)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(looked_at(error)),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    // A lock that is held on such a file keeps nobody out.
    #[test]
    fn a_file_that_was_removed_or_replaced_is_not_at_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFile::new(folder.path().join("lock"));
        let file = lock.open().unwrap();
        assert!(lock.is_at_its_place(&file).unwrap());
        fs::rename(lock.path(), folder.path().join("elsewhere")).unwrap();
        assert!(!lock.is_at_its_place(&file).unwrap());
        let other = lock.open().unwrap();
        assert!(!lock.is_at_its_place(&file).unwrap());
        assert!(lock.is_at_its_place(&other).unwrap());
    }
}
