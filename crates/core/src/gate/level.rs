//! How far a gate trusts what it runs (trust T1).

use super::{Change, GateState, Review, RunRecord, Vouch};
use crate::graph::Trigger;
use crate::ids::{Digest, Timestamp, UserId};
use crate::policy::{Level, Role};

impl GateState {
    /// How far a change's newest revision is trusted now, as it would land (trust T1).
    pub fn level(&self, change: &Change, now: Timestamp) -> Level {
        self.level_with(self.edited_definition(change), change, now)
    }

    /// The same for the candidate of one of its runs, which may be on an earlier tip: nothing runs on above it.
    pub fn level_in(&self, run: &RunRecord, change: &Change, now: Timestamp) -> Level {
        let edited = match self.candidate_of(run) {
            Some(candidate) => candidate.edited_definition(),
            None => self.edited_definition(change),
        };
        self.level_with(edited, change, now)
    }

    /// Somebody who uploaded something of a change's newest revision and is no authorised author.
    pub(super) fn unauthorised(&self, change: &Change) -> Option<UserId> {
        let trusted = |user: UserId| self.rights(user).is_some_and(|rights| rights.authorised);
        change.facts.revision.uploaders().find(|user| !trusted(*user))
    }

    /// The same where this is the definition that the change makes, if it edits it. An approval whose giver was not shown just
    /// that one is worth a vouch: the change's own jobs get nothing by it that the target does not give them (trust T2).
    fn level_with(&self, edited: Option<Digest>, change: &Change, now: Timestamp) -> Level {
        if self.unauthorised(change).is_none() {
            return Level::Authorised;
        }
        let is_shown = |review: &Review| edited.is_none() || review.definition == edited;
        match self.valid_approvals(change).map(is_shown).max() {
            Some(true) => return Level::Authorised,
            Some(false) => return Level::Vouched,
            None => {}
        }
        let is_for = |vouch: &Vouch| edited.is_none() || [None, edited].contains(&vouch.definition);
        match &change.vouch {
            Some(vouch) if is_for(vouch) && self.vouch_holds(change, vouch, now) => Level::Vouched,
            _ => Level::Untrusted,
        }
    }

    /// Whether a vouch for a change counts now: it has not ended, and its giver still has the right.
    pub fn vouch_holds(&self, change: &Change, vouch: &Vouch, now: Timestamp) -> bool {
        let giver = self.rights(vouch.by).is_some_and(|rights| rights.role >= Role::Maintainer);
        giver && vouch.revision == change.facts.revision.commit && now < vouch.expires
    }

    /// The level of a run: a change's own, or landed.
    pub(super) fn run_level(&self, trigger: Trigger, change: Option<&Change>, now: Timestamp) -> Level {
        match (trigger, change) {
            (Trigger::Change | Trigger::Queue, Some(change)) => self.level(change, now),
            (Trigger::Land | Trigger::Manual, None) => Level::Landed,
            _ => Level::Untrusted,
        }
    }
}
