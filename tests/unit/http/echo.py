"""The HTTP server on real sockets: echo_server (HTTP_ECHO_SERVER names the executable) and how to talk to it."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness.places import patience, poll

DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
HOST = b"Host: x\r\n"
GET = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"
TEXT = b"Content-Type: text/plain\r\n"
HELLO = b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nContent-Length: 6\r\n\r\nhello\n"
BAD = (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
       b"400 Bad Request")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\n" + TEXT + b"Date: \r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT_S = 30  # before something counts as hanging, on a machine of its own


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
        client.settimeout(patience(WAIT_S))
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
        return self.wait_until(lambda stats: all(stats[key] == value for key, value in wanted.items()), wanted)

    def wait_for_hogs(self, count):
        """So many are there, or were: on a slow machine the first are ended for what they hold before the last have come."""
        return self.wait_until(lambda stats: stats["conns"] + stats["cut"] == count + 1, count)  # And who asks.

    def wait_until(self, claim, what):
        began = time.monotonic()
        while True:
            stats = self.stats()
            if claim(stats):
                return stats
            assert time.monotonic() - began < patience(WAIT_S), (stats, what)

    def wait_until_served(self):
        poll(lambda: no_date(self.ask(GET, shut=True)) == HELLO, WAIT_S, "hello")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=patience(WAIT_S))
        assert self.process.returncode == 0, errors.decode()
        assert errors == b""


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


def read_exactly(client, count):
    data = bytearray()
    while len(data) < count:
        piece = client.recv(min(count - len(data), 1 << 20))
        assert piece, len(data)
        data += piece
    return bytes(data)


class Reader(threading.Thread):
    """Reads a stream to its last chunk beside the test, which waits for it now and then: who is late is no reader."""

    def __init__(self, client):
        self.client, self.data = client, bytearray()
        super().__init__(daemon=True)
        self.start()

    def run(self):
        while not self.data.endswith(b"0\r\n\r\n"):
            piece = self.client.recv(1 << 20)
            assert piece, bytes(self.data[-200:])
            self.data += piece

    def wait_for(self, count):
        poll(lambda: len(self.data) >= count or not self.is_alive(), WAIT_S, "%d bytes of a stream" % count, every=0.001)
        assert len(self.data) >= count, "it was ended"

    def join(self):
        super().join(patience(WAIT_S))
        assert not self.is_alive(), "its end is awaited"


def no_date(data):
    return DATE.sub(b"Date: \r\n", data)


def begin(server, target=b"/stream", extra=b"", version=b"1.1"):
    client = server.connect()
    client.sendall(b"GET " + target + b" HTTP/" + version + b"\r\n" + HOST + extra + b"\r\n")
    return client
