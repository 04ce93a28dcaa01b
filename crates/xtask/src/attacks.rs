//! `cargo xtask attacks [ID...]`: every known attack as a test that bears its id.
//!
//! A case without a test is either named below with the reason, or it fails the command: the list cannot rot silently.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::steps::variables_of_cargo_run;

mod cases;
mod results;

use cases::{CASES, Case};
use results::{Results, Said};

pub const HELP: &str = "run the attack cases, all of them or those of the given ids";

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// In how many tests.
    Passed(usize),
    Failed(Vec<String>),
    /// Not on this machine, which counts as failed in CI.
    Skipped(String),
    NotYet(&'static str),
    /// Nobody has written it, and nobody says why.
    Missing,
}

pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let wanted = wanted(arguments)?;
    let results = test(root, &wanted)?;
    let verdicts: Vec<(&Case, Verdict)> =
        wanted.iter().map(|case| (*case, verdict(case, &results))).collect();
    println!();
    for (case, verdict) in &verdicts {
        println!("{}", line(case, verdict));
    }
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let (text, well) = summary(&verdicts, is_ci);
    println!("{text}");
    Ok(well)
}

fn wanted(arguments: &mut lexopt::Parser) -> Result<Vec<&'static Case>, Failure> {
    let mut ids = BTreeSet::new();
    while let Some(argument) = arguments.next().map_err(Failure::usage)? {
        let lexopt::Arg::Value(id) = argument else { return Err(Failure::usage(argument.unexpected())) };
        let id = id.to_string_lossy().to_uppercase();
        if !CASES.iter().any(|case| case.id == id) {
            return Err(unknown(&id));
        }
        ids.insert(id);
    }
    Ok(CASES.iter().filter(|case| ids.is_empty() || ids.contains(case.id)).collect())
}

/// Says which ids there are: those of the same group, or the groups.
fn unknown(id: &str) -> Failure {
    let group: Vec<&str> =
        CASES.iter().map(|case| case.id).filter(|known| id.starts_with(&known[..1])).collect();
    let hint = match &group[..] {
        [] => "an id is a letter from A to K and two digits, as in `cargo xtask attacks A01 K05`".to_owned(),
        known => format!("of this group there are {}", known.join(", ")),
    };
    let why = "an id names a case of the list in crates/xtask/src/attacks/cases.rs";
    Failure::unknown(format!("there is no attack `{id}`"), why, hint)
}

/// Runs the tests of these cases.
fn test(root: &Path, wanted: &[&Case]) -> Result<Results, Failure> {
    let filters = wanted.iter().map(|case| format!("{}_", case.id.to_lowercase()));
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--", "--show-output"]);
    for name in variables_of_cargo_run() {
        command.env_remove(name);
    }
    let mut child = command
        .args(filters)
        .env("TOWPATH_LISTED_TIMES", "1")
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| Failure::new("cargo cannot be started", why, "install Rust"))?;
    let output = child.stdout.take().expect("invariant: it is piped");
    let mut results = Results::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if results.line(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait().map_err(|why| Failure::new("cargo did not end", why, "try again"))?;
    if !status.success() && results.tests().all(|(_, said)| said.passed) {
        // A test program that does not compile, or dies, has no results of its own.
        let why = "cargo failed, and not for a failed test: see what it says above";
        return Err(Failure::new("the attacks did not run to their end", why, "mend that, and run it again"));
    }
    Ok(results)
}

/// The ids of all cases but those that are for later.
pub fn ids_with_tests() -> impl Iterator<Item = &'static str> {
    CASES.iter().filter(|case| case.not_yet.is_none()).map(|case| case.id)
}

/// Whether a name holds an id as a word of its own: `c07_c08_writing`, `g02_own_approval_g06_revoked`.
pub fn is_of(name: &str, id: &str) -> bool {
    name.split('_').any(|word| word.eq_ignore_ascii_case(id))
}

fn verdict(case: &Case, results: &Results) -> Verdict {
    let mine: Vec<(&str, &Said)> = results.tests().filter(|(name, _)| is_of(name, case.id)).collect();
    let failed: Vec<String> = mine
        .iter()
        .filter(|(_, said)| has_failed(said, case.id))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let names_case = |what: &&String| is_of(what.split(':').next().unwrap_or_default(), case.id);
    let skipped = mine.iter().flat_map(|(_, said)| &said.skipped).find(names_case);
    match (mine.len(), case.not_yet) {
        (0, Some(why)) => Verdict::NotYet(why),
        (0, None) => Verdict::Missing,
        _ if !failed.is_empty() => Verdict::Failed(failed),
        (count, _) => skipped.map_or(Verdict::Passed(count), |what| Verdict::Skipped(what.clone())),
    }
}

/// A test that holds several cases says of each how it ended. One that fails for another reason than a case has failed
/// for all of them.
fn has_failed(said: &Said, id: &str) -> bool {
    let own = said.cases.iter().filter(|(case, _)| case == id).map(|(_, held)| *held);
    let is_explained = said.cases.iter().any(|(_, held)| !held);
    !said.passed && (!is_explained || own.clone().count() == 0 || own.clone().any(|held| !held))
}

