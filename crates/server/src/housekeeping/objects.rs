//! Files: outputs that no run wants, folders that a dead server left, and what Git keeps.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use towpath_core::ids::{GateId, RepoName, RunId, Timestamp};
use towpath_git::{GitError, Litter, Repository};
use towpath_store::records::{Alert, RunQuery};

use super::wanted::{self, Damaged, Outputs};
use super::{DAY_MS, Figures, Keeper, Retention, Trouble};
use crate::repos::{Again, Undone};

/// Runs whose outputs are looked up in one snapshot.
const RUNS_AT_ONCE: usize = 200;
/// Candidates let go of in one transaction of refs.
const CANDIDATES_AT_ONCE: usize = 200;
/// Between what a file's time and a run's start are told by, at most: clocks of one machine, set while jobs run.
const CLOCKS_APART: Duration = Duration::from_secs(86_400);
/// Runs that one alert names; the others are counted.
const RUNS_NAMED_MAX: usize = 10;
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
        let (outputs, damaged) = outputs.with_files(&self.house.blobs, || self.go_on())?;
        for one in &damaged {
            figures.trouble.push(self.tell_damaged(one, now)?);
        }
        let grace = Duration::from_secs(u64::from(retention.grace_days) * DAY_MS as u64 / 1000);
        if let Some(age) = self.age_beside(&damaged, grace)? {
            for first in 0..=u8::MAX {
                self.go_on()?;
                let removed = self.house.blobs.remove_unwanted(first, age, |digest| outputs.has(digest))?;
                figures.files += removed.files;
                figures.bytes += removed.bytes;
            }
        }
        self.house.blobs.sweep(DRAFT_AGE)?;
        Ok(())
    }

    /// Alerts of a manifest that cannot be read, and says the same for the figures.
    fn tell_damaged(&self, damaged: &Damaged, at: Timestamp) -> Result<String, Trouble> {
        let path = self.house.blobs.path(&damaged.manifest);
        // The last folders say enough, and a repo's readers learn nothing of this machine.
        let parts: Vec<_> = path.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
        let file = parts.into_iter().rev().collect::<Vec<_>>().join("/");
        let text = |runs: &[&RunId]| {
            let named: Vec<String> = runs.iter().take(RUNS_NAMED_MAX).map(ToString::to_string).collect();
            let more = match runs.len().saturating_sub(RUNS_NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "the list of an output of {}{more} cannot be read: {}. Files that it may name are kept for as long; put \
                 `{file}` in the data folder's `executor/blobs` back from a backup, or remove it if nobody needs this \
                 output",
                named.join(", "),
                damaged.why
            )
        };
        let mut of_gate: BTreeMap<&GateId, Vec<&RunId>> = BTreeMap::new();
        damaged.runs.iter().for_each(|run| of_gate.entry(&run.gate).or_default().push(run));
        for (gate, runs) in of_gate {
            let (repo, branch) = (gate.repo.clone(), gate.branch.clone());
            let alert = Alert { repo, branch, cause: None, text: text(&runs), at };
            self.house.store.writer().write(move |tx| tx.add_alert(&alert))?;
        }
        Ok(text(&damaged.runs.iter().collect::<Vec<_>>()))
    }

    /// How old an unwanted file must be to go, while some manifests cannot be read; `None`: nothing may go.
    ///
    /// A job stores an output's files before the manifest that names them, and one that is there already becomes young
    /// then: a file that is older than every run that made the manifest is not named by it. The manifest's own time
    /// counts as well, so that a clock that was set back between the two hides nothing.
    fn age_beside(&self, damaged: &[Damaged], grace: Duration) -> Result<Option<Duration>, Trouble> {
        let mut age = grace;
        let view = self.house.store.reader().snapshot()?;
        for one in damaged {
            let stored = fs::metadata(self.house.blobs.path(&one.manifest)).and_then(|meta| meta.modified());
            let Ok(mut oldest) = stored else { return Ok(None) };
            for run in &one.runs {
                let Some(row) = view.run(run)? else { return Ok(None) };
                let began = u64::try_from(row.started_at.0).unwrap_or_default();
                oldest = oldest.min(SystemTime::UNIX_EPOCH + Duration::from_millis(began));
            }
            let since = SystemTime::now().duration_since(oldest).unwrap_or_default();
            age = age.max(since + CLOCKS_APART);
        }
        Ok(Some(age))
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
        Ok(outputs)
    }

    /// Does something with each repository; one that does not let it is alerted of and keeps no other from it.
    fn each_repository(
        &self,
        now: Timestamp,
        figures: &mut Figures,
        work: impl Fn(&RepoName, &Repository, &mut Figures) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        // The snapshot is given back first: one repository takes up to hours.
        let repos = self.house.store.reader().snapshot()?.repos()?;
        for repo in repos {
            self.go_on()?;
            let repository = self.house.repos.get(&repo.name).map_err(Trouble::from);
            match repository.and_then(|repository| work(&repo.name, &repository, figures)) {
                Err(Trouble::Git(why)) => {
                    figures.trouble.push(format!("repo {}: {why}", repo.name));
                    let undone = Undone { repo: &repo, what: "housekeeping", why: &why, again: Again::Soon };
                    undone.tell(self.house.store.writer(), now);
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Lets go of candidates that no gate has asked for. One that a gate asks for in this very moment is held again.
    pub(super) fn candidates(
        &self,
        _retention: &Retention,
        now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        self.each_repository(now, figures, |repo, repository, figures| {
            loop {
                self.go_on()?;
                let wanted = wanted::candidates(&*self.house.store.reader().snapshot()?, repo)?;
                let gone = repository.release_candidates(|id| wanted.contains(id), CANDIDATES_AT_ONCE)?;
                if gone.is_empty() {
                    return Ok(());
                }
                let wanted = wanted::candidates(&*self.house.store.reader().snapshot()?, repo)?;
                for (id, commit) in gone.iter().filter(|(id, _)| wanted.contains(id)) {
                    repository.hold_candidate(id, *commit)?;
                }
                figures.candidates += gone.len() as u64;
            }
        })
    }

    pub(super) fn repositories(
        &self,
        retention: &Retention,
        now: Timestamp,
        figures: &mut Figures,
    ) -> Result<(), Trouble> {
        self.each_repository(now, figures, |_, repository, figures| {
            if self.house.store.writer().health().landing_stopped.is_some() {
                // What is on the disk is not known, and what would go may be the only copy that is.
                return Ok(());
            }
            let Litter { loose, loose_bytes, packs } = repository.litter();
            let loose_bytes_max = u64::from(retention.loose_mib_max) * 1024 * 1024;
            let much = loose > retention.loose_objects_max as usize || loose_bytes > loose_bytes_max;
            if much || packs > retention.packs_max as usize {
                match repository.collect_garbage(&self.interrupt) {
                    Err(GitError::Interrupted { .. }) => return Err(Trouble::Stopping),
                    collected => collected?,
                }
                figures.repositories += 1;
            }
            Ok(())
        })
    }
}
