"""slow_clients.py PORT COUNTS [keep]: connections that never come to an end, in a process of their own.

COUNTS says how many of each kind, as JSON. A process of its own is not held up by what else a test does: each client says a byte more
every few seconds, and who is ended is seen at once, and with `keep` comes again. To a line on its standard input it answers
with one of JSON: {kind: {...}}, see Tally. It ends with its input.
"""

import collections
import contextlib
import itertools
import json
import os
import resource
import selectors
import socket
import sys
import time

PUT = b"PUT /v2/keys/slow HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"

# What each says, and of which it goes on to say a byte now and then.
Kind = collections.namedtuple("Kind", "name beginning more")
HARMLESS = [
    Kind("nothing", b"", b""),
    Kind("half a request line", b"GET /v2/ke", b"y"),
    Kind("half a head", b"GET /v2/keys/read HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"x"),
    Kind("half a chunk", PUT + b"Transfer-Encoding: chunked\r\n\r\nffff\r\nvalue=", b"v"),
    Kind("half a small body", PUT + b"Content-Length: 10000\r\n\r\nvalue=", b"v"),
]
# These hold memory: a place for 100,000 bytes, and 4 MB of answers. When memory is short they make way for others.
HOLDING = [
    Kind("half a body", PUT + b"Content-Length: 100000\r\n\r\nvalue=", b"v"),
    Kind("an answer that is not read", b"GET /v2/keys/big HTTP/1.1\r\nHost: a\r\n\r\n" * 20, b""),
]
KINDS = {kind.name: kind for kind in HARMLESS + HOLDING}
DRIP_S = 2.5
UNREAD_S = 8  # So long one that does not read lives: when its answers are in the way their end does not show.
CONNECTING_MAX = 200
RENEWED_AT_ONCE = 10


class Tally:
    """Of one kind: how many are wanted, are open, were ended by the server; of those the youngest, and what some of them were told."""

    def __init__(self):
        self.wanted = self.open = self.ended = self.dripped = 0
        self.youngest_s = None
        self.answers = []

    def note_end(self, age_s, answer):
        self.ended += 1
        self.youngest_s = age_s if self.youngest_s is None else min(age_s, self.youngest_s)
        if len(self.answers) < 5:
            self.answers.append(answer.decode("latin-1")[-100:])


class Client:
    def __init__(self, kind):
        self.kind = kind
        self.socket = None
        self.is_open = False
        self.since = 0
        self.dripped_at = 0


class Clients:
    def __init__(self, port, counts, keep):
        self.port, self.keep = port, keep
        self.selector = selectors.DefaultSelector()
        self.tallies = {kind: Tally() for kind in KINDS}
        self.to_connect = collections.deque()
        self.connecting = 0
        self.dripping = collections.deque()  # In the order in which they are due ...
        self.unread = collections.deque()  # ... likewise.
        for name in itertools.chain.from_iterable(itertools.zip_longest(*[[kind] * count for kind, count in counts.items()])):
            if name is not None:
                self.tallies[name].wanted += 1
                self.to_connect.append(Client(KINDS[name]))

    def connect_some(self):
        while self.to_connect and self.connecting < CONNECTING_MAX:
            client = self.to_connect.popleft()
            client.socket = socket.socket()
            client.socket.setblocking(False)
            if not client.kind.more:  # For those that do not read: the less lies in the kernel.
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.since = time.monotonic()
            client.socket.connect_ex(("127.0.0.1", self.port))
            self.selector.register(client.socket, selectors.EVENT_WRITE, client)
            self.connecting += 1

    def open(self, client):
        """Connected, or not: then the error shows when it begins to speak."""
        self.connecting -= 1
        if client.kind.beginning:
            client.since = time.monotonic()
        try:
            if client.kind.beginning:
                client.socket.send(client.kind.beginning)
            else:
                client.socket.getpeername()
        except OSError as error:
            self.end(client, str(error).encode())
            return
        client.is_open = True
        self.tallies[client.kind.name].open += 1
        if client.kind.name == "an answer that is not read":
            self.selector.unregister(client.socket)
            self.unread.append(client)
        else:
            self.selector.modify(client.socket, selectors.EVENT_READ, client)
        if client.kind.more:
            client.dripped_at = client.since
            self.dripping.append(client)

    def end(self, client, answer):
        self.tallies[client.kind.name].note_end(time.monotonic() - client.since, answer)
        self.close(client)

    def close(self, client):
        self.tallies[client.kind.name].open -= client.is_open
        client.is_open = False
        with contextlib.suppress(KeyError):
            self.selector.unregister(client.socket)
        client.socket.close()
        if self.keep:
            self.to_connect.append(Client(client.kind))

    def read(self, client):
        try:
            answer = client.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            answer = str(error).encode()
        self.end(client, answer)

    def drip(self):
        due = time.monotonic() - DRIP_S
        while self.dripping and (not self.dripping[0].is_open or self.dripping[0].dripped_at <= due):
            client = self.dripping.popleft()
            if client.is_open:
                with contextlib.suppress(OSError):  # Its end is seen by reading.
                    self.tallies[client.kind.name].dripped += client.socket.send(client.kind.more)
                client.dripped_at = time.monotonic()
                self.dripping.append(client)

    def renew_unread(self):
        for _ in range(RENEWED_AT_ONCE):
            if self.keep and self.unread and self.unread[0].since < time.monotonic() - UNREAD_S:
                self.close(self.unread.popleft())

    def run(self):
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, None)
        while True:
            self.connect_some()
            for key, events in self.selector.select(0.05):
                client = key.data
                if client is None:
                    lines = os.read(0, 4096)
                    if not lines:
                        return
                    print(json.dumps({name: vars(tally) for name, tally in self.tallies.items()}), flush=True)
                elif not client.is_open:
                    self.open(client)
                else:
                    self.read(client)
            self.drip()
            self.renew_unread()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Clients(int(sys.argv[1]), json.loads(sys.argv[2]), "keep" in sys.argv[3:]).run()
