//! Typed reads over one connection.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Params, Row as SqlRow};
use serde::de::DeserializeOwned;
use towpath_core::cell::{CellId, Row};
use towpath_core::effect::EffectKey;
use towpath_core::ids::{Epoch, Timestamp};
use towpath_core::outbox::Outgoing;
use towpath_core::turn::Delivered;

use crate::error::{OpenError, ReadError};
use crate::schema;

/// Statements kept prepared per connection; more than there are in this crate.
const STATEMENTS_KEPT: usize = 256;

/// How long a connection waits for a lock of SQLite's own. Only recovery after a crash takes one for long.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Pages of a reading connection's cache, in KiB: reads hit the page cache of the system.
const READ_CACHE_KIB: i32 = 2 << 10;

/// Typed reads. Each noun's reads stand in its own file under `records`.
#[derive(Debug)]
pub struct View {
    pub(crate) conn: Connection,
}

/// A cell as it is stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredCell {
    /// What is known without its rows. A cell that was only written to has no head yet.
    pub head: Option<CellHead>,
    /// Its rows, in the order of their keys.
    pub rows: Vec<Row>,
    /// Its effects.
    pub outbox: Vec<(EffectKey, Outgoing)>,
    /// What it has not seen yet, oldest first.
    pub inbox: Vec<StoredIntake>,
}

/// What is known about a cell without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellHead {
    /// Which.
    pub id: CellId,
    /// The highest epoch that wrote it.
    pub epoch: Epoch,
    /// When it wants to plan again.
    pub wake_at: Option<Timestamp>,
    /// It has nothing left to do, ever.
    pub finished: bool,
}

/// An entry of an inbox as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIntake {
    /// Its number.
    pub seq: u64,
    /// When it was taken in.
    pub at: Timestamp,
    /// JSON of an [`towpath_core::turn::Intake`].
    pub body: String,
}

impl StoredIntake {
    /// The entry as its cell understands it. A message of another cell reads as an event, because events that are
    /// messages have the message's own JSON.
    ///
    /// # Errors
    /// The body is damaged or of a newer version.
    pub fn decode<E: DeserializeOwned>(&self) -> Result<Delivered<E>, ReadError> {
        let intake = serde_json::from_str(&self.body)
            .map_err(|why| damaged(format!("inbox entry {}: {why}", self.seq)))?;
        Ok(Delivered { seq: self.seq, at: self.at, intake })
    }
}

