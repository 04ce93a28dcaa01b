//! Deployments: what was put where, and how it went.

use rusqlite::{Row, params};
use towpath_core::graph::Outcome;
use towpath_core::ids::{
    CommitId, EnvironmentId, EnvironmentName, JobName, RepoName, RunId, Timestamp, UserId,
};

use super::{PAGE_ROWS_MAX, text, word_of};
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_time, get_u64, parsed, parsed_if_any, word_if_any};

/// One change of what runs in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Of which repo.
    pub repo: RepoName,
    /// Where to.
    pub environment: EnvironmentName,
    /// Counts the deployments there, from 1.
    pub number: u64,
    /// What.
    pub commit: CommitId,
    /// By which run.
    pub run: Option<RunId>,
    /// By which job of it.
    pub job: Option<JobName>,
    /// Who asked for it; a landing is nobody's.
    pub actor: Option<UserId>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// One sentence.
    pub why: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

macro_rules! columns {
    () => {
        "repo, environment, number, hash, run, job, actor, outcome, why, started_at, ended_at"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    Ok(Deployment {
        repo: parsed(row, 0)?,
        environment: parsed(row, 1)?,
        number: get_u64(row, 2)?,
        commit: parsed(row, 3)?,
        run: parsed_if_any(row, 4)?,
        job: parsed_if_any(row, 5)?,
        actor: row.get::<_, Option<i64>>(6)?.map(|number| UserId(number as u64)),
        outcome: word_if_any(row, 7)?,
        why: row.get(8)?,
        started_at: Timestamp(row.get(9)?),
        ended_at: get_time(row, 10)?,
    })
}

impl View {
    /// The newest deployments to an environment, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn deployments(
        &self,
        environment: &EnvironmentId,
        count: usize,
    ) -> Result<Vec<Deployment>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM deployments WHERE repo = ?1 AND environment = ?2 ORDER BY number DESC LIMIT ?3"
        );
        let EnvironmentId { repo, name } = environment;
        self.all(SQL, params![repo.as_str(), name.as_str(), count.min(PAGE_ROWS_MAX) as i64], read)
    }

    /// One deployment.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn deployment(
        &self,
        environment: &EnvironmentId,
        number: u64,
    ) -> Result<Option<Deployment>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM deployments WHERE repo = ?1 AND environment = ?2 AND number = ?3"
        );
        let EnvironmentId { repo, name } = environment;
        self.one(SQL, params![repo.as_str(), name.as_str(), number as i64], read)
    }

    /// The newest deployment that passed: what runs there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn current_deployment(&self, environment: &EnvironmentId) -> Result<Option<Deployment>, ReadError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM deployments WHERE repo = ?1 AND environment = ?2 AND outcome = 'passed' ",
            "ORDER BY number DESC LIMIT 1"
        );
        self.one(SQL, params![environment.repo.as_str(), environment.name.as_str()], read)
    }

    /// The environments of a repo that were ever deployed to, by name.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn environments(&self, repo: &RepoName) -> Result<Vec<EnvironmentName>, ReadError> {
        const SQL: &str = "SELECT DISTINCT environment FROM deployments WHERE repo = ?1 ORDER BY environment";
        self.all(SQL, [repo.as_str()], |row| parsed(row, 0))
    }
}

impl Tx<'_> {
    /// Deletes the oldest deployments to an environment until `keep` are left and the one that runs there; says how many
    /// went.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn prune_deployments(&mut self, environment: &EnvironmentId, keep: u64) -> Result<usize, WriteError> {
        const SQL: &str = "DELETE FROM deployments WHERE repo = ?1 AND environment = ?2 AND outcome IS NOT NULL \
             AND number NOT IN (SELECT number FROM deployments WHERE repo = ?1 AND environment = ?2 \
             ORDER BY number DESC LIMIT ?3) AND number <> ?4";
        let current = self.current_deployment(environment)?.map_or(0, |deployment| deployment.number);
        let EnvironmentId { repo, name } = environment;
        self.run(SQL, params![repo.as_str(), name.as_str(), keep as i64, current as i64])
    }

    /// Sets a deployment, new or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_deployment(&mut self, deployment: &Deployment) -> Result<(), WriteError> {
        const SQL: &str = concat!(
            "INSERT INTO deployments (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ",
            "ON CONFLICT (repo, environment, number) DO UPDATE SET hash = excluded.hash, run = excluded.run, ",
            "job = excluded.job, actor = excluded.actor, outcome = excluded.outcome, why = excluded.why, ",
            "started_at = excluded.started_at, ended_at = excluded.ended_at"
        );
        let values = params![
            deployment.repo.as_str(),
            deployment.environment.as_str(),
            deployment.number as i64,
            deployment.commit.to_string(),
            text(&deployment.run),
            text(&deployment.job),
            deployment.actor.map(|actor| actor.0 as i64),
            deployment.outcome.as_ref().map(word_of),
            deployment.why,
            deployment.started_at.0,
            deployment.ended_at.map(|at| at.0),
        ];
        self.run(SQL, values).map(drop)
    }
}
