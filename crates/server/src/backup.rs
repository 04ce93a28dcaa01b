//! Backups of a whole data folder, and the way back (trust S11). Both work on the folder, with or without a server in
//! it; neither ever sees a key.
//!
//! Order of a backup: the database, as SQLite itself copies it; what its candidates name is pinned in the
//! repositories; then these, and what jobs left behind. So everything that the database of a backup names is in it, or it says
//! which repository is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_core::cell::CellId;
use towpath_core::ids::{CommitId, RepoName};
use towpath_executor::ExecutorConfig;
use towpath_git::{Git, GitError, Repository};
use towpath_store::{BackupError, ReadError, View};

use crate::files::make_private_folder;
use crate::keys::Missing;
use crate::mend::made_candidates;
use crate::server::Folders;

/// The database's file in a backup.
const DATABASE: &str = "towpath.db";
/// What a backup says about itself.
const ABOUT: &str = "backup.json";
/// The repositories' folder in a backup.
const REPOS: &str = "repos";
/// What jobs left: folders of the same names in a backup.
const LEFT: [&str; 2] = ["logs", "blobs"];

/// Why there is no backup, or no restored folder.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The database's part failed.
    #[error(transparent)]
    Database(#[from] BackupError),
    /// A repository's part failed.
    #[error("repo `{repo}`: {source}")]
    Repo {
        /// Which.
        repo: RepoName,
        /// How.
        source: GitError,
    },
    /// Git cannot be used.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file operation failed.
    #[error("cannot {what} `{}`: {source}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is no backup.
    #[error("`{}` is no backup of Towpath: {why}", path.display())]
    NoBackup {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl From<ReadError> for SaveError {
    fn from(error: ReadError) -> SaveError {
        SaveError::Database(error.into())
    }
}

/// Git works in folders of its own, where a path that is relative to ours means something else.
fn absolute(path: &Path) -> Result<PathBuf, SaveError> {
    std::path::absolute(path).map_err(file("name", path))
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SaveError + use<> {
    let path = path.to_owned();
    move |source| SaveError::File { what, path, source }
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The program that made it.
    pub version: String,
    /// Leaves of the record.
    pub leaves: u64,
    /// How many of them, the last ones, no checkpoint covers yet.
    #[serde(default)]
    pub leaves_unsealed: u64,
    /// Repositories.
    pub repos: Vec<RepoName>,
    /// Those that the database names and that are lost or damaged, where they were or in the backup.
    #[serde(default)]
    pub unsaved: Vec<Unsaved>,
    /// Secrets, sealed.
    pub secrets: usize,
    /// Files that jobs left, logs included.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// A repository that is not in a backup, or of which that has no whole copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsaved {
    /// Which.
    pub repo: RepoName,
    /// What is wrong with it.
    pub why: String,
}

impl Unsaved {
    /// What is left out of all the others' backup, or restored folder; anything but damage of the repository itself ends that.
    fn for_damage(repo: &RepoName, source: GitError) -> Result<Unsaved, SaveError> {
        match source.is_of_the_repository() {
            true => Ok(Unsaved { repo: repo.clone(), why: source.to_string() }),
            false => Err(SaveError::Repo { repo: repo.clone(), source }),
        }
    }
}

/// Saves the data folder `data` to a new folder `to`, which appears whole and durable, or not at all. Only a repository that
/// is lost or damaged is left out, and named: it would leave all the others without any backup.
///
/// # Errors
/// `to` is there already, `data` is no data folder or a newer program's, or something cannot be read or written.
pub fn make(data: &Path, to: &Path) -> Result<Saved, SaveError> {
    let (data, to) = (&absolute(data)?, &absolute(to)?);
    let draft = draft_of(to)?;
    let made = fill(data, &draft).and_then(|saved| {
        let about = serde_json::to_vec_pretty(&saved).expect("invariant: a description is plain data");
        write_synced(&draft.join(ABOUT), &about)?;
        appear(&draft, to)?;
        Ok(saved)
    });
    if made.is_err() {
        // Half a backup must not look like one.
        let _ = fs::remove_dir_all(&draft);
    }
    made
}

fn fill(data: &Path, draft: &Path) -> Result<Saved, SaveError> {
    towpath_store::backup(data, &draft.join(DATABASE))?;
    let view = View::open_copy(&draft.join(DATABASE))?;
    let git = Git::find(Default::default())?;
    let folders = Folders::below(data);
    let mut saved = Saved {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leaves: view.leaf_count()?,
        leaves_unsealed: view.unsealed()?,
        repos: Vec::new(),
        unsaved: Vec::new(),
        secrets: view.secret_count()?,
        files: 0,
        bytes: 0,
    };
    make_folder(&draft.join(REPOS))?;
    for repo in view.repos()?.into_iter().map(|repo| repo.name) {
        let pins = candidates_of(&view, &repo)?;
        let to = draft.join(REPOS).join(repo.as_str());
        match save_repository(&git, &folders.repos.join(format!("{repo}.git")), &pins, &to) {
            Ok(()) => saved.repos.push(repo),
            Err(error) => {
                saved.unsaved.push(Unsaved::for_damage(&repo, error)?);
                remove_folder(&to)?;
            }
        }
    }
    let config = ExecutorConfig::in_folder(&folders.executor, Vec::new());
    for (name, from) in LEFT.into_iter().zip([config.logs, config.blobs]) {
        copy_tree(&from, &draft.join(name), &mut saved)?;
    }
    Ok(saved)
}

fn save_repository(git: &Git, from: &Path, pins: &[CommitId], to: &Path) -> Result<(), GitError> {
    let repository = Repository::open(git, from)?;
    let saved = repository.pin(pins).and_then(|()| repository.save(to));
    saved.and(repository.unpin()).map_err(|error| repository.blamed(error))
}

/// The commits of the candidates that a database names.
fn candidates_of(view: &View, repo: &RepoName) -> Result<Vec<CommitId>, ReadError> {
    let mut commits = BTreeSet::new();
    for cell in view.open_cells()? {
        if let CellId::Gate(gate) = cell
            && gate.repo == *repo
        {
            commits.extend(made_candidates(view, &gate)?.into_iter().map(|(_, commit, _)| commit));
        }
    }
    Ok(commits.into_iter().collect())
}

/// Makes a new data folder `data` of a backup; `keys` is where the server will look for its keys. The server that is
/// started on it lands nothing until an admin has accepted what was lost. A repository of which the backup has no whole copy
/// is named, and used by nobody until one has been put into its place.
///
/// # Errors
/// `data` is there already, `from` is no backup, is of a newer program, or another part of it is damaged, or something cannot be
/// written.
pub fn restore(from: &Path, data: &Path, keys: &Path) -> Result<(Saved, Missing), SaveError> {
    let (from, data) = (&absolute(from)?, &absolute(data)?);
    let mut saved = about(from)?;
    // Before anything is copied, which may take long.
    View::open_copy(&from.join(DATABASE))?.check_schema().map_err(BackupError::from)?;
    let draft = draft_of(data)?;
    let made = unfold(from, &draft, &mut saved).and_then(|()| appear(&draft, data));
    if made.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    made?;
    let verifier = View::open_copy(&data.join(DATABASE))?.audit_verifier()?;
    let missing = Missing::of((verifier.as_deref(), saved.secrets), keys);
    Ok((saved, missing))
}

fn unfold(from: &Path, draft: &Path, saved: &mut Saved) -> Result<(), SaveError> {
    let git = Git::find(Default::default())?;
    let folders = Folders::below(draft);
    for folder in [&folders.repos, &folders.executor] {
        make_folder(folder)?;
    }
    for repo in std::mem::take(&mut saved.repos) {
        let to = folders.repos.join(format!("{repo}.git"));
        match Repository::restore(&git, &from.join(REPOS).join(repo.as_str()), &to) {
            Ok(_) => saved.repos.push(repo),
            Err(error) => saved.unsaved.push(Unsaved::for_damage(&repo, error)?),
        }
    }
    let config = ExecutorConfig::in_folder(&folders.executor, Vec::new());
    let mut copied = saved.clone();
    for (name, to) in LEFT.into_iter().zip([config.logs, config.blobs]) {
        copy_tree(&from.join(name), &to, &mut copied)?;
    }
    // Last: only with it is the folder one that a server takes for its own.
    Ok(towpath_store::restore(&from.join(DATABASE), draft)?)
}

fn about(from: &Path) -> Result<Saved, SaveError> {
    let path = from.join(ABOUT);
    let no_backup = |why: String| SaveError::NoBackup { path: from.to_owned(), why };
    let text = fs::read(&path).map_err(|error| no_backup(format!("`{ABOUT}` cannot be read: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| no_backup(format!("`{ABOUT}` cannot be read: {error}")))
}

/// A new private folder beside a place that is still free.
fn draft_of(place: &Path) -> Result<PathBuf, SaveError> {
    if place.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(place.to_owned()).into());
    }
    let mut name = place.as_os_str().to_owned();
    name.push(".new");
    let draft = PathBuf::from(name);
    let private = remove_folder(&draft).and_then(|()| make_folder(&draft));
    match private {
        Ok(()) => Ok(draft),
        // The draft is ours: whoever named the place knows nothing of it.
        Err(SaveError::File { source, .. }) => Err(file("make the folder", place)(source)),
        Err(error) => Err(error),
    }
}

fn remove_folder(path: &Path) -> Result<(), SaveError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn make_folder(path: &Path) -> Result<(), SaveError> {
    make_private_folder(path).map_err(file("make the folder", path))
}

fn appear(draft: &Path, place: &Path) -> Result<(), SaveError> {
    let sync = |path: &Path| File::open(path).and_then(|open| open.sync_all()).map_err(file("sync", path));
    sync(draft)?;
    fs::rename(draft, place).map_err(file("rename to", place))?;
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(parent)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    towpath_store::write_private(path, bytes).map_err(file("write", path))
}

/// Copies a tree of plain files, durably. A file that goes meanwhile is left out: logs and blobs are removed when
/// their time is over.
fn copy_tree(from: &Path, to: &Path, saved: &mut Saved) -> Result<(), SaveError> {
    make_folder(to)?;
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let folder = from.join(&relative);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(file("read", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(file("read", &folder))?;
            let name = relative.join(entry.file_name());
            let kind = entry.file_type().map_err(file("read", &entry.path()))?;
            if kind.is_dir() {
                make_folder(&to.join(&name))?;
                open.push(name);
            } else if kind.is_file()
                && let Some(bytes) = copy_file(&entry.path(), &to.join(&name))?
            {
                saved.files += 1;
                saved.bytes += bytes;
            }
        }
        let copy = to.join(&relative);
        File::open(&copy).and_then(|open| open.sync_all()).map_err(file("sync", &copy))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<Option<u64>, SaveError> {
    match fs::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        copied => {
            let bytes = copied.map_err(file("copy", from))?;
            File::open(to).and_then(|open| open.sync_all()).map_err(file("sync", to))?;
            Ok(Some(bytes))
        }
    }
}
