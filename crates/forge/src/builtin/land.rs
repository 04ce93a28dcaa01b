//! Landing, as the built-in forge does it: the change's record says what is about to happen before the branch moves, so
//! that a change whose branch has moved is landed whatever came between, and goes to no other branch. The journal says before
//! whose content the commits hold that the server made of it: on the next branch that they are put to, nobody approves their
//! own either.
//!
//! A change lands under the writer's lock: nobody closes, retargets or revises it meanwhile. Whose something is that is lost or
//! damaged is found out without it, as that takes minutes on a large repository.

use std::collections::BTreeSet;

use towpath_core::effect::Landing;
use towpath_core::gate::{LandTried, NOBODY};
use towpath_core::ids::{ChangeNumber, CommitId};
use towpath_git::{Advance, GitError, ObjectId, Range};

use super::journal::MadeCommits;
use super::loss::Owner;
use super::{BuiltIn, Writing, lock, meta};
use crate::error::{Failure, ForgeError};
use crate::records::{ChangeRecord, ChangeState, LandingRecord, SavedChange};

/// Why a landing did not come to its end.
enum Stopped {
    /// It met this, which is lost or damaged. Whose it is is not known yet.
    Met(ObjectId),
    /// Something else is in the way.
    Failed(ForgeError),
}

impl From<ForgeError> for Stopped {
    fn from(error: ForgeError) -> Stopped {
        Stopped::Failed(error)
    }
}

/// What a landing names has been there.
impl From<GitError> for Stopped {
    fn from(error: GitError) -> Stopped {
        match error {
            GitError::Missing { id } | GitError::Damaged { id } => Stopped::Met(id),
            error => Stopped::Failed(error.into()),
        }
    }
}

impl BuiltIn {
    pub(super) fn land_change(&self, landing: &Landing) -> Result<LandTried, ForgeError> {
        match self.try_to_land(landing) {
            Ok(tried) => Ok(tried),
            Err(Stopped::Met(object)) => self.met_damage(landing, object),
            Err(Stopped::Failed(error)) => Err(error),
        }
    }

    fn try_to_land(&self, landing: &Landing) -> Result<LandTried, Stopped> {
        let mut writing = lock(&self.inner.write);
        let saved = match self.current(landing.change) {
            Ok(saved) => Some(saved),
            Err(Failure::Refused(_)) => None,
            Err(Failure::Failed(error)) => return Err(error.into()),
        };
        let Some(saved) = saved.filter(|saved| is_for(&saved.change, landing)) else {
            return match self.contains(&landing.branch, landing.to)? {
                true => Ok(LandTried::Landed),
                false => Ok(LandTried::Gone),
            };
        };
        let begun = LandingRecord { branch: landing.branch.clone(), commit: landing.to };
        let intent = ChangeRecord { landing: Some(begun), ..saved.change.clone() };
        // The disk may have spoilt what an earlier try wrote: the record is written again then, as the next one is anyhow.
        let is_written = intent == saved.change
            && self.repository().is_record_whole(saved.meta).map_err(ForgeError::from)?;
        let saved = match is_written {
            true => saved,
            false => {
                self.write_change(&writing, intent, Some(&saved), None).map_err(told)?;
                self.recorded(landing.change).map_err(told)?
            }
        };
        self.make_record_durable(&saved)?;
        self.record_uploaders(&mut writing, &saved.change, landing)?;
        let tried = self.advance(landing)?;
        if tried == LandTried::Landed {
            let state = ChangeState::Landed { commit: landing.to };
            let done = ChangeRecord { state, landing: None, ..saved.change.clone() };
            self.write_change(&writing, done, Some(&saved), None).map_err(told)?;
        }
        Ok(tried)
    }

    /// Makes it durable that a landing begins: only then may the branch move. Who wrote it may not have come to this.
    fn make_record_durable(&self, saved: &SavedChange) -> Result<(), ForgeError> {
        let continued = self.repository().commit(saved.meta)?.parents.first().copied();
        Ok(self.repository().make_durable(&meta::meta_ref(saved.change.number), continued)?)
    }

