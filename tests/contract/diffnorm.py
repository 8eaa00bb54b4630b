"""What may differ between the two servers, and nothing else.

    Date, cluster and member ids, X-Raft-Index (checked: never falls), X-Raft-Term
    expiration and ttl (checked: within a second), and a Content-Length that follows from them
    the order of an unsorted listing (D9), counts in /v2/stats/store (D6), times in the other stats
    the ports in URLs
    100 Continue, where only the left one did not ask for a body that it will not read
"""

import calendar
import re
import time

EXPIRATION = re.compile(rb'"expiration":"([^"]*)"(,"ttl":(-?\d+))?')
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d*[1-9])?Z$")
LOCAL_PORT = re.compile(rb"(127\.0\.0\.1|localhost):\d+")


class Differs(Exception):
    pass


def seconds(stamp):
    match = STAMP.match(stamp)
    if not match:
        raise Differs("not a UTC time with a trimmed fraction: %r" % stamp)
    whole = calendar.timegm(time.strptime(match.group(1).decode(), "%Y-%m-%dT%H:%M:%S"))
    return whole + float(match.group(2) or 0)


LATE = re.compile(rb'("expiration":"[^"]*"),"ttl":-\d+')


def without_lateness(body):
    """Of an expiry's event: by how many whole seconds it came late stands in it, where it did."""
    return LATE.sub(rb"\1", body) if body.startswith(b'{"action":"expire"') else body


def take_times(body):
    """The body with its expirations blanked, and what stood there: [(seconds, ttl or None)]."""
    found = []

    def blank(match):
        found.append((seconds(match.group(1)), int(match.group(3)) if match.group(3) else None))
        return b'"expiration":"E","ttl":T' if match.group(2) else b'"expiration":"E"'

    return EXPIRATION.sub(blank, body), found


def same_times(a, b, apart_s=0.0):
    """apart_s: how long after one another the two may have been asked for any of this."""
    if len(a) != len(b):
        raise Differs("%d expirations against %d" % (len(a), len(b)))
    for (at_a, ttl_a), (at_b, ttl_b) in zip(a, b):
        if abs(at_a - at_b) > 1 + apart_s:
            raise Differs("expirations %.3f s apart" % abs(at_a - at_b))
        if (ttl_a is None) != (ttl_b is None) or (ttl_a is not None and abs(ttl_a - ttl_b) > 1 + 2 * apart_s):
            raise Differs("ttl %s against %s" % (ttl_a, ttl_b))


# A listing's order: the text is cut into values whose own text is kept, and only "nodes" arrays are sorted.

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S)


def _value_end(text, at):
    """Where the JSON value that begins at `at` ends."""
    if text[at:at + 1] == b'"':
        return STRING.match(text, at).end()
    if text[at:at + 1] in (b"{", b"["):
        depth = 0
        while True:
            char = text[at:at + 1]
            if char == b'"':
                at = STRING.match(text, at).end()
                continue
            if char in (b"{", b"["):
                depth += 1
            elif char in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return at + 1
            elif char == b"":
                raise Differs("JSON ends early")
            at += 1
    return re.compile(rb"[^,}\]]*").match(text, at).end()


def sort_nodes(text):
    """The JSON text with each "nodes" array in the order of its elements' own text."""
    mark = b'"nodes":['
    out, at = [], 0
    while True:
        found = text.find(mark, at)
        if found < 0:
            out.append(text[at:])
            return b"".join(out)
        # The mark could stand inside a string only with its quotes escaped: then a backslash precedes each.
        out.append(text[at:found + len(mark)])
        at = found + len(mark)
        elements = []
        while text[at:at + 1] != b"]":
            end = _value_end(text, at)
            elements.append(sort_nodes(text[at:end]))
            at = end
            if text[at:at + 1] == b",":
                at += 1
        out.append(b",".join(sorted(elements)))


def normal_body(target, body):
    path = target.split(b"?")[0]
    if path.startswith(b"http://"):
        path = b"/" + path.split(b"/", 3)[-1]
    if path == b"/v2/stats/store":
        return re.sub(rb":\d+", b":N", body)
    if path in (b"/v2/stats/self", b"/v2/stats/leader") or path.startswith((b"/v2/members", b"/v2/machines")):
        body = LOCAL_PORT.sub(b"HOST", body)
        body = re.sub(rb'"(id|leader)":"[0-9a-f]{1,16}"', rb'"\1":"ID"', body)
        body = re.sub(rb'"(startTime)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"', rb'"\1":"T"', body)
        body = re.sub(rb'"uptime":"[0-9hms.\xc2\xb5n]+"', b'"uptime":"D"', body)
        return re.sub(rb'"(send|recv)(Pkg|Bandwidth)Rate":[0-9.e+]+,?', b"", body)
    return body


