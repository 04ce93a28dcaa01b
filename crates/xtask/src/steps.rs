//! The steps of the test command, and how one is run.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::libtest::{Reader, Tally};
use crate::tidy;

/// One step.
pub struct Step {
    /// Its name in the list at the end.
    pub name: &'static str,
    work: Work,
}

enum Work {
    /// The tidy rules, in this process; each counts as a test.
    Rules,
    /// A command that counts as one test: it succeeds or it does not.
    Check(&'static [&'static str]),
    /// The same, where the program is installed; elsewhere the step is left out and says so.
    CheckIfThere { program: &'static str, words: &'static [&'static str] },
    /// A command that prints libtest's results.
    Tests(&'static [&'static str]),
}

/// Every step, cheap ones first.
pub const STEPS: &[Step] = &[
    Step { name: "tidy", work: Work::Rules },
    Step { name: "fmt", work: Work::Check(&["cargo", "fmt", "--all", "--check"]) },
    Step {
        name: "clippy",
        work: Work::Check(&[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny",
            "warnings",
        ]),
    },
    Step {
        name: "tests",
        work: Work::Tests(&[
            "cargo",
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]),
    },
    Step {
        name: "simulator",
        work: Work::Check(&[
            "cargo",
            "run",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "towpath-sim",
            "--example",
            "sim",
            "--",
            "--from",
            "1",
            "--seeds",
            "1000",
            "--every",
            "5",
            "--hunt",
            "100",
        ]),
    },
    Step {
        name: "kills",
        work: Work::Check(&[
            "cargo",
            "run",
            "--quiet",
            "--locked",
            "--package",
            "xtask",
            "--",
            "kill",
            "--count",
            "30",
        ]),
    },
    Step {
        name: "docs",
        work: Work::Check(&[
            "cargo",
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ]),
    },
    Step {
        name: "advisories",
        work: Work::CheckIfThere { program: "cargo-deny", words: &["cargo", "deny", "check"] },
    },
];

/// A dead link in documentation is an error. The documents are built with private items, so links to these are alive.
const RUSTDOC_FLAGS: &str = "--deny warnings --allow rustdoc::private-intra-doc-links";

/// Seconds that one step may take. All of CI has 30 minutes; a step that needs nearly all of them hangs.
const STEP_SECONDS_MAX: u64 = 25 * 60;

/// What a step came to.
pub struct Done {
    /// Which step.
    pub name: &'static str,
    /// Its tests.
    pub tally: Tally,
    /// From start to end.
    pub took: Duration,
}

/// Runs one step and shows what it says; `None` where the step is left out.
///
/// # Errors
/// The step could not be started.
pub fn run(step: &Step, root: &Path) -> Result<Option<Done>, Failure> {
    eprintln!("\n== {}", step.name);
    let show = |line: &str| eprintln!("{line}");
    let began = Instant::now();
    let tally = match &step.work {
        Work::Rules => tidy::check_tree(root)?,
        Work::Check(words) => as_one(run_command(words, root, show)?.0),
        Work::CheckIfThere { program, words } => match Command::new(program).arg("--version").output() {
            Ok(_) => as_one(run_command(words, root, show)?.0),
            Err(_) => {
                eprintln!("left out: `{program}` is not installed");
                return Ok(None);
            }
        },
        Work::Tests(words) => {
            let (succeeded, tally) = run_command(words, root, show)?;
            // A test binary that does not compile, or dies, has no results of its own.
            if succeeded || tally.failed > 0 { tally } else { tally.plus(as_one(false)) }
        }
    };
    Ok(Some(Done { name: step.name, tally, took: began.elapsed() }))
}

fn as_one(succeeded: bool) -> Tally {
    Tally { passed: usize::from(succeeded), failed: usize::from(!succeeded), skipped: 0 }
}

/// Runs a command to its end, shows its lines as they come, and reads the results among them.
fn run_command(words: &[&str], root: &Path, show: impl Fn(&str)) -> Result<(bool, Tally), Failure> {
    let cannot = |why: std::io::Error| {
        Failure::new(format!("`{}` does not run", words.join(" ")), why, "is Rust installed by rustup?")
    };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(root).env("RUSTDOCFLAGS", RUSTDOC_FLAGS);
    for name in variables_of_cargo_run() {
        command.env_remove(name);
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
    let reader = show_lines(&mut child, show);
    let status = child.wait().map_err(cannot)?;
    Ok((status.success(), reader.tally()))
}

/// Shows what the child says until both its streams end, or ends the child at the step's limit.
fn show_lines(child: &mut Child, show: impl Fn(&str)) -> Reader {
    let (sender, lines) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || send_lines(stream, &sender));
    }
    drop(sender);
    let deadline = Instant::now() + Duration::from_secs(STEP_SECONDS_MAX);
    let mut reader = Reader::default();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if reader.line(&line) => show(&line),
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return reader,
            Err(RecvTimeoutError::Timeout) => {
                show(&format!(
                    "this step ran into its limit of {} minutes and is ended",
                    STEP_SECONDS_MAX / 60
                ));
                end_tree(child.id());
                return reader;
            }
        }
    }
}

fn send_lines(stream: impl Read, sender: &Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while matches!(stream.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
        if sender.send(line).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Ends a process and all that it started, the children first found by way of /proc.
fn end_tree(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().ok();
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(end_tree);
}

/// What `cargo run` told this program about this program. Handed on, it makes build scripts that watch these
/// variables (ring's does) build again at each change between `cargo` and `cargo xtask`.
pub fn variables_of_cargo_run() -> Vec<String> {
    let is_ours = |name: &String| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
    };
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(is_ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(script: &'static str) -> (bool, Tally) {
        run_command(&["sh", "-c", script], Path::new("."), |_| {}).unwrap()
    }

    #[test]
    fn results_are_read_from_both_streams() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; echo 'SKIP a: b' >&2";
        assert_eq!(outcome(script), (true, Tally { passed: 1, failed: 0, skipped: 1 }));
    }

    #[test]
    fn a_command_that_fails_is_no_pass() {
        assert!(!outcome("exit 101").0);
        assert!(run_command(&["no-such-program-anywhere"], Path::new("."), |_| {}).is_err());
    }

    #[test]
    fn a_tree_of_processes_is_ended_whole() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & echo ready; wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        end_tree(child.id());
        assert!(!child.wait().unwrap().success());
        // The grandchild holds the other end of this pipe for as long as it lives.
        assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
