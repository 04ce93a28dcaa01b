//! Decisions that need memory: after each fact, runs are started and stopped, candidates asked for and forgotten, until
//! nothing changes. Asked again without a new fact, it does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::proof::Standard;
use super::runs::{Cancel, Phase};
use super::{CandidateRecord, Change, GateState, Retest, RunRecord, Standing, TestState};
use crate::act::Act;
use crate::candidate::{Candidate, CandidateResult};
use crate::graph::{JobGraph, Openings, Trigger};
use crate::ids::{CandidateId, ChangeNumber, CommitId, Timestamp, TreeId};
use crate::message::{CHANGE_FACT, RunStart, told};
use crate::policy::{Actor, Level};

/// Priorities of runs, larger first. Source: Hail CI builds the merge candidate before all others.
mod priority {
    pub const CHANGE: u8 = 50;
    pub const MANUAL: u8 = 60;
    pub const URGENT: u8 = 100;
    pub const QUEUE: u8 = 200;
    pub const LAND: u8 = 220;
}

/// Why a run of what landed is started.
pub(super) struct Cause {
    /// For people.
    pub reason: String,
    /// Who asked, if it was a person.
    pub by: Option<Actor>,
    /// When.
    pub now: Timestamp,
    /// It was owed when the data were saved.
    pub restored: bool,
}

impl GateState {
    /// Decides again where time alone has ended a vouch since the last look.
    pub(super) fn time_passed(&mut self, now: Timestamp) {
        let since = self.settled_at;
        let has_ended =
            |vouch: &super::Vouch| vouch.expires <= now && since.is_none_or(|since| since < vouch.expires);
        if self.changes.map().values().any(|change| change.vouch.as_ref().is_some_and(has_ended)) {
            self.settle(now);
        }
    }

    pub(super) fn settle(&mut self, now: Timestamp) {
        self.settled_at = Some(now);
        self.bind_vouches();
        self.note_testable(now);
        self.note_refused(now);
        self.stop_unowned_runs(now);
        self.ask_for_candidates(now);
        self.start_queue_runs(now);
        self.start_change_runs(now);
        self.start_deploy(now);
        self.note_due(now);
        self.forget_runs();
        self.clear_flags(now);
    }

    fn clear_flags(&mut self, now: Timestamp) {
        let after = Timestamp(now.0 + 1);
        if self.branch.flags.runs.is_set() || self.branch.flags.state.is_set() {
            let flags = &mut self.branch.edit().flags;
            flags.runs.clear_before(after);
            flags.state.clear_before(after);
        }
    }

    /// Runs that no open change owns at its newest revision, and queue runs of a tip that has moved.
    fn stop_unowned_runs(&mut self, now: Timestamp) {
        let running = self.runs.map().iter().filter(|(_, run)| run.is_running() && run.cancel.is_none());
        let stops: Vec<(u64, String)> =
            running.filter_map(|(number, run)| Some((*number, self.unowned(run, now)?))).collect();
        for (number, why) in stops {
            self.stop_run(number, Cancel { why, by_person: false });
        }
    }

    fn unowned(&self, run: &RunRecord, now: Timestamp) -> Option<String> {
        let (number, revision) = run.change?;
        let Some(change) = self.changes.get(&number) else {
            return Some(match self.branch.unreadable.contains_key(&number) {
                true => format!("change {number} cannot be read"),
                false => format!("change {number} is no longer open"),
            });
        };
        if change.facts.revision.commit != revision {
            return Some(format!("change {number} has a newer revision"));
        }
        if self.branch.tip.is_some() && !self.may_test(change, now) {
            return Some(format!("change {number} may no longer be tested"));
        }
        if self.level_in(run, change, now) < run.level {
            return Some(format!("change {number} is trusted less than it was"));
        }
        if run.opened && !self.is_still_opened(run, change) {
            return Some(format!("no maintainer stands for the pipeline of change {number} any more"));
        }
        let moved = self.branch.tip.as_ref().is_some_and(|tip| Some(tip.commit) != run.parent);
        (run.trigger == Trigger::Queue && moved).then(|| "the target moved".to_owned())
    }

