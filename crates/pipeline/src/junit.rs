//! JUnit XML as pytest, cargo-nextest, Jest, GoogleTest, Surefire and others write it.
//!
//! There is no standard, only habit: what is not known is passed over, and what was read before a file breaks off
//! counts. A report is written by the code under test, so it never decides a job's outcome, and every size is bounded.
//! Entities are not expanded but for the five that XML itself has.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use serde::{Deserialize, Serialize};

/// Bytes of one report that are read. 100,000 tests with 300 bytes each.
pub const JUNIT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Tests of one report that are kept.
pub const JUNIT_CASES_MAX: usize = 100_000;
/// Elements inside each other. Real reports have 5.
pub const JUNIT_DEPTH_MAX: usize = 32;
/// Bytes of a test's or suite's name. Parametrised tests put their values into it.
pub const JUNIT_NAME_BYTES_MAX: usize = 1024;
/// Bytes of what a failed test said. The whole text is in the report, which is kept as a file.
pub const JUNIT_MESSAGE_BYTES_MAX: usize = 4096;
/// Attributes of one element that are looked at.
const ATTRIBUTES_MAX: usize = 64;
/// A test's time beyond which a report is not believed: 30 days.
const SECONDS_MAX: f64 = 30.0 * 24.0 * 3600.0;

/// One test of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCase {
    /// The class, module or binary; where the test names none, the suite around it.
    pub suite: String,
    /// The test.
    pub name: String,
    /// Milliseconds; 0 where the report does not say.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: TestOutcome,
    /// It passed only after a failure, which the report tells of.
    pub flaky: bool,
    /// What a failed, flaky or skipped test said.
    pub message: Option<String>,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// It did what it should.
    Passed,
    /// It was not run, or is expected to fail.
    Skipped,
    /// It failed, or stopped with an error of its own.
    Failed,
}

/// What could be read of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TestReport {
    /// The tests in the order of the file.
    pub cases: Vec<TestCase>,
    /// Why there may be more tests than these.
    pub incomplete: Option<ReportFault>,
}

/// Why a report was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ReportFault {
    /// Not XML, or XML that breaks off.
    #[error("it is not well-formed XML at byte {at}: {why}")]
    NotXml {
        /// From the start of the file.
        at: u64,
        /// The parser's words.
        why: String,
    },
    /// XML of another kind.
    #[error("it is not a JUnit report: its root is `{root}`, and a report's is `testsuites` or `testsuite`")]
    NotJunit {
        /// The name of the root element, cut.
        root: String,
    },
    /// More than [`JUNIT_BYTES_MAX`].
    #[error("it has more than {JUNIT_BYTES_MAX} bytes; only the tests up to there are kept")]
    TooLarge,
    /// More than [`JUNIT_CASES_MAX`].
    #[error("it has more than {JUNIT_CASES_MAX} tests; only the first ones are kept")]
    TooMany,
    /// More than [`JUNIT_DEPTH_MAX`].
    #[error("its elements are nested more than {JUNIT_DEPTH_MAX} deep")]
    TooDeep,
}

impl TestReport {
    /// Reads a report. Never fails: what cannot be read is told in [`TestReport::incomplete`].
    pub fn parse(bytes: &[u8]) -> TestReport {
        let whole = bytes.len() <= JUNIT_BYTES_MAX;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(JUNIT_BYTES_MAX)]);
        let mut reading = Reading::default();
        let fault = reading.read(text.trim_start_matches('\u{feff}')).err();
        let incomplete = if whole { fault } else { Some(ReportFault::TooLarge) };
        TestReport { cases: reading.cases, incomplete }
    }
}

/// What an open element is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    /// Inside a test: its text says what happened.
    Verdict,
    Other,
}

#[derive(Default)]
struct Reading {
    /// A root element was there.
    begun: bool,
    open: Vec<Element>,
    suites: Vec<String>,
    case: Option<TestCase>,
    /// The message and the text of the verdict that is being read.
    head: String,
    text: String,
    cases: Vec<TestCase>,
}

