//! What a person sees of a run while it goes on: a line for each job that begins or ends; on a terminal also, below
//! them, what runs now.

use std::collections::BTreeSet;
use std::time::Instant;

use towpath_blob::{LogReader, LogStore};
use towpath_core::graph::{JobGraph, JobIndex, JobSpec, Outcome, remark};
use towpath_core::ids::LeaseId;
use towpath_core::run::{JobState, RunState};

use crate::terminal::style::{Style, outcome, span};
use crate::terminal::{Terminal, inline};

/// Running jobs that are shown at once. More would push what ended out of sight.
const LIVE_LINES_MAX: usize = 8;
/// Bytes of a log's end in which its last line is looked for.
const LAST_LINE_BYTES: u64 = 1024;
/// Columns of a terminal that does not tell its size.
const COLUMNS_DEFAULT: usize = 80;

/// Follows the jobs of one run.
pub struct Progress<'a> {
    terminal: &'a Terminal,
    logs: LogStore,
    graph: JobGraph,
    open: BTreeSet<JobIndex>,
    running: Vec<Shown>,
    /// Width of the longest name.
    name_width: usize,
    /// Lines of the block that is on the screen now.
    drawn: usize,
}

/// A job that runs.
struct Shown {
    job: JobIndex,
    lease: LeaseId,
    since: Instant,
}

impl<'a> Progress<'a> {
    /// Nothing has begun.
    pub fn new(terminal: &'a Terminal, logs: LogStore, graph: &JobGraph) -> Progress<'a> {
        let widths = graph.jobs.iter().map(|job| job.name.as_str().chars().count());
        Progress {
            terminal,
            logs,
            graph: graph.clone(),
            open: graph.iter().map(|(index, _)| index).collect(),
            running: Vec::new(),
            name_width: widths.max().unwrap_or(0),
            drawn: 0,
        }
    }

    /// An executor has begun with a lease.
    pub fn started(&mut self, lease: LeaseId, state: &RunState) {
        let held = |index: &JobIndex| match state.job(*index) {
            Some(JobState::Running { lease: held, .. }) if held.id == lease => Some(held.attempt),
            _ => None,
        };
        let Some((job, attempt)) = self.open.iter().find_map(|index| Some((*index, held(index)?))) else {
            return;
        };
        self.running.push(Shown { job, lease, since: Instant::now() });
        if !self.terminal.is_live() {
            let again = if attempt > 1 { format!("  attempt {attempt}") } else { String::new() };
            let name = inline(self.graph.job(job).name.as_str());
            self.say(&format!("{}    {name}{again}", Style::Cyan.paint("started")));
        }
    }

    /// Looks at what has ended; returns the jobs that ended for good, in order.
    pub fn update(&mut self, state: &RunState) -> Vec<JobIndex> {
        self.running.retain(|shown| {
            matches!(state.job(shown.job), Some(JobState::Running { lease, .. }) if lease.id == shown.lease)
        });
        let is_done = |index: &&JobIndex| matches!(state.job(**index), Some(JobState::Done { .. }));
        let ended: Vec<JobIndex> = self.open.iter().filter(is_done).copied().collect();
        for index in &ended {
            self.open.remove(index);
            if let Some(job) = state.job(*index)
                && let Some(line) = end_line(self.graph.job(*index), job, self.name_width)
            {
                self.say(&line);
            }
        }
        self.draw();
        ended
    }

    /// Takes the block of running jobs off the screen.
    pub fn clear(&mut self) {
        if self.drawn > 0 {
            self.terminal.draw(self.drawn, &[]);
            self.drawn = 0;
        }
    }

    fn say(&mut self, line: &str) {
        self.clear();
        if !self.terminal.is_json() {
            self.terminal.talk(line);
        }
    }

    fn draw(&mut self) {
        if !self.terminal.is_live() {
            return;
        }
        let (rows, columns) = size();
        let room = LIVE_LINES_MAX.min(rows.saturating_sub(2)).max(1);
        let mut lines: Vec<String> =
            self.running.iter().take(room).map(|shown| self.live_line(shown, columns)).collect();
        let hidden = self.running.len().saturating_sub(room);
        let waiting = self.open.len() - self.running.len();
        let rest: Vec<String> = [(hidden, "more running"), (waiting, "waiting")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if !rest.is_empty() {
            lines.push(Style::Dim.paint(cut(&rest.join(", "), columns)));
        }
        self.terminal.draw(self.drawn, &lines);
        self.drawn = lines.len();
    }

    fn live_line(&self, shown: &Shown, columns: usize) -> String {
        let name = inline(self.graph.job(shown.job).name.as_str());
        let time = match shown.since.elapsed().as_secs() {
            0 => String::new(),
            seconds => span(seconds * 1000),
        };
        let head = format!("running    {name:<width$}  {time:<9}", width = self.name_width);
        let last = last_line(&self.logs.reader(&shown.lease));
        let room = columns.saturating_sub(head.chars().count() + 3);
        format!("{}  {}", Style::Cyan.paint(cut(&head, columns)), Style::Dim.paint(cut(&inline(&last), room)))
    }
}

/// What is said of a job that is over.
fn end_line(spec: &JobSpec, job: &JobState, name_width: usize) -> Option<String> {
    let JobState::Done { result, tries, .. } = job else { return None };
    let verdict = format!("{:<9}", outcome(result.outcome));
    let name = inline(spec.name.as_str());
    let mut line = format!("{}  {name:<name_width$}", Style::of(result.outcome).paint(verdict));
    if result.duration_ms > 0 {
        line.push_str(&format!("  {}", Style::Dim.paint(span(result.duration_ms))));
    }
    let why = if result.outcome == Outcome::Passed { remark(&result.why) } else { &result.why };
    if !why.is_empty() {
        line.push_str(&format!("  {}", inline(why)));
    }
    if !result.failed_tests.is_empty() {
        line.push_str(&format!("  failed tests: {}", inline(&result.failed_tests.join(", "))));
    }
    match (tries.len(), result.outcome) {
        (0, _) => {}
        (earlier, Outcome::Passed) => {
            let flaky = if job.is_flaky() { "flaky: " } else { "" };
            line.push_str(&format!("  {flaky}passed at attempt {}", earlier + 1));
        }
        (earlier, _) => line.push_str(&format!("  after {} attempts", earlier + 1)),
    }
    if result.unsandboxed {
        line.push_str(&format!("  {}", Style::Yellow.paint("[no sandbox]")));
    }
    Some(line.trim_end().to_owned())
}

/// The last line of a log that has something in it, without its colours.
fn last_line(log: &LogReader) -> String {
    let size = log.size().unwrap_or(0);
    let bytes = log.bytes(size.saturating_sub(LAST_LINE_BYTES), LAST_LINE_BYTES as usize).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.rsplit(['\n', '\r']).find(|line| !line.trim().is_empty()).unwrap_or_default();
    String::from_utf8_lossy(&crate::terminal::sanitise::sanitise(line, false)).trim().to_owned()
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

/// Rows and columns of the terminal behind standard error.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (LIVE_LINES_MAX, COLUMNS_DEFAULT),
    }
}
