//! Changes as they are read: facts of the forge, and what the gate makes of them.

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::gate::{Change, Gate, GateState, Reason, Vouch};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, GateId, RepoName, Timestamp};
use towpath_core::turn::Live;
use towpath_forge::ChangeRecord;
use towpath_store::records::{ChangeQuery, RunQuery};
use towpath_store::{ReadError, View};

use super::change_views::{
    BudgetView, ChangeLine, ChangeView, Entry, GateView, HoldView, ReasonView, VouchView, WhyView, check,
    comments, reviews, revisions,
};
use super::checklist::{Item, checklist, why_open};
use super::{Nothing, millis, page_rows};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};
use crate::http::links;
use crate::http::records::{self, Names};

/// Runs of a change that its view names.
const RUNS_SHOWN: usize = 50;

/// Which changes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// `open` (the default), `closed`, `landed` or `all`.
    #[serde(default)]
    pub state: Option<String>,
    /// Only for this branch.
    #[serde(default)]
    pub target: Option<String>,
    /// Only of this owner, by name.
    #[serde(default)]
    pub owner: Option<String>,
    /// Only with this label.
    #[serde(default)]
    pub label: Option<String>,
    /// Only numbers below this one: where the page before ended.
    #[serde(default)]
    pub below: Option<u64>,
    /// Rows at most.
    #[serde(default)]
    pub count: Option<usize>,
}

/// `GET /api/v1/repos/{repo}/changes`, newest first.
pub async fn list(call: Call, filter: Filter) -> Answer<Vec<ChangeLine>> {
    let repo = call.repo()?;
    let state = match filter.state.as_deref().unwrap_or("open") {
        "all" => None,
        state @ ("open" | "closed" | "landed") => Some(state.to_owned()),
        _ => return Err(ApiError::invalid("`state` is `open`, `closed`, `landed` or `all`")),
    };
    let target: Option<BranchName> = filter.target.as_deref().map(str::parse).transpose()?;
    call.read(move |view| {
        target.iter().try_for_each(|target| was_a_target(view, &repo, target))?;
        let owner = match &filter.owner {
            None => None,
            Some(name) => match view.user_by_name(name)? {
                Some(user) => Some(user.id),
                // As of somebody who owns nothing: who has an account is not everybody's business.
                None => return Ok(Vec::new()),
            },
        };
        let query = ChangeQuery {
            repo: Some(repo),
            target,
            state,
            owner,
            below: filter.below.map(ChangeNumber),
            count: Some(page_rows(filter.count)),
            ..ChangeQuery::default()
        };
        let mut names = Names::new(view);
        let wanted =
            |change: &ChangeRecord| filter.label.as_ref().is_none_or(|label| change.labels.contains(label));
        let found = records::changes(view, &query)?.into_iter().filter(wanted);
        Ok(found.map(|change| ChangeLine::of(&change, &mut names)).collect::<Result<_, _>>()?)
    })
    .await
}

/// Changes that landed on a branch, each with when it did; the newest landing first.
///
/// # Errors
/// They cannot be read.
pub async fn landed(call: &Call, gate: GateId, count: usize) -> Answer<Vec<(ChangeLine, i64)>> {
    call.read(move |view| {
        let mut names = Names::new(view);
        let line = |(number, at): (ChangeNumber, Timestamp)| {
            let change = records::change(view, &gate.repo, number)?;
            Ok((ChangeLine::of(&change, &mut names)?, millis(at)))
        };
        view.landings(&gate, count)?.into_iter().map(line).collect()
    })
    .await
}

/// Whether changes are, or once were, for a branch.
fn was_a_target(view: &View, repo: &RepoName, target: &BranchName) -> Answer<()> {
    let settings = records::settings(view, repo)?;
    let query = ChangeQuery {
        repo: Some(repo.clone()),
        target: Some(target.clone()),
        count: Some(1),
        ..ChangeQuery::default()
    };
    if settings.branches.contains_key(target) || !records::changes(view, &query)?.is_empty() {
        return Ok(());
    }
    let why = format!("no change was ever for `{target}`, which is no watched branch of `{repo}`");
    Err(ApiError::not_found(why).hint("`towpath branch list` shows the watched branches"))
}

/// A change's record.
///
/// # Errors
/// `NotFound` if there is none, `Unavailable` if the forge has one that cannot be read.
pub(super) async fn record(call: &Call, repo: &RepoName, number: ChangeNumber) -> Answer<ChangeRecord> {
    let name = repo.clone();
    match call.read(move |view| records::change(view, &name, number)).await {
        Err(error) if error.class == Class::NotFound => {
            let (branch, reason) = unreadable(call, repo, number).await?.ok_or(error)?;
            let why = format!("change {number} is out of reach: {reason}");
            let hint = reason.hint(number, &branch);
            Err(ApiError { hint, ..ApiError::new(Class::Unavailable, why) })
        }
        found => found,
    }
}

/// Why a change without a row cannot be read. The gate of the default branch has such from the forge.
async fn unreadable(
    call: &Call,
    repo: &RepoName,
    number: ChangeNumber,
) -> Answer<Option<(BranchName, Reason)>> {
    let (name, now) = (repo.clone(), call.now());
    let branch = call.read(move |view| Ok(records::settings(view, &name)?.default_branch)).await?;
    let id = GateId { repo: repo.clone(), branch: branch.clone() };
    let reasons = call.shared().engine.gate(id, move |live| live.state.reasons(number, now)).await;
    let reason = reasons.into_iter().flatten().find(|reason| matches!(reason, Reason::Unreadable { .. }));
    Ok(reason.map(|reason| (branch, reason)))
}

