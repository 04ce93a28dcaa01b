//! Jobs that deploy: they wait for their turn in their environment, keep it over all their attempts, and give it back.

use std::collections::BTreeMap;

use super::*;
use crate::message::{Claim, PROGRAM_OUTPUT, Release};

impl RunState {
    /// Where a job deploys to, if it does.
    fn environment(&self, job: JobIndex) -> Option<EnvironmentId> {
        let name = self.graph.job(job).body.environment.clone()?;
        Some(EnvironmentId { repo: self.id.gate.repo.clone(), name })
    }

    /// Whether nothing but a slot keeps a job waiting: it deploys nowhere, or has its turn.
    pub(super) fn may_deploy(&self, job: JobIndex) -> bool {
        self.graph.job(job).body.environment.is_none()
            || matches!(self.turns.get(&job.0), Some(Turn::Admitted { .. }))
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
