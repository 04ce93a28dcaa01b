//! Which jobs a candidate has: the target's required ones as they stand on the target, and the change's own (trust T2).
//!
//! A change that edits the definition cannot lower its own bar: what the target requires runs with the target's whole
//! body, needs included, and reads nothing that the change's own jobs made. Where both sides have the same job, with
//! the same body and the same needs all the way down, it runs once and counts for both.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use towpath_core::definition::GateSettings;
use towpath_core::graph::{JobGraph, JobIndex, JobSpec, Openings, Origin, Trigger};
use towpath_core::ids::{Digest, JobName};

use crate::definition_file::DefinitionFile;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::expand::Changed;

/// The jobs of a candidate, of every trigger, and the rules under which it lands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPlan {
    /// Topologically ordered; [`Origin`] says whose body each job has.
    pub graph: JobGraph,
    /// The target's settings. A change's own hold only once it has landed.
    pub gate: GateSettings,
    /// Digest of the target's definition.
    pub target_definition: Digest,
    /// Digest of the candidate's own definition.
    pub definition: Digest,
    /// Whether the candidate's own definition [requires nothing](crate::Definition::requires_nothing) of what comes after it.
    pub requires_nothing: bool,
    /// Warnings about the candidate's own definition.
    pub warnings: Vec<Diagnostic>,
    /// Set when the target's definition cannot be used and the candidate's replaces it, so that only the candidate's
    /// own jobs are required. A changed definition needs a maintainer's approval in any case.
    pub target_unusable: Option<Diagnostics>,
}

/// What a candidate runs and what it must pass.
///
/// `target` is the definition at the candidate's parent, `own` the one in the candidate's tree. Where they differ,
/// `when` skips nothing: what is new in the definition is to be seen running.
///
/// # Errors
/// The candidate's own definition cannot be used.
pub fn plan(
    target: &DefinitionFile,
    own: &DefinitionFile,
    changed: Changed,
) -> Result<GraphPlan, Diagnostics> {
    let definition = own.definition.as_ref().map_err(Clone::clone)?;
    let mut target_unusable = None;
    let (graph, gate) = match &target.definition {
        _ if target.digest == own.digest => (definition.expand(changed), definition.gate),
        Ok(target) => {
            (join(&target.expand(Changed::Unknown), &definition.expand(Changed::Unknown)), target.gate)
        }
        Err(diagnostics) => {
            target_unusable = Some(diagnostics.clone());
            (all_own(&definition.expand(Changed::Unknown)), GateSettings::default())
        }
    };
    Ok(GraphPlan {
        graph,
        gate,
        target_definition: target.digest,
        definition: own.digest,
        requires_nothing: definition.requires_nothing(),
        warnings: definition.warnings.clone(),
        target_unusable,
    })
}

fn all_own(graph: &JobGraph) -> JobGraph {
    let jobs = graph.jobs.iter().map(|job| JobSpec { origin: Origin::Own, ..job.clone() });
    JobGraph { jobs: jobs.collect(), budget_seconds: graph.budget_seconds }
}

/// The target's required jobs with all that they need, then the own jobs that are not among them.
fn join(target: &JobGraph, own: &JobGraph) -> JobGraph {
    let kept = bar(target);
    let (twins, granted) = (twins(target, own), granted(target));
    let places = Places::of(&kept, &twins, own.jobs.len());
    let own_bases: HashSet<&JobName> = own.jobs.iter().map(|job| &job.base).collect();
    let of_target =
        target.jobs.iter().zip(&twins).zip(&kept).filter(|(_, kept)| **kept).map(|((job, twin), _)| {
            let job = JobSpec { on: before_landing(job), ..moved(job, &places.target, Origin::Target) };
            match twin.map(|twin| moved(&own.jobs[twin], &places.own, Origin::Target)) {
                Some(twin) => merged(job, twin),
                None if own_bases.contains(&job.base) => JobSpec { name: target_name(&job), ..job },
                None => job,
            }
        });
    let of_own = own.jobs.iter().zip(&places.shared).filter(|(_, shared)| !**shared);
    let of_own = of_own.map(|(job, _)| {
        let granted = granted.get(&job.base).copied().unwrap_or_default();
        JobSpec { granted, ..moved(job, &places.own, Origin::Own) }
    });
    JobGraph { jobs: of_target.chain(of_own).collect(), budget_seconds: target.budget_seconds }
}

