//! The one way in which Towpath starts git: nothing of the machine's, the user's or the tree's configuration counts.
//!
//! Requirement T6 of the trust document. Every variable is cleared, every file that git reads on its own accord is
//! switched off, and what decides a merge is pinned, so that the same objects give the same answer on every machine.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::durable::UnsyncedListener;
use crate::error::{GitError, printable};
use crate::process::{Bounds, Prepared};

/// The oldest git that will do: `merge-tree --write-tree` came with it.
pub const VERSION_NEEDED: &str = "2.38";
const VERSION_NEEDED_NUMBERS: (u32, u32) = (2, 38);

/// Where programs are looked for unless the options say otherwise.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Time for the merges of one candidate. The slowest of 246 hard pairs of a large repository took 6 s, and a step of a rebase
/// takes a millisecond; a search for renames among thousands of files takes hours.
const MERGE_DEADLINE: Duration = Duration::from_secs(60);
/// Time for one ordinary call. A call on a large repository takes 2 s at most here; a disk that hangs takes for ever.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Output of one ordinary call, in bytes: a million ids or a hundred thousand refs.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Names the server that started a git.
pub(crate) const OWNER: &str = "TOWPATH_GIT_OF";

/// The tree without entries; git knows it without storing it.
pub(crate) const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// Configuration that holds in every call, whatever a repository's own file says.
///
/// The rename settings are git's own defaults: they are written down so that a candidate's tree does not depend on a
/// file, and so that it stays equal to what `git merge` makes elsewhere.
const PINNED: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    "core.autocrlf=false",
    "core.logAllRefUpdates=false",
    // Forty hex digits are an object, always: git need not look for a ref of that name in six places.
    "core.warnAmbiguousRefs=false",
    "safe.bareRepository=explicit",
    "attr.tree=4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "init.defaultBranch=main",
    // Candidates are held by files of this format.
    "init.defaultRefFormat=files",
    "gc.auto=0",
    "maintenance.auto=false",
    "merge.renames=true",
    "merge.renameLimit=7000",
    "merge.directoryRenames=conflict",
    "merge.renormalize=false",
    "diff.renames=true",
    "diff.renameLimit=1000",
    "protocol.allow=never",
    // Newer gits warn of the empty grafts file that keeps a planted one from being read.
    "advice.graftFileDeprecated=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
];

/// Which git to use, and how long it may take.
#[derive(Debug, Clone)]
pub struct GitOptions {
    /// The git program; looked for on the search path if absent.
    pub program: Option<PathBuf>,
    /// Folders with git, stdbuf and ssh, separated by colons.
    pub search_path: OsString,
    /// Time for one ordinary call; merges and copies have their own.
    pub call_deadline: Duration,
    /// Time for all merges of one candidate.
    pub merge_deadline: Duration,
    /// The certificates by which it knows other machines, in one file; the machine's own, if absent.
    pub certificates: Option<PathBuf>,
    /// Whose gits these are, for [`Git::end_orphans`]: the data folder of a server. Nobody's, if absent.
    pub owner: Option<OsString>,
    /// Hears of writes that the disk did not confirm.
    pub unsynced: UnsyncedListener,
}

impl Default for GitOptions {
    fn default() -> Self {
        GitOptions {
            program: None,
            search_path: SEARCH_PATH.into(),
            call_deadline: CALL_DEADLINE,
            merge_deadline: MERGE_DEADLINE,
            certificates: None,
            owner: None,
            unsynced: UnsyncedListener::default(),
        }
    }
}

/// A git that was found fit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Git {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    version: String,
    stdbuf: Option<PathBuf>,
    search_path: OsString,
    call_deadline: Duration,
    merge_deadline: Duration,
    certificates: Option<PathBuf>,
    owner: Option<OsString>,
    unsynced: UnsyncedListener,
    /// Whether a kept-open merge answers line by line; known after the first merge.
    merges_answer_at_once: OnceLock<bool>,
}

impl Git {
    /// Finds git and asks for its version.
    ///
    /// # Errors
    /// `NotStarted` without git, `TooOld` below [`VERSION_NEEDED`].
    pub fn find(options: GitOptions) -> Result<Git, GitError> {
        let program = match options.program {
            Some(program) => program,
            None => on_path(&options.search_path, "git").unwrap_or_else(|| PathBuf::from("git")),
        };
        let stdbuf = on_path(&options.search_path, "stdbuf");
        let shared = Shared {
            program,
            version: String::new(),
            stdbuf,
            search_path: options.search_path,
            call_deadline: options.call_deadline,
            merge_deadline: options.merge_deadline,
            // A call of git runs in another folder than this process.
            certificates: options
                .certificates
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| std::path::absolute(&path).unwrap_or(path)),
            owner: options.owner,
            unsynced: options.unsynced,
            merges_answer_at_once: OnceLock::new(),
        };
        let version = probe_version(&shared)?;
        Ok(Git { shared: Arc::new(Shared { version, ..shared }) })
    }

    /// What `git version` says.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// The program that is used.
    pub fn program(&self) -> &Path {
        &self.shared.program
    }

    pub(crate) fn merge_deadline(&self) -> Duration {
        self.shared.merge_deadline
    }

    pub(crate) fn certificates(&self) -> Option<&Path> {
        self.shared.certificates.as_deref()
    }

    pub(crate) fn owner(&self) -> Option<&OsStr> {
        self.shared.owner.as_deref()
    }

    pub(crate) fn unsynced(&self) -> &UnsyncedListener {
        &self.shared.unsynced
    }

    pub(crate) fn stdbuf(&self) -> Option<&Path> {
        self.shared.stdbuf.as_deref()
    }

    pub(crate) fn merges_answer_at_once(&self) -> &OnceLock<bool> {
        &self.shared.merges_answer_at_once
    }

    /// A call outside of any repository.
    pub(crate) fn call(&self, call: &'static str) -> Call<'_> {
        Call::new(&self.shared, call)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { deadline: self.shared.call_deadline, output_bytes_max: OUTPUT_BYTES_MAX }
    }
}

