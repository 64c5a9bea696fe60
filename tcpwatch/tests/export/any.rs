//! What must hold for any recording, also one whose path makes no sense.

use std::io;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use proptest::prelude::*;
use tcpwatch::{
    core::{input::Input, record::Record, time::ClockMark},
    export::parquet::ParquetSink,
    sink::Sink,
};

use crate::{
    notation,
    perfetto::Timeline,
    story::{self, Shared},
};

const STATES: [&str; 7] =
    ["CLOSE", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "FIN_WAIT1", "LISTEN"];
const OWNERS: [&str; 5] = [
    "",
    " owner=master[7]/listener",
    " owner=worker[9]/accept",
    " owner=other[9]/fd",
    " owner=app[8]/connect by=app[8]",
];

/// A line of the notation without its time.
fn event() -> impl Strategy<Value = String> {
    let state = || proptest::sample::select(&STATES[..]);
    let owner = proptest::sample::select(&OWNERS[..]);
    let socket = (1u8..5, owner, 0u8..3, 0u8..2).prop_map(|(id, owner, inode, unread)| {
        let inode = if inode == 0 { String::new() } else { format!(" inode={inode}") };
        (
            id,
            format!("127.0.0.1:80 10.0.0.9:{}{owner}{inode} unread={unread}", 5000 + u16::from(id)),
        )
    });
    prop_oneof![
        8 => (socket.clone(), state(), state(), 0u8..4).prop_map(|((id, socket), old, new, entered)| {
            let entered = if entered == 0 { String::new() } else { format!(" entered={entered}") };
            format!("tcp #{id} {old}>{new} {socket}{entered}")
        }),
        2 => (socket, state()).prop_map(|((id, socket), state)| {
            format!("see #{id} {state} {socket} holder=worker[9]:4")
        }),
        2 => Just("pass lingering".to_owned()),
        2 => Just("end".to_owned()),
        1 => Just("failed".to_owned()),
        1 => Just("lost 2".to_owned()),
    ]
}

/// Inputs up to two seconds apart; transitions may be a little older than what came before.
fn recording() -> impl Strategy<Value = Vec<Input>> {
    proptest::collection::vec((0u32..2_000, event(), 0u64..300), 0..90).prop_map(|events| {
        let mut ms = 4_000;
        let input = |(step, text, late): (u32, String, u64)| {
            ms += step;
            let mut input = notation::input(&format!("{} {text}", f64::from(ms) / 1000.0));
            if let Input::Transition(transition) = &mut input {
                transition.at.0 -= late * 1_000;
            }
            input
        };
        events.into_iter().map(input).collect()
    })
}

/// Counts rows.
struct Rows(usize);

impl Sink for Rows {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.0 += usize::from(matches!(record, Record::Transition(_) | Record::Finding(_)));
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_recording_makes_a_sound_timeline(inputs in recording(), findings: bool) {
        let rules = if findings { "rules linger=3s findings" } else { "rules linger=3s" };
        Timeline::of_inputs(notation::rules(rules), inputs);
    }

    #[test]
    fn no_row_is_lost(inputs in recording(), watched: bool) {
        let rules = notation::rules(if watched { "rules linger=3s pid=9" } else { "rules linger=3s" });
        let mut rows = Rows(0);
        story::run(rules.clone(), inputs.clone(), &mut rows);
        let out = Shared::default();
        let mut sink = ParquetSink::new(out.clone(), &story::meta(), true).unwrap();
        story::run(rules, inputs, &mut sink);
        let reader = SerializedFileReader::new(bytes::Bytes::from(out.bytes())).unwrap();
        prop_assert_eq!(reader.get_row_iter(None).unwrap().count(), rows.0);
    }
}
