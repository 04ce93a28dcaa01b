//! Definitions in small: the number in the first file decides jobs and settings. Also what a job's result truly is: a
//! function of the content that it runs on.

use towpath_core::candidate::Strategy;
use towpath_core::definition::{EmptySet, GateSettings, Proof};
use towpath_core::graph::{JobBody, JobGraph, JobIndex, JobSpec, Origin, SkipReason, Trigger};
use towpath_core::ids::{CommitId, Digest};

use super::git::Files;
use crate::rng::Rng;

/// What a definition says.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The part that counts only on the target.
    pub settings: GateSettings,
    /// Seconds from push to verdict.
    pub budget_seconds: Option<u32>,
    /// Its jobs, needs first.
    pub jobs: Vec<Job>,
}

/// One job of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub body: JobBody,
    /// Its triggers.
    pub on: Vec<Trigger>,
    /// Whether landing needs it.
    pub required: bool,
    /// The only file that concerns it.
    pub when: Option<usize>,
    /// The job that it needs.
    pub needs: Option<&'static str>,
    /// The job that is cancelled when this one fails.
    pub aborts: Option<&'static str>,
}

/// Names, files that the job reads, triggers.
const JOBS: [(&str, &[usize], &[Trigger]); 6] = [
    ("wheel", &[1], &[]),
    ("unit", &[1, 2, 3, 4], &[Trigger::Change, Trigger::Queue]),
    ("integ", &[4, 5, 6, 7], &[Trigger::Change, Trigger::Queue]),
    ("docs", &[8], &[Trigger::Queue]),
    ("lint", &[1, 3, 5, 9], &[Trigger::Change]),
    ("deploy", &[9], &[Trigger::Land]),
];

/// Which jobs may abort which: one that lands nothing by itself, and one that does.
const ABORTS: [(&str, &str); 2] = [("unit", "docs"), ("lint", "integ")];

/// A definition's digest.
pub fn digest(value: u32) -> Digest {
    Digest::of(&value.to_be_bytes())
}

/// From push to verdict, where a definition names a budget: about what three jobs after one another take.
const BUDGET_SECONDS: u32 = 1_500;

/// Reads a definition.
///
/// # Errors
/// It cannot be used.
pub fn read(value: u32) -> Result<Definition, Vec<String>> {
    if value % 16 == 15 {
        return Err(vec![format!("towpath.yaml:1:1: {value} is not a mapping")]);
    }
    let mut rng = Rng::new(u64::from(value));
    // 0, the first definition of every world, is the plain one.
    let mut odd = |per_mille| value != 0 && rng.chance(per_mille);
    let settings = GateSettings {
        strategy: if odd(300) {
            Strategy::Squash
        } else if odd(300) {
            Strategy::Rebase
        } else {
            Strategy::Merge
        },
        approvals: if odd(200) {
            Some(0)
        } else if odd(200) {
            Some(2)
        } else {
            None
        },
        proof: if odd(300) { Proof::Commit } else { Proof::Tree },
        empty: if odd(300) { EmptySet::Land } else { EmptySet::Refuse },
    };
    let mut jobs: Vec<Job> = JOBS
        .iter()
        .filter_map(|(name, _, on)| {
            if odd(120) {
                return None;
            }
            let variant = u8::from(odd(200));
            let mut body = JobBody::script(&format!("{name} {variant}"));
            body.history = odd(120);
            body.retry_failed = u8::from(odd(200));
            body.environment =
                (*name == "deploy").then(|| "staging".parse().expect("invariant: a valid name"));
            body.restartable = body.environment.is_some() && variant == 1;
            let required = on.contains(&Trigger::Queue) && !odd(150);
            let when = (*name == "docs").then_some(8).or_else(|| odd(100).then_some(5));
            let needs = (*name == "integ").then_some("wheel");
            let aborts = ABORTS.iter().find(|(by, _)| by == name).map(|(_, other)| *other);
            let aborts = aborts.filter(|_| odd(300));
            Some(Job { name, body, on: on.to_vec(), required, when, needs, aborts })
        })
        .collect();
    if !jobs.iter().any(|job| job.name == "wheel") {
        jobs.iter_mut().for_each(|job| job.needs = None);
    }
    let budget_seconds = odd(250).then_some(BUDGET_SECONDS);
    Ok(Definition { settings, budget_seconds, jobs })
}

/// A definition that differs from the plain one in that `lint`, which no landing needs, may abort `integ`, which each does.
pub fn aborting() -> u32 {
    let plain = read(0).expect("invariant: the plain one can be used");
    let differs_so = |read: Definition| {
        let aborts = read.jobs.iter().any(|job| (job.name, job.aborts) == ("lint", Some("integ")));
        let jobs: Vec<Job> = read.jobs.into_iter().map(|job| Job { aborts: None, ..job }).collect();
        aborts && Definition { jobs, ..read } == plain
    };
    (1..).find(|value| read(*value).is_ok_and(differs_so)).expect("invariant: one in some thousands does")
}

