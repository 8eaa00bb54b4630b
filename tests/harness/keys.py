"""Short spellings for the v2 keys API, on one kept connection.

Parameters named in query=... go into the URL; all others of put and post into the form.
"""

import json
import urllib.parse

from harness.wire import FORM, Connection


class Keys:
    def __init__(self, port, timeout=15.0):
        self.port, self.timeout = port, timeout
        self._connection = None

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method, target, headers=(), body=None):
        """A request on the kept connection; the answer's Connection: close is honoured."""
        if self._connection is None:
            self._connection = Connection(self.port, timeout=self.timeout)
        try:
            answer = self._connection.request(method, target, headers, body)
        except BaseException:
            self.close()
            raise
        if answer.closed or (answer.header("Connection") or "").lower() == "close":
            self.close()
        return answer

    def _target(self, key, query):
        target = "/v2/keys" + urllib.parse.quote(key, safe="/")
        return target + ("?" + query if query else "")

    def get(self, key, query=""):
        return self.call("GET", self._target(key, query))

    def head(self, key, query=""):
        return self.call("HEAD", self._target(key, query))

    def delete(self, key, query=""):
        return self.call("DELETE", self._target(key, query))

    def put(self, key, value=None, query="", **fields):
        return self._form("PUT", key, value, query, fields)

    def post(self, key, value=None, query="", **fields):
        return self._form("POST", key, value, query, fields)

    def _form(self, method, key, value, query, fields):
        pairs = list(fields.items())
        if value is not None:
            pairs.insert(0, ("value", value))
        body = urllib.parse.urlencode(pairs).encode("ascii")
        return self.call(method, self._target(key, query), [FORM], body)

    def index(self):
        """The store's index now."""
        return self.get("/").index

    def watch(self, key, query=""):
        """Opens a watch on a connection of its own, its head read: what follows are chunks."""
        return Watch(self.port, self._target(key, "wait=true" + ("&" + query if query else "")), self.timeout)


class Watch:
    """A watch in progress. head is its answer's head, or the whole answer when it was refused."""

    def __init__(self, port, target, timeout=15.0):
        self.connection = Connection(port, timeout=timeout)
        self.connection.send_request("GET", target)
        self.head = self.connection.read_head()
        if self.head.header("Content-Length") is not None:
            self.head.body = self.connection.read_exactly(int(self.head.header("Content-Length")))

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def event_bytes(self):
        return self.connection.read_chunk()

    def event(self):
        data = self.connection.read_chunk()
        return json.loads(data) if data else None

    def silent(self, seconds=0.15):
        return self.connection.quiet(seconds)