    fn is_still_opened(&self, run: &RunRecord, change: &Change) -> bool {
        self.candidate_of(run).is_some_and(|candidate| self.approves_definition(change, candidate))
    }

    /// The candidate that a run tests, as long as it is remembered.
    pub(super) fn candidate_of(&self, run: &RunRecord) -> Option<&Candidate> {
        match self.candidates.get(&run.candidate?)?.result.as_ref()? {
            CandidateResult::Made(candidate) => Some(candidate),
            _ => None,
        }
    }

    /// Whether a change's candidate on the tip is of use: it is about to be tested, or stands in the queue.
    pub(super) fn wants_candidate(&self, change: &Change, now: Timestamp) -> bool {
        if change.slow.is_some() || !self.may_test(change, now) {
            return false;
        }
        let queued = || self.is_free_but_for_candidate(change, now);
        match self.test_state(change) {
            TestState::Untested => true,
            TestState::Running(_) => queued(),
            TestState::Passed(run) => queued() || self.is_due_again(run, change, now),
            TestState::Failed(run) | TestState::Errored(run) | TestState::Cancelled(run) => {
                self.is_due_again(run, change, now)
            }
        }
    }

    /// Whether the target has moved since a run and the server's `retest` says that this asks for another.
    fn is_due_again(&self, run: u64, change: &Change, now: Timestamp) -> bool {
        let Some(tip) = &self.branch.tip else { return false };
        let moved = self.runs.get(run).is_some_and(|run| run.parent != Some(tip.commit));
        moved
            && match self.config.retest {
                Retest::Candidate => false,
                Retest::Queued => self.is_free_but_for_candidate(change, now),
                Retest::All => true,
            }
    }

    /// Whether nothing but the candidate itself could keep the change out of the queue.
    fn is_free_but_for_candidate(&self, change: &Change, now: Timestamp) -> bool {
        use super::Reason::{Conflict, EmptySet, NoCandidate, NoJobs, NothingToLand, TooSlow};
        let of_candidate = |reason: &super::Reason| {
            matches!(
                reason,
                Conflict { .. } | NoCandidate { .. } | TooSlow { .. } | NothingToLand | EmptySet | NoJobs
            )
        };
        self.is_free(change, now) && self.candidate_obstacle(change, now).as_ref().is_none_or(of_candidate)
    }

    fn ask_for_candidates(&mut self, now: Timestamp) {
        // While the tip is not known, nobody knows which candidates are no longer of use, and each is asked for once.
        if self.branch.tip.is_none() {
            return;
        }
        let is_new = |change: &&Change| {
            self.candidate_id_at_tip(change).is_some_and(|id| self.candidates.get(&id).is_none())
        };
        let open = self.changes.map().values().filter(is_new);
        let wanted: BTreeMap<CandidateId, CandidateRecord> = open
            .filter(|change| self.wants_candidate(change, now))
            .filter_map(|change| {
                let spec = self.spec_at_tip(change)?;
                Some((
                    spec.id(),
                    CandidateRecord {
                        change: change.facts.number,
                        spec,
                        result: None,
                        landings_tried: 0,
                        losses: 0,
                    },
                ))
            })
            .collect();
        let in_use: BTreeSet<CandidateId> =
            self.runs.map().values().filter(|run| run.is_running()).filter_map(|run| run.candidate).collect();
        let at_tip: BTreeSet<CandidateId> =
            self.changes.map().values().filter_map(|change| self.candidate_id_at_tip(change)).collect();
        let landings = self.landings.map().keys().copied().collect::<BTreeSet<_>>();
        self.candidates.retain(|id, _| at_tip.contains(id) || in_use.contains(id) || landings.contains(id));
        for (id, record) in wanted {
            self.candidates.insert(id, record);
        }
    }

