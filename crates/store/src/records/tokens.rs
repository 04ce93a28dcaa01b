//! Tokens for Git and the API (trust S8): only the hash is kept.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use towpath_core::ids::{Digest, RepoName, Timestamp, UserId};

use crate::error::{ReadError, WriteError};
use crate::tx::{Tx, encode};
use crate::view::{View, get_time, get_u64, json};

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number, to name it by.
    pub number: u64,
    /// The SHA-256 of the token.
    pub hash: Digest,
    /// Its first characters, to recognise it by.
    pub prefix: String,
    /// Whose it is.
    pub owner: UserId,
    /// What it is for, in its owner's words.
    pub label: String,
    /// What it may do.
    pub scope: Scope,
    /// The number of the token by which it was made, if it was by one: it ends with that one.
    pub made_by: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What a token may do, at most what its owner may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// On which repos; `None` means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repos: Option<Vec<RepoName>>,
    /// Which verbs; `None` means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbs: Option<Vec<String>>,
}

macro_rules! columns {
    () => {
        "number, hash, prefix, owner, label, scope, created_at, expires_at, used_at, revoked_at, made_by"
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        number: get_u64(row, 0)?,
        hash: Digest(row.get(1)?),
        prefix: row.get(2)?,
        owner: UserId(get_u64(row, 3)?),
        label: row.get(4)?,
        scope: json(row, 5)?,
        made_by: row.get::<_, Option<i64>>(10)?.map(|number| number as u64),
        created_at: Timestamp(row.get(6)?),
        expires_at: get_time(row, 7)?,
        used_at: get_time(row, 8)?,
        revoked_at: get_time(row, 9)?,
    })
}

impl Token {
    /// Whether it works at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl View {
    /// The token with this hash, valid or not.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn token(&self, hash: &Digest) -> Result<Option<Token>, ReadError> {
        self.one(concat!("SELECT ", columns!(), " FROM tokens WHERE hash = ?1"), [hash.0], read)
    }

    /// The token with this number, valid or not.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn token_by_number(&self, number: u64) -> Result<Option<Token>, ReadError> {
        self.one(concat!("SELECT ", columns!(), " FROM tokens WHERE number = ?1"), [number as i64], read)
    }

    /// Every token of one user, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tokens_of(&self, owner: UserId) -> Result<Vec<Token>, ReadError> {
        let sql = concat!("SELECT ", columns!(), " FROM tokens WHERE owner = ?1 ORDER BY number");
        self.all(sql, [owner.0 as i64], read)
    }

    /// The hashes of those that were revoked.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn revoked_tokens(&self) -> Result<Vec<Digest>, ReadError> {
        const SQL: &str = "SELECT hash FROM tokens WHERE revoked_at IS NOT NULL ORDER BY number";
        self.all(SQL, [], |row| Ok(Digest(row.get(0)?)))
    }

    /// The tokens that were made by one, by those that were made by it, and so on; not that one itself.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tokens_made_by(&self, number: u64) -> Result<Vec<Token>, ReadError> {
        let sql = concat!(
            "WITH RECURSIVE made (by_number) AS (SELECT number FROM tokens WHERE made_by = ?1 \
             UNION SELECT tokens.number FROM tokens JOIN made ON tokens.made_by = made.by_number) \
             SELECT ",
            columns!(),
            " FROM tokens WHERE number IN (SELECT by_number FROM made) ORDER BY number"
        );
        self.all(sql, [number as i64], read)
    }
}

impl Tx<'_> {
    /// Adds a token; its `number` is chosen here and returned.
    ///
    /// # Errors
    /// There is no such user, or those of the disk.
    pub fn add_token(&mut self, token: &Token) -> Result<u64, WriteError> {
        const NEXT: &str = "SELECT COALESCE(MAX(number), 0) + 1 FROM tokens";
        const SQL: &str = concat!(
            "INSERT INTO tokens (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        );
        let number = self.one(NEXT, [], |row| get_u64(row, 0))?.unwrap_or(1);
        let time = |at: Option<Timestamp>| at.map(|at| at.0);
        let values = params![
            number as i64,
            token.hash.0,
            token.prefix,
            token.owner.0 as i64,
            token.label,
            encode(&token.scope),
            token.created_at.0,
            time(token.expires_at),
            time(token.used_at),
            time(token.revoked_at),
            token.made_by.map(|number| number as i64),
        ];
        self.insert(SQL, values, || "this token".into())?;
        Ok(number)
    }

    /// Notes a use.
    ///
    /// # Errors
    /// There is no such token, or those of the disk.
    pub fn note_token_use(&mut self, hash: &Digest, at: Timestamp) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE tokens SET used_at = ?2 WHERE hash = ?1";
        self.change(SQL, params![hash.0, at.0], || "this token".into())
    }

    /// Ends a token at once. The time of its first revocation stays.
    ///
    /// # Errors
    /// There is no such token, or those of the disk.
    pub fn revoke_token(&mut self, number: u64, at: Timestamp) -> Result<(), WriteError> {
        const SQL: &str = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, ?2) WHERE number = ?1";
        self.change(SQL, params![number as i64, at.0], || format!("token {number}"))
    }
}
