//! Code hosts in the core's words: what a branch and its changes are, and how a branch advances.
//!
//! [`Forge`] is what the gate's drivers speak. [`BuiltIn`] is the forge that comes with Towpath: bare repositories served
//! over Smart HTTP, changes opened by `git push`, reviews, labels. Its truth is in refs (`refs/changes/<n>/<revision>` and
//! `refs/changes/<n>/meta`); rows that the server keeps ([`Records`]) are made from them and can be made again.
//!
//! Everything blocks, and everything ends by a deadline. Deliberately absent: decisions of the gate, an HTTP framework,
//! clocks and randomness (times and tokens come in as arguments), and every way to start a process but `towpath-git`.

mod builtin;
mod clock;
mod error;
mod forge;
mod import;
pub mod push;
mod records;

pub use builtin::{
    ACTS_PER_HOUR, BuiltIn, ChangeText, Definitions, Draft, LabelEdit, Owner, Proposal, PushedBranch,
    Rebuilt, Retarget, ReviewRequest, Settings, unfit_label,
};
pub use clock::clock_trouble;
pub use error::{Done, Failure, ForgeError};
pub use forge::{Forge, Judged};
pub use import::{Importer, Origin, import};
pub use records::{
    ChangeAct, ChangeRecord, ChangeState, CommentRecord, Find, LandingRecord, Member, Memory, Policy,
    Records, RecordsError, ReviewRecord, RevisionRecord, RowStep, SavedChange,
};
