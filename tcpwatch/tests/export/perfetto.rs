//! The timeline, decoded with messages of its own. The published schema: `consumers.rs`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tcpwatch::{
    core::{comm::Comm, input::Input},
    export::perfetto::PerfettoSink,
};

use crate::{
    story::{self, LEAK, Shared},
    wire::{Event, Packet, Trace},
};

const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;
const COUNTER: i32 = 4;

/// A trace as a person sees it. To make one is to check it.
pub(crate) struct Timeline {
    packets: Vec<Packet>,
    names: BTreeMap<u64, String>,
    keys: BTreeMap<u64, String>,
}

impl Timeline {
    fn of(text: &str) -> Self {
        let (rules, inputs) = story::parse(text);
        Self::of_inputs(rules, inputs)
    }

    pub(crate) fn of_inputs(rules: tcpwatch::core::tracker::Rules, inputs: Vec<Input>) -> Self {
        let out = Shared::default();
        let mut sink = PerfettoSink::new(out.clone(), &story::meta()).unwrap();
        story::run(rules, inputs, &mut sink);
        let packets = Trace::decode(&out.bytes()[..]).unwrap().packet;
        let interned = packets[0].interned_data.clone().unwrap();
        let table =
            |names: Vec<crate::wire::Name>| names.into_iter().map(|n| (n.iid, n.name)).collect();
        let (names, keys) = (table(interned.event_names), table(interned.debug_annotation_names));
        let timeline = Self { packets, names, keys };
        timeline.is_sound();
        timeline
    }

    fn events(&self) -> impl Iterator<Item = (u64, &Event)> {
        self.packets
            .iter()
            .filter_map(|packet| Some((packet.timestamp?, packet.track_event.as_ref()?)))
    }

    /// What holds for any trace.
    fn is_sound(&self) {
        assert_eq!(self.packets[0].sequence_flags, Some(1), "the first clears the state");
        assert!(self.packets.iter().all(|packet| packet.trusted_packet_sequence_id == Some(1)));
        let mut known = BTreeSet::new();
        let mut open: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for packet in &self.packets {
            if let Some(track) = &packet.track_descriptor {
                assert!(track.parent_uuid.is_none_or(|parent| known.contains(&parent)));
                assert!(known.insert(track.uuid), "{track:?} is there twice");
            }
            let Some(event) = &packet.track_event else { continue };
            assert!(known.contains(&event.track_uuid), "{event:?} is before its track");
            assert_eq!(packet.timestamp_clock_id, Some(3));
            let (last, depth) = open.entry(event.track_uuid).or_default();
            let at = packet.timestamp.unwrap();
            assert!(at >= *last, "{event:?} goes back");
            *last = at;
            match event.kind {
                BEGIN => *depth += 1,
                END => *depth -= 1,
                _ => {}
            }
            assert!(*depth <= 1, "{event:?} overlaps");
        }
        assert!(open.values().all(|&(_, depth)| depth == 0), "a slice does not end");
    }

    fn track(&self, uuid: u64) -> String {
        let mut tracks = self.packets.iter().filter_map(|packet| packet.track_descriptor.as_ref());
        let track = tracks.find(|track| track.uuid == uuid).unwrap();
        let parent = track.parent_uuid.map(|parent| self.track(parent) + " / ").unwrap_or_default();
        let name = track.process.as_ref().map(|p| format!("{}[{}]", p.process_name, p.pid));
        parent + &name.or_else(|| track.name.clone()).unwrap()
    }

    fn note(&self, event: &Event, key: &str) -> Option<String> {
        let note = event.debug_annotations.iter().find(|note| self.keys[&note.name_iid] == key)?;
        let number = note.uint_value.map(|value| value.to_string());
        note.string_value.clone().or(number).or_else(|| note.bool_value.map(|v| v.to_string()))
    }

    /// Everything on the tracks whose names contain `track`.
    #[expect(clippy::cast_precision_loss, reason = "stories are short")]
    fn lines(&self, track: &str) -> Vec<String> {
        let line = |(at, event): (u64, &Event)| {
            let name = self.track(event.track_uuid);
            let seconds = at as f64 / 1e9;
            let what = event.name_iid.map(|iid| self.names[&iid].clone());
            let what = what.or_else(|| event.name.clone()).unwrap_or_default();
            let what = match event.kind {
                BEGIN => format!("+{what}"),
                END => "-".to_owned(),
                INSTANT => format!("!{what}"),
                COUNTER => format!("={}", event.counter_value.unwrap()),
                other => panic!("kind {other}"),
            };
            name.contains(track).then(|| format!("{seconds} {name}: {what}"))
        };
        self.events().filter_map(line).collect()
    }
}

