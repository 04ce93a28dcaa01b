//! The world of one seed: everything that is not the core, in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::cell::CellId;
use towpath_core::effect::{Effect, EffectKey};
use towpath_core::environment::Environment;
use towpath_core::gate::{Bell, Gate, GateConfig, GateEvent};
use towpath_core::ids::{CommitId, Epoch, GateId, LeaseId, RepoName, RunId, Timestamp};
use towpath_core::pool::{Pool, PoolEvent};
use towpath_core::run::Run;
use towpath_core::turn::{Intake, Live, Turn};

use crate::check::Checks;
use crate::fake::executor::Executor;
use crate::fake::forge::Forge;
use crate::fake::store::{AnyIntake, Store};
use crate::faults::Faults;
use crate::mutant::Mutant;
use crate::report::Violation;
use crate::rng::Rng;
use crate::trace::Trace;

mod drivers;
mod heal;
mod hearsay;
mod keeping;
mod moving;
pub mod people;
mod servers;
mod strikes;
mod turns;

/// A world.
#[derive(Debug)]
pub struct World {
    /// Everything that chance decides.
    pub rng: Rng,
    /// True milliseconds; no server sees them.
    pub now: i64,
    /// How far the wall clock is off.
    pub wall_offset: i64,
    /// What is durable.
    pub store: Store,
    /// The forge and its git.
    pub forge: Forge,
    /// The executor.
    pub executor: Executor,
    /// Servers that run, newest last. Only the last one should.
    pub servers: Vec<Server>,
    /// The gates.
    pub gates: Vec<GateId>,
    /// Their settings.
    pub config: GateConfig,
    /// Slots of the executors.
    pub slots: u64,
    /// What is likely to go wrong now.
    pub faults: Faults,
    /// How many faults have fired.
    pub fired: u64,
    /// How many inbox entries were applied.
    pub applied: u64,
    /// Whether doorbells ring at all.
    pub bells_ring: bool,
    /// What was seen.
    pub checks: Checks,
    /// What happened.
    pub trace: Trace,
    /// The planted bug, if any.
    pub mutant: Option<Mutant>,
    /// Steps of servers so far at which a crash may be planted.
    pub points: u64,
    /// Crash at this step.
    pub crash_at: Option<u64>,
    /// Crash again so many steps after that.
    pub crash_again: Option<u64>,
    /// Carry out every effect a second time.
    pub twice: bool,
    /// What a story has waited for in vain.
    pub missed: Option<&'static str>,
    /// Restores so far.
    restores: u64,
    /// Freezes that the team has ended once the faults were over: branch, why, and over which commit.
    unfrozen: BTreeSet<(GateId, String, Option<CommitId>)>,
    /// When runs were found to be over, that no gate remembers.
    over_since: BTreeMap<RunId, i64>,
    commands: u64,
    queue: BTreeMap<(i64, u64), Ev>,
    tasks: BTreeMap<u64, Task>,
    requests: BTreeMap<u64, moving::Request>,
    next: u64,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Ev {
    /// A doorbell comes to the server.
    Bell(GateId),
    /// A server attends to a cell.
    Turn(Epoch, CellId),
    /// What a turn decided comes to the store.
    Commit(Epoch, CellId),
    /// A cell wanted to be asked again at this time, unless it has said something else since.
    Wake(Epoch, CellId, Timestamp),
    /// A driver acts.
    Act(u64),
    /// A driver answers.
    Answer(u64, Box<AnyIntake>),
    /// A request goes on.
    Request(u64),
    /// Somebody does something with a change that may be on its way.
    Meanwhile(moving::Meanwhile),
    /// A job ends.
    JobEnds(LeaseId),
    /// Something late comes to the server.
    Late(CellId, Box<AnyIntake>),
    /// A server starts.
    Start,
    /// A server that should be gone is.
    Stop(Epoch),
    /// The gates hear of what halts landing.
    TellHalts,
    /// Somebody has looked at the disk.
    Restart,
    /// Somebody accepts what a restore lost.
    Accept,
    /// It is time for housekeeping.
    KeepHouse,
}

/// A server process.
#[derive(Debug)]
pub struct Server {
    /// Its epoch.
    pub epoch: Epoch,
    /// Cells in its memory.
    pub cells: BTreeMap<CellId, AnyLive>,
    clock_base: i64,
    started: i64,
    scheduled: BTreeSet<CellId>,
    /// Turns that are on their way to the store; a cell makes no other one meanwhile.
    committing: BTreeMap<CellId, Committing>,
    wakes: BTreeMap<CellId, Timestamp>,
}

/// A turn that is not durable yet.
#[derive(Debug)]
struct Committing {
    turn: Turn,
    inbox: Inbox,
    before: Option<Timestamp>,
}

/// The part of an inbox that one turn drains.
pub type Inbox = Vec<(u64, Timestamp, AnyIntake)>;

/// A cell in memory, by kind.
#[derive(Debug)]
pub enum AnyLive {
    /// A gate.
    Gate(Box<Live<Gate>>),
    /// A run.
    Run(Box<Live<Run>>),
    /// The pool.
    Pool(Box<Live<Pool>>),
    /// An environment.
    Environment(Box<Live<Environment>>),
}

/// An effect with a driver.
#[derive(Debug, Clone)]
struct Task {
    /// The process.
    server: Epoch,
    cell: CellId,
    key: EffectKey,
    token: u64,
    effect: Effect,
    stage: TaskStage,
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskStage {
    /// To be carried out.
    Do,
    /// To be stopped, and answered with what is true.
    Cancel,
    /// Done; the answer is on its way, or the executor has it.
    Acted,
    /// The process is gone, the request is not: nobody hears the answer.
    Orphan,
}

impl Server {
    /// What the process takes for the time: the wall clock at its start, but never before what is durable, and from
    /// there on the steady clock.
    pub fn time(&self, now: i64) -> Timestamp {
        Timestamp(self.clock_base + now - self.started)
    }
}

impl World {
    /// A world whose people have not done anything yet.
    pub fn new(seed: u64, gates: &[&str]) -> World {
        let mut rng = Rng::new(seed);
        let repo: RepoName = "demo".parse().expect("invariant: a valid name");
        let gates: Vec<GateId> = gates
            .iter()
            .map(|branch| GateId {
                repo: repo.clone(),
                branch: branch.parse().expect("invariant: a valid name"),
            })
            .collect();
        let mut world = World {
            rng: rng.fork(),
            now: 1_000_000,
            wall_offset: 0,
            store: Store::default(),
            forge: Forge::default(),
            executor: Executor::default(),
            servers: vec![],
            gates,
            config: GateConfig::default(),
            slots: 4,
            faults: Faults::default(),
            fired: 0,
            applied: 0,
            bells_ring: true,
            checks: Checks::default(),
            trace: Trace::default(),
            mutant: None,
            points: 0,
            crash_at: None,
            crash_again: None,
            twice: false,
            missed: None,
            restores: 0,
            unfrozen: BTreeSet::new(),
            over_since: BTreeMap::new(),
            commands: 0,
            queue: BTreeMap::new(),
            tasks: BTreeMap::new(),
            requests: BTreeMap::new(),
            next: 0,
        };
        world.populate();
        world
    }

