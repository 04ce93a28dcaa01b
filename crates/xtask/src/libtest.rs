//! Reads what `cargo test -- --show-output` prints: counts tests, finds skipped ones, and leaves out what passed tests
//! said.

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Did what they should.
    pub passed: usize,
    /// Did not.
    pub failed: usize,
    /// Ignored, or ended early with a line `SKIP <name>: <why>`.
    pub skipped: usize,
}

impl Tally {
    /// Both together.
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// A reader of libtest's output, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    results: Tally,
    said_skip: usize,
    in_successes: bool,
}

impl Reader {
    /// Takes one line; says whether a person wants to see it.
    pub fn line(&mut self, line: &str) -> bool {
        if line.starts_with("SKIP ") {
            self.said_skip += 1;
            return true;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.results = self.results.plus(result_counts(counts));
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        !self.in_successes
    }

    /// The counts so far. For libtest a test that says `SKIP` has passed; here it counts once, as skipped.
    pub fn tally(&self) -> Tally {
        Tally {
            passed: self.results.passed.saturating_sub(self.said_skip),
            skipped: self.results.skipped + self.said_skip,
            ..self.results
        }
    }
}

/// `ok. 12 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.31s`
fn result_counts(counts: &str) -> Tally {
    let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    let before = |name: &str| {
        let pair = words.windows(2).find(|pair| pair[1] == name);
        pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
    };
    Tally { passed: before("passed"), failed: before("failed"), skipped: before("ignored") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
SKIP b: there is no user namespace

successes:

---- a stdout ----
chatter

successes:
    a
    b

failures:

---- c stdout ----
assertion failed

failures:
    c

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 7 filtered out; finished in 0.31s
test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    #[test]
    fn results_of_several_binaries_add_up_and_a_said_skip_is_no_pass() {
        let mut reader = Reader::default();
        assert!(OUTPUT.lines().filter(|line| reader.line(line)).count() > 0);
        assert_eq!(reader.tally(), Tally { passed: 11, failed: 1, skipped: 5 });
    }

    #[test]
    fn a_skip_is_seen_in_the_output_of_a_passed_test() {
        let mut reader = Reader::default();
        let shown: Vec<_> =
            "successes:\nSKIP x: y\nchatter\n".lines().map(|line| reader.line(line)).collect();
        assert_eq!((shown, reader.tally().skipped), (vec![false, true, false], 1));
    }

    #[test]
    fn failures_are_shown_and_chatter_of_passed_tests_is_not() {
        let mut reader = Reader::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| reader.line(line)).collect();
        assert!(shown.contains(&"assertion failed") && !shown.contains(&"chatter"), "{shown:?}");
    }
}
