//! The forge of each repo. Today every repo is on the built-in one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use towpath_core::cell::RefusalClass;
use towpath_core::effect::{Check, EffectKey};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, RepoName, TreeId, UserId};
use towpath_core::policy::Rights;
use towpath_forge::{
    BuiltIn, ChangeAct, Definitions, Find, ForgeError, Judged, Member, Policy, Records, RecordsError,
    RowStep, SavedChange, Settings,
};
use towpath_git::{ErrorClass, GitError, Repository};
use towpath_store::records::{Alert, ChangeQuery, ChangeRow, StoredCheck};
use towpath_store::{ReadError, Snapshot, Store, Tx, WriteError};

use crate::auth::accounts::note;
use crate::auth::rights;
use crate::clock::Clock;
use crate::definitions;
use crate::repos::Repos;
use crate::settings::RepoSettings;

/// The forges of all repos, each made once.
pub struct Forges {
    repos: Arc<Repos>,
    store: Arc<Store>,
    clock: Clock,
    made: Mutex<HashMap<RepoName, BuiltIn>>,
}

impl Forges {
    /// Forges over these repositories and rows.
    pub fn new(repos: Arc<Repos>, store: Arc<Store>) -> Forges {
        let clock = Clock::new(store.writer().clone());
        Forges { repos, store, clock, made: Mutex::default() }
    }

    /// The repositories.
    pub fn repos(&self) -> &Repos {
        &self.repos
    }

    /// The rows.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The forge of one repo. Whether its repository may be used is asked each time.
    ///
    /// # Errors
    /// `Gone` if there is no such repo, `Transient` if its repository is not put right.
    pub fn get(&self, repo: &RepoName) -> Result<BuiltIn, ForgeError> {
        let repository = self.repos.get(repo).map_err(|error| match error {
            error @ GitError::NotCleared => {
                ForgeError::new(error.class(), format!("repo `{repo}`"), error.to_string())
            }
            error => error.into(),
        })?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(made.entry(repo.clone()).or_insert_with(|| self.over(repo, repository)).clone())
    }

    /// A forge of its own over a repository, for whoever puts that right.
    pub fn over(&self, repo: &RepoName, repository: Repository) -> BuiltIn {
        let rows = Rows { repo: repo.clone(), store: self.store.clone(), clock: self.clock.clone() };
        BuiltIn::new(repo.clone(), repository, Arc::new(rows), Arc::new(FromTrees))
    }
}

/// Reads definitions with the `pipeline` crate.
struct FromTrees;

impl Definitions for FromTrees {
    fn settings(&self, repository: &Repository, tree: TreeId) -> Result<Settings, ForgeError> {
        let file = definitions::read(repository, tree)?;
        Ok(file.definition.map(|definition| definition.gate).map_err(|diagnostics| diagnostics.lines()))
    }
}

/// One repo's rows.
struct Rows {
    repo: RepoName,
    store: Arc<Store>,
    clock: Clock,
}

type Kept<T> = Result<T, RecordsError>;

impl Rows {
    fn view(&self) -> Kept<Snapshot> {
        self.store.reader().snapshot().map_err(read_failed)
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
    ) -> Kept<T> {
        self.store.writer().write(work).map_err(|error| RecordsError(error.to_string()))
    }

    fn row(&self, saved: &SavedChange) -> ChangeRow {
        let change = &saved.change;
        ChangeRow {
            repo: self.repo.clone(),
            number: change.number,
            target: change.target.clone(),
            owner: change.owner,
            state: serde_json::to_value(change.state)
                .ok()
                .and_then(|state| Some(state.get("state")?.as_str()?.to_owned()))
                .unwrap_or_default(),
            source: change.source.clone(),
            change_id: change.change_id.clone(),
            updated_at: change.updated_at,
            meta: saved.meta,
            body: serde_json::to_string(change)
                .expect("invariant: a change has only types that JSON can hold"),
        }
    }
}

fn read_failed(error: ReadError) -> RecordsError {
    RecordsError(error.to_string())
}

/// A change as its row holds it.
///
/// # Errors
/// The row was written by another version or is damaged.
pub fn saved(row: ChangeRow) -> Result<SavedChange, RecordsError> {
    let change = serde_json::from_str(&row.body)
        .map_err(|error| RecordsError(format!("the row of change {} cannot be read: {error}", row.number)))?;
    Ok(SavedChange { change, meta: row.meta })
}

