//! What was last written into the token file, noted beside it: so that an older copy, or the file of
//! another session, is told from the record that belongs there.
//!
//! The note is one line of fixed width in the file that writers lock, and is written over in place.
//! A line that is not whole, as a crash may leave it, counts as none.

use std::fs::File;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::io::Read;
use std::path::PathBuf;

use super::disk::FileError;
use super::disk::is_ours;
use super::disk::open;
use super::lock::LockFile;
use super::lock::Locked;

/// A reader that meets a line which is just being written reads it again so many times.
const TRIES: usize = 4;

/// `id version epoch check`, and a line's end.
const LINE: usize = 16 + 1 + 20 + 1 + 20 + 1 + 16 + 1;

/// What is known of a record: whose it is, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) version: u64,
    pub(super) epoch: u64,
}

impl Mark {
    fn to_line(self) -> String {
        let Self { id, version, epoch } = self;
        let text = format!("{id:016x} {version:020} {epoch:020}");
        let check = checksum(text.as_bytes());
        format!("{text} {check:016x}\n")
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(line).ok()?.split([' ', '\n']);
        let mark = Self {
            id: u64::from_str_radix(fields.next()?, 16).ok()?,
            version: fields.next()?.parse().ok()?,
            epoch: fields.next()?.parse().ok()?,
        };
        // Only the very line that would be written is one.
        (mark.to_line().as_bytes() == line).then_some(mark)
    }
}

/// FNV-1a. It is there for lines that are half old and half new, and not against anybody.
fn checksum(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A number for a record that has none yet.
pub(super) fn new_id() -> u64 {
    RandomState::new().hash_one(())
}

/// Where the line is, or will be.
#[derive(Debug)]
pub(super) struct Witness {
    file: LockFile,
}

impl Witness {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            file: LockFile::new(path),
        }
    }

    pub(super) fn file(&self) -> &LockFile {
        &self.file
    }

    /// `None` where there is none that can be read.
    pub(super) fn read(&self) -> Option<Mark> {
        (0..TRIES).find_map(|_| {
            let file = open(self.file.path()).ok()?;
            let metadata = file.metadata().ok()?;
            if !metadata.is_file() || !is_ours(&metadata) {
                return None;
            }
            let mut line = Vec::with_capacity(LINE + 1);
            file.take(LINE as u64 + 1).read_to_end(&mut line).ok()?;
            Mark::parse(&line)
        })
    }

    /// `None` while somebody else writes.
    pub(super) fn try_lock(&self) -> Result<Option<Locked>, FileError> {
        let locked = self.file.try_lock()?;
        let size = match &locked {
            Some(locked) => locked.file.metadata().map_or(0, |metadata| metadata.len()),
            None => 0,
        };
        // A crash leaves less than a line, never more.
        if size > LINE as u64 {
            return Err(self.file.error(
                "it is not as this crate writes it: move it away, or give the token file another \
                 name",
            ));
        }
        Ok(locked)
    }

    pub(super) fn write(&self, locked: &Locked, mark: Mark) -> io::Result<()> {
        write_at_start(&locked.file, mark.to_line().as_bytes())
    }
}

#[cfg(unix)]
fn write_at_start(file: &File, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    file.write_all_at(text, 0)
}

#[cfg(not(unix))]
fn write_at_start(mut file: &File, text: &[u8]) -> io::Result<()> {
    use std::io::Seek;
    use std::io::Write;

    file.rewind()?;
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: u64, version: u64, epoch: u64) -> Mark {
        Mark { id, version, epoch }
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_always_as_long() {
        for mark in [
            mark(0, 0, 0),
            mark(u64::MAX, u64::MAX, u64::MAX),
            mark(new_id(), 17, 3),
        ] {
            let line = mark.to_line();
            assert_eq!(
                (line.len(), Mark::parse(line.as_bytes())),
                (LINE, Some(mark))
            );
        }
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn a_line_that_is_half_of_another_or_not_whole_is_none() {
        let old = mark(7, 99, 8).to_line();
        let new = mark(7, 100, 8).to_line();
        let differs = |at: &usize| new[..*at] != old[..*at] && new[*at..] != old[*at..];
        for at in (1..LINE).filter(differs) {
            let mixed = format!("{}{}", &new[..at], &old[at..]);
            assert_eq!(Mark::parse(mixed.as_bytes()), None, "{mixed}");
        }
        for at in 0..LINE {
            assert_eq!(Mark::parse(&new.as_bytes()[..at]), None);
        }
        let longer = format!("{new} ");
        for text in [longer.as_bytes(), b"\xff\n", &[0; LINE]] {
            assert_eq!(Mark::parse(text), None);
        }
    }
}
