//! What no program has seen, and what the kernel has no memory for: each loss is counted once, is this run's,
//! and has a cause.

use std::fs;

use serde_json::Value;

use crate::{
    Test,
    peers::{Kind, Program, listen, pair, read_to_end},
    watch::{Done, Watch, change},
};

pub(crate) fn tests() -> Vec<Test> {
    let small = |name, body| {
        Test::new(name, body).needs_kernel("optmem_max of a namespace", has_own_optmem_max)
    };
    vec![
        Test::new("a_child_whose_birth_was_missed_is_not_its_listener", missed_birth),
        Test::new("a_transition_that_was_missed_is_counted_and_flagged", missed_transition),
        small(
            "sockets_without_storage_elsewhere_are_not_this_runs_loss",
            without_storage_elsewhere,
        ),
        small("a_socket_without_storage_is_lost_for_want_of_memory", without_storage),
    ]
}

/// Writes into what tcpwatch remembers of a socket, as the kernel would have left it if no program had been
/// run. It accepts one connection; told `birth`, it gives that the listener's storage; told `state`, it has
/// its last state be `SYN_SENT`. Told `close`, its client closes, and then it does.
const FORGETFUL: &str = "
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, form, *values):
    attr = ctypes.create_string_buffer(struct.pack(form, *values), 128)
    result = libc.syscall(321, command, attr, 128)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
def storage(tcpwatch):
    for fd in os.listdir(f'/proc/{tcpwatch}/fdinfo'):
        try: text = open(f'/proc/{tcpwatch}/fdinfo/{fd}').read()
        except OSError: continue
        info = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
        if info.get('map_type', '').strip() == '24':
            return bpf(14, 'I', int(info['map_id'])), int(info['value_size'])
class Remembered:
    def __init__(self, map, size):
        self.map, self.size = map, size
    def of(self, command, sock, value):
        key = ctypes.c_uint32(sock.fileno())
        bpf(command, 'IxxxxQQQ', self.map, ctypes.addressof(key), ctypes.addressof(value), 0)
    def read(self, sock):
        value = ctypes.create_string_buffer(self.size)
        self.of(1, sock, value)
        return value
    def write(self, sock, value):
        self.of(2, sock, value)
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
tcpwatch = int(input())
known = Remembered(*storage(tcpwatch))
second = socket.create_server(('127.0.0.1', 0))
print(second.getsockname()[1])
for order in sys.stdin:
    order = order.strip()
    if order == 'connect':
        c = socket.create_connection(second.getsockname()); a, _ = second.accept()
        print(c.getsockname()[1])
    elif order == 'birth':
        known.write(a, known.read(second)); print('done')
    elif order == 'state':
        value = known.read(a)
        # After the owner's name, the cookie, and two bytes: the state.
        value[66] = 2
        known.write(a, value); print('done')
    elif order == 'close':
        c.close(); assert a.recv(1) == b''; a.close(); print('closed')
";

/// A connection of which something was missed: what was told from then on, and all that was told.
fn forgetful(order: &str) -> (u16, u16, Vec<Value>, Done) {
    let mut program = Program::start(FORGETFUL);
    program.answer();
    let mut watch = Watch::start(&[]);
    let at: u16 = program.tell(&watch.pid().to_string()).parse().unwrap();
    let client: u16 = program.tell("connect").parse().unwrap();
    watch.transition(at, "ESTABLISHED");
    assert_eq!(program.tell(order), "done");
    assert_eq!(program.tell("close"), "closed");
    watch.until("its end", |t| {
        t["new"] == "CLOSE" && t["local"]["port"] == at && t["remote"]["port"] == client
    });
    let done = watch.stop();
    let of_server = |t: &&&Value| t["local"]["port"] == at && t["remote"]["port"] == client;
    let path: Vec<Value> =
        done.of("transition").iter().filter(of_server).map(|t| (**t).clone()).collect();
    (at, client, path, done)
}