#[test]
fn states_are_slices_under_the_owner() {
    let timeline = Timeline::of(LEAK);
    let track = "app[8] / 127.0.0.1:4000 -> [2001:db8::1]:443 #3";
    assert_eq!(
        timeline.lines("#3"),
        [
            format!("1.5 {track}: +SYN_SENT"),
            format!("1.6 {track}: -"),
            format!("1.6 {track}: +ESTABLISHED"),
            format!("4 {track}: -"),
            format!("4 {track}: +FIN_WAIT1"),
            format!("4.1 {track}: -"),
            format!("4.1 {track}: +FIN_WAIT2"),
            format!("4.2 {track}: -"),
        ]
    );
    let left = timeline.events().find(|&(at, event)| at == 4_000_000_000 && event.kind == END);
    let (_, left) = left.unwrap();
    assert_eq!(timeline.note(left, "by").as_deref(), Some("app[8]"));
    assert_eq!(timeline.note(left, "to").as_deref(), Some("FIN_WAIT1"));
    assert_eq!(timeline.note(left, "bytes_acked").as_deref(), Some("900"));
    assert_eq!(timeline.note(left, "owner").as_deref(), Some("app[8] (connect)"));
}

#[test]
fn findings_are_instants_on_the_socket_that_lingers() {
    let timeline = Timeline::of(LEAK);
    let track = "web[7] / 127.0.0.1:80 -> 10.0.0.9:5001 #4";
    assert_eq!(
        timeline.lines("#4"),
        [
            format!("1 {track}: +ESTABLISHED"),
            format!("3 {track}: -"),
            format!("3 {track}: +CLOSE_WAIT"),
            format!("13 {track}: !not-reading"),
            format!("20 {track}: -"),
            format!("20 {track}: +LAST_ACK"),
            format!("20 {track}: !not-reading"),
            format!("20 {track}: -"),
        ]
    );
    let findings: Vec<_> = timeline
        .events()
        .filter(|(_, event)| timeline.note(event, "status").is_some())
        .map(|(_, event)| event)
        .collect();
    let noted = |status: &str, key: &str| {
        let of = |event: &&&Event| timeline.note(event, "status").as_deref() == Some(status);
        findings.iter().filter(of).filter_map(|event| timeline.note(event, key)).next_back()
    };
    assert_eq!(noted("open", "holders").as_deref(), Some("web[7] fd 9"));
    assert_eq!(noted("ended", "ended").as_deref(), Some("closed"));
    assert!(noted("ended", "summary").unwrap().starts_with("closed after 17s"));
}

#[test]
fn what_is_still_open_ends_with_the_recording() {
    let timeline = Timeline::of(LEAK);
    let last = timeline.lines("#2").pop().unwrap();
    assert_eq!(last, "30 web[7] / 127.0.0.1:80 -> 10.0.0.9:5000 #2: -");
    let ends = timeline.events().filter(|(_, event)| timeline.note(event, "still_open").is_some());
    assert_eq!(ends.count(), 1);
}

#[test]
fn losses_and_counts_are_tracks_of_their_own() {
    let timeline = Timeline::of(LEAK);
    assert_eq!(timeline.lines("lost transitions"), ["5 lost transitions: !lost"]);
    let counted = timeline.lines("sockets seen in CLOSE_WAIT");
    assert!(counted.contains(&"3 sockets seen in CLOSE_WAIT: =2".to_owned()), "{counted:?}");
    assert!(counted.last().unwrap().ends_with("=1"), "{counted:?}");
}

#[test]
fn a_socket_lies_under_who_accepted_it_and_not_under_who_listens() {
    let timeline = Timeline::of(
        "1 tcp #2 LISTEN>SYN_RECV 127.0.0.1:80 10.0.0.9:5000 owner=master[7]/listener
1 tcp #2 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 owner=master[7]/listener entered=1
2 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=worker[9]/accept entered=1
3 clock",
    );
    assert_eq!(timeline.lines("worker[9] / ").len(), 6);
    assert!(timeline.lines("master").is_empty());
}

#[test]
fn an_owner_that_is_never_known_is_nobody() {
    let timeline = Timeline::of(
        "1 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000
3 tcp #2 CLOSE_WAIT>CLOSE 127.0.0.1:80 10.0.0.9:5000 entered=1",
    );
    let lines = timeline.lines("owner not known / 127.0.0.1:80 -> 10.0.0.9:5000 #2");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("0.25 ") && lines[0].ends_with("+ESTABLISHED"), "{lines:?}");
}

