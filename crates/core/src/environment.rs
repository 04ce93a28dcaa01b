//! The environment cell: a place to which a repo deploys. One deployment at a time, each of them on record.
//!
//! A run claims its environment once a job is ready to deploy, and gives it back at the job's end. Claims come in the
//! order in which they were made: which commit is worth deploying is for the gate to say, which coalesces landings.
//!
//! In an environment that is the server itself, a deployment is over only when the program that its job left serves in
//! this server's place, or could not.

use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::cell::{Cell, CellId, CellState, Field, Notes, Row, RowError, Rows, Table};
use crate::effect::{Effect, EffectKey, Plan, Replacement};
use crate::graph::{JobIndex, Outcome};
use crate::ids::{CommitId, Digest, EnvironmentId, RunId, Timestamp};
use crate::message::{Admission, Claim, Message, PROGRAM_OUTPUT, Release};
use crate::policy::Level;

/// The environment cell.
#[derive(Debug)]
pub enum Environment {}

/// What can happen to an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentEvent {
    /// The server's settings for it.
    Configured(EnvironmentConfig),
    /// A job is ready to deploy.
    Claim(Box<Claim>),
    /// A job that had claimed it is over.
    Release(Release),
    /// The server's program was replaced, or not.
    Replaced {
        /// By which deployment.
        number: u64,
        /// Why not.
        result: Result<(), String>,
    },
    /// The data are from a backup that has this environment. Said again, it changes nothing.
    Restored,
}

/// Settings that an admin of the server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironmentConfig {
    /// This server itself is what is deployed here.
    pub is_self: bool,
}

/// What runs there, as far as deployments tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The deployment that put it there.
    pub number: u64,
    /// What it is.
    pub commit: CommitId,
    /// Since when.
    pub since: Timestamp,
}

/// The deployment under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploying {
    /// Its number.
    pub number: u64,
    /// The job that does it.
    pub claim: Claim,
    /// Since when.
    pub since: Timestamp,
    /// Set once the job has passed in an environment that is the server itself: manifest of the program that is to serve.
    pub program: Option<Digest>,
    /// The program was to serve when the data were saved: in the life that was lost it may have served, and others after it.
    #[serde(default)]
    pub restored: bool,
}

/// What counts beyond single deployments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Whole {
    /// Counts deployments.
    deployments: u64,
    /// Counts claims: the order in which they came.
    claims: u64,
    /// What runs there.
    current: Option<Current>,
    /// The newest deployment that could not replace the server, and why, until a later one passes. One alert for each.
    unreplaced: Option<Unreplaced>,
}

/// A program that could not take this server's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Unreplaced {
    number: u64,
    run: RunId,
    why: String,
}

/// Everything an environment knows.
#[derive(Debug)]
pub struct EnvironmentState {
    /// Its name.
    pub id: EnvironmentId,
    config: Field<EnvironmentConfig>,
    whole: Field<Whole>,
    deploying: Field<Option<Deploying>>,
    waiting: Table<u64, Claim>,
    notes: Notes,
}

impl Cell for Environment {
    type State = EnvironmentState;
    type Event = EnvironmentEvent;

    fn apply(state: &mut EnvironmentState, event: &EnvironmentEvent, now: Timestamp) {
        match event {
            EnvironmentEvent::Configured(config) => {
                if *state.config != *config {
                    *state.config.edit() = *config;
                }
            }
            EnvironmentEvent::Claim(claim) => state.claim(claim),
            EnvironmentEvent::Release(release) => state.release(release, now),
            EnvironmentEvent::Replaced { number, result } => state.replaced(*number, result, now),
            EnvironmentEvent::Restored => state.restored(),
        }
        state.admit(now);
    }

    fn plan(state: &EnvironmentState, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Some(deploying) = &*state.deploying {
            state.owe_deploying(deploying, &mut plan);
        }
        if let (Some(Unreplaced { number, run, why }), Some(key)) = (&state.whole.unreplaced, state.alert()) {
            let text = format!(
                "deployment {number} to {} does not serve, the server goes on as it was: {why}",
                state.id
            );
            plan.owe(key, Effect::Alert { gate: run.gate.clone(), text });
        }
        plan
    }
}

impl EnvironmentState {
    /// The server's settings.
    pub fn config(&self) -> EnvironmentConfig {
        *self.config
    }

    /// What runs there.
    pub fn current(&self) -> Option<&Current> {
        self.whole.current.as_ref()
    }

    /// The alert of the newest deployment that could not replace the server, until a later one passes.
    pub fn alert(&self) -> Option<EffectKey> {
        let unreplaced = self.whole.unreplaced.as_ref()?;
        Some(EffectKey::once("alert-server", &self.id, unreplaced.number))
    }

    /// The deployment under way.
    pub fn deploying(&self) -> Option<&Deploying> {
        self.deploying.as_ref()
    }

    /// Jobs that wait for their turn, next one first.
    pub fn waiting(&self) -> impl Iterator<Item = &Claim> {
        self.waiting.map().values()
    }

