//! Settings of the whole server, by name.

use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::View;

impl View {
    /// One setting's JSON.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn setting(&self, name: &str) -> Result<Option<String>, ReadError> {
        self.one("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Sets one setting.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_setting(&mut self, name: &str, json: &str) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO settings (name, value) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.run(SQL, [name, json]).map(drop)
    }
}
