//! Any bytes as what the kernel program says: records of the ring and of the iterators.

use tcpwatch::{
    core::{
        filter::Filter,
        input::{Input, Scope},
        time::{ClockMark, Nanos, Timestamp},
        tracker::Rules,
    },
    decode,
    driver::Driver,
    trace::{decode::Decoder, encode::Encoder},
};
use tcpwatch_common::{RawObserved, RawTransition};

use super::everything::Everything;

/// Decodes records, concludes from them, and writes and reads them. Panics where something is wrong.
pub(crate) fn run(bytes: &[u8]) {
    let inputs = decode(bytes);
    conclude(&inputs);
    record(&inputs);
}

/// A byte says what follows: a pass that begins or ends, a record, or one that is cut short. What makes no
/// sense is counted lost, as a live run does.
fn decode(mut bytes: &[u8]) -> Vec<Input> {
    const JIFFY: Nanos = Nanos(4_000_000);
    let (mut inputs, mut at) = (Vec::new(), Timestamp::default());
    while let Some((&kind, rest)) = bytes.split_first() {
        bytes = rest;
        let len = match kind % 8 {
            0 | 1 => size_of::<RawTransition>(),
            2 | 3 => decode::observation_len(bytes).unwrap_or(size_of::<RawObserved>()),
            4 => usize::from(kind),
            _ => 0,
        };
        let (record, rest) = bytes.split_at(len.min(bytes.len()));
        bytes = rest;
        let input = match kind % 8 {
            0 | 1 | 4 => decode::transition(record).map(Input::Transition),
            2 | 3 => decode::observation(record, JIFFY).map(Input::Observed),
            5 => Ok(Input::PassBegin { at, scope: Scope::Everything }),
            6 => Ok(Input::PassBegin { at, scope: Scope::Lingering }),
            _ => Ok(Input::PassEnd { at }),
        };
        let input = input.unwrap_or(Input::Lost { at, count: 1 });
        at = at.max(input.at());
        inputs.push(input);
    }
    inputs
}

fn conclude(inputs: &[Input]) {
    let watched = Filter { pids: [7, 8].into(), ..Filter::default() };
    for filter in [Filter::default(), watched] {
        let rules = Rules {
            linger: Nanos(1_000_000_000),
            filter,
            findings_only: false,
            include_half_open: true,
            tell_culprits: true,
        };
        let mut sink = Everything::new(rules.linger);
        let mut pipeline = Driver::new(rules, &mut sink);
        for input in inputs {
            pipeline.push(input.clone()).expect("nothing is written anywhere");
        }
        let _ = pipeline.tracker.wants_processes();
        pipeline.finish().expect("nothing is written anywhere");
        sink.report().expect("nothing is written anywhere");
    }
}

/// A trace gives back what was decoded.
fn record(inputs: &[Input]) {
    let mut encoder = Encoder::new(ClockMark::default());
    for input in inputs {
        encoder.push(input);
    }
    if encoder.is_empty() {
        return;
    }
    let sealed = encoder.seal(Vec::new());
    let mut decoder = Decoder::new(&sealed.payload).expect("what was encoded decodes");
    for (number, input) in inputs.iter().enumerate() {
        let again = decoder.next_input().expect("what was encoded decodes");
        assert_eq!(Some(input), again.as_ref(), "input {number}");
    }
    assert!(matches!(decoder.next_input(), Ok(None)), "there is more than was encoded");
}
