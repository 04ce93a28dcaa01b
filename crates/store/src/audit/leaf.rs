//! What a leaf of the audit log says.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use towpath_core::act::Act;
use towpath_core::ids::{Epoch, Timestamp};

use super::note::{AuditKey, Checkpoint, VerifierKey};
use crate::incarnation::Incarnation;

/// One leaf. Its JSON, byte by byte as it is stored, is what is hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its place, from 0: a leaf that was moved says so itself.
    pub leaf: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub entry: Entry,
}

/// What a leaf is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A person or the server did something.
    Act(Act),
    /// From here on another key signs.
    Rotation(Rotation),
    /// The key is lost, and from here on another one signs.
    Succession(Succession),
    /// The log goes on from a backup.
    Restored(Restored),
}

/// A change of the signing key, vouched for by both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The key until here.
    pub old: String,
    /// The key from here on.
    pub new: String,
    /// The old key's signature, in hex.
    pub old_signature: String,
    /// The new key's signature, in hex.
    pub new_signature: String,
}

/// A change of the signing key by a person's word alone, as the one before is lost. The new key vouches for it with a
/// checkpoint over this leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The key until here.
    pub old: String,
    /// The key from here on.
    pub new: String,
}

/// That the database is older than what was known outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How it was noticed.
    pub why: String,
    /// How many leaves there had been of all that is known of; the log goes on without those that are lost.
    pub leaves_before: u64,
    /// How many of them are lost.
    pub leaves_lost: u64,
    /// How many of the others, those just before this leaf, no checkpoint covered: nothing tells who wrote them.
    #[serde(default)]
    pub leaves_unsealed: u64,
    /// The highest epoch known from before.
    pub epoch_before: Epoch,
    /// The life that the mark named then: as long as it does, no start has got further since. Empty where there was no mark.
    #[serde(default)]
    pub life_before: String,
    /// When it was noticed: what the data have of earlier times may have gone on in a life that they know nothing of.
    #[serde(default)]
    pub at: Timestamp,
    /// The lives of the data that ended with it.
    #[serde(default)]
    pub ended: Vec<EndedLife>,
}

/// A life of the data that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLife {
    /// Which.
    pub life: Incarnation,
    /// How many of its leaves are kept: what it signed over more of them is lost.
    pub kept: u64,
}

/// Good checkpoints over leaves that are there: over how many, and in which life.
pub(crate) type Sealed = BTreeSet<(u64, Option<Incarnation>)>;

/// Whether a checkpoint is over what these restores lost, each with its leaf.
pub(crate) fn has_lost(restores: &[(u64, Restored)], checkpoint: &Checkpoint) -> bool {
    let size = checkpoint.size;
    match checkpoint.life {
        Some(life) => {
            let ended = restores.iter().flat_map(|(_, restored)| &restored.ended);
            ended.filter(|one| one.life == life).map(|one| one.kept).max().is_some_and(|kept| kept < size)
        }
        // Of an older server, which named none: its size has to do.
        None => restores.iter().any(|(leaf, restored)| *leaf < size && size <= restored.leaves_before),
    }
}

impl Restored {
    /// Why nobody believes the leaf `at`, which tells of it; `None`: it counts. Anybody can write such a leaf, so the key has to
    /// have signed what is up to it; and where it ends lives, the one that it began has signed just that, as a server does
    /// in one step with the leaf itself, and none that ended has signed over it. Where the key was lost as well, the leaf that
    /// says so comes between.
    pub(crate) fn disbelieved(&self, at: u64, with_key: bool, sealed: &Sealed) -> Option<&'static str> {
        let covered = sealed.last().map_or(0, |(size, _)| *size);
        let ends_with_it = at + 1..=at + 1 + u64::from(with_key);
        let has_begun =
            |(size, life): &(u64, Option<Incarnation>)| life.is_some() && ends_with_it.contains(size);
        let goes_on = |(size, life): &(u64, Option<Incarnation>)| {
            *size > at && life.is_some_and(|life| self.ends(life))
        };
        if self.leaves_before.checked_sub(self.leaves_lost) != Some(at) {
            Some("it tells of a restore to another place than its own")
        } else if at >= covered {
            Some(
                "it tells of a restore, and no good checkpoint covers it: anybody may have written it, and a server that does \
                 puts one over it at once",
            )
        } else if !self.ended.is_empty() && !sealed.iter().any(has_begun) {
            Some(
                "it tells of a restore, and no good checkpoint ends with it: anybody may have written it, and a server that \
                 does puts one over it before anything else",
            )
        } else if sealed.iter().any(goes_on) {
            Some("it tells of the end of a life that has signed over it")
        } else {
            None
        }
    }

    /// Whether a life ended with it.
    pub(crate) fn ends(&self, life: Incarnation) -> bool {
        self.ended.iter().any(|one| one.life == life)
    }

    /// Whether it tells, as the leaf `at`, of the loss of another leaf, which a checkpoint of `life` was over.
    pub fn lost(&self, at: u64, leaf: u64, life: Option<Incarnation>) -> bool {
        match life {
            Some(life) => self.ended.iter().any(|one| one.life == life && one.kept <= leaf),
            // Of an older server, which named none: its number has to do.
            None => (at..self.leaves_before).contains(&leaf),
        }
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restored { leaves_lost, leaves_before, leaves_unsealed, why, .. } = self;
        write!(
            f,
            "the data were restored, {leaves_lost} of {leaves_before} leaves of the record are lost: {why}"
        )?;
        match leaves_unsealed {
            0 => Ok(()),
            unsealed => write!(
                f,
                "; no checkpoint covered the last {unsealed} of those that are left, and nothing tells who wrote them"
            ),
        }
    }
}

