//! The metrics page, and everything that goes by its names: rules, dashboard, documentation.
//!
//! The pages are kept beside this as text; `UPDATE_METRICS=1 cargo test --test core serve` writes them anew.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use serde_json::Value;
use tcpwatch::{
    core::time::Nanos,
    kernel::meters::{Cost, Tally},
    serve::{
        exposition, metrics,
        own::Usage,
        page::Page,
        snapshot::{Labels, Lingering, Owner, OwnerLabels, Recording, Snapshot},
    },
};
use tcpwatch_common::tally::{BUCKETS, Histogram, TALLY_LEN, pair};

/// A page on which every family has something.
fn page() -> Page {
    let mut slots = [0; TALLY_LEN];
    (slots[pair(7, 2)], slots[pair(8, 9)]) = (3, 2);
    for histogram in [Histogram::CloseWait, Histogram::Lifetime] {
        let first = histogram as usize;
        (slots[first + 1], slots[first + 20], slots[first + 39]) = (4, 5, 6);
        slots[first + BUCKETS] = 12_500_000_000;
    }
    Page {
        snapshot: snapshot(),
        tally: Tally::from_slots(slots),
        costs: vec![Cost { program: "inet_sock_set_state", runs: 1000, ns: 500_000 }],
        usage: Some(Usage {
            cpu_seconds: 1.25,
            resident_bytes: 18 << 20,
            virtual_bytes: 100 << 20,
            started: 1_790_000_000.5,
            open_fds: 30,
            max_fds: Some(1024),
            threads: 4,
        }),
    }
}

fn snapshot() -> Snapshot {
    // As escaped names come, and worse.
    let owner = OwnerLabels {
        process: "a\"b\\\\\\xff\nc".to_owned(),
        container: "0123456789ab".to_owned(),
        pod: "0b0a-\u{1f980}".to_owned(),
        container_name: "app\"\n".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "cart-0".to_owned(),
    };
    let labels = Labels {
        owner: owner.clone(),
        role: "client",
        verdict: "not-reading",
        service: "[::1]:5432".to_owned(),
    };
    Snapshot {
        linger: Nanos(30_000_000_000),
        sockets: vec![(
            "host".to_owned(),
            std::array::from_fn(|at| (at != 6).then_some(at as u64)),
        )],
        open: vec![("not-reading", 7)],
        opened: vec![("not-reading", 9)],
        ended: vec![("closed", 2)],
        lingering: vec![Lingering {
            labels,
            count: 7,
            oldest: Nanos(61_500_000_000),
            growth: Some(0.25),
            exhausted_in: Some(Nanos(3_600_000_000_000)),
        }],
        owners: vec![Owner { labels: owner, fds: 900, limit: 1024 }],
        lost: 1,
        passes: vec![(0.01, 4), (f64::INFINITY, 1)],
        pass_seconds: 2.5,
        pass_failures: 1,
        last_pass: Some(1_790_000_100.25),
        recording: Some(Recording { bytes: 4096, missing: 3, failing: true }),
    }
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

#[test]
fn pages_are_as_they_were() {
    let open = exposition::open_metrics(page()).unwrap();
    let classic = exposition::classic(&open).unwrap();
    for (name, page) in [("tests/metrics/open.txt", &open), ("tests/metrics/classic.txt", &classic)]
    {
        if env::var_os("UPDATE_METRICS").is_some() {
            fs::write(file(name), page).unwrap();
        }
        assert_eq!(&read(name), page, "{name}");
    }
}

#[test]
fn every_family_is_on_the_page_once_with_help_and_type() {
    let open = exposition::open_metrics(page()).unwrap();
    for family in metrics::ALL {
        let unit = family.unit.map_or_else(String::new, |unit| format!("_{unit}"));
        let name = format!("{}{unit}", family.name);
        for line in [format!("# HELP {name} {}\n", family.help), format!("# TYPE {name} ")] {
            assert_eq!(open.matches(&line).count(), 1, "{line}");
        }
        assert!(open.contains(&family.full_name()), "{}", family.full_name());
    }
    assert_eq!(open.matches("# TYPE ").count(), metrics::ALL.len());
}

#[test]
fn the_classic_page_has_the_same_samples() {
    let open = exposition::open_metrics(page()).unwrap();
    let classic = exposition::classic(&open).unwrap();
    let samples = |page: &str| -> Vec<String> {
        page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&classic));
    assert!(classic.contains("# TYPE tcpwatch_findings_total counter\n"));
    assert!(classic.contains("# TYPE tcpwatch_build_info gauge\n"));
    assert!(!classic.contains("# UNIT") && !classic.contains("# EOF"));
}

/// Names that look like ours, in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
    let ours = |word: &&str| word.starts_with("tcpwatch_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

/// What can be queried.
fn queryable() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = metrics::ALL.iter().map(metrics::Family::full_name).collect();
    for family in metrics::ALL.iter().filter(|family| family.kind == metrics::Kind::Histogram) {
        for suffix in ["bucket", "sum", "count"] {
            names.insert(format!("{}_{suffix}", family.full_name()));
        }
    }
    names
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    let known = queryable();
    let rules = read("../deploy/prometheus/tcpwatch.rules.yml");
    let dashboard: Value = serde_json::from_str(&read("../deploy/grafana/tcpwatch.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<_> = asked.map(|target| target["expr"].as_str().unwrap()).collect();
    let variables = dashboard["templating"].to_string();
    for (what, text) in
        [("rules", &rules), ("dashboard", &asked.join(" ")), ("variables", &variables)]
    {
        let names = names(text);
        assert!(!names.is_empty(), "{what}");
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
    assert!(asked.len() > 15, "only {} queries", asked.len());
}

/// `460m` is 0.46 to a program, and 460 million or minutes to a person.
#[test]
fn no_alert_writes_numbers_with_prefixes_of_units() {
    let rules = read("../deploy/prometheus/tcpwatch.rules.yml");
    let shown = rules.split("{{").filter_map(|part| part.split_once("}}")).map(|(shown, _)| shown);
    let values: Vec<_> = shown.filter(|shown| shown.contains("$value")).collect();
    assert!(values.len() >= 5, "{values:?}");
    for value in values {
        let words: Vec<_> = value.split_whitespace().collect();
        assert!(!words.contains(&"humanize") && !words.contains(&"humanize1024"), "{value}");
    }
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let text = read("../docs/fleet.md");
    let listed = names(&text);
    let missing: Vec<_> = metrics::ALL
        .iter()
        .map(metrics::Family::full_name)
        .filter(|name| !listed.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let known = queryable();
    let unknown: Vec<_> = listed.iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
