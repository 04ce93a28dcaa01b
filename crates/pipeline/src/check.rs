//! What can only be seen when all jobs are known: names, circles, deployments in the wrong place, size.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use towpath_core::definition::EmptySet;
use towpath_core::graph::Trigger;

use crate::diagnostic::{Place, Report, fault, shown};
use crate::file::{DefaultsFile, JOBS_MAX, JobEntry, PipelineFile};
use crate::matrix::AXES_MAX;
use crate::name::{JobKey, VariableKey};
use crate::nearest::nearest;
use crate::order;
use crate::resolve;
use crate::value::{At, Many, Named, Text};

/// Edges between the jobs of one graph: every cell of a job needs every cell of the jobs that it needs.
pub const EDGES_MAX: usize = 200_000;
/// Bytes of one graph as it is stored, in JSON: a control character takes six of them. A candidate's graph holds the jobs
/// of two definitions at most, and has to fit one row of the store.
pub const GRAPH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a job in a graph beside its body, its names and its edges: keys, triggers, its shard.
const JOB_BYTES: usize = 256;
/// Bytes of a matrix's key and value in a graph beside their own: quotes and separators.
const AXIS_BYTES: usize = 6;
/// Bytes of an edge in a graph: an index, of two definitions' jobs, and a comma.
const EDGE_BYTES: usize = 6;
/// Outputs of all jobs of one graph. A run tells its gate of all of them at once, each with a digest of 64 characters.
pub const OUTPUTS_MAX: usize = 100_000;
/// Bytes of one job's variables, names and values. Linux takes 2 MiB of arguments and variables together where a stack
/// may have 8 MiB (execve(2)); the rest is for secrets and for what Towpath sets.
pub const VARIABLES_BYTES_MAX: usize = 1024 * 1024;
/// Variables of one job. Bubblewrap takes 9,000 words of options, and three of them make a variable.
pub const VARIABLES_MAX: usize = 1000;
/// Names shown of a circle.
const CIRCLE_SHOWN_MAX: usize = 12;
/// Characters of a job's whole name: the limit of a `JobName`'s cell.
const CELL_CHARS_MAX: usize = 100;

/// A job with its names resolved.
pub(crate) struct Draft<'a> {
    pub(crate) entry: &'a JobEntry,
    pub(crate) on: Vec<Trigger>,
    pub(crate) runs_in: Vec<Trigger>,
    pub(crate) required: bool,
    pub(crate) needs: Vec<usize>,
    pub(crate) aborts: Vec<usize>,
}

/// Reports everything that is wrong between jobs. The drafts are usable if nothing was reported, here or before.
pub(crate) fn check<'a>(file: &'a PipelineFile, report: &mut Report) -> Vec<Draft<'a>> {
    let Some(jobs) = &file.jobs else { return Vec::new() };
    if !report.complete {
        return Vec::new();
    }
    let names = Names::of(&jobs.value.0);
    let shared = Variables::of(file.defaults.as_ref().and_then(|defaults| defaults.value.env.as_ref()));
    report.inside("defaults", |report| shared.check(report));
    report.inside("jobs", |report| {
        let mut drafts: Vec<Draft> = names.entries.iter().map(|entry| draft(entry, &names, report)).collect();
        // None of this takes an order, so that a circle hides nothing else.
        spread_triggers(&mut drafts);
        drafts.iter().for_each(|draft| check_job(draft, &shared, report));
        check_aborts(&drafts, report);
        check_size(&drafts, file, report);
        let needs: Vec<Vec<usize>> = drafts.iter().map(|draft| draft.needs.clone()).collect();
        let circles = order::topological(&needs).err().unwrap_or_default();
        circles.iter().for_each(|circle| refuse_circle(circle, &drafts, report));
        drafts
    })
}

