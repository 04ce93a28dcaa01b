//! Which line of a log speaks of an error first: by the words of compilers, test runners, shells, make, Python, and of
//! Towpath itself.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// Bytes of a line that are looked at: its beginning tells.
const LINE_BYTES_MAX: usize = 2_000;

/// Words that only an error begins with.
const AT_START: [&[u8]; 15] = [
    b"error:",
    b"error[",
    b"error ",
    b"ERROR:",
    b"ERROR ",
    b"Error: ",
    b"Error ",
    b"Exception in thread ",
    b"FAILED",
    b"FAIL:",
    b"FAIL ",
    b"FAIL\t",
    b"--- FAIL",
    b"E   ",
    b"fatal:",
];
/// Words that only an error has in its middle.
const WITHIN: [&[u8]; 9] = [
    b": error:",
    b" error: ",
    b": error ",
    b" ERROR ",
    b": fatal error:",
    b"panicked at",
    b"... FAILED",
    b"test result: FAILED",
    b": command not found",
];
/// Ends of what a shell says of a program or file that it cannot have. Programs say the same of files that they look for
/// in vain and do without.
const AT_END: [&[u8]; 5] =
    [b": not found", b": No such file or directory", b": No such file", b": Permission denied", b"] Killed"];
/// What summaries count, in small letters.
const KINDS: [&[u8]; 6] = [b"error", b"errors", b"fail", b"failed", b"failures", b"failure"];
/// The last line of a job that did not say itself why it ended.
const OWN_LINE: &[u8] = b"[towpath] ";
/// How the last line of Rust's test runner begins.
const COUNT_OF_TESTS: &[u8] = b"test result: FAILED";
const TRACEBACK: &[u8] = b"Traceback (most recent call last)";

/// Each line that speaks of an error, or may once its colours are gone, has one of these. All others are passed over at the
/// speed of memory: a log may have a hundred million lines, and whoever may read it may ask often.
const TELLS: [&[u8]; 14] = [
    b"rror",
    b"ERROR",
    b"xception",
    b"FAIL",
    b"E   ",
    b"fatal:",
    b"panic",
    b"not found",
    b"No such file",
    b"Permission denied",
    b"Killed",
    b"*** ",
    b"[towpath] ",
    b"Traceback",
];
const ESCAPE: u8 = 0x1b;
/// Lines with one of these that are looked at. Of a log with more of them nobody learns anything by the first one.
const LOOKS_MAX: u32 = 1_000_000;

static IN_QUESTION: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let tells = TELLS.into_iter().chain([&[ESCAPE][..]]);
    AhoCorasick::new(tells).expect("invariant: a few short words make an automaton")
});

/// Takes the lines of a log one after the other, and knows at the end which one speaks of an error first.
#[derive(Debug, Default)]
pub(super) struct Search {
    next: u64,
    /// A line that is an error.
    found: Option<u64>,
    /// The first line that is one if nothing else is: what make or a shell says may follow from an error that is named
    /// below, or from none.
    weak: Option<u64>,
    /// The first line of a traceback that is not over.
    traceback: Option<u64>,
    /// The first test that Rust's runner calls failed. Of what it failed speaks a line further below, if any does.
    failed_test: Option<u64>,
    looks: u32,
}

impl Search {
    /// Takes the next lines, all of them whole; says whether it needs no further ones.
    pub(super) fn take(&mut self, mut lines: &[u8]) -> bool {
        while !lines.is_empty() && self.looks < LOOKS_MAX {
            // A traceback ends with a line that may look like any other.
            if self.traceback.is_none() {
                let tell = IN_QUESTION.find(lines).map_or(lines.len(), |tell| tell.start());
                let start = memchr::memrchr(b'\n', &lines[..tell]).map_or(0, |end| end + 1);
                self.next += memchr::memchr_iter(b'\n', &lines[..start]).count() as u64;
                lines = &lines[start..];
                if tell == lines.len() + start {
                    // Nothing is left, or a last line without an end.
                    self.next += u64::from(!lines.is_empty());
                    return false;
                }
            }
            let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            if self.take_line(&lines[..end]) {
                return true;
            }
            lines = &lines[end..];
        }
        self.looks >= LOOKS_MAX
    }

