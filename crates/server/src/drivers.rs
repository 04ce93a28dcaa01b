//! Effect drivers: each carries one kind of effect out, by its key, and puts the result into the cell's inbox.
//!
//! A driver may crash anywhere: what it did is recognised when it is asked again. Drivers of one key run one after the
//! other, so that an older wanted value never overtakes a newer one.
//!
//! How long a candidate takes is up to whoever pushed the change. So candidates have workers of their own, of which no repo
//! has all: reads, landings and checks wait for no merge, nor does anybody for the merges of another repo.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::environment::EnvironmentEvent;
use towpath_core::gate::{Bell, ForgeRead, GateEvent};
use towpath_core::ids::Timestamp;
use towpath_core::outbox::{Dispatch, Trouble, TroubleClass};
use towpath_core::turn::Intake;
use towpath_forge::{Forge, ForgeError, Judged};
use towpath_git::{ErrorClass, GitError};
use towpath_store::Store;

use crate::doorbells::Doorbells;
use crate::engine::{AnyIntake, Dispatcher, Engine};
use crate::faults;
use crate::forges::Forges;
use crate::replace::Succession;
use crate::repos::Repos;

mod land;
pub mod make_candidate;
mod note_landing;
mod pace;
mod read_graph;
mod replace_server;
pub mod run_job;
mod workers;

use run_job::Jobs;
use workers::{Party, Places, Workers};

/// Effects carried out at once, jobs and candidates not counted: git and the disk are busy before there are more.
const WORKERS: usize = 8;
/// Candidates made at once. Of one repository, one is merged while what came of another one is read.
const CANDIDATES: Places = Places { all: 4, of_one_party: 2 };
/// First wait after a failure that may pass.
const RETRY_MS_FIRST: i64 = 500;
/// Longest wait between tries.
const RETRY_MS_MAX: i64 = 60_000;

/// What drivers work with.
pub struct Hands {
    /// The repositories.
    pub repos: Arc<Repos>,
    /// The forge of each repo.
    pub forges: Arc<Forges>,
    /// What webhooks have rung.
    pub doorbells: Arc<Doorbells>,
    /// The executor.
    pub jobs: Arc<Jobs>,
    /// The rows and the record.
    pub store: Arc<Store>,
    /// Held while a repository's notes are written.
    pub notes: Mutex<()>,
    /// Candidates whose merges took too long.
    pub slow: make_candidate::Slow,
    /// The way to let another program serve.
    pub succession: Arc<Succession>,
}

/// Why an effect was not carried out this time.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How to handle it.
    pub class: TroubleClass,
    /// In words.
    pub why: String,
    /// Nothing went wrong: it goes on with the next try.
    pub goes_on: bool,
}

impl Failure {
    /// A failure of one class.
    pub fn new(class: TroubleClass, why: impl Into<String>) -> Failure {
        Failure { class, why: why.into(), goes_on: false }
    }

    /// Its try is over as it should be, and the next one goes on with it.
    pub fn goes_on(why: impl Into<String>) -> Failure {
        Failure { goes_on: true, ..Failure::new(TroubleClass::Transient, why) }
    }
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Failure {
        Failure::new(trouble(error.class()), error.to_string())
    }
}

impl From<ForgeError> for Failure {
    fn from(error: ForgeError) -> Failure {
        Failure::new(trouble(error.class()), error.to_string())
    }
}

fn trouble(class: ErrorClass) -> TroubleClass {
    match class {
        ErrorClass::Transient | ErrorClass::Conflict => TroubleClass::Transient,
        ErrorClass::Gone => TroubleClass::Gone,
        ErrorClass::Invalid => TroubleClass::Invalid,
        ErrorClass::Denied => TroubleClass::Denied,
    }
}

/// One effect in the hands of a driver.
#[derive(Debug, Clone)]
pub struct Task {
    cell: CellId,
    key: EffectKey,
    token: u64,
    effect: Effect,
    /// No longer wanted: only the truth is asked for.
    cancelled: bool,
}

type Lane = (CellId, EffectKey);

/// What is wanted of one key. One worker at most has it.
#[derive(Default)]
struct Line {
    /// What is to be done after what is under way.
    next: Option<Task>,
    /// A worker has it, or will.
    is_taken: bool,
    tries: u32,
}

/// All drivers.
pub struct Drivers {
    hands: Hands,
    lanes: Mutex<HashMap<Lane, Line>>,
    workers: Workers,
    candidates: Workers,
    me: Weak<Drivers>,
}

