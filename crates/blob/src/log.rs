//! Logs: one append-only file for each lease, with a line index beside it.
//!
//! `<lease>.log` holds the masked bytes; `<lease>.idx` holds, as little-endian `u64`, the offset of every
//! [`LINES_PER_MARK`]th line, so that a million-line log opens at any line at once. Both only grow, and the index is
//! written after the bytes that it points to, so a reader may look while a job writes. A job that prints nothing
//! leaves no file. A log is not synced: after a power cut its digest tells whether it is whole; no verdict rests on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use towpath_core::ids::{Digest, LeaseId};

use crate::mask::Masker;
use crate::read::LogReader;
use crate::reserve::{Reserve, Spending};
use crate::store::{BlobError, remove_if_there};

/// Lines between two marks of the index. 8 bytes for about 5 KB of log; a seek reads at most that much too far.
pub const LINES_PER_MARK: u64 = 64;
/// Bytes in which newlines are counted at once: so few that at most one of them ends a mark's lines.
const BLOCK_BYTES: usize = LINES_PER_MARK as usize;
/// Bytes of a job's log when nobody says otherwise. A 64 MB line fits twice.
pub const LOG_BYTES_DEFAULT: u64 = 128 * 1024 * 1024;

/// A folder of logs.
#[derive(Debug, Clone)]
pub struct LogStore {
    root: PathBuf,
    /// What is logged leaves it free.
    reserve: Option<Reserve>,
}

/// How a log is written.
#[derive(Default)]
pub struct LogOptions {
    /// Bytes kept; what comes after is counted and marked. `None`: [`LOG_BYTES_DEFAULT`].
    pub bytes_max: Option<u64>,
    /// The logs of its run, which have a limit of their own.
    pub of_run: Option<RunLogs>,
    /// What is blanked.
    pub masker: Masker,
}

/// All logs of a run, whoever writes them.
#[derive(Debug, Clone)]
pub struct RunLogs {
    /// Bytes that they have.
    pub kept: Arc<AtomicU64>,
    /// Bytes that they may have for one of them to grow.
    pub bytes_max: u64,
}

impl RunLogs {
    /// Counts as many of so many bytes as are kept, and says how many.
    fn keep(&self, bytes: usize) -> usize {
        let room = |kept: u64| usize::try_from(self.bytes_max.saturating_sub(kept)).unwrap_or(usize::MAX);
        let after = |kept: u64| Some(kept + bytes.min(room(kept)) as u64);
        let before = self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        bytes.min(room(before.unwrap_or_else(|kept| kept)))
    }
}

/// BLAKE3 over a log's bytes: for a program that prints as fast as it can, SHA-256 costs two thirds of what
/// writing the file does, this a quarter (measured; docs/decisions/0013).
///
/// # Errors
/// As reading has them.
pub fn digest(bytes: impl Read) -> io::Result<Digest> {
    Ok(Digest(*blake3::Hasher::new().update_reader(bytes)?.finalize().as_bytes()))
}

/// A finished log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// BLAKE3 over the file's bytes; see [`digest`].
    pub digest: Digest,
    /// Bytes in the file, the mark of a cut included.
    pub bytes: u64,
    /// Bytes that the limit dropped, or a disk without room.
    pub dropped: u64,
}