impl Succession {
    /// Both keys, if they are any.
    pub(crate) fn keys(&self) -> Option<(VerifierKey, VerifierKey)> {
        Some((self.old.parse().ok()?, self.new.parse().ok()?))
    }
}

impl fmt::Display for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Succession { old, new } = self;
        write!(f, "the key {old} was given up as lost, and {new} signs since")
    }
}

impl Rotation {
    /// The leaf by which `old` hands over to `new`.
    pub(crate) fn sign(leaf: u64, old: &AuditKey, new: &AuditKey) -> Rotation {
        let text = statement(leaf, &old.verifier().to_string(), &new.verifier().to_string());
        Rotation {
            old: old.verifier().to_string(),
            new: new.verifier().to_string(),
            old_signature: to_hex(&old.sign(text.as_bytes())),
            new_signature: to_hex(&new.sign(text.as_bytes())),
        }
    }

    /// Both keys, if both signed for just this leaf.
    pub(crate) fn keys(&self, leaf: u64) -> Option<(VerifierKey, VerifierKey)> {
        let text = statement(leaf, &self.old, &self.new);
        let old: VerifierKey = self.old.parse().ok()?;
        let new: VerifierKey = self.new.parse().ok()?;
        let signed = old.verify(text.as_bytes(), &from_hex(&self.old_signature)?)
            && new.verify(text.as_bytes(), &from_hex(&self.new_signature)?);
        signed.then_some((old, new))
    }
}

fn statement(leaf: u64, old: &str, new: &str) -> String {
    format!("towpath audit key rotation\n{leaf}\n{old}\n{new}\n")
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("invariant: a string takes any text");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use towpath_core::ids::Digest;

    use super::*;

    #[test]
    fn what_a_life_signed_over_more_than_is_kept_of_it_is_lost() {
        let [first, second] = [1, 2].map(|byte| Incarnation([byte; 16]));
        let restored = |ended: &[(Incarnation, u64)]| Restored {
            why: "tested".into(),
            leaves_before: 100,
            leaves_lost: 40,
            leaves_unsealed: 0,
            epoch_before: Epoch(1),
            life_before: String::new(),
            at: Timestamp(1),
            ended: ended.iter().map(|(life, kept)| EndedLife { life: *life, kept: *kept }).collect(),
        };
        // The later one went back to before the earlier one, and knows less of the first life.
        let restores = [(60, restored(&[(first, 60)])), (70, restored(&[(first, 50), (second, 0)]))];
        let is_lost = |life: Option<Incarnation>, size: u64| {
            has_lost(&restores, &Checkpoint { origin: "log".into(), size, root: Digest([0; 32]), life })
        };
        let sizes = [1, 60, 61, 100, 101];
        let lost = |life| sizes.into_iter().filter(|size| is_lost(life, *size)).collect::<Vec<_>>();
        assert_eq!(lost(Some(first)), [61, 100, 101]);
        assert_eq!(lost(Some(second)), sizes);
        assert_eq!(lost(Some(Incarnation([3; 16]))), [0; 0]);
        assert_eq!(lost(None), [61, 100]);
    }

    #[test]
    fn a_rotation_counts_only_with_both_signatures_at_its_place() {
        let (old, new) = (AuditKey::generate("log").unwrap(), AuditKey::generate("log").unwrap());
        let rotation = Rotation::sign(4, &old, &new);
        assert_eq!(rotation.keys(4), Some((old.verifier().clone(), new.verifier().clone())));
        assert_eq!(rotation.keys(5), None);
        let forged = Rotation { old_signature: rotation.new_signature.clone(), ..rotation };
        assert_eq!(forged.keys(4), None);
    }
}
