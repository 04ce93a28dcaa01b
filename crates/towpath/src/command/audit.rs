//! `towpath audit verify|show|key`: the record of everything that was done.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_server::witness::Witness;
use towpath_store::View;
use towpath_store::audit::{AuditKey, Excused, Finding, Held, Report, VerifierKey, split_notes, verify};

use crate::command::answer::{items, number, rows, text, time};
use crate::command::file_failure;
use crate::command::serve::PlaceArgs;
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::client;
use crate::terminal::style::{Style, count};
use crate::terminal::table::{Cell, styled};
use crate::terminal::{Terminal, inline};

mod kept;

/// The database in a data folder.
const DATABASE: &str = "towpath.db";
/// The signing key in the folder of the keys.
const KEY: &str = "audit.key";
/// The checkpoints in the folder of the keys.
const CHECKPOINTS: &str = "checkpoints";

/// Said where no key is at hand but the one that the record itself names.
const OWN_KEY: &str = "warning: verified with the key that the database itself names: whoever wrote the whole record anew, and \
    these notes, has signed it with a key of their own and is not told from its owner; name the key that you trust with \
    `--key KEY`, or the folder of the keys with `--keys FOLDER`";

/// Verify the audit log, or show its leaves
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    Verify(VerifyArgs),
    /// Print the public half of the key that signs the record, to be kept elsewhere and used with `verify --key`
    Key {
        #[command(flatten)]
        place: PlaceArgs,
    },
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
    /// A clone, or a repository of the server: whether the record explains its gated branches, and what the notes prove
    /// that each of its remotes fetches from `refs/notes/towpath`. Works without a data folder, too
    #[arg(long, value_name = "REPO")]
    repo: Option<PathBuf>,
    /// Of the clone's remotes this one alone: a record is of one server, and a clone may have remotes of several
    #[arg(long, value_name = "REMOTE", requires = "repo")]
    remote: Option<String>,
}

pub fn run(command: &AuditCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Verify(arguments) => verify_log(arguments, terminal),
        AuditCommand::Key { place } => show_key(place, terminal).map(|()| ExitCode::SUCCESS),
        AuditCommand::Show { from, count } => show(*from, *count, terminal),
    }
}

fn verify_log(arguments: &VerifyArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let view = record(arguments)?;
    let (mut held, mut trusted) = witnesses(arguments)?;
    if trusted.is_empty() && arguments.repo.is_none() {
        return Err(no_key(arguments));
    }
    let own_key = trusted.is_empty();
    let noted = view.as_ref().map(View::audit_verifiers).transpose();
    let noted = noted.map_err(|error| unreadable(arguments, error.to_string()))?.unwrap_or_default();
    let noted: Vec<VerifierKey> = noted.iter().filter_map(|key| key.parse().ok()).collect();
    if own_key {
        // Better than none: the notes are at least those of this very record.
        trusted.extend(noted.last().cloned());
    }
    // Notes that the record's earlier keys signed: it is a finding of the record's own if these are not vouched for.
    let repo = look(arguments, view.as_ref(), &[&trusted[..], &noted].concat())?;
    held.extend(repo.iter().flat_map(|repo| repo.held.clone()));
    let report = view.map(|view| verify(&view, &held, &trusted)).transpose();
    let report = report.map_err(|error| unreadable(arguments, error.to_string()))?;
    let clean = report.as_ref().is_none_or(Report::is_clean)
        && repo.as_ref().is_none_or(|repo| repo.findings.is_empty());
    match terminal.is_json() {
        true => {
            let mut data = as_data(report.as_ref(), repo.as_ref());
            data["own_key"] = json!(own_key);
            terminal.record(&data)?;
        }
        false => {
            repo.iter().try_for_each(|repo| tell_of_repo(repo, terminal))?;
            report.iter().try_for_each(|report| tell_of_log(report, terminal))?;
        }
    }
    if own_key {
        terminal.talk(OWN_KEY);
    }
    match clean {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::shown(Exit::Failed)),
    }
}

