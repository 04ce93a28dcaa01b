//! The growing end of the audit log, as the writer holds it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::params;
use towpath_core::ids::{Digest, Timestamp};

use super::leaf::{Entry, Leaf, Restored, Rotation, Succession};
use super::merkle::{self, Frontier, Hashes, TILE_LEVELS};
use super::note::{AuditKey, Checkpoint, SignedCheckpoint};
use crate::error::{ReadError, WriteError};
use crate::incarnation::Incarnation;
use crate::tx::encode;
use crate::view::{View, damaged, get_u64};

/// Leaves that are committed, as their frontier, and leaves of the group in progress.
#[derive(Debug)]
pub(crate) struct Log {
    frontier: Frontier,
    pending: Vec<Pending>,
    signer: Option<Arc<AuditKey>>,
    /// Named by every checkpoint.
    life: Incarnation,
    /// The key that signs from the rotation leaf with this number on, once the group is committed.
    successor: Option<(u64, Arc<AuditKey>)>,
}

#[derive(Debug)]
struct Pending {
    body: String,
    hash: Digest,
}

impl Log {
    /// The log as it is stored.
    pub fn load(view: &View, signer: Option<Arc<AuditKey>>, life: Incarnation) -> Result<Log, ReadError> {
        let frontier = Frontier::load(view, view.leaf_count()?)?;
        Ok(Log { frontier, pending: Vec::new(), signer, life, successor: None })
    }

    /// The life that its checkpoints name.
    pub fn life(&self) -> Incarnation {
        self.life
    }

    /// How many leaves there are, the group's own included.
    pub fn size(&self) -> u64 {
        self.frontier.size() + self.pending.len() as u64
    }

    /// How many leaves are committed.
    pub fn committed_size(&self) -> u64 {
        self.frontier.size()
    }

    /// Adds a leaf to the group; `entry` is JSON of a [`super::Entry`].
    pub fn append(&mut self, at: Timestamp, entry: &str) -> u64 {
        let leaf = self.size();
        let body = format!("{{\"leaf\":{leaf},\"at\":{},\"entry\":{entry}}}", at.0);
        let hash = merkle::leaf_hash(body.as_bytes());
        self.pending.push(Pending { body, hash });
        leaf
    }

    /// Adds the leaf by which another key takes over.
    pub fn rotate(&mut self, at: Timestamp, key: Arc<AuditKey>) -> Result<u64, WriteError> {
        let old = self.signer()?;
        let rotation = Rotation::sign(self.size(), old, &key);
        let leaf = self.append(at, &format!("{{\"rotation\":{}}}", encode(&rotation)));
        self.successor = Some((leaf, key));
        Ok(leaf)
    }

    /// Adds the leaf by which the signer takes the place of a key that is lost.
    pub fn succeed(&mut self, at: Timestamp, lost: String) -> Result<(), WriteError> {
        let key = self.signer.clone().ok_or_else(no_key)?;
        let succession = Succession { old: lost, new: key.verifier().to_string() };
        let leaf = self.append(at, &format!("{{\"succession\":{}}}", encode(&succession)));
        self.successor = Some((leaf, key));
        Ok(())
    }

    /// Forgets what a unit that failed had added.
    pub fn truncate(&mut self, size: u64) {
        self.pending.truncate(size.saturating_sub(self.frontier.size()) as usize);
        self.successor.take_if(|(leaf, _)| *leaf >= size);
    }

    /// Whether there is a key to sign with.
    pub fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    fn signer(&self) -> Result<&AuditKey, WriteError> {
        let newest = self.successor.as_ref().map(|(_, key)| key).or(self.signer.as_ref());
        newest.map(|key| &**key).ok_or_else(no_key)
    }

