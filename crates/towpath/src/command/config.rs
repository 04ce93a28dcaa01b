//! `towpath config check|schema|explain`: the pipeline file, read as the server reads it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use towpath_core::graph::Trigger;
use towpath_pipeline::{Definition, DefinitionFile, Diagnostics, FILE_NAME, JobExplanation};

use crate::failure::{Exit, Failure};
use crate::local::definition;
use crate::terminal::style::{Style, count};
use crate::terminal::table::{self, Cell, styled};
use crate::terminal::{Terminal, inline};

/// Check, describe or explain the pipeline file
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check the pipeline file; every error at once, with its place
    Check {
        /// The file; without it, the one of the repository that you are in
        file: Option<PathBuf>,
    },
    /// Print the JSON Schema of the pipeline file, for editors
    Schema,
    /// Say what each job comes to, every default applied
    Explain {
        /// Only these jobs
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
        /// Print the pipeline as a file instead: what was detected can be taken as the first towpath.yaml
        #[arg(long, conflicts_with = "jobs")]
        as_file: bool,
    },
}

pub fn run(command: &ConfigCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check { file } => check(file.as_ref(), terminal),
        ConfigCommand::Schema => {
            terminal.document(&towpath_pipeline::schema())?;
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Explain { as_file: true, .. } => as_file(terminal),
        ConfigCommand::Explain { jobs, as_file: false } => explain(jobs, terminal),
    }
}

/// What a check is about, and what it found.
struct Checked {
    name: String,
    detected: bool,
    definition: Result<Definition, Diagnostics>,
}

fn check(file: Option<&PathBuf>, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let checked = match file {
        Some(path) => {
            let bytes = definition::bytes_of(path)?;
            let name = path.display().to_string();
            Checked { definition: Definition::parse(&name, &bytes), name, detected: false }
        }
        None => {
            let DefinitionFile { definition, detected, .. } = definition::of_here()?;
            let empty = definition.as_ref().is_ok_and(|definition| definition.jobs.is_empty());
            if let Some(detected) = detected.as_ref().filter(|_| empty) {
                return Err(Failure::new(Exit::NotFound, format!("there is no {FILE_NAME} to check"))
                    .why(detected.notes.join("; "))
                    .hint(format!(
                        "write a {FILE_NAME} at the repository's root, or name the file to check"
                    )));
            }
            Checked { name: FILE_NAME.to_owned(), detected: detected.is_some(), definition }
        }
    };
    let (items, left_off) = match &checked.definition {
        Ok(definition) => (definition.warnings.as_slice(), 0),
        Err(diagnostics) => (diagnostics.items.as_slice(), diagnostics.left_off),
    };
    match terminal.is_json() {
        true => {
            items.iter().try_for_each(|item| terminal.record(item))?;
            let jobs = checked.definition.as_ref().map_or(0, |definition| definition.jobs.len());
            terminal.record(&json!({
                "file": checked.name, "ok": checked.definition.is_ok(), "detected": checked.detected,
                "jobs": jobs, "findings": items.len() + left_off,
            }))?;
        }
        false => show_check(&checked, terminal)?,
    }
    match checked.definition {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(_) => Err(Failure::shown(Exit::Usage)),
    }
}

fn show_check(checked: &Checked, terminal: &Terminal) -> Result<(), Failure> {
    match &checked.definition {
        Ok(definition) => {
            definition.warnings.iter().for_each(|warning| terminal.talk(warning.render()));
            let what = match checked.detected {
                true => format!("no {}; detected", inline(&checked.name)),
                false => inline(&checked.name),
            };
            terminal.data(format!("{what}: {} {}", Style::Green.paint("ok"), sizes(definition)))?;
        }
        Err(diagnostics) => terminal.talk(diagnostics.render().trim_end()),
    }
    Ok(())
}

fn sizes(definition: &Definition) -> String {
    let all: usize = definition.jobs.iter().map(|job| job.size()).sum();
    let jobs = count(definition.jobs.len(), "job");
    match all == definition.jobs.len() {
        true => format!("({jobs})"),
        false => format!("({jobs}, {all} with matrix and shards)"),
    }
}