    pub(super) fn candidate_made(&mut self, id: CandidateId, result: &CandidateResult) {
        let Some(record) = self.candidates.get(&id).filter(|record| record.result.is_none()) else { return };
        let (number, revision) = (record.change, record.spec.revision);
        let record = self.candidates.get_mut(&id).expect("invariant: it was just found");
        record.result = Some(result.clone());
        match result {
            CandidateResult::Made(candidate) => self.note_edited(number, revision, candidate),
            CandidateResult::Conflict { paths } => {
                let why = format!("it conflicts with the branch in {}", paths.join(", "));
                self.note_ejected(number, revision, why);
            }
            CandidateResult::Impossible { why } => {
                let why = format!("it cannot be joined with the branch: {why}");
                self.note_ejected(number, revision, why);
            }
            CandidateResult::TooSlow { why } => {
                let is_meant = |change: &&mut Change| change.facts.revision.commit == revision;
                if let Some(change) = self.changes.get_mut(&number).filter(is_meant) {
                    change.slow = Some(why.clone());
                }
                self.note_ejected(number, revision, format!("it is not joined with the branch: {why}"));
            }
            CandidateResult::Empty | CandidateResult::BadDefinition { .. } => {}
        }
    }

    /// Remembers what the revision makes of the definition: the next candidate may be long in coming.
    fn note_edited(&mut self, number: ChangeNumber, revision: CommitId, candidate: &Candidate) {
        let edited = candidate.edited_definition();
        let is_news = |change: &Change| change.facts.revision.commit == revision && change.edited != edited;
        if self.changes.get(&number).is_some_and(is_news) {
            self.changes.get_mut(&number).expect("invariant: it was just found").edited = edited;
        }
    }

    /// A change whose tests had passed leaves the queue where it cannot be joined with the branch; one that never was in it does not.
    fn note_ejected(&mut self, change: ChangeNumber, revision: CommitId, why: String) {
        let known = self.changes.get(&change);
        if known.is_some_and(|known| matches!(self.test_state(known), TestState::Passed(_))) {
            self.note(Act::Ejected { gate: self.id.clone(), change, revision, why });
        }
    }

    /// Ties each vouch to the first definition it was good for; another definition voids it (trust T1).
    fn bind_vouches(&mut self) {
        let bound = |change: &Change| {
            let vouch = change.vouch.as_ref()?;
            let definition = self.made_candidate(change)?.definition;
            (vouch.definition != Some(definition)).then_some((change.facts.number, definition))
        };
        let differing: Vec<(ChangeNumber, crate::ids::Digest)> =
            self.changes.map().values().filter_map(bound).collect();
        for (number, definition) in differing {
            let change = self.changes.get_mut(&number).expect("invariant: it was just found");
            change.vouch = change
                .vouch
                .take()
                .filter(|vouch| vouch.definition.is_none())
                .map(|vouch| super::Vouch { definition: Some(definition), ..vouch });
        }
    }

    fn start_queue_runs(&mut self, now: Timestamp) {
        let deck = self.on_deck(now);
        for number in &deck {
            let Some(change) = self.changes.get(number).cloned() else { continue };
            let tested = matches!(self.test_state(&change), TestState::Passed(_));
            let lacks = self
                .made_candidate(&change)
                .is_some_and(|candidate| matches!(self.standard(candidate, &change, now), Standard::Missing));
            if tested && lacks {
                self.stop_queue_runs_but_of(&deck);
                self.start_run_of(&change, Trigger::Queue, now);
            }
        }
    }

    /// What is not on deck any more is tested again once what comes first has landed.
    fn stop_queue_runs_but_of(&mut self, deck: &[ChangeNumber]) {
        let is_off_deck = |run: &RunRecord| run.change.is_some_and(|(number, _)| !deck.contains(&number));
        let running = self.runs.map().iter().filter(|(_, run)| {
            run.is_running() && run.cancel.is_none() && run.trigger == Trigger::Queue && is_off_deck(run)
        });
        for number in running.map(|(number, _)| *number).collect::<Vec<u64>>() {
            let why = "another change comes first now".to_owned();
            self.stop_run(number, Cancel { why, by_person: false });
        }
    }

