//! A developer's own clone: what `towpath run` copies from, and what `towpath repo import` adds a remote to.
//!
//! Unlike everywhere else, the developer's own configuration holds here (ignore rules, ways to a remote). Nothing that
//! the tree itself could bring along runs all the same: no hooks, no monitor, no filters. Only the calls that say so
//! write, and only settings (requirement S12 of the trust document).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use towpath_core::ids::{BranchName, CommitId, TreeId};

use crate::environment::{Git, OUTPUT_BYTES_MAX};
use crate::error::{GitError, printable};
use crate::object::TreePath;
use crate::process::{Bounds, Finished, Prepared};
use crate::refs::RefName;

/// Time for one call. Reading the state of 500,000 files from a cold disk takes less than a minute.
const CALL_DEADLINE: Duration = Duration::from_secs(300);
/// Git's mode of a submodule.
const MODE_SUBMODULE: &[u8] = b"160000";
/// Variables with which a hook's git names its own repository: the folder that was asked for is meant, not that one.
const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INDEX_VERSION",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
];
/// Configuration that holds whatever the developer's files say: nothing runs, nothing is written behind their back.
const PINNED: &[&str] = &["core.fsmonitor=false", "core.hooksPath=/dev/null", "gc.auto=0"];

/// A work tree with its repository, used as its owner uses it.
#[derive(Debug, Clone)]
pub struct Checkout {
    git: Git,
    top: PathBuf,
}

/// The commit that is checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckoutHead {
    /// The commit.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// The branch, without `refs/heads/`; absent when detached.
    pub branch: Option<String>,
}

/// What git counts as part of a work tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckoutFiles {
    /// Tracked files, and files that are neither tracked nor ignored; sorted, each once. Some may be missing on disk.
    pub files: Vec<TreePath>,
    /// Submodules, and repositories that merely lie there: their files belong to another repository.
    pub nested: Vec<TreePath>,
}

/// A remote and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Its address, as it is written in the configuration.
    pub url: String,
}

