//! Raw webhooks, as they came: to recognise a repeated one, and to look at one that was not understood.

use rusqlite::params;
use towpath_core::ids::{RepoName, Timestamp};

use crate::error::{ReadError, WriteError};
use crate::tx::{BODY_BYTES_MAX, Tx};
use crate::view::{View, get_u64, parsed};

/// A webhook whose signature was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookDelivery {
    /// For which repo.
    pub repo: RepoName,
    /// The sender's id for it.
    pub id: String,
    /// When it was taken in.
    pub at: Timestamp,
    /// What it says.
    pub body: Vec<u8>,
}

impl View {
    /// The newest webhooks, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn hook_deliveries(&self, count: usize) -> Result<Vec<HookDelivery>, ReadError> {
        const SQL: &str = "SELECT repo, id, at, body FROM hook_deliveries ORDER BY seq DESC LIMIT ?1";
        self.all(SQL, [i64::try_from(count).unwrap_or(i64::MAX)], |row| {
            Ok(HookDelivery {
                repo: parsed(row, 0)?,
                id: row.get(1)?,
                at: Timestamp(row.get(2)?),
                body: row.get(3)?,
            })
        })
    }
}

impl Tx<'_> {
    /// Keeps a webhook; says whether it is the first with its id.
    ///
    /// # Errors
    /// It is too large, or those of the disk.
    pub fn add_hook_delivery(&mut self, delivery: &HookDelivery) -> Result<bool, WriteError> {
        const SQL: &str = "INSERT INTO hook_deliveries (seq, repo, id, at, body) \
             VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM hook_deliveries), ?1, ?2, ?3, ?4) \
             ON CONFLICT (id, repo) DO NOTHING";
        let (HookDelivery { repo, id, at, body }, bytes_max) = (delivery, BODY_BYTES_MAX);
        if body.len() > bytes_max {
            return Err(WriteError::TooLarge { what: "a webhook".into(), bytes: body.len(), bytes_max });
        }
        self.note_time(*at);
        Ok(self.run(SQL, params![repo.as_str(), id, at.0, body])? == 1)
    }

    /// Deletes the oldest webhooks once a good many more than `keep` are there, a few at a time; says how many went. One
    /// by one, each unit would write the pages of the oldest again beside those of the newest.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn prune_hook_deliveries(&mut self, keep: u64) -> Result<usize, WriteError> {
        const NEWEST: &str = "SELECT COALESCE(MAX(seq), 0) FROM hook_deliveries";
        const OLDEST: &str = "SELECT COALESCE(MIN(seq), 0) FROM hook_deliveries";
        const DELETE: &str = "DELETE FROM hook_deliveries WHERE seq < ?1";
        let end = |sql| Ok::<_, ReadError>(self.one(sql, [], |row| get_u64(row, 0))?.unwrap_or(0));
        let (oldest, newest) = (end(OLDEST)?, end(NEWEST)?);
        let below = oldest + PRUNED_AT_ONCE;
        match newest + 1 >= keep + below {
            true => self.run(DELETE, [below as i64]),
            false => Ok(0),
        }
    }
}

/// Webhooks that one unit deletes at most, so that others do not wait for it.
const PRUNED_AT_ONCE: u64 = 1000;
