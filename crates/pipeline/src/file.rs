//! The pipeline file as it is written: every key, its type and what it means. From these declarations come the reader,
//! its hints and the JSON Schema.

use serde_json::{Value as Json, json};
use towpath_core::candidate::Strategy;
use towpath_core::definition::{EmptySet, Proof};
use towpath_core::glob::Glob;
use towpath_core::graph::Trigger;

use crate::diagnostic::{Place, Report, fault, shown};
use crate::matrix::Matrix;
use crate::name::{EnvironmentKey, JobKey, OutputKey, SecretKey, VariableKey};
use crate::record::record;
use crate::value::{At, Count, Duration, Many, Named, Script, Text, Value, choice, comes_later, unknown_key};
use crate::yaml::{Node, Tree};

/// Jobs of one definition, each cell of a matrix and each shard counted. A graph of this size is what performance row
/// P3 measures.
pub const JOBS_MAX: usize = 10_000;
/// Shards of one job.
pub const SHARDS_MAX: u32 = 512;
/// Further attempts of one job of one kind. More of them hide a fault instead of riding over it.
pub const RETRIES_MAX: u32 = 5;
/// Approvals that a branch may ask for, here or in the server's settings. No change of a branch that asks for more than there
/// are people could land.
pub const APPROVALS_MAX: u32 = 20;

record! {
    /// How Towpath tests and lands the changes of this repository.
    PipelineFile, example "{ jobs: { test: make check } }" {
        /// How changes land. Only the target branch's own file counts.
        gate: GateFile,
        /// Times that alert when they are exceeded.
        budget: BudgetFile,
        /// Values for every job that does not say otherwise.
        defaults: DefaultsFile,
        /// Job names and what they do. A job may be one text, its script.
        jobs: Jobs,
    }
    required { "jobs" => "a pipeline is its jobs", }
    later {}
}

record! {
    /// How changes land.
    GateFile, example "{ strategy: merge, approvals: 1 }" {
        /// How a change's commits come onto the branch. Default: merge.
        strategy: Strategy,
        /// Approvals that a change needs, never of somebody who uploaded one of its commits. Default: the server's.
        approvals: Count<0, APPROVALS_MAX>,
        /// What a passed result must have been about: this very commit, or a commit with the same tree. Default: tree.
        proof: Proof,
        /// Whether a change for which no required job ran lands. Default: refuse.
        empty: EmptySet,
    }
    required {}
    later {
        "protected" => "delete it; `approvals` asks for people's eyes on every change",
        "labels" => "delete it; the server's settings name the labels",
        "window" => "delete it; changes land one after another",
    }
}

record! {
    /// Times that alert when they are exceeded.
    BudgetFile, example "{ change: 15m }" {
        /// From push to verdict. Exceeding it alerts; it kills nothing.
        change: Duration,
    }
    required {}
    later {}
}

record! {
    /// Values for every job that does not say otherwise.
    DefaultsFile, example "{ timeout: 15m }" {
        /// Wall time after which the whole process tree dies. Default: 1h.
        timeout: Duration,
        /// Whether jobs reach the network. Default: false.
        network: bool,
        /// Whether jobs see `.git` and their commit id. Default: false.
        history: bool,
        /// Whether jobs get the repository's files. Default: true.
        checkout: bool,
        /// Variables of every job; a job's own win.
        env: Named<VariableKey, Text>,
        /// How often it is tried again, and after what.
        retry: RetryFile,
    }
    required {}
    later {
        "image" => "delete it; jobs run in the host's sandbox, with the tools of the host",
        "cache" => "delete it; jobs start from the repository's files",
        "resources" => "delete it; the server's limits hold for every job",
    }
}

