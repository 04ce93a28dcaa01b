//! `towpath run [JOB...]`: the pipeline on the work tree, in the sandbox that the server uses, without a server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use towpath_blob::{BlobStore, LogStore};
use towpath_core::graph::{JobIndex, JobResult, Outcome, SkipReason, Trigger};
use towpath_core::ids::LeaseId;
use towpath_core::run::JobState;
use towpath_executor::{ExecutorConfig, JobEvent, JobPool, SandboxKind};
use towpath_git::{Checkout, TREE_LIMITS};
use towpath_pipeline::{Changed, FILE_NAME};
use towpath_server::program::OWN;

use crate::command::executor::SandboxArg;
use crate::command::{SANDBOX_HELPER, own_checkout, own_git};
use crate::failure::{Exit, Failure};
use crate::local::definition;
use crate::local::engine::{Engine, Site};
use crate::local::folder::RunFolder;
use crate::local::progress::Progress;
use crate::local::selection::{Selection, Wanted};
use crate::terminal::style::{Style, count, outcome, span};
use crate::terminal::{Sanitiser, Terminal, inline};

/// Time between two looks at running jobs' logs, on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// Bytes of a log's end that are printed; a failure stands at the end.
const LOG_SHOWN_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of a log's end in the JSON object of its job.
const LOG_RECORD_BYTES: u64 = 64 * 1024;

/// Run the pipeline on the work tree, uncommitted changes included, in the sandbox and without a server
///
/// The jobs work on a copy of the tracked and not ignored files. Jobs that deploy or ask for secrets are left out: only
/// the server does and has these.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Jobs to run, with what they need; without names, those of the triggers
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Run the jobs that this event starts [default: change and queue]
    #[arg(long, value_enum, value_name = "EVENT", conflicts_with = "jobs")]
    trigger: Vec<TriggerArg>,
    /// Skip jobs whose `when: { paths }` matches nothing that differs from this commit
    #[arg(long, value_name = "COMMIT", conflicts_with = "jobs")]
    changed_since: Option<String>,
    /// Jobs at once [default: one for each processor]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Print the logs of all jobs, not only of those that do not pass
    #[arg(long)]
    logs: bool,
    /// `none` runs jobs as you, with all that you may do; every result is marked
    #[arg(long, value_enum, default_value_t = SandboxArg::Bubblewrap)]
    sandbox: SandboxArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TriggerArg {
    Change,
    Queue,
    Land,
    Manual,
}

impl From<TriggerArg> for Trigger {
    fn from(argument: TriggerArg) -> Trigger {
        match argument {
            TriggerArg::Change => Trigger::Change,
            TriggerArg::Queue => Trigger::Queue,
            TriggerArg::Land => Trigger::Land,
            TriggerArg::Manual => Trigger::Manual,
        }
    }
}

/// What can happen while jobs run.
enum Happening {
    Job(JobEvent),
    Interrupt,
}

pub fn run(arguments: &RunArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    // From here on an interrupt ends the jobs and removes the folder, instead of leaving both behind.
    let (send, happenings) = channel();
    let interrupts = send.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(Exit::Usage, "signals cannot be caught").why(error.to_string()))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // The receiver is gone only when the run is over.
            let _ = interrupts.send(Happening::Interrupt);
        }
    });
    let git = own_git()?;
    let checkout = own_checkout(&git)?;
    let folder = RunFolder::make()?;
    let (selection, site) = prepare(arguments, &checkout, &folder, terminal)?;
    let sandbox = SandboxKind::from(arguments.sandbox);
    if sandbox == SandboxKind::None {
        terminal.talk(format!(
            "{} jobs run without a sandbox, as you chose: they can do whatever you can",
            Style::Yellow.paint("warning:")
        ));
    }
    let mut config = executor_config(folder.path(), sandbox);
    config.slots = arguments.slots.unwrap_or(config.slots);
    let slots = config.slots;
    let unkept = |error: towpath_blob::BlobError| {
        Failure::new(Exit::Usage, "what jobs leave cannot be kept").why(error.to_string())
    };
    let logs = LogStore::open(&config.logs).map_err(unkept)?;
    let blobs = BlobStore::open(&config.blobs).map_err(unkept)?;
    let pool = JobPool::start(config, move |event| {
        // As above: after the run nobody waits for events.
        let _ = send.send(Happening::Job(event));
    })?;
    let following = Following {
        engine: Engine::new((&pool, blobs), slots, site, &selection),
        progress: Progress::new(terminal, logs.clone(), &selection.graph),
        selection: &selection,
        logs,
        all_logs: arguments.logs,
        terminal,
    };
    following.follow(&happenings)
}

