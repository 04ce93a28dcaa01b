//! `towpath doctor`: whether this machine can do what Towpath asks of it, and how to mend what it cannot.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use towpath_executor::doctor::{ProbeOutcome, run_border_probes};
use towpath_executor::{ExecutorError, JobPool, LimitMode, SandboxCapabilities};
use towpath_server::keys::Missing;
use towpath_store::{OpenError, View};

use crate::command;
use crate::command::serve::{KEYS_HINT, PlaceArgs};
use crate::failure::{Exit, Failure};
use crate::local::folder::RunFolder;
use crate::terminal::style::Style;
use crate::terminal::table::{self, Cell, styled};
use crate::terminal::{Terminal, inline};

/// Check whether this machine can run jobs, and say how to mend what is missing
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Only look whether jobs can run; do not try to break out of the sandbox
    #[arg(long)]
    quick: bool,
    /// Look at this data folder as well; nothing of it is changed [default: `towpath-data`, if it is there]
    #[arg(long, env = "TOWPATH_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Look there for the keys of these data [default: the data folder's name and `-keys`]
    #[arg(long, env = "TOWPATH_KEYS", value_name = "FOLDER")]
    keys: Option<PathBuf>,
}

/// Where a server keeps its things unless a person says otherwise.
const DATA_DEFAULT: &str = "towpath-data";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// It works, with less than it could.
    Weak,
    Broken,
}

/// One look at the machine.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

