//! Taking outputs out of a work tree after the last process is dead (trust T7).
//!
//! Every step goes through `openat2` below the tree's descriptor, without links: whatever the job left, nothing
//! outside its tree is opened. Only regular files are taken, counted and sized before their bytes are read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use towpath_blob::{BlobError, BlobStore, FilePath, Manifest, ManifestFile, Masked, Masker};
use towpath_core::glob::Glob;
use towpath_core::ids::is_unprintable;

use crate::pump::Control;
use crate::spec::StartSpec;

/// How long the taking of all outputs of a job may take. As many files as are allowed, each synced thrice at 20 ms, take
/// ten minutes; whatever takes longer would keep its slot.
pub(crate) const TAKING_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Folders looked at for one pattern. A job cannot make the search endless.
const ENTRIES_MAX: u64 = 2_000_000;
/// Folders within folders.
const DEPTH_MAX: usize = 128;
/// Characters of a path in a refusal.
const PATH_CHARS_SHOWN: usize = 200;

/// Why an output is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The job's doing: shown on its result, which is failed. Secrets in the paths that it names are blanked.
    #[error("{0}")]
    Refused(String),
    /// The job was cancelled meanwhile.
    #[error("cancelled")]
    Cancelled,
    /// It took longer than [`TAKING_TIMEOUT`].
    #[error(
        "its outputs and reports could not be taken within {} s; name fewer files, or narrower patterns",
        TAKING_TIMEOUT.as_secs()
    )]
    Late,
    /// Our machine's doing.
    #[error("cannot store an output: {0}")]
    Store(#[from] BlobError),
    /// Our machine's doing.
    #[error("cannot read the work tree: {0}")]
    Tree(#[from] io::Error),
}

impl From<rustix::io::Errno> for OutputError {
    fn from(error: rustix::io::Errno) -> OutputError {
        OutputError::Tree(error.into())
    }
}

/// What is left of a job's allowance for outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputBudget {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files.
    pub(crate) files: u32,
}

/// What is taken.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Names it in refusals.
    pub(crate) what: &'a str,
    /// Which files of the tree.
    pub(crate) pattern: &'a str,
    /// Blanks secrets in what the server reads and shows, paths among it; files that the job means to leave are kept as they
    /// are.
    pub(crate) masker: Option<&'a Masker>,
}

impl Wanted<'_> {
    /// The path of a file as it may be seen. With masks in it two files could have the same one: their numbers tell them
    /// apart.
    fn shown_path(&self, number: usize, path: &[u8]) -> Vec<u8> {
        match self.masker.map(|masker| masker.masked(path)) {
            Some(masked) if masked != path => [&masked[..], format!(".{number}").as_bytes()].concat(),
            _ => path.to_vec(),
        }
    }
}

/// Where a job's outputs are taken from and put, and what ends that early: its processes are dead, but its slot is not
/// free before.
#[derive(Clone, Copy)]
pub(crate) struct Taking<'a> {
    pub(crate) tree: BorrowedFd<'a>,
    pub(crate) store: &'a BlobStore,
    /// Of the job's secrets.
    pub(crate) masker: &'a Masker,
    /// See [`heeded`].
    pub(crate) control: Option<&'a Control>,
    pub(crate) until: Instant,
}

/// The cancel that ends the taking of a job's outputs: a deployment that has happened is not undone by one.
pub(crate) fn heeded<'a>(spec: &StartSpec, control: &'a Control) -> Option<&'a Control> {
    spec.body.environment.is_none().then_some(control)
}

