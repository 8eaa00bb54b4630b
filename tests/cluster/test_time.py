"""Cluster time: whatever becomes of members and of their clocks, a key goes when its time is over: not before, and no more
than two seconds after.

A key's time is that of the world, as this test counts it: what has gone by since the write was answered, with what it let go
by while everything was down."""

import calendar
import os
import time

import pytest
from harness.places import poll, scratch_dir
from harness.wire import WireError

from clocks import HOUR_S, Clock
from disaster import backup_of, force, plain_member
from members import Cluster, kill_member

pytestmark = [pytest.mark.ours, pytest.mark.slow]  # they wait for deadlines

FULL = os.environ.get("QUORATE_TEST_SIZE", "default") == "full"

LATE_S = 2.0
# On a loaded machine answers come late, and what was a whole second for etcd's shape of `ttl` is rounded.
SLACK_S = 0.7
FORM = [("Content-Type", "application/x-www-form-urlencoded")]
DAY_S = 24 * HOUR_S
SOON_S = 14  # after a restart: enough for it to be over before


class World:
    """Three members, each with a clock of its own, and the time that has gone by."""

    def __init__(self, size=3, flags=()):
        self.cluster = Cluster(size, flags)
        self.clocks = []
        for member in self.cluster.members:
            clock = Clock(member.folder)
            member.env = clock.env
            self.clocks.append(clock)
        self.passed_s = 0.0
        self.due = {}  # key: (not before, not after), in the world's time
        self.created = {}  # key: its index

    def now(self):
        return time.monotonic() + self.passed_s

    def clock_of(self, member):
        return self.clocks[self.cluster.members.index(member)]

    def pass_time(self, seconds, reboot=False):
        """Everything is down for that long."""
        assert not self.cluster.running()
        for clock in self.clocks:
            if reboot:
                clock.reboot(seconds)
            else:
                clock.pass_time(seconds)
        self.passed_s += seconds

    def put(self, member, key, ttl_s):
        began = self.now()

        def done():
            try:
                answer = member.ask("PUT", "/v2/keys" + key, "value=x&ttl=%d" % ttl_s, FORM, timeout=5)
                return answer if answer.status in (200, 201) else None
            except (OSError, WireError):
                return None

        answer = poll(done, 20, "a write")
        self.due[key] = (began + ttl_s, self.now() + ttl_s)
        self.created[key] = answer.json["node"]["createdIndex"]
        return answer.json["node"]

    def exists(self, member, key):
        """False only where it was: a member may not have got it yet."""
        answer = member.get(key)
        return answer.status == 200 or int(answer.header("X-Etcd-Index")) < self.created[key]

    def check_gone(self, member, key, due, late_s=LATE_S):
        """Watches a key to its end. How late it went is told by when it was last seen: how long it was not looked at, while members
        started or this process waited for a processor, is no lateness. Returns that, in seconds."""
        late = 0.0
        while True:
            asked = self.now()
            if not self.exists(member, key):
                return late
            late = asked - due
            assert late <= late_s + SLACK_S, "%s is still there %.2f s late" % (key, late)
            time.sleep(0.03)

    def check_expiry(self, member, key):
        """It goes when its time is over: neither before, nor much later."""
        earliest, latest = self.due[key]
        late = self.check_gone(member, key, latest)
        now = self.now()
        assert now >= earliest - 0.05, "%s went %.2f s early" % (key, earliest - now)
        return late

    def check_not_early(self, member, key):
        """It is there, or by now has no reason to be."""
        is_there = self.exists(member, key)
        assert is_there or self.now() >= self.due[key][0] - 0.05, "%s went early" % key

    def check_shown(self, key, expiration):
        """A deadline that a write was answered with: somebody stamped it between its beginning and its end."""
        earliest, latest = (at + time.time() - time.monotonic() for at in self.due[key])
        assert earliest - LATE_S - SLACK_S <= expiration <= latest + LATE_S + SLACK_S, (key, earliest, expiration, latest)

    def wait_readable(self, member):
        """Until a read is served from a state that is complete, and there is a leader."""

        def ready():
            try:
                return member.get("/", quorum=True, timeout=5).status == 200
            except (OSError, WireError):
                return False

        poll(ready, 30, "quorum reads")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cluster.close()


