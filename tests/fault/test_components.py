"""One daemon away, the others at work: reads go on, watchers lose nothing and hear nothing twice."""

import contextlib
import json
import os
import random
import selectors
import signal
import time

import pytest

import harness
from harness import Connection, Keys, exchange, poll
from harness.faults import Writers
from harness.server import is_alive
from harness.wire import WireError
from harness.workers import Workers
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(600)]


class Readers(Workers):
    """Many connections that read without a pause, each answer judged. One that is closed is opened again; when it was opened
    and when it broke is noted in `broken`, for the test to say whether it may."""

    def __init__(self, port, key, count=64):
        self.port, self.total, self.failures, self.broken = port, 0, [], []
        self.slowest = 0.0
        self.heard_at = {}  # Of each open connection: when it was answered last, to what was asked then.
        self._request = b"GET /v2/keys%s HTTP/1.1\r\nHost: a\r\n\r\n" % key.encode()
        self._count = count
        self._selector = selectors.DefaultSelector()
        super().__init__(join_s=20)

    def go_round(self):
        """Until each connection has been answered, or was found broken and opened anew, after this was called: then what the moment
        before did to any of them is known."""
        began = time.monotonic()
        poll(lambda: self.heard_at and len(self.heard_at) == self._count and min(list(self.heard_at.values())) > began, 20,
             "each reader is answered")

    def broken_without(self, spans):
        """The connections that broke, but not within any of the spans of time, or that were opened only in it."""
        return [(opened, broke, why) for opened, broke, why in self.broken
                if not any(opened <= begin <= broke <= end for begin, end in spans)]

    def _open(self):
        connection = Connection(self.port)
        connection.opened = time.monotonic()
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._ask(connection)

    def _ask(self, connection):
        connection.asked = time.monotonic()
        connection.send(self._request)

    def _hear(self, connection):
        try:
            answer = connection.read_response()
            if answer.status != 200:
                self.failures.append(repr(answer)[:200])
            self.total += 1
            self.slowest = max(self.slowest, time.monotonic() - connection.asked)
            self.heard_at[connection] = connection.asked
            self._ask(connection)
        except (OSError, WireError) as why:
            self.broken.append((connection.opened, time.monotonic(), repr(why)[:200]))
            self.heard_at.pop(connection, None)
            self._selector.unregister(connection.sock)
            connection.close()
            self._open()

    def work(self, _):
        try:
            for _ in range(self._count):
                self._open()
            while not self.is_over():
                for key, _ in self._selector.select(0.2):
                    self._hear(key.data)
        except OSError as why:
            self.failures.append("no connection: %r" % why)
        for key in list(self._selector.get_map().values()):
            key.data.close()


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


