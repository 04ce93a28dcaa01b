//! Drivers: each carries out one effect by its key, may fail in every way, and answers with what is true.

use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, JobOrder, Landing};
use towpath_core::gate::{ForgeRead, GateEvent, HaltCause, LandTried, Snapshot};
use towpath_core::graph::{JobResult, Lease, Outcome};
use towpath_core::ids::{CandidateId, CommitId, GateId, LeaseId};
use towpath_core::outbox::{Trouble, TroubleClass};
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;

use super::{Ev, Task, TaskStage, World};
use crate::fake::definition;
use crate::fake::executor;
use crate::fake::git::DEFINITION;
use crate::fake::store::AnyIntake;
use crate::mutant::Mutant;

/// Milliseconds until an answer is in the inbox, usually at most.
const ANSWER_MS_MAX: i64 = 50;
/// Milliseconds until a slow read is back.
const SLOW_READ_MS: (i64, i64) = (10_000, 600_000);
/// Milliseconds that a job takes.
const JOB_MS: (i64, i64) = (20_000, 900_000);
/// Milliseconds before a failed effect is tried again, doubled with each try up to the most.
const RETRY_MS: i64 = 1_000;
const RETRY_MS_MAX: i64 = 120_000;

/// What a driver found out.
enum Found {
    /// The result, if the effect has one.
    Gate(Option<GateEvent>),
    /// The executor has it and will say.
    Later,
    /// The end of a job.
    Job(Lease, Box<JobResult>),
}

impl World {
    /// A driver does what it was told.
    pub(super) fn act(&mut self, id: u64) {
        let Some(task) = self.tasks.get(&id).cloned() else { return };
        if self.dies_here(task.server) {
            return;
        }
        match task.stage {
            TaskStage::Do | TaskStage::Cancel
                if self.fault(self.faults.effect_refused, "an effect fails") =>
            {
                return self.trouble(id, "it could not be reached");
            }
            // The last line: whatever the gate has heard, and whatever the store has taken.
            TaskStage::Do if matches!(task.effect, Effect::Land(_)) && !self.store.halts.is_empty() => {
                return self.trouble(id, "nothing lands now");
            }
            TaskStage::Do if self.may_not_deploy(&task.effect) => {
                return self.trouble(id, "nothing is deployed now");
            }
            TaskStage::Do | TaskStage::Orphan => {}
            TaskStage::Cancel => {
                let found = self.true_now(&task);
                return self.answer_later(id, &task, found);
            }
            TaskStage::Acted => return,
        }
        let found = self.carry_out(&task);
        if self.twice && !matches!(task.effect, Effect::ReadForge { .. }) {
            self.carry_out(&task);
        }
        if task.stage == TaskStage::Orphan {
            self.tasks.remove(&id);
            return;
        }
        self.tasks.get_mut(&id).expect("invariant: it was just found").stage = TaskStage::Acted;
        if self.dies_here(task.server) {
            return;
        }
        let silent = matches!(found, Found::Later | Found::Job(..));
        if !silent
            && self.fault(self.faults.effect_done_but_error, "an effect is done, but an error is returned")
        {
            return self.trouble(id, "the answer was an error");
        }
        self.answer_later(id, &task, found);
    }

    fn trouble(&mut self, id: u64, why: &str) {
        let task = self.tasks.get_mut(&id).expect("invariant: the caller has it");
        task.tries += 1;
        task.stage = TaskStage::Acted;
        let task = task.clone();
        let wait = (RETRY_MS << task.tries.min(10)).min(RETRY_MS_MAX);
        let Some(server) = self.server(task.server) else { return };
        let next_try = towpath_core::ids::Timestamp(server.time(self.now).0 + wait);
        let trouble =
            Trouble { class: TroubleClass::Transient, why: why.into(), tries: task.tries, next_try };
        let intake = match task.cell {
            CellId::Gate(_) => AnyIntake::Gate(Intake::Trouble { key: task.key, token: task.token, trouble }),
            _ => AnyIntake::Run(Intake::Trouble { key: task.key, token: task.token, trouble }),
        };
        let delay = self.rng.between(1, ANSWER_MS_MAX);
        self.at(delay, Ev::Answer(id, Box::new(intake)));
    }

