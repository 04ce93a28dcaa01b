//! The offline verifier: recomputes everything from the leaves' bytes and compares it with all that claims to know it.

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::Row;
use towpath_core::ids::Digest;

use super::leaf::{Entry, Leaf, Restored, Sealed, Succession, has_lost};
use super::merkle::{self, Frontier, TILE_LEVELS};
use super::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use crate::error::ReadError;
use crate::incarnation::Incarnation;
use crate::view::View;

/// A checkpoint that was kept outside of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where it was found, for people: `checkpoints.txt, entry 3`.
    pub place: String,
    /// The signed checkpoint.
    pub text: String,
}

/// What the verifier saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many leaves there are.
    pub leaves: u64,
    /// The root over all of them.
    pub root: String,
    /// How many leaves no good checkpoint covers by a key that is vouched for: nothing can be said about them.
    pub unsealed: u64,
    /// Checkpoints in the database and outside that are good, by a key that is vouched for.
    pub checkpoints: u64,
    /// Restores that the log admits and a good checkpoint covers, each with its leaf. What they lost is no finding, but
    /// worth reading.
    pub restores: Vec<(u64, Restored)>,
    /// Keys that were lost, as the log admits and a good checkpoint covers, each with its leaf.
    pub successions: Vec<(u64, Succession)>,
    /// Checkpoints that were kept outside and would be findings, if those restores did not tell of the end of their lives.
    pub excused: Vec<Excused>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The good checkpoints of one life over leaves that a restore lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excused {
    /// Whose; `None`: of older servers, which named none.
    pub life: Option<Incarnation>,
    /// How many they are.
    pub checkpoints: u64,
    /// Over how many leaves the smallest of them is.
    pub least_leaves: u64,
    /// Over how many the largest is.
    pub most_leaves: u64,
}

impl fmt::Display for Excused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Excused { life, checkpoints, least_leaves, most_leaves } = self;
        let whose = life.map_or("a life without a name".to_owned(), |life| format!("life {life}"));
        write!(f, "{checkpoints} of {whose}, over {least_leaves} to {most_leaves} leaves: a restore ended it")
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A place in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// One leaf.
    Leaf(u64),
    /// One of these leaves, the second number excluded.
    Leaves(u64, u64),
    /// A stored interior node: level, position.
    Node(u32, u64),
    /// A checkpoint in the database, by its size.
    Checkpoint(u64),
    /// A checkpoint outside the database.
    Held(String),
    /// A noted key, by its first leaf.
    Key(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Leaf(number) => write!(f, "leaf {number}"),
            Place::Leaves(from, to) => write!(f, "leaves {from} to {}", to.saturating_sub(1)),
            Place::Node(level, position) => write!(f, "tree node {position} at level {level}"),
            Place::Checkpoint(size) => write!(f, "checkpoint of {size} leaves"),
            Place::Held(place) => f.write_str(place),
            Place::Key(since) => write!(f, "key since leaf {since}"),
        }
    }
}

/// Checks the whole log of a database, with the checkpoints that somebody held and the keys that somebody trusts. One
/// key of the log's history is enough, as each rotation is signed by both keys; where one was lost, it has to be one since.
///
/// # Errors
/// The database cannot be read at all; damage within rows is a finding.
pub fn verify(view: &View, held: &[Held], trusted: &[VerifierKey]) -> Result<Report, ReadError> {
    // One moment of it: a server may be writing, and what comes in between belongs to none of what was read before.
    let _moment = view.conn.unchecked_transaction()?;
    let mut check = Check::new(view, held)?;
    check.leaves(view)?;
    check.nodes(view)?;
    check.key_chain(view, trusted)?;
    check.checkpoints();
    check.report.findings.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(check.report)
}

/// A checkpoint to be checked, from wherever it is.
struct Claim {
    place: Place,
    /// The size that its row stands under.
    row_size: Option<u64>,
    note: Option<SignedCheckpoint>,
}

struct Check {
    report: Report,
    frontier: Frontier,
    next_number: i64,
    nodes: BTreeMap<(u32, u64), Digest>,
    claims: Vec<Claim>,
    /// The computed roots at the sizes that are claimed.
    roots: BTreeMap<u64, Digest>,
    /// The leaves by which another key took over, with the one before and the new one.
    changes: Vec<(u64, VerifierKey, VerifierKey)>,
    /// The key of each stretch, with the number of the leaf that brought it.
    keys: Vec<(u64, VerifierKey)>,
    /// Up to how many leaves a key that is trusted, or one that it handed over to or that gave way to it, signs: what signs
    /// more is nobody's whom the trusted ones know of.
    vouched: u64,
}

