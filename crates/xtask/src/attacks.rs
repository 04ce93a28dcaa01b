//! `cargo xtask attacks [ID...]`: every known attack as a test that bears its id.
//!
//! A case without a test is either named below with the reason, or it fails the command: the list cannot rot silently.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;

mod cases;

use cases::{CASES, Case};

pub const HELP: &str = "run the attack cases, all of them or those of the given ids";

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed(usize),
    Failed(Vec<String>),
    NotYet(&'static str),
    /// Nobody has written it, and nobody says why.
    Missing,
}

pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let wanted = wanted(arguments)?;
    let results = test(root, &wanted)?;
    let verdicts: Vec<(&Case, Verdict)> =
        wanted.iter().map(|case| (*case, verdict(case, &results))).collect();
    for (case, verdict) in &verdicts {
        println!("{}", line(case, verdict));
    }
    let (text, well) = summary(&verdicts);
    println!("{text}");
    Ok(well)
}

fn wanted(arguments: &mut lexopt::Parser) -> Result<Vec<&'static Case>, Failure> {
    let mut ids = BTreeSet::new();
    while let Some(argument) = arguments.next().map_err(Failure::usage)? {
        let lexopt::Arg::Value(id) = argument else { return Err(Failure::usage(argument.unexpected())) };
        let id = id.to_string_lossy().to_uppercase();
        if !CASES.iter().any(|case| case.id == id) {
            return Err(Failure::usage(format!("there is no attack `{id}`")));
        }
        ids.insert(id);
    }
    Ok(CASES.iter().filter(|case| ids.is_empty() || ids.contains(case.id)).collect())
}

/// Runs the tests of these cases; the results by the test's name.
fn test(root: &Path, wanted: &[&Case]) -> Result<BTreeMap<String, bool>, Failure> {
    let filters = wanted.iter().map(|case| format!("{}_", case.id.to_lowercase()));
    let mut child = Command::new("cargo")
        .args(["test", "--workspace", "--locked", "--no-fail-fast", "--"])
        .args(filters)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| Failure::new("cargo cannot be started", why, "install Rust"))?;
    let output = child.stdout.take().expect("invariant: it is piped");
    let mut results = BTreeMap::new();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some((name, passed)) = result(&line) {
            results.insert(name.to_owned(), passed);
        }
    }
    child.wait().map_err(|why| Failure::new("cargo did not end", why, "try again"))?;
    Ok(results)
}

/// `test border::d01_environ ... ok`
fn result(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.rsplit("::").next()?;
    match outcome.trim() {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// Whether a test's name holds an id as a word of its own: `c07_c08_writing`, `g02_own_approval_g06_revoked`.
fn is_of(name: &str, id: &str) -> bool {
    name.split('_').any(|word| word.eq_ignore_ascii_case(id))
}

fn verdict(case: &Case, results: &BTreeMap<String, bool>) -> Verdict {
    let mine: Vec<(&String, &bool)> = results.iter().filter(|(name, _)| is_of(name, case.id)).collect();
    let failed: Vec<String> =
        mine.iter().filter(|(_, passed)| !**passed).map(|(name, _)| (*name).clone()).collect();
    match (mine.len(), case.not_yet) {
        (0, Some(why)) => Verdict::NotYet(why),
        (0, None) => Verdict::Missing,
        (count, _) if failed.is_empty() => Verdict::Passed(count),
        _ => Verdict::Failed(failed),
    }
}

fn line(case: &Case, verdict: &Verdict) -> String {
    let Case { id, name, .. } = case;
    match verdict {
        Verdict::Passed(count) => format!("{id} {name}: passed ({count} tests)"),
        Verdict::Failed(tests) => format!("{id} {name}: FAILED in {}", tests.join(", ")),
        Verdict::NotYet(why) => format!("{id} {name}: not yet concerned: {why}"),
        Verdict::Missing => format!("{id} {name}: FAILED: no test bears this id"),
    }
}

fn summary(verdicts: &[(&Case, Verdict)]) -> (String, bool) {
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, verdict)| wanted(verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed(_)));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_) | Verdict::Missing));
    let not_yet = count(|verdict| matches!(verdict, Verdict::NotYet(_)));
    (
        format!("attacks: {passed} passed, {failed} failed, {not_yet} not yet concerned"),
        failed == 0 && passed > 0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { id: "C07", name: "write-through-input", not_yet: None };

    fn results(lines: &[&str]) -> BTreeMap<String, bool> {
        lines.iter().filter_map(|line| result(line)).map(|(name, passed)| (name.to_owned(), passed)).collect()
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
    fn a_case_without_test_and_reason_fails_the_command() {
        let none = verdict(&CASE, &BTreeMap::new());
        assert_eq!(none, Verdict::Missing);
        assert_eq!(
            summary(&[(&CASE, none), (&CASE, Verdict::Passed(1))]).0,
            "attacks: 1 passed, 1 failed, 0 not yet concerned"
        );
        assert!(!summary(&[(&CASE, Verdict::Missing), (&CASE, Verdict::Passed(1))]).1);
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
    fn ids_are_unique_and_in_order() {
        assert!(CASES.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
