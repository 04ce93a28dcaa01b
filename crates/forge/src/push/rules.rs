//! What a push may do, by the names of refs alone (trust S4). Pure: what is known about the repository comes in as
//! answers of [`Known`].

use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::{BranchName, CommitId, UserId, is_unprintable};
use towpath_core::policy::Role;
use towpath_git::ObjectId;

use super::options::PushOptions;
use super::request::Command;
use crate::builtin::role_name;
use crate::error::{Done, Failure};
use crate::records::Policy;

/// Branches of one person. They are scratch space: what matters becomes a change.
const BRANCHES_MAX: usize = 200;
/// Where the server's own refs are that a push neither hears of nor moves; that of `refs/towpath` is no one's to see.
pub(super) const OWN_REFS: [&str; 2] = ["refs/changes", "refs/notes"];

/// Who pushes, and the repo's settings.
#[derive(Debug, Clone, Copy)]
pub struct Pusher<'a> {
    /// The person.
    pub user: UserId,
    /// The role on the repo.
    pub role: Role,
    /// The settings.
    pub policy: &'a Policy,
}

/// What is there already.
pub trait Known {
    /// Whether a ref of this full name exists.
    fn exists(&self, name: &str) -> Done<bool>;
    /// Whose a branch is; nobody's if it was imported.
    fn owner(&self, branch: &BranchName) -> Done<Option<UserId>>;
    /// The full name of a ref of this one's kind that cannot be beside it ([`collide`]).
    fn beside(&self, name: &str) -> Done<Option<String>>;
    /// The branches of a person.
    fn branches_of(&self, user: UserId) -> Done<Vec<BranchName>>;
}

/// What one command amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Open or update a change.
    Propose {
        /// The commit.
        commit: CommitId,
        /// The target, where the name of the ref says it.
        target: Option<BranchName>,
        /// The branch's name, where one was pushed.
        source: Option<BranchName>,
        /// Whether the pusher has a branch of this name here, which moves along.
        moves_branch: bool,
    },
    /// Make, move or delete a branch that nobody watches.
    Branch {
        /// Its name.
        name: BranchName,
        /// What the client believes is there.
        old: Option<ObjectId>,
        /// What shall be there.
        new: Option<ObjectId>,
    },
    /// Make, move or delete a tag.
    Tag {
        /// Its name without `refs/tags/`.
        name: BranchName,
        /// What shall be there.
        new: Option<ObjectId>,
    },
}

/// Decides about one command.
pub fn judge(command: &Command, options: &PushOptions, pusher: Pusher<'_>, known: &dyn Known) -> Done<Move> {
    let name = readable(&command.name)?;
    if pusher.role < Role::Author {
        return Err(lacks(Role::Author, "pushing"));
    }
    if command.new.is_none() && command.old.is_none() {
        return Err(invalid(format!("`{name}` does not exist, so there is nothing to delete")));
    }
    if let Some(target) = name.strip_prefix("refs/for/") {
        return propose_for(target, command, options, pusher.policy);
    }
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        return judge_branch(branch, command, options, pusher, known);
    }
    if let Some(tag) = name.strip_prefix("refs/tags/") {
        return judge_tag(tag, command, pusher, known);
    }
    Err(denied(format!(
        "`{name}` is not for pushing: take `refs/for/<branch>` for a change, `refs/heads/<your-branch>` for a branch of \
         your own; `refs/changes`, `refs/notes`, `refs/replace` and the like are the server's"
    )))
}

fn propose_for(target: &str, command: &Command, options: &PushOptions, policy: &Policy) -> Done<Move> {
    let plain = target.split('%').next().unwrap_or(target);
    if plain != target {
        return Err(invalid(format!(
            "options of a change go with `-o`, not into the name: `git push -o draft … HEAD:refs/for/{plain}`"
        )));
    }
    let Some(commit) = command.new else {
        return Err(invalid(
            "a change is not deleted by push; `towpath change close <number>` gives it up".into(),
        ));
    };
    let watched = policy.watched.keys().find(|watched| watched.as_str() == target);
    let Some(branch) = watched else {
        let names: Vec<&str> = policy.watched.keys().map(BranchName::as_str).collect();
        return Err(invalid(format!(
            "`{target}` is no watched branch, so nothing lands there; there are: {}",
            names.join(", ")
        )));
    };
    if options.target.as_ref().is_some_and(|target| target != branch) {
        return Err(invalid(format!("the option `target` and `refs/for/{branch}` name two branches")));
    }
    let commit = CommitId(commit.0);
    Ok(Move::Propose { commit, target: Some(branch.clone()), source: None, moves_branch: false })
}

