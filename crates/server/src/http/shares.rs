//! Places of which each holder has at most so many: streams and requests of a person, connections of an address.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts places by who holds them.
#[derive(Debug)]
pub struct Shares<K> {
    held: Mutex<HashMap<K, usize>>,
    each_max: usize,
}

/// A place that somebody holds. Dropping it gives it back.
#[derive(Debug)]
pub struct Share<K: Copy + Eq + Hash> {
    of: Arc<Shares<K>>,
    holder: K,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Places, at most `each_max` for each holder.
    pub fn new(each_max: usize) -> Arc<Shares<K>> {
        Arc::new(Shares { held: Mutex::default(), each_max })
    }

    /// Takes a place, unless the holder has as many as one may have.
    pub fn take(self: &Arc<Self>, holder: K) -> Option<Share<K>> {
        let mut held = self.lock();
        let own = held.get(&holder).copied().unwrap_or_default();
        (own < self.each_max).then(|| {
            held.insert(holder, own + 1);
            Share { of: self.clone(), holder }
        })
    }

    /// How many are taken.
    pub fn count(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        if let Some(own) = held.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others_and_none_is_lost() {
        let shares = Shares::new(2);
        let mut own = vec![shares.take(1).unwrap(), shares.take(1).unwrap()];
        assert!(shares.take(1).is_none());
        let other = shares.take(2).unwrap();
        own.pop();
        own.push(shares.take(1).unwrap());
        assert_eq!(shares.count(), 3);
        drop((own, other));
        // Whoever holds nothing takes no memory either.
        assert!(shares.lock().is_empty());
    }
}
