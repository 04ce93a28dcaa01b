//! Branches that can land one after the other, whatever the order.

use std::collections::BTreeMap;

use towpath_core::ids::{BranchName, CommitId};

use super::hard::{Files, Leaf, Mode, commit};
use crate::error::GitError;
use crate::refs::{Expected, RefName, RefUpdate, Transaction};
use crate::repository::Repository;

/// Gives `main` one more commit, which has nothing but this definition, and on it `count` branches that add a file each.
pub fn changes(repository: &Repository, definition: &str, count: usize) -> Result<Vec<BranchName>, GitError> {
    let main = branch("main".to_owned());
    let plain = |content: &str| Leaf { mode: Mode::Plain, content: content.to_owned() };
    let files: Files = BTreeMap::from([("towpath.yaml".to_owned(), plain(definition))]);
    let tip = commit(repository, &files, repository.branch_tip(&main)?)?;
    let mut updates = vec![update(&main, tip)];
    let mut branches = Vec::new();
    for number in 1..=count {
        let mut files = files.clone();
        files.insert(format!("file-{number}"), plain(&format!("{number}\n")));
        let branch = branch(format!("change-{number}"));
        updates.push(update(&branch, commit(repository, &files, Some(tip))?));
        branches.push(branch);
    }
    match repository.ref_transaction(&updates)? {
        Transaction::Done => Ok(branches),
        Transaction::Stale { name, .. } => {
            Err(GitError::NotThere { what: "the branch just written", name: name.to_string() })
        }
    }
}

fn branch(name: String) -> BranchName {
    name.parse().expect("invariant: letters, a hyphen and digits name a branch")
}

fn update(branch: &BranchName, target: CommitId) -> RefUpdate {
    RefUpdate { name: RefName::branch(branch), expected: Expected::Anything, target: Some(target.into()) }
}
