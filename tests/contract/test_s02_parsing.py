"""Contract, section 2: how /v2/keys requests are parsed."""

import pytest

from harness import Connection, exchange
from harness.wire import FORM
from rows import assert_error, node, rows

FORM_TYPE = "application/x-www-form-urlencoded"


# 2.1 Where parameters may appear.

def test_2_1_put_and_post_take_both_places(keys, root):
    assert node(keys.call("PUT", "/v2/keys%s/q?value=query" % root))["value"] == "query"
    assert node(keys.put(root + "/b", "body"))["value"] == "body"
    assert node(keys.call("POST", "/v2/keys%s?value=query" % root))["value"] == "query"


@pytest.mark.parametrize("kind", [FORM_TYPE, FORM_TYPE.title(), FORM_TYPE + "; charset=utf-8", FORM_TYPE + ";x=y"])
def test_2_1_form_media_types(keys, root, kind):
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [("Content-Type", kind)], b"value=v"))["value"] == "v"


def test_2_1_delete_and_get_never_parse_a_body(keys, root):
    keys.put(root + "/k", "v")
    answer = keys.call("GET", "/v2/keys%s/k" % root, [FORM], b"recursive=zzz&wait=true")
    assert answer.status == 200
    answer = keys.call("DELETE", "/v2/keys%s/k" % root, [FORM], b"prevValue=other")
    assert answer.json["action"] == "delete"


def test_2_1_body_comes_before_query(keys, root):
    assert node(keys.call("PUT", "/v2/keys%s/k?value=q" % root, [FORM], b"value=b"))["value"] == "b"
    assert node(keys.call("PUT", "/v2/keys%s/k?dir=x" % root, [FORM], b"value=c&dir=false"))["value"] == "c"


def test_2_1_first_value_of_a_name_counts(keys, root):
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"value=1&value=2"))["value"] == "1"


def test_2_1_every_parameter_works_in_the_query(keys, root):
    made = node(keys.call("PUT", "/v2/keys%s/k?value=v&ttl=100&prevExist=false" % root))
    assert made["value"] == "v" and made["ttl"] == 100
    assert_error(keys.call("PUT", "/v2/keys%s/k?value=v&prevExist=false" % root), 412, 105)


def test_2_1_names_are_case_sensitive_and_unknown_ones_ignored(keys, root):
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"Value=x&foo=bar"))["value"] == ""


def test_2_1_name_without_equals_and_empty_pairs(keys, root):
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"&&value&="))["value"] == ""
    assert_error(keys.call("GET", "/v2/keys%s/k?recursive" % root), 400, 209)


@rows("sent, stored", {"2.1-plus": (b"a+b", "a b"), "2.1-escape": (b"%41%c3%a9", "A\u00e9"), "2.1-raw": ("é".encode(), "é")})
def test_2_1_decoding(keys, root, sent, stored):
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"value=" + sent))["value"] == stored


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/json", "multipart/form-data", "application/octet-stream"])
def test_2_1_other_content_types_leave_the_body_unread(keys, root, kind):
    headers = [] if kind is None else [("Content-Type", kind)]
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, headers, b"value=lost"))["value"] == ""
    assert node(keys.call("PUT", "/v2/keys%s/k?value=query" % root, headers, b"value=lost"))["value"] == "query"


def test_2_1_body_limit(server, root):
    limit = 10485760
    target = "/v2/keys%s/k" % root
    answer = exchange(server.port, "PUT", target, [FORM], b"value=" + b"x" * (limit - 6), timeout=60)
    assert answer.status == 201
    with Connection(server.port, timeout=60) as connection:
        try:
            connection.send_request("PUT", target, [FORM], b"value=" + b"x" * (limit - 5))
        except OSError:
            pass
        assert_error(connection.read_response(), 400, 210, "Invalid POST form", "http: POST too large", 0)


# 2.2 Failures of the form.

FORM_FAILURES = {
    "2.2-escape-in-query": ("?a=%zz", None, None, 'invalid URL escape "%zz"'),
    "2.2-short-escape-in-query": ("?a=%4", None, None, 'invalid URL escape "%4"'),
    "2.2-escape-in-body": ("", FORM_TYPE, b"value=%zz", 'invalid URL escape "%zz"'),
    "2.2-escape-in-name": ("", FORM_TYPE, b"%g1=x", 'invalid URL escape "%g1"'),
    "2.2-semicolon-in-query": ("?a;b", None, None, "invalid semicolon separator in query"),
    "2.2-semicolon-in-body": ("", FORM_TYPE, b"value=a;b", "invalid semicolon separator in query"),
    "2.2-media-parameter": ("", FORM_TYPE + "; charset", b"value=a", "mime: invalid media parameter"),
    "2.2-media-type": ("", "/bad", b"value=a", "mime: no media type"),
    "2.2-media-type-semicolon": ("", ";", b"value=a", "mime: no media type"),
    "2.2-body-before-query": ("?a;b", FORM_TYPE, b"value=%zz", 'invalid URL escape "%zz"'),
}