def expiration_of(node):
    """The world's wall clock at the deadline that a node shows."""
    text = node["expiration"].rstrip("Z").split(".")
    return calendar.timegm(time.strptime(text[0], "%Y-%m-%dT%H:%M:%S")) + (float("0." + text[1]) if len(text) > 1 else 0)


@pytest.fixture
def world():
    with World() as world:
        yield world


@pytest.mark.parametrize("reboot", [False, True], ids=["hosts stay up", "hosts start anew"])
def test_a_whole_cluster_that_was_down_for_an_hour_expires_what_was_due_and_nothing_else(world, reboot):
    cluster = world.cluster.start()
    leader = cluster.leader()
    world.put(leader, "/due-meanwhile", HOUR_S // 2)
    world.put(leader, "/due-soon-after", HOUR_S + SOON_S)
    world.put(leader, "/due-later", 2 * HOUR_S)
    cluster.wait_equal()
    for member in cluster.members:
        kill_member(member)
    world.pass_time(HOUR_S, reboot)
    for member in cluster.members:
        member.spawn()
    for member in cluster.members:
        world.wait_readable(member)
    world.check_gone(cluster.members[0], "/due-meanwhile", world.now())
    world.check_not_early(cluster.members[0], "/due-soon-after")
    world.check_expiry(cluster.members[1], "/due-soon-after")
    assert world.exists(cluster.members[2], "/due-later")
    asked = world.now()
    ttl = cluster.members[2].get("/due-later").json["node"]["ttl"]
    earliest, latest = world.due["/due-later"]
    assert earliest - world.now() - 1 - SLACK_S <= ttl <= latest - asked + 1 + SLACK_S


def test_a_rolling_restart_of_an_idle_cluster_moves_no_deadline(world):
    cluster = world.cluster.start()
    for seconds in (9, 16):
        world.put(cluster.leader(), "/in-%d" % seconds, seconds)
    cluster.wait_equal()
    for member in cluster.followers() + [cluster.leader()]:
        member.stop()
        time.sleep(1.5)  # idle: what comes back has seen neither entry nor heartbeat for a while
        member.start(30)
    for seconds in (9, 16):
        world.check_expiry(cluster.members[0], "/in-%d" % seconds)


def test_killed_leaders_one_after_the_other_move_no_deadline(world):
    cluster = world.cluster.start()
    for seconds in (8, 12):
        world.put(cluster.leader(), "/in-%d" % seconds, seconds)
    for _ in range(3):
        leader = cluster.leader()
        kill_member(leader)
        cluster.leader()
        leader.start(30)
    for seconds in (8, 12):
        world.check_expiry(cluster.members[0], "/in-%d" % seconds)


def test_a_backup_that_is_restored_a_month_later_expires_what_was_due_and_nothing_else(world):
    cluster = world.cluster.start()
    leader = cluster.leader()
    world.put(leader, "/due-meanwhile", 10 * DAY_S)
    world.put(leader, "/due-soon-after", 30 * DAY_S + SOON_S)
    world.put(leader, "/due-later", 60 * DAY_S)
    cluster.wait_equal()
    with scratch_dir("month") as folder:
        backup_of(leader, os.path.join(folder, "b"))
        for member in cluster.members:
            kill_member(member)
        world.pass_time(30 * DAY_S, reboot=True)
        with plain_member("restored") as copy:
            copy.env = world.clock_of(leader).env
            force(copy, os.path.join(folder, "b"))
            world.check_gone(copy, "/due-meanwhile", world.now())
            world.check_expiry(copy, "/due-soon-after")
            assert world.exists(copy, "/due-later")


@pytest.mark.parametrize("who, seconds", [
    ("leader", HOUR_S), ("follower", -HOUR_S)] + ([("leader", -HOUR_S), ("follower", HOUR_S)] if FULL else []))
def test_a_wall_clock_that_is_set_wrong_on_one_member_moves_no_deadline(world, who, seconds):
    cluster = world.cluster.start()
    leader = cluster.leader()
    member = leader if who == "leader" else cluster.followers()[0]
    world.put(leader, "/before", 8)
    world.put(leader, "/long", 2 * HOUR_S)
    world.clock_of(member).step_wall(seconds)
    time.sleep(1)
    node = world.put(leader, "/after", 8)
    world.check_shown("/after", expiration_of(node))
    # The one with the wrong clock is to lead, and to hand over again.
    others = [m for m in cluster.members if m is not member]
    for other in others if who == "follower" else [member]:
        other.stop()
        cluster.leader()
        other.start(30)
    world.check_expiry(others[0], "/before")
    world.check_expiry(others[1], "/after")
    node = world.put(cluster.leader(), "/last", 5)
    world.check_shown("/last", expiration_of(node))
    world.check_expiry(member, "/last")
    assert world.exists(member, "/long")


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
@pytest.mark.parametrize("number", [0, 1, 2] if FULL else [0])
def test_a_new_cluster_with_one_wrong_clock_expires_nothing_early(world, number, seconds):
    # Any of the three may lead first: one in three runs it is the one with the wrong clock.
    world.clocks[number].step_wall(seconds)
    cluster = world.cluster
    for member in cluster.members:
        member.spawn()
    node = world.put(cluster.members[0], "/at-once", 5)
    world.check_shown("/at-once", expiration_of(node))
    world.check_expiry(cluster.members[1], "/at-once")


@pytest.mark.parametrize("seconds", [-HOUR_S] + ([HOUR_S] if FULL else []))
def test_a_cluster_that_was_down_for_an_hour_and_has_one_wrong_clock_gives_no_key_less_than_its_time(world, seconds):
    """The first keys after the start are the ones in danger: cluster time is an hour behind then."""
    cluster = world.cluster.start()
    world.put(cluster.leader(), "/due-later", 2 * HOUR_S)
    cluster.wait_equal()
    wrong = cluster.followers()[0]
    for member in cluster.members:
        kill_member(member)
    world.pass_time(HOUR_S, reboot=True)
    world.clock_of(wrong).step_wall(seconds)
    for member in cluster.members:
        member.spawn()
    world.put(cluster.members[0], "/at-once", 5)
    for member in cluster.members:
        world.wait_readable(member)
    world.check_expiry(cluster.members[0], "/at-once")
    assert world.exists(cluster.members[1], "/due-later")


@pytest.mark.parametrize("seconds", [HOUR_S] + ([-HOUR_S] if FULL else []))
def test_a_restarted_cluster_with_one_wrong_clock_moves_no_deadline(world, seconds):
    cluster = world.cluster.start()
    world.put(cluster.leader(), "/k", 11)
    world.put(cluster.leader(), "/long", 2 * HOUR_S)
    cluster.wait_equal()
    wrong = cluster.leader()
    for member in cluster.members:
        kill_member(member)
    world.clock_of(wrong).step_wall(seconds)
    for member in cluster.members:
        member.spawn()
    for member in cluster.members:
        world.wait_readable(member)
    world.check_expiry(cluster.members[0], "/k")
    assert world.exists(cluster.members[0], "/long")


def test_a_lone_member_takes_its_own_clock_at_a_start_and_never_later():
    with World(1) as world:
        member = world.cluster.start().members[0]
        world.put(member, "/k", 4)
        world.put(member, "/long", HOUR_S // 2)
        world.clocks[0].step_wall(HOUR_S)  # a wrong hand, while it runs
        world.check_expiry(member, "/k")
        assert world.exists(member, "/long")
        world.clocks[0].step_wall(-HOUR_S)
        world.put(member, "/due-meanwhile", HOUR_S // 2)
        world.put(member, "/due-soon-after", HOUR_S + SOON_S)
        kill_member(member)
        world.pass_time(HOUR_S, reboot=True)
        member.start(30)
        world.check_gone(member, "/due-meanwhile", world.now())
        world.check_expiry(member, "/due-soon-after")
