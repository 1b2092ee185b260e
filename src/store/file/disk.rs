//! How the file is read and replaced: what is checked before, and what is left behind after a
//! failure (nothing).

use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::store::document::Defect;
use crate::store::document::LIMIT;

/// The random letters at the end of a temporary file's name.
const RANDOM: usize = 8;

/// A temporary file of this age belongs to a process that was killed: writing one takes
/// milliseconds.
const STALE: Duration = Duration::from_secs(60);

/// Why the file could not be read or written: which file, what is wrong, and what to do. What the
/// system said is the source.
#[derive(Debug)]
pub(super) struct FileError {
    path: PathBuf,
    what: Cow<'static, str>,
    source: Option<io::Error>,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl FileError {
    pub(super) fn new(path: &Path, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn because(self, source: io::Error) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

/// Where the file is, or will be.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
}

/// A file as it was read.
pub(super) struct Contents {
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) modified: SystemTime,
    pub(super) signature: Signature,
    /// Others than its owner may read it.
    pub(super) is_public: bool,
    /// Its owner has taken the right to write it from himself.
    pub(super) is_protected: bool,
    /// There are hard links to it.
    pub(super) has_other_names: bool,
}

/// What a file looks like from outside: a text that is replaced looks otherwise, as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    file: (u64, u64),
    modified: Option<SystemTime>,
    size: u64,
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: identity(metadata),
            modified: metadata.modified().ok(),
            size: metadata.len(),
        }
    }
}

impl Place {
    /// A relative path is meant from where the process stands now. Whether the path can be used is
    /// said at the first use.
    pub(super) fn new(path: PathBuf) -> Self {
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file beside it.
    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    /// `None` where nothing is there.
    pub(super) fn signature(&self) -> Option<Signature> {
        let metadata = fs::symlink_metadata(&self.path).ok()?;
        Some(Signature::of(&metadata))
    }

    /// `None` where the file is missing, while its folder is there.
    pub(super) fn read(&self) -> Result<Option<Contents>, FileError> {
        let (folder, _) = self.parts()?;
        let file = match open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return match fs::metadata(folder) {
                    Ok(_) => Ok(None),
                    Err(error) => Err(self.failed("its folder is missing: create it", error)),
                };
            }
            Err(error) if is_symlink(&self.path) => {
                return Err(self.failed(
                    "it is a symbolic link, which is not followed: name the file itself",
                    error,
                ));
            }
            Err(error) => return Err(self.failed("it cannot be opened", error)),
        };
        let metadata = file
            .metadata()
            .map_err(|error| self.failed("it cannot be looked at", error))?;
        self.check(&metadata)?;
        let modified = metadata
            .modified()
            .map_err(|error| self.failed("its time of modification is unknown", error))?;
        Ok(Some(Contents {
            text: self.read_to_end(file, &metadata)?,
            modified,
            signature: Signature::of(&metadata),
            is_public: is_public(&metadata),
            is_protected: metadata.permissions().readonly(),
            has_other_names: has_other_names(&metadata),
        }))
    }

    /// Puts a new file into its place, whole or not at all.
    ///
    /// After an error the old file is as it was, with one exception: when the folder could not be
    /// written down, the new one is in place and may be lost if the machine fails now.
    pub(super) fn replace(&self, text: &[u8]) -> Result<Option<Signature>, FileError> {
        self.replace_and(text, File::sync_all)
    }

    /// The same, with what makes a file or a folder last: a test can count it, and have it fail.
    fn replace_and(
        &self,
        text: &[u8],
        sync: impl Fn(&File) -> io::Result<()>,
    ) -> Result<Option<Signature>, FileError> {
        let (folder, name) = self.parts()?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".tmp-");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(RANDOM)
            .tempfile_in(folder)
            .map_err(|error| self.failed("no file can be written in its folder", error))?;
        let file = fill(file, text, &sync).map_err(|error| {
            self.failed(
                "its new text cannot be written, so the old one stays",
                error,
            )
        })?;
        let file = file
            .persist(&self.path)
            .map_err(|error| self.failed("it cannot be replaced by its new text", error.error))?;
        sweep(folder, &prefix);
        sync_folder(folder, &sync).map_err(|error| {
            self.failed(
                "its new text is in place, and its folder cannot be synced: it may be lost if the \
                 machine fails now",
                error,
            )
        })?;
        Ok(file.metadata().ok().as_ref().map(Signature::of))
    }

    pub(super) fn defect(&self, defect: Defect) -> FileError {
        self.error(defect.into_text())
    }

    pub(super) fn error(&self, what: impl Into<Cow<'static, str>>) -> FileError {
        FileError::new(&self.path, what)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> FileError {
        self.error(what).because(source)
    }

    /// The folder and the name in it.
    pub(super) fn parts(&self) -> Result<(&Path, &OsStr), FileError> {
        match (self.path.parent(), self.path.file_name()) {
            (Some(folder), Some(name)) => Ok((folder, name)),
            _ => Err(self.error("this path names no file: give the path of one")),
        }
    }

    fn check(&self, metadata: &Metadata) -> Result<(), FileError> {
        if !metadata.is_file() {
            let what = match metadata.is_dir() {
                true => "it is a folder: name a file in it",
                false => "it is no regular file: name one",
            };
            return Err(self.error(what));
        }
        if !is_ours(metadata) {
            return Err(self.error(
                "it belongs to another user than the one this process runs as: make a copy of \
                 your own",
            ));
        }
        if metadata.len() > LIMIT as u64 {
            return Err(self.error(format!(
                "it is larger than {LIMIT} bytes: that is no token file"
            )));
        }
        Ok(())
    }

    /// The buffer has its size before the first byte: so it never grows, and leaves no copy behind.
    fn read_to_end(
        &self,
        mut file: File,
        metadata: &Metadata,
    ) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let size = usize::try_from(metadata.len()).unwrap_or(LIMIT).min(LIMIT);
        let mut text = Zeroizing::new(vec![0; size + 1]);
        let mut filled = 0;
        while filled < text.len() {
            match file.read(&mut text[filled..]) {
                Ok(0) => {
                    text.truncate(filled);
                    return Ok(text);
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("it cannot be read", error)),
            }
        }
        Err(self.error("it grew while it was read: try again when it is written"))
    }
}

