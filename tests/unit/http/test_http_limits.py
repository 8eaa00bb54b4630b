"""Limits, slow clients, and the server's own end."""

import contextlib
import os
import resource
import select
import subprocess
import sys
import time

import pytest

from echo import GET, HELLO, HOST, WAIT_S, Reader, begin, no_date, read_all, read_until
from harness.places import patience, poll


# ---- limits and slow clients ----------------------------------------------------------------------------------------


def test_unread_output_over_the_limit_ends_the_stream(serve):
    server = serve(output_bytes_max=1 << 20)
    with begin(server) as reader, begin(server) as sleeper:
        drain = Reader(reader)
        read_until(sleeper, b"\r\n\r\n")
        server.wait_for(streams=2)
        for number in range(1, 101):
            server.do(b"/flood?500000")
            drain.wait_for(500000 * number)
            if server.stats()["streams"] == 1:
                break
        assert server.wait_for(streams=1)["cancels"] == 1
        server.do(b"/end")
        drain.join()


def test_client_that_stops_reading_an_answer_is_given_up(serve):
    server = serve(write_timeout_ms=200)
    with server.connect(receive_bytes=4096) as client:
        client.sendall(b"GET /big?30000000 HTTP/1.1\r\n" + HOST + b"\r\n")
        server.wait_for(conns=1)
        data = read_all(client)
        assert len(data) < 30000000


def test_client_that_reads_slowly_gets_all(serve):
    """However long all of it takes. Where nothing moved for as long as that is allowed, by a machine that stood still, it says nothing."""
    server = serve(write_timeout_ms=2000)
    longest_s = 2.0
    while longest_s >= 1.0:
        data, longest_s, last = b"", 0.0, time.monotonic()
        with server.connect(receive_bytes=4096) as client:
            client.sendall(b"GET /big?3000000 HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
            with contextlib.suppress(ConnectionResetError):
                while not data.endswith(b"hello\n") and (piece := client.recv(50000)):
                    data += piece
                    longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
        longest_s = max(longest_s, time.monotonic() - last)
        if data.endswith(b"hello\n"):
            break
    assert data.endswith(b"hello\n") and data.count(b"x") >= 3000000, len(data)


def test_pipelining_client_that_never_reads_is_held_back(serve):
    server = serve(write_timeout_ms=300)
    request = b"GET /big?100000 HTTP/1.1\r\n" + HOST + b"\r\n"
    with server.connect(receive_bytes=4096) as client:
        client.sendall(request * 1000)
        server.wait_for(conns=1)
        assert server.stats()["requests"] - server.polls < 500


def test_client_that_sends_on_and_never_reads_is_read_no_further(server):
    request = (b"GET /big?100000 HTTP/1.1\r\n" + HOST + b"\r\n") * 1000
    with server.connect(receive_bytes=4096) as client:
        client.setblocking(False)
        sent = 0
        while select.select([], [client], [], 0.5)[1]:
            sent += client.send(request)
            assert sent < 50 << 20
        assert server.stats()["conns"] == 2


@pytest.mark.parametrize("data", [b"G", b"GET /hello HTTP/1.1\r\nHost: x\r\n", b"PUT / HTTP/1.1\r\nHost: x\r\n"
                                  b"Content-Length: 9\r\n\r\nabc"])
def test_request_that_is_not_whole_in_time_ends_the_connection(serve, data):
    server = serve(request_timeout_ms=200)
    with server.connect() as slow, server.connect() as idle:
        began = time.monotonic()
        slow.sendall(data)
        assert read_all(slow) == b""
        assert time.monotonic() - began >= 0.15
        idle.sendall(GET)
        assert no_date(read_until(idle, b"hello\n")) == HELLO


def test_one_byte_now_and_then_does_not_extend_the_time(serve):
    server = serve(request_timeout_ms=300)
    with server.connect() as client:
        try:
            while True:
                client.sendall(b"G")
                if select.select([client], [], [], 0.02)[0]:
                    break
        except OSError:
            pass
        server.wait_for(conns=1)


def test_idle_connection_ends_and_a_busy_one_does_not(serve):
    server = serve(idle_timeout_ms=300)
    with begin(server, b"/park") as pending, begin(server) as stream:
        read_until(stream, b"\r\n\r\n")
        said = b""
        while no_date(said) != HELLO:  # Unless it was so slow that it counted as idle before.
            with server.connect() as idle, contextlib.suppress(ConnectionError):
                idle.sendall(GET)
                said = read_all(idle)
        server.do(b"/unpark")
        assert read_until(pending, b"unparked\n")
        server.do(b"/push?x")
        assert read_until(stream, b"x\r\n") == b"1\r\nx\r\n"


def test_connections_over_the_limit_are_told_503(serve):
    server = serve(conn_count_max=3)
    kept = [server.connect() for _ in range(3)]
    for client in kept:
        client.sendall(GET)
        read_until(client, b"hello\n")
    answers = [server.ask(GET) for _ in range(50)]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable: too many connections\r\n")
    kept[0].sendall(GET)
    read_until(kept[0], b"hello\n")
    for client in kept:
        client.close()
    server.wait_until_served()


def refused_of(clients):
    """How many are told 503, or hung up on, when they ask. All are closed."""
    refused = 0
    for client in clients:
        try:
            client.sendall(GET)
            refused += client.recv(1000).startswith(b"HTTP/1.1 503")
        except ConnectionError:
            refused += 1
    for client in clients:
        client.close()
    return refused


def test_running_out_of_descriptors_refuses_and_recovers(serve):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        server = serve(conn_count_max=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused_of([server.connect() for _ in range(100)]) >= 40
    server.wait_until_served()


def spares(pid):
    folder = "/proc/%d/fd" % pid
    count = 0
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed by now
            count += os.readlink(os.path.join(folder, fd)) == "/dev/null"
    return count


def test_the_spare_descriptor_comes_back(serve):
    """It is given up to refuse a connection; where even then there is none, it is taken again later."""
    server = serve(conn_count_max=1000)
    pid = server.process.pid
    before = spares(pid)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    with server.connect() as first:
        first.sendall(GET)
        poll(lambda: spares(pid) == before - 1, WAIT_S, "the spare was given up")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, hard))
        assert read_until(first, b"hello\n")
        assert refused_of([server.connect() for _ in range(100)]) >= 40
    server.wait_until_served()


