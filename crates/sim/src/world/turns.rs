//! Turns: a server drains an inbox, the core decides, the store takes it or not, and only then anything leaves.

use towpath_core::cell::{Cell, CellId};
use towpath_core::effect::Effect;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::outbox::Dispatch;
use towpath_core::turn::{Delivered, EVENTS_PER_TURN_MAX, Intake, Live, Turn};

use super::{AnyLive, Committing, Ev, Inbox, Task, TaskStage, World};
use crate::fake::store::{AnyIntake, Refused, StoredCell};

/// Milliseconds until a write set is durable, at most: other things come in meanwhile.
const COMMIT_MS_MAX: i64 = 15;
/// The same where the store is slow.
const SLOW_COMMIT_MS_MAX: i64 = 30_000;
/// Milliseconds between an instruction and its execution, usually at most.
const ACT_MS_MAX: i64 = 200;
/// The same of a landing that is slow: its server may be dead by then, and its change have been elsewhere.
const SLOW_LANDING_MS: (i64, i64) = (300_000, 600_000);

fn live_turn<C: Cell>(
    live: &mut Live<C>,
    inbox: &Inbox,
    now: Timestamp,
    pick: impl Fn(&AnyIntake) -> Option<Intake<C::Event>>,
) -> Turn {
    let delivered: Vec<Delivered<C::Event>> = inbox
        .iter()
        .map(|(seq, at, intake)| Delivered {
            seq: *seq,
            at: *at,
            intake: pick(intake).expect("invariant: an inbox holds only its own kind"),
        })
        .collect();
    live.turn(&delivered, now)
}

impl AnyLive {
    fn turn(&mut self, inbox: &Inbox, now: Timestamp) -> Turn {
        match self {
            AnyLive::Gate(live) => live_turn(live, inbox, now, |intake| match intake {
                AnyIntake::Gate(intake) => Some(intake.clone()),
                _ => None,
            }),
            AnyLive::Run(live) => live_turn(live, inbox, now, |intake| match intake {
                AnyIntake::Run(intake) => Some(intake.clone()),
                _ => None,
            }),
            AnyLive::Pool(live) => live_turn(live, inbox, now, |intake| match intake {
                AnyIntake::Pool(intake) => Some(intake.clone()),
                _ => None,
            }),
            AnyLive::Environment(live) => live_turn(live, inbox, now, |intake| match intake {
                AnyIntake::Environment(intake) => Some(intake.clone()),
                _ => None,
            }),
        }
    }
}

impl World {
    /// A server attends to a cell, unless an earlier turn of it is still on its way to the store.
    pub(super) fn attend_now(&mut self, epoch: Epoch, cell: &CellId) {
        let Some(server) = self.server_mut(epoch) else { return };
        server.scheduled.remove(cell);
        if !server.committing.contains_key(cell) {
            self.turn(epoch, cell);
        }
    }

    /// One turn of one cell by one server.
    fn turn(&mut self, epoch: Epoch, cell: &CellId) {
        let Some(stored) = self.store.cells.get(cell) else { return };
        if stored.finished && stored.inbox.is_empty() {
            return;
        }
        let inbox: Inbox = stored
            .inbox
            .iter()
            .take(EVENTS_PER_TURN_MAX)
            .map(|(seq, (at, intake))| (*seq, *at, self.heard(cell, intake)))
            .collect();
        let Some(server) = self.servers.iter_mut().find(|server| server.epoch == epoch) else { return };
        let now = server.time(self.now);
        let live = server.cells.entry(cell.clone()).or_insert_with(|| AnyLive::load(cell, epoch, stored));
        let before = self.checks.read_began(live);
        let turn = live.turn(&inbox, now);
        server.committing.insert(cell.clone(), Committing { turn, inbox, before });
        let slow = self.fault(self.faults.commit_slow, "the store is slow");
        let delay = self.rng.between(1, if slow { SLOW_COMMIT_MS_MAX } else { COMMIT_MS_MAX });
        self.at(delay, Ev::Commit(epoch, cell.clone()));
    }

    /// What a turn decided is made durable, or not.
    pub(super) fn commit(&mut self, epoch: Epoch, cell: &CellId) {
        if self.dies_here(epoch) {
            return;
        }
        let Some(server) = self.server_mut(epoch) else { return };
        let Some(Committing { mut turn, inbox, before }) = server.committing.remove(cell) else { return };
        turn.write.acts = self.recorded(turn.write.acts);
        if self.fault(self.faults.commit_lost, "a write set is lost") {
            return self.go_back(epoch, cell);
        }
        match self.store.commit(&turn.write) {
            Ok(()) => {}
            Err(Refused::Fenced) => return self.stop_server(epoch),
            Err(Refused::NotDrained) => return self.go_back(epoch, cell),
            Err(Refused::Halted) => {
                let (at, told) = (self.intake_time(), self.store.told_halts());
                self.deliver(cell, at, told);
                return self.go_back(epoch, cell);
            }
        }
        self.applied += inbox.len() as u64;
        self.trace_turn(&turn);
        self.check_commit(epoch, &turn, &inbox, before);
        self.answer_behind(&turn.write.messages);
        turn.write.messages.iter().for_each(|(to, _)| self.attend(to));
        if self.dies_here(epoch) {
            return;
        }
        if self.fault(self.faults.commit_unknown, "a write set is durable, but reported as lost") {
            return self.go_back(epoch, cell);
        }
        self.after_commit(epoch, turn);
    }

