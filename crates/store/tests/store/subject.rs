//! What is judged, and the small worlds that tests happen in.

use std::path::PathBuf;

use tempfile::TempDir;
use towpath_core::act::Act;
use towpath_core::cell::{CellId, Row};
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::turn::WriteSet;
use towpath_store::audit::{AuditKey, VerifierKey};
use towpath_store::{AuditOptions, OpenError, Options, Store};

/// A kind of store. The PostgreSQL one will be a second implementation.
pub trait Subject {
    /// Opens the store of a place, as a server does at its start.
    fn open(&self, place: &Place) -> Result<Store, OpenError>;
    /// What would be found if the machine lost its power now: everything durable, nothing else. Its own place.
    fn after_power_loss(&self, place: &Place) -> Place;
}

/// SQLite, as it ships.
pub struct Sqlite;

impl Subject for Sqlite {
    fn open(&self, place: &Place) -> Result<Store, OpenError> {
        Store::open(place.options())
    }

    fn after_power_loss(&self, place: &Place) -> Place {
        let fresh = Place::new();
        std::fs::create_dir(fresh.data()).unwrap();
        std::fs::set_permissions(fresh.data(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        // The shared-memory index is lost with the machine; the copy begins with the log, which only grows.
        for name in ["towpath.db", "towpath.db-wal", "high-water.json"] {
            let from = place.data().join(name);
            if from.exists() {
                std::fs::copy(from, fresh.data().join(name)).unwrap();
            }
        }
        std::fs::copy(place.key_path(), fresh.key_path()).unwrap();
        fresh
    }
}

/// What this suite judges.
pub const SUBJECT: &dyn Subject = &Sqlite;

/// Folders of one test: data, audit key, sink.
pub struct Place {
    pub base: TempDir,
    pub database_bytes_max: Option<u64>,
}

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

impl Place {
    /// In memory where there is such a file system: most tests are many small steps.
    pub fn new() -> Place {
        let base = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Place { base: base.unwrap(), database_bytes_max: None }
    }

    /// On a disk, for tests that are about one.
    pub fn on_disk() -> Place {
        Place { base: tempfile::tempdir().unwrap(), database_bytes_max: None }
    }

    pub fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    pub fn sink(&self) -> PathBuf {
        self.base.path().join("checkpoints")
    }

    pub fn key_path(&self) -> PathBuf {
        self.base.path().join("audit.key")
    }

    pub fn key(&self) -> AuditKey {
        AuditKey::load_or_create(&self.key_path(), "towpath.test/log").unwrap()
    }

    pub fn verifier(&self) -> VerifierKey {
        self.key().verifier().clone()
    }

    pub fn options(&self) -> Options {
        let audit = AuditOptions { key: self.key(), succeeds: false, sink: Some(self.sink()) };
        Options {
            audit: Some(audit),
            reserve_bytes: RESERVE_BYTES,
            database_bytes_max: self.database_bytes_max,
            ..Options::new(self.data(), NOW)
        }
    }

    pub fn open(&self) -> Store {
        SUBJECT.open(self).unwrap()
    }
}

/// Small, so that tests are quick.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// A write set that only says who wrote it.
pub fn write_set(cell: &CellId, epoch: Epoch) -> WriteSet {
    WriteSet {
        cell: cell.clone(),
        epoch,
        rows: vec![],
        consumed: None,
        only_if_drained: false,
        outbox: vec![],
        messages: vec![],
        acts: vec![],
        wake_at: None,
        finished: false,
        now: NOW,
    }
}

pub fn row(key: &str, value: Option<&str>) -> Row {
    Row { key: key.into(), value: value.map(Into::into) }
}

pub fn gate() -> CellId {
    "gate:demo/main".parse().unwrap()
}

pub fn act(what: &str) -> Act {
    Act::Administered { by: None, what: what.into() }
}
