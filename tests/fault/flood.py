"""Many writes in little time."""

from harness import Connection, Keys
from harness.wire import FORM, render_request


class Flood:
    """Writes as fast as one process can: pipelined, over some connections, key after key. Each answer is judged."""

    CONNECTIONS, DEPTH = 8, 50

    def __init__(self, server, key_count, value_bytes):
        self.key_count, self.value_bytes, self.written = key_count, value_bytes, 0
        self._connections = [Connection(server.port, timeout=60) for _ in range(self.CONNECTIONS)]

    def value(self, number):
        """What write `number` leaves: none like another."""
        return ("%d." % number).ljust(self.value_bytes, "v")

    def write(self, count):
        end = self.written + count
        while self.written < end:
            asked = []
            for connection in self._connections:
                numbers = range(self.written, min(self.written + self.DEPTH, end))
                connection.send(b"".join(
                    render_request("PUT", "/v2/keys/d/k%d?noValueOnSuccess=true" % (n % self.key_count), [FORM],
                                   b"value=" + self.value(n).encode()) for n in numbers))
                asked.append((connection, len(numbers)))
                self.written += len(numbers)
            for connection, count in asked:
                for _ in range(count):
                    assert connection.read_response().status in (200, 201)

    def wrong(self, server):
        """Keys that do not hold one of the last writes of theirs: writes of different connections may pass each other."""
        found = {node["key"]: node["value"] for node in Keys(server.port, 60).get("/d").json["node"]["nodes"]}
        window = self.CONNECTIONS * self.DEPTH
        wrong = []
        for key in range(min(self.key_count, self.written)):
            number = int(found.get("/d/k%d" % key, "-1.").split(".")[0])
            if number % self.key_count != key or number + self.key_count + window < self.written:
                wrong.append((key, number))
        return wrong

    def close(self):
        for connection in self._connections:
            connection.close()
