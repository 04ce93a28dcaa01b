//! Reasons: why something has not happened yet. Data, shown alike by CLI, pages, API and forge comment.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HaltCause;
use crate::ids::{BranchName, ChangeNumber, CommitId, RunId, Timestamp};
use crate::policy::Role;

/// One reason why a change has not landed. Each says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The branch does not exist on the forge.
    NoBranch,
    /// Somebody who is no admin put the branch where it is, before it was watched.
    NotAccepted {
        /// Where.
        tip: CommitId,
    },
    /// The forge's record of it is damaged.
    Unreadable {
        /// How.
        why: String,
    },
    /// Nobody authorised uploaded it, vouched for it or approved it.
    Untrusted {
        /// The newest revision.
        revision: CommitId,
    },
    /// It is a draft.
    Draft,
    /// A label keeps it from being tested or landed.
    Label {
        /// The label.
        label: String,
    },
    /// The branch that it came from has still to say what holds it.
    Arriving {
        /// Which.
        from: BranchName,
    },
    /// A person stopped it.
    Held {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Its two sides do not merge.
    Conflict {
        /// Where.
        paths: Vec<String>,
    },
    /// Git cannot join it with the branch.
    NoCandidate {
        /// Why.
        why: String,
    },
    /// Git was not done with joining it with the branch in the time that it is given.
    TooSlow {
        /// Why.
        why: String,
    },
    /// The branch has the same files already.
    NothingToLand,
    /// The pipeline file cannot be used.
    BadDefinition {
        /// Every error in it.
        errors: Vec<String>,
    },
    /// A required job failed.
    TestsFailed {
        /// In which run.
        run: RunId,
        /// Which jobs.
        jobs: Vec<String>,
    },
    /// A required job could not be run to its end.
    OurMachines {
        /// In which run.
        run: RunId,
        /// Which jobs.
        jobs: Vec<String>,
    },
    /// Required jobs were not run to their end because of other jobs that did not pass.
    NotRun {
        /// In which run.
        run: RunId,
        /// Which jobs.
        jobs: Vec<String>,
        /// Because of which job.
        why: String,
    },
    /// A person stopped its run.
    RunCancelled {
        /// Which.
        run: RunId,
        /// Why.
        why: String,
    },
    /// Somebody with the right asked for changes.
    ChangesRequested {
        /// How many people.
        people: usize,
    },
    /// Too few approvals.
    Approvals {
        /// So many count now.
        have: u32,
        /// So many it takes.
        need: u32,
        /// The revision to approve.
        revision: CommitId,
    },
    /// The branch asks for no approval, but somebody who is not authorised uploaded something of it.
    Unauthorised {
        /// The revision to approve.
        revision: CommitId,
        /// What that person may do.
        role: Role,
    },
    /// It edits the pipeline, which takes a maintainer's approval of exactly this definition.
    DefinitionApproval {
        /// The revision to approve.
        revision: CommitId,
    },
    /// No required job would run.
    EmptySet,
    /// There is no job at all: no pipeline file, and nothing to detect one from.
    NoJobs,
    /// The branch has not been read yet, or is being read back after a landing.
    ReadingBranch,
    /// The candidate is being made.
    MakingCandidate,
    /// Its run is not over.
    WaitsForRun {
        /// Which.
        run: RunId,
    },
    /// Its run has passed, and counts for nothing: a label has every job run again once it is the merge candidate.
    TestedAgain {
        /// The label.
        label: String,
    },
    /// As many change runs as allowed are under way.
    WaitsForChangeRuns {
        /// How many.
        running: u32,
    },
    /// Others come first.
    Ahead {
        /// The next ones.
        changes: Vec<ChangeNumber>,
    },
    /// The deploy run of the landing before is not over.
    WaitsForDeploy {
        /// Which.
        run: RunId,
    },
    /// The deploy run of the landing before has still to begin.
    DeployIsDue {
        /// What landed.
        commit: CommitId,
    },
    /// Nothing lands on the whole server now.
    Halted {
        /// What stops it.
        cause: HaltCause,
        /// Why.
        why: String,
    },
    /// From its push to its verdict it takes longer than its definition allows.
    OverBudget {
        /// Seconds that are allowed.
        budget_seconds: u32,
        /// When they were over.
        since: Timestamp,
    },
    /// It lands, and leaves a pipeline that requires no job of what comes after it.
    LastToLand,
    /// Nothing lands on this branch now.
    Frozen {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// It is landing.
    Landing,
    /// Something outside does not work; it is tried again by itself.
    Trouble {
        /// What failed.
        what: String,
        /// How.
        why: String,
    },
}

impl Reason {
    /// Whether a person has to do something before the change can be in the queue.
    pub fn keeps_out_of_queue(&self) -> bool {
        match self {
            Reason::NoBranch
            | Reason::NotAccepted { .. }
            | Reason::Unreadable { .. }
            | Reason::Untrusted { .. }
            | Reason::Draft
            | Reason::Label { .. }
            | Reason::Held { .. }
            | Reason::Conflict { .. }
            | Reason::NoCandidate { .. }
            | Reason::TooSlow { .. }
            | Reason::NothingToLand
            | Reason::BadDefinition { .. }
            | Reason::TestsFailed { .. }
            | Reason::OurMachines { .. }
            | Reason::NotRun { .. }
            | Reason::RunCancelled { .. }
            | Reason::ChangesRequested { .. }
            | Reason::Approvals { .. }
            | Reason::Unauthorised { .. }
            | Reason::DefinitionApproval { .. }
            | Reason::EmptySet
            | Reason::NoJobs => true,
            Reason::Arriving { .. }
            | Reason::ReadingBranch
            | Reason::MakingCandidate
            | Reason::WaitsForRun { .. }
            | Reason::TestedAgain { .. }
            | Reason::WaitsForChangeRuns { .. }
            | Reason::Ahead { .. }
            | Reason::WaitsForDeploy { .. }
            | Reason::DeployIsDue { .. }
            | Reason::Halted { .. }
            | Reason::OverBudget { .. }
            | Reason::LastToLand
            | Reason::Frozen { .. }
            | Reason::Landing
            | Reason::Trouble { .. } => false,
        }
    }

    /// What belongs to it and takes a line each: the errors of a definition.
    pub fn details(&self) -> &[String] {
        match self {
            Reason::BadDefinition { errors } => errors,
            _ => &[],
        }
    }

    /// The sentence, and below it a line for each detail.
    pub fn in_full(&self) -> String {
        let lines = std::iter::once(self.to_string()).chain(self.details().iter().cloned());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What to do about it, for a change to `target`; `None`: nothing but wait. Commands are whole: they can be pasted.
    pub fn hint(&self, change: ChangeNumber, target: &BranchName) -> Option<String> {
        Some(match self {
            Reason::Unreadable { .. } => format!(
                "an admin puts what is damaged back into the server's repository from a copy of it, or has \
                 `refs/changes/{change}/meta` there name an earlier record of the change"
            ),
            Reason::Untrusted { revision } => {
                format!(
                    "a maintainer can run `towpath change vouch {change} --revision {} --why '…'`",
                    revision.short()
                )
            }
            Reason::Draft => format!("`towpath change ready {change}` ends the draft"),
            Reason::Label { label } => format!("`towpath change label {change} --remove '{label}'`"),
            Reason::Held { .. } => format!("`towpath change release {change}`"),
            Reason::Conflict { .. } | Reason::NoCandidate { .. } => {
                format!(
                    "`git fetch towpath && git rebase towpath/{target}`, then `git push towpath HEAD:refs/for/{target} -o \
                     change={change}`"
                )
            }
            Reason::TooSlow { .. } => {
                format!(
                    "push it again from where `{target}` stands, or in smaller parts; `towpath change retry {change}` has git try \
                     once more"
                )
            }
            Reason::BadDefinition { .. } => {
                "mend towpath.yaml (`towpath config check` says the same) and push again".into()
            }
            Reason::TestsFailed { run, .. } | Reason::NotRun { run, .. } => {
                format!("`towpath log {run} --first-error`; push a fix, or `towpath change retry {change}`")
            }
            Reason::OurMachines { .. } | Reason::RunCancelled { .. } => {
                format!("`towpath change retry {change} --failed`")
            }
            Reason::ChangesRequested { .. } => "push a revision that answers the review".into(),
            Reason::Approvals { revision, .. } => {
                format!(
                    "{}; {NO_OTHER} or asks for fewer `approvals` (`towpath repo settings`, or `gate:` in towpath.yaml)",
                    approve(change, *revision)
                )
            }
            Reason::Unauthorised { revision, role } => {
                let role = format!("{role:?}").to_lowercase();
                format!(
                    "{}, or an admin authorises who did (`towpath repo grant USER {role} --authorised true`)",
                    approve(change, *revision)
                )
            }
            Reason::DefinitionApproval { revision } => format!("{}; {NO_OTHER}", approve(change, *revision)),
            Reason::EmptySet => {
                "give a job `on: [queue]`, or say `gate: {empty: land}` in the branch's towpath.yaml".into()
            }
            Reason::LastToLand => {
                "give a job of it `on: [queue]`, or say `gate: {empty: land}` in its towpath.yaml".into()
            }
            Reason::NoJobs => {
                "give it a towpath.yaml with a job (docs/guide/pipeline.md) and push again".into()
            }
            Reason::NothingToLand => format!("`towpath change close {change}`"),
            Reason::Halted { cause, .. } => cause.mend().into(),
            Reason::Frozen { .. } => format!("a maintainer can run `towpath branch unfreeze {target}`"),
            Reason::NoBranch => "push the branch first, or `towpath repo import`".into(),
            Reason::NotAccepted { tip } => accept(target, *tip),
            _ => return None,
        })
    }
}

/// How a tip that somebody else put on a branch is taken for good.
pub(super) fn accept(branch: &BranchName, tip: CommitId) -> String {
    format!("an admin who has looked at it can run `towpath branch accept {branch} {tip}`")
}

/// What to do where every maintainer has uploaded some of a change.
const NO_OTHER: &str = "if there is none, an admin makes one (`towpath repo grant USER maintainer`)";

/// Who can approve: nobody approves what they uploaded, and of what joins two branches many people may have uploaded some.
fn approve(change: ChangeNumber, revision: CommitId) -> String {
    let revision = revision.short();
    format!(
        "a maintainer who uploaded none of its commits can run `towpath change approve {change} --revision {revision}`"
    )
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoBranch => f.write_str("the branch does not exist"),
            Reason::NotAccepted { tip } => {
                let from = "which is from somebody who is no admin, so nothing of it runs";
                write!(f, "the branch stands at {}, {from}", tip.short())
            }
            Reason::Untrusted { revision } => of_unauthorised(f, *revision, "so nothing of it runs"),
            Reason::Unreadable { why } => write!(f, "it cannot be read: {why}"),
            Reason::Draft => f.write_str("it is a draft, so nothing runs"),
            Reason::Label { label } => write!(f, "it has the label `{label}`"),
            Reason::Arriving { from } => write!(f, "`{from}`, where it was, is being asked what holds it"),
            Reason::Held { by, why } => write!(f, "{by} holds it: {why}"),
            Reason::Conflict { paths } => write!(f, "it conflicts with the branch in {}", paths.join(", ")),
            Reason::NoCandidate { why } => write!(f, "it cannot be joined with the branch: {why}"),
            Reason::TooSlow { why } => write!(f, "it is not joined with the branch: {why}"),
            Reason::NothingToLand => {
                f.write_str("it changes nothing on the branch: the same files are there already")
            }
            Reason::BadDefinition { .. } => f.write_str("its towpath.yaml cannot be used"),
            Reason::TestsFailed { run, jobs } => write!(f, "{} failed in run {run}", jobs.join(", ")),
            Reason::OurMachines { run, jobs } => {
                write!(f, "our machines failed while running {} in run {run}", jobs.join(", "))
            }
            Reason::NotRun { run, jobs, why } => {
                write!(f, "{} did not run to the end in run {run}: {why}", jobs.join(", "))
            }
            Reason::RunCancelled { run, why } => write!(f, "run {run} was cancelled: {why}"),
            Reason::ChangesRequested { people: 1 } => f.write_str("a reviewer asked for changes"),
            Reason::ChangesRequested { people } => write!(f, "{people} reviewers asked for changes"),
            Reason::Approvals { have, need, revision } => {
                write!(f, "revision {} has {have} of {need} approvals", revision.short())
            }
            Reason::Unauthorised { revision, .. } => {
                of_unauthorised(f, *revision, "which takes a maintainer's approval")
            }
            Reason::DefinitionApproval { revision } => {
                let edits = "edits the pipeline, which a maintainer has to approve";
                write!(f, "revision {} {edits}", revision.short())
            }
            Reason::EmptySet => f.write_str("no required job would run, so nothing would be tested"),
            Reason::NoJobs => f.write_str("it has no job, so nothing would be tested"),
            Reason::ReadingBranch => f.write_str("the branch is being read"),
            Reason::MakingCandidate => f.write_str("its candidate is being made"),
            Reason::WaitsForRun { run } => write!(f, "run {run} is not over"),
            Reason::TestedAgain { label } => {
                write!(f, "it is tested again as the merge candidate, as it has the label `{label}`")
            }
            Reason::WaitsForChangeRuns { running } => {
                write!(f, "{running} change runs are under way, as many as allowed")
            }
            Reason::Ahead { changes } => write!(f, "ahead of it: {}", listed(changes)),
            Reason::WaitsForDeploy { run } => write!(f, "deploy run {run} is not over"),
            Reason::DeployIsDue { commit } => {
                write!(f, "the deploy run of {} has not begun", commit.short())
            }
            Reason::Halted { why, .. } => write!(f, "nothing lands on this server: {why}"),
            Reason::OverBudget { budget_seconds, .. } => {
                write!(f, "its verdict takes longer than its budget of {}", Span(*budget_seconds))
            }
            Reason::LastToLand => f.write_str(
                "its pipeline requires no job, so after it no change can land that does not bring one",
            ),
            Reason::Frozen { by, why } => write!(f, "{by} froze the branch: {why}"),
            Reason::Landing => f.write_str("it is landing"),
            Reason::Trouble { what, why } => write!(f, "{what} does not work: {why}; it is tried again"),
        }
    }
}

