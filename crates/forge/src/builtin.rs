//! The built-in forge: one bare repository, its changes in refs, its people in the server's rows.
//!
//! Truth and order of writing: a change is what the commit says that `refs/changes/<n>/meta` names (`meta`), and its
//! revisions are `refs/changes/<n>/<k>`. Both move in one transaction of refs, by compare-and-swap; only then is the row
//! saved. A crash in between leaves a row that is older than its ref, which is seen (`meta`) and mended by the next edit
//! or [`BuiltIn::rebuild`]. The record's commit also says who did what ([`ChangeAct`]), so that whoever makes a row of it
//! writes the leaf in the same unit: nothing that a person did counts without its leaf, and none has two (I8).
//! `refs/towpath/pushes` is the journal of pushes: who brought which commits, and whose a branch is. It moves in one
//! transaction with the branches and tags of a push.
//! No push can write any of these refs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use towpath_core::cell::RefusalClass;
use towpath_core::definition::GateSettings;
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, RepoName, Timestamp, TreeId, UserId};
use towpath_core::policy::{Actor, Role};
use towpath_git::{ErrorClass, Expected, RefName, RefUpdate, Repository, Transaction};

use crate::error::{Done, Failure, ForgeError};
use crate::records::{
    ChangeAct, ChangeRecord, ChangeState, Member, Records, RevisionRecord, RowStep, SavedChange,
};

mod journal;
mod land;
mod loss;
mod meta;
mod propose;
mod quota;
mod read;
mod rebuild;
mod review;
mod stack;
mod talk;
mod text;

pub(crate) use journal::PushEntry;
pub use loss::Owner;
pub(crate) use propose::Uploaded;
pub use propose::{Proposal, PushedBranch};
pub use quota::ACTS_PER_HOUR;
pub use rebuild::Rebuilt;
pub use review::ReviewRequest;
pub use talk::{Draft, LabelEdit, Retarget};
pub use text::{ChangeText, unfit_label};

/// Looks at a row that others bring on in the same moment.
const ROW_STEPS_MAX: u32 = 16;

/// What a definition says about the gate, or every error in it.
pub type Settings = Result<GateSettings, Vec<String>>;

/// Reads definitions: given by the server, because the pipeline file is no business of a forge.
pub trait Definitions: Send + Sync {
    /// What the definition of a tree says about the gate.
    ///
    /// # Errors
    /// Only if the tree could not be read; a broken definition is an answer.
    fn settings(&self, repository: &Repository, tree: TreeId) -> Result<Settings, ForgeError>;
}

/// The forge that comes with Towpath. Cheap to clone; may be used by many threads.
#[derive(Clone)]
pub struct BuiltIn {
    inner: Arc<Inner>,
}

struct Inner {
    name: RepoName,
    repository: Repository,
    records: Arc<dyn Records>,
    definitions: Arc<dyn Definitions>,
    /// Held while refs of ours move: changes and journal have one writer.
    write: Mutex<Writing>,
    stacks: Mutex<stack::Cache>,
    lost: Mutex<loss::Lost>,
    uploads: Mutex<quota::Uploads>,
    settings: Mutex<HashMap<BranchName, (TreeId, Settings)>>,
    behind: Mutex<Behind>,
}

/// Changes whose rows are behind their refs, as they could not be saved or read.
#[derive(Default)]
struct Behind {
    changes: BTreeSet<ChangeNumber>,
    /// Whether those of an earlier process are among them.
    looked: bool,
}

/// What a writer knows beside the rows.
#[derive(Default)]
struct Writing {
    next: Option<ChangeNumber>,
    journal: Option<journal::Journal>,
}

/// A `std` lock whose data is right after a panic too: every use below ends in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BuiltIn").field(&self.inner.name).finish()
    }
}

impl BuiltIn {
    /// The forge of one repository. Its server is the only one that writes there.
    pub fn new(
        name: RepoName,
        repository: Repository,
        records: Arc<dyn Records>,
        definitions: Arc<dyn Definitions>,
    ) -> BuiltIn {
        let (write, stacks, lost) = Default::default();
        let (uploads, settings, behind) = Default::default();
        let inner =
            Inner { name, repository, records, definitions, write, stacks, lost, uploads, settings, behind };
        BuiltIn { inner: Arc::new(inner) }
    }

