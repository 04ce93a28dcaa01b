//! The built-in forge as the gate sees it.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::effect::{Check, EffectKey, Landing};
use towpath_core::gate::{ForgeChange, LandTried, RevisionFacts, Snapshot, Tip};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Timestamp};
use towpath_git::GitError;

use super::loss::{Unread, lost_of_revision};
use super::{BuiltIn, Settings, lock};
use crate::clock;
use crate::error::ForgeError;
use crate::forge::{Forge, Judged};
use crate::records::{ChangeRecord, Find, SavedChange};

impl Forge for BuiltIn {
    fn read(&self, branch: &BranchName, landed: Option<CommitId>) -> Result<Snapshot, ForgeError> {
        let damaged = self.catch_up()?;
        let tip = self.tip(branch)?;
        let head = tip.as_ref().map(|tip| tip.commit);
        let keeps_landed = self.keeps(head, landed)?;
        let begun_by = match (head, landed) {
            (Some(head), None) => self.put_by(branch, head)?,
            _ => BTreeSet::new(),
        };
        let mut open = self.records().find(&Find::Open(branch.clone()))?;
        open.retain(|saved| !damaged.contains_key(&saved.change.number));
        open.sort_by_key(|saved| saved.change.number);
        let (mut changes, mut unreadable) = (Vec::new(), self.for_branch(branch, damaged)?);
        for SavedChange { change, .. } in open {
            let number = change.number;
            match self.facts(change, head) {
                Ok(facts) => changes.push(facts),
                Err(Unread::Damaged(object)) => drop(unreadable.insert(number, lost_of_revision(object))),
                Err(Unread::Failed(error)) => return Err(error),
            }
        }
        let people = self.records().people(branch)?;
        Ok(Snapshot { tip, keeps_landed, begun_by, changes, unreadable, people })
    }

    fn land(&self, landing: &Landing) -> Result<LandTried, ForgeError> {
        self.land_change(landing)
    }

    fn mark_landed(&self, change: ChangeNumber, commit: CommitId) -> Result<(), ForgeError> {
        self.close_as_landed(change, commit)
    }

    fn set_check(&self, change: ChangeNumber, judged: Judged<'_>, check: &Check) -> Result<(), ForgeError> {
        let revision = judged.revision;
        let saved = self.records().change(change)?;
        let known =
            saved.is_some_and(|saved| saved.change.revisions.iter().any(|known| known.commit == revision));
        match known {
            true => Ok(self.records().set_check(change, judged, check)?),
            false => Err(ForgeError::Gone {
                what: format!("showing a check on change {change}"),
                why: format!("it has no revision {revision}"),
            }),
        }
    }

    fn alert(&self, branch: &BranchName, cause: &EffectKey, text: &str) -> Result<(), ForgeError> {
        Ok(self.records().alert(branch, cause, text)?)
    }
}

impl BuiltIn {
    /// Those of some changes that are for a branch, as far as their rows say. One without a row is for the branch for which
    /// most are.
    fn for_branch(
        &self,
        branch: &BranchName,
        changes: BTreeMap<ChangeNumber, String>,
    ) -> Result<BTreeMap<ChangeNumber, String>, ForgeError> {
        let mut of_branch = BTreeMap::new();
        for (number, why) in changes {
            let target = match self.records().change(number)? {
                Some(saved) => saved.change.target,
                None => self.records().policy()?.default_target,
            };
            if target == *branch {
                of_branch.insert(number, why);
            }
        }
        Ok(of_branch)
    }

    fn tip(&self, branch: &BranchName) -> Result<Option<Tip>, ForgeError> {
        let Some(commit) = self.repository().branch_tip(branch)? else { return Ok(None) };
        let info = self.repository().commit(commit)?;
        let settings = self.settings(branch, info.tree)?;
        Ok(Some(Tip { commit, tree: info.tree, time: info.committer.time, settings }))
    }

    /// The settings of a tree, which never change; the newest per branch are remembered.
    fn settings(&self, branch: &BranchName, tree: towpath_core::ids::TreeId) -> Result<Settings, ForgeError> {
        if let Some((known, settings)) = lock(&self.inner.settings).get(branch)
            && *known == tree
        {
            return Ok(settings.clone());
        }
        let settings = self.inner.definitions.settings(self.repository(), tree)?;
        lock(&self.inner.settings).insert(branch.clone(), (tree, settings.clone()));
        Ok(settings)
    }

    /// Whether a branch contains a commit; one that is not there contains nothing.
    pub(super) fn contains(&self, branch: &BranchName, commit: CommitId) -> Result<bool, ForgeError> {
        self.keeps(self.repository().branch_tip(branch)?, Some(commit))
    }

    fn keeps(&self, tip: Option<CommitId>, landed: Option<CommitId>) -> Result<bool, ForgeError> {
        let Some(landed) = landed else { return Ok(true) };
        let Some(tip) = tip else { return Ok(false) };
        match self.repository().is_ancestor(landed, tip) {
            Err(GitError::Missing { .. }) => Ok(false),
            answer => Ok(answer?),
        }
    }

    fn facts(&self, change: ChangeRecord, tip: Option<CommitId>) -> Result<ForgeChange, Unread> {
        let newest = change.newest().clone();
        self.unless_lost(newest.commit)?;
        let mut stack_uploaders = match tip {
            Some(tip) => match self.revision_uploaders(&change.target, tip, &newest) {
                Err(Unread::Damaged(object)) => {
                    // Whose it is need not be found out at each reading.
                    self.note_lost(newest.commit, object);
                    return Err(Unread::Damaged(object));
                }
                found => found?,
            },
            None => BTreeSet::new(),
        };
        stack_uploaders.remove(&newest.uploader);
        Ok(ForgeChange {
            number: change.number,
            title: change.title,
            body: change.body,
            draft: change.draft,
            labels: change.labels,
            owner: change.owner,
            revision: RevisionFacts {
                commit: newest.commit,
                number: newest.number,
                // What an import brought may be from the future.
                time: seconds(newest.time.min(clock::latest(newest.at))),
                uploader: newest.uploader,
                stack_uploaders,
            },
            reviews: change.reviews.into_iter().map(|review| review.review).collect(),
            came: change.came,
        })
    }
}

/// Git's times are whole seconds.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp(time.0.div_euclid(1000) * 1000)
}