impl Drivers {
    /// Drivers that work with `hands`.
    pub fn new(hands: Hands) -> Arc<Drivers> {
        Arc::new_cyclic(|me| Drivers {
            hands,
            lanes: Mutex::default(),
            workers: Workers::start(WORKERS),
            candidates: Workers::start_for_many(CANDIDATES),
            me: me.clone(),
        })
    }

    /// What the drivers work with.
    pub fn hands(&self) -> &Hands {
        &self.hands
    }

    /// Makes a task the next of its lane; gives the lane to a worker if none has it.
    fn enqueue(&self, engine: &Engine, task: Task) {
        let Some(me) = self.me.upgrade() else { return };
        let lane = (task.cell.clone(), task.key.clone());
        let workers = match task.effect {
            Effect::MakeCandidate { .. } => &self.candidates,
            _ => &self.workers,
        };
        let is_taken = {
            let mut lanes = self.lanes();
            let line = lanes.entry(lane.clone()).or_default();
            // What has not begun and is overtaken need not be done at all.
            line.next = Some(task);
            std::mem::replace(&mut line.is_taken, true)
        };
        if !is_taken {
            let engine = engine.clone();
            workers.run_for(party(&lane.0), Box::new(move || me.work(&engine, &lane)));
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Line>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the lane's tasks until none is left.
    fn work(&self, engine: &Engine, lane: &Lane) {
        while let Some(task) = self.next(lane) {
            let result = self.attempt(engine, &task);
            let tries = self.finished(lane, result.is_ok());
            answer(engine, &task, result, tries);
        }
    }

    /// The next task of a lane that the caller has; gives the lane back if there is none.
    fn next(&self, lane: &Lane) -> Option<Task> {
        let mut lanes = self.lanes();
        let line = lanes.get_mut(lane)?;
        if let Some(task) = line.next.take() {
            return Some(task);
        }
        line.is_taken = false;
        // A lane that failed is remembered: the next try is another one of the same row of tries.
        if line.tries == 0 {
            lanes.remove(lane);
        }
        None
    }

    /// Returns how often in a row the lane has failed.
    fn finished(&self, lane: &Lane, well: bool) -> u32 {
        let mut lanes = self.lanes();
        let Some(line) = lanes.get_mut(lane) else { return 0 };
        line.tries = if well { 0 } else { line.tries + 1 };
        line.tries
    }

    /// A panic in a driver fails this one effect (style: errors).
    fn attempt(&self, engine: &Engine, task: &Task) -> Result<Option<Found>, Failure> {
        let kind = task.effect.kind();
        faults::point(kind, "before");
        let result = catch_unwind(AssertUnwindSafe(|| self.carry_out(engine, task)));
        faults::point(kind, "after");
        result.unwrap_or_else(|_| {
            let why = format!("a driver panicked while carrying out `{}`: a bug of Towpath", task.key);
            tracing::error!(effect.key = %task.key, "{why}");
            Err(Failure::new(TroubleClass::Invalid, why))
        })
    }

    fn carry_out(&self, engine: &Engine, task: &Task) -> Result<Option<Found>, Failure> {
        let hands = &self.hands;
        let forge = |repo| hands.forges.get(repo);
        Ok(match &task.effect {
            Effect::Land(landing) => Some(Found::Gate(land::run(hands, landing, task.cancelled)?)),
            _ if task.cancelled => None,
            Effect::ReadForge { gate, landed } => {
                let began = hands.doorbells.read_begins(gate, || engine.clock().now());
                let snapshot = forge(&gate.repo)?.read(&gate.branch, *landed)?;
                let read = ForgeRead { began, landed: *landed, snapshot };
                Some(Found::Gate(GateEvent::ForgeRead(Box::new(read))))
            }
            Effect::MakeCandidate { id, repo, spec } => {
                let bell = GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() });
                let ring = || engine.deliver_surely(task.cell.clone(), AnyIntake::Gate(Intake::Event(bell)));
                Some(Found::Gate(make_candidate::run(hands, *id, (repo, spec), ring)?))
            }
            Effect::ReadGraph { repo, commit } => Some(Found::Gate(read_graph::run(hands, repo, *commit)?)),
            Effect::ReplaceServer(replacement) => {
                Some(Found::Environment(replace_server::run(hands, replacement)?))
            }
            Effect::MarkLanded { repo, change, commit } => {
                forge(repo)?.mark_landed(*change, *commit)?;
                None
            }
            Effect::NoteLanding { gate, commit } => {
                note_landing::run(hands, gate, *commit)?;
                None
            }
            Effect::SetCheck { gate, change, revision, check } => {
                let judged = Judged { branch: &gate.branch, revision: *revision };
                forge(&gate.repo)?.set_check(*change, judged, check)?;
                None
            }
            Effect::Alert { gate, text } => {
                forge(&gate.repo)?.alert(&gate.branch, &task.key, text)?;
                None
            }
            Effect::Send { .. } | Effect::RunJob(_) => {
                unreachable!("invariant: messages need no driver, and jobs have lanes of their own")
            }
        })
    }
}

