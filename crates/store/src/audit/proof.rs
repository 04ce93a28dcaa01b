//! Proofs that a leaf is in the log, as texts that travel: beside a landed commit in every clone, say.
//!
//! The first line is the leaf, byte by byte as it was hashed; the rest is C2SP's `tlog-proof`
//! (<https://c2sp.org/tlog-proof>): the leaf's place, the hashes from it to the root, and a signed checkpoint.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use towpath_core::ids::Digest;

use super::leaf::Leaf;
use super::merkle;
use super::note::{NoteError, SignedCheckpoint, VerifierKey};
use crate::error::ReadError;
use crate::view::View;

const FORMAT: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of one proof at most: a tree of more levels has more leaves than anybody can write.
const HASHES_MAX: usize = 63;
const KIND: &str = "proof of a leaf";

/// A leaf with the way to a signed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProof {
    /// The leaf's JSON.
    pub leaf: String,
    /// Its number, from 0.
    pub number: u64,
    /// Hashes from the leaf to the root, in the order of RFC 6962.
    pub hashes: Vec<Digest>,
    /// The root, signed.
    pub checkpoint: SignedCheckpoint,
}

impl LeafProof {
    /// What the leaf says, if the proof holds under this key.
    ///
    /// # Errors
    /// Why it does not.
    pub fn verify(&self, key: &VerifierKey) -> Result<Leaf, String> {
        let checkpoint = &self.checkpoint.checkpoint;
        if !key.signed(&self.checkpoint) || checkpoint.origin != key.name() {
            return Err("its checkpoint is not signed by a key that you trust".to_owned());
        }
        let hash = merkle::leaf_hash(self.leaf.as_bytes());
        let tree = (checkpoint.size, &checkpoint.root);
        if !merkle::verify_inclusion(&hash, self.number, tree, &self.hashes) {
            return Err("its leaf is not in the tree that was signed".to_owned());
        }
        match serde_json::from_str::<Leaf>(&self.leaf) {
            Ok(leaf) if leaf.leaf == self.number => Ok(leaf),
            Ok(leaf) => Err(format!("its leaf says that it is leaf {}", leaf.leaf)),
            Err(why) => Err(format!("its leaf cannot be read: {why}")),
        }
    }
}

impl fmt::Display for LeafProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{FORMAT}\nindex {}", self.leaf, self.number)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash.0)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for LeafProof {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<LeafProof, NoteError> {
        let wrong = |why| NoteError { kind: KIND, why };
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| wrong("it has no checkpoint"))?;
        let mut lines = head.split('\n');
        let leaf = lines.next().unwrap_or_default().to_owned();
        if lines.next() != Some(FORMAT) {
            return Err(wrong("its second line is not that of a `tlog-proof`"));
        }
        let number = lines.next().and_then(|line| line.strip_prefix("index ")?.parse().ok());
        let number = number.ok_or_else(|| wrong("its third line is not `index` and a number"))?;
        let hash = |line: &str| Some(Digest(STANDARD.decode(line).ok()?.try_into().ok()?));
        let hashes: Option<Vec<Digest>> = lines.take(HASHES_MAX + 1).map(hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES_MAX);
        let hashes = hashes.ok_or_else(|| wrong("its hashes are malformed, or too many"))?;
        Ok(LeafProof { leaf, number, hashes, checkpoint: checkpoint.parse()? })
    }
}

impl View {
    /// The newest leaf that tells of the landing of a commit: its number and its JSON. Looks from the end of the log,
    /// where it most often is.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn landing_leaf(
        &self,
        commit: towpath_core::ids::CommitId,
    ) -> Result<Option<(u64, String)>, ReadError> {
        // Neither has a character that `LIKE` takes for something else.
        const SQL: &str = "SELECT number, body FROM leaves WHERE body LIKE '%' || ?1 || '%' \
             AND body LIKE '%\"act\":\"landed\"%' ORDER BY number DESC LIMIT 1";
        self.one(SQL, [format!("\"commit\":\"{commit}\"")], |row| {
            Ok((crate::view::get_u64(row, 0)?, row.get(1)?))
        })
    }

    /// The proof of a leaf under a checkpoint that covers it.
    ///
    /// # Errors
    /// The checkpoint does not cover it, or the log cannot be read.
    pub fn leaf_proof(
        &self,
        (number, leaf): (u64, String),
        checkpoint: SignedCheckpoint,
    ) -> Result<LeafProof, ReadError> {
        let hashes = self.inclusion_proof(number, checkpoint.checkpoint.size)?;
        Ok(LeafProof { leaf, number, hashes, checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::AuditKey;
    use super::*;

    fn proof(key: &AuditKey) -> LeafProof {
        let leaf = |number| {
            format!(
                r#"{{"leaf":{number},"at":1,"entry":{{"act":{{"act":"administered","by":null,"what":"x"}}}}}}"#
            )
        };
        let hashes = [0, 1].map(|number| merkle::leaf_hash(leaf(number).as_bytes()));
        let checkpoint = key.sign_checkpoint(2, merkle::node_hash(&hashes[0], &hashes[1]), None);
        LeafProof { leaf: leaf(1), number: 1, hashes: vec![hashes[0]], checkpoint }
    }

    #[test]
    fn a_proof_survives_its_text_form_and_no_changed_byte_does() {
        let key = AuditKey::generate("log").unwrap();
        let text = proof(&key).to_string();
        assert_eq!(text.parse::<LeafProof>().unwrap().verify(key.verifier()).unwrap().leaf, 1);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let passed = changed.parse::<LeafProof>().is_ok_and(|proof| proof.verify(key.verifier()).is_ok());
            assert!(!passed, "byte {at}: {changed}");
        }
    }

    #[test]
    fn another_key_and_another_leaf_are_refused_by_name() {
        let key = AuditKey::generate("log").unwrap();
        let other = AuditKey::generate("log").unwrap();
        let why = proof(&key).verify(other.verifier()).unwrap_err();
        assert!(why.contains("key that you trust"), "{why}");
        let moved = LeafProof { number: 0, ..proof(&key) };
        let why = moved.verify(key.verifier()).unwrap_err();
        assert!(why.contains("not in the tree"), "{why}");
    }
}
