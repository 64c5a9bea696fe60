//! What is kept of a record until its row group is written.

use crate::{
    core::{
        advice,
        finding::{Finding, Status},
        input::Transition,
        socket::{Process, Socket},
        state::State,
        time::{ClockMark, Timestamp},
    },
    export::parquet::columns::Text,
};

/// A transition as it came, or what the columns show of a finding. About 320 bytes.
pub(super) struct Row {
    /// Wall time, µs since 1970.
    pub(super) wall_us: i64,
    what: What,
}

#[expect(clippy::large_enum_variant, reason = "findings are few")]
enum What {
    Transition(Transition),
    Finding(Box<FindingRow>),
}

/// What the columns show of a finding.
pub(super) struct FindingRow {
    pub(super) at: Timestamp,
    pub(super) socket: Socket,
    pub(super) state: State,
    pub(super) verdict: Option<&'static str>,
    pub(super) status: &'static str,
    /// An earlier file of the recording has the finding, too.
    pub(super) carried_over: bool,
    pub(super) linger_ns: i64,
    pub(super) at_least: bool,
    pub(super) same_owner: i64,
    pub(super) at_most_ns: Option<i64>,
    pub(super) ended: Option<&'static str>,
    pub(super) by: Option<Process>,
    pub(super) holders: Option<String>,
    pub(super) listener: Option<String>,
    pub(super) netns_name: Option<String>,
    pub(super) container_id: Option<String>,
    pub(super) pod_uid: Option<String>,
    pub(super) pod_namespace: Option<String>,
    pub(super) pod_name: Option<String>,
    pub(super) container_name: Option<String>,
    pub(super) summary: String,
}

impl Row {
    pub(super) fn transition(clock: &ClockMark, transition: &Transition) -> Self {
        let wall_us = microseconds(clock.wall_ns(transition.at));
        Self { wall_us, what: What::Transition(*transition) }
    }

    pub(super) fn finding(clock: &ClockMark, finding: &Finding, carried_over: bool) -> Self {
        let wall_us = microseconds(clock.wall_ns(finding.at));
        Self { wall_us, what: What::Finding(Box::new(FindingRow::new(finding, carried_over))) }
    }

    /// By time; rows of one microsecond by the clock that has nanoseconds.
    pub(super) fn order(&self) -> (i64, Timestamp) {
        (self.wall_us, self.at())
    }

    pub(super) fn at(&self) -> Timestamp {
        match &self.what {
            What::Transition(transition) => transition.at,
            What::Finding(finding) => finding.at,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        match &self.what {
            What::Transition(transition) => &transition.socket,
            What::Finding(finding) => &finding.socket,
        }
    }

    pub(super) fn as_transition(&self) -> Option<&Transition> {
        match &self.what {
            What::Transition(transition) => Some(transition),
            What::Finding(_) => None,
        }
    }

    pub(super) fn as_finding(&self) -> Option<&FindingRow> {
        match &self.what {
            What::Transition(_) => None,
            What::Finding(finding) => Some(finding),
        }
    }

    /// The state that the row is about: the one entered, or lingered in.
    pub(super) fn state(&self) -> State {
        match &self.what {
            What::Transition(transition) => transition.new,
            What::Finding(finding) => finding.state,
        }
    }

    /// Who made the change, or ended what lingered.
    pub(super) fn by(&self) -> Option<Process> {
        match &self.what {
            What::Transition(transition) => transition.actor,
            What::Finding(finding) => finding.by,
        }
    }

    pub(super) fn kind(&self) -> Text<'static> {
        Text::Str(match self.what {
            What::Transition(_) => "transition",
            What::Finding(_) => "finding",
        })
    }

    /// Bytes of text that it keeps.
    pub(super) fn text_len(&self) -> usize {
        let Some(finding) = self.as_finding() else { return 0 };
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        finding.summary.len()
            + len(&finding.holders)
            + len(&finding.listener)
            + len(&finding.netns_name)
            + len(&finding.container_id)
            + len(&finding.pod_uid)
            + len(&finding.pod_namespace)
            + len(&finding.pod_name)
            + len(&finding.container_name)
    }
}

impl FindingRow {
    fn new(finding: &Finding, carried_over: bool) -> Self {
        let again = carried_over && finding.status == Status::Open;
        let process = finding.evidence.process.as_ref();
        let container = process.and_then(|process| process.container.as_ref());
        let names = container.and_then(|container| container.names.as_ref());
        Self {
            at: finding.at,
            socket: finding.socket,
            state: finding.state,
            verdict: finding.verdict.map(crate::core::finding::Verdict::word),
            status: if again { Status::Still } else { finding.status }.word(),
            carried_over,
            linger_ns: amount(finding.linger.0),
            at_least: finding.at_least,
            same_owner: i64::try_from(finding.same_owner).unwrap_or(i64::MAX),
            at_most_ns: finding.at_most.map(|span| amount(span.0)),
            ended: finding.ending.map(|ending| ending.cause.word()),
            by: finding.ending.and_then(|ending| ending.by),
            holders: holders(finding),
            listener: finding.listener.as_ref().map(|listener| listener.local.to_string()),
            netns_name: finding.netns_name.as_ref().map(ToString::to_string),
            container_id: container.map(|container| container.id.clone()),
            pod_uid: container.and_then(|container| container.pod_uid.clone()),
            pod_namespace: names.map(|names| names.namespace.clone()),
            pod_name: names.map(|names| names.pod.clone()),
            container_name: names.and_then(|names| names.container.clone()),
            summary: advice::summary(finding),
        }
    }
}

/// `pid:fd pid:fd`; `None` where nobody was found, which without a pass says nothing.
fn holders(finding: &Finding) -> Option<String> {
    let holders: Vec<_> = finding
        .holders
        .iter()
        .map(|holder| format!("{}:{}", holder.process.pid, holder.fd))
        .collect();
    (!holders.is_empty()).then(|| holders.join(" "))
}

/// Something counted or measured. Nobody meets more than 2^63 of anything.
pub(super) fn amount(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn microseconds(wall_ns: u64) -> i64 {
    amount(wall_ns / 1000)
}