impl Check {
    fn new(view: &View, held: &[Held]) -> Result<Check, ReadError> {
        let inside = view.all("SELECT size, note FROM checkpoints ORDER BY size", [], |row| {
            Ok((row.get::<_, i64>(0)?, text(row, 1)?))
        })?;
        let inside = inside.into_iter().map(|(size, text)| Claim {
            place: Place::Checkpoint(size as u64),
            row_size: Some(size as u64),
            note: text.parse().ok(),
        });
        let outside = held.iter().map(|held| Claim {
            place: Place::Held(held.place.clone()),
            row_size: None,
            note: held.text.parse().ok(),
        });
        Ok(Check {
            report: Report::default(),
            frontier: Frontier::default(),
            next_number: 0,
            nodes: BTreeMap::new(),
            claims: inside.chain(outside).collect(),
            roots: BTreeMap::new(),
            changes: Vec::new(),
            keys: Vec::new(),
            vouched: u64::MAX,
        })
    }

    fn find(&mut self, place: Place, what: impl Into<String>) {
        self.report.findings.push(Finding { place, what: what.into() });
    }

    fn leaves(&mut self, view: &View) -> Result<(), ReadError> {
        let sizes = self.claims.iter().filter_map(|claim| claim.note.as_ref());
        self.roots = sizes.map(|note| (note.checkpoint.size, Digest([0; 32]))).collect();
        self.note_root();
        let mut statement = view.conn.prepare("SELECT number, body, hash FROM leaves ORDER BY number")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.leaf(row)?;
            self.note_root();
        }
        self.report.leaves = self.frontier.size();
        self.report.root = self.frontier.root().to_string();
        Ok(())
    }

    /// One leaf in its turn. What is missing before it shows as a gap, and in every root after it.
    fn leaf(&mut self, row: &Row<'_>) -> Result<(), ReadError> {
        let expected = self.frontier.size();
        let number: i64 = row.get(0)?;
        if number != self.next_number {
            self.find(Place::Leaf(expected), format!("the next leaf in the database has number {number}"));
        }
        // A jump is reported where it happens, not at every leaf after it.
        self.next_number = number.saturating_add(1);
        let body = row.get_ref(1)?.as_bytes().unwrap_or_default();
        let hash = merkle::leaf_hash(body);
        if row.get_ref(2)?.as_bytes().unwrap_or_default() != hash.0 {
            self.find(Place::Leaf(expected), "its bytes do not have the hash that is stored with them");
        }
        match serde_json::from_slice::<Leaf>(body) {
            Err(why) => self.find(Place::Leaf(expected), format!("it cannot be read: {why}")),
            Ok(leaf) if leaf.leaf != expected => {
                self.find(Place::Leaf(expected), format!("it says that it is leaf {}", leaf.leaf));
            }
            Ok(leaf) => self.entry(leaf),
        }
        let nodes = &mut self.nodes;
        self.frontier.push(hash, |level, position, hash| {
            if level % TILE_LEVELS == 0 {
                nodes.insert((level, position), hash);
            }
        });
        Ok(())
    }

    fn entry(&mut self, leaf: Leaf) {
        match leaf.entry {
            Entry::Act(_) => {}
            Entry::Restored(restored) => self.report.restores.push((leaf.leaf, restored)),
            Entry::Rotation(rotation) => match rotation.keys(leaf.leaf) {
                Some((old, new)) => self.changes.push((leaf.leaf, old, new)),
                None => self.find(Place::Leaf(leaf.leaf), "a change of keys that not both keys signed"),
            },
            Entry::Succession(succession) => match succession.keys() {
                Some((old, new)) => {
                    self.changes.push((leaf.leaf, old, new));
                    self.report.successions.push((leaf.leaf, succession));
                }
                None => self.find(Place::Leaf(leaf.leaf), "a change of keys that names no keys"),
            },
        }
    }

    fn note_root(&mut self) {
        if let Some(root) = self.roots.get_mut(&self.frontier.size()) {
            *root = self.frontier.root();
        }
    }

    fn nodes(&mut self, view: &View) -> Result<(), ReadError> {
        let stored = view.all("SELECT level, position, hash FROM tree_nodes", [], |row| {
            let hash = row.get_ref(2)?.as_bytes().unwrap_or_default().to_vec();
            Ok((row.get::<_, i64>(0)? as u32, row.get::<_, i64>(1)? as u64, hash))
        })?;
        for (level, position, hash) in stored {
            let what = match self.nodes.remove(&(level, position)) {
                None => "no such node belongs into this tree",
                Some(computed) if computed.0[..] != hash => "it is not the hash of what is below it",
                Some(_) => continue,
            };
            self.find(Place::Node(level, position), what);
        }
        for (level, position) in std::mem::take(&mut self.nodes).into_keys() {
            self.find(Place::Node(level, position), "it is missing");
        }
        Ok(())
    }

    /// Which key signs which stretch of the log, from the changes in it.
    fn key_chain(&mut self, view: &View, trusted: &[VerifierKey]) -> Result<(), ReadError> {
        let noted = view.all("SELECT since, verifier FROM audit_keys ORDER BY since", [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, text(row, 1)?))
        })?;
        for (leaf, old, new) in std::mem::take(&mut self.changes) {
            match self.keys.last() {
                _ if leaf == 0 => {
                    self.find(
                        Place::Leaf(0),
                        "a change from a key that has signed nothing: there is no leaf before it",
                    );
                }
                None => self.keys.extend([(0, old), (leaf, new)]),
                Some((_, current)) if *current == old => self.keys.push((leaf, new)),
                Some(_) => self.find(Place::Leaf(leaf), "a change from a key that did not sign here"),
            }
        }
        if self.keys.is_empty() {
            let first = noted.first().and_then(|(_, text)| text.parse::<VerifierKey>().ok());
            // Without a change the trusted key itself must be the only one.
            let key = first.filter(|key| trusted.contains(key)).or_else(|| trusted.first().cloned());
            self.keys.extend(key.map(|key| (0, key)));
        }
        if !self.keys.iter().any(|(_, key)| trusted.contains(key)) {
            self.find(Place::Key(0), "no key of this log is one that you trust");
        }
        self.trust_since_a_loss(trusted);
        let chain: Vec<(u64, String)> = self.keys.iter().map(|(at, key)| (*at, key.to_string())).collect();
        if !noted.is_empty() || !self.claims.is_empty() {
            let odd = (0..noted.len().max(chain.len())).find(|&at| noted.get(at) != chain.get(at));
            if let Some(at) = odd {
                let since = noted.get(at).or(chain.get(at)).map_or(0, |(since, _)| *since);
                self.find(Place::Key(since), "the noted keys are not those that the leaves vouch for");
            }
        }
        Ok(())
    }

    /// Anybody can write that a key is lost. Who knows of it trusts a key of the time since; to whoever does not, what is signed
    /// from there on says nothing.
    fn trust_since_a_loss(&mut self, trusted: &[VerifierKey]) {
        let newest = self.keys.iter().rev().find(|(_, key)| trusted.contains(key)).map(|(since, _)| *since);
        let mut losses = self.report.successions.iter().map(|(leaf, _)| *leaf);
        let Some(leaf) = losses.find(|leaf| newest.is_none_or(|newest| newest < *leaf)) else { return };
        self.vouched = leaf;
        let what = "it gives up the key before it as lost, and no key since is one that you trust; if you know of that \
                    loss, trust the new key, `--key KEY`";
        self.find(Place::Leaf(leaf), what);
    }

    /// The key for checkpoints of this size.
    fn key_for(&self, size: u64) -> Option<&VerifierKey> {
        let stretch = self.keys.iter().rev().find(|(since, _)| *since == 0 || *since < size);
        stretch.map(|(_, key)| key)
    }

    fn checkpoints(&mut self) {
        let mut claims = std::mem::take(&mut self.claims);
        // One over no leaves says nothing of them, and one that was kept may be by a key that never signed any.
        claims.retain(|claim| {
            claim.row_size.is_some() || claim.note.as_ref().is_none_or(|note| note.checkpoint.size > 0)
        });
        claims.sort_by_key(|claim| claim.note.as_ref().map_or(0, |note| note.checkpoint.size));
        let (mut signed, mut sealed, mut wrong) = (0, Sealed::new(), Vec::new());
        for claim in claims {
            if let Some(finding) = self.wrong_with(&claim, signed) {
                wrong.push((claim, finding));
                continue;
            }
            let Some(Checkpoint { size, life, .. }) = claim.note.map(|note| note.checkpoint) else {
                continue;
            };
            signed = size;
            if size <= self.vouched {
                self.report.checkpoints += 1;
                sealed.insert((size, life));
            }
        }
        let covered = sealed.last().map_or(0, |(size, _)| *size);
        self.report.unsealed = self.report.leaves.saturating_sub(covered);
        self.signed_at_all(covered);
        self.restores(&sealed);
        self.successions(signed);
        for (claim, finding) in wrong {
            match self.is_explained(&claim) {
                true => self.excuse(&claim),
                false => self.report.findings.push(finding),
            }
        }
    }

    /// Leaves alone are by whoever has the data: what agrees with itself and is under nothing says no more than an empty record.
    fn signed_at_all(&mut self, covered: u64) {
        if covered == 0 && self.report.leaves > 0 {
            let what = "no good checkpoint by a key that you trust covers any of them, and nothing tells who wrote them; a \
                        server that was killed within a second of its first leaf puts one over them when it is started, and \
                        does not start where it has signed others: start it with its keys, then verify again";
            self.find(Place::Leaves(0, self.report.leaves), what);
        }
    }

    fn excuse(&mut self, claim: &Claim) {
        let Some(Checkpoint { life, size, .. }) = claim.note.as_ref().map(|note| &note.checkpoint) else {
            return;
        };
        match self.report.excused.iter_mut().find(|one| one.life == *life) {
            // By their sizes, in order.
            Some(one) => (one.checkpoints, one.most_leaves) = (one.checkpoints + 1, *size),
            None => self.report.excused.push(Excused {
                life: *life,
                checkpoints: 1,
                least_leaves: *size,
                most_leaves: *size,
            }),
        }
    }

    /// Only the restores that count stay; each other one is found.
    fn restores(&mut self, sealed: &Sealed) {
        for (leaf, restored) in std::mem::take(&mut self.report.restores) {
            let with_key = self.report.successions.iter().any(|(at, _)| *at == leaf + 1);
            match restored.disbelieved(leaf, with_key, sealed) {
                Some(what) => self.find(Place::Leaf(leaf), what),
                None => self.report.restores.push((leaf, restored)),
            }
        }
    }

    /// The new key vouches for having taken over by what it signs.
    fn successions(&mut self, signed: u64) {
        let unsealed = self.report.successions.iter().filter(|(leaf, _)| *leaf >= signed);
        for leaf in unsealed.map(|(leaf, _)| *leaf).collect::<Vec<_>>() {
            let what =
                "it gives up the key as lost, and no good checkpoint covers it: anybody may have written it";
            self.find(Place::Leaf(leaf), what);
        }
    }

    fn wrong_with(&self, claim: &Claim, sealed: u64) -> Option<Finding> {
        let found = |what: String| Some(Finding { place: claim.place.clone(), what });
        let Some(note) = &claim.note else { return found("it cannot be read".into()) };
        let size = note.checkpoint.size;
        if claim.row_size.is_some_and(|row| row != size) {
            return found(format!("it stands in the row of another: it is one of {size} leaves"));
        }
        if !self.key_for(size).is_some_and(|key| key.signed(note) && key.name() == note.checkpoint.origin) {
            return found("it is not signed by the key of this log".into());
        }
        if size > self.report.leaves {
            let what = format!("the log ends here, but {} tells of {size} leaves", claim.place);
            return Some(Finding { place: Place::Leaf(self.report.leaves), what });
        }
        if self.roots.get(&size) != Some(&note.checkpoint.root) {
            let what = format!("they are not those that {} was made over", claim.place);
            return Some(Finding { place: Place::Leaves(sealed.min(size.saturating_sub(1)), size), what });
        }
        self.signed_after_its_end(claim, note)
    }

    /// A life signs nothing over the leaf that tells of its end: whoever wrote that leaf was no server that restored.
    fn signed_after_its_end(&self, claim: &Claim, note: &SignedCheckpoint) -> Option<Finding> {
        let Checkpoint { size, life, .. } = &note.checkpoint;
        let ends = |restored: &Restored| life.is_some_and(|life| restored.ends(life));
        let (leaf, _) = self.report.restores.iter().find(|(leaf, restored)| leaf < size && ends(restored))?;
        let what = format!("it tells of the end of a life that signed {} over it", claim.place);
        Some(Finding { place: Place::Leaf(*leaf), what })
    }

    /// Whether a checkpoint is of leaves that a restore lost, as the log itself says, and a key that is vouched for signed it.
    fn is_explained(&self, claim: &Claim) -> bool {
        let Some(note) = &claim.note else { return false };
        claim.row_size.is_none()
            && has_lost(&self.report.restores, &note.checkpoint)
            && self.keys.iter().any(|(since, key)| *since < self.vouched && key.signed(note))
    }
}

/// A text column, also if its bytes are no text any more.
fn text(row: &Row<'_>, at: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(at)?.as_bytes().unwrap_or_default()).into_owned())
}