    fn take_line(&mut self, line: &[u8]) -> bool {
        self.looks += 1;
        let number = self.next;
        self.next += 1;
        let line = without_colours(&line[..line.len().min(LINE_BYTES_MAX)]);
        let text = line.trim_ascii();
        // A traceback is indented; what it comes to is its last line.
        let is_below = line.first().is_some_and(u8::is_ascii_whitespace) || text.is_empty();
        if self.traceback.is_some() && !is_below {
            self.found = Some(number);
        } else if text.starts_with(TRACEBACK) {
            self.traceback = Some(number);
        } else if self.traceback.is_none() && is_failed_test(text) {
            self.failed_test.get_or_insert(number);
        } else if self.traceback.is_none() && is_error(text) {
            // The tests are counted behind all that they have said.
            self.found = self.failed_test.filter(|_| text.starts_with(COUNT_OF_TESTS)).or(Some(number));
        } else if self.weak.is_none() && is_weak(text) {
            self.weak = Some(number);
        }
        self.found.is_some()
    }

    /// The line, from 0.
    pub(super) fn line(&self) -> Option<u64> {
        self.found.or(self.traceback).or(self.failed_test).or(self.weak)
    }
}

fn is_error(text: &[u8]) -> bool {
    let starts = AT_START.iter().any(|word| text.starts_with(word));
    let within = || WITHIN.iter().any(|word| find(text, word).is_some());
    (starts || within() || is_exception(text) || is_go_panic(text)) && !counts_none(text)
}

/// `test a::b ... FAILED`, as Rust's runner says of each test by itself before it shows what they said.
fn is_failed_test(text: &[u8]) -> bool {
    text.starts_with(b"test ") && text.ends_with(b" ... FAILED")
}

fn is_weak(text: &[u8]) -> bool {
    let by_end = AT_END.iter().any(|word| text.ends_with(word));
    // Whoever cancelled a job knows that no line of it is why.
    let is_own = text.strip_prefix(OWN_LINE).is_some_and(|why| !why.starts_with(b"cancelled"));
    by_end || is_make(text) || is_own
}

/// `make: *** [Makefile:2: check] Error 1`, also of a make below another one.
fn is_make(text: &[u8]) -> bool {
    let is_one = [&b"make: *** "[..], b"make["].iter().any(|word| text.starts_with(word));
    is_one && find(text, b": *** ").is_some()
}

/// `ValueError: x`, `json.decoder.JSONDecodeError: x`, `TypeError [ERR_X]: x`, or the name alone.
fn is_exception(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| matches!(byte, b':' | b' ')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_name = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    // `Error` itself is in the table of beginnings.
    let is_class = [&b"Error"[..], b"Exception"].iter().any(|end| name.ends_with(end) && name != *end);
    is_name && is_class && (rest.is_empty() || rest.starts_with(b": ") || rest.starts_with(b" ["))
}

/// `panic: runtime error: …`
fn is_go_panic(text: &[u8]) -> bool {
    text.starts_with(b"panic: ")
}

/// Whether a line counts errors, and there are none: `error: 0`, `Failures: 0, Errors: 0`, `0 failed`, `no errors`. What
/// only begins so is no count: `error: 0 is not in 1..=256`, `error: no such command`.
fn counts_none(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let tokens: Vec<&[u8]> = lower
        .split(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'=' | b'(' | b')' | b'|'))
        .filter(|token| !token.is_empty())
        .collect();
    let is_kind = |token: &[u8]| KINDS.contains(&token.strip_suffix(b":").unwrap_or(token));
    let after = |at: usize| {
        let ends = tokens.get(at + 2).is_none_or(|next| next.ends_with(b":") || is_kind(next));
        is_kind(tokens[at]) && matches!(tokens[at + 1], b"0" | b"none") && ends
    };
    let before = |at: usize| matches!(tokens[at], b"0" | b"no") && is_kind(tokens[at + 1]);
    (1..tokens.len()).any(|at| after(at - 1) || before(at - 1)) && !counts_some(&tokens)
}

