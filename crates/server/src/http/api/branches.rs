//! Watched branches: what their gates know, and what can be asked of a whole branch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::{Flag, Gate, GateState, Lost, Verb};
use towpath_core::ids::{CommitId, GateId, Timestamp};
use towpath_core::turn::Live;
use towpath_store::records::{RunQuery, RunRow};

use super::alerts::{self, AlertView, Alerts};
use super::change_views::Entry;
use super::runs::RunSummary;
use super::{Nothing, Said, Why, checked_why, command, command_on_landed, gate, millis, word};
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::http::records;

/// Runs of the branch that its view names.
const RUNS_SHOWN: usize = 20;
/// Waiting runs of the pool that are named.
const WAITING_SHOWN: usize = 20;

/// A branch in a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BranchLine {
    /// Its name.
    pub branch: String,
    /// Its head.
    pub tip: Option<String>,
    /// Whether the branch is frozen.
    pub frozen: bool,
    /// Whether nothing lands on the whole server.
    pub halted: bool,
    /// Entries of the queue.
    pub queued: usize,
    /// Open changes for it.
    pub open_changes: usize,
    /// Runs under way.
    pub running: usize,
}

/// A branch, whole.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BranchView {
    /// The repo.
    pub repo: String,
    /// Its name.
    pub branch: String,
    /// Its head; absent before the first read and while a landing is read back.
    pub tip: Option<TipView>,
    /// What is to be looked at again.
    pub flags: FlagsView,
    /// Set while nothing lands here.
    pub frozen: Option<FreezeView>,
    /// What keeps everything on the server from landing; empty: nothing does.
    pub halts: Vec<HaltView>,
    /// A tip that somebody else put there and no admin has accepted.
    pub foreign: Option<String>,
    /// Alerts, newest first: those that are still so, and the newest that are history.
    pub alerts: Vec<AlertView>,
    /// How many more are still so.
    pub alerts_more: usize,
    /// The queue, next to land first.
    pub queue: Vec<Entry>,
    /// Open changes that are not in the queue.
    pub waiting: Vec<Entry>,
    /// Runs of the landed branch.
    pub deploy: DeployView,
    /// Runs under way.
    pub running: usize,
    /// The newest runs, newest first.
    pub runs: Vec<RunLine>,
    /// Jobs at once over all branches.
    pub pool: PoolView,
    /// Our newest landing.
    pub landed: Option<LandedView>,
}

impl BranchView {
    /// Its alerts.
    pub fn told(&self) -> Alerts {
        Alerts { shown: self.alerts.clone(), more: self.alerts_more }
    }
}

/// A branch's head.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TipView {
    /// The commit.
    pub commit: String,
    /// Its committer time.
    pub at: i64,
    /// When it landed; absent: it is no landing of ours, or a later one was lost.
    pub landed_at: Option<i64>,
    /// Every error of its definition; empty: it can be used.
    pub errors: Vec<String>,
}

/// The three dirty flags.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FlagsView {
    /// Read the forge again.
    pub forge: FlagView,
    /// Look at the runs again.
    pub runs: FlagView,
    /// Decide again.
    pub state: FlagView,
    /// When the forge was last read.
    pub read_at: Option<i64>,
}

/// One dirty flag.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FlagView {
    /// Something is still to be looked at.
    pub set: bool,
    /// When it was last rung.
    pub set_at: Option<i64>,
    /// What rang before this is dealt with.
    pub cleared_before: Option<i64>,
}

/// A stop of the whole branch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FreezeView {
    /// Who; absent: the server itself.
    pub by: Option<String>,
    /// Why.
    pub why: String,
    /// When.
    pub at: i64,
}

/// A stop of the whole server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HaltView {
    /// `disk` or `restore`.
    pub cause: String,
    /// Why.
    pub why: String,
    /// What ends it.
    pub mend: String,
}

/// Runs of the landed branch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeployView {
    /// A landed commit that waits for its run.
    pub wanted: Option<String>,
    /// The run under way.
    pub running: Option<String>,
    /// The newest run.
    pub newest: Option<String>,
    /// The newest commit whose run did not pass, until a later run passes.
    pub failed_commit: Option<String>,
    /// That run.
    pub failed_run: Option<String>,
    /// The environment that a job of it was to deploy to and did not; absent: nothing was to be deployed.
    pub failed_environment: Option<String>,
}