fn judge_branch(
    branch: &str,
    command: &Command,
    options: &PushOptions,
    pusher: Pusher<'_>,
    known: &dyn Known,
) -> Done<Move> {
    let name = short_name(branch, "branch")?;
    if pusher.policy.watched.contains_key(&name) {
        return judge_watched(name, command, pusher, known);
    }
    let here = known.exists(&format!("refs/heads/{name}"))?;
    let own = here && known.owner(&name)? == Some(pusher.user);
    if options.change
        && let Some(commit) = command.new
    {
        // A proposal under the name of somebody else's branch says nothing about that branch, whatever the role.
        let commit = CommitId(commit.0);
        return Ok(Move::Propose {
            commit,
            target: options.target.clone(),
            source: Some(name),
            moves_branch: own,
        });
    }
    if options.speak_of_a_change() && command.new.is_some() {
        return Err(invalid(
            "these options are for a change: add `-o change`, or push to `refs/for/<branch>`".into(),
        ));
    }
    if here && !own && !moves_all_branches(pusher.role) {
        return Err(denied(format!(
            "the branch `{name}` is somebody else's: only its owner or a maintainer moves it; push under another name"
        )));
    }
    if !here && command.new.is_some() {
        may_make(&name, pusher, known)?;
    }
    Ok(Move::Branch { name, old: command.old, new: command.new })
}

/// Whether a role moves and deletes everybody's branches.
fn moves_all_branches(role: Role) -> bool {
    role >= Role::Maintainer
}

/// The refs that a pusher's git is not told of, as values of `receive.hideRefs`: the server's own, of which there are some
/// for each change that there ever was, and branches that the pusher cannot move. A git that knew of such a branch would measure a
/// proposal of the same name by it and refuse to send it.
pub fn hidden(pusher: Pusher<'_>, own: &[BranchName]) -> Vec<String> {
    let mut hidden = OWN_REFS.map(str::to_owned).to_vec();
    if !moves_all_branches(pusher.role) {
        hidden.push("refs/heads".to_owned());
        hidden.extend(pusher.policy.watched.keys().chain(own).map(|name| format!("!refs/heads/{name}")));
    }
    hidden
}

/// The only thing that a push does to a watched branch is to make it, by an admin, in a repo that has none yet.
fn judge_watched(name: BranchName, command: &Command, pusher: Pusher<'_>, known: &dyn Known) -> Done<Move> {
    if command.new.is_none() {
        return Err(denied(format!(
            "`{name}` is watched and so is not deleted by push: its record would go with it"
        )));
    }
    let here = known.exists(&format!("refs/heads/{name}"))?;
    if !here && pusher.role >= Role::Admin {
        return Ok(Move::Branch { name, old: command.old, new: command.new });
    }
    if !here {
        return Err(denied(format!(
            "`{name}` does not exist yet: an admin makes it, by `towpath repo import` or a first push"
        )));
    }
    Err(denied(format!(
        "`{name}` is watched: it advances only to commits that were tested, so nobody pushes to it directly. Propose the \
         commit instead: `git push <remote> HEAD:refs/for/{name}`, or `git push <remote> <your-branch> -o change`"
    )))
}

fn may_make(name: &BranchName, pusher: Pusher<'_>, known: &dyn Known) -> Done<()> {
    if known.exists(&format!("refs/tags/{name}"))? {
        return Err(denied(format!("there is a tag `{name}`: a branch of that name would be taken for it")));
    }
    let watched = pusher.policy.watched.keys().find(|watched| collide(watched.as_str(), name.as_str()));
    if let Some(watched) = watched {
        return Err(denied(format!(
            "a branch `{name}` and the watched branch `{watched}` cannot both be{}; choose another name",
            by_case(name.as_str(), watched.as_str())
        )));
    }
    check_beside(("branch", "refs/heads/", name), known)?;
    let have = known.branches_of(pusher.user)?.len();
    if have >= BRANCHES_MAX {
        return Err(denied(format!(
            "you have {have} branches here, as many as one person may; delete one first"
        )));
    }
    Ok(())
}