record! {
    /// A job: one script on one executor.
    Job, example "{ run: make check }" {
        /// A shell script, run by `/bin/sh -e` at the root of the work tree. Nothing is put into its text.
        run: Script,
        /// What starts it: change (a change's own run), queue (before landing), land (after landing), manual.
        /// Default: [change, queue]. It also runs wherever a job that needs it runs.
        on: Many<Trigger>,
        /// Jobs that must pass first; their outputs appear under `$TOWPATH_INPUTS/<job>/`.
        needs: Many<JobKey>,
        /// Whether it must pass before a change lands. Default: true if `on` has queue.
        required: bool,
        /// When it runs at all.
        when: WhenFile,
        /// Variables of its environment; they win over those of `defaults`.
        env: Named<VariableKey, Text>,
        /// Wall time after which the whole process tree dies. Default: 1h.
        timeout: Duration,
        /// How often it is tried again, and after what.
        retry: RetryFile,
        /// Equal jobs that each do a part: `TOWPATH_SHARD` of `TOWPATH_SHARDS`, from 1.
        shards: Count<1, SHARDS_MAX>,
        /// A job for each combination of values, seen as `TOWPATH_MATRIX_<KEY>`.
        matrix: Matrix,
        /// Files that are kept and given to jobs that need this one: a name and a path for each.
        outputs: Named<OutputKey, Glob>,
        /// Reports that Towpath reads.
        reports: ReportsFile,
        /// Whether it reaches the network. Default: false.
        network: bool,
        /// Whether it sees `.git` with all that its commit reaches, and its commit id. Default: false.
        history: bool,
        /// Whether it gets the repository's files. Default: true.
        checkout: bool,
        /// Secrets that it asks for, each a file. The server's policy decides whether it gets them.
        secrets: Many<SecretKey>,
        /// Makes it a deployment to this environment: one at a time, coalesced, recorded.
        environment: EnvironmentKey,
        /// Whether a deployment is tried again after the machine that ran it died. Default: false.
        restartable: bool,
        /// Jobs that are cancelled when this one fails.
        aborts: Many<JobKey>,
        /// Whether it may make user namespaces, as sandboxes and rootless containers do. Default: false.
        user_namespaces: bool,
    }
    required { "run" => "a job does nothing without a script", }
    later {
        "image" => "delete it; the job runs in the host's sandbox, with the tools of the host",
        "cache" => "delete it; fetch what the job needs, with `network: true`",
        "services" => "start the service in `run`, in the background",
        "namespace" => "delete it; deploy to an `environment` after landing",
        "resources" => "delete it; the server's limits hold for every job",
        "reuse" => "delete it; the job runs for each tree",
        "fresh" => "delete it; the job runs for each tree",
    }
}

record! {
    /// Further attempts.
    RetryFile, example "{ errored: 2 }" {
        /// After our machines failed. Default: 2.
        errored: Count<0, RETRIES_MAX>,
        /// After the job failed or timed out; a pass after one is recorded as flaky. Default: 0.
        failed: Count<0, RETRIES_MAX>,
    }
    required {}
    later {}
}

record! {
    /// When a job runs at all.
    WhenFile, example "{ paths: [src/**] }" {
        /// Paths of which at least one must have changed; `!path` leaves paths out. Names before and after a rename
        /// both count. When the definition itself changes, every job runs.
        paths: Paths,
    }
    required { "paths" => "`when` has no other condition", }
    later {}
}

record! {
    /// Reports that Towpath reads.
    ReportsFile, example "{ junit: junit.xml }" {
        /// JUnit XML files: names, durations and failures are kept for each test.
        junit: Glob,
    }
    required {}
    later { "coverage" => "keep the file with `outputs: { coverage: coverage.xml }`", }
}

choice!(Strategy, "merge", {
    "merge" => Strategy::Merge,
    "squash" => Strategy::Squash,
    "rebase" => Strategy::Rebase,
} later {});

choice!(Proof, "tree", {
    "commit" => Proof::Commit,
    "tree" => Proof::Tree,
} later { "inputs" => "write `tree`: a result counts for every commit with the same tree", });

choice!(EmptySet, "refuse", {
    "refuse" => EmptySet::Refuse,
    "land" => EmptySet::Land,
} later {});