/// An executor below one folder, with this program as its sandbox helper: this very file, though another one may bear its
/// name by the time that a helper is started, or none.
pub fn executor_config(folder: &Path, sandbox: SandboxKind) -> ExecutorConfig {
    let helper: Vec<OsString> = vec![OWN.into(), SANDBOX_HELPER.into()];
    ExecutorConfig { sandbox, ..ExecutorConfig::in_folder(folder, helper) }
}

/// Copies the work tree, reads its definition, selects the jobs.
fn prepare(
    arguments: &RunArgs,
    checkout: &Checkout,
    folder: &RunFolder,
    terminal: &Terminal,
) -> Result<(Selection, Site), Failure> {
    let base = folder.path().join("base");
    let files = checkout.files()?;
    let copied = checkout.copy_files(&files, &base, TREE_LIMITS)?;
    let left_out =
        |path| format!("note: {path} is a repository of its own and left out (submodules are not fetched)");
    files.nested.iter().for_each(|path| terminal.talk(left_out(path)));
    copied.special.iter().for_each(|path| terminal.talk(format!("note: {path} is no file and is left out")));
    let file = definition::of_copy(&base)?;
    let detected = file.detected.as_ref();
    let definition = file.definition?;
    let paths = match &arguments.changed_since {
        None => None,
        Some(commit) => Some(checkout.changed_since(commit)?.ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no commit `{commit}`"))
                .hint("name a branch, a tag or a commit of this repository")
        })?),
    };
    let paths: Option<Vec<Vec<u8>>> = paths.map(|paths| paths.into_iter().map(|path| path.0).collect());
    let graph = definition.expand(paths.as_deref().map_or(Changed::Unknown, Changed::Paths));
    let triggers: Vec<Trigger> = match arguments.trigger.as_slice() {
        [] => vec![Trigger::Change, Trigger::Queue],
        chosen => chosen.iter().map(|trigger| (*trigger).into()).collect(),
    };
    let selection = Selection::of(&graph, Wanted { names: &arguments.jobs, triggers: &triggers })?;
    if selection.graph.jobs.is_empty() {
        let why = match detected.map(|detected| detected.notes.join("; ")) {
            Some(notes) if !notes.is_empty() => notes,
            _ => "no job of the pipeline has one of these events in its `on`".to_owned(),
        };
        let hint = match graph.jobs.is_empty() {
            true => format!("write a {FILE_NAME}: docs/guide/pipeline.md says what it takes"),
            false => "name a job; `towpath config explain` lists them".to_owned(),
        };
        return Err(Failure::new(Exit::Usage, "there is nothing to run").why(why).hint(hint));
    }
    let site = site(checkout, &selection, folder.path(), terminal)?;
    Ok((selection, site))
}

