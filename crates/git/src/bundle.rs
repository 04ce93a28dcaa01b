//! A repository as files of a backup: one bundle of everything that its refs reach, hidden refs included, and its
//! settings. Made while the repository is in use.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sha1::{Digest as _, Sha1};
use towpath_core::ids::CommitId;

use crate::environment::{Git, OUTPUT_BYTES_MAX};
use crate::error::GitError;
use crate::import::{check_tolerated, record_tolerated};
use crate::object::ObjectId;
use crate::process::Bounds;
use crate::refs::{Expected, RefName, RefUpdate};
use crate::repository::Repository;

/// Time for one repository either way. Linux's history takes 10 minutes on two cores.
const COPY_DEADLINE: Duration = Duration::from_secs(3600);
/// Bytes of a file that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// What the refs reach.
const BUNDLE: &str = "objects.bundle";
/// Files beside it, as they stand in the repository. The settings list objects that an import tolerated.
const FILES: [&str; 2] = ["config", "HEAD"];
/// Settings of a tolerated check, as `git config` lists them.
const TOLERATED: &str = r"^receive\.fsck\.";
/// What the others hold, as `sha1sum` writes and checks it. A bundle vouches for its objects and not for its refs.
const SUMS: &str = "SHA1SUMS";
/// Refs that hold, while a backup is made, what its database names.
const PINS: &str = "refs/towpath/backup";

fn bounds() -> Bounds {
    Bounds { deadline: COPY_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX }
}

fn pin(commit: CommitId) -> RefName {
    format!("{PINS}/{commit}").parse().expect("invariant: it is a ref name")
}

impl Repository {
    /// Holds commits against garbage collection until [`Repository::unpin`]. Those that are not there are left out.
    pub fn pin(&self, commits: &[CommitId]) -> Result<(), GitError> {
        let mut updates = Vec::new();
        for commit in commits {
            if self.has_commit(*commit)? {
                let target = Some((*commit).into());
                updates.push(RefUpdate { name: pin(*commit), expected: Expected::Anything, target });
            }
        }
        self.ref_transaction(&updates).map(drop)
    }

    /// Lets go of everything that was pinned.
    pub fn unpin(&self) -> Result<(), GitError> {
        let gone = |name| RefUpdate { name, expected: Expected::Anything, target: None };
        let updates: Vec<RefUpdate> = self.refs(PINS)?.into_iter().map(|held| gone(held.name)).collect();
        self.ref_transaction(&updates).map(drop)
    }

    /// Writes the repository into a new folder `into`, durably but for the folder's own name.
    ///
    /// # Errors
    /// Those of git and of both disks; [`Repository::blamed`] tells them apart.
    pub fn save(&self, into: &Path) -> Result<(), GitError> {
        fs::create_dir(into).map_err(GitError::io("make", into))?;
        if !self.all_refs()?.is_empty() {
            let bundle = into.join(BUNDLE);
            let call = self.call("bundle").args(["create", "--quiet"]).arg(&bundle).arg("--all");
            call.prepare().output(&[], bounds())?;
            self.git().sync(&bundle)?;
        }
        for name in FILES {
            let text = fs::read(self.path().join(name)).map_err(|why| unreadable(name, &why))?;
            self.git().write_synced(&into.join(name), text)?;
        }
        self.git().write_synced(&into.join(SUMS), sums_of(into)?)?;
        self.git().sync(into)
    }

    /// The error of a call that read what the refs reach and wrote it elsewhere: whether this repository is at fault is seen
    /// by reading all of it once more, and writing nothing.
    pub fn blamed(&self, error: GitError) -> GitError {
        match self.located(error) {
            failed @ GitError::Failed { .. } => self.unread().unwrap_or(failed),
            error => error,
        }
    }

    fn unread(&self) -> Option<GitError> {
        let call = self.call("rev-list").args(["--verify-objects", "--quiet", "--all"]);
        let finished = call.prepare().finish(&[], bounds()).ok()?;
        // Whoever was killed, for want of memory say, has found nothing.
        let is_killed = finished.status.signal() == Some(Signal::KILL.as_raw());
        let why = || format!("the repository cannot be read: {}: {}", finished.status, finished.stderr);
        (!finished.status.success() && !is_killed).then(|| GitError::Unreadable { why: why() })
    }

