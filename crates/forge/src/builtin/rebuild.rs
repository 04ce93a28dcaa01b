//! Rows from refs: after a restart, a restore, or the loss of the database.

use std::collections::BTreeMap;

use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{RefUpdate, Transaction};

use super::{BuiltIn, meta, revision_update};
use crate::error::{Done, ForgeError};
use crate::records::ChangeRecord;

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Changes whose row was missing or older than its ref.
    pub mended: Vec<ChangeNumber>,
    /// Rows that nothing in the repository explains; they were taken away.
    pub removed: Vec<ChangeNumber>,
    /// Refs of revisions that a crash had left out; they were made again.
    pub revisions: usize,
    /// Records that cannot be read, with the reason. Their changes are out of reach until a person mends the ref.
    pub broken: Vec<String>,
}

impl BuiltIn {
    /// Makes every row say what the refs say. Where they agree already this costs one listing of refs, so it runs at
    /// every start.
    pub fn rebuild(&self) -> Done<Rebuilt> {
        self.forget();
        let mut rebuilt = Rebuilt::default();
        let metas = self.metas()?;
        let saved = self.records().saved()?;
        for (number, meta) in &metas {
            if saved.get(number) == Some(meta) {
                continue;
            }
            match meta::read(self.repository(), *number, *meta) {
                Ok(change) => {
                    rebuilt.revisions += self.mend_revisions(&change.change)?;
                    self.records().save(&change)?;
                    rebuilt.mended.push(*number);
                }
                Err(error) => rebuilt.broken.push(error.to_string()),
            }
        }
        for number in saved.keys().filter(|number| !metas.contains_key(number)) {
            self.records().remove(*number)?;
            rebuilt.removed.push(*number);
        }
        Ok(rebuilt)
    }

    /// Makes the refs of revisions again whose commits are still there.
    fn mend_revisions(&self, change: &ChangeRecord) -> Done<usize> {
        let refs = self.repository().refs(&format!("{}/{}", meta::CHANGES, change.number))?;
        let known: BTreeMap<_, _> =
            refs.into_iter().map(|found| (found.name, CommitId(found.target.0))).collect();
        let mut updates: Vec<RefUpdate> = Vec::new();
        for revision in &change.revisions {
            let update = revision_update(change, revision);
            let right = known.get(&update.name) == Some(&revision.commit);
            if !right && self.repository().has_commit(revision.commit)? {
                updates.push(update);
            }
        }
        if updates.is_empty() {
            return Ok(0);
        }
        match self.repository().ref_transaction(&updates)? {
            Transaction::Done => Ok(updates.len()),
            Transaction::Stale { name, .. } => {
                let what = format!("the refs of change {}", change.number);
                Err(ForgeError::Conflict { what, why: format!("`{name}` moved meanwhile") }.into())
            }
        }
    }
}
