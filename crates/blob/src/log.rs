//! Logs: one append-only file for each lease, with a line index beside it.
//!
//! `<lease>.log` holds the masked bytes; `<lease>.idx` holds, as little-endian `u64`, the offset of every
//! [`LINES_PER_MARK`]th line, so that a million-line log opens at any line at once. Both only grow, and the index is
//! written after the bytes that it points to, so a reader may look while a job writes. A job that prints nothing
//! leaves no file. A log is not synced: after a power cut its digest tells whether it is whole; no verdict rests on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
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
/// Bytes that the logs of a run may have again for one of them to go on: each gap costs a line.
const RUN_GOES_ON_BYTES: u64 = 1024 * 1024;
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
    /// They may have one part in so many of their disk's room, if that is more: it may have grown when they are full.
    pub room_share: u64,
}

impl RunLogs {
    /// Whether they may have much more, as a disk now has so many bytes of room.
    fn goes_on(&mut self, room: u64) -> bool {
        self.bytes_max = self.bytes_max.max(room / self.room_share.max(1));
        self.bytes_max.saturating_sub(self.kept.load(Ordering::Relaxed)) >= RUN_GOES_ON_BYTES
    }

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
    /// Bytes in the file, the marks of gaps and of a cut included.
    pub bytes: u64,
    /// Bytes that a limit dropped, or a disk without room.
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

    /// For what jobs print: a log has a gap where it would take the reserve.
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
                spending: self.reserve.as_ref().map(Reserve::spending),
                gap: None,
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

/// Writes one log: masks, cuts at its limit, leaves gaps at that of its run and where the disk is nearly full, counts lines,
/// hashes. Memory does not grow with the log.
pub struct LogWriter {
    path: PathBuf,
    files: Option<Files>,
    masker: Masker,
    tally: Tally,
}

struct Files {
    log: File,
    index: File,
    /// Bytes that the index has.
    indexed: u64,
    /// What it is to have next.
    marks: Vec<u8>,
}

struct Tally {
    hasher: blake3::Hasher,
    bytes: u64,
    lines: u64,
    dropped: u64,
    bytes_max: u64,
    of_run: Option<RunLogs>,
    /// Asks for room on the disk, where the log is to leave some.
    spending: Option<Spending>,
    /// What comes is dropped.
    gap: Option<Gap>,
    ends_line: bool,
}

/// Bytes in one place that a log does not have.
struct Gap {
    lack: Lack,
    dropped: u64,
}

/// What a log lacks to go on.
enum Lack {
    /// It is at its own limit.
    Allowance,
    /// The logs of its run are at theirs, of so many bytes.
    AllowanceOfRun(u64),
    /// The disk has none, in its words.
    Room(String),
}

impl LogWriter {
    /// Appends what the job wrote. Bytes at its end that begin a secret are held back until more come. What is dropped was
    /// masked as a part of the whole: no secret is cut in two by a gap.
    ///
    /// # Errors
    /// [`BlobError::Io`]. A full disk is none: it makes a gap.
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
        if let Some(gap) = self.tally.gap.take() {
            let mark = self.tally.mark(&gap, ("was cut", "more bytes"));
            // Where there is not even room for it, the job's result says it alone.
            append_whole(&self.path, &mut self.files, &mut self.tally, mark.as_bytes())?;
        }
        if let Some(files) = &mut self.files {
            files.flush_marks(&self.path)?;
        }
        let Tally { hasher, bytes, dropped, .. } = self.tally;
        Ok(LogEnd { digest: Digest(*hasher.finalize().as_bytes()), bytes, dropped })
    }
}

/// Appends as much as there is an allowance and room for. What is not kept begins a gap, or is in one.
fn append(path: &Path, files: &mut Option<Files>, tally: &mut Tally, bytes: &[u8]) -> Result<(), BlobError> {
    if bytes.is_empty() {
        return Ok(());
    }
    if let Some(gap) = tally.ended_gap() {
        let mark = tally.mark(&gap, ("has a gap", "bytes"));
        let full = append_whole(path, files, tally, mark.as_bytes())?;
        tally.gap = full.map(|_| gap);
    }
    if tally.gap.is_some() {
        tally.leave_out(bytes.len());
        return Ok(());
    }
    let (mut kept, mut lack) = tally.room_for(bytes.len());
    // A job that fills the disk between two looks at it would else end as one whose log our machine lost.
    if let Some(full) = append_whole(path, files, tally, &bytes[..kept])? {
        (kept, lack) = (0, Some(Lack::Room(full)));
    }
    tally.gap = lack.map(|lack| Gap { lack, dropped: 0 });
    tally.leave_out(bytes.len() - kept);
    Ok(())
}

