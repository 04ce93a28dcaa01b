//! Reviews: who said what about which revision. Kept as they were given; the newest of a person on a revision counts.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use towpath_core::ids::{ChangeNumber, CommitId, Digest, RepoName, Timestamp, UserId};

use super::word_of;
use crate::error::{ReadError, WriteError};
use crate::tx::Tx;
use crate::view::{View, get_u64, parsed, word};

/// One review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Where.
    pub repo: RepoName,
    /// Of which change.
    pub change: ChangeNumber,
    /// Counts the change's reviews, from 1. Chosen by [`Tx::add_review`].
    pub number: u32,
    /// The revision that was looked at.
    pub revision: CommitId,
    /// The definition that it was shown with.
    pub definition: Option<Digest>,
    /// The message that would land.
    pub message: Option<Digest>,
    /// Who.
    pub reviewer: UserId,
    /// What.
    pub verdict: ReviewVerdict,
    /// Why.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// What a review says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    /// It may land.
    Approve,
    /// It may not, as it is.
    RequestChanges,
    /// What the person said before no longer counts.
    Withdrawn,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Review> {
    let digest = |at| row.get::<_, Option<[u8; 32]>>(at).map(|bytes| bytes.map(Digest));
    Ok(Review {
        repo: parsed(row, 0)?,
        change: ChangeNumber(get_u64(row, 1)?),
        number: row.get(2)?,
        revision: parsed(row, 3)?,
        definition: digest(4)?,
        message: digest(5)?,
        reviewer: UserId(get_u64(row, 6)?),
        verdict: word(row, 7)?,
        text: row.get(8)?,
        at: Timestamp(row.get(9)?),
    })
}

impl View {
    /// The reviews of a change, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn reviews(&self, repo: &RepoName, change: ChangeNumber) -> Result<Vec<Review>, ReadError> {
        const SQL: &str = "SELECT repo, change, number, revision, definition, message, reviewer, verdict, text, at \
             FROM reviews WHERE repo = ?1 AND change = ?2 ORDER BY number";
        self.all(SQL, params![repo.as_str(), change.0 as i64], read)
    }
}

impl Tx<'_> {
    /// Adds a review; its number is chosen here and returned.
    ///
    /// # Errors
    /// There is no such change, or those of the disk.
    pub fn add_review(&mut self, review: &Review) -> Result<u32, WriteError> {
        const NEXT: &str = "SELECT COALESCE(MAX(number), 0) + 1 FROM reviews WHERE repo = ?1 AND change = ?2";
        const SQL: &str = "INSERT INTO reviews \
             (repo, change, number, revision, definition, message, reviewer, verdict, text, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let change = review.change.0 as i64;
        let number = self.one(NEXT, params![review.repo.as_str(), change], |row| row.get(0))?.unwrap_or(1);
        let values = params![
            review.repo.as_str(),
            change,
            number,
            review.revision.to_string(),
            review.definition.map(|digest| digest.0),
            review.message.map(|digest| digest.0),
            review.reviewer.0 as i64,
            word_of(&review.verdict),
            review.text,
            review.at.0,
        ];
        self.run(SQL, values)?;
        Ok(number)
    }
}