    /// Writes the group's leaves; the result is what the frontier is after the commit.
    pub fn flush(&self, view: &View) -> Result<Frontier, WriteError> {
        const LEAF: &str = "INSERT INTO leaves (number, body, hash) VALUES (?1, ?2, ?3)";
        const NODE: &str = "INSERT INTO tree_nodes (level, position, hash) VALUES (?1, ?2, ?3)";
        let mut frontier = self.frontier.clone();
        let mut nodes = Vec::new();
        for leaf in &self.pending {
            let number = frontier.size() as i64;
            view.conn.prepare_cached(LEAF)?.execute(params![number, leaf.body, leaf.hash.0])?;
            frontier.push(leaf.hash, |level, position, hash| {
                if level % TILE_LEVELS == 0 {
                    nodes.push((level, position, hash));
                }
            });
        }
        for (level, position, hash) in nodes {
            view.conn.prepare_cached(NODE)?.execute(params![level, position as i64, hash.0])?;
        }
        if let Some((since, key)) = &self.successor {
            put_key(view, *since, key)?;
        }
        Ok(frontier)
    }

    /// Signs and writes a checkpoint over a flushed frontier.
    pub fn seal(&self, view: &View, frontier: &Frontier) -> Result<SignedCheckpoint, WriteError> {
        const SQL: &str = "INSERT INTO checkpoints (size, note) VALUES (?1, ?2) ON CONFLICT (size) DO UPDATE SET note = excluded.note";
        let note = self.signer()?.sign_checkpoint(frontier.size(), frontier.root(), Some(self.life));
        view.conn.prepare_cached(SQL)?.execute(params![frontier.size() as i64, note.to_string()])?;
        Ok(note)
    }

    /// The group is durable.
    pub fn committed(&mut self, frontier: Frontier) {
        self.frontier = frontier;
        self.pending.clear();
        if let Some((_, key)) = self.successor.take() {
            self.signer = Some(key);
        }
    }

    /// The group is lost.
    pub fn rolled_back(&mut self) {
        self.pending.clear();
        self.successor = None;
    }
}

fn no_key() -> WriteError {
    WriteError::Missing { what: "an audit key".into() }
}

/// Notes whose signatures count from leaf `since` on.
pub(crate) fn put_key(view: &View, since: u64, key: &AuditKey) -> Result<(), WriteError> {
    const SQL: &str = "INSERT INTO audit_keys (since, verifier) VALUES (?1, ?2)";
    view.conn.prepare_cached(SQL)?.execute(params![since as i64, key.verifier().to_string()])?;
    Ok(())
}

impl Hashes for View {
    type Error = ReadError;

    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Digest>, ReadError> {
        const LEAVES: &str = "SELECT hash FROM leaves WHERE number >= ?1 AND number < ?2 ORDER BY number";
        const NODES: &str = "SELECT hash FROM tree_nodes \
             WHERE position >= ?1 AND position < ?2 AND level = ?3 ORDER BY position";
        let (start, end) = (from as i64, (from + count) as i64);
        let hash = |row: &rusqlite::Row<'_>| row.get(0).map(Digest);
        let hashes = match level {
            0 => self.all(LEAVES, params![start, end], hash)?,
            _ => self.all(NODES, params![start, end, level], hash)?,
        };
        match hashes.len() as u64 == count {
            true => Ok(hashes),
            false => Err(damaged(format!("the audit log lacks hashes at level {level} from {from} on"))),
        }
    }
}

