//! Signed checkpoints as text: C2SP's `tlog-checkpoint` in a `signed-note` with one Ed25519 signature.
//!
//! Source: <https://c2sp.org/tlog-checkpoint>, <https://c2sp.org/signed-note>. Any tool for these formats reads ours.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use towpath_core::ids::Digest;

use crate::incarnation::Incarnation;

/// The algorithm byte of Ed25519 in a signed note's keys.
const ED25519_ALGORITHM: u8 = 1;
/// Bytes of an Ed25519 seed or public key.
const KEY_BYTES: usize = 32;
/// How the line begins that names the life of the data: an extension, in the words of the format.
const LIFE_PREFIX: &str = "life ";
/// How a line with a signature begins: an em dash and a space.
const SIGNATURE_PREFIX: &str = "— ";

/// Why a key or note is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {why}")]
pub struct NoteError {
    /// `audit key`, `checkpoint`, ...
    pub kind: &'static str,
    /// What is wrong.
    pub why: &'static str,
}

fn wrong(kind: &'static str, why: &'static str) -> NoteError {
    NoteError { kind, why }
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// How many leaves it covers.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// The life of the data in which it was signed. One without is of an older server.
    pub life: Option<Incarnation>,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))?;
        self.life.map_or(Ok(()), |life| writeln!(f, "{LIFE_PREFIX}{life}"))
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Checkpoint, NoteError> {
        let wrong = |why| wrong("checkpoint", why);
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let (origin, size, root, life) = match lines[..] {
            [origin, size, root] => (origin, size, root, None),
            [origin, size, root, life] => (origin, size, root, Some(life)),
            _ => return Err(wrong("it has neither three lines nor four")),
        };
        let size = size.parse().map_err(|_| wrong("its size is no number"))?;
        let root = STANDARD.decode(root).ok().and_then(|bytes| bytes.try_into().ok());
        let root = Digest(root.ok_or_else(|| wrong("its root is no hash"))?);
        let named = |line: &str| line.strip_prefix(LIFE_PREFIX)?.parse().ok();
        let life =
            life.map(|line| named(line).ok_or_else(|| wrong("its last line names no life"))).transpose()?;
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root, life };
        match checkpoint.to_string() == text {
            true => Ok(checkpoint),
            false => Err(wrong("it is not written the one way")),
        }
    }
}

/// A checkpoint with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// The name of the key.
    pub signer: String,
    /// Its id: see [`VerifierKey::id`].
    pub key_id: [u8; 4],
    signature: Vec<u8>,
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = [&self.key_id[..], &self.signature].concat();
        let SignedCheckpoint { checkpoint, signer, .. } = self;
        writeln!(f, "{checkpoint}\n{SIGNATURE_PREFIX}{signer} {}", STANDARD.encode(signature))
    }
}

impl FromStr for SignedCheckpoint {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<SignedCheckpoint, NoteError> {
        let wrong = |why| wrong("signed checkpoint", why);
        let (body, signed) = text.split_once("\n\n").ok_or_else(|| wrong("it has no signature"))?;
        let checkpoint: Checkpoint = format!("{body}\n").parse()?;
        let line = signed.strip_prefix(SIGNATURE_PREFIX).and_then(|rest| rest.strip_suffix('\n'));
        let (signer, bytes) =
            line.and_then(|line| line.split_once(' ')).ok_or_else(|| wrong("its signature is malformed"))?;
        let bytes = STANDARD.decode(bytes).map_err(|_| wrong("its signature is not base64"))?;
        let (key_id, signature) =
            bytes.split_first_chunk().ok_or_else(|| wrong("its signature is too short"))?;
        let (signer, signature) = (signer.to_owned(), signature.to_vec());
        Ok(SignedCheckpoint { checkpoint, signer, key_id: *key_id, signature })
    }
}

/// The public half: `name+id+key`, as other tools write it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; KEY_BYTES],
}

impl VerifierKey {
    /// The log's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Four bytes that tell keys of one name apart.
    pub fn id(&self) -> [u8; 4] {
        let text = [self.name.as_bytes(), b"\n", &[ED25519_ALGORITHM], &self.key].concat();
        Digest::of(&text).prefix()
    }

    /// Whether this key signed that checkpoint.
    pub fn signed(&self, note: &SignedCheckpoint) -> bool {
        note.signer == self.name
            && note.key_id == self.id()
            && self.verify(note.checkpoint.to_string().as_bytes(), &note.signature)
    }

    pub(crate) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex(self.id()), with_algorithm(&self.key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<VerifierKey, NoteError> {
        const KIND: &str = "audit verifier key";
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong(KIND, "it is written name+id+key"));
        };
        let key = VerifierKey { name: checked_name(KIND, name)?, key: without_algorithm(KIND, key)? };
        match hex(key.id()) == id {
            true => Ok(key),
            false => Err(wrong(KIND, "its id does not belong to its key")),
        }
    }
}

/// The private half. Never printed, never inside the data folder.
pub struct AuditKey {
    verifier: VerifierKey,
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.verifier)
    }
}