class Killer(Workers):
    """Kills a daemon, and whatever starts in its place."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        super().__init__(join_s=20)

    def work(self, _):
        while not self.pause(0.02):
            for pid in self.server.pids().get(self.name, []):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def acked_index(answer):
    return answer.index if answer.status in (200, 201) else None


@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["raftd", pytest.param("stored", marks=pytest.mark.slow)])
def test_a_daemon_away_for_5_s(name, how, measured):
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
                readers.go_round()  # Nobody waits for it.
                time.sleep(5)
                os.kill(pid, signal.SIGCONT)
            else:
                with Killer(server, name):
                    readers.go_round()
                    time.sleep(5)
            writers.wait_for(20, timeout=40)
            writers.stop()
            assert writers.problems() == []
            last = poll(lambda: acked_index(Keys(server.port).put("/w/last/one", "v")), 20, "the last write")
            told = watchers.indexes(last)
        assert readers.failures == [] and readers.broken == [] and readers.total > 500
        measured.times("%s %s, the slowest read beside it" % (name, how), [readers.slowest])
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
            victim = random.choice(server.pids()["gatewayd"])
            os.kill(victim, signal.SIGKILL)
            poll(lambda: not is_alive(victim), 20, "it is dead")
            for _ in range(20):
                assert exchange(server.port, "GET", "/v2/keys/k").status == 200
            poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 15, "it is back")


def state_bytes(server):
    """On the disk."""
    return sum(os.stat(os.path.join(path, "data.mdb")).st_blocks * 512
               for path, _, names in os.walk(os.path.join(server.data_dir, "member", "state")) if "data.mdb" in names)


def test_watchers_of_a_gatewayd_that_stood_still_are_told_all_that_they_missed():
    """More than it is sent once it goes on: it reads the rest from the history, while new events come."""
    with two_gateways(quick_clock=True) as server:
        server.start()
        poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 5, "two gatewayds run")
        watches = [Keys(server.port).watch("/w", "recursive=true&stream=true") for _ in range(16)]
        victim = server.daemon("gatewayd")
        os.kill(victim, signal.SIGSTOP)
        try:
            with Writers(server.port, "/w", count=32, timeout=5) as writers:
                writers.wait_for(sized(4000, 8000, 20000))
                os.kill(victim, signal.SIGCONT)
                writers.wait_for(1000)
        finally:
            os.kill(victim, signal.SIGCONT)
        acked = sorted(index for acks in writers.acked for _, index in acks)
        for watch in watches:
            told = []
            while not told or told[-1] < acked[-1]:
                told.append(watch.event()["node"]["modifiedIndex"])
            assert told == sorted(set(told)), "an event came twice or out of order"
            assert set(acked) <= set(told)
            watch.close()
        assert victim in server.pids()["gatewayd"], "it was not restarted"


@pytest.mark.slow
def test_gatewayd_kills_under_load_fail_no_read_but_theirs_and_leave_no_trace(measured):
    """A killed reader's place in the state is freed: the file does not grow without bound."""
    kills, spans, sizes = sized(5, 15, 100), [], []
    with two_gateways(quick_clock=True) as server:
        server.start()
        Keys(server.port).put("/read", "v")
        with Writers(server.port, "/w", count=8, timeout=5) as writers, Readers(server.port, "/read", 16) as readers:
            writers.wait_for(200)
            for _ in range(kills):
                poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 20, "two gatewayds run")
                readers.go_round()
                began = time.monotonic()
                os.kill(random.choice(server.pids()["gatewayd"]), signal.SIGKILL)
                writers.wait_for(20)
                readers.go_round()
                spans.append((began, time.monotonic()))
                sizes.append(state_bytes(server))
        assert writers.problems() == []
        assert readers.failures == [] and readers.broken_without(spans) == []
        assert readers.broken and readers.total > 20 * kills
        keys = writers.count()
        measured.say("%d kills of gatewayd: %d reads, %d connections broken with their gatewayd, none else; state %.1f MB with %d keys" % (
            kills, readers.total, len(readers.broken), sizes[-1] / 1e6, keys))
        assert sizes[-1] < sizes[0] + 4 * 1024 * 1024 + 4096 * keys, "state's bytes, kill for kill: %s, keys: %d" % (sizes, keys)


@pytest.mark.slow
def test_a_stopped_gatewayd_does_not_hold_the_state_back(measured):
    """SIGSTOP in the middle of its work: whoever connects anew is served, and the state's file stays bounded."""
    with two_gateways(quick_clock=True) as server:
        server.start()
        with Readers(server.port, "/", 32) as before, Writers(server.port, "/w", count=8, timeout=5) as writers:
            writers.wait_for(100)
            victim = server.daemon("gatewayd")
            stopped = time.monotonic()
            os.kill(victim, signal.SIGSTOP)
            try:
                with Writers(server.port, "/meanwhile", count=8, timeout=5) as meanwhile, Readers(server.port, "/", 32) as anew:
                    meanwhile.wait_for(sized(1000, 3000, 30000))
                    poll(lambda: anew.total > 500, 20, "they are served")
                used = state_bytes(server)
            finally:
                for pid in server.pids().get("gatewayd", []):
                    os.kill(pid, signal.SIGCONT)
        keys = meanwhile.count() + writers.count()
        measured.say("a gatewayd stopped: %d reads beside it, state %.1f MB with %d keys" % (anew.total, used / 1e6, keys))
        assert used < 64 * 1024 * 1024 + 8192 * keys, "%d bytes of state for %d keys" % (used, keys)
        assert anew.failures == [] and anew.broken == []
        # It is ended as a reader that holds the state back, and its connections go with it.
        assert before.failures == [] and before.broken_without([(stopped, time.monotonic())]) == []
        poll(lambda: exchange(server.port, "GET", "/v2/keys/meanwhile").status == 200, 10, "all is well")
        assert meanwhile.problems() == []
