//! A culprit, in words.

use super::{Moments, duration, grouped, plural, rate};
use crate::{
    core::time::Nanos,
    report::model::{Culprit, Ending, Wall},
};

/// Whose findings they are: `api[4242]`.
pub(in crate::report) fn owner(culprit: &Culprit) -> String {
    match (&culprit.comm, culprit.pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        _ if culprit.other => "other culprits".to_owned(),
        _ => "nobody known".to_owned(),
    }
}

/// `to 10.2.3.4:5432`, `at 0.0.0.0:80`.
pub(in crate::report) fn place(culprit: &Culprit) -> String {
    let word = match culprit.role {
        Some("client") => "to",
        Some(_) => "at",
        None => "with",
    };
    culprit.end.as_ref().map_or_else(String::new, |end| format!("{word} {end}"))
}

/// `>= 1h50m`.
fn longest(culprit: &Culprit) -> String {
    let at_least = if culprit.longest_at_least { ">= " } else { "" };
    format!("{at_least}{}", duration(culprit.longest_ns))
}

/// The same in a sentence.
pub(super) fn somebody(culprit: &Culprit) -> String {
    match owner(culprit) {
        known if culprit.comm.is_some() => known,
        _ => "somebody we cannot name".to_owned(),
    }
}

/// `3 closed by api[4242]`.
pub(super) fn ending(ending: &Ending) -> String {
    format!("{} {}", grouped(ending.count), manner(ending))
}

/// `closed by api[4242]`.
pub(super) fn manner(ending: &Ending) -> String {
    let by = ending.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    if ending.how == "exited" {
        let process = ending.by.as_deref().unwrap_or("its process");
        return format!("never closed until {process} ended");
    }
    let how = match ending.how {
        "aborted" => "closed with a reset",
        "disconnected" => "disconnected, with the fd kept,",
        "reset" => "reset by the peer",
        "timed-out" => "timed out",
        "destroyed" => "destroyed, as by ss -K",
        "listener-closed" => "dropped with the listener",
        "fd-closed" => "whose fd was closed",
        "in-use" => "in use after all",
        "gone" => "gone unseen",
        other => other,
    };
    format!("{how}{by}")
}

/// `not-closed api[4242] to 10.2.3.4:5432`.
pub(in crate::report) fn title(culprit: &Culprit) -> String {
    let title = format!("{} {} {}", verdict(culprit), owner(culprit), place(culprit));
    title.trim().to_owned()
}

/// Why its findings linger; nothing for those that are not kept apart.
pub(in crate::report) fn verdict(culprit: &Culprit) -> &'static str {
    match culprit.verdict {
        Some(verdict) => verdict,
        None if culprit.other => "",
        None => "unconfirmed",
    }
}

/// `6 connections, 2 still open, the oldest 4h12m`.
pub(in crate::report) fn counts(culprit: &Culprit, from: Wall, moment: Moments<'_>) -> String {
    let before = match culprit.before {
        0 => String::new(),
        all if all >= culprit.opened => format!(" (from before {})", moment(from)),
        some => format!(" ({} from before {})", grouped(some), moment(from)),
    };
    let longest = match culprit.longest_ns {
        0 => String::new(),
        _ if culprit.opened == 1 => format!(", for {}", longest(culprit)),
        _ => format!(", the oldest {}", longest(culprit)),
    };
    format!(
        "{}{before}, {} still open{longest}",
        plural(culprit.opened, "connection"),
        grouped(culprit.open)
    )
}

/// `+14.0 per minute: 4,096 fds used up in about 52m`.
pub(in crate::report) fn grows(culprit: &Culprit, moment: Moments<'_>) -> Option<String> {
    let growth = culprit.growth.as_ref()?;
    let limit = match (growth.reaches_limit_in_ns, growth.fd_limit) {
        (Some(within), Some(limit)) => {
            format!(": {} fds used up in about {}", grouped(limit), duration(within))
        }
        _ => String::new(),
    };
    let when = if growth.at_end { String::new() } else { format!(", at {}", moment(growth.ts)) };
    Some(format!("+{} per minute{when}{limit}", rate(growth.per_minute)))
}

/// When its findings were made. Of those from before that is not when they began.
pub(in crate::report) fn found(
    culprit: &Culprit,
    from: Wall,
    moment: Moments<'_>,
) -> Option<String> {
    let (first, last) = (culprit.first?, culprit.last?);
    let second = |at: Wall| at.0 / Nanos::SECOND.0;
    match culprit.before {
        all if all >= culprit.opened => None,
        0 if second(first) == second(last) => Some(format!("found {}", moment(first))),
        0 => Some(format!("first found {}, last {}", moment(first), moment(last))),
        _ => Some(format!(
            "the first began before {}, the last was found {}",
            moment(from),
            moment(last)
        )),
    }
}

/// `ended: 2 closed by api[4242], 4 timed out`.
pub(in crate::report) fn endings(culprit: &Culprit) -> Option<String> {
    let endings: Vec<_> = culprit.endings.iter().map(ending).collect();
    (!endings.is_empty()).then(|| format!("ended: {}", endings.join(", ")))
}
