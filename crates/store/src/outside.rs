//! What is known outside the database about how far it was, and what a start concludes from it (trust T9).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use towpath_core::ids::{Epoch, Timestamp};

use crate::audit::leaf::{EndedLife, Entry, Sealed, has_lost};
use crate::audit::sink::Sink;
use crate::audit::{Checkpoint, Restored, SignedCheckpoint, VerifierKey};
use crate::error::{OpenError, ReadError};
use crate::folder::{DataFolder, Mark, file_error};
use crate::incarnation::Incarnation;
use crate::view::{View, get_u64};

/// What is known outside the database about how far it was.
pub(crate) struct KnownBefore {
    pub mark: Option<Mark>,
    /// Signed checkpoints, oldest first.
    notes: Vec<String>,
}

impl KnownBefore {
    /// The life that the mark names; empty without a mark.
    fn life(&self) -> &str {
        self.mark.as_ref().map_or("", |mark| &mark.incarnation)
    }

    /// The database's newest checkpoint, if it is in the sink; without one there is nowhere else for it to be.
    pub fn newest_outside(
        &self,
        view: &View,
        sink: Option<&Sink>,
    ) -> Result<Option<SignedCheckpoint>, ReadError> {
        let own = view.last_checkpoint()?.filter(|own| sink.is_none() || self.notes.contains(own));
        Ok(own.and_then(|own| own.parse().ok()))
    }

    /// Those that can be read, newest first.
    fn checkpoints(&self) -> impl Iterator<Item = Checkpoint> {
        self.notes.iter().rev().filter_map(|note| Some(note.parse::<SignedCheckpoint>().ok()?.checkpoint))
    }
}

pub(crate) fn known_before(folder: &DataFolder, sink: Option<&Sink>) -> Result<KnownBefore, OpenError> {
    let notes = match sink.map(Sink::load) {
        None => Vec::new(),
        Some(Ok(notes)) => notes,
        Some(Err(why)) => return Err(file_error("read the sink of", folder.path(), &why)),
    };
    Ok(KnownBefore { mark: folder.mark()?, notes })
}

/// Two copies of a record that take turns with the same keys contradict each other, and nobody can ever tell which of
/// them is true. So a server starts with none that the other has overtaken. What was restored is another life, and says so;
/// but it is a record of this server, or somebody has rewritten it, and no server signs that.
pub(crate) fn check_history(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
    sink: Option<&Sink>,
) -> Result<(), OpenError> {
    let (Some(key), Some(sink)) = (key, sink) else { return Ok(()) };
    let foreign = match same_life(known.mark.as_ref(), incarnation_of(view)?) {
        true => foreign_checkpoint(view, known, key)?,
        false => unsigned_history(view, known, key)?,
    };
    match foreign {
        None => Ok(()),
        Some(leaves) => Err(OpenError::OtherRecord { checkpoints: sink.path().to_owned(), leaves }),
    }
}

/// The size of the newest checkpoint outside that the database has leaves for, if it is over other ones. A restore has
/// lost those that its leaf tells of.
fn foreign_checkpoint(view: &View, known: &KnownBefore, key: &VerifierKey) -> Result<Option<u64>, ReadError> {
    let leaves = view.leaf_count()?;
    let Some(newest) = known.checkpoints().find(|one| one.size <= leaves) else { return Ok(None) };
    let is_known = view.is_under(&newest)? || has_lost(&sealed_restores(view, known, Some(key))?, &newest);
    Ok((!is_known).then_some(newest.size))
}

/// The size of the newest checkpoint outside that another life's database has leaves for, if nobody with the key has signed
/// these leaves in any life. A life signs one record: the one whose checkpoint covers most of what is there has signed nothing
/// else over leaves that are there. What was saved between two checkpoints ends with leaves that have none; other lives may
/// have signed over as many of their own since.
fn unsigned_history(view: &View, known: &KnownBefore, key: &VerifierKey) -> Result<Option<u64>, ReadError> {
    let leaves = view.leaf_count()?;
    let covers_most = covers_most(view, known, Some(key))?;
    let contradicts = |one: &Checkpoint| {
        covers_most.as_ref().is_none_or(|most| one.life == most.life && one.size > most.size)
    };
    let within = known.checkpoints().filter(|one| one.size <= leaves);
    Ok(within.filter(contradicts).map(|one| one.size).max())
}

