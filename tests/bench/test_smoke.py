"""The benchmark works: each row is measured for a moment, none is void, and what must be refused is refused."""

import json
import os
import subprocess
import sys

import pytest

import harness
from harness import scratch_dir

COMPARE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compare.py")
sys.path.insert(0, os.path.dirname(COMPARE))

import bench_cluster  # noqa: E402,F401
import bench_rows  # noqa: E402

# Minutes even for a moment of each, and tests/cluster has the same: only with --full.
LONG = {"failover", "heal", "thin-snapshot", "catch-up"}


def compare(*arguments, env=None):
    return subprocess.run([sys.executable, COMPARE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=dict(os.environ, **(env or {})))


@pytest.mark.slow
@pytest.mark.limit(400)
def test_every_row_is_measured():
    only = ["--only", "etcd"] if harness.target_name() == "etcd" else []
    left_out = set() if os.environ.get("QUORATE_TEST_SIZE") == "full" else LONG
    for name in sorted(set(bench_rows.GROUPS) - left_out):
        only += ["--row", name]
    with scratch_dir("json") as folder:
        path = os.path.join(folder, "out.json")
        done = compare("--smoke", "--json", path, *only)
        assert done.returncode == 0, done.stdout
        with open(path) as out:
            rows = json.load(out)["rows"]
    names = [row["row"] for row in rows]
    assert len(names) > 40 and len(set(n for n in names if not n.startswith(("    ", "the second")))) > 30
    assert not [row for row in rows if "void" in row]


def test_a_file_system_in_memory_is_refused():
    if harness.places.file_system("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    done = compare("--smoke", env={"QUORATE_TEST_TMP": "/dev/shm"})
    assert done.returncode == 2 and "tmpfs" in done.stdout


def test_an_error_voids_a_row():
    """GETs of keys that are not there answer 404: the figures of such a run are worth nothing."""
    import bench_tools

    with harness.new_server(kind="etcd", quick_clock=True) as server:
        server.start()
        with pytest.raises(bench_tools.Void, match="404"):
            bench_tools.load("run", server.port, 0.2, 4, "get", "/none", 10, 10)
        with pytest.raises(bench_tools.Void):
            bench_tools.wrk(server, "get.lua", 4, 1)
