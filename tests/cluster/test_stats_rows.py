"""What a cluster says of itself, and what it answers while something is missing: one test per row of the contract's
sections on statistics (9.4), on lost leaders and timeouts (11), and of the operators' page on raft (5).

Members share one cluster as far as the tests leave it whole.
"""

import re
import signal
import time

import pytest
from harness.places import poll
from harness.wire import Connection, WireError

import hosts
from members import (
    ELECTION_MS, JSON, PATIENT, PATIENT_MS, Asked, Cluster, Writers, kill_member, signal_daemon, with_a_leader_that_stays)

pytestmark = pytest.mark.ours

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
REQUEST_S = 5 + 2 * ELECTION_MS / 1000
TIMED_OUT = "etcdserver: request timed out"


@pytest.fixture
def three(cluster):
    cluster.start_again()
    return cluster


# 9.4 /v2/stats/self

SELF = ["name", "id", "state", "startTime", "leaderInfo", "recvAppendRequestCnt", "recvPkgRate", "recvBandwidthRate",
        "sendAppendRequestCnt", "sendPkgRate", "sendBandwidthRate"]


@with_a_leader_that_stays
def test_9_4_self_of_each_member_names_itself_and_the_leader(three):
    leader = three.leader()
    for member in three.members:
        stats = member.self_stats()
        assert list(stats) == [name for name in SELF if name in stats]
        assert stats["name"] == member.name
        assert stats["id"] in {m["id"] for m in three.list_members() if m["name"] == member.name}
        assert stats["state"] == ("StateLeader" if member is leader else "StateFollower")
        assert stats["leaderInfo"]["leader"] == leader.id
        assert re.match(r"(\d+h)?(\d+m)?[\d.]+(s|ms|µs|ns)$", stats["leaderInfo"]["uptime"])


@with_a_leader_that_stays
def test_9_4_self_counts_appends_on_both_sides(three):
    leader, followers = three.leader(), three.followers()
    sent = leader.self_stats()["sendAppendRequestCnt"]
    received = [f.self_stats()["recvAppendRequestCnt"] for f in followers]
    for i in range(20):
        leader.put("/count", str(i))
    poll(lambda: leader.self_stats()["sendAppendRequestCnt"] >= sent + 20, 5, "the leader's appends")
    for follower, before in zip(followers, received):
        # One that was slow may have had several writes in one.
        poll(lambda f=follower, b=before: f.self_stats()["recvAppendRequestCnt"] >= b + 10 or leader.put("/count", "more") is None,
             5, "the follower's appends")
    assert leader.self_stats()["recvAppendRequestCnt"] <= sent


@with_a_leader_that_stays
def test_9_4_self_shows_rates_while_there_are_some_and_leaves_them_out_in_silence(three):
    leader, follower = three.leader(), three.followers()[0]
    with Writers([leader], 2):
        def with_rates(member, *names):
            stats = member.self_stats()
            return stats if set(names) <= set(stats) else None

        poll(lambda: with_rates(leader, "sendPkgRate", "sendBandwidthRate"), 5, "rates of the leader")
        stats = poll(lambda: with_rates(follower, "recvPkgRate", "recvBandwidthRate"), 5, "rates of the follower")
        assert stats["recvPkgRate"] > 0 and stats["recvBandwidthRate"] > 20 * stats["recvPkgRate"]
        assert list(stats) == [name for name in SELF if name in stats]
        assert "sendPkgRate" not in stats
    for member in (leader, follower):
        poll(lambda m=member: not any(name.endswith("Rate") for name in m.self_stats()), 10, "no rates in silence")


def test_9_4_self_tells_since_when_the_leader_leads(three):
    before = {m.name: m.self_stats() for m in three.members}
    old = three.leader()
    old.stop()
    old.process = None
    poll(lambda: three.leader().id != before[old.name]["id"], 15, "another leader")
    new = three.leader()
    for member in three.running():
        stats = member.self_stats()
        assert stats["leaderInfo"]["leader"] == new.id
        assert stats["leaderInfo"]["startTime"] > before[member.name]["leaderInfo"]["startTime"]
        assert stats["startTime"] == before[member.name]["startTime"]
    assert new.self_stats()["state"] == "StateLeader"


# 9.4 /v2/stats/leader

LATENCY = ["current", "average", "standardDeviation", "minimum", "maximum"]


def leader_stats(member):
    answer = member.ask("GET", "/v2/stats/leader")
    assert answer.status == 200, answer
    return answer.json


