//! What must hold for any input.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tcpwatch::{
    core::{
        filter::Filter,
        input::{Input, Scope},
        record::Summary,
        time::{Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    sink::json::JsonSink,
};

use crate::notation;

const STATES: [&str; 9] = [
    "CLOSE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "LISTEN",
];

/// A line of the notation without its time.
fn event() -> impl Strategy<Value = String> {
    let state = || proptest::sample::select(&STATES[..]);
    let socket =
        (1u8..6, 0u8..3, 0u8..3, 0u8..2, 0u8..4).prop_map(|(id, owner, inode, error, unread)| {
            let owner = ["", " owner=web[7]/listener listener=#9", " owner=app[8]/connect"]
                [usize::from(owner)];
            let inode = if inode == 0 { String::new() } else { format!(" inode={inode}") };
            let error = if error == 0 { "" } else { " error=104" };
            (
                id,
                format!(
                    "127.0.0.1:80 10.0.0.9:{}{owner}{inode}{error} unread={unread}",
                    5000 + u16::from(id)
                ),
            )
        });
    prop_oneof![
        6 => (socket.clone(), state(), state(), any::<bool>()).prop_map(|((id, socket), old, new, acted)| {
            let by = if acted { " by=app[8]" } else { "" };
            format!("tcp #{id} {old}>{new} {socket}{by}")
        }),
        2 => (socket, state(), 0u8..3).prop_map(|((id, socket), state, holder)| {
            let holder = ["", " holder=app[8]:4", " holder=web[7]:5"][usize::from(holder)];
            format!("see #{id} {state} {socket}{holder}")
        }),
        1 => Just("pass lingering".to_owned()),
        1 => Just("pass everything".to_owned()),
        1 => Just("pass watched".to_owned()),
        2 => Just("end".to_owned()),
        1 => (1u8..9).prop_map(|count| format!("lost {count}")),
        1 => (7u8..10).prop_map(|pid| format!("exit {pid}")),
        1 => (7u8..10).prop_map(|pid| format!("follow {pid}")),
        1 => (7u8..10).prop_map(|pid| format!("running {pid}")),
        1 => (7u8..10).prop_map(|pid| format!("process {pid} fds=9 limit=1024 threads=1S:ep_poll")),
        1 => Just("failed".to_owned()),
        1 => proptest::sample::select(&["name 1 blue", "name 1"][..]).prop_map(str::to_owned),
    ]
}

/// The same, and what the kernel could not remember, and what a recording lacks.
fn any_event() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => event(),
        1 => (proptest::sample::select(&STATES[..]), any::<bool>()).prop_map(|(new, owned)| {
            let owner = if owned { " owner=app[8]/connect" } else { "" };
            format!("tcp - CLOSE>{new} 127.0.0.1:80 10.0.0.9:4999{owner}")
        }),
        1 => (0u8..9).prop_map(|count| format!("gap {count}")),
    ]
}

/// Inputs as a live source has them, in order, up to two seconds apart.
pub(crate) fn story() -> impl Strategy<Value = Vec<Input>> {
    story_of(event())
}

/// Any inputs.
pub(crate) fn any_story() -> impl Strategy<Value = Vec<Input>> {
    story_of(any_event())
}

