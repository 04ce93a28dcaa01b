//! Refs: read by full name, written by compare-and-swap.

use std::fmt;
use std::str::FromStr;

use towpath_core::ids::{BranchName, CandidateId, CommitId};

use crate::coprocess::Coprocess;
use crate::error::{GitError, printable};
use crate::object::ObjectId;
use crate::process::Until;
use crate::repository::Repository;

/// Bytes of a ref's name. File systems end at 255 a part, and nobody types more.
const REF_NAME_BYTES_MAX: usize = 1024;
/// Bytes of one answer of `update-ref --stdin`.
const ANSWER_BYTES_MAX: usize = 256;
/// The id that stands for "no object" in git's protocols.
const NO_OBJECT: ObjectId = ObjectId([0; 20]);

/// A full ref name: `refs/heads/main`. A short one can mean a tag or a branch; only full ones are ever used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    /// `refs/heads/<branch>`.
    pub fn branch(branch: &BranchName) -> RefName {
        RefName(format!("refs/heads/{branch}"))
    }

    /// `refs/towpath/candidates/<id>`, which keeps a candidate from garbage collection.
    pub fn candidate(id: &CandidateId) -> RefName {
        RefName(format!("refs/towpath/candidates/{id}"))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RefName {
    type Err = GitError;

    /// Git's rules (`git check-ref-format`) for a name below `refs/`.
    fn from_str(name: &str) -> Result<RefName, GitError> {
        let part_ok = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let byte_ok = |byte: u8| byte > b' ' && byte != 0x7f && !b"~^:?*[\\".contains(&byte);
        let ok = name.len() <= REF_NAME_BYTES_MAX
            && name.strip_prefix("refs/").is_some_and(|rest| rest.split('/').all(part_ok))
            && name.bytes().all(byte_ok)
            && !name.contains("..")
            && !name.contains("@{")
            && !name.ends_with('.');
        match ok {
            true => Ok(RefName(name.to_owned())),
            false => Err(GitError::BadRefName { name: printable(name.as_bytes()) }),
        }
    }
}

/// A ref and the object that it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    /// Its full name.
    pub name: RefName,
    /// A commit, or for an annotated tag the tag object.
    pub target: ObjectId,
}

/// What a ref must be for an update to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is. Only for refs that nobody else writes.
    Anything,
    /// It must not exist.
    Absent,
    /// It must name this object.
    At(ObjectId),
}

/// One update within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// The ref.
    pub name: RefName,
    /// What it must be before.
    pub expected: Expected,
    /// What it is afterwards; `None` deletes it.
    pub target: Option<ObjectId>,
}

/// How a transaction ended. There is no third way: all of it happened, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// Every update is made, and durable.
    Done,
    /// This ref was not what was expected, and nothing was changed.
    Stale {
        /// The ref.
        name: RefName,
        /// What it is now.
        found: Option<ObjectId>,
    },
}

impl Repository {
    /// The refs at or below `prefix` (`refs/heads`, `refs/changes/7`), sorted by name.
    ///
    /// Names that are not UTF-8 are left out: receiving refuses them, so only a hand can have put them there.
    pub fn refs(&self, prefix: &str) -> Result<Vec<Ref>, GitError> {
        let prefix: RefName = prefix.trim_end_matches('/').parse()?;
        self.list_refs(&[prefix.as_str()])
    }

    /// Every ref.
    pub fn all_refs(&self) -> Result<Vec<Ref>, GitError> {
        self.list_refs(&[])
    }

    /// Deletes refs whose names are not UTF-8; returns the names as far as they can be read.
    pub(crate) fn drop_unreadable_refs(&self) -> Result<Vec<String>, GitError> {
        let output = self.ref_lines(&[])?;
        let names = output.split(|byte| *byte == b'\n').filter_map(|line| line.get(41..));
        let unreadable: Vec<&[u8]> = names.filter(|name| std::str::from_utf8(name).is_err()).collect();
        if unreadable.is_empty() {
            return Ok(Vec::new());
        }
        let request: Vec<u8> =
            unreadable.iter().flat_map(|name| [b"delete ", *name, b"\n"].concat()).collect();
        self.call("update-ref").args(["--no-deref", "--stdin"]).prepare().output(&request, self.bounds())?;
        Ok(unreadable.into_iter().map(printable).collect())
    }

    fn ref_lines(&self, patterns: &[&str]) -> Result<Vec<u8>, GitError> {
        let call = self.call("for-each-ref").arg("--format=%(objectname) %(refname)");
        call.arg("--end-of-options").args(patterns).prepare().output(&[], self.bounds())
    }

