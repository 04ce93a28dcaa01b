//! The folder of one local run: the copied tree, logs and outputs. Gone when the run ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::file_failure;
use crate::failure::{Exit, Failure};

/// Name of the file whose lock says that a run is alive. The system lets go of it when the process dies.
const LOCK: &str = "lock";
const PREFIX: &str = "run-";

/// A folder for one run, nobody else's to read. Removed when dropped; what a killed run left goes with the next one.
#[derive(Debug)]
pub struct RunFolder {
    folder: TempDir,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder in the user's cache.
    pub fn make() -> Result<RunFolder, Failure> {
        let cache = cache_folder().ok_or_else(|| {
            Failure::new(Exit::Usage, "there is no folder for the files of a run")
                .why("neither XDG_CACHE_HOME nor HOME is set")
                .hint("set XDG_CACHE_HOME to a folder of yours")
        })?;
        let failed = |error: io::Error| file_failure("use", &cache, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&cache).map_err(failed)?;
        // Held until the new folder has a lock of its own, so that nobody takes it for one that was left.
        let guard = open_lock(&cache).map_err(failed)?;
        guard.lock().map_err(failed)?;
        sweep(&cache).map_err(failed)?;
        let only_ours = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(only_ours)
            .tempdir_in(&cache)
            .map_err(failed)?;
        let lock = open_lock(folder.path()).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(RunFolder { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("towpath"))
}

fn open_lock(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))
}

/// Removes what killed runs left.
fn sweep(cache: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(cache)? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !is_ours || !path.is_dir() {
            continue;
        }
        let left = match open_lock(&path)?.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        if left {
            // One that does not go keeps nobody from a run of their own, and goes with a later one.
            let _ = towpath_executor::remove_tree(&path);
        }
    }
    Ok(())
}
