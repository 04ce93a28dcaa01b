//! What people do with a change beside pushing and reviewing it.

use std::collections::BTreeSet;

use towpath_core::cell::RefusalClass;
use towpath_core::gate::Came;
use towpath_core::ids::{BranchName, ChangeNumber, Timestamp, UserId};
use towpath_core::policy::Role;

use super::propose::LABELS_MAX;
use super::review::must_be_open;
use super::text::{ChangeText, checked_body, checked_label, checked_title, checked_words};
use super::{BuiltIn, role_name};
use crate::error::{Done, Failure};
use crate::records::{ChangeRecord, ChangeState, CommentRecord, Member};

/// Comments of one change. A longer talk belongs elsewhere; the whole row is rewritten with each.
const COMMENTS_MAX: usize = 500;
/// Bytes of all of them: 2 KiB for each, which is a page.
const COMMENTS_BYTES_MAX: usize = 1024 * 1024;

/// Labels to put on and to take off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelEdit {
    /// Put on.
    pub add: Vec<String>,
    /// Taken off.
    pub remove: Vec<String>,
}

/// Another target for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retarget {
    /// The branch.
    pub target: BranchName,
    /// Its newest move, as it was looked at.
    pub came: Option<Came>,
}

impl BuiltIn {
    /// Says something about a change.
    pub fn comment(
        &self,
        by: UserId,
        number: ChangeNumber,
        text: &str,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        self.require(by, Role::Author, "commenting")?;
        let text = checked_words(text)?;
        if text.trim().is_empty() {
            return Err(Failure::refused(RefusalClass::Invalid, "a comment needs a word at least"));
        }
        self.edit(number, by, now, |change| {
            if change.comments.len() >= COMMENTS_MAX {
                let why = format!("change {number} has {COMMENTS_MAX} comments, the most");
                return Err(Failure::refused(RefusalClass::Invalid, why));
            }
            let bytes = change.comments.iter().map(|comment| comment.text.len()).sum::<usize>();
            if bytes + text.len() > COMMENTS_BYTES_MAX {
                let why = format!(
                    "the comments of change {number} have {bytes} bytes, of {COMMENTS_BYTES_MAX} at most: say it in fewer words, \
                     or put it into a file and name that"
                );
                return Err(Failure::refused(RefusalClass::Invalid, why));
            }
            let next = change.comments.last().map_or(1, |last| last.number + 1);
            change.comments.push(CommentRecord { number: next, by, text, at: now });
            Ok("commented".into())
        })
    }

    /// Puts labels on and takes labels off. Each takes its own right (G08); all happen or none.
    pub fn label(
        &self,
        by: UserId,
        number: ChangeNumber,
        edit: &LabelEdit,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        let member = self.member(by)?;
        let add = edit.add.iter().map(|label| checked_label(label)).collect::<Done<Vec<_>>>()?;
        let remove = edit.remove.iter().map(|label| checked_label(label)).collect::<Done<Vec<_>>>()?;
        self.edit(number, by, now, |change| {
            for label in add.iter().chain(&remove) {
                self.may_label((by, &member), change, label)?;
            }
            if let Some(label) = remove.iter().find(|label| !change.labels.contains(*label)) {
                let why = format!("change {number} has no label `{label}`; {}", its_labels(change));
                return Err(Failure::refused(RefusalClass::NotFound, why));
            }
            // What really changes, and each once: the words are kept, and only so many fit.
            let [on, off]: [BTreeSet<&String>; 2] = [
                add.iter().filter(|label| !change.labels.contains(*label)).collect(),
                remove.iter().collect(),
            ];
            let what = format!("set labels: on {:?}, off {:?}", Vec::from_iter(on), Vec::from_iter(off));
            change.labels.extend(add.iter().cloned());
            remove.iter().for_each(|label| {
                change.labels.remove(label);
            });
            match change.labels.len() > LABELS_MAX {
                true => Err(Failure::refused(
                    RefusalClass::Invalid,
                    format!("a change has at most {LABELS_MAX} labels"),
                )),
                false => Ok(what),
            }
        })
    }

    /// A label is the owner's and the maintainers' to set; some are the maintainers' alone.
    pub(super) fn may_label(
        &self,
        (by, member): (UserId, &Member),
        change: &ChangeRecord,
        label: &str,
    ) -> Done<()> {
        if member.role >= Role::Maintainer {
            return Ok(());
        }
        let own = change.owner == by && member.role >= Role::Author;
        let reserved = self.records().policy()?.is_for_maintainers(label);
        let why = match (own, reserved) {
            (true, false) => return Ok(()),
            (_, true) => format!("the label `{label}` takes the role {}", role_name(Role::Maintainer)),
            (false, false) => {
                format!("labels of change {} are for its owner and for maintainers to set", change.number)
            }
        };
        Err(Failure::refused(RefusalClass::Denied, why))
    }

