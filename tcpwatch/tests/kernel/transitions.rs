//! Every transition, with the right facts.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Test,
    peers::{Kind, accept, connect, listen, pair, port, quiet, read_to_end, reset},
    watch::{Watch, change},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("active_and_passive_close_over_ipv4", || both_closes(Kind::V4)),
        Test::new("active_and_passive_close_over_ipv6", || both_closes(Kind::V6)),
        Test::new("v4_mapped_counts_as_ipv4", || both_closes(Kind::Mapped)),
        Test::new("mptcp_shows_the_applications_socket_only", mptcp).only_if(has_mptcp),
        Test::new("a_plain_client_of_an_mptcp_listener_is_shown_whole", plain_client_of_mptcp)
            .only_if(has_mptcp),
        Test::new("a_reset_carries_its_error", reset_carries_error),
        Test::new("refused_connections_are_seen", refused),
        Test::new("port_filters_pass_what_is_not_known_yet", port_filters),
        Test::new("family_filters_split_v4_mapped_from_v6", family_filters),
        Test::new("state_filter_shows_what_touches_the_state", state_filter),
        Test::new("everything_tcpstates_reports_is_reported", tcpstates).only_if(has_tcpstates),
        Test::new("the_cookie_is_the_one_ss_prints", cookie),
    ]
}

const SERVER: [&str; 5] = [
    "LISTEN>SYN_RECV",
    "SYN_RECV>ESTABLISHED",
    "ESTABLISHED>CLOSE_WAIT",
    "CLOSE_WAIT>LAST_ACK",
    "LAST_ACK>CLOSE",
];

fn both_closes(kind: Kind) {
    let mut watch = Watch::start(&[]);
    let listener = listen(kind);
    let at = listener.local_addr().unwrap().port();
    let (client, mut server) = pair(kind, &listener);
    let from = port(&client);
    drop(client);
    read_to_end(&mut server);
    drop(server);
    watch.transition(at, "CLOSE");
    let done = watch.stop();

    let client_path = done.path(from, at);
    let expected_client =
        ["SYN_SENT>ESTABLISHED", "ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>CLOSE"];
    assert!(client_path.ends_with(&expected_client.map(str::to_owned)), "{client_path:?}");
    // Before 6.15 the remote end is not known yet at SYN_RECV.
    let server_path = done.path(at, from);
    assert!(
        server_path.ends_with(&SERVER[1..].iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()),
        "{server_path:?}"
    );

    let us = std::process::id();
    for t in done.of("transition") {
        assert_eq!(t["protocol"], "tcp");
        assert_eq!(t["owner"]["pid"], us, "{t}");
        let is_connection = t["remote"]["port"] != 0;
        if is_connection {
            assert_eq!(t["family"], if kind == Kind::V6 { 6 } else { 4 }, "{t}");
            let addr = if kind == Kind::V6 { "::1" } else { "127.0.0.1" };
            assert_eq!(t["remote"]["addr"], addr, "{t}");
        }
    }
    let closed = done.of("transition").into_iter().find(|t| change(t) == "LAST_ACK>CLOSE").unwrap();
    assert_eq!(closed["local"]["port"], at, "the local port is known at CLOSE");
    assert!(closed["lifetime_ns"].as_u64().unwrap() > closed["in_state_ns"].as_u64().unwrap());
    let closing =
        done.of("transition").into_iter().find(|t| change(t) == "CLOSE_WAIT>LAST_ACK").unwrap();
    assert_eq!(closing["by"]["pid"], us, "who closed it is known");
    assert_eq!(closing["unread"], 0, "the FIN was read");
    let opened = done.of("transition").into_iter().find(|t| change(t) == "CLOSE>SYN_SENT").unwrap();
    assert_eq!(opened["owner"]["how"], "connect");
    assert_eq!(done.summary()["lost"], 0);
    assert!(done.status.success());
}

fn has_mptcp() -> bool {
    fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() == "1")
}

fn mptcp() {
    let mut watch = Watch::start(&["--linger", "500ms"]);
    let listener = listen(Kind::Mptcp);
    let (client, mut server) = pair(Kind::Mptcp, &listener);
    drop(client);
    read_to_end(&mut server);
    let finding = watch.finding("open");
    assert_eq!(finding["protocol"], "mptcp");
    assert_eq!(finding["verdict"], "not-closed");
    assert_eq!(finding["unread"], serde_json::Value::Null);
    assert_eq!(finding["holders"][0]["pid"], std::process::id());
    drop(server);
    watch.finding("ended");
    let done = watch.stop();
    for t in done.of("transition") {
        assert_eq!(t["protocol"], "mptcp", "a subflow is shown: {t}");
    }
    assert!(done.of("transition").iter().any(|t| change(t).ends_with(">CLOSE_WAIT")));
}

