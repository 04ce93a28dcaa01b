//! Logins of browsers.

use rusqlite::{Row, params};
use towpath_core::ids::{Digest, Timestamp, UserId};

use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64};

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The SHA-256 of the cookie's value.
    pub hash: Digest,
    /// What every form of the session must bring back.
    pub csrf: String,
    /// Who.
    pub owner: UserId,
    /// The SHA-256 of the token that opened it, if one did: it holds only while that one does.
    pub token: Option<Digest>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        hash: Digest(row.get(0)?),
        csrf: row.get(1)?,
        owner: UserId(get_u64(row, 2)?),
        token: row.get::<_, Option<[u8; 32]>>(3)?.map(Digest),
        created_at: Timestamp(row.get(4)?),
        expires_at: Timestamp(row.get(5)?),
    })
}

impl View {
    /// The session with this hash, unless it is over at `now`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn session(&self, hash: &Digest, now: Timestamp) -> Result<Option<Session>, ReadError> {
        const SQL: &str = "SELECT hash, csrf, owner, token, created_at, expires_at FROM sessions \
             WHERE hash = ?1 AND expires_at > ?2";
        self.one(SQL, params![hash.0, now.0], read)
    }
}

impl Tx<'_> {
    /// Begins a session.
    ///
    /// # Errors
    /// There is no such user or token, or those of the disk.
    pub fn add_session(&mut self, session: &Session) -> Result<(), WriteError> {
        const SQL: &str = "INSERT INTO sessions (hash, csrf, owner, token, created_at, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Session { hash, csrf, owner, token, created_at, expires_at } = session;
        let token = token.map(|token| token.0);
        let values = params![hash.0, csrf, owner.0 as i64, token, created_at.0, expires_at.0];
        self.insert(SQL, values, || "this session".into())
    }

    /// Ends a session; one that is over already is success.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_session(&mut self, hash: &Digest) -> Result<(), WriteError> {
        self.run("DELETE FROM sessions WHERE hash = ?1", [hash.0]).map(drop)
    }

    /// Ends every session of one user.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_sessions_of(&mut self, owner: UserId) -> Result<(), WriteError> {
        self.run("DELETE FROM sessions WHERE owner = ?1", [owner.0 as i64]).map(drop)
    }

    /// Deletes sessions that are over at `now`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_expired_sessions(&mut self, now: Timestamp) -> Result<(), WriteError> {
        self.run("DELETE FROM sessions WHERE expires_at <= ?1", [now.0]).map(drop)
    }
}
