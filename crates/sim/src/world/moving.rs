//! Changes that go to other branches, and people who hold and release them on the way: requests of several steps, which end
//! with their server whatever they have done. The gates tell each other the rest by themselves.

use towpath_core::cell::CellId;
use towpath_core::gate::{Came, Gate, GateState, Verb};
use towpath_core::ids::{BranchName, ChangeNumber, Epoch, GateId, Timestamp, UserId};
use towpath_core::policy::{Actor, Role};
use towpath_core::turn::Live;

use super::{Ev, World};
use crate::fake::forge::{ChangeState, Forge, ForgedChange};

/// Milliseconds between two steps of a request, at most.
const STEP_MS_MAX: i64 = 2_000;
/// The same until somebody says something of a change that goes: its gates have mostly read the forge by then.
const READ_MS_MAX: i64 = 10_000;
/// Of so many in a thousand somebody says something else meanwhile.
const MEANWHILE: u32 = 700;
/// Of those, so many have looked before the change went, and so many have it go on.
const SEEN_BEFORE: u32 = 300;
const GOES_ON: u32 = 300;

/// A request about a change.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) server: Epoch,
    by: UserId,
    change: ChangeNumber,
    /// Where the change is as the request has seen it.
    seen: Seen,
    /// When it came to its server.
    at: Timestamp,
    step: Step,
}

/// A change's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    gate: GateId,
    came: Option<Came>,
}

/// What a request does next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Asks the gate whether the change may go there.
    Ask(GateId),
    /// Has it go there.
    Go(GateId),
}

/// Somebody does something with a change that may be on its way.
#[derive(Debug, Clone)]
pub(super) struct Meanwhile {
    change: ChangeNumber,
    /// Where it was as the other one began.
    seen: GateId,
}

impl World {
    fn seen(&self, change: ChangeNumber) -> Seen {
        let forged = &self.forge.changes[&change];
        let gate = GateId { branch: forged.target.clone(), ..self.gates[0].clone() };
        Seen { gate, came: forged.facts.came.clone() }
    }

    /// A person asks for a change to go to another branch; mostly somebody does something else with it while it does.
    pub(super) fn retarget(&mut self, change: &ForgedChange) {
        let others = self.gates.iter().filter(|gate| gate.branch != change.target);
        let Some(to) = self.rng.pick(&others.cloned().collect::<Vec<_>>()) else { return };
        let by = if self.rng.chance(500) { change.facts.owner } else { self.some_commander() };
        let (number, seen) = (change.facts.number, self.seen(change.facts.number));
        let before = seen.gate.clone();
        self.begin((by, number), seen, Step::Ask(to));
        if self.rng.chance(MEANWHILE) {
            let delay = self.rng.between(1, READ_MS_MAX);
            self.at(delay, Ev::Meanwhile(Meanwhile { change: number, seen: before }));
        }
    }

    /// Somebody holds a change, releases it, or has it go on.
    pub(super) fn meanwhile(&mut self, Meanwhile { change, seen }: Meanwhile) {
        let forged = self.forge.changes[&change].clone();
        if forged.state != ChangeState::Open {
            return;
        }
        let gate = if self.rng.chance(SEEN_BEFORE) { seen } else { self.seen(change).gate };
        if self.rng.chance(GOES_ON) {
            return self.retarget(&forged);
        }
        let verb = match self.checks.is_free(change) {
            true => Verb::Hold { change, why: "not there".into() },
            false => Verb::Release { change },
        };
        let by = self.some_commander();
        self.command(&gate, by, verb);
    }

    fn begin(&mut self, (by, change): (UserId, ChangeNumber), seen: Seen, step: Step) {
        let Some(server) = self.leader() else { return };
        let (server, at) = (server.epoch, server.time(self.now));
        self.go_on(Request { server, by, change, seen, at, step });
    }

    fn go_on(&mut self, request: Request) {
        self.next += 1;
        let id = self.next;
        self.requests.insert(id, request);
        let delay = self.rng.between(1, STEP_MS_MAX);
        self.at(delay, Ev::Request(id));
    }

    /// A request takes its next step, if its server has the store still.
    pub(super) fn request(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id).cloned() else { return };
        if self.dies_here(request.server) {
            return;
        }
        self.requests.remove(&id);
        if request.server != self.store.epoch {
            return;
        }
        let now = self.seen(request.change);
        match &request.step {
            Step::Ask(to) if self.may_leave(&request) => {
                let step = Step::Go(to.clone());
                self.go_on(Request { step, ..request });
            }
            Step::Ask(_) => {}
            Step::Go(to) => {
                let came = (request.seen.came.as_ref(), request.at);
                if self.forge.retarget((request.by, request.change), &to.branch, came) {
                    self.trace.line(format!("{} {} goes to {to}", self.now, request.change));
                    [&now.gate, to].into_iter().for_each(|gate| self.ring(gate));
                }
            }
        }
    }

    fn may_leave(&self, Request { by, change, seen, at, .. }: &Request) -> bool {
        let by = Actor { user: *by, name: format!("user{by}") };
        let permits = |state: &GateState| {
            let goes_on = state.may_go_on(*change, seen.came.as_ref());
            goes_on.and_then(|()| state.permit_to_leave(&by, *change, *at)).is_ok()
        };
        self.committed(&seen.gate).is_some_and(|state| permits(&state))
    }

    /// A gate as it was last committed.
    pub(super) fn committed(&self, gate: &GateId) -> Option<GateState> {
        let cell = CellId::Gate(gate.clone());
        let stored = self.store.cells.get(&cell)?;
        let live: Live<Gate> = Live::load(cell, self.store.epoch, &stored.rows(), stored.outbox())
            .expect("invariant: rows of this version can be read");
        Some(live.state)
    }
}

impl Forge {
    /// A change goes to another branch, if its move is still the newest, it has not landed, and the person has the right.
    pub(crate) fn retarget(
        &mut self,
        (by, number): (UserId, ChangeNumber),
        to: &BranchName,
        (came, now): (Option<&Came>, Timestamp),
    ) -> bool {
        let role = self.people.get(&by).map(|rights| rights.role);
        let Some(change) = self.changes.get_mut(&number) else { return false };
        let may = role >= Some(Role::Maintainer) || role >= Some(Role::Author) && change.facts.owner == by;
        let is_open = change.state == ChangeState::Open && change.landed_on.is_none();
        let goes = may && is_open && change.facts.came.as_ref() == came && change.target != *to;
        if goes {
            let at = came.map_or(now, |before| now.max(Timestamp(before.at.0 + 1)));
            let from = std::mem::replace(&mut change.target, to.clone());
            change.facts.came = Some(Came { from, at });
        }
        goes
    }
}
