//! From the file as it is written to the definition as it is meant.

use std::collections::BTreeMap;
use std::fmt;

use towpath_core::definition::GateSettings;
use towpath_core::graph::{JobBody, RETRY_ERRORED_DEFAULT, TIMEOUT_SECONDS_DEFAULT};
use towpath_core::ids::EnvironmentName;

use crate::check::{self, Draft};
use crate::definition::{Definition, Job, PathFilter};
use crate::diagnostic::Report;
use crate::file::{DefaultsFile, GateFile, Job as JobFile, PathPattern, PipelineFile, WhenFile};
use crate::matrix::Cell;
use crate::value::{At, Many, Named};

/// What the file means. Of use only if nothing was reported.
pub(crate) fn resolve(file: &PipelineFile, report: &mut Report) -> Definition {
    let drafts = check::check(file, report);
    check::warn_about_the_bar(file, &drafts, report);
    let defaults = whole(&file.defaults);
    let drafts = if report.error_count() == 0 { drafts } else { Vec::new() };
    Definition {
        gate: gate(&whole(&file.gate)),
        budget_seconds: get(&whole(&file.budget).change).map(|change| change.seconds),
        jobs: drafts.into_iter().map(|draft| job(draft, &defaults)).collect(),
        warnings: Vec::new(),
    }
}

fn gate(gate: &GateFile) -> GateSettings {
    GateSettings {
        strategy: get(&gate.strategy).unwrap_or_default(),
        approvals: get(&gate.approvals).map(|count| count.0),
        proof: get(&gate.proof).unwrap_or_default(),
        empty: get(&gate.empty).unwrap_or_default(),
    }
}

fn job(draft: Draft, defaults: &DefaultsFile) -> Job {
    let written = &draft.entry.job;
    Job {
        name: draft.entry.name.parse().expect("a checked key is a job name"),
        line: draft.entry.place.line,
        on: draft.on,
        runs_in: draft.runs_in,
        required: draft.required,
        needs: draft.needs,
        aborts: draft.aborts,
        when: written.when.as_ref().map(|when| path_filter(&when.value)),
        shards: get(&written.shards).map(|count| count.0),
        body: body(written, defaults),
        cells: written.matrix.as_ref().map_or_else(|| vec![Cell::default()], |matrix| matrix.value.cells()),
    }
}

fn path_filter(when: &WhenFile) -> PathFilter {
    let patterns = || when.paths.iter().flat_map(|paths| &paths.value.0.0).map(|pattern| &pattern.value);
    let globs = |keep: fn(&&PathPattern) -> bool| {
        patterns().filter(keep).map(|pattern| pattern.glob.clone()).collect()
    };
    PathFilter { take: globs(|pattern| !pattern.leave_out), leave_out: globs(|pattern| pattern.leave_out) }
}

/// What the executor sees of a job, without cell and shard.
pub(crate) fn body(job: &JobFile, defaults: &DefaultsFile) -> JobBody {
    let restartable = get(&job.restartable).unwrap_or(false);
    // A deployment that may have happened halfway is not repeated unless it says that it can be.
    let repeatable = job.environment.is_none() || restartable;
    let (retry, shared_retry) = (whole(&job.retry), whole(&defaults.retry));
    let errored =
        first(&retry.errored, &shared_retry.errored).map_or(RETRY_ERRORED_DEFAULT, |count| count.0 as u8);
    JobBody {
        run: job.run.as_ref().map(|run| run.value.0.clone()).unwrap_or_default(),
        env: pairs(&defaults.env).chain(pairs(&job.env)).collect(),
        shard: None,
        matrix: BTreeMap::new(),
        timeout_seconds: first(&job.timeout, &defaults.timeout)
            .map_or(TIMEOUT_SECONDS_DEFAULT, |timeout| timeout.seconds),
        retry_errored: if repeatable { errored } else { 0 },
        retry_failed: first(&retry.failed, &shared_retry.failed).map_or(0, |count| count.0 as u8),
        outputs: pairs(&job.outputs).collect(),
        junit: job.reports.as_ref().and_then(|reports| text(&reports.value.junit)),
        checkout: first(&job.checkout, &defaults.checkout).unwrap_or(true),
        history: history(job, defaults),
        network: first(&job.network, &defaults.network).unwrap_or(false),
        user_namespaces: get(&job.user_namespaces).unwrap_or(false),
        secrets: names(&job.secrets),
        environment: job.environment.as_ref().map(|name| environment(name.value.as_ref())),
        restartable,
    }
}

fn environment(name: &str) -> EnvironmentName {
    name.parse().expect("invariant: its alphabet is that of the core's environment names")
}

/// A job that says `checkout: false` takes no history from the defaults.
fn history(job: &JobFile, defaults: &DefaultsFile) -> bool {
    let checkout = first(&job.checkout, &defaults.checkout).unwrap_or(true);
    checkout && first(&job.history, &defaults.history).unwrap_or(false)
}

fn get<T: Copy>(field: &Option<At<T>>) -> Option<T> {
    field.as_ref().map(|at| at.value)
}

fn first<T: Copy>(own: &Option<At<T>>, shared: &Option<At<T>>) -> Option<T> {
    get(own).or(get(shared))
}

fn whole<T: Clone + Default>(field: &Option<At<T>>) -> T {
    field.as_ref().map(|at| at.value.clone()).unwrap_or_default()
}

fn text<T: fmt::Display>(field: &Option<At<T>>) -> Option<String> {
    field.as_ref().map(|at| at.value.to_string())
}

fn names<T: fmt::Display>(field: &Option<At<Many<T>>>) -> Vec<String> {
    field.iter().flat_map(|list| &list.value.0).map(|name| name.value.to_string()).collect()
}

fn pairs<K: fmt::Display, V: fmt::Display>(
    field: &Option<At<Named<K, V>>>,
) -> impl Iterator<Item = (String, String)> {
    field
        .iter()
        .flat_map(|map| &map.value.0)
        .map(|(key, value)| (key.value.to_string(), value.value.to_string()))
}
