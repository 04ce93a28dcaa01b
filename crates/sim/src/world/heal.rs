//! The end of a world: the faults stop, a diligent team tidies up, and everything has to come to rest.

use towpath_core::cell::CellId;
use towpath_core::effect::Landing;
use towpath_core::gate::{GateState, Reason, RetryScope, Verb, Verdict};
use towpath_core::ids::{ChangeNumber, Epoch, GateId, Timestamp};
use towpath_core::policy::{Rights, Role};

use super::people::{ADMIN, AUTHORS, MAINTAINERS};
use super::{AnyLive, World};
use crate::fake::definition::{self, Job};
use crate::fake::forge::Shown;
use crate::fake::git::{DEFINITION, PATHS};
use crate::faults::Faults;

/// Virtual milliseconds within which the world has to come to rest: 40 landings of an hour each, twice.
const REST_MS_MAX: i64 = 80 * 3_600_000;
/// Rounds of tidying up: a landing may mend what failed before it.
const ROUNDS_MAX: usize = 30;
/// Milliseconds that two runs of two jobs each take at most, and what lies between.
const PROBE_RUNS_MS: i64 = 4 * 900_000 + 120_000;

impl World {
    /// A gate as the leading server has it in memory.
    pub fn gate_state(&self, gate: &GateId) -> Option<&GateState> {
        self.gate_of(self.leader()?.epoch, gate)
    }

    /// A gate as one server has it in memory.
    pub fn gate_of(&self, epoch: Epoch, gate: &GateId) -> Option<&GateState> {
        match self.server(epoch)?.cells.get(&CellId::Gate(gate.clone()))? {
            AnyLive::Gate(live) => Some(&live.state),
            _ => None,
        }
    }

    /// Milliseconds between polls.
    pub fn poll_ms(&self) -> i64 {
        i64::from(self.config.poll_seconds) * 1000
    }

    /// Ends the faults, lets the team tidy up, and waits for rest; `bells`: whether doorbells ring again.
    pub fn heal(&mut self, bells: bool) {
        self.trace.line(format!("{} the faults stop", self.now));
        self.faults = Faults::default();
        (self.crash_at, self.crash_again) = (None, None);
        self.bells_ring = bells;
        self.restore_rights();
        self.restart_after_a_look();
        let epochs = self.servers.iter().map(|server| server.epoch);
        let ghosts: Vec<_> = epochs.filter(|epoch| *epoch != self.store.epoch).collect();
        ghosts.into_iter().for_each(|epoch| self.stop_server(epoch));
        if self.leader().is_none() {
            self.start_server();
        }
        self.accept_restore();
        self.wait(2 * self.poll_ms());
        self.team_has_all_tidied_up();
    }

