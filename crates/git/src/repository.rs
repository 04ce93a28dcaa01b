//! A bare repository of ours: made with the settings that the border asks for, and opened with the processes it keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::coprocess::Slot;
use crate::environment::{Call, Git};
use crate::error::{GitError, place, without_place};
use crate::process::Bounds;

/// The repository's own file. Pushes and fetches are served with it; every call of ours pins what matters once more.
///
/// Requirements S4, S5 and S9 of the trust document: objects are checked before they are taken, nothing shallow comes
/// in, our own refs are not shown, nothing is collected behind our back, and every write reaches the disk.
const CONFIG: &str = "\
[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	logAllRefUpdates = false
	fsync = all
	fsyncMethod = fsync
	hooksPath = /dev/null
	attributesFile = /dev/null
	fsmonitor = false
[transfer]
	fsckObjects = true
	hideRefs = refs/towpath
	credentialsInUrl = die
	advertiseSID = false
[receive]
	fsckObjects = true
	shallowUpdate = false
	autogc = false
	updateServerInfo = false
	advertisePushOptions = true
	denyCurrentBranch = ignore
[fetch]
	fsckObjects = true
[uploadpack]
	allowAnySHA1InWant = false
	allowReachableSHA1InWant = false
	allowTipSHA1InWant = false
[gc]
	auto = 0
	autoDetach = false
[maintenance]
	auto = false
[pack]
	writeReverseIndex = false
";

/// Attributes of the highest rank: whatever a tree's own `.gitattributes` says, git treats all files as plain bytes
/// and merges them with its own text merge (a change's `* merge=union` would hide its conflict).
const ATTRIBUTES: &str = "* !text !eol !crlf !ident !filter !working-tree-encoding !merge !diff !conflict-marker-size !export-subst !export-ignore !whitespace !delta\n";

/// A bare repository. Cheap to clone; clones share the git processes that are kept open. May be used by many threads.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    git: Git,
    path: PathBuf,
    quarantine: Option<PathBuf>,
    reader: Slot,
    merger: Slot,
    refs: Slot,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.inner.path).finish()
    }
}

impl Repository {
    /// Makes an empty bare repository at `path`, whose parent exists. Its HEAD is `main`.
    ///
    /// The repository appears at `path` whole and durable, or not at all.
    ///
    /// # Errors
    /// `Exists` if something is there already.
    pub fn create(git: &Git, path: &Path) -> Result<Repository, GitError> {
        let draft = Self::create_draft(git, path)?;
        draft.publish(path)
    }

    /// An empty repository beside `path`, to be filled and then moved there by [`Repository::publish`].
    pub(crate) fn create_draft(git: &Git, path: &Path) -> Result<Repository, GitError> {
        if path.symlink_metadata().is_ok() {
            return Err(GitError::Exists { path: path.to_owned() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let draft = path.with_file_name(name);
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GitError::io("remove", &draft)(error));
            }
            _ => {}
        }
        let init = git.call("init").args(["--quiet", "--bare", "--template=", "--object-format=sha1"]);
        init.arg("--initial-branch=main")
            .arg("--end-of-options")
            .arg(&draft)
            .prepare()
            .output(&[], git.bounds())?;
        git.write_synced(&draft.join("config"), CONFIG)?;
        fs::create_dir_all(draft.join("info")).map_err(GitError::io("make", &draft))?;
        git.write_synced(&draft.join("info/attributes"), ATTRIBUTES)?;
        make_fan_out(&draft.join("objects"))?;
        Self::open(git, &draft)
    }

    /// Moves a draft to its place.
    pub(crate) fn publish(self, path: &Path) -> Result<Repository, GitError> {
        for folder in ["info", "refs/heads", "refs/tags", "refs", "objects/pack", "objects", "."] {
            let folder = self.path().join(folder);
            if folder.is_dir() {
                self.git().sync(&folder)?;
            }
        }
        self.close_processes();
        fs::rename(self.path(), path).map_err(GitError::io("rename", path))?;
        self.git().sync(path.parent().unwrap_or(Path::new("/")))?;
        Self::open(&self.inner.git, path)
    }

