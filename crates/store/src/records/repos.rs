//! Repos and the rights on them.

use rusqlite::{Row, params};
use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::{RepoName, Timestamp, UserId};
use towpath_core::policy::{Rights, Role};

use super::word_of;
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64, parsed, word};

/// A repo of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Its name.
    pub name: RepoName,
    /// JSON; the server knows its shape.
    pub settings: String,
    /// The name of the secret that its webhooks are signed with.
    pub hook_secret: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
}

/// What one user may do on one repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Where.
    pub repo: RepoName,
    /// Who.
    pub holder: UserId,
    /// What.
    pub rights: Rights,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Repo> {
    Ok(Repo {
        name: parsed(row, 0)?,
        settings: row.get(1)?,
        hook_secret: row.get(2)?,
        created_at: Timestamp(row.get(3)?),
    })
}

fn read_right(row: &Row<'_>) -> rusqlite::Result<Right> {
    let rights = Rights { role: word::<Role>(row, 2)?, authorised: row.get(3)? };
    Ok(Right { repo: parsed(row, 0)?, holder: UserId(get_u64(row, 1)?), rights })
}

impl View {
    /// One repo.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn repo(&self, name: &RepoName) -> Result<Option<Repo>, ReadError> {
        const SQL: &str = "SELECT name, settings, hook_secret, created_at FROM repos WHERE name = ?1";
        self.one(SQL, [name.as_str()], read)
    }

    /// Every repo, by name.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn repos(&self) -> Result<Vec<Repo>, ReadError> {
        self.all("SELECT name, settings, hook_secret, created_at FROM repos ORDER BY name", [], read)
    }

    /// What one user may do on one repo.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn right(&self, repo: &RepoName, holder: UserId) -> Result<Option<Rights>, ReadError> {
        const SQL: &str = "SELECT repo, holder, role, authorised FROM rights WHERE repo = ?1 AND holder = ?2";
        let right = self.one(SQL, params![repo.as_str(), holder.0 as i64], read_right)?;
        Ok(right.map(|right| right.rights))
    }

    /// Every right on one repo, by user.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn rights_on(&self, repo: &RepoName) -> Result<Vec<Right>, ReadError> {
        const SQL: &str = "SELECT repo, holder, role, authorised FROM rights WHERE repo = ?1 ORDER BY holder";
        self.all(SQL, [repo.as_str()], read_right)
    }
}

impl Tx<'_> {
    /// Adds a repo.
    ///
    /// # Errors
    /// The name is taken, or those of the disk.
    pub fn add_repo(&mut self, repo: &Repo) -> Result<(), WriteError> {
        const SQL: &str =
            "INSERT INTO repos (name, settings, hook_secret, created_at) VALUES (?1, ?2, ?3, ?4)";
        let values = params![repo.name.as_str(), repo.settings, repo.hook_secret, repo.created_at.0];
        self.insert(SQL, values, || format!("repo `{}`", repo.name))
    }

    /// Replaces a repo's settings.
    ///
    /// # Errors
    /// `Refused` with a conflict if others are stored than `before`; those of the disk.
    pub fn replace_repo_settings(
        &mut self,
        name: &RepoName,
        (before, settings): (&str, &str),
    ) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE repos SET settings = ?2 WHERE name = ?1 AND settings = ?3";
        match self.run(SQL, [name.as_str(), settings, before])? {
            0 => {
                let why = format!(
                    "somebody else has set the settings of {name} meanwhile; look at them and try again"
                );
                Err(WriteError::Refused(Refusal::new(RefusalClass::Conflict, why)))
            }
            _ => Ok(()),
        }
    }

    /// Says with which secret a repo's webhooks are signed.
    ///
    /// # Errors
    /// There is no such repo, or those of the disk.
    pub fn set_hook_secret(&mut self, name: &RepoName, secret: Option<&str>) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE repos SET hook_secret = ?2 WHERE name = ?1";
        self.change(SQL, params![name.as_str(), secret], || format!("repo `{name}`"))
    }

    /// Gives, changes or takes a right.
    ///
    /// # Errors
    /// There is no such repo or user, or those of the disk.
    pub fn set_right(
        &mut self,
        repo: &RepoName,
        holder: UserId,
        rights: Option<Rights>,
    ) -> Result<(), WriteError> {
        const PUT: &str = "INSERT INTO rights (repo, holder, role, authorised) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (repo, holder) DO UPDATE SET role = excluded.role, authorised = excluded.authorised";
        const DELETE: &str = "DELETE FROM rights WHERE repo = ?1 AND holder = ?2";
        let number = holder.0 as i64;
        let Some(rights) = rights else {
            return self.run(DELETE, params![repo.as_str(), number]).map(drop);
        };
        if self.repo(repo)?.is_none() {
            return Err(WriteError::Missing { what: format!("repo `{repo}`") });
        }
        if self.user(holder)?.is_none() {
            return Err(WriteError::Missing { what: format!("user {holder}") });
        }
        self.run(PUT, params![repo.as_str(), number, word_of(&rights.role), rights.authorised]).map(drop)
    }
}