/// The record, if it is here. A clone may be looked at without.
fn record(arguments: &VerifyArgs) -> Result<Option<View>, Failure> {
    let database = database(arguments);
    if database.is_file() {
        let view = View::open_copy(&database);
        return view.map(Some).map_err(|error| unreadable(arguments, error.to_string()));
    }
    match &arguments.repo {
        Some(_) => Ok(None),
        None => {
            Err(Failure::new(Exit::NotFound, format!("there is no database at `{}`", database.display()))
                .hint("name the data folder: `--data FOLDER`"))
        }
    }
}

fn database(arguments: &VerifyArgs) -> PathBuf {
    match arguments.data.is_dir() {
        true => arguments.data.join(DATABASE),
        false => arguments.data.clone(),
    }
}

fn unreadable(arguments: &VerifyArgs, why: String) -> Failure {
    let database = database(arguments);
    Failure::new(Exit::Usage, format!("`{}` cannot be read as a database of Towpath", database.display()))
        .why(why)
}

/// A log bears signatures, and whoever rewrites it as a whole signs it anew: without a key nothing of it is told from that.
fn no_key(arguments: &VerifyArgs) -> Failure {
    let (data, keys) = (arguments.data.display(), keys_folder(arguments));
    Failure::new(Exit::NotFound, format!("there is no key in `{}` to verify `{data}` with", keys.display()))
        .why("its checkpoints count only if a key that you trust has signed them")
        .hint(
            "name the folder of the keys, `--keys FOLDER`, or the key itself, `--key KEY`; `towpath audit key` prints \
             it where the keys are",
        )
}

fn look(
    arguments: &VerifyArgs,
    view: Option<&View>,
    trusted: &[VerifierKey],
) -> Result<Option<Witness>, Failure> {
    let Some(repo) = &arguments.repo else { return Ok(None) };
    if trusted.is_empty() {
        return Err(Failure::new(Exit::Usage, "the notes of a repository take a key to be verified with")
            .hint("name the key of the record: `--key KEY`; `towpath audit key` prints it"));
    }
    kept::look_at((repo, arguments.remote.as_deref()), view, trusted).map(Some)
}

fn as_data(report: Option<&Report>, repo: Option<&Witness>) -> Value {
    let finding = |finding: &Finding| json!({ "place": finding.place.to_string(), "what": finding.what });
    let of_log: Vec<Value> = report.iter().flat_map(|report| &report.findings).map(finding).collect();
    let of_repo = repo.iter().flat_map(|repo| &repo.findings);
    let of_repo: Vec<Value> = of_repo.map(|what| json!({ "place": "repository", "what": what })).collect();
    let findings = [of_log, of_repo].concat();
    let mut data = json!({ "ok": findings.is_empty(), "findings": findings });
    if let Some(report) = report {
        data["leaves"] = json!(report.leaves);
        data["root"] = json!(report.root);
        data["unsealed"] = json!(report.unsealed);
        data["checkpoints"] = json!(report.checkpoints);
        data["restores"] = json!(report.restores.len());
        data["successions"] = json!(report.successions.len());
        data["excused"] = report.excused.iter().map(excused).collect();
    }
    if let Some(repo) = repo {
        data["branches"] = json!(repo.branches);
        data["notes"] = json!(repo.notes);
        data["lost"] = json!(repo.lost);
    }
    data
}

fn excused(one: &Excused) -> Value {
    json!({
        "life": one.life,
        "checkpoints": one.checkpoints,
        "least_leaves": one.least_leaves,
        "most_leaves": one.most_leaves,
    })
}