fn line(case: &Case, verdict: &Verdict) -> String {
    let Case { id, name, .. } = case;
    match verdict {
        Verdict::Passed(1) => format!("{id} {name}: passed (1 test)"),
        Verdict::Passed(count) => format!("{id} {name}: passed ({count} tests)"),
        Verdict::Failed(tests) => format!("{id} {name}: FAILED in {}", tests.join(", ")),
        Verdict::Skipped(what) => format!("{id} {name}: SKIPPED: {what}"),
        Verdict::NotYet(why) => format!("{id} {name}: not yet concerned: {why}"),
        Verdict::Missing => format!("{id} {name}: FAILED: no test bears this id"),
    }
}

fn summary(verdicts: &[(&Case, Verdict)], is_ci: bool) -> (String, bool) {
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, verdict)| wanted(verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed(_)));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_) | Verdict::Missing));
    let failed = failed + if is_ci { skipped } else { 0 };
    let not_yet = count(|verdict| matches!(verdict, Verdict::NotYet(_)));
    let note = match (skipped, is_ci) {
        (0, _) => String::new(),
        (count, true) => format!("; {count} of the failed cannot run on this machine"),
        (count, false) => format!("; {count} skipped, which cannot run on this machine"),
    };
    let text = format!("attacks: {passed} passed, {failed} failed, {not_yet} not yet concerned{note}");
    // Of a case that is not concerned yet there is nothing to fail.
    (text, failed == 0 && passed + not_yet > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { id: "C07", name: "write-through-input", not_yet: None };

    fn results(lines: &[&str]) -> Results {
        let mut results = Results::default();
        for line in lines {
            results.line(line);
        }
        results
    }

    #[test]
    fn a_case_passes_only_if_each_of_its_tests_does() {
        let both = results(&[
            "test trees::c07_c08_writing ... ok",
            "test c07_input ... FAILED",
            "test c071_x ... ok",
        ]);
        assert_eq!(verdict(&CASE, &both), Verdict::Failed(vec!["c07_input".into()]));
        let good = results(&["test trees::c07_c08_writing ... ok"]);
        assert_eq!(verdict(&CASE, &good), Verdict::Passed(1));
    }

    #[test]
    fn a_test_of_several_cases_fails_those_that_it_names() {
        let group = ["test c07_c08_group ... FAILED", "---- c07_c08_group stdout ----"];
        let of = |more: &[&str]| verdict(&CASE, &results(&[&group, more].concat()));
        assert_eq!(
            of(&["attack C07 input: held after 1s", "attack C08 x: FAILED after 1s"]),
            Verdict::Passed(1)
        );
        let failed = Verdict::Failed(vec!["c07_c08_group".into()]);
        assert_eq!(of(&["attack C07 input: FAILED after 1s"]), failed);
        assert_eq!(of(&["attack C08 other: FAILED after 1s"]), failed, "it was not reached");
        assert_eq!(of(&["attack C07 input: held", "attack C08 x: held"]), failed, "something else failed");
    }

    #[test]
    fn what_a_machine_cannot_do_is_no_pass() {
        let skipped = results(&[
            "test c07_input ... ok",
            "successes:",
            "---- c07_input stdout ----",
            "SKIP c07_input: no sandbox",
        ]);
        let verdict = verdict(&CASE, &skipped);
        assert_eq!(verdict, Verdict::Skipped("c07_input: no sandbox".into()));
        let all = [(&CASE, verdict), (&CASE, Verdict::Passed(1))];
        assert!(summary(&all, false).1 && !summary(&all, true).1);
        assert!(summary(&all, true).0.starts_with("attacks: 1 passed, 1 failed, 0 not yet concerned; 1 of"));
    }

    #[test]
    fn a_case_without_test_and_reason_fails_the_command() {
        let none = verdict(&CASE, &Results::default());
        assert_eq!(none, Verdict::Missing);
        assert_eq!(
            summary(&[(&CASE, none), (&CASE, Verdict::Passed(1))], false).0,
            "attacks: 1 passed, 1 failed, 0 not yet concerned"
        );
        assert!(!summary(&[(&CASE, Verdict::Missing), (&CASE, Verdict::Passed(1))], false).1);
    }

    #[test]
    fn a_reason_gives_way_to_a_test() {
        let later = Case { not_yet: Some("later"), ..CASE };
        assert_eq!(
            verdict(&later, &results(&["test c07_x ... FAILED"])),
            Verdict::Failed(vec!["c07_x".into()])
        );
    }

    #[test]
    fn an_id_that_is_none_is_refused_with_those_that_are() {
        let refused = |id: &str| wanted(&mut lexopt::Parser::from_args([id])).unwrap_err().to_string();
        assert!(refused("k99").contains("there is no attack `K99`"));
        assert!(refused("K99").contains("of this group there are K01, K02, K03, K04, K05"));
        assert!(refused("zebra").contains("a letter from A to K and two digits"));
        let two = wanted(&mut lexopt::Parser::from_args(["k05", "A01"])).unwrap();
        assert_eq!(two.iter().map(|case| case.id).collect::<Vec<_>>(), ["A01", "K05"]);
    }

    #[test]
    fn ids_are_unique_and_in_order() {
        assert!(CASES.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