/// As Go listens since 1.24: the accepted socket is plain TCP, and only its second transition
/// says so.
fn plain_client_of_mptcp() {
    let mut watch = Watch::start(&[]);
    let listener = listen(Kind::Mptcp);
    let at = listener.local_addr().unwrap().port();
    for _ in 0..2 {
        let (client, mut server) = accept(connect(Kind::V4, &listener), &listener);
        drop(client);
        read_to_end(&mut server);
        drop(server);
        watch.transition(at, "CLOSE");
    }
    let done = watch.stop();
    let sockets: BTreeMap<u64, Vec<&serde_json::Value>> = done
        .of("transition")
        .into_iter()
        .filter(|t| t["local"]["port"] == at && t["remote"]["port"] != 0)
        .fold(BTreeMap::new(), |mut all, t| {
            all.entry(t["socket"].as_u64().unwrap()).or_default().push(t);
            all
        });
    assert_eq!(sockets.len(), 2);
    for transitions in sockets.values() {
        let path: Vec<_> = transitions.iter().map(|t| change(t)).collect();
        assert_eq!(path, SERVER);
        assert!(transitions[2]["owner"]["pid"] == std::process::id(), "{}", transitions[2]);
    }
}

fn reset_carries_error() {
    let mut watch = Watch::start(&[]);
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap().port();
    let (client, server) = pair(Kind::V4, &listener);
    reset(client);
    let t = watch.transition(at, "CLOSE");
    assert_eq!(change(&t), "ESTABLISHED>CLOSE");
    assert_eq!(t["error"], 104, "ECONNRESET");
    assert_eq!(t["by"], serde_json::Value::Null, "nobody here closed it");
    drop(server);
}

fn refused() {
    let mut watch = Watch::start(&[]);
    let free = { listen(Kind::V4).local_addr().unwrap() };
    let error = std::net::TcpStream::connect(free).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let t = watch.until("refusal", |t| t["type"] == "transition" && t["old"] == "SYN_SENT");
    assert_eq!((t["new"].as_str(), t["error"].as_u64()), (Some("CLOSE"), Some(111)));
    assert_eq!(t["owner"]["pid"], std::process::id());
}

fn port_filters() {
    let wanted = listen(Kind::V4);
    let other = listen(Kind::V4);
    let at = wanted.local_addr().unwrap().port();
    let mut watch = Watch::start(&["-D", &at.to_string()]);
    for listener in [&other, &wanted] {
        let (client, mut server) = pair(Kind::V4, listener);
        drop(client);
        read_to_end(&mut server);
    }
    watch.until("the client's close", |t| t["new"] == "CLOSE" && t["remote"]["port"] == at);
    let done = watch.stop();
    let changes: Vec<_> = done.of("transition").into_iter().map(change).collect();
    assert!(changes.contains(&"CLOSE>SYN_SENT".to_owned()), "{changes:?}");
    for t in done.of("transition") {
        let remote = t["remote"]["port"].as_u64().unwrap();
        assert!(remote == u64::from(at) || remote == 0, "{t}");
    }
}

fn family_filters() {
    let (mapped, v6) = (listen(Kind::Mapped), listen(Kind::V6));
    let four = Watch::start(&["-4"]);
    let six = Watch::start(&["-6"]);
    for (kind, listener) in [(Kind::Mapped, &mapped), (Kind::V6, &v6)] {
        let (client, mut server) = pair(kind, listener);
        drop(client);
        read_to_end(&mut server);
    }
    for (mut watch, wanted, listener) in [(four, 4, &mapped), (six, 6, &v6)] {
        let at = listener.local_addr().unwrap().port();
        watch.transition(at, "CLOSE");
        let done = watch.stop();
        let connections: Vec<_> =
            done.of("transition").into_iter().filter(|t| t["remote"]["port"] != 0).collect();
        assert!(!connections.is_empty());
        for t in connections {
            assert_eq!(t["family"], wanted, "{t}");
        }
    }
}