    /// Opens a bare repository that [`Repository::create`] or an import made.
    ///
    /// # Errors
    /// `NotThere` if the folder is no repository, `Io` if its attributes cannot be brought in order.
    pub fn open(git: &Git, path: &Path) -> Result<Repository, GitError> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !path.join("HEAD").is_file() || !path.join("objects").is_dir() {
            return Err(GitError::NotThere { what: "repository", name: place(&path).display().to_string() });
        }
        if path.join("reftable").exists() {
            let why = "its refs are in the reftable format; import it instead".to_owned();
            return Err(GitError::BadInput { what: "the repository", why });
        }
        let repository = Self::with_quarantine(git, path, None);
        repository.keep_attributes()?;
        Ok(repository)
    }

    /// Opens any repository by the folder of its own files, a clone's `.git` say, only to read it.
    ///
    /// # Errors
    /// `NotThere` if the folder is no repository.
    pub fn look(git: &Git, path: &Path) -> Result<Repository, GitError> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match path.join("HEAD").is_file() && path.join("objects").is_dir() {
            true => Ok(Self::with_quarantine(git, path, None)),
            false => Err(GitError::NotThere { what: "repository", name: place(&path).display().to_string() }),
        }
    }

    /// The same repository as a receive hook sees it: with the objects of a push that is not accepted yet.
    ///
    /// `objects` is git's `GIT_OBJECT_DIRECTORY` (or `GIT_QUARANTINE_PATH`) of that hook. Reads only.
    pub fn quarantined(&self, objects: &Path) -> Repository {
        Self::with_quarantine(&self.inner.git, self.inner.path.clone(), Some(objects.to_owned()))
    }

    fn with_quarantine(git: &Git, path: PathBuf, quarantine: Option<PathBuf>) -> Repository {
        let (reader, merger, refs) = (Slot::default(), Slot::default(), Slot::default());
        Repository { inner: Arc::new(Inner { git: git.clone(), path, quarantine, reader, merger, refs }) }
    }

    /// The attributes file decides merges, so it is put right at each start.
    fn keep_attributes(&self) -> Result<(), GitError> {
        let path = self.inner.path.join("info/attributes");
        if fs::read(&path).is_ok_and(|found| found == ATTRIBUTES.as_bytes()) {
            return Ok(());
        }
        fs::create_dir_all(self.inner.path.join("info")).map_err(GitError::io("make", &path))?;
        let draft = path.with_extension("new");
        self.git().write_synced(&draft, ATTRIBUTES)?;
        fs::rename(&draft, &path).map_err(GitError::io("rename", &path))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The git that it is used with.
    pub fn git(&self) -> &Git {
        &self.inner.git
    }

    /// What git said of this repository, for people who need not know where it is.
    pub fn without_place(&self, words: &str) -> String {
        without_place(words, self.path())
    }

    /// Ends the git processes that are kept open. The next call starts what it needs.
    pub fn close_processes(&self) {
        self.slots().iter().for_each(|slot| slot.close());
    }

    /// Ends those of them that nobody has used for so long: each takes 4 MiB. The next request starts it again, in 3 ms.
    pub fn close_idle_processes(&self, idle: Duration) {
        self.slots().iter().for_each(|slot| slot.close_idle(idle));
    }

    fn slots(&self) -> [&Slot; 3] {
        [&self.inner.reader, &self.inner.merger, &self.inner.refs]
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.inner.path.join("objects")
    }

    pub(crate) fn call(&self, call: &'static str) -> Call<'_> {
        let prepared = self.inner.git.call(call).git_dir(&self.inner.path);
        match &self.inner.quarantine {
            None => prepared,
            Some(quarantine) => prepared
                .variable("GIT_OBJECT_DIRECTORY", quarantine)
                .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects()),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.inner.git.bounds()
    }

    pub(crate) fn reader(&self) -> &Slot {
        &self.inner.reader
    }

    pub(crate) fn merger(&self) -> &Slot {
        &self.inner.merger
    }

    pub(crate) fn ref_writer(&self) -> &Slot {
        &self.inner.refs
    }
}

/// All folders for loose objects at once: a new folder costs more to make and to sync than the object in it.
fn make_fan_out(objects: &Path) -> Result<(), GitError> {
    for first in 0..=u8::MAX {
        let folder = objects.join(format!("{first:02x}"));
        fs::create_dir(&folder).map_err(GitError::io("make", &folder))?;
    }
    Ok(())
}
