//! The data folder: who may enter, who is inside, and what is kept beside the database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::OpenError;

/// The database's file.
pub const DATABASE: &str = "towpath.db";
const HOLDER: &str = "server.pid";
const MARK: &str = "high-water.json";
const RESERVE: &str = "reserve";

/// Bytes kept free for audit and shutdown on a full disk. Source: invariant I15.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// A data folder that this process holds alone, until it is dropped.
///
/// The lock is an advisory lock on the folder itself: a symbolic link, another mount of it or another pid namespace
/// leads to the same one, no file can be deleted to get around it, and no child inherits it (close-on-exec).
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    handle: File,
}

/// What is known outside the database about how far it was: a database behind it was rolled back (trust T9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// In hex.
    pub incarnation: String,
    pub epoch: u64,
    pub leaves: u64,
}

/// Milliseconds for which a lock that somebody holds is asked for again. A process that a dead server was just starting
/// holds it until it has become another program; a server holds it for longer.
const LOCK_MS_MAX: u64 = 500;
/// Milliseconds between two questions.
const LOCK_MS_EACH: u64 = 5;

/// Locks a folder for this process, until its handle is closed.
///
/// # Errors
/// `WouldBlock`: another process has it, and not only while it is starting.
pub fn lock(handle: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + Duration::from_millis(LOCK_MS_MAX);
    loop {
        match handle.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::park_timeout(Duration::from_millis(LOCK_MS_EACH));
            }
            locked => return locked,
        }
    }
}

/// Whether a server could open a data folder now, for one that would fail before it comes to that.
///
/// # Errors
/// Another one has it, or others may read it.
pub fn check_free(folder: &Path) -> Result<(), OpenError> {
    DataFolder::enter(folder).map(drop)
}

impl DataFolder {
    /// Makes the folder if there is none, and locks it.
    pub fn enter(path: &Path) -> Result<DataFolder, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|why| file_error("create", path, &why))?;
        let real = path.canonicalize().map_err(|why| file_error("open", path, &why))?;
        let handle = File::open(&real).map_err(|why| file_error("open", path, &why))?;
        let metadata = handle.metadata().map_err(|why| file_error("read", path, &why))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(OpenError::Permissions { folder: path.to_owned(), mode });
        }
        hold(&handle, &real, ("data folder", path))?;
        Ok(DataFolder { path: real, handle })
    }

    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The folder's real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was noted outside the database, if anything was.
    pub fn mark(&self) -> Result<Option<Mark>, OpenError> {
        let path = self.path.join(MARK);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(file_error("read", &path, &why)),
        };
        let mark = serde_json::from_slice(&text);
        mark.map(Some).map_err(|why| OpenError::File { what: "understand", path, why: why.to_string() })
    }

    /// Notes durably how far the database is. Called only for what is durable there already.
    pub fn set_mark(&self, mark: &Mark) -> Result<(), OpenError> {
        let text = serde_json::to_vec(mark).expect("invariant: a mark is plain data");
        self.replace(MARK, &text)
    }

    /// Notes nothing any more.
    pub fn remove_mark(&self) -> Result<(), OpenError> {
        let path = self.path.join(MARK);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(file_error("remove", &path, &why)),
            _ => self.sync(),
        }
    }

    /// Lets the reserve grow to `bytes`, or leaves it as it was.
    pub fn fill_reserve(&self, bytes: u64) -> Result<(), OpenError> {
        let path = self.path.join(RESERVE);
        grow(&path, bytes).map_err(|why| file_error("reserve space in", &path, &why))
    }

    /// Gives the reserve back to the disk but for `bytes`.
    pub fn shrink_reserve(&self, bytes: u64) {
        let file = OpenOptions::new().write(true).open(self.path.join(RESERVE));
        if let Ok(file) = file
            && file.metadata().is_ok_and(|metadata| metadata.len() > bytes)
        {
            // Cutting a file off needs no room; should it fail all the same, the next write says that the disk is full.
            let _ = file.set_len(bytes);
        }
    }

    /// Gives all of the reserve back to the disk; says whether there was any.
    pub fn release_reserve(&self) -> bool {
        fs::remove_file(self.path.join(RESERVE)).is_ok()
    }

    /// Makes the names in the folder durable.
    pub fn sync(&self) -> Result<(), OpenError> {
        self.handle.sync_all().map_err(|why| file_error("sync", &self.path, &why))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
        let path = self.path.join(name);
        replace_file(&path, bytes).map_err(|why| file_error("write", &path, &why))?;
        self.sync()
    }
}

