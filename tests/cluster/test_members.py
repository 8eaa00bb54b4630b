"""Three members on loopback: what stays when one goes, comes back, is added, removed, moved."""

import itertools
import os
import signal
import time

import pytest
from harness.flood import put_all
from harness.places import poll
from harness.wire import WireError

from members import ELECTION_MS, JSON, Cluster, Writers, kill_daemon, kill_member, peer_figure, with_a_leader_that_stays

pytestmark = pytest.mark.ours


def test_the_first_user_write_of_n_members_has_index_2n_plus_2(three):
    leader = three.leader()
    assert leader.put("/first", "1").json["node"]["createdIndex"] == 8


def test_a_write_through_any_member_is_read_through_all(three):
    for i, member in enumerate(three.members):
        assert member.put("/k", str(i)).status in (200, 201)
        for other in three.members:
            assert other.get("/k", quorum=True).json["node"]["value"] == str(i)


@with_a_leader_that_stays
def test_all_members_name_the_same_leader_and_only_it_serves_leader_stats(three):
    leader = three.leader()
    for member in three.members:
        assert member.ask("GET", "/v2/members/leader").json["id"] == leader.id
        answer = member.ask("GET", "/v2/stats/leader")
        if member is leader:
            assert answer.json["leader"] == leader.id
            assert set(answer.json["followers"]) == {m.id for m in three.members if m is not leader}
        else:
            assert answer.status == 403


@with_a_leader_that_stays
def test_the_status_socket_of_the_leader_says_how_far_the_others_are(three):
    leader = three.leader()
    others = [m for m in three.members if m is not leader]
    assert leader.put("/k", "v").status in (200, 201)

    def is_even():
        status = leader.status("raftd")
        last = status["raftd_last_index"]
        return all(status.get(peer_figure("match_index", m.id)) == last for m in others)

    poll(is_even, 10, "all have what the leader has")
    status = leader.status("raftd")
    assert status["raftd_voters"] == "3" and status["raftd_is_leader"] == "1"
    for member in others:
        own = member.status("raftd")
        assert own["raftd_is_leader"] == "0" and own["raftd_leader_id"] == status["raftd_self_id"]
        assert not [name for name in own if name.startswith("raftd_peer_match_index")]
        poll(lambda m=member: int(m.status("raftd")[peer_figure("reachable_ms", leader.id)]) > 0, 10, "the leader is reached")


def test_after_a_killed_leader_writes_go_on(three, measured):
    gaps = []
    for _ in range(3):
        leader = three.leader()
        others = [m for m in three.members if m is not leader]
        with Writers(others) as writers:
            poll(lambda: len(writers.moments) > 50, 10, "writes")
            since = time.monotonic()
            kill_member(leader)
            poll(lambda: writers.moments[-1] > since + 3 * ELECTION_MS / 1000, 20, "writes go on")
        gaps.append(writers.largest_gap(since - 0.2)[0])
        leader.start()
        three.wait_equal()
        writers.check(leader)
    measured.times("without writes after a killed leader (1.5 election timeouts: %d ms)" % (1.5 * ELECTION_MS), gaps)


def test_a_follower_that_was_away_catches_up(three):
    follower = three.followers()[0]
    kill_member(follower)
    for i in range(200):
        assert three.leader().put("/away/%d" % i, "x").status == 201
    follower.start()
    three.wait_equal()
    assert follower.get("/away/199").json["node"]["value"] == "x"


def test_all_members_restart_from_their_disks_and_keep_what_was_acknowledged(three):
    with Writers(three.members) as writers:
        poll(lambda: len(writers.moments) > 300, 20, "writes")
    for member in three.members:
        kill_member(member)
    three.start()
    three.wait_equal()
    for member in three.members:
        writers.check(member)


@pytest.mark.parametrize("daemon", ["raftd", "stored", "gatewayd"])
def test_a_killed_daemon_of_any_member_costs_no_acknowledged_write(three, daemon):
    with Writers(three.members) as writers:
        for member in three.members:
            kill_daemon(member, daemon)
            count = len(writers.moments)
            poll(lambda c=count: len(writers.moments) > c + 50, 20, "writes go on")
    three.wait_equal()
    for member in three.members:
        writers.check(member)


def test_without_a_quorum_nothing_is_acknowledged_and_plain_reads_go_on(three):
    three.leader().put("/k", "1")
    three.wait_equal()
    rest, *gone = three.members
    for member in gone:
        kill_member(member)
    answer = rest.put("/k", "2", timeout=30)
    assert answer.status == 500 and answer.json["errorCode"] == 300, answer
    assert rest.get("/k").json["node"]["value"] == "1"
    poll(lambda: rest.ask("GET", "/v2/members/leader").status == 503, 10, "the leader is given up")


def test_a_planned_stop_of_the_leader_fails_no_write(three, measured):
    leader = three.leader()
    others = [m for m in three.members if m is not leader]
    with Writers(others, timeout=30) as writers:  # It is the members that may not refuse any, however long they take.
        poll(lambda: len(writers.moments) > 50, 10, "writes")
        since = time.monotonic()
        leader.stop()
        count = len(writers.moments)
        poll(lambda: len(writers.moments) > count + 50, 10, "writes go on")
    measured.times("without writes at a planned stop of the leader", [writers.largest_gap(since - 0.2)[0]])
    assert writers.refused == 0


