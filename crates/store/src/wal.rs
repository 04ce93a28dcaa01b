//! Folding SQLite's write-ahead log into the database: at quiet moments, or when it has grown.
//!
//! SQLite's own way, every 1,000 pages inside somebody's commit, makes that commit wait for the disk. Here a helper
//! folds while the writer goes on; the writer itself only folds the short rest, so that the log can begin anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::ReadError;
use crate::view::{LOCK_WAIT, View};

/// Without a write for this long, the moment is quiet.
const QUIET: Duration = Duration::from_millis(100);
/// Below this a quiet moment is left alone: reading so much at a start takes few milliseconds.
const QUIET_BYTES_MIN: usize = 4 << 20;
/// Beyond this the log is folded in although work waits. A log that begins anew is written over, which syncs in half the
/// time of one that grows (measured: 0.16 against 0.35 ms), so it must not be long before it does.
const BUSY_BYTES_MIN: usize = 32 << 20;
/// What the writer folds itself: some 10 ms of everybody's time, and more than is written while the helper folds.
const REST_BYTES_MAX: usize = 8 << 20;
/// Beyond this the log is made to begin anew, though reads overlap for ever so that there is never a moment without one.
const ANEW_BYTES_MIN: usize = 128 << 20;
/// How long the writer waits then for the reads that are in the log; those that begin meanwhile are not.
const ANEW_WAIT: Duration = Duration::from_millis(100);
/// Beyond this the writer waits for its helper: the disk is slower than the work.
const LOG_BYTES_MAX: usize = 512 << 20;
/// A page and its head in the log, with SQLite's page size.
const FRAME_BYTES: usize = 4096 + 24;

/// How much waits to be folded in, and who is at it.
pub(crate) struct Wal {
    /// Frames in the log, as SQLite counted them at the newest commit. It begins anew after everything was folded in.
    counted: Arc<AtomicUsize>,
    /// The same, as far as it has been looked at.
    frames: usize,
    /// Of them, those that were there when somebody last went to fold.
    folded: usize,
    last_write: Option<Instant>,
    stage: Stage,
    helper: Helper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The helper waits for an order.
    Resting,
    /// The helper folds what was there when it was sent.
    Folding,
}

impl Wal {
    /// Starts the helper with a connection of its own. `view` is the writer's.
    pub fn new(database: &Path, view: &mut View) -> Result<Wal, ReadError> {
        let counted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&counted);
        view.conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames| {
            counter.store(usize::try_from(frames).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let helper = Helper::start(View::open_for_folding(database)?)?;
        Ok(Wal { counted, frames: 0, folded: 0, last_write: None, stage: Stage::Resting, helper })
    }

    /// A group was committed.
    pub fn wrote(&mut self) {
        let frames = self.counted.load(Ordering::Relaxed);
        if frames < self.frames {
            self.folded = 0;
        }
        self.frames = frames;
        self.last_write = Some(Instant::now());
    }

    /// Written since somebody last went to fold.
    fn fresh_bytes(&self) -> usize {
        (self.frames - self.folded) * FRAME_BYTES
    }

    fn log_bytes(&self) -> usize {
        self.frames * FRAME_BYTES
    }

    /// When to look after the log if nothing more is written.
    pub fn due_at(&self) -> Option<Instant> {
        let worth_it = self.fresh_bytes() >= QUIET_BYTES_MIN;
        self.last_write.filter(|_| worth_it).map(|at| at + QUIET)
    }

    /// Does what is due; says what went wrong since the last time, if anything was tried.
    pub fn look_after(&mut self, view: &View) -> Option<Result<(), ReadError>> {
        match self.stage {
            Stage::Resting => {
                let quiet = self.due_at().is_some_and(|at| at <= Instant::now());
                if quiet || self.fresh_bytes() >= BUSY_BYTES_MIN {
                    self.send_helper();
                }
                None
            }
            Stage::Folding => {
                let must_wait = self.log_bytes() >= LOG_BYTES_MAX;
                let folded = self.helper.ended(must_wait)?;
                self.stage = Stage::Resting;
                Some(folded.and_then(|()| self.go_on(view)))
            }
        }
    }

    fn go_on(&mut self, view: &View) -> Result<(), ReadError> {
        if self.fresh_bytes() <= REST_BYTES_MAX || self.log_bytes() >= LOG_BYTES_MAX {
            return self.fold_rest(view);
        }
        self.send_helper();
        Ok(())
    }

    fn send_helper(&mut self) {
        self.folded = self.frames;
        if self.helper.send() {
            self.stage = Stage::Folding;
        }
    }

    fn fold_rest(&mut self, view: &View) -> Result<(), ReadError> {
        self.folded = self.frames;
        match self.log_bytes() >= ANEW_BYTES_MIN {
            true => begin_anew(view),
            false => fold(view),
        }
    }

    /// Folds everything, before the store is closed.
    pub fn finish(&mut self, view: &View) -> Result<(), ReadError> {
        if self.stage == Stage::Folding {
            self.helper.ended(true).unwrap_or(Ok(()))?;
        }
        self.fold_rest(view)
    }
}

/// Folds in what no reader's snapshot needs; the rest waits for the next time.
fn fold(view: &View) -> Result<(), ReadError> {
    view.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(())
}

/// Folds in everything, and waits a little until no read needs the log any more, so that the next write begins it anew.
/// A read that takes longer is left alone: the next time is soon.
fn begin_anew(view: &View) -> Result<(), ReadError> {
    view.conn.busy_timeout(ANEW_WAIT)?;
    let folded = view.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
    view.conn.busy_timeout(LOCK_WAIT)?;
    Ok(folded?)
}

/// A thread that folds when it is told to.
struct Helper {
    orders: Option<SyncSender<()>>,
    results: Receiver<Result<(), ReadError>>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    fn start(view: View) -> Result<Helper, ReadError> {
        let (orders, received) = sync_channel(1);
        let (ended, results) = sync_channel(1);
        let work = move || {
            // Ends with the store: either side gone means that nobody wants anything any more.
            while received.recv().is_ok() && ended.send(fold(&view)).is_ok() {}
        };
        let thread = std::thread::Builder::new().name("store-fold".into()).spawn(work);
        let thread = thread.map_err(|why| ReadError::Io { why: why.to_string() })?;
        Ok(Helper { orders: Some(orders), results, thread: Some(thread) })
    }

