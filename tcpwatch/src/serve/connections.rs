//! Connections of clients, of which there may be so many. One more takes the place of the oldest that
//! has not asked for anything yet, so that who connects and stays silent keeps nobody out.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Whether a client has sent a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has.
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn already(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Open connections, the oldest first.
pub(super) struct Connections {
    most: usize,
    open: VecDeque<(Asked, AbortHandle)>,
}

impl Connections {
    /// None yet, and never more than this.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: VecDeque::new() }
    }

    /// Makes room for one more.
    pub(super) fn make_room(&mut self) {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() >= self.most {
            let silent = self.open.iter().position(|(asked, _)| !asked.already());
            if let Some((_, task)) = self.open.remove(silent.unwrap_or(0)) {
                task.abort();
            }
        }
    }

    /// Takes one in.
    pub(super) fn add(&mut self, asked: Asked, task: AbortHandle) {
        self.open.push_back((asked, task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_silent_one_goes_first() {
        let mut connections = Connections::new(3);
        let mut tasks = Vec::new();
        for asks in [true, false, true, true, true] {
            let asked = Asked::default();
            if asks {
                asked.now();
            }
            let task = tokio::spawn(std::future::pending::<()>());
            connections.make_room();
            connections.add(asked, task.abort_handle());
            tasks.push(task);
        }
        tokio::task::yield_now().await;
        let ended: Vec<bool> = tasks.iter().map(tokio::task::JoinHandle::is_finished).collect();
        assert_eq!(ended, [true, true, false, false, false]);
    }
}
