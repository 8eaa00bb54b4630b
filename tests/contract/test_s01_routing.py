"""Contract, section 1: routing and the HTTP front end."""

import os
import socket
import subprocess

import pytest

import harness
from harness import Connection, exchange, form
from harness.wire import FORM, chunked
from rows import CORS, JSON, TEXT, assert_error, rows

METHODS = ["HEAD", "GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "get", "CONNECT"]
KEYS_METHODS = "HEAD,GET,PUT,POST,DELETE"

PATHS = {
    "1.1-keys": ("/v2/keys", KEYS_METHODS), "1.1-below-keys": ("/v2/keys/some/where", KEYS_METHODS),
    "1.1-members": ("/v2/members", "GET,POST,DELETE,PUT"), "1.1-below-members": ("/v2/members/x", "GET,POST,DELETE,PUT"),
    "1.1-machines": ("/v2/machines", "GET,HEAD"),
    "1.1-stats-store": ("/v2/stats/store", "GET"), "1.1-stats-self": ("/v2/stats/self", "GET"),
    "1.1-stats-leader": ("/v2/stats/leader", "GET"),
    "1.1-version": ("/version", "GET"), "1.1-health": ("/health", "GET"), "1.1-debug-vars": ("/debug/vars", "GET"),
    "1.1-config-local-log": ("/config/local/log", "PUT"),
}


@rows("path, allow", PATHS)
def test_other_methods_are_405_and_name_the_allowed_ones_in_order(server, path, allow):
    for method in METHODS:
        if method in allow.split(","):
            continue
        answer = exchange(server.port, method, path)
        assert answer.status == 405, (method, answer)
        assert answer.header("Allow") == allow
        assert answer.headers[:3] == CORS
        assert [h for h in answer.names() if h.startswith("X-Etcd")] == []
        assert answer.header("Content-Type") == TEXT
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Content-Length") == "19"
        assert answer.body == (b"" if method == "HEAD" else b"Method Not Allowed\n")


@rows("path, allow", {k: v for k, v in PATHS.items() if "GET" in v[1]})
def test_get_is_routed(server, path, allow):
    assert exchange(server.port, "GET", path).status in (200, 404)
    assert exchange(server.port, "GET", path).body != b"404 page not found\n"


def test_1_1_metrics_takes_any_method(server):
    for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
        answer = exchange(server.port, method, "/metrics")
        assert answer.status == 200 and b"etcd_" in answer.body
    head = exchange(server.port, "HEAD", "/metrics")
    assert head.status == 200 and head.body == b""


UNKNOWN = ["/", "/v2", "/v2/", "/v2/keysfoo", "/v2/leader", "/v2/stats", "/v2/stats/", "/v2/machines/", "/v2/auth", "/v2/auth/",
           "/v2/auth/enable/", "/version/", "/v1/keys/a", "/v2/config", "/v2/admin", "/v2/standby_config", "/stats", "/metricsx",
           "/health/", "/debug", "/debug/pprof/", "/config/local"]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "PATCH"])
def test_1_2_unknown_path_is_404_text(server, path, method):
    answer = exchange(server.port, method, path)
    assert answer.status == 404
    assert answer.headers[:3] == CORS
    assert answer.header("Content-Type") == TEXT and answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Content-Length") == "19"
    assert answer.body == (b"" if method == "HEAD" else b"404 page not found\n")


