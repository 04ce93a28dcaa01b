//! The bare repositories of the built-in forge, each opened once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::RepoName;
use towpath_git::{Git, GitError, Repository};

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