    /// As many as the cap allows, and what is on deck besides.
    fn start_change_runs(&mut self, now: Timestamp) {
        let deck = self.on_deck(now);
        let mut places = self.places(&deck);
        for number in self.ordered() {
            let is_next = deck.contains(&number);
            let taken = if is_next { places.taken_from_deck() } else { places.taken_from_others() };
            if taken.is_some() {
                continue;
            }
            let Some(change) = self.changes.get(&number) else { continue };
            let due = match self.test_state(change) {
                TestState::Untested => true,
                TestState::Running(_) => false,
                TestState::Passed(run)
                | TestState::Failed(run)
                | TestState::Errored(run)
                | TestState::Cancelled(run) => self.is_due_again(run, change, now) && !is_next,
            };
            if due && self.may_test(change, now) {
                let change = change.clone();
                self.start_run_of(&change, Trigger::Change, now);
                places = self.places(&deck);
            }
        }
    }

    fn start_run_of(&mut self, change: &Change, trigger: Trigger, now: Timestamp) {
        let Some((id, record)) = self.candidate_at_tip(change) else { return };
        let Some(CandidateResult::Made(candidate)) = &record.result else { return };
        let already = self.runs.map().values().any(|run| run.is_running() && run.candidate == Some(id));
        let level = self.level(change, now);
        if already || self.tests_nothing(candidate, change, now) {
            return;
        }
        let graph = self.jobs_for(candidate, change, trigger);
        let carried = self.carried(candidate, change, &graph, now);
        let granted = self.granted(candidate, change, level);
        let opened = granted.user_namespaces && graph.jobs.iter().any(|job| job.withheld().user_namespaces);
        let graph = graph.granting(granted);
        let (parent, commit, tree) = (record.spec.parent, candidate.commit, candidate.tree);
        let number = self.branch.runs + 1;
        let reason = self.run_reason(change, trigger);
        let facts = self.facts(Some(change));
        let told = Some(told(&facts));
        let start = RunStart {
            run: self.run_id(number),
            trigger,
            change: Some((change.facts.number, change.facts.revision.commit)),
            reason: reason.clone(),
            by: None,
            commit,
            tree,
            level,
            graph,
            carried,
            priority: self.run_priority(change, trigger),
            fail_fast: trigger == Trigger::Queue,
            restored: false,
            facts,
        };
        let run = RunRecord {
            trigger,
            change: Some((change.facts.number, change.facts.revision.commit)),
            candidate: Some(id),
            parent: Some(parent),
            commit,
            tree,
            level,
            told,
            opened,
            full: self.wants_all(change),
            reason,
            started_at: now,
            standing: Standing::Current,
            cancel: None,
            phase: Phase::Running { start: Arc::new(start) },
        };
        self.add_run(number, run);
    }

    /// What jobs of a change's own definition may have although the target does not grant it (trust T1, S1): whoever is
    /// authorised reaches the network; a sandbox that holds less takes a maintainer's word for just this definition.
    fn granted(&self, candidate: &Candidate, change: &Change, level: Level) -> Openings {
        let user_namespaces = self.approves_definition(change, candidate);
        Openings { network: level >= Level::Authorised, user_namespaces }
    }

    fn add_run(&mut self, number: u64, run: RunRecord) {
        self.branch.edit().runs = number;
        self.runs.insert(number, run);
    }

    fn run_priority(&self, change: &Change, trigger: Trigger) -> u8 {
        let urgent = change.facts.labels.contains(&self.config.labels.urgent);
        match trigger {
            Trigger::Queue => priority::QUEUE,
            _ if urgent => priority::URGENT,
            _ => priority::CHANGE,
        }
    }

