"""What one client can do to the others with little effort: nothing that they notice."""

import collections
import contextlib
import json
import os
import selectors
import signal
import socket
import time

import pytest

import harness
from harness import exchange, poll
from harness.workers import Workers

pytestmark = [pytest.mark.ours, pytest.mark.limit(300)]

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
MIB = 1 << 20


@pytest.fixture
def server():
    with harness.Quorate() as made:
        yield made.start()


def peak_bytes(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def resident_bytes(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


def connect(server, receive_bytes=None):
    client = socket.socket()
    client.settimeout(60)
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", server.port))
    return client


def read_to_end(client):
    told = 0
    while piece := client.recv(MIB):
        told += len(piece)
    return told


def read_line(client):
    line = b""
    while not line.endswith(b"\n"):
        line += client.recv(1)
    return line


def read_exactly(client, count):
    data = bytearray()
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece, "closed early"
        data += piece
    return bytes(data)


def put(server, key, value, timeout=30):
    body = b"value=" + value
    return exchange(server.port, "PUT", "/v2/keys" + key, body=body, headers=FORM, timeout=timeout)


def test_a_tree_that_cannot_be_told_in_one_answer_is_refused(server):
    """Each level repeats the key above it: 140 KB of key would be an answer of 5 GB."""
    assert put(server, "/d" * 70000, b"x").status == 201
    answer = exchange(server.port, "GET", "/v2/keys/?recursive=true", timeout=60)
    assert answer.status == 500 and b"too large" in answer.body, answer
    assert exchange(server.port, "GET", "/v2/keys/d", timeout=5).status == 200
    assert peak_bytes(server.daemon("gatewayd")) < 3 << 30


@pytest.mark.slow
def test_a_stream_that_asks_for_all_of_history_is_told_a_part_of_it(server):
    first = 0
    for i in range(20):
        answer = put(server, "/big", b"v" * (8 * MIB))
        assert answer.status in (200, 201)
        first = first or answer.index
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as client:
        client.settimeout(60)
        client.sendall(b"GET /v2/keys/big?wait=true&stream=true&waitIndex=%d HTTP/1.1\r\nHost: a\r\n"
                       b"Connection: close\r\n\r\n" % first)
        told = read_to_end(client)
    # An event bears a value and the one before it. How fast the client takes them makes no difference.
    assert 64 * MIB < told < 64 * MIB + 2 * 9 * MIB
    assert peak_bytes(server.daemon("gatewayd")) < 400 * MIB


@pytest.mark.slow
def test_what_clients_gave_up_on_while_raftd_was_away_is_not_kept(server):
    """600 MiB of writes that nobody waits for any more."""
    gatewayd, raftd = server.daemon("gatewayd"), server.daemon("raftd")
    body = b"value=" + b"v" * (4 * MIB)
    head = b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    os.kill(raftd, signal.SIGSTOP)
    try:
        waiting = collections.deque()
        for _ in range(150):
            waiting.append(socket.create_connection(("127.0.0.1", server.port)))
            waiting[-1].sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            if len(waiting) > 30:  # So many wait for a while, however slowly they are read.
                waiting.popleft().close()
        poll(lambda: peak_bytes(gatewayd) > 100 * MIB, 20, "it had much to hold")
        while waiting:
            waiting.popleft().close()
        poll(lambda: resident_bytes(gatewayd) < 100 * MIB, 20, "the memory is given back")
    finally:
        os.kill(raftd, signal.SIGCONT)
    server.wait_ready()
    assert put(server, "/a", b"x").status in (200, 201)


@pytest.mark.parametrize("query", ["wait=true", "wait=true&stream=true"])
def test_all_watchers_of_an_event_share_its_bytes(server, query):
    """200 that do not read, and an event of 9 MiB: once, and not 200 times."""
    gatewayd = server.daemon("gatewayd")
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(contextlib.closing(connect(server, 4096))) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /v2/keys/big?" + query.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert put(server, "/big", b"v" * (9 * MIB)).status == 201
        assert resident_bytes(gatewayd) < 200 * MIB
        # Those who do read get it whole.
        length = int(read_line(clients[7]), 16)
        text = read_exactly(clients[7], length)
        assert json.loads(text)["node"]["value"] == "v" * (9 * MIB)
    assert exchange(server.port, "GET", "/v2/keys/none", timeout=5).status == 404
    assert peak_bytes(gatewayd) < 200 * MIB


class Senders(Workers):
    """{socket: bytes}, sent by a thread as far and as soon as they are taken: nobody is slow because this test is."""

    def __init__(self, messages):
        self.sent_at = time.monotonic()  # When something was taken last.
        self.left = len(messages)
        self._selector = selectors.DefaultSelector()
        for client, message in messages.items():
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_WRITE, memoryview(message))
        super().__init__(join_s=10)

    def stop(self):
        super().stop()
        self._selector.close()

    def work(self, _):
        while self._selector.get_map() and not self.is_over():
            for key, _ in self._selector.select(0.1):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    left = key.data[key.fileobj.send(key.data):]
                    self.sent_at = time.monotonic()
                    if left:
                        self._selector.modify(key.fileobj, selectors.EVENT_WRITE, left)
                        continue
                self._selector.unregister(key.fileobj)
            self.left = len(self._selector.get_map())

    def are_held_up(self):
        """All is sent, or nothing has been taken for two seconds."""
        return self.left == 0 or time.monotonic() > self.sent_at + 2


HELD_BYTES_MAX = 256 * MIB  # Of requests, answers and writes together, as docs/configuration.md says; twice as much of answers alone.
OWN_BYTES_MAX = 64 * MIB  # What a gatewayd takes for itself: code, what it reads of the state, a message in its hands.
SMALL_BYTES_MAX = 16 << 10  # A connection's, which does not count.


def put_request(value_bytes):
    body = b"value=" + b"v" * value_bytes
    return (b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)


def connect_many(server, open_ones, count):
    return [open_ones.enter_context(contextlib.closing(connect(server, 4096))) for _ in range(count)]


@pytest.mark.parametrize("count, value_bytes", [
    (800, MIB),
    pytest.param(3000, MIB, marks=pytest.mark.slow),
    pytest.param(6000, 100000, marks=pytest.mark.slow),
    pytest.param(60, 9 * MIB, marks=pytest.mark.full),
])
def test_writes_that_wait_are_held_once_and_further_ones_not_read(server, many_files, measured, count, value_bytes):
    """More of them than may be held while raftd stands still, and all are answered when it goes on."""
    gatewayd, raftd = server.daemon("gatewayd"), server.daemon("raftd")
    request = put_request(value_bytes)
    with contextlib.ExitStack() as open_ones:
        clients = connect_many(server, open_ones, count)
        os.kill(raftd, signal.SIGSTOP)
        try:
            senders = open_ones.enter_context(Senders({client: request for client in clients}))
            poll(lambda: int(server.status("gatewayd")["gatewayd_ops_gathered_bytes"]) > HELD_BYTES_MAX * 3 // 4, 60, "writes wait")
            poll(senders.are_held_up, 60, "the senders are held up")
            stopped_bytes = peak_bytes(gatewayd)
            assert stopped_bytes < HELD_BYTES_MAX + count * SMALL_BYTES_MAX + OWN_BYTES_MAX
            assert exchange(server.port, "GET", "/v2/keys/none", timeout=5).status == 404
        finally:
            os.kill(raftd, signal.SIGCONT)
        poll(lambda: senders.left == 0, 120, "all are sent")
        statuses, ended = set(), 0
        for client in clients:
            client.settimeout(60)
            try:
                statuses.add(client.recv(12))
            except ConnectionResetError:
                ended += 1
            # Unread, the rest (two values) does not hold the others up.
        # Who moves nothing for five seconds makes way, and on a machine that stands still this test is slow, too.
        assert ended <= int(server.status("gatewayd")["gatewayd_connections_cut_total"]), "%d were reset" % ended
        peak = peak_bytes(gatewayd)
    measured.say("%d writes of %d bytes while raftd stood still: gatewayd's peak %d MiB, %d when they were answered" % (
        count, value_bytes, stopped_bytes // MIB, peak // MIB))
    assert statuses <= {b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 500"}
    assert peak < 2 * HELD_BYTES_MAX + count * SMALL_BYTES_MAX + OWN_BYTES_MAX
    poll(lambda: resident_bytes(gatewayd) < OWN_BYTES_MAX, 30, "the memory is given back")


@pytest.mark.slow
def test_answers_to_writes_that_nobody_reads_are_bounded_too(server, measured):
    """Each is two values, and nobody else holds it. What raftd had taken while stored stood still comes on top of what waited here."""
    gatewayd, stored = server.daemon("gatewayd"), server.daemon("stored")
    request = put_request(9 * MIB)
    with contextlib.ExitStack() as open_ones:
        clients = connect_many(server, open_ones, 120)
        os.kill(stored, signal.SIGSTOP)
        try:
            senders = open_ones.enter_context(Senders({client: request for client in clients}))
            poll(senders.are_held_up, 60, "the senders are held up")
        finally:
            os.kill(stored, signal.SIGCONT)
        poll(lambda: senders.left == 0, 120, "all are sent")
        poll(lambda: server.status("gatewayd")["gatewayd_requests_pending"] == "0", 60, "all are answered")
        peak = peak_bytes(gatewayd)
        assert exchange(server.port, "GET", "/v2/keys/none", timeout=5).status == 404
    measured.say("120 writes of 9 MiB while stored stood still: gatewayd's peak %d MiB" % (peak // MIB))
    assert peak < 2 * HELD_BYTES_MAX + 2 * OWN_BYTES_MAX, "a message in its hands is up to 64 MiB here, and what is made of it"


@pytest.mark.slow
@pytest.mark.parametrize("beginning", [
    b"GET /v2/keys/a HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 64000,
    b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"fff0\r\nvalue=" + b"v" * 63000,
    b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 65000\r\n\r\n"
    b"value=" + b"v" * 64000,
], ids=["heads", "chunks", "bodies"])
def test_requests_of_64_kib_that_never_end_are_bounded_too(server, many_files, measured, beginning):
    """10,000 of them would be 640 MB, and too small to wait for room one by one."""
    gatewayd = server.daemon("gatewayd")
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(contextlib.closing(connect(server))) for _ in range(10000)]
        senders = open_ones.enter_context(Senders({client: beginning for client in clients}))
        poll(lambda: senders.left == 0, 60, "all are sent")
        requests = int(server.status("gatewayd")["gatewayd_requests_total"])
        assert exchange(server.port, "GET", "/v2/keys/none", timeout=5).status == 404
        assert int(server.status("gatewayd")["gatewayd_requests_total"]) == requests + 1
        peak = peak_bytes(gatewayd)
    measured.say("10,000 requests of 64 KiB that did not end: gatewayd's peak %d MiB" % (peak // MIB))
    assert peak < 2 * HELD_BYTES_MAX + 10000 * SMALL_BYTES_MAX + OWN_BYTES_MAX


def test_without_threads_large_and_deep_listings_are_refused_and_others_go_on(folder, shim):
    """A key of 20,000 segments takes as many look-ups: not on the loop."""
    with harness.Quorate(folder=folder, env=shim.env) as server:
        server.start()
        deep = "/d" * 20000
        assert put(server, deep, b"x").status == 201
        for number in range(5):
            assert put(server, "/list/%d" % number, b"v" * MIB).status == 201
        targets = ("/v2/keys" + deep, "/v2/keys/list")
        for target in targets:
            assert exchange(server.port, "GET", target, timeout=30).status == 200
        shim.set("proc=gatewayd call=pthread_create do=error:EAGAIN")
        for target in targets:
            answer = exchange(server.port, "GET", target, timeout=30)
            assert answer.status == 500 and b"no thread to list this many keys, try again later" in answer.body
            assert exchange(server.port, "GET", "/v2/keys/list/1", timeout=30).status == 200
        shim.set()
        for target in targets:
            assert exchange(server.port, "GET", target, timeout=30).status == 200
        answer = exchange(server.port, "GET", "/v2/keys" + deep + "/none", timeout=30)
        assert answer.status == 400 and answer.json["cause"] == deep, "not a directory"
