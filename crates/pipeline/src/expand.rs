//! From a definition to the job graph of a run: a job for each cell and shard, needs before what needs them.

use std::ops::Range;
use std::sync::Arc;

use towpath_core::graph::{JobBody, JobGraph, JobIndex, JobSpec, SkipReason};
use towpath_core::ids::JobName;

use crate::definition::{Definition, Job};
use crate::matrix::Cell;
use crate::order;

/// Comparisons of a path with a glob for one graph. Beyond it every job runs: 10,000 jobs with `when` meet a change of
/// 1,000 paths in about a second.
pub const PATH_CHECKS_MAX: usize = 10_000_000;

/// The paths that a change touches, for `when`.
#[derive(Debug, Clone, Copy)]
pub enum Changed<'a> {
    /// Not known, or too many: every job runs.
    Unknown,
    /// Paths from the root, both sides of a rename, as bytes.
    Paths(&'a [Vec<u8>]),
}

impl Definition {
    /// The jobs of every trigger. `changed` decides which of them `when` skips.
    pub fn expand(&self, changed: Changed) -> JobGraph {
        let needs: Vec<Vec<usize>> = self.jobs.iter().map(|job| job.needs.clone()).collect();
        let order =
            order::topological(&needs).expect("a definition with a circle is refused when it is read");
        let changed = self.bounded(changed);
        let mut places: Vec<Range<u32>> = vec![0..0; self.jobs.len()];
        let mut specs: Vec<JobSpec> = Vec::new();
        for &at in &order {
            let begin = specs.len() as u32;
            let spec = self.jobs[at].spec(all(&self.jobs[at].needs, &places), changed);
            specs.extend(self.jobs[at].instances().map(|(name, body)| JobSpec {
                name,
                body: Arc::new(body),
                ..spec.clone()
            }));
            places[at] = begin..specs.len() as u32;
        }
        for (job, place) in self.jobs.iter().zip(&places).filter(|(job, _)| !job.aborts.is_empty()) {
            let aborts = all(&job.aborts, &places);
            place.clone().for_each(|at| specs[at as usize].aborts = aborts.clone());
        }
        JobGraph { jobs: specs.into(), budget_seconds: self.budget_seconds }
    }

    fn bounded<'a>(&self, changed: Changed<'a>) -> Changed<'a> {
        let Changed::Paths(paths) = changed else { return changed };
        let filters = self.jobs.iter().filter_map(|job| job.when.as_ref());
        let globs: usize = filters.map(|when| when.take.len() + when.leave_out.len()).sum();
        if globs.saturating_mul(paths.len()) > PATH_CHECKS_MAX { Changed::Unknown } else { changed }
    }
}

fn all(bases: &[usize], places: &[Range<u32>]) -> Vec<JobIndex> {
    bases.iter().flat_map(|base| places[*base].clone()).map(JobIndex).collect()
}

impl Job {
    /// What all its cells and shards have in common.
    fn spec(&self, needs: Vec<JobIndex>, changed: Changed) -> JobSpec {
        let misses = |paths: &[Vec<u8>]| {
            self.when.as_ref().is_some_and(|when| !paths.iter().any(|path| when.matches(path)))
        };
        let skip = match changed {
            Changed::Paths(paths) if misses(paths) => Some(SkipReason::When),
            Changed::Paths(_) | Changed::Unknown => None,
        };
        let plain = JobSpec::new(self.name.clone(), self.on.clone(), self.body.clone());
        JobSpec { required: self.required, needs, skip, ..plain }
    }

    /// How many jobs it stands for: cells times shards.
    pub fn size(&self) -> usize {
        self.cells.len() * self.shards.unwrap_or(1) as usize
    }

    /// Each cell and shard with its name: `unit`, `unit[3/4]`, `unit[salt=git]`, `unit[salt=git,3/4]`.
    pub(crate) fn instances(&self) -> impl Iterator<Item = (JobName, JobBody)> {
        self.cells.iter().flat_map(move |cell| {
            let shards: Vec<Option<(u32, u32)>> = match self.shards {
                Some(count) => (1..=count).map(|shard| Some((shard, count))).collect(),
                None => vec![None],
            };
            shards.into_iter().map(move |shard| {
                let body = JobBody { shard, matrix: cell.values.clone(), ..self.body.clone() };
                (self.instance_name(cell, shard), body)
            })
        })
    }

    fn instance_name(&self, cell: &Cell, shard: Option<(u32, u32)>) -> JobName {
        let shard = shard.map(|(shard, count)| format!("{shard}/{count}"));
        let parts: Vec<&str> = [cell.label.as_str()]
            .into_iter()
            .chain(shard.as_deref())
            .filter(|part| !part.is_empty())
            .collect();
        match parts.is_empty() {
            true => self.name.clone(),
            false => format!("{}[{}]", self.name, parts.join(","))
                .parse()
                .expect("names, cells and shards are checked to make a job name"),
        }
    }
}
