"""How far the log grows before a snapshot lets it be cut."""

import os

import pytest

import harness
from harness import exchange, poll

pytestmark = [pytest.mark.ours, pytest.mark.limit(120)]

FORM = [("Content-Type", "application/x-www-form-urlencoded")]


def put(server, count, value):
    for i in range(count):
        answer = exchange(server.port, "PUT", "/v2/keys/k%03d" % (i % 100), body=b"value=" + value, headers=FORM)
        assert answer.status in (200, 201)


def snapshots(server):
    folder = os.path.join(server.data_dir, "member", "snap")
    return {name: os.path.getsize(os.path.join(folder, name))
            for name in os.listdir(folder) if name.endswith(".snap")}


def test_a_log_that_grows_over_many_lives_is_cut_too():
    """Each life writes less than a snapshot's worth, all of them together far more."""
    with harness.Quorate(flags=["--snapshot-count=20"]) as server:
        server.start()
        put(server, 100, b"v" * 8192)
        server.kill()
        first = snapshots(server)
        for _ in range(6):
            server.start()
            put(server, max(first.values()) // 4 // 8192, b"w" * 8192)
            server.kill()
        server.start()
        put(server, 30, b"x")
        poll(lambda: set(snapshots(server)) - set(first), 5, "another snapshot")
