"""The members of a cluster change while clients write through all of them: no acknowledged write is lost, and who was removed
ends by itself with status 0, each time it is started again."""

import shutil
import time

import pytest
from harness.places import FreePort, poll
from harness.wire import WireError

from members import PATIENT, Cluster, Writers, kill_member

pytestmark = [pytest.mark.ours, pytest.mark.slow]


class Load:
    """Writers before, during and after a change; the check at the end is of every member that runs."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.writers = Writers(cluster.members)

    def __enter__(self):
        self.writers.__enter__()
        self.more()
        return self

    def more(self, count=60):
        """That many writes more are acknowledged."""
        have = len(self.writers.moments)
        poll(lambda: len(self.writers.moments) >= have + count, 30, "writes go on")

    def __exit__(self, *failure):
        try:
            if failure[0] is None:
                self.more()
        finally:
            self.writers.stop()
        if failure[0] is None:
            self.cluster.wait_equal(30)
            for member in self.cluster.running():
                self.writers.check(member)


def remove(cluster, member, through):
    """Removes a member; how long it then took to end, with status 0."""
    answer = cluster.change("DELETE", "/v2/members/" + member.id, through=through)
    assert answer.status == 204, answer
    began = time.monotonic()
    assert member.wait_end() == 0, member.log()[-2000:]
    return time.monotonic() - began


def test_a_member_is_added_under_load(three):
    with Load(three) as load:
        member = three.add().start(60)
        poll(lambda: any("raftd.member.promoting" in m.log() for m in three.members), 20, "promotion")
        load.more()
        id = member.id
        # It counts: of four members three are the quorum, and it is one of them.
        kill_member(three.leader())
        load.more()
    assert id == member.added_id


def test_a_follower_is_removed_under_load_and_ends(three, measured):
    leader = three.leader()
    follower = three.followers()[0]
    with Load(three) as load:
        took_s = remove(three, follower, leader)
        load.more()
    measured.times("a removed follower ends", [took_s])
    assert len(three.list_members(leader)) == 2


def test_the_leader_is_removed_under_load_and_ends(three, measured):
    leader = three.leader()
    rest = [m for m in three.members if m is not leader]
    with Load(three) as load:
        took_s = remove(three, leader, rest[0])
        load.more()
    measured.times("a removed leader ends", [took_s])
    assert len(three.list_members(rest[0])) == 2


@pytest.mark.parametrize("three", [PATIENT], indirect=True, ids=["patient"])
def test_a_removed_member_that_is_started_again_under_load_ends_again(three, measured):
    leader = three.leader()
    follower = three.followers()[0]
    with Load(three) as load:
        remove(three, follower, leader)
        took = []
        for _ in range(2):
            began = time.monotonic()
            follower.spawn()
            assert follower.wait_end() == 0, follower.log()[-2000:]
            took.append(time.monotonic() - began)
            load.more()
    measured.times("a removed member starts and ends again", took)
    assert follower.log().count("the member has been permanently removed from the cluster") == 3
    assert three.leader() is leader  # and it disturbed nobody


def test_a_member_that_was_away_when_it_was_removed_learns_it_when_it_comes_back(three):
    leader = three.leader()
    follower = three.followers()[0]
    id = follower.id
    with Load(three) as load:
        kill_member(follower)
        assert three.change("DELETE", "/v2/members/" + id, through=leader).status == 204
        load.more()
        follower.spawn()
        assert follower.wait_end() == 0, follower.log()[-2000:]
        load.more()
    assert leader.ask("DELETE", "/v2/members/" + id).status == 410


def test_a_member_moves_to_a_new_address_under_load(three):
    leader = three.leader()
    follower = three.followers()[0]
    id = follower.id
    with Load(three) as load:
        follower.stop()
        load.more()
        moved = follower.data_dir + "-moved"
        shutil.move(follower.data_dir, moved)
        follower.data_dir = moved
        for _ in range(2):
            follower._ports.append(FreePort())
        follower.peer_port, follower.port = (p.port for p in follower._ports[-2:])
        answer = three.change("PUT", "/v2/members/" + id, {"peerURLs": [follower.peer_url]}, through=leader)
        assert answer.status == 204, answer
        load.more()
        follower.start(30)
        load.more()
        # It is part of the quorum where it is now.
        kill_member([m for m in three.members if m not in (leader, follower)][0])
        load.more()
    assert follower.id == id

    def listed():
        return next(m for m in three.list_members(leader) if m["id"] == id)

    assert listed()["peerURLs"] == [follower.peer_url]
    poll(lambda: listed()["clientURLs"] == [follower.url], 10, "its new client URL, which it tells when it is there")


def test_all_three_members_are_exchanged_one_by_one_under_load():
    """Remove, then add, as a member with a dead disk is replaced; in the end none of the first is left."""
    with Cluster(3) as cluster:
        cluster.start()
        first = {m.id for m in cluster.members}
        old = list(cluster.members)
        with Load(cluster) as load:
            for gone in old:
                through = [m for m in cluster.running() if m is not gone][0]
                remove(cluster, gone, through)
                load.more()
                cluster.add().start(60)
                load.more()

                def is_whole():
                    try:
                        listed = cluster.list_members()
                        return len(listed) == 3 and all(m["clientURLs"] for m in listed)
                    except (OSError, WireError):
                        return False

                poll(is_whole, 30, "three started members")
                load.writers.members[:] = cluster.running()
        assert not first & {m["id"] for m in cluster.list_members()}
