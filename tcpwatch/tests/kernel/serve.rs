//! `tcpwatch serve`: what it answers while real connections leak, and to clients that mean it no good.

pub(crate) mod agent;
mod clients;
mod prometheus;
mod secure;

use std::{net::TcpStream, path::Path, process::Command};

use rustix::process::Signal;

use self::agent::Agent;
use crate::{
    Test,
    odd::{Cgroup, has_cgroups},
    peers::{Kind, LEAK, Program, listen, pair, quiet},
    real::eventually,
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("serve_tells_of_a_leak_from_its_beginning_to_its_end", leak),
        Test::new("serve_tells_containers_by_what_kubernetes_calls_them", pods)
            .only_if(has_cgroups),
        Test::new("serve_counts_every_transition_and_how_long_it_took", counts),
        Test::new("serve_counts_sockets_by_state", sockets),
        Test::new("serve_answers_each_path_as_it_should", clients::paths),
        Test::new("serve_bears_silent_and_slow_clients", clients::silent),
        Test::new("serve_bears_nonsense", clients::nonsense),
        Test::new("serve_says_what_is_wrong_with_its_flags", flags),
        Test::new("serve_records_a_series", records),
        Test::new("serve_speaks_tls_to_who_has_a_password", secure::passwords)
            .needs("openssl")
            .needs("curl"),
        Test::new("serve_asks_clients_for_certificates", secure::certificates)
            .needs("openssl")
            .needs("curl"),
        Test::new("serve_bears_clients_that_guess_passwords", secure::guesses),
        Test::new("serve_says_what_is_wrong_with_its_web_configuration", secure::wrong)
            .needs("openssl"),
        Test::new("serve_is_what_promtool_accepts", prometheus::checked).needs("promtool"),
        Test::new("serve_rules_pass_their_tests", prometheus::rules).needs("promtool"),
        Test::new("serve_makes_a_rule_fire_in_prometheus", prometheus::alert)
            .needs("prometheus")
            .needs("ip"),
    ]
}

fn leak() {
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    let service = listener.local_addr().unwrap();
    let agent = Agent::start(&["--linger", "300ms"]);
    assert_eq!(agent.value("tcpwatch_open_findings{verdict=\"not-reading\"}"), Some(0.0));
    drop(client);
    let found = agent.until_finding();
    assert_eq!(found["verdict"], "not-reading");
    assert_eq!(found["owner"]["pid"], std::process::id());
    agent.until("tcpwatch_open_findings{verdict=\"not-reading\"}", 1.0);
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let labels = format!(
        "{{process=\"{}\",container=\"\",pod=\"\",role=\"server\",verdict=\"not-reading\",service=\"{service}\"}}",
        name.trim()
    );
    assert_eq!(agent.value(&format!("tcpwatch_lingering_sockets{labels}")), Some(1.0));
    assert!(agent.value(&format!("tcpwatch_lingering_oldest_seconds{labels}")).unwrap() >= 0.3);
    let fds =
        format!("tcpwatch_owner_max_fds{{process=\"{}\",container=\"\",pod=\"\"}}", name.trim());
    assert!(agent.value(&fds).unwrap() >= 1.0, "{}", agent.metrics());
    drop(server);
    agent.until("tcpwatch_findings_ended_total{how=\"closed\"}", 1.0);
    assert_eq!(agent.value("tcpwatch_open_findings{verdict=\"not-reading\"}"), Some(0.0));
    assert_eq!(agent.value("tcpwatch_findings_total{verdict=\"not-reading\"}"), Some(1.0));
    eventually("a finding is left", || (agent.get("/findings").body == "[]\n").then_some(()));
    let done = agent.stop();
    assert_eq!(done.status.code(), Some(0));
    assert!(done.stderr.contains("1 finding"), "no summary: {}", done.stderr);
}

/// The name of the pod is no name that Kubernetes would take: a log directory is anybody's guess.
fn pods() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let uid = format!("c1b2a3d4-0000-1111-2222-{:012x}", program.pid());
    let id = format!("{:064x}", program.pid());
    let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
    let pod = Cgroup::new(&slice, program.pid());
    let container = Cgroup::new(format!("{slice}/cri-containerd-{id}.scope"), program.pid());
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join(format!("pods/shop_ca\"\u{1b}rt-0_{uid}/app"));
    std::fs::create_dir_all(log).unwrap();
    let logs = ("TCPWATCH_POD_LOGS", logs.path().to_str().unwrap());
    let agent = Agent::start_with(&["--linger", "300ms"], &[logs]);
    let found = agent.until_finding();
    let expected = serde_json::json!({
        "id": id, "runtime": "containerd", "pod_uid": uid,
        "namespace": "shop", "pod": "ca\"\\x1brt-0", "name": "app",
    });
    assert_eq!(found["process"]["container"], expected);
    let page = agent.metrics();
    let labels = r#"container_name="app",pod_namespace="shop",pod_name="ca\"\\x1brt-0",role="#;
    assert!(page.contains(labels), "{page}");
    agent.stop();
    program.kill();
    drop((container, pod));
}