/// What the target's definition opens to those of its jobs, by their key, that run before a change has landed.
fn granted(target: &JobGraph) -> HashMap<JobName, Openings> {
    let mut granted = HashMap::new();
    for graph in [Trigger::Change, Trigger::Queue].map(|trigger| target.select(trigger)) {
        for job in graph.jobs.iter() {
            let Openings { network, user_namespaces } = job.body.openings();
            let of_key: &mut Openings = granted.entry(job.base.clone()).or_default();
            of_key.network |= network;
            of_key.user_namespaces |= user_namespaces;
        }
    }
    granted
}

/// Which of the target's jobs hold for a change that edits the definition: the required ones and all that they need.
fn bar(target: &JobGraph) -> Vec<bool> {
    let mut kept: Vec<bool> = target.jobs.iter().map(|job| job.required).collect();
    for at in (0..kept.len()).rev() {
        if kept[at] {
            target.jobs[at].needs.iter().for_each(|need| kept[need.0 as usize] = true);
        }
    }
    kept
}

/// For each of the target's jobs the own job that is the same: equal in name and body, and so are all that it needs.
fn twins(target: &JobGraph, own: &JobGraph) -> Vec<Option<usize>> {
    let own_keys: HashMap<Digest, usize> =
        keys(own).into_iter().enumerate().map(|(at, key)| (key, at)).collect();
    keys(target).iter().map(|key| own_keys.get(key).copied()).collect()
}

/// A digest over everything that decides what a job does: its name, its body, and the same of all that it needs.
fn keys(graph: &JobGraph) -> Vec<Digest> {
    let mut keys: Vec<Digest> = Vec::with_capacity(graph.jobs.len());
    for job in graph.jobs.iter() {
        let body = serde_json::to_vec(&job.body).expect("a body is plain data with text keys");
        let mut needs: Vec<&Digest> = job.needs.iter().map(|need| &keys[need.0 as usize]).collect();
        needs.sort();
        let fields =
            [job.name.as_str().as_bytes(), &body].into_iter().chain(needs.iter().map(|need| &need.0[..]));
        keys.push(Digest::of_fields(fields));
    }
    keys
}

/// Where each side's jobs come to stand in the joined graph.
struct Places {
    target: Vec<Option<JobIndex>>,
    own: Vec<Option<JobIndex>>,
    /// Own jobs that stand at the place of their twin.
    shared: Vec<bool>,
}

impl Places {
    fn of(kept: &[bool], twins: &[Option<usize>], own_count: usize) -> Places {
        let mut next = 0;
        let mut take = || {
            next += 1;
            Some(JobIndex(next - 1))
        };
        let target: Vec<Option<JobIndex>> =
            kept.iter().map(|kept| if *kept { take() } else { None }).collect();
        let mut own = vec![None; own_count];
        for (place, twin) in target.iter().zip(twins) {
            if let Some(twin) = twin {
                own[*twin] = *place;
            }
        }
        let shared: Vec<bool> = own.iter().map(Option::is_some).collect();
        own.iter_mut().filter(|place| place.is_none()).for_each(|place| *place = take());
        Places { target, own, shared }
    }
}

fn moved(job: &JobSpec, places: &[Option<JobIndex>], origin: Origin) -> JobSpec {
    let indices = |old: &[JobIndex]| old.iter().filter_map(|index| places[index.0 as usize]).collect();
    JobSpec { origin, needs: indices(&job.needs), aborts: indices(&job.aborts), ..job.clone() }
}

/// After landing the old definition is gone, and with it what it starts then.
fn before_landing(job: &JobSpec) -> Vec<Trigger> {
    job.on.iter().copied().filter(|on| matches!(on, Trigger::Change | Trigger::Queue)).collect()
}

/// One job for both sides: started by whatever either side says, required if either side requires it.
fn merged(target: JobSpec, own: JobSpec) -> JobSpec {
    let on: BTreeSet<Trigger> = target.on.iter().chain(&own.on).copied().collect();
    let aborts: BTreeSet<JobIndex> = target.aborts.iter().chain(&own.aborts).copied().collect();
    let required = target.required || own.required;
    JobSpec { on: on.into_iter().collect(), aborts: aborts.into_iter().collect(), required, ..target }
}

/// `unit@target[3/4]`. The base stays, as scripts find their inputs under it.
fn target_name(job: &JobSpec) -> JobName {
    let base = job.base.as_str();
    let cell = &job.name.as_str()[base.len()..];
    format!("{base}@target{cell}").parse().expect("a key is short enough to be marked")
}
