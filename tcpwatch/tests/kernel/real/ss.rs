//! What `ss` sees: the truth that findings are held against.

use std::process::Command;

use serde_json::{Value, json};
use tcpwatch::kernel::clock;

/// Longer than anything should take, ns.
const PATIENCE: u64 = 60_000_000_000;
/// Between two looks at something that tells nobody when it changes.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Waits until there is something.
pub(crate) fn eventually<T>(not_yet: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = clock::now().0 + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::now().0 < until, "{not_yet}; ss says:\n{}", ss("all"));
        std::thread::sleep(PAUSE);
    }
}

/// Sockets in a state, in the words of findings, in order.
pub(super) fn sockets(state: &str) -> Vec<Value> {
    sorted(ss(state).lines().map(socket).collect())
}

/// Waits until exactly this many sockets are in a state.
pub(super) fn until(state: &str, count: usize) -> Vec<Value> {
    eventually(&format!("not {count} in {state}"), || {
        Some(sockets(state)).filter(|sockets| sockets.len() == count)
    })
}

/// The listener on a port.
pub(super) fn listener(port: u16) -> Option<Value> {
    listeners(port).into_iter().next()
}

/// All listeners on a port.
pub(super) fn listeners(port: u16) -> Vec<Value> {
    let all = ss("listening");
    let of_port = all.lines().filter(|line| socket(line)["local"] == port);
    of_port
        .map(|line| {
            json!({
                "port": port,
                "holders": holders(line),
                "queue_len": column(line, 0),
                "queue_limit": column(line, 1),
            })
        })
        .collect()
}

/// What of a finding `ss` knows too, in order.
pub(super) fn of_findings(findings: &[Value]) -> Vec<Value> {
    let common = |finding: &Value| {
        json!({
            "local": finding["local"]["port"],
            "remote": finding["remote"]["port"],
            "unread": finding["unread"],
            "holders": sorted(finding["holders"].as_array().unwrap().clone()),
        })
    };
    sorted(findings.iter().map(common).collect())
}

/// What of a finding's listener `ss` knows too.
pub(super) fn of_listener(finding: &Value) -> Value {
    let listener = &finding["listener"];
    json!({
        "port": listener["local"]["port"],
        "holders": sorted(listener["holders"].as_array().unwrap().clone()),
        "queue_len": listener["queue_len"],
        "queue_limit": listener["queue_limit"],
    })
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by_key(Value::to_string);
    values
}

/// One line per socket: queues, ends, holders. The state is left out when one is asked for.
fn ss(state: &str) -> String {
    let output = Command::new("ss").args(["-tanpH", "state", state]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn socket(line: &str) -> Value {
    json!({
        "local": port(line, 2),
        "remote": port(line, 3),
        "unread": column(line, 0),
        "holders": holders(line),
    })
}

fn column(line: &str, number: usize) -> u64 {
    line.split_whitespace().nth(number).unwrap().parse().unwrap()
}

/// 0 for `*`, as of a listener.
fn port(line: &str, number: usize) -> u16 {
    let end = line.split_whitespace().nth(number).unwrap();
    end.rsplit(':').next().unwrap().parse().unwrap_or(0)
}

/// From `users:(("python3",pid=1,fd=4),("cat",pid=2,fd=4))`.
fn holders(line: &str) -> Vec<Value> {
    let Some((_, users)) = line.split_once("users:((") else { return Vec::new() };
    let holder = |user: &str| {
        let mut parts = user.trim_end().trim_end_matches(')').split(',');
        let comm = parts.next().unwrap().trim_matches('"');
        let mut number =
            |name: &str| parts.next().unwrap().strip_prefix(name).unwrap().parse::<u32>().unwrap();
        json!({ "pid": number("pid="), "comm": comm, "fd": number("fd=") })
    };
    sorted(users.split("),(").map(holder).collect())
}
