//! What a job's end leaves in the records: its attempt and its tests.

use towpath_blob::{BlobStore, Manifest};
use towpath_core::effect::JobOrder;
use towpath_core::graph::TESTS_SHOWN_MAX;
use towpath_core::ids::{Digest, LeaseId, Timestamp};
use towpath_executor::{JUNIT_BYTES_MAX, JobEnd};
use towpath_pipeline::junit::{self, TestCase, TestReport};
use towpath_store::records::{JobRow, JobStage, TestOutcome, TestRow};
use towpath_store::{Tx, WriteError};

/// Characters of a failed test's message that are kept; the whole report is an artifact.
const MESSAGE_CHARS_MAX: usize = 4000;

/// The tests in a job's JUnit reports. A report that cannot be read has none: it decides nothing.
pub fn read(blobs: &BlobStore, manifest: &Digest) -> Vec<TestCase> {
    let loaded = match Manifest::load(blobs, manifest) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::warn!(%manifest, %error, "the manifest of a JUnit report cannot be read: {error}");
            return Vec::new();
        }
    };
    let mut tests = Vec::new();
    for file in loaded.files() {
        match blobs.read(&file.digest, JUNIT_BYTES_MAX).map(|bytes| TestReport::parse(&bytes)) {
            Ok(report) => {
                if let Some(fault) = &report.incomplete {
                    tracing::warn!(%manifest, "a JUnit report was not read to its end: {fault}");
                }
                tests.extend(report.cases);
            }
            Err(error) => tracing::warn!(%manifest, %error, "a JUnit report cannot be read: {error}"),
        }
    }
    tests
}

/// Names of the tests that failed, as many as a result keeps.
pub fn failed(tests: &[TestCase]) -> Vec<String> {
    let failed = tests.iter().filter(|test| outcome(test) == TestOutcome::Failed);
    failed.map(name).take(TESTS_SHOWN_MAX).collect()
}

/// Rows that are written together with the end of a job.
pub struct Rows {
    job: JobRow,
    tests: Vec<TestRow>,
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
            why: end.result.why.clone(),
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
        Rows { job, tests: tests.iter().map(row).collect() }
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