    /// Makes it durable who uploaded what is in the commits that the server made of a change, where these land in the place of
    /// its own. A merge brings the change's own along, and adds nothing of anybody's.
    fn record_uploaders(
        &self,
        writing: &mut Writing,
        change: &ChangeRecord,
        landing: &Landing,
    ) -> Result<(), Stopped> {
        let head = match self.repository().commit(landing.to) {
            Ok(head) => head,
            // It is for the branch to say that there is nothing to land.
            Err(GitError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if head.id == landing.revision || head.parents.contains(&landing.revision) {
            return Ok(());
        }
        let from = landing.from;
        let commits = self.stack_commits(Range { from, to: landing.to })?.unwrap_or_default();
        let mut uploaders = match self.stack_commits(Range { from, to: landing.revision })? {
            Some(own) => self.journal(writing)?.uploaders(&own),
            None => BTreeSet::from([NOBODY]),
        };
        uploaders.insert(change.newest().uploader);
        let made = MadeCommits { commits, uploaders };
        Ok(self.take_landing(writing, made, head.committer.time).map_err(told)?)
    }

    fn advance(&self, landing: &Landing) -> Result<LandTried, Stopped> {
        match self.repository().advance(&landing.branch, landing.from, landing.to) {
            Ok(Advance::Advanced | Advance::AlreadyContained { .. }) => Ok(LandTried::Landed),
            Ok(Advance::Moved { tip }) => Ok(LandTried::Moved { tip: Some(tip) }),
            Ok(Advance::Broken { tip }) => Ok(LandTried::Broken { tip }),
            Err(GitError::NotThere { what: "branch", .. }) => Ok(LandTried::Moved { tip: None }),
            Err(GitError::Missing { id }) if id == landing.to.into() => Ok(LandTried::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// What becomes of a landing that met something lost or damaged.
    ///
    /// # Errors
    /// `Transient` where it is the branch's, or the branch may have moved.
    fn met_damage(&self, landing: &Landing, object: ObjectId) -> Result<LandTried, ForgeError> {
        if self.repository().branch_tip(&landing.branch)? == Some(landing.from) {
            let sides = Range { from: landing.from, to: landing.revision };
            match self.whose(sides, object)? {
                Owner::Base => {}
                Owner::Revision => return Ok(LandTried::Gone),
                Owner::Candidate => return Ok(LandTried::Lost),
            }
        }
        Err(GitError::Damaged { id: object }.into())
    }

    pub(super) fn close_as_landed(&self, change: ChangeNumber, commit: CommitId) -> Result<(), ForgeError> {
        let time = self.repository().commit(commit)?.committer.time;
        let what = || format!("marking change {change} as landed");
        // The gate has the leaf of a landing.
        let marked = self.rewrite(change, time, |record| match record.state {
            ChangeState::Landed { commit: other } if other != commit => {
                let why = format!("it is marked as landed by {other} already");
                Err(ForgeError::Conflict { what: what(), why }.into())
            }
            ChangeState::Landed { .. } | ChangeState::Open | ChangeState::Closed { .. } => {
                record.state = ChangeState::Landed { commit };
                record.landing = None;
                Ok(None)
            }
        });
        match marked {
            Ok(_) => Ok(()),
            Err(Failure::Failed(error)) => Err(error),
            Err(Failure::Refused(refusal)) => Err(ForgeError::Gone { what: what(), why: refusal.why }),
        }
    }
}

/// Whether a change is open for the branch, with the revision that was tested, and was nowhere else since.
fn is_for(change: &ChangeRecord, landing: &Landing) -> bool {
    let came_at = change.came.as_ref().map(|came| came.at);
    change.is_open()
        && (&change.target, came_at) == (&landing.branch, landing.came_at)
        && change.newest().commit == landing.revision
}

/// Nothing is refused to ourselves: what comes as a refusal is damage.
fn told(failure: Failure) -> ForgeError {
    match failure {
        Failure::Failed(error) => error,
        Failure::Refused(refusal) => {
            ForgeError::Invalid { what: "recording a landing".into(), why: refusal.why }
        }
    }
}