fn story_of(event: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<Input>> {
    proptest::collection::vec((0u32..2_000, event), 1..80).prop_map(|events| {
        let mut ms = 0;
        events
            .into_iter()
            .map(|(step, text)| {
                ms += step;
                notation::input(&format!("{} {text}", f64::from(ms) / 1000.0))
            })
            .collect()
    })
}

/// Whose sockets a run is about.
#[derive(Clone, Copy, Debug)]
enum Who {
    Everybody,
    One,
    Some,
    Followed,
}

fn who() -> impl Strategy<Value = Who> {
    proptest::sample::select(&[Who::Everybody, Who::One, Who::Some, Who::Followed][..])
}

fn rules_for(who: Who) -> Rules {
    let mut rules = rules(matches!(who, Who::Some));
    match who {
        Who::One => rules.filter.pids = [8].into(),
        Who::Followed => rules.filter.follow = true,
        Who::Everybody | Who::Some => {}
    }
    rules
}

pub(crate) fn rules(watch: bool) -> Rules {
    let pids: BTreeSet<u32> = if watch { [8, 9].into() } else { BTreeSet::new() };
    Rules {
        linger: Nanos(3_000_000_000),
        filter: Filter { pids, ..Filter::default() },
        findings_only: false,
        include_half_open: true,
        tell_culprits: true,
    }
}

/// Everything a run writes, and its summary.
fn run(inputs: &[Input], who: Who) -> (String, Summary) {
    let mut out = Vec::new();
    let mut sink = JsonSink::new(&mut out);
    let mut pipeline = Driver::new(rules_for(who), &mut sink);
    pipeline.push(Input::Clock(notation::clock(Timestamp(0)))).unwrap();
    for input in inputs {
        pipeline.push(input.clone()).unwrap();
        // A live source asks after every input; asking changes nothing.
        let _ = (
            pipeline.tracker.wants_pass(),
            pipeline.tracker.next_deadline(),
            pipeline.tracker.named(),
        );
    }
    let summary = pipeline.finish().unwrap();
    (String::from_utf8(out).unwrap(), summary)
}

/// The same inputs with clock marks wherever the scheduler of a live run put them.
fn with_ticks(inputs: &[Input], ticks: &[(usize, u32)]) -> Vec<Input> {
    let mut all = inputs.to_vec();
    for &(position, share) in ticks {
        let position = position % (all.len() + 1);
        let before = if position == 0 { Timestamp(0) } else { all[position - 1].at() };
        let after = all.get(position).map_or(before, Input::at);
        let gap = after.since(before).0;
        let at = Timestamp(before.0 + gap / 1000 * u64::from(share % 1000));
        all.insert(position, Input::Clock(notation::clock(at)));
    }
    all
}

proptest! {
    #[test]
    fn a_replay_writes_what_the_live_run_wrote(
        story in any_story(),
        ticks in proptest::collection::vec((any::<usize>(), any::<u32>()), 0..40),
        who in who(),
    ) {
        let (live, _) = run(&with_ticks(&story, &ticks), who);
        let (replay, _) = run(&story, who);
        prop_assert_eq!(live, replay);
    }

    #[test]
    fn every_open_finding_is_shown_once_and_ends_at_most_once(story in any_story(), who in who()) {
        let (text, summary) = run(&story, who);
        let mut open = std::collections::HashMap::new();
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            if record["type"] != "finding" { continue }
            let shown = open.entry(record["socket"].as_u64().unwrap()).or_insert(false);
            match record["status"].as_str().unwrap() {
                "open" => { prop_assert!(!*shown, "opened twice: {}", line); *shown = true; }
                "ended" => { prop_assert!(*shown, "ended but not open: {}", line); *shown = false; }
                _ => prop_assert!(*shown, "still but not open: {}", line),
            }
        }
        prop_assert!(summary.ended <= summary.findings());
    }

    #[test]
    fn transitions_are_shown_or_belong_to_others(story in any_story(), who in who()) {
        let (text, summary) = run(&story, who);
        let transitions = story.iter().filter(|input| matches!(input, Input::Transition(_))).count();
        let lost: u64 = story
            .iter()
            .map(|input| match input {
                Input::Lost { count, .. } | Input::Gap { count, .. } => *count,
                _ => 0,
            })
            .sum();
        let shown = text.lines().filter(|line| line.starts_with("{\"type\":\"transition\"")).count();
        prop_assert_eq!(summary.transitions, shown as u64);
        let counted = summary.transitions + summary.others + summary.unclaimed;
        prop_assert_eq!(counted, transitions as u64);
        if matches!(who, Who::Everybody) {
            prop_assert_eq!(summary.others + summary.unclaimed, 0);
        }
        // What contradicts the transition before it shows a loss that nobody has told.
        let mut states = std::collections::HashMap::new();
        let mut contradictions = 0;
        for input in &story {
            if let Input::Transition(t) = input {
                let before = states.insert(t.socket.id, t.new);
                contradictions += u64::from(before.is_some_and(|before| before != t.old));
            }
        }
        prop_assert!((lost..=lost + contradictions).contains(&summary.lost), "{}", summary.lost);
    }

    #[test]
    fn a_pass_is_asked_for_until_one_is_complete(story in any_story()) {
        let mut sink = JsonSink::new(std::io::sink());
        let mut pipeline = Driver::new(rules(false), &mut sink);
        for input in &story {
            pipeline.push(input.clone()).unwrap();
        }
        let mut at = story.last().map_or(Timestamp(0), Input::at);
        // Whatever came before: a few complete passes leave nothing due.
        for _ in 0..4 {
            if let Some(scope) = pipeline.tracker.wants_pass() {
                pipeline.push(Input::PassBegin { at, scope }).unwrap();
                pipeline.push(Input::PassEnd { at }).unwrap();
            }
            at = Timestamp(at.0 + 1);
        }
        prop_assert!(matches!(pipeline.tracker.wants_pass(), None | Some(Scope::Watched)));
    }
}
