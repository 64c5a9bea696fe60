//! What must hold for the report of any recording.

use proptest::prelude::*;
use tcpwatch::report::{
    Collector, Report, diff, json,
    model::{Durations, Group, Listed, Spread},
};

use super::{
    diff_text,
    story::{play, play_into},
    text_of,
};
use crate::properties::{rules, story};

fn check(report: &Report) -> Result<(), TestCaseError> {
    let buckets = &report.timeline.buckets;
    let sum = |of: fn(&tcpwatch::report::model::Bucket) -> u64| buckets.iter().map(of).sum::<u64>();
    let totals = &report.totals;
    prop_assert_eq!(sum(|bucket| bucket.transitions), totals.transitions);
    prop_assert_eq!(sum(|bucket| bucket.opened), totals.opened);
    prop_assert_eq!(sum(|bucket| bucket.closed), totals.closed);
    prop_assert_eq!(sum(|bucket| bucket.lost), report.gaps.lost);
    prop_assert_eq!(sum(|bucket| bucket.gaps), report.gaps.count);
    prop_assert_eq!(sum(|bucket| bucket.findings), totals.findings);
    prop_assert!(buckets.len() <= 240);
    let last = buckets.last().unwrap();
    let open: u64 = report.culprits.iter().map(|culprit| culprit.open).sum();
    prop_assert_eq!(last.open, open);
    if !report.timeline.states_uncertain {
        prop_assert_eq!(&last.states, &totals.now);
    }
    let opened: u64 = report.culprits.iter().map(|culprit| culprit.opened).sum();
    prop_assert_eq!(opened, totals.findings);
    let ended = report.culprits.iter().flat_map(|culprit| &culprit.endings);
    prop_assert_eq!(ended.map(|ending| ending.count).sum::<u64>(), totals.ended);
    for culprit in &report.culprits {
        prop_assert_eq!(culprit.open_by_bucket.len(), buckets.len());
        prop_assert_eq!(culprit.open_by_bucket.last(), Some(&culprit.open));
        prop_assert_eq!(culprit.lingering_by_bucket.len(), buckets.len());
        prop_assert_eq!(culprit.lingering_by_bucket.last(), Some(&culprit.open));
        // What is a finding lingers already.
        let pairs = culprit.lingering_by_bucket.iter().zip(&culprit.open_by_bucket);
        prop_assert!(
            !culprit.endings.is_empty() || pairs.into_iter().all(|(all, open)| all >= open)
        );
    }
    let groups = &report.groups;
    prop_assert_eq!(groups.iter().map(|group| group.opened).sum::<u64>(), totals.opened);
    prop_assert_eq!(groups.iter().map(|group| group.closed).sum::<u64>(), totals.closed);
    let Some(spreads) = &report.spreads else { return Ok(()) };
    let counted = |spread: &Spread| spread.steps.iter().map(|step| step.count).sum::<u64>();
    let of = |group: fn(&Group) -> &Option<Durations>| {
        groups.iter().filter_map(|g| group(g).as_ref()).map(|all| all.count).sum::<u64>()
    };
    prop_assert_eq!(counted(&spreads.lifetime), of(|group| &group.lifetime));
    prop_assert_eq!(counted(&spreads.close_wait), of(|group| &group.close_wait));
    let still = spreads.close_wait.steps.iter().filter_map(|step| step.still).sum::<u64>();
    prop_assert_eq!(still, groups.iter().map(|group| group.close_wait_now).sum::<u64>());
    Ok(())
}

/// What a page lists, beside the report.
fn check_listed(report: &Report, listed: &[Listed]) -> Result<(), TestCaseError> {
    let ended = |listed: &&Listed| listed.ended.is_some();
    prop_assert_eq!(listed.iter().filter(ended).count() as u64, report.totals.ended);
    for (place, culprit) in report.culprits.iter().enumerate() {
        let of = || listed.iter().filter(|listed| listed.culprit == place);
        prop_assert_eq!(of().filter(|listed| listed.open).count() as u64, culprit.open);
        prop_assert!(of().all(|one| one.linger.0 <= culprit.longest_ns || one.open));
        for listed in of() {
            prop_assert!(listed.until.is_none_or(|until| until >= listed.since));
            prop_assert!(listed.found.is_none_or(|found| found >= listed.since));
            prop_assert_eq!(listed.open, listed.until.is_none());
        }
    }
    Ok(())
}

fn fits(text: &str, width: usize) -> Result<(), TestCaseError> {
    for line in text.lines() {
        prop_assert!(line.chars().count() <= width, "{} > {width}: {line}", line.chars().count());
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_report_adds_up(story in story(), watch: bool, looks: bool) {
        let (report, summary) = play(&rules(watch), &story, looks);
        prop_assert_eq!(report.totals.transitions, summary.transitions);
        // Findings of a watched process may be told after they were opened: no summary has those.
        prop_assert!(report.totals.findings >= summary.findings());
        prop_assert!(watch || report.totals.findings == summary.findings());
        check(&report)?;
    }

    #[test]
    fn a_page_lists_what_the_report_counts(story in story(), looks: bool) {
        let rules = rules(false);
        let mut collector = Collector::for_page(rules.linger);
        play_into(&mut collector, &rules, &story, looks);
        let (report, _) = play(&rules, &story, looks);
        let page = collector.report();
        check_listed(&page, &collector.listed())?;
        // It looks closer, and says the same.
        prop_assert_eq!(&page.totals, &report.totals);
        prop_assert_eq!(&page.groups, &report.groups);
        prop_assert_eq!(page.culprits.len(), report.culprits.len());
    }

    #[test]
    fn no_line_is_longer_than_the_page(a in story(), b in story(), looks: bool) {
        let (a, _) = play(&rules(false), &a, looks);
        let (b, _) = play(&rules(false), &b, looks);
        for width in [40, 80, 120] {
            fits(&text_of(&a, width), width)?;
            fits(&diff_text(&a, &b, width), width)?;
        }
    }

    #[test]
    fn json_is_one_object_and_a_recording_does_not_differ_from_itself(story in story()) {
        let (report, _) = play(&rules(false), &story, true);
        let diff = diff::compare(&report, &report);
        prop_assert!(!diff.worse);
        for value in [serde_json::to_value(&report).unwrap(), serde_json::to_value(&diff).unwrap()] {
            prop_assert!(value["type"] == "report" || value["type"] == "diff");
        }
        let mut out = Vec::new();
        json::write(&mut out, &report).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap().lines().count(), 1);
    }
}