@pytest.mark.parametrize("path", ["/v2/keys/a", "/nope", "/", "/v2/members", "/v2//keys/a", "/metrics", "/version"])
def test_1_2_options_is_200_everywhere(server, path):
    answer = exchange(server.port, "OPTIONS", path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[:3] == CORS
    assert answer.header("Allow") is None and answer.header("Content-Length") == "0"


def test_1_2_options_star_is_200_without_cors(server):
    answer = exchange(server.port, "OPTIONS", "*")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")
    assert not [n for n in answer.names() if n.startswith("Access-Control")]


def test_1_2_unclean_path_is_301_for_every_method(server):
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"):
        answer = exchange(server.port, method, "/v2//keys/x?a=1&b=<", [], None)
        assert answer.status == 301 and answer.header("Location") == "/v2/keys/x?a=1&b=<"
        if method == "GET":
            assert answer.body == b'<a href="/v2/keys/x?a=1&amp;b=&lt;">Moved Permanently</a>.\n\n'
            assert answer.header("Content-Type") == "text/html; charset=utf-8"
        elif method == "HEAD":
            assert answer.body == b"" and answer.header("Content-Type") == "text/html; charset=utf-8"
        else:
            assert answer.body == b"" and answer.header("Content-Type") is None


@pytest.mark.parametrize("target", ["/v2/keys/a%zz", "/v2/keys/%4", "/%", "/nope%g0"])
def test_1_2_malformed_escape_is_400_and_close(server, target):
    with Connection(server.port) as connection:
        answer = connection.request("GET", target)
        assert (answer.status, answer.body) == (400, b"400 Bad Request")
        assert answer.header("Content-Type") == TEXT and answer.header("Connection") == "close"
        assert connection.ended()


def test_1_2_no_host_is_400_and_close(server):
    with Connection(server.port) as connection:
        connection.send(b"GET /v2/keys HTTP/1.1\r\n\r\n")
        answer = connection.read_response()
        assert (answer.status, answer.body) == (400, b"400 Bad Request: missing required Host header")
        assert answer.header("Connection") == "close"


def test_1_2_no_host_is_fine_in_http_1_0(server):
    with Connection(server.port) as connection:
        connection.send(b"GET /version HTTP/1.0\r\n\r\n")
        assert connection.read_response().status == 200


def test_1_2_headers_over_a_mebibyte_are_431_and_close(server):
    with Connection(server.port) as connection:
        data = b"GET /v2/keys HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1048576 + 8192) + b"\r\n\r\n"
        try:
            connection.send(data)
        except OSError:
            pass
        answer = connection.read_response()
        assert (answer.status, answer.body) == (431, b"431 Request Header Fields Too Large")
        assert answer.header("Content-Type") == TEXT and answer.header("Connection") == "close"


def test_1_2_headers_below_a_mebibyte_are_taken(server):
    answer = exchange(server.port, "GET", "/version", [("X-Long", "y" * 1000000)])
    assert answer.status == 200


@pytest.mark.deviation("D5")
@pytest.mark.parametrize("line", [b"garbage", b"GET /v2/keys", b"GET /v2/keys HTTP/x", b"GET  /v2/keys HTTP/1.1"])
def test_1_2_malformed_request_line_is_400_text(server, line):
    with Connection(server.port) as connection:
        connection.send(line + b"\r\nHost: a\r\n\r\n")
        answer = connection.read_response()
        assert answer.status == 400 and answer.body.startswith(b"400 Bad Request")
        assert answer.header("Connection") == "close" and connection.ended()


@pytest.mark.deviation("D5")
def test_1_2_http_2_version_is_505(server):
    with Connection(server.port) as connection:
        connection.send(b"GET /v2/keys HTTP/3.0\r\nHost: a\r\n\r\n")
        assert connection.read_response().status == 505


def test_1_2_host_whitelist_is_421(start):
    server = start("--host-whitelist=good.example,quorate.test")
    answer = exchange(server.port, "GET", "/v2/keys", [("Host", "evil.example")])
    assert answer.status == 421 and b"evil.example" in answer.body
    assert answer.header("Content-Type") == TEXT and answer.header("X-Content-Type-Options") == "nosniff"
    assert not [n for n in answer.names() if n.startswith("Access-Control")]
    assert exchange(server.port, "GET", "/v2/keys", [("Host", "good.example")]).status == 200


@pytest.mark.deviation("D5")
@pytest.mark.parametrize("size", [5000, 100000, 900000])
def test_1_2_long_request_line_is_taken(server, size):
    answer = exchange(server.port, "GET", "/v2/keys/" + "k" * size)
    assert_error(answer, 404, 100)


def test_1_2_405_comes_before_everything(server):
    answer = exchange(server.port, "PATCH", "/v2/keys/a?recursive=zzz")
    assert answer.status == 405 and answer.header("X-Etcd-Cluster-Id") is None


def test_1_2_head_carries_the_length_of_get(keys, root):
    keys.put(root + "/a", "value")
    got, head = keys.get(root + "/a"), keys.head(root + "/a")
    assert head.status == 200 and head.body == b""
    assert head.header("Content-Length") == str(len(got.body))


CLEANED = {
    "1.3-%d" % i: row for i, row in enumerate([
        ("/v2/keys//foo", "/v2/keys/foo"), ("/v2/keys/./foo", "/v2/keys/foo"), ("/v2/keys/a/../foo", "/v2/keys/foo"),
        ("/v2/keys/a/%2e%2e/foo", "/v2/keys/foo"), ("/v2//keys/foo", "/v2/keys/foo"), ("//v2/keys/foo", "/v2/keys/foo"),
        ("/v2/keys/foo/.", "/v2/keys/foo"), ("/v2/keys/a%2F%2Fb", "/v2/keys/a/b"), ("/v2/keys/foo//", "/v2/keys/foo/"),
        ("/v2/keys/..", "/v2"), ("/v2/keys/../../foo", "/foo"), ("/v2/keys/%2e", "/v2/keys"),
        ("/v2/keys//a%20b%3Fc?x=%20", "/v2/keys/a%20b%3Fc?x=%20"), ("/../../v2/keys", "/v2/keys"),
        ("/v2/keys//%C3%A9%ff", "/v2/keys/%C3%A9%FF"), ("/v2/keys//a+b;c,d", "/v2/keys/a+b;c,d"),
        ("/v2/keys//(x)!'*", "/v2/keys/%28x%29%21%27%2A"), ("/v2/keys/x/../../keys/y", "/v2/keys/y"),
        ("/nope//x", "/nope/x"),
    ])
}


@rows("target, location", CLEANED)
def test_1_3_unclean_paths_are_redirected(server, target, location):
    answer = exchange(server.port, "GET", target)
    assert (answer.status, answer.header("Location")) == (301, location)
    assert answer.headers[:3] == CORS
    assert answer.header("Content-Type") == "text/html; charset=utf-8"


def test_1_3_nothing_is_done_under_the_cleaned_key(keys, root):
    answer = keys.call("PUT", "/v2/keys/" + root + "/x", [FORM], form(value="1"))
    assert answer.status == 301
    assert_error(keys.get(root + "/x"), 404, 100)


def test_1_3_absolute_form_is_served(server):
    assert exchange(server.port, "GET", "http://x/v2/keys").status == 200


def test_1_4_keep_alive_and_pipelining(server, root):
    with Connection(server.port) as connection:
        for number in range(20):
            connection.send_request("PUT", "/v2/keys%s/p" % root, [FORM], form(value=number))
        values = [connection.read_response().json["node"]["value"] for _ in range(20)]
        assert values == [str(n) for n in range(20)]


def test_1_4_connection_close_is_echoed(server):
    with Connection(server.port) as connection:
        answer = connection.request("GET", "/v2/keys", [("Connection", "close")])
        assert answer.header("Connection") == "close" and connection.ended()


def test_1_4_http_1_0_without_chunks(server, keys, root):
    keys.put(root + "/big", "x" * 5000)
    with Connection(server.port) as connection:
        answer = connection.request("GET", "/v2/keys%s/big" % root, version="1.0")
        assert answer.version == b"HTTP/1.0" and answer.chunks is None
        assert len(answer.json["node"]["value"]) == 5000
        assert connection.ended()


def test_1_4_http_1_0_keep_alive(server):
    with Connection(server.port) as connection:
        for _ in range(2):
            answer = connection.request("GET", "/version", [("Connection", "keep-alive")], version="1.0")
            assert answer.header("Connection") == "keep-alive"


def test_1_4_chunked_request_bodies(server, root):
    with Connection(server.port) as connection:
        connection.send_request("PUT", "/v2/keys%s/c" % root, [FORM, ("Transfer-Encoding", "chunked")], chunked(form(value="in pieces"), 3))
        assert connection.read_response().json["node"]["value"] == "in pieces"
        assert connection.request("GET", "/v2/keys%s/c" % root).status == 200


def test_1_4_expect_100_continue(server, root):
    with Connection(server.port) as connection:
        body = form(value="waited")
        connection.send_request("PUT", "/v2/keys%s/e" % root, [FORM, ("Expect", "100-continue"), ("Content-Length", str(len(body)))])
        assert connection.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        assert connection.read_response().json["node"]["value"] == "waited"


def test_1_4_half_close_ends_a_watch(server, root):
    with Connection(server.port) as connection:
        connection.send_request("GET", "/v2/keys%s/w?wait=true" % root)
        assert connection.read_head().status == 200
        connection.half_close()
        assert connection.read_to_end() == b"0\r\n\r\n"


def test_1_4_a_request_behind_a_watch_waits_for_it(server, keys, root):
    with Connection(server.port) as connection:
        connection.send_request("GET", "/v2/keys%s/w?wait=true" % root)
        connection.send_request("GET", "/version")
        assert connection.read_head().status == 200
        assert connection.quiet(0.2)
        keys.put(root + "/w", "now")
        assert b'"now"' in connection.read_chunk() and connection.read_chunk() == b""
        assert connection.read_response().header("Content-Type") == JSON


def test_1_4_framing_by_size(keys, root):
    keys.put(root + "/small", "x" * 1000)
    assert keys.get(root + "/small").chunks is None
    keys.put(root + "/large", "x" * 3000)
    assert keys.get(root + "/large").chunks is not None


AMBIGUOUS = {
    "two-lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length-and-chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded-header": b"X: a\r\n b\r\n\r\n",
    "space-before-colon": b"X : a\r\n\r\n",
    "bare-line-feed": b"X: a\nY: b\r\n\r\n",
    "bad-length": b"Content-Length: -1\r\n\r\n",
}


@pytest.mark.ours
@rows("rest", AMBIGUOUS)
def test_1_4_ambiguous_requests_are_refused_and_nothing_behind_them_is_read(server, root, rest):
    """A front end that guesses where a request ends lets one client's bytes become another's request."""
    with Connection(server.port) as connection:
        connection.send(b"PUT /v2/keys%s/k?value=x HTTP/1.1\r\nHost: a\r\n" % root.encode() + rest + b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = connection.read_response()
        assert answer.status == 400 and answer.header("Connection") == "close"
        assert connection.ended()


@pytest.mark.ours
def test_1_4_http_1_0_with_chunks_is_refused(server, root):
    with Connection(server.port) as connection:
        connection.send_request("PUT", "/v2/keys%s/k" % root, [FORM, ("Transfer-Encoding", "chunked")], chunked(b"value=x"), version="1.0")
        assert connection.read_response().status == 400 and connection.ended()


@pytest.mark.ours
def test_1_4_every_listen_url_serves_alike():
    """IPv4, IPv6, a unix socket, and two ports of one address."""
    second, sixth = harness.places.free_ports(2)
    with harness.new_server() as server:
        path = os.path.join(server.folder, "client.sock")
        urls = [server.url, "http://127.0.0.1:%d" % second, "http://[::1]:%d" % sixth, "unix://" + path]
        if not has_ipv6():
            urls.pop(2)
        server.flags += ["--listen-client-urls=" + ",".join(urls)]
        server.start()
        for number, url in enumerate(urls):
            curl = ["curl", "-s", "-m", "15"] + (["--unix-socket", path, "http://localhost"] if url.startswith("unix") else [url])
            base = curl.pop()
            wrote = subprocess.run(curl + [base + "/v2/keys/k", "-XPUT", "-d", "value=%d" % number], capture_output=True, text=True, check=True)
            assert '"value":"%d"' % number in wrote.stdout
            for other in (server.port, second):
                assert exchange(other, "GET", "/v2/keys/k").json["node"]["value"] == str(number)
            read = subprocess.run(curl + [base + "/v2/keys/k?quorum=true"], capture_output=True, text=True, check=True)
            assert '"value":"%d"' % number in read.stdout


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
