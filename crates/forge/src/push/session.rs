//! One push from the head of its request to its last ref. The hooks ask it; it answers from what was judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, RepoName, Timestamp, UserId};
use towpath_core::policy::Role;
use towpath_git::{Expected, ObjectId, RefName, RefUpdate, Repository};

use super::hook::{HookCall, HookName, HookReply, HookResult};
use super::inspect::{commit_of, new_commits};
use super::options::PushOptions;
use super::report::shown;
use super::request::{Command, PushHead};
use super::rules::{Known, Move, Pusher, collide, judge};
use crate::builtin::{BuiltIn, PushEntry, Uploaded};
use crate::error::{Done, Failure};
use crate::records::{ChangeRecord, Find};

/// Refs that one push may move.
const COMMANDS_MAX: usize = 50;
/// Changes that one push may open or update.
const PROPOSALS_MAX: usize = 10;

/// Hears of changes while the client still waits.
pub trait Listener: Send + Sync {
    /// A push opened a change or added a revision. The answer is shown to the pusher behind `change 7: `, say
    /// `http://…/demo/changes/7 waits for: run main/12`; further lines stand below. It may wait a moment for the gate to look, and never longer than
    /// a second or two: a person waits.
    fn moved(&self, repo: &RepoName, change: ChangeNumber) -> String;
}

/// What the server knows about a push before it begins.
#[derive(Clone)]
pub struct PushContext {
    /// Who, as authenticated.
    pub by: UserId,
    /// When it began: the time of all that it does.
    pub now: Timestamp,
    /// Asked again at the end: whether the token that opened the door still holds (F11).
    pub still_valid: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Hears of changes.
    pub listener: Arc<dyn Listener>,
}

/// One push.
pub(super) struct Session {
    forge: BuiltIn,
    context: PushContext,
    moves: Vec<(Command, Move)>,
    options: PushOptions,
    done: Mutex<Progress>,
}

/// How far it came.
#[derive(Default)]
struct Progress {
    /// What `pre-receive` let through, and the commits that came with it.
    accepted: Option<Vec<CommitId>>,
    /// Changes that were opened or updated.
    changes: Vec<ChangeNumber>,
}

/// Every text of a refused push, by position of the command.
pub(super) struct RefusedPush {
    pub texts: Vec<Option<String>>,
    pub failure: Failure,
}

impl Session {
    /// Judges all that can be judged without the pack.
    pub fn open(forge: &BuiltIn, context: PushContext, head: &PushHead) -> Result<Session, RefusedPush> {
        let none = |failure: Failure| RefusedPush { texts: vec![None; head.commands.len()], failure };
        let options = PushOptions::parse(&head.options).map_err(|refusal| none(refusal.into()))?;
        let moves = judge_all(forge, context.by, head, &options)?;
        let role = forge.member(context.by).map_err(none)?.role;
        forge.may_act(context.by, role, context.now).map_err(none)?;
        check_shallow(forge.repository(), head).map_err(none)?;
        forge.count_act(context.by, context.now);
        let (forge, done) = (forge.clone(), Mutex::default());
        Ok(Session { forge, context, moves, options, done })
    }

    /// Counts the bytes that came, whatever became of them.
    pub fn count_upload(&self, bytes: u64) {
        self.forge.count_upload(self.context.by, bytes, self.context.now);
    }

    /// Changes that were opened or updated.
    pub fn changes(&self) -> Vec<ChangeNumber> {
        self.progress(|progress| progress.changes.clone())
    }

