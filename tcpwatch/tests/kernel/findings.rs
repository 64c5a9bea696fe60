//! What lingers, why, and how it ends.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::{
    Test,
    peers::{Kind, Program, connect, listen, pair, port, read_to_end, reset},
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("everything_read_but_not_closed", not_closed),
        Test::new("unread_data_is_counted_without_the_fin", not_reading),
        Test::new("a_connection_nobody_accepts_names_the_listener", never_accepted),
        Test::new("a_reset_in_close_wait_leaves_a_dead_fd", dead_fd),
        Test::new("a_shutdown_without_close_leaves_a_dead_fd", shutdown_only),
        Test::new("closing_with_unread_data_is_an_abort", aborted),
        Test::new("a_half_close_in_use_is_not_a_leak", half_open_in_use),
        Test::new("a_peer_that_does_not_read_blocks_writing", write_blocked),
        Test::new("what_lingered_before_the_start_is_found", seeded),
        Test::new("findings_only_sends_only_what_findings_need", findings_only),
        Test::new("three_leaks_are_three_findings", three_leaks),
        Test::new("fail_on_leak_exits_1", fail_on_leak),
    ]
}

const LINGER: [&str; 2] = ["--linger", "500ms"];

fn us() -> u32 {
    std::process::id()
}

fn not_closed() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    let from = port(&client);
    drop(client);
    read_to_end(&mut server);
    let finding = watch.finding("open");
    assert_eq!(finding["verdict"], "not-closed");
    assert_eq!((&finding["role"], &finding["state"]), (&json!("server"), &json!("CLOSE_WAIT")));
    assert_eq!((&finding["unread"], &finding["linger_at_least"]), (&json!(0), &json!(false)));
    assert_eq!(finding["remote"]["port"], from);
    assert_eq!(finding["linger_ns"], 500_000_000, "stamped with its deadline");
    let holder = &finding["holders"][0];
    let fd = std::os::fd::AsRawFd::as_raw_fd(&server);
    assert_eq!((&holder["pid"], &holder["fd"]), (&json!(us()), &json!(fd)));
    assert_eq!(finding["owner"]["pid"], us());
    let how = finding["owner"]["how"].as_str().unwrap();
    assert!(["fd", "accept"].contains(&how), "accept where the kernel allows fexit: {how}");
    let still = watch.finding("still");
    assert_eq!(still["linger_ns"], 1_500_000_000);
    drop(server);
    let ended = watch.finding("ended");
    assert_eq!(
        (&ended["ended"]["how"], &ended["ended"]["by"]["pid"]),
        (&json!("closed"), &json!(us()))
    );
    let done = watch.stop();
    assert_eq!((&done.summary()["findings"], &done.summary()["ended"]), (&json!(1), &json!(1)));
    assert_eq!(done.summary()["owners"][0]["pid"], us());
}

fn not_reading() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V6);
    let (mut client, server) = pair(Kind::V6, &listener);
    client.write_all(b"0123456789").unwrap();
    drop(client);
    let finding = watch.finding("open");
    assert_eq!(finding["verdict"], "not-reading");
    assert_eq!(finding["unread"], 11, "ten bytes and the FIN");
    assert!(finding["summary"].as_str().unwrap().contains("last 10 bytes"), "{finding}");
    drop(server);
}

fn never_accepted() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap();
    drop(connect(Kind::V4, &listener));
    let finding = watch.finding("open");
    assert_eq!(finding["verdict"], "never-accepted");
    assert_eq!(finding["holders"], json!([]));
    assert_eq!(finding["listener"]["local"]["port"], at.port());
    assert_eq!(finding["listener"]["holders"][0]["pid"], us());
    assert_eq!(finding["listener"]["queue_len"], 1);
    assert_eq!(finding["listener"]["queue_limit"], 128);
    drop(listener);
    assert_eq!(watch.finding("ended")["ended"]["how"], "listener-closed");
}

fn dead_fd() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    watch.finding("open");
    // The peer is gone: what we send is answered with a reset.
    server.write_all(b"x").unwrap();
    let still = watch.until("dead fd", |f| f["verdict"] == "dead-fd");
    assert_eq!((&still["status"], &still["state"]), (&json!("still"), &json!("CLOSE")));
    assert_eq!(still["holders"][0]["pid"], us());
    assert!(still["summary"].as_str().unwrap().contains("reset by the peer"), "{still}");
    drop(server);
    let ended = watch.finding("ended");
    assert_eq!(ended["ended"]["how"], "fd-closed");
}

fn shutdown_only() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap().port();
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    server.shutdown(std::net::Shutdown::Both).unwrap();
    watch.transition(at, "CLOSE");
    let finding = watch.finding("open");
    assert_eq!((&finding["verdict"], &finding["state"]), (&json!("dead-fd"), &json!("CLOSE")));
    drop(server);
    watch.finding("ended");
}