/// The restores that the log tells of and that count, as the verifier has it: whoever has the data alone can write the leaf of
/// one, and no checkpoint that ends with it.
fn sealed_restores(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<Vec<(u64, Restored)>, ReadError> {
    let restores = view.restores()?;
    if restores.is_empty() {
        return Ok(restores);
    }
    let mut sealed = Sealed::new();
    sealed.extend(covers_most(view, known, key)?.map(|most| (most.size, most.life)));
    let outside: Vec<Checkpoint> = known.checkpoints().collect();
    for (leaf, restored) in &restores {
        let own = view.checkpoints_of(*leaf + 1..=*leaf + 2)?;
        let own =
            own.into_iter().filter(|own| key.is_some_and(|key| key.signed(own))).map(|own| own.checkpoint);
        for checkpoint in telling(&outside, *leaf, restored).into_iter().cloned().chain(own) {
            if checkpoint.size <= view.leaf_count()? && view.is_under(&checkpoint)? {
                sealed.insert((checkpoint.size, checkpoint.life));
            }
        }
    }
    let mut counting = Vec::new();
    for (leaf, restored) in restores {
        let with_key = matches!(view.leaf(leaf + 1)?, Some(Entry::Succession(_)));
        if restored.disbelieved(leaf, with_key, &sealed).is_none() {
            counting.push((leaf, restored));
        }
    }
    Ok(counting)
}

/// Those of the checkpoints outside by which the leaf of a restore counts or not: that end with it, and the first that each life
/// which it ended has signed over it. A life signs one record: if that one is over other leaves, so are all of its later ones.
fn telling<'o>(outside: &'o [Checkpoint], leaf: u64, restored: &Restored) -> Vec<&'o Checkpoint> {
    let end_with_it = outside.iter().filter(|one| (leaf + 1..=leaf + 2).contains(&one.size));
    let over_it = restored.ended.iter().filter_map(|ended| {
        let of_life = outside.iter().filter(|one| one.life == Some(ended.life) && one.size > leaf);
        of_life.min_by_key(|one| one.size)
    });
    end_with_it.chain(over_it).collect()
}