    fn run_reason(&self, change: &Change, trigger: Trigger) -> String {
        let (number, revision) = (change.facts.number, &change.facts.revision);
        let is_of_revision = |(_, run): &(u64, &RunRecord)| run.change == Some((number, revision.commit));
        let earlier = self.runs.of_change(number).rev().find(is_of_revision).map(|(_, run)| run);
        match earlier {
            _ if trigger == Trigger::Queue => "merge candidate".into(),
            None if revision.number > 1 => format!("new revision {}", revision.commit.short()),
            None => "initial run".into(),
            Some(run) => match &run.standing {
                Standing::Current if run.trigger == Trigger::Change && run.is_stopped_by_gate() => {
                    "it may be tested again".into()
                }
                Standing::Current => "the target moved".into(),
                Standing::Superseded { without } if without.is_empty() => "retry of what did not pass".into(),
                Standing::Superseded { without } => {
                    let jobs: Vec<String> = without.iter().map(|job| format!("`{job}`")).collect();
                    format!("retry of {}", jobs.join(", "))
                }
                Standing::Invalidated => "retry".into(),
            },
        }
    }

    /// Plain data for the jobs' environment; never put into a script (trust T2).
    pub(super) fn facts(&self, change: Option<&Change>) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::from([
            ("REPO".to_owned(), self.id.repo.to_string()),
            ("BRANCH".to_owned(), self.id.branch.to_string()),
        ]);
        if let Some(change) = change {
            facts.insert(CHANGE_FACT.into(), change.facts.number.to_string());
            facts.insert("CHANGE_TITLE".into(), change.facts.title.clone());
        }
        facts
    }

    pub(super) fn start_landed_run(
        &mut self,
        trigger: Trigger,
        (commit, tree): (CommitId, TreeId),
        graph: JobGraph,
        Cause { reason, by, now, restored }: Cause,
    ) -> u64 {
        let number = self.branch.runs + 1;
        let level = self.run_level(trigger, None, now);
        let priority = if trigger == Trigger::Land { priority::LAND } else { priority::MANUAL };
        let start = RunStart {
            run: self.run_id(number),
            trigger,
            change: None,
            reason: reason.clone(),
            by,
            commit,
            tree,
            level,
            graph,
            carried: BTreeMap::new(),
            priority,
            fail_fast: false,
            restored,
            facts: self.facts(None),
        };
        let run = RunRecord {
            trigger,
            change: None,
            candidate: None,
            parent: None,
            commit,
            tree,
            level,
            told: None,
            opened: false,
            full: true,
            reason,
            started_at: now,
            standing: Standing::Current,
            cancel: None,
            phase: Phase::Running { start: Arc::new(start) },
        };
        self.add_run(number, run);
        number
    }

    /// Runs the newest landing's jobs: one run at a time, landings in between coalesce.
    fn start_deploy(&mut self, now: Timestamp) {
        let Some(wanted) = self.branch.deploy.wanted else { return };
        if self.keeps_deploys() || self.running_deploy().is_some() {
            return;
        }
        let graph = match &*self.landed_graph {
            Some((commit, Ok(graph))) if *commit == wanted.0 => graph.select(Trigger::Land),
            Some((commit, Err(_))) if *commit == wanted.0 => JobGraph::default(),
            _ => return,
        };
        let deploy = &mut self.branch.edit().deploy;
        deploy.wanted = None;
        let (by, restored) = (deploy.by.take(), std::mem::take(&mut deploy.restored));
        if graph.jobs.is_empty() {
            // There is nothing that could pass, so whatever failed before is no news any more.
            (deploy.run, deploy.alerted) = (None, None);
            return;
        }
        let again = by.as_ref().map(|by| format!(", asked for again by {}", by.name)).unwrap_or_default();
        let reason = format!("landing of {}{again}", wanted.0.short());
        let number = self.start_landed_run(Trigger::Land, wanted, graph, Cause { reason, by, now, restored });
        self.branch.edit().deploy.run = Some(number);
    }
}
