"""Thousands of connections that never come to an end: whoever else comes is served as if they were not there."""

import contextlib
import json
import resource
import subprocess
import sys
import time

import pytest

import harness
import slow_clients
from harness import Keys, exchange, poll
from harness.faults import Writers
from sizes import sized
from test_components import Readers

pytestmark = [pytest.mark.ours, pytest.mark.limit(300)]

# When a gatewayd may end one of these: docs/configuration.md. A connection holds no more than the rest of a turn before it is counted.
HARMLESS_S = {kind.name: 300 if kind.name == "nothing" else 60 for kind in slow_clients.HARMLESS}
HOLDING_S = {kind.name: 5 for kind in slow_clients.HOLDING}
TURN_S = 1


class SlowClients:
    """Connections that never come to an end: {kind: count}; with keep, who is ended comes again."""

    def __init__(self, port, counts, keep=False):
        self._command = [sys.executable, slow_clients.__file__, str(port), json.dumps(counts)] + ["keep"] * keep

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def tell(self):
        """{kind: {"wanted", "open", "ended", "dripped", "youngest_s", "answers"}}"""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def are_there(self, kinds):
        told = self.tell()
        return all(told[kind]["open"] == told[kind]["wanted"] for kind in kinds)

    def have_dripped(self):
        told = self.tell()
        return all(told[kind.name]["dripped"] > 0 for kind in slow_clients.KINDS.values() if kind.more)

    def ended_early(self, limits_s, turn_s):
        """The kinds of which the server ended one before its time, as told of them; its time is counted in whole turns."""
        told = self.tell()
        return {kind: told[kind] for kind, limit_s in limits_s.items()
                if told[kind]["ended"] and told[kind]["youngest_s"] < limit_s - turn_s}


def serve_others(port, prefix, seconds):
    """(the slowest read, the slowest write) of 16 readers and 4 writers, none of whom may fail, and of connections made meanwhile."""
    with Readers(port, "/read", 16) as readers, Writers(port, prefix, count=4, timeout=30) as writers:
        end = time.monotonic() + seconds
        while time.monotonic() < end or readers.total <= 100:
            assert exchange(port, "GET", "/v2/keys/read").status == 200
            assert exchange(port, "GET", "/v2/keys/read?quorum=true").status == 200
        writers.wait_for(20)
    assert readers.failures == [] and readers.broken == []
    assert writers.problems() == [] and all(not unknown for unknown in writers.unknown)
    return readers.slowest, writers.longest_s


def test_half_open_and_slow_connections_leave_other_clients_served(many_files, measured):
    """Those are there that hold nothing, and as many again by tenths of those that hold memory and make way for others: they come again."""
    count = sized(1000, 10000, 10000)
    if many_files < 1.2 * count + 500:
        pytest.skip("at most %d files may be open here; this takes %d" % (many_files, 1.2 * count + 500))
    counts = dict.fromkeys(HARMLESS_S, count // len(HARMLESS_S)) | dict.fromkeys(HOLDING_S, count // 10)
    with harness.new_server(quick_clock=True) as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/read", "v")
        keys.put("/big", "b" * 200000)
        keys.close()
        alone = serve_others(server.port, "/alone", sized(1, 3, 10))
        with Readers(server.port, "/read", 1) as pulse, SlowClients(server.port, counts, keep=True) as slow:
            poll(lambda: slow.are_there(HARMLESS_S) and slow.have_dripped(), 120, "all slow ones are there")
            poll(lambda: int(server.status("gatewayd")["gatewayd_connections"]) >= count, 60, "and accepted")
            beside = serve_others(server.port, "/beside", sized(2, 8, 30))
            poll(lambda: pulse.total > 0, 20, "the pulse is felt")
            turn_s = max(TURN_S, 0.1 + pulse.slowest)  # No turn was longer, however long the machine stood still.
            assert slow.ended_early(HARMLESS_S, turn_s) == {}
            assert slow.ended_early(HOLDING_S, turn_s) == {}
            own_kib, _ = server.memory_kib()
            made_way = int(server.status("gatewayd")["gatewayd_connections_cut_total"])
        measured.say("beside %d half-open and slow connections, and %d that hold memory, %d of which made way: slowest read %.0f ms, write %.0f ms "
                     "(alone: %.0f and %.0f ms); %.0f MiB in all processes" % (
                         count, count // 5, made_way, 1000 * beside[0], 1000 * beside[1], 1000 * alone[0], 1000 * alone[1], own_kib / 1024))
        assert exchange(server.port, "GET", "/v2/keys/read").status == 200


def test_more_connections_than_files_turn_newcomers_away_and_nobody_else(many_files):
    """Over its limit a gatewayd says 503 and closes; who is there stays, and the place of who goes is given again."""
    limit = 400

    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    with harness.new_server(quick_clock=True, preexec=few_files) as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/read", "v")
        with SlowClients(server.port, dict.fromkeys(HARMLESS_S, (limit + 100) // len(HARMLESS_S))) as slow:
            poll(lambda: all(one["open"] + one["ended"] == one["wanted"] for one in slow.tell().values()), 30, "all have tried")
            answers = []
            for _ in range(20):
                with contextlib.suppress(OSError, harness.wire.WireError):
                    answers.append(exchange(server.port, "GET", "/v2/keys/read", timeout=5).status)
            assert set(answers) == {503}, answers
            for _ in range(20):
                assert keys.get("/read").status == 200 and keys.put("/read", "v").status == 200
        poll(lambda: exchange(server.port, "GET", "/v2/keys/read").status == 200, 10, "newcomers are served again")
        keys.close()
