//! A map that remembers at least the last so many entries that were used, and no more than twice
//! as many.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Two generations: when the young one is full it becomes the old one, and that is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V: Copy> Recent<K, V> {
    /// Remembers at least `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default(), most }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// What is remembered; being asked for counts as use.
    pub(super) fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(*value);
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered_and_memory_is_bounded() {
        let mut recent = Recent::new(100);
        for n in 0..10_000 {
            recent.insert(n, n);
            assert_eq!(recent.get(0), Some(0), "what is used stays");
        }
        assert!((9_900..10_000).all(|n| recent.get(n) == Some(n)));
        assert!(recent.young.len() + recent.old.len() <= 200);
    }
}
