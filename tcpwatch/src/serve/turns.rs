//! Whose password is checked next.
//!
//! A turn belongs to the check, which cannot be stopped once it has begun: whoever asked for it may
//! hang up, and the next one begins when it has ended all the same. A client that hangs up before its
//! turn is not checked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connections::Source;

/// Checks at a time in all, so that strangers cost this host one core at most. Each source has one
/// place among those that wait, so that one that sends many passwords delays the others by one check.
const CHECKS: usize = 1;

/// Gives turns.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Sources that have a turn or wait for one: no more than there are connections.
    sources: Mutex<HashMap<Source, Weak<Semaphore>>>,
}

/// The right to check one password, until it is dropped.
pub(super) struct Turn {
    _of_source: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(CHECKS)), sources: Mutex::default() }
    }

    /// Waits for the turn of a source.
    pub(super) async fn take(&self, source: Source) -> Turn {
        let of_source = self.of(source).acquire_owned().await.ok();
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _of_source: of_source, _of_all: of_all }
    }

    fn of(&self, source: Source) -> Arc<Semaphore> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, turn| turn.strong_count() > 0);
        let known = sources.get(&source).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(1));
            sources.insert(source, Arc::downgrade(&new));
            new
        })
    }
}
