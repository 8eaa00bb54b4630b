"""What one client can do to the others with little effort: nothing that they notice."""

import contextlib
import json
import os
import selectors
import signal
import socket

import pytest

import harness
from harness import exchange, poll

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
    # An event bears a value and the one before it.
    assert 64 * MIB < told < 96 * MIB
    assert peak_bytes(server.daemon("gatewayd")) < 400 * MIB


@pytest.mark.slow
def test_what_clients_gave_up_on_while_raftd_was_away_is_not_kept(server):
    """600 MiB of writes that nobody waits for any more."""
    gatewayd, raftd = server.daemon("gatewayd"), server.daemon("raftd")
    body = b"value=" + b"v" * (4 * MIB)
    head = b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    os.kill(raftd, signal.SIGSTOP)
    try:
        for _ in range(150):
            with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as client:
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert peak_bytes(gatewayd) > 100 * MIB
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


def pump(messages):
    """{socket: bytes}, sent as far as they are taken; returns when nothing has been taken for two seconds."""
    with selectors.DefaultSelector() as selector:
        for client, message in messages.items():
            client.setblocking(False)
            selector.register(client, selectors.EVENT_WRITE, memoryview(message))
        while selector.get_map() and (ready := selector.select(2)):
            for key, _ in ready:
                left = key.data[key.fileobj.send(key.data):]
                if left:
                    selector.modify(key.fileobj, selectors.EVENT_WRITE, left)
                else:
                    selector.unregister(key.fileobj)
        return {key.fileobj: bytes(key.data) for key in selector.get_map().values()}


# What the limits of docs/configuration.md allow for writes that wait: requests and answers twice their 256 MiB, 256 MiB of ops, 64 on
# their way to raftd; and a tenth for what holds them.
WAITING_BYTES_MAX = (2 * 256 + 256 + 64) * MIB * 11 // 10


def test_writes_that_wait_are_held_once_and_further_ones_not_read(server):
    """800 MiB of them while raftd stands still, and all are answered when it goes on."""
    gatewayd, raftd = server.daemon("gatewayd"), server.daemon("raftd")
    body = b"value=" + b"v" * MIB
    request = (b"PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
               b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(contextlib.closing(connect(server, 4096))) for _ in range(800)]
        os.kill(raftd, signal.SIGSTOP)
        try:
            unsent = pump({client: request for client in clients})
            assert peak_bytes(gatewayd) < WAITING_BYTES_MAX
            assert exchange(server.port, "GET", "/v2/keys/none", timeout=5).status == 404
        finally:
            os.kill(raftd, signal.SIGCONT)
        while unsent:
            unsent = pump(unsent)
        statuses = set()
        for client in clients:
            client.settimeout(60)
            statuses.add(client.recv(12))
            # Unread, the rest (two values) does not hold the others up.
    assert statuses <= {b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 500"}
    assert peak_bytes(gatewayd) < WAITING_BYTES_MAX


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