impl Records for Rows {
    fn member(&self, user: UserId) -> Kept<Option<Member>> {
        let view = self.view()?;
        let rights = rights::rights_on(&view, &self.repo, user).map_err(read_failed)?;
        let user = view.user(user).map_err(read_failed)?.filter(|user| !user.disabled);
        Ok(user.zip(rights).map(|(user, rights)| Member { name: user.name, role: rights.role }))
    }

    fn people(&self, _branch: &BranchName) -> Kept<BTreeMap<UserId, Rights>> {
        rights::people_on(&*self.view()?, &self.repo).map_err(read_failed)
    }

    fn policy(&self) -> Kept<Policy> {
        let view = self.view()?;
        let repo = view.repo(&self.repo).map_err(read_failed)?;
        let repo = repo.ok_or_else(|| RecordsError(format!("there is no repo `{}`", self.repo)))?;
        RepoSettings::parse(&repo.settings)
            .map(|settings| settings.policy())
            .map_err(|error| RecordsError(error.to_string()))
    }

    fn change(&self, number: ChangeNumber) -> Kept<Option<SavedChange>> {
        self.view()?.change(&self.repo, number).map_err(read_failed)?.map(saved).transpose()
    }

    fn find(&self, find: &Find) -> Kept<Vec<SavedChange>> {
        let mut query = ChangeQuery { repo: Some(self.repo.clone()), ..ChangeQuery::default() };
        match find {
            Find::Open(target) => (query.state, query.target) = (Some("open".into()), Some(target.clone())),
            Find::OpenOf(owner) => (query.state, query.owner) = (Some("open".into()), Some(*owner)),
            Find::ChangeId(id, target) => {
                (query.change_id, query.target) = (Some(id.clone()), Some(target.clone()));
            }
            Find::Source(owner, source) => (query.owner, query.source) = (Some(*owner), Some(source.clone())),
        }
        self.view()?.changes(&query).map_err(read_failed)?.into_iter().map(saved).collect()
    }

    fn saved(&self) -> Kept<BTreeMap<ChangeNumber, CommitId>> {
        Ok(self.view()?.change_metas(&self.repo).map_err(read_failed)?.into_iter().collect())
    }

    fn check_room(&self) -> Kept<()> {
        match self.store.writer().health().full {
            true => Err(RecordsError(WriteError::Full.to_string())),
            false => Ok(()),
        }
    }

    fn save(&self, step: &RowStep) -> Kept<bool> {
        let RowStep { from, to, acts, untold } = step.clone();
        let (row, now) = (self.row(&to), self.clock.now());
        untold.iter().for_each(|lost| tracing::error!(repo = %row.repo, "{lost}"));
        self.write(move |tx| {
            if tx.change_meta(&row.repo, row.number)? != from {
                return Ok(false);
            }
            tx.put_change(&row)?;
            for lost in untold {
                note(tx, None, now, format!("repo {}: {lost}", row.repo));
            }
            for ChangeAct { by, at, what } in acts {
                note(tx, Some(&by), at, what);
            }
            Ok(true)
        })
    }

    fn set_check(&self, change: ChangeNumber, judged: Judged<'_>, check: &Check) -> Kept<()> {
        let (repo, at) = (self.repo.clone(), self.clock.now());
        let Judged { branch, revision } = judged;
        let check = StoredCheck { branch: branch.clone(), revision, check: check.clone(), at };
        self.write(move |tx| tx.put_check(&repo, change, &check))
    }

    fn alert(&self, branch: &BranchName, cause: &EffectKey, text: &str) -> Kept<()> {
        let alert = Alert {
            repo: self.repo.clone(),
            branch: branch.clone(),
            cause: Some(cause.clone()),
            text: text.to_owned(),
            at: self.clock.now(),
        };
        self.write(move |tx| tx.add_alert(&alert))
    }
}

/// A failure of the forge as a refusal, for people.
pub fn refusal_class(class: ErrorClass) -> RefusalClass {
    match class {
        ErrorClass::Conflict | ErrorClass::Transient => RefusalClass::Conflict,
        ErrorClass::Gone => RefusalClass::NotFound,
        ErrorClass::Invalid => RefusalClass::Invalid,
        ErrorClass::Denied => RefusalClass::Denied,
    }
}