/// A summary that counts none of one kind may still count some of another: `FAILED. 3 passed; 2 failed; 0 errors`.
fn counts_some(tokens: &[&[u8]]) -> bool {
    let is_some = |token: &[u8]| token.iter().all(u8::is_ascii_digit) && token != b"0";
    tokens.windows(2).any(|pair| is_some(pair[0]) && KINDS.contains(&pair[1]))
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|part| part == word)
}

fn without_colours(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            ESCAPE => {
                // An escape sequence ends with a letter.
                for byte in bytes.by_ref() {
                    if byte.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(log: &str) -> Option<u64> {
        let mut search = Search::default();
        search.take(log.as_bytes());
        search.line()
    }

    #[test]
    fn lines_that_are_errors_are_found() {
        let errors = [
            "error[E0308]: mismatched types",
            "\u{1b}[0m\u{1b}[1m\u{1b}[38;5;9merror\u{1b}[0m: could not compile",
            "src/a.c:3:5: error: expected ';'",
            "src/a.ts(3,5): error TS2322: Type 'string' is not assignable",
            "npm ERROR code ELIFECYCLE",
            "Error: Cannot find module 'x'",
            "FAILED tests/test_a.py::test_b - assert 1 == 2",
            "FAIL: test_b (tests.TestA)",
            "FAIL: tests/check.sh",
            "FAIL src/a.test.js",
            "FAIL\texample.org/a\t0.01s",
            "--- FAIL: TestA (0.00s)",
            "    --- FAIL: TestA/inner (0.00s)",
            "thread 'main' panicked at src/lib.rs:1:1:",
            "panic: runtime error: index out of range [5] with length 3",
            "test a::b ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored",
            "sh: 1: frob: not found",
            "bash: line 1: frob: command not found",
            "./check: 3: frob: not found",
            "cat: nope: No such file or directory",
            "make: *** [Makefile:2: check] Error 1",
            "make[1]: *** [Makefile:2: check] Error 127",
            "make: *** No rule to make target 'check'.  Stop.",
            "error: no such command: `frob`",
            "error: 0 is not in 1..=256",
            "Error loading config",
            "TypeError [ERR_INVALID_ARG_TYPE]: x",
            "FAILED. 3 passed; 2 failed; 0 errors",
            "Exception in thread \"main\" java.lang.Error",
            "sh: 1: cannot open nope: No such file",
            "fatal: not a git repository",
            "ValueError: invalid literal",
            "json.decoder.JSONDecodeError: Expecting value",
            "AssertionError",
            "java.lang.IllegalStateException: x",
            "Traceback (most recent call last):",
            "[towpath] ran into its timeout of 60 s",
            "[towpath] used more than 8 GiB of memory",
        ];
        for line in errors {
            assert_eq!(first(&format!("fine\n{line}\n")), Some(1), "{line}");
        }
    }

    #[test]
    fn talk_of_errors_and_counts_of_none_are_no_errors() {
        let fine = [
            "0 errors, 3 warnings",
            "error: 0",
            "errors: 0",
            "Errors: 0",
            "ERROR: 0",
            "error 0",
            "FAIL: 0",
            "# FAIL:  0",
            "Failed: 0",
            "12 passed; 0 failed",
            "error: none",
            "FAIL 0, ERROR 0",
            "test result: ok. 12 passed; 0 failed; 0 ignored",
            "Tests run: 3, Failures: 0, Errors: 0",
            "test error_is_shown ... ok",
            "Compiling thiserror v2.0.1",
            "checking for frob... not found yet",
            "GET /nope 404 Not Found",
            "make: Nothing to be done for 'all'.",
            "make[1]: Entering directory '/work'",
            "an Error: is a word like others",
            "[towpath] cancelled",
            "",
        ];
        for line in fine {
            assert_eq!(first(&format!("{line}\n")), None, "{line}");
        }
    }

    #[test]
    fn a_line_has_the_same_number_however_the_log_is_cut() {
        let log = "fine\n\n  E   x\nTraceback (most recent call last):\n  File\nKeyError: 'x'\nerror: late\n";
        let by_lines = || {
            let mut search = Search::default();
            let _ = log.split_inclusive('\n').any(|line| search.take(line.as_bytes()));
            search.line()
        };
        assert_eq!((first(log), by_lines()), (Some(2), Some(2)));
        let log = log.replace("E   x", "plain");
        assert_eq!(first(&log), Some(5));
        let filler = "nothing to see\n".repeat(3);
        assert_eq!(first(&format!("{filler}{log}")), Some(8));
    }

    /// Every word of the tables is met by a tell, or its lines would be passed over.
    #[test]
    fn no_word_is_passed_over() {
        let words = AT_START.iter().chain(&WITHIN).chain(&AT_END).chain([&OWN_LINE, &TRACEBACK]);
        for word in words.chain([&b"xError"[..], b"xException", b"panic: ", b": *** "].iter()) {
            assert!(IN_QUESTION.is_match(word), "{}", String::from_utf8_lossy(word));
        }
    }

    #[test]
    fn a_log_that_speaks_of_nothing_but_errors_is_given_up() {
        let line = "a rror\n";
        let log = line.repeat(LOOKS_MAX as usize);
        assert_eq!(first(&format!("{log}error: late\n")), None);
        assert_eq!(first(&format!("{}error: early\n", &log[line.len()..])), Some(u64::from(LOOKS_MAX) - 1));
    }

    #[test]
    fn a_traceback_comes_to_its_last_line() {
        let log = "start\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\n\nKeyError: 'x'\nend\n";
        assert_eq!(first(log), Some(5));
        assert_eq!(first("Traceback (most recent call last):\n  File \"a.py\"\n"), Some(0), "it was cut off");
    }

    /// What cargo 1.95 and the runner that it started said.
    const OF_CARGO: &str = r#"   Compiling rs v0.1.0 (rs)
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.51s
     Running unittests src/lib.rs (target/debug/deps/rs-a35a48c092d3f767)

running 3 tests
test tests::adds ... FAILED
test tests::asks ... FAILED
test tests::zero ... ok

failures:

---- tests::adds stdout ----
said

thread 'tests::adds' (2348) panicked at src/lib.rs:5:35:
assertion `left == right` failed
  left: -1
 right: 3
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

---- tests::asks stdout ----
Error: "no"


failures:
    tests::adds
    tests::asks

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.13s

error: test failed, to rerun pass `--lib`
"#;

    #[test]
    fn a_failed_test_of_rust_comes_to_what_it_said_when_it_failed() {
        let marked = |log: &str| log.lines().nth(first(log).unwrap() as usize).unwrap().to_owned();
        assert_eq!(marked(OF_CARGO), "thread 'tests::adds' (2348) panicked at src/lib.rs:5:35:");
        let no_panic = OF_CARGO.replace("panicked at", "stopped at");
        assert_eq!(marked(&no_panic), "Error: \"no\"");
        let silent = no_panic.replace("Error: \"no\"", "");
        assert_eq!(marked(&silent), "test tests::adds ... FAILED");
    }

    #[test]
    fn what_follows_from_an_error_gives_way_to_the_error() {
        let log = "sh: 1: frob: not found\nmake: *** [Makefile:2: check] Error 127\n[towpath] exit code 2\n";
        assert_eq!(first(log), Some(0));
        assert_eq!(first("ls: nope: No such file or directory\nsrc/a.c:3:5: error: x\n"), Some(1));
    }
}
