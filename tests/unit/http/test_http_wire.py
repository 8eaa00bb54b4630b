"""The HTTP server on real sockets, driven through echo_server (HTTP_ECHO_SERVER names the executable)."""

import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
HOST = b"Host: x\r\n"
GET = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"
TEXT = b"Content-Type: text/plain\r\n"
HELLO = b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nContent-Length: 6\r\n\r\nhello\n"
BAD = (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
       b"400 Bad Request")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT_S = 30


class Server:
    def __init__(self, **limits):
        args = ["%s=%s" % item for item in limits.items()]
        self.process = subprocess.Popen([os.environ["HTTP_ECHO_SERVER"]] + args, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.unix = limits.get("unix")
        self.polls = 0

    def connect(self, receive_bytes=None):
        if self.unix:
            client = socket.socket(socket.AF_UNIX)
        else:
            client = socket.socket()
        client.settimeout(WAIT_S)
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.connect(self.unix or ("127.0.0.1", self.port))
        return client

    def ask(self, data, shut=False):
        """All that comes back until the server closes (it is asked to by a close of ours where shut is set)."""
        with self.connect() as client:
            client.sendall(data)
            if shut:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def do(self, target):
        """One request by a connection of its own; its body."""
        return self.ask(b"GET " + target + b" HTTP/1.0\r\n\r\n").split(b"\r\n\r\n", 1)[1]

    def stats(self):
        self.polls += 1
        return {k.decode(): int(v) for k, v in (pair.split(b"=") for pair in self.do(b"/stats").split())}

    def wait_for(self, **wanted):
        deadline = time.monotonic() + WAIT_S
        while True:
            stats = self.stats()
            if all(stats[key] == value for key, value in wanted.items()):
                return stats
            assert time.monotonic() < deadline, (stats, wanted)

    def wait_until_served(self):
        deadline = time.monotonic() + WAIT_S
        while no_date(self.ask(GET, shut=True)) != HELLO:
            assert time.monotonic() < deadline

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, errors.decode()
        assert errors == b""


@pytest.fixture
def serve():
    servers = []

    def start(**limits):
        servers.append(Server(**limits))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
        else:
            assert server.process.returncode == 0, server.process.communicate()[1].decode()


@pytest.fixture
def server(serve):
    return serve()


def read_all(client):
    data = b""
    while True:
        try:
            piece = client.recv(1 << 20)
        except ConnectionResetError:
            return data + b"<RESET>"
        if not piece:
            return data
        data += piece


def read_until(client, end):
    data = b""
    while not data.endswith(end):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def no_date(data):
    return DATE.sub(b"Date: \r\n", data)


def describe(server, head, body=b"", shut=True):
    answer = server.ask(head + HOST + b"\r\n" + body, shut)
    return answer.split(b"\r\n\r\n", 1)[1].decode("latin1").splitlines()


# ---- framing of answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_head, answer", [
    (b"GET /hello HTTP/1.1\r\nHost: x\r\n", HELLO),
    (b"GET /turn HTTP/1.1\r\nHost: x\r\n", HELLO),
    (b"HEAD /hello HTTP/1.1\r\nHost: x\r\n", HELLO[:-6]),
    (b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
     HELLO.replace(b"6\r\n", b"6\r\nConnection: close\r\n")),
    (b"GET /hello HTTP/1.0\r\n", HELLO.replace(b"1.1", b"1.0")),
    (b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n",
     HELLO.replace(b"1.1", b"1.0").replace(b"6\r\n", b"6\r\nConnection: keep-alive\r\n")),
    (b"GET /json?2048 HTTP/1.1\r\nHost: x\r\n",
     b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nContent-Length: 2048\r\n\r\n" + b"x" * 2048),
    (b"GET /json?2049 HTTP/1.1\r\nHost: x\r\n", STREAM_HEAD + b"801\r\n" + b"x" * 2049 + b"\r\n0\r\n\r\n"),
    (b"GET /json?2049 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
     STREAM_HEAD.replace(b"Transfer", b"Connection: close\r\nTransfer") + b"801\r\n" + b"x" * 2049 +
     b"\r\n0\r\n\r\n"),
    (b"HEAD /json?2049 HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\n\r\n"),
    (b"GET /json?2049 HTTP/1.0\r\nConnection: keep-alive\r\n",
     b"HTTP/1.0 200 OK\r\n" + TEXT + b"Date: \r\n\r\n" + b"x" * 2049),
    (b"GET /json?100000 HTTP/1.1\r\nHost: x\r\n", STREAM_HEAD + b"186a0\r\n" + b"x" * 100000 + b"\r\n0\r\n\r\n"),
    (b"GET /late HTTP/1.1\r\nHost: x\r\n",
     b"HTTP/1.1 200 OK\r\nA: b\r\nDate: \r\nContent-Length: 5\r\n" + TEXT + b"\r\nlate\n"),
    (b"GET /close HTTP/1.1\r\nHost: x\r\n",
     b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nContent-Length: 4\r\nConnection: close\r\n\r\nbye\n"),
    (b"GET /connclose HTTP/1.1\r\nHost: x\r\n",
     b"HTTP/1.1 400 Bad Request\r\nA: b\r\nConnection: close\r\nZ: z\r\nDate: \r\nContent-Length: 0\r\n\r\n"),
    (b"GET /refuse HTTP/1.1\r\nHost: x\r\n", BAD),
    (b"GET /empty HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 204 No Content\r\nDate: \r\n\r\n"),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: \r\n\r\n"),
])
def test_answers_have_gos_bytes(server, request_head, answer):
    assert no_date(server.ask(request_head + b"\r\n", shut=True)) == answer


@pytest.mark.parametrize("request_head, is_kept", [
    (b"GET /hello HTTP/1.1\r\nHost: x\r\n", True),
    (b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", False),
    (b"GET /hello HTTP/1.0\r\n", False),
    (b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    (b"GET /json?9999 HTTP/1.0\r\nConnection: keep-alive\r\n", False),
    (b"GET /close HTTP/1.1\r\nHost: x\r\n", False),
])
def test_connection_is_kept_where_the_client_may_expect_it(server, request_head, is_kept):
    answer = server.ask((request_head + b"\r\n") * 2 + GET.replace(b"x\r\n", b"x\r\nConnection: close\r\n"))
    assert len(re.findall(rb"HTTP/1\.[01] 200 OK", answer)) == (3 if is_kept else 1)
    assert not answer.endswith(b"<RESET>")


# ---- requests as the handler sees them ----------------------------------------------------------------------------


def test_handler_sees_the_parts_of_the_request(server):
    lines = describe(server, b"PUT /a%20b?c=d?e HTTP/1.1\r\nX-THING:  1 2 \r\nContent-Length: 3\r\n", b"abc")
    assert lines == ["method=2 PUT", "target=/a%20b?c=d?e", "path=/a%20b", "query=c=d?e", "host=x",
                     "body=3 too_large=0 minor=1 keep_alive=1", "thing=1 2"]
    lines = describe(server, b"get /x? HTTP/1.1\r\nConnection: close\r\n")
    assert lines == ["method=7 get", "target=/x?", "path=/x", "query=", "host=x",
                     "body=0 too_large=0 minor=1 keep_alive=0", "thing=NONE"]


@pytest.mark.parametrize("target, path, query, host", [
    (b"http://y:1/v2/k?a=b", "/v2/k", "a=b", "y:1"),
    (b"http://u:p@y/v2", "/v2", "NONE", "y"),
    (b"http://y", "", "NONE", "y"),
    (b"http://y?z", "", "z", "y"),
    (b"//y/v2", "//y/v2", "NONE", "x"),
    (b"/v2/http://y?a", "/v2/http://y", "a", "x"),
    (b"*", "*", "NONE", "x"),
])
def test_absolute_targets_are_cut(server, target, path, query, host):
    lines = describe(server, b"GET " + target + b" HTTP/1.1\r\n")
    assert lines[2:5] == ["path=" + path, "query=" + query, "host=" + host]


REQUESTS = [
    b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PUT /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde",
    b"PUT /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: t\r\n\r\n",
    b"HEAD /json?5000 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /json?5000 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /turn HTTP/1.1\r\n" + HOST + b"\r\n",
]


def test_requests_mean_the_same_byte_by_byte_and_pipelined(server):
    one_by_one = b"".join(no_date(server.ask(request, shut=True)) for request in REQUESTS)
    stream = b"".join(REQUESTS)
    assert no_date(server.ask(stream, shut=True)) == one_by_one
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = server.stats()["requests"]
        for i in range(len(stream)):
            client.sendall(stream[i:i + 1])
        client.shutdown(socket.SHUT_WR)
        assert no_date(read_all(client)) == one_by_one
        assert server.stats()["requests"] - before >= len(REQUESTS)


def test_thousands_of_pipelined_requests_are_answered_in_order(server):
    targets = [b"/push?%d" % i if i % 3 else b"/turn" for i in range(5000)]
    stream = b"".join(b"GET " + t + b" HTTP/1.1\r\n" + HOST + b"\r\n" for t in targets)
    with server.connect() as client:
        sender = threading.Thread(target=lambda: (client.sendall(stream), client.shutdown(socket.SHUT_WR)))
        sender.start()
        answer = read_all(client)
        sender.join()
    bodies = re.findall(rb"\r\n\r\n(done|hello)\n", answer)
    assert bodies == [b"done" if t.startswith(b"/push") else b"hello" for t in targets]


def test_body_of_the_limit_is_taken_and_one_byte_more_is_told(serve):
    server = serve(body_bytes_max=100000)
    for extra in (0, 1):
        for framing in ("length", "chunked"):
            body = b"b" * (100000 + extra)
            if framing == "length":
                head = b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n" % len(body)
            else:
                head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
                body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
            line = describe(server, head, body)[5]
            assert line.startswith("body=0 too_large=1" if extra else "body=100000 too_large=0"), line


def test_far_too_large_body_is_read_away_and_the_connection_closed(serve):
    server = serve(body_bytes_max=1000)
    head = b"PUT / HTTP/1.1\r\nContent-Length: 30000000\r\n" + HOST + b"\r\n"
    answer = server.ask(head + b"b" * 30000000)
    assert b"Connection: close\r\n" in answer and b"too_large=1" in answer and b"<RESET>" not in answer


def test_ten_megabytes_come_back_whole(server):
    body = os.urandom(10 << 20)
    with server.connect() as client:
        head = b"PUT /echo HTTP/1.1\r\nContent-Length: %d\r\n" % len(body) + HOST + b"\r\n"
        sender = threading.Thread(target=lambda: (client.sendall(head + body), client.shutdown(socket.SHUT_WR)))
        sender.start()
        answer = read_all(client)
        sender.join()
    assert answer.split(b"\r\n\r\n", 1)[1] == body


def test_continue_is_sent_before_the_body_comes(server):
    with server.connect() as client:
        client.sendall(b"PUT /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + HOST + b"\r\n")
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert read_until(client, b"\r\n\r\nab").startswith(b"HTTP/1.1 200 OK\r\n")
    answer = server.ask(b"GET / HTTP/1.1\r\nExpect: wonders\r\n" + HOST + b"\r\n")
    assert no_date(answer) == b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nDate: \r\nContent-Length: 0\r\n\r\n"


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x00\xa5",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
])
def test_ambiguity_is_refused_and_what_follows_never_served(server, data):
    before = server.stats()["requests"]
    assert server.ask(data + GET * 3) == BAD
    assert server.stats()["requests"] == before + 1  # the one for the statistics


def test_header_block_over_the_limit_is_told_431_although_it_still_comes(server):
    answer = server.ask(b"GET /hello HTTP/1.1\r\n" + HOST + b"X: " + b"a" * (3 << 20) + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert answer.endswith(b"\r\n\r\n431 Request Header Fields Too Large")
    answer = server.ask(b"GET /hello?" + b"a" * (1 << 20) + b" HTTP/1.1\r\n" + HOST + b"\r\n", shut=True)
    assert no_date(answer) == HELLO


def test_http2_is_told_which_api_is_served(server):
    answer = server.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\2\1\5\0\0\0\1\x82\x84")
    assert b"Set ETCDCTL_API=2" in answer
    answer = server.ask(GET.replace(HOST, HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), shut=True)
    assert no_date(answer) == HELLO


# ---- streams and clients that leave ---------------------------------------------------------------------------------


def begin(server, target=b"/stream", extra=b"", version=b"1.1"):
    client = server.connect()
    client.sendall(b"GET " + target + b" HTTP/" + version + b"\r\n" + HOST + extra + b"\r\n")
    return client


def test_stream_sends_its_head_at_once_then_chunks_then_lives_on(server):
    with begin(server) as client:
        assert no_date(read_until(client, b"\r\n\r\n")) == STREAM_HEAD
        server.do(b"/push?event")
        assert read_until(client, b"event\r\n") == b"5\r\nevent\r\n"
        client.sendall(GET)  # pipelined behind the stream
        server.do(b"/push?x")
        assert read_until(client, b"x\r\n") == b"1\r\nx\r\n"
        server.do(b"/end")
        assert no_date(read_until(client, b"hello\n")) == b"0\r\n\r\n" + HELLO


def test_stream_to_http_1_0_ends_with_the_connection(server):
    with begin(server, version=b"1.0") as client:
        read_until(client, b"\r\n\r\n")
        server.do(b"/push?event")
        server.do(b"/end")
        assert read_all(client) == b"event"


def test_aborted_stream_has_no_last_chunk(server):
    with begin(server) as client:
        read_until(client, b"\r\n\r\n")
        server.do(b"/push?x")
        server.do(b"/abort")
        assert read_all(client) == b"1\r\nx\r\n"


def test_half_close_ends_a_stream_in_good_order(server):
    with begin(server) as client:
        read_until(client, b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"0\r\n\r\n"
    assert server.wait_for(streams=0, conns=1)["cancels"] == 1


def test_half_close_before_the_stream_begins_ends_it_too(server):
    with begin(server, b"/parkstream") as client:
        server.wait_for(parked=1)
        client.shutdown(socket.SHUT_WR)
        server.do(b"/unpark")
        assert no_date(read_all(client)) == STREAM_HEAD + b"0\r\n\r\n"
    assert server.wait_for(streams=0)["cancels"] == 1


def test_half_close_answers_what_was_pipelined_behind_the_stream(server):
    with begin(server) as client:
        client.sendall(GET * 2)
        client.shutdown(socket.SHUT_WR)
        assert no_date(read_all(client)) == STREAM_HEAD + b"0\r\n\r\n" + HELLO * 2


def test_half_close_behind_more_than_the_buffer_holds_is_noticed(server):
    many = 3000
    with begin(server) as client:
        read_until(client, b"\r\n\r\n")
        client.sendall(GET * many)
        client.shutdown(socket.SHUT_WR)
        assert no_date(read_all(client)) == b"0\r\n\r\n" + HELLO * many


def test_half_closed_client_still_gets_a_pending_answer(server):
    with begin(server, b"/park") as client:
        client.shutdown(socket.SHUT_WR)
        server.wait_for(parked=1)
        server.do(b"/unpark")
        assert read_all(client).endswith(b"unparked\n")
    assert server.wait_for(conns=1)["cancels"] == 0


@pytest.mark.parametrize("data, answer", [
    (b"", b""),
    (b"GET /he", b""),
    (b"GET /hello HTTP/1.1\r\nHo", BAD),
    (b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", BAD),
])
def test_half_close_within_a_request_closes(server, data, answer):
    assert server.ask(data, shut=True) == answer


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("data, cancels", [
    (b"", 0),
    (b"GET /he", 0),
    (b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\na", 0),
    (b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", 1),
    (b"GET /park HTTP/1.1\r\nHost: x\r\n\r\n", 1),
    (b"GET /park HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 2000, 1),
    (b"GET /big?50000000 HTTP/1.1\r\nHost: x\r\n\r\n", 0),
    (GET * 500, 0),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
])
def test_reset_at_any_time_frees_the_connection(server, data, cancels):
    clients = [server.connect() for _ in range(20)]
    for client in clients:
        client.sendall(data)
    if b"/stream" in data:
        server.wait_for(streams=20)
    if b"/park" in data:
        server.wait_for(parked=20)
    for client in clients:
        reset(client)
    stats = server.wait_for(conns=1, streams=0, parked=0)
    assert stats["cancels"] == 20 * cancels


def test_reset_after_a_half_close_is_harmless(server):
    client = begin(server, b"/park")
    client.shutdown(socket.SHUT_WR)
    server.wait_for(parked=1)
    reset(client)
    server.do(b"/unpark")
    server.wait_for(conns=1)
    assert server.do(b"/hello") == b"hello\n"


# ---- limits and slow clients ----------------------------------------------------------------------------------------


def test_unread_output_over_the_limit_ends_the_stream(serve):
    server = serve(output_bytes_max=1 << 20)
    with begin(server) as reader, begin(server) as sleeper:
        drain = threading.Thread(target=lambda: read_until(reader, b"0\r\n\r\n"))
        drain.start()
        read_until(sleeper, b"\r\n\r\n")
        server.wait_for(streams=2)
        for _ in range(100):
            server.do(b"/flood?500000")
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
    server = serve(write_timeout_ms=2000)
    with server.connect(receive_bytes=4096) as client:
        client.sendall(b"GET /big?3000000 HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
        data = b""
        while not data.endswith(b"hello\n"):
            piece = client.recv(50000)
            assert piece, len(data)
            data += piece
        assert data.count(b"x") >= 3000000


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
        slow.sendall(data)
        began = time.monotonic()
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
    with server.connect() as idle, begin(server, b"/park") as pending, begin(server) as stream:
        read_until(stream, b"\r\n\r\n")
        idle.sendall(GET)
        read_until(idle, b"hello\n")
        assert read_all(idle) == b""
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


def test_running_out_of_descriptors_refuses_and_recovers(serve):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        server = serve(conn_count_max=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    clients = [server.connect() for _ in range(100)]
    answers = 0
    for client in clients:
        try:
            client.sendall(GET)
            answers += client.recv(1000).startswith(b"HTTP/1.1 503")
        except ConnectionError:
            answers += 1
    assert answers >= 40
    for client in clients:
        client.close()
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
        assert sorted(times)[100] < 0.1
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
    assert server.process.wait(WAIT_S) == 0


def test_stop_with_all_kinds_of_connections_open_is_clean(server):
    clients = [server.connect(), begin(server, b"/park"), begin(server), begin(server, b"/big?30000000")]
    partial = server.connect()
    partial.sendall(b"GET /he")
    server.wait_for(parked=1, streams=1, conns=6)
    server.stop()
    for client in clients + [partial]:
        client.close()
