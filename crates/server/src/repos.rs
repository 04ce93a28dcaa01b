//! The bare repositories of the built-in forge, each opened once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::{RepoName, Timestamp};
use towpath_git::{Git, GitError, Repository};
use towpath_store::records::{Alert, Repo};

use crate::settings::RepoSettings;

/// Every repository on this server.
#[derive(Debug)]
pub struct Repos {
    git: Git,
    folder: PathBuf,
    open: Mutex<HashMap<RepoName, Repository>>,
}

impl Repos {
    /// Repositories below `folder`.
    pub fn new(git: Git, folder: PathBuf) -> Repos {
        Repos { git, folder, open: Mutex::default() }
    }

    /// The git that they are used with.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// Where a repository is, or would be.
    pub fn path(&self, name: &RepoName) -> PathBuf {
        self.folder.join(format!("{name}.git"))
    }

    /// The folder of all repositories.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A repository that exists.
    ///
    /// # Errors
    /// `NotThere` if it does not.
    pub fn get(&self, name: &RepoName) -> Result<Repository, GitError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(name) {
            return Ok(repository.clone());
        }
        let repository = Repository::open(&self.git, &self.path(name))?;
        open.insert(name.clone(), repository.clone());
        Ok(repository)
    }
}

/// Logs that something cannot be done with a repository, and returns what its people are told. The reason is in the log
/// alone: it names places of this machine.
pub fn unusable(repo: &Repo, what: &str, why: &dyn std::fmt::Display, at: Timestamp) -> Option<Alert> {
    let name = &repo.name;
    tracing::error!(repo = %name, "{what} of {name}: {why}");
    let text = format!(
        "{what} of `{name}` did not work: an admin finds the reason in the server's log. If the disk has lost something \
         of the repository, put `repos/{name}.git` in the data folder back from a backup, and start the server again"
    );
    // Whoever reads the settings says that they cannot be read.
    let branch = RepoSettings::parse(&repo.settings).ok()?.default_branch;
    Some(Alert { repo: name.clone(), branch, text, at })
}
