//! Puts the proof that the record holds a landing beside the landed commit, so that every clone that fetches the notes
//! can bear witness (trust T9).

use std::sync::mpsc;
use std::time::Duration;

use towpath_core::ids::{CommitId, GateId};
use towpath_core::outbox::TroubleClass;
use towpath_git::RefName;
use towpath_store::audit::{LeafProof, SignedCheckpoint};
use towpath_store::{ReadError, WriteError};

use super::{Failure, Hands};

/// Time for one checkpoint: one durable transaction, behind those that wait already.
const SEAL_DEADLINE: Duration = Duration::from_secs(30);

/// Carries the effect out. A commit that has its note already keeps it.
pub fn run(hands: &Hands, gate: &GateId, commit: CommitId) -> Result<(), Failure> {
    let Some(proof) = proof(hands, commit)? else { return Ok(()) };
    let repository = hands.repos.get(&gate.repo)?;
    let at = repository.commit(commit)?.committer.time;
    // Git's notes are read, changed and written as one tree: one at a time.
    let _alone = hands.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(repository.add_note((&RefName::landing_notes(), commit), proof.to_string().as_bytes(), at)?)
}

/// `None`: this log is not signed, so there is nothing that a clone could bear witness to.
fn proof(hands: &Hands, commit: CommitId) -> Result<Option<LeafProof>, Failure> {
    let view = hands.store.reader().snapshot().map_err(unread)?;
    let leaf = view.landing_leaf(commit).map_err(unread)?.ok_or_else(|| {
        Failure::new(TroubleClass::Invalid, format!("no leaf of the record tells of the landing of {commit}"))
    })?;
    // What a clone has that is not outside the data folder would contradict the record after a restore.
    let checkpoint = match hands.store.writer().witnessed().filter(|sealed| sealed.checkpoint.size > leaf.0) {
        Some(sealed) => sealed,
        None => match seal(hands)? {
            Some(sealed) => sealed,
            None => {
                tracing::warn!(%commit, "the landing of {commit} gets no note: the log is not signed");
                return Ok(None);
            }
        },
    };
    // A view of its own: the checkpoint may be of leaves that came after the first one was taken.
    let view = hands.store.reader().snapshot().map_err(unread)?;
    view.leaf_proof(leaf, checkpoint).map(Some).map_err(unread)
}

fn seal(hands: &Hands) -> Result<Option<SignedCheckpoint>, Failure> {
    let (send, receive) = mpsc::sync_channel(1);
    hands.store.writer().seal(move |outcome| {
        // Nobody waits past the deadline.
        let _ = send.send(outcome);
    });
    let late = |_| Failure::new(TroubleClass::Transient, "the record was not sealed in time");
    match receive.recv_timeout(SEAL_DEADLINE).map_err(late)? {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(WriteError::Missing { .. }) => Ok(None),
        Err(error) => Err(Failure::new(TroubleClass::Transient, error.to_string())),
    }
}

fn unread(error: ReadError) -> Failure {
    Failure::new(TroubleClass::Transient, error.to_string())
}
