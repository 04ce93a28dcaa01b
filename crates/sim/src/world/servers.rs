//! Server processes: they start, take the store from the one before, load cells when these are needed, and die.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::cell::CellId;
use towpath_core::effect::Effect;
use towpath_core::environment::EnvironmentEvent;
use towpath_core::gate::HaltCause;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::run::RunEvent;
use towpath_core::turn::{Intake, Live};

use super::{AnyLive, Ev, Server, TaskStage, World};
use crate::fake::store::AnyIntake;

/// Milliseconds within which a server attends to a cell.
const ATTENTION_MS_MAX: i64 = 20;
/// The same for a server that was replaced and does not know it.
const GHOST_ATTENTION_MS_MAX: i64 = 20_000;
/// Milliseconds until a dead server is started again, at most.
const RESTART_MS_MAX: i64 = 60_000;

impl AnyLive {
    /// A cell from its rows.
    pub fn load(id: &CellId, epoch: Epoch, stored: &crate::fake::store::StoredCell) -> AnyLive {
        const READABLE: &str = "invariant: rows of this version can be read";
        let (rows, outbox) = (stored.rows(), stored.outbox());
        match id {
            CellId::Gate(_) => {
                AnyLive::Gate(Box::new(Live::load(id.clone(), epoch, &rows, outbox).expect(READABLE)))
            }
            CellId::Run(_) => {
                AnyLive::Run(Box::new(Live::load(id.clone(), epoch, &rows, outbox).expect(READABLE)))
            }
            CellId::Pool => {
                AnyLive::Pool(Box::new(Live::load(id.clone(), epoch, &rows, outbox).expect(READABLE)))
            }
            CellId::Environment(_) => {
                AnyLive::Environment(Box::new(Live::load(id.clone(), epoch, &rows, outbox).expect(READABLE)))
            }
        }
    }

    /// Goes back to the rows.
    pub fn reload(&mut self, stored: &crate::fake::store::StoredCell) {
        let (rows, outbox) = (stored.rows(), stored.outbox());
        let done = match self {
            AnyLive::Gate(live) => live.reload(&rows, outbox),
            AnyLive::Run(live) => live.reload(&rows, outbox),
            AnyLive::Pool(live) => live.reload(&rows, outbox),
            AnyLive::Environment(live) => live.reload(&rows, outbox),
        };
        done.expect("invariant: rows of this version can be read");
    }
}

