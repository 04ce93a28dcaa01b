//! Jobs that deploy: they wait for their turn in their environment, keep it over all their attempts, and give it back.

use std::collections::BTreeMap;

use super::*;
use crate::message::{Claim, PROGRAM_OUTPUT, Release};

/// Why a deployment is over that was owed when the data were saved.
pub const RESTORED: &str = "the data were restored, and after they were saved it may have been deployed: look what runs there, \
                            then deploy again with `towpath deploy start`";

impl RunState {
    /// Where a job deploys to, if it does.
    fn environment(&self, job: JobIndex) -> Option<EnvironmentId> {
        let name = self.graph.job(job).body.environment.clone()?;
        Some(EnvironmentId { repo: self.id.gate.repo.clone(), name })
    }

    /// Whether nothing but a slot keeps a job waiting: it deploys nowhere, or has its turn and nothing halts deployments.
    pub(super) fn may_deploy(&self, job: JobIndex) -> bool {
        let has_turn = || matches!(self.turns.get(&job.0), Some(Turn::Admitted { .. }));
        self.graph.job(job).body.environment.is_none() || !self.whole.halted && has_turn()
    }

    /// Whether a job waits for a person to accept what a restore lost.
    pub fn is_halted(&self, job: JobIndex) -> bool {
        let is_over = || matches!(self.jobs.get(&job.0), Some(JobState::Done { .. }));
        let deploys = self.graph.job(job).body.environment.is_some();
        self.whole.halted && deploys && !self.running.contains(&job) && !is_over()
    }

    /// A job that has its turn, if it needs one, takes the next slot, or waits without one while deployments are halted.
    pub(super) fn await_slot(&mut self, job: JobIndex) {
        if self.may_deploy(job) {
            self.ready.insert(job);
        }
    }

    /// The data are from a backup. Nothing of this run is deployed before a person has accepted that.
    pub(super) fn restored(&mut self, now: Timestamp) {
        if self.whole.ended.is_some() {
            return;
        }
        self.whole.edit().halted = true;
        let ready = std::mem::take(&mut self.ready);
        self.ready = ready.into_iter().filter(|job| self.may_deploy(*job)).collect();
        self.deploy_nothing_again(now);
    }

    /// What this run had still to deploy may have been deployed in the life that was lost: it is over, unless its definition
    /// says that it may be done again. Of a job that is running, whoever has it says so.
    pub(super) fn deploy_nothing_again(&mut self, now: Timestamp) {
        let deploying = self.graph.iter().filter(|(_, spec)| spec.body.environment.is_some());
        let deploying: Vec<(JobIndex, bool)> =
            deploying.map(|(job, spec)| (job, spec.body.restartable)).collect();
        for (job, is_restartable) in deploying {
            if self.running.contains(&job) {
                if let Some(JobState::Running { restored, .. }) = self.jobs.get_mut(&job.0) {
                    *restored = true;
                }
            } else if !is_restartable {
                self.finish(job, Arc::new(JobResult::unrun(Outcome::Errored, RESTORED)), None, now);
            }
        }
    }

    /// A person has accepted the restore: what has its turn takes a slot.
    pub(super) fn restore_accepted(&mut self) {
        if !self.whole.halted {
            return;
        }
        let waiting = self.turns.map().keys().map(|job| JobIndex(*job));
        let waiting: Vec<JobIndex> = waiting.filter(|job| self.is_halted(*job)).collect();
        self.whole.edit().halted = false;
        waiting.into_iter().for_each(|job| self.await_slot(job));
    }

    pub(super) fn claim(&mut self, job: JobIndex) {
        if self.turns.get(&job.0).is_none() {
            self.turns.insert(job.0, Turn::Claimed);
        }
    }

    /// How far a job is with its environment; `None`: it has not claimed one.
    pub fn turn(&self, job: JobIndex) -> Option<Turn> {
        self.turns.get(&job.0).copied()
    }

    /// One message for each job that has claimed its environment; at its end the message is another one.
    pub(super) fn owe_claims(&self, start: &RunStart, plan: &mut Plan) {
        for job in self.turns.map().keys().map(|job| JobIndex(*job)) {
            let Some(environment) = self.environment(job) else { continue };
            let message = match self.jobs.get(&job.0) {
                Some(JobState::Done { result, .. }) => Message::Release(Release {
                    run: self.id.clone(),
                    job,
                    outcome: result.outcome,
                    why: result.why.clone(),
                    program: result.outputs.get(PROGRAM_OUTPUT).copied(),
                }),
                _ => Message::Claim(Box::new(Claim {
                    run: self.id.clone(),
                    job,
                    name: self.graph.job(job).name.clone(),
                    commit: start.commit,
                    level: start.level,
                    by: start.by.clone(),
                    reason: start.reason.clone(),
                })),
            };
            let key = EffectKey::level("claim", format!("{} {}", self.id, job.0));
            plan.owe(key, Effect::Send { to: CellId::Environment(environment), message });
        }
    }

    /// What a job is told of its run, and of the deployment that it is or that it follows. One that follows several is
    /// told of none: their names would be a guess.
    pub(super) fn facts(&self, start: &RunStart, job: JobIndex) -> BTreeMap<String, String> {
        let mut facts = start.facts.clone();
        let needs = &self.graph.job(job).needs;
        let deployments: Vec<JobIndex> = match self.environment(job) {
            Some(_) => vec![job],
            None => needs.iter().copied().filter(|need| self.environment(*need).is_some()).collect(),
        };
        let [deployment] = deployments[..] else { return facts };
        if let (Some(environment), Some(Turn::Admitted { number, before })) =
            (self.environment(deployment), self.turn(deployment))
        {
            facts.insert("ENVIRONMENT".into(), environment.name.to_string());
            facts.insert("DEPLOYMENT".into(), number.to_string());
            facts.insert("COMMIT".into(), start.commit.to_string());
            facts.insert("COMMIT_BEFORE".into(), before.map(|commit| commit.to_string()).unwrap_or_default());
        }
        facts
    }
}