impl Taking<'_> {
    /// Takes the files that a pattern names. An empty match is an empty manifest. Files lie in the manifest as they
    /// lie below the folders that the pattern names in full.
    ///
    /// # Errors
    /// [`OutputError::Refused`] if it is no pattern, a match is no regular file, or there are too many or too large ones.
    pub(crate) fn take(
        &self,
        wanted: Wanted<'_>,
        budget: &mut OutputBudget,
    ) -> Result<Manifest, OutputError> {
        let Wanted { what, pattern, .. } = wanted;
        let glob = Glob::parse(pattern).map_err(|error| {
            OutputError::Refused(format!("{what}: `{}`: {error}; {}", shown(pattern), error.hint()))
        })?;
        let mut search =
            Search { taking: self, glob: &glob, what, found: Vec::new(), budget: *budget, entries: 0 };
        let root = open(self.tree, b".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        search.walk(root, Vec::new(), Below { depth: 0, whole: false })?;
        let Search { found, budget: left, .. } = search;
        // Counted and sized as a whole before the first byte is copied.
        let files = (1..).zip(found).map(|(number, found)| {
            let path = wanted.shown_path(number, glob.within(found.path.as_bytes()));
            Ok(ManifestFile { path: self.kept_path(what, &path)?, ..self.store_file(wanted, found)? })
        });
        // They clash only if the job gave a file the path that another one is shown by.
        let manifest = Manifest::new(files.collect::<Result<_, OutputError>>()?)
            .map_err(|error| OutputError::Refused(format!("{what}: {error}")))?;
        *budget = left;
        Ok(manifest)
    }

    fn store_file(&self, wanted: Wanted<'_>, found: Found) -> Result<ManifestFile, OutputError> {
        let what = wanted.what;
        self.go_on()?;
        let path = found.path.as_bytes();
        // Not blocking: if the entry were swapped for a FIFO, opening it would wait for ever. All processes are dead, so
        // nobody can; this is the second wall.
        let file = open(self.tree, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .map_err(|error| self.refused(what, path, &format!("it cannot be opened ({error})")))?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused(what, path, "it is not a regular file"));
        }
        let source = Source { file: File::from(file), taking: self };
        let stored = match wanted.masker {
            Some(masker) => self.store.put_at_most(Masked::new(source, masker.for_another()), found.size),
            None => self.store.put_at_most(source, found.size),
        };
        let info = stored.or_else(|error| {
            self.go_on()?;
            Err(OutputError::from(error))
        })?;
        let executable = stat.st_mode & 0o100 != 0;
        Ok(ManifestFile { path: found.path, executable, size: info.size, digest: info.digest })
    }

    /// A path as a manifest has it. Its own words for one that it refuses would show all of it.
    fn kept_path(&self, what: &str, path: &[u8]) -> Result<FilePath, OutputError> {
        FilePath::new(path).map_err(|_| self.refused(what, path, "its path is too long"))
    }

    /// A job chooses the path. Its secrets are blanked first, while they are whole: of a path that is cut, or whose characters
    /// are replaced, a part of one would be shown.
    fn refused(&self, what: &str, path: &[u8], why: &str) -> OutputError {
        let path = self.masker.masked(path);
        OutputError::Refused(format!("{what} refuses `{}`: {why}", shown(&String::from_utf8_lossy(&path))))
    }

    /// Whether to go on, asked at every step that a job's files can repeat.
    fn go_on(&self) -> Result<(), OutputError> {
        if self.control.is_some_and(Control::is_cancelled) {
            return Err(OutputError::Cancelled);
        }
        if Instant::now() >= self.until {
            return Err(OutputError::Late);
        }
        Ok(())
    }
}

/// A file whose reading ends when the taking does. Who reads it learns why from [`Taking::go_on`].
struct Source<'a> {
    file: File,
    taking: &'a Taking<'a>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.taking.go_on().map_err(io::Error::other)?;
        self.file.read(buffer)
    }
}

struct Search<'a> {
    taking: &'a Taking<'a>,
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
                self.taking.go_on()?;
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
        self.taking.go_on()?;
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
        let path = self.taking.kept_path(self.what, &path)?;
        self.found.push(Found { path, size });
        Ok(())
    }

    fn refused(&self, path: &[u8], why: &str) -> OutputError {
        self.taking.refused(self.what, path, why)
    }
}

/// The beginning of what people wrote, for people.
fn shown(text: &str) -> String {
    text.chars().take(PATH_CHARS_SHOWN).map(|c| if is_unprintable(c) { '?' } else { c }).collect()
}