@rows("query, kind, body, cause", FORM_FAILURES)
def test_2_2_form_failures(keys, root, query, kind, body, cause):
    headers = [("Content-Type", kind)] if kind is not None else []
    answer = keys.call("PUT", "/v2/keys%s/k%s" % (root, query), headers, body)
    assert_error(answer, 400, 210, "Invalid POST form", cause, 0)


def test_2_2_on_get_too(keys, root):
    assert_error(keys.call("GET", "/v2/keys%s?a;b" % root), 400, 210, None, "invalid semicolon separator in query", 0)


# 2.3 Parameters.

NAMES = {203: "The given index in POST form is not a number", 209: "Invalid field",
         202: "The given TTL in POST form is not a number", 201: "PrevValue is Required in POST form",
         211: "Value provided on refresh", 212: "A TTL must be provided on refresh"}

BAD = {
    "2.3-02-prevIndex": ("prevIndex=x", 203, 'invalid value for "prevIndex"'),
    "2.3-03-waitIndex": ("waitIndex=x", 203, 'invalid value for "waitIndex"'),
    "2.3-04-recursive": ("recursive=x", 209, 'invalid value for "recursive"'),
    "2.3-05-sorted": ("sorted=x", 209, 'invalid value for "sorted"'),
    "2.3-06-wait": ("wait=x", 209, 'invalid value for "wait"'),
    "2.3-07-dir": ("dir=x", 209, 'invalid value for "dir"'),
    "2.3-08-quorum": ("quorum=x", 209, 'invalid value for "quorum"'),
    "2.3-09-stream": ("stream=x", 209, 'invalid value for "stream"'),
    "2.3-11-prevValue": ("prevValue=", 201, '"prevValue" cannot be empty'),
    "2.3-12-noValueOnSuccess": ("noValueOnSuccess=x", 209, 'invalid value for "noValueOnSuccess"'),
    "2.3-13-ttl": ("ttl=x", 202, 'invalid value for "ttl"'),
    "2.3-14-prevExist": ("prevExist=x", 209, "invalid value for prevExist"),
    "2.3-15-refresh": ("refresh=x", 209, "invalid value for refresh"),
    "2.3-16-refresh-with-value": ("refresh=true&value=v&ttl=5", 211, "A value was provided on a refresh"),
    "2.3-17-refresh-without-ttl": ("refresh=true", 212, "No TTL value set"),
    "2.3-17-refresh-with-empty-ttl": ("refresh=true&ttl=", 212, "No TTL value set"),
}


@rows("query, code, cause", BAD)
@pytest.mark.parametrize("method", ["PUT", "GET", "POST", "DELETE"])
def test_2_3_a_bad_parameter_is_refused_on_every_method(keys, root, query, code, cause, method):
    answer = keys.call(method, "/v2/keys%s/k?%s" % (root, query))
    assert_error(answer, 400, code, NAMES[code], cause, 0)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE"])
def test_2_3_10_wait_only_with_get(keys, root, method):
    answer = keys.call(method, "/v2/keys%s/k?wait=true" % root)
    assert answer.status == 400 and answer.index == 0
    if method != "HEAD":
        assert_error(answer, 400, 209, "Invalid field", '"wait" can only be used with GET requests', 0)


ORDER = ["prevIndex=x", "waitIndex=x", "recursive=x", "sorted=x", "wait=x", "dir=x", "quorum=x", "stream=x"]
ORDER_AFTER_WAIT = ["prevValue=", "noValueOnSuccess=x", "ttl=x", "prevExist=x", "refresh=x"]


def test_2_3_the_order_of_the_checks(keys, root):
    """Each of the checks fails before all behind it."""
    causes = {row[0]: row[2] for row in BAD.values()}
    names = ORDER + ["wait=true"] + ORDER_AFTER_WAIT
    causes["wait=true"] = '"wait" can only be used with GET requests'
    for at in range(len(names)):
        tail = [n for n in names[at:] if not (names[at] == "wait=x" and n == "wait=true")]
        if names[at] != "wait=x":
            tail = [n for n in tail if n != "wait=x"] if "wait=true" in names[at:] and at > 4 else [n for n in tail if n != "wait=true"]
        answer = keys.call("PUT", "/v2/keys%s/k?%s" % (root, "&".join(reversed(tail))))
        assert answer.json["cause"] == causes[names[at]], names[at]


