//! Opening and closing a data folder.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags, params};
use towpath_core::gate::HaltCause;
use towpath_core::ids::{Epoch, Timestamp};

use crate::audit::log::{Log, put_key};
use crate::audit::sink::Sink;
use crate::audit::{AuditKey, Restored, SignedCheckpoint, VerifierKey};
use crate::error::{OpenError, ReadError, WriteError};
use crate::folder::{DataFolder, RESERVE_BYTES, file_error};
use crate::group::WriterThread;
use crate::incarnation::Incarnation;
use crate::outside::{
    KnownBefore, check_history, check_unsealed, find_rollback, incarnation_of, is_same_restore, known_before,
    unsealed_leaves,
};
use crate::reader::Reader;
use crate::room::Room;
use crate::schema;
use crate::tx::{Marks, Tx, encode};
use crate::view::{View, damaged, get_u64, json};
use crate::wal::Wal;
use crate::writer::{Shared, Writer};

/// The oldest SQLite without known defects in WAL mode.
const SQLITE_LEAST: i32 = 3_051_003;

/// Pages of the writer's cache, in KiB. It grows only as far as it is used.
const WRITE_CACHE_KIB: i32 = 16 << 10;

/// After a long snapshot of some reader the log file shrinks to this again.
const WAL_BYTES_KEPT: i64 = 128 << 20;

/// How to open a data folder.
#[derive(Debug)]
pub struct Options {
    /// The folder; made if there is none.
    pub folder: PathBuf,
    /// The clock's reading.
    pub now: Timestamp,
    /// Signing of the audit log. Without it leaves are kept, but no checkpoint is made.
    pub audit: Option<AuditOptions>,
    /// Bytes kept free for audit and shutdown.
    pub reserve_bytes: u64,
    /// The database's own limit. Without one, the disk is the limit.
    pub database_bytes_max: Option<u64>,
}

/// How the audit log is signed.
#[derive(Debug)]
pub struct AuditOptions {
    /// The key, from a file outside the data folder.
    pub key: AuditKey,
    /// Whether the key may take the place of the one that signed until now, which is lost.
    pub succeeds: bool,
    /// A file outside the data folder, better on another disk, to which checkpoints are appended.
    pub sink: Option<PathBuf>,
}

impl Options {
    /// The defaults for a folder.
    pub fn new(folder: impl Into<PathBuf>, now: Timestamp) -> Options {
        Options {
            folder: folder.into(),
            now,
            audit: None,
            reserve_bytes: RESERVE_BYTES,
            database_bytes_max: None,
        }
    }
}

/// An open data folder, held alone until [`Store::close`] or drop.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    epoch: Epoch,
    incarnation: Incarnation,
    taken_over: Option<Range<u64>>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes a data folder, and begins a new epoch in it.
    ///
    /// A database that is behind what was noted outside of it was restored: it gets a new incarnation and a leaf that
    /// says so, and stays [`View::restored`] until a person accepts it.
    ///
    /// # Errors
    /// Another server has it, it is of a newer version, or a file operation failed.
    pub fn open(mut options: Options) -> Result<Store, OpenError> {
        check_library()?;
        let folder = DataFolder::enter(&options.folder)?;
        let sink = open_sink(&options, &folder)?;
        let (key, succeeds) = options.audit.take().map(|audit| (Arc::new(audit.key), audit.succeeds)).unzip();
        let succeeds = succeeds.unwrap_or_default();
        let start =
            Start { options: &options, folder: &folder, sink: sink.as_ref(), key: key.as_ref(), succeeds };
        let Opened { begun, mut view, log, room, taken_over, witnessed } = match begin(&start) {
            // A full disk may show as any failure to write; the reserve is there for a restart, too.
            Err(OpenError::Write(_) | OpenError::File { .. } | OpenError::Read(ReadError::Io { .. }))
                if folder.release_reserve() =>
            {
                begin(&start)?
            }
            opened => opened?,
        };
        let shared = Arc::new(Shared::default());
        shared.time_high.store(begun.marks.time_high.0, std::sync::atomic::Ordering::Relaxed);
        shared.health(|health| health.full = room.is_full());
        witnessed.into_iter().for_each(|note| shared.set_witnessed(note));
        let (path, database) = (folder.path().to_owned(), folder.database());
        let wal = Wal::new(&database, &mut view)?;
        let thread = WriterThread {
            view,
            log,
            marks: begun.marks,
            incarnation: begun.incarnation.to_string(),
            shared: Arc::clone(&shared),
            sink,
            room,
            wal,
            // The first checkpoint tells the sink and the mark about this epoch.
            settle_at: Some(std::time::Instant::now()),
            distrusts: false,
            folder,
        };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(|| thread.serve());
        let thread = thread.map_err(|why| file_error("start the writer of", &path, &why))?;
        Ok(Store {
            writer: Writer { shared },
            reader: Reader::new(database),
            epoch: begun.marks.epoch,
            incarnation: begun.incarnation,
            taken_over,
            path,
            thread: Some(thread),
        })
    }

    /// The way to write.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The way to read.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// This server's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// This life of the data.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The leaves that no checkpoint covered when this epoch began, if there were any, and that its first one covers: half a
    /// second of them where a server was killed, and whatever somebody has written who has the data alone.
    pub fn taken_over(&self) -> Option<Range<u64>> {
        self.taken_over.clone()
    }

    /// The folder's real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what waits, makes the last checkpoint, folds the log in and lets go of the folder.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.writer.shared.queue.close();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has refused what was waiting; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Store {
    /// What keeps everything from landing, with why; empty: nothing does.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn halts(&self) -> Result<BTreeMap<HaltCause, String>, ReadError> {
        self.reader.snapshot()?.halts(&self.writer.shared)
    }
}

