//! The tokens that were revoked, as a file outside the data: a restore brings rows back from before a revocation, and must
//! not bring back what they let in (trust S8).
//!
//! It only grows: a line for each token, with the hash that the rows have of it. The number would not do, as one that a
//! restore has forgotten is given to the next token.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::{Digest, Timestamp};
use towpath_store::records::Token;
use towpath_store::{OpenError, ReadError, Store, WriteError, write_private};

use super::accounts::note;

/// The file's name in the folder of the keys.
pub const FILE: &str = "revoked";

/// The list of this server, whose folder of keys no other one has.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    listed: Mutex<Listed>,
}

/// What the file lists.
#[derive(Debug)]
struct Listed {
    hashes: BTreeSet<Digest>,
    /// Bytes of its lines; what lies beyond them has failed to become one.
    bytes: u64,
}

/// Why there is no such list.
#[derive(Debug, thiserror::Error)]
pub enum RevokedError {
    /// The file cannot be used.
    #[error("the list of revoked tokens `{}` cannot be used: {why}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// The rows cannot be used.
    #[error(transparent)]
    Rows(#[from] OpenError),
}

impl From<ReadError> for RevokedError {
    fn from(error: ReadError) -> RevokedError {
        RevokedError::Rows(error.into())
    }
}

impl From<WriteError> for RevokedError {
    fn from(error: WriteError) -> RevokedError {
        RevokedError::Rows(error.into())
    }
}

impl Revocations {
    /// Opens the list in a folder of keys, which is made if it is not there, and has list and rows agree: what either of them
    /// knows to be revoked is so from then on. A server that died between the two has told nobody that a token is revoked.
    ///
    /// # Errors
    /// The list or the rows cannot be read, or a token cannot be revoked again.
    pub fn open(keys: &Path, store: &Store, now: Timestamp) -> Result<Revocations, RevokedError> {
        let path = keys.join(FILE);
        let listed = load(&path).map_err(|why| RevokedError::File { path: path.clone(), why })?;
        let view = store.reader().snapshot()?;
        let of_rows = view.revoked_tokens()?;
        let mut back = Vec::new();
        for hash in &listed.hashes {
            back.extend(view.token(hash)?.filter(|token| token.revoked_at.is_none()));
        }
        drop(view);
        let revocations = Revocations { path, listed: Mutex::new(listed) };
        if let Err(why) = revocations.add(of_rows) {
            // They are revoked all the same; the next start tries again.
            let path = revocations.path.display();
            tracing::error!(
                "tokens that are revoked are not in the list `{path}`, and a restore would bring them back: {why}"
            );
        }
        if !back.is_empty() {
            revoke_again(store, back, now)?;
        }
        Ok(revocations)
    }

    /// Puts tokens on the list, durably. Those that are on it already are not written once more. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be written, and none of them is on it.
    pub fn add(&self, hashes: impl IntoIterator<Item = Digest>) -> io::Result<()> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let new: BTreeSet<Digest> = hashes.into_iter().filter(|hash| !listed.hashes.contains(hash)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(listed.bytes)?;
        file.seek(SeekFrom::End(0))?;
        let lines: String = new.iter().map(|hash| format!("{hash}\n")).collect();
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Where this fails, too, the next one does it.
            let _ = file.set_len(listed.bytes);
        }
        written?;
        listed.hashes.extend(new);
        listed.bytes += lines.len() as u64;
        Ok(())
    }
}

/// What the file lists; what a crash left half-written is cut off.
fn load(path: &Path) -> io::Result<Listed> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_private(path, b"")?;
            return Ok(Listed { hashes: BTreeSet::new(), bytes: 0 });
        }
        Err(error) => return Err(error),
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
    }
    let read = |(at, line): (usize, &str)| {
        line.parse().map_err(|_| {
            let why =
                format!("line {} is no hash of a token; put the file back from a copy of the keys", at + 1);
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    };
    let hashes = text[..whole].lines().enumerate().map(read).collect::<io::Result<_>>()?;
    Ok(Listed { hashes, bytes: whole as u64 })
}

fn revoke_again(store: &Store, tokens: Vec<Token>, now: Timestamp) -> Result<(), WriteError> {
    for Token { number, prefix, .. } in &tokens {
        tracing::warn!(
            "token {number} ({prefix}…) had been revoked before the data were restored, and is again"
        );
    }
    store.writer().write(move |tx| {
        for Token { number, prefix, owner, .. } in tokens {
            tx.revoke_token(number, now)?;
            let what = format!(
                "revoked token {number} ({prefix}…) of user {owner} again, as it was before a restore"
            );
            note(tx, None, now, what);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_only_grows_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let listed = || load(&path).unwrap().hashes;
        assert_eq!(listed(), BTreeSet::new());
        let hashes = [1, 2, 3].map(|byte| Digest([byte; 32]));
        let open = || Revocations { path: path.clone(), listed: Mutex::new(load(&path).unwrap()) };
        open().add(hashes[..2].iter().copied()).unwrap();
        open().add(hashes.iter().copied()).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!((listed(), whole.lines().count()), (hashes.into(), 3));
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        assert_eq!(listed(), hashes.into());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        // So is what a server left that could neither write a line nor take it back.
        let server = open();
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        server.add([Digest([4; 32])]).unwrap();
        assert_eq!(listed().len(), 4);
        std::fs::write(&path, format!("{whole}token 6\n")).unwrap();
        let refused = load(&path).unwrap_err().to_string();
        assert!(refused.starts_with("line 4 is no hash"), "{refused}");
    }
}
