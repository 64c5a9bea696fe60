//! From what was typed to what the code needs, with messages that say what to type instead.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    cli::{FilterArgs, LiveArgs, SocketArgs},
    core::{comm::shown, filter::Filter, pipeline::Rules},
    kernel::{load::Plan, processes},
    trace::recording::Moment,
};

const SMALLEST_RING: u32 = 4096;
const LARGEST_RING: u32 = 1 << 30;

/// A span such as `30s`, `500ms`, `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let wrong = || "use a number with a unit, such as 30s, 500ms, 2m or 1d".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let span = span.to_duration(day).map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".to_owned())
}

/// A ring size such as `8M`, `65536`, `256K`.
pub fn ring_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = magnitude(text);
    let bytes = digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (SMALLEST_RING..=LARGEST_RING).contains(bytes));
    match bytes {
        Some(bytes) if bytes.is_power_of_two() => Ok(bytes),
        Some(bytes) => Err(format!(
            "it must be a power of two; the next is {}",
            bytes.checked_next_power_of_two().unwrap_or(LARGEST_RING)
        )),
        None => Err("use a power of two from 4K to 1G, such as 8M".to_owned()),
    }
}

/// A size such as `64M`, `1G` or `65536`.
pub fn size(text: &str) -> Result<u64, String> {
    const SMALLEST: u64 = 64 << 10;
    let (digits, shift) = magnitude(text);
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|&bytes| bytes >= SMALLEST)
        .ok_or_else(|| "use a size from 64K on, such as 64M or 1G".to_owned())
}

/// Digits, and the power of two that the letter behind them stands for.
fn magnitude(text: &str) -> (&str, u32) {
    match text.trim_end_matches(['b', 'B']).char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    }
}

/// How many times as fast as it happened.
pub fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.trim_end_matches('x').parse().unwrap_or(0.0);
    if speed.is_finite() && speed > 0.0 {
        Ok(speed)
    } else {
        Err("use a number above 0, such as 1, 0.5 or 60".to_owned())
    }
}

/// A moment of a recording: a date and time, a time of day, or a span after its beginning (`+5m`) or
/// before its end (`-5m`).
pub fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || {
        "use a time such as 2026-11-22T17:30:00Z, 2026-11-22T17:30 or 17:30, or +5m, -5m".to_owned()
    };
    if let Some(span) = text.strip_prefix('+') {
        return duration(span).map(|span| Moment::AfterStart(span.into())).map_err(|_| wrong());
    }
    if let Some(span) = text.strip_prefix('-') {
        return duration(span).map(|span| Moment::BeforeEnd(span.into())).map_err(|_| wrong());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(at.as_nanosecond()).map(Moment::At).map_err(|_| wrong());
    }
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let zoned = civil.to_zoned(jiff::tz::TimeZone::system()).map_err(|_| wrong())?;
        return u64::try_from(zoned.timestamp().as_nanosecond())
            .map(Moment::At)
            .map_err(|_| wrong());
    }
    text.parse::<jiff::civil::Time>().map(Moment::TimeOfDay).map_err(|_| wrong())
}

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
    let inode = fs::metadata(&path)
        .with_context(|| format!("no network namespace '{}': give an inode, a path such as /proc/PID/ns/net, or a name in /run/netns", shown(text)))?
        .ino();
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
    fn times_are_read_as_people_write_them() {
        let cases = [
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("5", 5000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1w2d3h", 788_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "soon", "-3s", "3 parsecs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert_eq!(ring_size("8M"), Ok(8 << 20));
        assert_eq!(ring_size("4096"), Ok(4096));
        assert_eq!(ring_size("256k"), Ok(256 << 10));
        assert!(ring_size("5000").unwrap_err().contains("8192"));
        for bad in ["0", "2048", "", "M", "99999999999", "8G", "3X"] {
            assert!(ring_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_must_be_one() {
        assert!(netns("/etc/passwd").unwrap_err().to_string().contains("not a network namespace"));
        assert!(netns("no-such-name").is_err());
        assert_eq!(netns("4026531840").unwrap(), 4_026_531_840);
        assert!(netns("/proc/self/ns/net").is_ok());
    }
}
