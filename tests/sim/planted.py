#!/usr/bin/python3
"""planted.py [--seeds N] [--jobs J] [NAME...]: plants each bug of planted/ in a copy of the sources, and has the simulator look for it.

A bug is a patch, whose first line says what it does; planted.md lists them all. Each must apply, compile, and be found within
N seeds (2,000). Prints a line for each, with the seed that found it or MISSED, and at last how many were found and how many
were not. Ends with status 1 if one was not.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
AREAS = ("election", "replication", "commit", "read index", "membership", "snapshot", "WAL", "apply or time")


def listed():
    """The table of planted.md: name -> area."""
    bugs = {}
    with open(os.path.join(HERE, "planted.md"), encoding="utf-8") as page:
        for line in page:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 3 and cells[0] in AREAS:
                bugs[cells[1]] = cells[0]
    return bugs


def complaints(bugs):
    """What does not agree between the list, the folder and what was asked for."""
    patches = {name[: -len(".patch")] for name in os.listdir(os.path.join(HERE, "planted"))}
    for name in sorted(patches ^ set(bugs)):
        yield f"{name} is {'not in planted.md' if name in patches else 'not in planted/'}"
    for area in AREAS:
        if list(bugs.values()).count(area) < 2:
            yield f"fewer than two bugs in {area}"


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)


def copy_sources(scratch):
    source = os.path.join(scratch, "source")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", "build*", "deps", "*.pyc"), symlinks=True)
    if os.path.isdir(os.path.join(ROOT, "deps")):
        os.symlink(os.path.join(ROOT, "deps"), os.path.join(source, "deps"))
    return source


def build(source, jobs):
    return run(["ninja", "-j", str(jobs), "-C", "build", "tests/sim/sim"], cwd=source)


def patch(source, name, *options):
    path = os.path.join(HERE, "planted", name + ".patch")
    return run(["patch", "-p1", "-F0", "--no-backup-if-mismatch", "-s", "-i", path, *options], cwd=source)


def hunt(source, name, seeds, jobs):
    """The verdict on one bug: (whether it was found, what to print)."""
    applied = patch(source, name)
    if applied.returncode != 0:
        return False, "DOES NOT APPLY any more:\n" + applied.stdout
    try:
        built = build(source, jobs)
        if built.returncode != 0:
            return False, "DOES NOT COMPILE:\n" + built.stdout[-2000:]
        ran = run(["build/tests/sim/sim", "--seeds", str(seeds), "--jobs", str(jobs)], cwd=source)
    finally:
        patch(source, name, "-R")
    seed = re.search(r"seed=(\d+)", ran.stdout)
    if ran.returncode == 0 or seed is None:
        return False, f"MISSED within {seeds} seeds"
    breach = re.search(r"^FAILED seed=\d+.*?: (.*)", ran.stdout, re.MULTILINE)
    return True, f"seed {seed.group(1)}: {breach.group(1) if breach else '?'}"


def main():
    parser = argparse.ArgumentParser(description="Has the simulator look for planted bugs.")
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # and leave nothing behind
    bugs = listed()
    wrong = list(complaints(bugs))
    for line in wrong:
        print(line)
    found = 0
    missed = len(wrong)
    with tempfile.TemporaryDirectory(prefix="planted-", dir=os.environ.get("QUORATE_TEST_TMP", "/var/tmp")) as scratch:
        source = copy_sources(scratch)
        made = run(["meson", "setup", "build"], cwd=source)
        made = build(source, arguments.jobs) if made.returncode == 0 else made
        if made.returncode != 0:
            print(made.stdout[-4000:])
            return 1
        for name in arguments.names or bugs:
            began = time.monotonic()
            is_found, verdict = hunt(source, name, arguments.seeds, arguments.jobs)
            print(f"{bugs.get(name, '?'):14} {name:28} {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
            found += is_found
            missed += not is_found
    print(f"planted: {found} found, {missed} not")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
