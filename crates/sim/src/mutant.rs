//! Planted bugs. Each is a fault of the world around the core that a correct world never has: the checkers have to
//! notice it, or they could not notice the like in the product.

use std::fmt;

use serde::Serialize;

use crate::golden;
use crate::report::Violation;
use crate::run::{Options, run};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutant {
    /// The store takes writes of servers that were replaced.
    StoreIgnoresEpochs,
    /// The store takes a landing although a freeze waits in the inbox.
    StoreIgnoresDrained,
    /// The store takes a landing although landing is halted.
    StoreIgnoresHalts,
    /// The store loses an effect.
    StoreDropsEffect,
    /// The store loses messages between cells.
    StoreDropsMessages,
    /// The store does not delete what was consumed.
    StoreKeepsConsumed,
    /// The store does not remove removed rows.
    StoreKeepsRemovedRows,
    /// A driver pushes without comparing.
    LandsWithoutCompare,
    /// A driver reports a landing that it has not read back.
    BelievesTheForge,
    /// Candidates are made on something else than the tip.
    MergesOntoTheWrongBase,
    /// An old reading is reported as a new one.
    ReadsStale,
    /// A failed job is reported as passed.
    FailedIsPassed,
    /// An error of a machine is reported as passed.
    ErroredIsPassed,
    /// Answers of drivers are lost.
    LosesAnswers,
    /// Nobody polls, and bells get lost.
    NobodyPolls,
    /// Results of leases that were given up are passed on as if they were current.
    LeasesAreNotFenced,
    /// A command is carried out as an admin's, whoever gave it.
    EverybodyIsAdmin,
    /// The forge lets every change that lands go to another branch at once, and forgets that it has landed.
    MovesWhatHasLanded,
    /// A retry of everything, or of a job, is understood as one of what did not pass.
    RetriesKeepEverything,
    /// A gate never hears that a job failed.
    FailuresAreForgotten,
    /// A job that was stopped is told as passed if it had passed before, whatever it would have been made of now.
    StoppedIsPassed,
    /// The forge tells of no branch who made it.
    BranchesAreNobodys,
    /// A job that another one aborted is told as passed.
    AbortedIsPassed,
    /// The forge tells of each reviewer that they were shown the definition.
    EverybodyIsShownAll,
    /// Housekeeping lets runs go that are just over.
    ForgetsRunsAtOnce,
    /// A gate hears that somebody else moved a branch which lacks what the forge says that it landed there.
    LackingIsMoved,
    /// Nobody is told of a freeze, and the driver says that they were.
    FreezesAreNotTold,
    /// A branch that froze by itself has no leaf for it.
    FreezesAreNotRecorded,
    /// A push of somebody else has no leaf.
    ForeignPushesAreNotRecorded,
    /// A change that left the queue has no leaf for it.
    EjectionsAreNotRecorded,
    /// A landing's leaf names nobody who approved it.
    LandingsNameNobody,
    /// A vouch is understood as one for whatever definition is made first.
    VouchesAreForAnyDefinition,
    /// A vouch is understood as one for ever.
    VouchesNeverEnd,
    /// A run does not hear that the data were restored.
    RunsDoNotHearOfRestores,
    /// A gate hears of a restore as of a disk that failed: nothing lands, and what was owed is owed on.
    RestoresAreDiskFailures,
    /// A gate with a landing under way hears of a restore as of a disk that failed: what lands then may not have landed before.
    LandingsDoNotHearOfRestores,
    /// A gate to which a change has come does not ask what holds it.
    NobodyAsksWhatHolds,
    /// A change goes to another branch without what holds it.
    HoldsStayBehind,
    /// A gate never hears that a change has left, though what held it is told: it still takes words of it.
    DeparturesAreNotHeard,
    /// The forge lands a change by what its branch knew of it before it was elsewhere.
    MovesAreForgotten,
}