    fn after_commit(&mut self, epoch: Epoch, turn: Turn) {
        let cell = turn.write.cell;
        for dispatch in turn.dispatch {
            self.dispatch(epoch, &cell, dispatch);
        }
        let more = self.store.cells.get(&cell).is_some_and(|stored| !stored.inbox.is_empty());
        if turn.write.finished && !more {
            self.server_mut(epoch).map(|server| server.cells.remove(&cell));
        }
        self.set_wake(epoch, &cell, turn.write.wake_at);
        if more {
            self.schedule_turn(epoch, &cell);
        }
    }

    /// The memory is not what is durable: back to the rows, and the turn again.
    fn go_back(&mut self, epoch: Epoch, cell: &CellId) {
        let empty = StoredCell::default();
        let stored = self.store.cells.get(cell).unwrap_or(&empty);
        if let Some(server) = self.servers.iter_mut().find(|server| server.epoch == epoch)
            && let Some(live) = server.cells.get_mut(cell)
        {
            live.reload(stored);
        }
        self.schedule_turn(epoch, cell);
    }

    fn trace_turn(&mut self, turn: &Turn) {
        let write = &turn.write;
        for row in &write.rows {
            self.trace.fold(row.key.as_bytes());
            self.trace.fold(row.value.as_deref().unwrap_or("").as_bytes());
        }
        let acts: Vec<String> = write.acts.iter().map(act_name).collect();
        let said = turn.answers.iter().map(|answer| match &answer.result {
            Ok(said) => said.clone(),
            Err(refusal) => format!("refused: {}", refusal.why),
        });
        let dispatched = turn.dispatch.iter().map(|dispatch| match dispatch {
            Dispatch::Do { key, .. } => key.to_string(),
            Dispatch::Cancel { key, .. } => format!("not {key}"),
        });
        let parts: Vec<String> = acts.into_iter().chain(said).chain(dispatched).collect();
        if !parts.is_empty() {
            self.trace.line(format!("{} {} {}", self.now, write.cell, parts.join("; ")));
        }
    }

    fn dispatch(&mut self, epoch: Epoch, cell: &CellId, dispatch: Dispatch) {
        let (key, token, effect, stage) = match dispatch {
            Dispatch::Do { key, token, effect } => (key, token, effect, TaskStage::Do),
            Dispatch::Cancel { key, token, effect } => (key, token, effect, TaskStage::Cancel),
        };
        // One driver has at most one task for a key: a newer instruction takes the place of an older one.
        let same = |task: &Task| task.server == epoch && task.cell == *cell && task.key == key;
        let older = self.tasks.iter().find(|(_, task)| same(task));
        let older = older.map(|(id, task)| (*id, task.stage, task.token));
        let tries = older.map_or(0, |(id, ..)| self.tasks[&id].tries);
        match (older, stage) {
            // It is done and its answer is on its way: that answer is the truth that a cancel asks for, as long as the
            // gate still listens to it.
            (Some((_, TaskStage::Acted, of_older)), TaskStage::Cancel)
                if of_older == token && !matches!(effect, Effect::RunJob(_)) =>
            {
                return;
            }
            (Some((id, ..)), _) => drop(self.tasks.remove(&id)),
            (None, _) => {}
        }
        self.next += 1;
        let id = self.next;
        let task = Task { server: epoch, cell: cell.clone(), key, token, effect, stage, tries };
        self.tasks.insert(id, task);
        let lands = stage == TaskStage::Do && matches!(self.tasks[&id].effect, Effect::Land(_));
        let slow = lands && self.fault(self.faults.landing_slow, "a landing is slow");
        let (low, high) = if slow { SLOW_LANDING_MS } else { (1, ACT_MS_MAX) };
        let delay = self.rng.between(low, high);
        self.at(delay, Ev::Act(id));
    }
}

fn act_name(act: &towpath_core::act::Act) -> String {
    use towpath_core::act::Act;
    match act {
        Act::Command { what, .. } => format!("command {what}"),
        Act::Landed(act) => format!("LANDED {} as {}", act.change, act.commit.short()),
        Act::Ejected { change, why, .. } => format!("ejected {change}: {why}"),
        Act::Froze { why, .. } => format!("froze: {why}"),
        Act::ForeignPush { to, .. } => format!("foreign push {}", to.short()),
        Act::RunStarted { run, reason, .. } => format!("run {run} started: {reason}"),
        Act::RunEnded { run, outcome, .. } => format!("run {run} ended {outcome:?}"),
        Act::DeploymentStarted { environment, number, run, .. } => {
            format!("deployment {number} to {environment} started by run {run}")
        }
        Act::DeploymentEnded { environment, number, outcome, .. } => {
            format!("deployment {number} to {environment} ended {outcome:?}")
        }
        Act::Administered { what, .. } => what.clone(),
    }
}
