"""Membership at run time: one test per row of the operators' page, section 3, and of the contract's 9.1 where it takes a
cluster. What is refused without one is in ../contract/test_s09_members.py; faults meanwhile are in test_members.py.

One cluster of three is shared; each test leaves it as it found it.
"""

import json
import os
import re
import shutil
import signal
import threading
import time

import pytest
from harness.places import FreePort, poll
from harness.wire import WireError, exchange

from members import JSON, Asked, Cluster, Member, kill_member, signal_daemon, with_a_leader_that_stays

pytestmark = pytest.mark.ours


@pytest.fixture
def three(cluster):
    cluster.start_again()  # First: each lists what it has applied.
    assert len(cluster.list_members()) == 3
    yield cluster


@pytest.fixture
def port():
    with_port = FreePort()
    yield with_port.port
    with_port.release()


def drop(cluster, member):
    """Forgets a member that is out of the cluster, or takes it out."""
    id = getattr(member, "added_id", None)
    if member.runs():
        id = id or member.id
    if id is not None and id in [m["id"] for m in cluster.list_members(cluster.members[0])]:
        leader = cluster.leader()
        through = leader if leader is not member else cluster.members[0]
        gone = cluster.change("DELETE", "/v2/members/" + id, through=through).status
        assert gone in (204, 410)  # 410: whom the list was asked of had not applied the removal yet.
    if member in cluster.members:
        cluster.members.remove(member)
    member.close()


@pytest.fixture
def joiner(three):
    """Adds a member, takes it out in the end."""
    made = []

    def add(**options):
        made.append(three.add(**options))
        return made[-1]

    yield add
    for member in made:
        drop(three, member)


def listed(cluster, id, through=None):
    return next((m for m in cluster.list_members(through) if m["id"] == id), None)


def add_url(cluster, *urls, **more):
    return cluster.change("POST", "/v2/members", dict({"peerURLs": list(urls)}, **more), through=cluster.leader())


def is_promoted(cluster, id):
    """As its cluster's members say; they are shared, and others were promoted before."""
    return any("raftd.member.promoting member=%s " % id in m.log() for m in cluster.members)


def remove(cluster, id):
    answer = cluster.change("DELETE", "/v2/members/" + id, through=cluster.leader())
    assert answer.status == 204, answer


# 3.1, 9.1: what succeeds

def test_3_1_get_lists_by_id_and_alike_on_all(three):
    lists = [three.list_members(m) for m in three.members]
    assert lists[0] == lists[1] == lists[2]
    ids = [int(m["id"], 16) for m in lists[0]]
    assert ids == sorted(ids)
    for member in lists[0]:
        assert list(member) == ["id", "name", "peerURLs", "clientURLs"]
        assert re.fullmatch("[1-9a-f][0-9a-f]{0,15}", member["id"])
    assert sorted(m["name"] for m in lists[0]) == ["m1", "m2", "m3"]


def test_3_1_machines_are_the_client_urls_of_all(three):
    for member in three.members:
        answer = member.ask("GET", "/v2/machines")
        assert answer.body.decode() == ", ".join(sorted(m.url for m in three.members))


@with_a_leader_that_stays
def test_3_1_leader_is_the_leaders_member_object(three):
    leader = three.leader()
    for member in three.members:
        answer = member.ask("GET", "/v2/members/leader")
        assert answer.status == 200 and answer.json == listed(three, leader.id)


def test_3_1_post_adds_an_unstarted_member(three):
    answer = add_url(three, "http://127.0.0.1:9", "http://127.0.0.1:10", name="ignored", id="77")
    assert answer.status == 201 and answer.body.endswith(b"}\n"), answer
    new = answer.json
    assert list(new) == ["id", "name", "peerURLs", "clientURLs"]
    assert (new["name"], new["clientURLs"]) == ("", [])
    assert new["peerURLs"] == ["http://127.0.0.1:10", "http://127.0.0.1:9"]
    assert answer.header("Content-Type") == "application/json" and answer.header("X-Etcd-Cluster-Id")
    three.wait_equal()
    for member in three.members:
        assert listed(three, new["id"], member) == new
        assert new["id"] not in member.ask("GET", "/v2/machines").body.decode()
    remove(three, new["id"])