/// Only the owner may read the new file, whatever the process's mask.
fn fill(
    mut file: NamedTempFile,
    text: &[u8],
    sync: impl Fn(&File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    make_private(file.as_file())?;
    file.write_all(text)?;
    sync(file.as_file())?;
    Ok(file)
}

/// Removes what processes that were killed have left. That is never worth an error.
fn sweep(folder: &Path, prefix: &OsStr) {
    let is_temporary = |name: &OsStr| {
        let random = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes());
        random.is_some_and(|random| {
            random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
        })
    };
    let is_stale = |metadata: Metadata| {
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        metadata.is_file() && age.is_some_and(|age| age > STALE)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // The entry's metadata is that of a link, not of where it leads to.
        if is_temporary(&entry.file_name()) && entry.metadata().is_ok_and(is_stale) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub(super) fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Follows no link and waits for nobody at the other end of a pipe.
#[cfg(unix)]
pub(super) fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;

    open_with(path, OFlags::RDONLY)
}

/// The same for reading and writing, and there is one afterwards.
#[cfg(unix)]
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;

    open_with(path, OFlags::RDWR | OFlags::CREATE)
}

#[cfg(unix)]
fn open_with(path: &Path, flags: rustix::fs::OFlags) -> io::Result<File> {
    use rustix::fs::Mode;
    use rustix::fs::OFlags;

    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

#[cfg(not(unix))]
pub(super) fn open(path: &Path) -> io::Result<File> {
    if is_symlink(path) {
        return Err(ErrorKind::InvalidInput.into());
    }
    File::open(path)
}

#[cfg(not(unix))]
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    if is_symlink(path) {
        return Err(ErrorKind::InvalidInput.into());
    }
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// What no other file has as long as this one exists.
#[cfg(unix)]
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;

    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(super) fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(unix)]
pub(super) fn is_ours(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;

    metadata.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
pub(super) fn is_ours(_: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn has_other_names(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;

    metadata.nlink() > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
fn is_public(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;

    metadata.mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_public(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
pub(super) fn make_private(file: &File) -> io::Result<()> {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    file.set_permissions(Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(super) fn make_private(_: &File) -> io::Result<()> {
    Ok(())
}

/// Makes the new name last. Not every file system can, and not every folder may be read: then it
/// is for the system to do so.
#[cfg(unix)]
fn sync_folder(folder: &Path, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| sync(&folder));
    match synced {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::PermissionDenied | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path, _: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A file with an old text in a folder of its own.
    fn place() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path().join("session.json"));
        fs::write(place.path(), "old").unwrap();
        (folder, place)
    }

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    // shows S15: the new text lasts before it has the name, and then the name does.
    #[test]
    fn the_new_text_is_synced_before_it_is_in_place_and_its_folder_afterwards() {
        let (folder, place) = place();
        let synced = RefCell::new(Vec::new());
        let note = |file: &File| {
            let metadata = file.metadata()?;
            let in_place = fs::read_to_string(place.path())?;
            synced.borrow_mut().push((
                metadata.is_dir(),
                identity(&metadata),
                metadata.len(),
                in_place,
            ));
            file.sync_all()
        };
        place.replace_and(b"a new text", note).unwrap();
        let (file, folder) = (fs::metadata(place.path()), fs::metadata(folder.path()));
        let (file, folder) = (file.unwrap(), folder.unwrap());
        let expected = [
            (false, identity(&file), 10, "old".to_owned()),
            (
                true,
                identity(&folder),
                folder.len(),
                "a new text".to_owned(),
            ),
        ];
        assert_eq!(synced.into_inner(), expected);
    }

    // shows S15: what does not last does not come into place.
    #[test]
    fn a_text_that_cannot_be_synced_leaves_the_old_one_and_nothing_beside_it() {
        let (folder, place) = place();
        let fails = |_: &File| Err(io::Error::other("no room"));
        let error = place.replace_and(b"a new text", fails).err().unwrap();
        assert!(
            error.to_string().ends_with("so the old one stays"),
            "{error}"
        );
        assert_eq!(fs::read(place.path()).unwrap(), b"old");
        assert_eq!(files_in(folder.path()), 1);
    }

    // shows S15: a folder that cannot be synced is told, unless no folder there ever can.
    #[test]
    fn a_folder_that_cannot_be_synced_is_an_error_where_others_can() {
        for (kind, is_told) in [
            (ErrorKind::Other, true),
            (ErrorKind::InvalidInput, false),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::Unsupported, false),
        ] {
            let (folder, place) = place();
            let fails = |file: &File| match file.metadata()?.is_dir() {
                true => Err(kind.into()),
                false => Ok(()),
            };
            let replaced = place.replace_and(b"a new text", fails);
            assert_eq!(replaced.is_err(), is_told, "{kind}");
            assert_eq!(fs::read(place.path()).unwrap(), b"a new text");
            assert_eq!(files_in(folder.path()), 1);
        }
    }
}