    fn owe_deploying(&self, deploying: &Deploying, plan: &mut Plan) {
        let Deploying { number, claim, program, restored, .. } = deploying;
        let before = self.whole.current.as_ref().map(|current| current.commit);
        let admission = Admission { job: claim.job, number: *number, before };
        let message = Message::Admitted(admission);
        let admitted = Effect::Send { to: CellId::Run(claim.run.clone()), message };
        plan.owe(EffectKey::once("admit", &self.id, *number), admitted);
        if let Some(program) = program {
            let replacement = Replacement {
                environment: self.id.clone(),
                number: *number,
                commit: claim.commit,
                program: *program,
                restored: *restored,
            };
            let effect = Effect::ReplaceServer(replacement);
            plan.owe(EffectKey::once("replace-server", &self.id, *number), effect);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        let same = |other: &Claim| (&other.run, other.job) == (&claim.run, claim.job);
        let known = self.waiting().any(same) || self.deploying.as_ref().is_some_and(|one| same(&one.claim));
        if !known {
            let whole = self.whole.edit();
            whole.claims += 1;
            self.waiting.insert(whole.claims, claim.clone());
        }
    }

    fn release(&mut self, release: &Release, now: Timestamp) {
        let of = |claim: &Claim| (&claim.run, claim.job) == (&release.run, release.job);
        self.waiting.retain(|_, claim| !of(claim));
        let Some(deploying) = self.deploying.as_ref().filter(|one| of(&one.claim) && one.program.is_none())
        else {
            return;
        };
        let landed = deploying.claim.level == Level::Landed;
        match (release.outcome, release.program) {
            (Outcome::Passed, Some(program)) if self.config.is_self && landed => {
                let deploying = self.deploying.edit().as_mut().expect("invariant: it was just found");
                deploying.program = Some(program);
            }
            (Outcome::Passed, None) if self.config.is_self => {
                let why = format!("its job passed without an output `{PROGRAM_OUTPUT}`");
                self.end_unreplaced(why, now);
            }
            (outcome, _) => self.end(outcome, release.why.clone(), now),
        }
    }

    /// Which program has served since the data were saved is not known. Whether this one serves, or has failed, its driver
    /// finds out; it is not tried again.
    fn restored(&mut self) {
        if self.deploying.as_ref().is_some_and(|one| one.program.is_some() && !one.restored) {
            self.deploying.edit().as_mut().expect("invariant: it was just found").restored = true;
        }
    }

    fn replaced(&mut self, number: u64, result: &Result<(), String>, now: Timestamp) {
        let awaited = |one: &Deploying| one.number == number && one.program.is_some();
        if !self.deploying.as_ref().is_some_and(awaited) {
            return;
        }
        match result {
            Ok(()) => self.end(Outcome::Passed, "it serves".into(), now),
            Err(why) => self.end_unreplaced(why.clone(), now),
        }
    }

    fn end_unreplaced(&mut self, why: String, now: Timestamp) {
        if let Some(deploying) = &*self.deploying {
            let (number, run) = (deploying.number, deploying.claim.run.clone());
            self.whole.edit().unreplaced = Some(Unreplaced { number, run, why: why.clone() });
        }
        self.end(Outcome::Failed, why, now);
    }

    fn end(&mut self, outcome: Outcome, why: String, now: Timestamp) {
        let Some(Deploying { number, claim, .. }) = self.deploying.edit().take() else { return };
        if outcome == Outcome::Passed {
            let whole = self.whole.edit();
            whole.current = Some(Current { number, commit: claim.commit, since: now });
            whole.unreplaced = None;
        }
        self.notes.acts.push(Act::DeploymentEnded { environment: self.id.clone(), number, outcome, why });
    }

    /// The next claim has its turn once the deployment before is over.
    fn admit(&mut self, now: Timestamp) {
        if self.deploying.is_some() {
            return;
        }
        let Some(next) = self.waiting.map().keys().next().copied() else { return };
        let claim = self.waiting.remove(&next).expect("invariant: it was just found");
        let whole = self.whole.edit();
        whole.deployments += 1;
        let number = whole.deployments;
        self.notes.acts.push(Act::DeploymentStarted {
            environment: self.id.clone(),
            number,
            run: claim.run.clone(),
            job: claim.name.clone(),
            commit: claim.commit,
            by: claim.by.clone(),
            reason: claim.reason.clone(),
        });
        *self.deploying.edit() =
            Some(Deploying { number, claim, since: now, program: None, restored: false });
    }

    /// Whether a job of a run has its turn or waits for it.
    pub fn knows(&self, run: &RunId, job: JobIndex) -> bool {
        let of = |claim: &Claim| (&claim.run, claim.job) == (run, job);
        self.waiting().any(of) || self.deploying.as_ref().is_some_and(|one| of(&one.claim))
    }
}

impl CellState for EnvironmentState {
    fn new(id: &CellId) -> Self {
        let CellId::Environment(id) = id else {
            panic!("invariant: an environment's state is only made for an environment cell, not {id}")
        };
        EnvironmentState {
            id: id.clone(),
            config: Field::new("config", EnvironmentConfig::default()),
            whole: Field::new("whole", Whole::default()),
            deploying: Field::new("deploying", None),
            waiting: Table::new("waiting"),
            notes: Notes::default(),
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.config.take(&mut rows);
        self.whole.take(&mut rows);
        self.deploying.take(&mut rows);
        self.waiting.take(&mut rows);
        rows
    }

    fn put_row(&mut self, row: &Row) -> Result<(), RowError> {
        let known = self.config.put(row)?
            || self.whole.put(row)?
            || self.deploying.put(row)?
            || self.waiting.put(row)?;
        match known {
            true => Ok(()),
            false => Err(RowError::new(&row.key, "no such row in an environment")),
        }
    }

    fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

#[cfg(test)]
mod tests;
