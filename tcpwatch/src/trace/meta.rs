//! What a trace file says of itself: where, when and how it was recorded.
//!
//! JSON, so that a reader of any version takes what it knows; a field that is missing has its
//! default.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::core::{
    comm::tame,
    filter::Filter,
    finding::Finding,
    state::State,
    time::{ClockMark, Nanos, Timestamp},
    tracker::Rules,
};

/// The first block of each file of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Version of tcpwatch that wrote it.
    pub tool: String,
    /// Random, the same in all files of one recording.
    pub recording: String,
    /// Which of its files this is, from 1.
    pub sequence: u32,
    /// Name of the host.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Machine architecture.
    pub machine: String,
    /// Changes with every boot: `mono_ns` of two files compare only if they share it.
    pub boot_id: String,
    /// The clocks when the file was begun.
    pub clock: Clock,
    /// When the last complete scan of what lingers began that is in an earlier file.
    pub scanned_ns: Option<u64>,
    /// What the recording run was asked for.
    pub rules: RecordedRules,
}

impl Meta {
    /// Whether a finding is in an earlier file of the recording, too: it was due when the last scan of
    /// that file began.
    pub fn carries_over(&self, finding: &Finding) -> bool {
        let due = finding.at - finding.linger + Nanos(self.rules.linger_ns);
        self.sequence > 1 && due <= Timestamp(self.scanned_ns.unwrap_or(self.clock.mono_ns))
    }

    /// From a payload. Whoever wrote the file may have put anything into its texts, so what could
    /// move a cursor is made harmless.
    pub(super) fn from_json(payload: &[u8]) -> Option<Self> {
        const LONGEST: usize = 256;
        let mut meta: Self = serde_json::from_slice(payload).ok()?;
        for text in [
            &mut meta.tool,
            &mut meta.recording,
            &mut meta.host,
            &mut meta.kernel,
            &mut meta.machine,
            &mut meta.boot_id,
        ] {
            *text = tame(text).chars().take(LONGEST).collect();
        }
        meta.rules.states = meta.rules.states.iter().map(|name| tame(name)).collect();
        Some(meta)
    }
}

/// The three clocks at one moment, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// `CLOCK_REALTIME`, since 1970.
    pub real_ns: u64,
}

/// Thresholds and filters of the recording run; a replay takes them for its own unless told
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each was asked for, or was so, on its own")]
pub struct RecordedRules {
    /// A socket that lingers this long is a finding.
    pub linger_ns: u64,
    /// Deliberate half-closes count.
    pub include_half_open: bool,
    /// Only what findings need was recorded.
    pub findings_only: bool,
    /// Only these processes,
    pub pids: BTreeSet<u32>,
    /// and their children.
    pub follow: bool,
    /// Only these local ports.
    pub local_ports: BTreeSet<u16>,
    /// Only these remote ports.
    pub remote_ports: BTreeSet<u16>,
    /// Only this family, 4 or 6.
    pub family: Option<u8>,
    /// Only these network namespaces, by inode.
    pub netns: BTreeSet<u32>,
    /// Only these users.
    pub uids: BTreeSet<u32>,
    /// Only transitions from or to these states, by their kernel names.
    pub states: BTreeSet<String>,
    /// Processes of other pid namespaces were hidden.
    pub hides_holders: bool,
}

/// Findings after this time, where a file does not say after which.
const USUAL_LINGER_NS: u64 = 30_000_000_000;

impl Default for RecordedRules {
    fn default() -> Self {
        Self {
            linger_ns: USUAL_LINGER_NS,
            include_half_open: false,
            findings_only: false,
            pids: BTreeSet::new(),
            follow: false,
            local_ports: BTreeSet::new(),
            remote_ports: BTreeSet::new(),
            family: None,
            netns: BTreeSet::new(),
            uids: BTreeSet::new(),
            states: BTreeSet::new(),
            hides_holders: false,
        }
    }
}

impl From<ClockMark> for Clock {
    fn from(mark: ClockMark) -> Self {
        Self { mono_ns: mark.mono.0, boot_ns: mark.boot.0, real_ns: mark.real_ns }
    }
}

impl From<Clock> for ClockMark {
    fn from(clock: Clock) -> Self {
        Self {
            mono: Timestamp(clock.mono_ns),
            boot: Timestamp(clock.boot_ns),
            real_ns: clock.real_ns,
        }
    }
}

impl From<&Rules> for RecordedRules {
    fn from(rules: &Rules) -> Self {
        let filter = &rules.filter;
        Self {
            linger_ns: rules.linger.0,
            include_half_open: rules.include_half_open,
            findings_only: rules.findings_only,
            pids: filter.pids.clone(),
            follow: filter.follow,
            local_ports: filter.local_ports.clone(),
            remote_ports: filter.remote_ports.clone(),
            family: filter.family,
            netns: filter.netns.clone(),
            uids: filter.uids.clone(),
            states: filter.states.iter().map(|state| state.name().to_owned()).collect(),
            hides_holders: filter.hides_holders,
        }
    }
}

impl RecordedRules {
    /// The rules of the run that was recorded. A state that this version does not know is left out.
    pub fn rules(&self) -> Rules {
        let state = |name: &String| name.parse::<State>().ok();
        Rules {
            linger: Nanos(self.linger_ns),
            filter: Filter {
                pids: self.pids.clone(),
                follow: self.follow,
                local_ports: self.local_ports.clone(),
                remote_ports: self.remote_ports.clone(),
                family: self.family,
                netns: self.netns.clone(),
                uids: self.uids.clone(),
                states: self.states.iter().filter_map(state).collect(),
                hides_holders: self.hides_holders,
            },
            findings_only: self.findings_only,
            include_half_open: self.include_half_open,
            tell_culprits: true,
        }
    }
}
