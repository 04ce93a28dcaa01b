//! Attempts of jobs as pages show them. Projections: the run's cell is the truth.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use towpath_core::graph::{JobIndex, Outcome};
use towpath_core::ids::{Digest, JobName, LeaseId, RunId, Timestamp};

use super::{text, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_time, parsed, parsed_if_any, word, word_if_any};

/// One attempt of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Of which run.
    pub run: RunId,
    /// Which job of its graph.
    pub job: JobIndex,
    /// Counts the job's tries, from 1.
    pub attempt: u32,
    /// The job's name.
    pub name: JobName,
    /// How far it is.
    pub stage: JobStage,
    /// The lease that it runs under.
    pub lease: Option<LeaseId>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// One sentence about the outcome, or about what it waits for.
    pub why: String,
    /// It ran without a sandbox.
    pub unsandboxed: bool,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Digest of its masked log.
    pub log: Option<Digest>,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStage {
    /// For its needs or for a slot.
    Waiting,
    /// With an executor.
    Running,
    /// Over.
    Ended,
}

macro_rules! columns {
    () => {
        "run, job, attempt, name, state, lease, outcome, why, unsandboxed, started_at, ended_at, log"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        run: parsed(row, 0)?,
        job: JobIndex(row.get(1)?),
        attempt: row.get(2)?,
        name: parsed(row, 3)?,
        stage: word(row, 4)?,
        lease: parsed_if_any(row, 5)?,
        outcome: word_if_any(row, 6)?,
        why: row.get(7)?,
        unsandboxed: row.get(8)?,
        started_at: get_time(row, 9)?,
        ended_at: get_time(row, 10)?,
        log: row.get::<_, Option<[u8; 32]>>(11)?.map(Digest),
    })
}

impl View {
    /// Every attempt of every job of a run, by job and attempt.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn jobs(&self, run: &RunId) -> Result<Vec<JobRow>, ReadError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE run = ?1 ORDER BY job, attempt");
        self.all(SQL, [run.to_string()], read)
    }

    /// The attempts of one job, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn attempts(&self, run: &RunId, job: JobIndex) -> Result<Vec<JobRow>, ReadError> {
        const SQL: &str =
            concat!("SELECT ", columns!(), " FROM jobs WHERE run = ?1 AND job = ?2 ORDER BY attempt");
        self.all(SQL, params![run.to_string(), job.0], read)
    }

    /// The attempt that runs or ran under a lease.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn job_by_lease(&self, lease: LeaseId) -> Result<Option<JobRow>, ReadError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE lease = ?1");
        self.one(SQL, [lease.to_string()], read)
    }
}

impl Tx<'_> {
    /// Sets an attempt, new or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_job(&mut self, job: &JobRow) -> Result<(), WriteError> {
        const SQL: &str = concat!(
            "INSERT INTO jobs (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ",
            "ON CONFLICT (run, job, attempt) DO UPDATE SET name = excluded.name, state = excluded.state, ",
            "lease = excluded.lease, outcome = excluded.outcome, why = excluded.why, ",
            "unsandboxed = excluded.unsandboxed, started_at = excluded.started_at, ",
            "ended_at = excluded.ended_at, log = excluded.log"
        );
        let values = params![
            job.run.to_string(),
            job.job.0,
            job.attempt,
            job.name.as_str(),
            word_of(&job.stage),
            text(&job.lease),
            job.outcome.as_ref().map(word_of),
            job.why,
            job.unsandboxed,
            job.started_at.map(|at| at.0),
            job.ended_at.map(|at| at.0),
            job.log.map(|digest| digest.0),
        ];
        self.run(SQL, values).map(drop)
    }
}
