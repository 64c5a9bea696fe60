//! What the table knows after transitions were lost.

use tcpwatch::{
    core::{
        input::Scope,
        record::{Record, Summary},
        state::State,
        time::ClockMark,
    },
    driver::Driver,
    sink::Sink,
    sink::json::JsonSink,
};

use crate::{notation, properties};

/// Runs a story; the pass that it then wants, and its summary.
fn run(lines: &[&str]) -> (Option<Scope>, Summary) {
    let mut sink = Last(None);
    let mut pipeline = Driver::new(properties::rules(false), &mut sink);
    for line in lines {
        pipeline.push(notation::input(line)).unwrap();
    }
    let wanted = pipeline.tracker.wants_pass();
    pipeline.finish().unwrap();
    (wanted, sink.0.unwrap())
}

struct Last(Option<Summary>);

impl Sink for Last {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> std::io::Result<()> {
        if let Record::Summary(summary) = record {
            self.0 = Some((*summary).clone());
        }
        // It can be shown, too.
        JsonSink::new(std::io::sink()).record(clock, record)
    }
}

#[test]
fn what_was_lost_during_a_pass_takes_another() {
    let story = [
        "1 lost 3",
        "2 pass everything",
        "2 see #2 ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 inode=9",
        "2.1 lost 1",
        "2.2 end",
    ];
    assert_eq!(run(&story).0, Some(Scope::Everything));
    assert_eq!(run(&[&story[..], &["3 pass everything", "3.1 end"]].concat()).0, None);
}

/// Its reset was lost, and the fd is still open.
#[test]
fn what_a_pass_sees_closed_is_in_no_state() {
    let (_, summary) = run(&[
        "1 tcp #2 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 inode=9",
        "1 tcp #3 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5001 inode=10",
        "2 lost 1",
        "3 pass everything",
        "3 see #2 CLOSE 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 inode=9 error=104",
        "3 see #3 ESTABLISHED 127.0.0.1:80 10.0.0.9:5001 holder=web[7]:5 inode=10",
        "3.1 end",
    ]);
    assert_eq!(summary.now, [(State::Established, 1)].into());
}
