//! The page of a run: its jobs, those first that need a person.

use askama::Template;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use towpath_core::gate::Verb;
use towpath_core::graph::remark;
use towpath_core::ids::RunId;

use super::{Frame, crumb, permitted, render, sgr, text};
use crate::http::api::Nothing;
use crate::http::api::jobs::JobView;
use crate::http::api::logs::{self, FirstError};
use crate::http::api::runs::{self, RunView};
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::http::links;

/// Jobs of one group that are shown.
const JOBS_SHOWN: usize = 1_000;
/// Failed jobs whose first error is shown at once.
const EXCERPTS_SHOWN: usize = 10;
/// Names of failed tests that are shown of one job.
const TESTS_SHOWN: usize = 50;

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    run: RunView,
    id: RunId,
    url: String,
    branch_url: String,
    groups: Vec<Group>,
    /// Whoever looks may cancel it.
    cancels: bool,
}

/// Jobs that are equally far.
struct Group {
    name: &'static str,
    jobs: Vec<JobPart>,
    /// Jobs that are not shown.
    more: usize,
    /// Shown without being asked for.
    open: bool,
}

struct JobPart {
    view: JobView,
    url: String,
    tests: Vec<String>,
    more_tests: usize,
    excerpt: Option<Excerpt>,
    /// It went wrong, and others before it have their excerpts shown.
    beyond: bool,
}

impl JobPart {
    /// What is said of it, beside that it passed.
    fn said(&self) -> &str {
        match self.view.outcome.as_deref() {
            Some("passed") => remark(&self.view.why),
            _ => &self.view.why,
        }
    }
}

/// The lines around the first error of a job.
struct Excerpt {
    attempt: u32,
    lines: Vec<Line>,
}

/// A line of a log.
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// It, with its colours.
    pub html: text::Html,
    /// It is the first that looks like an error.
    pub error: bool,
}

impl RunPage {
    fn took(&self) -> String {
        let summary = &self.run.summary;
        let end = summary.ended_at.unwrap_or(self.frame.now.0);
        text::duration(u64::try_from(end - summary.started_at).unwrap_or_default())
    }

    /// Names of the jobs that a job waits for.
    fn needs<'a>(&'a self, job: &'a JobPart) -> impl Iterator<Item = &'a str> {
        let at = |need: &u32| self.run.jobs.get(usize::try_from(*need).ok()?);
        job.view.needs.iter().filter_map(at).map(|job| job.name.as_str())
    }

    fn outcome(&self) -> &str {
        self.run.summary.outcome.as_deref().unwrap_or("running")
    }

    /// How many jobs each group has, in words.
    fn counts(&self) -> String {
        let all = self.groups.iter().map(|group| format!("{} {}", group.jobs.len() + group.more, group.name));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// The groups in their order: what needs a person first.
const GROUPS: [&str; 8] =
    ["failed", "timed out", "errored", "running", "waiting", "cancelled", "passed", "skipped"];

/// In which group a job is.
pub fn group_of(job: &JobView) -> &'static str {
    match (job.stage.as_str(), job.outcome.as_deref()) {
        ("running", _) => "running",
        (_, Some("failed")) => "failed",
        (_, Some("timed_out")) => "timed out",
        (_, Some("errored")) => "errored",
        (_, Some("cancelled")) => "cancelled",
        (_, Some("passed")) => "passed",
        (_, Some("skipped")) => "skipped",
        _ => "waiting",
    }
}

/// `GET /{repo}/runs/{branch}/{run}`
pub async fn show(call: Call, _request: Request) -> Answer<Response> {
    let run = runs::show(call.clone(), Nothing {}).await?;
    let id = call.run()?;
    let groups = groups(&call, &id, &run.jobs).await?;
    let (url, branch_url) = (links::run(&id), links::branch(&id.gate));
    let mut crumbs = vec![crumb(format!("{} / {}", id.gate.repo, id.gate.branch), branch_url.clone())];
    if let Some(change) = run.summary.change {
        crumbs.push(crumb(format!("change {change}"), format!("/{}/changes/{change}", id.gate.repo)));
    }
    crumbs.push(crumb(format!("run {}", id.number), url.clone()));
    let cancel = Verb::Cancel { run: id.number, why: String::new() };
    let [cancels] = permitted(&call, id.gate.clone(), [cancel]).await?;
    let page = RunPage { frame: Frame::within(&call, crumbs)?, cancels, run, id, url, branch_url, groups };
    render(StatusCode::OK, &page)
}

async fn groups(call: &Call, id: &RunId, jobs: &[JobView]) -> Answer<Vec<Group>> {
    let mut groups = Vec::new();
    let mut excerpts = EXCERPTS_SHOWN;
    for name in GROUPS {
        let all: Vec<&JobView> = jobs.iter().filter(|job| group_of(job) == name).collect();
        if all.is_empty() {
            continue;
        }
        let mut parts = Vec::new();
        for job in all.iter().take(JOBS_SHOWN) {
            let went_wrong = matches!(name, "failed" | "timed out");
            let wanted = went_wrong && excerpts > 0;
            excerpts -= usize::from(wanted);
            let excerpt = if wanted { excerpt(call, &job.name).await? } else { None };
            parts.push(JobPart { beyond: went_wrong && !wanted, ..part(id, job, excerpt) });
        }
        let more = all.len() - parts.len();
        let open = name != "skipped";
        groups.push(Group { name, jobs: parts, more, open });
    }
    Ok(groups)
}

fn part(id: &RunId, job: &JobView, excerpt: Option<Excerpt>) -> JobPart {
    JobPart {
        url: links::job(id, &job.name),
        tests: job.failed_tests.iter().take(TESTS_SHOWN).cloned().collect(),
        more_tests: job.failed_tests.len().saturating_sub(TESTS_SHOWN),
        view: job.clone(),
        excerpt,
        beyond: false,
    }
}

async fn excerpt(call: &Call, job: &str) -> Answer<Option<Excerpt>> {
    let there = call.with_param("job", job);
    let FirstError { attempt, line, first, lines, .. } =
        logs::first_error(there, logs::Attempt::default()).await?;
    let mut style = sgr::Style::default();
    let numbered = lines.iter().zip(first..).map(|(text, number)| Line {
        number: number + 1,
        html: askama::filters::Safe(sgr::line(text.as_bytes(), &mut style)),
        error: Some(number) == line,
    });
    let lines: Vec<Line> = numbered.collect();
    Ok((!lines.is_empty()).then_some(Excerpt { attempt, lines }))
}
