//! Secrets as sealed bytes, with the policy that says who may have them (trust T4). They are opened elsewhere.

use rusqlite::{Row, params};
use towpath_core::ids::{RepoName, Timestamp, UserId};

use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, conversion};

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Of which repo; `None` for the whole server.
    pub repo: Option<RepoName>,
    /// Its name there.
    pub name: String,
    /// The ciphertext.
    pub sealed: Vec<u8>,
    /// JSON; the server knows its shape.
    pub policy: String,
    /// Who set it last.
    pub updated_by: Option<UserId>,
    /// When.
    pub updated_at: Timestamp,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?}, {}, {} sealed bytes)", self.repo, self.name, self.sealed.len())
    }
}

/// How the whole server is written where a repo's name stands: no repo has an empty name.
const SERVER: &str = "";

fn place(repo: Option<&RepoName>) -> &str {
    repo.map_or(SERVER, RepoName::as_str)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Secret> {
    let repo = match row.get_ref(0)?.as_str()? {
        SERVER => None,
        name => Some(name.parse().map_err(|why| conversion(0, why))?),
    };
    Ok(Secret {
        repo,
        name: row.get(1)?,
        sealed: row.get(2)?,
        policy: row.get(3)?,
        updated_by: row.get::<_, Option<i64>>(4)?.map(|number| UserId(number as u64)),
        updated_at: Timestamp(row.get(5)?),
    })
}

impl View {
    /// How many secrets there are.
    ///
    /// # Errors
    /// They cannot be counted.
    pub fn secret_count(&self) -> Result<usize, ReadError> {
        let count = self.one("SELECT count(*) FROM secrets", [], |row| crate::view::get_u64(row, 0))?;
        Ok(usize::try_from(count.unwrap_or_default()).unwrap_or(usize::MAX))
    }

    /// One secret of a repo, or of the whole server.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn secret(&self, repo: Option<&RepoName>, name: &str) -> Result<Option<Secret>, ReadError> {
        const SQL: &str = "SELECT repo, name, sealed, policy, updated_by, updated_at FROM secrets \
             WHERE repo = ?1 AND name = ?2";
        self.one(SQL, [place(repo), name], read)
    }

    /// Every secret of a repo, or of the whole server, by name.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn secrets(&self, repo: Option<&RepoName>) -> Result<Vec<Secret>, ReadError> {
        const SQL: &str = "SELECT repo, name, sealed, policy, updated_by, updated_at FROM secrets \
             WHERE repo = ?1 ORDER BY name";
        self.all(SQL, [place(repo)], read)
    }
}

impl Tx<'_> {
    /// Sets a secret, new or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_secret(&mut self, secret: &Secret) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO secrets (repo, name, sealed, policy, updated_by, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (repo, name) DO UPDATE SET sealed = excluded.sealed, policy = excluded.policy, \
             updated_by = excluded.updated_by, updated_at = excluded.updated_at";
        let values = params![
            place(secret.repo.as_ref()),
            secret.name,
            secret.sealed,
            secret.policy,
            secret.updated_by.map(|user| user.0 as i64),
            secret.updated_at.0,
        ];
        self.run(SQL, values).map(drop)
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// There is no such secret, or those of the disk.
    pub fn remove_secret(&mut self, repo: Option<&RepoName>, name: &str) -> Result<(), WriteError> {
        const SQL: &str = "DELETE FROM secrets WHERE repo = ?1 AND name = ?2";
        self.change(SQL, [place(repo), name], || format!("secret `{name}`"))
    }
}
