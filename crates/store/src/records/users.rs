//! People and robots.

use rusqlite::{Row, params};
use towpath_core::ids::{Timestamp, UserId};

use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64};

/// Somebody who can log in or hold tokens. Never deleted, so that no number ever means somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their number.
    pub id: UserId,
    /// Their name, unique.
    pub name: String,
    /// The argon2id hash in PHC form; without one there is no login by password.
    pub password: Option<String>,
    /// May do nothing any more.
    pub disabled: bool,
    /// Since when.
    pub created_at: Timestamp,
}

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId(get_u64(row, 0)?),
        name: row.get(1)?,
        password: row.get(2)?,
        disabled: row.get(3)?,
        created_at: Timestamp(row.get(4)?),
    })
}

impl View {
    /// One user.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn user(&self, id: UserId) -> Result<Option<User>, ReadError> {
        const SQL: &str = "SELECT number, name, password, disabled, created_at FROM users WHERE number = ?1";
        self.one(SQL, [id.0 as i64], read)
    }

    /// One user, by name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn user_by_name(&self, name: &str) -> Result<Option<User>, ReadError> {
        const SQL: &str = "SELECT number, name, password, disabled, created_at FROM users WHERE name = ?1";
        self.one(SQL, [name], read)
    }

    /// Every user, by number.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn users(&self) -> Result<Vec<User>, ReadError> {
        const SQL: &str = "SELECT number, name, password, disabled, created_at FROM users ORDER BY number";
        self.all(SQL, [], read)
    }
}

impl Tx<'_> {
    /// Adds a user with the next number.
    ///
    /// # Errors
    /// The name is taken, or those of the disk.
    pub fn add_user(
        &mut self,
        name: &str,
        password: Option<&str>,
        at: Timestamp,
    ) -> Result<UserId, WriteError> {
        const SQL: &str = "INSERT INTO users (number, name, password, disabled, created_at) \
             VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM users), ?1, ?2, 0, ?3) RETURNING number";
        let number = self.returning(SQL, params![name, password, at.0]);
        number.map(|number| UserId(number.into())).map_err(|why| match why {
            WriteError::Exists { .. } => WriteError::Exists { what: format!("user `{name}`") },
            why => why,
        })
    }

    /// Sets or removes a password hash.
    ///
    /// # Errors
    /// There is no such user, or those of the disk.
    pub fn set_password(&mut self, id: UserId, password: Option<&str>) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE users SET password = ?2 WHERE number = ?1";
        self.change(SQL, params![id.0 as i64, password], || format!("user {id}"))
    }

    /// Disables or enables a user. The sessions of a disabled one end.
    ///
    /// # Errors
    /// There is no such user, or those of the disk.
    pub fn set_disabled(&mut self, id: UserId, disabled: bool) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE users SET disabled = ?2 WHERE number = ?1";
        self.change(SQL, params![id.0 as i64, disabled], || format!("user {id}"))?;
        match disabled {
            true => self.remove_sessions_of(id),
            false => Ok(()),
        }
    }
}
