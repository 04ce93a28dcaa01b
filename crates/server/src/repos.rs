//! The bare repositories of the built-in forge, each opened once.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::{RepoName, Timestamp};
use towpath_git::{Git, GitError, Repository};
use towpath_store::Writer;
use towpath_store::records::{Alert, Repo};

use crate::settings::RepoSettings;

/// Every repository on this server.
#[derive(Debug)]
pub struct Repos {
    git: Git,
    folder: PathBuf,
    open: Mutex<HashMap<RepoName, Repository>>,
    /// Not to be used by this server.
    refused: Mutex<HashSet<RepoName>>,
}

impl Repos {
    /// Repositories below `folder`.
    pub fn new(git: Git, folder: PathBuf) -> Repos {
        Repos { git, folder, open: Mutex::default(), refused: Mutex::default() }
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
    /// `NotThere` if it does not; `NotCleared` if it is not to be used.
    pub fn get(&self, name: &RepoName) -> Result<Repository, GitError> {
        if self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Err(GitError::NotCleared);
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(name) {
            return Ok(repository.clone());
        }
        let repository = Repository::open(&self.git, &self.path(name))?;
        open.insert(name.clone(), repository.clone());
        Ok(repository)
    }

    /// Has nothing use a repository until the next start.
    pub fn refuse(&self, name: &RepoName) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    }
}

/// Logs that something cannot be done with a repository, and tells its people. The reason is in the log alone: it names
/// places of this machine. Where the alert cannot be written, as on a full disk, the log has that as well.
pub fn unusable(writer: &Writer, repo: &Repo, (what, why): (&str, &dyn Display), at: Timestamp) {
    let name = &repo.name;
    tracing::error!(repo = %name, "{what} of {name}: {why}");
    let text = format!(
        "{what} of `{name}` did not work: an admin finds the reason in the server's log. If the disk has lost something \
         of the repository, put `repos/{name}.git` in the data folder back from a backup, and start the server again"
    );
    // Whoever reads the settings says that they cannot be read.
    let Ok(RepoSettings { default_branch: branch, .. }) = RepoSettings::parse(&repo.settings) else { return };
    let alert = Alert { repo: name.clone(), branch, text, at };
    if let Err(why) = writer.write(move |tx| tx.add_alert(&alert)) {
        tracing::error!(repo = %name, "nobody was told of it: {why}");
    }
}

#[cfg(test)]
mod tests {
    use towpath_git::GitOptions;

    use super::*;

    #[test]
    fn a_repository_that_was_refused_is_not_used_and_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let repos = Repos::new(Git::find(GitOptions::default()).unwrap(), folder.path().to_owned());
        let [one, other]: [RepoName; 2] = ["one", "other"].map(|name| name.parse().unwrap());
        for name in [&one, &other] {
            Repository::create(repos.git(), &repos.path(name)).unwrap();
            repos.get(name).unwrap();
        }
        repos.refuse(&one);
        assert!(matches!(repos.get(&one), Err(GitError::NotCleared)), "though it was opened before");
        repos.get(&other).unwrap();
    }
}
