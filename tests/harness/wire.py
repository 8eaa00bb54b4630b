"""HTTP/1.1 on a bare socket.

A request is bytes and goes out as given; a response keeps its headers in the order and with the case they came
in, its body decoded, its chunks apart, and the raw bytes. Nothing is repaired: what is not HTTP raises WireError.
"""

import json
import socket
import urllib.parse

from harness.places import HANGS_S

NEWLINE = b"\r\n"


class WireError(Exception):
    """The peer sent something that is not HTTP, or closed in the middle."""


class Response:
    """One response; see Connection.read_response."""

    def __init__(self):
        self.version = b""
        self.status = 0
        self.reason = b""
        self.headers = []
        self.body = b""
        self.chunks = None  # list of chunk payloads when the framing was chunked
        self.closed = False  # the end of the connection ended the body
        self.head = b""

    def header(self, name, default=None):
        """The first header of that name, whatever its case, as text."""
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default

    def names(self):
        return [name for name, _ in self.headers]

    @property
    def json(self):
        return json.loads(self.body.decode("utf-8"))

    @property
    def index(self):
        return int(self.header("X-Etcd-Index"))

    def __repr__(self):
        return "<%d %s %r>" % (self.status, self.headers, self.body[:300])


class Connection:
    """A client connection. timeout is for each wait on the socket, in seconds."""

    def __init__(self, port, host="127.0.0.1", timeout=15.0):
        self.port, self.host, self.timeout = port, host, timeout
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.eof = False

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.sock.fileno()

    # Sending.

    def send(self, data):
        self.sock.sendall(data)

    def send_request(self, method, target, headers=(), body=None, version="1.1", host=True):
        self.send(render_request(method, target, headers, body, version, host))

    def request(self, method, target, headers=(), body=None, version="1.1"):
        self.send_request(method, target, headers, body, version)
        return self.read_response(method)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    # Receiving.

    def _fill(self):
        data = self.sock.recv(65536)
        if not data:
            self.eof = True
            raise WireError("closed by the peer; got %r" % self.buffer[:200])
        self.buffer += data

    def read_until(self, mark):
        while True:
            at = self.buffer.find(mark)
            if at >= 0:
                taken, self.buffer = self.buffer[: at + len(mark)], self.buffer[at + len(mark):]
                return taken
            self._fill()

    def read_exactly(self, count):
        while len(self.buffer) < count:
            self._fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def read_to_end(self):
        while True:
            try:
                self._fill()
            except (WireError, ConnectionResetError):
                taken, self.buffer = self.buffer, b""
                return taken

    def ended(self, timeout=HANGS_S):
        """True when the peer closes within the timeout and sends nothing more."""
        self.sock.settimeout(timeout)
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        finally:
            self.sock.settimeout(self.timeout)

    def quiet(self, seconds):
        """True when nothing arrives for that long (and the connection stays open)."""
        if self.buffer:
            return False
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(65536)
            self.buffer += data
            return False
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(self.timeout)

    def read_head(self):
        """Status line and headers; interim 100 answers are skipped and counted in response.interim."""
        response = Response()
        response.interim = 0
        while True:
            head = self.read_until(b"\r\n\r\n")
            lines = head[:-4].split(NEWLINE)
            parts = lines[0].split(b" ", 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise WireError("not a status line: %r" % lines[0])
            if parts[1] == b"100":
                response.interim += 1
                continue
            break
        response.head = head
        response.version, response.status = parts[0], int(parts[1])
        response.reason = parts[2] if len(parts) > 2 else b""
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise WireError("not a header: %r" % line)
            response.headers.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        return response

    def read_chunk(self):
        """The payload of the next chunk; b"" is the last one."""
        size = int(self.read_until(NEWLINE).split(b";")[0], 16)
        data = self.read_exactly(size)
        if self.read_exactly(2) != NEWLINE:
            raise WireError("a chunk does not end where it says")
        return data

    def read_response(self, method="GET"):
        response = self.read_head()
        if method == "HEAD" or response.status in (204, 304):
            return response
        if (response.header("Transfer-Encoding") or "").lower() == "chunked":
            response.chunks = []
            while True:
                chunk = self.read_chunk()
                if not chunk:
                    break
                response.chunks.append(chunk)
            response.body = b"".join(response.chunks)
        elif response.header("Content-Length") is not None:
            response.body = self.read_exactly(int(response.header("Content-Length")))
        else:
            response.body = self.read_to_end()
            response.closed = True
        return response


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


def render_request(method, target, headers=(), body=None, version="1.1", host=True):
    head = [as_bytes(method) + b" " + as_bytes(target) + b" HTTP/" + as_bytes(version)]
    names = {as_bytes(name).lower() for name, _ in headers}
    if host and b"host" not in names:
        head.append(b"Host: quorate.test")
    head.extend(as_bytes(name) + b": " + as_bytes(value) for name, value in headers)
    if body is not None and b"content-length" not in names and b"transfer-encoding" not in names:
        head.append(b"Content-Length: %d" % len(body))
    return NEWLINE.join(head) + b"\r\n\r\n" + (body or b"")


FORM = ("Content-Type", "application/x-www-form-urlencoded")


def form(**fields):
    """A form body from its fields, in the order given."""
    return urllib.parse.urlencode(fields).encode("ascii")


def chunked(body, size=7):
    """body in the chunked transfer encoding, in pieces of size bytes."""
    out = []
    for at in range(0, len(body), size):
        piece = body[at: at + size]
        out.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    return b"".join(out) + b"0\r\n\r\n"


def exchange(port, method, target, headers=(), body=None, version="1.1", timeout=15.0):
    """One request on a connection of its own."""
    with Connection(port, timeout=timeout) as connection:
        return connection.request(method, target, headers, body, version)
