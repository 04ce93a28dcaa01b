//! Changes of the built-in forge and the verdicts shown on them. Refs are the truth; these rows can be made again from
//! them. A change is stored whole, as the forge wrote it; the columns beside it are what lists are searched by.

use rusqlite::{Row, params};
use towpath_core::effect::{Check, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, RepoName, Timestamp, UserId};

use super::{PAGE_ROWS_MAX, text, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64, parsed, parsed_if_any, word};

/// A change as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// Where.
    pub repo: RepoName,
    /// Its number there.
    pub number: ChangeNumber,
    /// The branch that it wants to land on.
    pub target: BranchName,
    /// Who opened it.
    pub owner: UserId,
    /// `open`, `closed` or `landed`.
    pub state: String,
    /// The branch name that it was pushed as.
    pub source: Option<BranchName>,
    /// Gerrit's `Change-Id`.
    pub change_id: Option<String>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The record in the repository that this row was made from.
    pub meta: CommitId,
    /// The whole change, as JSON of the forge.
    pub body: String,
}

/// Which changes a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ChangeQuery {
    /// Only of this repo.
    pub repo: Option<RepoName>,
    /// Only for this branch.
    pub target: Option<BranchName>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only of this owner.
    pub owner: Option<UserId>,
    /// Only those pushed under this name.
    pub source: Option<BranchName>,
    /// Only with this `Change-Id`.
    pub change_id: Option<String>,
    /// Only those in whose record this occurs: letters, digits and `-`.
    pub mentions: Option<String>,
    /// Only numbers below this one: where the page before ended.
    pub below: Option<ChangeNumber>,
    /// Rows at most; `None`: all. A page has at most [`PAGE_ROWS_MAX`].
    pub count: Option<usize>,
}

/// The verdict that the built-in forge shows on a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheck {
    /// By the gate of which branch.
    pub branch: BranchName,
    /// Of which revision.
    pub revision: CommitId,
    /// What it says.
    pub check: Check,
    /// Since when.
    pub at: Timestamp,
}

macro_rules! columns {
    () => {
        "repo, number, target, owner, state, source, change_id, updated_at, meta, body"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow {
        repo: parsed(row, 0)?,
        number: ChangeNumber(get_u64(row, 1)?),
        target: parsed(row, 2)?,
        owner: UserId(get_u64(row, 3)?),
        state: row.get(4)?,
        source: parsed_if_any(row, 5)?,
        change_id: row.get(6)?,
        updated_at: Timestamp(row.get(7)?),
        meta: parsed(row, 8)?,
        body: row.get(9)?,
    })
}

impl View {
    /// One change.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn change(&self, repo: &RepoName, number: ChangeNumber) -> Result<Option<ChangeRow>, ReadError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM changes WHERE repo = ?1 AND number = ?2");
        self.one(SQL, params![repo.as_str(), number.0 as i64], read)
    }

    /// The changes that a query finds, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn changes(&self, query: &ChangeQuery) -> Result<Vec<ChangeRow>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE (repo = ?1 OR ?1 IS NULL) AND number < ?2 AND (target = ?3 OR ?3 IS NULL)",
            " AND (state = ?4 OR ?4 IS NULL) AND (owner = ?5 OR ?5 IS NULL) AND (source = ?6 OR ?6 IS NULL)",
            " AND (change_id = ?7 OR ?7 IS NULL) AND (lower(body) LIKE '%' || lower(?9) || '%' OR ?9 IS NULL)",
            " ORDER BY number DESC, repo LIMIT ?8"
        );
        let values = params![
            text(&query.repo),
            query.below.map_or(i64::MAX, |number| number.0 as i64),
            text(&query.target),
            query.state,
            query.owner.map(|owner| owner.0 as i64),
            text(&query.source),
            query.change_id,
            query.count.map_or(i64::MAX, |count| count.min(PAGE_ROWS_MAX) as i64),
            query.mentions,
        ];
        self.all(SQL, values, read)
    }

    /// From which record each row of a repo was made.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn change_metas(&self, repo: &RepoName) -> Result<Vec<(ChangeNumber, CommitId)>, ReadError> {
        const SQL: &str = "SELECT number, meta FROM changes WHERE repo = ?1 ORDER BY number";
        self.all(SQL, [repo.as_str()], |row| Ok((ChangeNumber(get_u64(row, 0)?), parsed(row, 1)?)))
    }

    /// From which record of the forge a change's row was made.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn change_meta(&self, repo: &RepoName, number: ChangeNumber) -> Result<Option<CommitId>, ReadError> {
        const SQL: &str = "SELECT meta FROM changes WHERE repo = ?1 AND number = ?2";
        self.one(SQL, params![repo.as_str(), number.0 as i64], |row| parsed(row, 0))
    }

    /// The verdicts of a branch's gate on a change's revisions, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn checks(
        &self,
        repo: &RepoName,
        change: ChangeNumber,
        branch: &BranchName,
    ) -> Result<Vec<StoredCheck>, ReadError> {
        const SQL: &str = "SELECT branch, revision, verdict, text, run, at FROM checks \
             WHERE repo = ?1 AND change = ?2 AND branch = ?3 ORDER BY at";
        self.all(SQL, params![repo.as_str(), change.0 as i64, branch.as_str()], |row| {
            let verdict: Verdict = word(row, 2)?;
            let check = Check { verdict, text: row.get(3)?, run: parsed_if_any(row, 4)? };
            let (branch, revision) = (parsed(row, 0)?, parsed(row, 1)?);
            Ok(StoredCheck { branch, revision, check, at: Timestamp(row.get(5)?) })
        })
    }
}

impl Tx<'_> {
    /// Sets a change, new or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_change(&mut self, change: &ChangeRow) -> Result<(), WriteError> {
        const SQL: &str = concat!(
            "INSERT INTO changes (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (repo, number) DO UPDATE SET",
            " target = excluded.target, owner = excluded.owner, state = excluded.state, source = excluded.source,",
            " change_id = excluded.change_id, updated_at = excluded.updated_at, meta = excluded.meta,",
            " body = excluded.body"
        );
        let values = params![
            change.repo.as_str(),
            change.number.0 as i64,
            change.target.as_str(),
            change.owner.0 as i64,
            change.state,
            text(&change.source),
            change.change_id,
            change.updated_at.0,
            change.meta.to_string(),
            change.body,
        ];
        self.run(SQL, values).map(drop)
    }

    /// Shows a verdict on a revision; the newest of one branch wins.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_check(
        &mut self,
        repo: &RepoName,
        change: ChangeNumber,
        stored: &StoredCheck,
    ) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO checks (repo, change, branch, revision, verdict, text, run, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (repo, change, branch, revision) DO UPDATE SET \
             verdict = excluded.verdict, text = excluded.text, run = excluded.run, at = excluded.at";
        let values = params![
            repo.as_str(),
            change.0 as i64,
            stored.branch.as_str(),
            stored.revision.to_string(),
            word_of(&stored.check.verdict),
            stored.check.text,
            text(&stored.check.run),
            stored.at.0,
        ];
        self.run(SQL, values).map(drop)
    }
}
