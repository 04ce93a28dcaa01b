//! The audit log: a Merkle tree over acts, with signed checkpoints that are also kept outside the data folder.
//!
//! A leaf is written in the transaction of what it tells (invariant I8). A checkpoint follows within a second. Whoever
//! holds one checkpoint can later tell, offline, whether anything before it was changed, moved, dropped or added.

pub(crate) mod keys;
pub(crate) mod leaf;
pub(crate) mod log;
pub mod merkle;
pub(crate) mod note;
pub(crate) mod proof;
pub(crate) mod sink;
pub(crate) mod verify;

pub use keys::KeyFileError;
pub use leaf::{EndedLife, Entry, Leaf, Restored, Rotation};
pub use note::{AuditKey, Checkpoint, NoteError, SignedCheckpoint, VerifierKey};
pub use proof::LeafProof;
pub use sink::split_notes;
pub use verify::{Excused, Finding, Held, Place, Report, verify};
