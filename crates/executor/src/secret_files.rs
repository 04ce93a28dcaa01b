//! The files with the secrets of a job without a sandbox: in memory, for nobody else, and gone with the job (trust T4).
//!
//! A sandboxed job has them on the tmpfs of its launcher, which vanishes with the launcher. Here they lie on a tmpfs of the
//! machine's, and what an executor that was killed has left there is removed by the next one with its spool.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::spec::StartSpec;
use crate::walk::remove_tree;

/// A tmpfs that every user may write to: the C library needs it for `shm_open` (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// A folder with the secrets of one job. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct SecretFiles {
    folder: PathBuf,
}

impl SecretFiles {
    /// Writes a job's secrets that are files; `None` if it has none.
    ///
    /// # Errors
    /// There is no tmpfs for them, or it is full. A disk is never used instead.
    pub(crate) fn write(spool: &Path, spec: &StartSpec) -> io::Result<Option<SecretFiles>> {
        let secrets = || spec.secrets.iter().filter(|secret| secret.variable.is_none());
        if secrets().next().is_none() {
            return Ok(None);
        }
        if rustix::fs::statfs(MEMORY)?.f_type != libc::TMPFS_MAGIC {
            return Err(io::Error::other(format!("{MEMORY} is no tmpfs: mount one there")));
        }
        let folder = Path::new(MEMORY).join(format!("{}{}", prefix(spool)?, spec.lease));
        // Fails if somebody else has put something there.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let files = SecretFiles { folder };
        for secret in secrets() {
            let path = files.folder.join(&secret.name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&secret.value)?;
        }
        Ok(Some(files))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what an executor with this spool left.
    ///
    /// # Errors
    /// As reading the spool has them. What cannot be removed is said.
    pub(crate) fn sweep(spool: &Path) -> io::Result<()> {
        let prefix = match prefix(spool) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let Ok(entries) = fs::read_dir(MEMORY) else { return Ok(()) };
        let user = rustix::process::geteuid().as_raw();
        for entry in entries.flatten() {
            let is_left = entry.file_name().to_string_lossy().starts_with(&prefix);
            if is_left && entry.metadata().is_ok_and(|meta| meta.uid() == user) {
                remove(&entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    if let Err(error) = remove_tree(folder) {
        eprintln!(
            "towpath executor: cannot remove {}, which holds a job's secrets: {error}; remove it by hand",
            folder.display()
        );
    }
}

/// Begins the names of the folders of a spool, by what no other spool of this machine has: containers may share a tmpfs, and
/// have the same path for different folders.
fn prefix(spool: &Path) -> io::Result<String> {
    let meta = fs::metadata(spool)?;
    Ok(format!("towpath-secrets-{:x}-{:x}-", meta.dev(), meta.ino()))
}
