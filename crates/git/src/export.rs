//! Writing a tree out: bytes exactly as git has them, into a folder that nobody else knows yet.
//!
//! Files are written by this process and not by `git checkout-index`, so no attribute, filter or line-end setting has
//! a say, nothing is ever linked to the store, and names stay the bytes that they are.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use towpath_core::ids::{CommitId, TreeId};

use crate::coprocess::Slot;
use crate::environment::OUTPUT_BYTES_MAX;
use crate::error::GitError;
use crate::list::{Leaf, list};
use crate::object::{EntryKind, ObjectId, TreePath};
use crate::process::{Bounds, Interrupt};
use crate::read::{QUESTIONS_AHEAD_MAX, Reader};
use crate::repository::Repository;
use crate::walk::{TREE_LIMITS, TreeLimits, TreeMeasure};

/// Threads that write files, each with a git that reads for it. More than two do not make it faster on two cores.
const WRITERS: usize = 2;
/// Files that a writer takes at once.
const FILES_AT_ONCE: usize = 64;
const _: () = assert!(FILES_AT_ONCE <= QUESTIONS_AHEAD_MAX);
/// Bytes of a link's target: Linux's PATH_MAX.
const LINK_BYTES_MAX: u64 = 4096;
/// Bytes that a writer writes between two questions for room.
const LOOK_BYTES: u64 = 1 << 20;
/// Bytes that a file counts for at least then: its first block.
const FILE_BYTES_MIN: u64 = 4096;
/// Between two such questions while git writes a pack.
const PACK_LOOK: Duration = Duration::from_millis(200);
/// More than git writes of a pack in that time.
const PACK_LOOK_BYTES: u64 = 64 << 20;
/// Time for copying a whole history; a repository of 23,000 commits takes 3 s.
const COPY_DEADLINE: Duration = Duration::from_secs(600);

/// Whose the written files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// Says whether the disk has room for so much more, as it takes there. Asked before anything is written and as it is, by several threads.
///
/// Its error is `NoRoom`: the rest is not to be written.
pub type Room<'a> = dyn Fn(TreeMeasure) -> Result<(), GitError> + Send + Sync + 'a;

/// How a tree is written out.
#[derive(Clone, Copy)]
pub struct ExportOptions<'a> {
    /// Whose the files are; absent: this process's user.
    pub owner: Option<Owner>,
    /// What the tree may expand to.
    pub limits: TreeLimits,
    /// Whether there is room for it.
    pub room: &'a Room<'a>,
}

impl Default for ExportOptions<'_> {
    /// Files of this process's user, on a disk that is never full.
    fn default() -> Self {
        ExportOptions { owner: None, limits: TREE_LIMITS, room: &|_| Ok(()) }
    }
}

/// Whether [`Repository::export_repository`] writes the commit's files too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Beside `.git`, as after a checkout.
    Written,
    /// Not at all: they come from elsewhere (a base under an overlay).
    Elsewhere,
}

