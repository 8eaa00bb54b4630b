"""Contract, 9.1: what POST, PUT and DELETE of members refuse, and how they say so. What they do is in ../cluster/test_member_rows.py."""

import json

import pytest

from harness import exchange
from rows import JSON as JSON_TYPE
from rows import TEXT, rows

JSON = [("Content-Type", "application/json")]
URLS = '{"peerURLs":["http://127.0.0.1:7"]}'


def ask(server, method, path, body=None, headers=JSON):
    return exchange(server.port, method, "/v2/members" + path, list(headers), body.encode() if body is not None else None)


def self_id(server):
    return exchange(server.port, "GET", "/v2/members").json["members"][0]["id"]


def assert_message(answer, status, message):
    assert (answer.status, answer.json) == (status, {"message": message}), answer
    assert answer.header("Content-Type") == JSON_TYPE
    assert answer.header("X-Etcd-Cluster-Id")


# The id.

@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@rows("raw, shown", {
    "9.1-id-no-hex": ("zzz", "zzz"), "9.1-id-prefix": ("0x12", "0x12"), "9.1-id-overflow": ("11111111111111111", "11111111111111111"),
    "9.1-id-unknown": ("abc123", "abc123"), "9.1-id-upper": ("ABC123", "abc123"), "9.1-id-zeros": ("000abc", "abc"),
    "9.1-id-leader": ("leader", "leader"), "9.1-id-deeper": ("abc/def", "abc/def")})
def test_9_1_no_such_member(server, method, raw, shown):
    assert_message(ask(server, method, "/" + raw, URLS), 404, "No such member: " + shown)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", ["", "/"])
def test_9_1_a_change_without_an_id(server, method, path):
    answer = ask(server, method, path, URLS)
    assert (answer.status, answer.body, answer.header("Allow")) == (405, b"Method Not Allowed\n", None)
    assert answer.header("Content-Type") == TEXT and answer.header("X-Etcd-Cluster-Id")


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "get"])
@pytest.mark.parametrize("path", ["", "/", "/leader"])
def test_9_1_other_methods(server, method, path):
    answer = ask(server, method, path)
    assert (answer.status, answer.header("Allow")) == (405, "GET,POST,DELETE,PUT")
    assert answer.header("X-Etcd-Cluster-Id") is None


# The body: the same for POST and PUT.

@pytest.fixture(params=["POST", "PUT"])
def change(request, server):
    """Sends a change that must be refused."""
    path = {"POST": "", "PUT": "/" + self_id(server)}[request.param]
    return lambda body=URLS, headers=JSON: ask(server, request.param, path, body, headers)


@rows("given, shown", {
    "9.1-type-none": (None, ""), "9.1-type-text": ("text/plain", "text/plain"),
    "9.1-type-form": ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
    "9.1-type-case": ("Application/JSON", "Application/JSON"),
    "9.1-type-longer": ("application/json2", "application/json2")})
def test_9_1_content_type(change, given, shown):
    answer = change(headers=[("Content-Type", given)] if given is not None else [])
    assert_message(answer, 415, "Bad Content-Type %s, accept application/json" % shown)


@rows("given", {"9.1-type-plain": ("application/json",), "9.1-type-charset": ("application/json; charset=utf-8",),
                "9.1-type-charset-case": ("Application/JSON; charset=utf-8",)})
def test_9_1_content_type_that_is_taken(change, given):
    assert_message(change("{}", [("Content-Type", given[0])]), 400, "no valid URLs given")


@rows("body", {"9.1-json-empty": ("",), "9.1-json-cut": ('{"peerURLs":',), "9.1-json-cut-list": ('{"peerURLs":["http://127.0.0.1:7"]',)})
def test_9_1_json_that_ends_too_early(change, body):
    assert_message(change(body[0]), 400, "unexpected end of JSON input")


@rows("body", {"9.1-json-word": ("word",), "9.1-json-list": ("[1]",), "9.1-json-number": ('{"peerURLs":7}',), "9.1-json-more": ("{} x",)})
def test_9_1_json_that_is_none(change, body):
    answer = change(body[0])
    assert answer.status == 400 and answer.json["message"], answer


@rows("body", {"9.1-urls-none": ("{}",), "9.1-urls-empty": ('{"peerURLs":[]}',), "9.1-urls-null": ('{"peerURLs":null}',),
               "9.1-urls-other-name": ('{"clientURLs":["http://127.0.0.1:7"]}',), "9.1-urls-null-body": ("null",)})
def test_9_1_no_urls(change, body):
    assert_message(change(body[0]), 400, "no valid URLs given")


@rows("url, message", {
    "9.1-url-scheme": ("ftp://127.0.0.1:7", "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:7"),
    "9.1-url-word": ("word", "URL scheme must be http, https, unix, or unixs: word"),
    "9.1-url-no-port": ("http://127.0.0.1", 'URL address does not have the form "host:port": http://127.0.0.1'),
    "9.1-url-path": ("http://127.0.0.1:7/x", "URL must not contain a path: http://127.0.0.1:7/x"),
    "9.1-url-slash": ("http://127.0.0.1:7/", "URL must not contain a path: http://127.0.0.1:7/")})
def test_9_1_bad_url(change, url, message):
    assert_message(change(json.dumps({"peerURLs": [url]})), 400, message)
    assert_message(change(json.dumps({"peerURLs": ["http://127.0.0.1:7", url]})), 400, message)


def test_9_1_any_case_of_the_field_is_taken(change):
    assert_message(change('{"PEERurls":["word"]}'), 400, "URL scheme must be http, https, unix, or unixs: word")


# The order of checks, and what one member alone refuses.

def test_9_1_the_id_comes_before_the_type_and_the_type_before_the_body(server):
    assert_message(ask(server, "PUT", "/zzz", "word", []), 404, "No such member: zzz")
    assert ask(server, "PUT", "/" + self_id(server), "word", []).status == 415
    assert ask(server, "POST", "", "word", []).status == 415


def test_9_1_an_unknown_id_comes_behind_the_body(server):
    assert ask(server, "PUT", "/abc123", "word").status == 400


def test_9_1_delete_asks_for_no_type(server):
    assert_message(ask(server, "DELETE", "/abc123", None, []), 404, "No such member: abc123")


def test_9_1_a_url_that_another_has(server):
    body = json.dumps({"peerURLs": ["http://127.0.0.1:7", server.peer_url]})
    assert_message(ask(server, "POST", "", body), 409, "membership: peerURL exists")


def test_9_1_the_last_member_stays(server):
    answer = ask(server, "DELETE", "/" + self_id(server))
    assert answer.status == 500 and answer.json["message"], answer
    assert [m["id"] for m in exchange(server.port, "GET", "/v2/members").json["members"]] == [self_id(server)]


def test_9_1_put_of_the_same_urls_is_204_and_costs_an_index(fresh_server, fresh_keys):
    before = int(fresh_keys.put("/a", "1").header("X-Etcd-Index"))
    answer = ask(fresh_server, "PUT", "/" + self_id(fresh_server), json.dumps({"peerURLs": [fresh_server.peer_url]}))
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)
    assert answer.header("X-Etcd-Cluster-Id")
    assert int(fresh_keys.put("/a", "2").header("X-Etcd-Index")) == before + 2