/// Warns where no change could land, or a skipped one not.
pub(crate) fn warn_about_the_bar(file: &PipelineFile, drafts: &[Draft], report: &mut Report) {
    let empty = file.gate.as_ref().and_then(|gate| gate.value.empty.as_ref()).map(|empty| empty.value);
    if empty == Some(EmptySet::Land) || report.error_count() > 0 {
        return;
    }
    let place = file.jobs.as_ref().map_or(Place::START, |jobs| jobs.place);
    let mut required = drafts.iter().filter(|draft| draft.required).peekable();
    if required.peek().is_none() {
        let why = "no job has `queue` in `on`, so nothing would be tested before landing, and such a change is refused";
        let hint =
            "add `queue` to the `on` of a job, or write `gate: { empty: land }` if nothing needs a test";
        report.warn(place, fault("no change can land", why, hint));
    } else if required.all(|draft| draft.entry.job.when.is_some()) {
        let why = "every required job has `when`, and a change for which all of them are skipped is refused";
        let hint = "take `when` from one required job, or write `gate: { empty: land }` if such a change needs no test";
        report.warn(place, fault("some changes cannot land", why, hint));
    }
}

/// Jobs by name.
struct Names<'a> {
    entries: &'a [JobEntry],
    index: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(entries: &'a [JobEntry]) -> Names<'a> {
        let index = entries.iter().enumerate().map(|(at, job)| (job.name.as_str(), at)).collect();
        Names { entries, index }
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.entries.iter().map(|entry| entry.name.as_str()))
    }

    /// The jobs that a job names under one key.
    fn indices(&self, named: &Option<At<Many<JobKey>>>, entry: &JobEntry, report: &mut Report) -> Vec<usize> {
        let mut found = Vec::new();
        for name in named.iter().flat_map(|names| &names.value.0) {
            let text: &str = name.value.as_ref();
            match self.index.get(text) {
                Some(_) if text == entry.name => {
                    let why = "a job can neither wait for itself nor stop itself";
                    report.error(name.place, fault(format!("`{text}` names itself"), why, "delete it here"));
                }
                Some(at) => found.push(*at),
                None => {
                    let hint = match self.nearest(text) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("add a job `{text}`, or delete it here"),
                    };
                    let why = "no job under `jobs` has this name";
                    report.error(name.place, fault(format!("there is no job `{text}`"), why, hint));
                }
            }
        }
        found
    }
}

fn draft<'a>(entry: &'a JobEntry, names: &Names, report: &mut Report) -> Draft<'a> {
    let job = &entry.job;
    let on: Vec<Trigger> = match &job.on {
        Some(on) => on.value.0.iter().map(|trigger| trigger.value).collect(),
        None => vec![Trigger::Change, Trigger::Queue],
    };
    let in_queue = on.contains(&Trigger::Queue);
    let (needs, aborts) = report.inside(&entry.name, |report| {
        if let Some(required) = job.required.as_ref().filter(|required| required.value && !in_queue) {
            let why = "a required job runs before landing, so `on` must have `queue`";
            let hint = "add `queue` to `on`, or delete `required`";
            report.error(required.place, fault("it is required but never runs before landing", why, hint));
        }
        let needs = report.inside("needs", |report| names.indices(&job.needs, entry, report));
        let aborts = report.inside("aborts", |report| names.indices(&job.aborts, entry, report));
        (needs, aborts)
    });
    let required = in_queue && job.required.as_ref().is_none_or(|required| required.value);
    Draft { entry, on, runs_in: Vec::new(), required, needs, aborts }
}

fn refuse_circle(circle: &[usize], drafts: &[Draft], report: &mut Report) {
    let mut names: Vec<String> =
        circle.iter().take(CIRCLE_SHOWN_MAX).map(|at| shown(&drafts[*at].entry.name)).collect();
    if circle.len() > CIRCLE_SHOWN_MAX {
        names.push(format!("({} more)", circle.len() - CIRCLE_SHOWN_MAX));
    }
    names.push(shown(&drafts[circle[0]].entry.name));
    let entry = drafts[circle[0]].entry;
    let place = entry.job.needs.as_ref().map_or(entry.place, |needs| needs.place);
    let why = "none of them could ever start";
    let hint = "take one of these names out of `needs`";
    report.error(place, fault(format!("a circle of needs: {}", names.join(" -> ")), why, hint));
}

