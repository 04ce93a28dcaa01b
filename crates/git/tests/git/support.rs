//! A bare repository of ours and an ordinary clone with a working tree, made by plain git as anybody would use it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::ids::{BranchName, CommitId, Timestamp, TreeId};
use towpath_git::{Git, GitOptions, Repository};

pub struct World {
    pub folder: TempDir,
    pub git: Git,
    pub repository: Repository,
}

/// Every git on this machine: what works with one version must work with the others.
pub fn every_git() -> Vec<Git> {
    let programs = ["/usr/bin/git", "/usr/local/bin/git", "/opt/homebrew/bin/git"].map(PathBuf::from);
    let found = programs.into_iter().filter(|program| program.is_file());
    let gits: Vec<Git> = found
        .map(|program| Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap())
        .collect();
    assert!(!gits.is_empty(), "no git in the usual places");
    gits
}

impl World {
    pub fn new() -> World {
        World::with(Git::find(GitOptions::default()).unwrap())
    }

    pub fn with(git: Git) -> World {
        let folder = TempDir::new().unwrap();
        let repository = Repository::create(&git, &folder.path().join("store.git")).unwrap();
        let world = World { folder, git, repository };
        std::fs::create_dir(world.work()).unwrap();
        world.run(&["init", "--quiet", "--initial-branch=main", "."]);
        world
    }

    /// The working tree of the clone.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Plain git in the clone.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether plain git succeeds.
    pub fn succeeds(&self, arguments: &[&str]) -> bool {
        self.command(arguments).output().unwrap().status.success()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        plain_git(&self.git, &self.work(), arguments)
    }

    /// Plain git in the bare repository, past all of our own code.
    pub fn in_store(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = plain_git(&self.git, self.repository.path(), arguments);
        command.env("GIT_DIR", self.repository.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the git processes of one subcommand that our code keeps open on the bare repository; says how many.
    pub fn kill_kept_open(&self, subcommand: &str) -> usize {
        let store = self.repository.path().to_str().unwrap();
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let arguments = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let ours = arguments.split('\0').any(|word| word == subcommand) && arguments.contains(store);
            entry.file_name().to_str()?.parse().ok().filter(|_| ours)
        });
        let pids: Vec<i32> = pids.collect();
        for pid in &pids {
            kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL).unwrap();
        }
        pids.len()
    }

    pub fn write(&self, path: impl AsRef<OsStr>, text: impl AsRef<[u8]>) {
        let path = self.work().join(path.as_ref());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits all that is in the working tree.
    pub fn commit(&self, message: &str) -> CommitId {
        self.run(&["add", "--all", "."]);
        self.run(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    /// Writes one file and commits it.
    pub fn commit_file(&self, path: &str, text: &str) -> CommitId {
        self.write(path, text);
        self.commit(&format!("{path}: {}", text.lines().next().unwrap_or_default()))
    }

    pub fn head(&self) -> CommitId {
        self.run(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub fn tree_of(&self, revision: &str) -> TreeId {
        self.run(&["rev-parse", &format!("{revision}^{{tree}}")]).parse().unwrap()
    }

    pub fn checkout(&self, commit: CommitId) {
        self.run(&["checkout", "--quiet", "--detach", &commit.to_string()]);
    }

    /// Brings objects and a branch into the bare repository.
    pub fn push(&self, commit: CommitId, branch: &str) {
        let store = self.repository.path().to_str().unwrap().to_owned();
        self.run(&["push", "--quiet", "--force", &store, &format!("{commit}:refs/heads/{branch}")]);
    }

    /// Two commits on one base: `(ours, theirs)`, pushed as `main` and `topic`.
    pub fn fork(&self, ours: (&str, &str), theirs: (&str, &str)) -> (CommitId, CommitId) {
        let base = self.commit_file("base", "base\n");
        let ours = self.commit_file(ours.0, ours.1);
        self.checkout(base);
        let theirs = self.commit_file(theirs.0, theirs.1);
        self.push(ours, "main");
        self.push(theirs, "topic");
        (ours, theirs)
    }
}

/// A program that says it is git 2.40 and then does `body`.
pub fn pretend_git(folder: &TempDir, body: &str) -> GitOptions {
    let program = folder.path().join("git");
    let version = "case \"$*\" in *version) echo git version 2.40.0; exit;; esac";
    write_program(&program, &format!("{version}\n{body}"));
    GitOptions { program: Some(program), call_deadline: Duration::from_millis(300), ..GitOptions::default() }
}

/// An executable shell script.
pub fn write_program(path: &Path, body: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Not written by this process: it may have a file that it wrote still open in a child that another test just starts.
    assert!(Command::new("cp").arg(&draft).arg(path).status().unwrap().success());
}

fn plain_git(git: &Git, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(git.program());
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0100")
        .env("GIT_COMMITTER_DATE", "1700000000 +0100")
        .args(["-c", "protocol.file.allow=always", "-c", "advice.detachedHead=false"])
        .args(arguments)
        .current_dir(folder);
    command
}

pub fn spec(parent: CommitId, revision: CommitId, strategy: Strategy) -> CandidateSpec {
    let time = Timestamp(1_700_000_123_456);
    CandidateSpec { parent, revision, strategy, message: "land it".to_owned(), time }
}

pub fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

pub fn latin1(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
