//! What a page says, apart from the findings one by one.

use serde::Serialize;

use super::timeline::{Changes, Timeline, clock};
use crate::{
    core::{advice, finding::Verdict, time::Timestamp},
    report::{
        Report,
        model::{Culprit, Durations, Gaps, Group, Rates, Spreads, Totals, Wall},
        words::{self, Story, Tone},
    },
};

/// Culprits that have a place of their own.
const MOST_CULPRITS: usize = 100;
/// Services that are shown.
const MOST_GROUPS: usize = 200;
/// Around µs since 1970 in words: a moment that the browser tells. Nobody else's text has control
/// characters (`comm.rs`).
const MOMENT: (char, char) = ('\u{2}', '\u{3}');

/// Where a report is from, and what it was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Source {
    /// Name of the host.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Its architecture.
    pub machine: String,
    /// The version that recorded.
    pub recorded_by: String,
    /// The version that reports.
    pub reported_by: String,
    /// Id of the recording.
    pub recording: String,
    /// Id of the boot.
    pub boot: String,
    /// The files.
    pub files: Vec<Part>,
    /// What the recording run was asked for, as flags.
    pub asked: String,
    /// What the report was asked for, if that is something else.
    pub asked_now: Option<String>,
    /// It is of a part of the recording only.
    pub is_part: bool,
}

/// A file of a recording.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A moment, µs from the beginning of what is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Micros(pub(super) i64);

impl Micros {
    /// Of a moment; a beginning that is long past is as far away as a number can say.
    pub(super) fn since(from_ns: u64, at: Timestamp) -> Self {
        let ns = i128::from(at.0) - i128::from(from_ns);
        Self(i64::try_from(ns / 1000).unwrap_or(i64::MAX))
    }
}

#[derive(Serialize)]
pub(super) struct Data<'a> {
    source: &'a Source,
    /// When it begins, µs since 1970; all other moments count from there.
    from_us: u64,
    duration_ns: u64,
    linger_ns: u64,
    clock: Vec<(Micros, i64)>,
    story: StoryField,
    totals: &'a Totals,
    rates: &'a Rates,
    gaps: GapsField<'a>,
    timeline: Timeline,
    culprits: Vec<CulpritField<'a>>,
    /// Those that have no place of their own.
    others: Others,
    spreads: Option<&'a Spreads>,
    groups: Vec<GroupField<'a>>,
    more_groups: MoreGroups,
}

#[derive(Serialize)]
struct StoryField {
    heading: String,
    bad: bool,
    happened: String,
    traffic: String,
    caveats: Vec<String>,
    missing: Vec<String>,
    more_missing: u64,
}

#[derive(Serialize)]
struct GapsField<'a> {
    #[serde(flatten)]
    gaps: &'a Gaps,
    /// The same as `first`, as moments of the page.
    at: Vec<Micros>,
}

#[derive(Serialize)]
struct CulpritField<'a> {
    title: String,
    owner: String,
    place: String,
    verdict: &'static str,
    leaks: u64,
    opened: u64,
    open: u64,
    longest_ns: u64,
    longest_at_least: bool,
    counts: String,
    grows: Option<String>,
    found: Option<String>,
    endings: Option<String>,
    example: Option<&'a str>,
    evidence: Option<&'a str>,
    remedy: Option<&'static str>,
    lingering: Changes,
}

#[derive(Default, Serialize)]
struct Others {
    culprits: usize,
    findings: u64,
    lingering: Option<Changes>,
}

#[derive(Serialize)]
struct GroupField<'a> {
    process: String,
    service: String,
    opened: u64,
    closed: u64,
    failed: u64,
    lifetime: Option<&'a Durations>,
    close_wait: Option<&'a Durations>,
    close_wait_now: u64,
    close_wait_now_oldest_ns: Option<u64>,
    bytes_received: u64,
    bytes_acked: u64,
}

#[derive(Serialize)]
struct MoreGroups {
    groups: usize,
    opened: u64,
}