impl View {
    /// How many leaves the audit log has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn leaf_count(&self) -> Result<u64, ReadError> {
        let last = self.one("SELECT MAX(number) FROM leaves", [], |row| row.get::<_, Option<i64>>(0))?;
        Ok(last.flatten().map_or(0, |last| last as u64 + 1))
    }

    /// How many leaves at the end of the log have no checkpoint yet, by what lies beside them.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn unsealed(&self) -> Result<u64, ReadError> {
        const SQL: &str = "SELECT (SELECT COALESCE(MAX(number) + 1, 0) FROM leaves), \
             (SELECT COALESCE(MAX(size), 0) FROM checkpoints)";
        let counted = self.one(SQL, [], |row| Ok((get_u64(row, 0)?, get_u64(row, 1)?)))?;
        let (leaves, sealed) = counted.unwrap_or_default();
        Ok(leaves.saturating_sub(sealed))
    }

    /// Leaves from `from` on, oldest first, at most `count`: the exact bytes that were hashed.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn leaves(&self, from: u64, count: usize) -> Result<Vec<String>, ReadError> {
        const SQL: &str = "SELECT body FROM leaves WHERE number >= ?1 ORDER BY number LIMIT ?2";
        self.all(SQL, params![from as i64, i64::try_from(count).unwrap_or(i64::MAX)], |row| row.get(0))
    }

    /// The restores that the log tells of, each with its leaf. Reads every leaf.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn restores(&self) -> Result<Vec<(u64, Restored)>, ReadError> {
        const SQL: &str = "SELECT body FROM leaves WHERE body LIKE '%\"restored\":{%'";
        let bodies = self.all(SQL, [], |row| row.get::<_, String>(0))?;
        let leaves = bodies.iter().filter_map(|body| serde_json::from_str::<Leaf>(body).ok());
        let restores = leaves.filter_map(|leaf| match leaf.entry {
            Entry::Restored(restored) => Some((leaf.leaf, restored)),
            Entry::Act(_) | Entry::Rotation(_) | Entry::Succession(_) => None,
        });
        Ok(restores.collect())
    }

    /// Whether a checkpoint of at most as many leaves as there are is over these.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn is_under(&self, checkpoint: &Checkpoint) -> Result<bool, ReadError> {
        Ok(merkle::root(self, checkpoint.size)? == checkpoint.root)
    }

    /// The newest signed checkpoint, as text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<String>, ReadError> {
        self.one("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", [], |row| row.get(0))
    }

    /// What one leaf is about; `None`: there is none, or it cannot be understood, which the verifier tells of.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn leaf(&self, number: u64) -> Result<Option<Entry>, ReadError> {
        const SQL: &str = "SELECT body FROM leaves WHERE number = ?1";
        let body = self.one(SQL, [number as i64], |row| row.get::<_, String>(0))?;
        Ok(body.and_then(|body| serde_json::from_str::<Leaf>(&body).ok()).map(|leaf| leaf.entry))
    }

    /// The checkpoints over so many leaves that lie beside these, as far as they can be understood.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn checkpoints_of(
        &self,
        sizes: RangeInclusive<u64>,
    ) -> Result<Vec<SignedCheckpoint>, ReadError> {
        const SQL: &str = "SELECT note FROM checkpoints WHERE size BETWEEN ?1 AND ?2";
        let sizes = params![*sizes.start() as i64, *sizes.end() as i64];
        let notes = self.all(SQL, sizes, |row| row.get::<_, String>(0))?;
        Ok(notes.iter().filter_map(|note| note.parse().ok()).collect())
    }

    /// Every key that has signed the log, oldest first, as text.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn audit_verifiers(&self) -> Result<Vec<String>, ReadError> {
        self.all("SELECT verifier FROM audit_keys ORDER BY since", [], |row| row.get(0))
    }

    /// The key whose signature the next checkpoint must bear, as text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn audit_verifier(&self) -> Result<Option<String>, ReadError> {
        self.one("SELECT verifier FROM audit_keys ORDER BY since DESC LIMIT 1", [], |row| row.get(0))
    }

    /// The proof that a leaf is in the tree of the first `size` leaves, for whoever holds a checkpoint of that size.
    ///
    /// # Errors
    /// There is no such leaf or tree, or it cannot be read.
    pub fn inclusion_proof(&self, leaf: u64, size: u64) -> Result<Vec<Digest>, ReadError> {
        if leaf >= size || size > self.leaf_count()? {
            return Err(damaged(format!("the audit log has no leaf {leaf} in a tree of {size}")));
        }
        merkle::inclusion(self, leaf, size)
    }

    /// The proof that the tree of `old` leaves is the beginning of the tree of `new` leaves.
    ///
    /// # Errors
    /// There are no such trees, or they cannot be read.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, ReadError> {
        if old == 0 || old > new || new > self.leaf_count()? {
            return Err(damaged(format!("the audit log has no trees of {old} and {new} leaves")));
        }
        merkle::consistency(self, old, new)
    }
}
