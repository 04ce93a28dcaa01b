//! How late a commit may say that it is.
//!
//! A candidate is as late as the later of the two commits that it joins, so a branch never goes back in time: after one
//! commit from the far future, all that lands would be of that time as well, for good.

use towpath_core::ids::{BranchName, Timestamp};
use towpath_git::Repository;

use crate::error::ForgeError;

/// Milliseconds by which a commit's clock may be ahead of the server's: local time that was taken for UTC, and some more.
const AHEAD_MS_MAX: i64 = 24 * MS_PER_HOUR;
const MS_PER_HOUR: i64 = 60 * 60 * 1000;

/// The latest time that is believed of a commit that came at `now`.
pub(crate) fn latest(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_add(AHEAD_MS_MAX))
}

/// How far a time lies ahead, in words, if it is not believed.
pub(crate) fn ahead(time: Timestamp, now: Timestamp) -> Option<String> {
    let hours = time.0.saturating_sub(now.0) / MS_PER_HOUR;
    (time > latest(now)).then(|| match hours / 24 {
        0 | 1 => format!("{hours} hours"),
        days => format!("{days} days"),
    })
}

/// What follows from the clock of a branch that was imported, if it is ahead. Its history is what it is.
///
/// # Errors
/// Those of reading the branch.
pub fn clock_trouble(
    repository: &Repository,
    branch: &BranchName,
    now: Timestamp,
) -> Result<Option<String>, ForgeError> {
    let Some(tip) = repository.branch_tip(branch)? else { return Ok(None) };
    Ok(ahead(repository.commit(tip)?.committer.time, now).map(|ahead| {
        format!(
            "the clock of {}, the newest commit of `{branch}`, is {ahead} ahead of this server's: no landed commit is earlier \
             than the one before it, so all that lands here bears that time, until it has come",
            tip.short()
        )
    }))
}
