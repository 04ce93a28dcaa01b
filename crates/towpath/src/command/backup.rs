//! `towpath backup make|restore|show|accept`: the data of a server as a folder, and the way back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use towpath_server::auth::revoked::FILE as REVOKED;
use towpath_server::backup::{self, SaveError, Unsaved};
use towpath_store::{BackupError, OpenError};

use crate::command::answer::{number, text};
use crate::command::audit::leaves;
use crate::command::serve::PlaceArgs;
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::client;
use crate::terminal::Terminal;
use crate::terminal::style::count;

/// What comes back with a restore although somebody had taken it away since.
const RIGHTS_OF_THEN: &str = "people, their roles and passwords, what tokens were made and which secrets there are is as it was \
                              when the backup was made; tokens that were revoked since stay so, and logins have ended: look at \
                              `towpath user list`, `towpath repo people REPO`, `towpath token list --user NAME`, and \
                              `towpath secret list`";

/// Save a server's data, restore it, and accept what a restore lost
#[derive(Debug, clap::Subcommand)]
pub enum BackupCommand {
    /// Save the data folder to a new folder, while the server runs or not. Keys are not in it
    Make {
        /// The new folder
        to: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Make a new data folder of a backup. The server started on it lands nothing until an admin accepts
    Restore {
        /// The folder of the backup
        from: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show what the restore lost that waits to be accepted
    Show,
    /// Accept what a restore lost, as an admin of the server: landing goes on
    Accept {
        /// So many leaves of the record are lost, as `towpath backup show` says
        #[arg(long, value_name = "LEAVES")]
        lost: u64,
    },
}

pub fn run(command: &BackupCommand, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        BackupCommand::Make { to, place } => make(to, place, terminal)?,
        BackupCommand::Restore { from, place } => restore(from, place, terminal)?,
        BackupCommand::Show => show(terminal)?,
        BackupCommand::Accept { lost } => accept(*lost, terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn make(to: &Path, place: &PlaceArgs, terminal: &Terminal) -> Result<(), Failure> {
    // Git runs elsewhere: a path that is relative means where the person stands.
    let nowhere = |error: std::io::Error| {
        Failure::new(Exit::Usage, "no backup was made")
            .why(error.to_string())
            .hint("name a folder that is to be made")
    };
    let to = &std::path::absolute(to).map_err(nowhere)?;
    let saved = backup::make(&place.data, to).map_err(|error| failure("no backup was made", error))?;
    if terminal.is_json() {
        terminal.record(&json!({ "backup": to, "saved": saved }))?;
    } else {
        terminal.data(format!(
            "saved {} to {}: {} and a record of {}",
            place.data.display(),
            to.display(),
            repos(saved.repos.len()),
            leaves(saved.leaves)
        ))?;
        if saved.leaves_unsealed > 0 {
            terminal.talk(format!(
                "the last {} of it had no checkpoint yet: a restore will tell of them as of nobody's",
                leaves(saved.leaves_unsealed)
            ));
        }
        terminal
            .talk(format!("the keys are not in it; keep {} safe as well, elsewhere", place.keys().display()));
    }
    match &saved.unsaved[..] {
        [] => Ok(()),
        unsaved => Err(incomplete(unsaved, &place.data)),
    }
}

/// A backup that some repositories are not in.
fn incomplete(unsaved: &[Unsaved], data: &Path) -> Failure {
    let why: Vec<String> = unsaved.iter().map(|one| format!("{}: {}", one.repo, one.why)).collect();
    let first = data.join(format!("repos/{}.git", unsaved[0].repo));
    let hint = format!(
        "`git -C {} fsck --name-objects` names what is lost or damaged, and the change whose record or commits have it; put \
         it back from a copy of the repository, then make another backup",
        first.display()
    );
    Failure::new(Exit::Failed, format!("{} could not be saved, everything else was", repos(unsaved.len())))
        .why(why.join("\n"))
        .hint(hint)
}

fn restore(from: &Path, place: &PlaceArgs, terminal: &Terminal) -> Result<(), Failure> {
    let keys = place.keys();
    let restored = backup::restore(from, &place.data, &keys);
    let (saved, missing) = restored.map_err(|error| failure("nothing was restored", error))?;
    let revocations_missing = !keys.join(REVOKED).is_file();
    if terminal.is_json() {
        let restored = json!({
            "data": place.data, "saved": saved, "missing": missing, "revocations_missing": revocations_missing,
        });
        return Ok(terminal.record(&restored)?);
    }
    terminal.data(format!(
        "restored {}: {} and a record of {}",
        place.data.display(),
        repos(saved.repos.len()),
        leaves(saved.leaves)
    ))?;
    for one in &saved.unsaved {
        let place = place.data.join(format!("repos/{}.git", one.repo));
        let until = "nobody uses this repo until a copy of it is there and the server was started";
        terminal.data(format!(
            "missing: {}, of which the backup has no whole copy ({}); {until}",
            place.display(),
            one.why
        ))?;
    }
    let keys = keys.display();
    if missing.audit_key {
        terminal.data(format!("missing: {keys}/audit.key, the key that signs the record"))?;
    }
    if missing.sealed_secrets > 0 {
        let secrets = count(missing.sealed_secrets, "secret");
        terminal.data(format!("missing: {keys}/secrets.key, without which {secrets} cannot be opened"))?;
    }
    if revocations_missing {
        terminal
            .data(format!("missing: {keys}/{REVOKED}, without which tokens that were revoked work again"))?;
    }
    if missing.audit_key || missing.sealed_secrets > 0 || revocations_missing {
        terminal.talk(format!(
            "first: put the missing keys into {keys}; if they are lost for good, `towpath serve --new-keys` makes others"
        ));
    }
    terminal.talk(RIGHTS_OF_THEN);
    terminal.talk(format!("next: towpath serve --data {}; then towpath backup show", place.data.display()));
    Ok(())
}

fn repos(number: usize) -> String {
    count(number, "repo")
}

fn show(terminal: &Terminal) -> Result<(), Failure> {
    let answer = client()?.ask(&Request::get(&["restore"]))?;
    if terminal.is_json() {
        return Ok(terminal.record(&answer)?);
    }
    match &answer["restored"] {
        Value::Null => Ok(terminal.data("nothing waits to be accepted")?),
        restored => {
            let lost = number(restored, "leaves_lost");
            let before = number(restored, "leaves_before");
            let why = text(restored, "why");
            terminal.data(format!("a restore lost {lost} of {before} leaves of the record: {why}"))?;
            unsealed(restored).map_or(Ok(()), |unsealed| terminal.data(unsealed))?;
            terminal.talk(RIGHTS_OF_THEN);
            terminal.talk(format!(
                "nothing lands; look what was lost, then: towpath backup accept --lost {lost}"
            ));
            Ok(())
        }
    }
}

/// What nobody has signed of what a restore brought back, and where to look at it.
fn unsealed(restored: &Value) -> Option<String> {
    let number = |name: &str| restored[name].as_u64().unwrap_or(0);
    let unsealed = Some(number("leaves_unsealed")).filter(|unsealed| *unsealed > 0)?;
    let kept = number("leaves_before").saturating_sub(number("leaves_lost"));
    Some(format!(
        "no checkpoint covered the last {} of what is left: nothing tells who wrote them; `towpath audit show --from {}` \
         shows them",
        leaves(unsealed),
        kept.saturating_sub(unsealed)
    ))
}

fn accept(lost: u64, terminal: &Terminal) -> Result<(), Failure> {
    let request = Request::post(&["restore", "accept"], json!({ "leaves_lost": lost }));
    let answer = client()?.ask(&request)?;
    match terminal.is_json() {
        true => Ok(terminal.record(&answer)?),
        false => Ok(terminal.data(text(&answer, "said"))?),
    }
}

fn failure(what: &str, error: SaveError) -> Failure {
    let exit = match &error {
        SaveError::Database(
            BackupError::Exists(_)
            | BackupError::Open(OpenError::InUse { .. } | OpenError::NewerSchema { .. }),
        ) => Exit::Conflict,
        SaveError::Database(BackupError::NoDatabase(_)) | SaveError::NoBackup { .. } => Exit::NotFound,
        _ => Exit::Usage,
    };
    Failure::new(exit, what).hint(next(&error)).why(error.to_string())
}

/// What to do next.
fn next(error: &SaveError) -> &'static str {
    match error {
        SaveError::Database(BackupError::Exists(_)) => "name a folder that is to be made",
        SaveError::Database(BackupError::NoDatabase(_)) => "`--data FOLDER` names the server's data folder",
        SaveError::NoBackup { .. } => "name the folder that `towpath backup make` has made",
        SaveError::File { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
            "name a folder that is to be made, in one that there is"
        }
        SaveError::Database(BackupError::Open(_)) => "do what it says, then try again",
        SaveError::Database(BackupError::Read(_)) => {
            "what was saved is damaged: look for another backup, or for the disk's own words in the system's log"
        }
        SaveError::Database(BackupError::File { .. } | BackupError::Write(_)) | SaveError::File { .. } => {
            "look whether the disk has room and whether the folder is yours, then try again"
        }
        SaveError::Repo { .. } | SaveError::Git(_) => {
            "`towpath doctor` says what is wrong with git, and how to mend it"
        }
    }
}