    /// The team tidies up for as long as there is something to tidy up, and the world comes to rest.
    fn team_has_all_tidied_up(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.team_tidies_up();
            self.come_to_rest();
            // What was under way while there was nothing to tell may have left something: a run that failed, a landing.
            let is_tidy = self.gates.clone().iter().all(|gate| self.due_commands(gate).is_empty());
            if is_tidy || !self.checks.violations.is_empty() {
                return;
            }
        }
        let due: Vec<_> = self.gates.clone().iter().flat_map(|gate| self.due_commands(gate)).collect();
        self.violate("I6", format!("after {ROUNDS_MAX} rounds the team still has to give {due:?}"));
    }

    fn restore_rights(&mut self) {
        let full = |role| Rights { role, authorised: true };
        self.forge.people.extend(AUTHORS.map(|user| (user, full(Role::Author))));
        self.forge.people.extend(MAINTAINERS.map(|user| (user, full(Role::Maintainer))));
    }

    fn wait(&mut self, ms: i64) {
        self.run_until(self.now + ms);
    }

    /// Polls pass until nothing is owed and nothing happens any more.
    pub fn come_to_rest(&mut self) {
        let deadline = self.now + REST_MS_MAX;
        let mut quiet = 0;
        while quiet < 2 && self.checks.violations.is_empty() {
            self.wait(self.poll_ms() + 5_000);
            quiet = if self.unrest().is_none() { quiet + 1 } else { 0 };
            if self.now > deadline {
                let what = self.unrest().unwrap_or_else(|| "something begins again and again".into());
                self.violate("I6", format!("the world does not come to rest: {what}"));
            }
        }
    }

    /// Tells the server what a team would that wants its changes landed.
    fn team_tidies_up(&mut self) {
        for gate in self.gates.clone() {
            self.check_stops(&gate);
            self.check_freeze_is_told(&gate);
            for verb in self.due_commands(&gate) {
                if verb == Verb::Unfreeze && !self.note_unfreeze(&gate) {
                    let what = format!("{gate} froze again over what it had been unfrozen for");
                    return self.violate("I6", what);
                }
                self.command(&gate, ADMIN, verb);
            }
        }
    }

    /// Whether the team has not yet ended a freeze of this cause.
    fn note_unfreeze(&mut self, gate: &GateId) -> bool {
        let freeze = self.gate_state(gate).and_then(|state| state.branch().frozen.clone());
        freeze.is_some_and(|freeze| self.unfrozen.insert((gate.clone(), freeze.why, freeze.lost)))
    }

    fn due_commands(&mut self, gate: &GateId) -> Vec<Verb> {
        let now = self.intake_time();
        let Some(state) = self.gate_state(gate) else { return vec![] };
        let mut verbs = vec![];
        verbs.extend(state.branch().foreign.map(|tip| Verb::AcceptTip { tip }));
        verbs.extend(state.branch().frozen.is_some().then_some(Verb::Unfreeze));
        let mut failed = vec![];
        for (number, change) in state.changes() {
            let reasons = state.reasons(*number, now);
            let revision = change.facts.revision.commit;
            if change.hold.is_some() && number.0 % 2 == 0 {
                verbs.push(Verb::Release { change: *number });
            }
            let mended = |reason: &Reason| {
                use Reason::{NotRun, OurMachines, RunCancelled, TestsFailed};
                matches!(
                    reason,
                    TestsFailed { .. } | OurMachines { .. } | NotRun { .. } | RunCancelled { .. }
                )
            };
            if reasons.iter().any(mended) && state.would_run(*number, now).is_ok() {
                failed.push((*number, revision));
            }
        }
        for (change, revision) in failed {
            if self.would_pass(gate, change) == Some(true) {
                verbs.push(Verb::Retry { change, revision, scope: RetryScope::All });
            }
        }
        verbs
    }

    /// Whether a change's candidate on the tip truly passes; `None`: that depends on the very commit, or on what
    /// ends first.
    pub fn would_pass(&mut self, gate: &GateId, number: ChangeNumber) -> Option<bool> {
        let (landing, full) = self.imagined(gate, number)?;
        let Ok(required) = self.required(&landing, full) else { return Some(false) };
        let files = self.forge.git.get(landing.to).files;
        let passes = |job: &Job| definition::passes(&job.body, &files, landing.to);
        let own = definition::read(files[DEFINITION]).map(|read| read.jobs).unwrap_or_default();
        // Another job's failure comes before its own end, or after it.
        let may_be_aborted = |job: &Job| {
            let aborts = |other: &&Job| other.aborts == Some(job.name);
            own.iter().filter(aborts).any(|other| other.body.history || !passes(other))
        };
        if required.iter().any(|job| job.body.history || may_be_aborted(job)) {
            return None;
        }
        Some(required.iter().all(passes))
    }

    /// The landing of a change as it would be now, if it can be joined at all.
    pub fn imagined(&mut self, gate: &GateId, number: ChangeNumber) -> Option<(Landing, bool)> {
        let from = self.forge.branch(&gate.branch).tip;
        let change = self.forge.changes.get(&number)?;
        let (revision, title) = (change.facts.revision.commit, change.facts.title.clone());
        let full = change.facts.labels.contains(&self.config.labels.rerun_all);
        let settings = definition::read(self.forge.git.get(from).files[DEFINITION]);
        let strategy = settings.map(|read| read.settings.strategy).unwrap_or_default();
        let spec = towpath_core::candidate::CandidateSpec {
            parent: from,
            revision,
            strategy,
            message: format!("imagined {title}"),
            time: Timestamp(0),
        };
        match self.forge.git.candidate(&spec) {
            towpath_core::candidate::CandidateResult::Made(made) => {
                let landing = Landing {
                    repo: gate.repo.clone(),
                    branch: gate.branch.clone(),
                    change: number,
                    revision,
                    came_at: None,
                    candidate: spec.id(),
                    from,
                    to: made.commit,
                };
                Some((landing, full))
            }
            _ => None,
        }
    }

    /// I6: with everything at rest and no bell, a fresh change is seen, tested and landed in time.
    pub fn probe(&mut self) {
        self.bells_ring = false;
        let Some(gate) = self.gates.clone().into_iter().find(|gate| self.is_open(gate)) else { return };
        let Some(number) = self.propose_good(&gate) else { return };
        let revision = self.forge.changes[&number].facts.revision.commit;
        for by in [ADMIN, MAINTAINERS[0], MAINTAINERS[1]] {
            let seen = (revision, Shown::Definition);
            self.forge.review(number, (by, Verdict::Approve), seen, Timestamp(self.now));
        }
        self.wait(2 * self.poll_ms());
        if !self.checks.was_started_for(number) {
            let what = format!("change {number} was not tested within two polls");
            return self.violate("I6", what);
        }
        self.wait(PROBE_RUNS_MS + 2 * self.poll_ms());
        let landed = self.checks.landed_of(&self.store.leaves, number);
        if !landed && self.checks.violations.is_empty() {
            let reasons = self.reasons_of(&gate, number);
            self.violate("I6", format!("change {number} did not land in time: {reasons}"));
        }
        // What failed by the tip before may pass on what has just landed.
        self.come_to_rest();
        self.team_has_all_tidied_up();
    }

    /// Why a change has not landed, as people are told.
    pub fn reasons_of(&self, gate: &GateId, number: ChangeNumber) -> String {
        let now = self.intake_time();
        let reasons = self.gate_state(gate).map(|state| state.reasons(number, now)).unwrap_or_default();
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn is_open(&self, gate: &GateId) -> bool {
        self.gate_state(gate)
            .is_some_and(|state| state.branch().frozen.is_none() && state.branch().foreign.is_none())
    }

    /// A change that passes whatever the tip requires; there is none on a tip that fails by itself.
    fn propose_good(&mut self, gate: &GateId) -> Option<ChangeNumber> {
        const TRIES: u32 = 50;
        let tip = self.forge.branch(&gate.branch).tip;
        let before = self.forge.git.get(tip).files;
        for value in 0..TRIES {
            let mut files = before;
            files[PATHS - 1] = 7_700 + value * 7 * 11;
            if files == before {
                continue;
            }
            let head = self.forge.git.commit(&[tip], files, ("good", self.now));
            let number = self.forge.propose(&gate.branch, head, AUTHORS[0]);
            let runs_something = self.imagined(gate, number).is_some_and(|(landing, full)| {
                self.required(&landing, full).is_ok_and(|required| !required.is_empty())
            });
            if runs_something && self.would_pass(gate, number) == Some(true) {
                return Some(number);
            }
            self.forge.changes.remove(&number);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Strike;

    #[test]
    fn a_restore_that_nobody_has_accepted_when_the_faults_stop_is_accepted_then() {
        let mut world = World::new(1, &["main"]);
        world.config.poll_seconds = 60;
        world.open();
        world.wait(2 * world.poll_ms());
        let gate = world.gates[0].clone();
        let number = world.propose_good(&gate).unwrap();
        let seen = (world.forge.changes[&number].facts.revision.commit, Shown::Definition);
        world.forge.review(number, (ADMIN, Verdict::Approve), seen, Timestamp(world.now));
        world.strike(Strike::Restored);
        world.finish(true);
        assert_eq!(world.checks.violations, []);
        assert!(world.checks.landed_of(&world.store.leaves, number));
    }
}
