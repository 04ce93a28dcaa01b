//! What the people who look after a branch have to be told.

use rusqlite::{Row as SqlRow, params};
use towpath_core::effect::EffectKey;
use towpath_core::ids::{BranchName, GateId, RepoName, Timestamp};

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
    /// The effect that told it, for whoever owes it to say when that is over; `None`: nobody can.
    pub cause: Option<EffectKey>,
    /// What happened and what to do.
    pub text: String,
    /// When it was told last.
    pub at: Timestamp,
}

impl View {
    /// The newest alerts of a repo, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn alerts(&self, repo: &RepoName, count: usize) -> Result<Vec<Alert>, ReadError> {
        const SQL: &str =
            "SELECT repo, branch, cause, text, at FROM alerts WHERE repo = ?1 ORDER BY number DESC LIMIT ?2";
        self.all(SQL, params![repo.as_str(), count.min(PAGE_ROWS_MAX) as i64], alert)
    }

    /// The newest alerts of a branch, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn alerts_of(&self, gate: &GateId, count: usize) -> Result<Vec<Alert>, ReadError> {
        const SQL: &str = "SELECT repo, branch, cause, text, at FROM alerts WHERE repo = ?1 AND branch = ?2 \
             ORDER BY number DESC LIMIT ?3";
        let values = params![gate.repo.as_str(), gate.branch.as_str(), count.min(PAGE_ROWS_MAX) as i64];
        self.all(SQL, values, alert)
    }
}

fn alert(row: &SqlRow<'_>) -> rusqlite::Result<Alert> {
    let cause: Option<String> = row.get(2)?;
    Ok(Alert {
        repo: parsed(row, 0)?,
        branch: parsed(row, 1)?,
        cause: cause.map(|cause| EffectKey::stored(&cause)),
        text: row.get(3)?,
        at: Timestamp(row.get(4)?),
    })
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

    /// Adds an alert. One that says the same of the same cause as the newest of its branch is told again, not added.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn add_alert(&mut self, alert: &Alert) -> Result<(), WriteError> {
        const NEWEST: &str = "SELECT number, text, cause FROM alerts WHERE repo = ?1 AND branch = ?2 ORDER BY number DESC LIMIT 1";
        const AGAIN: &str = "UPDATE alerts SET at = ?2 WHERE number = ?1";
        const SQL: &str = "INSERT INTO alerts (number, repo, branch, text, at, cause) \
             SELECT coalesce(max(number), 0) + 1, ?1, ?2, ?3, ?4, ?5 FROM alerts";
        let place = [alert.repo.as_str(), alert.branch.as_str()];
        let cause = alert.cause.as_ref().map(EffectKey::as_str);
        let newest: Option<(i64, String, Option<String>)> =
            self.one(NEWEST, place, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if let Some((number, text, of)) = newest
            && (text.as_str(), of.as_deref()) == (alert.text.as_str(), cause)
        {
            return self.run(AGAIN, params![number, alert.at.0]).map(drop);
        }
        let values = params![alert.repo.as_str(), alert.branch.as_str(), alert.text, alert.at.0, cause];
        self.run(SQL, values).map(drop)
    }
}