impl View {
    pub(crate) fn halts(&self, shared: &Shared) -> Result<BTreeMap<HaltCause, String>, ReadError> {
        let disk = shared.health(|health| health.landing_stopped.clone());
        let disk = disk.map(|why| (HaltCause::Disk, format!("the disk failed to confirm a write ({why})")));
        let restore = self.restored()?.map(|restored| (HaltCause::Restore, restored.to_string()));
        Ok(disk.into_iter().chain(restore).collect())
    }

    /// Set while the data are from a backup that nobody has accepted yet: nothing may land.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restored(&self) -> Result<Option<Restored>, ReadError> {
        let sql = "SELECT restored FROM meta WHERE restored IS NOT NULL";
        self.one(sql, [], |row| json(row, 0))
    }
}

impl Tx<'_> {
    /// Lets the server go on from a restored backup. Whoever calls it adds the act that says who accepted it.
    ///
    /// # Errors
    /// There is nothing to accept, or those of the disk.
    pub fn accept_restored(&mut self) -> Result<Restored, WriteError> {
        const SQL: &str = "UPDATE meta SET restored = NULL WHERE restored IS NOT NULL";
        let restored = self.view.restored()?;
        let none = || WriteError::Missing { what: "a restored state that waits for acceptance".into() };
        self.run(SQL, [])?;
        restored.ok_or_else(none)
    }
}

/// What a start goes by.
struct Start<'a> {
    options: &'a Options,
    folder: &'a DataFolder,
    sink: Option<&'a Sink>,
    key: Option<&'a Arc<AuditKey>>,
    succeeds: bool,
}

/// A database that takes writes.
struct Opened {
    begun: Begun,
    view: View,
    log: Log,
    room: Room,
    taken_over: Option<Range<u64>>,
    witnessed: Option<SignedCheckpoint>,
}

/// The database of a folder, migrated and in a new epoch, with the leaf of a restore if it was one.
fn begin(start: &Start<'_>) -> Result<Opened, OpenError> {
    let Start { options, folder, sink, key, succeeds } = start;
    let mut view = open_database(folder)?;
    schema::migrate(&mut view.conn, options.now)?;
    folder.sync()?;
    let lost = key.map(|key| lost_key(&view, key, *succeeds)).transpose()?.flatten();
    let known = known_before(folder, *sink)?;
    let verifier = key.map(|key| key.verifier());
    check_history(&view, &known, verifier, *sink)?;
    // What the lost key has signed counts for what is there of its time.
    let given_up = lost.as_ref().and_then(|lost| lost.parse::<VerifierKey>().ok());
    let before = given_up.as_ref().or(verifier);
    check_unsealed(&view, &known, before)?;
    let (leaves, unsealed) = (view.leaf_count()?, unsealed_leaves(&view, &known, before)?);
    let taken_over = (verifier.is_some() && unsealed > 0).then(|| leaves - unsealed..leaves);
    let restored = match is_same_restore(&view, &known, verifier)? {
        true => None,
        false => find_rollback(&view, &known, verifier, before, options.now)?,
    };
    let own = incarnation_of(&view)?.filter(|_| restored.is_none());
    let incarnation = own.unwrap_or_else(|| Incarnation(crate::random()));
    let mut log = Log::load(&view, key.cloned(), incarnation)?;
    let found = Found { known: &known, restored: restored.as_ref(), lost };
    let (marks, note) = begin_epoch(&view, &mut log, &found, options.now)?;
    // Says there where this life began. A disk that does not take it is told of with the next one.
    let appended = note.filter(|note| sink.is_none_or(|sink| sink.append(note).is_ok()));
    let witnessed = match appended {
        Some(note) => Some(note),
        None => known.newest_outside(&view, *sink)?,
    };
    let begun = Begun { marks, incarnation };
    view.conn.pragma_update(None, "cache_size", -WRITE_CACHE_KIB).map_err(WriteError::from)?;
    // Last: what is reserved, and what the database may not exceed, is for what the start itself writes as well.
    let room = Room::new(options.reserve_bytes, options.database_bytes_max, (&view, folder))?;
    Ok(Opened { begun, view, log, room, taken_over, witnessed })
}

