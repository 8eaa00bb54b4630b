"""What a client notices of a leader that goes, and of what was on its way to it.

How long writes stand still is measured by tests/bench/compare.py (failover, planned-stop, heal); here are bounds that a
loaded machine keeps too.
"""

import threading
import time

import pytest
from harness.places import poll
from harness.wire import WireError

from members import ELECTION_MS, Cluster, Writers
from test_faults import HostCluster, network_of, others  # noqa: F401: a fixture

pytestmark = [pytest.mark.ours, pytest.mark.slow]

REQUEST_TIMEOUT_S = 5 + 2 * ELECTION_MS / 1000


@pytest.fixture
def three():
    with Cluster(3) as cluster:
        yield cluster.start()


class Asked(threading.Thread):
    """One write, from a thread of its own."""

    def __init__(self, network, member, key, value):
        super().__init__(daemon=True)
        self.network, self.member, self.key, self.value = network, member, key, value
        self.answer = None
        self.start()

    def run(self):
        self.network.enter()
        try:
            self.answer = self.member.put(self.key, self.value, timeout=30)
        except (OSError, WireError) as why:
            self.answer = why


def cut(network, member):
    network.drop(*[pair for other in others(network, member.host)
                   for pair in ((member.host, other), (other, member.host))])


def assert_written_once(cluster, asked):
    for one in asked:
        assert getattr(one.answer, "status", None) == 201, (one.key, one.answer)
    cluster.wait_equal()
    for one in asked:
        node = cluster.members[0].get(one.key).json["node"]
        assert node["value"] == one.value
        assert node["createdIndex"] == node["modifiedIndex"], "done twice"


@pytest.mark.limit(120)
def test_what_was_passed_on_to_a_leader_that_is_lost_is_proposed_by_the_next(network_of):  # noqa: F811
    network = network_of(3)
    with HostCluster(network) as cluster:
        cluster.start()
        leader = cluster.leader()
        rest = [m for m in cluster.members if m is not leader]
        cut(network, leader)
        # The others still take it for the leader: these go to it, and are lost on the way.
        asked = [Asked(network, rest[i % 2], "/lost/%d" % i, "v%d" % i) for i in range(10)]
        for one in asked:
            one.join()
        network.heal()
        assert_written_once(cluster, asked)


@pytest.mark.limit(120)
def test_what_a_cut_off_leader_took_is_proposed_by_the_next_when_it_is_back(network_of):  # noqa: F811
    network = network_of(3)
    with HostCluster(network) as cluster:
        cluster.start()
        leader = cluster.leader()
        rest = [m for m in cluster.members if m is not leader]
        cut(network, leader)
        asked = [Asked(network, leader, "/taken/%d" % i, "v%d" % i) for i in range(10)]
        poll(lambda: rest[0].leader_id() not in ("", leader.id), 20, "another leader")
        network.heal()
        for one in asked:
            one.join()
        assert_written_once(cluster, asked)


@pytest.mark.limit(120)
def test_what_was_lost_on_a_link_that_broke_is_passed_on_again(network_of):  # noqa: F811
    """The leader stays, so no term tells: the follower asks it."""
    network = network_of(3)
    with HostCluster(network) as cluster:
        cluster.start()
        leader, follower = cluster.leader(), cluster.followers()[0]
        term = leader.get("/").header("X-Raft-Term")
        network.drop((follower.host, leader.host))  # It hears the leader, and is not heard.
        asked = [Asked(network, follower, "/mute/%d" % i, "v%d" % i) for i in range(10)]
        poll(lambda: follower.log().count("raftd.peer.down") > 0, 10, "the link is given up")
        network.heal()
        for one in asked:
            one.join()
        assert_written_once(cluster, asked)
        assert leader.get("/").header("X-Raft-Term") == term


def test_killing_the_leader_refuses_no_write_of_another_members_client(three):
    leader = three.leader()
    rest = [m for m in three.members if m is not leader]
    with Writers(rest, timeout=REQUEST_TIMEOUT_S) as writers:
        poll(lambda: len(writers.moments) > 50, 10, "writes")
        leader.kill()
        since = time.monotonic()
        poll(lambda: writers.moments[-1] > since + 3 * ELECTION_MS / 1000, 20, "writes go on")
    assert writers.refused == 0