    fn answer_later(&mut self, id: u64, task: &Task, found: Found) {
        let (key, token) = (task.key.clone(), task.token);
        if let Found::Gate(Some(GateEvent::LandTried { result: LandTried::Broken { .. }, .. })) = &found {
            self.checks.note_broken(key.clone(), token);
        }
        let intake = match found {
            Found::Later => return,
            Found::Gate(result) => AnyIntake::Gate(Intake::Done { key, token, result }),
            Found::Job(lease, result) => AnyIntake::Run(Intake::Done {
                key,
                token,
                result: Some(RunEvent::JobEnded { lease, result }),
            }),
        };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stage = TaskStage::Acted;
        }
        let slow = matches!(task.effect, Effect::ReadForge { .. })
            && self.fault(self.faults.read_slow, "a read is slow");
        let (low, high) = if slow { SLOW_READ_MS } else { (1, ANSWER_MS_MAX) };
        let delay = self.rng.between(low, high);
        self.at(delay, Ev::Answer(id, Box::new(intake)));
    }

    pub(super) fn answer(&mut self, id: u64, intake: AnyIntake) {
        let Some(task) = self.tasks.get(&id).cloned() else { return };
        if self.dies_here(task.server) {
            return;
        }
        self.tasks.remove(&id);
        let Some(server) = self.server(task.server) else { return };
        let at = server.time(self.now);
        if self.fault(self.faults.intake_repeated, "an answer is taken in twice") {
            self.deliver(&task.cell, at, intake.clone());
        }
        if self.mutant == Some(Mutant::LosesAnswers) && self.rng.chance(20) {
            return;
        }
        self.deliver(&task.cell, at, intake);
    }

    /// Whether this deploys over restored data: a run that began in the turn in which its gate heard of them has not.
    fn may_not_deploy(&self, effect: &Effect) -> bool {
        let deploys = |order: &JobOrder| order.spec.body.environment.is_some() && !order.restored;
        let is_deployment = matches!(effect, Effect::RunJob(order) if deploys(order));
        is_deployment && self.store.halts.contains_key(&HaltCause::Restore)
    }

    fn carry_out(&mut self, task: &Task) -> Found {
        match &task.effect {
            Effect::ReadForge { gate, landed } => self.read_forge(task, gate, *landed),
            Effect::ReadGraph { commit, .. } => {
                let graph = definition::landed_graph(self.forge.git.get(*commit).files[DEFINITION]);
                Found::Gate(Some(GateEvent::GraphRead { commit: *commit, graph }))
            }
            Effect::MakeCandidate { id, spec, .. } => self.make_candidate(*id, spec),
            Effect::Land(landing) => self.land(landing),
            Effect::MarkLanded { change, commit, .. } => {
                if self.mutant != Some(Mutant::MovesWhatHasLanded) {
                    self.forge.mark_landed(*change, *commit);
                }
                Found::Gate(None)
            }
            Effect::NoteLanding { commit, .. } => {
                self.forge.noted.insert(*commit);
                Found::Gate(None)
            }
            Effect::SetCheck { gate, change, revision, check } => {
                self.forge.set_check(*change, (&gate.branch, *revision), check);
                Found::Gate(None)
            }
            Effect::Alert { .. } => {
                let is_of_freeze = task.key.as_str().starts_with("alert-frozen ");
                if self.mutant != Some(Mutant::FreezesAreNotTold) || !is_of_freeze {
                    self.checks.note_alert(task.key.clone());
                }
                Found::Gate(None)
            }
            Effect::ReplaceServer(_) => unreachable!("nobody marks an environment as the server itself here"),
            Effect::RunJob(order) => self.order(order),
            Effect::Send { .. } => unreachable!("messages have no driver"),
        }
    }

    fn read_forge(&mut self, task: &Task, gate: &GateId, landed: Option<CommitId>) -> Found {
        let Some(server) = self.server(task.server) else { return Found::Gate(None) };
        let began = server.time(self.now);
        let snapshot = self.forge.snapshot(&gate.branch, landed);
        let cached = self.fault(self.faults.read_cached, "a read comes from a cache");
        let older = self.checks.older_read(gate).filter(|_| cached);
        let lies = self.mutant == Some(Mutant::ReadsStale) && self.rng.chance(200);
        let stale = self.checks.older_read(gate).filter(|_| lies);
        let mut read = ForgeRead { began, landed, snapshot };
        self.checks.note_read(gate, read.clone());
        if self.mutant == Some(Mutant::BranchesAreNobodys) {
            read.snapshot.begun_by.clear();
        }
        if self.mutant == Some(Mutant::EverybodyIsShownAll) {
            let reviews = read.snapshot.changes.iter_mut().flat_map(|change| &mut change.reviews);
            reviews.for_each(|review| review.definition = Some(self.forge.definition_of(review.revision)));
        }
        self.damage_record(&mut read.snapshot);
        let read = match (older, stale) {
            (Some(older), _) => (*older).clone(),
            (None, Some(stale)) => ForgeRead { snapshot: stale.snapshot.clone(), ..read },
            (None, None) => read,
        };
        Found::Gate(Some(GateEvent::ForgeRead(Box::new(read))))
    }

    fn damage_record(&mut self, snapshot: &mut Snapshot) {
        let Some(last) = snapshot.changes.len().checked_sub(1) else { return };
        if self.fault(self.faults.record_damaged, "the record of a change cannot be read") {
            let change = snapshot.changes.remove(self.rng.below(last as u64 + 1) as usize);
            snapshot.unreadable.insert(change.number, "its record is damaged".into());
        }
    }

    fn make_candidate(&mut self, id: CandidateId, spec: &towpath_core::candidate::CandidateSpec) -> Found {
        let mut spec = spec.clone();
        if self.mutant == Some(Mutant::MergesOntoTheWrongBase) {
            // Joined with the revision's own history instead of the branch's tip.
            let parents = self.forge.git.get(spec.parent).parents.clone();
            spec.parent = parents.first().copied().unwrap_or(spec.parent);
        }
        let result = self.forge.git.candidate(&spec);
        Found::Gate(Some(GateEvent::CandidateMade { id, result: Box::new(result) }))
    }

    fn land(&mut self, landing: &Landing) -> Found {
        if self.fault(self.faults.pushed_before_landing, "somebody pushes just before a landing") {
            let gate = GateId { repo: landing.repo.clone(), branch: landing.branch.clone() };
            self.push_to_branch(&gate);
        }
        let before = self.forge.branch(&landing.branch).pushes.len();
        let result = if self.mutant == Some(Mutant::LandsWithoutCompare)
            && !self.forge.contains(&landing.branch, landing.to)
        {
            self.forge.push(&landing.branch, landing.to, crate::fake::forge::Pusher::Us(landing.change));
            LandTried::Landed
        } else if self.fault(self.faults.forge_lies, "the forge says that it landed, and did not") {
            // The driver reads back what the forge says.
            let tip = self.forge.branch(&landing.branch).tip;
            match self.forge.contains(&landing.branch, landing.to) {
                true => LandTried::Landed,
                false => LandTried::Broken { tip: Some(tip) },
            }
        } else {
            self.forge.land(landing)
        };
        if self.mutant == Some(Mutant::BelievesTheForge) && self.rng.chance(300) {
            // It reports a landing that it has not read back.
            return found_landing(landing, LandTried::Landed);
        }
        if self.forge.branch(&landing.branch).pushes.len() > before {
            self.check_landing(landing);
            if self.mutant == Some(Mutant::MovesWhatHasLanded) {
                self.move_elsewhere(landing);
            }
        }
        found_landing(landing, result)
    }

    fn move_elsewhere(&mut self, landing: &Landing) {
        let other = self.gates.iter().find(|gate| gate.branch != landing.branch).cloned();
        if let (Some(other), Some(change)) = (other, self.forge.changes.get_mut(&landing.change)) {
            change.target = other.branch.clone();
            self.ring(&other);
        }
    }

    fn order(&mut self, order: &JobOrder) -> Found {
        if order.restored {
            let result = JobResult::unrun(Outcome::Errored, "nobody knows what has become of it");
            return Found::Job(order.lease.clone(), Box::new(result));
        }
        let files = self.forge.git.get(order.commit).files;
        let truly = definition::passes(&order.spec.body, &files, order.commit);
        let truth = if self.fault(self.faults.job_errored, "a machine fails") {
            Outcome::Errored
        } else if !truly || self.fault(self.faults.job_flaky, "a job is flaky") {
            Outcome::Failed
        } else {
            Outcome::Passed
        };
        let reported = match (self.mutant, truth) {
            (Some(Mutant::ErroredIsPassed), Outcome::Errored) => Outcome::Passed,
            (Some(Mutant::FailedIsPassed), Outcome::Failed) => Outcome::Passed,
            _ => truth,
        };
        if self.executor.order(order, truth, reported) {
            let delay = self.rng.between(JOB_MS.0, JOB_MS.1);
            self.at(delay, Ev::JobEnds(order.lease.id));
            return Found::Later;
        }
        match &self.executor.jobs[&order.lease.id].stage {
            executor::Stage::Running => Found::Later,
            executor::Stage::Ended(result) => Found::Job(order.lease.clone(), Box::new(result.clone())),
        }
    }

    /// The answer to a cancel: what is true now, after whatever can still be stopped was stopped.
    fn true_now(&mut self, task: &Task) -> Found {
        match &task.effect {
            Effect::Land(landing) => {
                let landed = self.forge.contains(&landing.branch, landing.to);
                let tried = if landed { LandTried::Landed } else { LandTried::Withdrawn };
                found_landing(landing, tried)
            }
            Effect::RunJob(order) => {
                let lease = order.lease.clone();
                match self.executor.end(&lease.id, Some(Outcome::Cancelled)) {
                    Some((lease, result)) => Found::Job(lease, Box::new(result)),
                    None => {
                        let result = JobResult::unrun(Outcome::Cancelled, "it was never started");
                        Found::Job(lease, Box::new(result))
                    }
                }
            }
            _ => Found::Gate(None),
        }
    }

    /// A job ends by itself, or as told; whoever waits for it hears of it.
    pub(super) fn job_ends(&mut self, lease: &LeaseId, how: Option<Outcome>) {
        let running = self.executor.jobs.get(lease).is_some_and(|job| job.stage == executor::Stage::Running);
        let Some((lease, result)) = self.executor.end(lease, how).filter(|_| running) else { return };
        let waits = |task: &Task| match &task.effect {
            Effect::RunJob(order) => order.lease.id == lease.id && task.stage == TaskStage::Acted,
            _ => false,
        };
        let waiting: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| waits(task)).map(|(id, _)| *id).collect();
        let cell = CellId::Run(self.executor.jobs[&lease.id].run.clone());
        if self.fault(self.faults.result_repeated, "a result comes twice") {
            self.late_result(&cell, lease.clone(), result.clone(), 60_000);
        }
        for id in waiting {
            let task = self.tasks[&id].clone();
            self.answer_later(id, &task, Found::Job(lease.clone(), Box::new(result.clone())));
        }
    }

    /// A result that comes some time, by no driver's answer.
    pub(super) fn late_result(&mut self, cell: &CellId, lease: Lease, result: JobResult, ms_max: i64) {
        let intake = Intake::Event(RunEvent::JobEnded { lease, result: Box::new(result) });
        let delay = self.rng.between(1, ms_max);
        self.at(delay, Ev::Late(cell.clone(), Box::new(AnyIntake::Run(intake))));
    }
}

fn found_landing(landing: &Landing, result: LandTried) -> Found {
    Found::Gate(Some(GateEvent::LandTried { candidate: landing.candidate, result }))
}
