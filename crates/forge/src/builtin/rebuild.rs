//! Rows from refs: after a restart, a restore, or the loss of the database.

use std::collections::BTreeMap;

use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{RefUpdate, Transaction};

use super::{BuiltIn, meta, revision_update};
use crate::error::{Done, ForgeError};
use crate::records::ChangeRecord;

/// The newest record of each change, by one of the two that know it.
type Metas = BTreeMap<ChangeNumber, CommitId>;

/// Changes that an error names.
const CHANGES_NAMED_MAX: usize = 10;

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Changes whose row was missing or older than its ref.
    pub mended: Vec<ChangeNumber>,
    /// Refs of revisions that a crash had left out; they were made again.
    pub revisions: usize,
    /// Records that cannot be read, with the reason. Their changes are out of reach until a person mends the ref.
    pub broken: Vec<String>,
}

impl BuiltIn {
    /// Makes every row say what the refs say. Where they agree already this costs one listing of refs, so it runs at
    /// every start.
    ///
    /// # Errors
    /// `Denied`, and no row is touched, if the repository is older than its rows.
    pub fn rebuild(&self) -> Done<Rebuilt> {
        self.forget();
        let mut rebuilt = Rebuilt::default();
        let saved = self.records().saved()?;
        let metas = self.metas()?;
        self.refuse_older_copy(&metas, &saved)?;
        let stale = metas.iter().filter(|(number, meta)| saved.get(number) != Some(meta));
        let stale: Vec<_> = stale.map(|(number, meta)| (*number, *meta)).collect();
        // Who moved them may not have come to this.
        let names: Vec<_> = stale.iter().map(|(number, _)| meta::meta_ref(*number)).collect();
        self.repository().sync_refs(&names)?;
        for (number, meta) in stale {
            match self.step(number, saved.get(&number).copied(), meta) {
                Ok(step) => {
                    rebuilt.revisions += self.mend_revisions(&step.to.change)?;
                    if !self.records().save(&step)? {
                        self.recorded(number)?;
                    }
                    rebuilt.mended.push(number);
                }
                Err(error) => rebuilt.broken.push(error.to_string()),
            }
        }
        Ok(rebuilt)
    }

    /// Refuses a repository without the records that rows were made from. A row is saved after its refs, which are on the
    /// disk by then, and no record of a change goes before another has come after it: this is an older copy, or its disk has
    /// lost some. Its refs would bring back what people have withdrawn since, and give numbers a second time; only a restore
    /// does that, and an admin accepts it (trust T9).
    fn refuse_older_copy(&self, metas: &Metas, saved: &Metas) -> Done<()> {
        let mut lost = Vec::new();
        for (number, row) in saved {
            let is_known = match metas.get(number) {
                Some(meta) => meta == row || self.accounts_for(*number, *row, *meta)?,
                None => false,
            };
            if !is_known {
                lost.push(format!("change {number}"));
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let more = match lost.len().saturating_sub(CHANGES_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        lost.truncate(CHANGES_NAMED_MAX);
        let why = format!(
            "the repository is older than its rows, and has not what they say of {}{more}; put the newer copy of it back, or \
             restore a whole backup",
            lost.join(", ")
        );
        Err(ForgeError::Denied { what: "making rows from refs".into(), why }.into())
    }

    /// Whether the record of a row is there, or is gone as damaged ones go, and the change's newest came after it.
    fn accounts_for(&self, number: ChangeNumber, row: CommitId, newest: CommitId) -> Done<bool> {
        if self.repository().has_commit(row)? {
            return Ok(true);
        }
        match self.records().change(number)? {
            Some(gone) => Ok(meta::come_after(self.repository(), newest, &gone)?),
            None => Ok(false),
        }
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
