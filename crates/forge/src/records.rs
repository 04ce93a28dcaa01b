//! What the built-in forge asks its server to keep: people, and rows made from what refs say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use towpath_core::effect::{Check, EffectKey};
use towpath_core::gate::{Came, Labels, Review, message_digest};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Digest, Timestamp, UserId};
use towpath_core::policy::{Actor, Rights, Role};

use crate::builtin::ACTS_PER_HOUR;
use crate::forge::Judged;

mod memory;

pub use memory::Memory;

/// The server could not read or write its rows. The text says why; trying again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordsError(pub String);

type Kept<T> = Result<T, RecordsError>;

/// Rows of one repo. Changes are copies of what refs say, saved after the refs moved; people and policy are the server's own.
///
/// Calls come from many threads.
pub trait Records: Send + Sync {
    /// A person with a right on this repo; `None` for everybody else, and for disabled accounts.
    fn member(&self, user: UserId) -> Kept<Option<Member>>;

    /// Everybody's rights on one branch.
    fn people(&self, branch: &BranchName) -> Kept<BTreeMap<UserId, Rights>>;

    /// The repo's settings, as far as the forge needs them.
    fn policy(&self) -> Kept<Policy>;

    /// One change.
    fn change(&self, number: ChangeNumber) -> Kept<Option<SavedChange>>;

    /// All changes that a search finds, in any order.
    fn find(&self, find: &Find) -> Kept<Vec<SavedChange>>;

    /// From which record in the repository each row was made.
    fn saved(&self) -> Kept<BTreeMap<ChangeNumber, CommitId>>;

    /// Whether a row would be kept now, as far as that is known without writing one: asked before refs move, so that what is
    /// refused for lack of room is not there later.
    fn check_room(&self) -> Kept<()>;

    /// Brings a row from one record to a newer one, and puts what people did on the way into the audit log: all of it, in
    /// one unit, or nothing (I8). `false`, and nothing happens, if the row is not at `from`: somebody else has brought it
    /// on, acts included, though perhaps not as far. So it may be repeated, and called by many at once.
    fn save(&self, step: &RowStep) -> Kept<bool>;

    /// Keeps the newest verdict of a branch's gate on a revision, apart from those of other branches.
    fn set_check(&self, change: ChangeNumber, judged: Judged<'_>, check: &Check) -> Kept<()>;

    /// Brings a text before the people who look after a branch. The same text twice in a row is told once.
    fn alert(&self, branch: &BranchName, cause: &EffectKey, text: &str) -> Kept<()>;
}

/// A person with a right on the repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name that others know.
    pub name: String,
    /// The role on the repo.
    pub role: Role,
}

/// Settings of a repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Watched branches, and how their gates call the labels that they listen to: nothing is pushed to these branches
    /// directly, and changes may have them as their target.
    pub watched: BTreeMap<BranchName, Labels>,
    /// The target of a change whose push names none.
    pub default_target: BranchName,
    /// How often one author may push or do something to a change in an hour.
    pub acts_per_hour: u32,
}

impl Policy {
    /// A repo with one watched branch and the labels of the gate's settings.
    pub fn one_branch(branch: BranchName, labels: &Labels) -> Policy {
        Policy {
            watched: BTreeMap::from([(branch.clone(), labels.clone())]),
            default_target: branch,
            acts_per_hour: ACTS_PER_HOUR,
        }
    }

    /// Whether only a maintainer may put a label on or take it off (G08). All others are also the owner's. What steers any
    /// branch's gate counts, whatever a change's target is: that may be another one later.
    pub fn is_for_maintainers(&self, label: &str) -> bool {
        self.watched.values().any(|labels| labels.maintainers().contains(&label))
    }
}

/// Which changes to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// Open ones with this target.
    Open(BranchName),
    /// Those of a person that are open, whatever the target.
    OpenOf(UserId),
    /// Those with this Change-Id and target, whoever has them, in any state.
    ChangeId(String, BranchName),
    /// Those that a person pushed from a branch of this name, in any state.
    Source(UserId, BranchName),
}

/// A change and the record that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedChange {
    /// The change.
    pub change: ChangeRecord,
    /// What `refs/changes/<n>/meta` named.
    pub meta: CommitId,
}

/// What a person did to a change. The record that came of it says so, and from there it becomes a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeAct {
    /// Who, as authenticated.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// What, in words that stand alone.
    pub what: String,
}

/// What a row lacks to be as new as its ref.
#[derive(Debug, Clone, PartialEq)]
pub struct RowStep {
    /// The record that the row was made from; `None`: there is no row.
    pub from: Option<CommitId>,
    /// The record that it is to be made from.
    pub to: SavedChange,
    /// What people did from the one to the other, oldest first.
    pub acts: Vec<ChangeAct>,
    /// What damaged records between the two no longer say, in words: in the place of the
    /// leaves of what people did there comes one that says that they are lost.
    pub untold: Vec<String>,
}

/// A change, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Its number.
    pub number: ChangeNumber,
    /// The branch that it wants to be on.
    pub target: BranchName,
    /// Who opened it.
    pub owner: UserId,
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// Whether a person wrote title or body; otherwise they follow the commits.
    #[serde(default)]
    pub edited: bool,
    /// Nothing runs.
    pub draft: bool,
    /// Open, closed or landed.
    pub state: ChangeState,
    /// Its newest move to another target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<Came>,
    /// Written down before its branch moves, and gone once it is closed as landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<LandingRecord>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// The branch name under which it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BranchName>,
    /// The Change-Id of its commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_id: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When anything about it last changed.
    pub updated_at: Timestamp,
    /// Its revisions, oldest first; never empty.
    pub revisions: Vec<RevisionRecord>,
    /// Reviews that were not withdrawn, oldest first.
    pub reviews: Vec<ReviewRecord>,
    /// What people said, oldest first.
    pub comments: Vec<CommentRecord>,
}

/// What has become of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChangeState {
    /// It may still land.
    Open,
    /// A person gave it up.
    Closed {
        /// Who.
        by: UserId,
    },
    /// It is on its target.
    Landed {
        /// By which commit.
        commit: CommitId,
    },
}

/// A landing that was begun. Whether it happened is for the branch to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandingRecord {
    /// The branch.
    pub branch: BranchName,
    /// The commit that the branch contains if it happened.
    pub commit: CommitId,
}

/// One head commit of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Counts from 1; `refs/changes/<n>/<number>` names the commit.
    pub number: u32,
    /// The head commit.
    pub commit: CommitId,
    /// Its committer time.
    pub time: Timestamp,
    /// Who uploaded it, as authenticated when it was pushed.
    pub uploader: UserId,
    /// When.
    pub at: Timestamp,
}

/// A review and what its giver said with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReviewRecord {
    /// The verdict with all that it is bound to.
    pub review: Review,
    /// The words; may be empty.
    #[serde(default)]
    pub text: String,
}

/// What a person said about a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentRecord {
    /// Counts from 1.
    pub number: u32,
    /// Who.
    pub by: UserId,
    /// The words.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

impl ChangeRecord {
    /// The newest revision.
    pub fn newest(&self) -> &RevisionRecord {
        self.revisions.last().expect("invariant: a change has a revision from the moment it exists")
    }

    /// What approvals are bound to beside the revision.
    pub fn message(&self) -> Digest {
        message_digest(&self.title, &self.body)
    }

    /// Whether it may still land.
    pub fn is_open(&self) -> bool {
        self.state == ChangeState::Open
    }
}
