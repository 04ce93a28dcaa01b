//! Landing, and what follows it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::proof::Standard;
use super::{Freeze, GateState, LandedRecord, Lost, PendingLanding, Reason, TestState};
use crate::act::{Act, LandedAct};
use crate::candidate::CandidateResult;
use crate::effect::Landing;
use crate::graph::Outcome;
use crate::ids::{CandidateId, ChangeNumber, CommitId, Timestamp};
use crate::message::RunReport;
use crate::run::counts;

/// Jobs of a failed run of the landed branch that are remembered one by one. Source: they are written with every turn that
/// touches the branch, and people mend single deployments one by one only where there are few.
const UNMENDED_MAX: usize = 100;

/// What came of a fast-forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LandTried {
    /// The branch was read back and contains the candidate.
    Landed,
    /// The branch was not at the tested parent: somebody else moved it.
    Moved {
        /// Where it is.
        tip: Option<CommitId>,
    },
    /// The forge confirmed it, but the branch that was read back lacks the commit.
    Broken {
        /// Where it is.
        tip: Option<CommitId>,
    },
    /// The change is no longer open for this branch, has another revision, or has lost something of this one: it was not
    /// landed.
    Gone,
    /// It was not tried: the gate took it back first.
    Withdrawn,
    /// The candidate's commit is no longer there, whole: a power cut may take what has not landed.
    Lost,
}

impl GateState {
    /// The landing that may be claimed now: the one that is due, unless a bell still asks for a look at the forge, as an
    /// approval may have been withdrawn. One look since it became due is enough: bells that ring all the time do not
    /// hold it for ever.
    pub fn landing(&self, now: Timestamp) -> Option<Landing> {
        self.landing_of(&self.on_deck(now), now)
    }

    /// The same where the queue is known already.
    pub(super) fn landing_of(&self, queue: &[ChangeNumber], now: Timestamp) -> Option<Landing> {
        self.due_landing_of(queue, now).filter(|landing| self.has_looked(landing.candidate))
    }

    pub(super) fn has_looked(&self, id: CandidateId) -> bool {
        let looked_since = |since| self.branch.read_began.is_some_and(|began| began >= since);
        !self.branch.flags.forge.is_set()
            || self.branch.due.is_some_and(|(due, since)| due == id && looked_since(since))
    }

    /// Remembers since when a landing is due.
    pub(super) fn note_due(&mut self, now: Timestamp) {
        let due = self.due_landing_of(&self.on_deck(now), now).map(|landing| landing.candidate);
        if due != self.branch.due.map(|(id, _)| id) {
            self.branch.edit().due = due.map(|id| (id, now));
        }
    }

    /// The head of the queue, if everything that its landing takes is there.
    pub(super) fn due_landing_of(&self, queue: &[ChangeNumber], now: Timestamp) -> Option<Landing> {
        if !self.landing_obstacles().is_empty() {
            return None;
        }
        let change = self.changes.get(queue.first()?)?;
        // Earlier results may meet the bar already: what runs of it is waited for all the same.
        let TestState::Passed(_) = self.test_state(change) else { return None };
        let (id, record) = self.candidate_at_tip(change)?;
        let Some(CandidateResult::Made(candidate)) = &record.result else { return None };
        match self.standard(candidate, change, now) {
            Standard::Met => Some(Landing {
                repo: self.id.repo.clone(),
                branch: self.id.branch.clone(),
                change: change.facts.number,
                revision: change.facts.revision.commit,
                came_at: change.facts.came.as_ref().map(|came| came.at),
                candidate: id,
                from: record.spec.parent,
                to: candidate.commit,
            }),
            Standard::Missing | Standard::Empty => None,
        }
    }

    /// Writes down what a landing will have been when a driver gets it: should the change be closed or pushed to while
    /// it lands, the record is complete all the same.
    pub(super) fn expect_landing(&mut self, landing: &Landing, now: Timestamp) {
        if let Some(act) = self.landed_act(landing, now) {
            self.landings.insert(landing.candidate, PendingLanding { act, withdrawn: false });
        }
    }

