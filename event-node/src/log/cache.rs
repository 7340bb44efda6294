//! A bounded map that forgets what was not used for a while.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Two generations: entries in use move to the young one, and when that is full the old one goes.
/// Close to least-recently-used, at the price of a hash map.
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// A cache that holds at most `2 * capacity` entries.
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
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(2);
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
    fn the_newest_value_wins() {
        let mut cache = Cache::new(1);
        cache.insert("a", 1);
        cache.insert("b", 2);
        cache.insert("a", 3);
        assert_eq!(cache.get("a"), Some(3));
    }
}
