"""Thousands of connections that never come to an end: whoever else comes is served as if they were not there."""

import contextlib
import itertools
import resource
import socket
import threading
import time

import pytest

import harness
from harness import Keys, exchange, poll
from harness.faults import Writers
from sizes import sized
from test_components import Readers

pytestmark = [pytest.mark.ours, pytest.mark.limit(300)]

PUT = b"PUT /v2/keys/slow HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\n"

# What each says, and of which it goes on to say a byte now and then.
BEGINNINGS = {
    "nothing": (b"", b""),
    "half a request line": (b"GET /v2/ke", b"y"),
    "half a head": (b"GET /v2/keys/read HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"x"),
    "half a body": (PUT + b"value=", b"v"),
    "half a chunk": (PUT.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"ffff\r\nvalue=", b"v"),
    "an answer that is not read": (b"GET /v2/keys/big HTTP/1.1\r\nHost: a\r\n\r\n" * 20, b""),
}


class SlowClients:
    """So many connections, of each kind the same number; drips: each 50 ms some of them say one byte more."""

    def __init__(self, port, count):
        self.sockets, self.dripped = [], 0
        self.harmless = []  # Those that hold no memory: who lets answers lie may have to make way after 5 s.
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip, daemon=True)
        kinds = itertools.cycle(BEGINNINGS.items())
        for _ in range(count):
            kind, (beginning, more) = next(kinds)
            each = socket.socket()
            if not more:  # For those that do not read: the less lies in the kernel.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", port))
            each.send(beginning)
            each.setblocking(False)
            self.sockets.append((each, more))
            if kind != "an answer that is not read":
                self.harmless.append(each)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)
        for each, _ in self.sockets:
            each.close()

    def _drip(self):
        dripping = itertools.cycle([pair for pair in self.sockets if pair[1]])
        while not self._stop.wait(0.05):
            for each, more in itertools.islice(dripping, 200):
                with contextlib.suppress(OSError):
                    self.dripped += each.send(more)

    def still_there(self):
        """How many of the harmless the server has not closed."""
        there = 0
        for each in self.harmless:
            try:
                there += each.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                there += 1
            except OSError:
                pass
        return there


def serve_others(port, prefix, seconds):
    """(the slowest read, the slowest write) of 16 readers and 4 writers, none of whom may fail, and of connections made meanwhile."""
    with Readers(port, "/read", 16) as readers, Writers(port, prefix, count=4) as writers:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert exchange(port, "GET", "/v2/keys/read", timeout=5).status == 200
            assert exchange(port, "GET", "/v2/keys/read?quorum=true", timeout=5).status == 200
        writers.wait_for(20)
    assert readers.failures == [] and readers.broken == [] and readers.total > 100
    assert writers.problems() == [] and all(not unknown for unknown in writers.unknown)
    return readers.slowest, writers.longest_s


def test_half_open_and_slow_connections_leave_other_clients_served(many_files, measured):
    count = sized(1000, 10000, 10000)
    if many_files < count + 500:
        pytest.skip("at most %d files may be open here; this takes %d" % (many_files, count + 500))
    with harness.new_server(quick_clock=True) as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/read", "v")
        keys.put("/big", "b" * 200000)
        keys.close()
        alone = serve_others(server.port, "/alone", sized(1, 3, 10))
        with SlowClients(server.port, count) as slow:
            time.sleep(1)
            beside = serve_others(server.port, "/beside", sized(2, 5, 30))
            assert slow.still_there() >= 0.99 * len(slow.harmless), "the slow ones were not there at all"
            assert slow.dripped > 0
            own_kib, _ = server.memory_kib()
        measured.say("beside %d half-open and slow connections: slowest read %.0f ms, write %.0f ms (alone: %.0f and %.0f ms); "
                     "%.0f MiB in all processes" % (count, 1000 * beside[0], 1000 * beside[1], 1000 * alone[0], 1000 * alone[1], own_kib / 1024))
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
        with SlowClients(server.port, limit + 100):
            answers = []
            for _ in range(20):
                with contextlib.suppress(OSError, harness.wire.WireError):
                    answers.append(exchange(server.port, "GET", "/v2/keys/read", timeout=5).status)
            assert set(answers) == {503}, answers
            for _ in range(20):
                assert keys.get("/read").status == 200 and keys.put("/read", "v").status == 200
        poll(lambda: exchange(server.port, "GET", "/v2/keys/read").status == 200, 10, "newcomers are served again")
        keys.close()
