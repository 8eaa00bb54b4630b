"""A member that was away for long comes back while clients write.

What that costs the clients is measured by tests/bench/compare.py (catch-up); here: it arrives, by a snapshot and what came
after, nothing acknowledged is lost, and nobody stands for election.
"""

import os
import sys

import pytest
from harness.places import poll

from members import PATIENT, Cluster, Writers

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))
from bench_tools import fill  # noqa: E402

pytestmark = [pytest.mark.ours, pytest.mark.slow]

MISSED = {"quick": 10000, "default": 15000, "full": 1000000}[os.environ.get("QUORATE_TEST_SIZE", "default")]
KEYS, CLIENTS = 5000, 64


@pytest.mark.limit(120 + MISSED // 1000)
def test_a_member_that_missed_much_comes_back_while_clients_write():
    with Cluster(3, PATIENT + ["--snapshot-count=5000", "--max-snapshots=1"]) as cluster:
        cluster.start()
        away = cluster.followers()[0]
        away.kill()
        leader = cluster.leader()
        for _ in range(MISSED // KEYS):
            fill(leader, "/missed", KEYS)
        cluster.outrun(lambda: fill(leader, "/missed", KEYS))
        term = leader.get("/").header("X-Raft-Term")
        with Writers([leader], count=CLIENTS, timeout=60) as writers:
            poll(lambda: len(writers.moments) > CLIENTS, 30, "writes")
            away.start(60)
            poll(lambda: "recovered from incoming snapshot" in away.log(), 60, "a snapshot")
            count = len(writers.moments)
            poll(lambda: len(writers.moments) > count + 2 * CLIENTS, 30, "writes go on")
        assert writers.refused == 0
        cluster.wait_equal(60)
        assert leader.get("/").header("X-Raft-Term") == term, "a needless election"
        assert len(away.get("/missed").json["node"]["nodes"]) == KEYS
        writers.check(away)
