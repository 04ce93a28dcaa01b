//! Where a job's files and secrets come from, and what the executor is told of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towpath_blob::{Amount, BlobStore, Reserve};
use towpath_core::effect::JobOrder;
use towpath_core::graph::{JobSpec, Openings, Outcome};
use towpath_core::ids::{CommitId, LeaseId};
use towpath_core::outbox::TroubleClass;
use towpath_core::run::RESTORED;
use towpath_executor::{EncodeError, FRAME_BYTES_MAX, JobEnd, Limits, StartMessage, StartSpec};
use towpath_git::{
    Base, BaseOptions, BaseStore, ExportOptions, Files, GitError, Pin, Repository, TREE_LIMITS, TreeMeasure,
};
use towpath_store::Store;

use super::super::Failure;
use super::{never_begun, unrun};
use crate::repos::Repos;
use crate::secrets::{Secrets, Ungranted};

/// Bytes of work trees kept: the newest few hundred of a middling repository.
const BASES_BYTES_MAX: u64 = 20 << 30;

/// Opens the store of work trees in a folder that is there, and says what is ample room on its disk.
///
/// # Errors
/// Another process has it open.
pub fn open_bases(folder: &Path) -> Result<(BaseStore, TreeMeasure), GitError> {
    let reserve = Reserve::of(folder);
    let Amount { bytes, files: entries } = reserve.ample();
    Ok((bases_beside(reserve, folder, BASES_BYTES_MAX)?, TreeMeasure { entries, bytes }))
}

/// Work trees are written for jobs: they leave the reserve to the server.
pub(super) fn bases_beside(reserve: Reserve, folder: &Path, bytes_max: u64) -> Result<BaseStore, GitError> {
    let room = move |needed: TreeMeasure| {
        let room = reserve.room_for(needed.bytes, needed.entries).map(drop);
        room.map_err(|why| GitError::NoRoom { needed, why: why.to_string() })
    };
    BaseStore::open(folder, BaseOptions { owner: None, limits: TREE_LIMITS, bytes_max, room: Arc::new(room) })
}

/// Where a job's files come from.
pub struct Sources {
    /// The repositories.
    pub repos: Arc<Repos>,
    /// Immutable trees.
    pub bases: BaseStore,
    /// Room with which jobs begin at once: see [`Reserve::is_ample`].
    pub ample: TreeMeasure,
    /// Where repositories for jobs with `history: true` are made.
    pub histories: PathBuf,
    /// Outputs and reports.
    pub blobs: BlobStore,
    /// Secrets and who may have them.
    pub secrets: Secrets,
    /// Which life of the data this is, and whether a person has accepted it.
    pub store: Arc<Store>,
    /// What a job may use.
    pub limits: Limits,
}

/// What keeps a job's files where they are. A repository of its own stays until it is forgotten.
#[expect(dead_code, reason = "dropping it is its only use")]
pub(super) enum Tree {
    /// Of a job that this server has prepared.
    Base(Base),
    /// Of one that an earlier server has.
    Former(Pin),
}

/// What the executor is to do, and what it reads meanwhile.
pub(super) type Prepared = Result<(StartMessage, Option<Tree>), Unprepared>;

/// Why a job cannot be given to the executor.
pub(super) enum Unprepared {
    /// It is over, like this.
    Over(Box<JobEnd>),
    /// This server may not do it now, which says nothing about the job: its run has it tried again.
    Later(Failure),
}

impl Unprepared {
    /// How the job ended, if it is not tried again: no executor has it.
    pub fn end(self, lease: LeaseId, is_cancelled: bool) -> Box<JobEnd> {
        match self {
            Unprepared::Over(end) => end,
            Unprepared::Later(_) if is_cancelled => never_begun(lease),
            Unprepared::Later(failure) => unrun(lease, Outcome::Errored, &failure.why),
        }
    }
}

