//! The record of a change inside its repository.
//!
//! Its tree has `change.json` and the folder `comments` with a file for each. So an act writes what is small, and not the
//! whole talk once more. A record from before the folder has its comments in `change.json`.

use serde::Serialize;
use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{CommitInfo, ErrorClass, FileAt, GitError, ObjectId, Part, Record, RefName, Repository};

use super::own_ref;
use crate::error::ForgeError;
use crate::records::{ChangeAct, ChangeRecord, SavedChange};

/// The folder of all changes' refs.
pub(super) const CHANGES: &str = "refs/changes";
/// The file in the record's tree.
const FILE: &str = "change.json";
/// The folder of its comments.
const COMMENTS: &str = "comments";
/// Bytes of one file: 500 comments of 16 KiB with their quotes, and some more.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records of one change that are read back at most, where its row was lost.
const RECORDS_MAX: usize = 1_000_000;
/// Damaged records of one change that are named, at most.
const UNTOLD_MAX: usize = 10;
/// Between what the commit's message says for people and what it says for us.
const ACT_BEGINS: &str = "\n\n";
/// Before the id of the record that another one comes after without continuing it.
const BEGINS_ANEW: &str = "begins anew after ";

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

/// A record that was written.
pub(super) struct Written {
    /// Its commit.
    pub meta: CommitId,
    /// Bytes of what is new in it.
    pub bytes: u64,
}

/// Writes a record, and who made it what it is. Nothing points to it yet.
///
/// It continues the one before, if that is whole with all before it. Else it begins anew: nothing that copies or packs what the
/// refs reach then meets the damage.
pub(super) fn write(
    repository: &Repository,
    (change, act): (&ChangeRecord, Option<&ChangeAct>),
    before: Option<&SavedChange>,
) -> Result<Written, ForgeError> {
    let mut message = format!("change {}: revision {}", change.number, change.newest().number);
    let whole = match before {
        Some(before) => whole_record(repository, before)?,
        None => None,
    };
    let kept = match whole {
        Some(whole) => kept_comments(repository, change, whole)?,
        None => Vec::new(),
    };
    if let (Some(lost), None) = (before, whole) {
        message += &format!("\n{BEGINS_ANEW}{}", lost.meta);
    }
    if let Some(act) = act {
        message += ACT_BEGINS;
        message += &serde_json::to_string(act).expect("invariant: an act is plain data");
    }
    message.push('\n');
    write_after(repository, (change, &kept), (whole.map(|whole| whole.meta), &message))
}

/// Writes a record of which some comments are in the repository already.
fn write_after(
    repository: &Repository,
    (change, kept): (&ChangeRecord, &[ObjectId]),
    (previous, message): (Option<CommitId>, &str),
) -> Result<Written, ForgeError> {
    let without_comments = ChangeRecord { comments: Vec::new(), ..change.clone() };
    let content = json(change, &without_comments)?;
    let new = change.comments[kept.len()..].iter().map(|comment| json(change, comment));
    let new: Vec<Vec<u8>> = new.collect::<Result<_, _>>()?;
    let parts = kept.iter().copied().map(Part::Kept).chain(new.iter().map(|content| Part::New(content)));
    let parts: Vec<Part<'_>> = parts.collect();
    let record = Record {
        previous,
        file: Some((FILE, &content[..])),
        folder: (!parts.is_empty()).then_some((COMMENTS, &parts[..])),
        message,
        time: change.updated_at,
    };
    let bytes = new.iter().map(Vec::len).sum::<usize>() + content.len() + message.len();
    Ok(Written { meta: repository.write_record(&record)?, bytes: bytes as u64 })
}

