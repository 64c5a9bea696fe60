//! The selected row of a list that changes all the while.
//!
//! Once somebody has moved it, it stays with what it is on, wherever that goes; before, it is the
//! first row.

use super::Key;

/// A selected row.
#[derive(Clone, Debug)]
pub struct Cursor<K> {
    key: Option<K>,
    index: usize,
    offset: usize,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { key: None, index: 0, offset: 0 }
    }
}

impl<K: Copy + PartialEq> Cursor<K> {
    /// What it stays with.
    pub fn key(&self) -> Option<K> {
        self.key
    }

    /// Which row it is, as drawn last.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many rows are above the first that is shown.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Stays with this from now on.
    pub fn hold(&mut self, key: K) {
        self.key = Some(key);
    }

    /// Goes on with this, which is what it was on by another name. The first row stays the first.
    pub fn follow(&mut self, key: K) {
        self.key = self.key.map(|_| key);
    }

    /// Finds itself again among the rows, and keeps itself among the `visible`.
    pub fn settle(&mut self, rows: impl Iterator<Item = K>, visible: usize) {
        let mut found = None;
        let mut nearest = None;
        let mut count = 0;
        for (index, row) in rows.enumerate() {
            if Some(row) == self.key {
                found = Some(index);
            }
            if index <= self.index {
                nearest = Some((index, row));
            }
            count = index + 1;
        }
        match (self.key, found, nearest) {
            (Some(_), Some(index), _) => self.index = index,
            // What it was on is gone: what has moved up there.
            (Some(_), None, Some((index, row))) => (self.index, self.key) = (index, Some(row)),
            _ => self.index = 0,
        }
        self.offset = self.offset.min(count.saturating_sub(visible)).min(self.index);
        self.offset = self.offset.max((self.index + 1).saturating_sub(visible));
    }

    /// Moves as a key says.
    pub fn step(&mut self, key: Key, page: usize, rows: &[K]) {
        let last = rows.len().saturating_sub(1);
        let index = target(key, self.index, page, last);
        if index != self.index
            && let Some(&row) = rows.get(index)
        {
            (self.index, self.key) = (index, Some(row));
        }
    }
}

/// Where a key leads from a place.
pub(super) fn target(key: Key, from: usize, page: usize, last: usize) -> usize {
    let to = match key {
        Key::Up | Key::Char('k') => from.saturating_sub(1),
        Key::Down | Key::Char('j') => from.saturating_add(1),
        Key::PageUp | Key::Ctrl('b' | 'u') => from.saturating_sub(page),
        Key::PageDown | Key::Ctrl('f' | 'd') => from.saturating_add(page),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => from,
    };
    to.min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_with_what_it_is_on() {
        let mut cursor = Cursor::default();
        cursor.settle("abcd".chars(), 2);
        assert_eq!((cursor.index(), cursor.key()), (0, None));
        cursor.step(Key::Down, 2, &['a', 'b', 'c', 'd']);
        cursor.step(Key::Down, 2, &['a', 'b', 'c', 'd']);
        cursor.settle("abcd".chars(), 2);
        assert_eq!((cursor.index(), cursor.offset(), cursor.key()), (2, 1, Some('c')));
        cursor.settle("cabd".chars(), 2);
        assert_eq!((cursor.index(), cursor.offset()), (0, 0));
    }

    #[test]
    fn when_that_is_gone_it_is_on_what_follows() {
        let mut cursor = Cursor::default();
        cursor.step(Key::End, 2, &['a', 'b', 'c']);
        cursor.settle("abc".chars(), 2);
        cursor.settle("ab".chars(), 2);
        assert_eq!((cursor.index(), cursor.key()), (1, Some('b')));
        cursor.settle("".chars(), 2);
        assert_eq!((cursor.index(), cursor.offset()), (0, 0));
        cursor.step(Key::Down, 2, &[]);
        assert_eq!(cursor.index(), 0);
    }

    #[test]
    fn pages_end_at_the_ends() {
        assert_eq!(target(Key::PageDown, 3, 10, 5), 5);
        assert_eq!(target(Key::PageUp, 3, 10, 5), 0);
        assert_eq!(target(Key::Char('G'), 3, 10, 5), 5);
    }
}
