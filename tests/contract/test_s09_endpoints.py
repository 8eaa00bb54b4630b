"""Contract, section 9: GET of members, machines, version, stats, health, metrics, debug."""

import json
import os
import re
import signal

import pytest

from harness import exchange, poll
from harness.flood import Flood
from rows import JSON, TEXT, rows


def get(server, path, method="GET", headers=(), body=None):
    return exchange(server.port, method, path, list(headers), body)


# 9.1 GET of members.

@pytest.mark.parametrize("path", ["/v2/members", "/v2/members/"])
def test_9_1_list(server, path):
    answer = get(server, path)
    assert answer.status == 200 and answer.header("Content-Type") == JSON
    [member] = answer.json["members"]
    assert list(member) == ["id", "name", "peerURLs", "clientURLs"]
    assert re.match(r"[1-9a-f][0-9a-f]{0,15}$", member["id"])
    assert (member["name"], member["peerURLs"], member["clientURLs"]) == ("default", [server.peer_url], [server.url])


def test_9_1_leader(server):
    answer = get(server, "/v2/members/leader")
    assert answer.status == 200 and answer.json == get(server, "/v2/members").json["members"][0]
    assert answer.body.endswith(b"}\n")


def test_9_1_anything_else(server):
    identity = get(server, "/v2/members").json["members"][0]["id"]
    for path in (identity, "zzz", "leader/", "0", identity + "/x"):
        answer = get(server, "/v2/members/" + path)
        assert (answer.status, answer.body) == (404, b'{"message":"Not found"}'), path


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/v2/members", "/v2/members/"])
def test_9_1_put_and_delete_of_the_collection(server, method, path):
    answer = get(server, path, method)
    assert answer.status == 405 and answer.body == b"Method Not Allowed\n"
    assert answer.header("Allow") is None and answer.header("X-Etcd-Cluster-Id")


# 9.2 Machines.

def test_9_2_machines(server):
    for method in ("GET", "HEAD"):
        answer = get(server, "/v2/machines", method)
        assert answer.status == 200 and answer.header("Content-Type") == TEXT
        assert answer.body == (server.url.encode() if method == "GET" else b"")


def test_9_2_several_urls_are_sorted_and_joined(start):
    server = start("--advertise-client-urls=http://127.0.0.1:9,http://127.0.0.1:10,http://10.0.0.1:3")
    assert get(server, "/v2/machines").body == b"http://10.0.0.1:3, http://127.0.0.1:10, http://127.0.0.1:9"


# 9.3 Version.

def test_9_3_version(server):
    answer = get(server, "/version")
    assert answer.status == 200 and answer.header("Content-Type") == JSON
    assert answer.body.startswith(b'{"etcdserver":"3.4.23","etcdcluster":"3.4.0"')


# 9.4 Stats.

