//! Who is in the queue, in which order, and why not.

use std::cmp::Reverse;

use super::proof::Standard;
use super::runs::Loss;
use super::{
    CandidateRecord, Change, ForgeChange, GateState, Reason, Review, TestState, Tip, Verdict, message_digest,
};
use crate::candidate::{Candidate, CandidateResult, CandidateSpec, Strategy, is_reserved_trailer};
use crate::graph::Trigger;
use crate::ids::{CandidateId, ChangeNumber, CommitId, Digest, Timestamp};
use crate::policy::{Level, Role};

/// Candidates tested at once. The chain of parents below is written for any number; more than one is speculation.
pub const WINDOW: usize = 1;
/// Changes named as being ahead.
const AHEAD_SHOWN_MAX: usize = 5;

/// Where a change stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// The whole queue.
    queue: &'a [ChangeNumber],
    /// Whether the change is in it.
    is_in: bool,
}

impl<'a> Place<'a> {
    fn deck(self) -> &'a [ChangeNumber] {
        &self.queue[..self.queue.len().min(WINDOW)]
    }
}

impl GateState {
    /// Changes in the order in which they get runs and land: urgent ones, then those whose tests allow landing, then
    /// undecided ones, then the rest; the oldest first among equals. Source: Hail CI's priority tuple; unlike there, a
    /// blocked change is no merge candidate however urgent it is.
    pub fn ordered(&self) -> Vec<ChangeNumber> {
        let mut order: Vec<&Change> = self.changes.map().values().collect();
        order.sort_by_cached_key(|change| {
            let labels = &self.config.labels;
            let has = |label: &String| change.facts.labels.contains(label);
            let tests = match self.test_state(change) {
                TestState::Passed(_) => 2,
                // Its own tests have passed; it keeps its place while it is tested as it would land.
                TestState::Running(run)
                    if self.runs.get(run).is_some_and(|run| run.trigger == Trigger::Queue) =>
                {
                    2
                }
                TestState::Untested | TestState::Running(_) => 1,
                TestState::Failed(_) | TestState::Errored(_) | TestState::Cancelled(_) => 0,
            };
            let ready = !has(&labels.wip) && !has(&labels.stacked);
            (Reverse((has(&labels.urgent), ready, tests)), change.facts.number)
        });
        order.into_iter().map(|change| change.facts.number).collect()
    }

    /// Entries of the queue, next to land first.
    pub fn queue(&self, now: Timestamp) -> Vec<ChangeNumber> {
        self.queued(now).collect()
    }

    /// The same, looked for as far as it is asked for.
    fn queued(&self, now: Timestamp) -> impl Iterator<Item = ChangeNumber> {
        let in_queue = move |number: &ChangeNumber| {
            let change = self.changes.get(number);
            change.is_some_and(|change| {
                self.is_free(change, now) && self.candidate_obstacle(change, now).is_none()
            })
        };
        self.ordered().into_iter().filter(in_queue)
    }

    /// The changes that may have a candidate of the queue now.
    pub(super) fn on_deck(&self, now: Timestamp) -> Vec<ChangeNumber> {
        self.queued(now).take(WINDOW).collect()
    }

    /// Why a change has not landed, most actionable first. Never empty for an open change (I16).
    pub fn reasons(&self, number: ChangeNumber, now: Timestamp) -> Vec<Reason> {
        self.reasons_in(&self.queue(now), number, now)
    }

    /// The same where the queue is known already.
    pub(super) fn reasons_in(
        &self,
        queue: &[ChangeNumber],
        number: ChangeNumber,
        now: Timestamp,
    ) -> Vec<Reason> {
        let Some(change) = self.changes.get(&number) else {
            return self.why_unseen(number).into_iter().collect();
        };
        let mut reasons = self.keeps_out(change, now);
        let place = Place { queue, is_in: reasons.is_empty() };
        reasons.extend(self.waits(change, now, place));
        reasons.extend(self.over_budget(change, now));
        reasons.extend(self.last_to_land(change, now));
        reasons
    }