fn open(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(folder, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::fs::{mkdirat, openat};
    use tempfile::TempDir;
    use towpath_blob::Secret;

    use super::*;

    /// Makes so many folders of one name within each other, deeper than a path can say; the innermost one.
    fn nest(folder: &Path, (name, levels): (&[u8], usize)) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
        (0..levels).fold(top, |folder, _| {
            mkdirat(&folder, name, Mode::RWXU).unwrap();
            openat(&folder, name, flags, Mode::empty()).unwrap()
        })
    }

    /// Takes what a pattern names out of a tree that `make` fills.
    fn take(
        pattern: &str,
        control: &Control,
        until: Instant,
        make: impl FnOnce(&Path),
    ) -> Result<Manifest, OutputError> {
        let folder = TempDir::new().unwrap();
        make(folder.path());
        let store = TempDir::new().unwrap();
        let store = BlobStore::open(store.path()).unwrap();
        let tree = File::open(folder.path()).unwrap();
        let (tree, masker, control) = (tree.as_fd(), &Masker::default(), Some(control));
        let taking = Taking { tree, store: &store, masker, control, until };
        taking.take(wanted(pattern), &mut OutputBudget { bytes: 1 << 20, files: 10 })
    }

    fn wanted(pattern: &str) -> Wanted<'_> {
        Wanted { what: "output `o`", pattern, masker: None }
    }

    fn later() -> Instant {
        Instant::now() + TAKING_TIMEOUT
    }

    #[test]
    fn a_pattern_of_many_wildcards_in_a_deep_tree_ends() {
        let pattern = format!("{}b", "**/a/".repeat(20));
        let deep = |tree: &Path| {
            nest(tree, (b"a", 60));
        };
        let manifest = take(&pattern, &Control::default(), later(), deep).unwrap();
        assert_eq!(manifest.files(), []);
    }

    #[test]
    fn a_cancel_and_the_time_end_the_search() {
        let one = |tree: &Path| fs::write(tree.join("a"), "x").unwrap();
        let cancelled = Control::default();
        cancelled.cancel();
        // In the search, as no file is read.
        let ended = take("missing", &cancelled, later(), one);
        assert!(matches!(ended, Err(OutputError::Cancelled)), "{ended:?}");
        let ended = take("missing", &Control::default(), Instant::now(), one);
        assert!(matches!(ended, Err(OutputError::Late)), "{ended:?}");
    }

    #[test]
    fn a_cancel_ends_the_copying_of_a_file() {
        let store = TempDir::new().unwrap();
        let store = BlobStore::open(store.path()).unwrap();
        let tree = TempDir::new().unwrap();
        fs::write(tree.path().join("a"), "x").unwrap();
        let (root, control) = (File::open(tree.path()).unwrap(), Control::default());
        let (masker, until) = (&Masker::default(), later());
        let taking = Taking { tree: root.as_fd(), store: &store, masker, control: Some(&control), until };
        let mut source = Source { file: File::open(tree.path().join("a")).unwrap(), taking: &taking };
        assert_eq!(source.read(&mut [0; 1]).unwrap(), 1);
        control.cancel();
        assert!(source.read(&mut [0; 1]).is_err());
        let found = Found { path: FilePath::new("a").unwrap(), size: 1 };
        let ended = taking.store_file(wanted("a"), found);
        assert!(matches!(ended, Err(OutputError::Cancelled)), "{ended:?}");
    }

    #[test]
    fn a_refusal_shows_the_beginning_of_a_path() {
        let deep = |tree: &Path| {
            let folder = nest(tree, (&[0xe4; 255], 127));
            let file = openat(&folder, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU);
            drop(file.unwrap());
        };
        let refused = take("**", &Control::default(), later(), deep).unwrap_err().to_string();
        assert!(refused.len() < 1000 && refused.ends_with("`: its path is too long"), "{refused}");
        let refused = take("a**", &Control::default(), later(), deep).unwrap_err().to_string();
        assert!(refused.starts_with("output `o`: `a**`: `**` stands for whole folders"), "{refused}");
    }

    #[test]
    fn a_secret_is_blanked_before_a_path_is_cut_or_its_characters_are_replaced() {
        let folder = TempDir::new().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let tree = File::open(folder.path()).unwrap();
        let masker = &Masker::new(&[Secret::new("canary\t77")]).unwrap();
        let taking = Taking { tree: tree.as_fd(), store: &store, masker, control: None, until: later() };
        for before in ["", &"x".repeat(PATH_CHARS_SHOWN - 4)] {
            let refused = taking.refused("output `o`", format!("{before}canary\t77").as_bytes(), "why");
            assert_eq!(refused.to_string(), format!("output `o` refuses `{before}***`: why"));
        }
    }
}
