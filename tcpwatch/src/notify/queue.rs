//! The way from the run to a task: bounded, never waiting, with an account of what became of everything.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{GRACE, notice::Notice};
use crate::core::advice::count;

/// Findings that may wait for one task: some megabytes.
pub(super) const CAPACITY: usize = 2048;
/// How often one task warns.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// A bounded queue. `closing` becomes true when the run has ended.
pub(super) fn new(name: String, closing: watch::Receiver<bool>) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let tally = Arc::new(Tally { name, ..Tally::default() });
    let outbox = Outbox { sender, tally: Arc::clone(&tally) };
    (outbox, Inbox { receiver, closing, tally, warned: None })
}

/// What became of the findings of one queue.
#[derive(Debug, Default)]
pub(super) struct Tally {
    name: String,
    offered: AtomicU64,
    dropped: AtomicU64,
    settled: AtomicU64,
    held_back: AtomicU64,
    why: Mutex<Option<String>>,
}

impl Tally {
    /// They are where they should be.
    pub(super) fn delivered(&self, count: u64) {
        self.settled.fetch_add(count, Relaxed);
    }

    /// Not to be handed on: there were so many, or nobody wants this kind.
    pub(super) fn held_back(&self) {
        self.settled.fetch_add(1, Relaxed);
        self.held_back.fetch_add(1, Relaxed);
    }

    /// Not to be handed on, and nobody need be told.
    pub(super) fn unwanted(&self) {
        self.settled.fetch_add(1, Relaxed);
    }

    /// Why some are not delivered.
    pub(super) fn because(&self, why: &str) {
        let mut last = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(why.to_owned());
    }

    /// What to say at the end of findings that are nowhere; `None` if there are none.
    pub(super) fn missing(&self) -> Option<String> {
        let [offered, dropped, settled, held_back] =
            [&self.offered, &self.dropped, &self.settled, &self.held_back].map(|n| n.load(Relaxed));
        let missing = offered.saturating_sub(settled);
        let mut parts = Vec::new();
        if missing > 0 {
            let mut part = format!("{missing} of {offered} not delivered");
            if dropped > 0 {
                let _ = write!(part, ", {dropped} of them as the queue was full");
            }
            let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = write!(part, " ({})", why.as_deref().unwrap_or("there was no time left"));
            parts.push(part);
        }
        if held_back > 0 {
            parts.push(format!("{held_back} held back, as there were so many"));
        }
        (!parts.is_empty()).then(|| format!("{}: {}", self.name, parts.join("; ")))
    }
}

/// The run's end of a queue.
pub(super) struct Outbox {
    sender: mpsc::Sender<Arc<Notice>>,
    tally: Arc<Tally>,
}

impl Outbox {
    /// Takes it, or drops and counts it.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        self.tally.offered.fetch_add(1, Relaxed);
        if self.sender.try_send(Arc::clone(notice)).is_err() {
            self.tally.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Nothing more will come.
    pub(super) fn close(self) -> Arc<Tally> {
        self.tally
    }
}

/// A task's end of a queue.
pub(super) struct Inbox {
    receiver: mpsc::Receiver<Arc<Notice>>,
    closing: watch::Receiver<bool>,
    pub(super) tally: Arc<Tally>,
    warned: Option<(Instant, u64)>,
}

impl Inbox {
    /// The next; `None` if nothing more comes.
    pub(super) async fn next(&mut self) -> Option<Arc<Notice>> {
        let notice = self.receiver.recv().await;
        self.tell_dropped("they come faster than they can be handed on");
        notice
    }