/// A run in the list of its branch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunLine {
    /// As in other lists.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Whether it still counts: `current`, `superseded`, `invalidated`; absent: the gate needs it no more.
    pub standing: Option<String>,
}

/// Jobs at once.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// In use, over all branches.
    pub held: u64,
    /// In all.
    pub slots: u64,
    /// Jobs that lie at the executor already, so that a slot that gets free has its next one at once.
    pub ready: u64,
    /// Runs of this repo that wait for a slot, next one first.
    pub waiting: Vec<String>,
}

/// A landing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LandedView {
    /// The commit.
    pub commit: String,
    /// When it was confirmed.
    pub at: i64,
}

/// `GET /api/v1/repos/{repo}/branches`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<BranchLine>> {
    let repo = call.repo()?;
    let name = repo.clone();
    let settings = call.read(move |view| records::settings(view, &name)).await?;
    let mut lines = Vec::new();
    for (id, _) in settings.gates(&repo) {
        let branch = id.branch.to_string();
        let now = call.now();
        let found = call.shared().engine.gate(id, move |live| line(&live.state, now)).await;
        lines.push(found.unwrap_or(BranchLine {
            branch,
            tip: None,
            frozen: false,
            halted: false,
            queued: 0,
            open_changes: 0,
            running: 0,
        }));
    }
    Ok(lines)
}

fn line(state: &GateState, now: Timestamp) -> BranchLine {
    let branch = state.branch();
    BranchLine {
        branch: state.id.branch.to_string(),
        tip: branch.tip.as_ref().map(|tip| tip.commit.to_string()),
        frozen: branch.frozen.is_some(),
        halted: !state.halts().is_empty(),
        queued: state.queue(now).len(),
        open_changes: state.changes().len(),
        running: running(state),
    }
}

fn running(state: &GateState) -> usize {
    state.runs().values().filter(|run| run.is_running()).count()
}

/// `GET /api/v1/repos/{repo}/branches/{branch}`
pub async fn show(call: Call, _: Nothing) -> Answer<BranchView> {
    let (id, now) = (call.gate()?, call.now());
    let (repo, slots) = (id.repo.clone(), u64::from(call.shared().settings.slots));
    let pool = call.shared().engine.pool(move |live| {
        let state = &live.state;
        let own = state.waiting().filter(|run| run.gate.repo == repo);
        let held = state.held().min(slots);
        PoolView {
            held,
            slots,
            ready: state.held() - held,
            waiting: own.take(WAITING_SHOWN).map(ToString::to_string).collect(),
        }
    });
    let pool = pool.await.unwrap_or_default();
    let runs = newest_runs(&call, &id).await?;
    let look = move |live: &Live<Gate>| {
        let runs = runs.iter().map(|row| run_line(&live.state, row)).collect();
        (BranchView { pool, runs, ..view(&live.state, now) }, live.state.alerts(now))
    };
    let (view, go_on) = gate(&call, id.clone(), look).await?;
    let Alerts { shown, more } = alerts::of(&call, &id, go_on).await?;
    Ok(BranchView { alerts: shown, alerts_more: more, ..view })
}

fn view(state: &GateState, now: Timestamp) -> BranchView {
    let branch = state.branch();
    let queue = state.queue(now);
    let entry = |number: &_| Entry::of(state, *number, now);
    BranchView {
        repo: state.id.repo.to_string(),
        branch: state.id.branch.to_string(),
        tip: branch.tip.as_ref().map(|tip| TipView {
            commit: tip.commit.to_string(),
            at: millis(tip.time),
            landed_at: branch.landed.filter(|(commit, _)| *commit == tip.commit).map(|(_, at)| millis(at)),
            errors: tip.settings.clone().err().unwrap_or_default(),
        }),
        flags: FlagsView {
            forge: flag(&branch.flags.forge),
            runs: flag(&branch.flags.runs),
            state: flag(&branch.flags.state),
            read_at: branch.read_at.map(millis),
        },
        frozen: branch.frozen.as_ref().map(|freeze| FreezeView {
            by: freeze.by.clone(),
            why: freeze.why.clone(),
            at: millis(freeze.at),
        }),
        halts: state
            .halts()
            .iter()
            .map(|(cause, why)| HaltView {
                cause: word(cause),
                why: why.clone(),
                mend: cause.mend().to_owned(),
            })
            .collect(),
        foreign: branch.foreign.map(|commit| commit.to_string()),
        alerts: Vec::new(),
        alerts_more: 0,
        waiting: state.ordered().iter().filter(|number| !queue.contains(number)).filter_map(entry).collect(),
        queue: queue.iter().filter_map(entry).collect(),
        deploy: deploy_view(state),
        running: running(state),
        runs: Vec::new(),
        pool: PoolView::default(),
        landed: branch.landed.map(|(commit, at)| LandedView { commit: commit.to_string(), at: millis(at) }),
    }
}