/// A job runs wherever it is started, and wherever a job that needs it runs. A job is looked at again only when it got a
/// trigger more, of which there are six.
fn spread_triggers(drafts: &mut [Draft]) {
    let mut runs_in: Vec<BTreeSet<Trigger>> =
        drafts.iter().map(|draft| draft.on.iter().copied().collect()).collect();
    let mut open: Vec<usize> = (0..drafts.len()).collect();
    while let Some(at) = open.pop() {
        let spread = runs_in[at].clone();
        for &need in &drafts[at].needs {
            let before = runs_in[need].len();
            runs_in[need].extend(&spread);
            if runs_in[need].len() > before {
                open.push(need);
            }
        }
    }
    for (draft, runs_in) in drafts.iter_mut().zip(runs_in) {
        draft.runs_in = runs_in.into_iter().collect();
    }
}

fn check_job(draft: &Draft, shared: &Variables, report: &mut Report) {
    let job = &draft.entry.job;
    report.inside(&draft.entry.name, |report| {
        check_deployment(draft, report);
        if let Some(env) = &job.env {
            shared.with(env).check(report);
        }
        let no_checkout = job.checkout.as_ref().is_some_and(|checkout| !checkout.value);
        if let Some(history) = job.history.as_ref().filter(|history| history.value && no_checkout) {
            let why = "with `checkout: false` there is no work tree that could have a history";
            report.error(history.place, fault("a history without files", why, "delete one of the two keys"));
        }
        if let Some(matrix) = &job.matrix {
            let shards =
                job.shards.as_ref().map_or(String::new(), |shards| format!(",{0}/{0}", shards.value.0));
            let longest = matrix.value.label_bytes_max() + shards.len();
            if longest > CELL_CHARS_MAX {
                let what = format!("a cell's name would have {longest} bytes");
                let why = format!(
                    "keys and values of a cell become part of its name, which holds {CELL_CHARS_MAX}"
                );
                report.error(matrix.place, fault(what, why, "use shorter keys or values"));
            }
        }
    });
}

/// A deployment runs after landing, by itself and by what needs it.
fn check_deployment(draft: &Draft, report: &mut Report) {
    let job = &draft.entry.job;
    let restartable = job.restartable.as_ref().filter(|restartable| restartable.value);
    let Some(environment) = &job.environment else {
        if let Some(restartable) = restartable {
            let why = "it says that a deployment may be tried again, and this job has no `environment`";
            let hint = "delete it, or say which `environment` the job deploys to";
            report.error(restartable.place, fault("`restartable` without a deployment", why, hint));
        }
        return;
    };
    let early =
        |triggers: &[Trigger]| triggers.iter().any(|on| matches!(on, Trigger::Change | Trigger::Queue));
    if early(&draft.on) {
        let place = job.on.as_ref().map_or(environment.place, |on| on.place);
        let why = "a job with `environment` deploys, and `change` and `queue` (the default of `on`) run before landing";
        report.error(
            place,
            fault("it would deploy before landing", why, "write `on: [land]` or `on: [manual]`"),
        );
    } else if early(&draft.runs_in) {
        let why = "a job that runs before landing needs it, so it would run there too";
        let hint = "take this job out of the other's `needs`, or let the other run on `land`";
        report.error(environment.place, fault("it would deploy before landing", why, hint));
    }
    let errored = job.retry.as_ref().and_then(|retry| retry.value.errored.as_ref());
    if let Some(errored) = errored.filter(|errored| errored.value.0 > 0 && restartable.is_none()) {
        let why = "a deployment that may have happened halfway is not repeated by itself";
        let hint = "add `restartable: true` if running it again does no harm, else delete `errored`";
        report.error(errored.place, fault("a deployment that retries", why, hint));
    }
}

impl JobEntry {
    /// Jobs that it stands for: cells times shards.
    fn size(&self) -> usize {
        let cells = self.job.matrix.as_ref().map_or(1, |matrix| matrix.value.count());
        let shards = self.job.shards.as_ref().map_or(1, |shards| shards.value.0 as usize);
        cells.saturating_mul(shards)
    }

