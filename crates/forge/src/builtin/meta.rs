//! The record of a change inside its repository.

use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{FileAt, Record, RefName, Repository};

use super::own_ref;
use crate::error::ForgeError;
use crate::records::{ChangeRecord, SavedChange};

/// The folder of all changes' refs.
pub(super) const CHANGES: &str = "refs/changes";
/// The file in the record's tree.
const FILE: &str = "change.json";
/// Bytes of one record: 500 comments of 16 KiB with their quotes, and some more.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// `refs/changes/<n>/meta`.
pub(super) fn meta_ref(number: ChangeNumber) -> RefName {
    own_ref(format!("{CHANGES}/{number}/meta"))
}

/// `refs/changes/<n>/<k>`.
pub(super) fn revision_ref(number: ChangeNumber, revision: u32) -> RefName {
    own_ref(format!("{CHANGES}/{number}/{revision}"))
}

/// The change whose record a ref names.
pub(super) fn number_of_meta(name: &RefName) -> Option<ChangeNumber> {
    let rest = name.as_str().strip_prefix(CHANGES)?.strip_prefix('/')?;
    rest.strip_suffix("/meta")?.parse().ok()
}

/// Writes a record. Nothing points to it yet.
pub(super) fn write(
    repository: &Repository,
    change: &ChangeRecord,
    previous: Option<CommitId>,
) -> Result<CommitId, ForgeError> {
    let content = serde_json::to_vec_pretty(change).map_err(|error| broken(change.number, error))?;
    let message = format!("change {}: revision {}\n", change.number, change.newest().number);
    let file = Some((FILE, &content[..]));
    let record = Record { previous, file, message: &message, time: change.updated_at };
    Ok(repository.write_record(&record)?)
}

/// Reads a record.
pub(super) fn read(
    repository: &Repository,
    number: ChangeNumber,
    meta: CommitId,
) -> Result<SavedChange, ForgeError> {
    let tree = repository.commit(meta)?.tree;
    let FileAt::Content(content) = repository.file_at(tree, FILE, RECORD_BYTES_MAX)? else {
        return Err(broken(number, format!("commit {meta} has no `{FILE}`")));
    };
    let change: ChangeRecord = serde_json::from_slice(&content).map_err(|error| broken(number, error))?;
    match change.number == number && !change.revisions.is_empty() {
        true => Ok(SavedChange { change, meta }),
        false => Err(broken(number, "it speaks of another change, or of no revision")),
    }
}

fn broken(number: ChangeNumber, why: impl std::fmt::Display) -> ForgeError {
    let what = format!("the record of change {number}");
    let why = format!("{why}; its former versions are the parents of `refs/changes/{number}/meta`");
    ForgeError::Invalid { what, why }
}