    /// Starts the first server and tells the cells their settings.
    pub fn open(&mut self) {
        self.start_server();
        let at = Timestamp(self.now);
        for gate in self.gates.clone() {
            let configured = GateEvent::Configured(Box::new(self.config.clone()));
            self.deliver(&CellId::Gate(gate), at, AnyIntake::Gate(Intake::Event(configured)));
        }
        self.set_capacity(self.slots);
        self.keep_house();
    }

    /// Tells the pool how much the executors take.
    fn set_capacity(&mut self, slots: u64) {
        self.slots = slots;
        let at = self.intake_time();
        self.deliver(&CellId::Pool, at, AnyIntake::Pool(Intake::Event(PoolEvent::Capacity { slots })));
    }

    fn at(&mut self, delay: i64, event: Ev) {
        self.next += 1;
        self.queue.insert((self.now + delay.max(1), self.next), event);
    }

    /// Lets everything happen up to an instant; stops at a violation.
    pub fn run_until(&mut self, until: i64) {
        while self.checks.violations.is_empty() {
            let Some(((at, _), _)) = self.queue.first_key_value() else { break };
            if *at > until {
                break;
            }
            let ((at, _), event) = self.queue.pop_first().expect("invariant: it was just seen");
            // Each event has an instant of its own, so that what was read then is known exactly.
            self.now = at.max(self.now + 1);
            self.step(event);
        }
        self.now = self.now.max(until);
    }

    fn step(&mut self, event: Ev) {
        match event {
            Ev::Bell(gate) => {
                let bell = Bell { forge_changed: true, ..Bell::default() };
                self.receive(&CellId::Gate(gate), AnyIntake::Gate(Intake::Event(GateEvent::Bell(bell))));
            }
            Ev::Turn(epoch, cell) => self.attend_now(epoch, &cell),
            Ev::Commit(epoch, cell) => self.commit(epoch, &cell),
            Ev::Wake(epoch, cell, wanted) => self.wake(epoch, &cell, wanted),
            Ev::Act(task) => self.act(task),
            Ev::Answer(task, intake) => self.answer(task, *intake),
            Ev::Request(id) => self.request(id),
            Ev::Meanwhile(meanwhile) => self.meanwhile(meanwhile),
            Ev::JobEnds(lease) => self.job_ends(&lease, None),
            Ev::Late(cell, intake) => {
                let intake = self.perhaps_under_the_current_lease(*intake);
                self.receive(&cell, intake);
            }
            Ev::Start if self.servers.is_empty() => self.start_server(),
            Ev::Start => {}
            Ev::Stop(epoch) => self.stop_server(epoch),
            Ev::TellHalts => self.tell_halts(),
            Ev::Restart => self.restart_after_a_look(),
            Ev::Accept => self.accept_restore(),
            Ev::KeepHouse => self.keep_house(),
        }
    }

    /// Whether a fault of this likelihood happens now.
    fn fault(&mut self, per_mille: u32, name: &str) -> bool {
        let fires = per_mille > 0 && self.rng.chance(per_mille);
        if fires {
            self.fired += 1;
            self.trace.line(format!("{} fault: {name}", self.now));
        }
        fires
    }

    /// Notes a broken invariant.
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        self.trace.line(format!("{} VIOLATION {invariant}: {what}", self.now));
        self.checks.violations.push(Violation { invariant, what });
    }
}
