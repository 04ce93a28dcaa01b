//! Reads what `cargo test -- --show-output` prints: what became of each test, and of each case that a test names.

use std::collections::BTreeMap;

use crate::libtest::Reader;

/// What one test said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether it passed.
    pub passed: bool,
    /// Cases that it held by themselves, and whether each did.
    pub cases: Vec<(String, bool)>,
    /// What did not run here, and why: `d10_tiocsti: it takes script and perl`.
    pub skipped: Vec<String>,
}

/// The results of all test programs, line by line.
#[derive(Debug, Default)]
pub struct Results {
    /// By the number of the program and the whole name of the test: two programs may have tests of one name.
    tests: BTreeMap<(usize, String), Said>,
    program: usize,
    /// Whose output this is.
    section: Option<String>,
    reader: Reader,
}

impl Results {
    /// Takes one line; says whether a person wants to see it.
    pub fn line(&mut self, line: &str) -> bool {
        let is_wanted = self.reader.line(line);
        if line.starts_with("running ") && line.trim_end().ends_with(['s', 't']) {
            self.program += 1;
        }
        if line.starts_with("test result: ") || line == "failures:" || line == "successes:" {
            self.section = None;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.section = Some(name.to_owned());
        }
        if let Some((name, passed)) = result(line) {
            self.of(name).passed = passed;
        }
        if let Some(name) = self.section.clone() {
            self.said(&name, line);
        }
        // Every case as it comes, whether its test passed or not.
        is_wanted || line.starts_with("attack ")
    }

    fn of(&mut self, name: &str) -> &mut Said {
        self.tests.entry((self.program, name.to_owned())).or_default()
    }

    fn said(&mut self, name: &str, line: &str) {
        if let Some((case, held)) = case(line) {
            self.of(name).cases.push((case.to_owned(), held));
        } else if let Some(what) = line.strip_prefix("SKIP ") {
            self.of(name).skipped.push(what.to_owned());
        }
    }

    /// Each test's own name, without its modules, and what it said.
    pub fn tests(&self) -> impl Iterator<Item = (&str, &Said)> {
        self.tests.iter().map(|((_, name), said)| (name.rsplit("::").next().unwrap_or(name), said))
    }
}

/// `test border::d01_environ ... ok`
fn result(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match outcome.trim() {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// `attack A01 empty-the-bar: held after 633.1ms`
fn case(line: &str) -> Option<(&str, bool)> {
    let (case, verdict) = line.strip_prefix("attack ")?.split_once(": ")?;
    let id = case.split(' ').next()?;
    Some((id, verdict.starts_with("held")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_tests_of_one_name_are_told_apart() {
        let mut results = Results::default();
        for line in [
            "running 1 test",
            "test c07_input ... FAILED",
            "failures:",
            "---- c07_input stdout ----",
            "SKIP d10_typing: no perl",
            "attack A01 empty: held after 1s",
            "attack A02 same: FAILED after 1s",
            "failures:",
            "    c07_input",
            "test result: FAILED. 0 passed; 1 failed",
            "running 2 tests",
            "test more::c07_input ... ok",
        ] {
            results.line(line);
        }
        let tests: Vec<_> = results.tests().collect();
        let [("c07_input", first), ("c07_input", second)] = &tests[..] else { panic!("{tests:?}") };
        assert_eq!((first.passed, second.passed), (false, true));
        assert_eq!(first.cases, [("A01".to_owned(), true), ("A02".to_owned(), false)]);
        assert_eq!(first.skipped, ["d10_typing: no perl"]);
    }
}
