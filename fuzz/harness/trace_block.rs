//! Any bytes as the payload of a block.

use tcpwatch::{
    core::{filter::Filter, time::Nanos, tracker::Rules},
    driver::Driver,
    trace::{decode::Decoder, encode::Encoder},
};

use super::everything::Everything;

/// Reads the payload, concludes from it and writes it again. Panics where something is wrong.
pub(crate) fn run(payload: &[u8]) {
    conclude(payload, rules(Filter::default()));
    let watched = Filter { pids: [7].into(), follow: true, ..Filter::default() };
    conclude(payload, Rules { findings_only: true, include_half_open: true, ..rules(watched) });
    encode_again(payload);
}

fn rules(filter: Filter) -> Rules {
    Rules {
        linger: Nanos(1_000_000_000),
        filter,
        findings_only: false,
        include_half_open: false,
        tell_culprits: true,
    }
}

/// What decodes goes through the pipeline and every sink.
fn conclude(payload: &[u8], rules: Rules) {
    let Ok(mut decoder) = Decoder::new(payload) else { return };
    let mut sink = Everything::new(rules.linger);
    let mut pipeline = Driver::new(rules, &mut sink);
    while let Ok(Some(input)) = decoder.next_input() {
        pipeline.push(input).expect("nothing is written anywhere");
    }
    pipeline.finish().expect("nothing is written anywhere");
    sink.report().expect("nothing is written anywhere");
}

/// What decodes, encoded again and decoded, is the same.
fn encode_again(payload: &[u8]) {
    let Ok(mut first) = Decoder::new(payload) else { return };
    let mut encoder = Encoder::new(first.clock());
    while let Ok(Some(input)) = first.next_input() {
        encoder.push(&input);
    }
    if encoder.is_empty() {
        return;
    }
    let sealed = encoder.seal(Vec::new());
    let mut first = Decoder::new(payload).expect("it decoded before");
    let mut again = Decoder::new(&sealed.payload).expect("what was encoded decodes");
    assert_eq!(first.clock(), again.clock());
    for number in 0..sealed.header.inputs.get() {
        let input = first.next_input().expect("it decoded before");
        assert_eq!(input, again.next_input().expect("what was encoded decodes"), "input {number}");
    }
    assert!(matches!(again.next_input(), Ok(None)), "there is more than was encoded");
    assert_eq!(again.unknown, 0);
}
