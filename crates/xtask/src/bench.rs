//! `cargo xtask bench`: the figures that the project promises, each beside its peer in the same run.
//!
//! The measuring is done by crates/bench, which sees the whole workspace; this command has it made, in release mode,
//! and judges what it says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;
use crate::steps::variables_of_cargo_run;

/// One line of help.
pub const HELP: &str = "[--json] [--quick] [ROW...]: the promised figures beside their peers, all or those whose \
                        names begin so; 1 if one does not hold. compile-dev and compile-release, which take a \
                        quarter of an hour, only if named: `cargo xtask bench compile`";

/// Runs the command; `false` if a row does not hold or could not be measured.
///
/// # Errors
/// The command line means nothing, or the measuring program cannot be made or started.
pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let asked = Asked::read(arguments)?;
    let cannot = |why: std::io::Error| {
        Failure::new("the measuring program does not run", why, "look at target/release")
    };
    let mut command = Command::new(made(root)?);
    command.args(&asked.words).current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let output = child.stdout.take().expect("invariant: its output is piped");
    let mut summary = Summary::default();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(cannot)?;
        let shown = summary.add(&line);
        println!("{}", if asked.json { line } else { shown });
    }
    let succeeded = child.wait().map_err(cannot)?.success();
    if !asked.json {
        println!("{} rows hold, {} do not", summary.holding, summary.failing);
    }
    Ok(succeeded && summary.is_good())
}

/// Has the measuring program made, and the product, which it finds beside itself: both at once, since they are compiled
/// from the same libraries only then.
fn made(root: &Path) -> Result<PathBuf, Failure> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked"]).current_dir(root).stdin(Stdio::null());
    command.args(["--package", "towpath", "--package", "towpath-bench"]);
    for name in variables_of_cargo_run() {
        command.env_remove(name);
    }
    if !command.status().is_ok_and(|status| status.success()) {
        return Err(Failure::new("the programs were not compiled", "cargo failed", "see what it says above"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/towpath-bench"))
}

/// What stands on the command line.
struct Asked {
    json: bool,
    /// For the measuring program.
    words: Vec<String>,
}

impl Asked {
    fn read(arguments: &mut lexopt::Parser) -> Result<Asked, Failure> {
        let mut asked = Asked { json: false, words: Vec::new() };
        while let Some(argument) = arguments.next().map_err(Failure::usage)? {
            match argument {
                lexopt::Arg::Long("json") => asked.json = true,
                lexopt::Arg::Long("quick") => asked.words.push("--quick".to_owned()),
                lexopt::Arg::Value(row) => asked.words.push(row.to_string_lossy().into_owned()),
                other => return Err(Failure::usage(other.unexpected())),
            }
        }
        Ok(asked)
    }
}

/// How many rows hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    holding: usize,
    failing: usize,
}

impl Summary {
    /// Takes in one line; answers it for people.
    fn add(&mut self, line: &str) -> String {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        let holds = row["holds"] == Value::Bool(true);
        self.holding += usize::from(holds);
        self.failing += usize::from(!holds);
        let text = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
        let [name, value, unit] = ["name", "value", "unit"].map(text);
        let [peer, peer_value, ratio, goal] = ["peer", "peer_value", "ratio", "goal"].map(text);
        let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
        format!("{name}: {value} {unit}, {ratio} x {peer_value} ({peer}); goal: {goal}; {verdict}")
    }

    /// Nothing measured is no success.
    fn is_good(&self) -> bool {
        self.failing == 0 && self.holding > 0
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn row(holds: bool) -> String {
        format!(
            r#"{{"name":"P7-log","value":939.0,"unit":"MiB/s","peer":"cat","peer_value":1317.0,"ratio":0.713,"goal":"at least 0.65 x peer","holds":{holds}}}"#
        )
    }

    #[test]
    fn a_row_is_one_sentence() {
        let shown = Summary::default().add(&row(true));
        expect!["P7-log: 939.0 MiB/s, 0.713 x 1317.0 (cat); goal: at least 0.65 x peer; holds"]
            .assert_eq(&shown);
    }

    #[test]
    fn one_row_that_does_not_hold_is_enough() {
        let mut summary = Summary::default();
        assert!(!summary.is_good());
        summary.add(&row(true));
        assert!(summary.is_good());
        assert!(summary.add(&row(false)).ends_with("DOES NOT HOLD"));
        assert_eq!((summary.is_good(), summary), (false, Summary { holding: 1, failing: 1 }));
    }

    #[test]
    fn rows_and_flags_are_passed_on() {
        let mut arguments = lexopt::Parser::from_args(["--json", "p3", "--quick"]);
        let asked = Asked::read(&mut arguments).unwrap();
        assert_eq!((asked.json, asked.words), (true, vec!["p3".to_owned(), "--quick".to_owned()]));
        let mut arguments = lexopt::Parser::from_args(["--jso"]);
        assert!(Asked::read(&mut arguments).is_err());
    }
}
