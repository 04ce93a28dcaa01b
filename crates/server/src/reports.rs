//! What a job's end leaves in the records: its attempt and its tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use towpath_blob::{BlobStore, Manifest, ManifestFile};
use towpath_core::effect::JobOrder;
use towpath_core::graph::{JobResult, TESTS_SHOWN_MAX, cut_why};
use towpath_core::ids::{Digest, LeaseId, Timestamp, is_unprintable};
use towpath_executor::{JUNIT_BYTES_MAX, JobEnd};
use towpath_pipeline::junit::{self, TestCase, TestReport};
use towpath_store::records::{JobRow, JobStage, TestOutcome, TestRow};
use towpath_store::{Tx, WriteError};

/// Characters of a failed test's message that are kept; the whole report is among what the job left.
const MESSAGE_CHARS_MAX: usize = 4000;

/// Tests of one job that are kept if they failed: beside them a suite of any size that passed is of no use.
const FAILED_ROOM: Room = Room { tests: 10_000, bytes: 8 << 20 };
/// Other tests of one job that are kept. 90,000 tests have names of 90 bytes each.
const OTHER_ROOM: Room = Room { tests: 90_000, bytes: 8 << 20 };
/// Bytes in memory for the tests of all ends that are on their way into the records. After a restart, and while the disk
/// is slow, those are the ends of many jobs, and each has a job's room.
const IN_HAND_BYTES_MAX: usize = 128 << 20;
/// Bytes that a test takes in memory beside its texts, roughly.
const TEST_BYTES: usize = 300;

/// What the server holds of tests.
static IN_HAND: Meter = Meter { used: AtomicUsize::new(0), max: IN_HAND_BYTES_MAX };

/// Tests for which there is room, and bytes of their names and messages.
struct Room {
    tests: usize,
    bytes: usize,
}

impl Room {
    /// Whether a test finds room, which it then has.
    fn take(&mut self, test: &TestCase) -> bool {
        let left = (self.tests.checked_sub(1), self.bytes.checked_sub(text_bytes(test)));
        let (Some(tests), Some(bytes)) = left else { return false };
        *self = Room { tests, bytes };
        true
    }
}

/// The tests of one job, as many as are kept.
struct Kept {
    tests: Vec<TestCase>,
    failed: Room,
    others: Room,
    left_out: usize,
}

impl Kept {
    fn new() -> Kept {
        Kept { tests: Vec::new(), failed: FAILED_ROOM, others: OTHER_ROOM, left_out: 0 }
    }

    fn take(&mut self, tests: Vec<TestCase>) {
        let count = tests.len();
        let before = self.tests.len();
        let (failed, others) = (&mut self.failed, &mut self.others);
        let kept = tests.into_iter().filter(|test| match test.outcome {
            junit::TestOutcome::Failed => failed.take(test),
            junit::TestOutcome::Passed | junit::TestOutcome::Skipped => others.take(test),
        });
        self.tests.extend(kept);
        self.left_out += count - (self.tests.len() - before);
    }
}

/// Counts bytes that are held, up to a limit.
struct Meter {
    used: AtomicUsize,
    max: usize,
}

/// Bytes of a meter; given back when it is dropped.
struct Share {
    of: &'static Meter,
    bytes: usize,
}