fn listed(changes: &[ChangeNumber]) -> String {
    changes.iter().map(ChangeNumber::to_string).collect::<Vec<_>>().join(", ")
}

fn of_unauthorised(f: &mut fmt::Formatter<'_>, revision: CommitId, so: &str) -> fmt::Result {
    write!(f, "revision {} is from somebody who is not authorised, {so}", revision.short())
}

/// Seconds as a definition writes them: in the largest unit that holds them whole.
pub(super) struct Span(pub u32);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds > 0 && seconds % 3600 == 0 => write!(f, "{} h", seconds / 3600),
            seconds if seconds > 0 && seconds % 60 == 0 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: &Reason, expected: &str) {
        let target = "release/1.0".parse().unwrap();
        assert_eq!(reason.hint(ChangeNumber(7), &target).as_deref(), Some(expected));
    }

    #[test]
    fn a_conflict_is_answered_by_commands_that_can_be_pasted() {
        check(
            &Reason::Conflict { paths: vec!["a".into()] },
            "`git fetch towpath && git rebase towpath/release/1.0`, then `git push towpath HEAD:refs/for/release/1.0 -o \
             change=7`",
        );
    }

    #[test]
    fn nobody_is_told_to_approve_what_they_uploaded() {
        let revision = CommitId([0xab; 20]);
        let who = format!(
            "a maintainer who uploaded none of its commits can run `towpath change approve 7 --revision {}`",
            revision.short()
        );
        let other = "if there is none, an admin makes one (`towpath repo grant USER maintainer`)";
        check(&Reason::DefinitionApproval { revision }, &format!("{who}; {other}"));
        let fewer = "or asks for fewer `approvals` (`towpath repo settings`, or `gate:` in towpath.yaml)";
        check(&Reason::Approvals { have: 0, need: 1, revision }, &format!("{who}; {other} {fewer}"));
        let trusts =
            ", or an admin authorises who did (`towpath repo grant USER maintainer --authorised true`)";
        check(&Reason::Unauthorised { revision, role: Role::Maintainer }, &format!("{who}{trusts}"));
    }
}