def test_9_4_self(server):
    answer = get(server, "/v2/stats/self")
    assert answer.status == 200 and answer.header("Content-Type") == JSON
    stats = answer.json
    names = ["name", "id", "state", "startTime", "leaderInfo", "recvAppendRequestCnt", "sendAppendRequestCnt"]
    assert [n for n in stats if not n.endswith("Rate")] == names
    assert list(stats["leaderInfo"]) == ["leader", "uptime", "startTime"]
    member = get(server, "/v2/members").json["members"][0]
    assert (stats["name"], stats["id"], stats["state"]) == ("default", member["id"], "StateLeader")
    assert stats["leaderInfo"]["leader"] == member["id"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$", stats["startTime"])
    assert re.match(r"(\d+h)?(\d+m)?[\d.]+(s|ms|µs|ns)$", stats["leaderInfo"]["uptime"])


def test_9_4_self_is_in_local_time(start):
    zone = "America/Bogota"  # No summer time there.
    if not os.path.exists("/usr/share/zoneinfo/" + zone):
        pytest.skip("no time zone data on this host")
    server = start(env={"TZ": zone})
    assert get(server, "/v2/stats/self").json["startTime"].endswith("-05:00")
    keys_time = exchange(server.port, "PUT", "/v2/keys/k?ttl=100&value=v").json["node"]["expiration"]
    assert keys_time.endswith("Z")


def test_9_4_leader(server):
    answer = get(server, "/v2/stats/leader")
    identity = get(server, "/v2/members").json["members"][0]["id"]
    assert answer.status == 200 and answer.body == b'{"leader":"%s","followers":{}}' % identity.encode()


COUNTERS = ["getsSuccess", "getsFail", "setsSuccess", "setsFail", "deleteSuccess", "deleteFail", "updateSuccess", "updateFail",
            "createSuccess", "createFail", "compareAndSwapSuccess", "compareAndSwapFail", "compareAndDeleteSuccess",
            "compareAndDeleteFail", "expireCount", "watchers"]


def test_9_4_store_has_every_counter_in_order(server):
    answer = get(server, "/v2/stats/store")
    assert list(answer.json) == COUNTERS and all(isinstance(v, int) for v in answer.json.values())


@pytest.mark.deviation("D6")
def test_9_4_store_counts_honestly(fresh_server, fresh_keys):
    """Each client request once, failures as failures."""
    k = fresh_keys
    steps = {
        "getsSuccess": lambda: k.get("/"), "getsFail": lambda: k.get("/none"),
        "setsSuccess": lambda: k.put("/a", "v"), "setsFail": lambda: k.put("/", "v"),
        "updateSuccess": lambda: k.put("/a", "w", query="prevExist=true"), "updateFail": lambda: k.put("/none", "w", query="prevExist=true"),
        "createSuccess": lambda: k.put("/b", "v", query="prevExist=false"), "createFail": lambda: k.put("/b", "v", query="prevExist=false"),
        "compareAndSwapSuccess": lambda: k.put("/a", "x", query="prevValue=w"),
        "compareAndSwapFail": lambda: k.put("/a", "x", query="prevValue=w"),
        "compareAndDeleteFail": lambda: k.delete("/a", "prevValue=w"), "compareAndDeleteSuccess": lambda: k.delete("/a", "prevValue=x"),
        "deleteSuccess": lambda: k.delete("/b"), "deleteFail": lambda: k.delete("/b"),
    }
    before = get(fresh_server, "/v2/stats/store").json
    for name, step in steps.items():
        step()
        poll(lambda: get(fresh_server, "/v2/stats/store").json[name] == before[name] + 1, 2, name + " counts one")
    after = get(fresh_server, "/v2/stats/store").json
    assert {n: after[n] - before[n] for n in steps} == dict.fromkeys(steps, 1)


def test_9_4_store_counts_sets_and_expiry(fresh_server, fresh_keys):
    for number in range(5):
        fresh_keys.put("/k%d" % number, "v", ttl=1)
    poll(lambda: get(fresh_server, "/v2/stats/store").json["expireCount"] == 5, 5, "5 keys expire")


def test_9_4_counters_survive_a_restart(fresh_server, fresh_keys):
    for number in range(7):
        fresh_keys.put("/k", str(number))
    before = get(fresh_server, "/v2/stats/store").json["setsSuccess"]
    fresh_keys.close()
    fresh_server.restart()
    assert get(fresh_server, "/v2/stats/store").json["setsSuccess"] >= before >= 7


# 9.5 Health.

def when_well(answer):
    """It asks for a read within a second, which a machine that stands still does not give."""
    return answer if answer.status == 200 else None


def test_9_5_health(server):
    for path in ("/health", "/health?exclude=NOSPACE"):
        answer = poll(lambda path=path: when_well(get(server, path)), 20, "it is well")
        assert answer.body == b'{"health":"true"}'
        assert answer.header("Content-Type") == TEXT


@pytest.mark.ours
@pytest.mark.parametrize("daemon", ["raftd", "stored"])
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_9_5_health_is_that_of_the_weakest_daemon(fresh_server, daemon, how):
    """Writes wait for each of them. One that is there and does nothing is as good as gone."""
    pid = fresh_server.daemon(daemon)

    def is_ill():
        if how == signal.SIGKILL:  # Whatever comes in its place, too.
            for one in fresh_server.pids().get(daemon, []):
                os.kill(one, signal.SIGKILL)
        answer = get(fresh_server, "/health")
        return answer if answer.status != 200 else None

    os.kill(pid, how)
    try:
        answer = poll(is_ill, 10, "it is told")
    finally:
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    assert (answer.status, answer.body) == (503, b'{"health":"false"}\n')
    assert answer.header("Content-Type") == TEXT and answer.header("X-Content-Type-Options") == "nosniff"
    poll(lambda: get(fresh_server, "/health").status == 200, 20, "healthy again")


# 9.6 Metrics, debug, log level.

SERIES = [
    'etcd_http_received_total{method="GET"}', 'etcd_http_received_total{method="PUT"}', 'etcd_http_received_total{method="QGET"}',
    'etcd_http_failed_total{code="404",method="GET"}', 'etcd_http_successful_duration_seconds_bucket{method="GET",le="0.0005"}',
    'etcd_http_successful_duration_seconds_bucket{method="GET",le="2.048"}', 'etcd_http_successful_duration_seconds_bucket{method="GET",le="+Inf"}',
    'etcd_http_successful_duration_seconds_sum{method="GET"}', 'etcd_http_successful_duration_seconds_count{method="GET"}',
    'etcd_debugging_store_reads_total{action="get"}', 'etcd_debugging_store_writes_total{action="set"}',
    "etcd_debugging_store_expires_total", "etcd_debugging_store_watch_requests_total", "etcd_debugging_store_watchers",
    "etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total", "etcd_server_proposals_pending", "etcd_server_proposals_failed_total",
    "etcd_server_health_success", "etcd_server_health_failures",
    'etcd_cluster_version{cluster_version="3.4"}', 'etcd_server_version{server_version="3.4.23"}',
    "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds",
]


def metrics(server):
    answer = get(server, "/metrics")
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    values = {}
    for line in answer.body.decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    return values


def test_9_6_metrics_are_prometheus_text(server):
    typed = set()
    for line in get(server, "/metrics").body.decode().splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif line and not line.startswith("#"):
            name = re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", line).group(0)
            assert name in typed or re.sub(r"_(bucket|sum|count)$", "", name) in typed, line


@pytest.mark.parametrize("series", SERIES)
def test_9_6_series(server, keys, root, series):
    keys.put(root + "/k", "v")
    keys.get(root + "/k")
    keys.get(root + "/none")
    keys.get(root + "/k", "quorum=true")
    poll(lambda: series in metrics(server), 3, series)


def test_9_6_metrics_count(fresh_server, fresh_keys):
    series = 'etcd_debugging_store_writes_total{action="set"}'
    before = metrics(fresh_server).get(series, 0)
    for _ in range(5):
        fresh_keys.put("/k", "v")
    poll(lambda: metrics(fresh_server)[series] == before + 5, 3, "5 more sets")
    assert metrics(fresh_server)["etcd_server_has_leader"] == 1 and metrics(fresh_server)["etcd_server_is_leader"] == 1


def test_9_6_what_of_requests_is_counted(fresh_server, fresh_keys):
    """Neither what cannot be parsed nor a watch that began; quorum gets by a name of their own."""
    k = fresh_keys
    k.put("/k", "v")

    def watched():
        with k.watch("/k") as watch:
            k.put("/k", "w")
            watch.event()

    def outdated():
        watch = k.watch("/k", "waitIndex=1")
        watch.close()
        return watch.head

    with Flood(fresh_server, 1, 10, folder="") as flood:
        flood.write(1001)
    k.put("/k", "v")
    received, failed = 'etcd_http_received_total{method="%s"}', 'etcd_http_failed_total{code="%s",method="%s"}'
    done = 'etcd_http_successful_duration_seconds_count{method="%s"}'
    for name, step, wanted in [
            ("get", lambda: k.get("/k"), {received % "GET", done % "GET"}),
            ("head", lambda: k.head("/k"), {received % "HEAD", done % "HEAD"}),
            ("quorum get", lambda: k.get("/k", "quorum=true"), {received % "QGET", done % "QGET"}),
            ("no such key", lambda: k.get("/none"), {received % "GET", failed % (404, "GET")}),
            ("failed swap", lambda: k.put("/k", "x", query="prevValue=y"), {received % "PUT", failed % (412, "PUT")}),
            ("failed delete", lambda: k.delete("/none"), {received % "DELETE", failed % (404, "DELETE")}),
            ("no number", lambda: k.get("/k", "ttl=x"), set()),
            ("no method", lambda: k.call("PATCH", "/v2/keys/k"), set()),
            ("a watch and a write", watched, {received % "PUT", done % "PUT"}),
            ("outdated watch", outdated, {failed % (400, "GET")})]:
        before = counts(fresh_server)
        step()
        poll(lambda: all(counts(fresh_server).get(n, 0) == before.get(n, 0) + 1 for n in wanted), 3, name)
        moved = {n: v - before.get(n, 0) for n, v in counts(fresh_server).items() if v != before.get(n, 0)}
        assert moved == dict.fromkeys(wanted, 1), name


def counts(server):
    """Of requests; the older spelling of one name, which is 2.3's, and sums of times left out."""
    return {n: v for n, v in metrics(server).items() if re.match(r"etcd_http_(received|failed|successful_duration_seconds_count)", n)}


def test_9_6_buckets(server):
    exchange(server.port, "GET", "/v2/keys")
    bounds = [n.split('le="')[1].split('"')[0] for n in metrics(server)
              if n.startswith("etcd_http_successful_duration_seconds_bucket") and 'method="GET"' in n]
    assert [float(b) for b in bounds[:-1]] == [0.0005 * 2 ** k for k in range(13)] and bounds[-1] == "+Inf"


def test_9_6_debug_vars(server):
    answer = get(server, "/debug/vars")
    assert answer.status == 200 and answer.header("Content-Type") == "application/json; charset=utf-8"
    assert answer.body.startswith(b'{\n"cmdline": [') and answer.body.endswith(b"\n}\n")
    variables = json.loads(answer.body)
    assert {"cmdline", "file_descriptor_limit", "memstats", "raft.status"} <= set(variables)
    status = variables["raft.status"]
    identity = get(server, "/v2/members").json["members"][0]["id"]
    assert status["id"] == identity and status["lead"] == identity and status["raftState"] == "StateLeader"
    assert {"term", "vote", "commit", "progress"} <= set(status)


@rows("body, status, answer_body", {
    "9.6-log-debug": (b'{"Level":"DEBUG"}', 204, b""), "9.6-log-lower": (b'{"level":"info"}', 204, b""),
    "9.6-log-bad": (b'{"Level":"zzz"}', 400, b'{"message":"Invalid log level zzz"}'),
    "9.6-log-json": (b"{", 400, b'{"message":"Invalid json body"}')})
def test_9_6_log_level(fresh_server, body, status, answer_body):
    answer = get(fresh_server, "/config/local/log", "PUT", (), body)
    assert (answer.status, answer.body) == (status, answer_body)


@pytest.mark.ours
def test_9_6_the_level_that_was_set_holds(fresh_server):
    """For the gatewayd that was asked: each change is a notice, where notices are told."""
    for level in ("ERROR", "debug", "CRITICAL", "Info"):
        assert get(fresh_server, "/config/local/log", "PUT", (), b'{"Level":"%s"}' % level.encode()).status == 204
    poll(lambda: "gatewayd.log.level level=Info" in fresh_server.log(), 10, "the last line")
    assert re.findall(r"gatewayd\.log\.level level=(\w+)", fresh_server.log()) == ["debug", "Info"]


@pytest.mark.ours
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v3/kv/range", "/v3beta/kv/put", "/v3alpha/watch"])
def test_v3_is_told_what_is_served_and_which_variable_to_set(server, method, path):
    answer = get(server, path, method, (), b"{}" if method == "POST" else None)
    assert answer.status == 501 and answer.header("Content-Type") == JSON
    assert "the etcd v2 API is served here (/v2/keys)" in answer.json["error"] and "set ETCDCTL_API=2" in answer.json["error"]


def test_9_6_pprof_is_off(server):
    assert get(server, "/debug/pprof/").status == 404
