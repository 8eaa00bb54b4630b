"""What the HTTP server makes of requests, how it frames its answers, and what it refuses."""

import os
import re
import socket
import threading

import pytest

from echo import BAD, GET, HELLO, HOST, STREAM_HEAD, TEXT, no_date, read_all, read_until


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