fn site(
    checkout: &Checkout,
    selection: &Selection,
    folder: &Path,
    terminal: &Terminal,
) -> Result<Site, Failure> {
    let head = checkout.head()?;
    let mut facts = BTreeMap::from([("LOCAL".to_owned(), "true".to_owned())]);
    if let Some(branch) = head.as_ref().and_then(|head| head.branch.clone()) {
        facts.insert("BRANCH".to_owned(), branch);
    }
    let not_here = selection.not_here();
    let wants_history = selection
        .graph
        .iter()
        .any(|(index, job)| job.body.history && job.skip.is_none() && !not_here.contains(&index));
    if wants_history && head.is_none() {
        terminal.talk(
            "note: there is no commit yet, so jobs with `history: true` see none; commit first for those",
        );
    }
    let with_history = match wants_history && head.is_some() {
        false => None,
        true => {
            let into = folder.join("base-with-history");
            checkout.copy_files(&checkout.files()?, &into, TREE_LIMITS)?;
            checkout.copy_history(&into)?;
            Some(into)
        }
    };
    let head = head.map(|head| (head.commit, head.tree));
    Ok(Site { base: folder.join("base"), with_history, head, facts })
}

/// A run that is under way.
struct Following<'a> {
    engine: Engine<'a>,
    progress: Progress<'a>,
    selection: &'a Selection,
    logs: LogStore,
    all_logs: bool,
    terminal: &'a Terminal,
}