    /// Said while it can still be helped: what it does to those after it shows only when it is too late.
    fn last_to_land(&self, change: &Change, now: Timestamp) -> Option<Reason> {
        let candidate = self.made_candidate(change)?;
        let lands = self.candidate_obstacle(change, now).is_none();
        (candidate.requires_nothing && lands).then_some(Reason::LastToLand)
    }

    /// Why a change is not among those that the gate has from the forge.
    fn why_unseen(&self, number: ChangeNumber) -> Option<Reason> {
        match self.branch.unreadable.get(&number) {
            // It is on the branch; the forge is being told.
            _ if self.has_landed(number) => Some(Reason::Landing),
            unreadable => unreadable.map(|why| Reason::Unreadable { why: why.clone() }),
        }
    }

    /// Everything that a person has to change before the change can be in the queue.
    pub(super) fn keeps_out(&self, change: &Change, now: Timestamp) -> Vec<Reason> {
        let mut reasons = self.own_obstacles(change, now);
        reasons.extend(self.candidate_obstacle(change, now));
        reasons.extend(self.test_obstacle(change));
        reasons.extend(self.review_obstacles(change));
        reasons
    }

    /// Whether nothing that a person has to change keeps the change out, its candidate left aside.
    pub(super) fn is_free(&self, change: &Change, now: Timestamp) -> bool {
        self.test_obstacle(change).is_none()
            && self.own_obstacles(change, now).is_empty()
            && self.review_obstacles(change).is_empty()
    }

    /// Whether jobs of the change may run at all.
    pub(super) fn may_test(&self, change: &Change, now: Timestamp) -> bool {
        self.branch.tip.is_some() && self.is_testable(change, now)
    }

    /// The same, whether the branch is being read back or not.
    pub(super) fn is_testable(&self, change: &Change, now: Timestamp) -> bool {
        self.keeps_from_tests(change, now).is_none()
    }

    /// Why no job of the change may run, whatever the branch does.
    pub(super) fn keeps_from_tests(&self, change: &Change, now: Timestamp) -> Option<Reason> {
        let (facts, no_test) = (&change.facts, &self.config.labels.no_test);
        if self.level(change, now) == Level::Untrusted {
            return Some(Reason::Untrusted { revision: facts.revision.commit });
        }
        if facts.draft {
            return Some(Reason::Draft);
        }
        facts.labels.contains(no_test).then(|| Reason::Label { label: no_test.clone() })
    }

    /// Whether the branch's head is about to be known: the end of a landing asks for a look at it, too.
    pub(super) fn is_reading(&self) -> bool {
        self.branch.read_at.is_none() || self.branch.flags.forge.is_set() || self.is_landing()
    }

    fn own_obstacles(&self, change: &Change, now: Timestamp) -> Vec<Reason> {
        let facts = &change.facts;
        let labels = &self.config.labels;
        let mut reasons = Vec::new();
        if let Some(tip) = self.branch.unaccepted() {
            reasons.push(Reason::NotAccepted { tip });
        } else if self.branch.tip.is_none() && !self.is_reading() {
            reasons.push(Reason::NoBranch);
        }
        if self.level(change, now) == Level::Untrusted {
            reasons.push(Reason::Untrusted { revision: facts.revision.commit });
        }
        if facts.draft {
            reasons.push(Reason::Draft);
        }
        let stopping = [&labels.never, &labels.wip, &labels.stacked, &labels.no_test];
        for label in stopping.into_iter().filter(|label| facts.labels.contains(*label)) {
            reasons.push(Reason::Label { label: label.clone() });
        }
        if let Some(came) = self.arriving(change) {
            reasons.push(Reason::Arriving { from: came.from.clone() });
        }
        if let Some(hold) = &change.hold {
            reasons.push(Reason::Held { by: hold.by.clone(), why: hold.why.clone() });
        }
        reasons
    }