    /// Makes the repository again that [`Repository::save`] wrote to `from`. It appears at `path` whole, or not at all.
    ///
    /// # Errors
    /// `Exists` if something is there already; `Unreadable` if a file is not as it was saved; else those of git and the disk.
    pub fn restore(git: &Git, from: &Path, path: &Path) -> Result<Repository, GitError> {
        check_sums(from)?;
        let draft = Repository::create_draft(git, path)?;
        let bundle = from.join(BUNDLE);
        if bundle.is_file() {
            let call = draft.call("fetch").protocols("file").config("protocol.file.allow=always");
            // They were judged when they were pushed or imported.
            let call = call.config("fetch.fsckObjects=false").config("transfer.fsckObjects=false");
            let call = call.args(["--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options"]);
            call.arg(&bundle).arg("+refs/*:refs/*").prepare().output(&[], bounds())?;
        }
        draft.unpin()?;
        draft.take_settings(from)?;
        draft.publish(path)
    }

    /// Takes what an import has decided out of the saved settings: the checks that it tolerated, and the branch of HEAD. All
    /// else is ours to say: settings name programs to run and what is shown to whom, and whoever can write to a backup is not
    /// to decide that.
    fn take_settings(&self, from: &Path) -> Result<(), GitError> {
        let [config, head] = FILES;
        let call = self.call("config").arg("--file").arg(from.join(config)).args(["--no-includes", "--null"]);
        let listed = call.args(["--get-regexp", TOLERATED]).prepare().finish(&[], self.bounds())?;
        let no_such = listed.status.code() == Some(1);
        if !listed.status.success() && !no_such {
            return Err(listed.failed("config"));
        }
        let text = String::from_utf8_lossy(&listed.output).into_owned();
        let tolerated = text.split_terminator('\0').filter_map(|entry| {
            let (key, value) = entry.split_once('\n')?;
            key.rsplit('.').next().filter(|_| value == "ignore")
        });
        let tolerated: Vec<&str> = tolerated.collect();
        check_tolerated(&tolerated)?;
        record_tolerated(self, &tolerated)?;
        self.git().sync(&self.path().join(config))?;
        let text = fs::read_to_string(from.join(head)).map_err(|why| unreadable(head, &why))?;
        let branch = text.trim_end().strip_prefix("ref: refs/heads/").and_then(|name| name.parse().ok());
        let none = || GitError::Unreadable { why: format!("its file `{head}` names no branch") };
        self.set_head(&branch.ok_or_else(none)?)
    }
}

fn unreadable(name: &str, why: &io::Error) -> GitError {
    GitError::Unreadable { why: format!("its file `{name}` cannot be read: {why}") }
}

/// A line for each file that was saved.
fn sums_of(folder: &Path) -> Result<String, GitError> {
    let saved = [BUNDLE].into_iter().chain(FILES).filter(|name| folder.join(name).is_file());
    saved.map(|name| Ok(format!("{}  {name}\n", sum_of(folder, name)?))).collect()
}

fn sum_of(folder: &Path, name: &str) -> Result<ObjectId, GitError> {
    let failed = |why| unreadable(name, &why);
    let mut file = File::open(folder.join(name)).map_err(failed)?;
    let (mut hasher, mut buffer) = (Sha1::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(ObjectId(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Whether everything is there as it was saved. Where nothing says how that was, git sees what it can.
fn check_sums(folder: &Path) -> Result<(), GitError> {
    let told = match fs::read_to_string(folder.join(SUMS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        told => told.map_err(|why| unreadable(SUMS, &why))?,
    };
    for line in told.lines() {
        let (sum, name) = line.split_once("  ").unwrap_or_default();
        if sum_of(folder, name)?.to_string() != sum {
            return Err(GitError::Unreadable { why: format!("its file `{name}` is not as it was saved") });
        }
    }
    Ok(())
}
