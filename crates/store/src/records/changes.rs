//! Changes, their revisions and their checks. Refs are the truth; these rows can be made again from them, so every
//! write here sets a whole row, new or not.

use std::collections::BTreeSet;

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use towpath_core::effect::{Check, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, RepoName, Timestamp, UserId};

use super::{PAGE_ROWS_MAX, text, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::{Tx, encode};
use crate::view::{View, get_time, get_u64, json, parsed, parsed_if_any, word};

/// A proposed edit to a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub repo: RepoName,
    /// Its number there.
    pub number: ChangeNumber,
    /// The branch that it wants to land on.
    pub target: BranchName,
    /// Who opened it.
    pub owner: UserId,
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// Not ready: nothing runs.
    pub draft: bool,
    /// Whether it is over, and how.
    pub state: ChangeState,
    /// The commit that it landed as.
    pub landed: Option<CommitId>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// The branch or topic that it was pushed as.
    pub topic: Option<String>,
    /// Gerrit's `Change-Id`.
    pub change_id: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Whether a change is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// It may still land.
    Open,
    /// Somebody closed it.
    Closed,
    /// It landed.
    Landed,
}

/// Which changes of a repo a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ChangeQuery {
    /// Only on this branch.
    pub target: Option<BranchName>,
    /// Only in this state.
    pub state: Option<ChangeState>,
    /// Only numbers below this one: where the page before ended.
    pub below: Option<ChangeNumber>,
    /// Rows at most; at most [`PAGE_ROWS_MAX`].
    pub count: usize,
}

/// One head commit of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Where.
    pub repo: RepoName,
    /// Of which change.
    pub change: ChangeNumber,
    /// Counts the change's revisions, from 1.
    pub number: u32,
    /// The commit.
    pub commit: CommitId,
    /// Who uploaded just this revision: decides its level.
    pub uploader: UserId,
    /// When.
    pub uploaded_at: Timestamp,
    /// When a newer one took its place.
    pub superseded_at: Option<Timestamp>,
}

/// The verdict that the built-in forge shows on a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheck {
    /// Of which revision.
    pub revision: CommitId,
    /// What it says.
    pub check: Check,
    /// Since when.
    pub at: Timestamp,
}

macro_rules! columns {
    () => {
        "repo, number, target, owner, title, body, draft, state, landed, labels, topic, change_id, created_at, updated_at"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        repo: parsed(row, 0)?,
        number: ChangeNumber(get_u64(row, 1)?),
        target: parsed(row, 2)?,
        owner: UserId(get_u64(row, 3)?),
        title: row.get(4)?,
        body: row.get(5)?,
        draft: row.get(6)?,
        state: word(row, 7)?,
        landed: parsed_if_any(row, 8)?,
        labels: json(row, 9)?,
        topic: row.get(10)?,
        change_id: row.get(11)?,
        created_at: Timestamp(row.get(12)?),
        updated_at: Timestamp(row.get(13)?),
    })
}

fn read_revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        repo: parsed(row, 0)?,
        change: ChangeNumber(get_u64(row, 1)?),
        number: row.get(2)?,
        commit: parsed(row, 3)?,
        uploader: UserId(get_u64(row, 4)?),
        uploaded_at: Timestamp(row.get(5)?),
        superseded_at: get_time(row, 6)?,
    })
}