/// Locks a folder, and says in it who has it. `what` it is, and as what it was named, is for whoever is refused.
///
/// # Errors
/// Another process has it.
pub(crate) fn hold(
    handle: &File,
    real: &Path,
    (what, named): (&'static str, &Path),
) -> Result<(), OpenError> {
    match lock(handle) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { what, folder: named.to_owned(), holder: holder(real) });
        }
        Err(TryLockError::Error(why)) => return Err(file_error("lock", named, &why)),
    }
    // Only for the message that a second server prints, so a full disk is no reason to stay out.
    let _ = replace_file(&real.join(HOLDER), format!("{}\n", std::process::id()).as_bytes());
    Ok(())
}

/// Replaces a small file as a whole, with mode 0600, durably but for its name.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

/// Appends zeros up to a length; what did not fit is taken back.
fn grow(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    if before >= bytes {
        return Ok(());
    }
    // Without the sync, blocks that were allocated late may turn out to be missing later.
    let grown = append_zeros(&mut file, bytes - before).and_then(|()| file.sync_data());
    if grown.is_err() {
        file.set_len(before)?;
    }
    grown
}

fn append_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    const BLOCK: usize = 1 << 20;
    let block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK as u64);
        file.write_all(&block[..part as usize])?;
        left -= part;
    }
    Ok(())
}

fn holder(folder: &Path) -> String {
    match fs::read_to_string(folder.join(HOLDER)) {
        Ok(pid) => format!("another server (process {})", pid.trim()),
        Err(_) => "another server".to_owned(),
    }
}

pub(crate) fn file_error(what: &'static str, path: &Path, why: &io::Error) -> OpenError {
    OpenError::File { what, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h11_a_second_entry_is_refused_also_through_a_link() {
        let base = tempfile::tempdir().unwrap();
        let (path, link) = (base.path().join("data"), base.path().join("link"));
        let first = DataFolder::enter(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [&path, &link] {
            let error = DataFolder::enter(other).unwrap_err();
            assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        }
        drop(first);
        DataFolder::enter(&link).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_read_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(DataFolder::enter(base.path()), Err(OpenError::Permissions { mode: 0o755, .. })));
    }

    #[test]
    fn the_mark_is_read_back() {
        let base = tempfile::tempdir().unwrap();
        let folder = DataFolder::enter(&base.path().join("data")).unwrap();
        assert_eq!(folder.mark().unwrap(), None);
        let mark = Mark { incarnation: "ab".into(), epoch: 3, leaves: 9 };
        folder.set_mark(&mark).unwrap();
        assert_eq!(folder.mark().unwrap(), Some(mark));
    }

    #[test]
    fn the_reserve_is_made_and_given_back() {
        let base = tempfile::tempdir().unwrap();
        let folder = DataFolder::enter(&base.path().join("data")).unwrap();
        let bytes = || fs::metadata(folder.path().join(RESERVE)).unwrap().len();
        folder.fill_reserve(3 << 19).unwrap();
        assert_eq!(bytes(), 3 << 19);
        folder.shrink_reserve(1 << 10);
        folder.shrink_reserve(1 << 12);
        assert_eq!(bytes(), 1 << 10);
        folder.fill_reserve(3 << 19).unwrap();
        assert_eq!(bytes(), 3 << 19);
        assert!(folder.release_reserve());
        assert!(!folder.release_reserve());
    }
}