    /// At least one, and what else comes within a time, up to a number; `None` if nothing more comes.
    pub(super) async fn batch(
        &mut self,
        most: usize,
        within: Duration,
    ) -> Option<Vec<Arc<Notice>>> {
        let mut batch = vec![self.next().await?];
        let end = Instant::now() + within;
        while batch.len() < most {
            let room = most - batch.len();
            match timeout_at(end, self.receiver.recv_many(&mut batch, room)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        Some(batch)
    }

    /// Waits, but not when the run has ended: then only for a moment, as little time is left.
    pub(super) async fn pause(&mut self, time: Duration) {
        const MOMENT: Duration = Duration::from_millis(200);
        let was_closing = *self.closing.borrow() || self.closing.has_changed().is_err();
        tokio::select! {
            () = sleep(if was_closing { time.min(MOMENT) } else { time }) => {}
            _ = self.closing.wait_for(|&closing| closing), if !was_closing => {}
        }
    }

    /// Waits until then, as others ask for, and says meanwhile if the queue is full. False if the run
    /// ends, and then so early that there is no use in waiting.
    pub(super) async fn wait(&mut self, until: Instant, why: &str) -> bool {
        let mut closing = self.closing.clone();
        let ends = async move { drop(closing.wait_for(|&closing| closing).await) };
        tokio::pin!(ends);
        while Instant::now() < until {
            tokio::select! {
                () = sleep_until(until.min(Instant::now() + WARN_EVERY)) => self.tell_dropped(why),
                () = &mut ends => {
                    let in_time = until <= Instant::now() + GRACE;
                    if in_time {
                        sleep_until(until).await;
                    }
                    return in_time;
                }
            }
        }
        true
    }

    /// Warns, if it has not done so lately, and keeps the reason for the end.
    pub(super) fn warn(&mut self, why: &str) {
        self.tally.because(why);
        let now = Instant::now();
        if self.warned.is_some_and(|(at, _)| now < at + WARN_EVERY) {
            return;
        }
        let dropped = self.tally.dropped.load(Relaxed);
        self.warned = Some((now, dropped));
        let so_far = match dropped {
            0 => String::new(),
            _ => format!("; {} dropped so far, as the queue is full", count(dropped, "finding")),
        };
        log::warn!("{}: {why}{so_far}", self.tally.name);
    }

    fn tell_dropped(&mut self, why: &str) {
        if self.tally.dropped.load(Relaxed) > self.warned.map_or(0, |(_, dropped)| dropped) {
            self.warn(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::tests::notice;

    fn pair() -> (Outbox, Inbox, watch::Sender<bool>) {
        let (closing, is_closing) = watch::channel(false);
        let (outbox, inbox) = new("findings for x".to_owned(), is_closing);
        (outbox, inbox, closing)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_finds_no_room_is_counted() {
        let (outbox, mut inbox, _closing) = pair();
        let notice = Arc::new(notice());
        for _ in 0..CAPACITY + 7 {
            outbox.offer(&notice);
        }
        let batch = inbox.batch(512, Duration::ZERO).await.unwrap();
        inbox.tally.delivered(batch.len() as u64);
        inbox.warn("it is slow");
        let tally = outbox.close();
        let mut all = batch.len();
        while let Some(batch) = inbox.batch(512, Duration::from_secs(9)).await {
            all += batch.len();
        }
        assert_eq!(all, CAPACITY, "the rest was taken in order");
        let left = CAPACITY + 7 - batch.len();
        assert_eq!(
            tally.missing().unwrap(),
            format!(
                "findings for x: {left} of {} not delivered, 7 of them as the queue was full (it is slow)",
                CAPACITY + 7
            )
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_said_if_nothing_is_missing() {
        let (outbox, mut inbox, _closing) = pair();
        outbox.offer(&Arc::new(notice()));
        outbox.offer(&Arc::new(notice()));
        let tally = outbox.close();
        assert!(tally.missing().unwrap().contains("no time left"));
        for _ in 0..2 {
            inbox.next().await.unwrap();
        }
        inbox.tally.delivered(1);
        inbox.tally.unwanted();
        assert_eq!(tally.missing(), None);
        assert!(inbox.next().await.is_none());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_end_of_the_run_ends_a_pause() {
        let (_outbox, mut inbox, closing) = pair();
        let begun = Instant::now();
        let hour = Duration::from_hours(1);
        let told = async {
            sleep(Duration::from_secs(5)).await;
            closing.send(true).unwrap();
        };
        tokio::join!(inbox.pause(hour), told);
        assert_eq!(begun.elapsed().as_secs(), 5);
        inbox.pause(hour).await;
        assert!(begun.elapsed().as_secs() < 6, "and later ones are short");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn one_warns_every_thirty_seconds_at_most() {
        let (_outbox, mut inbox, _closing) = pair();
        let begun = Instant::now();
        let mut warned = Vec::new();
        for second in 0..90 {
            inbox.warn("it is slow");
            let last = inbox.warned.unwrap().0.duration_since(begun).as_secs();
            if last == second {
                warned.push(second);
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(warned, [0, 30, 60]);
    }
}