fn deploy_view(state: &GateState) -> DeployView {
    let deploy = &state.branch().deploy;
    let failed = state.failed_deploy();
    let lost = deploy.lost.as_ref().and_then(Lost::environment);
    let run = |number: u64| format!("{}/{number}", state.id);
    DeployView {
        wanted: deploy.wanted.map(|(commit, _)| commit.to_string()),
        running: state.running_deploy().map(run),
        newest: deploy.run.map(run),
        failed_commit: failed.map(|(commit, _)| commit.to_string()),
        failed_run: failed.map(|(_, number)| run(number)),
        failed_environment: failed.and(lost).map(ToString::to_string),
    }
}

fn flag(flag: &Flag) -> FlagView {
    FlagView {
        set: flag.is_set(),
        set_at: flag.set_at.map(millis),
        cleared_before: flag.cleared_before.map(millis),
    }
}

/// The newest runs of a branch, also those that its gate needs no more.
async fn newest_runs(call: &Call, gate: &GateId) -> Answer<Vec<RunRow>> {
    let (repo, branch) = (Some(gate.repo.clone()), Some(gate.branch.clone()));
    let query = RunQuery { repo, branch, count: RUNS_SHOWN, ..RunQuery::default() };
    call.read(move |view| Ok(view.runs(&query)?)).await
}

fn run_line(state: &GateState, row: &RunRow) -> RunLine {
    let standing = state.runs().get(&row.run.number).map(|run| word(&run.standing));
    RunLine { summary: RunSummary::of(row), standing }
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/freeze`
pub async fn freeze(call: Call, input: Why) -> Answer<Said> {
    let (why, id) = (checked_why(&input.why)?, call.gate()?);
    let newest = |live: &Live<Gate>| live.state.branch().landed.map(|(commit, _)| commit);
    let before = gate(&call, id.clone(), newest).await?;
    let said = command(&call, id.clone(), Verb::Freeze { why }).await?;
    let is_over = call.shared().patience(id.clone()).nothing_lands().await;
    let landed = gate(&call, id, newest).await?.filter(|landed| Some(*landed) != before);
    let more = match (landed, is_over) {
        (Some(commit), _) => Some(format!("{commit} was landing already, and has landed")),
        (None, true) => None,
        (None, false) => Some("a landing was under way and may still be done".into()),
    };
    Ok(Said::with(said.said, more))
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/unfreeze`
pub async fn unfreeze(call: Call, _: Nothing) -> Answer<Said> {
    command(&call, call.gate()?, Verb::Unfreeze).await
}

/// Which foreign push is accepted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The whole commit id, as it was seen.
    pub tip: String,
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/accept`
pub async fn accept(call: Call, input: Accept) -> Answer<Said> {
    let tip: CommitId = input.tip.parse()?;
    command(&call, call.gate()?, Verb::AcceptTip { tip }).await
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/deploy`
pub async fn deploy(call: Call, _: Nothing) -> Answer<Said> {
    command_on_landed(&call, call.gate()?, Verb::Deploy).await
}

/// What to run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunWhat {
    /// A job under `jobs:`; absent: every job with `on: [manual]`.
    #[serde(default)]
    pub job: Option<String>,
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/run`
pub async fn run(call: Call, input: RunWhat) -> Answer<Said> {
    command_on_landed(&call, call.gate()?, Verb::RunManual { job: input.job }).await
}

/// `POST /api/v1/repos/{repo}/branches/{branch}/ring`
pub async fn ring(call: Call, _: Nothing) -> Answer<Said> {
    let id: GateId = call.gate()?;
    gate(&call, id.clone(), |_| ()).await?;
    call.shared().ring(&id);
    Ok(Said::new(format!("rang {id}; it looks at everything again")))
}