impl AuditKey {
    /// A new key for the log `name`: no spaces, no `+`.
    ///
    /// # Errors
    /// The name is not allowed.
    pub fn generate(name: &str) -> Result<AuditKey, NoteError> {
        AuditKey::of_seed(name, crate::random())
    }

    fn of_seed(name: &str, seed: [u8; KEY_BYTES]) -> Result<AuditKey, NoteError> {
        let name = checked_name("audit key", name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| wrong("audit key", "its bytes are no Ed25519 seed"))?;
        let key = pair.public_key().as_ref().try_into().expect("invariant: an Ed25519 key has 32 bytes");
        Ok(AuditKey { verifier: VerifierKey { name, key }, seed, pair })
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the root over `size` leaves, in a life of the data.
    pub fn sign_checkpoint(&self, size: u64, root: Digest, life: Option<Incarnation>) -> SignedCheckpoint {
        let checkpoint = Checkpoint { origin: self.verifier.name.clone(), size, root, life };
        let signature = self.sign(checkpoint.to_string().as_bytes());
        SignedCheckpoint {
            checkpoint,
            signer: self.verifier.name.clone(),
            key_id: self.verifier.id(),
            signature,
        }
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }

    /// The key as it stands in its file.
    pub(crate) fn secret_text(&self) -> String {
        let VerifierKey { name, .. } = &self.verifier;
        format!("PRIVATE+KEY+{name}+{}+{}\n", hex(self.verifier.id()), with_algorithm(&self.seed))
    }

    /// Reads what [`AuditKey::secret_text`] wrote.
    pub(crate) fn from_secret_text(text: &str) -> Result<AuditKey, NoteError> {
        const KIND: &str = "audit key";
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+");
        let mut parts = rest.ok_or_else(|| wrong(KIND, "it begins with PRIVATE+KEY+"))?.splitn(3, '+');
        let (Some(name), Some(id), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong(KIND, "it is written PRIVATE+KEY+name+id+seed"));
        };
        let key = AuditKey::of_seed(name, without_algorithm(KIND, seed)?)?;
        match hex(key.verifier.id()) == id {
            true => Ok(key),
            false => Err(wrong(KIND, "its id does not belong to its seed")),
        }
    }
}

fn checked_name(kind: &'static str, name: &str) -> Result<String, NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    match name.is_empty() || name.len() > 200 || name.contains(bad) {
        true => Err(wrong(kind, "its name is 1 to 200 characters without spaces or `+`")),
        false => Ok(name.to_owned()),
    }
}

fn with_algorithm(key: &[u8; KEY_BYTES]) -> String {
    STANDARD.encode([&[ED25519_ALGORITHM][..], key].concat())
}

fn without_algorithm(kind: &'static str, text: &str) -> Result<[u8; KEY_BYTES], NoteError> {
    let bytes = STANDARD.decode(text).map_err(|_| wrong(kind, "it is not base64"))?;
    match bytes.split_first() {
        Some((&ED25519_ALGORITHM, key)) => {
            key.try_into().map_err(|_| wrong(kind, "its key has not 32 bytes"))
        }
        _ => Err(wrong(kind, "it is not an Ed25519 key")),
    }
}

fn hex(bytes: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AuditKey {
        AuditKey::of_seed("towpath.example/log", [7; 32]).unwrap()
    }

    #[test]
    fn keys_survive_their_text_form() {
        let key = key();
        let again = AuditKey::from_secret_text(&key.secret_text()).unwrap();
        assert_eq!(again.verifier(), key.verifier());
        assert_eq!(key.verifier().to_string().parse::<VerifierKey>().unwrap(), *key.verifier());
        assert!(!format!("{key:?}").contains(&key.secret_text()[..20]));
    }

    #[test]
    fn the_go_sumdb_key_is_read() {
        // Published with the Go checksum database; its id is part of it.
        let text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("sum.golang.org", text));
    }

    #[test]
    fn any_other_byte_in_a_signed_checkpoint_is_noticed() {
        let key = key();
        let life = Some(Incarnation([7; 16]));
        let text = key.sign_checkpoint(12, Digest::of(b"root"), life).to_string();
        assert_eq!(text.parse::<SignedCheckpoint>().unwrap().checkpoint.life, life);
        assert!(key.verifier().signed(&text.parse().unwrap()));
        for at in 0..text.len() {
            for flip in (0..8).map(|bit| 1 << bit) {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= flip;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                let passed = changed.parse().is_ok_and(|note| key.verifier().signed(&note));
                assert!(!passed, "byte {at} xor {flip}");
            }
        }
    }

    #[test]
    fn another_key_of_the_same_name_is_told_apart() {
        let other = AuditKey::of_seed("towpath.example/log", [8; 32]).unwrap();
        let note = key().sign_checkpoint(1, Digest::of(b""), None);
        assert!(!other.verifier().signed(&note));
        assert_ne!(other.verifier().id(), key().verifier().id());
    }
}