/// Appends all of some bytes, whatever allowance there is; answers what a full disk says, which is no error.
fn append_whole(
    path: &Path,
    files: &mut Option<Files>,
    tally: &mut Tally,
    bytes: &[u8],
) -> Result<Option<String>, BlobError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match write_whole(path, files, tally.bytes, bytes) {
        Err(error) if error.is_disk_full() => return Ok(Some(error.to_string())),
        written => written?,
    }
    let Some(files) = files else { return Ok(None) };
    tally.count(bytes, &mut files.marks);
    files.flush_marks(path)?;
    Ok(None)
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
    /// The gap that the log is in, if it need not last.
    fn ended_gap(&mut self) -> Option<Gap> {
        let Tally { gap, spending: Some(spending), of_run, .. } = self else { return None };
        gap.take_if(|gap| match (&gap.lack, of_run) {
            (Lack::Room(_), _) => spending.is_ample(),
            (Lack::AllowanceOfRun(_), Some(of_run)) => of_run.goes_on(spending.room_bytes()),
            (Lack::Allowance | Lack::AllowanceOfRun(_), _) => false,
        })
    }

    /// How many of so many bytes are kept, and what is lacking for the others.
    fn room_for(&mut self, bytes: usize) -> (usize, Option<Lack>) {
        let most = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let mut kept = bytes.min(most);
        let mut lack = (kept < bytes).then_some(Lack::Allowance);
        if let Some(Err(no_room)) = self.spending.as_mut().map(|spending| spending.spend(kept as u64)) {
            return (0, Some(Lack::Room(no_room.to_string())));
        }
        if let Some(of_run) = &self.of_run {
            let kept_of_run = of_run.keep(kept);
            if kept_of_run < kept {
                (kept, lack) = (kept_of_run, Some(Lack::AllowanceOfRun(of_run.bytes_max)));
            }
        }
        (kept, lack)
    }

    fn leave_out(&mut self, bytes: usize) {
        if let Some(gap) = &mut self.gap {
            gap.dropped += bytes as u64;
            self.dropped += bytes as u64;
        }
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

    fn mark(&self, gap: &Gap, (what, bytes): (&str, &str)) -> String {
        let newline = if self.ends_line { "" } else { "\n" };
        let why = match &gap.lack {
            Lack::Room(no_room) => format!(": {no_room}"),
            Lack::AllowanceOfRun(most) => {
                format!(": all logs of its run together are at their limit of {most} bytes")
            }
            Lack::Allowance => format!(" at its limit of {} bytes", self.bytes_max),
        };
        format!("{newline}[towpath] the log {what} here{why}; {} {bytes} were dropped\n", gap.dropped)
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
            indexed: 0,
            marks: Vec::new(),
        })
    }

    /// Brings the index up to date. A full disk is no error: the marks are written with the next ones, over what there may be
    /// of them, and until then a reader has more lines to count.
    fn flush_marks(&mut self, path: &Path) -> Result<(), BlobError> {
        if self.marks.is_empty() {
            return Ok(());
        }
        let written = self.index.write_all_at(&self.marks, self.indexed);
        match written.map_err(BlobError::io("write the line index of", path)) {
            Err(error) if error.is_disk_full() => return Ok(()),
            written => written?,
        }
        self.indexed += self.marks.len() as u64;
        self.marks.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_a_full_disk_does_not_take_are_written_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap();
        let [lease, other] = [1, 2].map(|number| LeaseId([number; 16]));
        let mut writers = [lease, other].map(|lease| store.writer(&lease, LogOptions::default()));
        let [writer, beside] = &mut writers;
        writer.write(b"first\n").unwrap();
        let files = writer.files.as_mut().unwrap();
        let index =
            std::mem::replace(&mut files.index, File::options().write(true).open("/dev/full").unwrap());
        let lines = "line\n".repeat(200);
        writer.write(lines.as_bytes()).unwrap();
        assert_eq!(store.reader(&lease).lines(199, 2, 100).unwrap().bytes, b"line\nline\n");
        // A part of them is there.
        index.write_all_at(&[1; 9], 0).unwrap();
        writer.files.as_mut().unwrap().index = index;
        beside.write(b"first\n").unwrap();
        beside.write(lines.as_bytes()).unwrap();
        let ends = writers.map(|writer| writer.finish().unwrap());
        assert_eq!(ends[0], ends[1]);
        let [index, whole] = [lease, other].map(|lease| fs::read(index_path(&store.path(&lease))).unwrap());
        assert_eq!((index.len(), index), (3 * 8, whole));
    }

    #[test]
    fn a_log_whose_index_has_no_room_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::open(folder.path()).unwrap();
        let lease = LeaseId([1; 16]);
        let index = index_path(&store.path(&lease));
        fs::create_dir_all(index.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", index).unwrap();
        let mut writer = store.writer(&lease, LogOptions::default());
        for _ in 0..200 {
            writer.write(b"line\n").unwrap();
        }
        let end = writer.finish().unwrap();
        assert_eq!((end.bytes, end.dropped), (1000, 0));
        assert_eq!(store.reader(&lease).line_count().unwrap(), 200);
    }
}
