//! Rules about what code may call.

use super::source::words;
use super::tree::{Finding, Tree};

/// A piece of code that is refused.
struct Forbidden {
    /// As it stands in code without comments and literals.
    text: &'static str,
    /// Whether tests may have it.
    tests_may: bool,
    /// Why, and what to do instead.
    why: &'static str,
    /// Files that may have it, each with the reason.
    except: &'static [(&'static str, &'static str)],
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        text: ".unwrap()",
        tests_may: true,
        why: "say what makes it impossible: `expect(\"invariant: …\")`, or return an error",
        except: &[],
    },
    Forbidden { text: "todo!", tests_may: false, why: "finish it or leave it out", except: &[] },
    Forbidden { text: "unimplemented!", tests_may: false, why: "finish it or leave it out", except: &[] },
    Forbidden { text: "dbg!", tests_may: false, why: "it is for the moment of debugging", except: &[] },
    Forbidden {
        text: "#[ignore",
        tests_may: false,
        why: "a test that is not run says nothing; print `SKIP <name>: <why>` where a machine lacks something",
        except: &[],
    },
    Forbidden {
        text: "sleep(",
        tests_may: false,
        why: "wait for the event itself, with a deadline; a clock is no event",
        except: &[
            (
                "crates/executor/src/client.rs",
                "another process's socket appears without an event; tried up to a deadline",
            ),
            (
                "crates/executor/src/launcher/network.rs",
                "an interface comes up without an event that a job's parent sees",
            ),
        ],
    },
];

/// No call that hides a failure, waits by the clock, or was left behind.
pub fn forbidden(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.rust {
        for (line, code, is_test) in source.lines() {
            let applies = |rule: &&Forbidden| {
                contains_call(code, rule.text)
                    && !(is_test && rule.tests_may)
                    && !rule.except.iter().any(|(file, _)| file == path)
            };
            let hits = FORBIDDEN.iter().filter(applies);
            findings
                .extend(hits.map(|rule| Finding::line(path, line, format!("`{}`: {}", rule.text, rule.why))));
        }
    }
    findings
}

/// Whether the text stands there as a word of its own: `run_until_sleep(` calls no `sleep(`.
fn contains_call(code: &str, text: &str) -> bool {
    let continues = |at: usize| code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let begins_word = text.starts_with(|c: char| c.is_alphanumeric());
    code.match_indices(text).any(|(at, _)| !(begins_word && continues(at)))
}

/// Code that is other code under test was never tested: `cfg(test)` may only hide a module `tests`.
pub fn forks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.rust {
        let code = &source.code;
        for (at, _) in code.match_indices("cfg") {
            let rest = code[at..].split(['\n', '{', ';']).next().unwrap_or_default();
            let Some(open) = rest.find('(').filter(|open| words(&rest[..*open]).count() == 1) else {
                continue;
            };
            let condition = &rest[open..rest.rfind(')').unwrap_or(rest.len())];
            let is_about_tests = words(condition).any(|(_, word)| word == "test");
            let hides_tests = code[at..].starts_with("cfg(test)]") && is_test_module(&code[at + 10..]);
            if is_about_tests && !hides_tests {
                let line = code[..at].matches('\n').count() + 1;
                findings.push(Finding::line(path, line, "`cfg(test)` is for `mod tests` alone"));
            }
        }
    }
    findings
}

fn is_test_module(rest: &str) -> bool {
    let next: Vec<&str> = words(rest).map(|(_, word)| word).take(2).collect();
    next == ["mod", "tests"]
}

/// The one crate that starts Git.
const GIT_OWNER: &str = "crates/git/";
/// The demo, the kills and the command that lands Towpath by itself push as a person would, with the person's own git,
/// and look at what came of it.
const GIT_USERS: &[&str] = &[
    "crates/towpath/src/command/demo/project.rs",
    "crates/xtask/src/kill/books.rs",
    "crates/xtask/src/kill/world/person.rs",
    "crates/xtask/src/self_host/place.rs",
];

/// Git is started with a cleared environment, which is the `git` crate's to make. Tests may start it as a user would.
pub fn git(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let others = |path: &str| !path.starts_with(GIT_OWNER) && !GIT_USERS.contains(&path);
    for (path, source) in tree.rust.iter().filter(|(path, _)| others(path)) {
        for ((line, code, is_test), text) in source.lines().zip(tree.text(path).lines()) {
            // The name is a literal, which the code without literals does not show.
            if !is_test && code.contains("Command::new(") && text.contains("::new(\"git\")") {
                findings.push(Finding::line(path, line, "only crates/git starts git"));
            }
        }
    }
    findings
}

/// Ways out of computation, by their names in the standard library.
const ACTING: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
];

/// Containers whose order differs from run to run.
const UNORDERED: &[&str] = &["HashMap", "HashSet", "RandomState"];

/// `core` decides and `pipeline` reads what it is handed; neither does anything. In `core` the same events must give
/// the same plan, so nothing there may have an order of its own.
pub fn purity(tree: &Tree) -> Vec<Finding> {
    let core = ACTING.iter().chain(UNORDERED).map(|text| ("core", *text));
    let rules: Vec<(&str, &str)> = core.chain(ACTING.iter().map(|text| ("pipeline", *text))).collect();
    let mut findings = Vec::new();
    for (path, source) in &tree.rust {
        let is_of = |name: &str| {
            path.strip_prefix("crates/").is_some_and(|rest| rest.starts_with(&format!("{name}/src/")))
        };
        let rules: Vec<_> = rules.iter().filter(|(name, _)| is_of(name)).collect();
        for (line, code, _) in source.lines().filter(|(_, _, is_test)| !is_test) {
            let hits = rules.iter().filter(|(_, text)| contains_call(code, text));
            findings.extend(
                hits.map(|(name, text)| {
                    Finding::line(path, line, format!("`{text}` has no place in {name}"))
                }),
            );
        }
    }
    findings
}
