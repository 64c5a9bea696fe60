"""Compares what DuckDB and polars count in an export with what the report of the same trace says.

    python check_report.py DIRECTORY

DIRECTORY holds `report.json` (`tcpwatch report -j`) and `all.parquet` (`tcpwatch export --to parquet
--findings`).
"""

import collections
import json
import pathlib
import sys

import duckdb
import polars

directory = pathlib.Path(sys.argv[1])
report = json.loads((directory / "report.json").read_text())
parquet = str(directory / "all.parquet")


def same(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: got {got!r}, the report says {expected!r}")
    print(f"ok: {what} {got!r}")


def count(condition):
    return duckdb.sql(f"select count(*) from '{parquet}' where {condition}").fetchall()[0][0]


totals = report["totals"]
same("transitions", count("type = 'transition'"), totals["transitions"])
same("opened", count("type = 'transition' and new in ('SYN_SENT', 'SYN_RECV')"), totals["opened"])
same("findings", count("type = 'finding' and status = 'open'"), totals["findings"])
entered = duckdb.sql(
    f"select new, count(*) from '{parquet}' where type = 'transition' group by new"
).fetchall()
same("transitions into each state", dict(entered), {k: v for k, v in totals["entered"].items() if v})

frame = polars.read_parquet(parquet)
found = frame.filter((polars.col("type") == "finding") & (polars.col("status") == "open"))
verdicts = collections.Counter(found["verdict"].drop_nulls())
same("verdicts", dict(verdicts), {k: v for k, v in totals["verdicts"].items() if v})
for group in report["groups"]:
    if group["folded"] or group["role"] is None or group["comm"] is None or not group["close_wait"]:
        continue
    end = "remote" if group["role"] == "client" else "local"
    port = int(group["end"].rpartition(":")[2])
    left = frame.filter(
        (polars.col("type") == "transition")
        & (polars.col("old") == "CLOSE_WAIT")
        & (polars.col("role") == group["role"])
        & (polars.col("owner_comm") == group["comm"])
        & (polars.col(f"{end}_port") == port)
        & polars.col("in_state_ns").is_not_null()
    )
    what = f"times in CLOSE_WAIT of {group['comm']} {group['end']}"
    same(what, left.height, group["close_wait"]["count"])
    longest, told = left["in_state_ns"].max(), group["close_wait"]["max_ns"]
    if longest != told:
        sys.exit(f"{what}: the longest is {longest}, the report says {told}")