impl Sources {
    /// What the executor is to do.
    pub(super) fn prepare(&self, lease: LeaseId, order: &JobOrder) -> Prepared {
        let over = |outcome: Outcome, why: &str| Unprepared::Over(unrun(lease, outcome, why));
        let unprepared = |why: &str| over(Outcome::Errored, &format!("it could not be prepared: {why}"));
        if let Some(why) = withheld(&order.spec) {
            return Err(over(Outcome::Failed, &why));
        }
        if order.restored {
            return Err(over(Outcome::Errored, RESTORED));
        }
        if order.spec.body.environment.is_some() {
            self.not_restored()?;
        }
        let secrets = self.secrets.grant(order).map_err(|ungranted| match ungranted {
            Ungranted::Refused(why) => over(Outcome::Failed, &why),
            Ungranted::Unreadable(why) => unprepared(&why),
        })?;
        let (base, tree) = self.tree(lease, order).map_err(|missing| match missing {
            Missing::NotNow(failure) => Unprepared::Later(failure),
            Missing::Failed(failure) => unprepared(&failure.why),
        })?;
        // The core names them by their keys; a job sees them as variables that no definition can set.
        let mut facts: BTreeMap<String, String> =
            order.facts.iter().map(|(key, value)| (format!("TOWPATH_{key}"), value.clone())).collect();
        if order.spec.body.history {
            facts.insert("TOWPATH_COMMIT".into(), order.commit.to_string());
        }
        let spec = StartSpec {
            run: Some(order.run.clone()),
            attempt: order.lease.attempt,
            base,
            facts,
            inputs: order.input_folders(),
            secrets,
            limits: self.limits,
            ..StartSpec::new(lease, order.spec.name.clone(), (*order.spec.body).clone())
        };
        let job = StartMessage::new(spec).map_err(|error| {
            let (outcome, why) = unsendable(&error);
            over(outcome, &why)
        })?;
        Ok((job, tree))
    }

    /// Restored data do not know what was deployed since they were saved: nothing is deployed before a person has accepted
    /// them. A run asks for nothing of the kind, unless it has still to hear of it: mail that was there before may be long.
    fn not_restored(&self) -> Result<(), Unprepared> {
        let later = |class, why| Err(Unprepared::Later(Failure::new(class, why)));
        match self.store.reader().snapshot().and_then(|view| view.restored()) {
            Ok(None) => Ok(()),
            Ok(Some(restored)) => later(TroubleClass::Denied, format!("nothing is deployed: {restored}")),
            Err(error) => later(TroubleClass::Transient, error.to_string()),
        }
    }

    fn tree(&self, lease: LeaseId, order: &JobOrder) -> Result<(Option<PathBuf>, Option<Tree>), Missing> {
        let body = &order.spec.body;
        if !body.checkout {
            return Ok((None, None));
        }
        let repository = self.repos.get(&order.run.gate.repo)?;
        match body.history {
            true => Ok((Some(self.make_history(lease, &repository, order.commit)?), None)),
            false => {
                let base = self.bases.base(&repository, order.tree)?;
                Ok((Some(base.path().to_owned()), Some(Tree::Base(base))))
            }
        }
    }

    /// A repository for one job. Its place is the lease's, so that whichever server hears of the job's end can remove it.
    /// No executor has the job: what lies there is the rest of an earlier try.
    fn make_history(
        &self,
        lease: LeaseId,
        repository: &Repository,
        commit: CommitId,
    ) -> Result<PathBuf, Missing> {
        let folder = self.history(lease);
        let made = remove_folder(&folder).and_then(|()| std::fs::create_dir(&folder));
        made.map_err(|error| {
            let why = format!("cannot make a folder for the job's repository: {error}");
            Missing::Failed(Failure::new(TroubleClass::Transient, why))
        })?;
        let into = folder.join("tree");
        let room = |more| self.bases.make_room(more);
        let options = ExportOptions { room: &room, ..ExportOptions::default() };
        let exported = repository.export_repository(commit, &into, (Files::Written, &options));
        if exported.is_err() {
            remove_all(vec![folder]);
        }
        Ok(exported.map(|()| into)?)
    }

