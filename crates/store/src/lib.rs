//! All durable rows of Towpath: cells, inboxes, outboxes, records, and the audit log, over SQLite.
//!
//! One thread owns the only write connection and commits many units of work in one durable transaction
//! ([`Writer`]); reads go through short snapshots ([`Reader`]). Nothing leaves before the commit returned.
//!
//! Architecture invariant: no decision is made here, and no HTTP, tokio or clock occurs.

pub mod audit;
mod backup;
mod error;
mod folder;
mod group;
mod incarnation;
mod outside;
mod private;
mod queue;
mod reader;
pub mod records;
mod room;
mod schema;
mod store;
mod tx;
mod view;
mod wal;
mod writer;

pub use backup::{BackupError, backup, restore, restore_over};
pub use error::{Handling, OpenError, ReadError, WriteError};
pub use folder::{DATABASE, RESERVE_BYTES, check_free, lock};
pub use incarnation::{Incarnation, NoIncarnation};
pub use private::{remove_drafts, write_private};
pub use queue::{Load, Purpose};
pub use reader::{Reader, Snapshot};
pub use schema::SCHEMA;
pub use store::{AuditOptions, Options, Store};
pub use tx::{BODY_BYTES_MAX, Committed, Delivery, EncodedTurn, Placed, Tx};
pub use view::{CellHead, StoredCell, StoredIntake, View};
pub use writer::{Health, Writer};

/// The version of the SQLite that is compiled in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("invariant: the system has randomness");
    bytes
}