    fn list_refs(&self, patterns: &[&str]) -> Result<Vec<Ref>, GitError> {
        let output = self.ref_lines(patterns)?;
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let parsed = lines.map(|line| {
            let target = line.get(..40).and_then(ObjectId::from_hex);
            let target = target.ok_or_else(|| GitError::unexpected("for-each-ref", line))?;
            let name = line.get(41..).and_then(|name| std::str::from_utf8(name).ok());
            Ok(name.map(|name| Ref { name: RefName(name.to_owned()), target }))
        });
        parsed.filter_map(Result::transpose).collect()
    }

    /// What a ref names, by exactly this name.
    pub fn ref_target(&self, name: &RefName) -> Result<Option<ObjectId>, GitError> {
        let found = self.list_refs(&[name.as_str()])?;
        Ok(found.into_iter().find(|found| found.name == *name).map(|found| found.target))
    }

    /// The tip of a branch.
    pub fn branch_tip(&self, branch: &BranchName) -> Result<Option<CommitId>, GitError> {
        Ok(self.ref_target(&RefName::branch(branch))?.map(|target| CommitId(target.0)))
    }

    /// The branch that HEAD names, which a clone checks out; it need not exist yet.
    pub fn head(&self) -> Result<Option<BranchName>, GitError> {
        let path = self.path().join("HEAD");
        let text = std::fs::read_to_string(&path).map_err(GitError::io("read", &path))?;
        let name = text.trim_end().strip_prefix("ref: refs/heads/");
        Ok(name.and_then(|name| name.parse().ok()))
    }

    /// Makes HEAD name a branch.
    pub fn set_head(&self, branch: &BranchName) -> Result<(), GitError> {
        let call = self.call("symbolic-ref").arg("HEAD").arg(RefName::branch(branch).as_str());
        call.prepare().output(&[], self.bounds())?;
        self.git().sync(self.path())
    }

    /// Makes several updates at once, or none of them, durably.
    ///
    /// # Errors
    /// `Failed` (`Transient`) if git refused for another reason than a ref that moved: a lock that is held,
    /// or a name below another ref's name. `NotDurable` if the disk did not confirm.
    pub fn ref_transaction(&self, updates: &[RefUpdate]) -> Result<Transaction, GitError> {
        let outcome = self.write_refs(updates)?;
        if outcome == Transaction::Done {
            self.sync_ref_folders(updates.iter().map(|update| &update.name))?;
        }
        Ok(outcome)
    }

    /// Makes refs durable that somebody moved who may not have come to that; the objects that they name were synced before.
    ///
    /// # Errors
    /// `NotDurable` if the disk did not confirm.
    pub fn sync_refs(&self, names: &[RefName]) -> Result<(), GitError> {
        self.sync_ref_folders(names)
    }

    /// The same without syncing the folders: for refs that are made again when they are lost.
    pub(crate) fn write_refs(&self, updates: &[RefUpdate]) -> Result<Transaction, GitError> {
        let request = transaction_text(updates);
        let until = Until::after(self.bounds().deadline);
        let prepare = || self.call("update-ref").args(["--no-deref", "--stdin"]).prepare();
        let written = self.ref_writer().with(prepare, |process| exchange(process, &request, until));
        let Err(error) = written else { return Ok(Transaction::Done) };
        // Git's words for a failed comparison differ between versions, so the refs themselves are asked.
        for update in updates {
            let found = self.ref_target(&update.name)?;
            let as_expected = match update.expected {
                Expected::Anything => true,
                Expected::Absent => found.is_none(),
                Expected::At(target) => found == Some(target),
            };
            if !as_expected {
                return Ok(Transaction::Stale { name: update.name.clone(), found });
            }
        }
        Err(error)
    }
}

fn transaction_text(updates: &[RefUpdate]) -> String {
    let line = |update: &RefUpdate| {
        let name = &update.name;
        match (update.target, update.expected) {
            (Some(target), Expected::Anything) => format!("update {name} {target}\n"),
            (Some(target), Expected::Absent) => format!("update {name} {target} {NO_OBJECT}\n"),
            (Some(target), Expected::At(old)) => format!("update {name} {target} {old}\n"),
            (None, Expected::Anything) => format!("delete {name}\n"),
            (None, Expected::Absent) => format!("verify {name} {NO_OBJECT}\n"),
            (None, Expected::At(old)) => format!("delete {name} {old}\n"),
        }
    };
    let lines: String = updates.iter().map(line).collect();
    format!("start\n{lines}commit\n")
}

fn exchange(process: &mut Coprocess, request: &str, until: Until) -> Result<(), GitError> {
    process.send(request.as_bytes(), until)?;
    for wanted in ["start: ok", "commit: ok"] {
        let answer = process.line(b'\n', ANSWER_BYTES_MAX, until)?;
        if answer != wanted.as_bytes() {
            return Err(GitError::unexpected("update-ref", &answer));
        }
    }
    Ok(())
}
