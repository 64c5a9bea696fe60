//! What network namespaces are called, as long as they are called that.
//!
//! The kernel gives the inode of one that is gone to the next, so a name is looked up again whenever
//! findings may be shown, and a filter that goes by it every second.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use rustc_hash::FxHashSet;

use super::Watcher;
use crate::{
    core::{
        input::Input,
        time::{Nanos, Timestamp},
    },
    exit::say,
    kernel::{facts, residents},
};

/// How often a namespace that a filter names is looked for.
const CHECK_EVERY: Nanos = Nanos::SECOND;
/// How long sockets that nobody has may take to close: by default a minute in `FIN_WAIT2`, and somewhat longer
/// until the last retransmission (`net/ipv4/tcp_timer.c: tcp_orphan_retries`).
const LAST_CLOSE: Nanos = Nanos(120_000_000_000);

type Name = (u32, Arc<str>);

/// What the pipeline was told.
#[derive(Default)]
pub(super) struct Namespaces {
    named: Vec<Name>,
    checked: Timestamp,
    /// Those without a name and a process, and since when.
    left: BTreeMap<u32, Timestamp>,
}

impl Namespaces {
    /// Whether it has a name of its own.
    pub(super) fn is_named(&self, inode: u32) -> bool {
        self.named.iter().any(|&(named, _)| named == inode)
    }
}

impl Watcher<'_> {
    /// Tells which namespaces have got or lost a name.
    pub(super) fn name_namespaces(&mut self) -> Result<()> {
        self.tell_names(false)
    }

    /// Tells all names again, for whoever begins to read here.
    pub(super) fn name_all_namespaces(&mut self) -> Result<()> {
        self.tell_names(true)
    }

    /// The same as [`Self::name_namespaces`] where sockets are chosen by namespace, now and then.
    pub(super) fn check_namespaces(&mut self, now: Timestamp) -> Result<()> {
        let since = now.since(self.namespaces.checked);
        if self.filter.netns.is_empty() || since < CHECK_EVERY {
            return Ok(());
        }
        self.namespaces.checked = now;
        self.name_namespaces()
    }

    fn tell_names(&mut self, all: bool) -> Result<()> {
        let mut named = facts::namespaces();
        for (inode, name) in lost(&self.namespaces.named, &named) {
            let renamed = named.iter().any(|&(other, _)| other == inode);
            if self.filter.netns.contains(&inode) && !renamed && self.lives_on(inode) {
                named.push((inode, name));
            }
        }
        let before = std::mem::replace(&mut self.namespaces.named, named.clone());
        let at = self.pipeline.tracker.now();
        for (inode, name) in lost(&before, &named) {
            if self.filter.netns.contains(&inode) {
                say(&format!(
                    "tcpwatch: network namespace {name} was deleted: nothing of it is shown any more"
                ));
                self.filter.forget_namespace(inode);
            }
            self.pipeline.push(Input::Namespace { at, inode, name: None })?;
        }
        // Of several names the last is shown.
        let shown: BTreeMap<_, _> = named.into_iter().collect();
        let known: BTreeMap<_, _> = before.into_iter().collect();
        for (inode, name) in shown {
            if all || known.get(&inode) != Some(&name) {
                self.pipeline.push(Input::Namespace { at, inode, name: Some(name) })?;
            }
        }
        Ok(())
    }

    /// `ip netns del` takes the name of a namespace; it lives on with its processes, and then with its sockets. The
    /// kernel gives its inode to no other as long as it does.
    fn lives_on(&mut self, inode: u32) -> bool {
        if residents::is_inhabited(inode) {
            self.namespaces.left.remove(&inode);
            return true;
        }
        let now = self.pipeline.tracker.now();
        let left = *self.namespaces.left.entry(inode).or_insert(now);
        let lives = self.pipeline.tracker.lingers_in(inode)
            || now.since(left) < LAST_CLOSE && self.pipeline.tracker.may_be_open_in(inode);
        if !lives {
            self.namespaces.left.remove(&inode);
        }
        lives
    }
}

/// Namespaces that had names, of which none is left, with the last of them.
fn lost(before: &[Name], now: &[Name]) -> Vec<Name> {
    let now: FxHashSet<_> = now.iter().collect();
    let kept: FxHashSet<_> =
        before.iter().filter(|name| now.contains(name)).map(|(inode, _)| inode).collect();
    let mut lost: Vec<_> =
        before.iter().filter(|(inode, _)| !kept.contains(inode)).cloned().collect();
    lost.reverse();
    lost.sort_by_key(|(inode, _)| *inode);
    lost.dedup_by_key(|(inode, _)| *inode);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[(u32, &str)]) -> Vec<Name> {
        all.iter().map(|&(inode, name)| (inode, Arc::from(name))).collect()
    }

    #[test]
    fn a_namespace_is_lost_when_no_name_of_it_is_left() {
        let before = names(&[(1, "a"), (2, "b"), (2, "c"), (3, "d"), (9, "host")]);
        let now = names(&[(1, "x"), (2, "c"), (9, "host")]);
        assert_eq!(lost(&before, &now), names(&[(1, "a"), (3, "d")]));
        assert_eq!(lost(&now, &now), []);
    }
}
