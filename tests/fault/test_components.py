"""One daemon away, the others at work: reads go on, watchers lose nothing and hear nothing twice."""

import json
import os
import random
import selectors
import signal
import threading
import time

import pytest

import harness
from harness import Connection, Keys, exchange, poll
from harness.faults import Writers
from harness.wire import WireError
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(600)]


class Readers:
    """64 connections that read without a pause, each answer judged."""

    def __init__(self, port, key, count=64):
        self.port, self.key, self.total, self.failures = port, key, 0, []
        self.slowest = 0.0
        self._count, self._stop = count, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(20)

    def _work(self):
        request = b"GET /v2/keys%s HTTP/1.1\r\nHost: a\r\n\r\n" % self.key.encode()
        selector, since = selectors.DefaultSelector(), {}
        connections = [Connection(self.port) for _ in range(self._count)]
        for connection in connections:
            selector.register(connection.sock, selectors.EVENT_READ, connection)
            since[connection] = time.monotonic()
            connection.send(request)
        while not self._stop.is_set():
            for key, _ in selector.select(0.2):
                connection = key.data
                try:
                    answer = connection.read_response()
                    if answer.status != 200:
                        self.failures.append(repr(answer)[:200])
                except (OSError, WireError) as why:
                    self.failures.append(repr(why))
                    selector.unregister(connection.sock)
                    continue
                self.total += 1
                self.slowest = max(self.slowest, time.monotonic() - since[connection])
                since[connection] = time.monotonic()
                connection.send(request)
        for connection in connections:
            connection.close()


class Watchers:
    """Many streams on one directory; each notes the indexes it is told."""

    def __init__(self, port, key, count):
        self.streams = []
        for _ in range(count):
            connection = Connection(port)
            connection.send_request("GET", "/v2/keys%s?wait=true&stream=true&recursive=true" % key)
            self.streams.append(connection)
        for connection in self.streams:
            assert connection.read_head().status == 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.streams:
            connection.close()

    def indexes(self, last, timeout=20):
        """Per stream, every index up to `last`."""
        told = []
        for connection in self.streams:
            connection.sock.settimeout(timeout)
            mine = []
            while not mine or mine[-1] < last:
                chunk = connection.read_chunk()
                if not chunk:
                    raise AssertionError("a watch was ended after %s" % mine[-3:])
                mine.append(json.loads(chunk)["node"]["modifiedIndex"])
            told.append(mine)
        return told


@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["raftd", pytest.param("stored", marks=pytest.mark.slow)])
def test_a_daemon_away_for_5_s(name, how):
    """0 failed plain GETs, every event exactly once."""
    watcher_count = sized(100, 1000, 1000)
    with harness.new_server() as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/read", "v")
        with Watchers(server.port, "/w", watcher_count) as watchers, Readers(server.port, "/read") as readers, \
                Writers(server.port, "/w", count=4, timeout=15) as writers:
            writers.wait_for(20)
            pid = server.daemon(name)
            if how == "stopped":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(5)
                os.kill(pid, signal.SIGCONT)
            else:
                end = time.monotonic() + 5
                while time.monotonic() < end:  # Whatever starts in its place is killed too.
                    for one in server.pids().get(name, []):
                        os.kill(one, signal.SIGKILL)
                    time.sleep(0.02)
            writers.wait_for(20, timeout=40)
            writers.stop()
            assert writers.problems() == []
            last = poll(lambda: Keys(server.port).put("/w/last/one", "v").index, 10, "the last write")
            told = watchers.indexes(last)
        assert readers.failures == [] and readers.total > 500
        assert readers.slowest < 3, readers.slowest
        acked = {index for acks in writers.acked for _, index in acks} | {last}
        for mine in told:
            assert mine == sorted(set(mine)), "an event came twice or out of order"
            assert acked <= set(mine), "lost: %s" % sorted(acked - set(mine))[:5]
        assert all(mine == told[0] for mine in told)


def two_gateways(**options):
    return harness.new_server(["--gateways=2"], **options)


def test_one_of_two_gatewayds_killed_leaves_new_connections_served():
    with two_gateways(quick_clock=True) as server:
        server.start()
        Keys(server.port).put("/k", "v")
        poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 5, "two gatewayds run")
        for _ in range(sized(2, 10, 50)):
            pids = server.pids()["gatewayd"]
            os.kill(random.choice(pids), signal.SIGKILL)
            for _ in range(20):
                assert exchange(server.port, "GET", "/v2/keys/k").status == 200
            poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 15, "it is back")


@pytest.mark.slow
def test_gatewayd_kills_under_load_leave_no_trace():
    """A killed reader's place in the state is freed: the file does not grow without bound."""
    kills = sized(5, 15, 100)
    with two_gateways(quick_clock=True) as server:
        server.start()
        data = os.path.join(server.data_dir, "member", "state")

        def state_bytes():
            return sum(os.stat(os.path.join(path, name)).st_blocks * 512
                       for path, _, names in os.walk(data) for name in names if name == "data.mdb")

        with Writers(server.port, "/w", count=8, timeout=5) as writers, Readers(server.port, "/w/w0/1", 16):
            writers.wait_for(200)
            sizes = []
            for _ in range(kills):
                poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 20, "two gatewayds run")
                os.kill(random.choice(server.pids()["gatewayd"]), signal.SIGKILL)
                writers.wait_for(20)
                sizes.append(state_bytes() / max(1, writers.count()))
        assert writers.problems() == []
        assert sizes[-1] < 4 * sizes[0] + 4096, "bytes of state per key: %s" % sizes


@pytest.mark.slow
def test_a_stopped_gatewayd_does_not_hold_the_state_back():
    """SIGSTOP in the middle of its work: whoever connects anew is served, and the state's file stays bounded."""
    with two_gateways(quick_clock=True) as server:
        server.start()
        data = os.path.join(server.data_dir, "member", "state")
        with Readers(server.port, "/", 32), Writers(server.port, "/w", count=8, timeout=5) as writers:
            writers.wait_for(100)
            victim = server.daemon("gatewayd")
            os.kill(victim, signal.SIGSTOP)
            try:
                with Writers(server.port, "/meanwhile", count=8, timeout=5) as meanwhile:
                    meanwhile.wait_for(sized(1000, 3000, 30000), timeout=120)
                used = sum(os.stat(os.path.join(path, "data.mdb")).st_blocks * 512
                           for path, _, names in os.walk(data) if "data.mdb" in names)
            finally:
                for pid in server.pids().get("gatewayd", []):
                    os.kill(pid, signal.SIGCONT)
        total = meanwhile.count() + writers.count()
        assert used < 64 * 1024 * 1024 + 8192 * total, "%d bytes of state for %d keys" % (used, total)
        poll(lambda: exchange(server.port, "GET", "/v2/keys/meanwhile").status == 200, 10, "all is well")
        assert meanwhile.problems() == []
