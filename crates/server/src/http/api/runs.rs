//! Runs: lists of them, one with its jobs and graph, and stopping one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::CellId;
use towpath_core::gate::Verb;
use towpath_core::ids::{BranchName, ChangeNumber, RepoName, RunId, Timestamp};
use towpath_core::run::{Run, RunState};
use towpath_core::turn::Live;
use towpath_store::View;
use towpath_store::records::{RunCursor, RunQuery, RunRow};

use super::jobs::JobView;
use super::{Nothing, Said, Why, changes, checked_why, command, millis, page_rows, word};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};
use crate::http::{links, records};

/// A run in a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// `repo/branch/number`.
    pub run: String,
    /// The branch.
    pub branch: String,
    /// Its number there.
    pub number: u64,
    /// What started it.
    pub trigger: String,
    /// For which change.
    pub change: Option<u64>,
    /// The commit under test.
    pub commit: String,
    /// Why it was started.
    pub reason: String,
    /// How it ended; absent: it is not over.
    pub outcome: Option<String>,
    /// A job of it ran without a sandbox.
    pub unsandboxed: bool,
    /// Since when.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl RunSummary {
    /// A row of the list.
    pub fn of(row: &RunRow) -> RunSummary {
        RunSummary {
            run: row.run.to_string(),
            branch: row.run.gate.branch.to_string(),
            number: row.run.number,
            trigger: word(&row.trigger),
            change: row.change.map(|change| change.0),
            commit: row.commit.to_string(),
            reason: row.reason.clone(),
            outcome: row.outcome.as_ref().map(word),
            unsandboxed: row.unsandboxed,
            started_at: millis(row.started_at),
            ended_at: row.ended_at.map(millis),
        }
    }
}

/// Which runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only of this branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// Only for this change.
    #[serde(default)]
    pub change: Option<u64>,
    /// Only those that are not over.
    #[serde(default)]
    pub running: bool,
    /// Only what comes after this run in the list: the last `run` of the page before.
    #[serde(default)]
    pub after: Option<String>,
    /// Rows at most.
    #[serde(default)]
    pub count: Option<usize>,
}

/// `GET /api/v1/repos/{repo}/runs`, newest first.
pub async fn list(call: Call, filter: Filter) -> Answer<Vec<RunSummary>> {
    let repo = call.repo()?;
    let branch: Option<BranchName> = filter.branch.as_deref().map(str::parse).transpose()?;
    let after: Option<RunId> = filter.after.as_deref().map(str::parse).transpose()?;
    if after.as_ref().is_some_and(|after| after.gate.repo != repo) {
        return Err(ApiError::invalid("`after` is a run of another repo"));
    }
    let (asked, change) = (repo.clone(), filter.change.map(ChangeNumber));
    let found = call.read(move |view| {
        let after = match after {
            None => None,
            Some(run) => view.run(&run)?.map(|row| RunCursor { started_at: row.started_at, run }),
        };
        let query = RunQuery {
            repo: Some(repo.clone()),
            branch: branch.clone(),
            change,
            unended: filter.running,
            after,
            count: page_rows(filter.count),
        };
        let found = view.runs(&query)?;
        if found.is_empty() {
            could_have_runs(view, &repo, &query)?;
        }
        Ok(found.iter().map(RunSummary::of).collect::<Vec<_>>())
    });
    let found = found.await?;
    if let Some(change) = change.filter(|_| found.is_empty()) {
        changes::record(&call, &asked, change).await?;
    }
    Ok(found)
}

/// Whether the branch is there at all that a list without rows asks about.
fn could_have_runs(view: &View, repo: &RepoName, query: &RunQuery) -> Answer<()> {
    let Some(branch) = &query.branch else { return Ok(()) };
    let ever =
        RunQuery { repo: Some(repo.clone()), branch: Some(branch.clone()), count: 1, ..RunQuery::default() };
    if records::settings(view, repo)?.branches.contains_key(branch) || !view.runs(&ever)?.is_empty() {
        return Ok(());
    }
    Err(ApiError::not_found(format!("`{branch}` is no watched branch of `{repo}`, so it has no runs"))
        .hint("`towpath branch list` shows those that there are; `--change NUMBER` lists those of a change"))
}

