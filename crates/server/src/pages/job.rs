//! The page of a job: its attempts, what it left, and its log.

use askama::Template;
use askama::filters::Safe;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::ids::RunId;

use super::run::Line;
use super::{Frame, crumb, render, sgr, text};
use crate::http::api::artifacts::{self, Artifact};
use crate::http::api::jobs::JobView;
use crate::http::api::logs::{self, Shown, Window};
use crate::http::api::test_results::{self, TestsView};
use crate::http::api::{Nothing, runs};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};
use crate::http::links;
use crate::http::route::from_query;

/// Lines of a log on one page.
const LINES_SHOWN: u64 = 1_000;
/// Lines above one that is asked for.
const LINES_ABOVE: u64 = 100;
/// Files that a job left that are listed.
const FILES_SHOWN: usize = 200;
/// Tests that are listed, those that failed first.
const TESTS_SHOWN: usize = 100;
/// Which part of which attempt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Which attempt, from 1; absent: the newest.
    #[serde(default)]
    attempt: Option<u32>,
    /// First line, from 1; absent: the last lines.
    #[serde(default)]
    from: Option<u64>,
    /// A line, from 1, with what stands around it.
    #[serde(default)]
    at: Option<u64>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    id: RunId,
    job: JobView,
    url: String,
    run_url: String,
    attempt: u32,
    over: bool,
    lines: Vec<Line>,
    all: u64,
    size: u64,
    /// Number of the first line that looks like an error, from 1.
    first_error: Option<u64>,
    files: Vec<FilePart>,
    more_files: usize,
    tests: TestsView,
}

struct FilePart {
    name: String,
    url: String,
    size: u64,
}

impl JobPage {
    fn first(&self) -> u64 {
        self.lines.first().map_or(0, |line| line.number)
    }

    fn last(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.number)
    }

    fn earlier(&self) -> Option<u64> {
        (self.first() > 1).then(|| self.first().saturating_sub(LINES_SHOWN).max(1))
    }

    /// Tests that are there, whether they are listed or not.
    fn all_tests(&self) -> u64 {
        self.tests.passed + self.tests.failed + self.tests.skipped
    }

    fn later(&self) -> Option<u64> {
        (self.last() < self.all).then(|| self.last() + 1)
    }

    /// The job as a file may be called.
    fn download(&self) -> String {
        format!("{}/log?attempt={}&from_byte=0", self.url, self.attempt)
    }
}

/// `GET /{repo}/runs/{branch}/{run}/jobs/{job}`
pub async fn show(call: Call, request: Request) -> Answer<Response> {
    let asked: Asked = from_query(&request)?;
    let run = runs::show(call.clone(), Nothing {}).await?;
    let (id, name) = (call.run()?, call.param("job")?.to_owned());
    let named = |job: &&JobView| job.name == name || job.index.to_string() == name;
    let job = run.jobs.iter().find(named).cloned();
    let job = job.ok_or_else(|| ApiError::not_found("the run has no such job"))?;
    let shown = logs::shown(&call, window(&asked)).await?;
    let first_error = first_error(&call, &job, asked.attempt).await?;
    let mut files = artifacts::list(call.clone(), logs::Attempt { attempt: asked.attempt }).await?;
    let more_files = files.len().saturating_sub(FILES_SHOWN);
    files.truncate(FILES_SHOWN);
    let shown_tests = test_results::Filter {
        attempt: asked.attempt,
        count: Some(TESTS_SHOWN),
        ..test_results::Filter::default()
    };
    let tests = test_results::of_job(call.clone(), shown_tests).await?;
    let (url, run_url) = (links::job(&id, &job.name), links::run(&id));
    let branch = crumb(format!("{} / {}", id.gate.repo, id.gate.branch), links::branch(&id.gate));
    let mut crumbs = vec![branch];
    if let Some(change) = run.summary.change {
        crumbs.push(crumb(format!("change {change}"), format!("/{}/changes/{change}", id.gate.repo)));
    }
    crumbs.push(crumb(format!("run {}", id.number), run_url.clone()));
    crumbs.push(crumb(job.name.clone(), url.clone()));
    let page = JobPage {
        frame: Frame::within(&call, crumbs)?,
        files: files.iter().map(|file| file_part(&url, file, shown.attempt)).collect(),
        more_files,
        tests,
        lines: lines(&shown, first_error),
        attempt: shown.attempt,
        over: shown.over,
        all: shown.lines,
        size: shown.size,
        first_error,
        id,
        job,
        url,
        run_url,
    };
    render(StatusCode::OK, &page)
}

fn window(asked: &Asked) -> Window {
    let from_line = match (asked.at, asked.from) {
        (Some(at), _) => Some(at.saturating_sub(LINES_ABOVE + 1)),
        (None, Some(from)) => Some(from.saturating_sub(1)),
        (None, None) => None,
    };
    let tail = from_line.is_none().then_some(LINES_SHOWN);
    Window { attempt: asked.attempt, from_line, lines: Some(LINES_SHOWN), tail, ..Window::default() }
}

/// The first error of an attempt that did not pass, from 1.
async fn first_error(call: &Call, job: &JobView, attempt: Option<u32>) -> Answer<Option<u64>> {
    let of = attempt.unwrap_or(job.attempts.len() as u32);
    let failed = |outcome: &str| matches!(outcome, "failed" | "timed_out" | "errored");
    let tried = job.attempts.iter().find(|tried| tried.attempt == of);
    if !tried.and_then(|tried| tried.outcome.as_deref()).is_some_and(failed) {
        return Ok(None);
    }
    let found = logs::first_error(call.clone(), logs::Attempt { attempt }).await?;
    Ok(found.line.map(|line| line + 1))
}

fn lines(shown: &Shown, error: Option<u64>) -> Vec<Line> {
    let mut style = sgr::Style::default();
    let pieces = shown.bytes.split_inclusive(|byte| *byte == b'\n');
    let numbered = pieces.zip(shown.first_line + 1..);
    let line = |(bytes, number)| Line {
        number,
        html: Safe(sgr::line(bytes, &mut style)),
        error: Some(number) == error,
    };
    numbered.map(line).collect()
}

fn file_part(url: &str, file: &Artifact, attempt: u32) -> FilePart {
    let path: Vec<String> = file.path.split('/').map(links::escaped).collect();
    FilePart {
        name: format!("{} / {}", file.output, file.path),
        url: format!("{url}/artifacts/{}/{}?attempt={attempt}", links::escaped(&file.output), path.join("/")),
        size: file.size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_what_stands_around_it() {
        let asked = |from, at| window(&Asked { attempt: None, from, at });
        assert_eq!(asked(None, None).tail, Some(LINES_SHOWN));
        assert_eq!((asked(Some(1), None).from_line, asked(Some(1), None).tail), (Some(0), None));
        assert_eq!(asked(None, Some(500)).from_line, Some(399));
        assert_eq!(asked(None, Some(3)).from_line, Some(0));
    }

    #[test]
    fn lines_have_their_numbers() {
        let shown = Shown {
            attempt: 1,
            over: true,
            first_line: 9,
            lines: 12,
            size: 99,
            bytes: b"a\nerror: b\nc".to_vec(),
        };
        let lines = lines(&shown, Some(11));
        let seen: Vec<_> = lines.iter().map(|line| (line.number, line.html.0.as_str(), line.error)).collect();
        assert_eq!(seen, [(10, "a", false), (11, "error: b", true), (12, "c", false)]);
    }
}