/// A server seals the leaf of a restore, or of a lost key, in the transaction that writes it. One that is under no checkpoint is
/// by somebody else, and whatever the server signed next would make it count.
pub(crate) fn check_unsealed(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<(), OpenError> {
    if key.is_none() {
        return Ok(());
    }
    for leaf in sealed_leaves(view, known, key)?..view.leaf_count()? {
        if let Some(Entry::Restored(_) | Entry::Succession(_)) = view.leaf(leaf)? {
            return Err(OpenError::ForgedLeaf { leaf });
        }
    }
    Ok(())
}

/// How many leaves of the database are under a checkpoint, here or outside.
fn sealed_leaves(view: &View, known: &KnownBefore, key: Option<&VerifierKey>) -> Result<u64, ReadError> {
    Ok(covers_most(view, known, key)?.map_or(0, |most| most.size))
}

/// How many leaves at the end of the database are under no checkpoint: half a second of them where a server was cut off, and
/// whatever somebody has written who has the data alone.
pub(crate) fn unsealed_leaves(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<u64, ReadError> {
    Ok(view.leaf_count()?.saturating_sub(sealed_leaves(view, known, key)?))
}

/// The checkpoint that is over most of the database's leaves: one from outside, or its own newest, which a start that was cut
/// off may have signed and not put outside yet. What lies beside the leaves counts by its signature alone.
fn covers_most(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<Option<Checkpoint>, ReadError> {
    let leaves = view.leaf_count()?;
    let own = view.last_checkpoint()?.and_then(|note| note.parse::<SignedCheckpoint>().ok());
    let own = own.filter(|own| key.is_some_and(|key| key.signed(own))).map(|own| own.checkpoint);
    if let Some(all) = own.as_ref().filter(|own| own.size == leaves)
        && view.is_under(all)?
    {
        // Nothing covers more, and there is much outside to read.
        return Ok(own);
    }
    largest_over(view, known.checkpoints().chain(own).filter(|one| one.size <= leaves).collect())
}

/// The one of these checkpoints that is over most of the leaves, and over no other ones.
fn largest_over(view: &View, mut checkpoints: Vec<Checkpoint>) -> Result<Option<Checkpoint>, ReadError> {
    checkpoints.sort_by_key(|one| Reverse(one.size));
    for one in checkpoints {
        if view.is_under(&one)? {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

pub(crate) fn incarnation_of(view: &View) -> Result<Option<Incarnation>, ReadError> {
    view.one("SELECT incarnation FROM meta", [], |row| Ok(Incarnation(row.get(0)?)))
}

/// Whether the restore that shows outside is one that the log tells of, and that waits for acceptance or was accepted: the
/// start that found it was cut off before it set the mark, or no mark could be set since. What it has found stands, if the
/// key vouches for its leaf and nobody has signed anything since that is not here.
pub(crate) fn is_same_restore(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<bool, ReadError> {
    let (leaves, own) = (view.leaf_count()?, incarnation_of(view)?);
    if own.is_some_and(|own| own.to_string() == known.life()) {
        // The mark is of after any restore that the log tells of.
        return Ok(false);
    }
    let told = match key {
        Some(_) => sealed_restores(view, known, key)?,
        None => view.restores()?,
    };
    let told = told.into_iter().rev().find(|(_, told)| told.life_before == known.life());
    let Some((leaf, restored)) = told else { return Ok(false) };
    if view.restored()?.is_some_and(|waits| waits != restored) {
        return Ok(false);
    }
    let has_gone_on = known.checkpoints().next().is_some_and(|newest| match newest.life {
        life if life == own => newest.size > leaves,
        Some(life) if !restored.ends(life) => true,
        _ => newest.size > restored.leaves_before,
    });
    if has_gone_on {
        return Ok(false);
    }
    let Some(key) = key else { return Ok(true) };
    let sealed = view.last_checkpoint()?.and_then(|note| note.parse::<SignedCheckpoint>().ok());
    match sealed.filter(|note| key.signed(note)).map(|note| note.checkpoint) {
        Some(sealed) => {
            Ok(sealed.life == own && (leaf + 1..=leaves).contains(&sealed.size) && view.is_under(&sealed)?)
        }
        None => Ok(false),
    }
}

/// Compares the database with what is known outside of it (trust T9). What is under a checkpoint is told by the key that was the
/// log's until now.
pub(crate) fn find_rollback(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
    before: Option<&VerifierKey>,
    now: Timestamp,
) -> Result<Option<Restored>, ReadError> {
    const META: &str = "SELECT epoch, time_high FROM meta";
    let known_inside = view.one(META, [], |row| Ok((get_u64(row, 0)?, row.get(1).map(Timestamp)?)))?;
    let (epoch, time_high) = known_inside.unwrap_or_default();
    let (leaves, own) = (view.leaf_count()?, incarnation_of(view)?);
    let of_mark = known.mark.as_ref().map_or((0, 0), |mark| (mark.leaves, mark.epoch));
    let told = sealed_restores(view, known, key)?;
    let newest = newest_of_no_ended_life(known, &told);
    let of_sink = newest.as_ref().map_or(0, |newest| newest.size);
    let leaves_known = of_mark.0.max(of_sink);
    let why = if leaves_known > leaves {
        "the database has fewer leaves than were known outside of it"
    } else if known.mark.is_some() && of_mark.1 > epoch {
        "the database is of an earlier epoch than was known outside of it"
    } else if !same_life(known.mark.as_ref(), own) || !goes_on_from_the_last(view, known, key)? {
        "the database is of another life than was known outside of it"
    } else {
        return Ok(None);
    };
    let ended = ended_lives(view, known, leaves)?;
    let last = newest.and_then(|newest| newest.life).filter(|last| own != Some(*last));
    let in_common = last.map_or(leaves, |last| leaves_in_common(known, last, leaves, &ended));
    let of_last = leaves_known.saturating_sub(in_common);
    // What a restore lost that still waits for acceptance is lost after the next one as well.
    let waits = view.restored()?.map_or(0, |waits| waits.leaves_lost);
    let leaves_lost = of_last.max(lost_of_all_lives(known, &told, &ended)) + waits;
    Ok(Some(Restored {
        why: why.to_owned(),
        leaves_before: leaves + leaves_lost,
        leaves_lost,
        leaves_unsealed: unsealed_leaves(view, known, before)?,
        epoch_before: Epoch(of_mark.1),
        life_before: known.life().to_owned(),
        at: time_high.max(now),
        ended,
    }))
}

/// The newest checkpoint outside but for those of lives of whose end the log tells: what they had signed is told of, and those
/// of the life since may not have got there.
fn newest_of_no_ended_life(known: &KnownBefore, told: &[(u64, Restored)]) -> Option<Checkpoint> {
    let has_ended = |one: &Checkpoint| match one.life {
        Some(life) => told.iter().any(|(_, restored)| restored.ends(life)),
        None => has_lost(told, one),
    };
    known.checkpoints().find(|one| !has_ended(one))
}

/// How many leaves the database has in common with another life, which signed last outside of it. These are those from before
/// that began, whose first checkpoint is over its first leaf, and what is kept of it.
fn leaves_in_common(known: &KnownBefore, last: Incarnation, leaves: u64, ended: &[EndedLife]) -> u64 {
    let signed = known.checkpoints().filter(|one| one.life == Some(last)).map(|one| one.size);
    let before = signed.min().map_or(0, |first| first.saturating_sub(1));
    let kept = ended.iter().filter(|one| one.life == last).map(|one| one.kept).max();
    before.max(kept.unwrap_or(0)).min(leaves)
}

/// How many leaves of all lives are known to be lost, but for those that a restore lost which the log tells of.
fn lost_of_all_lives(known: &KnownBefore, told: &[(u64, Restored)], ended: &[EndedLife]) -> u64 {
    let lost = |one: &EndedLife| {
        let of_life = || known.checkpoints().filter(|checkpoint| checkpoint.life == Some(one.life));
        let before =
            of_life().map(|checkpoint| checkpoint.size).min().map_or(0, |first| first.saturating_sub(1));
        let signed = of_life().filter(|checkpoint| !has_lost(told, checkpoint));
        let signed = signed.map(|checkpoint| checkpoint.size).max();
        signed.unwrap_or(0).saturating_sub(before.max(one.kept))
    };
    ended.iter().map(lost).sum()
}

/// Every life that is known of, with how many of its leaves are in the database. All of them end with a restore: also one
/// that an earlier restore had brought to its end, if this one goes back to before that.
fn ended_lives(view: &View, known: &KnownBefore, leaves: u64) -> Result<Vec<EndedLife>, ReadError> {
    let mut lives: BTreeMap<Incarnation, u64> = BTreeMap::new();
    for checkpoint in known.checkpoints() {
        let Some(life) = checkpoint.life else { continue };
        let kept = lives.entry(life).or_default();
        // Newest first: whatever is below one that is kept is kept with it.
        if *kept == 0 && checkpoint.size <= leaves && view.is_under(&checkpoint)? {
            *kept = checkpoint.size;
        }
    }
    lives.extend(incarnation_of(view)?.map(|life| (life, leaves)));
    Ok(lives.into_iter().map(|(life, kept)| EndedLife { life, kept }).collect())
}

/// Whether the database is of the life that signed last outside, or tells of the restore that ended that one. The mark says the
/// same, but lies where whoever writes the database can write it as well.
fn goes_on_from_the_last(
    view: &View,
    known: &KnownBefore,
    key: Option<&VerifierKey>,
) -> Result<bool, ReadError> {
    let last = known.checkpoints().next().and_then(|newest| newest.life);
    let (Some(last), Some(own)) = (last, incarnation_of(view)?) else { return Ok(true) };
    if last == own {
        return Ok(true);
    }
    Ok(sealed_restores(view, known, key)?.iter().any(|(_, restored)| restored.ends(last)))
}

fn same_life(mark: Option<&Mark>, incarnation: Option<Incarnation>) -> bool {
    match (mark, incarnation) {
        (Some(mark), Some(incarnation)) => mark.incarnation == incarnation.to_string(),
        _ => true,
    }
}