/// All of them.
pub const MUTANTS: [Mutant; 40] = [
    Mutant::StoreIgnoresEpochs,
    Mutant::StoreIgnoresDrained,
    Mutant::StoreIgnoresHalts,
    Mutant::StoreDropsEffect,
    Mutant::StoreDropsMessages,
    Mutant::StoreKeepsConsumed,
    Mutant::StoreKeepsRemovedRows,
    Mutant::LandsWithoutCompare,
    Mutant::BelievesTheForge,
    Mutant::MergesOntoTheWrongBase,
    Mutant::ReadsStale,
    Mutant::FailedIsPassed,
    Mutant::ErroredIsPassed,
    Mutant::LosesAnswers,
    Mutant::NobodyPolls,
    Mutant::LeasesAreNotFenced,
    Mutant::EverybodyIsAdmin,
    Mutant::MovesWhatHasLanded,
    Mutant::RetriesKeepEverything,
    Mutant::FailuresAreForgotten,
    Mutant::StoppedIsPassed,
    Mutant::BranchesAreNobodys,
    Mutant::AbortedIsPassed,
    Mutant::EverybodyIsShownAll,
    Mutant::ForgetsRunsAtOnce,
    Mutant::LackingIsMoved,
    Mutant::FreezesAreNotTold,
    Mutant::FreezesAreNotRecorded,
    Mutant::ForeignPushesAreNotRecorded,
    Mutant::EjectionsAreNotRecorded,
    Mutant::LandingsNameNobody,
    Mutant::VouchesAreForAnyDefinition,
    Mutant::VouchesNeverEnd,
    Mutant::RunsDoNotHearOfRestores,
    Mutant::RestoresAreDiskFailures,
    Mutant::LandingsDoNotHearOfRestores,
    Mutant::NobodyAsksWhatHolds,
    Mutant::HoldsStayBehind,
    Mutant::DeparturesAreNotHeard,
    Mutant::MovesAreForgotten,
];

/// How a planted bug was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Which bug.
    pub mutant: Mutant,
    /// Seeds that were run for it; none for one that has a story.
    pub seeds: u64,
    /// What gave it away; `None`: nothing did.
    pub by: Option<Violation>,
}

/// What came of all planted bugs.
#[derive(Debug, Clone, Serialize)]
pub struct Hunted {
    /// Each of them.
    pub notices: Vec<Notice>,
}

impl Hunted {
    /// Whether every one was noticed.
    pub fn holds(&self) -> bool {
        self.notices.iter().all(|notice| notice.by.is_some())
    }
}

impl fmt::Display for Hunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Notice { mutant, seeds, by } in &self.notices {
            match by {
                Some(Violation { invariant, what }) if *seeds == 0 => {
                    writeln!(f, "{mutant:?}: noticed in its story by {invariant}: {what}")?;
                }
                Some(Violation { invariant, what }) => {
                    writeln!(f, "{mutant:?}: noticed within {seeds} seeds by {invariant}: {what}")?;
                }
                None => writeln!(f, "{mutant:?}: NOT noticed in {seeds} seeds")?,
            }
        }
        let noticed = self.notices.iter().filter(|notice| notice.by.is_some()).count();
        write!(f, "planted bugs {}, noticed {noticed}", self.notices.len())
    }
}

/// Looks for each planted bug from a seed on.
pub fn hunt_all(from: u64, seeds_max: u64) -> Hunted {
    Hunted { notices: MUTANTS.into_iter().map(|mutant| hunt(mutant, from, seeds_max)).collect() }
}

/// Looks for one planted bug in the story in which it shows, or from a seed on, up to the first world that notices it.
pub fn hunt(mutant: Mutant, from: u64, seeds_max: u64) -> Notice {
    if let Some(violations) = golden::play_planted(mutant) {
        return Notice { mutant, seeds: 0, by: violations.into_iter().next() };
    }
    let options = Options { mutant: Some(mutant), stop_at_failure: true, ..Options::default() };
    let summary = run(from, seeds_max, options);
    let by = summary.failures.into_iter().next().and_then(|failure| failure.violations.into_iter().next());
    Notice { mutant, seeds: summary.seeds, by }
}
