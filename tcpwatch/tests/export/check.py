"""Reads exported files with the tools that people use, and compares with what was exported.

    python check.py DIRECTORY

needs duckdb, pyarrow, polars, pandas and perfetto from PyPI; with chdb, ClickHouse is asked, too.
DIRECTORY holds `single.parquet`,
`empty.parquet`, `partitioned/`, `empty-partitioned/`, `timeline.pftrace`, `empty.pftrace` and
`expected.json`, as `tests/export/consumers.rs` writes them:

    {"rows": N, "host": "...", "boot_id": "...", "lost": N, "days": ["YYYY-MM-DD"],
     "counts": [{"type", "old", "new", "verdict", "rows"}],
     "timeline": {"sockets": N, "findings": N, "lost_events": N}}
"""

import collections
import json
import pathlib
import sys

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

try:
    import chdb
except ImportError:
    chdb = None

KEYS = ["type", "old", "new", "verdict"]
FLAGS = {"uncertain", "linger_at_least", "carried_over"}
TEXT = {
    "type", "host", "recording", "boot_id", "protocol", "local_addr", "remote_addr", "owner_comm",
    "owner_how", "role", "old", "new", "by_comm", "verdict", "status", "holders", "listener",
    "ended", "netns_name", "container_id", "pod_uid", "summary", "pod_namespace", "pod_name",
    "container_name",
}  # fmt: skip


