//! What can go wrong, by boundary: opening, reading, writing.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi;
use towpath_core::cell::Refusal;
use towpath_core::gate::HaltCause;
use towpath_core::ids::Epoch;

/// Why a data folder could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another server has it.
    #[error(
        "the {what} `{}` is in use by {holder}; stop that server first, or give this one a folder of its own",
        folder.display()
    )]
    InUse {
        /// Which of a server's folders it is.
        what: &'static str,
        /// The folder, as it was given.
        folder: PathBuf,
        /// `process 4711`, as far as it is known.
        holder: String,
    },
    /// Others may read it.
    #[error(
        "the data folder `{}` can be read by others (mode {mode:o}); run `chmod 700` on it",
        folder.display()
    )]
    Permissions {
        /// The folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The keys have signed for other data since.
    #[error(
        "`{}` has a checkpoint of {leaves} leaves that the record in the data folder does not have: with these keys a \
         server went on with other data, as a copy of these is; serve those, or, to give them up for good, move the file \
         somewhere else first",
        checkpoints.display()
    )]
    OtherRecord {
        /// The file of checkpoints.
        checkpoints: PathBuf,
        /// How many leaves the checkpoint is over.
        leaves: u64,
    },
    /// A leaf that every server seals as it writes it is under no checkpoint.
    #[error(
        "leaf {leaf} of the record tells of a restore or of a lost key, and no checkpoint covers it: a server puts one over \
         such a leaf in the step that writes it, so somebody else wrote this one, and none signs it; find out who could \
         write to the data, then restore a backup from before"
    )]
    ForgedLeaf {
        /// Its number.
        leaf: u64,
    },
    /// The log is signed by another key.
    #[error("the record in the data folder is signed by the key {noted}, and this server's is {given}")]
    OtherKey {
        /// The log's.
        noted: String,
        /// The server's.
        given: String,
    },
    /// A later Towpath wrote it.
    #[error(
        "the database has schema {found}, this Towpath knows {known}: a newer version made it or went on with it; \
         install that one, or restore a backup from before"
    )]
    NewerSchema {
        /// The schema in the database.
        found: u32,
        /// The newest schema of this binary.
        known: u32,
    },
    /// A migration is not the one that this binary has under its number.
    #[error("schema step {step} of the database differs from this Towpath's: it was made by another program")]
    ForeignSchema {
        /// Its number.
        step: u32,
    },
    /// The file is a database, but not one of Towpath.
    #[error("`{}` is not a Towpath database", file.display())]
    NotTowpath {
        /// The file.
        file: PathBuf,
    },
    /// The linked SQLite has known defects in WAL mode.
    #[error("SQLite {found} is linked, at least {least} is needed")]
    OldLibrary {
        /// What is linked.
        found: String,
        /// What is needed.
        least: String,
    },
    /// A file operation failed.
    #[error("cannot {what} `{}`: {why}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why rows could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A row or page does not hold what it must.
    #[error("the database is damaged: {why}; check the disk and restore a backup")]
    Damaged {
        /// Where and what.
        why: String,
    },
    /// The system could not read.
    #[error("the database cannot be read: {why}")]
    Io {
        /// The system's words.
        why: String,
    },
    /// Every read connection was in use for too long.
    #[error("no read connection became free in time; try again")]
    Busy,
}

/// Why something was not written. Nothing of its unit was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A higher epoch has written (invariant I13).
    #[error("fenced: `{what}` is written by epoch {by} now")]
    Fenced {
        /// A cell, or `server`.
        what: String,
        /// The higher epoch.
        by: Epoch,
    },
    /// The inbox holds something that the turn has not seen, and the turn claims what must not overlook it.
    #[error("the inbox of `{cell}` is not drained")]
    NotDrained {
        /// The cell.
        cell: String,
    },
    /// The turn claims a landing, and nothing lands now.
    #[error("nothing lands: {why}")]
    Halted {
        /// What stops it.
        cause: HaltCause,
        /// Why, and what to do.
        why: String,
    },
    /// There is one already.
    #[error("{what} exists already")]
    Exists {
        /// What.
        what: String,
    },
    /// There is none.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: String,
    },
    /// The unit's own rule said no.
    #[error("{}", .0.why)]
    Refused(Refusal),
    /// One body is larger than the store takes.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The disk, or the database's own limit, is full.
    #[error("the disk of the data folder is full: nothing is accepted until there is room again")]
    Full,
    /// The disk did not confirm that data is safe: what is on it is not known until a restart.
    #[error("the disk failed to confirm a write ({why}): landing stops; check the disk, then restart")]
    Unsynced {
        /// The library's words.
        why: String,
    },
    /// The system could not write.
    #[error("the database cannot be written: {why}")]
    Io {
        /// The library's words.
        why: String,
    },
    /// A row or page does not hold what it must.
    #[error("the database is damaged: {why}; check the disk and restore a backup")]
    Damaged {
        /// Where and what.
        why: String,
    },
    /// It is written, but its checkpoint is not yet where it can bear witness.
    #[error("the newest checkpoint cannot be put outside the data folder: {why}")]
    Unwitnessed {
        /// The system's words.
        why: String,
    },
    /// Another unit of the same group had to be undone, and this one with it. Nothing is wrong with it.
    #[error("it was undone together with another write, which was wrong in itself; try again")]
    Undone,
    /// Too much waits to be written.
    #[error("too many writes wait; try again")]
    Busy,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A bug: the unit broke a rule of the schema, or panicked.
    #[error("a write was wrong in itself: {why}")]
    Bug {
        /// What.
        why: String,
    },
}

