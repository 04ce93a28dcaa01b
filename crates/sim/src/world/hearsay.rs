//! What a planted bug makes of the words that come to a cell, and of those that it leaves. The checkers know what was truly
//! said.

use std::sync::Arc;

use towpath_core::act::{Act, LandedAct};
use towpath_core::cell::CellId;
use towpath_core::gate::{Arrival, Bell, Departure, GateEvent, HaltCause, LandTried, RetryScope, Verb};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::{GateId, Timestamp};
use towpath_core::message::{JobReport, Message, RunReport};
use towpath_core::run::RunEvent;
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
            (
                Some(Mutant::VouchesAreForAnyDefinition),
                Verb::Vouch { change, revision, why, expires, .. },
            ) => Verb::Vouch { change, revision, definition: None, why, expires },
            (Some(Mutant::VouchesNeverEnd), Verb::Vouch { change, revision, definition, why, .. }) => {
                Verb::Vouch { change, revision, definition, why, expires: Timestamp(i64::MAX) }
            }
            (_, verb) => verb,
        }
    }

    /// What lies in an inbox as its cell hears it.
    pub(super) fn heard(&self, cell: &CellId, intake: &AnyIntake) -> AnyIntake {
        match intake {
            AnyIntake::Gate(Intake::Event(GateEvent::RunEnded(report))) if self.mutant.is_some() => {
                let jobs = report.jobs.iter();
                let jobs = jobs.map(|job| JobReport { result: self.heard_of(report, job), ..job.clone() });
                let report = RunReport { jobs: jobs.collect(), ..(**report).clone() };
                AnyIntake::Gate(Intake::Event(GateEvent::RunEnded(Arc::new(report))))
            }
            AnyIntake::Gate(Intake::Event(GateEvent::Arrives(arrival)))
                if self.mutant == Some(Mutant::HoldsStayBehind) =>
            {
                let arrival = Arrival { hold: None, ..arrival.clone() };
                AnyIntake::Gate(Intake::Event(GateEvent::Arrives(arrival)))
            }
            AnyIntake::Gate(Intake::Event(GateEvent::Left(_)))
                if self.mutant == Some(Mutant::DeparturesAreNotHeard) =>
            {
                AnyIntake::Gate(Intake::Event(GateEvent::Bell(Bell::default())))
            }
            AnyIntake::Gate(Intake::Event(GateEvent::Halts(halts))) if self.mishears_restores(cell) => {
                let why = halts.values().find_map(Clone::clone);
                let halts = [(HaltCause::Disk, why), (HaltCause::Restore, None)];
                AnyIntake::Gate(Intake::Event(GateEvent::Halts(halts.into())))
            }
            AnyIntake::Gate(Intake::Done {
                key,
                token,
                result: Some(GateEvent::LandTried { candidate, result: LandTried::Broken { tip } }),
            }) if self.mutant == Some(Mutant::LackingIsMoved) => {
                let (candidate, result) = (*candidate, LandTried::Moved { tip: *tip });
                let result = Some(GateEvent::LandTried { candidate, result });
                AnyIntake::Gate(Intake::Done { key: key.clone(), token: *token, result })
            }
            AnyIntake::Run(Intake::Event(RunEvent::Restored))
                if self.mutant == Some(Mutant::RunsDoNotHearOfRestores) =>
            {
                AnyIntake::Run(Intake::Event(RunEvent::RestoreAccepted))
            }
            other => other.clone(),
        }
    }

    /// The leaves of a turn as they come to the record.
    pub(super) fn recorded(&self, acts: Vec<Act>) -> Vec<Act> {
        let is_kept = |act: &Act| match self.mutant {
            Some(Mutant::FreezesAreNotRecorded) => !matches!(act, Act::Froze { .. }),
            Some(Mutant::ForeignPushesAreNotRecorded) => !matches!(act, Act::ForeignPush { .. }),
            Some(Mutant::EjectionsAreNotRecorded) => !matches!(act, Act::Ejected { .. }),
            _ => true,
        };
        let said = |act: Act| match act {
            Act::Landed(landed) if self.mutant == Some(Mutant::LandingsNameNobody) => {
                Act::Landed(Box::new(LandedAct { approvals: vec![], ..*landed }))
            }
            other => other,
        };
        acts.into_iter().filter(is_kept).map(said).collect()
    }

    /// With this bug a gate is told what held a change by somebody who knows, and the one that has let it go hears nothing.
    pub(super) fn answer_behind(&mut self, messages: &[(CellId, Message)]) {
        if self.mutant != Some(Mutant::DeparturesAreNotHeard) {
            return;
        }
        for (from, message) in messages {
            let (CellId::Gate(from), Message::Left(Departure { change, to, at })) = (from, message) else {
                continue;
            };
            let hold = self.committed(from).and_then(|state| state.hold_of(*change).cloned());
            let arrival = Arrival { change: *change, hold, at: *at };
            let to = CellId::Gate(GateId { branch: to.clone(), ..from.clone() });
            let now = self.intake_time();
            self.deliver(&to, now, AnyIntake::Gate(Intake::Event(GateEvent::Arrives(arrival))));
        }
    }

    fn mishears_restores(&self, cell: &CellId) -> bool {
        match self.mutant {
            Some(Mutant::RestoresAreDiskFailures) => true,
            Some(Mutant::LandingsDoNotHearOfRestores) => {
                self.store.cells[cell].rows.keys().any(|key| key.starts_with("landing/"))
            }
            _ => false,
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
