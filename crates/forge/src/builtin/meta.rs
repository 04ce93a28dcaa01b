//! The record of a change inside its repository.

use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{CommitInfo, ErrorClass, FileAt, GitError, Record, RefName, Repository};

use super::own_ref;
use crate::error::ForgeError;
use crate::records::{ChangeAct, ChangeRecord, SavedChange};

/// The folder of all changes' refs.
pub(super) const CHANGES: &str = "refs/changes";
/// The file in the record's tree.
const FILE: &str = "change.json";
/// Bytes of one record: 500 comments of 16 KiB with their quotes, and some more.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records of one change that are read back at most, where its row was lost.
const RECORDS_MAX: usize = 1_000_000;
/// Damaged records of one change that are named, at most.
const UNTOLD_MAX: usize = 10;
/// Between what the commit's message says for people and what it says for us.
const ACT_BEGINS: &str = "\n\n";

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

/// Writes a record, and who made it what it is. Nothing points to it yet.
pub(super) fn write(
    repository: &Repository,
    (change, act): (&ChangeRecord, Option<&ChangeAct>),
    previous: Option<CommitId>,
) -> Result<CommitId, ForgeError> {
    let content = serde_json::to_vec_pretty(change).map_err(|error| broken(change.number, error))?;
    let mut message = format!("change {}: revision {}", change.number, change.newest().number);
    if let Some(act) = act {
        message += ACT_BEGINS;
        message += &serde_json::to_string(act).expect("invariant: an act is plain data");
    }
    message.push('\n');
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
    let unread = |error| unread(number, error);
    let tree = repository.commit(meta).map_err(unread)?.tree;
    let found = repository.file_at(tree, FILE, RECORD_BYTES_MAX).map_err(unread)?;
    let FileAt::Content(content) = found else {
        return Err(broken(number, format!("commit {meta} has no `{FILE}`")));
    };
    let change: ChangeRecord = serde_json::from_slice(&content).map_err(|error| broken(number, error))?;
    match change.number == number && !change.revisions.is_empty() {
        true => Ok(SavedChange { change, meta }),
        false => Err(broken(number, "it speaks of another change, or of no revision")),
    }
}

/// What the records of a change say that people did.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What they say, oldest first.
    pub acts: Vec<ChangeAct>,
    /// What cannot be read any more, in words.
    pub untold: Vec<String>,
}

/// What people did in the records of a change after one, up to another; `None`: in all of them.
///
/// Records that no person made, or that were written when only the server's log said who had, have none. The change itself
/// is whole in its newest record: a damaged one before it keeps nobody from it.
pub(super) fn acts(
    repository: &Repository,
    number: ChangeNumber,
    (after, up_to): (Option<CommitId>, CommitId),
) -> Result<Told, ForgeError> {
    let (mut told, mut at) = (Told::default(), up_to);
    for _ in 0..RECORDS_MAX {
        let record = match repository.commit(at).map_err(|error| unread(number, error)) {
            Ok(record) => record,
            Err(error) if at == up_to || error.class() == ErrorClass::Transient => return Err(error),
            Err(error) => {
                told.untold.push(format!("what people did to change {number} up to {at} is lost: {error}"));
                told.acts.reverse();
                return Ok(told);
            }
        };
        match act(number, &record) {
            Ok(act) => told.acts.extend(act),
            Err(error) if at == up_to => return Err(error),
            Err(_) if told.untold.len() >= UNTOLD_MAX => {}
            Err(error) => {
                told.untold.push(format!("what made change {number} what it was at {at} is lost: {error}"))
            }
        }
        let previous = record.parents.first().copied();
        match previous {
            Some(previous) if after != Some(previous) => at = previous,
            _ if after == previous => {
                told.acts.reverse();
                return Ok(told);
            }
            // The ref has gone back, as after a disk's loss: what there is now has been told before.
            _ => return Ok(Told::default()),
        }
    }
    Err(broken(number, format!("it has more than {RECORDS_MAX} of them")))
}

fn act(number: ChangeNumber, record: &CommitInfo) -> Result<Option<ChangeAct>, ForgeError> {
    let Some((_, act)) = record.message.split_once(ACT_BEGINS) else { return Ok(None) };
    serde_json::from_str(act).map(Some).map_err(|error| broken(number, error))
}

/// A record that the disk has spoilt is wrong with its change; whatever else keeps it from being read is so with the repository.
fn unread(number: ChangeNumber, error: GitError) -> ForgeError {
    match error {
        GitError::Damaged { .. } => broken(number, error),
        error => error.into(),
    }
}

fn broken(number: ChangeNumber, why: impl std::fmt::Display) -> ForgeError {
    let what = format!("the record of change {number}");
    let why = format!("{why}; its former versions are the parents of `refs/changes/{number}/meta`");
    ForgeError::Invalid { what, why }
}
