//! Records in memory: for tests of adapters and servers, and for throw-away forges.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use towpath_core::effect::{Check, EffectKey};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, UserId};
use towpath_core::policy::Rights;

use crate::forge::Judged;

use super::{ChangeAct, Find, Kept, Member, Policy, Records, RecordsError, RowStep, SavedChange};

/// Complete records that end with the process.
#[derive(Debug)]
pub struct Memory {
    kept: Mutex<State>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    members: BTreeMap<UserId, (Member, bool)>,
    changes: BTreeMap<ChangeNumber, SavedChange>,
    checks: BTreeMap<(ChangeNumber, BranchName, CommitId), Check>,
    alerts: Vec<(BranchName, String)>,
    acts: Vec<ChangeAct>,
    untold: Vec<String>,
    room: Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Room {
    #[default]
    Enough,
    NoneUnseen,
    None,
}

const NO_ROOM: &str = "there is no room";

impl Memory {
    /// Empty records of a repo.
    pub fn new(policy: Policy) -> Memory {
        let (members, changes, checks, alerts, acts, untold, room) = Default::default();
        Memory { kept: Mutex::new(State { policy, members, changes, checks, alerts, acts, untold, room }) }
    }

    /// Gives a person a role, and says whether their uploads run without being asked for.
    pub fn admit(&self, user: UserId, member: Member, authorised: bool) {
        self.state().members.insert(user, (member, authorised));
    }

    /// Takes all rights of a person.
    pub fn expel(&self, user: UserId) {
        self.state().members.remove(&user);
    }

    /// Puts other settings in place.
    pub fn set_policy(&self, policy: Policy) {
        self.state().policy = policy;
    }

    /// Loses every change and check, as a lost database would.
    pub fn forget_changes(&self) {
        let mut state = self.state();
        state.changes.clear();
        state.checks.clear();
    }

    /// Takes no change any more, as a full disk would.
    pub fn fill(&self) {
        self.state().room = Room::None;
    }

    /// Takes no change any more, and nobody has noticed yet.
    pub fn fill_unseen(&self) {
        self.state().room = Room::NoneUnseen;
    }

    /// Takes changes again.
    pub fn make_room(&self) {
        self.state().room = Room::Enough;
    }

    /// What people did to changes, in the order in which it was saved.
    pub fn acts(&self) -> Vec<ChangeAct> {
        self.state().acts.clone()
    }

    /// What damaged records no longer said when a row was saved.
    pub fn untold(&self) -> Vec<String> {
        self.state().untold.clone()
    }

    /// The newest verdict of a branch's gate on a revision.
    pub fn check(&self, change: ChangeNumber, judged: Judged<'_>) -> Option<Check> {
        self.state().checks.get(&(change, judged.branch.clone(), judged.revision)).cloned()
    }

    /// Everything that was brought before people.
    pub fn alerts(&self) -> Vec<(BranchName, String)> {
        self.state().alerts.clone()
    }

    /// A panic of a test elsewhere leaves nothing half done in here: every write is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for Memory {
    fn member(&self, user: UserId) -> Kept<Option<Member>> {
        Ok(self.state().members.get(&user).map(|(member, _)| member.clone()))
    }

    fn people(&self, _branch: &BranchName) -> Kept<BTreeMap<UserId, Rights>> {
        let rights = |(user, (member, authorised)): (&UserId, &(Member, bool))| {
            (*user, Rights { role: member.role, authorised: *authorised })
        };
        Ok(self.state().members.iter().map(rights).collect())
    }

    fn policy(&self) -> Kept<Policy> {
        Ok(self.state().policy.clone())
    }

    fn change(&self, number: ChangeNumber) -> Kept<Option<SavedChange>> {
        Ok(self.state().changes.get(&number).cloned())
    }

    fn find(&self, find: &Find) -> Kept<Vec<SavedChange>> {
        let wanted = |saved: &&SavedChange| {
            let change = &saved.change;
            match find {
                Find::Open(target) => change.is_open() && change.target == *target,
                Find::OpenOf(owner) => change.is_open() && change.owner == *owner,
                Find::ChangeId(id, target) => {
                    change.change_id.as_ref() == Some(id) && change.target == *target
                }
                Find::Source(owner, source) => {
                    change.owner == *owner && change.source.as_ref() == Some(source)
                }
            }
        };
        // Newest first, as a database's list of changes is: nobody may rely on an order.
        Ok(self.state().changes.values().rev().filter(wanted).cloned().collect())
    }

    fn saved(&self) -> Kept<BTreeMap<ChangeNumber, CommitId>> {
        Ok(self.state().changes.iter().map(|(number, saved)| (*number, saved.meta)).collect())
    }

    fn check_room(&self) -> Kept<()> {
        match self.state().room {
            Room::Enough | Room::NoneUnseen => Ok(()),
            Room::None => Err(RecordsError(NO_ROOM.into())),
        }
    }

    fn save(&self, step: &RowStep) -> Kept<bool> {
        let mut state = self.state();
        if state.room != Room::Enough {
            return Err(RecordsError(NO_ROOM.into()));
        }
        let number = step.to.change.number;
        let is_next = state.changes.get(&number).map(|saved| saved.meta) == step.from;
        if is_next {
            state.changes.insert(number, step.to.clone());
            state.acts.extend(step.acts.iter().cloned());
            state.untold.extend(step.untold.iter().cloned());
        }
        Ok(is_next)
    }

    fn set_check(&self, change: ChangeNumber, judged: Judged<'_>, check: &Check) -> Kept<()> {
        self.state().checks.insert((change, judged.branch.clone(), judged.revision), check.clone());
        Ok(())
    }

    fn alert(&self, branch: &BranchName, _cause: &EffectKey, text: &str) -> Kept<()> {
        let mut state = self.state();
        let told = (branch.clone(), text.to_owned());
        if state.alerts.last() != Some(&told) {
            state.alerts.push(told);
        }
        Ok(())
    }
}
