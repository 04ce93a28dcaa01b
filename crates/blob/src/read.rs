//! Reading logs by line or by byte, also while they are written.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::log::{LINES_PER_MARK, index_path};
use crate::store::BlobError;

/// Bytes of one answer. A page shows far less; a follower asks again.
pub const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes looked at in one step of a scan for newlines.
const SCAN_BYTES: usize = 64 * 1024;

/// Looks into one log. Holds no open file, so a log may be removed meanwhile; it then reads as empty.
#[derive(Debug, Clone)]
pub struct LogReader {
    path: PathBuf,
}

/// A range of whole lines, except that the last may be cut by a byte limit or by the present end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLines {
    /// Number of the first line, from 0.
    pub first: u64,
    /// Where it begins in the log.
    pub offset: u64,
    /// The bytes, newlines included.
    pub bytes: Vec<u8>,
}

impl LogReader {
    pub(crate) fn new(path: PathBuf) -> LogReader {
        LogReader { path }
    }

    /// Present size in bytes.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the file is there and cannot be read.
    pub fn size(&self) -> Result<u64, BlobError> {
        match self.open()? {
            Some(file) => Ok(file.metadata().map_err(BlobError::io("look at", &self.path))?.len()),
            None => Ok(0),
        }
    }

    /// Bytes from `offset`, at most `bytes_max` and [`READ_BYTES_MAX`]. Empty at the present end: a follower asks
    /// again from the same offset.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the file is there and cannot be read.
    pub fn bytes(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>, BlobError> {
        let Some(file) = self.open()? else { return Ok(Vec::new()) };
        self.read_at(&file, offset, bytes_max.min(READ_BYTES_MAX))
    }

    /// How many lines there are; a last line without a newline counts.
    ///
    /// # Errors
    /// As [`LogReader::bytes`].
    pub fn line_count(&self) -> Result<u64, BlobError> {
        let Some(file) = self.open()? else { return Ok(0) };
        let mark = self.last_mark()?;
        let mut offset = mark.offset;
        let (mut lines, mut open_line) = (mark.line, false);
        loop {
            let bytes = self.read_at(&file, offset, SCAN_BYTES)?;
            let Some(last) = bytes.last() else { return Ok(lines + u64::from(open_line)) };
            lines += memchr::memchr_iter(b'\n', &bytes).count() as u64;
            open_line = *last != b'\n';
            offset += bytes.len() as u64;
        }
    }

    /// `count` lines from line `first` (from 0), at most `bytes_max` and [`READ_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// As [`LogReader::bytes`].
    pub fn lines(&self, first: u64, count: u64, bytes_max: usize) -> Result<LogLines, BlobError> {
        let Some(file) = self.open()? else { return Ok(LogLines { first, offset: 0, bytes: Vec::new() }) };
        let mark = self.mark_before(first)?;
        let offset = self.skip_lines(&file, mark.offset, first - mark.line)?;
        let mut bytes = self.read_at(&file, offset, bytes_max.min(READ_BYTES_MAX))?;
        let nth = usize::try_from(count).ok().and_then(|count| count.checked_sub(1));
        let end = match nth {
            Some(nth) => {
                memchr::memchr_iter(b'\n', &bytes).nth(nth).map_or(bytes.len(), |newline| newline + 1)
            }
            None => 0,
        };
        bytes.truncate(end);
        Ok(LogLines { first, offset, bytes })
    }

    /// The log from its beginning, as a plain reader; for hashing and export.
    ///
    /// # Errors
    /// As [`LogReader::bytes`].
    pub fn stream(&self) -> Result<impl Read, BlobError> {
        Ok(match self.open()? {
            Some(file) => Box::new(file) as Box<dyn Read>,
            None => Box::new(io::empty()),
        })
    }

    fn open(&self) -> Result<Option<File>, BlobError> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::io("open", &self.path)(error)),
        }
    }

    fn read_at(&self, file: &File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, BlobError> {
        let size = file.metadata().map_err(BlobError::io("look at", &self.path))?.len();
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; there.min(bytes_max)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BlobError::io("read", &self.path)(error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The offset after `count` further newlines, or the present end.
    fn skip_lines(&self, file: &File, mut offset: u64, mut count: u64) -> Result<u64, BlobError> {
        while count > 0 {
            let bytes = self.read_at(file, offset, SCAN_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            let mut newlines = memchr::memchr_iter(b'\n', &bytes);
            match newlines.by_ref().nth(usize::try_from(count - 1).unwrap_or(usize::MAX)) {
                Some(newline) => return Ok(offset + newline as u64 + 1),
                None => count -= memchr::memchr_iter(b'\n', &bytes).count() as u64,
            }
            offset += bytes.len() as u64;
        }
        Ok(offset)
    }

    fn marks(&self) -> Result<Option<(File, u64)>, BlobError> {
        let path = index_path(&self.path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BlobError::io("open", &path)(error)),
        };
        let count = file.metadata().map_err(BlobError::io("look at", &path))?.len() / 8;
        Ok((count > 0).then_some((file, count)))
    }

    /// The last mark at or before a line; line 0 at offset 0 where there is none.
    fn mark_before(&self, line: u64) -> Result<Mark, BlobError> {
        match self.marks()? {
            Some((file, count)) => self.mark(&file, count.min(line / LINES_PER_MARK)),
            None => Ok(Mark { line: 0, offset: 0 }),
        }
    }

    fn last_mark(&self) -> Result<Mark, BlobError> {
        self.mark_before(u64::MAX)
    }

    fn mark(&self, file: &File, number: u64) -> Result<Mark, BlobError> {
        let Some(at) = number.checked_sub(1) else { return Ok(Mark { line: 0, offset: 0 }) };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at * 8)
            .map_err(BlobError::io("read the line index of", &self.path))?;
        Ok(Mark { line: number * LINES_PER_MARK, offset: u64::from_le_bytes(bytes) })
    }
}

struct Mark {
    line: u64,
    offset: u64,
}