@with_a_leader_that_stays
def test_9_4_leader_lists_each_follower_with_its_latency(three):
    leader = three.leader()
    for i in range(10):
        leader.put("/latency", str(i))
    poll(lambda: all(f["latency"]["maximum"] > 0 for f in leader_stats(leader)["followers"].values()), 10, "latencies")
    stats = leader_stats(leader)
    assert list(stats) == ["leader", "followers"] and stats["leader"] == leader.id
    assert set(stats["followers"]) == {m.id for m in three.followers()}
    for follower in stats["followers"].values():
        latency = follower["latency"]
        assert list(follower) == ["latency", "counts"] and list(latency) == LATENCY
        assert list(follower["counts"]) == ["fail", "success"]
        assert 0 < latency["minimum"] <= latency["average"] <= latency["maximum"] < 10000
        assert latency["minimum"] <= latency["current"] <= latency["maximum"]
        assert follower["counts"]["success"] > 0


@with_a_leader_that_stays
def test_9_4_leader_counts_what_reached_a_follower_and_what_did_not(three):
    leader = three.leader()
    away, other = three.followers()
    away_id = away.id

    def counts():
        return leader_stats(leader)["followers"][away_id]["counts"]

    before = counts()
    leader.put("/counts", "1")
    poll(lambda: counts()["success"] > before["success"], 5, "successes grow")
    kill_member(away)
    poll(lambda: counts()["fail"] > before["fail"], 10, "failures grow")
    failed = counts()["fail"]
    leader.put("/counts", "2")
    poll(lambda: counts()["fail"] > failed, 10, "and go on growing while writes do not reach it")
    assert other.runs()


@with_a_leader_that_stays
def test_9_4_leader_is_403_on_all_others(three):
    for follower in three.followers():
        answer = follower.ask("GET", "/v2/stats/leader")
        assert (answer.status, answer.json) == (403, {"message": "not current leader"})


def test_9_4_leader_shows_a_member_never_reached_and_forgets_a_removed_one(three):
    leader = three.leader()
    answer = three.change("POST", "/v2/members", {"peerURLs": ["http://127.0.0.1:1"]}, through=leader)
    assert answer.status == 201, answer
    new = answer.json["id"]
    never = poll(lambda: leader_stats(leader)["followers"].get(new), 5, "the new one is listed")
    assert never["latency"] == {"current": 0, "average": 0, "standardDeviation": 0,
                                "minimum": 9223372036854776000, "maximum": 0}
    assert never["counts"]["success"] == 0
    assert three.change("DELETE", "/v2/members/" + new, through=leader).status == 204
    poll(lambda: new not in leader_stats(leader)["followers"], 5, "the removed one is forgotten")


# 11: all is there

def test_11_a_write_on_a_follower_is_seen_by_the_next_plain_read_there(three):
    for follower in three.followers():
        for i in range(50):
            written = follower.put("/seen", "%s-%d" % (follower.name, i))
            assert written.status in (200, 201)
            assert follower.get("/seen").json["node"]["value"] == "%s-%d" % (follower.name, i)


def test_11_plain_reads_are_local_and_quorum_reads_are_not(three):
    follower = three.followers()[0]
    three.leader().put("/local", "old")
    three.wait_equal()
    signal_daemon(follower, "raftd", signal.SIGSTOP)
    try:
        assert three.leader().put("/local", "new").status == 200
        assert follower.get("/local").json["node"]["value"] == "old"
        asked = Asked(follower, "GET", "/v2/keys/local?quorum=true")
        time.sleep(0.3)
        assert asked.result is None
    finally:
        signal_daemon(follower, "raftd", signal.SIGCONT)
    assert asked.answer().json["node"]["value"] == "new"


def test_11_a_write_passed_on_to_a_leader_that_dies_is_made_once_by_the_next_one(three):
    leader = three.leader()
    followers = three.followers()
    # What is passed on to it lies in its socket, unread.
    signal_daemon(leader, "raftd", signal.SIGSTOP)
    asked = [Asked(followers[i % 2], "POST", "/v2/keys/passed", "value=%d" % i, FORM) for i in range(8)]
    time.sleep(0.1)
    kill_member(leader)
    for one in asked:
        assert one.answer().status == 201, one.result
    three.wait_equal()
    nodes = followers[0].get("/passed").json["node"]["nodes"]
    assert sorted(n["value"] for n in nodes) == [str(i) for i in range(8)]


