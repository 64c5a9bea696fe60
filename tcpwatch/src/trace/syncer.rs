//! Brings files to the disk on a thread of its own: `fdatasync` can take many seconds, and meanwhile
//! the recording goes on.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};

use super::disk::Disk;

/// Files that may wait. If the disk is slower than the rotation, the kernel writes the others back in
/// its own time.
const MOST_WAITING: usize = 16;

/// The thread, and what waits for it.
pub(super) struct Syncer {
    files: Option<SyncSender<Arc<File>>>,
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread. `failed` says whether the last attempt has failed.
    pub(super) fn start(disk: Arc<dyn Disk>, failed: Arc<AtomicBool>) -> Result<Self> {
        let (files, inbox) = sync_channel(MOST_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let thread = thread::Builder::new()
            .name("tcpwatch-sync".to_owned())
            .spawn(move || work(&inbox, &*disk, &left, &failed))
            .context("start the thread that brings the recording to the disk")?;
        Ok(Self { files: Some(files), waiting, thread: Some(thread) })
    }

    /// Brings a file to the disk, soon.
    pub(super) fn sync(&self, file: Arc<File>) {
        self.waiting.fetch_add(1, Relaxed);
        let sent = self.files.as_ref().is_some_and(|files| files.try_send(file).is_ok());
        if !sent {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// Whether everything that was asked for has been done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }
}

impl Drop for Syncer {
    /// Returns when the disk has taken everything.
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(files: &Receiver<Arc<File>>, disk: &dyn Disk, waiting: &AtomicUsize, failed: &AtomicBool) {
    for file in files {
        let synced = disk.sync(&file);
        let before = failed.swap(synced.is_err(), Relaxed);
        if let (Err(error), false) = (synced, before) {
            log::warn!(
                "cannot bring the recording to the disk: {error}; the system may still do so"
            );
        }
        waiting.fetch_sub(1, Relaxed);
    }
}