/// `GET /api/v1/repos/{repo}/changes/{change}`
pub async fn show(call: Call, _: Nothing) -> Answer<ChangeView> {
    let (repo, number, now) = (call.repo()?, call.change()?, call.now());
    let record = record(&call, &repo, number).await?;
    let id = GateId { repo: repo.clone(), branch: record.target.clone() };
    let seen = call.shared().engine.gate(id, move |live| Seen::of(live, number, now)).await.flatten();
    let site = call.edge.site.url.clone();
    call.read(move |view| {
        let mut names = Names::new(view);
        let query = RunQuery {
            repo: Some(repo.clone()),
            change: Some(number),
            count: RUNS_SHOWN,
            ..RunQuery::default()
        };
        let runs = view.runs(&query)?.iter().map(super::runs::RunSummary::of).collect();
        let checks = view.checks(&repo, number, &record.target)?;
        let newest = record.newest().commit;
        let (gate, definition) = match seen {
            Some(seen) => (Some(seen.view(&mut names)?), seen.definition_of(newest)),
            None => (None, None),
        };
        Ok(ChangeView {
            line: ChangeLine::of(&record, &mut names)?,
            repo: repo.to_string(),
            body: record.body.clone(),
            message: record.message().to_string(),
            definition,
            source: record.source.as_ref().map(ToString::to_string),
            url: format!("{site}{}", links::change(&repo, number)),
            revisions: revisions(&record, &mut names)?,
            reviews: reviews(&record, &mut names)?,
            comments: comments(&record, &mut names)?,
            checks: checks.iter().rev().map(check).collect(),
            runs,
            gate,
        })
    })
    .await
}

/// What is taken out of a gate's memory: little, and quickly.
struct Seen {
    entry: Entry,
    place: Option<usize>,
    checklist: Vec<Item>,
    change: Change,
    budget: Option<BudgetView>,
    definition: Option<String>,
    /// How somebody's word for the revision stands.
    vouched: &'static str,
}

impl Seen {
    fn of(live: &Live<Gate>, number: ChangeNumber, now: Timestamp) -> Option<Seen> {
        let state = &live.state;
        let change = state.changes().get(&number)?.clone();
        Some(Seen {
            entry: Entry::of(state, number, now)?,
            place: state.queue(now).iter().position(|other| *other == number).map(|at| at + 1),
            checklist: checklist(live, &change, now),
            definition: state.edited_definition(&change).map(|definition| definition.to_string()),
            budget: state.budget(&change).map(|budget| BudgetView::of(budget, now)),
            vouched: change.vouch.as_ref().map_or("", |vouch| standing(state, &change, (vouch, now))),
            change,
        })
    }

    /// The definition that a revision would land; none is known of one that the gate has not read.
    fn definition_of(self, revision: CommitId) -> Option<String> {
        self.definition.filter(|_| self.change.facts.revision.commit == revision)
    }

    fn view(&self, names: &mut Names<'_>) -> Result<GateView, ReadError> {
        let vouch = match &self.change.vouch {
            Some(vouch) => Some(VouchView {
                by: names.get(vouch.by)?,
                revision: vouch.revision.to_string(),
                definition: vouch.definition.as_ref().map(ToString::to_string),
                why: vouch.why.clone(),
                at: millis(vouch.at),
                expires: millis(vouch.expires),
                standing: self.vouched.to_owned(),
            }),
            None => None,
        };
        Ok(GateView {
            checklist: self.checklist.clone(),
            entry: self.entry.clone(),
            place: self.place,
            hold: self.change.hold.as_ref().map(|hold| HoldView {
                by: hold.by.clone(),
                why: hold.why.clone(),
                at: millis(hold.at),
            }),
            vouch,
            since: millis(self.change.since),
            budget: self.budget.clone(),
        })
    }
}

fn standing(state: &GateState, change: &Change, (vouch, now): (&Vouch, Timestamp)) -> &'static str {
    match state.vouch_holds(change, vouch, now) {
        true => "holds",
        false if vouch.expires <= now => "ended",
        false => "void",
    }
}

/// `GET /api/v1/repos/{repo}/changes/{change}/why`
pub async fn why(call: Call, _: Nothing) -> Answer<WhyView> {
    let (repo, number, now) = (call.repo()?, call.change()?, call.now());
    let name = repo.clone();
    let line = move |view: &towpath_store::Snapshot| {
        let record = records::change(view, &name, number)?;
        let line = ChangeLine::of(&record, &mut Names::new(view))?;
        Ok((record.target, line))
    };
    let (branch, line) = match call.read(line).await {
        Err(error) if error.class == Class::NotFound => {
            let (branch, reason) = unreadable(&call, &repo, number).await?.ok_or(error)?;
            let reasons = vec![ReasonView::of(&reason, number, &branch)];
            return Ok(WhyView { change: number.0, state: "open".to_owned(), landed: None, reasons });
        }
        found => found?,
    };
    let reasons = match line.state.as_str() {
        "open" => {
            let id = GateId { repo, branch: branch.clone() };
            let reasons = call.shared().engine.gate(id, move |live| why_open(live, number, now)).await;
            reasons.unwrap_or_else(|| vec![Reason::ReadingBranch])
        }
        _ => Vec::new(),
    };
    let reasons = reasons.iter().map(|reason| ReasonView::of(reason, number, &branch)).collect();
    Ok(WhyView { change: number.0, state: line.state, landed: line.landed, reasons })
}