def test_3_1_post_below_the_collection_adds_too(three):
    answer = three.change("POST", "/v2/members/whatever", {"peerURLs": ["http://127.0.0.1:9"]})
    assert answer.status == 201, answer
    remove(three, answer.json["id"])


def test_3_1_post_of_a_url_that_a_member_has_is_409_on_any_member(three):
    for member in three.members:
        answer = three.change("POST", "/v2/members", {"peerURLs": [three.members[0].peer_url]}, through=member)
        assert (answer.status, answer.json) == (409, {"message": "membership: peerURL exists"})


def test_3_1_put_changes_the_urls_and_keeps_the_id(three, port):
    answer = add_url(three, "http://127.0.0.1:9")
    new = answer.json["id"]
    for through, urls in ((three.followers()[0], ["http://127.0.0.1:%d" % port]), (three.leader(), ["http://127.0.0.1:9"])):
        answer = three.change("PUT", "/v2/members/" + new, {"peerURLs": urls}, through=through)
        assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None), answer
        assert answer.header("X-Etcd-Cluster-Id")
        assert listed(three, new, through)["peerURLs"] == urls
    taken = three.change("PUT", "/v2/members/" + new, {"peerURLs": [three.members[0].peer_url]})
    assert (taken.status, taken.json) == (409, {"message": "membership: peerURL exists"})
    remove(three, new)


def test_3_1_an_id_with_leading_zeros_is_the_same_one(three):
    new = add_url(three, "http://127.0.0.1:9").json["id"]
    answer = three.change("DELETE", "/v2/members/" + new.upper().rjust(16, "0"), through=three.leader())
    assert answer.status == 204, answer


def test_3_1_a_change_knows_what_another_member_acknowledged_before(three):
    follower = three.followers()[0]
    signal_daemon(follower, "stored", signal.SIGSTOP)  # Its own list is old from now on.
    try:
        new = add_url(three, "http://127.0.0.1:9").json["id"]
        again = Asked(follower, "POST", "/v2/members", json.dumps({"peerURLs": ["http://127.0.0.1:9"]}), JSON)
        moved = Asked(follower, "PUT", "/v2/members/" + new, json.dumps({"peerURLs": ["http://127.0.0.1:8"]}), JSON)
        bad = Asked(follower, "POST", "/v2/members", "{", JSON)
        assert bad.answer().status == 400  # Whatever the list is.
        time.sleep(0.3)
    finally:
        signal_daemon(follower, "stored", signal.SIGCONT)
    assert (again.answer().status, again.result.json) == (409, {"message": "membership: peerURL exists"})
    assert moved.answer().status == 204
    signal_daemon(follower, "stored", signal.SIGSTOP)
    try:
        gone = Asked(follower, "DELETE", "/v2/members/" + new)
        time.sleep(0.3)
    finally:
        signal_daemon(follower, "stored", signal.SIGCONT)
    assert gone.answer().status == 204
    assert listed(three, new, follower) is None