    /// Bytes that one of its cells and shards takes in the stored graph at most, without its edges.
    fn stored_bytes(&self, defaults: &DefaultsFile) -> usize {
        // The label is part of the name, and its keys and values stand in the body; a quote takes two bytes.
        let cell = self
            .job
            .matrix
            .as_ref()
            .map_or(0, |matrix| 4 * matrix.value.label_bytes_max() + AXES_MAX * AXIS_BYTES);
        JOB_BYTES + 2 * self.name.len() + cell + json_bytes(&resolve::body(&self.job, defaults))
    }
}

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).expect("a body is plain data with text keys").len()
}

/// Variables as the kernel counts them.
#[derive(Default)]
struct Variables<'a> {
    place: Option<Place>,
    /// Bytes of each, its name included.
    each: HashMap<&'a str, usize>,
    count: usize,
    bytes: usize,
}

type Env = At<Named<VariableKey, Text>>;

impl<'a> Variables<'a> {
    fn of(env: Option<&'a Env>) -> Variables<'a> {
        let pairs = env.iter().flat_map(|env| &env.value.0);
        let bytes = |name: &'a VariableKey, text: &Text| (name.as_ref(), name.as_ref().len() + text.0.len());
        let each: HashMap<&str, usize> = pairs.map(|(name, text)| bytes(&name.value, &text.value)).collect();
        Variables { place: env.map(|env| env.place), count: each.len(), bytes: each.values().sum(), each }
    }

    /// These and a job's own, which win.
    fn with(&self, env: &'a Env) -> Variables<'a> {
        let own = Variables::of(Some(env));
        let hidden: Vec<usize> = own.each.keys().filter_map(|name| self.each.get(name).copied()).collect();
        Variables {
            count: self.count + own.count - hidden.len(),
            bytes: self.bytes + own.bytes - hidden.iter().sum::<usize>(),
            ..own
        }
    }

    fn check(&self, report: &mut Report) {
        let Variables { place: Some(place), count, bytes, .. } = *self else { return };
        if count <= VARIABLES_MAX && bytes <= VARIABLES_BYTES_MAX {
            return;
        }
        let what = format!("{count} variables of {bytes} bytes are too many");
        let why = format!(
            "no program starts with much more: one job has at most {VARIABLES_MAX} of {VARIABLES_BYTES_MAX} bytes together, \
             those of `defaults` counted"
        );
        let fault = fault(what, why, "put long values into files of the repository");
        report.inside("env", |report| report.error(place, fault));
    }
}

/// A job that this one waits for has ended before this one could fail.
fn check_aborts(drafts: &[Draft], report: &mut Report) {
    for draft in drafts.iter().filter(|draft| !draft.aborts.is_empty()) {
        let mut before = vec![false; drafts.len()];
        let mut open = draft.needs.clone();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut before[at], true) {
                open.extend(&drafts[at].needs);
            }
        }
        let listed = draft.entry.job.aborts.iter().flat_map(|aborts| &aborts.value.0);
        for name in listed {
            if draft.aborts.iter().any(|at| before[*at] && drafts[*at].entry.name == name.value.as_ref()) {
                let what = format!("`{}` has always ended by then", name.value);
                let why = "this job needs it, directly or through others, so it ends first";
                let fault = fault(what, why, "delete it here");
                report.inside(&draft.entry.name, |report| {
                    report.inside("aborts", |report| report.error(name.place, fault));
                });
            }
        }
    }
}

fn check_size(drafts: &[Draft], file: &PipelineFile, report: &mut Report) {
    let place = file.jobs.as_ref().map_or(Place::START, |jobs| jobs.place);
    let sizes: Vec<usize> = drafts.iter().map(|draft| draft.entry.size()).collect();
    let jobs = sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size));
    if jobs > JOBS_MAX {
        let why = format!("a definition has at most {JOBS_MAX} jobs, matrix cells and shards counted");
        let hint = "use fewer cells or shards, or let one job do what several small ones do";
        report.error(place, fault(format!("{jobs} jobs are too many"), why, hint));
        return;
    }
    let edges = drafts.iter().zip(&sizes).fold(0, |sum: usize, (draft, size)| {
        draft
            .needs
            .iter()
            .chain(&draft.aborts)
            .fold(sum, |sum, at| sum.saturating_add(size.saturating_mul(sizes[*at])))
    });
    if edges > EDGES_MAX {
        let why = format!(
            "each cell and shard needs each cell and shard of what it needs: {edges} edges, at most {EDGES_MAX}"
        );
        let hint = "put a job in between that needs all of one side and is needed by all of the other";
        report.error(place, fault("too many jobs need too many others", why, hint));
    }
    check_stored(drafts, (&sizes, edges), file, report);
}

