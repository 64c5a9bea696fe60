//! Inputs in the notation of the scenarios, through a real pipeline into an exporter.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tcpwatch::{
    core::{input::Input, record::Summary, time::Timestamp, tracker::Rules},
    driver::Driver,
    sink::Sink,
    trace::meta::Meta,
};

use crate::notation;

/// A server that leaks: a connection that is not read, one that never gets accepted, one in order,
/// and a loss.
pub(crate) const LEAK: &str = r"
rules linger=10s
0    pass everything
0    see #1 LISTEN 127.0.0.1:80 holder=web[7]:3 queue=0/128 inode=5
0    end
1    tcp #2 LISTEN>SYN_RECV 127.0.0.1:80 10.0.0.9:5000 listener=#1 owner=web[7]/listener born=1
1    tcp #2 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 listener=#1 owner=web[7]/listener born=1 entered=1
1.5  tcp #3 CLOSE>SYN_SENT 127.0.0.1:4000 [2001:db8::1]:443 owner=app[8]/connect by=app[8] born=1.5 role=client
1.6  tcp #3 SYN_SENT>ESTABLISHED 127.0.0.1:4000 [2001:db8::1]:443 owner=app[8]/connect entered=1.5 born=1.5 role=client inode=11
2    tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 listener=#1 owner=web[7]/listener entered=1 born=1 unread=6
3    tcp #4 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5001 owner=web[7]/fd entered=1 unread=1 inode=12 role=server
4    tcp #3 ESTABLISHED>FIN_WAIT1 127.0.0.1:4000 [2001:db8::1]:443 owner=app[8]/connect entered=1.6 born=1.5 by=app[8] role=client acked=900
4.1  tcp #3 FIN_WAIT1>FIN_WAIT2 127.0.0.1:4000 [2001:db8::1]:443 owner=app[8]/connect entered=4 born=1.5 role=client acked=901
4.2  tcp #3 FIN_WAIT2>CLOSE 127.0.0.1:4000 [2001:db8::1]:443 owner=app[8]/connect entered=4.1 born=1.5 role=client acked=901
5    lost 3
13   pass lingering
13   see #1 LISTEN 127.0.0.1:80 holder=web[7]:3 queue=1/128 inode=5
13   see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 unread=6 listener=#1
13   see #4 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5001 holder=web[7]:9 unread=1 inode=12 role=server
13   end
20   tcp #4 CLOSE_WAIT>LAST_ACK 127.0.0.1:80 10.0.0.9:5001 owner=web[7]/fd entered=3 inode=12 by=web[7] unread=0 role=server
20   tcp #4 LAST_ACK>CLOSE 127.0.0.1:80 10.0.0.9:5001 owner=web[7]/fd entered=20 unread=0 role=server
30   clock
";

/// What the recording says of itself.
pub(crate) fn meta() -> Meta {
    Meta {
        tool: "0.1.0".to_owned(),
        recording: "f00dcafe".to_owned(),
        sequence: 1,
        host: "web/1 ä".to_owned(),
        kernel: "6.12.95".to_owned(),
        machine: "x86_64".to_owned(),
        boot_id: "c1b2a3d4-0000-1111-2222-333344445555".to_owned(),
        clock: notation::clock(Timestamp(250_000_000)).into(),
        ..Meta::default()
    }
}

/// The inputs of a story, and its rules.
pub(crate) fn parse(text: &str) -> (Rules, Vec<Input>) {
    let rules = text.lines().find(|line| line.starts_with("rules")).unwrap_or("rules");
    let inputs = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    (notation::rules(rules), inputs.map(notation::input).collect())
}

/// Runs a story into a sink.
pub(crate) fn tell(text: &str, sink: &mut dyn Sink) -> Summary {
    let (rules, inputs) = parse(text);
    run(rules, inputs, sink)
}

/// Runs inputs into a sink.
pub(crate) fn run(rules: Rules, inputs: Vec<Input>, sink: &mut dyn Sink) -> Summary {
    let mut pipeline = Driver::new(rules, sink);
    pipeline.push(Input::Clock(notation::clock(Timestamp(0)))).unwrap();
    for input in inputs {
        pipeline.push(input).unwrap();
    }
    let summary = pipeline.finish().unwrap();
    pipeline.flush().unwrap();
    summary
}

/// A writer whose bytes can be had while a sink owns it.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
