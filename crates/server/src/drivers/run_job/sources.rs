//! Where a job's files and secrets come from, and what the executor is told of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towpath_blob::BlobStore;
use towpath_core::effect::JobOrder;
use towpath_core::graph::Outcome;
use towpath_core::ids::LeaseId;
use towpath_core::outbox::TroubleClass;
use towpath_executor::{EncodeError, FRAME_BYTES_MAX, JobEnd, Limits, StartMessage, StartSpec};
use towpath_git::{Base, BaseStore, ExportOptions, Files, GitError};
use towpath_store::Incarnation;

use super::super::Failure;
use super::{never_begun, unrun};
use crate::repos::Repos;
use crate::secrets::Secrets;

/// Where a job's files come from.
pub struct Sources {
    /// The repositories.
    pub repos: std::sync::Arc<Repos>,
    /// Immutable trees.
    pub bases: BaseStore,
    /// Where repositories for jobs with `history: true` are made.
    pub histories: PathBuf,
    /// Outputs and reports.
    pub blobs: BlobStore,
    /// Secrets and who may have them.
    pub secrets: Secrets,
    /// This life of the data.
    pub incarnation: Incarnation,
    /// What a job may use.
    pub limits: Limits,
}

/// What is held for as long as a job may read it.
#[expect(dead_code, reason = "dropping it is its only use")]
pub(super) enum Tree {
    Base(Base),
    History(tempfile::TempDir),
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
    /// How the job ended, if its run has no more use for it: no executor has it.
    pub fn end(self, lease: LeaseId) -> Box<JobEnd> {
        match self {
            Unprepared::Over(end) => end,
            Unprepared::Later(_) => never_begun(lease),
        }
    }
}

impl Sources {
    /// What the executor is to do.
    pub(super) fn prepare(&self, lease: LeaseId, order: &JobOrder) -> Prepared {
        let over = |outcome: Outcome, why: &str| Unprepared::Over(unrun(lease, outcome, why));
        let secrets = self.secrets.grant(order).map_err(|why| over(Outcome::Failed, &why))?;
        let (base, tree) = self.tree(order).map_err(|missing| match missing {
            Missing::NotNow(failure) => Unprepared::Later(failure),
            Missing::Failed(failure) => {
                over(Outcome::Errored, &format!("it could not be prepared: {}", failure.why))
            }
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
        let job = StartMessage::new(spec).map_err(|error| over(Outcome::Errored, &unsendable(&error)))?;
        Ok((job, tree))
    }

    fn tree(&self, order: &JobOrder) -> Result<(Option<PathBuf>, Option<Tree>), Missing> {
        let body = &order.spec.body;
        if !body.checkout {
            return Ok((None, None));
        }
        let repository = self.repos.get(&order.run.gate.repo)?;
        if !body.history {
            let base = self.bases.base(&repository, order.tree)?;
            return Ok((Some(base.path().to_owned()), Some(Tree::Base(base))));
        }
        let folder = tempfile::Builder::new().prefix("history-").tempdir_in(&self.histories);
        let folder = folder.map_err(|error| {
            let why = format!("cannot make a folder for the job's repository: {error}");
            Missing::Failed(Failure::new(TroubleClass::Transient, why))
        })?;
        let into = folder.path().join("tree");
        repository.export_repository(order.commit, &into, (Files::Written, &ExportOptions::default()))?;
        Ok((Some(into), Some(Tree::History(folder))))
    }
}

/// Why a job's files are not there.
enum Missing {
    /// The repository is not to be used until it is put right.
    NotNow(Failure),
    /// They could not be made.
    Failed(Failure),
}

impl From<GitError> for Missing {
    fn from(error: GitError) -> Missing {
        match error {
            GitError::NotCleared => Missing::NotNow(error.into()),
            error => Missing::Failed(error.into()),
        }
    }
}

/// Whether nothing has to be looked up or written before a job can be handed over.
pub(super) fn is_light(order: &JobOrder) -> bool {
    !order.spec.body.checkout && order.spec.body.secrets.is_empty()
}

/// Why a job cannot be handed to the executor, and what to do.
fn unsendable(error: &EncodeError) -> String {
    match error {
        EncodeError::TooLarge { bytes } => format!(
            "it is too large to hand over: its script, variables, secrets and inputs take {bytes} bytes, at most \
             {FRAME_BYTES_MAX}; put long values into files of the repository, or ask for fewer secrets and outputs"
        ),
        EncodeError::Unwritable(_) => format!("it cannot be handed over: {error}"),
    }
}