/// What a graph and the results of its jobs take where they are stored.
fn check_stored(
    drafts: &[Draft],
    (sizes, edges): (&[usize], usize),
    file: &PipelineFile,
    report: &mut Report,
) {
    let place = file.jobs.as_ref().map_or(Place::START, |jobs| jobs.place);
    let outputs = drafts.iter().zip(sizes).fold(0, |sum: usize, (draft, size)| {
        let outputs = draft.entry.job.outputs.as_ref().map_or(0, |outputs| outputs.value.0.len());
        sum.saturating_add(size.saturating_mul(outputs))
    });
    if outputs > OUTPUTS_MAX {
        let why = format!("all jobs together, each cell and shard counted, have at most {OUTPUTS_MAX}");
        let hint = "let one output take several files: its path may have `*` and `**`";
        report.error(place, fault(format!("{outputs} outputs are too many"), why, hint));
    }
    let defaults = file.defaults.as_ref().map(|defaults| defaults.value.clone()).unwrap_or_default();
    let mut bytes = edges.saturating_mul(EDGE_BYTES);
    for (draft, size) in drafts.iter().zip(sizes) {
        bytes = bytes.saturating_add(size.saturating_mul(draft.entry.stored_bytes(&defaults)));
        if bytes > GRAPH_BYTES_MAX {
            let why = format!(
                "all jobs together, each cell and shard counted, take more than {GRAPH_BYTES_MAX} bytes where they are \
                 stored, as JSON"
            );
            let hint = "move long scripts into files of the repository";
            report.error(place, fault("the jobs' scripts and variables are too large", why, hint));
            // No further: an alias is written out here, and many of them could be very much.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::Changed;
    use crate::value::Value;
    use crate::yaml;

    /// What the graph of a file is counted as, and what it takes.
    fn counted_and_taken(source: &str) -> (usize, usize) {
        let mut report = Report::new("towpath.yaml", source);
        let root = yaml::load(source, &mut report).unwrap();
        let file = PipelineFile::read(&root, &mut report).unwrap();
        let definition = resolve::resolve(&file, &mut report);
        assert_eq!(report.error_count(), 0, "{:?}", report.finish());
        let graph = definition.expand(Changed::Unknown);
        let edges: usize = graph.jobs.iter().map(|job| job.needs.len() + job.aborts.len()).sum();
        let defaults = file.defaults.map(|defaults| defaults.value).unwrap_or_default();
        let jobs = &file.jobs.unwrap().value.0;
        let bytes: usize = jobs.iter().map(|entry| entry.size() * entry.stored_bytes(&defaults)).sum();
        (bytes + edges * EDGE_BYTES, json_bytes(&graph))
    }

    #[test]
    fn a_graph_takes_no_more_than_it_is_counted_as() {
        let name = "n".repeat(80);
        let everything = format!(
            r#"
defaults: {{ env: {{ SHARED: "\a\a\a", OWN: x }} }}
jobs:
  {name}:
    run: "\e[1m\"bold\""
    on: [change, queue, land, manual]
    shards: 300
    matrix: {{ k: ['"', '\', plain], some_longer_key: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }}
    env: {{ OWN: "\e1" }}
    outputs: {{ dist: "dist/**" }}
    reports: {{ junit: junit.xml }}
    secrets: [token]
    aborts: [b]
  b: {{ run: x, user_namespaces: true, history: true, network: true, restartable: false }}
  c: {{ run: x, needs: [b], on: [land], environment: live, restartable: true }}
"#
        );
        let many: String = (0..3000).map(|at| format!("  j{at}: {{ run: x, needs: [first] }}\n")).collect();
        for source in [everything, format!("jobs:\n  first: x\n{many}")] {
            let (counted, taken) = counted_and_taken(&source);
            assert!(taken <= counted && counted < 3 * taken, "{counted} for {taken}");
        }
    }
}
