//! `towpath log RUN [JOB]`: what a job has written.

use std::process::ExitCode;

use serde_json::Value;

use self::follow::{Followed, follow};
use crate::command::answer::{items, text};
use crate::command::runs::RunPlace;
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg};
use crate::terminal::style::Style;
use crate::terminal::{Sanitiser, Terminal, inline};

mod follow;

const EMPTY: &str = "the log is empty";
/// Bytes that are asked for at once.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// Show a job's log
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    #[command(flatten)]
    repo: RepoArg,
    /// The run: `12`, or `release/1.0/12`
    run: String,
    /// The job, or a key that has several; of these, as of all jobs without it, the only one or the first that did not pass
    /// is shown; with `--follow` the first that is at work
    job: Option<String>,
    /// Go on while the job writes
    #[arg(long, short, conflicts_with_all = ["first_error", "tail"])]
    follow: bool,
    /// Show where it first speaks of an error
    #[arg(long, conflicts_with = "tail")]
    first_error: bool,
    /// Show the last lines only
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Which attempt, from 1 [default: the newest]
    #[arg(long)]
    attempt: Option<u32>,
}

pub fn run(arguments: &LogArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::find(&arguments.repo)?;
    let run = RunPlace::find(&place, &arguments.run)?;
    let choose = if arguments.follow { followed } else { chosen };
    let job = meant_job(&place, &run, (arguments.job.as_deref(), choose), terminal)?;
    let of_job = |what: &str| Request::get(&run.path(&place, &["jobs", &job, what]));
    let ask = |what: &str| of_job(what).with("attempt", arguments.attempt);
    let spoke = match (arguments.first_error, arguments.follow, arguments.tail) {
        (true, ..) => {
            let found = place.client.ask(&ask("first-error"))?;
            first_error(&found, terminal)?;
            !found["line"].is_null()
        }
        (_, true, _) => {
            let again = format!("towpath log {} {} -f", inline(&arguments.run), inline(&job));
            let followed = Followed { request: of_job("follow"), attempt: arguments.attempt, again };
            said(follow(&place.client, followed, terminal)?, terminal)
        }
        (.., Some(lines)) => {
            let bytes = place.client.bytes(&ask("log").with("tail", Some(lines)))?;
            said(Printer::new(terminal).all(&bytes)?, terminal)
        }
        _ => said(whole(&place, ask, terminal)?, terminal),
    };
    if !spoke && !terminal.is_json() {
        terminal.talk(ending(&place, &run, &job)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there was anything in a log; says so where there was not, as silence can be anything.
fn said(bytes: usize, terminal: &Terminal) -> bool {
    if bytes == 0 && !terminal.is_json() {
        terminal.talk(EMPTY);
    }
    bytes > 0
}

/// Takes the job that is meant out of several, or says why none is.
pub type Choose = fn(&[&Value]) -> Result<String, Failure>;

/// The job that is meant by its name, or taken by `choose` out of those of a key, or without a name out of all of the run;
/// where there was a choice, says which one that is, and of what.
pub fn meant_job(
    place: &Place,
    run: &RunPlace,
    (named, choose): (Option<&str>, Choose),
    terminal: &Terminal,
) -> Result<String, Failure> {
    let view = place.client.ask(&Request::get(&run.path(place, &[])))?;
    let all = items(&view["jobs"]);
    let jobs: Vec<&Value> = match named {
        None => all.iter().collect(),
        Some(named) if all.iter().any(|job| text(job, "name") == named) => return Ok(named.to_owned()),
        Some(named) => all.iter().filter(|job| text(job, "key") == named).collect(),
    };
    let job = match (named, jobs.as_slice()) {
        // The server knows what else it may be, or refuses it.
        (Some(named), []) => return Ok(named.to_owned()),
        _ => choose(&jobs)?,
    };
    if !terminal.is_json() {
        let change = view["change"].as_u64().map(|change| format!(" (change {change})")).unwrap_or_default();
        terminal.talk(format!("run {}{change}, job `{}`:", inline(text(&view, "run")), inline(&job)));
    }
    Ok(job)
}

/// The job whose log still grows; without one, as if nobody wanted to wait for more.
fn followed(jobs: &[&Value]) -> Result<String, Failure> {
    match jobs.iter().find(|job| at_work(job)) {
        Some(job) => Ok(text(job, "name").to_owned()),
        None => chosen(jobs),
    }
}

fn at_work(job: &Value) -> bool {
    text(job, "stage") == "running"
}

/// The only job, the one that decided how the run ended, or in a run that goes on the first that is at work.
pub fn chosen(jobs: &[&Value]) -> Result<String, Failure> {
    let name = |job: &Value| text(job, "name").to_owned();
    let failed = |job: &Value| matches!(text(job, "outcome"), "failed" | "errored" | "timed_out");
    // In a run that was cancelled, the job that was at work: it was the run's pace.
    let stopped = |job: &Value| text(job, "outcome") == "cancelled" && job["duration_ms"].as_u64() > Some(0);
    let first = |is: &dyn Fn(&Value) -> bool| jobs.iter().find(|job| is(job));
    match (jobs, first(&failed).or_else(|| first(&stopped)).or_else(|| first(&at_work))) {
        ([job], _) | (_, Some(job)) => Ok(name(job)),
        (jobs, None) => {
            let names: Vec<String> = jobs.iter().map(|job| name(job)).collect();
            Err(Failure::new(Exit::Usage, "it is not known which job is meant")
                .why("there are several, none of them failed, and none is at work")
                .hint(format!("name one of: {}", inline(&names.join(", ")))))
        }
    }
}

/// Prints pieces of one log: made safe for people, an object each for programs.
struct Printer<'a> {
    terminal: &'a Terminal,
    sanitiser: Sanitiser,
    bytes: usize,
}

impl Printer<'_> {
    fn new(terminal: &Terminal) -> Printer<'_> {
        Printer { terminal, sanitiser: Sanitiser::new(terminal.has_colour()), bytes: 0 }
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len();
        match self.terminal.is_json() {
            true => self.terminal.record(&serde_json::json!({ "text": String::from_utf8_lossy(bytes) }))?,
            false => self.terminal.log(&mut self.sanitiser, bytes)?,
        }
        Ok(())
    }

    /// Ends it; how many bytes of the log there were.
    fn end(mut self) -> Result<usize, Failure> {
        self.terminal.log_end(&mut self.sanitiser)?;
        Ok(self.bytes)
    }

    fn all(mut self, bytes: &[u8]) -> Result<usize, Failure> {
        self.piece(bytes)?;
        self.end()
    }
}

