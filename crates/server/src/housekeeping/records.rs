//! Rows: runs with all that belongs to them, and lists that only grow.

use towpath_core::ids::{EnvironmentId, RepoName, RunId, Timestamp};
use towpath_store::View;
use towpath_store::records::{RunCursor, RunRow};

use super::{Figures, Keeper, Retention, Trouble, wanted};

/// Runs looked at in one snapshot, and removed in one transaction at most.
const RUNS_AT_ONCE: usize = 50;

/// What becomes of an old run.
enum Fate {
    Stays,
    /// The run stays, its logs go.
    LosesLogs,
    Goes,
}

impl Keeper {
    pub(super) fn runs(
        &self,
        retention: &Retention,
        now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        let before = Retention::before(retention.run_days.min(retention.log_days), now);
        let mut after: Option<RunCursor> = None;
        loop {
            self.go_on()?;
            let view = self.house.store.reader().snapshot()?;
            let runs = view.ended_runs_before(before, after.as_ref(), RUNS_AT_ONCE)?;
            let Some(last) = runs.last() else { return Ok(()) };
            after = Some(last.cursor());
            let remembered = wanted::remembered_runs(&view)?;
            let mut gone = Vec::new();
            for run in runs.iter().filter(|run| !remembered.contains(&run.run)) {
                let fate = fate(&view, run, (retention, now))?;
                if matches!(fate, Fate::Stays) {
                    continue;
                }
                figures.logs += self.remove_logs(&view, &run.run)?;
                if matches!(fate, Fate::Goes) {
                    gone.push(run.run.clone());
                }
            }
            drop(view);
            self.remove_runs(gone, figures)?;
        }
    }

    /// Logs first: a run without logs is looked at again, a log without a run would be nobody's.
    fn remove_logs(&self, view: &View, run: &RunId) -> Result<u64, Trouble> {
        let mut count = 0;
        for lease in view.jobs(run)?.into_iter().filter_map(|job| job.lease) {
            count += u64::from(self.house.logs.path(&lease).exists());
            self.house.logs.remove(&lease)?;
        }
        Ok(count)
    }

    fn remove_runs(&self, runs: Vec<RunId>, figures: &mut Figures) -> Result<(), Trouble> {
        if runs.is_empty() {
            return Ok(());
        }
        figures.runs += runs.len() as u64;
        let removed = self.house.store.writer().write(move |tx| {
            runs.iter().try_fold((0, 0), |(jobs, tests), run| {
                let (more_jobs, more_tests) = tx.remove_run(run)?;
                Ok((jobs + more_jobs, tests + more_tests))
            })
        });
        let (jobs, tests) = removed?;
        figures.jobs += jobs as u64;
        figures.tests += tests as u64;
        Ok(())
    }

    /// Alerts, deployments, sessions.
    pub(super) fn lists(
        &self,
        retention: &Retention,
        now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        let writer = self.house.store.writer();
        writer.write(move |tx| tx.remove_expired_sessions(now))?;
        let repos: Vec<RepoName> =
            self.house.store.reader().snapshot()?.repos()?.into_iter().map(|repo| repo.name).collect();
        for repo in repos {
            self.go_on()?;
            let (name, keep) = (repo.clone(), u64::from(retention.alerts_max));
            figures.alerts += writer.write(move |tx| tx.prune_alerts(&name, keep))? as u64;
            let names = self.house.store.reader().snapshot()?.environments(&repo)?;
            for name in names {
                let (id, keep) =
                    (EnvironmentId { repo: repo.clone(), name }, u64::from(retention.deployments_max));
                figures.deployments += writer.write(move |tx| tx.prune_deployments(&id, keep))? as u64;
            }
        }
        Ok(())
    }
}

/// What becomes of a run that is over and that its gate has forgotten.
fn fate(view: &View, run: &RunRow, (retention, now): (&Retention, Timestamp)) -> Result<Fate, Trouble> {
    let newest = view.last_run_number(&run.run.gate)?.unwrap_or(0);
    if run.run.number + u64::from(retention.runs_min) > newest {
        return Ok(Fate::Stays);
    }
    let logs_go = run.started_at < Retention::before(retention.log_days, now);
    let goes = run.started_at < Retention::before(retention.run_days, now) && !view.is_proof(&run.run)?;
    Ok(match (goes, logs_go) {
        (true, _) => Fate::Goes,
        (false, true) => Fate::LosesLogs,
        (false, false) => Fate::Stays,
    })
}
