//! Tests, as jobs report them: those of one attempt, and how one of them ended lately.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::ids::JobName;
use towpath_store::View;
use towpath_store::records::{TestOutcome, TestPage, TestRow};

use super::jobs::{Found, find};
use super::{millis, page_rows, word};
use crate::http::call::Call;
use crate::http::error::Answer;

/// Which tests of a job.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Which attempt, from 1; absent: the newest.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Only those that failed.
    #[serde(default)]
    pub failed: bool,
    /// So many of the first not: what earlier pages had.
    #[serde(default)]
    pub skip: usize,
    /// Rows at most.
    #[serde(default)]
    pub count: Option<usize>,
}

/// Tests of one attempt of a job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TestsView {
    /// Name of the job.
    pub job: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How many passed, of those that are kept.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// How many were left out by the job.
    pub skipped: u64,
    /// Those that failed first, and of each kind the slowest first.
    pub tests: Vec<TestView>,
}

/// One test.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TestView {
    /// Suite and name.
    pub name: String,
    /// `passed`, `failed` or `skipped`.
    pub outcome: String,
    /// Milliseconds, as its report says.
    pub duration_ms: u64,
    /// What it said; of a long text the beginning. The report, among what the job left, has all of it.
    pub message: Option<String>,
}

impl TestView {
    fn of(row: TestRow) -> TestView {
        TestView {
            name: row.name,
            outcome: word(&row.outcome),
            duration_ms: row.duration_ms,
            message: row.message,
        }
    }
}

/// `GET …/jobs/{job}/tests`
pub async fn of_job(call: Call, filter: Filter) -> Answer<TestsView> {
    let found = find(&call, filter.attempt).await?;
    let page = TestPage { failed: filter.failed, skip: filter.skip, count: page_rows(filter.count) };
    call.read(move |view| of_attempt(view, &found, page)).await
}

fn of_attempt(view: &View, found: &Found, page: TestPage) -> Answer<TestsView> {
    let of = (&found.run, found.index, found.attempt);
    let (job, attempt) = (found.name.to_string(), found.attempt);
    let mut shown = TestsView { job, attempt, passed: 0, failed: 0, skipped: 0, tests: Vec::new() };
    for (outcome, count) in view.test_counts(of)? {
        match outcome {
            TestOutcome::Passed => shown.passed += count,
            TestOutcome::Failed | TestOutcome::Errored => shown.failed += count,
            TestOutcome::Skipped => shown.skipped += count,
        }
    }
    shown.tests = view.tests(of, page)?.into_iter().map(TestView::of).collect();
    Ok(shown)
}

/// Which test.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Suite and name, as the tests of a job show them.
    pub name: String,
    /// Rows at most.
    #[serde(default)]
    pub count: Option<usize>,
}

/// One time that a test was run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TestTime {
    /// In which run.
    pub run: String,
    /// Place of the job in its graph.
    pub job: u32,
    /// Its name.
    pub job_name: Option<String>,
    /// In which attempt of that, from 1.
    pub attempt: u32,
    /// What it came to.
    #[serde(flatten)]
    pub test: TestView,
    /// When its report was read.
    pub at: i64,
}

/// `GET /api/v1/repos/{repo}/tests`: how one test ended lately, newest first.
pub async fn history(call: Call, named: Named) -> Answer<Vec<TestTime>> {
    let repo = call.repo()?;
    let time = |(row, job): (TestRow, Option<JobName>)| TestTime {
        run: row.run.to_string(),
        job: row.job.0,
        job_name: job.map(|name| name.to_string()),
        attempt: row.attempt,
        at: millis(row.at),
        test: TestView::of(row),
    };
    call.read(move |view| {
        let rows = view.test_history(&repo, &named.name, page_rows(named.count))?;
        Ok(rows.into_iter().map(time).collect())
    })
    .await
}
