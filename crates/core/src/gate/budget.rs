//! Budgets: how long it may take from a push to its verdict. Exceeding one alerts, and kills nothing.

use serde::{Deserialize, Serialize};

use super::reason::Span;
use super::{Change, GateState, Reason};
use crate::effect::{Effect, Plan};
use crate::ids::{ChangeNumber, CommitId, Timestamp};

/// How long a revision has waited for its verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wait {
    /// Since when it may be tested: its push, or what came later, as a vouching or the end of a draft.
    pub testable_since: Option<Timestamp>,
    /// When a run of it, or what keeps it from being tested at all, first said whether it may land. A retry does not make
    /// people wait again for that.
    pub verdict_at: Option<Timestamp>,
    /// The budget in seconds that it has exceeded. Stays: what is late does not become punctual by another definition.
    pub exceeded_seconds: Option<u32>,
}

/// The time that a revision has to its first verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Seconds in all.
    pub seconds: u32,
    /// Since when they count.
    pub since: Timestamp,
    /// When they are over.
    pub deadline: Timestamp,
    /// When the first verdict came, if it has.
    pub verdict_at: Option<Timestamp>,
}

impl Budget {
    /// Whether the verdict came too late, or is late.
    pub fn is_exceeded(&self, now: Timestamp) -> bool {
        self.verdict_at.unwrap_or(now) > self.deadline
    }
}

impl GateState {
    /// The budget of a change's newest revision; `None`: its definition has none, or nothing of it may run.
    pub fn budget(&self, change: &Change) -> Option<Budget> {
        let Wait { testable_since, verdict_at, exceeded_seconds } = change.wait;
        let since = testable_since?;
        let seconds = exceeded_seconds.or_else(|| self.budget_seconds(change))?;
        Some(Budget { seconds, since, deadline: since.plus_seconds(seconds), verdict_at })
    }

    /// What its own definition says; until that has been read, the branch's.
    fn budget_seconds(&self, change: &Change) -> Option<u32> {
        match (self.made_candidate(change), &*self.landed_graph) {
            (Some(candidate), _) => candidate.graph.budget_seconds,
            (None, Some((_, Ok(graph)))) => graph.budget_seconds,
            (None, _) => None,
        }
    }

    /// Remembers since when each newest revision may be tested.
    pub(super) fn note_testable(&mut self, now: Timestamp) {
        let stands = |change: &Change| {
            (change.facts.number, self.is_testable(change, now), change.wait.testable_since.is_some())
        };
        let moved: Vec<(ChangeNumber, bool)> = (self.changes.map().values().map(stands))
            .filter(|(_, may, did)| may != did)
            .map(|(number, may, _)| (number, may))
            .collect();
        for (number, may) in moved {
            let change = self.changes.get_mut(&number).expect("invariant: it was just found");
            change.wait.testable_since = may.then_some(now);
        }
    }

    pub(super) fn note_verdict(&mut self, number: ChangeNumber, revision: CommitId, now: Timestamp) {
        let waits =
            |change: &Change| change.facts.revision.commit == revision && change.wait.verdict_at.is_none();
        if self.changes.get(&number).is_some_and(waits) {
            let change = self.changes.get_mut(&number).expect("invariant: it was just found");
            change.wait.verdict_at = Some(now);
        }
    }

    /// A revision that cannot be tested, or would be tested by nothing, has its verdict without a run: it stands as it is
    /// until somebody changes it or its target.
    pub(super) fn note_refused(&mut self, now: Timestamp) {
        let open = self.changes.map().values().filter(|change| change.wait.verdict_at.is_none());
        let refused = open.filter(|change| self.candidate_obstacle(change, now).is_some());
        let refused: Vec<(ChangeNumber, CommitId)> =
            refused.map(|change| (change.facts.number, change.facts.revision.commit)).collect();
        refused.into_iter().for_each(|(number, revision)| self.note_verdict(number, revision, now));
    }

    /// Remembers what is late, before the next fact can make it look otherwise.
    pub(super) fn note_late(&mut self, now: Timestamp) {
        let open = self.changes.map().values().filter(|change| change.wait.exceeded_seconds.is_none());
        let late: Vec<(ChangeNumber, u32)> = open
            .filter_map(|change| Some((change.facts.number, self.budget(change)?)))
            .filter(|(_, budget)| budget.is_exceeded(now))
            .map(|(number, budget)| (number, budget.seconds))
            .collect();
        for (number, seconds) in late {
            let change = self.changes.get_mut(&number).expect("invariant: it was just found");
            change.wait.exceeded_seconds = Some(seconds);
        }
    }

    /// Shown as long as the verdict is not there.
    pub(super) fn over_budget(&self, change: &Change, now: Timestamp) -> Option<Reason> {
        let budget = self.budget(change)?;
        let late = budget.verdict_at.is_none() && budget.is_exceeded(now);
        late.then_some(Reason::OverBudget { budget_seconds: budget.seconds, since: budget.deadline })
    }

    /// One alert for each late revision, owed for as long as it is the newest one of an open change.
    pub(super) fn owe_budget_alerts(&self, plan: &mut Plan, now: Timestamp) {
        for change in self.changes.map().values() {
            let (number, revision) = (change.facts.number, change.facts.revision.commit);
            let budget = self.budget(change);
            let exceeded = budget.filter(|budget| budget.is_exceeded(now)).map(|budget| budget.seconds);
            if let Some(seconds) = change.wait.exceeded_seconds.or(exceeded) {
                let text = format!(
                    "change {number} at {} has no verdict within its budget of {}; `towpath change why {number}` \
                     says what it waits for",
                    revision.short(),
                    Span(seconds)
                );
                plan.owe(self.late_alert(number, revision), Effect::Alert { gate: self.id.clone(), text });
            } else if let Some(budget) = budget.filter(|budget| budget.verdict_at.is_none()) {
                plan.wake(Timestamp(budget.deadline.0 + 1));
            }
        }
    }
}
