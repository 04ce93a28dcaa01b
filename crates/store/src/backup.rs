//! Backups: a consistent copy of the database while the server runs, and the way back (trust S11).
//!
//! A backup is made by SQLite itself, never by copying the file. It holds no key: the audit key lies elsewhere, tokens
//! are hashes, secrets are sealed. What a restore lost is found when the folder is opened next.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{OpenError, ReadError, WriteError};
use crate::folder::{DATABASE, DataFolder, Mark};
use crate::incarnation::Incarnation;
use crate::view::View;

/// How long a backup waits for a moment in which all leaves of the record are under a checkpoint. A server makes one half a
/// second after a leaf at the latest; where leaves come faster than this is looked at, some are saved without.
const SEAL_WAIT: Duration = Duration::from_secs(30);
/// How often it looks.
const SEAL_LOOK: Duration = Duration::from_millis(5);

/// Why there is no backup or no restored folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The target is there already.
    #[error("`{}` exists already; move it away first, nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// There is nothing to save.
    #[error("there is no database in `{}`; name the data folder of a server", .0.display())]
    NoDatabase(PathBuf),
    /// A file operation failed.
    #[error("cannot {what} `{}`: {why}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The copy could not be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The backup is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder could not be entered.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Copies everything committed so far in a data folder to a new file with mode 0600, durably. A server may have the
/// folder open, and goes on; where none has, none can begin meanwhile. What a server that goes on has just written is given the
/// time to come under a checkpoint: to whoever restores it, leaves without one are by nobody.
///
/// # Errors
/// There is no database, a newer program made it, the file is there already, or it cannot be written.
pub fn backup(folder: &Path, to: &Path) -> Result<(), BackupError> {
    if !folder.join(DATABASE).is_file() {
        return Err(BackupError::NoDatabase(folder.to_owned()));
    }
    let alone = match DataFolder::enter(folder) {
        Ok(alone) => Some(alone),
        Err(OpenError::InUse { .. }) => None,
        Err(why) => return Err(why.into()),
    };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    match made {
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(to.to_owned()));
        }
        Err(why) => return Err(file("create", to, &why)),
    }
    let database = folder.join(DATABASE);
    // Without a server, a database that was closed in order has no other file, and is read as it is.
    let opened = if alone.is_some() { View::open_copy(&database) } else { View::open(&database) };
    let copied = opened.map_err(BackupError::from).and_then(|view| {
        view.check_schema()?;
        if alone.is_none() {
            wait_for_seal(&view)?;
        }
        copy(&view, to)
    });
    if copied.is_err() {
        // Half a backup must not look like one.
        let _ = fs::remove_file(to);
    }
    copied
}

fn wait_for_seal(view: &View) -> Result<(), ReadError> {
    let until = Instant::now() + SEAL_WAIT;
    let is_signed = view.audit_verifier()?.is_some();
    while is_signed && view.unsealed()? > 0 && Instant::now() < until {
        std::thread::park_timeout(SEAL_LOOK);
    }
    Ok(())
}

fn copy(view: &View, to: &Path) -> Result<(), BackupError> {
    let path = to.to_str().ok_or_else(|| BackupError::File {
        what: "name",
        path: to.to_owned(),
        why: "the path is not UTF-8".to_owned(),
    })?;
    view.conn.execute("VACUUM INTO ?1", [path]).map_err(WriteError::from)?;
    sync(to)
}

/// Puts a backup into a data folder that has no database. The next [`crate::Store::open`] gives it a new incarnation, adds the
/// leaf `restored`, and leaves it frozen until somebody accepts it.
///
/// # Errors
/// The folder is in use or has a database, or the backup is damaged or of a newer program.
pub fn restore(backup: &Path, folder: &Path) -> Result<(), BackupError> {
    let folder = DataFolder::enter(folder)?;
    match files_of(&folder.database()).into_iter().find(|file| file.exists()) {
        Some(file) => Err(BackupError::Exists(file)),
        None => put(backup, &folder),
    }
}