impl Repository {
    /// Writes a tree into `into`, which must not exist or be empty.
    ///
    /// Submodules become empty folders. On an error `into` is left as far as it got, for the caller to remove.
    ///
    /// # Errors
    /// `TooLarge` and `Malformed` before the first file is written, `NoRoom` then or later.
    pub fn export_tree(
        &self,
        tree: TreeId,
        into: &Path,
        options: &ExportOptions<'_>,
    ) -> Result<TreeMeasure, GitError> {
        let slot = Slot::default();
        let listing = list(&Reader::apart(self, &slot), tree, options.limits)?;
        slot.close();
        (options.room)(listing.measure.on_disk())?;
        make_folder(into, options.owner)?;
        for folder in &listing.folders {
            make_folder(&place(into, folder), options.owner)?;
        }
        let next = AtomicUsize::new(0);
        let writer =
            || Writer { repository: self, leaves: &listing.leaves, into, options, next: &next, unasked: 0 };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..WRITERS).map(|_| scope.spawn(move || writer().run())).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
        })?;
        Ok(listing.measure)
    }

    /// Makes an ordinary repository at `into` with what `commit` reaches and nothing else, detached at that commit.
    ///
    /// Objects are copied: no alternates, no links, no way back to this repository. `into` must not exist or be empty.
    ///
    /// # Errors
    /// Those of [`Repository::export_tree`].
    pub fn export_repository(
        &self,
        commit: CommitId,
        into: &Path,
        (files, options): (Files, &ExportOptions<'_>),
    ) -> Result<(), GitError> {
        let tree = self.commit(commit)?.tree;
        make_folder(into, options.owner)?;
        match files {
            Files::Written => drop(self.export_tree(tree, into, options)?),
            Files::Elsewhere => drop(self.measure_tree(tree, options.limits)?),
        }
        let git_dir = into.join(".git");
        let init = self.git().call("init").args(["--quiet", "--template=", "--object-format=sha1"]);
        init.arg("--initial-branch=main")
            .arg("--end-of-options")
            .arg(into)
            .prepare()
            .output(&[], self.bounds())?;
        self.copy_objects(commit, &git_dir.join("objects/pack/pack"), options.room)?;
        let head = git_dir.join("HEAD");
        fs::write(&head, format!("{commit}\n")).map_err(GitError::io("write", &head))?;
        self.fill_index(tree, into, files)?;
        options.owner.map_or(Ok(()), |owner| give_all(&git_dir, owner))
    }

    /// Ends git where there is no room for what it writes.
    fn copy_objects(&self, commit: CommitId, pack: &Path, room: &Room<'_>) -> Result<(), GitError> {
        let more = TreeMeasure { entries: 1, bytes: PACK_LOOK_BYTES };
        let interrupt = Interrupt::new().map_err(GitError::io("watch", pack))?;
        let (done, is_done) = channel::<()>();
        let raised = interrupt.clone();
        let watch = move || {
            loop {
                room(more).inspect_err(|_| raised.raise())?;
                if is_done.recv_timeout(PACK_LOOK) != Err(RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        };
        std::thread::scope(|scope| {
            let watch = scope.spawn(watch);
            let copied = self.pack_objects(commit, pack, &interrupt);
            drop(done);
            watch.join().expect("a question for room does not panic").and(copied)
        })
    }

    fn pack_objects(&self, commit: CommitId, pack: &Path, interrupt: &Interrupt) -> Result<(), GitError> {
        let call = self.call("pack-objects").config("core.fsync=none");
        let call = call.args(["--revs", "--quiet", "--delta-base-offset"]).arg(pack);
        let bounds = Bounds { deadline: COPY_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX };
        call.prepare().under(interrupt).output(format!("{commit}\n").as_bytes(), bounds).map(drop)
    }

    /// An index of the tree, and where the files are there, with their times, so that `git status` reads no file.
    fn fill_index(&self, tree: TreeId, into: &Path, files: Files) -> Result<(), GitError> {
        let git_dir = into.join(".git");
        let call = |name| {
            let call = self.git().call(name).git_dir(&git_dir).folder(into).config("core.fsync=none");
            call.variable("GIT_WORK_TREE", into)
        };
        call("read-tree").arg(tree.to_string()).prepare().output(&[], self.bounds())?;
        if files == Files::Written {
            // It reports files that differ (a tree may ask for other line ends), which is no failure here.
            call("update-index").args(["-q", "--refresh"]).prepare().finish(&[], self.bounds())?;
        }
        Ok(())
    }
}

struct Writer<'a> {
    repository: &'a Repository,
    leaves: &'a [Leaf],
    into: &'a Path,
    options: &'a ExportOptions<'a>,
    next: &'a AtomicUsize,
    /// Bytes that it may write before it asks for room again.
    unasked: u64,
}

impl Writer<'_> {
    /// Takes files until there are none left.
    fn run(mut self) -> Result<(), GitError> {
        let slot = Slot::default();
        let reader = Reader::apart(self.repository, &slot);
        loop {
            let start = self.next.fetch_add(FILES_AT_ONCE, Ordering::Relaxed);
            let Some(rest) = self.leaves.get(start..) else { return Ok(()) };
            let some = &rest[..rest.len().min(FILES_AT_ONCE)];
            if some.is_empty() {
                return Ok(());
            }
            self.write_some(&reader, some)?;
        }
    }

    fn write_some(&mut self, reader: &Reader<'_>, leaves: &[Leaf]) -> Result<(), GitError> {
        let mut files: Vec<(PathBuf, bool)> = Vec::new();
        let mut ids: Vec<ObjectId> = Vec::new();
        for leaf in leaves {
            let path = place(self.into, &leaf.path);
            match leaf.kind {
                EntryKind::File { executable } => {
                    files.push((path, executable));
                    ids.push(leaf.id);
                }
                EntryKind::Symlink => self.write_link(reader, leaf, &path)?,
                EntryKind::Submodule | EntryKind::Tree => make_folder(&path, self.options.owner)?,
            }
        }
        let mut open: Option<File> = None;
        reader.contents(&ids, |at, piece| {
            let (path, executable) = &files[at];
            match (piece, &mut open) {
                ([], _) => {
                    self.spend(FILE_BYTES_MIN)?;
                    open = Some(create(path, *executable, self.options.owner)?);
                }
                (piece, Some(file)) => {
                    self.spend(piece.len() as u64)?;
                    file.write_all(piece).map_err(GitError::io("write", path))?;
                }
                (_, None) => unreachable!("an object begins with an empty piece"),
            }
            Ok(())
        })
    }

    fn write_link(&self, reader: &Reader<'_>, leaf: &Leaf, path: &Path) -> Result<(), GitError> {
        let target = reader.content(leaf.id, "blob", LINK_BYTES_MAX)?;
        std::os::unix::fs::symlink(OsStr::from_bytes(&target), path).map_err(GitError::io("link", path))?;
        let Some(Owner { uid, gid }) = self.options.owner else { return Ok(()) };
        lchown(path, Some(uid), Some(gid)).map_err(GitError::io("change the owner of", path))
    }

    /// Asks before so many bytes are written: others may have taken the room that there was for all of them.
    fn spend(&mut self, bytes: u64) -> Result<(), GitError> {
        if bytes > self.unasked {
            (self.options.room)(TreeMeasure { entries: 1, bytes })?;
            self.unasked = bytes.max(LOOK_BYTES);
        }
        self.unasked -= bytes;
        Ok(())
    }
}

