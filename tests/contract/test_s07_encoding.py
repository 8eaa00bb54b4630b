"""Contract, section 7: headers and JSON."""

import urllib.parse

import pytest

from harness import exchange, poll
from harness.wire import FORM
from rows import CORS, JSON, assert_error, rows

# 7.1 Headers.

ORDER_KEYS = [n for n, _ in CORS] + ["Content-Type", "X-Etcd-Cluster-Id", "X-Etcd-Index", "X-Raft-Index", "X-Raft-Term", "Date", "Content-Length"]


def test_7_1_keys_success_headers_and_their_order(keys, root):
    for answer in (keys.put(root + "/k", "v"), keys.get(root + "/k"), keys.get(root + "/k", "quorum=true"), keys.delete(root + "/k")):
        assert answer.names() == ORDER_KEYS
        assert answer.headers[:3] == CORS and answer.header("Content-Type") == JSON


def test_7_1_keys_error_headers(keys, root):
    for answer in (keys.get(root + "/none"), keys.get(root, "recursive=x")):
        assert answer.names() == [n for n in ORDER_KEYS if not n.startswith("X-Raft")]


def test_7_1_cluster_id_is_unpadded_lower_case_hex(keys):
    value = keys.get("/").header("X-Etcd-Cluster-Id")
    assert value == "%x" % int(value, 16) and int(value, 16) > 0


@pytest.mark.parametrize("path", ["/v2/members", "/v2/members/leader", "/v2/members/none"])
def test_7_1_members_bear_the_cluster_id(server, path):
    answer = exchange(server.port, "GET", path)
    assert answer.header("X-Etcd-Cluster-Id") and answer.header("X-Etcd-Index") is None and answer.header("Content-Type") == JSON


@pytest.mark.parametrize("path", ["/v2/stats/self", "/v2/stats/store", "/v2/stats/leader", "/v2/machines", "/version", "/health", "/nope"])
def test_7_1_others_do_not(server, path):
    answer = exchange(server.port, "GET", path)
    assert not [n for n in answer.names() if n.startswith(("X-Etcd", "X-Raft"))]
    assert answer.headers[:3] == CORS


def test_7_1_nosniff_on_plain_text_errors_only(server, keys, root):
    assert exchange(server.port, "GET", "/nope").header("X-Content-Type-Options") == "nosniff"
    assert keys.get(root + "/none").header("X-Content-Type-Options") is None
    assert exchange(server.port, "GET", "/v2/machines").header("X-Content-Type-Options") is None


def test_7_1_cors_list(start):
    server = start("--cors=http://a.example:80,http://b.example:80")
    allowed = exchange(server.port, "GET", "/v2/keys", [("Origin", "http://b.example:80")])
    assert allowed.header("Access-Control-Allow-Origin") == "http://b.example:80" and allowed.header("Vary") is None
    for headers in ([("Origin", "http://c.example:80")], [("Origin", "http://B.example:80")], []):
        answer = exchange(server.port, "GET", "/v2/keys", headers)
        assert answer.status == 200 and not [n for n in answer.names() if n.startswith("Access")]
        assert exchange(server.port, "OPTIONS", "/v2/keys", headers).status == 200


# 7.2 The final newline.

@rows("path, newline", {
    "7.2-keys": ("/v2/keys", True), "7.2-keys-error": ("/v2/keys/none", True), "7.2-members": ("/v2/members", True),
    "7.2-leader": ("/v2/members/leader", True), "7.2-404": ("/nope", True), "7.2-debug-vars": ("/debug/vars", True),
    "7.2-members-error": ("/v2/members/none", False), "7.2-stats-self": ("/v2/stats/self", False),
    "7.2-stats-store": ("/v2/stats/store", False), "7.2-stats-leader": ("/v2/stats/leader", False),
    "7.2-version": ("/version", False), "7.2-machines": ("/v2/machines", False), "7.2-health": ("/health", False),
    "7.2-400": ("/%zz", False)})
def test_7_2_newline(server, path, newline):
    answer = poll(lambda: (lambda a: a if a.status < 500 else None)(exchange(server.port, "GET", path)), 20, "it is well")
    body = answer.body
    assert body.endswith(b"\n") is newline and not body.endswith(b"\n\n")


# 7.3 Strings.