def test_3_1_a_removed_id_is_410_for_delete_and_500_for_put(three):
    new = add_url(three, "http://127.0.0.1:9").json["id"]
    answer = three.change("DELETE", "/v2/members/" + new, through=three.leader())
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)
    three.wait_equal()
    for member in three.members:
        gone = member.ask("DELETE", "/v2/members/" + new)
        assert (gone.status, gone.json) == (410, {"message": "Member permanently removed: " + new})
        put = member.ask("PUT", "/v2/members/" + new, '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
        assert (put.status, put.json) == (500, {"message": "Internal Server Error"})


def test_3_1_a_success_means_that_it_is_committed(three):
    """Whoever is asked next, by a quorum read, knows of it."""
    for member in three.members:
        three.wait_equal()  # Who has not heard of the last removal asks for that id again.
        new = three.change("POST", "/v2/members", {"peerURLs": ["http://127.0.0.1:9"]}, through=member).json["id"]
        for other in three.members:
            other.get("/", quorum=True)
            assert listed(three, new, other)
        remove(three, new)


def test_3_1_changes_at_once_are_all_made_or_refused(three):
    """The reference turns a second one into nothing and lets its caller wait for a timeout."""
    answers = []

    def add(number):
        answers.append(three.members[number % 3].ask(
            "POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:%d"]}' % (number + 20), JSON, timeout=30))

    threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [a.json["id"] for a in answers if a.status == 201]
    refused = [a.json["message"] for a in answers if a.status != 201]
    assert made, answers
    assert set(refused) <= {"etcdserver: unhealthy cluster",
                            "etcdserver: re-configuration failed due to not enough started members"}
    three.wait_equal()  # Whoever answered has made it; the others may be about to.
    assert sorted(m["id"] for m in three.list_members(three.leader()) if not m["name"]) == sorted(made)
    for id in made:
        remove(three, id)


def test_3_1_one_url_at_once_is_had_by_one(three):
    """Conflicts are judged when the change is made, not only when it is asked for."""
    answers = []

    def add(member):
        answers.append(member.ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON, timeout=30))

    threads = [threading.Thread(target=add, args=(m,)) for m in three.members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [a.json["id"] for a in answers if a.status == 201]
    assert len(made) == 1, answers
    remove(three, made[0])


def test_4_an_addition_and_an_update_cost_an_index_and_a_removal_two(three):
    """Of the index that clients see. That a learner is promoted costs none."""
    def index():
        return int(three.leader().put("/cost", "1").header("X-Etcd-Index"))

    before = index()
    new = add_url(three, "http://127.0.0.1:9").json["id"]
    added = index()
    assert added == before + 2
    assert three.change("PUT", "/v2/members/" + new, {"peerURLs": ["http://127.0.0.1:10"]}, through=three.leader()).status == 204
    updated = index()
    assert updated == added + 2
    remove(three, new)
    assert index() == updated + 3


def test_4_a_member_that_joins_costs_one_for_its_name_and_none_for_its_promotion(three, joiner):
    before = int(three.leader().put("/cost", "1").header("X-Etcd-Index"))
    member = joiner().start(30)
    poll(lambda: listed(three, member.added_id) and listed(three, member.added_id)["name"], 10, "its name")
    poll(lambda: is_promoted(three, member.added_id), 20, "it votes")
    three.wait_equal()
    after = int(three.leader().put("/cost", "2").header("X-Etcd-Index"))
    assert after == before + 1 + 1 + 1  # Added, named, written.


# 3.2 semantics

def test_3_2_an_added_member_costs_no_quorum_until_it_has_caught_up(three):
    new = add_url(three, "http://127.0.0.1:9").json["id"]
    gone = three.followers()[0]
    kill_member(gone)
    assert three.leader().put("/k", "two of three are enough").status in (200, 201)
    gone.start(30)
    remove(three, new)


def test_3_2_from_one_to_two_stays_available():
    """Where the reference is without a quorum until the second has started."""
    with Cluster(1) as cluster:
        cluster.start()
        second = cluster.add()
        assert cluster.members[0].put("/k", "1").status == 201
        second.start(30)
        assert second.get("/k", quorum=True).json["node"]["value"] == "1"


def test_3_2_a_live_member_that_is_removed_says_why_and_ends_with_0(three, joiner):
    member = joiner().start(30)
    id = member.id
    with_watch = threading.Thread(target=lambda: pytest.raises((OSError, WireError, ValueError), lambda: member.ask(
        "GET", "/v2/keys/w?wait=true", timeout=20).json))
    with_watch.start()
    poll(lambda: member.ask("GET", "/v2/stats/store").json["watchers"] > 0, 10, "the watch")
    assert three.change("DELETE", "/v2/members/" + id, through=three.leader()).status == 204
    assert member.wait_end() == 0
    with_watch.join(10)
    assert not with_watch.is_alive(), "its watch was cut"
    with pytest.raises(OSError):
        exchange(member.port, "GET", "/version", timeout=1)
    assert "the member has been permanently removed from the cluster" in member.log()
    assert "the data-dir used by this member must be removed" in member.log()
    for _ in range(2):
        member.process = None
        member.spawn()
        assert member.wait_end() == 0


def test_3_2_one_that_was_away_learns_of_its_removal_from_the_others(three, joiner):
    member = joiner().start(30)
    id = member.id
    member.stop()
    remove(three, id)
    member.spawn()
    assert member.wait_end() == 0
    assert "permanently removed" in member.log()


def test_3_2_the_same_url_again_is_a_new_member(three, joiner):
    member = joiner().start(30)
    first, urls = member.id, [member.peer_url]
    assert three.change("DELETE", "/v2/members/" + first, through=three.leader()).status == 204
    assert member.wait_end() == 0
    shutil.rmtree(member.data_dir)
    answer = add_url(three, *urls)
    assert answer.status == 201 and answer.json["id"] != first
    member.added_id = answer.json["id"]
    member.start(30)
    assert member.id == member.added_id
    assert three.leader().ask("DELETE", "/v2/members/" + first).status == 410


def test_3_2_an_update_is_dialled_at_once_and_the_old_url_serves_as_long_as_it_listens(three):
    follower = three.followers()[0]
    id, old = follower.id, follower.peer_url
    second = FreePort()
    try:
        follower.stop()
        follower.flags.append("--listen-peer-urls=%s,http://127.0.0.1:%d" % (old, second.port))
        follower.start(30)
        answer = three.change("PUT", "/v2/members/" + id, {"peerURLs": ["http://127.0.0.1:%d" % second.port]}, through=three.leader())
        assert answer.status == 204
        three.leader().put("/updated", "1")
        three.wait_equal()
        assert follower.id == id
        for member in three.members:
            assert listed(three, id, member)["peerURLs"] == ["http://127.0.0.1:%d" % second.port]
    finally:
        three.change("PUT", "/v2/members/" + id, {"peerURLs": [old]}, through=three.leader())
        follower.flags = [f for f in follower.flags if not f.startswith("--listen-peer-urls")]
        second.release()
    follower.restart()
    three.wait_equal()


def test_3_2_a_dead_member_is_replaced_by_removing_it_first(three, joiner):
    dead = joiner().start(30)
    dead_id = dead.id
    poll(lambda: is_promoted(three, dead_id), 10, "it votes")
    kill_member(dead)
    refused = three.wait_missed(dead_id).ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
    assert (refused.status, refused.json) == (500, {"message": "etcdserver: unhealthy cluster"})
    remove(three, dead_id)
    answer = add_url(three, "http://127.0.0.1:9")
    assert answer.status == 201
    remove(three, answer.json["id"])


# 3.3 strict-reconfig-check

NOT_STARTED = {"message": "etcdserver: re-configuration failed due to not enough started members"}
UNHEALTHY = {"message": "etcdserver: unhealthy cluster"}


def test_3_3_unstarted_members_count_as_voters_to_come(three):
    made = []
    try:
        while True:
            answer = three.leader().ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:%d"]}' % (len(made) + 30), JSON)
            if answer.status != 201:
                break
            made.append(answer.json["id"])
            assert len(made) < 3
        assert answer.status == 500 and answer.json in (NOT_STARTED, UNHEALTHY)
        assert made
    finally:
        for id in made:
            remove(three, id)


def test_3_3_a_disconnected_member_can_always_be_removed_and_a_needed_one_not(three, joiner):
    fourth = joiner().start(30)
    fourth_id = fourth.id
    poll(lambda: is_promoted(three, fourth_id), 10, "it votes")
    poll(lambda: three.leader() is not fourth or fourth.stop() is None, 1, "a leader among the three")
    kill_member(fourth)
    leader = three.leader()
    poll(lambda: "raftd.peer.down peer=" + fourth_id in leader.log(), 10, "it is missed")
    needed = next(m for m in three.members if m is not leader and m is not fourth)
    follower_id = needed.id
    other = next(m for m in three.members if m not in (leader, fourth, needed))
    kill_member(other)  # Two of four are left: no quorum, nobody may go.
    answer = leader.ask("DELETE", "/v2/members/" + follower_id, timeout=30)
    assert answer.status == 500, answer
    other.start(30)
    poll(lambda: three.change("DELETE", "/v2/members/" + fourth_id, through=three.leader()).status == 204, 15, "the dead one goes")


def test_3_3_the_check_can_be_switched_off():
    with Cluster(3, ["--strict-reconfig-check=false"]) as cluster:
        cluster.start()
        gone = cluster.followers()[0]
        gone_id = gone.id
        kill_member(gone)
        leader = cluster.leader()
        answer = leader.ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
        assert answer.status == 201, answer
        assert leader.ask("DELETE", "/v2/members/" + answer.json["id"]).status == 204
        assert leader.ask("DELETE", "/v2/members/" + gone_id).status == 204


# 3.4 moving a member is in test_members.py; two with one identity:

def test_3_4_two_processes_with_one_id_are_kept_apart(three):
    """A copy that was started beside its original: it may not speak for it, and says so."""
    follower = three.followers()[0]
    follower.stop()
    copy = Member("copy")
    copy.data_dir = os.path.join(copy.folder, "copied")
    shutil.copytree(follower.data_dir, copy.data_dir, ignore=shutil.ignore_patterns("*.ipc", "run"))
    copy.initial = follower.initial
    try:
        follower.start(30)
        # Not at the URL that the cluster has for that id, so nobody dials it.
        copy.spawn()
        poll(lambda: "raftd.member name=copy" in copy.log(), 15, "the copy runs")
        for i in range(20):
            assert three.leader().put("/copy", str(i)).status in (200, 201)
        three.wait_equal()
        values = {m.get("/copy").json["node"]["value"] for m in three.members}
        assert values == {"19"}
        assert copy.process.poll() is None or copy.process.returncode != 0
    finally:
        copy.close()
    three.leader().put("/copy", "20")
    three.wait_equal()


# 2.2 ids

def test_2_2_a_stranger_is_refused_and_told_to_be_added(three, joiner):
    member = joiner()
    id = member.added_id
    member.start(30)
    assert member.id == id
    stranger = Member("stranger")
    stranger.token = "another"
    stranger.initial = "stranger=%s,%s" % (stranger.peer_url, three.initial_cluster())
    try:
        stranger.spawn()
        poll(lambda: "cluster ID mismatch" in stranger.log(), 15, "it is told")
        poll(lambda: any("cluster ID mismatch: " in m.log() and "; start both with the same" in m.log() for m in three.members),
             10, "the others tell it too, with the mend")
    finally:
        stranger.close()


def test_2_2_two_members_behind_one_url_are_noticed(three):
    """One takes the other's peer URL: who dials it finds another member there."""
    leader = three.leader()
    taken = three.followers()[0]
    new = add_url(three, "http://localhost:%d" % taken.peer_port).json["id"]  # Another spelling, the same place.
    poll(lambda: "to field mismatch: " in leader.log() + taken.log(), 15, "it is told")
    assert "; give each of two processes behind one URL its own" in leader.log() + taken.log()
    remove(three, new)
    assert leader.put("/k", "1").status in (200, 201)