/// Listed paths have no part that leads out of the folder.
fn place(into: &Path, path: &TreePath) -> PathBuf {
    into.join(OsStr::from_bytes(&path.0))
}

/// Truncates what is there: only a repeated read, after git was restarted, finds anything.
fn create(path: &Path, executable: bool, owner: Option<Owner>) -> Result<File, GitError> {
    let mode = if executable { 0o755 } else { 0o644 };
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).custom_flags(no_follow).open(path);
    let file = file.map_err(GitError::io("write", path))?;
    // Whatever the umask of whoever started us.
    file.set_permissions(Permissions::from_mode(mode)).map_err(GitError::io("change the mode of", path))?;
    if let Some(Owner { uid, gid }) = owner {
        fchown(&file, Some(uid), Some(gid)).map_err(GitError::io("change the owner of", path))?;
    }
    Ok(file)
}

/// Makes a folder; an empty one may be there already.
fn make_folder(path: &Path, owner: Option<Owner>) -> Result<(), GitError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(GitError::io("make", path)(error));
        }
        Err(_) if fs::read_dir(path).map_err(GitError::io("read", path))?.next().is_some() => {
            return Err(GitError::Exists { path: path.to_owned() });
        }
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(GitError::io("change the mode of", path))?;
    let Some(Owner { uid, gid }) = owner else { return Ok(()) };
    lchown(path, Some(uid), Some(gid)).map_err(GitError::io("change the owner of", path))
}

/// Gives a folder of our own making to its owner, links and all.
fn give_all(path: &Path, owner: Owner) -> Result<(), GitError> {
    lchown(path, Some(owner.uid), Some(owner.gid)).map_err(GitError::io("change the owner of", path))?;
    if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(GitError::io("read", path))? {
        give_all(&entry.map_err(GitError::io("read", path))?.path(), owner)?;
    }
    Ok(())
}