BODY_LENGTH_FREE = (b"/v2/stats/", b"/v2/members", b"/v2/machines")


class Side:
    """What is remembered of one server: its ids, and how far its raft index got."""

    def __init__(self):
        self.cluster_id = None
        self.raft_index = 0
        self.raft_term = 0

    def header(self, name, value):
        if name == "Date":
            if not re.match(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$", value):
                raise Differs("Date: " + value)
            return "D"
        if name == "X-Etcd-Cluster-Id":
            if self.cluster_id is None:
                if not re.match(r"[1-9a-f][0-9a-f]{0,15}$", value):
                    raise Differs("not a cluster id: " + value)
                self.cluster_id = value
            return "ID" if value == self.cluster_id else "another id: " + value
        if name == "X-Raft-Index":
            if int(value) < self.raft_index:
                raise Differs("X-Raft-Index fell from %d to %s" % (self.raft_index, value))
            self.raft_index = int(value)
            return "R"
        if name == "X-Raft-Term":
            if int(value) < max(1, self.raft_term):
                raise Differs("X-Raft-Term fell to " + value)
            self.raft_term = int(value)
            return "T"
        return value

    def headers(self, response):
        return [(name, self.header(name, value)) for name, value in response.headers]


def compare_heads(side_a, a, side_b, b, loose_length):
    if (a.version, a.status, a.reason) != (b.version, b.status, b.reason):
        raise Differs("status %r against %r" % ((a.version, a.status, a.reason), (b.version, b.status, b.reason)))
    headers_a, headers_b = side_a.headers(a), side_b.headers(b)
    if loose_length:
        headers_a, headers_b = ([h for h in hs if h[0] not in ("Content-Length", "Transfer-Encoding")]
                                for hs in (headers_a, headers_b))
    if headers_a != headers_b:
        raise Differs("headers\n  %s\n  %s" % (headers_a, headers_b))
    # Where the reference says 100 Continue we must; where it does not (it will not read the body) we may.
    if getattr(a, "interim", 0) > getattr(b, "interim", 0):
        raise Differs("%d interim answers against %d" % (a.interim, b.interim))


SORTED = re.compile(rb"[?&]sorted=([^&;]*)")
TRUE_WORDS = (b"1", b"t", b"T", b"true", b"TRUE", b"True")


def is_sorted(target):
    """Whether the request asked for order: the first value of a name counts."""
    match = SORTED.search(target)
    return bool(match) and match.group(1) in TRUE_WORDS


def compare_bodies(a, b, target, apart_s=0.0):
    """Raises Differs; answers whether TTLs stood in the bodies."""
    if a == b:
        return b'"expiration"' in a
    if a.startswith(b'{"action":"get"') and not is_sorted(target):
        a, b = sort_nodes(a), sort_nodes(b)
    a, times_a = take_times(without_lateness(a))
    b, times_b = take_times(without_lateness(b))
    path = target.split(b"?")[0]
    a, b = normal_body(path, a), normal_body(path, b)
    if a != b:
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        raise Differs("bodies, from byte %d\n  %r\n  %r" % (at, a[max(0, at - 300):at + 500], b[max(0, at - 300):at + 500]))
    same_times(times_a, times_b, apart_s)
    return bool(times_a)


def compare_responses(side_a, a, side_b, b, method, target, apart_s=0.0):
    """Raises Differs. For HEAD the caller has to judge a Content-Length that TTLs may change."""
    timed = compare_bodies(a.body, b.body, target, apart_s)
    free = target.split(b"?")[0].startswith(BODY_LENGTH_FREE)
    compare_heads(side_a, a, side_b, b, timed or free or method == b"HEAD")
    for response in (a, b):
        length = response.header("Content-Length")
        if method != b"HEAD" and length is not None and int(length) != len(response.body):
            raise Differs("Content-Length %s for %d bytes" % (length, len(response.body)))
    if timed and abs(len(a.body) - 2048) > 40 and (a.chunks is None) != (b.chunks is None):
        raise Differs("framing: chunked against Content-Length for %d bytes" % len(a.body))
    if a.closed != b.closed:
        raise Differs("end of body: closed %s against %s" % (a.closed, b.closed))
