//! What counts as growth, on groups that come and go by chance.

use tcpwatch::core::{
    culprits::Culprits,
    finding::{Evidence, Finding, Status, Verdict},
    input::Input,
    time::{Nanos, Timestamp},
};

use crate::notation;

const SECOND: u64 = 1_000_000_000;

/// A small generator, so that each run is the same.
struct Chance(u64);

impl Chance {
    /// Between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).unwrap()) / f64::from(1u32 << 31)
    }

    /// Until the next of what happens so often on average.
    fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.next()).ln()
    }
}

fn finding(id: u64, at: f64, status: Status) -> (Finding, Timestamp) {
    let line =
        format!("0 see #{id} CLOSE_WAIT 127.0.0.1:4000 10.0.0.9:5432 role=client owner=api[7]/fd");
    let Input::Observed(seen) = notation::input(&line) else { panic!("not a look") };
    let now = notation::time(&at.to_string());
    let finding = Finding {
        at: now,
        status,
        verdict: Some(Verdict::NotClosed),
        state: seen.state,
        linger: Nanos(SECOND),
        at_least: false,
        at_most: None,
        socket: seen.socket,
        holders: Vec::new(),
        listener: None,
        evidence: Evidence::default(),
        netns_name: None,
        ending: None,
        same_owner: 1,
    };
    (finding, now)
}

/// Applies what happens in order, and says in how many seconds growth was claimed.
fn claims(mut events: Vec<(f64, u64, Status)>, seconds: u32) -> usize {
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut culprits = Culprits::default();
    let mut events = events.into_iter().peekable();
    let mut claims = 0;
    for second in 1..=seconds {
        while let Some((at, id, status)) = events.next_if(|event| event.0 <= f64::from(second)) {
            let (finding, now) = finding(id, at, status);
            culprits.apply(&finding, now);
        }
        let now = Timestamp(u64::from(second) * SECOND);
        claims += usize::from(culprits.all(now).iter().any(|culprit| culprit.growth.is_some()));
    }
    claims
}

/// A pool in balance: connections come at random and live for a random time.
fn pool(chance: &mut Chance, size: f64, life: f64, seconds: f64) -> Vec<(f64, u64, Status)> {
    let mut events = Vec::new();
    // Long enough before the beginning for the balance to be there; then all are found at once.
    let (mut at, mut id) = (-6.0 * life, 0);
    while at < seconds {
        at += chance.wait(life / size);
        let end = at + chance.wait(life);
        id += 1;
        if end > 0.0 {
            events.push((at.max(0.01), id, Status::Open));
            events.push((end, id, Status::Ended));
        }
    }
    events
}

#[test]
fn a_steady_pool_does_not_grow() {
    let mut chance = Chance(7);
    let mut claimed = 0;
    for (size, life) in [(60.0, 8.0), (20.0, 2.0), (500.0, 60.0), (8.0, 30.0), (100.0, 300.0)] {
        for _ in 0..20 {
            claimed += claims(pool(&mut chance, size, life, 200.0), 200);
        }
    }
    // Of 20,000 judgements.
    assert!(claimed <= 4, "growth was claimed {claimed} times");
}

#[test]
fn a_burst_is_not_growth() {
    for start in 20..40 {
        let burst = (0..50u32)
            .map(|n| (f64::from(start) + f64::from(n) / 50.0, u64::from(n) + 100, Status::Open));
        let before = (0..20).map(|n| (0.01, n, Status::Open));
        assert_eq!(claims(before.chain(burst).collect(), 100), 0, "at {start} s");
    }
}

/// What lingered before anybody looked is found at once; a few more do not make that a rate.
#[test]
fn what_was_there_before_is_not_growth() {
    let before = (0..300).map(|n| (0.5, n, Status::Open));
    let few = (0..10u32).map(|n| (f64::from(n) + 1.0, u64::from(n) + 1000, Status::Open));
    assert_eq!(claims(before.chain(few).collect(), 60), 0);
}

#[test]
fn a_leak_grows() {
    let leak = |every: f64, count: u32| -> Vec<_> {
        (0..count).map(|n| (f64::from(n) * every + 0.5, u64::from(n), Status::Open)).collect()
    };
    let fast = claims(leak(0.5, 200), 100);
    assert!(fast >= 85, "two a second are seen from the first seconds on: {fast}");
    let slow = claims(leak(20.0, 40), 800);
    assert!(slow >= 400, "three a minute are seen within minutes: {slow}");
    let mut chance = Chance(11);
    let mut both = pool(&mut chance, 30.0, 10.0, 300.0);
    both.extend(leak(0.5, 600).into_iter().map(|(at, id, status)| (at, id + 1_000_000, status)));
    let both = claims(both, 300);
    assert!(both >= 150, "a leak among healthy comings and goings: {both}");
}
