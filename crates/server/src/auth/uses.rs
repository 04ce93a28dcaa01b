//! When tokens were last used, noted at leisure: no request waits for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use towpath_core::ids::{Digest, Timestamp};
use towpath_store::{Load, WriteError, Writer};

/// Milliseconds by which the noted use of a token may lag behind.
const LAG_MS: u64 = 60_000;
/// Tokens noted before they are written at once.
const NOTED_MAX: usize = 10_000;

/// Uses that are not written yet.
#[derive(Debug, Default)]
pub struct TokenUses {
    noted: Mutex<HashMap<Digest, Timestamp>>,
}

impl TokenUses {
    /// Notes a use, unless the stored one is recent enough.
    pub fn note(&self, hash: Digest, stored: Option<Timestamp>, now: Timestamp) {
        if stored.is_some_and(|stored| now.millis_since(stored) < LAG_MS) {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < NOTED_MAX {
            noted.insert(hash, now);
        }
    }

    /// Writes what was noted. A failure is no harm: the next use is noted again.
    pub fn write(&self, writer: &Writer) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        if noted.is_empty() {
            return;
        }
        let work = move |tx: &mut towpath_store::Tx<'_>| {
            noted.iter().try_for_each(|(hash, at)| match tx.note_token_use(hash, *at) {
                Ok(()) | Err(WriteError::Missing { .. }) => Ok(()),
                Err(error) => Err(error),
            })
        };
        writer.submit(Load::default(), work, |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "the last use of tokens was not noted: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recent_use_is_not_noted_again() {
        let uses = TokenUses::default();
        uses.note(Digest::of(b"a"), Some(Timestamp(0)), Timestamp(59_999));
        uses.note(Digest::of(b"b"), Some(Timestamp(0)), Timestamp(60_000));
        uses.note(Digest::of(b"c"), None, Timestamp(0));
        assert_eq!(uses.noted.lock().unwrap().len(), 2);
    }
}
