//! Reviews. Each is bound to what its giver saw, and refused if that is not what is there (trust T8, G01).

use towpath_core::cell::RefusalClass;
use towpath_core::gate::{NOBODY, Review, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Digest, Timestamp, UserId};
use towpath_core::policy::Role;

use super::BuiltIn;
use super::stack::STACK_COMMITS_MAX;
use super::text::checked_words;
use crate::error::{Done, Failure};
use crate::records::{ChangeRecord, ReviewRecord};

/// Reviews kept of one change.
const REVIEWS_MAX: usize = 200;

/// A verdict with what the person saw when giving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewRequest {
    /// The verdict.
    pub verdict: Verdict,
    /// The whole id of the revision.
    pub revision: CommitId,
    /// The target.
    pub target: BranchName,
    /// The definition that would land, where the change edits it.
    pub definition: Option<Digest>,
    /// Title and body, as [`towpath_core::gate::message_digest`].
    pub message: Digest,
    /// Words; may be empty.
    pub text: String,
}

impl BuiltIn {
    /// Approves, or asks for changes. A person's newer review takes the place of the older one.
    pub fn review(
        &self,
        by: UserId,
        number: ChangeNumber,
        request: &ReviewRequest,
        now: Timestamp,
    ) -> Done<ChangeRecord> {
        self.require(by, Role::Maintainer, "reviewing")?;
        let text = checked_words(&request.text)?;
        if request.verdict == Verdict::Approve {
            self.may_approve(by, &self.change(number)?)?;
        }
        self.edit(number, by, now, |change| {
            must_be_open(change)?;
            must_be_seen(change, request)?;
            change.reviews.retain(|other| other.review.by != by);
            if change.reviews.len() >= REVIEWS_MAX {
                change.reviews.remove(0);
            }
            let ReviewRequest { verdict, revision, target, definition, message, text: _ } = request.clone();
            let review = Review { by, verdict, revision, target, definition, message, at: now };
            change.reviews.push(ReviewRecord { review, text });
            Ok(match verdict {
                Verdict::Approve => format!("approved revision {revision}"),
                Verdict::RequestChanges => format!("asked for changes of revision {revision}"),
            })
        })
    }

    /// Whether a maintainer may approve a change: nobody approves what they uploaded, not even a part of it. The gate counts
    /// by the same rule, whenever it looks.
    ///
    /// # Errors
    /// The refusal; a failure of the repository.
    pub fn may_approve(&self, by: UserId, change: &ChangeRecord) -> Done<()> {
        let (newest, target) = (change.newest(), &change.target);
        let denied = |why: String| Err(Failure::refused(RefusalClass::Denied, why));
        if newest.uploader == by {
            return denied("you uploaded this revision, so somebody else has to approve it".into());
        }
        let Some(tip) = self.repository().branch_tip(target)? else { return Ok(()) };
        let uploaders = self.revision_uploaders(target, tip, newest)?;
        if uploaders.contains(&NOBODY) {
            return denied(format!(
                "more than {STACK_COMMITS_MAX} commits of this change are not on `{target}`, too many to find out who uploaded \
                 them, and nobody approves their own"
            ));
        }
        if uploaders.contains(&by) {
            return denied(format!(
                "you uploaded commits of this change that are not on `{target}` yet, so somebody else has to approve it"
            ));
        }
        Ok(())
    }

    /// Takes one's own review back.
    pub fn withdraw_review(&self, by: UserId, number: ChangeNumber, now: Timestamp) -> Done<ChangeRecord> {
        self.edit(number, by, now, |change| {
            let before = change.reviews.len();
            change.reviews.retain(|other| other.review.by != by);
            match change.reviews.len() < before {
                true => Ok("withdrew a review".into()),
                false => Err(Failure::refused(
                    RefusalClass::NotFound,
                    format!("you have no review on change {number} to withdraw"),
                )),
            }
        })
    }
}

pub(super) fn must_be_open(change: &ChangeRecord) -> Done<()> {
    match change.is_open() {
        true => Ok(()),
        false => {
            Err(Failure::refused(RefusalClass::Conflict, format!("change {} is not open", change.number)))
        }
    }
}

fn must_be_seen(change: &ChangeRecord, request: &ReviewRequest) -> Done<()> {
    let number = change.number;
    let newest = change.newest().commit;
    let why = if newest != request.revision {
        format!(
            "change {number} is at revision {newest} now, not at {}; look at it again first",
            request.revision
        )
    } else if change.target != request.target {
        format!(
            "change {number} is for `{}` now, not for `{}`; look at it again first",
            change.target, request.target
        )
    } else if change.message() != request.message {
        format!("title or body of change {number} were edited meanwhile; look at it again first")
    } else {
        return Ok(());
    };
    Err(Failure::refused(RefusalClass::Conflict, why))
}
