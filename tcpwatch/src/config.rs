//! From what was typed to what the code needs, with messages that say what to type instead.

mod typed;

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, bail};

pub use self::typed::*;
use crate::{
    cli::{FilterArgs, LiveArgs, SocketArgs},
    core::{comm::shown, filter::Filter, tracker::Rules},
    kernel::{load::Plan, processes},
};

/// What to show, from the flags. Processes and namespaces must exist.
pub fn filter(args: &FilterArgs) -> Result<Filter> {
    for &pid in &args.pid {
        processes::check(pid)?;
    }
    let pids = args.pid.iter().copied().collect();
    Ok(Filter { pids, ..socket_filter(&args.sockets)? })
}

/// The same without processes.
pub fn socket_filter(args: &SocketArgs) -> Result<Filter> {
    let netns = args.netns.iter().map(|text| netns(text)).collect::<Result<BTreeSet<_>>>()?;
    Ok(Filter {
        pids: BTreeSet::new(),
        follow: false,
        local_ports: args.localport.iter().copied().collect(),
        remote_ports: args.remoteport.iter().copied().collect(),
        family: family(args),
        netns,
        uids: args.uid.iter().copied().collect(),
        states: args.state.iter().copied().collect(),
        hides_holders: !processes::sees_all_pids(),
    })
}

fn family(args: &SocketArgs) -> Option<u8> {
    match (args.ipv4, args.ipv6) {
        (true, _) => Some(4),
        (_, true) => Some(6),
        _ => None,
    }
}

/// Narrows what a recording run was asked for to what the flags ask for. What was not recorded is
/// refused.
pub fn narrow(filter: &mut Filter, args: &FilterArgs) -> Result<()> {
    narrow_set(&mut filter.pids, &args.pid, "process", !filter.follow)?;
    filter.follow &= args.pid.is_empty();
    let sockets = &args.sockets;
    narrow_set(&mut filter.local_ports, &sockets.localport, "local port", true)?;
    narrow_set(&mut filter.remote_ports, &sockets.remoteport, "remote port", true)?;
    narrow_set(&mut filter.uids, &sockets.uid, "user", true)?;
    narrow_set(&mut filter.states, &sockets.state, "state", true)?;
    let inodes = sockets.netns.iter().map(|text| {
        text.parse().with_context(|| {
            format!(
                "in a recording a network namespace is known by its inode, and '{}' is none",
                shown(text)
            )
        })
    });
    narrow_set(
        &mut filter.netns,
        &inodes.collect::<Result<Vec<u32>>>()?,
        "network namespace",
        true,
    )?;
    match (family(sockets), filter.family) {
        (Some(asked), Some(recorded)) if asked != recorded => {
            bail!("only IPv{recorded} was recorded");
        }
        (asked, recorded) => filter.family = asked.or(recorded),
    }
    Ok(())
}

fn narrow_set<T: Copy + Ord + ToString>(
    recorded: &mut BTreeSet<T>,
    asked: &[T],
    what: &str,
    limits: bool,
) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let asked: BTreeSet<T> = asked.iter().copied().collect();
    if limits && !recorded.is_empty() && !asked.is_subset(recorded) {
        let list: Vec<_> = recorded.iter().map(T::to_string).collect();
        bail!("the recording was limited to {what} {}; no other is in it", list.join(", "));
    }
    *recorded = asked;
    Ok(())
}

/// The inode of a namespace given as inode, path or name.
fn netns(text: &str) -> Result<u32> {
    if let Ok(inode) = text.parse() {
        return Ok(inode);
    }
    let path = if text.contains('/') { text.to_owned() } else { format!("/run/netns/{text}") };
    let inode = match fs::metadata(&path) {
        Ok(file) => file.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "no network namespace '{}': give an inode, a path such as /proc/PID/ns/net, or a name in /run/netns",
            shown(text)
        ),
        Err(error) => bail!("cannot look at {}: {error}", shown(&path)),
    };
    u32::try_from(inode)
        .ok()
        .filter(|_| path_is_namespace(&path))
        .with_context(|| format!("'{}' is a file, but not a network namespace", shown(&path)))
}

/// Namespaces live on nsfs; anything else would match no socket, silently.
fn path_is_namespace(path: &str) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    fs::File::open(path)
        .ok()
        .and_then(|file| rustix::fs::fstatfs(&file).ok())
        .is_some_and(|stat| stat.f_type == NSFS_MAGIC)
}

/// What to conclude and show.
pub fn rules(args: &LiveArgs, filter: &Filter) -> Rules {
    Rules {
        linger: args.linger.into(),
        filter: filter.clone(),
        findings_only: args.findings,
        include_half_open: args.include_half_open,
        tell_culprits: true,
    }
}

/// What the kernel program is to do.
pub fn plan(args: &LiveArgs, filter: &Filter) -> Result<Plan> {
    const MOST_PIDS: usize = 4096;
    if filter.pids.len() > MOST_PIDS {
        bail!("at most {MOST_PIDS} processes can be watched at once; leave --pid out to watch all");
    }
    Ok(Plan {
        filter: filter.clone(),
        findings_only: args.findings,
        ring_bytes: args.ring_size,
        exact_accept: true,
        details: args.output.json,
        follow_from: None,
        tally: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_must_be_one() {
        assert!(netns("/etc/passwd").unwrap_err().to_string().contains("not a network namespace"));
        assert!(netns("no-such-name").is_err());
        assert_eq!(netns("4026531840").unwrap(), 4_026_531_840);
        assert!(netns("/proc/self/ns/net").is_ok());
    }
}