impl LogStore {
    /// Opens the store in `root`.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the folder cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<LogStore, BlobError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(BlobError::io("make the folder", &root))?;
        Ok(LogStore { root, reserve: None })
    }

    /// For what jobs print: a log is cut where it would take the reserve.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> LogStore {
        LogStore { reserve: Some(reserve), ..self }
    }

    /// Where a lease's log is, or would be if it printed anything.
    pub fn path(&self, lease: &LeaseId) -> PathBuf {
        let hex = lease.to_string();
        self.root.join(&hex[..2]).join(format!("{hex}.log"))
    }

    /// Begins a lease's log. Nothing is on disk before the first byte.
    pub fn writer(&self, lease: &LeaseId, options: LogOptions) -> LogWriter {
        LogWriter {
            path: self.path(lease),
            files: None,
            masker: options.masker,
            tally: Tally {
                hasher: blake3::Hasher::new(),
                bytes: 0,
                lines: 0,
                dropped: 0,
                bytes_max: options.bytes_max.unwrap_or(LOG_BYTES_DEFAULT),
                of_run: options.of_run,
                is_run_full: false,
                spending: self.reserve.as_ref().map(Reserve::spending),
                no_room: None,
                ends_line: true,
            },
        }
    }

    /// Reads a lease's log, whether it is still written or not. A log without a byte reads as empty.
    pub fn reader(&self, lease: &LeaseId) -> LogReader {
        LogReader::new(self.path(lease))
    }

    /// Removes a log whose retention is over. Removing what is not there is success.
    ///
    /// # Errors
    /// [`BlobError::Io`] if a file cannot be removed.
    pub fn remove(&self, lease: &LeaseId) -> Result<(), BlobError> {
        let path = self.path(lease);
        remove_if_there(&index_path(&path))?;
        remove_if_there(&path)
    }
}

pub(crate) fn index_path(log: &Path) -> PathBuf {
    log.with_extension("idx")
}

/// Writes one log: masks, cuts at its limit, at that of its run, or where the disk is nearly full, counts lines, hashes. Memory does not grow
/// with the log.
pub struct LogWriter {
    path: PathBuf,
    files: Option<Files>,
    masker: Masker,
    tally: Tally,
}

struct Files {
    log: File,
    index: File,
    marks: Vec<u8>,
}

struct Tally {
    hasher: blake3::Hasher,
    bytes: u64,
    lines: u64,
    dropped: u64,
    bytes_max: u64,
    of_run: Option<RunLogs>,
    /// The log was cut for the limit of its run's.
    is_run_full: bool,
    /// Asks for room on the disk, where the log is to leave some.
    spending: Option<Spending>,
    /// The log was cut for lack of it.
    no_room: Option<String>,
    ends_line: bool,
}

impl LogWriter {
    /// Appends what the job wrote. Bytes at its end that begin a secret are held back until more come.
    ///
    /// # Errors
    /// [`BlobError::Io`]. A full disk is none: it cuts the log.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let shown = self.masker.push(bytes);
        append(&self.path, &mut self.files, &mut self.tally, shown)
    }

    /// Bytes kept so far.
    pub fn bytes(&self) -> u64 {
        self.tally.bytes
    }

    /// Ends the log: shows the held-back rest and the mark of a cut.
    ///
    /// # Errors
    /// As [`LogWriter::write`].
    pub fn finish(mut self) -> Result<LogEnd, BlobError> {
        let shown = self.masker.finish();
        append(&self.path, &mut self.files, &mut self.tally, shown)?;
        let dropped = self.tally.dropped;
        if dropped > 0 {
            let mark = self.tally.cut_mark();
            // A mark is short: it may take of the reserve. Where there is none left, the job's result says it alone.
            (self.tally.bytes_max, self.tally.of_run) = (u64::MAX, None);
            (self.tally.spending, self.tally.no_room) = (None, None);
            append(&self.path, &mut self.files, &mut self.tally, mark.as_bytes())?;
        }
        Ok(LogEnd {
            digest: Digest(*self.tally.hasher.finalize().as_bytes()),
            bytes: self.tally.bytes,
            dropped,
        })
    }
}

fn append(path: &Path, files: &mut Option<Files>, tally: &mut Tally, bytes: &[u8]) -> Result<(), BlobError> {
    let (kept, dropped) = bytes.split_at(tally.room_for(bytes.len()));
    tally.dropped += dropped.len() as u64;
    if kept.is_empty() {
        return Ok(());
    }
    match write_whole(path, files, tally.bytes, kept) {
        // A job that fills the disk between two looks at it would else end as one whose log our machine lost.
        Err(error) if error.is_disk_full() => {
            tally.no_room = Some(error.to_string());
            tally.dropped += kept.len() as u64;
            return Ok(());
        }
        written => written?,
    }
    let Some(files) = files else { return Ok(()) };
    tally.count(kept, &mut files.marks);
    files.flush_marks().map_err(BlobError::io("write the line index of", path))
}