fn aborted() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let (mut client, server) = pair(Kind::V4, &listener);
    client.write_all(b"unread").unwrap();
    drop(client);
    watch.finding("open");
    drop(server);
    let ended = watch.finding("ended");
    assert_eq!(
        (&ended["ended"]["how"], &ended["ended"]["by"]["pid"]),
        (&json!("aborted"), &json!(us()))
    );
}

fn half_open_in_use() {
    let mut watch = Watch::start(&["--linger", "300ms", "--include-half-open"]);
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    read_to_end(&mut server);
    let (sender, stop) = std::sync::mpsc::channel::<()>();
    let mut reader = client.try_clone().unwrap();
    let reading = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    let writing = std::thread::spawn(move || {
        let pause = std::time::Duration::from_millis(20);
        while matches!(stop.recv_timeout(pause), Err(std::sync::mpsc::RecvTimeoutError::Timeout)) {
            server.write_all(b"still here").unwrap();
        }
    });
    assert_eq!(watch.finding("open")["verdict"], "half-open-in-use");
    assert_eq!(watch.finding("still")["verdict"], "half-open-in-use");
    drop(sender);
    writing.join().unwrap();
    let _ = reading.join().unwrap();
    drop(client);
    watch.finding("ended");
}

fn write_blocked() {
    let mut watch = Watch::start(&LINGER);
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    read_to_end(&mut server);
    server.set_nonblocking(true).unwrap();
    let block = vec![0u8; 65_536];
    while server.write(&block).is_ok() {}
    let finding = watch.until("write-blocked", |f| f["verdict"] == "write-blocked");
    assert!(finding["unsent"].as_u64().unwrap() > 0);
    drop(client);
}

fn seeded() {
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    let (second, unread) = pair(Kind::V4, &listener);
    drop((client, second));
    read_to_end(&mut server);
    let mut watch = Watch::start(&["--linger", "300ms", "-p", &us().to_string()]);
    let mut verdicts =
        vec![watch.finding("open")["verdict"].clone(), watch.finding("open")["verdict"].clone()];
    verdicts.sort_by_key(Value::to_string);
    assert_eq!(verdicts, ["not-closed", "not-reading"]);
    for finding in watch.lines.iter().filter(|line| line["type"] == "finding") {
        assert_eq!(finding["linger_at_least"], false, "nothing came in after the FIN");
        assert_eq!(finding["holders"][0]["pid"], us());
    }
    drop(unread);
    let ended = watch.finding("ended");
    assert_eq!(ended["ended"]["by"]["pid"], us());
    drop(server);
}

fn findings_only() {
    let mut watch = Watch::start(&["-q", "--linger", "300ms"]);
    let listener = listen(Kind::V4);
    for _ in 0..100 {
        let (client, mut server) = pair(Kind::V4, &listener);
        drop(client);
        read_to_end(&mut server);
    }
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    watch.finding("open");
    let (client, mut dying) = pair(Kind::V4, &listener);
    reset(client);
    assert_eq!(
        watch.finding("open")["verdict"],
        "dead-fd",
        "the reset is among what findings need"
    );
    let _ = dying.read(&mut [0]);
    drop((server, dying));
    watch.finding("ended");
    let done = watch.stop();
    assert_eq!(done.of("transition").len(), 0);
    assert_eq!(done.summary()["findings"], 2);
}

/// A server that accepts three connections whose peers close, and never closes them itself.
const LEAKY: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
kept = [s.accept()[0] for _ in range(3)]
print('accepted')
input()
";

fn three_leaks() {
    let mut server = Program::start(LEAKY);
    let at: u16 = server.answer().parse().unwrap();
    let pid = server.pid();
    let mut watch = Watch::start(&["-p", &pid.to_string(), "--linger", "500ms"]);
    for _ in 0..3 {
        drop(std::net::TcpStream::connect(("127.0.0.1", at)).unwrap());
    }
    assert_eq!(server.answer(), "accepted");
    for _ in 0..3 {
        watch.finding("open");
    }
    server.kill();
    let done = watch.wait();
    assert!(done.stderr.contains(&format!("process {pid} has ended")), "{}", done.stderr);
    let open: Vec<_> =
        done.of("finding").into_iter().filter(|finding| finding["status"] == "open").collect();
    assert_eq!(open.len(), 3);
    for finding in open {
        assert_eq!(finding["owner"]["pid"], pid);
        assert_eq!(finding["holders"][0]["pid"], pid);
    }
    for t in done.of("transition") {
        assert!(t["owner"].is_null() || t["owner"]["pid"] == pid, "{t}");
    }
    assert!(done.status.success());
}

fn fail_on_leak() {
    let mut watch = Watch::start(&["-q", "--linger", "200ms", "--fail-on-leak"]);
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    watch.finding("open");
    assert_eq!(watch.stop().status.code(), Some(1));
    drop(server);
}
