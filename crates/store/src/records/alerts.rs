//! What the people who look after a branch have to be told.

use rusqlite::params;
use towpath_core::ids::{BranchName, RepoName, Timestamp};

use super::PAGE_ROWS_MAX;
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, parsed};

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// About which repo.
    pub repo: RepoName,
    /// About which branch.
    pub branch: BranchName,
    /// What happened and what to do.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

impl View {
    /// The newest alerts of a repo, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn alerts(&self, repo: &RepoName, count: usize) -> Result<Vec<Alert>, ReadError> {
        const SQL: &str =
            "SELECT repo, branch, text, at FROM alerts WHERE repo = ?1 ORDER BY number DESC LIMIT ?2";
        self.all(SQL, params![repo.as_str(), count.min(PAGE_ROWS_MAX) as i64], |row| {
            Ok(Alert {
                repo: parsed(row, 0)?,
                branch: parsed(row, 1)?,
                text: row.get(2)?,
                at: Timestamp(row.get(3)?),
            })
        })
    }
}

impl Tx<'_> {
    /// Deletes the oldest alerts of a repo until at most `keep` are left; says how many went.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn prune_alerts(&mut self, repo: &RepoName, keep: u64) -> Result<usize, WriteError> {
        const SQL: &str = "DELETE FROM alerts WHERE repo = ?1 AND number NOT IN \
             (SELECT number FROM alerts WHERE repo = ?1 ORDER BY number DESC LIMIT ?2)";
        self.run(SQL, params![repo.as_str(), keep as i64])
    }

    /// Adds an alert. One that says the same as the newest of its branch is not added again.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn add_alert(&mut self, alert: &Alert) -> Result<(), WriteError> {
        const NEWEST: &str =
            "SELECT text FROM alerts WHERE repo = ?1 AND branch = ?2 ORDER BY number DESC LIMIT 1";
        const SQL: &str = "INSERT INTO alerts (number, repo, branch, text, at) \
             SELECT coalesce(max(number), 0) + 1, ?1, ?2, ?3, ?4 FROM alerts";
        let place = [alert.repo.as_str(), alert.branch.as_str()];
        let newest: Option<String> = self.one(NEWEST, place, |row| row.get(0))?;
        if newest.as_ref() == Some(&alert.text) {
            return Ok(());
        }
        let values = params![alert.repo.as_str(), alert.branch.as_str(), alert.text, alert.at.0];
        self.run(SQL, values).map(drop)
    }
}
