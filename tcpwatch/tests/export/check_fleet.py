"""Runs the DuckDB queries of docs/fleet.md and compares them with what the report of the same recording says.

    python check_fleet.py DIRECTORY

DIRECTORY holds `report.json` (`tcpwatch report -j`), `lake` (`tcpwatch export --to parquet --findings
--partition`, of each file) and `fleet.md`. If there is `late`, it is the same without the files in which the
findings are opened, and each socket counts once there, too.
"""

import collections
import json
import os
import pathlib
import re
import sys

import duckdb

os.chdir(sys.argv[1])
report = json.loads(pathlib.Path("report.json").read_text())
blocks = re.findall(r"^```sql\n-- ([^\n]*)\n(.*?)^```", pathlib.Path("fleet.md").read_text(), re.M | re.S)


def run(lake):
    """The rows of each query, by its title, on the files below this directory."""
    database, answers = duckdb.connect(), {}
    for title, query in blocks:
        relation = database.execute(query.replace("'lake/", f"'{lake}/"))
        names = [column[0] for column in relation.description or []]
        answers[title] = [dict(zip(names, row)) for row in relation.fetchall()]
        print(f"ran: {title}: {len(answers[title])} rows")
    return answers


answers = run("lake")


def same(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: got {got!r}, the report says {expected!r}")
    print(f"ok: {what} {got!r}")


def rows(title):
    """The rows of the query that is called so; each is used."""
    return answers.pop(title)


rows("DuckDB: the table")
rows("DuckDB: findings, each socket once")
totals, culprits = report["totals"], report["culprits"]

leaks = rows("who leaks, where, and for how long")
same(
    "culprits",
    {(r["owner"], r["verdict"], r["role"], r["service"]): (r["connections"], r["longest_s"]) for r in leaks},
    {
        (c["comm"], c["verdict"], c["role"], c["end"]): (c["opened"], round(c["longest_ns"] / 1e9, 3))
        for c in culprits
    },
)
same("findings", sum(r["connections"] for r in leaks), totals["findings"])
same("hosts", {r["host"] for r in leaks}, {"web-1"})

ended = collections.Counter()
for culprit in culprits:
    for ending in culprit["endings"]:
        ended[ending["how"]] += ending["count"]
same("endings", {r["ended"]: r["connections"] for r in rows("how it ended")}, dict(ended))

hours = rows("how busy the hosts were, by the hour")
same("opened", sum(r["opened"] for r in hours), totals["opened"])
same("close_wait", sum(r["close_wait"] for r in hours), totals["entered"]["CLOSE_WAIT"])

waits = {(r["owner"], r["port"]): r for r in rows("time in CLOSE_WAIT, by program and port")}
known = 0
for group in report["groups"]:
    if group["folded"] or not group["comm"] or not group["role"] or not group["close_wait"]:
        continue
    row = waits[group["comm"], int(group["end"].rpartition(":")[2])]
    same(f"times of {group['comm']} {group['end']}", row["connections"], group["close_wait"]["count"])
    same("the longest", row["longest_s"], round(group["close_wait"]["max_ns"] / 1e9, 3))
    known += 1
same("groups with times", known > 0, True)

new = rows("what leaks today and did not the week before")
same("new culprits", {(r["owner"], r["service"]) for r in new}, {(c["comm"], c["end"]) for c in culprits})

if pathlib.Path("late").is_dir():
    late = run("late")["who leaks, where, and for how long"]
    same("findings of the later files", sum(r["connections"] for r in late), totals["findings"])

# No container in these recordings.
same("pods", rows("which pods leak"), [])
same("queries that nobody has compared", list(answers), [])