    pub(super) fn land_tried(&mut self, id: CandidateId, result: &LandTried, now: Timestamp) {
        if let Some(record) = self.candidates.get_mut(&id) {
            record.landings_tried += 1;
        }
        let Some(pending) = self.landings.get(&id).cloned() else { return };
        self.branch.edit().flags.forge.set(now);
        match result {
            LandTried::Withdrawn => return self.take_back(id, pending),
            LandTried::Lost => {
                self.make_again(id);
                return self.take_back(id, pending);
            }
            LandTried::Landed => self.confirm_landing(pending, now),
            // The read that the flag asks for says what has become of branch and change; nothing is decided on hearsay.
            LandTried::Moved { .. } | LandTried::Gone => self.branch.edit().tip = None,
            LandTried::Broken { tip } => {
                let (change, commit) = (pending.act.change, pending.act.commit.short());
                let found = tip.map_or_else(
                    || "there is no branch".to_owned(),
                    |tip| format!("the branch is at {}, without it", tip.short()),
                );
                let why = format!("change {change} was said to have landed as {commit}, but {found}");
                self.freeze_ourselves(Freeze { by: None, why, at: now, lost: None });
                self.branch.edit().tip = None;
            }
        }
        self.landings.remove(&id);
    }

    /// What is known of a landing that was not tried holds for the next one of the same commit.
    fn take_back(&mut self, id: CandidateId, pending: PendingLanding) {
        self.landings.insert(id, PendingLanding { withdrawn: true, ..pending });
    }

    /// The same description makes the same commit, so whatever was tested of it still counts.
    fn make_again(&mut self, id: CandidateId) {
        if let Some(record) = self.candidates.get_mut(&id) {
            record.losses += 1;
            record.result = None;
        }
    }

    /// What a new head says about landings whose end is not known: it may be that of one of them, seen before a driver
    /// could say so or after its server died; a head that has moved on ends what was taken back.
    pub(super) fn meet_landings(&mut self, tip: CommitId, began: Timestamp) {
        let done = self.landings.map().iter().find(|(_, pending)| pending.act.commit == tip);
        if let Some((id, pending)) = done.map(|(id, pending)| (*id, pending.clone())) {
            self.landings.remove(&id);
            self.confirm_landing(pending, began);
        }
        self.landings.retain(|_, pending| !pending.withdrawn || pending.act.parent == tip);
    }

    /// Whether a driver has a landing of which it has not told the end.
    pub fn is_landing(&self) -> bool {
        self.landings.map().values().any(|pending| !pending.withdrawn)
    }

    /// Whether it has one of this change: whatever stops the change may come too late for that.
    pub fn lands(&self, change: ChangeNumber) -> bool {
        self.landings.map().values().any(|pending| !pending.withdrawn && pending.act.change == change)
    }

    fn confirm_landing(&mut self, PendingLanding { act, .. }: PendingLanding, at: Timestamp) {
        let act = LandedAct { at, ..act };
        let (change, commit) = (act.change, act.commit);
        self.landed.insert(change, LandedRecord { commit, revision: act.revision, at, marked: false });
        self.changes.remove(&change);
        self.arrived.remove(&change);
        self.unnoted.insert(commit, ());
        let branch = self.branch.edit();
        branch.landed = Some((commit, at));
        (branch.settled_on, branch.lost) = (None, None);
        branch.last_tip = Some(commit);
        branch.tip = None;
        branch.deploy.wanted = Some((commit, act.tree));
        branch.deploy.restored = branch.deploy.maybe_done.contains(&commit);
        branch.deploy.by = None;
        self.note(Act::Landed(Box::new(act)));
    }