def test_11_a_timeout_after_a_change_of_leader_names_it(three):
    leader = three.leader()
    follower, other = three.followers()
    id = leader.id
    signal_daemon(follower, "stored", signal.SIGSTOP)
    try:
        kill_member(leader)
        asked = []

        def led():  # One of them comes shortly before the next leader does, whenever that is.
            asked.append(Asked(follower, "PUT", "/v2/keys/late", "value=1", FORM))
            return other.leader_id() not in ("", id)

        poll(led, 20, "another leader", every=0.1)
        answers = [one.answer() for one in asked]
    finally:
        signal_daemon(follower, "stored", signal.SIGCONT)
    assert {a.status for a in answers} == {500}
    causes = {a.json["cause"] for a in answers}
    assert TIMED_OUT + ", possibly due to previous leader failure" in causes
    assert causes <= {TIMED_OUT + ", possibly due to previous leader failure", TIMED_OUT, TIMED_OUT + ", possibly due to connection lost"}
    # It may still have been applied, and here it was.
    poll(lambda: follower.get("/late").status == 200, 10, "the write")


def test_11_a_timeout_of_a_member_that_cannot_reach_the_leader_says_so():
    """It hears the leader's heartbeats, and nothing that it says arrives."""
    reason = hosts.missing()
    if reason is not None:
        pytest.skip(reason)
    with hosts.Network(3) as network:
        members = [hosts.HostMember(network, i + 1, PATIENT) for i in range(3)]
        for member in members:
            member.initial = ",".join("%s=%s" % (m.name, m.peer_url) for m in members)
        try:
            for member in members:
                member.spawn()
            for member in members:
                member.wait_ready()
            leader = poll(lambda: next((m for m in members if m.leader_id() == m.id), None), 10, "a leader")
            mute = next(m for m in members if m is not leader)
            network.drop_to_port(mute.host, leader.host, 2380)
            poll(lambda: "raftd.peer.down peer=" + leader.id in mute.log(), 10, "its link is gone")
            answer = mute.put("/k", "1", timeout=30)
            assert (answer.status, answer.json["errorCode"]) == (500, 300)
            assert answer.json["cause"] == TIMED_OUT + ", possibly due to connection lost"
            assert mute.leader_id() == leader.id
            network.heal()
            poll(lambda: mute.put("/k", "2", timeout=30).status in (200, 201), 20, "writes again")
        finally:
            for member in members:
                member.close()


# 11: no quorum. All that waits for the timeout waits at once.

WAITS = {
    "put": ("PUT", "/v2/keys/x", "value=1", FORM),
    "post": ("POST", "/v2/keys/x", "value=1", FORM),
    "delete": ("DELETE", "/v2/keys/there", None, ()),
    "cas": ("PUT", "/v2/keys/there?prevValue=1", "value=2", FORM),
    "quorum-get": ("GET", "/v2/keys/there?quorum=true", None, ()),
    "members-put": ("PUT", "/v2/members/%s", '{"peerURLs":["http://127.0.0.1:7"]}', JSON),
    "members-post": ("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:7"]}', JSON),
    "members-delete": ("DELETE", "/v2/members/%s", None, ()),
}


class Lonely:
    def __init__(self, cluster):
        self.member = cluster.leader()
        self.others = cluster.followers()
        assert self.member.put("/there", "1").status in (200, 201)
        self.due = self.member.ask("PUT", "/v2/keys/due", "value=1&ttl=3", FORM).json["node"]
        cluster.wait_equal()
        other = self.others[0].id
        for follower in self.others:
            kill_member(follower)
        poll(lambda: self.member.leader_id() == "", 10, "the leader steps down")
        self.asked = {}
        for name, (method, target, body, headers) in WAITS.items():
            self.asked[name] = Asked(self.member, method, target.replace("%s", other), body, headers)


@pytest.fixture(scope="module")
def lonely():
    with Cluster(3) as made:
        yield Lonely(made.start())


def test_11_an_isolated_leader_steps_down(lonely):
    answer = lonely.member.ask("GET", "/v2/members/leader")
    assert (answer.status, answer.json) == (503, {"message": "During election"})
    answer = lonely.member.ask("GET", "/v2/stats/leader")
    assert (answer.status, answer.json) == (403, {"message": "not current leader"})
    assert lonely.member.self_stats()["state"] in ("StateFollower", "StatePreCandidate", "StateCandidate")


def test_5_nothing_expires_without_a_quorum_and_what_is_left_is_told_below_0(lonely):
    """Its time is over, and nobody may say so alone."""
    seen = []

    def is_below_0():
        answer = lonely.member.ask("GET", "/v2/keys/due")
        assert answer.status == 200, answer
        node = answer.json["node"]
        assert node["expiration"] == lonely.due["expiration"]
        seen.append(node.get("ttl"))
        return seen[-1] is not None and seen[-1] < 0

    poll(is_below_0, 20, "a ttl below 0", every=0.1)
    assert 0 not in seen, "nothing stands for 0"
    told = [ttl or 0 for ttl in seen]
    assert told[0] <= 3 and told == sorted(told, reverse=True), "counted down: %s" % told


