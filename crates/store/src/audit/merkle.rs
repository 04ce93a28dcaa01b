//! The Merkle tree of RFC 6962: hashes, roots, proofs and their checks. Pure.

use sha2::{Digest as _, Sha256};
use towpath_core::ids::Digest;

/// Interior nodes are stored at every level that is a multiple of this; the ones between are computed from at most
/// 2^8 hashes below them.
pub const TILE_LEVELS: u32 = 8;

/// The hash of a leaf's bytes.
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(bytes);
    Digest(hasher.finalize().into())
}

/// The hash of an interior node.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Digest(hasher.finalize().into())
}

/// Where the stored hashes come from.
pub trait Hashes {
    /// What reading them can end with.
    type Error;

    /// `count` neighbouring hashes at a level that is a multiple of [`TILE_LEVELS`]; level 0 holds the leaves.
    ///
    /// # Errors
    /// They cannot be read, or one is missing.
    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Digest>, Self::Error>;
}

/// The right edge of a growing tree: all that is needed to append and to know the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, largest first: one for each bit of `size`.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The edge of a stored tree.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn load<S: Hashes>(source: &S, size: u64) -> Result<Frontier, S::Error> {
        let mut peaks = Vec::new();
        let mut start = 0;
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            peaks.push(subtree(source, level, start >> level)?);
            start += 1 << level;
        }
        Ok(Frontier { size, peaks })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; `complete` hears of each subtree that it completes: level, position, root.
    pub fn push(&mut self, leaf: Digest, mut complete: impl FnMut(u32, u64, Digest)) {
        let mut hash = leaf;
        let mut level = 0;
        while self.size >> level & 1 == 1 {
            let left = self.peaks.pop().expect("invariant: one peak for each bit of the size");
            hash = node_hash(&left, &hash);
            level += 1;
            complete(level, self.size >> level, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(&last) = peaks.next() else { return Digest::of(b"") };
        peaks.fold(last, |right, left| node_hash(left, &right))
    }
}

/// The root over the first `size` leaves.
///
/// # Errors
/// Those of `source`.
pub fn root<S: Hashes>(source: &S, size: u64) -> Result<Digest, S::Error> {
    match size {
        0 => Ok(Digest::of(b"")),
        _ => range_root(source, 0, size),
    }
}

/// The proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962, 2.1.1).
///
/// # Errors
/// Those of `source`.
///
/// # Panics
/// If `index` is not below `size`.
pub fn inclusion<S: Hashes>(source: &S, index: u64, size: u64) -> Result<Vec<Digest>, S::Error> {
    assert!(index < size, "leaf {index} is not in a tree of {size}");
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(source, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `old` leaves is the beginning of the tree of `new` leaves (RFC 6962, 2.1.2).
///
/// # Errors
/// Those of `source`.
///
/// # Panics
/// If `old` is 0 or above `new`.
pub fn consistency<S: Hashes>(source: &S, old: u64, new: u64) -> Result<Vec<Digest>, S::Error> {
    assert!(0 < old && old <= new, "no consistency from {old} to {new}");
    let (mut start, mut end) = (0, new);
    let mut proof = Vec::new();
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_root(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(source, start, middle)?);
            start = middle;
        }
    }
    if start > 0 {
        proof.push(range_root(source, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that `leaf` is leaf `index` of the tree with this size and root (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(leaf: &Digest, index: u64, tree: (u64, &Digest), proof: &[Digest]) -> bool {
    let (size, root) = tree;
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the `old` tree (size, root) is the beginning of the `new` one (RFC 9162, 2.1.4.2).
pub fn verify_consistency(old: (u64, &Digest), new: (u64, &Digest), proof: &[Digest]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    let mut steps = proof.iter();
    let first = match old_size.is_power_of_two() {
        true => Some(old_root),
        false => steps.next(),
    };
    let Some(&first) = first else { return false };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(step, &old_hash);
            new_hash = node_hash(step, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// The largest power of two below `size`.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The root over the leaves `start..end`, where the range is one that RFC 6962's recursion visits.
fn range_root<S: Hashes>(source: &S, start: u64, end: u64) -> Result<Digest, S::Error> {
    let size = end - start;
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        return subtree(source, level, start >> level);
    }
    let middle = start + split(size);
    Ok(node_hash(&range_root(source, start, middle)?, &range_root(source, middle, end)?))
}

/// The root of one complete subtree.
fn subtree<S: Hashes>(source: &S, level: u32, position: u64) -> Result<Digest, S::Error> {
    let above = level % TILE_LEVELS;
    let mut hashes = source.hashes(level - above, position << above, 1 << above)?;
    while hashes.len() > 1 {
        hashes = hashes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    Ok(hashes[0])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    #[derive(Default)]
    struct Memory {
        leaves: Vec<Digest>,
        nodes: BTreeMap<(u32, u64), Digest>,
        frontier: Frontier,
    }

    impl Memory {
        fn of(size: u64) -> Memory {
            let mut memory = Memory::default();
            for at in 0..size {
                let leaf = leaf_hash(&at.to_be_bytes());
                memory.leaves.push(leaf);
                let nodes = &mut memory.nodes;
                memory.frontier.push(leaf, |level, position, hash| {
                    nodes.insert((level, position), hash);
                });
            }
            memory
        }
    }

    impl Hashes for Memory {
        type Error = Infallible;
        fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Digest>, Infallible> {
            assert_eq!(level % TILE_LEVELS, 0);
            let one = |at: u64| match level {
                0 => self.leaves[at as usize],
                _ => self.nodes[&(level, at)],
            };
            Ok((from..from + count).map(one).collect())
        }
    }

    /// RFC 6962's own definition, word for word.
    fn slow_root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [leaf] => *leaf,
            _ => {
                let middle = (1..).map(|bit| 1 << bit).take_while(|&k: &usize| k < leaves.len()).last();
                let (left, right) = leaves.split_at(middle.unwrap_or(1));
                node_hash(&slow_root(left), &slow_root(right))
            }
        }
    }

    #[test]
    fn the_empty_tree_and_one_leaf_hash_as_the_rfc_says() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Frontier::default().root().to_string(), empty);
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_string(), leaf);
    }

    #[test]
    fn roots_agree_with_the_definition_at_every_size() {
        let memory = Memory::of(70);
        for size in 0..=70 {
            let expect = slow_root(&memory.leaves[..size as usize]);
            assert_eq!(Memory::of(size).frontier.root(), expect, "{size}");
            assert_eq!(root(&memory, size).unwrap(), expect, "{size}");
        }
    }

    #[test]
    fn a_large_tree_is_read_from_its_tiles() {
        let memory = Memory::of(70_000);
        assert_eq!(root(&memory, 70_000).unwrap(), memory.frontier.root());
        assert_eq!(root(&memory, 66_000).unwrap(), slow_root(&memory.leaves[..66_000]));
        let loaded = Frontier::load(&memory, 70_000).unwrap();
        assert_eq!(loaded, memory.frontier);
    }

    #[test]
    fn every_leaf_is_proved_and_no_other_fits_its_proof() {
        for size in 1..=40 {
            let memory = Memory::of(size);
            let root = memory.frontier.root();
            for index in 0..size {
                let proof = inclusion(&memory, index, size).unwrap();
                let leaf = &memory.leaves[index as usize];
                assert!(verify_inclusion(leaf, index, (size, &root), &proof), "{index} of {size}");
                let other = leaf_hash(b"other");
                assert!(!verify_inclusion(&other, index, (size, &root), &proof));
                assert!(!verify_inclusion(leaf, index + 1, (size, &root), &proof));
            }
        }
    }

    #[test]
    fn growth_is_proved_and_another_past_is_not() {
        let memory = Memory::of(40);
        for new in 1..=40 {
            for old in 1..=new {
                let (old_root, new_root) = (root(&memory, old).unwrap(), root(&memory, new).unwrap());
                let proof = consistency(&memory, old, new).unwrap();
                assert!(verify_consistency((old, &old_root), (new, &new_root), &proof), "{old} to {new}");
                let other = leaf_hash(b"other");
                assert!(!verify_consistency((old, &other), (new, &new_root), &proof));
                assert!(!verify_consistency((old, &old_root), (new, &other), &proof));
            }
        }
    }
}