fn state_filter() {
    let mut watch = Watch::start(&["--state", "close-wait"]);
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap().port();
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    drop(server);
    watch.transition(at, "LAST_ACK");
    let done = watch.stop();
    let changes: Vec<_> = done.of("transition").into_iter().map(change).collect();
    assert_eq!(changes, ["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK"]);
}

/// It needs tracefs, which we do not.
fn has_tcpstates() -> bool {
    let there = |path| fs::exists(path).unwrap_or(false);
    there("/usr/sbin/tcpstates") && there("/sys/kernel/tracing/events/sock")
}

/// The same traffic under libbpf-tools' tcpstates: what it reports, we report as often.
fn tcpstates() {
    const CONNECTIONS: usize = 23;
    let mut watch = Watch::start(&[]);
    let mut other = Command::new("/usr/sbin/tcpstates").stdout(Stdio::piped()).spawn().unwrap();
    let mut theirs = BufReader::new(other.stdout.take().unwrap());
    let listener = listen(Kind::V4);
    // Its header says nothing of whether it is attached: a connection that it reports does.
    let mut line = String::new();
    std::thread::scope(|scope| {
        let (reported, stop) = std::sync::mpsc::channel::<()>();
        let listener = &listener;
        scope.spawn(move || {
            let pause = std::time::Duration::from_millis(50);
            while matches!(
                stop.recv_timeout(pause),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            ) {
                drop(pair(Kind::V4, listener));
            }
        });
        while !line.contains("ESTABLISHED") {
            line.clear();
            if theirs.read_line(&mut line).unwrap() == 0 {
                break;
            }
        }
        drop(reported);
    });
    assert!(!line.is_empty(), "tcpstates ended by itself");
    let measured = listen(Kind::V4);
    let measured_at = measured.local_addr().unwrap().port();
    let mut clients = Vec::new();
    for round in 0..CONNECTIONS {
        let (mut client, mut server) = pair(Kind::V4, &measured);
        clients.push(port(&client));
        client.write_all(b"x").unwrap();
        if round % 3 == 0 {
            drop(server);
            read_to_end_or_reset(&mut client);
        } else {
            drop(client);
            read_to_end(&mut server);
        }
    }
    drop(measured);
    quiet(1);
    watch.until("the listener's close", |t| {
        t["old"] == "LISTEN" && t["new"] == "CLOSE" && t["local"]["port"] == measured_at
    });
    let done = watch.stop();
    kill_process(Pid::from_child(&other), Signal::INT).unwrap();
    let mut counts: BTreeMap<(String, String, String), (usize, usize)> = BTreeMap::new();
    for line in theirs.lines().map_while(Result::ok) {
        // SKADDR PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS; a comm may hold spaces.
        let words: Vec<_> = line.split_whitespace().rev().collect();
        let [_, new, _, old, rport, _, lport, ..] = words[..] else { continue };
        if [lport, rport].contains(&measured_at.to_string().as_str()) {
            counts
                .entry((lport.to_owned(), rport.to_owned(), format!("{old}>{new}")))
                .or_default()
                .0 += 1;
        }
    }
    other.wait().unwrap();
    for t in done.of("transition") {
        let key = (t["local"]["port"].to_string(), t["remote"]["port"].to_string(), change(t));
        if [&key.0, &key.1].contains(&&measured_at.to_string()) {
            counts.entry(key).or_default().1 += 1;
        }
    }
    let theirs: usize = counts.values().map(|(theirs, _)| theirs).sum();
    assert!(theirs >= CONNECTIONS * 8, "tcpstates reported only {theirs}");
    for (key, (theirs, ours)) in counts {
        assert!(ours >= theirs, "tcpstates reports {key:?} {theirs} times, tcpwatch {ours} times");
    }
}

fn read_to_end_or_reset(stream: &mut std::net::TcpStream) {
    let _ = std::io::Read::read_to_end(stream, &mut Vec::new());
}

fn cookie() {
    let mut watch = Watch::start(&[]);
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap().port();
    let client = connect(Kind::V4, &listener);
    let (server, _) = listener.accept().unwrap();
    let t = watch.transition(at, "ESTABLISHED");
    let out = Command::new("ss")
        .args(["-tneH", "state", "established", &format!("sport = :{at}")])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let sk = text.split_whitespace().find_map(|word| word.strip_prefix("sk:")).unwrap();
    assert_eq!(t["cookie"].as_u64().unwrap(), u64::from_str_radix(sk, 16).unwrap(), "{text}");
    drop((client, server));
}