    /// Gives a change up.
    pub fn close(&self, by: UserId, number: ChangeNumber, now: Timestamp) -> Done<ChangeRecord> {
        self.edit_own((by, "closing it"), number, now, |change| {
            must_be_open(change)?;
            change.state = ChangeState::Closed { by };
            Ok("closed".into())
        })
    }

    /// Takes a closed change up again, as it was.
    pub fn reopen(&self, by: UserId, number: ChangeNumber, now: Timestamp) -> Done<ChangeRecord> {
        self.edit_own((by, "reopening it"), number, now, |change| match change.state {
            ChangeState::Closed { .. } => {
                self.only_of_its_id(change, &change.target)?;
                change.state = ChangeState::Open;
                Ok("reopened".into())
            }
            ChangeState::Open => {
                Err(Failure::refused(RefusalClass::Conflict, format!("change {number} is open already")))
            }
            ChangeState::Landed { commit } => Err(Failure::refused(
                RefusalClass::Conflict,
                format!("change {number} landed as {}; what comes next is a new change", commit.short()),
            )),
        })
    }

    /// Makes a change a draft (nothing runs), or ready.
    pub fn set_draft(
        &self,
        by: UserId,
        number: ChangeNumber,
        draft: Draft,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        self.edit_own((by, "this"), number, now, |change| {
            must_be_open(change)?;
            change.draft = draft == Draft::Yes;
            Ok(match draft {
                Draft::Yes => "made a draft".into(),
                Draft::No => "made ready".into(),
            })
        })
    }

    /// Moves a change to another watched branch. Approvals are bound to the old one and count no more (G03); its labels are
    /// called there as that branch calls them, so that what steered it goes on steering it (G08).
    pub fn retarget(
        &self,
        by: UserId,
        number: ChangeNumber,
        Retarget { target, came }: &Retarget,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        self.watched(target)?;
        self.edit_own((by, "retargeting it"), number, now, |change| {
            must_be_open(change)?;
            if change.came != *came {
                let why =
                    format!("change {number} went to `{}` meanwhile; look at it again first", change.target);
                return Err(Failure::refused(RefusalClass::Conflict, why));
            }
            if change.target == *target {
                let why = format!("change {number} is for `{target}` already");
                return Err(Failure::refused(RefusalClass::Conflict, why));
            }
            let tip = self.repository().commit(change.newest().commit)?;
            self.stack(self.repository(), target, &tip)?;
            self.only_of_its_id(change, target)?;
            let labels = self.labels_on(change, target)?;
            let called = match labels == change.labels {
                true => String::new(),
                false => format!(", where its labels are called {:?}", Vec::from_iter(&labels)),
            };
            let before = came.as_ref().map_or(now, |before| Timestamp(before.at.0 + 1));
            let from = std::mem::replace(&mut change.target, target.clone());
            change.came = Some(Came { from, at: now.max(before) });
            change.labels = labels;
            Ok(format!("retargeted to {target}{called}"))
        })
    }

    /// What the labels of a change are called on a branch.
    fn labels_on(&self, change: &ChangeRecord, target: &BranchName) -> Done<BTreeSet<String>> {
        let watched = self.records().policy()?.watched;
        Ok(match (watched.get(&change.target), watched.get(target)) {
            (Some(from), Some(to)) => from.translate(&change.labels, to),
            _ => change.labels.clone(),
        })
    }

    /// Writes title and body. They are what lands, so approvals of the old words count no more.
    pub fn edit_text(
        &self,
        by: UserId,
        number: ChangeNumber,
        text: &ChangeText,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        let (title, body) = (checked_title(&text.title)?, checked_body(&text.body)?);
        self.edit_own((by, "editing it"), number, now, |change| {
            must_be_open(change)?;
            (change.title, change.body, change.edited) = (title, body, true);
            Ok("edited title or body".into())
        })
    }

    /// An edit that is the owner's and the maintainers' to make.
    fn edit_own(
        &self,
        (by, what): (UserId, &str),
        number: ChangeNumber,
        now: Timestamp,
        edit: impl FnOnce(&mut ChangeRecord) -> Done<String>,
    ) -> Done<ChangeRecord> {
        let member = self.member(by)?;
        self.edit(number, by, now, |change| {
            let own = change.owner == by && member.role >= Role::Author;
            if !own && member.role < Role::Maintainer {
                let owner = self.name_of(change.owner);
                let why = format!("change {number} is {owner}'s: {what} takes {owner} or a maintainer");
                return Err(Failure::refused(RefusalClass::Denied, why));
            }
            edit(change)
        })
    }
}

fn its_labels(change: &ChangeRecord) -> String {
    match change.labels.is_empty() {
        true => "it has none".into(),
        false => {
            let labels = change.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
            format!("its labels are {}", labels.join(", "))
        }
    }
}

/// Whether a change is a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draft {
    /// Nothing runs.
    Yes,
    /// It is ready.
    No,
}