    fn landed_act(&self, landing: &Landing, now: Timestamp) -> Option<LandedAct> {
        let change = self.changes.get(&landing.change)?;
        let candidate = self.made_candidate(change)?;
        let grounds = self.proof(candidate, change, now)?;
        Some(LandedAct {
            gate: self.id.clone(),
            change: landing.change,
            revision: change.facts.revision.commit,
            candidate: landing.candidate,
            parent: landing.from,
            commit: landing.to,
            tree: candidate.tree,
            definition: candidate.definition,
            results: grounds.results,
            runs: grounds.runs,
            approvals: self.valid_approvals(change).map(|review| review.by).collect(),
            at: now,
        })
    }

    pub(super) fn freeze_ourselves(&mut self, freeze: Freeze) {
        if self.branch.frozen.is_none() {
            self.note(Act::Froze { gate: self.id.clone(), why: freeze.why.clone() });
            self.branch.edit().frozen = Some(freeze);
        } else if freeze.lost.is_none() {
            // A loss is looked for again at the unfreeze; nothing else would tell of this.
            self.branch.edit().freezes_next.get_or_insert(freeze);
        }
    }

    /// The deploy run that is under way.
    pub fn running_deploy(&self) -> Option<u64> {
        self.branch.deploy.run.filter(|run| self.runs.get(*run).is_some_and(super::RunRecord::is_running))
    }

    /// Whether nothing is deployed by itself now.
    pub(super) fn keeps_deploys(&self) -> bool {
        self.branch.frozen.is_some() || self.branch.foreign.is_some() || !self.halts.is_empty()
    }

    /// The deploy run that is not over, or has still to begin: its landing's definition is being read. One that a foreign push
    /// keeps from beginning is not waited for.
    pub(super) fn deploy_wait(&self) -> Option<Reason> {
        if let Some(run) = self.running_deploy() {
            return Some(Reason::WaitsForDeploy { run: self.run_id(run) });
        }
        let (commit, _) = self.branch.deploy.wanted.filter(|_| !self.keeps_deploys())?;
        Some(Reason::DeployIsDue { commit })
    }

    /// What the end of a run of the landed branch says about deployments that fail.
    pub(super) fn deploy_ended(&mut self, report: &RunReport, lost: Option<Lost>) {
        let number = report.run.number;
        let Some(run) = self.runs.get(number).filter(|run| run.change.is_none()) else { return };
        let commit = run.commit;
        if self.branch.deploy.run == Some(number) && report.outcome != Outcome::Passed {
            let unmended = report.jobs.iter().filter(|job| !counts(&job.result));
            let unmended: BTreeSet<String> = unmended.map(|job| job.name.clone()).collect();
            let deploy = &mut self.branch.edit().deploy;
            (deploy.alerted, deploy.lost) = (Some((commit, number)), lost);
            deploy.unmended = Some(unmended).filter(|jobs| (1..=UNMENDED_MAX).contains(&jobs.len()));
        } else {
            self.mend_deploy(commit, report);
        }
    }

    /// A job that did not pass after a landing has done so now, on that commit or on what the branch has come to since.
    fn mend_deploy(&mut self, commit: CommitId, report: &RunReport) {
        let deploy = &self.branch.deploy;
        let (Some((of, failed)), Some(unmended)) = (deploy.alerted, &deploy.unmended) else { return };
        let is_behind = commit != of && self.branch.last_tip != Some(commit);
        if report.run.number < failed || is_behind {
            return;
        }
        let passed = report.jobs.iter().filter(|job| job.result.outcome == Outcome::Passed);
        let mended: BTreeSet<String> = passed.map(|job| job.name.clone()).collect();
        if !unmended.is_disjoint(&mended) {
            let left = unmended - &mended;
            self.branch.edit().deploy.unmended = Some(left);
        }
    }

    /// Whether a change is among those that landed and are still on the forge's list.
    pub fn has_landed(&self, change: ChangeNumber) -> bool {
        self.landed.get(&change).is_some()
    }
}
