//! The bare repositories of the built-in forge, each opened once, and which of them may be used.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use towpath_core::ids::{RepoName, Timestamp};
use towpath_git::{ErrorClass, Git, GitError, Repository};
use towpath_store::Writer;
use towpath_store::records::{Alert, Repo};

use crate::settings::RepoSettings;

/// Unused for so long, a git process is ended: less than the time between two polls of a branch, so that a server of many
/// repositories that has nothing to do holds none.
const PROCESS_IDLE: Duration = Duration::from_secs(20);

/// Every repository on this server.
#[derive(Debug)]
pub struct Repos {
    git: Git,
    folder: PathBuf,
    known: Mutex<HashMap<RepoName, Standing>>,
}

/// How a repository stands with this server.
#[derive(Debug)]
enum Standing {
    /// Whoever asks has it.
    InUse(Repository),
    /// Only whoever puts it right has it.
    Refused(Again),
}

impl Standing {
    fn repository(&self) -> Option<&Repository> {
        match self {
            Standing::InUse(repository) => Some(repository),
            Standing::Refused(_) => None,
        }
    }
}

/// When a repository that could not be put right is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// By this server: what was in the way, a full disk say, passes.
    Soon,
    /// When the server starts the next time, after a person has seen to it.
    NextStart,
}

/// Why a repository was not put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unfit {
    /// In words, for whoever reads the log.
    pub why: String,
    /// When it is tried again.
    pub again: Again,
}

impl Unfit {
    /// A failure of one class.
    pub fn new(class: ErrorClass, why: impl Into<String>) -> Unfit {
        let again = match class {
            ErrorClass::Transient | ErrorClass::Conflict => Again::Soon,
            ErrorClass::Gone | ErrorClass::Invalid | ErrorClass::Denied => Again::NextStart,
        };
        Unfit { why: why.into(), again }
    }
}

impl From<GitError> for Unfit {
    fn from(error: GitError) -> Unfit {
        Unfit::new(error.class(), error.to_string())
    }
}

impl Repos {
    /// Repositories below `folder`.
    pub fn new(git: Git, folder: PathBuf) -> Repos {
        Repos { git, folder, known: Mutex::default() }
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name) {
            Some(Standing::InUse(repository)) => return Ok(repository.clone()),
            Some(Standing::Refused(_)) => return Err(GitError::NotCleared),
            None => {}
        }
        let repository = Repository::open(&self.git, &self.path(name))?;
        known.insert(name.clone(), Standing::InUse(repository.clone()));
        Ok(repository)
    }

    /// Ends the git processes of all repositories that nobody has used for a while.
    pub fn close_idle_processes(&self) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use: Vec<Repository> = known.values().filter_map(Standing::repository).cloned().collect();
        drop(known);
        in_use.iter().for_each(|repository| repository.close_idle_processes(PROCESS_IDLE));
    }

    /// Has nothing use a repository until it is put right.
    pub fn refuse(&self, name: &RepoName) {
        self.stand(name, Standing::Refused(Again::NextStart));
    }

    /// Takes a repository into use if `work` puts it right. Before that, and if it does not, nobody else has it.
    ///
    /// # Errors
    /// It cannot be opened, or those of `work`.
    pub fn put_right<T>(
        &self,
        name: &RepoName,
        work: impl FnOnce(&Repository) -> Result<T, Unfit>,
    ) -> Result<T, Unfit> {
        self.refuse(name);
        let opened = Repository::open(&self.git, &self.path(name)).map_err(Unfit::from);
        match opened.and_then(|repository| Ok((work(&repository)?, repository))) {
            Ok((done, repository)) => {
                self.stand(name, Standing::InUse(repository));
                Ok(done)
            }
            Err(unfit) => {
                self.stand(name, Standing::Refused(unfit.again));
                Err(unfit)
            }
        }
    }

    /// Those that are refused and to be tried again soon.
    pub fn waiting(&self) -> BTreeSet<RepoName> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |standing: &Standing| matches!(standing, Standing::Refused(Again::Soon));
        known.iter().filter(|(_, standing)| waits(standing)).map(|(name, _)| name.clone()).collect()
    }

    fn stand(&self, name: &RepoName, standing: Standing) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), standing);
    }
}

