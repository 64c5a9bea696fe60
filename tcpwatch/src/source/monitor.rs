//! How the run itself goes, for who shows that, too.

use std::collections::BTreeMap;

use crate::{
    core::time::{Nanos, Timestamp},
    kernel::meters::Meters,
};

/// Is told how the run goes, from its thread.
pub trait Monitor {
    /// Everything is attached. The meters may be read from now on, from any thread.
    fn attached(&mut self, meters: Meters);

    /// Whether all sockets should be counted now.
    fn wants_count(&self, now: Timestamp) -> bool;

    /// They were counted; an error is that of the look.
    fn counted(&mut self, at: Timestamp, counts: std::io::Result<Counts>, cost: Nanos);

    /// A look at sockets has ended, and whether it succeeded.
    fn looked(&mut self, at: Timestamp, took: Nanos, succeeded: bool);
}

/// How many sockets there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By network namespace: how many in each state, by the kernel's number of the state; `None`
    /// where it cannot be told.
    pub namespaces: BTreeMap<u32, [Option<u64>; 12]>,
}
