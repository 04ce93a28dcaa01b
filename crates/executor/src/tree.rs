//! A job's folder on disk: work tree, inputs. Made before it starts, gone after it ends, never used twice.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use towpath_blob::{BlobError, BlobStore, Manifest};
use towpath_core::ids::{Digest, LeaseId};

use crate::walk::remove_tree;

/// The folder of one lease. Removed by [`JobFolder::remove`], or at the next start of the executor.
#[derive(Debug)]
pub(crate) struct JobFolder {
    path: PathBuf,
}

impl JobFolder {
    /// Makes the folder; whoever is not the executor's user passes through it only where it is bound.
    pub(crate) fn make(jobs: &Path, lease: &LeaseId) -> io::Result<JobFolder> {
        let path = jobs.join(lease.to_string());
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        Ok(JobFolder { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where an overlay's changes go.
    pub(crate) fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// Copies the base for a job that cannot have an overlay.
    pub(crate) fn copy_tree(&self, base: &Path, owner: Option<u32>) -> io::Result<PathBuf> {
        let tree = self.path.join("tree");
        copy_folder(base, &tree, owner)?;
        Ok(tree)
    }

    /// Copies inputs: read-only files that share nothing a job could write through.
    pub(crate) fn inputs<'a>(
        &self,
        inputs: impl Iterator<Item = (&'a String, &'a Digest)>,
        store: &BlobStore,
    ) -> Result<PathBuf, BlobError> {
        let folder = self.path.join("inputs");
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| BlobError::Io { action: "write the input", path, source }
        };
        fs::create_dir_all(&folder).map_err(fail(&folder))?;
        for (name, digest) in inputs {
            for file in Manifest::load(store, digest)?.files() {
                let path = folder.join(name).join(std::ffi::OsStr::from_bytes(file.path.as_bytes()));
                let parent = path.parent().expect("an input has a folder");
                fs::create_dir_all(parent).map_err(fail(parent))?;
                let mode = if file.executable { 0o555 } else { 0o444 };
                let mut from = store.open_blob(&file.digest)?;
                copy_bytes(&mut from, &path, mode).map_err(fail(&path))?;
            }
        }
        Ok(folder)
    }

    /// Removes everything.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Copies folders, files (sharing blocks where the file system can) and links, with their modes.
fn copy_folder(from: &Path, to: &Path, owner: Option<u32>) -> io::Result<()> {
    let mode = from.metadata()?.mode() & 0o777;
    fs::DirBuilder::new().mode(mode | 0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target, owner)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            give(&target, owner)?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.mode() & 0o777;
            copy_bytes(&mut File::open(&source)?, &target, mode)?;
            give(&target, owner)?;
        }
    }
    give(to, owner)
}

fn give(path: &Path, owner: Option<u32>) -> io::Result<()> {
    match owner {
        Some(user) => lchown(path, Some(user), Some(user)),
        None => Ok(()),
    }
}

fn copy_bytes(from: &mut File, to: &Path, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    if rustix::fs::ioctl_ficlone(&file, &*from).is_err() {
        io::copy(from, &mut file)?; // copy_file_range where the kernel has it
    }
    // The mask of the process may have taken bits away.
    file.set_permissions(Permissions::from_mode(mode))
}

/// Asks ext4 to spread the jobs' folders over the disk: making files where others were deleted a moment ago is 30
/// times slower there without a journal. Source: reference/platform. Other file systems say no, and need it not.
pub(crate) fn spread_folders(folder: &Path) {
    let spread = || -> io::Result<()> {
        let folder = File::open(folder)?;
        let flags = rustix::fs::ioctl_getflags(&folder)?;
        Ok(rustix::fs::ioctl_setflags(&folder, flags | rustix::fs::IFlags::TOPDIR)?)
    };
    let _ = spread();
}