/// What an alert says of a loss. A whole backup is put back, as what landed stands in rows, record and refs alike, and
/// an admin accepts what is lost (trust T9): a repository by itself would be older than its rows.
const RESTORE: &str = "What the disk has lost of it comes back with a whole backup: stop the server, move its data folder \
                       away, make it again by `towpath backup restore BACKUP --data FOLDER`, start the server, and \
                       accept what that loses, as told by `towpath backup show`, by \
                       `towpath backup accept --lost LEAVES`";

/// What an alert says of something that is tried again, and may fail for ever.
const LOOK: &str = "Where an object is lost or damaged, trying again does not help, and no backup has this repository: \
                    `git fsck --name-objects` in its folder names the object, and the change whose record or commits have \
                    it. It has to be put back from a copy of the repository";

/// Something that a repository did not let be done.
pub struct Undone<'a> {
    /// The repo.
    pub repo: &'a Repo,
    /// What was to be done.
    pub what: &'static str,
    /// Why it was not. For the log alone: it names places of this machine.
    pub why: &'a dyn Display,
    /// When it is tried again.
    pub again: Again,
}

impl Undone<'_> {
    /// Logs it, and tells the repo's people. Where the alert cannot be written, as on a full disk, the log has that as
    /// well.
    pub fn tell(&self, writer: &Writer, at: Timestamp) {
        let (name, what) = (&self.repo.name, self.what);
        tracing::error!(repo = %name, "{what} of {name}: {}", self.why);
        let (again, way_back) = match self.again {
            Again::Soon => ("is tried again by itself", LOOK),
            Again::NextStart => ("nothing uses it until a start puts it right", RESTORE),
        };
        let text = format!(
            "{what} of `{name}` did not work, and {again}: an admin finds the reason in the server's log. {way_back}"
        );
        tell(writer, self.repo, text, at);
    }
}

/// Alerts the people who look after a repo's default branch.
pub fn tell(writer: &Writer, repo: &Repo, text: String, at: Timestamp) {
    let name = &repo.name;
    // Whoever reads the settings says that they cannot be read.
    let Ok(RepoSettings { default_branch: branch, .. }) = RepoSettings::parse(&repo.settings) else { return };
    let alert = Alert { repo: name.clone(), branch, cause: None, text, at };
    if let Err(why) = writer.write(move |tx| tx.add_alert(&alert)) {
        tracing::error!(repo = %name, "nobody was told of it: {why}");
    }
}

#[cfg(test)]
mod tests {
    use towpath_git::GitOptions;

    use super::*;

    fn two() -> (tempfile::TempDir, Repos, [RepoName; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let repos = Repos::new(Git::find(GitOptions::default()).unwrap(), folder.path().to_owned());
        let names: [RepoName; 2] = ["one", "other"].map(|name| name.parse().unwrap());
        for name in &names {
            Repository::create(repos.git(), &repos.path(name)).unwrap();
            repos.get(name).unwrap();
        }
        (folder, repos, names)
    }

    #[test]
    fn a_repository_that_was_refused_is_not_used_and_others_are() {
        let (_folder, repos, [one, other]) = two();
        repos.refuse(&one);
        assert!(matches!(repos.get(&one), Err(GitError::NotCleared)), "though it was opened before");
        repos.get(&other).unwrap();
    }

    #[test]
    fn a_repository_is_used_once_it_is_put_right_and_by_nobody_before() {
        let (_folder, repos, [one, other]) = two();
        let refused = |name: &RepoName| matches!(repos.get(name), Err(GitError::NotCleared));
        let fails = |name: &RepoName, class: ErrorClass| {
            let work = |_: &Repository| {
                assert!(refused(name), "only whoever puts it right has it");
                Err::<(), _>(Unfit::new(class, "it does not work"))
            };
            repos.put_right(name, work).unwrap_err();
            refused(name)
        };
        assert!(fails(&one, ErrorClass::Transient) && fails(&other, ErrorClass::Denied));
        assert!(repos.waiting().iter().eq([&one]), "the other needs a person");
        repos.put_right(&one, |_| Ok(())).unwrap();
        assert!(!refused(&one) && refused(&other) && repos.waiting().is_empty());
    }
}