/// Whether a new ref can be beside those of its kind.
fn check_beside((kind, prefix, name): (&str, &str, &BranchName), known: &dyn Known) -> Done<()> {
    let Some(other) = known.beside(&format!("{prefix}{name}"))? else { return Ok(()) };
    let other = other.strip_prefix(prefix).unwrap_or(&other);
    Err(denied(format!(
        "a {kind} `{name}` and the {kind} `{other}` cannot both be{}; choose another name",
        by_case(name.as_str(), other)
    )))
}

/// Whether two refs of a kind cannot both be: one's name lies inside the other's, which no repository has, or would where the
/// case of letters does not count, as on many a machine that clones.
pub(super) fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let inside =
        |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    one == other || inside(&one, &other) || inside(&other, &one)
}

/// Why, where only the case of letters keeps two refs apart.
fn by_case(one: &str, other: &str) -> &'static str {
    let apart = one.split('/').zip(other.split('/')).any(|(one, other)| one != other);
    match apart {
        true => {
            ", as they differ only in the case of letters, which does not count on many machines that clone"
        }
        false => "",
    }
}

fn judge_tag(tag: &str, command: &Command, pusher: Pusher<'_>, known: &dyn Known) -> Done<Move> {
    let name = short_name(tag, "tag")?;
    if pusher.role < Role::Maintainer {
        return Err(lacks(Role::Maintainer, "pushing tags"));
    }
    let branch = pusher.policy.watched.contains_key(&name) || known.exists(&format!("refs/heads/{name}"))?;
    if branch && command.new.is_some() {
        return Err(denied(format!("there is a branch `{name}`: git would take the tag for it")));
    }
    let here = known.exists(&format!("refs/tags/{name}"))?;
    if here && pusher.role < Role::Admin {
        return Err(denied(format!(
            "the tag `{name}` is there already: a tag stays what it is; choose another name, or ask an admin"
        )));
    }
    if !here && command.new.is_some() {
        check_beside(("tag", "refs/tags/", &name), known)?;
    }
    Ok(Move::Tag { name, new: command.new })
}

/// The name as text, if a person can read it.
fn readable(name: &[u8]) -> Done<&str> {
    let text = std::str::from_utf8(name).map_err(|_| invalid("a ref's name is UTF-8".into()))?;
    match text.chars().any(is_unprintable) || text.len() > NAME_BYTES_MAX {
        true => Err(invalid(format!(
            "a ref's name is at most {NAME_BYTES_MAX} bytes without control, direction or invisible characters"
        ))),
        false => Ok(text),
    }
}

/// Bytes of a full ref name: a branch's 200 and its prefix.
const NAME_BYTES_MAX: usize = 256;
/// Names that git takes for something else.
const MISLEADING: [&str; 6] =
    ["FETCH_HEAD", "ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_HEAD"];

fn short_name(name: &str, kind: &str) -> Done<BranchName> {
    let parsed: BranchName = name.parse().map_err(|error| invalid(format!("as a {kind}: {error}")))?;
    let misleading = MISLEADING.contains(&name)
        || ["refs/", "heads/", "tags/", "remotes/"].iter().any(|prefix| name.starts_with(prefix));
    match misleading {
        true => Err(invalid(format!(
            "a {kind} named `{name}` would be taken for another ref; choose another name"
        ))),
        false => Ok(parsed),
    }
}

fn invalid(why: String) -> Failure {
    Refusal::new(RefusalClass::Invalid, why).into()
}

fn denied(why: String) -> Failure {
    Refusal::new(RefusalClass::Denied, why).into()
}

fn lacks(role: Role, what: &str) -> Failure {
    denied(format!("{what} takes the role {}", role_name(role)))
}

#[cfg(test)]
mod tests;