/// Nothing of this reaches the agent as a record.
fn counts() {
    const CONNECTIONS: usize = 200;
    let agent = Agent::start_elsewhere(&[]);
    let listener = listen(Kind::V4);
    for _ in 0..CONNECTIONS {
        let (client, server) = pair(Kind::V4, &listener);
        drop(client);
        drop(server);
    }
    drop(listener);
    quiet(0);
    let count = |old: &str, new: &str| {
        agent.value(&format!("tcpwatch_transitions_total{{old=\"{old}\",new=\"{new}\"}}"))
    };
    for (old, new) in [
        ("CLOSE", "SYN_SENT"),
        ("SYN_SENT", "ESTABLISHED"),
        ("LISTEN", "SYN_RECV"),
        ("SYN_RECV", "ESTABLISHED"),
        ("ESTABLISHED", "FIN_WAIT1"),
        ("CLOSE_WAIT", "LAST_ACK"),
        ("LAST_ACK", "CLOSE"),
    ] {
        assert_eq!(count(old, new), Some(200.0), "{old} to {new}");
    }
    assert_eq!(count("CLOSE", "LISTEN"), Some(1.0));
    assert_eq!(agent.value("tcpwatch_close_wait_seconds_count"), Some(200.0));
    assert_eq!(agent.value("tcpwatch_close_wait_seconds_bucket{le=\"+Inf\"}"), Some(200.0));
    agent.until("tcpwatch_connection_lifetime_seconds_count", 400.0);
    let (sum, lifetimes) = ("_seconds_sum", "tcpwatch_connection_lifetime");
    let lived = agent.value(&format!("{lifetimes}{sum}")).unwrap();
    let waited = agent.value(&format!("tcpwatch_close_wait{sum}")).unwrap();
    assert!(0.0 < waited && waited < lived && lived < 60.0, "{waited} {lived}");
    assert_eq!(agent.value("tcpwatch_lost_transitions_total"), Some(0.0));
    agent.stop();
}

fn sockets() {
    let listener = listen(Kind::V4);
    let pairs: Vec<_> = (0..5).map(|_| pair(Kind::V4, &listener)).collect();
    let (clients, servers): (Vec<TcpStream>, Vec<TcpStream>) = pairs.into_iter().unzip();
    // A process of this namespace: these threads are in it, their process is not.
    let mut inhabitant = Program::start(
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print('ready'); input()",
    );
    assert_eq!(inhabitant.answer(), "ready");
    let agent = Agent::start_elsewhere(&["--count-every", "100ms"]);
    let of = |state: &str| {
        format!("tcpwatch_sockets{{state=\"{state}\",netns=\"{}\"}}", crate::watch::namespace())
    };
    agent.until(&of("ESTABLISHED"), 10.0);
    assert_eq!(agent.value(&of("LISTEN")), Some(2.0));
    assert_eq!(agent.value(&of("TIME_WAIT")), Some(0.0));
    drop(clients);
    agent.until(&of("CLOSE_WAIT"), 5.0);
    drop(servers);
    agent.until(&of("CLOSE_WAIT"), 0.0);
    agent.until(&of("TIME_WAIT"), 5.0);
    inhabitant.kill();
    agent.stop();
}

fn flags() {
    let taken = listen(Kind::V4);
    let address = taken.local_addr().unwrap().to_string();
    let refusal = said_no(&["--listen", &address]);
    assert!(refusal.contains(&address) && refusal.contains("--listen"), "{refusal}");
    assert!(said_no(&["--listen", "0.0.0.0:0"]).contains("--insecure"));
    assert!(said_no(&["--listen", "nonsense"]).contains("--listen"));
    assert!(said_no(&["--record", "/no/such/directory"]).contains("/no/such/directory"));
    assert!(said_no(&["--state", "listen"]).contains("--record"));
    assert!(said_no(&["--keep", "3"]).contains("--record"));
}

/// What it says when it refuses.
fn said_no(flags: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch")).arg("serve").args(flags).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2), "{flags:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let agent = Agent::start(&["--linger", "300ms", "--record", &path]);
    let listener = listen(Kind::V4);
    let (client, _server) = pair(Kind::V4, &listener);
    drop(client);
    agent.until("tcpwatch_open_findings{verdict=\"not-reading\"}", 1.0);
    assert_eq!(agent.value("tcpwatch_recording_failing"), Some(0.0));
    assert_eq!(agent.value("tcpwatch_recording_missing_transitions_total"), Some(0.0));
    agent.stop();
    let first = directory.path().join("tcpwatch.000001.tcpw");
    assert!(first.is_file(), "{:?}", list(directory.path()));
    let replay = Watch::start_unattached(&["replay", "-j", &first.display().to_string()]).wait();
    let states: Vec<_> = replay.of("transition").iter().map(|line| line["new"].clone()).collect();
    assert!(states.contains(&"CLOSE_WAIT".into()), "all transitions are in it: {states:?}");
    assert_eq!(replay.of("finding").first().unwrap()["status"], "open");
}

fn list(directory: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// A process that calls itself what no label may hold as it is.
fn hostile() -> Program {
    let mut program = Program::start(
        r#"
import socket
open('/proc/self/comm', 'wb').write(b'a"b\\\n\xff{} 1')
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
print('ready'); input()
"#,
    );
    assert_eq!(program.answer(), "ready");
    program
}

/// Ends the run as a service manager does.
const TERM: Signal = Signal::TERM;