/// The same record, if it is whole. Of what its tree has, everything is in its row: what is damaged of that is written again.
fn whole_record<'a>(
    repository: &Repository,
    record: &'a SavedChange,
) -> Result<Option<&'a SavedChange>, ForgeError> {
    if repository.is_record_whole(record.meta)? {
        return Ok(Some(record));
    }
    write_after(repository, (&record.change, &[]), (None, "what a damaged record had\n"))?;
    if repository.is_record_whole(record.meta)? {
        return Ok(Some(record));
    }
    repository.drop_damaged(record.meta.into())?;
    Ok(None)
}

fn json(change: &ChangeRecord, part: &impl Serialize) -> Result<Vec<u8>, ForgeError> {
    serde_json::to_vec_pretty(part).map_err(|error| broken(change.number, error))
}

/// The files of the first comments that are in the record before as they are now.
fn kept_comments(
    repository: &Repository,
    change: &ChangeRecord,
    before: &SavedChange,
) -> Result<Vec<ObjectId>, ForgeError> {
    let both = change.comments.iter().zip(&before.change.comments);
    let same = both.take_while(|(now, then)| now == then).count();
    let mut kept = repository.record_parts(before.meta, COMMENTS)?;
    kept.truncate(same);
    Ok(kept)
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
    let mut change: ChangeRecord = serde_json::from_slice(&content).map_err(|error| broken(number, error))?;
    for part in repository.record_parts(meta, COMMENTS).map_err(unread)? {
        let comment = repository.record_part(part, RECORD_BYTES_MAX).map_err(unread)?;
        change.comments.push(serde_json::from_slice(&comment).map_err(|error| broken(number, error))?);
    }
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
        let previous = previous(&record);
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

/// Whether the records of a change up to `newest` come after one that is gone: one of them names it as the one before, or
/// began anew when it had been made already.
pub(super) fn come_after(
    repository: &Repository,
    newest: CommitId,
    gone: &SavedChange,
) -> Result<bool, ForgeError> {
    let mut at = newest;
    for _ in 0..RECORDS_MAX {
        let record = match repository.commit(at).map_err(|error| unread(gone.change.number, error)) {
            Ok(record) => record,
            Err(error) if error.class() == ErrorClass::Transient => return Err(error),
            Err(_) => return Ok(false),
        };
        let Some(previous) = previous(&record) else { return Ok(false) };
        let begins_anew = record.parents.is_empty();
        if previous == gone.meta || (begins_anew && gone.change.updated_at < record.committer.time) {
            return Ok(true);
        }
        at = previous;
    }
    Ok(false)
}

/// The record before one: that which it continues, or after which it begins anew.
fn previous(record: &CommitInfo) -> Option<CommitId> {
    record.parents.first().copied().or_else(|| damaged_before(record))
}

/// The record after which one begins anew.
fn damaged_before(record: &CommitInfo) -> Option<CommitId> {
    let (head, _) = record.message.split_once(ACT_BEGINS).unwrap_or((&record.message, ""));
    head.lines().find_map(|line| line.strip_prefix(BEGINS_ANEW)?.parse().ok())
}

fn act(number: ChangeNumber, record: &CommitInfo) -> Result<Option<ChangeAct>, ForgeError> {
    let Some((_, act)) = record.message.split_once(ACT_BEGINS) else { return Ok(None) };
    serde_json::from_str(act).map(Some).map_err(|error| broken(number, error))
}

/// A record that the disk has spoilt, or of which it lost something, is wrong with its change; whatever else keeps it from being
/// read is so with the repository.
fn unread(number: ChangeNumber, error: GitError) -> ForgeError {
    use GitError::{Damaged, Malformed, Missing, TooLarge, WrongKind};
    match error {
        Damaged { .. } | Missing { .. } | Malformed { .. } | WrongKind { .. } | TooLarge { .. } => {
            broken(number, error)
        }
        error => error.into(),
    }
}

fn broken(number: ChangeNumber, why: impl std::fmt::Display) -> ForgeError {
    let what = format!("the record of change {number}");
    let why = format!("{why}; its former versions are the parents of `refs/changes/{number}/meta`");
    ForgeError::Invalid { what, why }
}