fn as_file(terminal: &Terminal) -> Result<ExitCode, Failure> {
    let file = definition::of_here()?;
    file.definition?;
    match file.detected {
        Some(detected) if terminal.is_json() => terminal.record(&json!({ "yaml": detected.yaml }))?,
        Some(detected) => terminal.verbatim(detected.yaml.as_bytes())?,
        None => {
            return Err(Failure::new(Exit::Conflict, format!("there is a {FILE_NAME} already"))
                .hint(format!("look at {FILE_NAME} itself")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(names: &[String], terminal: &Terminal) -> Result<ExitCode, Failure> {
    let file = definition::of_here()?;
    let jobs = towpath_pipeline::explain(&file);
    if let Err(diagnostics) = file.definition {
        return Err(diagnostics.into());
    }
    let known: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(definition::no_such_job(name, &known));
    }
    let wanted = |job: &&JobExplanation| names.is_empty() || names.contains(&job.name);
    if let Some(detected) = &file.detected {
        detected.notes.iter().for_each(|note| terminal.talk(format!("note: {note}")));
    }
    for (at, job) in jobs.iter().filter(wanted).enumerate() {
        match terminal.is_json() {
            true => terminal.record(job)?,
            false => {
                if at > 0 {
                    terminal.data("")?;
                }
                show(job, terminal)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(job: &JobExplanation, terminal: &Terminal) -> Result<(), Failure> {
    let landing = if job.required { "landing needs it" } else { "landing does not need it" };
    terminal.data(format!("{} ({}; {landing})", Style::Bold.paint(inline(&job.name)), inline(&job.from)))?;
    let rows: Vec<Vec<Cell>> = facts(job)
        .into_iter()
        .map(|(label, value)| vec!["".into(), styled(Style::Dim, label), value.into()])
        .collect();
    table::lines(&rows).iter().try_for_each(|line| terminal.data(line))?;
    job.body.run.lines().try_for_each(|line| terminal.data(format!("  | {}", inline(line))))?;
    Ok(())
}

/// What is not at its plainest, as label and value.
fn facts(job: &JobExplanation) -> Vec<(&'static str, String)> {
    let body = &job.body;
    let yes = |set: bool, text: &str| if set { text.to_owned() } else { String::new() };
    let retry = match (body.retry_errored, body.retry_failed) {
        (errored, 0) => format!("up to {errored} times after errors of the machine"),
        (errored, failed) => {
            format!("up to {errored} times after errors of the machine, {failed} after failures")
        }
    };
    let pairs = |pairs: &std::collections::BTreeMap<String, String>| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    };
    let facts = [
        ("on", triggers(&job.on)),
        ("also in", triggers(&job.pulled_into)),
        ("needs", job.needs.join(", ")),
        ("aborts", job.aborts.join(", ")),
        ("when paths", job.when.join(", ")),
        ("stands for", if job.instances.len() > 1 { job.instances.join(", ") } else { String::new() }),
        ("timeout", crate::terminal::style::span(u64::from(body.timeout_seconds) * 1000)),
        ("retry", retry),
        ("env", pairs(&body.env)),
        ("outputs", pairs(&body.outputs)),
        ("junit", body.junit.clone().unwrap_or_default()),
        ("network", yes(body.network, "its own, with the outside reachable")),
        ("history", yes(body.history, "sees .git and its commit")),
        ("checkout", yes(!body.checkout, "none: it starts in an empty folder")),
        ("namespaces", yes(body.user_namespaces, "may make its own")),
        ("secrets", body.secrets.join(", ")),
        ("environment", body.environment.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn triggers(triggers: &[Trigger]) -> String {
    triggers.iter().map(|trigger| trigger_name(*trigger)).collect::<Vec<_>>().join(", ")
}

fn trigger_name(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Change => "change",
        Trigger::Queue => "queue",
        Trigger::Land => "land",
        Trigger::Manual => "manual",
        Trigger::Schedule => "schedule",
        Trigger::Release => "release",
    }
}