fn check_library() -> Result<(), OpenError> {
    match rusqlite::version_number() >= SQLITE_LEAST {
        true => Ok(()),
        false => Err(OpenError::OldLibrary { found: rusqlite::version().into(), least: "3.51.3".into() }),
    }
}

fn open_sink(options: &Options, folder: &DataFolder) -> Result<Option<Sink>, OpenError> {
    let path = options.audit.as_ref().and_then(|audit| audit.sink.clone());
    path.map(|path| Sink::open(path, folder.path())).transpose()
}

fn open_database(folder: &DataFolder) -> Result<View, OpenError> {
    let path = folder.database();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = || -> Result<Connection, WriteError> {
        let conn = Connection::open_with_flags(&path, flags)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
        conn.pragma_update(None, "foreign_keys", true)?;
        Ok(conn)
    };
    let conn = opened()?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private).map_err(|why| file_error("protect", &path, &why))?;
    Ok(View::new(conn)?)
}

/// A new epoch, as it was made durable.
struct Begun {
    marks: Marks,
    incarnation: Incarnation,
}

/// What a start has found that its epoch tells of.
struct Found<'a> {
    known: &'a KnownBefore,
    restored: Option<&'a Restored>,
    /// The key that signed until now and is given up.
    lost: Option<String>,
}

/// Makes the new epoch durable, and with it the leaves that tell of a restore and of a lost key, with the checkpoint that makes
/// them count: whoever verifies the log believes no such leaf without. A start that is cut off has found nothing, or has told
/// of it.
fn begin_epoch(
    view: &View,
    log: &mut Log,
    found: &Found<'_>,
    now: Timestamp,
) -> Result<(Marks, Option<SignedCheckpoint>), OpenError> {
    let Found { known, restored, lost } = found;
    let life = log.life();
    let mut begun = || -> Result<_, WriteError> {
        view.conn.execute_batch("BEGIN IMMEDIATE")?;
        view.conn.execute(
            "INSERT INTO meta (one, incarnation, epoch, inbox_seq, time_high) VALUES (1, ?1, 0, 0, 0) \
             ON CONFLICT (one) DO NOTHING",
            [life.0],
        )?;
        let sql = "SELECT epoch, inbox_seq, time_high FROM meta";
        let (epoch, inbox_seq, time_high) = view
            .conn
            .query_row(sql, [], |row| Ok((get_u64(row, 0)?, get_u64(row, 1)?, row.get(2).map(Timestamp)?)))?;
        let epoch_known = known.mark.as_ref().map_or(0, |mark| mark.epoch);
        let marks =
            Marks { epoch: Epoch(epoch.max(epoch_known) + 1), inbox_seq, time_high: time_high.max(now) };
        view.conn.execute(
            "UPDATE meta SET incarnation = ?1, epoch = ?2, time_high = ?3, restored = COALESCE(?4, restored)",
            params![life.0, marks.epoch.0 as i64, marks.time_high.0, restored.map(encode)],
        )?;
        if let Some(restored) = restored {
            // Some may have ended since these rows were saved, and nothing outside tells which.
            view.conn.execute("DELETE FROM sessions", [])?;
            log.append(marks.time_high, &format!("{{\"restored\":{}}}", encode(restored)));
        }
        if let Some(lost) = lost {
            log.succeed(marks.time_high, lost.clone())?;
        }
        let frontier = log.flush(view)?;
        let seals = (restored.is_some() || lost.is_some()) && log.can_sign();
        let note = seals.then(|| log.seal(view, &frontier)).transpose()?;
        view.conn.execute_batch("COMMIT")?;
        log.committed(frontier);
        Ok((marks, note))
    };
    begun().map_err(|why| match why {
        WriteError::Damaged { why } => OpenError::Read(damaged(why)),
        why => OpenError::Write(why),
    })
}

/// The key in whose place this one comes; `None`: it is the log's own. The first key of a log is noted; as long as there is no
/// leaf, none has signed anything, and the one at hand is the first.
fn lost_key(view: &View, key: &AuditKey, succeeds: bool) -> Result<Option<String>, OpenError> {
    let given = key.verifier().to_string();
    match view.audit_verifier()? {
        Some(noted) if noted == given => Ok(None),
        Some(_) if view.leaf_count()? == 0 => Ok(replace_first_key(view, key).map(|()| None)?),
        Some(noted) if succeeds => Ok(Some(noted)),
        Some(noted) => Err(OpenError::OtherKey { noted, given }),
        None => Ok(put_key(view, 0, key).map(|()| None)?),
    }
}

/// Notes another key as the first of a log without a leaf. What the one before has signed is over nothing.
fn replace_first_key(view: &View, key: &AuditKey) -> Result<(), WriteError> {
    let both = view.conn.unchecked_transaction()?;
    both.execute_batch("DELETE FROM audit_keys; DELETE FROM checkpoints")?;
    put_key(view, 0, key)?;
    Ok(both.commit()?)
}
