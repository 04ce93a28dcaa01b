//! Taking outputs out of a work tree after the last process is dead (trust T7).
//!
//! Every step goes through `openat2` below the tree's descriptor, without links: whatever the job left, nothing
//! outside its tree is opened. Only regular files are taken, counted and sized before their bytes are read.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use towpath_blob::{BlobError, BlobStore, FilePath, Manifest, ManifestFile};

use crate::glob::{Glob, GlobError};

/// Folders looked at for one pattern. A job cannot make the search endless.
const ENTRIES_MAX: u64 = 2_000_000;
/// Folders within folders.
const DEPTH_MAX: usize = 128;

/// Why an output is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The job's doing: shown on its result, which is failed.
    #[error("{0}")]
    Refused(String),
    /// Our machine's doing.
    #[error("cannot store an output: {0}")]
    Store(#[from] BlobError),
    /// Our machine's doing.
    #[error("cannot read the work tree: {0}")]
    Tree(#[from] std::io::Error),
}

impl From<GlobError> for OutputError {
    fn from(error: GlobError) -> OutputError {
        OutputError::Refused(error.to_string())
    }
}

impl From<rustix::io::Errno> for OutputError {
    fn from(error: rustix::io::Errno) -> OutputError {
        OutputError::Tree(error.into())
    }
}

/// What is left of a job's allowance for outputs.
#[derive(Debug, Clone, Copy)]
pub struct OutputBudget {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub files: u32,
}

/// Takes the files that a pattern names; `what` names the output in refusals. An empty match is an empty manifest. Files
/// lie in the manifest as they lie below the folders that the pattern names in full.
///
/// # Errors
/// [`OutputError::Refused`] if a match is no regular file, or there are too many or too large ones.
pub fn take(
    tree: BorrowedFd<'_>,
    (what, pattern): (&str, &str),
    budget: &mut OutputBudget,
    store: &BlobStore,
) -> Result<Manifest, OutputError> {
    let glob = Glob::new(pattern)?;
    let mut search = Search { glob: &glob, what, found: Vec::new(), budget: *budget, entries: 0 };
    let root = open(tree, b".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    search.walk(root, Vec::new(), Below { depth: 0, whole: false })?;
    let Search { found, budget: left, .. } = search;
    // Counted and sized as a whole before the first byte is copied.
    let files = found.into_iter().map(|found| {
        let within = FilePath::new(glob.within(found.path.as_bytes()));
        let path = within.map_err(|error| OutputError::Refused(error.to_string()))?;
        Ok(ManifestFile { path, ..store_file(tree, what, found, store)? })
    });
    let manifest = Manifest::new(files.collect::<Result<_, OutputError>>()?)?;
    *budget = left;
    Ok(manifest)
}

struct Search<'a> {
    glob: &'a Glob,
    what: &'a str,
    found: Vec<Found>,
    budget: OutputBudget,
    entries: u64,
}

struct Found {
    path: FilePath,
    size: u64,
}

/// Where a search is.
#[derive(Clone, Copy)]
struct Below {
    depth: usize,
    /// Inside a folder that matched itself: everything is taken.
    whole: bool,
}

impl Search<'_> {
    fn walk(&mut self, folder: OwnedFd, path: Vec<u8>, below: Below) -> Result<(), OutputError> {
        if below.depth > DEPTH_MAX {
            return Err(self.refused(&path, "folders are nested too deep"));
        }
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&folder)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                self.entries += 1;
                if self.entries > ENTRIES_MAX {
                    return Err(self.refused(&path, "there are too many files to look through"));
                }
                names.insert(name);
            }
        }
        for name in names {
            let path = if path.is_empty() { name.clone() } else { [&path[..], b"/", &name].concat() };
            self.entry(&folder, &name, path, below)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        below: Below,
    ) -> Result<(), OutputError> {
        let matches = below.whole || self.glob.matches(&path);
        if !matches && !self.glob.may_match_below(&path) {
            return Ok(());
        }
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let next = open(folder.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(|error| self.refused(&path, &format!("it cannot be opened ({error})")))?;
                self.walk(next, path, Below { depth: below.depth + 1, whole: matches })
            }
            FileType::RegularFile if matches => self.count(path, stat.st_size.cast_unsigned()),
            _ if matches => Err(self.refused(&path, "it is not a regular file")),
            _ => Ok(()),
        }
    }

    fn count(&mut self, path: Vec<u8>, size: u64) -> Result<(), OutputError> {
        let Some(files) = self.budget.files.checked_sub(1) else {
            return Err(self.refused(&path, "there are more files than the job's limit"));
        };
        let Some(bytes) = self.budget.bytes.checked_sub(size) else {
            return Err(self.refused(&path, "the files are larger than the job's limit"));
        };
        self.budget = OutputBudget { bytes, files };
        let path = FilePath::new(path).map_err(|error| OutputError::Refused(error.to_string()))?;
        self.found.push(Found { path, size });
        Ok(())
    }

    fn refused(&self, path: &[u8], why: &str) -> OutputError {
        let shown: String = String::from_utf8_lossy(path)
            .chars()
            .take(200)
            .map(|c| if towpath_core::ids::is_unprintable(c) { '?' } else { c })
            .collect();
        OutputError::Refused(format!("{} refuses `{shown}`: {why}", self.what))
    }
}

fn store_file(
    tree: BorrowedFd<'_>,
    what: &str,
    found: Found,
    store: &BlobStore,
) -> Result<ManifestFile, OutputError> {
    // Not blocking: if the entry were swapped for a FIFO, opening it would wait for ever. All processes are dead, so
    // nobody can; this is the second wall.
    let file = open(tree, found.path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map_err(|error| {
            OutputError::Refused(format!("{what} refuses `{}`: it cannot be opened ({error})", found.path))
        })?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OutputError::Refused(format!(
            "{what} refuses `{}`: it is not a regular file",
            found.path
        )));
    }
    let info = store.put_at_most(File::from(file), found.size)?;
    let executable = stat.st_mode & 0o100 != 0;
    Ok(ManifestFile { path: found.path, executable, size: info.size, digest: info.digest })
}

fn open(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(folder, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}
