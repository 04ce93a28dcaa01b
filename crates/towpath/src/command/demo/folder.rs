//! The demo's own folder: which one may be replaced, and that no two demos have it at once.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_executor::{ORPHAN_MAX, is_free_within};
use towpath_server::server::Folders;

use crate::command::file_failure;
use crate::failure::{Exit, Failure};

/// Marks a folder as a demo's, and says which process made it: no other folder is ever replaced.
const MARK: &str = "towpath-demo";
/// Where the data are.
const DATA: &str = "data";
/// How long the executor of an earlier demo may outlive its server: what it waits for the next one, and some for its jobs.
const EXECUTOR_ENDS_WITHIN: Duration = ORPHAN_MAX.saturating_add(Duration::from_secs(15));

/// A folder that this demo has alone until it is dropped.
///
/// The lock is on the folder itself: it holds while the server, which has one on its data, is started or killed.
#[derive(Debug)]
pub struct DemoFolder {
    path: PathBuf,
    _lock: File,
}

impl DemoFolder {
    /// Takes a folder, and empties it of what an earlier demo left there.
    ///
    /// # Errors
    /// `Conflict`: another demo or a server has it, or it is not a demo's. Nothing is touched then.
    pub fn take(path: &Path) -> Result<DemoFolder, Failure> {
        DemoFolder::take_within(path, EXECUTOR_ENDS_WITHIN)
    }

    fn take_within(path: &Path, patience: Duration) -> Result<DemoFolder, Failure> {
        fs::create_dir_all(path).map_err(|error| file_failure("make", path, &error))?;
        let path = path.canonicalize().map_err(|error| file_failure("use", path, &error))?;
        check_ours(&path)?;
        let lock = lock(&path)?;
        check_unserved(&path)?;
        wait_for_executor(&path, patience)?;
        empty(&path).map_err(|error| file_failure("empty", &path, &error))?;
        Ok(DemoFolder { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

fn check_ours(path: &Path) -> Result<(), Failure> {
    let mut all = fs::read_dir(path).map_err(|error| file_failure("read", path, &error))?;
    if path.join(MARK).exists() || all.next().is_none() {
        return Ok(());
    }
    Err(Failure::new(Exit::Conflict, format!("`{}` is not a demo's folder", path.display()))
        .why("it is not empty, and what is in it is not replaced")
        .hint("name another one with `--folder`"))
}

fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| file_failure("lock", path, &error);
    let handle = File::open(path).map_err(failed)?;
    match towpath_store::lock(&handle) {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => {
            let mark = fs::read_to_string(path.join(MARK)).unwrap_or_default();
            let process = mark.trim().rsplit_once(' ').map_or("", |(_, process)| process);
            Err(in_use(path).why(format!("another demo has it (process {process})")))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether nothing serves what an earlier demo left: a server that somebody started there, or one that is just ending.
fn check_unserved(path: &Path) -> Result<(), Failure> {
    let data = path.join(DATA);
    if !data.is_dir() {
        return Ok(());
    }
    towpath_store::check_free(&data).map_err(|error| in_use(path).why(error.to_string()))
}

/// Lets the executor of a demo that was killed end: its folder goes with the rest, and then a second one would not know of it.
fn wait_for_executor(path: &Path, patience: Duration) -> Result<(), Failure> {
    let executor = Folders::below(&path.join(DATA)).executor;
    match is_free_within(&executor, patience) {
        Ok(true) => Ok(()),
        Ok(false) => Err(in_use(path).why("the executor of an earlier demo still runs jobs there")),
        Err(error) => Err(file_failure("lock", &executor, &error)),
    }
}

fn in_use(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("`{}` is in use", path.display()))
        .hint("end what uses it, or name another folder with `--folder`")
}

/// Removes everything but the mark, which is there before the first of it goes: what is cut short can be repeated.
fn empty(path: &Path) -> io::Result<()> {
    fs::write(path.join(MARK), format!("made by `towpath demo` in process {}\n", std::process::id()))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            _ if entry.file_name() == MARK => {}
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    use super::*;

    fn refused(path: &Path) -> String {
        let failure = DemoFolder::take(path).expect_err("it is somebody else's");
        assert_eq!(failure.record()["error"]["exit"], 5);
        failure.to_string()
    }

    #[test]
    fn a_folder_is_one_demos_at_a_time_and_only_a_demos_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("demo");
        let first = DemoFolder::take(&path).unwrap();
        fs::write(first.path().join("token"), "twp_x").unwrap();
        let own = format!("another demo has it (process {})", std::process::id());
        assert!(refused(&path).contains(&own), "{}", refused(&path));
        assert!(first.path().join("token").exists());
        drop(first);
        let second = DemoFolder::take(&path).unwrap();
        assert!(!second.path().join("token").exists());
        drop(second);
        fs::remove_file(path.join(MARK)).unwrap();
        fs::write(path.join("mine"), "").unwrap();
        assert!(refused(&path).contains("is not a demo's folder"));
        assert!(path.join("mine").exists());
    }

    #[test]
    fn a_folder_whose_data_are_served_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let data = DemoFolder::take(base.path()).unwrap().data();
        fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        let server = File::open(&data).unwrap();
        server.try_lock().unwrap();
        assert!(refused(base.path()).contains("in use by another server"), "{}", refused(base.path()));
        assert!(data.exists());
        drop(server);
        DemoFolder::take(base.path()).unwrap();
        assert!(!data.exists());
    }

    /// A demo's folder whose executor still has its own: that one, and the lock on it.
    fn with_executor(path: &Path) -> (PathBuf, File) {
        let executor = Folders::below(&DemoFolder::take(path).unwrap().data()).executor;
        fs::create_dir_all(&executor).unwrap();
        fs::set_permissions(executor.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        let lock = File::create(executor.join("lock")).unwrap();
        lock.try_lock().unwrap();
        (executor, lock)
    }

    #[test]
    fn the_folder_of_an_executor_that_does_not_end_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let (executor, lock) = with_executor(base.path());
        let refused = DemoFolder::take_within(base.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("the executor of an earlier demo still runs jobs there"), "{refused}");
        assert!(executor.exists());
        drop(lock);
        DemoFolder::take(base.path()).unwrap();
        assert!(!executor.exists());
    }

    #[test]
    fn the_executor_of_an_earlier_demo_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let (executor, lock) = with_executor(base.path());
        let (path, asked) = (base.path().to_owned(), executor.canonicalize().unwrap().join("lock"));
        let takes = std::thread::spawn(move || DemoFolder::take(&path).map(drop));
        let opened = || {
            let files = fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            files.filter(|file| *file == asked).count()
        };
        // The other one is whoever looks whether the executor has ended.
        while opened() < 2 && !takes.is_finished() {
            std::thread::yield_now();
        }
        drop(lock);
        takes.join().unwrap().unwrap();
        assert!(!executor.exists());
    }
}
