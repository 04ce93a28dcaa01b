//! Room on the disk: the database's own limit, the reserve, and what happens when both are used up (invariant I15).

use std::time::{Duration, Instant};

use crate::error::ReadError;
use crate::folder::DataFolder;
use crate::view::View;

/// How often a full store looks whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The database counts as having room again when this share of its limit is free: one part in so many.
const FREE_SHARE: u64 = 16;

/// The part of the reserve that stays when the disk is full, for the restart after it: one part in so many.
const RESTART_SHARE: u64 = 4;

/// How much may be used, and whether it is.
#[derive(Debug)]
pub(crate) struct Room {
    reserve_bytes: u64,
    database_bytes_max: Option<u64>,
    look_again_at: Option<Instant>,
}

impl Room {
    /// Takes the reserve and sets the database's limit.
    pub fn new(
        reserve_bytes: u64,
        database_bytes_max: Option<u64>,
        (view, folder): (&View, &DataFolder),
    ) -> Result<Room, ReadError> {
        let mut room = Room { reserve_bytes, database_bytes_max, look_again_at: None };
        // A disk without room for the reserve is full: the server starts all the same, to say so and to be cleaned up.
        if folder.fill_reserve(reserve_bytes).is_err() {
            room.look_again_at = Some(Instant::now());
        }
        room.limit(view, 0)?;
        Ok(room)
    }

    pub fn is_full(&self) -> bool {
        self.look_again_at.is_some()
    }

    pub fn look_again_at(&self) -> Option<Instant> {
        self.look_again_at
    }

    /// The disk is full: the reserve is handed over to what must go on.
    pub fn lost(&mut self, view: &View, folder: &DataFolder) {
        folder.shrink_reserve(self.reserve_bytes / RESTART_SHARE);
        // Without it the units that may use the reserve fail as well, typed like all others.
        let _ = self.limit(view, self.reserve_bytes);
        self.look_again_at = Some(Instant::now() + LOOK_EVERY);
    }

    /// Looks whether there is room; if so the reserve is taken back.
    pub fn regain(&mut self, view: &View, folder: &DataFolder) -> bool {
        let room = self.has_free_pages(view).unwrap_or(false)
            && folder.fill_reserve(self.reserve_bytes).is_ok()
            && self.limit(view, 0).is_ok();
        self.look_again_at = (!room).then(|| Instant::now() + LOOK_EVERY);
        room
    }

    fn has_free_pages(&self, view: &View) -> Result<bool, ReadError> {
        let Some(bytes_max) = self.database_bytes_max else { return Ok(true) };
        let used = pragma(view, "page_count")? - pragma(view, "freelist_count")?;
        let used_bytes = used * pragma(view, "page_size")?;
        Ok(used_bytes <= bytes_max - bytes_max / FREE_SHARE)
    }

    fn limit(&self, view: &View, more_bytes: u64) -> Result<(), ReadError> {
        let Some(bytes_max) = self.database_bytes_max else { return Ok(()) };
        let pages = (bytes_max + more_bytes) / pragma(view, "page_size")?;
        view.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    }
}

fn pragma(view: &View, name: &str) -> Result<u64, ReadError> {
    let value: i64 = view.conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(value.unsigned_abs())
}