#[test]
fn no_socket_waits_for_ever_for_its_owner() {
    let change = |n: usize| {
        let (old, new) = [("CLOSE", "LISTEN"), ("LISTEN", "CLOSE_WAIT")][n % 2];
        format!("{n} tcp #2 {old}>{new} 127.0.0.1:80 10.0.0.9:5000 owner=master[7]/listener\n")
    };
    let known = "50 tcp #2 CLOSE_WAIT>LAST_ACK 127.0.0.1:80 10.0.0.9:5000 owner=worker[9]/fd";
    let timeline = Timeline::of(&((1..40).map(change).collect::<String>() + known));
    assert!(timeline.lines("worker").is_empty(), "tracks cannot be moved");
    let left = timeline.events().filter(|&(at, event)| at == 50_000_000_000 && event.kind == END);
    let owners: Vec<_> = left.filter_map(|(_, event)| timeline.note(event, "owner")).collect();
    assert_eq!(owners, ["worker[9] (fd)"]);
}

#[test]
fn transitions_that_come_after_their_finding_are_in_order() {
    let (rules, inputs) = story::parse(
        "rules linger=10s pid=9
1 tcp #2 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 owner=master[7]/listener entered=1 inode=5
2 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=master[7]/listener entered=1 inode=5 unread=1
12.5 pass lingering
12.5 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=worker[9]:4 unread=1 inode=5
12.5 end",
    );
    let timeline = Timeline::of_inputs(rules, inputs);
    let lines: Vec<_> = timeline.lines("worker[9] / ");
    let words: Vec<_> = lines.iter().filter_map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(
        words,
        ["+SYN_RECV", "-", "+ESTABLISHED", "-", "+CLOSE_WAIT", "!not-reading", "-"],
        "{lines:?}"
    );
}

#[test]
fn a_gap_in_a_path_is_closed_where_the_kernel_says() {
    let timeline = Timeline::of(
        "1 tcp #2 SYN_SENT>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/connect entered=0.5
9 tcp #2 CLOSE_WAIT>LAST_ACK 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/connect entered=4
10 clock",
    );
    let lines: Vec<_> = timeline
        .lines("#2")
        .into_iter()
        .map(|line| line.replace("app[8] / 127.0.0.1:80 -> 10.0.0.9:5000 #2: ", ""))
        .collect();
    let expected = [
        "0.5 +SYN_SENT",
        "1 -",
        "1 +ESTABLISHED",
        "4 -",
        "4 +CLOSE_WAIT",
        "9 -",
        "9 +LAST_ACK",
        "10 -",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_pid_that_was_reused_does_not_share_its_track() {
    let timeline = Timeline::of(
        "1 tcp #2 CLOSE>SYN_SENT 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/connect
2 tcp #3 CLOSE>SYN_SENT 127.0.0.1:81 10.0.0.9:5000 owner=other[8]/connect
3 clock",
    );
    assert_eq!(timeline.lines("app[8] / ").len(), 2);
    assert_eq!(timeline.lines("other[8] / ").len(), 2);
    let processes: Vec<_> = timeline
        .packets
        .iter()
        .filter_map(|packet| packet.track_descriptor.as_ref()?.process.as_ref())
        .collect();
    assert_eq!(processes.len(), 1);
}

#[test]
fn findings_alone_make_a_timeline() {
    let text = LEAK.replace("rules linger=10s", "rules linger=10s findings");
    let timeline = Timeline::of(&text);
    let lines = timeline.lines("#4");
    assert!(lines[0].starts_with("3 web[7]") && lines[0].ends_with("+CLOSE_WAIT"), "{lines:?}");
    assert!(lines[1].starts_with("13 ") && lines[1].ends_with("!not-reading"), "{lines:?}");
    assert!(lines.last().unwrap().ends_with(": -"), "{lines:?}");
}

#[test]
fn a_leaked_fd_of_a_dead_connection_is_on_its_track() {
    let timeline = Timeline::of(
        "rules linger=10s
1 tcp #2 ESTABLISHED>CLOSE 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/connect inode=9 error=104
12 pass lingering
12 see #2 CLOSE 127.0.0.1:80 10.0.0.9:5000 holder=app[8]:4 inode=9 error=104
12 end",
    );
    let lines = timeline.lines("app[8] / 127.0.0.1:80 -> 10.0.0.9:5000 #2");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].ends_with("!dead-fd"), "{lines:?}");
}

#[test]
fn sockets_without_an_id_and_hostile_names_are_shown() {
    let (rules, mut inputs) = story::parse("1 tcp #1 ESTABLISHED>CLOSE 127.0.0.1:80 owner=x[9]/fd");
    let Input::Transition(transition) = &mut inputs[0] else { panic!("not a transition") };
    transition.socket.id = None;
    if let Some(owner) = &mut transition.socket.owner {
        owner.process.comm = Comm::from("\x1b[2J");
    }
    let timeline = Timeline::of_inputs(rules, inputs);
    assert_eq!(timeline.lines("[9]"), ["1 \\x1b[2J[9]: !ESTABLISHED > CLOSE"]);
}

#[test]
fn an_empty_recording_is_a_valid_trace() {
    let timeline = Timeline::of("");
    assert!(timeline.packets.iter().any(|packet| packet.clock_snapshot.is_some()));
}
