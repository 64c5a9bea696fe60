//! Parquet, read back with the crate's reader. Other readers: `consumers.rs`.

use std::{collections::BTreeMap, fs::File, os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use parquet::{
    file::reader::{ChunkReader, FileReader as _, SerializedFileReader},
    record::Field,
};
use tcpwatch::{
    core::{comm::Comm, input::Input},
    export::parquet::{ParquetSink, PartitionedSink},
    sink::Sink,
};

use crate::{
    notation,
    story::{self, LEAK, Shared},
};

type Row = BTreeMap<String, Field>;

fn exported(text: &str, findings: bool) -> Bytes {
    let out = Shared::default();
    let mut sink = ParquetSink::new(out.clone(), &story::meta(), findings).unwrap();
    story::tell(text, &mut sink);
    out.bytes().into()
}

fn rows(file: impl ChunkReader + 'static) -> Vec<Row> {
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().into_columns().into_iter().collect()).collect()
}

/// Every text in a file, what it says of itself included.
pub(crate) fn texts(file: Bytes) -> Vec<String> {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let about = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let about: Vec<_> = about.iter().filter_map(|pair| pair.value.clone()).collect();
    let fields = rows(file).into_iter().flat_map(BTreeMap::into_values);
    let texts = fields.filter_map(|field| match field {
        Field::Str(text) => Some(text),
        _ => None,
    });
    texts.chain(about).collect()
}

fn text(row: &Row, column: &str) -> Option<String> {
    match &row[column] {
        Field::Str(text) => Some(text.clone()),
        Field::Null => None,
        other => panic!("{column} is {other:?}"),
    }
}

fn int(row: &Row, column: &str) -> Option<i64> {
    match row[column] {
        Field::Long(value) | Field::TimestampMicros(value) => Some(value),
        Field::Null => None,
        ref other => panic!("{column} is {other:?}"),
    }
}

#[test]
fn a_transition_has_all_that_is_known_and_no_more() {
    let rows = rows(exported(LEAK, false));
    assert_eq!(rows.len(), 11);
    assert!(rows.iter().all(|row| text(row, "type").as_deref() == Some("transition")));
    let last = rows.iter().rfind(|row| int(row, "socket") == Some(3)).unwrap();
    assert_eq!(int(last, "ts"), Some(1_767_225_604_200_000));
    assert_eq!(int(last, "mono_ns"), Some(4_200_000_000));
    assert_eq!(text(last, "host").as_deref(), Some("web/1 ä"));
    assert_eq!(text(last, "recording").as_deref(), Some("f00dcafe"));
    assert_eq!(text(last, "remote_addr").as_deref(), Some("2001:db8::1"));
    assert_eq!(int(last, "remote_port"), Some(443));
    assert_eq!(text(last, "owner_comm").as_deref(), Some("app"));
    assert_eq!(text(last, "owner_how").as_deref(), Some("connect"));
    assert_eq!(text(last, "old").as_deref(), Some("FIN_WAIT2"));
    assert_eq!(text(last, "new").as_deref(), Some("CLOSE"));
    assert_eq!(int(last, "in_state_ns"), Some(100_000_000));
    assert_eq!(int(last, "lifetime_ns"), Some(2_700_000_000));
    assert_eq!(int(last, "bytes_acked"), Some(901));
    for unknown in ["cookie", "cgroup", "by_pid", "by_comm", "verdict", "status", "linger_ns"] {
        assert_eq!(last[unknown], Field::Null, "{unknown}");
    }
}

#[test]
fn a_finding_has_verdict_holders_and_advice() {
    let all = rows(exported(LEAK, true));
    let findings: Vec<_> =
        all.iter().filter(|row| text(row, "type").as_deref() == Some("finding")).collect();
    let open = findings.iter().find(|row| int(row, "socket") == Some(4)).unwrap();
    assert_eq!(text(open, "verdict").as_deref(), Some("not-reading"));
    assert_eq!(text(open, "status").as_deref(), Some("open"));
    assert_eq!(text(open, "new").as_deref(), Some("CLOSE_WAIT"));
    assert_eq!(text(open, "holders").as_deref(), Some("7:9"));
    assert_eq!(int(open, "linger_ns"), Some(10_000_000_000));
    assert_eq!(open["linger_at_least"], Field::Bool(false));
    assert!(text(open, "summary").unwrap().contains("web[7] fd 9 has not noticed"));
    let waiting = findings.iter().find(|row| int(row, "socket") == Some(2)).unwrap();
    assert_eq!(text(waiting, "verdict").as_deref(), Some("never-accepted"));
    assert_eq!(text(waiting, "listener").as_deref(), Some("127.0.0.1:80"));
    let ended = findings.iter().find(|row| text(row, "ended").is_some()).unwrap();
    assert_eq!(text(ended, "ended").as_deref(), Some("closed"));
    assert_eq!(int(ended, "by_pid"), Some(7));
}

