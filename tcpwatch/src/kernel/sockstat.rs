//! `/proc/PID/net/sockstat`: how many connections of a network namespace are in `TIME_WAIT`. They have
//! no process and may be hundreds of thousands; the kernel keeps the count.

use std::{fs, os::unix::fs::MetadataExt as _};

/// Those of the namespace of this process, if it is that namespace: a process may hold a socket of
/// another.
pub fn time_wait(pid: u32, netns: u32) -> Option<u64> {
    let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    (inode == u64::from(netns))
        .then(|| fs::read_to_string(format!("/proc/{pid}/net/sockstat")).ok())
        .flatten()
        .and_then(|text| parse(&text))
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|&word| word == "tw")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_time_wait_is_found() {
        let text =
            "sockets: used 181\nTCP: inuse 7 orphan 0 tw 23 alloc 8 mem 1\nUDP: inuse 3 mem 0\n";
        assert_eq!(parse(text), Some(23));
        assert_eq!(parse("sockets: used 181\n"), None);
        assert_eq!(parse("TCP: inuse 7 tw\n"), None);
    }

    #[test]
    fn only_of_the_namespace_that_was_asked_for() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let own = u32::try_from(own).unwrap();
        assert!(time_wait(std::process::id(), own).is_some());
        assert_eq!(time_wait(std::process::id(), own + 1), None);
    }
}
