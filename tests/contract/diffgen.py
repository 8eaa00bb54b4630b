"""Random steps for the differential test, from a seed.

A step is a plain tuple, so a run can be printed and played again:

    ("req", method, target, headers, body, options)  options: version, chunked, key, refresh
    ("pipe", [req, ...])                             sent in one piece, answered in order
    ("watch", id, target, {key, recursive, stream, index})
    ("unwatch", id), ("halfclose", id), ("settle",)

Requests may hold marks, replaced when the step is played, so that a replay with fewer steps still means something:
{{I+n}} is the store's index then, plus n; {{M:key}} the modifiedIndex that the last write to key answered.
The generator knows nothing of the servers' state; its keys are few, so that requests meet one another.
"""

import random

FOLDERS = ["a", "b", "c", "d"]
FILES = ["f", "g", "h", "i", "j", "k"]
ODD = [
    "_h", "_x", "...", "x y", "100%", "a+b", "é", "日本", "😀", "<&>", 'q"q', "back\\slash", "a;b", "a?b", "a#b", "=&=",
    "\u2028", "\u2029", "tab\there", "nl\nl", "\x7f", "\x01", "\x00", "~!*'()", ",:@$", "[]{}|^`", "A", "aa", "a-b",
    "00000000000000000006", "0", "%41", "v2",
]
BYTES = [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"ok\xfeok"]
TRUE = [b"true", b"1", b"t", b"T", b"TRUE", b"True"]
FALSE = [b"false", b"0", b"f", b"F", b"FALSE", b"False"]
BAD_BOOL = [b"", b"yes", b"tRue", b"2", b"+true", b"on", b"true+", b"%74rue%00"]
BAD_UINT = [b"abc", b"-1", b"+1", b"%2B1", b"0x10", b"1_0", b"1.0", b"18446744073709551616", b"1+", b"%20", b"1e3"]
BOOLS = [b"recursive", b"sorted", b"wait", b"dir", b"quorum", b"stream", b"noValueOnSuccess", b"prevExist", b"refresh"]
BAD_ESCAPES = [b"%zz", b"%4", b"%", b"%g1", b"a%2"]
UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
OTHER_PATHS = [
    b"/", b"/v2", b"/v2/", b"/v2/keysfoo", b"/v2/leader", b"/v2/stats", b"/v2/stats/", b"/v2/machines", b"/v2/machines/",
    b"/version", b"/version/", b"/health", b"/v1/keys/a", b"/nope", b"/v2/stats/self", b"/v2/stats/store",
    b"/v2/stats/leader", b"/v2/members", b"/v2/members/", b"/v2/members/leader", b"/v2/members/zzz", b"/v2/config",
    b"/v2/admin", b"/stats", b"/v2/members/leader/", b"/v2/keys%2Fa", b"/%76%32/keys/a", b"/favicon.ico",
]
FORM_TYPES = [
    b"application/x-www-form-urlencoded", b"application/x-www-form-urlencoded", b"application/x-www-form-urlencoded",
    b"Application/X-WWW-Form-Urlencoded", b"application/x-www-form-urlencoded; charset=utf-8",
    b"application/x-www-form-urlencoded;charset=\"x\"; a=b",
]
OTHER_TYPES = [
    None, b"", b"text/plain", b"application/json", b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded2",
    b"application/x-www-form-urlencoded; charset", b"/bad", b";", b"application", b"text/plain; =",
    b"application/x-www-form-urlencoded; a=b; a=b", b"application/x-www-form-urlencoded;", b"a/b/c",
]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.watch_count = 0
        self.live = []
        self.recent = []

    # Pieces.

    def segment(self, last):
        roll = self.random.random()
        if roll < 0.78:
            return self.random.choice(FILES if last and roll < 0.55 else FOLDERS).encode()
        if roll < 0.94:
            return self.random.choice(ODD).encode("utf-8")
        if roll < 0.97:
            return self.random.choice(BYTES)
        return b"k" * self.random.choice([1, 64, 240, 260, 496, 600])

    def key(self):
        if self.recent and self.random.random() < 0.25:
            return self.random.choice(self.recent)
        depth = self.random.choices([0, 1, 2, 3, 4], [2, 40, 38, 16, 4])[0]
        return tuple(self.segment(last=at == depth - 1) for at in range(depth))

    def encode_segment(self, segment):
        out = bytearray()
        for byte in segment:
            raw_ok = byte in UNRESERVED or (byte in b"!$&'()*+,;=:@[]{}|^`\"<>\\" and self.random.random() < 0.5) or (
                byte >= 0x80 and self.random.random() < 0.3)
            if raw_ok and self.random.random() < 0.97:
                out.append(byte)
            else:
                out += (b"%%%02X" if self.random.random() < 0.8 else b"%%%02x") % byte
        return bytes(out)

    def target(self, key):
        path = b"/v2/keys" + b"".join(b"/" + self.encode_segment(s) for s in key)
        if self.random.random() < 0.06:
            path += b"/"
        return path

    def encode_value(self, value):
        out = bytearray()
        for byte in value:
            if byte == 0x20 and self.random.random() < 0.6:
                out += b"+"
            elif byte in UNRESERVED or (byte in b"/:@,!*" and self.random.random() < 0.5):
                out.append(byte)
            else:
                out += b"%%%02X" % byte
        return bytes(out)

    def value(self, short=0.5):
        roll = self.random.random()
        if roll < short:
            return self.random.choice([b"1", b"2", b"x", b"y", b"", b"true"])
        if roll < 0.7:
            return b" ".join(self.random.choice(ODD).encode("utf-8") for _ in range(self.random.randrange(1, 5)))
        if roll < 0.8:
            return bytes(self.random.randrange(256) for _ in range(self.random.randrange(1, 40)))
        if roll < 0.97:
            return b"v" * self.random.choice([10, 100, 256, 300])
        return b"L" * self.random.choice([1900, 1950, 2000, 2048, 2100, 5000, 70000])

    def boolean(self):
        roll = self.random.random()
        if roll < 0.07:
            return self.random.choice(BAD_BOOL)
        return self.random.choice(TRUE if roll < 0.6 else FALSE)

    def number(self, good):
        if self.random.random() < 0.08:
            return self.random.choice(BAD_UINT)
        return good

    def prev_index(self, key):
        mark = b"/".join(key)
        choices = [b"{{M:%s}}" % mark] * 5 + [b"{{I+0}}", b"{{I-1}}", b"0", b"1", b"007", b"18446744073709551615"]
        return self.number(self.random.choice(choices))

    def ttl(self, plain_set):
        choices = [b"", b"3600", b"5000", b"86400", b"0003600", b"1000000"]
        if plain_set:  # Beyond what a time holds: permanent. Elsewhere the reference's arithmetic wraps (D7).
            choices += [b"9223372037", b"9300000000"]
        return self.number(self.random.choice(choices))

    # Requests.

    def write_parameters(self, method, key):
        """The parameters of a PUT, POST or DELETE, each a pair of already encoded bytes."""
        pairs, chance = [], self.random.random
        if method != b"DELETE" and chance() < 0.85:
            pairs.append((b"value", self.encode_value(self.value())))
        if chance() < 0.12:
            pairs.append((b"prevValue", self.encode_value(self.value(short=0.9)[:300])))
        if chance() < 0.16:
            pairs.append((b"prevIndex", self.prev_index(key)))
        if chance() < 0.22:
            pairs.append((b"prevExist", self.boolean()))
        if chance() < (0.4 if method == b"DELETE" else 0.16):
            pairs.append((b"dir", self.boolean()))
        if chance() < (0.35 if method == b"DELETE" else 0.03):
            pairs.append((b"recursive", self.boolean()))
        if chance() < 0.13:
            pairs.append((b"ttl", self.ttl(not any(name.startswith(b"prev") for name, _ in pairs))))
        if chance() < 0.06:
            pairs.append((b"noValueOnSuccess", self.boolean()))
        if chance() < 0.07:
            pairs.append((b"refresh", self.boolean()))
            if chance() < 0.8:
                pairs.append((b"ttl", b"4000"))
            if chance() < 0.7:
                pairs = [p for p in pairs if p[0] != b"value"]
        if chance() < 0.02:
            pairs.append((b"wait", self.boolean()))
        if chance() < 0.06:
            pairs.append(self.noise())
        if chance() < 0.06:
            self.random.shuffle(pairs)
        if chance() < 0.04 and pairs:
            name = self.random.choice(pairs)[0]
            pairs.append((name, b"7200" if name == b"ttl" else self.random.choice([b"1", b"false", b"zz", b""])))
        return pairs

    def compare_parameters(self, method, key):
        """A compareAndSwap or compareAndDelete with a fair chance."""
        pairs = [(b"value", self.encode_value(self.value(short=0.9)))] if method == b"PUT" else []
        which = self.random.random()
        if which < 0.7:
            pairs.append((b"prevIndex", self.prev_index(key)))
        if which > 0.5:
            pairs.append((b"prevValue", self.random.choice([b"1", b"2", b"x", b"y", b"true"])))
        if self.random.random() < 0.2:
            pairs.append((b"ttl", b"3600"))
        if self.random.random() < 0.2:
            pairs.append((b"prevExist", b"true"))
        return pairs

    def noise(self):
        return self.random.choice([
            (b"unknown", b"1"), (b"Value", b"x"), (b"", b""), (b"sorted", self.boolean()), (b"quorum", self.boolean()),
            (b"stream", self.boolean()), (b"waitIndex", self.number(b"3")), (b"%76alue", b"encoded"), (b"a%20b", b"c"),
            (b"recursive%00", b"1"),
        ])

    def join(self, pairs):
        parts = []
        for name, value in pairs:
            parts.append(name if value == b"" and self.random.random() < 0.4 else name + b"=" + value)
            if self.random.random() < 0.01:
                parts.append(self.random.choice([b"", b"=", b"&"]))
        text = b"&".join(parts)
        if self.random.random() < 0.008:
            text += self.random.choice([b"&x=" + self.random.choice(BAD_ESCAPES), b";", b"&a;b", self.random.choice(BAD_ESCAPES)])
        return text

    def write(self):
        method = self.random.choices([b"PUT", b"POST", b"DELETE"], [66, 12, 22])[0]
        if self.recent and self.random.random() < 0.12:
            key, method = self.random.choice(self.recent[:4]), self.random.choice([b"PUT", b"PUT", b"DELETE"])
            pairs = self.compare_parameters(method, key)
        else:
            key = self.key()
            pairs = self.write_parameters(method, key)
        self.recent = [key] + self.recent[:11]
        in_query = [p for p in pairs if method == b"DELETE" or p[0] != b"value" and self.random.random() < 0.35
                    or self.random.random() < 0.03 and len(p[1]) < 1000]  # Long request lines: D5.
        in_body = [p for p in pairs if p not in in_query]
        headers, body, options = [], None, {"key": key}
        if method != b"DELETE" or self.random.random() < 0.1:
            body = self.join(in_body)
            if method == b"DELETE":
                body = self.join([(b"prevValue", b"nonsense")])
            if self.random.random() < 0.93:
                headers.append((b"Content-Type", self.random.choice(FORM_TYPES)))
            else:
                kind = self.random.choice(OTHER_TYPES)
                if kind is not None:
                    headers.append((b"Content-Type", kind))
            if self.random.random() < 0.06:
                options["chunked"] = self.random.choice([1, 7, 100, 4096])
            if self.random.random() < 0.02:
                headers.append((b"Expect", b"100-continue"))
        self.odd_headers(headers, options)
        form = body is not None and any(
            v.split(b";")[0].lower() == FORM_TYPES[0] for n, v in headers if n == b"Content-Type")
        words = [v for n, v in (in_body if form and method != b"DELETE" else []) + in_query if n == b"refresh"]
        options["refresh"] = words[:1] != [] and words[0] in TRUE
        target = self.target(key)
        query = self.join(in_query)
        if query or self.random.random() < 0.02:
            target += b"?" + query
        return ("req", method, target, headers, body, options)

    def odd_headers(self, headers, options):
        roll = self.random.random()
        if roll < 0.02:
            headers.append((b"Connection", self.random.choice([b"close", b"Close", b"keep-alive"])))
        elif roll < 0.03 and "chunked" not in options:  # Both together are ambiguous: refused by us.
            options["version"] = b"1.0"
            if self.random.random() < 0.5:
                headers.append((b"Connection", b"keep-alive"))
        elif roll < 0.06:
            headers.append(self.random.choice([
                (b"Origin", b"http://example.com"), (b"Authorization", b"Basic ???"), (b"X-Unknown", b"1"),
                (b"Accept", b"text/html"), (b"Accept-Encoding", b"gzip"), (b"x-etcd-index", b"99"), (b"Cookie", b"a=b"),
                (b"If-Modified-Since", b"Sun, 22 Nov 2026 08:00:00 GMT"), (b"Range", b"bytes=0-3"),
            ]))

    def read(self):
        method = self.random.choices([b"GET", b"HEAD"], [85, 15])[0]
        key, pairs, chance = self.key(), [], self.random.random
        if chance() < 0.3:
            pairs.append((b"recursive", self.boolean()))
        if chance() < 0.35:
            pairs.append((b"sorted", self.boolean()))
        if chance() < 0.12:
            pairs.append((b"quorum", self.boolean()))
            if method == b"GET" and pairs[-1][1] in TRUE and chance() < 0.3:
                pairs.append((b"wait", self.random.choice(TRUE)))
        if method == b"HEAD" and chance() < 0.06:
            pairs.append((b"wait", self.boolean()))
        if chance() < 0.05:
            pairs.append((b"wait", self.random.choice(FALSE)))
        if chance() < 0.05:
            pairs.append((self.random.choice([b"ttl", b"prevIndex", b"waitIndex"]), self.number(b"9")))
        if chance() < 0.05:
            pairs.append((self.random.choice([b"prevExist", b"dir", b"stream", b"noValueOnSuccess"]), self.boolean()))
        if chance() < 0.03:
            pairs.append((b"refresh", self.boolean()))
        if chance() < 0.02:
            pairs.append((b"prevValue", self.random.choice([b"", b"x"])))
        target, query = self.target(key), self.join(pairs)
        headers, options, body = [], {"key": key}, None
        if query:
            target += b"?" + query
        if chance() < 0.03:
            body = b"recursive=zzz&wait=true"
            headers.append((b"Content-Type", FORM_TYPES[0]))
        self.odd_headers(headers, options)
        return ("req", method, target, headers, body, options)

    def unclean(self):
        """Targets that are not clean paths, odd methods, other endpoints."""
        roll = self.random.random()
        method = self.random.choice([b"GET", b"GET", b"PUT", b"DELETE", b"POST", b"HEAD", b"OPTIONS", b"PATCH", b"get", b"TRACE"])
        headers, options, body = [], {}, None
        if roll < 0.4:
            path = b"/v2/keys/" + b"/".join(self.encode_segment(s) for s in self.key())
            for _ in range(self.random.randrange(1, 3)):
                parts = path.split(b"/")
                at = self.random.randrange(1, len(parts) + 1)
                parts.insert(at, self.random.choice([b"", b".", b"..", b"%2e", b"%2E%2e", b"%2F", b".%2f..", b"a%2Fb", b""]))
                path = b"/".join(parts)
            query = self.random.choice([b"", b"?", b"?a=%20&b=<>", b"?recursive=true", b"?x;y", b"?%zz"])
            target = path + query
        elif roll < 0.75:
            target = self.random.choice(OTHER_PATHS)
            if self.random.random() < 0.2:
                target += b"?" + self.random.choice([b"x=1", b"wait=true", b"%zz"])
            # Membership and auth are changed by suites of their own.
            if target.split(b"?")[0].startswith(b"/v2/members") and method in (b"PUT", b"POST", b"DELETE"):
                method = b"GET"
        elif roll < 0.82:
            path = b"/v2/keys/" + self.random.choice(BAD_ESCAPES)
            target = path
        elif roll < 0.9:
            target = b"http://example.com" + self.target(self.key())
            method = self.random.choice([b"GET", b"HEAD"])
        else:
            target = self.target(self.key())
            method = self.random.choice([b"OPTIONS", b"PATCH", b"get", b"Put", b"FOO", b"TRACE", b"LOCK"])
        if method == b"GET" and b"wait=true" in target:
            target = target.replace(b"wait=true", b"wait=true&quorum=true")
        if method in (b"PUT", b"POST"):
            headers, body = [(b"Content-Type", FORM_TYPES[0])], b"value=u"
        self.odd_headers(headers, options)
        return ("req", method, target, headers, body, options)

    def watch(self):
        key = self.key()
        wanted = {"key": key, "recursive": self.random.random() < 0.55, "stream": self.random.random() < 0.4}
        wanted["index"] = self.random.choices(
            [None, b"0", b"{{I+1}}", b"{{I+2}}", b"{{I+5}}", b"{{I+0}}", b"{{I-1}}", b"{{I-5}}", b"{{I-30}}", b"{{I-200}}",
             b"{{I-999}}", b"{{I-1000}}", b"{{I-998}}", b"1", b"4"],
            [30, 3, 8, 4, 4, 6, 6, 8, 8, 4, 3, 3, 2, 3, 3])[0]
        pairs = [(b"wait", self.random.choice(TRUE))]
        if wanted["recursive"] or self.random.random() < 0.3:
            pairs.append((b"recursive", self.random.choice(TRUE if wanted["recursive"] else FALSE)))
        if wanted["stream"] or self.random.random() < 0.2:
            pairs.append((b"stream", self.random.choice(TRUE if wanted["stream"] else FALSE)))
        if wanted["index"] is not None:
            pairs.append((b"waitIndex", wanted["index"]))
        if self.random.random() < 0.1:
            pairs.append((self.random.choice([b"sorted", b"dir"]), self.random.choice(TRUE)))
        self.random.shuffle(pairs)
        self.watch_count += 1
        self.live.append(self.watch_count)
        target = self.target(key) + b"?" + b"&".join(n + b"=" + v for n, v in pairs)
        return ("watch", self.watch_count, target, wanted)

    def pipeline(self):
        steps = []
        for _ in range(self.random.randrange(2, 6)):
            while True:
                step = self.random.choices([self.write, self.read], [60, 40])[0]()
                plain = "version" not in step[5] and "chunked" not in step[5] and not any(
                    n in (b"Connection", b"Expect") for n, _ in step[3])
                # What one request answers must not depend on another of the same piece for its marks.
                marks = b"{{" in step[2] or b"{{" in (step[4] or b"")
                if plain and not marks and len(step[4] or b"") < 4000:
                    break
            steps.append(step)
        return ("pipe", steps)

    def steps(self, count):
        out = []
        while len(out) < count:
            kind = self.random.choices(["write", "read", "unclean", "watch", "pipe", "end", "settle"], [50, 25, 8, 7, 3, 3, 2])[0]
            if kind == "write":
                out.append(self.write())
            elif kind == "read":
                out.append(self.read())
            elif kind == "unclean":
                out.append(self.unclean())
            elif kind == "pipe":
                out.append(self.pipeline())
            elif kind == "settle":
                out.append(("settle",))
            elif kind == "watch":
                if len(self.live) >= 24:
                    out.append(("unwatch", self.live.pop(0)))
                out.append(self.watch())
            elif kind == "end" and self.live:
                which = self.live.pop(self.random.randrange(len(self.live)))
                out.append((self.random.choice(["unwatch", "halfclose"]), which))
        out.append(("settle",))
        return out