fn missed_birth() {
    let (at, _, path, done) = forgetful("birth");
    let lost: Vec<_> = path.iter().filter(|t| t["uncertain"] == true).collect();
    assert_eq!(lost.len(), 3, "CLOSE_WAIT, LAST_ACK and CLOSE: {path:#?}");
    assert_eq!(change(lost[0]), "ESTABLISHED>CLOSE_WAIT");
    let transitions = done.of("transition");
    let listener = transitions.iter().find(|t| t["new"] == "LISTEN" && t["local"]["port"] == at);
    let listener = &listener.unwrap()["socket"];
    for t in &lost {
        assert_ne!(&t["socket"], listener, "it has its listener's id");
        assert_eq!(t["socket"], lost[0]["socket"]);
        assert_eq!(t["owner"]["pid"], path[0]["owner"]["pid"], "the listener's owner is inherited");
    }
    assert_eq!(lost[0]["in_state_ns"], Value::Null, "nobody saw it begin");
    assert_eq!(done.summary()["lost"], 1, "{}", done.stderr);
    // The listener itself goes on.
    let closed =
        transitions.iter().find(|t| change(t) == "LISTEN>CLOSE" && t["local"]["port"] == at);
    if let Some(closed) = closed {
        assert_eq!(&closed["socket"], listener);
    }
}

fn missed_transition() {
    let (_, _, path, done) = forgetful("state");
    let certain = |t: &Value| (change(t), t["uncertain"] == false);
    let path: Vec<_> = path.iter().map(certain).collect();
    let expected = [
        ("SYN_RECV>ESTABLISHED", true),
        ("ESTABLISHED>CLOSE_WAIT", false),
        ("CLOSE_WAIT>LAST_ACK", false),
        ("LAST_ACK>CLOSE", false),
    ];
    let expected = expected.map(|(change, certain)| (change.to_owned(), certain));
    assert!(path.ends_with(&expected), "{path:?}");
    assert_eq!(done.summary()["lost"], 1, "{}", done.stderr);
    assert_eq!(done.of("lost").len(), 1);
}

/// Since Linux 6.8 or so each network namespace has its own.
fn has_own_optmem_max() -> bool {
    let status =
        std::process::Command::new("unshare").args(["--net", "test", "-w", OPTMEM_MAX]).status();
    status.is_ok_and(|status| status.success())
}

const OPTMEM_MAX: &str = "/proc/sys/net/core/optmem_max";

/// Connections in a namespace where no socket gets storage.
fn churn_without_storage() {
    fs::write(OPTMEM_MAX, "300").unwrap();
    let listener = listen(Kind::V4);
    for _ in 0..20 {
        let (client, mut server) = pair(Kind::V4, &listener);
        drop(client);
        read_to_end(&mut server);
    }
}

fn without_storage_elsewhere() {
    let quiet = Watch::start(&["-q"]);
    let loud = Watch::start(&[]);
    std::thread::spawn(|| {
        crate::peers::enter_new_namespace();
        churn_without_storage();
    })
    .join()
    .unwrap();
    for watch in [quiet, loud] {
        let done = watch.stop();
        assert_eq!(done.summary()["lost"], 0, "{}", done.stderr);
        assert_eq!(done.stderr, "");
    }
}

fn without_storage() {
    let all = Watch::start(&[]);
    // What findings need: into and out of CLOSE_WAIT.
    let quiet = Watch::start(&["-q"]);
    let other_port = Watch::start(&["-L", "1"]);
    churn_without_storage();
    for (watch, fewest, most) in [(all, 180, 210), (quiet, 35, 42), (other_port, 0, 25)] {
        let done = watch.stop();
        let lost = done.summary()["lost"].as_u64().unwrap();
        assert!((fewest..=most).contains(&lost), "{lost} lost, {}", done.stderr);
        if lost > 0 {
            assert!(done.stderr.contains("optmem_max"), "{}", done.stderr);
            assert!(!done.stderr.contains("--ring-size"), "{}", done.stderr);
        }
    }
}