/// Appends all of some bytes to a log that has `at` of them, or none.
fn write_whole(path: &Path, files: &mut Option<Files>, at: u64, bytes: &[u8]) -> Result<(), BlobError> {
    let files = match files {
        Some(files) => files,
        None => files.insert(Files::create(path)?),
    };
    files
        .log
        .write_all(bytes)
        .or_else(|error| {
            files.log.set_len(at)?;
            files.log.seek(SeekFrom::Start(at))?;
            Err(error)
        })
        .map_err(BlobError::io("write the log", path))
}

impl Tally {
    /// How many of so many bytes are kept. Once the disk had no room, nothing more is: a log has no gaps.
    fn room_for(&mut self, bytes: usize) -> usize {
        let most = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let kept = bytes.min(most);
        if self.no_room.is_none()
            && let Some(spending) = &mut self.spending
        {
            self.no_room = spending.spend(kept as u64).err().map(|no_room| no_room.to_string());
        }
        if self.no_room.is_some() {
            return 0;
        }
        let Some(of_run) = &self.of_run else { return kept };
        let kept_of_run = of_run.keep(kept);
        self.is_run_full |= kept_of_run < kept;
        kept_of_run
    }

    fn count(&mut self, bytes: &[u8], marks: &mut Vec<u8>) {
        self.hasher.update(bytes);
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            self.count_block(block, newlines(block), marks);
        }
        self.count_block(rest, memchr::memchr_iter(b'\n', rest).count() as u64, marks);
        self.ends_line = bytes.last() == Some(&b'\n');
    }

    /// Counts the newlines of a block, and marks the line that begins behind the one that makes a mark's lines full.
    #[inline]
    fn count_block(&mut self, block: &[u8], newlines: u64, marks: &mut Vec<u8>) {
        let to_mark = LINES_PER_MARK - self.lines % LINES_PER_MARK;
        if newlines >= to_mark {
            let last = memchr::memchr_iter(b'\n', block).nth(to_mark as usize - 1).unwrap_or_default();
            marks.extend_from_slice(&(self.bytes + last as u64 + 1).to_le_bytes());
        }
        self.lines += newlines;
        self.bytes += block.len() as u64;
    }

    fn cut_mark(&self) -> String {
        let newline = if self.ends_line { "" } else { "\n" };
        let dropped = self.dropped;
        let why = match (&self.no_room, &self.of_run) {
            (Some(no_room), _) => format!(": {no_room}"),
            (None, Some(of_run)) if self.is_run_full => {
                format!(": all logs of its run together are at their limit of {} bytes", of_run.bytes_max)
            }
            (None, _) => format!(" at its limit of {} bytes", self.bytes_max),
        };
        format!("{newline}[towpath] the log was cut here{why}; {dropped} more bytes were dropped\n")
    }
}

/// Counted in one byte, of which a processor adds many at once: a seventh of what finding each one costs (measured).
#[inline]
fn newlines(block: &[u8; BLOCK_BYTES]) -> u64 {
    u64::from(block.iter().fold(0u8, |count, byte| count + u8::from(*byte == b'\n')))
}

impl Files {
    fn create(path: &Path) -> Result<Files, BlobError> {
        let create = |path: &Path| OpenOptions::new().write(true).create(true).truncate(true).open(path);
        let log = match create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().expect("a log's path has a folder");
                fs::create_dir_all(folder).map_err(BlobError::io("make the folder", folder))?;
                create(path)
            }
            other => other,
        };
        let index = index_path(path);
        Ok(Files {
            log: log.map_err(BlobError::io("make the log", path))?,
            index: create(&index).map_err(BlobError::io("make the line index", &index))?,
            marks: Vec::new(),
        })
    }

    fn flush_marks(&mut self) -> io::Result<()> {
        if !self.marks.is_empty() {
            self.index.write_all(&self.marks)?;
            self.marks.clear();
        }
        Ok(())
    }
}
