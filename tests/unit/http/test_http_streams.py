"""Streams, and clients that leave in the middle."""

import socket
import struct

import pytest

from echo import BAD, GET, HELLO, STREAM_HEAD, begin, no_date, read_all, read_until


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
