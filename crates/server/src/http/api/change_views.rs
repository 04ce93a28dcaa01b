//! Changes as they are shown.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::{Budget, GateState, Reason, TestState, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, Timestamp};
use towpath_forge::{ChangeRecord, ChangeState, CommentRecord, ReviewRecord, RevisionRecord};
use towpath_store::ReadError;
use towpath_store::records::StoredCheck;

use super::checklist::Item;
use super::{millis, word};
use crate::http::records::Names;

/// A change as the gate orders it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Its number.
    pub change: u64,
    /// Its title.
    pub title: String,
    /// Its revision.
    pub revision: String,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// Whether nothing of it runs.
    pub draft: bool,
    /// What is known of its tests: `untested`, `running`, `passed`, `failed`, `errored`, `cancelled`.
    pub tests: String,
    /// The run that says so.
    pub run: Option<String>,
    /// How far it is trusted.
    pub level: String,
    /// Why it has not landed, most actionable first.
    pub reasons: Vec<ReasonView>,
}

/// One reason why a change has not landed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ReasonView {
    /// Its kind.
    pub reason: String,
    /// A sentence.
    pub text: String,
    /// What belongs to it and takes a line each: the errors of a pipeline file.
    #[serde(default)]
    pub details: Vec<String>,
    /// What to do about it; absent: nothing but wait.
    pub hint: Option<String>,
    /// Whether it keeps the change out of the queue until a person acts.
    pub blocks: bool,
}

impl ReasonView {
    /// A reason that a change to `target` has, for people.
    pub fn of(reason: &Reason, change: ChangeNumber, target: &BranchName) -> ReasonView {
        let json = serde_json::to_value(reason).unwrap_or_default();
        ReasonView {
            reason: json["reason"].as_str().unwrap_or_default().to_owned(),
            text: reason.to_string(),
            details: reason.details().to_vec(),
            hint: reason.hint(change, target),
            blocks: reason.keeps_out_of_queue(),
        }
    }
}

impl Entry {
    /// A change that is open at a gate.
    pub fn of(state: &GateState, number: ChangeNumber, now: Timestamp) -> Option<Entry> {
        let change = state.changes().get(&number)?;
        let (tests, run) = tests(state.test_state(change));
        let facts = &change.facts;
        let reasons = state.reasons(number, now);
        let reason = |reason: &Reason| ReasonView::of(reason, number, &state.id.branch);
        Some(Entry {
            change: number.0,
            title: facts.title.clone(),
            revision: facts.revision.commit.to_string(),
            labels: facts.labels.clone(),
            draft: facts.draft,
            tests: tests.to_owned(),
            run: run.map(|run| format!("{}/{run}", state.id)),
            level: word(&state.level(change, now)),
            reasons: reasons.iter().map(reason).collect(),
        })
    }
}

fn tests(state: TestState) -> (&'static str, Option<u64>) {
    match state {
        TestState::Untested => ("untested", None),
        TestState::Running(run) => ("running", Some(run)),
        TestState::Passed(run) => ("passed", Some(run)),
        TestState::Failed(run) => ("failed", Some(run)),
        TestState::Errored(run) => ("errored", Some(run)),
        TestState::Cancelled(run) => ("cancelled", Some(run)),
    }
}

/// A change in a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChangeLine {
    /// Its number.
    pub change: u64,
    /// Its title.
    pub title: String,
    /// The branch that it is for.
    pub target: String,
    /// Who opened it.
    pub owner: String,
    /// `open`, `closed` or `landed`.
    pub state: String,
    /// Whether nothing of it runs.
    pub draft: bool,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// Its newest revision.
    pub revision: String,
    /// The commit that it landed as.
    pub landed: Option<String>,
    /// When it was opened.
    pub created_at: i64,
    /// When it last changed.
    pub updated_at: i64,
}

impl ChangeLine {
    /// A change as its record has it.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(change: &ChangeRecord, names: &mut Names<'_>) -> Result<ChangeLine, ReadError> {
        let landed = match change.state {
            ChangeState::Landed { commit } => Some(commit.to_string()),
            ChangeState::Open | ChangeState::Closed { .. } => None,
        };
        Ok(ChangeLine {
            change: change.number.0,
            title: change.title.clone(),
            target: change.target.to_string(),
            owner: names.get(change.owner)?,
            state: state_word(&change.state).to_owned(),
            draft: change.draft,
            labels: change.labels.clone(),
            revision: change.newest().commit.to_string(),
            landed,
            created_at: millis(change.created_at),
            updated_at: millis(change.updated_at),
        })
    }
}

fn state_word(state: &ChangeState) -> &'static str {
    match state {
        ChangeState::Open => "open",
        ChangeState::Closed { .. } => "closed",
        ChangeState::Landed { .. } => "landed",
    }
}

/// A change, whole.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChangeView {
    /// Its line in lists.
    #[serde(flatten)]
    pub line: ChangeLine,
    /// The repo.
    pub repo: String,
    /// The rest of its words.
    pub body: String,
    /// Identifies title and body: an approval names it, so that it counts for just these words.
    pub message: String,
    /// The definition that would land, where the change edits it: an approval names it.
    pub definition: Option<String>,
    /// The branch name that it was pushed as.
    pub source: Option<String>,
    /// Its page.
    pub url: String,
    /// Its revisions, oldest first.
    pub revisions: Vec<RevisionView>,
    /// Reviews that were not withdrawn, oldest first.
    pub reviews: Vec<ReviewView>,
    /// What people said, oldest first.
    pub comments: Vec<CommentView>,
    /// Its checks, newest first.
    pub checks: Vec<CheckView>,
    /// Its runs, newest first.
    pub runs: Vec<super::runs::RunSummary>,
    /// What the gate makes of it; absent when it is not open there.
    pub gate: Option<GateView>,
}

