//! Room that stays free for the server on a disk that jobs write to.
//!
//! Whatever a job makes somebody write (its work tree, its inputs, its log, its outputs) asks here, and ends where it would
//! take the reserve. What the server writes itself does not ask.

use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes that jobs leave to the server, so that its record and its shutdown work. Source: trust 6.3 asks 64 MB.
pub const RESERVE_BYTES: u64 = 512 * 1024 * 1024;
/// Files that jobs leave to the server.
pub const RESERVE_FILES: u64 = 10_000;
/// Of a small disk jobs leave one part in so many instead.
const SMALL_DISK_SHARE: u64 = 8;
/// Bytes written between two looks at the disk: every slot may be as far over.
const LOOK_BYTES: u64 = 1024 * 1024;

/// The reserve on the file system of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    folder: PathBuf,
    kept: Amount,
}

/// A disk has no room for jobs. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine's disk is nearly full: {folder} has {free} left, and {kept} stay free for the server; make room there, \
     then run the job again", folder = folder.display()
)]
pub struct NoRoom {
    folder: PathBuf,
    free: Amount,
    kept: Amount,
}

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB and {} files", self.bytes >> 20, self.files)
    }
}

impl NoRoom {
    /// Whether bytes are lacking.
    pub fn lacks_bytes(&self) -> bool {
        self.free.bytes <= self.kept.bytes
    }

    /// Hundredths of the reserve that are left, of bytes or of files: whichever is less.
    pub fn left_percent(&self) -> u64 {
        let percent = |free: u64, kept: u64| {
            let percent = u128::from(free) * 100 / u128::from(kept.max(1));
            u64::try_from(percent.min(100)).unwrap_or(100)
        };
        let files = if self.kept.files == 0 { 100 } else { percent(self.free.files, self.kept.files) };
        percent(self.free.bytes, self.kept.bytes).min(files)
    }
}

impl Reserve {
    /// The reserve on the disk of a folder that is there.
    pub fn of(folder: &Path) -> Reserve {
        let (bytes, files) = rustix::fs::statvfs(folder).map_or((u64::MAX, u64::MAX), |disk| {
            (disk.f_blocks.saturating_mul(disk.f_frsize) / SMALL_DISK_SHARE, disk.f_files / SMALL_DISK_SHARE)
        });
        let kept = Amount { bytes: RESERVE_BYTES.min(bytes), files: RESERVE_FILES.min(files) };
        Reserve { folder: folder.to_owned(), kept }
    }

    /// One of so many bytes, whatever the disk's size.
    pub fn of_bytes(folder: &Path, bytes: u64) -> Reserve {
        Reserve { folder: folder.to_owned(), kept: Amount { bytes, files: 0 } }
    }

    /// What jobs may write. A file system that does not say how full it is bounds nothing.
    ///
    /// # Errors
    /// [`NoRoom`] where not a single byte is left, or less than the files that are kept.
    pub fn room(&self) -> Result<Amount, NoRoom> {
        self.room_for(1, 0)
    }

    /// The same for whoever is to write so many bytes in so many files.
    ///
    /// # Errors
    /// [`NoRoom`] where fewer are left.
    pub fn room_for(&self, bytes: u64, files: u64) -> Result<Amount, NoRoom> {
        let unbounded = Amount { bytes: u64::MAX, files: u64::MAX };
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(unbounded) };
        let free = Amount { bytes: disk.f_bavail.saturating_mul(disk.f_frsize), files: disk.f_favail };
        // Where files are made of any free block, there is no number of them.
        let left = if disk.f_files == 0 { Some(u64::MAX) } else { free.files.checked_sub(self.kept.files) };
        match (free.bytes.checked_sub(self.kept.bytes), left) {
            (Some(room), Some(left)) if room >= bytes && left >= files => {
                Ok(Amount { bytes: room, files: left })
            }
            _ => Err(NoRoom { folder: self.folder.clone(), free, kept: self.kept }),
        }
    }

    /// Room that is no little: as much as is kept.
    pub fn ample(&self) -> Amount {
        self.kept
    }

    /// Whether room is no little.
    pub fn is_ample(&self, room: Amount) -> bool {
        room.bytes >= self.kept.bytes && room.files >= self.kept.files
    }

    /// Begins something that grows.
    pub fn spending(&self) -> Spending {
        Spending { reserve: self.clone(), unasked: 0 }
    }
}

/// Something that grows on a disk, and looks at the reserve as it does.
#[derive(Debug)]
pub struct Spending {
    reserve: Reserve,
    /// Bytes that may be written before the next look.
    unasked: u64,
}

impl Spending {
    /// Whether there is ample room.
    pub(crate) fn is_ample(&self) -> bool {
        self.reserve.room().is_ok_and(|room| self.reserve.is_ample(room))
    }

    /// Bytes of room.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.reserve.room().map_or(0, |room| room.bytes)
    }

    /// Asks before so many bytes are written.
    ///
    /// # Errors
    /// [`NoRoom`]: they are not to be written.
    pub fn spend(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if bytes > self.unasked {
            self.reserve.room()?;
            self.unasked = LOOK_BYTES.max(bytes);
        }
        self.unasked -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_says_where_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Reserve::of_bytes(folder.path(), 0).room().unwrap().bytes > 0);
        let said = Reserve::of_bytes(folder.path(), u64::MAX).room().unwrap_err().to_string();
        assert!(said.contains(&format!("{} has ", folder.path().display())), "{said}");
        assert!(
            said.ends_with("stay free for the server; make room there, then run the job again"),
            "{said}"
        );
        assert!(Reserve::of(Path::new("/nowhere/at/all")).room().is_ok());
    }

    #[test]
    fn there_is_room_for_as_much_as_is_left_and_for_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of_bytes(folder.path(), 0);
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        let (bytes, files) = (disk.f_blocks * disk.f_frsize, disk.f_files);
        assert!(reserve.room_for(1, 1).is_ok());
        assert!(reserve.room_for(bytes + 1, 0).is_err());
        assert_eq!(reserve.room_for(1, files + 1).is_err(), files > 0);
    }

    #[test]
    fn of_a_small_disk_an_eighth_is_kept() {
        let disk = rustix::fs::statvfs("/tmp").unwrap();
        let eighth = disk.f_blocks * disk.f_frsize / 8;
        assert_eq!(Reserve::of(Path::new("/tmp")).kept.bytes, RESERVE_BYTES.min(eighth));
    }
}