def test_a_far_behind_member_is_brought_a_snapshot():
    with Cluster(3, ["--snapshot-count=500", "--max-snapshots=2"]) as cluster:
        cluster.start()
        follower = cluster.followers()[0]
        kill_member(follower)
        turns = itertools.count()

        def write():
            turn = next(turns)
            put_all(cluster.leader(), {"/s/%d" % i: "%d" % turn * 200 for i in range(300)})

        for _ in range(13):
            write()
        cluster.outrun(write)
        last = next(turns) - 1
        follower.start()
        cluster.wait_equal(30)
        follower.said("recovered from incoming snapshot")
        assert follower.get("/s/299").json["node"]["value"] == "%d" % last * 200
        follower.restart()
        cluster.wait_equal(30)


def test_a_member_is_added_joins_and_is_promoted(three):
    three.leader().put("/k", "1")
    member = three.add().start(30)
    assert member.id == member.added_id
    assert member.get("/k", quorum=True).json["node"]["value"] == "1"
    poll(lambda: any("raftd.member.promoting" in m.log() for m in three.members), 10, "promotion")
    three.wait_equal()
    kill_member(three.leader())  # Three of four are the quorum: it votes.

    def is_written():
        # A write that was passed on to a leader who was dead already, and not yet missed, is lost with it.
        try:
            return member.put("/k", "2", timeout=3).status == 200
        except (OSError, WireError):
            return False

    poll(is_written, 20, "writes with the new member")


def test_a_removed_follower_exits_0_and_does_so_again_on_restart(three):
    follower = three.followers()[0]
    id = follower.id
    # The removed member must not be the one that is asked: it may be gone before it can answer.
    answer = three.change("DELETE", "/v2/members/" + id, through=three.leader())
    assert answer.status == 204, answer
    assert follower.wait_end() == 0
    assert "permanently removed from the cluster" in follower.log()
    follower.process = None
    follower.spawn()
    assert follower.wait_end() == 0
    leader = three.leader()
    assert leader.ask("DELETE", "/v2/members/" + id).status == 410
    assert leader.put("/k", "1").status in (200, 201)


def test_the_leader_can_be_removed(three):
    leader = three.leader()
    rest = [m for m in three.members if m is not leader]
    with Writers(rest) as writers:
        poll(lambda: len(writers.moments) > 20, 10, "writes")
        assert three.change("DELETE", "/v2/members/" + leader.id, through=rest[0]).status == 204
        assert leader.wait_end() == 0
        count = len(writers.moments)
        poll(lambda: len(writers.moments) > count + 20, 10, "writes go on")
    three.wait_equal()
    writers.check(rest[0])


def test_a_member_moves_to_a_new_address_with_its_data(three):
    from harness.places import FreePort

    follower = three.followers()[0]
    leader = three.leader()
    id = follower.id
    follower.stop()
    follower._ports.append(FreePort())
    follower.peer_port = follower._ports[-1].port
    answer = three.change("PUT", "/v2/members/" + id, {"peerURLs": [follower.peer_url]}, through=leader)
    assert answer.status == 204, answer
    leader.put("/k", "moved")
    follower.start()
    three.wait_equal()
    assert follower.id == id
    assert follower.get("/k").json["node"]["value"] == "moved"


def test_a_member_with_a_lost_data_dir_is_refused_with_the_mend(three):
    follower = three.followers()[0]
    three.wait_equal()
    kill_member(follower)
    os.system("rm -rf '%s'" % follower.data_dir)
    follower.spawn()
    assert follower.wait_end() == 2
    assert "has already been bootstrapped" in follower.log()
    assert not os.path.exists(os.path.join(follower.data_dir, "member", "wal", "LOCK"))


def test_a_joiner_whose_list_differs_is_refused(three):
    member = three.add()
    good = member.initial
    member.initial = ",".join(good.split(",")[1:])
    member.spawn()
    assert member.wait_end() == 2
    assert "member count is unequal" in member.log()
    member.process = None
    member.initial = good.replace(three.members[0].peer_url, "http://127.0.0.1:1")
    member.spawn()
    assert member.wait_end() == 2
    assert "unmatched member while checking PeerURLs" in member.log()
    member.process = None
    member.initial = good
    member.start(30)


def test_another_cluster_is_refused_and_the_log_says_what_differs():
    with Cluster(3) as cluster:
        cluster.members[2].token = "another"
        for member in cluster.members:
            member.spawn()
        cluster.members[0].wait_ready(30)
        assert cluster.members[0].put("/k", "1").status == 201
        poll(lambda: "cluster ID mismatch" in cluster.members[0].log(), 10, "the mismatch is told")
        poll(lambda: "cluster ID mismatch" in cluster.members[2].log(), 10, "and by the other one")


def test_a_stopped_member_is_missed_and_taken_back(three):
    leader = three.leader()
    rest = [m for m in three.members if m is not leader]
    with Writers(rest) as writers:
        poll(lambda: len(writers.moments) > 20, 10, "writes")
        for pid in leader.session_pids():
            os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        poll(lambda: writers.moments[-1] > since + 2 * ELECTION_MS / 1000, 20, "writes go on")
        for pid in leader.session_pids():
            os.kill(pid, signal.SIGCONT)
    three.wait_equal()
    writers.check(leader)


def test_the_strict_check_gives_its_reason(three):
    gone = three.followers()[0]
    id = gone.id
    kill_member(gone)
    leader = three.wait_missed(id)
    body = '{"peerURLs":["http://127.0.0.1:1"]}'
    answer = leader.ask("POST", "/v2/members", body, JSON)
    assert answer.status == 500 and b"unhealthy cluster" in answer.body, answer
