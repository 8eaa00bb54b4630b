"""Many writes in little time, on a busy machine too: one at a time they would wait for a turn of each daemon each."""

import contextlib

from harness.keys import Keys
from harness.wire import FORM, Connection, form, render_request


def send_all(connections, requests, good):
    """Sends the requests, each connection its share of them, pipelined, and judges each answer by its status."""
    shares = [requests[i::len(connections)] for i in range(len(connections))]
    for connection, share in zip(connections, shares):
        connection.send(b"".join(share))
    for connection, share in zip(connections, shares):
        for _ in share:
            answer = connection.read_response()
            assert answer.status in good, answer


def put_all(server, values):
    """Puts {key: value}, in no order."""
    requests = [render_request("PUT", "/v2/keys" + key, [FORM], form(value=value)) for key, value in values.items()]
    with contextlib.ExitStack() as stack:
        host = getattr(server, "address", "127.0.0.1")
        connections = [stack.enter_context(Connection(server.port, host, timeout=60)) for _ in range(min(32, len(requests)))]
        send_all(connections, requests, (200, 201))


class Flood:
    """Writes as fast as one process can: pipelined, over some connections (of each only one is under way), key after key.
    Each answer is judged."""

    CONNECTIONS, DEPTH = 32, 12

    def __init__(self, server, key_count, value_bytes, folder="/d"):
        self.key_count, self.value_bytes, self.folder, self.written = key_count, value_bytes, folder, 0
        self._connections = [Connection(server.port, timeout=60) for _ in range(self.CONNECTIONS)]

    def value(self, number):
        """What write `number` leaves: none like another."""
        return ("%d." % number).ljust(self.value_bytes, "v")

    def write(self, count):
        self._send(count, "noValueOnSuccess=true", (200, 201))

    def write_in_vain(self, count):
        """Writes that a condition refuses: they are in the log, and leave nothing in the state, not even history."""
        self._send(count, "prevValue=none", (404, 412))

    def _send(self, count, query, good):
        end = self.written + count
        while self.written < end:
            numbers = range(self.written, min(self.written + self.DEPTH * self.CONNECTIONS, end))
            self.written += len(numbers)
            send_all(self._connections, [
                render_request("PUT", "/v2/keys%s/k%d?%s" % (self.folder, n % self.key_count, query), [FORM],
                               b"value=" + self.value(n).encode()) for n in numbers], good)

    def wrong(self, server):
        """Keys that do not hold one of the last writes of theirs: writes of different connections may pass each other."""
        found = {node["key"]: node["value"] for node in Keys(server.port, 60).get(self.folder).json["node"]["nodes"]}
        window = self.CONNECTIONS * self.DEPTH
        wrong = []
        for key in range(min(self.key_count, self.written)):
            number = int(found.get("%s/k%d" % (self.folder, key), "-1.").split(".")[0])
            if number % self.key_count != key or number + self.key_count + window < self.written:
                wrong.append((key, number))
        return wrong

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for connection in self._connections:
            connection.close()