    fn progress<T>(&self, look: impl FnOnce(&mut Progress) -> T) -> T {
        look(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a hook.
    pub fn answer(&self, call: &HookCall) -> HookReply {
        let answer = match call.hook {
            HookName::PreReceive => self.pre_receive(call),
            HookName::ProcReceive => self.proc_receive(call),
        };
        answer.unwrap_or_else(|failure| {
            let said = vec![super::receive::refusal_text(&failure)];
            HookReply { accepted: false, say: said, results: Vec::new() }
        })
    }

    /// Looks at the objects. Nothing of the push can be seen by anybody yet, and nothing is written.
    fn pre_receive(&self, call: &HookCall) -> Done<HookReply> {
        self.still_welcome()?;
        let view = match &call.quarantine {
            Some(quarantine) => self.forge.repository().quarantined(Path::new(quarantine)),
            // Deletions bring nothing that would have to wait.
            None if self.moves.iter().all(|(_, wanted)| wanted.new_object().is_none()) => {
                self.forge.repository().clone()
            }
            None => return Err(broken("git named no quarantine")),
        };
        let mut tips = Vec::new();
        for update in &call.updates {
            let (_, wanted) = self.planned(&update.old, &update.new, &update.name)?;
            tips.extend(commit_of(&view, wanted)?);
            if let Some((commit, proposal)) = wanted.proposal(&self.options) {
                let by = (self.context.by, Uploaded { commit, by: self.context.by });
                self.forge.plan_proposal(&view, by, &proposal, self.context.now)?;
            }
        }
        let commits = new_commits(&view, &tips, self.context.now)?;
        self.progress(|progress| progress.accepted = Some(commits));
        Ok(HookReply { accepted: true, ..HookReply::default() })
    }

    /// Takes the push: its journal with its branches and tags, then its changes.
    fn proc_receive(&self, call: &HookCall) -> Done<HookReply> {
        self.still_welcome()?;
        let commits = self.progress(|progress| progress.accepted.take());
        let commits = commits.ok_or_else(|| broken("git came without asking first"))?;
        let mut wanted = Vec::new();
        for update in &call.updates {
            wanted.push(self.planned(&update.old, &update.new, &update.name)?);
        }
        self.judge_again(&wanted)?;
        let moves = wanted.iter().filter_map(|(command, wanted)| ref_update(command, wanted).transpose());
        self.forge.take_push(&self.entry(&wanted, commits), &moves.collect::<Done<Vec<_>>>()?)?;
        let mut reply = HookReply { accepted: true, ..HookReply::default() };
        for (command, wanted) in wanted {
            let (result, said) = self.carry_out(command, wanted);
            reply.results.push(result);
            reply.say.extend(said);
        }
        Ok(reply)
    }

    /// While a pack came, branches came and went, and people lost rights.
    fn judge_again(&self, wanted: &[(&Command, &Move)]) -> Done<()> {
        let by = self.context.by;
        let (role, policy) = (self.forge.member(by)?.role, self.forge.records().policy()?);
        let pusher = Pusher { user: by, role, policy: &policy };
        for (command, before) in wanted {
            if judge(command, &self.options, pusher, &self.forge)? != **before {
                let name = String::from_utf8_lossy(&command.name);
                let why = format!("`{name}` came or went while you pushed; fetch, then push again");
                return Err(Failure::refused(RefusalClass::Conflict, why));
            }
        }
        Ok(())
    }

    fn carry_out(&self, command: &Command, wanted: &Move) -> (HookResult, Vec<String>) {
        let name = String::from_utf8_lossy(&command.name).into_owned();
        let Some((commit, proposal)) = wanted.proposal(&self.options) else {
            return (HookResult::Moved { name }, self.branch_hint(wanted));
        };
        let change = match self.forge.propose(self.context.by, commit, &proposal, self.context.now) {
            Ok(change) => change,
            Err(failure) => {
                let mut said = vec![super::receive::refusal_text(&failure)];
                if let Move::Propose { source: Some(source), moves_branch: true, .. } = wanted {
                    said.push(format!(
                        "  branch `{source}` is stored; to try again: towpath change open {source}"
                    ));
                }
                return (HookResult::Refused { name, why: shown(&failure.to_string()) }, said);
            }
        };
        self.progress(|progress| progress.changes.push(change.number));
        let mut said = self.say(&change);
        if proposal.change.is_none() && proposal.source.is_none() {
            said.extend(self.namesake_hint(&change));
        }
        let moves_branch = matches!(wanted, Move::Propose { moves_branch: true, .. });
        let result = match moves_branch {
            true => HookResult::Moved { name },
            false => HookResult::Became {
                name,
                refname: format!("refs/changes/{}/{}", change.number, change.newest().number),
                new: commit.to_string(),
            },
        };
        (result, said)
    }

    fn say(&self, change: &ChangeRecord) -> Vec<String> {
        let text = self.context.listener.moved(self.forge.name(), change.number);
        let mut lines = text.lines();
        let first = format!("change {}: {}", change.number, lines.next().unwrap_or_default());
        let mut said: Vec<String> =
            std::iter::once(first).chain(lines.map(|line| format!("  {line}"))).collect();
        if change.draft {
            let number = change.number;
            said.push(format!("  it is a draft: nothing runs until `towpath change ready {number}`"));
        }
        said
    }

    /// A push by Change-Id that opened a change where somebody else has one of that id: a maintainer may have meant theirs.
    fn namesake_hint(&self, change: &ChangeRecord) -> Vec<String> {
        let opened = change.revisions.len() == 1;
        // Not to know it costs a hint.
        let found = opened.then(|| self.forge.namesake(change).ok()).flatten().flatten();
        let Some(other) = found else { return Vec::new() };
        let (mine, theirs, target) = (change.number, other.number, &change.target);
        let mut said = vec![format!(
            "  {}'s change {theirs} has this Change-Id too, and stays as it is",
            self.forge.name_of(other.owner)
        )];
        if self.forge.member(self.context.by).is_ok_and(|member| member.role >= Role::Maintainer) {
            said.push(format!(
                "  if you meant that one: towpath change close {mine}, then git push <remote> HEAD:refs/for/{target} -o \
                 change={theirs}"
            ));
        }
        said
    }

    /// A branch that is only stored is often meant as a change, and pushing it again with `-o change` would have nothing
    /// to push.
    fn branch_hint(&self, wanted: &Move) -> Vec<String> {
        let Move::Branch { name, new: Some(commit), .. } = wanted else { return Vec::new() };
        // Only the first push to it comes here.
        if self.forge.records().policy().is_ok_and(|policy| policy.watched.contains_key(name)) {
            return vec![
                format!("branch `{name}` begins here, and its gate watches it from now on"),
                "  what follows comes as changes: git push <remote> my-branch -o change".to_owned(),
            ];
        }
        let (what, how) = match self.open_from(name) {
            Some(change) if ObjectId::from(change.newest().commit) == *commit => return Vec::new(),
            Some(change) => {
                let number = change.number;
                (format!("change {number} is open from it and keeps its former commit"), "to update it")
            }
            None => ("no change is open from it".to_owned(), "to open one"),
        };
        vec![
            format!("branch `{name}` is stored, and {what}"),
            format!("  {how}: towpath change open {name}"),
            format!("  the next time, both at once: git push <remote> {name} -o change"),
        ]
    }

    /// The change that the pusher has open from a branch of this name. Not to know it costs a hint.
    fn open_from(&self, name: &BranchName) -> Option<ChangeRecord> {
        let found = self.forge.records().find(&Find::Source(self.context.by, name.clone())).ok()?;
        found.into_iter().map(|saved| saved.change).find(ChangeRecord::is_open)
    }

    fn entry(&self, wanted: &[(&Command, &Move)], commits: Vec<CommitId>) -> PushEntry {
        let (user, at) = (self.context.by, self.context.now);
        let (made, moved, deleted, landing) = Default::default();
        let mut entry = PushEntry { user, at, commits, made, moved, deleted, landing };
        for (_, wanted) in wanted {
            let (list, name) = match wanted {
                Move::Branch { name, old: None, new: Some(_) } => (&mut entry.made, name),
                Move::Branch { name, old: Some(_), new: Some(_) } => (&mut entry.moved, name),
                Move::Branch { name, new: None, .. } => (&mut entry.deleted, name),
                Move::Propose { source: Some(name), moves_branch: true, .. } => (&mut entry.moved, name),
                Move::Propose { .. } | Move::Tag { .. } => continue,
            };
            list.push(name.clone());
        }
        entry
    }

    /// The judged move of an update. Git hands on what was judged, or nothing is done.
    fn planned(&self, old: &str, new: &str, name: &str) -> Done<(&Command, &Move)> {
        let shown = |id: Option<ObjectId>| id.unwrap_or(ObjectId([0; 20])).to_string();
        let found = self.moves.iter().find(|(command, _)| {
            command.name == name.as_bytes() && shown(command.old) == old && shown(command.new) == new
        });
        let (command, wanted) =
            found.ok_or_else(|| broken("git asks about a ref that was not in the request"))?;
        Ok((command, wanted))
    }

    fn still_welcome(&self) -> Done<()> {
        match (self.context.still_valid)() {
            true => Ok(()),
            false => Err(Failure::refused(
                RefusalClass::Denied,
                "your token was revoked while you pushed; nothing was taken",
            )),
        }
    }
}

/// The ref that a move puts somewhere, if it is any but a change's.
fn ref_update(command: &Command, wanted: &Move) -> Done<Option<RefUpdate>> {
    if matches!(wanted, Move::Propose { moves_branch: false, .. }) {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(&command.name).parse::<RefName>()?;
    let expected = command.old.map_or(Expected::Absent, Expected::At);
    Ok(Some(RefUpdate { name, expected, target: command.new }))
}

fn broken(why: &str) -> Failure {
    Failure::refused(RefusalClass::Invalid, format!("this push cannot be followed: {why}"))
}

fn judge_all(
    forge: &BuiltIn,
    by: UserId,
    head: &PushHead,
    options: &PushOptions,
) -> Result<Vec<(Command, Move)>, RefusedPush> {
    let count = head.commands.len();
    let none = |failure: Failure| RefusedPush { texts: vec![None; count], failure };
    let refuse = |why: String| none(Failure::refused(RefusalClass::Invalid, why));
    if count > COMMANDS_MAX {
        return Err(refuse(format!(
            "a push moves at most {COMMANDS_MAX} refs, and this one would move {count}"
        )));
    }
    let member = forge.member(by).map_err(none)?;
    let policy = forge.records().policy().map_err(|error| none(error.into()))?;
    let pusher = Pusher { user: by, role: member.role, policy: &policy };
    let mut moves: BTreeMap<Vec<u8>, (Command, Move)> = BTreeMap::new();
    for (at, command) in head.commands.iter().enumerate() {
        let wanted = judge(command, options, pusher, forge).map_err(|failure| {
            let mut texts = vec![None; count];
            texts[at] = Some(failure.to_string());
            RefusedPush { texts, failure }
        })?;
        if moves.insert(command.name.clone(), (command.clone(), wanted)).is_some() {
            return Err(refuse("a push names each ref once".into()));
        }
    }
    if let Some((outer, inner)) = beside_each_other(&moves) {
        return Err(refuse(format!(
            "`{outer}` and `{inner}` cannot both be: push one of them under another name"
        )));
    }
    let moves: Vec<(Command, Move)> = moves.into_values().collect();
    let proposals = moves.iter().filter(|(_, wanted)| matches!(wanted, Move::Propose { .. })).count();
    if proposals > PROPOSALS_MAX {
        return Err(refuse(format!(
            "a push opens at most {PROPOSALS_MAX} changes, and this one would open {proposals}"
        )));
    }
    if proposals > 1 && options.number.is_some() {
        return Err(refuse("one push cannot make several refs revisions of one change".into()));
    }
    Ok(moves)
}

/// Two refs of one push that cannot both be made: one in the other's name, new ones that collide, or a tag that would
/// be taken for a branch. Each is judged beside what is there already, and they move all or none.
fn beside_each_other(moves: &BTreeMap<Vec<u8>, (Command, Move)>) -> Option<(String, String)> {
    let is_made =
        |wanted: &Move| matches!(wanted, Move::Branch { new: Some(_), .. } | Move::Tag { new: Some(_), .. });
    let made: BTreeSet<&str> = moves
        .iter()
        .filter(|(_, (_, wanted))| is_made(wanted))
        .filter_map(|(name, _)| std::str::from_utf8(name).ok())
        .collect();
    let pair = made.iter().find_map(|name| {
        let outer = name.match_indices('/').map(|(at, _)| &name[..at]).find(|outer| made.contains(outer));
        let branch = name.strip_prefix("refs/tags/").map(|short| format!("refs/heads/{short}"));
        let branch = branch.filter(|branch| made.contains(branch.as_str()));
        Some((outer.map(str::to_owned).or(branch)?, (*name).to_owned()))
    });
    pair.or_else(|| {
        let new = moves.iter().filter(|(_, (command, wanted))| command.old.is_none() && is_made(wanted));
        let new: Vec<&str> = new.filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect();
        let pairs =
            new.iter().enumerate().flat_map(|(at, one)| new[..at].iter().map(move |other| (other, one)));
        let mut colliding = pairs.filter(|(other, one)| collide(other, one));
        colliding.next().map(|(other, one)| ((*other).to_owned(), (*one).to_owned()))
    })
}

/// A clone without history may push only what stands on commits that are here (B24). Git checks again.
fn check_shallow(repository: &Repository, head: &PushHead) -> Done<()> {
    for boundary in &head.shallow {
        if !repository.has_commit(*boundary)? {
            let why = format!(
                "your clone is shallow and ends at {}, which is not here; run `git fetch --unshallow` and push again",
                boundary.short()
            );
            return Err(Failure::refused(RefusalClass::Invalid, why));
        }
    }
    Ok(())
}

impl Known for BuiltIn {
    fn exists(&self, name: &str) -> Done<bool> {
        let Ok(name) = name.parse::<RefName>() else { return Ok(false) };
        Ok(self.repository().ref_target(&name)?.is_some())
    }

    fn owner(&self, branch: &BranchName) -> Done<Option<UserId>> {
        Ok(self.branch_owner(branch)?)
    }

    fn beside(&self, name: &str) -> Done<Option<String>> {
        let kind = match name.starts_with("refs/tags/") {
            true => "refs/tags",
            false => "refs/heads",
        };
        let refs = self.repository().refs(kind)?;
        let mut names = refs.iter().map(|found| found.name.as_str());
        Ok(names.find(|other| collide(other, name)).map(str::to_owned))
    }

    fn branches_of(&self, user: UserId) -> Done<Vec<BranchName>> {
        Ok(BuiltIn::branches_of(self, user)?)
    }
}