fn tell_of_repo(repo: &Witness, terminal: &Terminal) -> Result<(), Failure> {
    for finding in &repo.findings {
        terminal.data(format!("{}: {}", Style::Red.paint("finding"), inline(finding)))?;
    }
    for branch in &repo.branches {
        let foreign = match branch.foreign {
            0 => String::new(),
            foreign => format!(", {} by somebody else", count(foreign, "step")),
        };
        let behind = if branch.behind { ", behind the record" } else { "" };
        let line = format!(
            "{} at {}: {}, {} with a note{foreign}{behind}",
            branch.gate,
            branch.name,
            count(branch.landings, "explained landing"),
            branch.noted
        );
        terminal.data(inline(&line))?;
    }
    for lost in &repo.lost {
        terminal.data(format!("{}: {}", Style::Yellow.paint("lost"), inline(lost)))?;
    }
    if repo.branches.is_empty() && repo.findings.is_empty() && repo.lost.is_empty() {
        terminal.talk("note: neither record nor notes tell of a landing on a branch of this repository");
    }
    Ok(())
}

/// `1 leaf`, `2 leaves`.
pub fn leaves(number: u64) -> String {
    match number {
        1 => "1 leaf".into(),
        _ => format!("{number} leaves"),
    }
}

fn tell_of_log(report: &Report, terminal: &Terminal) -> Result<(), Failure> {
    for finding in &report.findings {
        terminal.data(format!("{}: {}", Style::Red.paint("finding"), inline(&finding.to_string())))?;
    }
    for (leaf, restored) in &report.restores {
        let unsealed = match restored.leaves_unsealed {
            0 => String::new(),
            unsealed => format!("; no checkpoint covered the last {} before it", leaves(unsealed)),
        };
        let lost = leaves(restored.leaves_lost);
        let lost = format!("leaf {leaf}: a restore lost {lost}: {}{unsealed}", restored.why);
        terminal.data(format!("{}: {}", Style::Yellow.paint("restore"), inline(&lost)))?;
    }
    for (leaf, succession) in &report.successions {
        let lost = format!("leaf {leaf}: {succession}");
        terminal.data(format!("{}: {}", Style::Yellow.paint("new key"), inline(&lost)))?;
    }
    for one in &report.excused {
        terminal.data(format!("{}: {one}", Style::Yellow.paint("excused checkpoints")))?;
    }
    let (root, unsealed) = (&report.root, report.unsealed);
    let verdict = match (report.is_clean(), (report.leaves - unsealed).checked_sub(1)) {
        (true, Some(last)) if unsealed > 0 => Style::Yellow.paint(format!("sound up to leaf {last}")),
        (true, _) => Style::Green.paint("sound"),
        (false, _) => Style::Red.paint("not sound"),
    };
    let (all, checkpoints) = (leaves(report.leaves), count(report.checkpoints as usize, "good checkpoint"));
    let tail = match unsealed {
        0 => String::new(),
        _ => format!("; nothing tells who wrote the last {}, which no checkpoint covers", leaves(unsealed)),
    };
    terminal.data(format!("{verdict}: {all}, root {root}, {checkpoints}{tail}"))?;
    Ok(())
}

/// The key whose signatures the record bears now, for whoever wants to verify it elsewhere.
fn show_key(place: &PlaceArgs, terminal: &Terminal) -> Result<(), Failure> {
    let path = place.keys().join(KEY);
    let key = AuditKey::load(&path)
        .map_err(|error| Failure::new(Exit::NotFound, "there is no audit key").why(error.to_string()))?;
    let key = key.verifier().to_string();
    match terminal.is_json() {
        true => terminal.record(&json!({ "key": key }))?,
        false => terminal.data(key)?,
    }
    Ok(())
}

fn keys_folder(arguments: &VerifyArgs) -> PathBuf {
    arguments.keys.clone().unwrap_or_else(|| {
        let mut name = arguments.data.clone().into_os_string();
        name.push("-keys");
        PathBuf::from(name)
    })
}

