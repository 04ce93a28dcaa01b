//! Which change landed when.

use rusqlite::params;
use towpath_core::ids::{ChangeNumber, GateId, Timestamp};

use super::PAGE_ROWS_MAX;
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64};

impl View {
    /// The newest landings on a branch, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn landings(&self, gate: &GateId, count: usize) -> Result<Vec<(ChangeNumber, Timestamp)>, ReadError> {
        // Only of changes that there are.
        const SQL: &str = "SELECT change, at FROM landings \
             JOIN changes ON changes.repo = landings.repo AND changes.number = landings.change \
             WHERE landings.repo = ?1 AND branch = ?2 ORDER BY at DESC, change DESC LIMIT ?3";
        let values = params![gate.repo.as_str(), gate.branch.as_str(), count.min(PAGE_ROWS_MAX) as i64];
        self.all(SQL, values, |row| Ok((ChangeNumber(get_u64(row, 0)?), Timestamp(row.get(1)?))))
    }
}

impl Tx<'_> {
    /// Notes a landing. A change lands once: a second time changes nothing.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_landing(
        &mut self,
        gate: &GateId,
        change: ChangeNumber,
        at: Timestamp,
    ) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO landings (repo, change, branch, at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (repo, change) DO NOTHING";
        let values = params![gate.repo.as_str(), change.0 as i64, gate.branch.as_str(), at.0];
        self.run(SQL, values).map(drop)
    }
}