#[test]
fn a_recording_without_rows_is_a_valid_file() {
    for text in ["", "1 clock", "1 lost 3"] {
        let file = exported(text, true);
        let reader = SerializedFileReader::new(file.clone()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
        assert_eq!(rows(file), []);
    }
}

#[test]
fn metadata_says_where_it_comes_from_and_what_is_missing() {
    let reader = SerializedFileReader::new(exported(LEAK, false)).unwrap();
    let values = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let value = |key: &str| {
        values.iter().find(|pair| pair.key == format!("tcpwatch.{key}")).unwrap().value.clone()
    };
    assert_eq!(value("host").as_deref(), Some("web/1 ä"));
    assert_eq!(value("kernel").as_deref(), Some("6.12.95"));
    assert_eq!(value("recording").as_deref(), Some("f00dcafe"));
    assert_eq!(value("lost").as_deref(), Some("3"));
}

#[test]
fn hostile_names_and_missing_ids_are_told_as_they_are() {
    let (rules, mut inputs) = story::parse("1 tcp #1 ESTABLISHED>CLOSE 127.0.0.1:80 owner=x[9]/fd");
    let Input::Transition(transition) = &mut inputs[0] else { panic!("not a transition") };
    transition.socket.id = None;
    transition.socket.tcp = None;
    if let Some(owner) = &mut transition.socket.owner {
        owner.process.comm = Comm::from("\x1b[2J\",\n\u{202e}");
    }
    let out = Shared::default();
    let mut sink = ParquetSink::new(out.clone(), &story::meta(), false).unwrap();
    story::run(rules, inputs, &mut sink);
    let rows = rows(Bytes::from(out.bytes()));
    assert_eq!(text(&rows[0], "owner_comm").as_deref(), Some("\\x1b[2J\",\\x0a\\u{202e}"));
    for unknown in ["socket", "remote_addr", "remote_port", "unread", "srtt_us"] {
        assert_eq!(rows[0][unknown], Field::Null, "{unknown}");
    }
}

#[test]
fn row_groups_are_bounded_and_sorted() {
    const ROWS: usize = 140_000;
    let out = Shared::default();
    let mut sink = ParquetSink::new(out.clone(), &story::meta(), false).unwrap();
    let template =
        notation::input("1 tcp #1 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 entered=1");
    let Input::Transition(template) = template else { panic!("not a transition") };
    let inputs = (0..ROWS as u64).map(|n| {
        let mut transition = template;
        // Two CPUs: every other record is a little late.
        transition.at.0 += 1_000_000 * n + if n % 2 == 0 { 3_000_000 } else { 0 };
        transition.socket.id = Some(tcpwatch::core::socket::SocketId(n + 1));
        Input::Transition(transition)
    });
    story::run(notation::rules("rules linger=1000s"), inputs.collect(), &mut sink);
    let reader = SerializedFileReader::new(Bytes::from(out.bytes())).unwrap();
    let groups = reader.metadata().row_groups();
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|group| group.sorting_columns().unwrap()[0].column_idx == 1));
    for index in 0..groups.len() {
        let group = reader.get_row_group(index).unwrap();
        let times: Vec<_> = group
            .get_row_iter(None)
            .unwrap()
            .map(|row| int(&row.unwrap().into_columns().into_iter().collect(), "ts").unwrap())
            .collect();
        assert!(times.is_sorted(), "row group {index}");
    }
}

#[test]
fn partitions_are_hosts_and_days() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = PartitionedSink::new(directory.path(), &story::meta(), true).unwrap();
    let day = |at: &str| format!("{at} tcp #1 CLOSE>SYN_SENT 127.0.0.1:80 10.0.0.9:5000\n");
    let text: String = ["86399", "86401", "86400", "172801"].into_iter().map(day).collect();
    story::tell(&text, &mut sink);
    let host = directory.path().join("host=web%2F1%20%C3%A4");
    let expected = [("2026-01-01", 1, 1), ("2026-01-02", 2, 2), ("2026-01-03", 3, 1)];
    for (date, n, count) in expected {
        let path = host.join(format!("date={date}/part-f00dcafe-1-{n}.parquet"));
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let rows = rows(file);
        assert_eq!(rows.len(), count, "{date}");
        assert!(!rows[0].contains_key("host"), "the path says it");
        assert_eq!(entries(path.parent().unwrap()), 1);
    }
}

#[test]
fn a_partitioned_recording_without_rows_has_its_columns() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = PartitionedSink::new(directory.path(), &story::meta(), true).unwrap();
    story::tell("5 clock", &mut sink);
    let day = directory.path().join("host=web%2F1%20%C3%A4/date=2026-01-01");
    assert_eq!(entries(&day), 1);
}

#[test]
fn a_run_that_fails_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = PartitionedSink::new(directory.path(), &story::meta(), true).unwrap();
    let Input::Transition(transition) = notation::input("1 tcp #1 CLOSE>SYN_SENT 127.0.0.1:80")
    else {
        panic!("not a transition")
    };
    let clock = notation::clock(transition.at);
    sink.record(&clock, &tcpwatch::core::record::Record::Transition(&transition)).unwrap();
    drop(sink);
    assert_eq!(entries(&directory.path().join("host=web%2F1%20%C3%A4/date=2026-01-01")), 0);
}

#[test]
fn a_full_disk_is_told_as_such() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut sink = ParquetSink::new(full, &story::meta(), true).unwrap();
    let summary = tcpwatch::core::record::Summary::default();
    let record = tcpwatch::core::record::Record::Summary(&summary);
    let error = sink.record(&notation::clock(summary.at), &record).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
}

/// Everything in a directory, hidden or not.
fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