HERD = r"""
import socket, sys
port, count, data = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
clients = []
for _ in range(count):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(data)
    clients.append(client)
print("up", flush=True)
sys.stdin.read()
"""


def test_ten_thousand_half_open_connections_leave_others_served(serve):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12000:
        pytest.skip("RLIMIT_NOFILE %d is too low" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = serve()
    herds = [subprocess.Popen([sys.executable, "-c", HERD, str(server.port), "5000", data], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) for data in ("GET /slow HT", "PUT / HTTP/1.1\r\nHost")]
    try:
        for herd in herds:
            assert herd.stdout.readline() == b"up\n"
        server.wait_for(conns=10001)
        times = []
        for _ in range(200):
            began = time.monotonic()
            assert no_date(server.ask(GET, shut=True)) == HELLO
            times.append(time.monotonic() - began)
        assert sorted(times)[100] < patience(0.1)
    finally:
        for herd in herds:
            herd.communicate()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.wait_for(conns=1)


# ---- life cycle ---------------------------------------------------------------------------------------------------


def test_unix_socket_is_served_alike(serve, tmp_path):
    server = serve(unix=str(tmp_path / "s"))
    assert no_date(server.ask(GET * 3, shut=True)) == HELLO * 3


def test_drain_closes_idle_answers_busy_and_leaves_streams(serve):
    server = serve()
    idle = server.connect()
    idle.sendall(GET)
    read_until(idle, b"hello\n")
    pending = begin(server, b"/park")
    partial = server.connect()
    partial.sendall(b"GET /unp")
    stream = begin(server)
    read_until(stream, b"\r\n\r\n")
    server.wait_for(parked=1, streams=1, conns=5)
    assert server.do(b"/drain") == b"done\n"
    assert read_all(idle) == b""
    with pytest.raises(ConnectionError):
        server.connect()
    assert server.process.poll() is None
    partial.sendall(b"ark HTTP/1.1\r\n" + HOST + b"\r\n")
    answer = read_all(partial)
    assert answer.endswith(b"done\n") and b"Connection: close\r\n" in answer
    answer = read_all(pending)
    assert answer.endswith(b"unparked\n") and b"Connection: close\r\n" in answer
    assert read_all(stream) == b""  # the server's end: no last chunk
    assert server.process.wait(patience(WAIT_S)) == 0


def test_stop_with_all_kinds_of_connections_open_is_clean(server):
    clients = [server.connect(), begin(server, b"/park"), begin(server), begin(server, b"/big?30000000")]
    partial = server.connect()
    partial.sendall(b"GET /he")
    server.wait_for(parked=1, streams=1, conns=6)
    server.stop()
    for client in clients + [partial]:
        client.close()
