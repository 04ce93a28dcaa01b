//! Files: outputs that no run wants, folders that a dead server left, and what Git keeps.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use towpath_core::ids::{RepoName, Timestamp};
use towpath_store::records::RunQuery;

use super::wanted::{self, Outputs};
use super::{DAY_MS, Figures, Keeper, Retention, Trouble};

/// Runs whose outputs are looked up in one snapshot.
const RUNS_AT_ONCE: usize = 200;
/// Candidates let go of in one transaction of refs.
const CANDIDATES_AT_ONCE: usize = 200;
/// Age of drafts that a crash left behind.
const DRAFT_AGE: Duration = Duration::from_secs(86_400);

impl Keeper {
    /// Marks what is wanted, then removes the rest folder by folder. What is stored meanwhile is young; what is stored
    /// again meanwhile becomes young.
    pub(super) fn outputs(
        &self,
        retention: &Retention,
        now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        let outputs = self.wanted_outputs(Retention::before(retention.artifact_days, now))?;
        let age = Duration::from_secs(u64::from(retention.grace_days) * DAY_MS as u64 / 1000);
        for first in 0..=u8::MAX {
            self.go_on()?;
            let removed = self.house.blobs.remove_unwanted(first, age, |digest| outputs.has(digest))?;
            figures.files += removed.files;
            figures.bytes += removed.bytes;
        }
        self.house.blobs.sweep(DRAFT_AGE)?;
        Ok(())
    }

    fn wanted_outputs(&self, before: Timestamp) -> Result<Outputs, Trouble> {
        let mut outputs = Outputs::default();
        let mut query = RunQuery { count: RUNS_AT_ONCE, ..RunQuery::default() };
        loop {
            self.go_on()?;
            let view = self.house.store.reader().snapshot()?;
            let runs = view.runs(&query)?;
            let Some(last) = runs.last() else { break };
            query.after = Some(last.cursor());
            // What an old run left is wanted only while the run goes on.
            for run in runs.iter().filter(|run| run.ended_at.is_none() || run.started_at >= before) {
                outputs.of_run(&view, &run.run)?;
            }
        }
        // Last, so that what was carried over meanwhile is seen.
        outputs.of_gates_and_environments(&*self.house.store.reader().snapshot()?)?;
        outputs.with_files(&self.house.blobs)
    }

    /// Repositories for jobs of servers that were killed: their jobs are long over.
    pub(super) fn leftovers(
        &self,
        retention: &Retention,
        _now: Timestamp,
        _figures: &mut Figures,
    ) -> Result<(), Trouble> {
        let age = Duration::from_secs(u64::from(retention.grace_days.max(1)) * DAY_MS as u64 / 1000);
        for entry in fs::read_dir(&self.house.histories)?.flatten() {
            let old = |time: SystemTime| SystemTime::now().duration_since(time).is_ok_and(|past| past >= age);
            if entry.metadata().and_then(|meta| meta.modified()).is_ok_and(old) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn repo_names(&self) -> Result<Vec<RepoName>, Trouble> {
        let repos = self.house.store.reader().snapshot()?.repos()?;
        Ok(repos.into_iter().map(|repo| repo.name).collect())
    }

    /// Lets go of candidates that no gate has asked for. One that a gate asks for in this very moment is held again.
    pub(super) fn candidates(
        &self,
        _retention: &Retention,
        _now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        for repo in self.repo_names()? {
            let repository = self.house.repos.get(&repo)?;
            loop {
                self.go_on()?;
                let wanted = wanted::candidates(&*self.house.store.reader().snapshot()?, &repo)?;
                let gone = repository.release_candidates(|id| wanted.contains(id), CANDIDATES_AT_ONCE)?;
                if gone.is_empty() {
                    break;
                }
                let wanted = wanted::candidates(&*self.house.store.reader().snapshot()?, &repo)?;
                for (id, commit) in gone.iter().filter(|(id, _)| wanted.contains(id)) {
                    repository.hold_candidate(id, *commit)?;
                }
                figures.candidates += gone.len() as u64;
            }
        }
        Ok(())
    }

    pub(super) fn repositories(
        &self,
        retention: &Retention,
        _now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        for repo in self.repo_names()? {
            self.go_on()?;
            let repository = self.house.repos.get(&repo)?;
            let (loose, packs) = repository.litter();
            if loose > retention.loose_objects_max as usize || packs > retention.packs_max as usize {
                self.collecting.store(true, Ordering::Relaxed);
                let collected = repository.collect_garbage();
                self.collecting.store(false, Ordering::Relaxed);
                collected?;
                figures.repositories += 1;
            }
        }
        Ok(())
    }
}