/// A run, whole.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// Its line in lists.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its page.
    pub url: String,
    /// The revision of the change that it is for.
    pub revision: Option<String>,
    /// How far everything in it is trusted.
    pub level: String,
    /// Jobs whose needs are done and that only lack a slot.
    pub ready: usize,
    /// Its jobs. A job's needs always come before it: this list is the graph.
    pub jobs: Vec<JobView>,
}

/// `GET /api/v1/repos/{repo}/runs/{branch}/{run}`
pub async fn show(call: Call, _: Nothing) -> Answer<RunView> {
    let (id, now) = (call.run()?, call.now());
    let url = format!("{}{}", call.edge.site.url, links::run(&id));
    look(&call, id.clone(), move |view, state| {
        let row = view.run(&id)?;
        let summary = row.map(|row| RunSummary::of(&row)).or_else(|| unlisted(&id, state));
        let summary = summary.ok_or_else(|| no_run(&id))?;
        let start = state.start().ok_or_else(|| no_run(&id))?;
        Ok(RunView {
            summary,
            url,
            revision: start.change.map(|(_, revision)| revision.to_string()),
            level: word(&start.level),
            ready: state.ready(),
            jobs: start.graph.iter().map(|(index, spec)| JobView::of(state, (index, spec), now)).collect(),
        })
    })
    .await
}

/// A run whose line is not in the list yet: its first turn is being committed.
fn unlisted(id: &RunId, state: &RunState) -> Option<RunSummary> {
    let start = state.start()?;
    Some(RunSummary {
        run: id.to_string(),
        branch: id.gate.branch.to_string(),
        number: id.number,
        trigger: word(&start.trigger),
        change: start.change.map(|(change, _)| change.0),
        commit: start.commit.to_string(),
        reason: start.reason.clone(),
        outcome: state.ended().map(|(outcome, _)| word(&outcome)),
        unsandboxed: false,
        started_at: millis(state.started_at()),
        ended_at: state.ended().map(|(_, at): (_, Timestamp)| millis(at)),
    })
}

/// Looks at a run as its rows say. They are what the loop has in memory, as of its last commit, and reading them here
/// keeps a graph of 10,000 jobs from being turned into text on the loop's thread.
///
/// # Errors
/// `NotFound`; those of `with` and of the store.
pub async fn look<T, F>(call: &Call, id: RunId, with: F) -> Answer<T>
where
    T: Send + 'static,
    F: FnOnce(&View, &RunState) -> Answer<T> + Send + 'static,
{
    call.read(move |view| {
        let cell = CellId::Run(id.clone());
        let stored = view.cell(&cell)?;
        let head = stored.head.ok_or_else(|| no_run(&id))?;
        let live: Live<Run> =
            Live::load(cell, head.epoch, &stored.rows, Vec::new()).map_err(ApiError::internal)?;
        with(view, &live.state)
    })
    .await
}

/// There is no such run.
pub fn no_run(id: &RunId) -> ApiError {
    ApiError::not_found(format!("there is no run {id}")).hint("`towpath runs` lists those that there are")
}

/// `POST /api/v1/repos/{repo}/runs/{branch}/{run}/cancel`
pub async fn cancel(call: Call, input: Why) -> Answer<Said> {
    let id = call.run()?;
    let why = checked_why(&input.why)?;
    match command(&call, id.gate.clone(), Verb::Cancel { run: id.number, why }).await {
        Err(error) if error.class == Class::NotFound => Err(not_running(&call, id, error).await?),
        other => other,
    }
}

/// Why a run cannot be cancelled that its gate does not have as a running one.
async fn not_running(call: &Call, id: RunId, error: ApiError) -> Answer<ApiError> {
    call.read(move |view| {
        let Some(row) = view.run(&id)? else { return Ok(no_run(&id)) };
        let Some(outcome) = RunSummary::of(&row).outcome else { return Ok(error) };
        let over = ApiError::new(Class::Conflict, format!("run {id} is over: {}", outcome.replace('_', " ")));
        Ok(over.hint("`towpath runs --running` lists those that can be cancelled"))
    })
    .await
}
