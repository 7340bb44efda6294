//! A bounded map that evicts entries not used recently.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Cache of two generations. Used entries move to the young generation; when that is full, the old
/// one is dropped. Approximates least-recently-used eviction at the cost of a hash map.
pub(super) struct GenerationalCache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> GenerationalCache<K, V> {
    /// Creates a cache of at most `2 * capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity }
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_entries_stay_and_others_are_evicted() {
        let mut cache = GenerationalCache::new(2);
        cache.insert("kept", 1);
        for number in 0..20 {
            assert_eq!(cache.get("kept"), Some(1));
            cache.insert(["a", "b", "c", "d"][number % 4], number);
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        cache.clear();
        assert_eq!(cache.get("kept"), None);
    }

    #[test]
    fn newest_value_of_a_key_wins() {
        let mut cache = GenerationalCache::new(1);
        cache.insert("a", 1);
        cache.insert("b", 2);
        cache.insert("a", 3);
        assert_eq!(cache.get("a"), Some(3));
    }
}