/// What to do about a [`WriteError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Forget the memory, load the rows and decide again.
    Reload,
    /// Drain the inbox and decide again.
    Drain,
    /// The same write may work later.
    Later,
    /// The same write never works: tell whoever asked.
    Never,
}

impl WriteError {
    /// Whether the disk failed, and with it everything that was being written.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, WriteError::Full | WriteError::Unsynced { .. } | WriteError::Io { .. })
    }

    /// What to do next.
    pub fn handling(&self) -> Handling {
        match self {
            WriteError::Fenced { .. } | WriteError::Halted { .. } => Handling::Reload,
            WriteError::NotDrained { .. } => Handling::Drain,
            WriteError::Full
            | WriteError::Io { .. }
            | WriteError::Unsynced { .. }
            | WriteError::Unwitnessed { .. }
            | WriteError::Undone
            | WriteError::Busy
            | WriteError::Closed => Handling::Later,
            WriteError::Exists { .. }
            | WriteError::Missing { .. }
            | WriteError::Refused(_)
            | WriteError::TooLarge { .. }
            | WriteError::Damaged { .. }
            | WriteError::Bug { .. } => Handling::Never,
        }
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> WriteError {
        match error {
            ReadError::Damaged { why } => WriteError::Damaged { why },
            ReadError::Io { why } => WriteError::Io { why },
            ReadError::Busy => WriteError::Busy,
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> ReadError {
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ReadError::Damaged { why },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ReadError::Busy,
            Some(_) => ReadError::Io { why },
            None => ReadError::Damaged { why },
        }
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> WriteError {
        let why = error.to_string();
        let Some(sqlite) = error.sqlite_error() else { return ReadError::from(error).into() };
        match (sqlite.code, sqlite.extended_code) {
            (ErrorCode::DiskFull, _) => WriteError::Full,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => WriteError::Unsynced { why },
            (_, ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE) => {
                WriteError::Exists { what: why }
            }
            (ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch, _) => WriteError::Bug { why },
            (ErrorCode::Unknown, _) => WriteError::Bug { why },
            (ErrorCode::TooBig, _) => WriteError::Bug { why },
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => WriteError::Damaged { why },
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => WriteError::Busy,
            _ => WriteError::Io { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32) -> WriteError {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()
    }

    #[test]
    fn failures_of_the_disk_are_told_apart() {
        assert_eq!(of(ffi::SQLITE_FULL), WriteError::Full);
        assert!(matches!(of(ffi::SQLITE_IOERR_FSYNC), WriteError::Unsynced { .. }));
        assert!(matches!(of(ffi::SQLITE_IOERR_DIR_FSYNC), WriteError::Unsynced { .. }));
        assert!(matches!(of(ffi::SQLITE_IOERR_WRITE), WriteError::Io { .. }));
        assert!(matches!(of(ffi::SQLITE_CORRUPT), WriteError::Damaged { .. }));
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT_UNIQUE), WriteError::Exists { .. }));
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT_NOTNULL), WriteError::Bug { .. }));
        assert_eq!(of(ffi::SQLITE_BUSY), WriteError::Busy);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert_eq!(of(ffi::SQLITE_FULL).handling(), Handling::Later);
        assert_eq!(of(ffi::SQLITE_CONSTRAINT_UNIQUE).handling(), Handling::Never);
        assert_eq!(WriteError::Fenced { what: "pool".into(), by: Epoch(2) }.handling(), Handling::Reload);
    }
}