def same(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: got {got!r}, expected {expected!r}")
    print(f"ok: {what}")


def expect(what, holds):
    same(what, bool(holds), True)


def tally(rows):
    """Rows of (type, old, new, verdict, count), nulls as None, as one comparable value."""
    return sorted(((*row[:4], int(row[4])) for row in rows), key=repr)


def plain(value):
    return None if value is None or value != value or value is pandas.NA else value


def with_duckdb(path, expected, partitioned):
    source = f"read_parquet('{path}/**/*.parquet', hive_partitioning=true)"
    source = source if partitioned else f"'{path}'"
    db = duckdb.connect()
    db.execute("SET TimeZone='UTC'")
    keys = ", ".join(KEYS)
    rows = db.execute(f"SELECT {keys}, count(*) FROM {source} GROUP BY ALL").fetchall()
    same(f"DuckDB counts {path.name}", tally(rows), tally(expected["tally"]))
    types = {name: kind for name, kind, *_ in db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    same("DuckDB ts", types["ts"], "TIMESTAMP WITH TIME ZONE")
    for name, kind in types.items():
        if name in FLAGS:
            want = "BOOLEAN"
        elif name in TEXT:
            want = "VARCHAR"
        elif name == "date":
            want = "DATE"
        elif name == "ts":
            continue
        else:
            want = "BIGINT"
        if kind != want:
            sys.exit(f"DuckDB: {name} is {kind} and not {want}")
    if expected["rows"]:
        same("DuckDB host", db.execute(f"SELECT DISTINCT host FROM {source}").fetchall(), [(expected["host"],)])
        same("DuckDB order", db.execute(f"SELECT count(*) FROM {source} WHERE lifetime_ns < in_state_ns").fetchone()[0], 0)
    return types


def with_pyarrow(path, expected, partitioned):
    flavor = "hive" if partitioned else None
    table = pyarrow.dataset.dataset(path, format="parquet", partitioning=flavor).to_table()
    same(f"pyarrow rows {path.name}", table.num_rows, expected["rows"])
    same("pyarrow ts", table.schema.field("ts").type, pyarrow.timestamp("us", tz="UTC"))
    same("pyarrow socket", table.schema.field("socket").type, pyarrow.int64())
    same("pyarrow uncertain", table.schema.field("uncertain").type, pyarrow.bool_())
    groups = table.group_by(KEYS).aggregate([([], "count_all")])
    rows = zip(*(groups.column(name).to_pylist() for name in [*KEYS, "count_all"]))
    same(f"pyarrow counts {path.name}", tally(rows), tally(expected["tally"]))
    if expected["rows"]:
        same("pyarrow host", set(table.column("host").to_pylist()), {expected["host"]})


def with_polars(path, expected, partitioned):
    source = f"{path}/**/*.parquet" if partitioned else path
    frame = polars.scan_parquet(source, hive_partitioning=partitioned).collect()
    same(f"polars rows {path.name}", frame.height, expected["rows"])
    same("polars ts", frame.schema["ts"], polars.Datetime("us", "UTC"))
    same("polars mono_ns", frame.schema["mono_ns"], polars.Int64)
    rows = frame.group_by(KEYS).len().rows()
    same(f"polars counts {path.name}", tally(rows), tally(expected["tally"]))
    if expected["rows"]:
        same("polars host", frame["host"].unique().to_list(), [expected["host"]])


def with_pandas(path, expected):
    frame = pandas.read_parquet(path)
    same(f"pandas rows {path.name}", len(frame), expected["rows"])
    same("pandas ts", str(frame["ts"].dtype), "datetime64[us, UTC]")
    groups = frame.groupby(KEYS, dropna=False, observed=True).size() if len(frame) else {}
    rows = [(*(plain(value) for value in key), count) for key, count in groups.items()]
    same(f"pandas counts {path.name}", tally(rows), tally(expected["tally"]))


def with_clickhouse(path, expected):
    if chdb is None:
        return print(f"not checked: ClickHouse reads {path.name}, there is no chdb")
    query = f"SELECT {', '.join(KEYS)}, count() FROM file('{path}', Parquet) GROUP BY ALL"
    said = str(chdb.query(query, "JSONCompactEachRow"))
    rows = [json.loads(line) for line in said.splitlines()]
    same(f"ClickHouse counts {path.name}", tally(rows), tally(expected["tally"]))


def layout(path, expected):
    file = pyarrow.parquet.ParquetFile(path)
    meta = file.metadata
    values = {key.decode(): value.decode() for key, value in (meta.metadata or {}).items()}
    same("metadata host", values["tcpwatch.host"], expected["host"])
    same("metadata boot_id", values["tcpwatch.boot_id"], expected["boot_id"])
    for index in range(meta.num_row_groups):
        group = meta.row_group(index)
        expect(f"row group {index} has at most 128 Ki rows", group.num_rows <= 128 * 1024)
        expect(f"row group {index} is declared sorted by ts", group.sorting_columns[0].column_index == 1)
        expect(f"row group {index} has statistics", group.column(1).statistics.has_min_max)
        expect("zstd", group.column(1).compression == "ZSTD")
        times = file.read_row_group(index, columns=["ts"]).column("ts").combine_chunks().cast("int64").to_pylist()
        expect(f"row group {index} is sorted by ts", times == sorted(times))
    if meta.num_row_groups:
        same("metadata lost", int(values["tcpwatch.lost"]), expected["lost"])


def parquet(directory, expected):
    empty = {**expected, "rows": 0, "tally": []}
    for name, partitioned, want in [
        ("single.parquet", False, expected),
        ("empty.parquet", False, empty),
        ("partitioned", True, expected),
        ("empty-partitioned", True, empty),
    ]:
        path = directory / name
        with_duckdb(path, want, partitioned)
        with_pyarrow(path, want, partitioned)
        with_polars(path, want, partitioned)
        with_pandas(path, want)
        if not partitioned:
            with_clickhouse(path, want)
            layout(path, want)
    files = sorted((directory / "partitioned").rglob("*"))
    same("days", sorted({f.parent.name.removeprefix("date=") for f in files if f.is_file()}), expected["days"])
    expect("every file is Parquet", all(f.suffix == ".parquet" for f in files if f.is_file()))
    expect("mode 0600", all(f.stat().st_mode & 0o777 == 0o600 for f in files if f.is_file()))
    for file in (f for f in files if f.is_file()):
        expect("no partition column in the file", "host" not in pyarrow.parquet.read_schema(file).names)
        day = file.parent.name.removeprefix("date=")
        days = {ts.strftime("%Y-%m-%d") for ts in pyarrow.parquet.read_table(file).column("ts").to_pylist()}
        same("rows are of their day", days, {day})


def understood(message):
    """Nothing in it is unknown to the schema: known fields alone give the same bytes back."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() == message.ByteSize()


def timeline(path, expected):
    raw = path.read_bytes()
    trace = pb.Trace()
    same(f"{path.name} is parsed as a whole", trace.ParseFromString(raw), len(raw))
    expect("every field is in the schema", understood(trace))
    same("the same length again", len(trace.SerializeToString()), len(raw))
    packets = trace.packet
    expect("one sequence", {p.trusted_packet_sequence_id for p in packets} == {1})
    expect("the first packet clears the state", packets[0].sequence_flags == pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
    expect("the others need it", all(p.sequence_flags == pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE for p in packets[1:]))
    names = {entry.iid: entry.name for p in packets for entry in p.interned_data.event_names}
    keys = {entry.iid: entry.name for p in packets for entry in p.interned_data.debug_annotation_names}
    snapshot = next(p.clock_snapshot for p in packets if p.HasField("clock_snapshot"))
    same("clocks", {c.clock_id for c in snapshot.clocks}, {pb.BUILTIN_CLOCK_REALTIME, pb.BUILTIN_CLOCK_MONOTONIC, pb.BUILTIN_CLOCK_BOOTTIME})
    same("primary clock", snapshot.primary_trace_clock, pb.BUILTIN_CLOCK_MONOTONIC)

    tracks, stacks, last = {}, collections.defaultdict(list), {}
    seen = collections.Counter()
    for packet in packets:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            expect_quietly("uuid is new", track.uuid and track.uuid not in tracks)
            expect_quietly("parent is known", not track.parent_uuid or track.parent_uuid in tracks)
            tracks[track.uuid] = track
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        expect_quietly("clock is monotonic", packet.timestamp_clock_id == pb.BUILTIN_CLOCK_MONOTONIC)
        expect_quietly("track is known", event.track_uuid in tracks)
        expect_quietly("time goes on", packet.timestamp >= last.get(event.track_uuid, 0))
        expect_quietly("names are known", not event.name_iid or event.name_iid in names)
        expect_quietly("keys are known", all(note.name_iid in keys for note in event.debug_annotations))
        last[event.track_uuid] = packet.timestamp
        notes = {keys[note.name_iid]: note for note in event.debug_annotations}
        stack = stacks[event.track_uuid]
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            stack.append(names[event.name_iid])
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            expect_quietly("what ends has begun", stack)
            stack.pop()
        elif event.type == pb.TrackEvent.TYPE_INSTANT:
            seen["findings"] += "status" in notes
            seen["lost"] += names.get(event.name_iid) == "lost"
        expect_quietly("slices do not overlap", len(stack) <= 1)
    expect("every slice has an end", not any(stacks.values()))
    sockets = [track for track in tracks.values() if track.parent_uuid]
    expect("socket tracks have different names", len({track.name for track in sockets}) == len(sockets))
    if expected:
        same("sockets", len(sockets), expected["sockets"])
        same("findings", seen["findings"], expected["findings"])
        same("losses", seen["lost"], expected["lost_events"])


def expect_quietly(what, holds):
    if not holds:
        sys.exit(f"not so: {what}")


def main():
    directory = pathlib.Path(sys.argv[1])
    expected = json.loads((directory / "expected.json").read_text())
    expected["tally"] = [(*(c[key] for key in KEYS), c["rows"]) for c in expected["counts"]]
    parquet(directory, expected)
    timeline(directory / "timeline.pftrace", expected["timeline"])
    timeline(directory / "empty.pftrace", None)
    print("all is as exported")


main()
