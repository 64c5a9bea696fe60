//! Every metric that is served, in one table: what the exposition writes and the documentation lists.
//!
//! Names follow Prometheus: base units, `_total` for counters. No label has a value for each socket;
//! how many series a family has at most is said beside it.

use prometheus_client::{metrics::MetricType, registry::Unit};

/// A family of series.
pub struct Family {
    /// Its name without unit and `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts in, if that is a unit.
    pub unit: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up only.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It says how values are spread.
    Histogram,
    /// It only has labels.
    Info,
}

impl Family {
    /// The name by which it is queried.
    pub fn full_name(&self) -> String {
        let unit = self.unit.map_or_else(String::new, |unit| format!("_{unit}"));
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{suffix}", self.name)
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        self.unit.map(|unit| match unit {
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            other => Unit::Other(other.to_owned()),
        })
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
            Kind::Info => Self::Info,
        }
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal, $kind:ident, $unit:expr, $help:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: Family =
            Family { name: $name, kind: Kind::$kind, unit: $unit, help: $help };)*
        /// All of them, in the order of the exposition.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

const SECONDS: Option<&str> = Some("seconds");
const BYTES: Option<&str> = Some("bytes");

families! {
    BUILD = "tcpwatch_build", Info, None, "The version that is running";
    LINGER_THRESHOLD = "tcpwatch_linger_threshold", Gauge, SECONDS, "A connection that stays in CLOSE_WAIT this long is a finding";
    SOCKETS = "tcpwatch_sockets", Gauge, None, "Sockets by state and network namespace, as of the last count";
    TRANSITIONS = "tcpwatch_transitions", Counter, None, "State changes of TCP sockets, counted in the kernel";
    CLOSE_WAIT = "tcpwatch_close_wait", Histogram, SECONDS, "Time that connections spent in CLOSE_WAIT, when they left it";
    LIFETIME = "tcpwatch_connection_lifetime", Histogram, SECONDS, "Time from birth to the end of connections, when they ended";
    OPEN_FINDINGS = "tcpwatch_open_findings", Gauge, None, "Connections that linger now, by verdict";
    FINDINGS = "tcpwatch_findings", Counter, None, "Findings opened, by their first verdict";
    FINDINGS_ENDED = "tcpwatch_findings_ended", Counter, None, "Findings that ended, by how";
    LINGERING = "tcpwatch_lingering_sockets", Gauge, None, "Connections that linger now, by culprit; beyond the largest all together as other";
    LINGERING_OLDEST = "tcpwatch_lingering_oldest", Gauge, SECONDS, "How long the oldest connection of a culprit has lingered, at least";
    LINGERING_GROWTH = "tcpwatch_lingering_growth_per_second", Gauge, None, "Connections that a culprit gains beyond chance; absent if it does not grow";
    LINGERING_EXHAUSTION = "tcpwatch_lingering_fds_exhausted_in", Gauge, SECONDS, "Time until the process has used up its descriptors if it goes on; absent if it does not grow";
    OWNER_OPEN_FDS = "tcpwatch_owner_open_fds", Gauge, None, "Descriptors in use by a process whose connections linger; of several, that which is nearest to its limit";
    OWNER_MAX_FDS = "tcpwatch_owner_max_fds", Gauge, None, "Descriptors that this process may have";
    LOST = "tcpwatch_lost_transitions", Counter, None, "Transitions that found the ring full";
    PASS_DURATION = "tcpwatch_pass_duration", Histogram, SECONDS, "Time that looks at all open sockets took";
    PASS_FAILURES = "tcpwatch_pass_failures", Counter, None, "Looks at all open sockets that failed";
    LAST_PASS = "tcpwatch_last_pass_timestamp", Gauge, SECONDS, "When the last look at all open sockets succeeded, since 1970";
    KERNEL_TIME = "tcpwatch_kernel_run", Counter, SECONDS, "Time that the kernel program took; only with kernel.bpf_stats_enabled";
    KERNEL_RUNS = "tcpwatch_kernel_runs", Counter, None, "How often the kernel program ran; only with kernel.bpf_stats_enabled";
    RECORDING_SIZE = "tcpwatch_recording", Gauge, BYTES, "Bytes recorded; only with --record";
    RECORDING_MISSING = "tcpwatch_recording_missing_transitions", Counter, None, "Transitions that could not be recorded; only with --record";
    RECORDING_FAILING = "tcpwatch_recording_failing", Gauge, None, "1 if the recording cannot be written at present; only with --record";
    CPU = "process_cpu", Counter, SECONDS, "User and system time of the agent";
    RESIDENT = "process_resident_memory", Gauge, BYTES, "Resident memory of the agent, its ring included, which is mapped twice";
    VIRTUAL = "process_virtual_memory", Gauge, BYTES, "Virtual memory of the agent";
    STARTED = "process_start_time", Gauge, SECONDS, "When the agent was started, since 1970";
    OPEN_FDS = "process_open_fds", Gauge, None, "Descriptors in use by the agent";
    MAX_FDS = "process_max_fds", Gauge, None, "Descriptors that the agent may have";
    THREADS = "process_threads", Gauge, None, "Threads of the agent";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_different_and_base_units() {
        let families: BTreeSet<_> = ALL.iter().map(|family| (family.name, family.unit)).collect();
        assert_eq!(families.len(), ALL.len(), "two families of one name are no OpenMetrics");
        for family in ALL {
            assert!(family.unit.is_none_or(|unit| ["seconds", "bytes"].contains(&unit)));
            assert!(!family.help.ends_with('.') && family.help.is_ascii(), "{}", family.help);
        }
        assert_eq!(CPU.full_name(), "process_cpu_seconds_total");
        assert_eq!(BUILD.full_name(), "tcpwatch_build_info");
    }
}