pub fn run(arguments: &DoctorArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let sqlite = finding("sqlite", Verdict::Ok, format!("{}, compiled in", towpath_store::sqlite_version()));
    let mut findings: Vec<Finding> = [git(), sqlite].into_iter().chain(executor()?).collect();
    let works = findings.iter().all(|finding| finding.verdict != Verdict::Broken);
    if works && !arguments.quick {
        findings.extend(border()?);
    }
    findings.extend(restore(arguments.data.as_deref()));
    findings.extend(keys(arguments));
    for finding in &findings {
        if terminal.is_json() {
            terminal.record(finding)?;
        }
    }
    if !terminal.is_json() {
        show(&findings, terminal)?;
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Broken) {
        true => Err(Failure::shown(Exit::Usage)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn show(findings: &[Finding], terminal: &Terminal) -> Result<(), Failure> {
    let row = |finding: &Finding| -> Vec<Cell> {
        let verdict = match finding.verdict {
            Verdict::Ok => styled(Style::Green, "ok"),
            Verdict::Weak => styled(Style::Yellow, "weak"),
            Verdict::Broken => styled(Style::Red, "broken"),
        };
        vec![verdict, finding.check.into(), finding.what.replace('\n', " ").into()]
    };
    let lines = table::lines(&findings.iter().map(row).collect::<Vec<_>>());
    for (line, finding) in lines.iter().zip(findings) {
        terminal.data(line)?;
        if let Some(hint) = &finding.hint {
            terminal.data(format!("  hint: {}", inline(hint)))?;
        }
    }
    Ok(())
}

fn finding(check: &'static str, verdict: Verdict, what: impl Into<String>) -> Finding {
    Finding { check, verdict, what: what.into(), hint: None }
}

/// Whether a data folder waits for somebody to accept a restore: nothing lands before.
fn restore(named: Option<&Path>) -> Option<Finding> {
    let folder = named.unwrap_or(Path::new(DATA_DEFAULT));
    let database = folder.join(towpath_store::DATABASE);
    if !database.is_file() {
        // Who names one that is not made yet looks at the machine first.
        let none = |folder: &Path| format!("{} is no data folder of a server yet", folder.display());
        return named.map(|folder| finding("restore", Verdict::Ok, none(folder)));
    }
    let read = || -> Result<_, OpenError> {
        let view = View::open_copy(&database)?;
        view.check_schema()?;
        Ok(view.restored()?)
    };
    Some(match read() {
        Ok(None) => finding("restore", Verdict::Ok, format!("none waits in {}", folder.display())),
        Ok(Some(restored)) => Finding {
            hint: Some(format!(
                "look at what is lost, then an admin runs `towpath backup accept --lost {}`",
                restored.leaves_lost
            )),
            ..finding(
                "restore",
                Verdict::Broken,
                format!("nothing lands in {}: {restored}", folder.display()),
            )
        },
        Err(why) => {
            finding("restore", Verdict::Broken, format!("{} cannot be read: {why}", folder.display()))
        }
    })
}

/// Whether the keys of a data folder are where they should be: no server serves it without.
fn keys(arguments: &DoctorArgs) -> Option<Finding> {
    let data = arguments.data.clone().unwrap_or_else(|| DATA_DEFAULT.into());
    let place = PlaceArgs { data, keys: arguments.keys.clone() };
    if !place.data.join(towpath_store::DATABASE).is_file() {
        return None;
    }
    let keys = place.keys();
    let (data, folder) = (place.data.display(), keys.display());
    let (verdict, what) = match Missing::known(&place.data, &keys) {
        Ok(missing) if missing.is_none() => (Verdict::Ok, format!("those of {data} are in {folder}")),
        Ok(missing) => {
            let lacks = finding("keys", Verdict::Broken, format!("{folder} lacks {missing}"));
            return Some(Finding { hint: Some(KEYS_HINT.into()), ..lacks });
        }
        Err(why) => {
            (Verdict::Broken, format!("nobody can tell whether those of {data} are in {folder}: {why}"))
        }
    };
    Some(finding("keys", verdict, what))
}

fn git() -> Finding {
    match towpath_git::Git::find(towpath_git::GitOptions::default()) {
        Ok(git) => finding("git", Verdict::Ok, format!("{} at {}", git.version(), git.program().display())),
        Err(error) => Finding {
            hint: Some(format!("install git {} or newer", towpath_git::VERSION_NEEDED)),
            ..finding("git", Verdict::Broken, error.to_string())
        },
    }
}

/// Whether jobs can run behind the border here.
///
/// # Errors
/// Why not, and how to mend it.
pub fn sandbox() -> Result<(), Failure> {
    let folder = RunFolder::make()?;
    let config = command::run::executor_config(folder.path(), Default::default());
    Ok(JobPool::start(config, |_| {}).map(drop)?)
}

/// Starts an executor, which probes the sandbox by using it.
fn executor() -> Result<Vec<Finding>, Failure> {
    let folder = RunFolder::make()?;
    let config = command::run::executor_config(folder.path(), Default::default());
    Ok(match JobPool::start(config, |_| {}) {
        Ok(pool) => capabilities(pool.capabilities()),
        Err(ExecutorError::Sandbox(refusal)) => vec![Finding {
            hint: Some(refusal.mend),
            ..finding("sandbox", Verdict::Broken, format!("{}: {}", refusal.what, refusal.why))
        }],
        Err(error) => vec![finding("sandbox", Verdict::Broken, error.to_string())],
    })
}

/// Tries to break out of the sandbox, and as a control does the same without one.
fn border() -> Result<Vec<Finding>, Failure> {
    let folder = RunFolder::make()?;
    let config = command::run::executor_config(folder.path(), Default::default());
    let reports = run_border_probes(&config)?;
    let held = reports.iter().filter(|report| report.holds()).count();
    let summary = format!("{held} of {} attacks are refused, and only by the sandbox", reports.len());
    let others = reports.iter().filter(|report| !report.holds()).map(|report| match report.sandboxed {
        ProbeOutcome::Open => Finding {
            hint: Some("let nobody's changes run here before this is mended".into()),
            ..finding("border", Verdict::Broken, format!("a job {} ({})", report.title, report.id))
        },
        ProbeOutcome::Refused => finding(
            "border",
            Verdict::Ok,
            format!(
                "a job that {} is refused, as it is here without a sandbox ({})",
                report.title, report.id
            ),
        ),
        ProbeOutcome::NotTried => Finding {
            hint: Some("install python3, with which the attacks are written".into()),
            ..finding(
                "border",
                Verdict::Weak,
                format!("not tried: a job that {} ({})", report.title, report.id),
            )
        },
    });
    Ok(std::iter::once(finding("border", Verdict::Ok, summary)).chain(others).collect())
}

fn capabilities(found: &SandboxCapabilities) -> Vec<Finding> {
    let trees = match found.trees {
        towpath_executor::TreeMode::Overlay => finding("work trees", Verdict::Ok, "overlays on one copy"),
        towpath_executor::TreeMode::Copy => Finding {
            hint: Some(
                "the kernel or file system allows no overlay here; jobs with large trees start later".into(),
            ),
            ..finding("work trees", Verdict::Weak, "a copy for each job")
        },
    };
    let limits = match &found.limits {
        LimitMode::CgroupV2 | LimitMode::CgroupV1 => finding("limits", Verdict::Ok, found.limits.to_string()),
        LimitMode::Rlimits => Finding {
            hint: Some("run it where a cgroup is delegated to it: a systemd unit with `Delegate=yes`".into()),
            ..finding(
                "limits",
                Verdict::Weak,
                "polled: a job may overshoot for a moment, and hide memory that it shares from the count",
            )
        },
    };
    let network = match &found.network {
        Ok(()) => finding("job network", Verdict::Ok, "slirp4netns"),
        Err(why) => {
            finding("job network", Verdict::Weak, format!("jobs with `network: true` cannot run: {why}"))
        }
    };
    let folders = &found.toolchains.folders;
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let beside =
        if folders.is_empty() { "nothing beside the system's".to_owned() } else { folders.join(", ") };
    let tools = finding("job tools", Verdict::Ok, format!("PATH={}; {beside}", found.toolchains.path));
    vec![finding("sandbox", Verdict::Ok, "bubblewrap"), trees, limits, network, tools]
}