choice!(Trigger, "[change, queue]", {
    "change" => Trigger::Change,
    "queue" => Trigger::Queue,
    "land" => Trigger::Land,
    "manual" => Trigger::Manual,
} later {
    "schedule" => "write `manual`; nothing would start it on a schedule yet",
    "release" => "write `manual`; nothing would start it for a release yet",
});

/// A glob, or with `!` in front one whose paths are left out.
#[derive(Debug, Clone)]
pub(crate) struct PathPattern {
    pub(crate) leave_out: bool,
    pub(crate) glob: Glob,
}

impl Value for PathPattern {
    const TAKES: &'static str = "paths below the repository's root, `!` in front of those to leave out";
    const EXAMPLE: &'static str = "[src/**, \"!**/*.md\"]";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text() else { return Self::refuse(node, report) };
        let Some(rest) = text.strip_prefix('!') else {
            return Glob::read(node, report).map(|glob| PathPattern { leave_out: false, glob });
        };
        Glob::read(&node.with_text(rest), report).map(|glob| PathPattern { leave_out: true, glob })
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "not": { "pattern": "^!?[/~]|(^!?|/)\\.\\.(/|$)|[\\\\{}]" } })
    }
}

/// The paths of a condition, one at least.
#[derive(Debug, Clone)]
pub(crate) struct Paths(pub(crate) Many<PathPattern>);

impl Value for Paths {
    const TAKES: &'static str = PathPattern::TAKES;
    const EXAMPLE: &'static str = PathPattern::EXAMPLE;

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let errors = report.error_count();
        let paths = Many::<PathPattern>::read(node, report)?;
        if paths.0.is_empty() && report.error_count() == errors {
            let why = "without a path no change would concern the job";
            report.error(node.place, fault("no path", why, "add a path, or delete `when`"));
        }
        Some(Paths(paths))
    }

    fn schema() -> Json {
        let mut schema = Many::<PathPattern>::schema();
        schema["anyOf"][1]["minItems"] = json!(1);
        schema
    }
}

/// The jobs in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Jobs(pub(crate) Vec<JobEntry>);

/// One entry under `jobs`.
#[derive(Debug, Clone)]
pub(crate) struct JobEntry {
    /// As written. A job whose name is refused still answers to it, so that one slip is told once.
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) place: Place,
    /// What could be read of it.
    pub(crate) job: Job,
}

impl Value for Jobs {
    const TAKES: &'static str = "a mapping from job names to jobs";
    const EXAMPLE: &'static str = "{ test: make check }";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let entries = node.entries::<Self>(report)?;
        if entries.len() > JOBS_MAX {
            let what = format!("{} jobs are too many", entries.len());
            let why = format!("a definition has at most {JOBS_MAX} jobs, matrix cells and shards counted");
            report.error(node.place, fault(what, why, "let one job do what several small ones do"));
            return None;
        }
        let mut jobs = Vec::with_capacity(entries.len());
        for entry in entries {
            report.inside(&entry.key, |report| {
                JobKey::read(&entry.key_node(), report);
                let job = Job::read_short_or_long(&entry.value, report).unwrap_or_default();
                jobs.push(JobEntry { name: entry.key.clone(), place: entry.place, job });
            });
        }
        Some(Jobs(jobs))
    }

    fn schema() -> Json {
        let job = json!({ "anyOf": [Script::schema(), Job::schema()] });
        json!({ "type": "object", "propertyNames": JobKey::schema(), "additionalProperties": job })
    }
}

impl Job {
    fn read_short_or_long(node: &Node, report: &mut Report) -> Option<Job> {
        match &node.value {
            Tree::Scalar { .. } => At::read(node, report).map(|run| Job { run: Some(run), ..Job::default() }),
            Tree::Null => {
                let what = format!("the job `{}` is empty", shown(report.key()));
                let why = "a job does nothing without a script";
                report.error(node.place, fault(what, why, "write its script, such as `make check`"));
                None
            }
            Tree::List(_) | Tree::Map(_) | Tree::Unknown => Job::read(node, report),
        }
    }
}