ESCAPES = {
    "7.3-quote": (b'"', b'\\"'), "7.3-backslash": (b"\\", b"\\\\"), "7.3-newline": (b"\n", b"\\n"), "7.3-return": (b"\r", b"\\r"),
    "7.3-tab": (b"\t", b"\\t"), "7.3-backspace": (b"\b", b"\\u0008"), "7.3-formfeed": (b"\f", b"\\u000c"), "7.3-nul": (b"\0", b"\\u0000"),
    "7.3-1f": (b"\x1f", b"\\u001f"), "7.3-1b": (b"\x1b", b"\\u001b"), "7.3-less": (b"<", b"\\u003c"), "7.3-greater": (b">", b"\\u003e"),
    "7.3-and": (b"&", b"\\u0026"), "7.3-2028": ("\u2028".encode(), b"\\u2028"), "7.3-2029": ("\u2029".encode(), b"\\u2029"),
    "7.3-7f": (b"\x7f", b"\x7f"), "7.3-two-bytes": ("é".encode(), "é".encode()), "7.3-four-bytes": ("😀".encode(), "😀".encode()),
    "7.3-80": ("\x80".encode(), "\x80".encode()), "7.3-bom": ("\ufeff".encode(), "\ufeff".encode()),
    "7.3-replacement-itself": ("\ufffd".encode(), "\ufffd".encode()),
    "7.3-bad-byte": (b"\xff", b"\\ufffd"), "7.3-lone-lead": (b"a\xc3", b"a\\ufffd"), "7.3-lone-continuation": (b"\x80z", b"\\ufffdz"),
    "7.3-overlong": (b"\xc0\xaf", b"\\ufffd\\ufffd"), "7.3-overlong-3": (b"\xe0\x80\xaf", b"\\ufffd\\ufffd\\ufffd"),
    "7.3-surrogate": (b"\xed\xa0\x80", b"\\ufffd\\ufffd\\ufffd"), "7.3-too-high": (b"\xf4\x90\x80\x80", b"\\ufffd" * 4),
    "7.3-cut-three": (b"\xe2\x80", b"\\ufffd\\ufffd"), "7.3-cut-four": (b"\xf0\x9f\x98", b"\\ufffd" * 3), "7.3-f8": (b"\xf8", b"\\ufffd"),
    "7.3-cut-then-ascii": (b"\xe2\x80a", b"\\ufffd\\ufffda"), "7.3-slash": (b"/", b"/"), "7.3-apostrophe": (b"'", b"'"),
}


@rows("raw, shown", ESCAPES)
def test_7_3_escaping_in_values(keys, root, raw, shown):
    body = b"value=" + urllib.parse.quote_from_bytes(raw, safe="").encode()
    answer = keys.call("PUT", "/v2/keys%s/k" % root, [FORM], body)
    assert b'"value":"' + shown + b'",' in answer.body
    assert b'"value":"' + shown + b'",' in keys.get(root + "/k").body


@rows("raw, shown", {k: v for k, v in ESCAPES.items() if v[0] != b"/"})
def test_7_3_escaping_in_keys(keys, root, raw, shown):
    target = "/v2/keys%s/x%sx" % (root, urllib.parse.quote_from_bytes(raw, safe=""))
    answer = keys.call("PUT", target, [FORM], b"value=v")
    assert b'"key":"' + root.encode() + b"/x" + shown + b'x",' in answer.body
    assert b'"cause":"' + root.encode() + b"/y" + shown + b'"' in keys.call("GET", target.replace("/x", "/y")[:-1]).body


def test_7_3_bytes_are_compared_not_what_is_shown(keys, root):
    keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"value=%FF")
    assert_error(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"prevValue=%FE&value=x"), 412, 101)
    assert keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"prevValue=%FF&value=x").status == 200


def test_7_3_bytes_are_kept(keys, root):
    """Every byte value in one value, and back by a compare."""
    everything = urllib.parse.quote_from_bytes(bytes(range(256)), safe="").encode()
    keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"value=" + everything)
    assert keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"value=done&prevValue=" + everything).status == 200


def test_7_3_no_white_space(keys, root):
    keys.put(root + "/a/b", "v")
    body = keys.get(root, "recursive=true").body
    assert b" " not in body and body.count(b"\n") == 1


def test_7_4_shapes_of_errors(server, keys, root):
    assert keys.get(root + "/none").body == b'{"errorCode":100,"message":"Key not found","cause":"%s","index":%d}\n' % (
        root.encode(), keys.index())
    assert exchange(server.port, "GET", "/v2/members/none").body == b'{"message":"Not found"}'
    assert exchange(server.port, "GET", "/nope").body == b"404 page not found\n"