    /// The repo's name.
    pub fn name(&self) -> &RepoName {
        &self.inner.name
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// The rows.
    pub fn records(&self) -> &dyn Records {
        &*self.inner.records
    }

    /// A change, as its ref says.
    pub fn change(&self, number: ChangeNumber) -> Done<ChangeRecord> {
        Ok(self.current(number)?.change)
    }

    /// The person's name and role; who has none may not know that the repo exists.
    pub(crate) fn member(&self, user: UserId) -> Done<Member> {
        let member = self.records().member(user)?;
        let missing =
            || Failure::refused(RefusalClass::NotFound, format!("there is no repo `{}`", self.name()));
        member.ok_or_else(missing)
    }

    pub(crate) fn require(&self, user: UserId, need: Role, to: &str) -> Done<Member> {
        let member = self.member(user)?;
        match member.role >= need {
            true => Ok(member),
            false => {
                let why = format!("{to} takes the role {} on `{}`", role_name(need), self.name());
                Err(Failure::refused(RefusalClass::Denied, why))
            }
        }
    }

    /// A person's name, for people.
    pub(crate) fn name_of(&self, user: UserId) -> String {
        match self.records().member(user) {
            Ok(Some(member)) => member.name,
            _ => format!("user {user}"),
        }
    }

    /// The newest record of a change, whatever its row says. One whose landing was begun has landed if its branch says so.
    fn current(&self, number: ChangeNumber) -> Done<SavedChange> {
        let mut saved = self.recorded(number)?;
        if let (ChangeState::Open, Some(landing)) = (saved.change.state, &saved.change.landing)
            && self.contains(&landing.branch, landing.commit)?
        {
            saved.change.state = ChangeState::Landed { commit: landing.commit };
        }
        Ok(saved)
    }

    /// The record that a change's ref names; its row is there by then.
    fn recorded(&self, number: ChangeNumber) -> Done<SavedChange> {
        for _ in 0..ROW_STEPS_MAX {
            // The row first: it is never newer than a ref that is read after it, whoever writes meanwhile.
            let row = self.records().change(number)?;
            let missing = || Failure::refused(RefusalClass::NotFound, format!("there is no change {number}"));
            let target = self.repository().ref_target(&meta::meta_ref(number))?.ok_or_else(missing)?;
            let meta = CommitId(target.0);
            let from = match row {
                Some(saved) if saved.meta == meta => return Ok(saved),
                row => row.map(|saved| saved.meta),
            };
            // Who moved the ref may not have come to this.
            self.repository().sync_refs(&[meta::meta_ref(number)])?;
            let step = self.step(number, from, meta)?;
            if self.records().save(&step)? {
                return Ok(step.to);
            }
        }
        let (what, why) = (format!("change {number}"), "others write it all the time".to_owned());
        Err(ForgeError::Conflict { what, why }.into())
    }

    /// What brings a row from one record to another.
    fn step(
        &self,
        number: ChangeNumber,
        from: Option<CommitId>,
        to: CommitId,
    ) -> Result<RowStep, ForgeError> {
        let saved = meta::read(self.repository(), number, to)?;
        let meta::Told { acts, untold } = meta::acts(self.repository(), number, (from, to))?;
        Ok(RowStep { from, to: saved, acts, untold })
    }

    /// Makes one edit of a change for a person, from its newest record; `edit` returns what it did, in words.
    fn edit(
        &self,
        number: ChangeNumber,
        by: UserId,
        now: Timestamp,
        edit: impl FnOnce(&mut ChangeRecord) -> Done<String>,
    ) -> Done<ChangeRecord> {
        let member = self.member(by)?;
        self.may_act(by, member.role, now)?;
        let by = Actor { user: by, name: member.name };
        self.rewrite(number, now, |change| {
            let what = format!("{} ({} change {number})", edit(change)?, self.name());
            Ok(Some(ChangeAct { by, at: now, what }))
        })
    }

    /// Writes the next record of a change, if it says anything new.
    fn rewrite(
        &self,
        number: ChangeNumber,
        now: Timestamp,
        edit: impl FnOnce(&mut ChangeRecord) -> Done<Option<ChangeAct>>,
    ) -> Done<ChangeRecord> {
        let writing = lock(&self.inner.write);
        let saved = self.current(number)?;
        let mut next = saved.change.clone();
        let act = edit(&mut next)?;
        if next == saved.change {
            return Ok(next);
        }
        next.updated_at = now.max(next.updated_at);
        self.records().check_room()?;
        let by = act.as_ref().map(|act| act.by.user);
        let (change, bytes) = self.write_change(&writing, next, Some(&saved), act)?;
        if let Some(by) = by {
            self.count_upload(by, bytes, now);
            self.count_act(by, now);
        }
        Ok(change)
    }

    /// Moves a change's refs to a new record, then saves the row, with the leaf of what a person did. Returns how many bytes are
    /// new in the record, too.
    ///
    /// Once the refs have moved it is done, whatever becomes of the row: nobody goes by that before it has followed.
    fn write_change(
        &self,
        _writing: &MutexGuard<'_, Writing>,
        change: ChangeRecord,
        before: Option<&SavedChange>,
        act: Option<ChangeAct>,
    ) -> Done<(ChangeRecord, u64)> {
        let previous = before.map(|before| before.meta);
        let meta::Written { meta, bytes } = meta::write(self.repository(), (&change, act.as_ref()), before)?;
        let expected = previous.map_or(Expected::Absent, |previous| Expected::At(previous.into()));
        let mut updates =
            vec![RefUpdate { name: meta::meta_ref(change.number), expected, target: Some(meta.into()) }];
        let newest = change.newest();
        if before.is_none_or(|before| before.change.newest() != newest) {
            updates.push(revision_update(&change, newest));
        }
        match self.repository().ref_transaction(&updates)? {
            Transaction::Done => {}
            Transaction::Stale { name, .. } => {
                let what = format!("change {}", change.number);
                let why = format!("`{name}` was moved by somebody else");
                return Err(ForgeError::Conflict { what, why }.into());
            }
        }
        let to = SavedChange { change: change.clone(), meta };
        let step = RowStep { from: previous, to, acts: act.into_iter().collect(), untold: Vec::new() };
        // Where somebody has brought it on, it is perhaps only at the record before this one.
        if self.records().save(&step) != Ok(true) && self.recorded(change.number).is_err() {
            lock(&self.inner.behind).changes.insert(change.number);
        }
        Ok((change, bytes))
    }

    /// Brings on the rows that are behind their refs, so that none is taken for what is that is known to be old. Returns the
    /// changes that a damaged record keeps from it, with what is wrong: they are out of reach until a person mends them, and
    /// no other waits for that.
    ///
    /// # Errors
    /// As long as a row cannot be saved.
    fn catch_up(&self) -> Result<BTreeMap<ChangeNumber, String>, ForgeError> {
        // Held until the end: who puts another one in meanwhile waits, and so does who would go by one of these rows.
        let mut behind = lock(&self.inner.behind);
        if !behind.looked {
            behind.changes.extend(self.find_behind()?);
            behind.looked = true;
        }
        let mut damaged = BTreeMap::new();
        for number in behind.changes.clone() {
            match self.recorded(number) {
                Ok(_) => {
                    behind.changes.remove(&number);
                }
                Err(Failure::Failed(error)) if !is_damage(&error) => return Err(error),
                Err(failure) => {
                    damaged.insert(number, failure.to_string());
                }
            }
        }
        Ok(damaged)
    }

    /// Does something while nobody writes a change, and every row that can be read says what its ref does.
    ///
    /// # Errors
    /// A row cannot be saved; nothing was done.
    pub fn while_still<T>(&self, work: impl FnOnce() -> T) -> Result<T, ForgeError> {
        let _writing = lock(&self.inner.write);
        self.catch_up()?;
        Ok(work())
    }

    fn find_behind(&self) -> Result<BTreeSet<ChangeNumber>, ForgeError> {
        let (metas, saved) = (self.metas()?, self.records().saved()?);
        let is_behind = |(number, meta): &(ChangeNumber, CommitId)| saved.get(number) != Some(meta);
        Ok(metas.into_iter().filter(is_behind).map(|(number, _)| number).collect())
    }

    /// The number of the next change.
    fn next_number(&self, writing: &mut MutexGuard<'_, Writing>) -> Done<ChangeNumber> {
        let next = match writing.next {
            Some(next) => next,
            None => ChangeNumber(1 + self.metas()?.into_keys().map(|number| number.0).max().unwrap_or(0)),
        };
        writing.next = Some(ChangeNumber(next.0 + 1));
        Ok(next)
    }

    /// Every change's newest record.
    fn metas(&self) -> Result<BTreeMap<ChangeNumber, CommitId>, ForgeError> {
        let refs = self.repository().refs(meta::CHANGES)?;
        let metas = refs.into_iter().filter_map(|found| {
            let number = meta::number_of_meta(&found.name)?;
            Some((number, CommitId(found.target.0)))
        });
        Ok(metas.collect())
    }
}

/// Whether a record is damaged, and so stays as it is however often it is read.
fn is_damage(error: &ForgeError) -> bool {
    matches!(error.class(), ErrorClass::Invalid | ErrorClass::Gone)
}

/// Only we write these refs, so whatever a crash left there is replaced.
fn revision_update(change: &ChangeRecord, revision: &RevisionRecord) -> RefUpdate {
    RefUpdate {
        name: meta::revision_ref(change.number, revision.number),
        expected: Expected::Anything,
        target: Some(revision.commit.into()),
    }
}

/// A ref of ours by its parts; the parts are numbers and words of this crate.
fn own_ref(name: String) -> RefName {
    name.parse().expect("invariant: our own refs have valid names")
}

/// A role in words.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Author => "author",
        Role::Maintainer => "maintainer",
        Role::Admin => "admin",
    }
}
