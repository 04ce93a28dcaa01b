//! A job's folder on disk: work tree, inputs. Made before it starts, gone after it ends, never used twice.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use towpath_blob::{BlobError, BlobStore, Manifest, NoRoom, Spending};
use towpath_core::ids::{Digest, LeaseId};

use crate::pump::Control;
use crate::spec::Limits;
use crate::walk::{remove_tree, remove_tree_until};
use crate::watch::size_text;

/// Bytes copied between two looks at whether to go on.
const STEP_BYTES: u64 = 1024 * 1024;
/// Bytes that a file counts for at least: its first block and its name.
const FILE_BYTES_MIN: u64 = 4096;

/// Why a job's folder is not filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The job was cancelled meanwhile.
    #[error("cancelled")]
    Cancelled,
    /// It took longer than the job itself may.
    #[error("its inputs and its work tree were not ready within its timeout")]
    Late,
    /// The job's doing: an output can be stored once and be needed under many names.
    #[error("its inputs are over its limit of {0}; need fewer outputs, or make them smaller")]
    TooLarge(String),
    /// Our machine's doing.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Our machine's doing.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Our machine's doing.
    #[error("cannot copy the work tree: {0}")]
    Tree(#[from] io::Error),
}

/// Copying into a job's folder, and what ends that early. There is no process to watch yet.
pub(crate) struct Copying<'a> {
    pub(crate) control: &'a Control,
    pub(crate) until: Instant,
    /// Of the folder's disk.
    pub(crate) spending: Spending,
    /// The job's. Its inputs, which it cannot change, count apart from its work tree.
    pub(crate) limits: Limits,
}

impl Copying<'_> {
    /// Whether to go on and write so many bytes.
    fn step(&mut self, bytes: u64) -> Result<(), CopyError> {
        if self.control.is_cancelled() {
            return Err(CopyError::Cancelled);
        }
        if Instant::now() >= self.until {
            return Err(CopyError::Late);
        }
        Ok(self.spending.spend(bytes)?)
    }

    /// Copies a file, sharing blocks where the file system can.
    fn file(&mut self, from: &mut File, to: &Path, mode: u32) -> Result<(), CopyError> {
        let size = from.metadata()?.len();
        self.step(size.clamp(FILE_BYTES_MIN, STEP_BYTES))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
        if rustix::fs::ioctl_ficlone(&file, &*from).is_err() {
            io::copy(&mut from.take(STEP_BYTES), &mut file)?; // copy_file_range where the kernel has it
            for _ in 1..size.div_ceil(STEP_BYTES) {
                self.step(STEP_BYTES)?;
                io::copy(&mut from.take(STEP_BYTES), &mut file)?;
            }
        }
        // The mask of the process may have taken bits away.
        Ok(file.set_permissions(Permissions::from_mode(mode))?)
    }
}

/// What is left of a job's allowance for inputs.
struct InputBudget {
    bytes: u64,
    files: u64,
}

impl InputBudget {
    /// Counted and sized as a whole before the first byte is copied.
    fn take(&mut self, manifest: &Manifest, limits: &Limits) -> Result<(), CopyError> {
        let bytes = self.bytes.checked_sub(manifest.size());
        let files = self.files.checked_sub(manifest.files().len() as u64);
        self.bytes =
            bytes.ok_or_else(|| CopyError::TooLarge(format!("{} of disk", size_text(limits.disk_bytes))))?;
        self.files = files.ok_or_else(|| CopyError::TooLarge(format!("{} files", limits.disk_files)))?;
        Ok(())
    }
}

fn make_folder(path: &Path) -> Result<(), CopyError> {
    fs::create_dir_all(path).map_err(|source| input_error(path, source))
}

fn input_error(path: &Path, source: io::Error) -> CopyError {
    CopyError::Store(BlobError::Io { action: "write the input", path: path.to_owned(), source })
}

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
    pub(crate) fn copy_tree(
        &self,
        base: &Path,
        owner: Option<u32>,
        copying: &mut Copying<'_>,
    ) -> Result<PathBuf, CopyError> {
        let tree = self.path.join("tree");
        copy_folder(base, &tree, owner, copying)?;
        Ok(tree)
    }

    /// Copies inputs: read-only files that share nothing a job could write through.
    pub(crate) fn inputs(
        &self,
        inputs: &BTreeMap<String, Digest>,
        store: &BlobStore,
        copying: &mut Copying<'_>,
    ) -> Result<PathBuf, CopyError> {
        let folder = self.path.join("inputs");
        let mut left = InputBudget { bytes: copying.limits.disk_bytes, files: copying.limits.disk_files };
        make_folder(&folder)?;
        for (name, digest) in inputs {
            let manifest = Manifest::load(store, digest)?;
            left.take(&manifest, &copying.limits)?;
            for file in manifest.files() {
                let path = folder.join(name).join(std::ffi::OsStr::from_bytes(file.path.as_bytes()));
                make_folder(path.parent().expect("an input has a folder"))?;
                let mode = if file.executable { 0o555 } else { 0o444 };
                let mut from = store.open_blob(&file.digest)?;
                copying.file(&mut from, &path, mode).map_err(|error| match error {
                    CopyError::Tree(source) => input_error(&path, source),
                    other => other,
                })?;
            }
        }
        Ok(folder)
    }

    /// Removes what can be removed until then; whether that was everything.
    pub(crate) fn remove_until(&self, until: Instant) -> io::Result<bool> {
        remove_tree_until(&self.path, until)
    }

    /// Removes everything.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Copies folders, files (sharing blocks where the file system can) and links, with their modes.
fn copy_folder(
    from: &Path,
    to: &Path,
    owner: Option<u32>,
    copying: &mut Copying<'_>,
) -> Result<(), CopyError> {
    copying.step(FILE_BYTES_MIN)?;
    let mode = from.metadata()?.mode() & 0o777;
    fs::DirBuilder::new().mode(mode | 0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target, owner, copying)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            give(&target, owner)?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.mode() & 0o777;
            copying.file(&mut File::open(&source)?, &target, mode)?;
            give(&target, owner)?;
        }
    }
    Ok(give(to, owner)?)
}

fn give(path: &Path, owner: Option<u32>) -> io::Result<()> {
    match owner {
        Some(user) => lchown(path, Some(user), Some(user)),
        None => Ok(()),
    }
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
