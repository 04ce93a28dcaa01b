//! A forge, as the gate's drivers need it.

use towpath_core::effect::{Check, EffectKey, Landing};
use towpath_core::gate::{LandTried, Snapshot};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId};

use crate::error::ForgeError;

/// What a verdict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged<'a> {
    /// By the gate of this branch.
    pub branch: &'a BranchName,
    /// This head commit of the change.
    pub revision: CommitId,
}

/// A code host with one repo on it, in the core's words. Every call may be repeated; the errors say whether it helps.
///
/// Calls block. They end by deadlines of the adapter's own.
pub trait Forge: Send + Sync {
    /// Everything that the gate has to know about a branch and the open changes with this target, whole.
    ///
    /// `landed` is our newest landing there; whether the branch still contains it is part of the answer. A forge that
    /// cannot answer completely answers with an error: what is missing is never read as "no" (I11).
    ///
    /// # Errors
    /// `Transient` if asking again may help; `Denied` if a person has to act.
    fn read(&self, branch: &BranchName, landed: Option<CommitId>) -> Result<Snapshot, ForgeError>;

    /// Advances the branch from `from` to `to` by compare-and-swap, and reads it back. A branch that contains `to` is
    /// [`LandTried::Landed`], whoever did it: a repeat after a crash changes nothing (S10). A change that is not open
    /// for the branch with this very revision, or has lost something of it, is [`LandTried::Gone`]. [`LandTried::Lost`] if the
    /// forge does not have `to`, whole.
    /// [`LandTried::Broken`] only if the swap was confirmed and the branch lacks `to` all the same (I3).
    ///
    /// From the moment at which the branch has moved, the change can go to no other branch, whether or not
    /// [`Forge::mark_landed`] ever comes: it lands once (I1).
    ///
    /// # Errors
    /// `Transient` if it is not known whether it happened; asking again tells. `Unsynced` if it may be lost with
    /// the power. `Invalid` if `to` does not contain `from`.
    fn land(&self, landing: &Landing) -> Result<LandTried, ForgeError>;

    /// Closes a change as landed by `commit`. One that is marked so already is success.
    ///
    /// # Errors
    /// `Gone` if there is no such change; `Conflict` if it is marked as landed by another commit.
    fn mark_landed(&self, change: ChangeNumber, commit: CommitId) -> Result<(), ForgeError>;

    /// Shows the verdict of a branch's gate on a revision of a change; the newest call for that branch wins. People see
    /// that of the branch that the change is for.
    ///
    /// # Errors
    /// `Gone` if there is no such change or revision.
    fn set_check(&self, change: ChangeNumber, judged: Judged<'_>, check: &Check) -> Result<(), ForgeError>;

    /// Tells the people who look after the branch. `cause` names what it is about: whoever owes it can say when that is
    /// over.
    ///
    /// # Errors
    /// `Transient` if asking again may help.
    fn alert(&self, branch: &BranchName, cause: &EffectKey, text: &str) -> Result<(), ForgeError>;
}