impl Reading {
    fn read(&mut self, text: &str) -> Result<(), ReportFault> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().allow_dangling_amp = true;
        loop {
            let event = reader.read_event().map_err(|error| ReportFault::NotXml {
                at: reader.error_position(),
                why: error.to_string(),
            })?;
            match event {
                Event::Start(element) => self.start(&element)?,
                Event::Empty(element) => {
                    self.start(&element)?;
                    self.end();
                }
                Event::End(_) => self.end(),
                Event::Text(text) => self.say(&text.xml10_content()),
                Event::CData(text) => self.say(&text.xml10_content()),
                Event::GeneralRef(reference) => self.say(&resolved(&reference)),
                Event::Eof if !self.open.is_empty() || !self.begun => {
                    let why = "it ends too early".to_owned();
                    return Err(ReportFault::NotXml { at: text.len() as u64, why });
                }
                Event::Eof => return Ok(()),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }

    fn start(&mut self, element: &BytesStart) -> Result<(), ReportFault> {
        if self.open.len() >= JUNIT_DEPTH_MAX {
            return Err(ReportFault::TooDeep);
        }
        let name = element.local_name();
        let kind = match (name.as_ref(), &self.case) {
            ("testsuites" | "testsuite", None) => {
                self.suites.push(attribute(element, "name").map(one_line).unwrap_or_default());
                Element::Suite
            }
            (root, _) if self.open.is_empty() => {
                return Err(ReportFault::NotJunit { root: cut(root, 80) });
            }
            ("testcase", None) => {
                self.start_case(element)?;
                Element::Case
            }
            (verdict, Some(_)) if self.open.last() == Some(&Element::Case) => self.verdict(verdict, element),
            _ => Element::Other,
        };
        self.begun = true;
        self.open.push(kind);
        Ok(())
    }

    fn start_case(&mut self, element: &BytesStart) -> Result<(), ReportFault> {
        if self.cases.len() >= JUNIT_CASES_MAX {
            return Err(ReportFault::TooMany);
        }
        let given = |key| attribute(element, key).map(one_line).filter(|text| !text.is_empty());
        let around = || self.suites.iter().rev().find(|suite| !suite.is_empty()).cloned();
        // GoogleTest marks what it did not run on the test itself.
        let rests = given("status")
            .is_some_and(|status| matches!(&*status, "notrun" | "disabled" | "skipped"))
            || given("result").is_some_and(|result| matches!(&*result, "suppressed" | "skipped"));
        self.case = Some(TestCase {
            suite: given("classname").or_else(around).unwrap_or_default(),
            name: given("name").unwrap_or_else(|| "(unnamed)".to_owned()),
            duration_ms: given("time").map_or(0, |time| milliseconds(&time)),
            outcome: if rests { TestOutcome::Skipped } else { TestOutcome::Passed },
            flaky: false,
            message: None,
        });
        Ok(())
    }

    fn verdict(&mut self, name: &str, element: &BytesStart) -> Element {
        let Some(case) = &mut self.case else { return Element::Other };
        match name {
            "failure" | "error" => {
                case.outcome = TestOutcome::Failed;
                case.flaky = false;
            }
            "skipped" => case.outcome = case.outcome.max(TestOutcome::Skipped),
            // Surefire and nextest: a failed try of a test that passed at last.
            "flakyFailure" | "flakyError" => case.flaky = case.outcome != TestOutcome::Failed,
            // A further failed try of a test whose first failure is told already.
            _ => return Element::Other,
        }
        self.head = attribute(element, "message").unwrap_or_default();
        self.text.clear();
        Element::Verdict
    }

    fn end(&mut self) {
        match self.open.pop() {
            Some(Element::Suite) => {
                self.suites.pop();
            }
            Some(Element::Case) => self.cases.extend(self.case.take()),
            Some(Element::Verdict) => self.tell(),
            Some(Element::Other) | None => {}
        }
    }

    /// Text counts inside a verdict, not in a test's captured output.
    fn say(&mut self, text: &str) {
        if self.open.last() == Some(&Element::Verdict) {
            add(&mut self.text, text);
        }
    }

    /// Adds a verdict to what its test says. Many writers repeat the message at the head of the text.
    fn tell(&mut self) {
        let (head, text) = (self.head.trim(), self.text.trim());
        let parts = if text.starts_with(head) { [text, ""] } else { [head, text] };
        let Some(case) = &mut self.case else { return };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let message = case.message.get_or_insert_default();
            if !message.is_empty() {
                add(message, "\n");
            }
            add(message, &part.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "?"));
        }
    }
}

/// Adds what still fits.
fn add(message: &mut String, text: &str) {
    let room = JUNIT_MESSAGE_BYTES_MAX.saturating_sub(message.len());
    message.push_str(&text[..text.floor_char_boundary(room)]);
}

fn attribute(element: &BytesStart, key: &str) -> Option<String> {
    let mut attributes = element.attributes();
    // Looking for duplicates would compare each with all.
    let attributes = attributes.with_checks(false).take(ATTRIBUTES_MAX);
    let found =
        attributes.filter_map(Result::ok).find(|attribute| attribute.key.local_name().as_ref() == key)?;
    let value = found.normalized_value(XmlVersion::Implicit1_0).unwrap_or_else(|_| found.value.clone());
    Some(value[..value.floor_char_boundary(JUNIT_MESSAGE_BYTES_MAX)].to_owned())
}

fn one_line(text: String) -> String {
    cut(&text, JUNIT_NAME_BYTES_MAX)
}

fn resolved(reference: &str) -> String {
    let number = reference.strip_prefix('#').and_then(|digits| match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    });
    match (number.and_then(char::from_u32), quick_xml::escape::resolve_predefined_entity(reference)) {
        (Some(c), _) => c.to_string(),
        (None, Some(text)) => text.to_owned(),
        (None, None) => format!("&{reference};"),
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    let head = &text[..text.floor_char_boundary(bytes_max)];
    head.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Seconds as a decimal; `1,234.5` is written by some.
fn milliseconds(seconds: &str) -> u64 {
    let seconds: f64 = seconds.trim().replace(',', "").parse().unwrap_or(0.0);
    if (0.0..=SECONDS_MAX).contains(&seconds) { (seconds * 1000.0).round() as u64 } else { 0 }
}