def test_11_health_is_503(lonely):
    answer = lonely.member.ask("GET", "/health")
    assert (answer.status, answer.body) == (503, b'{"health":"false"}\n')


@pytest.mark.parametrize("method, target, status", [
    ("GET", "/v2/keys/there", 200), ("HEAD", "/v2/keys/there", 200), ("GET", "/v2/keys/nope", 404),
    ("GET", "/v2/machines", 200), ("GET", "/v2/members", 200), ("GET", "/version", 200), ("GET", "/v2/stats/self", 200),
    ("GET", "/v2/stats/store", 200), ("GET", "/v2/auth/users", 200), ("GET", "/v2/auth/roles", 200),
    ("GET", "/v2/auth/enable", 200)])
def test_11_what_needs_no_quorum_is_answered_from_here(lonely, method, target, status):
    assert lonely.member.ask(method, target).status == status  # What waits for a quorum is answered with 500 in the end.


def test_11_a_watch_begins_without_a_quorum(lonely):
    with Connection(lonely.member.port, "127.0.0.1") as connection:
        connection.send(b"GET /v2/keys/there?wait=true HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.read_head().status == 200


@pytest.mark.parametrize("name", ["put", "post", "delete", "cas", "quorum-get"])
def test_11_keys_time_out_with_300(lonely, name):
    answer = lonely.asked[name].answer()
    assert (answer.status, answer.header("X-Etcd-Index")) == (500, "0")
    assert answer.json == {"errorCode": 300, "message": "Raft Internal Error", "cause": TIMED_OUT, "index": 0}
    assert lonely.asked[name].took_s >= REQUEST_S - 0.1


@pytest.mark.parametrize("name", ["members-put", "members-post", "members-delete"])
def test_11_changes_of_members_time_out_with_500(lonely, name):
    answer = lonely.asked[name].answer()
    assert (answer.status, answer.json) == (500, {"message": "Internal Server Error"})
    assert lonely.asked[name].took_s >= REQUEST_S - 0.1


def test_11_a_write_that_came_without_a_leader_is_made_once_there_is_one(lonely):
    for asked in lonely.asked.values():
        asked.answer()
    lonely.others[0].spawn()
    answers = []

    def is_made():  # Asked again where the other one took longer to be there than a request may wait.
        answers.append(lonely.member.ask("PUT", "/v2/keys/queued/%d" % len(answers), "value=1", FORM))
        return answers[-1].status == 201

    poll(is_made, 30, "the write")
    assert all(answer.json["cause"] == TIMED_OUT for answer in answers[:-1])
    lonely.others[0].wait_ready(30)
    poll(lambda: lonely.member.ask("GET", "/health").status == 200, 10, "healthy again")


def test_11_a_server_that_stops_says_so_to_those_who_wait(lonely):
    kill_member(lonely.others[0])
    poll(lambda: lonely.member.leader_id() == "", 10, "no leader")
    asked = Asked(lonely.member, "PUT", "/v2/keys/stopped", "value=1", FORM)
    poll(lambda: int(lonely.member.status("gatewayd")["gatewayd_requests_pending"]) > 0, 10, "it waits")
    assert lonely.member.stop() == 143
    answer = asked.answer()
    assert (answer.status, answer.json["errorCode"], answer.json["cause"]) == (500, 300, "etcdserver: server stopped")


# 6.5 watches

def test_6_5_a_watch_outlives_leader_and_quorum_and_goes_on_with_them(three):
    leader = three.leader()
    follower, other = three.followers()
    follower.put("/watched", "0")
    three.wait_equal()
    with Connection(follower.port, "127.0.0.1", 40) as connection:
        connection.send(b"GET /v2/keys/watched?wait=true&stream=true HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.read_head().status == 200
        kill_member(leader)
        kill_member(other)
        poll(lambda: follower.leader_id() == "", 10, "no leader")
        assert connection.quiet(0.3), "the watch stays open, and says nothing"
        other.start(30)
        other.put("/watched", "1")
        assert b'"value":"1"' in connection.read_until(b'}}\n')


# 9.3, 9.4, 11: a cluster that never had a leader

def test_a_member_that_never_had_a_leader_says_so():
    """Its port is open, since readiness is not having a leader."""
    with Cluster(3) as cluster:
        member = cluster.members[0]
        member.spawn()

        def answers():
            try:
                return member.ask("GET", "/version").status == 200
            except (OSError, WireError):
                return False

        poll(answers, 20, "its port is open")
        answer = member.ask("GET", "/version")
        assert answer.body == b'{"etcdserver":"3.4.23","etcdcluster":"not_decided"}'
        stats = member.self_stats()
        assert stats["leaderInfo"]["leader"] == "" and stats["state"] in ("StateFollower", "StatePreCandidate", "StateCandidate")
        assert member.ask("GET", "/v2/members/leader").status == 503 and member.ask("GET", "/health").status == 503
        assert (member.ask("GET", "/v2/machines").status, member.ask("GET", "/v2/machines").body) == (200, b"")
        # All three, of the flags: applied a moment after the port is open.
        poll(lambda: [(m["name"], len(m["peerURLs"]), m["clientURLs"]) for m in member.ask("GET", "/v2/members").json["members"]] == 3 * [("", 1, [])],
             10, "the members")
        for other in cluster.members[1:]:
            other.spawn()
        for each in cluster.members:
            each.wait_ready()
            assert each.ask("GET", "/version").body == b'{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}'


# 5 raft

@with_a_leader_that_stays
def test_5_a_quorum_read_writes_no_log_entry(three):
    leader = three.leader()
    leader.put("/q", "1")
    three.wait_equal()
    before = leader.get("/q").header("X-Raft-Index")
    for member in three.members:
        for _ in range(10):
            assert member.get("/q", quorum=True).status == 200
    assert leader.get("/q").header("X-Raft-Index") == before


@with_a_leader_that_stays
def test_5_an_idle_cluster_logs_nothing_where_nothing_expires(three):
    before = three.wait_equal()
    time.sleep(2)
    assert three.wait_equal() == before


def test_5_keys_expire_on_all_members_at_one_index(three):
    since = int(three.leader().put("/ttl", "x").header("X-Etcd-Index")) + 1
    watches = [Asked(m, "GET", "/v2/keys/ttl?wait=true&waitIndex=%d" % (since + 1)) for m in three.members]
    three.followers()[0].ask("PUT", "/v2/keys/ttl", "value=1&ttl=1", FORM)
    events = [w.answer().json for w in watches]
    assert {e["action"] for e in events} == {"expire"}
    assert len({e["node"]["modifiedIndex"] for e in events}) == 1


def test_5_two_changes_of_members_at_once_are_made_one_after_the_other(three):
    """Where the reference loses the second."""
    leader = three.leader()
    three.change("GET", "/v2/members")
    ids = [m.id for m in three.followers()]
    urls = {m.id: m.peer_url for m in three.followers()}
    asked = [Asked(m, "PUT", "/v2/members/" + i, '{"peerURLs":["%s"]}' % urls[i], JSON)
             for i in ids for m in three.members]
    assert [a.answer().status for a in asked] == [204] * len(asked)
    assert leader.runs()


def test_5_a_member_that_was_stopped_for_long_takes_no_leadership():
    """Pre-vote: its elections cost the others nothing."""
    with Cluster(3, PATIENT) as cluster:
        cluster.start()
        leader = cluster.leader()
        term = leader.get("/").header("X-Raft-Term")
        follower = cluster.followers()[0]
        signal_daemon(follower, "raftd", signal.SIGSTOP)
        time.sleep(3 * PATIENT_MS / 1000)
        signal_daemon(follower, "raftd", signal.SIGCONT)
        leader.put("/pre", "1")
        cluster.wait_equal()
        assert cluster.leader() is leader
        assert leader.get("/").header("X-Raft-Term") == term


def test_5_linearizable_reads_can_be_the_default():
    with Cluster(3, ["--linearizable-reads"]) as cluster:
        cluster.start()
        follower = cluster.followers()[0]
        leader = cluster.leader()
        for i in range(100):
            leader.put("/linear", str(i))
            assert follower.get("/linear").json["node"]["value"] == str(i)
        for member in cluster.members:
            if member is not follower:
                kill_member(member)
        asked = [Asked(follower, "GET", "/v2/keys/linear"), Asked(follower, "GET", "/v2/keys/linear?quorum=false")]
        watch = Asked(follower, "GET", "/v2/keys/linear?wait=true&waitIndex=1&recursive=true")
        assert watch.answer().status == 200, "a watch of the past needs no quorum"
        for one in asked:
            assert (one.answer().status, one.result.json["errorCode"]) == (500, 300)
