//! `towpath audit verify|show`: the record of everything that was done.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_store::View;
use towpath_store::audit::{AuditKey, Held, VerifierKey, split_notes, verify};

use crate::command::answer::{items, number, rows, text, time};
use crate::command::file_failure;
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::client;
use crate::terminal::style::{Style, count};
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

/// The database in a data folder.
const DATABASE: &str = "towpath.db";
/// The signing key in the folder of the keys.
const KEY: &str = "audit.key";
/// The checkpoints in the folder of the keys.
const CHECKPOINTS: &str = "checkpoints";

/// Verify the audit log, or show its leaves
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    Verify(VerifyArgs),
    /// Show leaves of the server's log, newest last
    Show {
        /// From this leaf on; without it, the newest ones
        #[arg(long, value_name = "LEAF")]
        from: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
        count: u64,
    },
}

/// Recompute the whole log from its bytes, with no server, and compare it with every checkpoint and key at hand
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// A data folder, or a copy of its database
    #[arg(long, value_name = "FOLDER", default_value = "towpath-data")]
    data: PathBuf,
    /// The folder of the keys, for its key and checkpoints [default: the data folder's name and `-keys`, if it is there]
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
    /// A file of checkpoints that was kept elsewhere; may be given more than once
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A key that you trust, as `name+id+key`; may be given more than once
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
}

pub fn run(command: &AuditCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Verify(arguments) => verify_log(arguments, terminal),
        AuditCommand::Show { from, count } => show(*from, *count, terminal),
    }
}

fn verify_log(arguments: &VerifyArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let database = match arguments.data.is_dir() {
        true => arguments.data.join(DATABASE),
        false => arguments.data.clone(),
    };
    let failed = |why: String| {
        Failure::new(Exit::Usage, format!("`{}` cannot be read as a database of Towpath", database.display()))
            .why(why)
    };
    if !database.is_file() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no database at `{}`", database.display()),
        )
        .hint("name the data folder: `--data FOLDER`"));
    }
    let view = View::open_copy(&database).map_err(|error| failed(error.to_string()))?;
    let (held, trusted) = witnesses(arguments)?;
    let report = verify(&view, &held, &trusted).map_err(|error| failed(error.to_string()))?;
    let unwitnessed = held.is_empty() && trusted.is_empty();
    if terminal.is_json() {
        let findings: Vec<Value> = report
            .findings
            .iter()
            .map(|finding| json!({ "place": finding.place.to_string(), "what": finding.what }))
            .collect();
        terminal.record(&json!({
            "ok": report.is_clean(), "leaves": report.leaves, "root": report.root, "unsealed": report.unsealed,
            "checkpoints": report.checkpoints, "restores": report.restores.len(), "findings": findings,
        }))?;
    } else {
        for finding in &report.findings {
            terminal.data(format!("{}: {}", Style::Red.paint("finding"), inline(&finding.to_string())))?;
        }
        for (leaf, restored) in &report.restores {
            let lost =
                format!("leaf {leaf}: a restore lost {} leaves: {}", restored.leaves_lost, restored.why);
            terminal.data(format!("{}: {}", Style::Yellow.paint("restore"), inline(&lost)))?;
        }
        let verdict = match report.is_clean() {
            true => Style::Green.paint("sound"),
            false => Style::Red.paint("not sound"),
        };
        let leaves =
            count(usize::try_from(report.leaves).unwrap_or(usize::MAX), "leave").replace("1 leave", "1 leaf");
        terminal.data(format!(
            "{verdict}: {leaves}, root {}, {} good checkpoints, {} not yet sealed",
            report.root, report.checkpoints, report.unsealed
        ))?;
        if unwitnessed {
            terminal.talk(
                "note: without a checkpoint or key from elsewhere (`--checkpoint`, `--key`), a log that was \
                 rewritten as a whole looks sound",
            );
        }
    }
    match report.is_clean() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::shown(Exit::Failed)),
    }
}

/// Checkpoints and keys that were kept outside of the database.
fn witnesses(arguments: &VerifyArgs) -> Result<(Vec<Held>, Vec<VerifierKey>), Failure> {
    let beside = || {
        let mut name = arguments.data.clone().into_os_string();
        name.push("-keys");
        PathBuf::from(name)
    };
    let keys = arguments.keys.clone().unwrap_or_else(beside);
    let mut trusted: Vec<VerifierKey> = Vec::new();
    for key in &arguments.key {
        trusted.push(key.parse().map_err(|error: towpath_store::audit::NoteError| {
            Failure::new(Exit::Usage, "a key cannot be read").why(error.to_string())
        })?);
    }
    let key = keys.join(KEY);
    if key.is_file() {
        let key = AuditKey::load(&key).map_err(|error| {
            Failure::new(Exit::Usage, "the audit key cannot be read").why(error.to_string())
        })?;
        trusted.push(key.verifier().clone());
    }
    let own = keys.join(CHECKPOINTS);
    let files = arguments.checkpoint.iter().cloned().chain(own.is_file().then_some(own));
    let mut held = Vec::new();
    for path in files {
        held.extend(held_in(&path)?);
    }
    Ok((held, trusted))
}

fn held_in(path: &Path) -> Result<Vec<Held>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| file_failure("read", path, &error))?;
    let place = |at: usize| format!("{}, entry {}", path.display(), at + 1);
    Ok(split_notes(&text).into_iter().enumerate().map(|(at, text)| Held { place: place(at), text }).collect())
}

fn show(from: Option<u64>, count: u64, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let client = client()?;
    let ask = |from: u64, count: u64| {
        client.ask(&Request::get(&["audit", "leaves"]).with("from", Some(from)).with("count", Some(count)))
    };
    let from = match from {
        Some(from) => from,
        None => ask(0, 1)?["size"].as_u64().unwrap_or(0).saturating_sub(count),
    };
    let answer = ask(from, count)?;
    // A leaf is shown as the bytes that were hashed say it.
    let leaves = items(&answer["leaves"]).iter().filter_map(Value::as_str);
    let leaves: Vec<Value> = leaves.map(|leaf| serde_json::from_str(leaf).unwrap_or(Value::Null)).collect();
    match terminal.is_json() {
        true => leaves.iter().try_for_each(|leaf| terminal.record(leaf))?,
        false => rows(&leaves.iter().map(row).collect::<Vec<_>>(), "", terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn row(leaf: &Value) -> Vec<Cell> {
    let entry = leaf["entry"].as_object().and_then(|entry| entry.iter().next());
    let (kind, fields) = match entry {
        Some((kind, act)) if kind == "act" => (text(act, "act").to_owned(), act),
        Some((kind, other)) => (kind.clone(), other),
        None => (String::new(), &Value::Null),
    };
    let shown =
        fields.as_object().into_iter().flatten().filter(|(key, value)| *key != "act" && !value.is_null());
    let shown: Vec<String> = shown.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    vec![
        number(leaf, "leaf").into(),
        time(leaf, "at").into(),
        styled(Style::Bold, kind.replace('_', " ")),
        shown.join(" ").into(),
    ]
}

/// Gates, runs and people as they are written everywhere else.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.contains_key("branch") => {
            format!("{}/{}", text(value, "repo"), text(value, "branch"))
        }
        Value::Object(fields) if fields.contains_key("gate") => {
            format!("{}/{}", plain(&value["gate"]), number(value, "number"))
        }
        Value::Object(fields) if fields.contains_key("name") => text(value, "name").to_owned(),
        other => other.to_string(),
    }
}