    pub(super) fn candidate_obstacle(&self, change: &Change, now: Timestamp) -> Option<Reason> {
        let Some(result) = self.candidate_result(change) else {
            return change.slow.clone().map(|why| Reason::TooSlow { why });
        };
        match result {
            CandidateResult::Conflict { paths } => Some(Reason::Conflict { paths: paths.clone() }),
            CandidateResult::Empty => Some(Reason::NothingToLand),
            CandidateResult::Impossible { why } => Some(Reason::NoCandidate { why: why.clone() }),
            CandidateResult::TooSlow { why } => Some(Reason::TooSlow { why: why.clone() }),
            CandidateResult::BadDefinition { errors, .. } => {
                Some(Reason::BadDefinition { errors: errors.clone() })
            }
            CandidateResult::Made(candidate) => match self.standard(candidate, change, now) {
                Standard::Empty if candidate.graph.jobs.is_empty() => Some(Reason::NoJobs),
                Standard::Empty => Some(Reason::EmptySet),
                Standard::Met | Standard::Missing => None,
            },
        }
    }

    fn test_obstacle(&self, change: &Change) -> Option<Reason> {
        match self.test_state(change) {
            TestState::Failed(run) | TestState::Errored(run) => self.lost_by(run),
            TestState::Cancelled(number) => {
                let cancel = self.runs.get(number).and_then(|run| run.cancel.as_ref());
                let why = cancel.map(|cancel| cancel.why.clone()).unwrap_or_default();
                Some(Reason::RunCancelled { run: self.run_id(number), why })
            }
            TestState::Untested | TestState::Running(_) | TestState::Passed(_) => None,
        }
    }

    /// Why a run that is over keeps its change from landing.
    fn lost_by(&self, number: u64) -> Option<Reason> {
        let (loss, reports) = self.runs.get(number)?.lost()?;
        let run = self.run_id(number);
        let jobs = reports.iter().map(|report| report.name.clone()).collect();
        Some(match loss {
            Loss::Failed => Reason::TestsFailed { run, jobs },
            Loss::Errored => Reason::OurMachines { run, jobs },
            Loss::Aborted | Loss::LeftOut => {
                let why = reports.first().map(|report| report.result.why.clone()).unwrap_or_default();
                Reason::NotRun { run, jobs, why }
            }
        })
    }