/// The same for a data folder that has a database, whose files are moved to `aside` in the place of whatever is there, and
/// stay. The backup is moved as well, so that none of it takes room; all three are on one disk. Where it cannot be done, both
/// databases stay where they were, and neither counts as restored. As long as the backup is where it was, it has not been done,
/// and may be repeated.
///
/// # Errors
/// The folder is in use, the backup is damaged or of a newer program, or a file cannot be moved.
pub fn restore_over(backup: &Path, folder: &Path, aside: &Path) -> Result<(), BackupError> {
    let folder = DataFolder::enter(folder)?;
    check(backup)?;
    // The database goes first: as long as it is there, nothing of it is aside, where what lies beside an earlier one is not its.
    if folder.database().exists() {
        files_of(aside).iter().try_for_each(|old| remove_if_there(old))?;
    }
    let mut moved = Vec::new();
    let places = files_of(&folder.database()).into_iter().zip(files_of(aside));
    let set_aside = places.filter(|(from, _)| from.exists()).try_for_each(|(from, to)| {
        rename(&from, &to)?;
        moved.push((from, to));
        Ok(())
    });
    // As it was, where it cannot be done: better that database than none.
    set_aside.and_then(|()| take_place(backup, &folder)).inspect_err(|_| put_back(&moved))?;
    folder.sync()?;
    sync_folder_of(backup)
}

/// Moves files back from where they were set aside. The database goes last, and never without its log: as long as it is not
/// there, what is aside is its own.
fn put_back(moved: &[(PathBuf, PathBuf)]) {
    // Whoever tries again finds what could not be moved, and sets the others aside to it.
    let _ = moved.iter().rev().try_for_each(|(from, to)| fs::rename(to, from));
}

/// A database and what SQLite keeps beside it.
fn files_of(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

fn remove_if_there(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(file("remove", path, &why)),
        _ => Ok(()),
    }
}

/// A backup that a server of this program can be started with.
fn check(backup: &Path) -> Result<(), BackupError> {
    let view = View::open_copy(backup)?;
    view.check_file()?;
    Ok(view.check_schema()?)
}

fn put(backup: &Path, folder: &DataFolder) -> Result<(), BackupError> {
    check(backup)?;
    let fresh = folder.path().join("restore.new");
    let copied = fs::copy(backup, &fresh).map_err(|why| file("copy to", &fresh, &why));
    let put = copied.and_then(|_| sync(&fresh)).and_then(|()| take_place(&fresh, folder));
    put.inspect_err(|_| {
        // Half of it would only take the room of the next try.
        let _ = fs::remove_file(&fresh);
    })?;
    Ok(folder.sync()?)
}

/// Moves a database to where there is none. Until then nothing was restored, and nothing says so but for a moment.
fn take_place(database: &Path, folder: &DataFolder) -> Result<(), BackupError> {
    let before = folder.mark()?;
    // The mark syncs the folder: after a power cut no log of another database lies beside this one.
    mark_restored(folder, before.as_ref()).and_then(|()| rename(database, &folder.database())).inspect_err(
        |_| {
            let _ = put_mark_back(folder, before.as_ref());
        },
    )
}

/// Has the restore noticed even where nothing else is known of the past: no database has this incarnation, and no other
/// restore.
fn mark_restored(folder: &DataFolder, before: Option<&Mark>) -> Result<(), BackupError> {
    let (epoch, leaves) = before.map_or((0, 0), |mark| (mark.epoch, mark.leaves));
    let incarnation = format!("before restore {}", Incarnation(crate::random()));
    let mark = Mark { incarnation, epoch, leaves };
    match folder.set_mark(&mark) {
        // The disk may be full; the reserve is there for whoever serves next.
        Err(_) if folder.release_reserve() => Ok(folder.set_mark(&mark)?),
        marked => Ok(marked?),
    }
}

fn put_mark_back(folder: &DataFolder, before: Option<&Mark>) -> Result<(), OpenError> {
    match before {
        Some(mark) => folder.set_mark(mark),
        None => folder.remove_mark(),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).map_err(|why| file("move", from, &why))
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|why| file("sync", path, &why))?;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|why| file("sync", parent, &why))
}

fn file(what: &'static str, path: &Path, why: &io::Error) -> BackupError {
    BackupError::File { what, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_put_back_after_its_log_and_not_without() {
        let place = tempfile::tempdir().unwrap();
        let [data, aside] = ["data.db", "aside.db"].map(|name| place.path().join(name));
        let moved: Vec<_> = files_of(&data).into_iter().zip(files_of(&aside)).collect();
        moved.iter().for_each(|(_, to)| fs::write(to, "its own").unwrap());
        // In the way of the log.
        fs::create_dir(&moved[1].0).unwrap();
        put_back(&moved);
        let is_back = |moved: &[(PathBuf, PathBuf)]| {
            moved.iter().map(|(from, to)| from.is_file() && !to.exists()).collect::<Vec<_>>()
        };
        assert_eq!(is_back(&moved), [false, false, true]);
        fs::remove_dir(&moved[1].0).unwrap();
        put_back(&moved[..2]);
        assert_eq!(is_back(&moved), [true; 3]);
    }
}
