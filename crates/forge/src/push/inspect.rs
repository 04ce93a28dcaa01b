//! Looks at what a push brought while it is still in quarantine.

use std::time::Duration;

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{CommitId, Timestamp};
use towpath_git::{DatedCommit, ErrorClass, GitError, ObjectId, Repository, TREE_LIMITS};

use super::options::PushOptions;
use super::rules::Move;
use super::turns::Turns;
use crate::builtin::Proposal;
use crate::clock;
use crate::error::{Done, Failure, ForgeError};

/// Commits that one push may bring. The journal names each; longer histories come by `repo import`.
const NEW_COMMITS_MAX: usize = 20_000;

/// Trees that are measured at once, over all repositories: each is read object by object, of which the largest takes some 100 MB
/// here and as much in git.
const MEASURED_AT_ONCE: usize = 2;
/// Time that a push waits for its turn. The largest tree that is taken is measured in a few seconds.
const TURN_DEADLINE: Duration = Duration::from_secs(60);
static MEASURING: Turns = Turns::new(MEASURED_AT_ONCE);

impl Move {
    /// The object that a ref shall name afterwards.
    pub(super) fn new_object(&self) -> Option<ObjectId> {
        match self {
            Move::Propose { commit, .. } => Some((*commit).into()),
            Move::Branch { new, .. } | Move::Tag { new, .. } => *new,
        }
    }

    /// What is proposed, in the words of the push's options.
    pub(super) fn proposal(&self, options: &PushOptions) -> Option<(CommitId, Proposal)> {
        let Move::Propose { commit, target, source, .. } = self else { return None };
        let proposal = Proposal {
            target: target.clone().or_else(|| options.target.clone()),
            source: source.clone(),
            change: options.number,
            title: options.title.clone(),
            body: options.body.clone(),
            draft: options.draft,
            labels: options.labels.clone(),
        };
        Some((*commit, proposal))
    }
}

/// The commit at a move's end, if its tree can be checked out (B09). A branch names a commit; a tag may name one through
/// a tag object.
pub(super) fn commit_of(view: &Repository, wanted: &Move) -> Done<Option<CommitId>> {
    let Some(object) = wanted.new_object() else { return Ok(None) };
    let peeled = view.peel(object).map_err(|error| match error.class() {
        ErrorClass::Gone => refuse("the object was not sent and is not here".into()),
        ErrorClass::Invalid => refuse("a branch, tag or change names a commit".into()),
        _ => error.into(),
    })?;
    if !matches!(wanted, Move::Tag { .. }) && ObjectId::from(peeled) != object {
        return Err(refuse("a branch or change names a commit, not a tag object".into()));
    }
    check_size(view, peeled)?;
    Ok(Some(peeled))
}

fn check_size(view: &Repository, commit: CommitId) -> Done<()> {
    let tree = view.commit(commit)?.tree;
    let Some(_turn) = MEASURING.take(TURN_DEADLINE) else {
        let why = format!("the trees of {MEASURED_AT_ONCE} others are being measured, and took too long");
        return Err(ForgeError::new(ErrorClass::Transient, "its tree", why).into());
    };
    let measured = view.measure_tree(tree, TREE_LIMITS).map_err(|error| match error {
        GitError::TooLarge { what, limit } => refuse(format!(
            "a checkout of {} is too large: {what} is over {limit}; leave out what is too much, make the commit anew \
             (`git commit --amend`) and push again",
            commit.short()
        )),
        error => error.into(),
    });
    measured.map(drop)
}

/// The commits that a push brings. None of them is from the future.
pub(super) fn new_commits(view: &Repository, tips: &[CommitId], now: Timestamp) -> Done<Vec<CommitId>> {
    let commits = view.new_commits(tips, NEW_COMMITS_MAX).map_err(|error| match error.class() {
        ErrorClass::Invalid => refuse(format!(
            "a push brings at most {NEW_COMMITS_MAX} new commits; a whole history comes by `towpath repo import`"
        )),
        _ => error.into(),
    })?;
    match commits.iter().find_map(|commit| Some((commit, clock::ahead(latest_of(commit), now)?))) {
        None => Ok(commits.into_iter().map(|commit| commit.id).collect()),
        Some((commit, ahead)) => Err(refuse(format!(
            "the clock of commit {} is {ahead} ahead of this server's; set your clock, then `git commit --amend --no-edit \
             --reset-author` makes it anew (`git rebase --reset-author-date <branch>`, if it is not the newest), and push again",
            commit.id.short()
        ))),
    }
}

fn latest_of(commit: &DatedCommit) -> Timestamp {
    commit.authored.max(commit.committed)
}

fn refuse(why: String) -> Failure {
    Failure::refused(RefusalClass::Invalid, why)
}
