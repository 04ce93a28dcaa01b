//! What must stay: derived from the rows of every cell, so that nothing can be forgotten that a cell may still need.

use std::collections::{BTreeSet, HashMap, HashSet};

use towpath_blob::{BlobError, BlobStore, Manifest};
use towpath_core::cell::{CellId, Row};
use towpath_core::environment::Deploying;
use towpath_core::gate::{PendingLanding, Phase, RunRecord};
use towpath_core::graph::JobResult;
use towpath_core::ids::{CandidateId, Digest, RepoName, RunId};
use towpath_core::message::RunStart;
use towpath_core::run::JobState;
use towpath_store::{ReadError, View};

use super::Trouble;

/// Runs that their gates remember, whatever their age, and those on which these and landings under way rest.
pub fn remembered_runs(view: &View) -> Result<HashSet<RunId>, ReadError> {
    let mut runs = HashSet::new();
    for cell in view.cells_of("gate")? {
        let CellId::Gate(gate) = &cell else { continue };
        for row in view.cell_rows(&cell, "run/")? {
            let number = row.key.strip_prefix("run/").and_then(|number| number.parse().ok());
            runs.extend(number.map(|number| RunId { gate: gate.clone(), number }));
            match decoded::<RunRecord>(&row)?.phase {
                Phase::Running { start } => runs.extend(start.carried.values().map(|one| one.run.clone())),
                Phase::Ended { jobs, .. } => runs.extend(jobs.into_iter().filter_map(|job| job.carried)),
            }
        }
        for row in view.cell_rows(&cell, "landing/")? {
            runs.extend(decoded::<PendingLanding>(&row)?.act.runs);
        }
    }
    Ok(runs)
}

/// Candidates that the gates of a repo have asked for.
pub fn candidates(view: &View, repo: &RepoName) -> Result<BTreeSet<CandidateId>, ReadError> {
    let mut wanted = BTreeSet::new();
    for cell in view.cells_of("gate")? {
        if !matches!(&cell, CellId::Gate(gate) if gate.repo == *repo) {
            continue;
        }
        for prefix in ["candidate/", "landing/"] {
            let rows = view.cell_rows(&cell, prefix)?;
            wanted.extend(
                rows.iter().filter_map(|row| row.key.strip_prefix(prefix)?.parse::<CandidateId>().ok()),
            );
        }
    }
    Ok(wanted)
}

/// Digests of stored files that must stay.
#[derive(Default)]
pub struct Outputs {
    /// Each manifest with the runs that made it.
    manifests: HashMap<Digest, Vec<RunId>>,
    files: HashSet<Digest>,
}

/// A manifest that is wanted and cannot be read: which files it names is not known.
pub struct Damaged {
    /// Its name.
    pub manifest: Digest,
    /// The runs that made it.
    pub runs: Vec<RunId>,
    /// What is wrong with it.
    pub why: BlobError,
}

impl Outputs {
    /// Whether a file must stay.
    pub fn has(&self, digest: &Digest) -> bool {
        self.manifests.contains_key(digest) || self.files.contains(digest)
    }

    /// What gates and environments name.
    pub fn of_gates_and_environments(&mut self, view: &View) -> Result<(), ReadError> {
        for cell in view.cells_of("gate")? {
            let CellId::Gate(gate) = &cell else { continue };
            for row in view.cell_rows(&cell, "run/")? {
                match decoded::<RunRecord>(&row)?.phase {
                    Phase::Running { start } => self.of_start(&start),
                    Phase::Ended { jobs, .. } => {
                        let number = row.key.strip_prefix("run/").and_then(|number| number.parse().ok());
                        let own = RunId { gate: gate.clone(), number: number.unwrap_or_default() };
                        jobs.iter().for_each(|job| {
                            self.of_result(&job.result, job.carried.as_ref().unwrap_or(&own));
                        });
                    }
                }
            }
        }
        for cell in view.cells_of("environment")? {
            for row in view.cell_rows(&cell, "deploying")? {
                if let Some(deploying) = decoded::<Option<Deploying>>(&row)?
                    && let Some(program) = deploying.program
                {
                    self.want(program, &deploying.claim.run);
                }
            }
        }
        Ok(())
    }

    /// What a run names.
    pub fn of_run(&mut self, view: &View, run: &RunId) -> Result<(), ReadError> {
        let cell = CellId::Run(run.clone());
        for row in view.cell_rows(&cell, "start")? {
            if let Some(start) = decoded::<Option<RunStart>>(&row)? {
                self.of_start(&start);
            }
        }
        for row in view.cell_rows(&cell, "job/")? {
            match decoded::<JobState>(&row)? {
                JobState::Done { result, tries, carried, .. } => {
                    let run = carried.as_ref().unwrap_or(run);
                    tries.iter().chain([&result]).for_each(|result| self.of_result(result, run));
                }
                JobState::Again { tries } | JobState::Running { tries, .. } => {
                    tries.iter().for_each(|result| self.of_result(result, run));
                }
            }
        }
        Ok(())
    }

    fn of_start(&mut self, start: &RunStart) {
        start.carried.values().for_each(|carried| self.of_result(&carried.result, &carried.run));
    }

    fn of_result(&mut self, result: &JobResult, run: &RunId) {
        result.outputs.values().chain(&result.junit).for_each(|manifest| self.want(*manifest, run));
    }

    fn want(&mut self, manifest: Digest, run: &RunId) {
        let runs = self.manifests.entry(manifest).or_default();
        if !runs.contains(run) {
            runs.push(run.clone());
        }
    }

    /// Adds the files of every manifest. One that is not there any more names nothing; those that cannot be read are
    /// returned.
    pub fn with_files(
        mut self,
        blobs: &BlobStore,
        go_on: impl Fn() -> Result<(), Trouble>,
    ) -> Result<(Outputs, Vec<Damaged>), Trouble> {
        let mut damaged = Vec::new();
        for (manifest, runs) in &self.manifests {
            go_on()?;
            match Manifest::load(blobs, manifest) {
                Ok(manifest) => self.files.extend(manifest.files().iter().map(|file| file.digest)),
                Err(BlobError::Missing(_)) => {}
                Err(why) => damaged.push(Damaged { manifest: *manifest, runs: runs.clone(), why }),
            }
        }
        Ok((self, damaged))
    }
}

fn decoded<T: serde::de::DeserializeOwned>(row: &Row) -> Result<T, ReadError> {
    let text = row.value.as_deref().unwrap_or("null");
    serde_json::from_str(text)
        .map_err(|why| ReadError::Damaged { why: format!("row `{}` of a cell: {why}", row.key) })
}