/// What a setting does to values that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<'a> {
    /// One value, instead of whatever was there.
    Only(&'a str),
    /// This value beside whatever else is there.
    Among(&'a str),
    /// No value.
    Absent,
}

impl Checkout {
    /// The work tree that `folder` is in; `None` where there is none.
    ///
    /// # Errors
    /// `Failed` with git's own words, such as those about a folder of another owner.
    pub fn find(git: &Git, folder: &Path) -> Result<Option<Checkout>, GitError> {
        let call = call_in(git, folder, "rev-parse", &["--show-toplevel"]);
        let finished = call.finish(&[], bounds())?;
        if finished.status.success() {
            let mut path = finished.output;
            path.pop_if(|last| *last == b'\n');
            return Ok(Some(Checkout { git: git.clone(), top: OsString::from_vec(path).into() }));
        }
        let absent = ["not a git repository", "must be run in a work tree"];
        match absent.iter().any(|words| finished.stderr.contains(words)) {
            true => Ok(None),
            false => Err(finished.failed("rev-parse")),
        }
    }

    /// The folder at the top.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The commit that is checked out; `None` before the first one.
    pub fn head(&self) -> Result<Option<CheckoutHead>, GitError> {
        let Some(commit) = self.resolve("HEAD^{commit}")? else { return Ok(None) };
        let tree = self.resolve("HEAD^{tree}")?.ok_or_else(|| GitError::unexpected("rev-parse", b""))?;
        let branch = self.finish("symbolic-ref", ["--quiet", "HEAD"])?;
        let branch = printable(&branch.output);
        let parse = |text: &str| GitError::unexpected("rev-parse", text.as_bytes());
        Ok(Some(CheckoutHead {
            commit: commit.parse().map_err(|_| parse(&commit))?,
            tree: tree.parse().map_err(|_| parse(&tree))?,
            branch: branch.strip_prefix("refs/heads/").map(str::to_owned),
        }))
    }

    /// Whether there is a branch of this name.
    pub fn has_branch(&self, name: &str) -> Result<bool, GitError> {
        Ok(self.resolve(&format!("refs/heads/{name}^{{commit}}"))?.is_some())
    }

    /// Everything that `git add --all` would look at. Reads the index and the work tree and writes neither.
    ///
    /// # Errors
    /// `OutputTooLarge` beyond some 500,000 paths.
    pub fn files(&self) -> Result<CheckoutFiles, GitError> {
        let tracked = self.output("ls-files", ["--cached", "--stage", "-z"])?;
        let others = self.output("ls-files", ["--others", "--exclude-standard", "-z"])?;
        let mut found = CheckoutFiles::default();
        for record in fields(&tracked) {
            let (mode, path) = staged(record).ok_or_else(|| GitError::unexpected("ls-files", record))?;
            let kind = if mode == MODE_SUBMODULE { &mut found.nested } else { &mut found.files };
            kind.push(TreePath(path.to_vec()));
        }
        for path in fields(&others) {
            match path.strip_suffix(b"/") {
                Some(folder) => found.nested.push(TreePath(folder.to_vec())),
                None => found.files.push(TreePath(path.to_vec())),
            }
        }
        for paths in [&mut found.files, &mut found.nested] {
            paths.sort();
            paths.dedup();
        }
        Ok(found)
    }

    /// Paths that differ between `base` and the work tree, on both sides of a rename, with what is not yet tracked.
    /// `base` is a commit id or a full ref name; `None` if there is no such commit.
    pub fn changed_since(&self, base: &str) -> Result<Option<Vec<TreePath>>, GitError> {
        let Some(base) = self.resolve(&format!("{base}^{{commit}}"))? else { return Ok(None) };
        let merge_base = self.finish("merge-base", [base.as_str(), "HEAD"])?;
        let start = match merge_base.status.success() {
            true => printable(&merge_base.output),
            false => base,
        };
        let options = ["--name-only", "-z", "--no-renames", "--ignore-submodules=dirty", start.as_str()];
        let changed = self.output("diff-index", options)?;
        let others = self.output("ls-files", ["--others", "--exclude-standard", "-z"])?;
        let mut paths: Vec<TreePath> =
            fields(&changed).chain(fields(&others)).map(|path| TreePath(path.to_vec())).collect();
        paths.sort();
        paths.dedup();
        Ok(Some(paths))
    }

    /// The remotes.
    pub fn remotes(&self) -> Result<Vec<Remote>, GitError> {
        let found = self.finish("config", ["--null", "--get-regexp", "^remote\\..*\\.url$"])?;
        let remote = |record: &[u8]| {
            let (key, url) = std::str::from_utf8(record).ok()?.split_once('\n')?;
            let name = key.strip_prefix("remote.")?.strip_suffix(".url")?;
            Some(Remote { name: name.to_owned(), url: url.to_owned() })
        };
        Ok(fields(&found.output).filter_map(remote).collect())
    }

    /// Where a fetch from the remote puts what the other side has as `name`; `None` if it fetches no such ref.
    pub fn fetched_as(&self, remote: &str, name: &RefName) -> Result<Option<RefName>, GitError> {
        let found = self.finish("config", ["--null", "--get-all", &format!("remote.{remote}.fetch")])?;
        let mut refspecs = fields(&found.output).filter_map(|refspec| std::str::from_utf8(refspec).ok());
        Ok(refspecs.find_map(|refspec| mapped(refspec, name.as_str())?.parse().ok()))
    }

    /// A setting's newest value, from any file that counts.
    pub fn setting(&self, key: &str) -> Result<Option<String>, GitError> {
        let found = self.finish("config", ["--null", "--get", key])?;
        let value = found.output.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(found.status.success().then(|| String::from_utf8_lossy(value).into_owned()))
    }

    /// Changes a setting in the repository's own file. Doing it again changes nothing.
    pub fn set(&self, key: &str, setting: Setting) -> Result<(), GitError> {
        match setting {
            Setting::Only(value) => {
                self.output("config", ["--local", "--replace-all", key, value])?;
            }
            Setting::Among(value) => {
                let known = ["--local", "--fixed-value", "--get-all", key, value];
                if !self.finish("config", known)?.status.success() {
                    self.output("config", ["--local", "--add", key, value])?;
                }
            }
            Setting::Absent if self.local_values(key)? => {
                self.output("config", ["--local", "--unset-all", key])?;
            }
            Setting::Absent => {}
        }
        Ok(())
    }

    /// The folder of the repository's own files.
    pub fn git_dir(&self) -> Result<PathBuf, GitError> {
        let mut path = self.output("rev-parse", ["--absolute-git-dir"])?;
        path.pop_if(|last| *last == b'\n');
        Ok(OsString::from_vec(path).into())
    }

    /// The folder of the files that all work trees of the repository share, its configuration among them.
    pub fn common_dir(&self) -> Result<PathBuf, GitError> {
        let mut path = self.output("rev-parse", ["--path-format=absolute", "--git-common-dir"])?;
        path.pop_if(|last| *last == b'\n');
        Ok(OsString::from_vec(path).into())
    }

    /// Whether a part of its history was left out when it was cloned or fetched.
    pub fn is_shallow(&self) -> Result<bool, GitError> {
        Ok(self.output("rev-parse", ["--is-shallow-repository"])? == b"true\n")
    }

    /// Makes a bare repository at `into` with one branch, its history, and the tags on it: objects of its own, none of
    /// the developer's settings and none of their other branches.
    ///
    /// # Errors
    /// `Failed` with git's own words if there is no such branch.
    pub fn copy_branch(&self, branch: &BranchName, into: &Path) -> Result<(), GitError> {
        let branch = format!("--branch={branch}");
        let options = ["--quiet", "--bare", "--no-local", "--single-branch", "--template=", &branch];
        let clone = options.map(OsStr::new).into_iter().chain([self.top.as_os_str(), into.as_os_str()]);
        self.call("clone", clone).output(&[], bounds())?;
        Ok(())
    }

    /// Writes a `.git` with what the checked-out commit reaches into `into`, a copy of the files: objects of its own,
    /// no way back, none of the developer's settings. Differences to the commit show as changes, as they do here.
    ///
    /// # Errors
    /// `NotThere` before the first commit.
    pub fn copy_history(&self, into: &Path) -> Result<(), GitError> {
        if self.head()?.is_none() {
            return Err(GitError::NotThere { what: "commit", name: "HEAD".to_owned() });
        }
        let inner = into.join(".git");
        // `--no-local` sends objects through a pipe: no hard link leads back, and only what is reachable comes along.
        let options = ["--quiet", "--bare", "--no-local", "--single-branch", "--template="];
        let clone = options.map(OsStr::new).into_iter().chain([self.top.as_os_str(), inner.as_os_str()]);
        self.call("clone", clone).output(&[], bounds())?;
        let file = inner.join("config");
        let file = file.as_os_str();
        let local = |arguments: [&str; 2]| {
            let arguments = arguments.map(OsStr::new);
            self.call("config", [OsStr::new("--file"), file].into_iter().chain(arguments))
        };
        local(["core.bare", "false"]).output(&[], bounds())?;
        local(["--remove-section", "remote.origin"]).finish(&[], bounds())?;
        let copy = Checkout { git: self.git.clone(), top: into.to_owned() };
        copy.output("read-tree", ["HEAD"])?;
        // It reports files that differ, which is what a developer's tree does.
        copy.finish("update-index", ["-q", "--refresh"])?;
        Ok(())
    }

    fn local_values(&self, key: &str) -> Result<bool, GitError> {
        Ok(self.finish("config", ["--local", "--get-all", key])?.status.success())
    }

    fn resolve(&self, name: &str) -> Result<Option<String>, GitError> {
        let found = self.finish("rev-parse", ["--verify", "--quiet", "--end-of-options", name])?;
        Ok(found.status.success().then(|| printable(&found.output)))
    }

    fn call(&self, call: &'static str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Prepared {
        let mut prepared = call_in(&self.git, &self.top, call, &[]);
        prepared.command.args(arguments);
        prepared
    }

    fn finish<const N: usize>(&self, call: &'static str, arguments: [&str; N]) -> Result<Finished, GitError> {
        self.call(call, arguments).finish(&[], bounds())
    }

    fn output<const N: usize>(&self, call: &'static str, arguments: [&str; N]) -> Result<Vec<u8>, GitError> {
        self.call(call, arguments).output(&[], bounds())
    }
}

fn bounds() -> Bounds {
    Bounds { deadline: CALL_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX }
}

fn call_in(git: &Git, folder: &Path, call: &'static str, arguments: &[&str]) -> Prepared {
    let mut command = Command::new(git.program());
    REPOSITORY_VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    command.args(["--no-optional-locks", "--literal-pathspecs"]);
    PINNED.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    command.current_dir(folder).arg(call).args(arguments);
    Prepared { command, call, file_bytes_max: None, interrupt: None, listen_for: None }
}

fn fields(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0).filter(|field| !field.is_empty())
}

/// What a refspec makes of a name. Each side has one `*`, or neither has. Source: git-fetch(1), `<refspec>`.
fn mapped(refspec: &str, name: &str) -> Option<String> {
    let (from, to) = refspec.trim_start_matches('+').split_once(':')?;
    let Some(((before, after), (head, tail))) = from.split_once('*').zip(to.split_once('*')) else {
        return (from == name).then(|| to.to_owned());
    };
    let part = name.strip_prefix(before)?.strip_suffix(after)?;
    Some(format!("{head}{part}{tail}"))
}

/// `100644 <id> 0\tpath`.
fn staged(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = record.iter().position(|byte| *byte == b'\t')?;
    let mode = record[..tab].split(|byte| *byte == b' ').next()?;
    Some((mode, &record[tab + 1..]))
}