impl Meter {
    fn take(&'static self, bytes: usize) -> Option<Share> {
        let more = |used: usize| Some(used + bytes).filter(|used| *used <= self.max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // Not made before it is taken: it would be given back.
        taken.is_ok().then(|| Share { of: self, bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn text_bytes(test: &TestCase) -> usize {
    test.suite.len() + test.name.len() + test.message.as_ref().map_or(0, String::len)
}

/// What a job's JUnit reports say.
#[derive(Debug, Default)]
pub struct Reported {
    /// As many tests as are kept.
    pub tests: Vec<TestCase>,
    /// What is wrong with the first report of which there may be more than was read.
    pub fault: Option<String>,
    /// How many more such there are.
    pub more_faults: usize,
}

/// Reads a job's JUnit reports. One that cannot be read has no tests: it decides nothing.
pub fn read(blobs: &BlobStore, manifest: &Digest) -> Reported {
    let loaded = match Manifest::load(blobs, manifest) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::warn!(%manifest, %error, "the manifest of a JUnit report cannot be read: {error}");
            return Reported {
                fault: Some("its JUnit reports are not stored as they were".into()),
                ..Reported::default()
            };
        }
    };
    let (mut kept, mut fault, mut more_faults) = (Kept::new(), None, 0);
    for file in loaded.files() {
        let (tests, found) = read_file(blobs, file);
        kept.take(tests);
        match (found, &fault) {
            (Some(found), None) => fault = Some(format!("JUnit report `{}`: {found}", file.path)),
            (Some(_), Some(_)) => more_faults += 1,
            (None, _) => {}
        }
    }
    if kept.left_out > 0 {
        let left_out = kept.left_out;
        tracing::warn!(%manifest, left_out, "a job reports more tests than are kept; {left_out} were left out");
    }
    Reported { tests: kept.tests, fault, more_faults }
}

fn read_file(blobs: &BlobStore, file: &ManifestFile) -> (Vec<TestCase>, Option<String>) {
    match blobs.read(&file.digest, JUNIT_BYTES_MAX) {
        Ok(bytes) => {
            let report = TestReport::parse(&bytes);
            (report.cases, report.incomplete.map(|fault| fault.to_string()))
        }
        Err(error) => {
            tracing::warn!(digest = %file.digest, %error, "a JUnit report cannot be read: {error}");
            (Vec::new(), Some("it is not stored as it was".into()))
        }
    }
}

impl Reported {
    /// Puts into a result what people are told of its reports.
    pub fn tell(&self, result: &mut JobResult) {
        result.failed_tests = failed(&self.tests);
        let Some(fault) = &self.fault else { return };
        let more = match self.more_faults {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        // The parser's words may hold some of the report's.
        let fault: String = fault.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect();
        result.why = cut_why(format!("{}; {fault}{more}", result.why));
    }
}

/// Names of the tests that failed, as many as a result keeps.
fn failed(tests: &[TestCase]) -> Vec<String> {
    let failed = tests.iter().filter(|test| outcome(test) == TestOutcome::Failed);
    failed.map(name).take(TESTS_SHOWN_MAX).collect()
}

/// Rows that are written together with the end of a job.
pub struct Rows {
    job: JobRow,
    tests: Vec<TestRow>,
    /// What the tests take in memory.
    share: Option<Share>,
}

impl Rows {
    /// The rows of one attempt.
    pub fn new(order: &JobOrder, lease: LeaseId, end: &JobEnd, tests: &[TestCase], now: Timestamp) -> Rows {
        let began = Timestamp(now.0 - i64::try_from(end.result.duration_ms).unwrap_or(0));
        let job = JobRow {
            run: order.run.clone(),
            job: order.lease.job,
            attempt: order.lease.attempt,
            name: order.spec.name.clone(),
            stage: JobStage::Ended,
            lease: Some(lease),
            outcome: Some(end.result.outcome),
            why: cut_why(end.result.why.as_str()),
            unsandboxed: end.result.unsandboxed,
            started_at: Some(began),
            ended_at: Some(now),
            log: end.result.log,
        };
        let row = |test: &TestCase| TestRow {
            run: order.run.clone(),
            job: order.lease.job,
            attempt: order.lease.attempt,
            name: name(test),
            outcome: outcome(test),
            duration_ms: test.duration_ms,
            message: test.message.as_ref().map(|text| text.chars().take(MESSAGE_CHARS_MAX).collect()),
            at: now,
        };
        let share = IN_HAND.take(tests.iter().map(|test| TEST_BYTES + text_bytes(test)).sum());
        if share.is_none() {
            tracing::warn!(
                run = %order.run,
                "the tests of `{}` are not listed: {IN_HAND_BYTES_MAX} bytes of others are not written yet; its report has them",
                order.spec.name
            );
        }
        let tests = if share.is_some() { tests } else { &[] };
        Rows { job, tests: tests.iter().map(row).collect(), share }
    }

    /// Bytes that they take, roughly.
    pub fn bytes(&self) -> usize {
        self.share.as_ref().map_or(0, |share| share.bytes) + self.job.why.len()
    }

    /// Writes them.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, tx: &mut Tx<'_>) -> Result<(), WriteError> {
        tx.put_job(&self.job)?;
        match self.tests.is_empty() {
            true => Ok(()),
            false => tx.put_tests((&self.job.run, self.job.job, self.job.attempt), &self.tests),
        }
    }
}

fn name(test: &TestCase) -> String {
    match test.suite.is_empty() {
        true => test.name.clone(),
        false => format!("{}::{}", test.suite, test.name),
    }
}

fn outcome(test: &TestCase) -> TestOutcome {
    match test.outcome {
        junit::TestOutcome::Passed => TestOutcome::Passed,
        junit::TestOutcome::Failed => TestOutcome::Failed,
        junit::TestOutcome::Skipped => TestOutcome::Skipped,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use towpath_blob::FilePath;
    use towpath_core::graph::Outcome;

    use super::*;

    #[test]
    fn a_job_whose_reports_have_no_end_leaves_as_many_tests_as_are_kept() {
        let folder = TempDir::new().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let suite = "s".repeat(1024);
        let file = |number: usize| {
            // What failed counts also where it comes last.
            let failed = if number == 19 { "<testcase name='late'><failure/></testcase>" } else { "" };
            let cases = "<testcase/>".repeat(2_000);
            let text = format!("<testsuite name='{suite}' id='{number}'>{cases}{failed}</testsuite>");
            let blob = blobs.put_bytes(text.as_bytes()).unwrap();
            let path = FilePath::new(format!("{number}.xml")).unwrap();
            ManifestFile { path, executable: false, size: blob.size, digest: blob.digest }
        };
        let manifest = Manifest::new((0..20).map(file).collect()).unwrap().put(&blobs).unwrap();
        let tests = read(&blobs, &manifest.digest).tests;
        let bytes: usize = tests.iter().map(text_bytes).sum();
        assert!(tests.len() > 8_000 && bytes <= OTHER_ROOM.bytes + 2_000, "{} of {bytes} bytes", tests.len());
        assert_eq!(failed(&tests), [format!("{suite}::late")]);
    }

    #[test]
    fn a_report_that_cannot_be_read_is_told_of_with_the_result() {
        let folder = TempDir::new().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let told = |files: &[(&str, &str)]| {
            let file = |(name, text): &(&str, &str)| {
                let blob = blobs.put_bytes(text.as_bytes()).unwrap();
                let path = FilePath::new(*name).unwrap();
                ManifestFile { path, executable: false, size: blob.size, digest: blob.digest }
            };
            let manifest = Manifest::new(files.iter().map(file).collect()).unwrap().put(&blobs).unwrap();
            let mut result = JobResult::unrun(Outcome::Passed, "exit code 0");
            read(&blobs, &manifest.digest).tell(&mut result);
            (result.why, result.failed_tests)
        };
        let good = ("a.xml", "<testsuite><testcase name='t'><failure/></testcase></testsuite>");
        assert_eq!(told(&[good]), ("exit code 0".into(), vec!["t".into()]));
        let (why, failed) = told(&[good, ("b.xml", "<broken"), ("c.xml", "<html/>")]);
        assert!(why.starts_with("exit code 0; JUnit report `b.xml`: it is not "), "{why}");
        assert!(why.ends_with(", and 1 more") && failed == ["t"], "{why}");
    }

    #[test]
    fn a_job_has_room_for_so_many_tests_and_as_many_bytes() {
        let test = |message: usize| TestCase {
            suite: String::new(),
            name: "a".into(),
            duration_ms: 0,
            outcome: junit::TestOutcome::Passed,
            flaky: false,
            message: Some("x".repeat(message)),
        };
        let mut kept = Kept { others: Room { tests: 3, bytes: 10 }, ..Kept::new() };
        kept.take([2, 20, 2, 2, 2].map(test).into());
        assert_eq!((kept.tests.len(), kept.left_out), (3, 2));
        kept.take(vec![TestCase { outcome: junit::TestOutcome::Failed, ..test(0) }]);
        assert_eq!((kept.tests.len(), kept.left_out), (4, 2));
    }

    #[test]
    fn what_all_ends_hold_is_bounded_and_given_back() {
        static METER: Meter = Meter { used: AtomicUsize::new(0), max: 10 };
        let first = METER.take(6).unwrap();
        assert!(METER.take(5).is_none());
        let second = METER.take(4).unwrap();
        drop(first);
        assert!(METER.take(6).is_some());
        drop(second);
        assert_eq!(METER.used.load(Ordering::Relaxed), 0);
    }
}