/// Whether a script truly passes on a commit's content. Two values that each pass alone may fail together.
pub fn passes(body: &JobBody, files: &Files, commit: CommitId) -> bool {
    let (name, variant) = body.run.split_once(' ').expect("invariant: scripts are made by `read`");
    let bad = if variant == "0" { 10 } else { 9 };
    let reads = JOBS.iter().find(|job| job.0 == name).map_or(&[][..], |job| job.1);
    let fails_alone = reads.iter().any(|path| files[*path] % 11 == bad);
    let skewed = reads.windows(2).any(|pair| pair.iter().all(|path| files[*path] % 7 == 1));
    let sees_bad_history = body.history && commit.0[0].is_multiple_of(8);
    !fails_alone && !skewed && !sees_bad_history
}

/// The jobs of a candidate, as the `pipeline` crate joins them: the target's required ones with the target's bodies,
/// and the change's own.
///
/// # Errors
/// The candidate's own definition cannot be used.
pub fn candidate_graph(target: u32, own: u32, changed: &[usize]) -> Result<JobGraph, Vec<String>> {
    let definition = read(own)?;
    if target == own {
        return Ok(definition.graph(Some(changed)));
    }
    let Ok(before) = read(target) else {
        return Ok(with_origin(definition.graph(None), Origin::Own));
    };
    let bar: Vec<Job> = before
        .jobs
        .iter()
        .filter(|job| {
            job.required || before.jobs.iter().any(|other| other.required && other.needs == Some(job.name))
        })
        .cloned()
        .collect();
    let same = bar == definition.jobs;
    let mut specs: Vec<JobSpec> = graph(&bar, None).jobs.to_vec();
    if !same {
        // A twin would share its place; here each side runs its own, which is never less.
        for spec in &mut specs {
            spec.name = format!("{}.target", spec.base).parse().expect("invariant: a dot is allowed");
        }
        let shift = specs.len() as u32;
        let shifted = |jobs: &[JobIndex]| jobs.iter().map(|job| JobIndex(job.0 + shift)).collect();
        for spec in with_origin(graph(&definition.jobs, None), Origin::Own).jobs.iter() {
            let (needs, aborts) = (shifted(&spec.needs), shifted(&spec.aborts));
            specs.push(JobSpec { needs, aborts, ..spec.clone() });
        }
    }
    Ok(JobGraph { jobs: specs.into(), budget_seconds: before.budget_seconds })
}

/// The jobs of a landed commit's own definition.
///
/// # Errors
/// It cannot be used.
pub fn landed_graph(value: u32) -> Result<JobGraph, Vec<String>> {
    Ok(read(value)?.graph(None))
}

impl Definition {
    fn graph(&self, changed: Option<&[usize]>) -> JobGraph {
        JobGraph { budget_seconds: self.budget_seconds, ..graph(&self.jobs, changed) }
    }
}

fn with_origin(graph: JobGraph, origin: Origin) -> JobGraph {
    let jobs = graph.jobs.iter().map(|job| JobSpec { origin, ..job.clone() });
    JobGraph { jobs: jobs.collect(), ..graph }
}

fn graph(jobs: &[Job], changed: Option<&[usize]>) -> JobGraph {
    let place = |name: &str| jobs.iter().position(|job| job.name == name).map(|at| JobIndex(at as u32));
    let specs = jobs.iter().map(|job| {
        let skipped = job.when.zip(changed).is_some_and(|(when, changed)| !changed.contains(&when));
        let name = job.name.parse().expect("invariant: the names above are valid");
        JobSpec {
            required: job.required,
            needs: job.needs.and_then(place).into_iter().collect(),
            aborts: job.aborts.and_then(place).into_iter().collect(),
            skip: skipped.then_some(SkipReason::When),
            ..JobSpec::new(name, job.on.clone(), job.body.clone())
        }
    });
    specs.collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::git::PATHS;

    #[test]
    fn two_changes_may_pass_alone_and_fail_together() {
        let unit = read(0).unwrap().jobs.into_iter().find(|job| job.name == "unit").unwrap();
        let mut files = [0; PATHS];
        let commit = CommitId([1; 20]);
        files[1] = 8;
        assert!(passes(&unit.body, &files, commit));
        files[2] = 15;
        assert!(!passes(&unit.body, &files, commit));
        files[1] = 0;
        assert!(passes(&unit.body, &files, commit));
    }

    #[test]
    fn an_edited_definition_runs_the_targets_bar_and_its_own_jobs() {
        let odd = (1..200).find(|value| read(*value).is_ok_and(|read| read.jobs.len() < 5)).unwrap();
        let graph = candidate_graph(0, odd, &[0]).unwrap();
        let names: Vec<&str> = graph.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names[..4], ["wheel.target", "unit.target", "integ.target", "docs.target"]);
        assert!(graph.jobs.iter().skip(4).all(|job| job.origin == Origin::Own));
        assert!(candidate_graph(0, 15, &[0]).is_err());
    }
}