/// Checkpoints and keys that were kept outside of the database.
fn witnesses(arguments: &VerifyArgs) -> Result<(Vec<Held>, Vec<VerifierKey>), Failure> {
    let keys = keys_folder(arguments);
    let mut trusted: Vec<VerifierKey> = Vec::new();
    for key in &arguments.key {
        trusted.push(key.parse().map_err(|error: towpath_store::audit::NoteError| {
            Failure::new(Exit::Usage, "a key cannot be read")
                .why(error.to_string())
                .hint("`towpath audit key` prints it where the keys are, as `name+id+key`")
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
    if items(&answer["leaves"]).is_empty() {
        let size = answer["size"].as_u64().unwrap_or(0);
        terminal.talk(format!("no leaves from {from} on: the log has {}", leaves(size)));
    }
    // A leaf is shown as the bytes that were hashed say it.
    let shown = items(&answer["leaves"]).iter().filter_map(Value::as_str);
    let shown: Vec<Value> = shown.map(|leaf| serde_json::from_str(leaf).unwrap_or(Value::Null)).collect();
    if terminal.is_json() {
        shown.iter().try_for_each(|leaf| terminal.record(leaf))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names_users = shown.iter().any(|leaf| !items(approvals(leaf)).is_empty());
    // Whoever may read the log but not ask for the users sees their numbers.
    let users = names_users.then(|| client.ask(&Request::get(&["users"])).ok()).flatten().unwrap_or_default();
    rows(&shown.iter().map(|leaf| row(leaf, &users)).collect::<Vec<_>>(), "", terminal)?;
    Ok(ExitCode::SUCCESS)
}

/// Who approved what landed, by their numbers.
fn approvals(leaf: &Value) -> &Value {
    &leaf["entry"]["act"]["approvals"]
}

/// `ann`, or `user 3` where nobody of this number is known.
fn user_name(user: &Value, users: &Value) -> String {
    let is_meant = |known: &&Value| known["number"] == *user;
    let known = items(users).iter().find(is_meant);
    known.map_or_else(|| format!("user {user}"), |known| text(known, "user").to_owned())
}

fn row(leaf: &Value, users: &Value) -> Vec<Cell> {
    let entry = leaf["entry"].as_object().and_then(|entry| entry.iter().next());
    let (kind, fields) = match entry {
        Some((kind, act)) if kind == "act" => (text(act, "act").to_owned(), act),
        Some((kind, other)) => (kind.clone(), other),
        None => (String::new(), &Value::Null),
    };
    let shown =
        fields.as_object().into_iter().flatten().filter(|(key, value)| *key != "act" && !value.is_null());
    let approved_by = || {
        let names: Vec<String> = items(approvals(leaf)).iter().map(|user| user_name(user, users)).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(",") }
    };
    let shown: Vec<String> = shown
        .map(|(key, value)| match key.as_str() {
            "approvals" => format!("approved_by={}", approved_by()),
            _ => format!("{key}={}", plain(value)),
        })
        .collect();
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
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_approved_what_landed_is_named() {
        let users = json!([{ "user": "ann", "number": 1 }, { "user": "mia", "number": 3 }]);
        let shown = |approvals: Value| {
            let act = json!({ "act": "landed", "approvals": approvals, "change": 7 });
            let cells = row(&json!({ "leaf": 1, "at": 0, "entry": { "act": act } }), &users);
            format!("{:?}", cells.last().unwrap())
        };
        assert!(shown(json!([3])).contains("approved_by=mia change=7"), "{}", shown(json!([3])));
        assert!(shown(json!([3, 9])).contains("approved_by=mia,user 9 "));
        assert!(shown(json!([])).contains("approved_by=nobody "));
    }

    #[test]
    fn only_one_leaf_is_a_leaf() {
        assert_eq!([0, 1, 2, 11].map(leaves), ["0 leaves", "1 leaf", "2 leaves", "11 leaves"]);
        assert_eq!([21, 109, 121].map(leaves), ["21 leaves", "109 leaves", "121 leaves"]);
    }
}
