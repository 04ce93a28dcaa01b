//! Rows as handlers need them.

use std::collections::BTreeMap;

use towpath_core::ids::{ChangeNumber, RepoName, UserId};
use towpath_forge::ChangeRecord;
use towpath_store::records::{ChangeQuery, ChangeRow};
use towpath_store::{ReadError, View};

use super::call::{no_change, no_repo};
use super::error::{Answer, ApiError};
use crate::settings::RepoSettings;

/// Whose a change is.
pub fn owner_of(view: &View, repo: &RepoName, number: ChangeNumber) -> Result<Option<UserId>, ReadError> {
    Ok(view.change(repo, number)?.map(|row| row.owner))
}

/// A change that exists.
pub fn change(view: &View, repo: &RepoName, number: ChangeNumber) -> Answer<ChangeRecord> {
    whole(view.change(repo, number)?.ok_or_else(|| no_change(number))?)
}

/// The changes that a query finds.
pub fn changes(view: &View, query: &ChangeQuery) -> Answer<Vec<ChangeRecord>> {
    view.changes(query)?.into_iter().map(whole).collect()
}

fn whole(row: ChangeRow) -> Answer<ChangeRecord> {
    crate::forges::saved(row).map(|saved| saved.change).map_err(ApiError::internal)
}

/// The settings of a repo that exists.
pub fn settings(view: &View, repo: &RepoName) -> Answer<RepoSettings> {
    let row = view.repo(repo)?.ok_or_else(|| no_repo(repo.as_str()))?;
    RepoSettings::parse(&row.settings).map_err(ApiError::internal)
}

/// Names of people, each looked up once.
pub struct Names<'a> {
    view: &'a View,
    known: BTreeMap<UserId, String>,
}

impl<'a> Names<'a> {
    /// Names as a snapshot has them.
    pub fn new(view: &'a View) -> Names<'a> {
        Names { view, known: BTreeMap::new() }
    }

    /// A person's name; a number that is nobody's reads `user 7`.
    pub fn get(&mut self, user: UserId) -> Result<String, ReadError> {
        if let Some(name) = self.known.get(&user) {
            return Ok(name.clone());
        }
        let name = self.view.user(user)?.map_or_else(|| format!("user {user}"), |user| user.name);
        self.known.insert(user, name.clone());
        Ok(name)
    }
}