def test_2_3_01_the_form_comes_first(keys, root):
    assert_error(keys.call("PUT", "/v2/keys%s/k?prevIndex=x&a;b" % root), 400, 210)


def test_2_3_16_value_is_seen_before_the_missing_ttl(keys, root):
    assert_error(keys.call("PUT", "/v2/keys%s/k?refresh=true&value=v" % root), 400, 211)


@pytest.mark.parametrize("word, meaning", [(w, True) for w in "1 t T TRUE true True".split()] +
                         [(w, False) for w in "0 f F FALSE false False".split()])
def test_2_3_bool_words(keys, root, word, meaning):
    keys.put(root + "/a/b", "v")
    listed = node(keys.call("GET", "/v2/keys%s?recursive=%s" % (root, word)))["nodes"][0]
    assert ("nodes" in listed) is meaning


@pytest.mark.parametrize("word", ["", "yes", "tRue", "2", "+true", "on", "no", "TrUE", "01"])
def test_2_3_not_bools(keys, root, word):
    assert_error(keys.call("GET", "/v2/keys%s?recursive=%s" % (root, word)), 400, 209)


@pytest.mark.parametrize("word", ["0", "010", "18446744073709551615", "00000000000000000000000000000004"])
def test_2_3_uint64_words(keys, root, word):
    assert_error(keys.call("GET", "/v2/keys%s/none?prevIndex=%s" % (root, word)), 404, 100)


@pytest.mark.parametrize("word", ["", "-1", "+1", "%2B1", "0x10", "1_0", "1.0", "+", "1+", "18446744073709551616", "1e3"])
def test_2_3_not_uint64(keys, root, word):
    assert_error(keys.call("GET", "/v2/keys%s?prevIndex=%s" % (root, word)), 400, 203)
    if word:
        assert_error(keys.call("GET", "/v2/keys%s?ttl=%s" % (root, word)), 400, 202)


def test_2_3_refresh_with_an_empty_value_is_legal(keys, root):
    keys.put(root + "/k", "v", ttl=100)
    assert node(keys.call("PUT", "/v2/keys%s/k" % root, [FORM], b"refresh=true&value=&ttl=50&prevExist=true"))["value"] == "v"


def test_2_3_what_stock_clients_send(keys, root):
    keys.put(root + "/k", "v")
    assert keys.call("GET", "/v2/keys%s/k?recursive=false&sorted=false&quorum=false" % root).status == 200
    answer = keys.call("PUT", "/v2/keys%s/k?prevExist=true&prevValue=v&dir=false&noValueOnSuccess=false" % root, [FORM], b"value=w&refresh=false")
    assert answer.json["action"] == "compareAndSwap"


def test_2_3_parameters_that_do_not_matter_are_ignored(keys, root):
    keys.put(root + "/k", "v")
    assert keys.get(root + "/k", "ttl=9&prevExist=false").json["action"] == "get"
    assert keys.post(root, "v", query="prevExist=true&prevValue=x").json["action"] == "create"


# 2.4 Dispatch.

def test_2_4_quorum_get_ignores_wait(keys, root):
    keys.put(root + "/k", "v")
    answer = keys.get(root + "/k", "quorum=true&wait=true")
    assert answer.json["action"] == "get" and answer.chunks is None


def test_2_4_get_wait_is_a_watch(keys, root):
    with keys.watch(root + "/k") as watch:
        assert watch.head.status == 200 and watch.head.header("Transfer-Encoding") == "chunked"


def test_2_4_get_and_head_read_locally(keys, root):
    keys.put(root + "/k", "v")
    assert keys.get(root + "/k").json["action"] == "get"
    assert keys.head(root + "/k", "quorum=true").status == 200


PUTS = {
    "2.4-create": ("prevExist=false&prevValue=zzz&prevIndex=1", "/new", "create"),
    "2.4-update": ("prevExist=true", "/k", "update"),
    "2.4-update-prevIndex-0": ("prevExist=true&prevIndex=0", "/k", "update"),
    "2.4-cas-prevExist": ("prevExist=true&prevValue=v", "/k", "compareAndSwap"),
    "2.4-cas": ("prevValue=v", "/k", "compareAndSwap"),
    "2.4-set": ("", "/k", "set"),
    "2.4-set-prevIndex-0": ("prevIndex=0", "/k", "set"),
}


@rows("query, key, action", PUTS)
def test_2_4_put(keys, root, query, key, action):
    keys.put(root + "/k", "v")
    assert keys.put(root + key, "w", query=query).json["action"] == action


