//! What is said and stuck on changes: comments and labels.

use rusqlite::params;
use towpath_core::ids::{ChangeNumber, RepoName, Timestamp, UserId};

use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_time};

/// A comment on a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Counts the change's comments, from 1. Chosen when it is added.
    pub number: u32,
    /// Who; the server itself has no author.
    pub author: Option<UserId>,
    /// With a key, there is one comment of this key, edited in place.
    pub key: Option<String>,
    /// What.
    pub text: String,
    /// When it was made.
    pub at: Timestamp,
    /// When its text last changed.
    pub edited_at: Option<Timestamp>,
}

/// A label that was put on a change or taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelEvent {
    /// Counts the change's label events, from 1. Chosen when it is added.
    pub number: u32,
    /// Which label.
    pub label: String,
    /// On or off.
    pub added: bool,
    /// Who; the server itself is nobody.
    pub actor: Option<UserId>,
    /// When.
    pub at: Timestamp,
}

fn user(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<UserId>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(|number| UserId(number as u64)))
}

impl View {
    /// The comments on a change, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn comments(&self, repo: &RepoName, change: ChangeNumber) -> Result<Vec<Comment>, ReadError> {
        const SQL: &str = "SELECT number, author, key, text, at, edited_at FROM comments \
             WHERE repo = ?1 AND change = ?2 ORDER BY number";
        self.all(SQL, params![repo.as_str(), change.0 as i64], |row| {
            Ok(Comment {
                number: row.get(0)?,
                author: user(row, 1)?,
                key: row.get(2)?,
                text: row.get(3)?,
                at: Timestamp(row.get(4)?),
                edited_at: get_time(row, 5)?,
            })
        })
    }

    /// What happened to the labels of a change, oldest first.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn label_events(&self, repo: &RepoName, change: ChangeNumber) -> Result<Vec<LabelEvent>, ReadError> {
        const SQL: &str = "SELECT number, label, added, actor, at FROM label_events \
             WHERE repo = ?1 AND change = ?2 ORDER BY number";
        self.all(SQL, params![repo.as_str(), change.0 as i64], |row| {
            Ok(LabelEvent {
                number: row.get(0)?,
                label: row.get(1)?,
                added: row.get(2)?,
                actor: user(row, 3)?,
                at: Timestamp(row.get(4)?),
            })
        })
    }
}

impl Tx<'_> {
    /// Adds a comment, or edits the one with the same key; returns its number.
    ///
    /// # Errors
    /// There is no such change, or those of the disk.
    pub fn put_comment(
        &mut self,
        (repo, change): (&RepoName, ChangeNumber),
        comment: &Comment,
    ) -> Result<u32, WriteError> {
        const SQL: &str = "INSERT INTO comments (repo, change, number, author, key, text, at, edited_at) \
             VALUES (?1, ?2, (SELECT COALESCE(MAX(number), 0) + 1 FROM comments WHERE repo = ?1 AND change = ?2), \
             ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (repo, change, key) DO UPDATE SET text = excluded.text, edited_at = excluded.at \
             RETURNING number";
        let values = params![
            repo.as_str(),
            change.0 as i64,
            comment.author.map(|author| author.0 as i64),
            comment.key,
            comment.text,
            comment.at.0,
            comment.edited_at.map(|at| at.0),
        ];
        self.returning(SQL, values)
    }

    /// Adds a label event; returns its number. The change's own labels are set by [`Tx::put_change`].
    ///
    /// # Errors
    /// There is no such change, or those of the disk.
    pub fn add_label_event(
        &mut self,
        (repo, change): (&RepoName, ChangeNumber),
        event: &LabelEvent,
    ) -> Result<u32, WriteError> {
        const SQL: &str = "INSERT INTO label_events (repo, change, number, label, added, actor, at) \
             VALUES (?1, ?2, (SELECT COALESCE(MAX(number), 0) + 1 FROM label_events WHERE repo = ?1 AND change = ?2), \
             ?3, ?4, ?5, ?6) RETURNING number";
        let actor = event.actor.map(|actor| actor.0 as i64);
        let values = params![repo.as_str(), change.0 as i64, event.label, event.added, actor, event.at.0];
        self.returning(SQL, values)
    }
}