/// One head commit.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RevisionView {
    /// Counts from 1.
    pub number: u32,
    /// The commit.
    pub commit: String,
    /// Who uploaded it.
    pub uploader: String,
    /// When.
    pub at: i64,
}

/// One review.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ReviewView {
    /// Who.
    pub by: String,
    /// `approve` or `request_changes`.
    pub verdict: String,
    /// On which revision.
    pub revision: String,
    /// Whether it is about what would land now.
    pub current: bool,
    /// The words with it.
    pub text: String,
    /// When.
    pub at: i64,
}

/// One comment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CommentView {
    /// Counts from 1.
    pub number: u32,
    /// Who.
    pub by: String,
    /// The words.
    pub text: String,
    /// When.
    pub at: i64,
}

/// The verdict shown on a revision.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CheckView {
    /// Of which revision.
    pub revision: String,
    /// `pending`, `passed`, `failed`.
    pub verdict: String,
    /// One sentence.
    pub text: String,
    /// The run that it is about.
    pub run: Option<String>,
    /// Since when.
    pub at: i64,
}

/// What a gate makes of a change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct GateView {
    /// Its place in the order of the branch.
    #[serde(flatten)]
    pub entry: Entry,
    /// What landing takes, item by item.
    pub checklist: Vec<Item>,
    /// Its place in the queue, from 1.
    pub place: Option<usize>,
    /// Who holds it, and why.
    pub hold: Option<HoldView>,
    /// Who vouched for this revision, and why.
    pub vouch: Option<VouchView>,
    /// Since when this revision is known.
    pub since: i64,
    /// How long its verdict may take; absent: its definition does not say, or nothing of it may run.
    pub budget: Option<BudgetView>,
}

/// The time from push to verdict.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BudgetView {
    /// Seconds in all.
    pub seconds: u32,
    /// Since when they count.
    pub since: i64,
    /// When they are over.
    pub deadline: i64,
    /// When the first verdict came.
    pub verdict_at: Option<i64>,
    /// Whether the verdict came too late, or is late.
    pub exceeded: bool,
}

impl BudgetView {
    /// A budget as it stands now.
    pub(super) fn of(budget: Budget, now: Timestamp) -> BudgetView {
        BudgetView {
            seconds: budget.seconds,
            since: millis(budget.since),
            deadline: millis(budget.deadline),
            verdict_at: budget.verdict_at.map(millis),
            exceeded: budget.is_exceeded(now),
        }
    }
}

/// A person's stop.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HoldView {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: i64,
}

/// A maintainer's word for one revision.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VouchView {
    /// Who.
    pub by: String,
    /// For which commit.
    pub revision: String,
    /// For which definition; absent: that of the first candidate, which is not made yet.
    #[serde(default)]
    pub definition: Option<String>,
    /// Why.
    pub why: String,
    /// When.
    pub at: i64,
    /// When it ends.
    pub expires: i64,
    /// `holds`; `ended`, by the clock; or `void`, as its giver no longer maintains the repo.
    pub standing: String,
}

pub(super) fn revisions(
    change: &ChangeRecord,
    names: &mut Names<'_>,
) -> Result<Vec<RevisionView>, ReadError> {
    let view = |revision: &RevisionRecord| {
        Ok(RevisionView {
            number: revision.number,
            commit: revision.commit.to_string(),
            uploader: names.get(revision.uploader)?,
            at: millis(revision.at),
        })
    };
    change.revisions.iter().map(view).collect()
}

pub(super) fn reviews(change: &ChangeRecord, names: &mut Names<'_>) -> Result<Vec<ReviewView>, ReadError> {
    let (newest, message) = (change.newest().commit, change.message());
    let view = |record: &ReviewRecord| {
        let review = &record.review;
        Ok(ReviewView {
            by: names.get(review.by)?,
            verdict: word(&review.verdict),
            revision: review.revision.to_string(),
            current: review.revision == newest
                && (review.verdict == Verdict::RequestChanges
                    || (review.message == message && review.target == change.target)),
            text: record.text.clone(),
            at: millis(review.at),
        })
    };
    change.reviews.iter().map(view).collect()
}

pub(super) fn comments(change: &ChangeRecord, names: &mut Names<'_>) -> Result<Vec<CommentView>, ReadError> {
    let view = |comment: &CommentRecord| {
        Ok(CommentView {
            number: comment.number,
            by: names.get(comment.by)?,
            text: comment.text.clone(),
            at: millis(comment.at),
        })
    };
    change.comments.iter().map(view).collect()
}

pub(super) fn check(stored: &StoredCheck) -> CheckView {
    CheckView {
        revision: stored.revision.to_string(),
        verdict: word(&stored.check.verdict),
        text: stored.check.text.clone(),
        run: stored.check.run.as_ref().map(ToString::to_string),
        at: millis(stored.at),
    }
}

/// Why a change has not landed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WhyView {
    /// The change.
    pub change: u64,
    /// `open`, `closed` or `landed`.
    pub state: String,
    /// The commit that it landed as.
    pub landed: Option<String>,
    /// Why it has not landed, most actionable first. Never empty for a change that is open at its gate.
    pub reasons: Vec<ReasonView>,
}