def test_2_4_put_prevIndex_is_a_swap(keys, root):
    index = node(keys.put(root + "/k", "v"))["modifiedIndex"]
    for query in ("prevIndex=%d", "prevExist=true&prevIndex=%d"):
        answer = keys.put(root + "/k", "w", query=query % index)
        assert answer.json["action"] == "compareAndSwap"
        index = answer.index


def test_2_4_post_creates_in_order(keys, root):
    assert keys.post(root, "v").json["action"] == "create"


def test_2_4_delete_with_conditions(keys, root):
    keys.put(root + "/k", "v")
    answer = keys.delete(root + "/k", "prevValue=v&dir=true&recursive=true")
    assert answer.json["action"] == "compareAndDelete"
    keys.put(root + "/k", "v")
    assert keys.delete(root + "/k", "prevIndex=0&prevExist=false").json["action"] == "delete"


@rows("query, status, action", {
    "2.4-noValue-set": ("", 200, "set"), "2.4-noValue-update": ("prevExist=true", 200, "update"),
    "2.4-noValue-cas": ("prevValue=v", 200, "compareAndSwap")})
def test_2_4_no_value_on_success(keys, root, query, status, action):
    keys.put(root + "/k", "v")
    before = keys.index()
    answer = keys.put(root + "/k", "w", query="noValueOnSuccess=true&" + query)
    assert answer.status == status and answer.body == b'{"action":"%s"}\n' % action.encode()
    assert answer.index == before + 1 and answer.header("X-Raft-Term")


def test_2_4_no_value_on_success_of_create(keys, root):
    answer = keys.put(root + "/n", "w", query="noValueOnSuccess=true&prevExist=false")
    assert (answer.status, answer.body) == (201, b'{"action":"create"}\n')


def test_2_4_no_value_on_success_elsewhere(keys, root):
    keys.put(root + "/k", "v")
    assert "node" in keys.get(root + "/k", "noValueOnSuccess=true").json
    assert_error(keys.put(root + "/k", "w", query="noValueOnSuccess=true&prevValue=x"), 412, 101)
    assert "node" in keys.delete(root + "/k", "noValueOnSuccess=true&prevValue=v").json
    keys.put(root + "/k", "v")
    assert "node" in keys.delete(root + "/k", "noValueOnSuccess=true").json


# 2.5 Keys.

def test_2_5_trailing_slash_and_root_spellings(keys, root):
    keys.put(root + "/k", "v")
    assert node(keys.get(root + "/k/")) == node(keys.get(root + "/k"))
    for spelling in ("/v2/keys", "/v2/keys/"):
        root_node = node(keys.call("GET", spelling + "?sorted=true"))
        assert "key" not in root_node and root_node["dir"] is True
        assert root.split("/")[1] in [n["key"].split("/")[1] for n in root_node["nodes"]]


@pytest.mark.parametrize("segment, shown", [
    ("a%20b", "a b"), ("a+b", "a+b"), ("a;b", "a;b"), ("a%3Fb", "a?b"), ("a%23b", "a#b"), ("a%25b", "a%b"), ("a%00b", "a\x00b"),
    ("a%07b", "a\x07b"), ("...", "..."), ("%FF", "\ufffd"), ("..a", "..a"), ("%7f", "\x7f")])
def test_2_5_keys_are_bytes(keys, root, segment, shown):
    answer = keys.call("PUT", "/v2/keys%s/%s" % (root, segment), [FORM], b"value=v")
    assert answer.status == 201 and node(answer)["key"] == root + "/" + shown
    assert keys.call("GET", "/v2/keys%s/%s" % (root, segment)).status == 200


def test_2_5_literal_and_escaped_utf8_are_one_key(keys, root):
    keys.call("PUT", ("/v2/keys%s/é" % root).encode(), [FORM], b"value=v")
    assert node(keys.call("GET", "/v2/keys%s/%%C3%%A9" % root))["value"] == "v"


def test_2_5_no_reserved_user_key(keys):
    assert keys.put("/1/foo", "v").status in (200, 201)
    assert keys.put("/0/x", "v").status in (200, 201)
    assert node(keys.get("/0"))["nodes"][0]["key"] == "/0/x"
    keys.delete("/1", "recursive=true")
    keys.delete("/0", "recursive=true")


def test_2_5_a_trailing_slash_asks_for_no_directory(keys, root):
    answer = keys.call("PUT", "/v2/keys%s/k/" % root, [FORM], b"value=v")
    assert node(answer)["value"] == "v" and node(answer)["key"] == root + "/k"