/// The result of an effect, by the kind of cell that owes it.
enum Found {
    Gate(GateEvent),
    Environment(EnvironmentEvent),
}

impl Found {
    fn gate(self) -> Option<GateEvent> {
        match self {
            Found::Gate(event) => Some(event),
            Found::Environment(_) => None,
        }
    }

    fn environment(self) -> Option<EnvironmentEvent> {
        match self {
            Found::Environment(event) => Some(event),
            Found::Gate(_) => None,
        }
    }
}

impl Dispatcher for Drivers {
    fn dispatch(&self, engine: &Engine, cell: &CellId, dispatch: Dispatch) {
        match dispatch {
            Dispatch::Do { key, token, effect: Effect::RunJob(order) } => {
                self.hands.jobs.start(engine, run_job::Wanted { cell: cell.clone(), key, token, order });
            }
            Dispatch::Cancel { key, token, effect: Effect::RunJob(order) } => {
                self.hands.jobs.cancel(engine, run_job::Wanted { cell: cell.clone(), key, token, order });
            }
            Dispatch::Do { key, token, effect } => {
                self.enqueue(engine, Task { cell: cell.clone(), key, token, effect, cancelled: false });
            }
            Dispatch::Cancel { key, token, effect } => {
                self.enqueue(engine, Task { cell: cell.clone(), key, token, effect, cancelled: true });
            }
        }
    }
}

/// The repo of a cell.
fn party(cell: &CellId) -> Party {
    match cell {
        CellId::Gate(gate) => Some(gate.repo.clone()),
        CellId::Run(run) => Some(run.gate.repo.clone()),
        CellId::Environment(environment) => Some(environment.repo.clone()),
        CellId::Pool => None,
    }
}

fn answer(engine: &Engine, task: &Task, result: Result<Option<Found>, Failure>, tries: u32) {
    let result = result.map_err(|failure| {
        let (key, why) = (&task.key, &failure.why);
        match failure.goes_on {
            true => tracing::info!(effect.key = %key, tries, "effect `{key}` goes on: {why}"),
            false => tracing::warn!(effect.key = %key, tries, "effect `{key}` failed: {why}"),
        }
        let next_try = next_try(engine.clock().now(), failure.class, tries);
        Trouble { class: failure.class, why: failure.why, tries, next_try }
    });
    let intake = match task.cell {
        CellId::Environment(_) => {
            AnyIntake::Environment(intake(task, result.map(|found| found.and_then(Found::environment))))
        }
        _ => AnyIntake::Gate(intake(task, result.map(|found| found.and_then(Found::gate)))),
    };
    engine.deliver_surely(task.cell.clone(), intake);
}

fn intake<E>(task: &Task, result: Result<Option<E>, Trouble>) -> Intake<E> {
    let (key, token) = (task.key.clone(), task.token);
    match result {
        Ok(result) => Intake::Done { key, token, result },
        Err(trouble) => Intake::Trouble { key, token, trouble },
    }
}

/// When a failed effect is due again: soon and then ever later; slowly from the start where waiting cures nothing.
fn next_try(now: Timestamp, class: TroubleClass, tries: u32) -> Timestamp {
    let wait = match class {
        TroubleClass::Transient => {
            RETRY_MS_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(RETRY_MS_MAX)
        }
        TroubleClass::Denied | TroubleClass::Gone | TroubleClass::Invalid => RETRY_MS_MAX,
    };
    Timestamp(now.0 + wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_ever_later_up_to_a_minute() {
        let wait = |class, tries| next_try(Timestamp(0), class, tries).0;
        assert_eq!(
            [1, 2, 3, 30].map(|tries| wait(TroubleClass::Transient, tries)),
            [500, 1000, 2000, 60_000]
        );
        assert_eq!(wait(TroubleClass::Denied, 1), 60_000);
    }
}
