//! `cargo xtask test`: makes the machine ready, runs every step, and sums up in one line.

use std::path::Path;
use std::time::Duration;

use crate::failure::Failure;
use crate::libtest::Tally;
use crate::needs::{self, Consent};
use crate::steps::{self, Done, STEPS};

/// What all of it should take on two cores at most. A machine that is busy with other things may need more.
const AIM: Duration = Duration::from_secs(30 * 60);

/// One line of help.
pub const HELP: &str =
    "everything that must hold before a change lands; --as-is: without installing what is missing";

/// Runs the command; `false` if anything failed.
///
/// # Errors
/// The machine is not ready, or a step could not be started.
pub fn run(root: &Path, arguments: &mut lexopt::Parser) -> Result<bool, Failure> {
    let [as_is] = crate::flags(arguments, ["as-is"])?;
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    if !as_is {
        needs::provide(Consent::of_environment(is_ci))?;
    }
    let mut done = Vec::new();
    for step in STEPS {
        done.extend(steps::run(step, root)?);
    }
    let (summary, passed) = summary(&done, is_ci);
    print!("{summary}");
    Ok(passed)
}

/// The list of steps, what was skipped, and the last line; and whether all is well.
fn summary(done: &[Done], is_ci: bool) -> (String, bool) {
    let row = |done: &Done| {
        let Tally { passed, failed, skipped } = done.tally;
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        let counts = format!("{passed} passed, {failed} failed, {skipped} skipped");
        format!("{:<12} {verdict:<7} {:>7.1} s  {counts}\n", done.name, done.took.as_secs_f64())
    };
    let rows: String = done.iter().map(row).collect();
    let took: Duration = done.iter().map(|done| done.took).sum();
    let slow = if took > AIM { "; the aim is 30: `cargo xtask test` has become too slow" } else { "" };
    let took = format!("{:.1} min in all{slow}\n", took.as_secs_f64() / 60.0);
    let total = done.iter().fold(Tally::default(), |sum, done| sum.plus(done.tally));
    let (note, total) = match (total.skipped, is_ci) {
        (0, _) => (String::new(), total),
        (count, false) => (format!("{count} skipped: see the lines that begin with SKIP\n"), total),
        (count, true) => {
            let failed = total.failed + count;
            let note = format!("{count} skipped, which counts as failed where CI=true: see the SKIP lines\n");
            (note, Tally { failed, ..total })
        }
    };
    let Tally { passed, failed, .. } = total;
    // A run without a single test is a broken run.
    (format!("\n{rows}{took}{note}{passed} passed, {failed} failed\n"), failed == 0 && passed > 0)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn done(name: &'static str, tally: [usize; 3]) -> Done {
        let [passed, failed, skipped] = tally;
        Done { name, tally: Tally { passed, failed, skipped }, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_last_line_sums_up() {
        let (text, passed) = summary(&[done("tidy", [12, 0, 0]), done("tests", [30, 1, 0])], false);
        expect![[r#"

            tidy         ok          1.5 s  12 passed, 0 failed, 0 skipped
            tests        FAILED      1.5 s  30 passed, 1 failed, 0 skipped
            0.1 min in all
            42 passed, 1 failed
        "#]]
        .assert_eq(&text);
        assert!(!passed);
    }

    #[test]
    fn a_skipped_test_fails_only_in_ci() {
        let steps = [done("tests", [30, 0, 2])];
        assert!(summary(&steps, false).1);
        let (text, passed) = summary(&steps, true);
        assert!(text.ends_with("30 passed, 2 failed\n") && !passed, "{text}");
    }

    #[test]
    fn what_takes_longer_than_it_should_says_so_and_fails_nothing() {
        let slow = Done { took: AIM * 2, ..done("tests", [30, 0, 0]) };
        let (text, passed) = summary(&[slow], true);
        assert!(text.contains("60.0 min in all; the aim is 30") && passed, "{text}");
    }

    #[test]
    fn nothing_tested_is_no_pass() {
        assert!(!summary(&[done("tests", [0, 0, 0])], false).1);
    }
}
