//! What a planted bug makes of the words that come to a gate. The checkers know what was truly said.

use std::sync::Arc;

use towpath_core::gate::{GateEvent, RetryScope, Verb};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::message::{JobReport, RunReport};
use towpath_core::turn::Intake;

use super::World;
use crate::fake::store::AnyIntake;
use crate::mutant::Mutant;

impl World {
    /// A command as its gate understands it.
    pub(super) fn understood(&self, verb: Verb) -> Verb {
        match (self.mutant, verb) {
            (Some(Mutant::RetriesKeepEverything), Verb::Retry { change, revision, .. }) => {
                Verb::Retry { change, revision, scope: RetryScope::NotPassed }
            }
            (_, verb) => verb,
        }
    }

    /// What lies in an inbox as its cell hears it.
    pub(super) fn heard(&self, intake: &AnyIntake) -> AnyIntake {
        match intake {
            AnyIntake::Gate(Intake::Event(GateEvent::RunEnded(report))) if self.mutant.is_some() => {
                let jobs = report.jobs.iter();
                let jobs = jobs.map(|job| JobReport { result: self.heard_of(report, job), ..job.clone() });
                let report = RunReport { jobs: jobs.collect(), ..(**report).clone() };
                AnyIntake::Gate(Intake::Event(GateEvent::RunEnded(Arc::new(report))))
            }
            other => other.clone(),
        }
    }

    fn heard_of(&self, report: &RunReport, job: &JobReport) -> Arc<JobResult> {
        let said = job.result.clone();
        match (self.mutant, said.outcome) {
            (Some(Mutant::FailuresAreForgotten), Outcome::Failed) => {
                Arc::new(JobResult::unrun(Outcome::Cancelled, "forgotten"))
            }
            (Some(Mutant::StoppedIsPassed), Outcome::Cancelled) => {
                let last = self.checks.last_result(&report.run, job.digest);
                last.filter(|last| last.outcome == Outcome::Passed).unwrap_or(said)
            }
            (Some(Mutant::AbortedIsPassed), Outcome::Cancelled) if report.outcome != Outcome::Cancelled => {
                Arc::new(JobResult { outcome: Outcome::Passed, ..(*said).clone() })
            }
            _ => said,
        }
    }
}
