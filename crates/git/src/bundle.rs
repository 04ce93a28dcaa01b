//! A repository as files of a backup: one bundle of everything that its refs reach, hidden refs included, and its
//! settings. Made while the repository is in use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use towpath_core::ids::CommitId;

use crate::environment::{Git, OUTPUT_BYTES_MAX};
use crate::error::GitError;
use crate::process::Bounds;
use crate::refs::{Expected, RefName, RefUpdate};
use crate::repository::Repository;

/// Time for one repository either way. Linux's history takes 10 minutes on two cores.
const COPY_DEADLINE: Duration = Duration::from_secs(3600);
/// What the refs reach.
const BUNDLE: &str = "objects.bundle";
/// Files beside it, as they stand in the repository. The settings list objects that an import tolerated.
const FILES: [&str; 2] = ["config", "HEAD"];
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
    /// `Damaged` or `DamagedBelow` if something that a ref reaches is lost or damaged; or the disk refuses.
    pub fn save(&self, into: &Path) -> Result<(), GitError> {
        fs::create_dir(into).map_err(GitError::io("make", into))?;
        if !self.all_refs()?.is_empty() {
            let bundle = into.join(BUNDLE);
            let call = self.call("bundle").args(["create", "--quiet"]).arg(&bundle).arg("--all");
            call.prepare().output(&[], bounds()).map_err(|error| self.located(error))?;
            self.git().sync(&bundle)?;
        }
        for name in FILES {
            let (from, to) = (self.path().join(name), into.join(name));
            fs::copy(&from, &to).map_err(GitError::io("copy", &from))?;
            self.git().sync(&to)?;
        }
        self.git().sync(into)
    }

    /// Makes the repository again that [`Repository::save`] wrote to `from`. It appears at `path` whole, or not at all.
    ///
    /// # Errors
    /// `Exists` if something is there already; `Failed` if the files are damaged.
    pub fn restore(git: &Git, from: &Path, path: &Path) -> Result<Repository, GitError> {
        let draft = Repository::create_draft(git, path)?;
        for name in FILES {
            let (from, to) = (from.join(name), draft.path().join(name));
            fs::copy(&from, &to).map_err(GitError::io("copy", &from))?;
            git.sync(&to)?;
        }
        let bundle = from.join(BUNDLE);
        if bundle.is_file() {
            let call = draft.call("fetch").protocols("file").config("protocol.file.allow=always");
            // They were judged when they were pushed or imported.
            let call = call.config("fetch.fsckObjects=false").config("transfer.fsckObjects=false");
            let call = call.args(["--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options"]);
            call.arg(&bundle).arg("+refs/*:refs/*").prepare().output(&[], bounds())?;
        }
        draft.unpin()?;
        draft.publish(path)
    }
}
