"""What all connections hold together, and what is shared between them."""

import select
import threading
import time

import pytest

from echo import GET, HELLO, HOST, Reader, begin, no_date, read_until, read_exactly

MIB = 1 << 20
SMALL_BUDGET = {"header_bytes_max": 65536, "body_bytes_max": MIB, "held_bytes_max": 1}  # raised to four whole requests
MOVES_NOTHING_S = 5  # Who holds room that long for nothing makes way for the large ones that wait.
BUDGET_BYTES = 4 * (65536 + MIB)


def put_head(length):
    return b"PUT /echo HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % length


def test_a_body_that_all_streams_share_is_held_once_and_told_whole(server):
    sleepers = [server.connect(receive_bytes=4096) for _ in range(10)]
    for client in sleepers:
        client.sendall(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(client, b"\r\n\r\n")
    server.do(b"/push?before")
    server.do(b"/share?12000000")
    server.do(b"/push?between")
    server.do(b"/share?11000000")
    server.do(b"/share?10")
    held = server.stats()["held_bytes"]
    assert 23000000 <= held < 2 * 32 * MIB, "the two bodies, and little for each connection"
    for client in sleepers[:3]:
        told = (b"6\r\nbefore\r\n", b"b71b00\r\n" + b"s" * 12000000 + b"\r\n", b"7\r\nbetween\r\n",
                b"a7d8c0\r\n" + b"s" * 11000000 + b"\r\n", b"a\r\n" + b"s" * 10 + b"\r\n")
        for part in told:
            assert read_exactly(client, len(part)) == part
    for client in sleepers:
        client.close()
    server.wait_for(streams=0, held_bytes=0)


def test_large_requests_wait_for_room_and_all_are_answered(serve):
    server = serve(**SMALL_BUDGET)
    clients = [server.connect() for _ in range(12)]
    half = MIB // 2
    for client in clients:
        client.sendall(put_head(MIB))
    server.wait_for(conns=len(clients) + 1)
    assert server.stats()["held_bytes"] <= BUDGET_BYTES
    senders = [threading.Thread(target=lambda c=c: c.sendall(b"e" * MIB)) for c in clients]
    for sender in senders:
        sender.start()
    for client in clients:
        answer = read_until(client, b"e" * half)
        while len(answer) < MIB:
            answer += client.recv(MIB)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    for sender in senders:
        sender.join()
    for client in clients:
        client.close()
    assert server.wait_for(held_bytes=0)["cut"] == 0


@pytest.mark.parametrize("count, head", [
    (8, put_head(MIB)),
    pytest.param(8, b"PUT /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b"c" * 0x11000, marks=pytest.mark.slow),
    pytest.param(20, b"GET /" + b"u" * 80000, marks=pytest.mark.slow),
], ids=["length", "chunked", "url"])
def test_who_takes_room_and_sends_nothing_makes_way(serve, count, head):
    header_bytes_max = 1 << 18
    server = serve(header_bytes_max=header_bytes_max, body_bytes_max=MIB, held_bytes_max=1)
    hogs = [server.connect() for _ in range(count)]
    for hog in hogs:
        hog.sendall(head)
    server.wait_for_hogs(len(hogs))
    answer = server.ask(put_head(MIB) + b"e" * MIB, shut=True)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"e" * MIB)
    assert server.stats()["cut"] > 0
    for hog in hogs:
        hog.close()


def test_of_requests_that_wait_only_the_beginning_is_held(serve):
    server = serve(**SMALL_BUDGET)
    clients = [server.connect() for _ in range(100)]
    for client in clients:
        client.sendall(put_head(MIB) + b"e" * 60000)
    server.wait_for_hogs(len(clients))
    for _ in range(20):
        assert server.stats()["held_bytes"] <= BUDGET_BYTES
    for client in clients:
        client.close()
    server.wait_for(held_bytes=0)


def test_small_requests_are_served_while_large_ones_wait(serve):
    server = serve(**SMALL_BUDGET)
    began = time.monotonic()
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        client.sendall(put_head(MIB))
    server.wait_for_hogs(len(clients))
    for _ in range(50):
        assert no_date(server.ask(GET, shut=True)) == HELLO
    assert server.stats()["cut"] == 0 or time.monotonic() - began > MOVES_NOTHING_S
    for client in clients:
        client.close()


def test_answers_that_nobody_reads_are_bounded_and_others_are_served(serve):
    server = serve(**SMALL_BUDGET)
    hogs = [server.connect(receive_bytes=4096) for _ in range(30)]
    for hog in hogs:
        hog.sendall(b"GET /big?20000000 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert no_date(server.ask(GET, shut=True)) == HELLO
    assert server.stats()["held_bytes"] < 2 * BUDGET_BYTES + 20000000
    for hog in hogs:
        hog.close()
    server.wait_for(held_bytes=0)


def test_streams_that_nobody_reads_end_before_they_hold_too_much(serve):
    """Long before they are judged by what they move in five seconds. Who reads is told all."""
    server = serve(**SMALL_BUDGET)
    floods, flood_bytes = 500, 16000
    sleepers = [server.connect(receive_bytes=4096) for _ in range(30)]
    for client in sleepers:
        client.sendall(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(client, b"\r\n\r\n")
    with begin(server) as reader:
        thread = Reader(reader)
        server.wait_for(streams=len(sleepers) + 1)
        for number in range(1, floods + 1):
            server.do(b"/flood?%d" % flood_bytes)
            thread.wait_for(number * flood_bytes)
            assert server.stats()["held_bytes"] < 3 * BUDGET_BYTES
        assert server.stats()["streams"] < len(sleepers), "some are ended"
        server.do(b"/end")
        thread.join()
    assert thread.data.count(b"f" * flood_bytes) == floods
    for client in sleepers:
        client.close()


def test_http2_client_that_never_reads_is_held_back(server):
    settings = b"\0\0\0\4\0\0\0\0\0" * 10000
    with server.connect(receive_bytes=4096) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        client.setblocking(False)
        sent = 0
        while select.select([], [client], [], 0.5)[1]:
            sent += client.send(settings)
            assert sent < 50 << 20
        assert server.stats()["held_bytes"] < 4 * MIB