impl View {
    /// One change.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn change(&self, repo: &RepoName, number: ChangeNumber) -> Result<Option<Change>, ReadError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM changes WHERE repo = ?1 AND number = ?2");
        self.one(SQL, params![repo.as_str(), number.0 as i64], read)
    }

    /// The changes of one repo, newest first, a page at a time.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn changes(&self, repo: &RepoName, query: &ChangeQuery) -> Result<Vec<Change>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE repo = ?1 AND number < ?2",
            " AND (target = ?3 OR ?3 IS NULL) AND (state = ?4 OR ?4 IS NULL) ORDER BY number DESC LIMIT ?5"
        );
        let below = query.below.map_or(i64::MAX, |number| number.0 as i64);
        let (target, state) = (text(&query.target), query.state.as_ref().map(word_of));
        let count = query.count.min(PAGE_ROWS_MAX) as i64;
        self.all(SQL, params![repo.as_str(), below, target, state, count], read)
    }

    /// The open changes for one branch, oldest first: what a forge read of that branch sees.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn open_changes(&self, repo: &RepoName, target: &BranchName) -> Result<Vec<Change>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE repo = ?1 AND target = ?2 AND state = 'open' ORDER BY number"
        );
        self.all(SQL, [repo.as_str(), target.as_str()], read)
    }

    /// Changes with this topic, newest first. Whose they are is for the caller to check.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn changes_by_topic(&self, repo: &RepoName, topic: &str) -> Result<Vec<Change>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE repo = ?1 AND topic = ?2 ORDER BY number DESC"
        );
        self.all(SQL, [repo.as_str(), topic], read)
    }

    /// Changes with this `Change-Id`, newest first. Whose they are is for the caller to check.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn changes_by_change_id(&self, repo: &RepoName, id: &str) -> Result<Vec<Change>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE repo = ?1 AND change_id = ?2 ORDER BY number DESC"
        );
        self.all(SQL, [repo.as_str(), id], read)
    }

    /// The number that the next new change of a repo gets.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next_change_number(&self, repo: &RepoName) -> Result<ChangeNumber, ReadError> {
        const SQL: &str = "SELECT COALESCE(MAX(number), 0) + 1 FROM changes WHERE repo = ?1";
        let next = self.one(SQL, [repo.as_str()], |row| get_u64(row, 0))?;
        Ok(ChangeNumber(next.unwrap_or(1)))
    }

    /// The revisions of a change, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn revisions(&self, repo: &RepoName, change: ChangeNumber) -> Result<Vec<Revision>, ReadError> {
        const SQL: &str = "SELECT repo, change, number, hash, uploader, uploaded_at, superseded_at \
             FROM revisions WHERE repo = ?1 AND change = ?2 ORDER BY number";
        self.all(SQL, params![repo.as_str(), change.0 as i64], read_revision)
    }

    /// Every revision that is this commit, oldest change first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn revisions_at(&self, repo: &RepoName, commit: CommitId) -> Result<Vec<Revision>, ReadError> {
        const SQL: &str = "SELECT repo, change, number, hash, uploader, uploaded_at, superseded_at \
             FROM revisions WHERE repo = ?1 AND hash = ?2 ORDER BY change, number";
        self.all(SQL, [repo.as_str(), &commit.to_string()], read_revision)
    }

    /// The checks on a change, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn checks(&self, repo: &RepoName, change: ChangeNumber) -> Result<Vec<StoredCheck>, ReadError> {
        const SQL: &str = "SELECT revision, verdict, text, run, at FROM checks \
             WHERE repo = ?1 AND change = ?2 ORDER BY at DESC, revision";
        self.all(SQL, params![repo.as_str(), change.0 as i64], |row| {
            let check =
                Check { verdict: word::<Verdict>(row, 1)?, text: row.get(2)?, run: parsed_if_any(row, 3)? };
            Ok(StoredCheck { revision: parsed(row, 0)?, check, at: Timestamp(row.get(4)?) })
        })
    }
}

impl Tx<'_> {
    /// Sets a change, new or not.
    ///
    /// # Errors
    /// There is no such repo, or those of the disk.
    pub fn put_change(&mut self, change: &Change) -> Result<(), WriteError> {
        const SQL: &str = concat!(
            "INSERT INTO changes (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ",
            "ON CONFLICT (repo, number) DO UPDATE SET target = excluded.target, owner = excluded.owner, ",
            "title = excluded.title, body = excluded.body, draft = excluded.draft, state = excluded.state, ",
            "landed = excluded.landed, labels = excluded.labels, topic = excluded.topic, ",
            "change_id = excluded.change_id, created_at = excluded.created_at, updated_at = excluded.updated_at"
        );
        let values = params![
            change.repo.as_str(),
            change.number.0 as i64,
            change.target.as_str(),
            change.owner.0 as i64,
            change.title,
            change.body,
            change.draft,
            word_of(&change.state),
            text(&change.landed),
            encode(&change.labels),
            change.topic,
            change.change_id,
            change.created_at.0,
            change.updated_at.0,
        ];
        self.run(SQL, values).map(drop)
    }

    /// Sets a revision, new or not.
    ///
    /// # Errors
    /// There is no such change, or those of the disk.
    pub fn put_revision(&mut self, revision: &Revision) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO revisions (repo, change, number, hash, uploader, uploaded_at, superseded_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (repo, change, number) DO UPDATE SET hash = excluded.hash, uploader = excluded.uploader, \
             uploaded_at = excluded.uploaded_at, superseded_at = excluded.superseded_at";
        let values = params![
            revision.repo.as_str(),
            revision.change.0 as i64,
            revision.number,
            revision.commit.to_string(),
            revision.uploader.0 as i64,
            revision.uploaded_at.0,
            revision.superseded_at.map(|at| at.0),
        ];
        self.run(SQL, values).map(drop)
    }

    /// Shows a check on a revision, in place of the one before.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_check(
        &mut self,
        (repo, change): (&RepoName, ChangeNumber),
        stored: &StoredCheck,
    ) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO checks (repo, change, revision, verdict, text, run, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (repo, change, revision) DO UPDATE SET verdict = excluded.verdict, \
             text = excluded.text, run = excluded.run, at = excluded.at";
        let StoredCheck { revision, check, at } = stored;
        let values = params![
            repo.as_str(),
            change.0 as i64,
            revision.to_string(),
            word_of(&check.verdict),
            check.text,
            text(&check.run),
            at.0,
        ];
        self.run(SQL, values).map(drop)
    }
}