fn whole(place: &Place, ask: impl Fn(&str) -> Request, terminal: &Terminal) -> Result<usize, Failure> {
    let mut printer = Printer::new(terminal);
    let mut offset = 0;
    loop {
        let request = ask("log").with("from_byte", Some(offset)).with("bytes", Some(PIECE_BYTES));
        let bytes = place.client.bytes(&request)?;
        if bytes.is_empty() {
            return printer.end();
        }
        offset += bytes.len();
        printer.piece(&bytes)?;
    }
}

/// How a job ended in whose log nothing looks like an error.
fn ending(place: &Place, run: &RunPlace, job: &str) -> Result<String, Failure> {
    let view = place.client.ask(&Request::get(&run.path(place, &[])))?;
    let found = items(&view["jobs"]).iter().find(|other| text(other, "name") == job);
    let outcome = match found.map(|found| text(found, "outcome")) {
        None | Some("") => "it is not over",
        Some(outcome) => outcome,
    };
    let why = found.map(|found| text(found, "why")).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {}", inline(why))).unwrap_or_default();
    Ok(format!("job `{}`: {}{why}", inline(job), outcome.replace('_', " ")))
}

fn first_error(found: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.is_json() {
        return Ok(terminal.record(found)?);
    }
    let first = found["first"].as_u64().unwrap_or(0);
    let line = found["line"].as_u64();
    match (line, items(&found["lines"]).is_empty()) {
        (Some(_), _) => {}
        (None, true) => terminal.talk(EMPTY),
        (None, false) => terminal.talk("no line looks like an error; the last lines are:"),
    }
    for (number, content) in (first..).zip(items(&found["lines"]).iter().filter_map(Value::as_str)) {
        let mark = if Some(number) == line { Style::Red.paint(">") } else { " ".to_owned() };
        // Lines are counted from 1 for people, as everywhere.
        terminal.data(format!("{mark} {:>6}  {content}", number + 1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_followed_is_at_work_and_what_is_read_has_decided() {
        let lint = json!({ "name": "lint", "stage": "over", "outcome": "failed" });
        let unit = json!({ "name": "unit", "stage": "running" });
        let slow = json!({ "name": "slow", "stage": "waiting" });
        assert_eq!(chosen(&[&lint, &unit, &slow]).ok().as_deref(), Some("lint"));
        assert_eq!(followed(&[&lint, &unit, &slow]).ok().as_deref(), Some("unit"));
        assert_eq!(followed(&[&lint, &slow]).ok().as_deref(), Some("lint"));
    }
}
