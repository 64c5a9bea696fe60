//! A healthy server under load.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tcpwatch::kernel::{clock, preemption};

use super::{FLAGS, Lighttpd, REQUEST, connect};
use crate::{
    peers::{read_to_end, reset},
    watch::{Done, Watch},
};

/// Where tasks are preempted in two programs and a softirq interrupts the third, nobody sees what comes then.
/// In ten seconds on one emulated CPU that was one transition.
const MOST_LOST: u64 = 5;

/// Nothing lingers here, however busy it is.
pub(super) fn load() {
    const LASTS: u64 = 10_000_000_000;
    let server = Lighttpd::start(5);
    let port = server.daemon.port;
    let watch = Watch::start(&FLAGS);
    let until = clock::now().0 + LASTS;
    let answers = AtomicU64::new(0);
    let clients: [fn(u16) -> u64; 4] = [short, kept, half_closed, aborted];
    std::thread::scope(|scope| {
        for client in clients {
            let answers = &answers;
            scope.spawn(move || {
                while clock::now().0 < until {
                    answers.fetch_add(client(port), Ordering::Relaxed);
                }
            });
        }
    });
    let answers = answers.into_inner();
    // Slow machines, as those in software emulation, answer some 50 in a second.
    assert!(answers > 200, "that was no load: {answers} answers");
    nothing_lingered(&watch.stop());
}

/// What was lost, if anything may be, is told, and the summary is all else.
fn nothing_lingered(done: &Done) {
    let lost = done.summary()["lost"].as_u64().unwrap();
    let may_be_lost = if preemption::is_known_to_be_on() { MOST_LOST } else { 0 };
    assert!(lost <= may_be_lost, "{lost} lost: {}", done.stderr);
    let told: Vec<_> = done.of("lost").iter().map(|line| line["count"].as_u64().unwrap()).collect();
    assert_eq!(told.iter().sum::<u64>(), lost);
    assert_eq!(done.lines.len(), told.len() + 1, "{:#?}", done.lines);
    assert_eq!(done.stderr.lines().count(), told.len(), "{}", done.stderr);
    assert_eq!(done.summary()["findings"], 0);
}

/// The server closes after its answer.
fn short(port: u16) -> u64 {
    let mut client = connect(port);
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    read_to_end(&mut client);
    1
}

/// The client closes after many answers.
fn kept(port: u16) -> u64 {
    const REQUESTS: u64 = 50;
    let mut client = connect(port);
    for _ in 0..REQUESTS {
        ask(&mut client);
        std::thread::sleep(Duration::from_millis(1));
    }
    REQUESTS
}

/// The client has nothing more to say after its request.
fn half_closed(port: u16) -> u64 {
    let mut client = connect(port);
    client.write_all(REQUEST.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut client);
    1
}

/// The client resets the connection after an answer.
fn aborted(port: u16) -> u64 {
    let mut client = connect(port);
    ask(&mut client);
    reset(client);
    1
}

fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello\n") {
        let mut block = [0; 1024];
        let read = client.read(&mut block).unwrap();
        assert_ne!(read, 0, "the server closed early");
        answer.extend(&block[..read]);
    }
}
