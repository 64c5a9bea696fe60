//! Who has a descriptor on one socket.

use std::ops::Deref;

use rustc_hash::FxHashSet;

use super::socket::Holder;

/// Holders of one socket that are kept: more than a host has processes, but not more than a forged
/// recording.
const MOST: usize = 1 << 16;
/// So few are looked through as fast as they are looked up.
const FEW: usize = 16;

/// The holders of a socket in the order in which they were seen, each once.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    list: Vec<Holder>,
    /// The same, where they are many.
    known: FxHashSet<Holder>,
}

impl Holders {
    /// Adds one, unless it is there already.
    pub fn insert(&mut self, holder: Holder) {
        if self.list.len() < FEW {
            if !self.list.contains(&holder) {
                self.list.push(holder);
            }
            return;
        }
        if self.known.is_empty() {
            self.known.extend(&self.list);
        }
        if self.list.len() < MOST && self.known.insert(holder) {
            self.list.push(holder);
        }
    }

    /// Keeps only these.
    pub fn retain(&mut self, keep: impl FnMut(&Holder) -> bool) {
        self.list.retain(keep);
        self.known = FxHashSet::default();
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Deref for Holders {
    type Target = [Holder];

    fn deref(&self) -> &[Holder] {
        &self.list
    }
}

impl From<Holders> for Vec<Holder> {
    fn from(holders: Holders) -> Self {
        holders.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Process;

    #[test]
    fn each_is_there_once_in_the_order_in_which_it_came() {
        let holder = |pid: u32| Holder { process: Process { pid, comm: "a".into() }, fd: 3 };
        let mut holders = Holders::default();
        for _ in 0..3 {
            (0..100).rev().for_each(|pid| holders.insert(holder(pid)));
        }
        assert!(holders.iter().map(|holder| holder.process.pid).eq((0..100).rev()));
        holders.retain(|holder| holder.process.pid >= 50);
        (0..100).for_each(|pid| holders.insert(holder(pid)));
        let expected = (50..100).rev().chain(0..50);
        assert!(holders.iter().map(|holder| holder.process.pid).eq(expected));
        (0..u32::try_from(2 * MOST).unwrap()).for_each(|pid| holders.insert(holder(pid)));
        assert_eq!(holders.len(), MOST);
    }
}
