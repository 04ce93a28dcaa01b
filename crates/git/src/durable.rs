//! Asking the disk to keep what was written. Every such question is asked here, so that no "no" is missed: whoever listens
//! hears of it ([`GitOptions::unsynced`](crate::GitOptions)), whatever the caller makes of the error.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use crate::environment::Git;
use crate::error::GitError;

/// Hears of each write that the disk did not confirm, in words, on the thread that asked for it. By default nobody does.
///
/// The kernel reports it once (trust S9): who asks again is told that all is well.
#[derive(Clone, Default)]
pub struct UnsyncedListener(Option<Arc<Hear>>);

type Hear = dyn Fn(&str) + Send + Sync;

impl UnsyncedListener {
    /// Calls `hear` for each.
    pub fn new(hear: impl Fn(&str) + Send + Sync + 'static) -> UnsyncedListener {
        UnsyncedListener(Some(Arc::new(hear)))
    }
}

impl fmt::Debug for UnsyncedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnsyncedListener").field(&self.0.is_some()).finish()
    }
}

impl Git {
    /// Makes a file's content durable, or a folder's entries. What cannot be opened is no "no" of the disk: a process has
    /// too many files open, say, and nothing was asked yet.
    pub(crate) fn sync(&self, path: &Path) -> Result<(), GitError> {
        let open = File::open(path).map_err(GitError::io("open", path))?;
        self.confirmed(path, open.sync_all())
    }

    /// The same for what another process may have taken away meanwhile.
    pub(crate) fn sync_if_there(&self, path: &Path) -> Result<(), GitError> {
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            open => self.confirmed(path, open.map_err(GitError::io("open", path))?.sync_all()),
        }
    }

    /// Makes the whole file system of a folder durable.
    pub(crate) fn sync_file_system(&self, folder: &Path) -> Result<(), GitError> {
        let open = File::open(folder).map_err(GitError::io("open", folder))?;
        self.confirmed(folder, rustix::fs::syncfs(open).map_err(io::Error::from))
    }

    /// Writes a file, durably but for its name.
    pub(crate) fn write_synced(&self, path: &Path, text: impl AsRef<[u8]>) -> Result<(), GitError> {
        let mut file = File::create(path).map_err(GitError::io("write", path))?;
        file.write_all(text.as_ref()).map_err(GitError::io("write", path))?;
        self.confirmed(path, file.sync_all())
    }

    fn confirmed(&self, path: &Path, synced: io::Result<()>) -> Result<(), GitError> {
        let Err(source) = synced else { return Ok(()) };
        let error = GitError::NotDurable { path: path.to_owned(), source };
        if let UnsyncedListener(Some(hear)) = self.unsynced() {
            hear(&error.to_string());
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::environment::GitOptions;

    #[test]
    fn whoever_asks_the_listener_hears_of_what_is_not_confirmed_and_of_nothing_else() {
        let (folder, heard) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let hears = heard.clone();
        let unsynced = UnsyncedListener::new(move |why| hears.lock().unwrap().push(why.to_owned()));
        let git = Git::find(GitOptions { unsynced, ..GitOptions::default() }).unwrap();
        git.sync(folder.path()).unwrap();
        git.sync_if_there(&folder.path().join("gone")).unwrap();
        git.sync_file_system(folder.path()).unwrap();
        git.write_synced(&folder.path().join("file"), "text").unwrap();
        assert!(git.write_synced(&folder.path().join("no/file"), "text").is_err(), "nothing was written");
        let gone = folder.path().join("gone");
        for unasked in [git.sync(&gone), git.sync_file_system(&gone)] {
            assert!(matches!(unasked, Err(GitError::Io { .. })), "{unasked:?}");
        }
        assert!(heard.lock().unwrap().is_empty(), "{heard:?}");

        // Neither confirms anything.
        let (disk, file) = (Path::new("/proc/sys"), Path::new("/dev/null"));
        let unsynced = [git.sync(disk), git.sync_if_there(disk), git.write_synced(file, "text")];
        let told = unsynced.map(|result| match result.unwrap_err() {
            error @ GitError::NotDurable { .. } => error.to_string(),
            error => panic!("{error}"),
        });
        assert_eq!(*heard.lock().unwrap(), told);
    }
}