/// One git call in the making.
pub(crate) struct Call<'a> {
    shared: &'a Shared,
    call: &'static str,
    git_dir: Option<&'a Path>,
    folder: Option<&'a Path>,
    protocols: &'a str,
    file_bytes_max: Option<u64>,
    config: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    arguments: Vec<OsString>,
}

impl<'a> Call<'a> {
    fn new(shared: &'a Shared, call: &'static str) -> Call<'a> {
        Call {
            shared,
            call,
            git_dir: None,
            folder: None,
            protocols: "none",
            file_bytes_max: None,
            config: Vec::new(),
            variables: Vec::new(),
            arguments: Vec::new(),
        }
    }

    pub fn git_dir(mut self, git_dir: &'a Path) -> Self {
        self.git_dir = Some(git_dir);
        self
    }

    pub fn folder(mut self, folder: &'a Path) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Protocols that git may speak, separated by colons; none unless said.
    pub fn protocols(mut self, protocols: &'a str) -> Self {
        self.protocols = protocols;
        self
    }

    /// Bytes that any one file written by this call may have; the kernel stops what would pass it.
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    pub fn config(mut self, setting: impl Into<OsString>) -> Self {
        self.config.push(setting.into());
        self
    }

    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn prepare(self) -> Prepared {
        self.prepare_under(&[])
    }

    /// The command, started through `wrapper` (stdbuf with its options).
    pub fn prepare_under(self, wrapper: &[&OsStr]) -> Prepared {
        let mut command = match wrapper {
            [] => Command::new(&self.shared.program),
            [program, options @ ..] => {
                let mut command = Command::new(program);
                command.args(options).arg(&self.shared.program);
                command
            }
        };
        clear_environment(&mut command, self.shared, self.protocols);
        command.envs(self.variables);
        command.args(["--no-replace-objects", "--no-optional-locks", "--literal-pathspecs"]);
        for setting in PINNED {
            command.args(["-c", setting]);
        }
        for setting in &self.config {
            command.arg("-c").arg(setting);
        }
        if let Some(git_dir) = self.git_dir {
            let mut option = OsString::from("--git-dir=");
            option.push(git_dir);
            command.arg(option);
        }
        command.current_dir(self.folder.or(self.git_dir).unwrap_or(Path::new("/")));
        command.arg(self.call).args(self.arguments);
        Prepared {
            command,
            call: self.call,
            file_bytes_max: self.file_bytes_max,
            interrupt: None,
            listen_for: None,
        }
    }
}

fn clear_environment(command: &mut Command, shared: &Shared, protocols: &str) {
    command
        .env_clear()
        .env("PATH", &shared.search_path)
        // No netrc, no ~/.ssh, no ~/.config: whoever runs the server has them for other purposes.
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_GRAFT_FILE", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", protocols)
        .env("GIT_PROTOCOL_FROM_USER", "0");
    if let Some(owner) = &shared.owner {
        command.env(OWNER, owner);
    }
}

fn on_path(search_path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(search_path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn probe_version(shared: &Shared) -> Result<String, GitError> {
    let bounds = Bounds { deadline: shared.call_deadline, output_bytes_max: OUTPUT_BYTES_MAX };
    let answer = Call::new(shared, "version").prepare().output(&[], bounds)?;
    let found = printable(&answer);
    match version_numbers(&found) {
        Some(numbers) if numbers >= VERSION_NEEDED_NUMBERS => Ok(found),
        _ => Err(GitError::TooOld { program: shared.program.clone(), found, needed: VERSION_NEEDED }),
    }
}

/// `git version 2.39.5 (Apple Git-154)` is (2, 39).
fn version_numbers(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `SSL_CERT_FILE` may be: unset in the way of some shells, or by a name that leads nowhere from git's own folder.
    #[test]
    fn certificates_are_named_from_everywhere_or_not_at_all() {
        let named = |name: &str| {
            let options = GitOptions { certificates: Some(name.into()), ..GitOptions::default() };
            Git::find(options).unwrap().certificates().map(Path::to_owned)
        };
        let here = std::env::current_dir().unwrap();
        assert_eq!(named("some/bundle.crt"), Some(here.join("some/bundle.crt")));
        assert_eq!(named("/etc/bundle.crt"), Some("/etc/bundle.crt".into()));
        assert_eq!(named(""), None);
    }

    #[test]
    fn versions_are_read_with_their_suffixes() {
        let cases = [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.50.1 (Apple Git-155)", Some((2, 50))),
            ("git version 2.45.windows.1", Some((2, 45))),
            ("git version 3.0-rc1", Some((3, 0))),
            ("hub 2.14", None),
        ];
        cases.iter().for_each(|(text, numbers)| assert_eq!(version_numbers(text), *numbers, "{text}"));
    }
}
