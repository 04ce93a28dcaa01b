//! Planted bugs. Each is a fault of the world around the core that a correct world never has: the checkers have to
//! notice it, or they could not notice the like in the product.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The store takes writes of servers that were replaced.
    StoreIgnoresEpochs,
    /// The store takes a landing although a freeze waits in the inbox.
    StoreIgnoresDrained,
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
}

/// All of them.
pub const MUTANTS: [Mutant; 16] = [
    Mutant::StoreIgnoresEpochs,
    Mutant::StoreIgnoresDrained,
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
];
