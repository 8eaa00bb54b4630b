"""Quorate beside Debian's etcd 3.4 on the same disk, in one run.

    python3 tests/bench/compare.py [--quick] [--json FILE] [--only etcd|quorate] [--row NAME]... [--rounds N] [--seconds N]

Both are members of their own cluster with default settings and 256-byte values; the servers take turns within each
round, and a row is the median of its rounds. Ratios are ours to etcd's. A row with any error or any answer but 2xx is
void. Times are shown, and the mark behind a row says whether its aim was met; the exit status is 1 only when a row
is void or the machine cannot give honest figures (a file system in memory, a missing tool).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bench_rows  # noqa: E402
import bench_cluster  # noqa: E402, F401: registers its rows
import harness  # noqa: E402
from bench_tools import Refused, Void, check_place, measure_sync, need, version_of  # noqa: E402
from harness.places import scratch_root  # noqa: E402
from harness.server import compiler  # noqa: E402


class Report:
    """Rows as they come; printed at once, kept for --json."""

    def __init__(self, kinds):
        self.kinds = kinds
        self.rows = []

    def head(self, **facts):
        self.facts = facts
        for name, value in facts.items():
            for line in value if isinstance(value, list) else [value]:
                print("%-12s %s" % (name.replace("_", " "), line))
        print("\n%-46s %14s %14s %8s  %s" % ("row", *(self.kinds + ("",))[:2], "ratio", "aim"), flush=True)

    def row(self, name, values, unit, aim=None, detail=None):
        """values: {kind: figure}. aim: (text, function of (ratio, ours) -> met)."""
        values = {k: v for k, v in values.items() if v == v}  # A figure that there was nothing to take from is left out.
        ours, theirs = values.get("quorate"), values.get("etcd")
        ratio = ours / theirs if ours is not None and theirs else None
        met = None
        if aim is not None and ours is not None:
            try:
                met = aim[1](ratio, ours)
            except TypeError:
                met = None
        cells = ["%.*f %s" % (places(values[k]), values[k], unit) if values.get(k) is not None else "-" for k in self.kinds]
        cells += ["-"] * (2 - len(cells))
        print("%-52s %14s %14s %8s  %s%s" % (
            name, cells[0], cells[1], "%.2f" % ratio if ratio is not None else "-", aim[0] if aim else "",
            "" if met is None else " met" if met else " MISSED"), flush=True)
        if detail:
            print("    " + detail, flush=True)
        self.rows.append({"row": name, "unit": unit, "values": values, "ratio": ratio, "aim": aim[0] if aim else None, "met": met,
                          "detail": detail})

    def skip(self, name, why):
        print("%-52s left out: %s" % (name, why), flush=True)

    def void(self, name, why):
        print("%-52s void: %s" % (name, str(why).replace("\n", " ")[:300]), flush=True)
        self.rows.append({"row": name, "void": str(why)})

    def any_void(self):
        return any("void" in row for row in self.rows)


def places(value):
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3


def flags_of(kind):
    with harness.new_server(kind=kind) as server:
        return " ".join(server.command())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, and nothing with a million keys")
    parser.add_argument("--smoke", action="store_true", help="one round of a moment each: whether it works")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", choices=["etcd", "quorate"])
    parser.add_argument("--row", action="append", choices=sorted(bench_rows.GROUPS), help="only these groups of rows")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--million", type=int, default=1000000, help="how many keys the rows of a million use")
    arguments = parser.parse_args()
    kinds = (arguments.only,) if arguments.only else ("etcd", "quorate")
    short = arguments.quick or arguments.smoke
    settings = bench_rows.Settings(
        kinds=kinds, rounds=arguments.rounds or (1 if arguments.smoke else 2 if arguments.quick else 5),
        seconds=arguments.seconds or (0.5 if arguments.smoke else 1.5 if arguments.quick else 3),
        million=arguments.million if not arguments.smoke else min(arguments.million, 5000), smoke=arguments.smoke)
    report = Report(kinds)
    try:
        for tool in ("wrk", "strace", compiler()[0]):
            need(tool)
        kind_of_disk = check_place(scratch_root())
        sync_ms = measure_sync(scratch_root())
    except Refused as why:
        print("compare.py: %s" % why, file=sys.stderr)
        return 2
    report.head(
        machine="%s, %d cores, load %s" % (platform.release(), os.cpu_count(), "%.2f %.2f %.2f" % os.getloadavg()),
        file_system=kind_of_disk, fdatasync="%.3f ms (p99 %.3f) for 4 KiB, preallocated" % sync_ms,
        versions=[kind + ": " + version_of(kind) for kind in kinds] + [subprocess.run(["wrk", "-v"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]],
        flags=[flags_of(kind) for kind in kinds],
        settings="%d rounds of %g s, %d keys in the rows of a million" % (settings.rounds, settings.seconds, settings.million))
    names = arguments.row or [n for n, g in bench_rows.GROUPS.items() if not (short and g.is_long) or arguments.smoke]
    began = time.monotonic()
    for name in names:
        try:
            bench_rows.GROUPS[name].measure(settings, report)
        except (Void, OSError, RuntimeError, TimeoutError) as why:
            report.void(name, why)
    print("\n%.0f s" % (time.monotonic() - began))
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump({"facts": report.facts, "rows": report.rows}, out, indent=1)
            out.write("\n")
    return 1 if report.any_void() else 0


if __name__ == "__main__":
    sys.exit(main())
