use std::sync::Mutex;

use tokio::{sync::watch, time::sleep};

use super::*;
use crate::notify::{
    notice::tests::notice,
    queue::{self, CAPACITY, Outbox},
};

#[test]
fn pauses_are_spread_and_never_longer() {
    let pauses: Vec<_> = (0..50).map(|_| jitter(LONGEST_PAUSE)).collect();
    assert!(pauses.iter().all(|&pause| pause >= LONGEST_PAUSE / 2 && pause <= LONGEST_PAUSE));
    assert!(pauses.iter().any(|&pause| pause != pauses[0]));
}

/// A queue whose findings are told apart by the process of their owner.
struct Way {
    outbox: Outbox,
    closing: watch::Sender<bool>,
}

impl Way {
    fn new() -> (Self, Inbox) {
        let (closing, is_closing) = watch::channel(false);
        let (outbox, inbox) = queue::new("findings for x".to_owned(), is_closing);
        (Self { outbox, closing }, inbox)
    }

    fn offer(&self, inode: u32) {
        let mut notice = notice();
        notice.finding.socket.netns = inode;
        self.outbox.offer(&Arc::new(notice));
    }
}

/// What a collector was sent: when, and the findings.
type Sent = Arc<Mutex<Vec<(Duration, Vec<u32>)>>>;

/// A collector that answers with what it is given, and then takes everything.
struct Scripted {
    begun: Instant,
    answers: Mutex<std::vec::IntoIter<Answer>>,
    sent: Sent,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Answer>) -> (Self, Sent) {
        let answers = answers.into_iter().collect::<Vec<_>>().into_iter();
        let sent = Sent::default();
        let ours = Arc::clone(&sent);
        (Self { begun: Instant::now(), answers: Mutex::new(answers), sent: ours }, sent)
    }
}

impl Collector for Scripted {
    type Body = Vec<u32>;

    fn pack(&self, batch: &[Arc<Notice>]) -> Vec<u32> {
        batch.iter().map(|one| one.finding.socket.netns).collect()
    }

    async fn send(&self, batch: Vec<u32>) -> Answer {
        self.sent.lock().unwrap().push((self.begun.elapsed(), batch));
        self.answers.lock().unwrap().next().unwrap_or(Answer::Taken)
    }
}

fn seconds(sent: &Sent) -> Vec<u64> {
    sent.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect()
}

fn apart(sent: &Sent) -> Vec<Duration> {
    sent.lock().unwrap().windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect()
}

fn later(seconds: u64) -> Answer {
    Answer::Later { why: "503".to_owned(), after: Some(Duration::from_secs(seconds)) }
}

fn no_answer() -> Answer {
    Answer::Later { why: "refused".to_owned(), after: None }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_collector_that_asks_for_an_hour_gets_it_and_the_batch_then() {
    let (way, inbox) = Way::new();
    let (collector, sent) = Scripted::new([later(3600)]);
    let run = async {
        // One a minute meanwhile, and at the end nothing more.
        for inode in 0..60 {
            way.offer(inode);
            sleep(Duration::from_mins(1)).await;
        }
        sleep(Duration::from_mins(5)).await;
        way.outbox.close()
    };
    let (tally, ()) = tokio::join!(run, super::run(inbox, collector));
    assert_eq!(seconds(&sent), [1, 3601, 3602]);
    let sent = sent.lock().unwrap();
    assert_eq!((&sent[0].1, &sent[1].1), (&vec![0], &vec![0]), "the batch is kept");
    assert_eq!(sent[2].1, (1..60).collect::<Vec<_>>());
    assert_eq!(tally.missing(), None);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn what_a_collector_asks_for_is_bounded_on_both_sides() {
    let (way, inbox) = Way::new();
    let (collector, sent) = Scripted::new([later(0), later(0), later(1_000_000)]);
    way.offer(0);
    let run = async {
        sleep(Duration::from_hours(3)).await;
        way.outbox.close()
    };
    let (tally, ()) = tokio::join!(run, super::run(inbox, collector));
    assert_eq!(apart(&sent), [FIRST_PAUSE, FIRST_PAUSE, LONGEST_WAIT]);
    assert_eq!(tally.missing(), None);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_next_batch_waits_as_the_last_one_would_have() {
    let (way, inbox) = Way::new();
    let (collector, sent) = Scripted::new((0..4).map(|_| later(3600)));
    way.offer(0);
    let run = async {
        sleep(Duration::from_secs(10)).await;
        way.offer(1);
        sleep(Duration::from_hours(9)).await;
        way.outbox.close()
    };
    let (tally, ()) = tokio::join!(run, super::run(inbox, collector));
    let hours: Vec<_> = seconds(&sent).into_iter().map(|seconds| seconds / 3600).collect();
    assert_eq!(hours, [0, 1, 2, 3,]);
    let batches: Vec<_> = sent.lock().unwrap().iter().map(|(_, batch)| batch[0]).collect();
    assert_eq!(batches, [0, 0, 1, 1]);
    let missing = tally.missing().unwrap();
    assert!(missing.contains("2 of 2 not delivered"), "{missing}");
    assert!(missing.contains("503") && missing.contains("3600s"), "{missing}");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn pauses_grow_from_one_batch_to_the_next() {
    let (way, inbox) = Way::new();
    let (collector, sent) = Scripted::new((0..1000).map(|_| no_answer()));
    let run = async {
        for inode in 0..60 {
            way.offer(inode);
            sleep(Duration::from_mins(1)).await;
        }
        way
    };
    let hour = tokio::time::timeout(Duration::from_hours(1), super::run(inbox, collector));
    let _ = tokio::join!(run, hour);
    let first_only = sent.lock().unwrap().iter().all(|(_, batch)| batch[0] == 0);
    assert!(!first_only, "the first is given up");
    let later = apart(&sent).into_iter().skip(8).min().unwrap();
    assert!(later >= LONGEST_PAUSE / 2, "{later:?}");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn what_finds_no_room_while_a_collector_has_its_hour_is_counted() {
    let (way, inbox) = Way::new();
    let (collector, _) = Scripted::new([later(3600)]);
    way.offer(0);
    let run = async {
        sleep(Duration::from_mins(1)).await;
        (0..CAPACITY + 5).for_each(|_| way.offer(1));
        sleep(Duration::from_hours(2)).await;
        way.outbox.close()
    };
    let (tally, ()) = tokio::join!(run, super::run(inbox, collector));
    let missing = tally.missing().unwrap();
    let all = CAPACITY + 6;
    assert!(missing.contains(&format!("5 of {all} not delivered, 5 of them")), "{missing}");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_end_of_the_run_does_not_make_a_collector_be_asked_early() {
    for (asked, tries) in [(3600, 1), (12, 2)] {
        let (way, inbox) = Way::new();
        let (collector, sent) = Scripted::new([later(asked)]);
        way.offer(0);
        let run = async {
            sleep(Duration::from_secs(11)).await;
            let tally = way.outbox.close();
            way.closing.send(true).unwrap();
            tally
        };
        let begun = Instant::now();
        let (tally, ()) = tokio::join!(run, super::run(inbox, collector));
        assert!(begun.elapsed() < Duration::from_secs(15), "nobody waits an hour at the end");
        assert_eq!(seconds(&sent).len(), tries, "{asked}");
        assert_eq!(tally.missing().is_some(), asked == 3600);
    }
}