impl Following<'_> {
    fn follow(mut self, happenings: &Receiver<Happening>) -> Result<ExitCode, Failure> {
        let began = Instant::now();
        let mut interrupted = false;
        let mut jobs: Vec<JobIndex> = Vec::new();
        loop {
            self.engine.settle();
            let ended = self.progress.update(self.engine.state());
            ended.iter().try_for_each(|job| self.print(*job))?;
            jobs.extend(ended);
            if self.engine.report().is_some() {
                break;
            }
            match happenings.recv_timeout(REDRAW) {
                Ok(Happening::Job(JobEvent::Started(lease))) => {
                    self.progress.started(lease, self.engine.state());
                }
                Ok(Happening::Job(JobEvent::Ended(end))) => self.engine.ended(*end),
                Ok(Happening::Interrupt) => {
                    interrupted = true;
                    self.engine.cancel("interrupted");
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("invariant: the pool keeps its sender until it is dropped")
                }
            }
        }
        self.progress.clear();
        if interrupted {
            return Err(Failure::new(Exit::Interrupted, "interrupted; the jobs that ran were ended"));
        }
        self.verdict(&jobs, began.elapsed())
    }

    /// What a job left, once it is over: its log if it did not pass or all logs are wanted, or its object with that.
    fn print(&mut self, index: JobIndex) -> Result<(), Failure> {
        let Some(JobState::Done { result, tries, .. }) = self.engine.state().job(index) else {
            return Ok(());
        };
        let job = self.selection.graph.job(index);
        let lease = self.engine.newest_lease(index);
        let ran = result.log.is_some();
        let lease = lease.filter(|_| ran && (self.all_logs || is_failure(result.outcome)));
        if self.terminal.is_json() {
            let log = match lease {
                Some(lease) => Some(self.tail(&lease, LOG_RECORD_BYTES)?.1),
                None => None,
            };
            self.terminal.record(&json!({
                "job": job.name, "outcome": result.outcome, "why": result.why, "exit_code": result.exit_code,
                "duration_ms": result.duration_ms, "attempts": if ran { tries.len() + 1 } else { 0 },
                "counts": self.selection.counts(job), "unsandboxed": result.unsandboxed,
                "failed_tests": result.failed_tests,
                "log": log.map(|log| String::from_utf8_lossy(&log).into_owned()),
            }))?;
            return Ok(());
        }
        match lease {
            Some(lease) => {
                let title =
                    format!("{} ({}: {})", inline(job.name.as_str()), outcome(result.outcome), result.why);
                self.print_log(&lease, &title)
            }
            None => Ok(()),
        }
    }

    fn print_log(&mut self, lease: &LeaseId, title: &str) -> Result<(), Failure> {
        self.progress.clear();
        self.terminal.data(Style::Bold.paint(format!("--- log of {}", inline(title))))?;
        let (left_out, bytes) = self.tail(lease, LOG_SHOWN_BYTES)?;
        if left_out > 0 {
            self.terminal.data(Style::Dim.paint(format!("[{left_out} bytes before this are not shown]")))?;
        }
        let mut sanitiser = Sanitiser::new(self.terminal.has_colour());
        self.terminal.log(&mut sanitiser, &bytes)?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            self.terminal.log(&mut sanitiser, b"\n")?;
        }
        self.terminal.log_end(&mut sanitiser)?;
        self.terminal.data(Style::Bold.paint(format!("--- end of {}", inline(title))))?;
        Ok(())
    }

    /// The end of a log, and how many bytes come before it.
    fn tail(&self, lease: &LeaseId, bytes_max: u64) -> Result<(u64, Vec<u8>), Failure> {
        let log = self.logs.reader(lease);
        let failed = |error: towpath_blob::BlobError| Failure::new(Exit::Usage, error.to_string());
        let size = log.size().map_err(failed)?;
        let start = size.saturating_sub(bytes_max);
        let mut bytes = Vec::new();
        loop {
            let piece = log.bytes(start + bytes.len() as u64, bytes_max as usize).map_err(failed)?;
            if piece.is_empty() {
                return Ok((start, bytes));
            }
            bytes.extend(piece);
        }
    }

    fn verdict(&self, jobs: &[JobIndex], took: Duration) -> Result<ExitCode, Failure> {
        let not_here = self.selection.not_here();
        let results: Vec<(JobIndex, &JobResult)> = jobs
            .iter()
            .filter_map(|index| match self.engine.state().job(*index)? {
                JobState::Done { result, .. } => Some((*index, &**result)),
                _ => None,
            })
            .collect();
        let counts = |index: &JobIndex| {
            self.selection.counts(self.selection.graph.job(*index)) && !not_here.contains(index)
        };
        let mut tally = Tally::default();
        for (index, result) in results {
            match (result.outcome, &result.skip) {
                (Outcome::Passed, _) => tally.passed += 1,
                (outcome, _) if is_failure(outcome) && counts(&index) => tally.failed += 1,
                (outcome, _) if is_failure(outcome) && !not_here.contains(&index) => tally.advisory += 1,
                (_, Some(SkipReason::Need { .. })) if counts(&index) => tally.skipped += 1,
                _ => {}
            }
        }
        if !self.terminal.is_json() {
            self.sum_up(&tally, took);
        }
        match tally.fails() {
            false => Ok(ExitCode::SUCCESS),
            true => Err(Failure::shown(Exit::Failed)),
        }
    }

    fn sum_up(&self, tally: &Tally, took: Duration) {
        let span = span(took.as_millis().try_into().unwrap_or(u64::MAX));
        let verdict = match tally.fails() {
            false => Style::Green.paint("passed"),
            true => Style::Red.paint("failed"),
        };
        let mut line = format!("{verdict}: {} passed", count(tally.passed, "job"));
        let others =
            [(tally.failed, "failed"), (tally.advisory, "advisory failed"), (tally.skipped, "not run")];
        for (number, word) in others.into_iter().filter(|(number, _)| *number > 0) {
            line.push_str(&format!(", {number} {word}"));
        }
        line.push_str(&format!(", in {span}"));
        let left_out = self.selection.left_out.len();
        if left_out > 0 {
            line.push_str(&format!("; {} only for the server", count(left_out, "job")));
        }
        self.terminal.talk(line);
    }
}

/// How many jobs came to what.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    passed: usize,
    /// Jobs that fail the run.
    failed: usize,
    /// Jobs that did not pass and may.
    advisory: usize,
    /// Jobs that the run takes and that were skipped, as what they need did not pass.
    skipped: usize,
}

impl Tally {
    fn fails(self) -> bool {
        self.failed + self.skipped > 0
    }
}

fn is_failure(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::Errored | Outcome::TimedOut | Outcome::Cancelled)
}
