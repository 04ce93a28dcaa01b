//! Which jobs of a graph run: those that something starts, and what these need.

use super::{JobGraph, JobIndex, JobSpec, Trigger};
use crate::ids::EnvironmentName;

impl JobGraph {
    /// The jobs that `trigger` starts and, transitively, the jobs that these need. A skipped job needs nothing, and a
    /// job that one which runs needs is not skipped.
    pub fn select(&self, trigger: Trigger) -> JobGraph {
        let mut wanted: Vec<bool> = self.jobs.iter().map(|job| job.on.contains(&trigger)).collect();
        let mut runs: Vec<bool> =
            self.jobs.iter().zip(&wanted).map(|(job, wanted)| *wanted && job.skip.is_none()).collect();
        for at in (0..self.jobs.len()).rev() {
            if runs[at] {
                for need in &self.jobs[at].needs {
                    wanted[need.0 as usize] = true;
                    runs[need.0 as usize] = true;
                }
            }
        }
        self.keep(&wanted, &runs)
    }

    /// The jobs expanded from one key under `jobs:`, or the one of that very name, and what they need.
    pub fn select_named(&self, name: &str) -> JobGraph {
        let mut wanted: Vec<bool> = self.jobs.iter().map(|job| job.is_called(name)).collect();
        for at in (0..self.jobs.len()).rev().filter(|at| wanted[*at]).collect::<Vec<_>>() {
            self.mark_needs(at, &mut wanted);
        }
        self.keep(&wanted, &wanted.clone())
    }

    /// The jobs that deploy to one environment, what they need, and what is to follow once they have passed: jobs of a
    /// landing that need one of them and no other deployment.
    pub fn select_environment(&self, name: &EnvironmentName) -> JobGraph {
        let deploys = |job: &JobSpec| job.body.environment.as_ref() == Some(name);
        let mut follows: Vec<bool> = self.jobs.iter().map(deploys).collect();
        let mut wanted = follows.clone();
        (0..self.jobs.len()).filter(|at| follows[*at]).for_each(|at| self.mark_needs(at, &mut wanted));
        for (at, job) in self.jobs.iter().enumerate().filter(|(_, job)| job.body.environment.is_none()) {
            let is_after = job.needs.iter().any(|need| follows[need.0 as usize]);
            let has_all = job.needs.iter().all(|need| wanted[need.0 as usize]);
            if job.on.contains(&Trigger::Land) && is_after && has_all {
                follows[at] = true;
                wanted[at] = true;
            }
        }
        self.keep(&wanted, &wanted.clone())
    }

    fn mark_needs(&self, at: usize, wanted: &mut [bool]) {
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            for need in &self.jobs[at].needs {
                if !std::mem::replace(&mut wanted[need.0 as usize], true) {
                    open.push(need.0 as usize);
                }
            }
        }
    }

    fn keep(&self, wanted: &[bool], runs: &[bool]) -> JobGraph {
        let mut next = 0;
        let moved: Vec<Option<JobIndex>> = wanted
            .iter()
            .map(|&keep| {
                keep.then(|| {
                    next += 1;
                    JobIndex(next - 1)
                })
            })
            .collect();
        let renumber = |old: &[JobIndex]| old.iter().filter_map(|index| moved[index.0 as usize]).collect();
        let jobs = self.jobs.iter().zip(wanted.iter().zip(runs)).filter(|(_, (keep, _))| **keep);
        let jobs = jobs.map(|(job, (_, runs))| JobSpec {
            needs: renumber(&job.needs),
            aborts: renumber(&job.aborts),
            skip: job.skip.clone().filter(|_| !runs),
            ..job.clone()
        });
        JobGraph { jobs: jobs.collect(), budget_seconds: self.budget_seconds }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::tests::job;
    use crate::graph::{JobBody, SkipReason};

    #[test]
    fn a_trigger_selects_its_jobs_and_what_they_need() {
        let graph = JobGraph {
            jobs: Arc::new([
                job("lint", &[Trigger::Change], &[]),
                job("wheel", &[], &[]),
                job("unit", &[Trigger::Queue], &[1]),
            ]),
            budget_seconds: None,
        };
        let queue = graph.select(Trigger::Queue);
        let names: Vec<_> = queue.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["wheel", "unit"]);
        assert_eq!(queue.jobs[1].needs, [JobIndex(0)]);
    }

    #[test]
    fn an_environment_selects_its_deployments_and_what_follows_them() {
        let to = |environment: &str, job: JobSpec| {
            let environment = Some(environment.parse().unwrap());
            JobSpec { body: Arc::new(JobBody { environment, ..JobBody::script("true") }), ..job }
        };
        let land = &[Trigger::Land];
        let graph = JobGraph {
            jobs: Arc::new([
                job("wheel", &[], &[]),
                to("staging", job("stage", land, &[0])),
                to("live", job("live", &[Trigger::Manual], &[0])),
                job("smoke", land, &[1]),
                job("announce", land, &[1, 2]),
                job("later", land, &[3]),
                job("unit", land, &[0]),
            ]),
            budget_seconds: None,
        };
        let names = |environment: &str| {
            let selected = graph.select_environment(&environment.parse().unwrap());
            selected.jobs.iter().map(|job| job.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("staging"), "wheel stage smoke later");
        assert_eq!(names("live"), "wheel live");
        assert_eq!(names("none"), "");
    }

    #[test]
    fn a_skipped_job_pulls_nothing_in_and_a_needed_one_is_not_skipped() {
        let skipped = |job: JobSpec| JobSpec { skip: Some(SkipReason::When), ..job };
        let graph = JobGraph {
            jobs: Arc::new([
                job("tool", &[], &[]),
                skipped(job("wheel", &[Trigger::Queue], &[])),
                skipped(job("docs", &[Trigger::Queue], &[0])),
                job("unit", &[Trigger::Queue], &[1]),
            ]),
            budget_seconds: None,
        };
        let queue = graph.select(Trigger::Queue);
        let shown: Vec<_> = queue.jobs.iter().map(|job| (job.name.as_str(), job.skip.is_some())).collect();
        assert_eq!(shown, [("wheel", false), ("docs", true), ("unit", false)]);
    }
}