    fn review_obstacles(&self, change: &Change) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let revision = change.facts.revision.commit;
        let against =
            self.current_reviews(change).filter(|review| review.verdict == Verdict::RequestChanges).count();
        if against > 0 {
            reasons.push(Reason::ChangesRequested { people: against });
        }
        let need = self.approvals_needed();
        let have = self.valid_approvals(change).count() as u32;
        if have < need {
            reasons.push(Reason::Approvals { have, need, revision });
        } else if have == 0
            && let Some(user) = self.unauthorised(change)
        {
            // A vouch lets a revision run. Nobody authorised has brought it, so somebody says that it may land.
            let role = self.rights(user).map_or(Role::Author, |rights| rights.role);
            reasons.push(Reason::Unauthorised { revision, role });
        } else if self.lacks_definition_approval(change) {
            reasons.push(Reason::DefinitionApproval { revision });
        }
        reasons
    }

    /// Any edit of the definition takes a maintainer's approval of the very definition that would land.
    fn lacks_definition_approval(&self, change: &Change) -> bool {
        let Some(candidate) = self.made_candidate(change) else { return false };
        candidate.edits_definition() && !self.approves_definition(change, candidate)
    }

    /// Whether a maintainer stands for just the definition that a candidate has. Where the branch asks for no approval at
    /// all, a maintainer's own upload says so, too, if nobody else uploaded any of it.
    pub(super) fn approves_definition(&self, change: &Change, candidate: &Candidate) -> bool {
        let approved =
            self.valid_approvals(change).any(|review| review.definition == Some(candidate.definition));
        let own = self.approvals_needed() == 0
            && change.facts.revision.uploaders().all(|user| self.is_maintainer(user));
        approved || own
    }

    fn approvals_needed(&self) -> u32 {
        self.settings().approvals.unwrap_or(self.config.approvals)
    }

    fn is_maintainer(&self, user: crate::ids::UserId) -> bool {
        self.rights(user).is_some_and(|rights| rights.role >= Role::Maintainer)
    }

    /// Each person's newest review that is about what would land now, by somebody who has the right now (T8, I18). An approval is
    /// of words and target, too; an objection to a revision is not answered by other ones.
    fn current_reviews<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = &'a Review> {
        let facts = &change.facts;
        let reviews = &facts.reviews;
        let message = self.message(change);
        let newest = move |review: &&Review| {
            let later = |other: &Review| other.by == review.by && other.at > review.at;
            !reviews.iter().any(later)
        };
        reviews.iter().filter(newest).filter(move |review| {
            let objects = review.verdict == Verdict::RequestChanges;
            review.revision == facts.revision.commit
                && (objects || (review.target == self.id.branch && review.message == message))
                && self.is_maintainer(review.by)
        })
    }

    fn message(&self, change: &Change) -> Digest {
        let ForgeChange { title, body, .. } = &change.facts;
        change.message.get(
            |(of_title, of_body)| of_title == title && of_body == body,
            || ((title.clone(), body.clone()), message_digest(title, body)),
        )
    }

    /// Approvals that count: of nobody who uploaded any of it, or may have.
    pub(super) fn valid_approvals<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = &'a Review> {
        let revision = &change.facts.revision;
        self.current_reviews(change)
            .filter(move |review| review.verdict == Verdict::Approve && !revision.may_be_of(review.by))
    }

    /// What the machine itself still has to do. Shown also while a person has to act, where it says something.
    fn waits(&self, change: &Change, now: Timestamp, place: Place) -> Vec<Reason> {
        let number = change.facts.number;
        let mut reasons = Vec::new();
        if self.branch.tip.is_none() && self.is_reading() {
            reasons.push(Reason::ReadingBranch);
        }
        reasons.extend(self.test_wait(change, now, place));
        reasons.extend(self.tested_again(change, now));
        if let Place { queue, is_in: true } = place {
            let ahead: Vec<ChangeNumber> =
                queue.iter().copied().take_while(|other| *other != number).take(AHEAD_SHOWN_MAX).collect();
            if !ahead.is_empty() {
                reasons.push(Reason::Ahead { changes: ahead });
            }
            reasons.extend(self.landing_obstacles());
            if reasons.is_empty() {
                let unseen =
                    self.due_landing_of(queue, now).is_some_and(|due| !self.has_looked(due.candidate));
                reasons.push(if unseen { Reason::ReadingBranch } else { Reason::Landing });
            }
        }
        reasons
    }

    fn test_wait(&self, change: &Change, now: Timestamp, place: Place) -> Option<Reason> {
        if !self.may_test(change, now) {
            return None;
        }
        let untested = self.test_state(change) == TestState::Untested;
        match self.test_state(change) {
            TestState::Running(run) => return Some(Reason::WaitsForRun { run: self.run_id(run) }),
            _ if !untested && !place.is_in => return None,
            _ => {}
        }
        let deck = place.deck();
        let taken = || {
            let places = self.places(deck);
            match deck.contains(&change.facts.number) {
                true => places.taken_from_deck(),
                false => places.taken_from_others(),
            }
        };
        match self.candidate_at_tip(change) {
            None if self.wants_candidate(change, now) => Some(Reason::MakingCandidate),
            Some((_, CandidateRecord { result: None, .. })) => Some(Reason::MakingCandidate),
            Some((_, CandidateRecord { result: Some(CandidateResult::Made(made)), .. }))
                if untested && !self.tests_nothing(made, change, now) =>
            {
                taken().map(|running| Reason::WaitsForChangeRuns { running: running as u32 })
            }
            _ => None,
        }
    }

    /// Said before it is the merge candidate, too: until then its newest run has passed, but not as it would have to.
    pub(super) fn tested_again(&self, change: &Change, now: Timestamp) -> Option<Reason> {
        let TestState::Passed(run) = self.test_state(change) else { return None };
        let is_full = self.runs.get(run).is_some_and(|run| run.full);
        if is_full || !self.wants_all(change) || !self.may_test(change, now) {
            return None;
        }
        let lacks = |candidate| self.standard(candidate, change, now) == Standard::Missing;
        let label = self.config.labels.rerun_all.clone();
        self.made_candidate(change).is_none_or(lacks).then_some(Reason::TestedAgain { label })
    }

    /// What keeps every entry of the queue from landing.
    pub fn landing_obstacles(&self) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self.halt_reasons().collect();
        if let Some(freeze) = &self.branch.frozen {
            let by = freeze.by.clone().unwrap_or_else(|| "the server".into());
            reasons.push(Reason::Frozen { by, why: freeze.why.clone() });
        }
        reasons.extend(self.deploy_wait().filter(|_| self.config.wait_for_deploy));
        reasons
    }

    /// The candidate of a change on top of the tip, if it was asked for.
    pub(super) fn candidate_at_tip(&self, change: &Change) -> Option<(CandidateId, &CandidateRecord)> {
        let id = self.candidate_id_at_tip(change)?;
        self.candidates.get(&id).map(|record| (id, record))
    }

    /// What the candidate of a change on top of the tip is called, made or not.
    pub(super) fn candidate_id_at_tip(&self, change: &Change) -> Option<CandidateId> {
        let tip = self.branch.tip.as_ref()?;
        let facts = &change.facts;
        let bases =
            (tip.commit, tip.time, self.settings().strategy, facts.revision.commit, facts.revision.time);
        let is_same =
            |made: &MadeOf| made.bases == bases && made.title == facts.title && made.body == facts.body;
        Some(change.candidate.get(is_same, || {
            let spec = spec(tip, self.settings().strategy, change);
            (MadeOf { bases, title: facts.title.clone(), body: facts.body.clone() }, spec.id())
        }))
    }

    /// What came of joining a change with the tip. `None`: nobody has tried yet.
    pub fn candidate_result(&self, change: &Change) -> Option<&CandidateResult> {
        self.candidate_at_tip(change)?.1.result.as_ref()
    }

    /// The definition that a change would land, if it edits it: what reviewers are shown, and approve. On the tip its
    /// candidate says so, before there is one the newest of its revision. Should the two differ, an approval of the one is
    /// none of the other.
    pub fn edited_definition(&self, change: &Change) -> Option<Digest> {
        match self.made_candidate(change) {
            Some(candidate) => candidate.edited_definition(),
            None => change.edited,
        }
    }

    /// The candidate of a change on top of the tip, if it could be made.
    pub fn made_candidate(&self, change: &Change) -> Option<&Candidate> {
        match self.candidate_result(change)? {
            CandidateResult::Made(candidate) => Some(candidate),
            _ => None,
        }
    }

    pub(super) fn spec_at_tip(&self, change: &Change) -> Option<CandidateSpec> {
        Some(spec(self.branch.tip.as_ref()?, self.settings().strategy, change))
    }
}

/// Everything that decides a candidate's id, beside the number of its change.
#[derive(Debug, Clone)]
pub struct MadeOf {
    bases: (CommitId, Timestamp, Strategy, CommitId, Timestamp),
    title: String,
    body: String,
}

fn spec(tip: &Tip, strategy: Strategy, change: &Change) -> CandidateSpec {
    let facts = &change.facts;
    CandidateSpec {
        parent: tip.commit,
        revision: facts.revision.commit,
        strategy,
        message: landed_message(strategy, change),
        time: tip.time.max(facts.revision.time),
    }
}

/// The message of the landed commit, fixed by what the approvals were bound to.
fn landed_message(strategy: Strategy, change: &Change) -> String {
    let facts = &change.facts;
    let body: Vec<&str> = facts.body.lines().filter(|line| !is_reserved_trailer(line.as_bytes())).collect();
    let body = body.join("\n");
    let subject = match strategy {
        Strategy::Merge => format!("Merge change {}: {}", facts.number, facts.title),
        Strategy::Squash | Strategy::Rebase => facts.title.clone(),
    };
    let body = if body.trim().is_empty() { String::new() } else { format!("{}\n\n", body.trim_end()) };
    format!("{subject}\n\n{body}Change-Number: {}\n", facts.number)
}