    fn send(&self) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(()).is_ok())
    }

    /// How the fold went, once it has ended.
    fn ended(&self, must_wait: bool) -> Option<Result<(), ReadError>> {
        match must_wait {
            true => self.results.recv().ok(),
            false => self.results.try_recv().ok(),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook, and nothing depends on it here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::AtomicBool;

    use rusqlite::Connection;

    use super::*;

    fn log_len(database: &Path) -> u64 {
        std::fs::metadata(database.with_extension("db-wal")).unwrap().len()
    }

    /// Each write is this long, and there are so many.
    const BYTES: usize = 40_000;
    const WRITES: usize = 40;

    struct Place {
        database: PathBuf,
        writer: View,
        _folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            let folder = tempfile::tempdir().unwrap();
            let database = folder.path().join("store.db");
            let writer = View::new(Connection::open(&database).unwrap()).unwrap();
            writer.conn.pragma_update(None, "journal_mode", "WAL").unwrap();
            writer.conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
            writer.conn.execute_batch("CREATE TABLE things (body BLOB)").unwrap();
            Place { database, writer, _folder: folder }
        }

        fn write(&self) {
            self.writer.conn.execute("INSERT INTO things VALUES (zeroblob(?1))", [BYTES as i64]).unwrap();
        }

        /// Reads of which the next begins before the one before it ends.
        fn reads(&self) -> impl FnMut() + Send + 'static {
            let reads = [(); 2].map(|()| View::open(&self.database).unwrap());
            let begin = |read: &View| {
                read.conn.execute_batch("BEGIN").unwrap();
                read.conn.query_row("SELECT count(*) FROM things", [], |_| Ok(())).unwrap();
            };
            begin(&reads[0]);
            let mut turn = 0;
            move || {
                begin(&reads[(turn + 1) % 2]);
                reads[turn % 2].conn.execute_batch("COMMIT").unwrap();
                turn += 1;
            }
        }
    }

    #[test]
    fn a_log_begins_anew_under_reads_that_overlap_for_ever() {
        let place = Place::new();
        let (mut next_read, over) = (place.reads(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&over);
        let reading = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                next_read();
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        for _ in 0..WRITES {
            place.write();
            begin_anew(&place.writer).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        reading.join().unwrap();
        assert!(log_len(&place.database) < (WRITES * BYTES / 2) as u64);
    }

    /// The control: where nobody waits for them, the log grows as long as there are such reads.
    #[test]
    fn a_log_that_is_only_folded_grows_under_reads_that_overlap() {
        let place = Place::new();
        let mut next_read = place.reads();
        for _ in 0..WRITES {
            place.write();
            fold(&place.writer).unwrap();
            next_read();
        }
        assert!(log_len(&place.database) > (WRITES * BYTES) as u64);
    }
}