impl World {
    pub(super) fn server_mut(&mut self, epoch: Epoch) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.epoch == epoch)
    }

    pub fn server(&self, epoch: Epoch) -> Option<&Server> {
        self.servers.iter().find(|server| server.epoch == epoch)
    }

    /// The server that has the store.
    pub fn leader(&self) -> Option<&Server> {
        self.servers.last()
    }

    pub(super) fn start_server(&mut self) {
        let epoch = self.store.open();
        let clock_base = (self.now + self.wall_offset).max(self.store.time_high.0 + 1);
        self.servers.push(Server {
            epoch,
            cells: BTreeMap::new(),
            clock_base,
            started: self.now,
            scheduled: BTreeSet::new(),
            committing: BTreeMap::new(),
            wakes: BTreeMap::new(),
        });
        self.trace.line(format!("{} server {epoch} starts", self.now));
        // Whoever starts it has looked at the disk; what was restored still waits to be accepted.
        self.store.halts.remove(&HaltCause::Disk);
        self.tell_halts();
        if self.store.halts.contains_key(&HaltCause::Restore) {
            self.tell_restored();
        }
        self.open_cells().iter().for_each(|cell| self.schedule_turn(epoch, cell));
    }

    fn open_cells(&self) -> Vec<CellId> {
        let open = self.store.cells.iter().filter(|(_, cell)| !cell.finished || !cell.inbox.is_empty());
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Whoever deploys hears of a restore before its first turn.
    fn tell_restored(&mut self) {
        let at = self.intake_time();
        for cell in self.open_cells() {
            match cell {
                CellId::Run(_) => {
                    self.deliver(&cell, at, AnyIntake::Run(Intake::Event(RunEvent::Restored)));
                }
                CellId::Environment(_) => {
                    let told = Intake::Event(EnvironmentEvent::Restored);
                    self.deliver(&cell, at, AnyIntake::Environment(told));
                }
                CellId::Gate(_) | CellId::Pool => {}
            }
        }
    }

    /// Every run hears that a person has accepted what a restore lost.
    pub(super) fn tell_accepted(&mut self) {
        let at = self.intake_time();
        for run in self.open_cells().into_iter().filter(|cell| matches!(cell, CellId::Run(_))) {
            self.deliver(&run, at, AnyIntake::Run(Intake::Event(RunEvent::RestoreAccepted)));
        }
    }

    /// Every gate hears what stops landing, and what does not.
    pub(super) fn tell_halts(&mut self) {
        if self.leader().is_some() {
            let at = self.intake_time();
            for gate in self.gates.clone() {
                let told = self.store.told_halts();
                self.deliver(&CellId::Gate(gate), at, told);
            }
        }
    }

    /// A server dies; what it had asked the world to do may still arrive.
    pub(super) fn stop_server(&mut self, epoch: Epoch) {
        let before = self.servers.len();
        self.servers.retain(|server| server.epoch != epoch);
        if self.servers.len() == before {
            return;
        }
        self.trace.line(format!("{} server {epoch} is dead", self.now));
        let of_it: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| task.server == epoch).map(|(id, _)| *id).collect();
        for id in of_it {
            let outlives = {
                let task = &self.tasks[&id];
                task.stage == TaskStage::Do && is_safe_when_late(&task.effect)
            };
            if outlives && self.fault(self.faults.request_outlives_server, "a request outlives its server") {
                self.tasks.get_mut(&id).expect("invariant: it was just found").stage = TaskStage::Orphan;
            } else {
                self.tasks.remove(&id);
            }
        }
        self.requests.retain(|_, request| request.server != epoch);
        if self.servers.is_empty() {
            let delay = self.rng.between(1, RESTART_MS_MAX);
            self.at(delay, Ev::Start);
        }
    }

    pub(super) fn crash(&mut self) {
        if let Some(epoch) = self.leader().map(|server| server.epoch) {
            self.stop_server(epoch);
        }
    }

    /// A step of a server after which it may be dead; says so.
    pub(super) fn dies_here(&mut self, epoch: Epoch) -> bool {
        if self.leader().is_none_or(|leader| leader.epoch != epoch) {
            return false;
        }
        self.points += 1;
        if self.crash_at != Some(self.points) {
            return false;
        }
        self.crash_at = self.crash_again.take().map(|later| self.points + later);
        self.crash();
        true
    }

    /// The time by the server that takes something in.
    pub fn intake_time(&self) -> Timestamp {
        self.leader().map_or(self.store.time_high, |server| server.time(self.now))
    }

    /// Something comes from outside; without a server it is lost.
    pub(super) fn receive(&mut self, cell: &CellId, intake: AnyIntake) {
        if self.leader().is_some() {
            let at = self.intake_time();
            if self.fault(self.faults.intake_repeated, "taken in twice") {
                self.deliver(cell, at, intake.clone());
            }
            self.deliver(cell, at, intake);
        }
    }

    /// Puts something into an inbox and tells the servers.
    pub(super) fn deliver(&mut self, cell: &CellId, at: Timestamp, intake: AnyIntake) {
        self.store.deliver(cell, at, intake);
        self.attend(cell);
    }

    pub(super) fn attend(&mut self, cell: &CellId) {
        let epochs: Vec<Epoch> = self.servers.iter().map(|server| server.epoch).collect();
        epochs.into_iter().for_each(|epoch| self.schedule_turn(epoch, cell));
    }

    /// Remembers when a cell wants to be asked again.
    pub(super) fn set_wake(&mut self, epoch: Epoch, cell: &CellId, wake_at: Option<Timestamp>) {
        let now = self.now;
        let Some(server) = self.server_mut(epoch) else { return };
        let Some(wanted) = wake_at else {
            server.wakes.remove(cell);
            return;
        };
        let delay = wanted.0 - server.time(now).0;
        if server.wakes.insert(cell.clone(), wanted) != Some(wanted) {
            self.at(delay, Ev::Wake(epoch, cell.clone(), wanted));
        }
    }

    pub(super) fn wake(&mut self, epoch: Epoch, cell: &CellId, wanted: Timestamp) {
        let Some(server) = self.server_mut(epoch) else { return };
        if server.wakes.get(cell) == Some(&wanted) {
            server.wakes.remove(cell);
            self.schedule_turn(epoch, cell);
        }
    }

    pub(super) fn schedule_turn(&mut self, epoch: Epoch, cell: &CellId) {
        let leads = self.leader().is_some_and(|leader| leader.epoch == epoch);
        let Some(server) = self.server_mut(epoch) else { return };
        if server.scheduled.insert(cell.clone()) {
            let delay = self.rng.between(1, if leads { ATTENTION_MS_MAX } else { GHOST_ATTENTION_MS_MAX });
            self.at(delay, Ev::Turn(epoch, cell.clone()));
        }
    }
}

/// A request that may arrive after its server's death without anybody to correct it. A check that arrives late would
/// show an old verdict until the next one: forges order requests of one connection, and adapters use one per change.
fn is_safe_when_late(effect: &Effect) -> bool {
    matches!(effect, Effect::Land(_) | Effect::MarkLanded { .. } | Effect::MakeCandidate { .. })
}