impl View {
    /// A connection that only reads.
    pub(crate) fn open(database: &Path) -> Result<View, ReadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        View::new(Connection::open_with_flags(database, flags)?)
    }

    /// A connection that folds the log in and does nothing else.
    pub(crate) fn open_for_folding(database: &Path) -> Result<View, ReadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let view = View::new(Connection::open_with_flags(database, flags)?)?;
        view.conn.pragma_update(None, "synchronous", "FULL")?;
        Ok(view)
    }

    /// Opens a copy of a database file, or one that no server has open, for the offline verifier. A copy without its
    /// `-wal` file is read as it is.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_copy(database: &Path) -> Result<View, ReadError> {
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        if Path::new(&wal).exists() {
            return View::open(database);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        View::new(Connection::open_with_flags(format!("file:{}?immutable=1", uri_path(database)), flags)?)
    }

    /// Looks whether this program knows the schema of what it reads, or an earlier one.
    ///
    /// # Errors
    /// A newer program, or another one, made it.
    pub fn check_schema(&self) -> Result<(), OpenError> {
        schema::check(&self.conn)
    }

    pub(crate) fn new(conn: Connection) -> Result<View, ReadError> {
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        conn.busy_timeout(LOCK_WAIT)?;
        conn.pragma_update(None, "cache_size", -READ_CACHE_KIB)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(View { conn })
    }

    /// Every row of a query.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The only row of a query, if there is one.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, ReadError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query_map(params, read)?;
        Ok(rows.next().transpose()?)
    }

    /// Everything of one cell. Empty if nothing was ever put there.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn cell(&self, id: &CellId) -> Result<StoredCell, ReadError> {
        let name = id.to_string();
        let rows =
            self.all("SELECT key, value FROM cell_rows WHERE cell = ?1 ORDER BY key", [&name], |row| {
                Ok(Row { key: row.get(0)?, value: Some(row.get(1)?) })
            })?;
        Ok(StoredCell {
            head: self.cell_head(id)?,
            rows,
            outbox: self.outbox(&name)?,
            inbox: self.inbox(id, 0, usize::MAX)?,
        })
    }

    /// The rows of one cell whose keys begin so.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn cell_rows(&self, id: &CellId, prefix: &str) -> Result<Vec<Row>, ReadError> {
        const SQL: &str =
            "SELECT key, value FROM cell_rows WHERE cell = ?1 AND key >= ?2 AND key < ?3 ORDER BY key";
        // Keys are plain text: nothing that begins so comes after this.
        let end = format!("{prefix}\u{10ffff}");
        self.all(SQL, (id.to_string(), prefix, end), |row| {
            Ok(Row { key: row.get(0)?, value: Some(row.get(1)?) })
        })
    }

    /// Every cell of one kind: `gate`, `run`, `pool` or `environment`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn cells_of(&self, kind: &str) -> Result<Vec<CellId>, ReadError> {
        self.all("SELECT id FROM cells WHERE kind = ?1 ORDER BY id", [kind], |row| parsed(row, 0))
    }

    /// One cell's head.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn cell_head(&self, id: &CellId) -> Result<Option<CellHead>, ReadError> {
        const SQL: &str = "SELECT epoch, wake_at, finished FROM cells WHERE id = ?1";
        self.one(SQL, [id.to_string()], |row| {
            Ok(CellHead {
                id: id.clone(),
                epoch: Epoch(get_u64(row, 0)?),
                wake_at: get_time(row, 1)?,
                finished: row.get(2)?,
            })
        })
    }

    /// Every cell that must be looked after at a start: not finished, or with an entry in its inbox.
    ///
    /// # Errors
    /// They cannot be read, or one is damaged.
    pub fn open_cells(&self) -> Result<Vec<CellId>, ReadError> {
        const SQL: &str = "SELECT id FROM cells WHERE finished = 0 UNION SELECT DISTINCT cell FROM inbox";
        self.all(SQL, [], |row| parsed(row, 0))
    }

    /// Entries of a cell's inbox beyond `after`, oldest first, at most `count`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn inbox(&self, cell: &CellId, after: u64, count: usize) -> Result<Vec<StoredIntake>, ReadError> {
        const SQL: &str =
            "SELECT seq, at, body FROM inbox WHERE cell = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.all(SQL, (cell.to_string(), after as i64, count), |row| {
            Ok(StoredIntake { seq: get_u64(row, 0)?, at: Timestamp(row.get(1)?), body: row.get(2)? })
        })
    }

    fn outbox(&self, cell: &str) -> Result<Vec<(EffectKey, Outgoing)>, ReadError> {
        let sql = "SELECT key, body FROM outbox WHERE cell = ?1 ORDER BY key";
        self.all(sql, [cell], |row| {
            let key = EffectKey::stored(row.get_ref(0)?.as_str()?);
            Ok((key, json(row, 1)?))
        })
    }

    /// Whether SQLite finds its own file whole. Reads all of it.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub fn check_file(&self) -> Result<(), ReadError> {
        let said: String = self.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        match said == "ok" {
            true => Ok(()),
            false => Err(damaged(said)),
        }
    }
}

pub(crate) fn damaged(why: String) -> ReadError {
    ReadError::Damaged { why }
}

/// A column that holds a name or id as text.
pub(crate) fn parsed<T>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get_ref(at)?.as_str()?.parse().map_err(|why| conversion(at, why))
}

/// A column that holds a name or id as text, or nothing.
pub(crate) fn parsed_if_any<T>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    match row.get_ref(at)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, at).map(Some),
    }
}

/// A column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(at)?.as_str()?).map_err(|why| conversion(at, why))
}

/// A column that holds one word of an enum, as `serde` names it.
pub(crate) fn word<T: DeserializeOwned>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<T> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let text: StrDeserializer<'_, Error> = row.get_ref(at)?.as_str()?.into_deserializer();
    T::deserialize(text).map_err(|why| conversion(at, why))
}

/// A column that holds a word of an enum, or nothing.
pub(crate) fn word_if_any<T: DeserializeOwned>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(at)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => word(row, at).map(Some),
    }
}

/// A column that holds a count or number; SQL has only signed ones.
pub(crate) fn get_u64(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at)?.try_into().map_err(|why| conversion(at, why))
}

/// A column that holds a time, or nothing.
pub(crate) fn get_time(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp))
}

pub(crate) fn conversion(at: usize, why: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(why))
}

/// A path inside a `file:` address.
fn uri_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