impl<'a> Data<'a> {
    pub(super) fn new(source: &'a Source, report: &'a Report) -> Self {
        let (culprits, others) = report.culprits.split_at(report.culprits.len().min(MOST_CULPRITS));
        let (groups, more) = report.groups.split_at(report.groups.len().min(MOST_GROUPS));
        let at = |ns| Micros::since(report.from_mono_ns, Timestamp(ns));
        Self {
            source,
            from_us: report.from.0 / 1000,
            duration_ns: report.duration_ns,
            linger_ns: report.linger_ns,
            clock: clock(report),
            story: story_field(source, report),
            totals: &report.totals,
            rates: &report.rates,
            gaps: GapsField {
                gaps: &report.gaps,
                at: report.gaps.first.iter().map(|gap| at(gap.mono_ns)).collect(),
            },
            timeline: Timeline::new(report),
            culprits: culprits.iter().map(|culprit| field(report, culprit)).collect(),
            others: summed(others),
            spreads: report.spreads.as_ref(),
            groups: groups.iter().map(group).collect(),
            more_groups: MoreGroups {
                groups: more.len(),
                opened: more.iter().map(|group| group.opened).sum(),
            },
        }
    }
}

fn moment(at: Wall) -> String {
    format!("{}{}{}", MOMENT.0, at.0 / 1000, MOMENT.1)
}

/// What the page is called.
pub(super) fn heading(source: &Source, story: &Story) -> String {
    let what = match story.tone {
        Tone::Good => "Connections",
        Tone::Bad => "Leaked connections",
    };
    match source.host.as_str() {
        "" => what.to_owned(),
        host => format!("{what} on {host}"),
    }
}

fn story_field(source: &Source, report: &Report) -> StoryField {
    let story = Story::of(report, &moment);
    let heading = heading(source, &story);
    let Story { tone, happened, traffic, caveats } = story;
    StoryField {
        heading,
        bad: tone == Tone::Bad,
        happened,
        traffic,
        caveats,
        missing: report.incomplete.notes.clone(),
        more_missing: report.incomplete.more,
    }
}

fn field<'a>(report: &Report, culprit: &'a Culprit) -> CulpritField<'a> {
    let verdict = Verdict::ALL.into_iter().find(|verdict| Some(verdict.word()) == culprit.verdict);
    CulpritField {
        title: words::title(culprit),
        owner: words::owner(culprit),
        place: words::place(culprit),
        verdict: words::verdict(culprit),
        leaks: culprit.leaks(),
        opened: culprit.opened,
        open: culprit.open,
        longest_ns: culprit.longest_ns,
        longest_at_least: culprit.longest_at_least,
        counts: words::counts(culprit, report.from, &moment),
        grows: words::grows(culprit, &moment),
        found: words::found(culprit, report.from, &moment),
        endings: words::endings(culprit),
        example: culprit.example.as_ref().map(|example| example.summary.as_str()),
        evidence: culprit.example.as_ref().map(|example| example.evidence.as_str()),
        remedy: (!culprit.other).then(|| advice::remedy(verdict)),
        lingering: Changes::of(culprit.lingering_by_bucket.iter().copied()),
    }
}

fn summed(others: &[Culprit]) -> Others {
    if others.is_empty() {
        return Others::default();
    }
    let buckets = others[0].lingering_by_bucket.len();
    let lingering = (0..buckets).map(|number| {
        let of = |culprit: &Culprit| culprit.lingering_by_bucket.get(number).copied();
        others.iter().filter_map(of).sum()
    });
    Others {
        culprits: others.len(),
        findings: others.iter().map(|culprit| culprit.opened).sum(),
        lingering: Some(Changes::of(lingering)),
    }
}

fn group(group: &Group) -> GroupField<'_> {
    GroupField {
        process: words::process(group),
        service: words::service(group),
        opened: group.opened,
        closed: group.closed,
        failed: group.failed,
        lifetime: group.lifetime.as_ref(),
        close_wait: group.close_wait.as_ref(),
        close_wait_now: group.close_wait_now,
        close_wait_now_oldest_ns: group.close_wait_now_oldest_ns,
        bytes_received: group.bytes_received,
        bytes_acked: group.bytes_acked,
    }
}