    /// What nobody uses goes where there are too many, or a disk that could have it has less room than a job may take. Whether
    /// the rest of it will do is for the executor to say.
    pub(super) fn give_way(&self) {
        let Limits { disk_bytes, disk_files, .. } = self.limits;
        given_way(self.bases.evict().map(drop));
        given_way(self.bases.give_way(TreeMeasure { entries: disk_files, bytes: disk_bytes }));
    }

    /// What nobody uses goes where a disk has less room than jobs are to begin with.
    pub(super) fn give_ample_way(&self) {
        given_way(self.bases.make_room(self.ample));
    }

    fn history(&self, lease: LeaseId) -> PathBuf {
        self.histories.join(lease.to_string())
    }

    /// Keeps the files of a job that an earlier server may have given to an executor.
    pub(super) fn pin(&self, order: &JobOrder) -> Option<Tree> {
        let has_base = order.spec.body.checkout && !order.spec.body.history;
        has_base.then(|| self.bases.pin(order.tree)).flatten().map(Tree::Former)
    }

    /// Removes the repositories of jobs whose ends are durable. The disk may take its time.
    pub(super) fn forget(&self, leases: &[LeaseId]) {
        remove_all(leases.iter().map(|lease| self.history(*lease)).collect());
    }

    /// Every folder that was made for a job, by this server or an earlier one.
    pub(super) fn histories(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.histories).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// A base that does not go keeps no job from beginning.
fn given_way(given: Result<(), GitError>) {
    match given {
        Ok(()) | Err(GitError::NoRoom { .. }) => {}
        Err(error) => tracing::warn!(%error, "work trees that no job uses stay for now: {error}"),
    }
}

/// The job that a folder was made for.
pub(super) fn lease_of(folder: &Path) -> Option<LeaseId> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// Frees a folder's place at once; `None` if that cannot be.
pub(super) fn set_aside(folder: &Path) -> Option<PathBuf> {
    let aside = folder.with_extension("old");
    std::fs::rename(folder, &aside).is_ok().then_some(aside)
}

/// Removes folders. One that does not go is in nobody's way, and goes at a later start.
pub(super) fn remove_all(folders: Vec<PathBuf>) {
    for folder in folders {
        if let Err(error) = remove_folder(&folder) {
            tracing::warn!(%error, "the repository of a job that is over stays for now: {error}");
        }
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why a job's files are not there.
enum Missing {
    /// The repository is not to be used until it is put right, or the disk is full.
    NotNow(Failure),
    /// They could not be made.
    Failed(Failure),
}

impl From<GitError> for Missing {
    fn from(error: GitError) -> Missing {
        match error {
            GitError::NotCleared | GitError::NoRoom { .. } => Missing::NotNow(error.into()),
            error => Missing::Failed(error.into()),
        }
    }
}

/// Whether nothing has to be looked up or written before a job can be handed over.
pub(super) fn is_light(order: &JobOrder) -> bool {
    !order.spec.body.checkout && order.spec.body.secrets.is_empty()
}

/// Why a job may not have what its body opens of the sandbox (trust T1, S1), and what to do; `None`: it may.
fn withheld(spec: &JobSpec) -> Option<String> {
    let key = match spec.withheld() {
        Openings { user_namespaces: true, .. } => "user_namespaces",
        Openings { network: true, .. } => "network",
        Openings { network: false, user_namespaces: false } => return None,
    };
    Some(format!(
        "`{key}: true` is not given to job `{}`: the target's definition does not give it to a job of that name, and no \
         maintainer has approved this definition; once one has, `towpath change retry` runs it again",
        spec.name
    ))
}

/// How a job ends that cannot be handed to the executor, and what to do. How large it is follows from its definition.
fn unsendable(error: &EncodeError) -> (Outcome, String) {
    match error {
        EncodeError::TooLarge { bytes } => (
            Outcome::Failed,
            format!(
                "it is too large to hand over: its script, variables, secrets and inputs take {bytes} bytes, at most \
                 {FRAME_BYTES_MAX}; put long values into files of the repository, or ask for fewer secrets and outputs"
            ),
        ),
        EncodeError::Unwritable(_) => (Outcome::Errored, format!("it cannot be handed over: {error}")),
    }
}
