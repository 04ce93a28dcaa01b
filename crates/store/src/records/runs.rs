//! Runs as lists show them. Projections: the run's cell is the truth.

use rusqlite::{Row, params};
use towpath_core::cell::CellId;
use towpath_core::graph::{Outcome, Trigger};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, GateId, RepoName, RunId, Timestamp};

use super::{PAGE_ROWS_MAX, text, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_time, get_u64, parsed, word, word_if_any};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Which.
    pub run: RunId,
    /// What started it.
    pub trigger: Trigger,
    /// For which change, if for one.
    pub change: Option<ChangeNumber>,
    /// The commit under test.
    pub commit: CommitId,
    /// Why it was started, for people.
    pub reason: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// A job of it ran without a sandbox.
    pub unsandboxed: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Which runs a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Only of this repo.
    pub repo: Option<RepoName>,
    /// Only of this branch.
    pub branch: Option<BranchName>,
    /// Only for this change; `repo` must be set too.
    pub change: Option<ChangeNumber>,
    /// Only those that have not ended.
    pub unended: bool,
    /// Only what comes after this one in the list: where the page before ended.
    pub after: Option<RunCursor>,
    /// Rows at most; at most [`PAGE_ROWS_MAX`].
    pub count: usize,
}

/// A place in a list of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCursor {
    /// When the run there began.
    pub started_at: Timestamp,
    /// Its id.
    pub run: RunId,
}

impl RunRow {
    /// Its place in a list.
    pub fn cursor(&self) -> RunCursor {
        RunCursor { started_at: self.started_at, run: self.run.clone() }
    }
}

macro_rules! columns {
    () => {
        "id, cause, change, hash, reason, outcome, unsandboxed, started_at, ended_at"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        run: parsed(row, 0)?,
        trigger: word(row, 1)?,
        change: row.get::<_, Option<i64>>(2)?.map(|number| ChangeNumber(number as u64)),
        commit: parsed(row, 3)?,
        reason: row.get(4)?,
        outcome: word_if_any(row, 5)?,
        unsandboxed: row.get(6)?,
        started_at: Timestamp(row.get(7)?),
        ended_at: get_time(row, 8)?,
    })
}

impl View {
    /// One run.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn run(&self, run: &RunId) -> Result<Option<RunRow>, ReadError> {
        self.one(concat!("SELECT ", columns!(), " FROM runs WHERE id = ?1"), [run.to_string()], read)
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn runs(&self, query: &RunQuery) -> Result<Vec<RunRow>, ReadError> {
        // One text per combination of filters, so that each gets the index that serves it.
        let mut sql =
            String::from(concat!("SELECT ", columns!(), " FROM runs WHERE (started_at, id) < (?1, ?2)"));
        let (repo, branch) = (text(&query.repo), text(&query.branch));
        let change = query.change.map(|change| change.0 as i64);
        sql.push_str(if repo.is_some() { " AND repo = ?3" } else { " AND CAST(?3 AS TEXT) IS NULL" });
        sql.push_str(if branch.is_some() { " AND branch = ?4" } else { " AND CAST(?4 AS TEXT) IS NULL" });
        sql.push_str(if change.is_some() { " AND change = ?5" } else { " AND CAST(?5 AS INTEGER) IS NULL" });
        sql.push_str(if query.unended { " AND outcome IS NULL" } else { "" });
        sql.push_str(" ORDER BY started_at DESC, id DESC LIMIT ?6");
        let (time, id) = match &query.after {
            Some(cursor) => (cursor.started_at.0, cursor.run.to_string()),
            None => (i64::MAX, String::new()),
        };
        let count = query.count.min(PAGE_ROWS_MAX) as i64;
        self.all(&sql, params![time, id, repo, branch, change, count], read)
    }

    /// Runs that are over and began before an instant, oldest first, from a place in that order on.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn ended_runs_before(
        &self,
        before: Timestamp,
        after: Option<&RunCursor>,
        count: usize,
    ) -> Result<Vec<RunRow>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM runs WHERE (started_at, id) > (?1, ?2) AND started_at < ?3 AND outcome IS NOT NULL",
            " ORDER BY started_at, id LIMIT ?4"
        );
        let (time, id) = after.map_or((i64::MIN, String::new()), |at| (at.started_at.0, at.run.to_string()));
        self.all(SQL, params![time, id, before.0, count.min(PAGE_ROWS_MAX) as i64], read)
    }

    /// Whether a landing rests on this run.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_proof(&self, run: &RunId) -> Result<bool, ReadError> {
        const SQL: &str = "SELECT 1 FROM proofs WHERE run = ?1";
        Ok(self.one(SQL, [run.to_string()], |_| Ok(()))?.is_some())
    }

    /// How many runs there are.
    ///
    /// # Errors
    /// They cannot be counted.
    pub fn run_count(&self) -> Result<u64, ReadError> {
        Ok(self.one("SELECT count(*) FROM runs", [], |row| get_u64(row, 0))?.unwrap_or(0))
    }

    /// The highest number that a run of this gate has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last_run_number(&self, gate: &GateId) -> Result<Option<u64>, ReadError> {
        const SQL: &str =
            "SELECT number FROM runs WHERE repo = ?1 AND branch = ?2 ORDER BY number DESC LIMIT 1";
        self.one(SQL, [gate.repo.as_str(), gate.branch.as_str()], |row| get_u64(row, 0))
    }
}

impl Tx<'_> {
    /// Removes a run that is over with its jobs, tests and cell; says how many jobs and tests it had. A run that is not
    /// there is success.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_run(&mut self, run: &RunId) -> Result<(usize, usize), WriteError> {
        let id = run.to_string();
        self.run("DELETE FROM runs WHERE id = ?1 AND outcome IS NOT NULL", [&id])?;
        let tests = self.run("DELETE FROM tests WHERE run = ?1", [&id])?;
        let jobs = self.run("DELETE FROM jobs WHERE run = ?1", [&id])?;
        match self.forget_cell(&CellId::Run(run.clone())) {
            Ok(()) | Err(WriteError::Missing { .. }) => Ok((jobs, tests)),
            Err(error) => Err(error),
        }
    }

    /// Notes that a landing rests on this run. Once is as good as twice.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_proof(&mut self, run: &RunId) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO proofs (run) VALUES (?1) ON CONFLICT (run) DO NOTHING";
        self.run(SQL, [run.to_string()]).map(drop)
    }

    /// Sets a run, new or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_run(&mut self, run: &RunRow) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO runs (id, cause, change, hash, reason, outcome, unsandboxed, \
             started_at, ended_at, repo, branch, number) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (id) DO UPDATE SET cause = excluded.cause, change = excluded.change, \
             hash = excluded.hash, reason = excluded.reason, outcome = excluded.outcome, \
             unsandboxed = excluded.unsandboxed, started_at = excluded.started_at, ended_at = excluded.ended_at";
        let values = params![
            run.run.to_string(),
            word_of(&run.trigger),
            run.change.map(|change| change.0 as i64),
            run.commit.to_string(),
            run.reason,
            run.outcome.as_ref().map(word_of),
            run.unsandboxed,
            run.started_at.0,
            run.ended_at.map(|at| at.0),
            run.run.gate.repo.as_str(),
            run.run.gate.branch.as_str(),
            run.run.number as i64,
        ];
        self.run(SQL, values).map(drop)
    }
}
