//! Results of single tests, from JUnit reports.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use towpath_core::graph::JobIndex;
use towpath_core::ids::{JobName, RepoName, RunId, Timestamp};

use super::{PAGE_ROWS_MAX, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64, parsed, parsed_if_any, word};

/// One test of one attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRow {
    /// Of which run.
    pub run: RunId,
    /// Of which job.
    pub job: JobIndex,
    /// Of which attempt.
    pub attempt: u32,
    /// The test's full name; a report may hold a name twice.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took.
    pub duration_ms: u64,
    /// What it said when it failed.
    pub message: Option<String>,
    /// When the report was read.
    pub at: Timestamp,
}

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// Good.
    Passed,
    /// An assertion did not hold.
    Failed,
    /// It could not be carried out.
    Errored,
    /// It was left out.
    Skipped,
}

macro_rules! columns {
    () => {
        "run, job, attempt, name, outcome, duration_ms, message, at"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<TestRow> {
    Ok(TestRow {
        run: parsed(row, 0)?,
        job: JobIndex(row.get(1)?),
        attempt: row.get(2)?,
        name: row.get(3)?,
        outcome: word(row, 4)?,
        duration_ms: get_u64(row, 5)?,
        message: row.get(6)?,
        at: Timestamp(row.get(7)?),
    })
}

/// Which tests of one attempt are read, those that failed before the others, and of each kind the slowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestPage {
    /// Only those that did not go well.
    pub failed: bool,
    /// So many of them not.
    pub skip: usize,
    /// At most so many.
    pub count: usize,
}

impl View {
    /// Tests of one attempt of a job.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tests(
        &self,
        (run, job, attempt): (&RunId, JobIndex, u32),
        page: TestPage,
    ) -> Result<Vec<TestRow>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM tests WHERE run = ?1 AND job = ?2 AND attempt = ?3 \
              AND (NOT ?4 OR outcome IN ('failed', 'errored')) \
              ORDER BY outcome IN ('failed', 'errored') DESC, duration_ms DESC, position LIMIT ?5 OFFSET ?6"
        );
        let count = page.count.min(PAGE_ROWS_MAX) as i64;
        self.all(SQL, params![run.to_string(), job.0, attempt, page.failed, count, page.skip as i64], read)
    }

    /// How many tests of one attempt of a job ended how.
    ///
    /// # Errors
    /// They cannot be counted.
    pub fn test_counts(
        &self,
        (run, job, attempt): (&RunId, JobIndex, u32),
    ) -> Result<Vec<(TestOutcome, u64)>, ReadError> {
        const SQL: &str = "SELECT outcome, count(*) FROM tests \
             WHERE run = ?1 AND job = ?2 AND attempt = ?3 GROUP BY outcome ORDER BY outcome";
        self.all(SQL, params![run.to_string(), job.0, attempt], |row| Ok((word(row, 0)?, get_u64(row, 1)?)))
    }

    /// How one test of a repo ended lately, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn test_history(
        &self,
        repo: &RepoName,
        name: &str,
        count: usize,
    ) -> Result<Vec<(TestRow, Option<JobName>)>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            ", (SELECT jobs.name FROM jobs WHERE jobs.run = tests.run AND jobs.job = tests.job AND jobs.attempt = tests.attempt)",
            " FROM tests WHERE repo = ?1 AND name = ?2 ORDER BY at DESC, run, job, attempt DESC LIMIT ?3"
        );
        let values = params![repo.as_str(), name, count.min(PAGE_ROWS_MAX) as i64];
        self.all(SQL, values, |row| Ok((read(row)?, parsed_if_any(row, 8)?)))
    }
}

impl Tx<'_> {
    /// Sets the tests of one attempt of a job, in place of what was there.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_tests(
        &mut self,
        (run, job, attempt): (&RunId, JobIndex, u32),
        tests: &[TestRow],
    ) -> Result<(), WriteError> {
        const DELETE: &str = "DELETE FROM tests WHERE run = ?1 AND job = ?2 AND attempt = ?3";
        const SQL: &str = "INSERT INTO tests \
             (run, job, attempt, position, repo, name, outcome, duration_ms, message, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let id = run.to_string();
        self.run(DELETE, params![id, job.0, attempt])?;
        for (position, test) in tests.iter().enumerate() {
            let values = params![
                id,
                job.0,
                attempt,
                position as i64,
                run.gate.repo.as_str(),
                test.name,
                word_of(&test.outcome),
                test.duration_ms as i64,
                test.message,
                test.at.0,
            ];
            self.run(SQL, values)?;
        }
        Ok(())
    }
}
