"""What a client notices of a leader that goes, and of what was on its way to it.

How long writes stand still is measured by tests/bench/compare.py (failover, planned-stop, heal); here are bounds that a
loaded machine keeps too.
"""

import time

import pytest
from harness.places import poll

from members import ELECTION_MS, PATIENT, Asked, Writers
from test_faults import FORM, HostCluster, cut, network_of  # noqa: F401: a fixture

pytestmark = [pytest.mark.ours, pytest.mark.slow]

REQUEST_TIMEOUT_S = 5 + 2 * ELECTION_MS / 1000


@pytest.fixture
def apart(request, network_of):  # noqa: F811
    """Three members on hosts of their own; with these flags, if a test names some."""
    with HostCluster(network_of(3), getattr(request, "param", ())) as cluster:
        yield cluster.start()


class Puts:
    """Ten writes at once of keys of their own, at these members in turn, from the clients' host."""

    def __init__(self, network, members, folder):
        self.values = {"/%s/%d" % (folder, i): "v%d" % i for i in range(10)}
        self.asked = [Asked(members[i % len(members)], "PUT", "/v2/keys" + key, "value=" + value, FORM, network=network)
                      for i, (key, value) in enumerate(self.values.items())]

    def join(self):
        for one in self.asked:
            one.join()

    def assert_written_once(self, cluster):
        self.join()
        for key, one in zip(self.values, self.asked):
            assert getattr(one.result, "status", None) == 201, (key, one.result)
        cluster.wait_equal()
        for key, value in self.values.items():
            node = cluster.members[0].get(key).json["node"]
            assert node["value"] == value
            assert node["createdIndex"] == node["modifiedIndex"], "done twice"


@pytest.mark.limit(120)
def test_what_was_passed_on_to_a_leader_that_is_lost_is_proposed_by_the_next(apart):
    leader = apart.leader()
    rest = [m for m in apart.members if m is not leader]
    cut(apart.network, leader)
    # The others still take it for the leader: these go to it, and are lost on the way.
    puts = Puts(apart.network, rest, "lost")
    puts.join()
    apart.network.heal()
    puts.assert_written_once(apart)


@pytest.mark.limit(120)
def test_what_a_cut_off_leader_took_is_proposed_by_the_next_when_it_is_back(apart):
    leader = apart.leader()
    rest = [m for m in apart.members if m is not leader]
    cut(apart.network, leader)
    puts = Puts(apart.network, [leader], "taken")
    poll(lambda: rest[0].leader_id() not in ("", leader.id), 20, "another leader")
    apart.network.heal()
    puts.assert_written_once(apart)


@pytest.mark.limit(120)
@pytest.mark.parametrize("apart", [PATIENT], indirect=True, ids=["patient"])
def test_what_was_lost_on_a_link_that_broke_is_passed_on_again(apart):
    """The leader stays, so no term tells: the follower asks it."""
    leader, follower = apart.leader(), apart.followers()[0]
    term = leader.get("/").header("X-Raft-Term")
    apart.network.drop((follower.host, leader.host))  # It hears the leader, and is not heard.
    puts = Puts(apart.network, [follower], "mute")
    is_down = "raftd.peer.down peer=%s " % leader.id
    poll(lambda: is_down in follower.log(), 10, "the link is given up")
    apart.network.heal()
    puts.assert_written_once(apart)
    assert leader.get("/").header("X-Raft-Term") == term


def test_killing_the_leader_refuses_no_write_of_another_members_client(three):
    leader = three.leader()
    rest = [m for m in three.members if m is not leader]
    with Writers(rest, timeout=5 * REQUEST_TIMEOUT_S) as writers:  # Long enough to be told of a refusal.
        poll(lambda: len(writers.moments) > 50, 10, "writes")
        leader.kill()
        since = time.monotonic()
        poll(lambda: writers.moments[-1] > since + 3 * ELECTION_MS / 1000, 20, "writes go on")
    assert writers.refused == 0
