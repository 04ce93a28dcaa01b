//! Which alerts are news: what was told once is shown for as long as it is so.

use std::collections::BTreeSet;

use super::GateState;
use crate::effect::{EffectKey, Plan};
use crate::ids::{ChangeNumber, CommitId, Timestamp};

impl GateState {
    /// The alerts whose cause goes on, each by the key under which it was told. An alert that is not among them is history.
    pub fn alerts(&self, now: Timestamp) -> BTreeSet<EffectKey> {
        let mut told = Plan::default();
        self.owe_alerts(&mut told);
        self.owe_budget_alerts(&mut told, now);
        let over: BTreeSet<EffectKey> = self.alerts_over().collect();
        told.effects.into_keys().filter(|key| !over.contains(key)).collect()
    }

    /// The landed commit whose run did not pass, and the run, until a later one passes, or each of its jobs that failed has
    /// passed since. A run that is under way mends nothing yet.
    pub fn failed_deploy(&self) -> Option<(CommitId, u64)> {
        let deploy = &self.branch.deploy;
        let ended = deploy.run.filter(|_| self.running_deploy().is_none());
        let is_mended = deploy.unmended.as_ref().is_some_and(BTreeSet::is_empty);
        deploy.alerted.filter(|(_, failed)| !is_mended && ended.is_none_or(|newest| newest == *failed))
    }

    /// Alerts that stay owed, so that each is told once, although what they tell of is over.
    fn alerts_over(&self) -> impl Iterator<Item = EffectKey> {
        let mended = self.branch.deploy.alerted.filter(|_| self.failed_deploy().is_none());
        let decided = self.changes.map().values().filter(|change| change.wait.verdict_at.is_some());
        let late = decided.map(|change| (change.facts.number, change.facts.revision.commit));
        let late = late.map(|(number, revision)| self.late_alert(number, revision));
        mended
            .map(|(commit, _)| EffectKey::once("alert-deploy", self.about(commit), 1))
            .into_iter()
            .chain(late)
    }

    /// The alert of a revision whose verdict is late.
    pub(super) fn late_alert(&self, number: ChangeNumber, revision: CommitId) -> EffectKey {
        EffectKey::once("alert-budget", format!("{} {number} {revision}", self.id), 1)
    }
}
