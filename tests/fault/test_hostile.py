"""What one client can do to the others with little effort: nothing that they notice."""

import contextlib
import os
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
        told = 0
        while piece := client.recv(MIB):
            told += len(piece)
    # An event bears a value and the one before it.
    assert 64 * MIB < told < 96 * MIB
    assert peak_bytes(server.daemon("gatewayd")) < 400 * MIB


def resident_bytes(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


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
        assert resident_bytes(gatewayd) > 200 * MIB
        poll(lambda: resident_bytes(gatewayd) < 100 * MIB, 20, "the memory is given back")
    finally:
        os.kill(raftd, signal.SIGCONT)
    server.wait_ready()
    assert put(server, "/a", b"x").status in (200, 201)
