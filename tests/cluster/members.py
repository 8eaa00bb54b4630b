"""Clusters of real members on loopback ports, and what to do to them."""

import functools
import json
import os
import signal
import threading
import time

from harness.places import poll, scratch_root
from harness.server import Quorate
from harness.wire import WireError, exchange
from harness.workers import Workers

# Shorter than the defaults, so that a test with five elections stays short; the ratio is the defaults' own.
HEARTBEAT_MS, ELECTION_MS = 50, 500
CLOCK = ["--heartbeat-interval=%d" % HEARTBEAT_MS, "--election-timeout=%d" % ELECTION_MS]
# Where a test shows that nobody stood for election without need: a shared machine may stand still for longer than the clock
# above allows a leader to be silent, and an election is needed then.
PATIENT_MS = 5 * ELECTION_MS
PATIENT = ["--election-timeout=%d" % PATIENT_MS]
JSON = [("Content-Type", "application/json")]


class Member(Quorate):
    """One member; its initial cluster is set before it starts."""

    def __init__(self, name, flags=(), **options):
        super().__init__(CLOCK + list(flags), **options)
        self.name = name
        self.initial = None
        self.state = "new"
        self.token = "etcd-cluster"

    def command(self):
        return self.wrapper + [
            self.binary(), "--name=" + self.name, "--data-dir=" + self.data_dir,
            "--listen-client-urls=" + self.url, "--advertise-client-urls=" + self.url,
            "--listen-peer-urls=" + self.peer_url, "--initial-advertise-peer-urls=" + self.peer_url,
            "--initial-cluster=" + self.initial, "--initial-cluster-state=" + self.state,
            "--initial-cluster-token=" + self.token,
        ] + self.flags

    def ask(self, method, target, body=None, headers=(), timeout=15):
        data = body.encode() if isinstance(body, str) else body
        return exchange(self.port, method, target, headers=headers, body=data, timeout=timeout)

    def put(self, key, value, timeout=15):
        return self.ask("PUT", "/v2/keys" + key, "value=" + value,
                        [("Content-Type", "application/x-www-form-urlencoded")], timeout)

    def get(self, key, quorum=False, timeout=15):
        return self.ask("GET", "/v2/keys%s%s" % (key, "?quorum=true" if quorum else ""), timeout=timeout)

    def self_stats(self):
        """What it says of itself; ValueError: it answers, but with an error, as one whose state is still being built may."""
        answer = self.ask("GET", "/v2/stats/self")
        if answer.status != 200:
            raise ValueError("%s has no stats of its own: %s" % (self.name, answer))
        return answer.json

    @property
    def id(self):
        return self.self_stats()["id"]

    def leader_id(self):
        """The leader's id as this member knows it; empty: none, or it does not answer."""
        try:
            return self.self_stats()["leaderInfo"]["leader"]
        except (OSError, WireError, ValueError):
            return ""

    def runs(self):
        return self.process is not None and self.process.poll() is None


class Cluster:
    """Members named m1, m2 ...; closed with all of them."""

    def __init__(self, size, flags=(), token="etcd-cluster"):
        self.members = [Member("m%d" % (i + 1), flags) for i in range(size)]
        self.flags = list(flags)
        for member in self.members:
            member.initial = self.initial_cluster()
            member.token = token

    def initial_cluster(self):
        return ",".join("%s=%s" % (m.name, m.peer_url) for m in self.members)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for member in self.members:
            member.close()

    def start(self):
        for member in self.members:
            member.spawn()
        for member in self.members:
            member.wait_ready(30)
        # One that serves may still have to tell the others its name, and only then counts as started.
        poll(lambda: {m.name for m in self.members} <= {m["name"] for m in self.list_members()}, 15, "all names are told")
        return self

    def start_again(self):
        """All run and say the same, whatever the test before left."""
        for member in self.members:
            if not member.runs():
                member.process = None
                member.spawn()
        for member in self.members:
            member.wait_ready(30)
        self.wait_equal()

    def running(self):
        return [m for m in self.members if m.runs()]

    def leader(self, timeout=15):
        """The member that all running ones take for the leader."""

        def agreed():
            running = self.running()
            known = {m.leader_id() for m in running}
            if len(known) != 1 or known == {""}:
                return None
            found = [m for m in running if m.id in known]
            return found[0] if found else None

        return poll(agreed, timeout, "one leader")

    def term(self):
        """The newest that its members know of."""
        return max(int(member.get("/").header("X-Raft-Term")) for member in self.running())

    def followers(self):
        leader = self.leader()
        return [m for m in self.running() if m is not leader]

    def add(self, flags=()):
        """Adds a member to the running cluster; it is not started yet."""
        member = Member("m%d" % (len(self.members) + 1), self.flags + list(flags))
        answer = self.change("POST", "/v2/members", {"peerURLs": [member.peer_url]})
        assert answer.status == 201, answer
        member.added_id = answer.json["id"]
        self.members.append(member)
        # What was removed before is in nobody's list any more.
        known = {u for m in self.list_members() for u in m["peerURLs"]}
        member.initial = ",".join("%s=%s" % (m.name, m.peer_url) for m in self.members if m.peer_url in known)
        member.state = "existing"
        return member

    def change(self, method, target, body=None, through=None, timeout=30):
        """A membership change; one that the strict check refuses for the cluster's health, or because members that have just
        started are not registered yet, is tried again."""
        member = through or self.running()[0]
        last = []

        def done():
            answer = member.ask(method, target, json.dumps(body) if body is not None else None, JSON)
            last[:] = [answer]
            early = answer.status == 500 and (b"unhealthy" in answer.body or b"not enough started" in answer.body)
            return None if early else answer

        return poll(done, timeout, "%s %s" % (method, target))

    def list_members(self, through=None):
        return (through or self.running()[0]).ask("GET", "/v2/members").json["members"]

    def wait_equal(self, timeout=20):
        """Until all running members have applied the same; returns that raft index. One whose gatewayd is just being started
        again does not answer yet."""

        def equal():
            seen = set()
            for member in self.running():
                try:
                    answer = member.get("/")
                except (OSError, WireError):
                    return None
                seen.add((answer.header("X-Raft-Index"), answer.header("X-Etcd-Index")))
            return seen.pop() if len(seen) == 1 else None

        return poll(equal, timeout, "equal indexes")

    def wait_missed(self, id, timeout=20):
        """Until the leader has noticed that this member is gone: that its process is does not mean so yet. Returns the leader."""

        def missed():
            leader = self.leader()
            return leader if leader.status("raftd").get(peer_figure("reachable_ms", id), "0") == "0" else None

        return poll(missed, timeout, "the leader misses " + id)

    def outrun(self, write, timeout=60):
        """Writes until no member that runs has in its log what comes next for one that is away: it can only come back by a
        snapshot. When one is made depends on how much was written when the last was begun, and on the disk."""
        last = max(int(member.get("/").header("X-Raft-Index")) for member in self.running())

        def outran():
            write()
            return all(int(member.status("raftd")["raftd_base_index"]) > last for member in self.running())

        poll(outran, timeout, "the log begins behind what the one that is away has", every=0.1)


def with_a_leader_that_stays(test):
    """For a test that would see nothing amiss in another leader than the one that it began with, but cannot show what it is to
    show then. A machine that stands still for longer than an election timeout has another one elected, and rightly: what was
    seen meanwhile is void, and the test begins anew; twice at most."""

    @functools.wraps(test)
    def run(three):
        for is_last in (False, False, True):
            three.leader()
            term = three.term()
            try:
                return test(three)
            except (AssertionError, TimeoutError):
                if is_last or three.term() == term:
                    raise
            three.start_again()

    return run


def peer_figure(name, id):
    """The name of a figure of raftd's status page about another member."""
    return 'raftd_peer_%s{peer="%s"}' % (name, id.rjust(16, "0"))


class Writers(Workers):
    """Clients that write without pause, each its own keys; what was acknowledged is kept."""

    def __init__(self, members, count=8, timeout=1.5):
        self.members = list(members)
        self.timeout = timeout
        self.acknowledged = {}  # key: value
        self.moments = []
        self.refused = 0
        super().__init__(count)

    def work(self, number):
        turn, position = number, 0
        lives = [0] * 50  # of each key
        while not self.is_over():
            member = self.members[position % len(self.members)] if position else self.members[number % len(self.members)]
            key, value = "/load/%d-%d-%d" % (number, turn % 50, lives[turn % 50]), "%d" % turn
            try:
                answer = member.put(key, value, timeout=self.timeout)
                is_written = answer.status in (200, 201)
            except (OSError, WireError):
                is_written = False
            if is_written:
                self.acknowledged[key] = value
                self.moments.append(time.monotonic())
            else:
                # What becomes of it is not known: it may still be made after a later one. So this key has none.
                lives[turn % 50] += 1
                self.refused += 1
                position += 1 + number
            turn += 1

    def largest_gap(self, since=0.0):
        """(seconds, when it began) of the longest time without an acknowledged write that ended after then."""
        moments = sorted(self.moments)
        return max(((b - a), a) for a, b in zip(moments, moments[1:]) if b >= since)

    def check(self, member):
        """All that was acknowledged can be read."""
        for key, value in self.acknowledged.items():
            answer = member.get(key, quorum=False)
            assert answer.status == 200, (key, answer)
            assert int(answer.json["node"]["value"]) >= int(value), (key, value, answer.json)


def signal_daemon(member, name, number):
    os.kill(member.daemon(name), number)


class Asked(threading.Thread):
    """A request under way; with a network, from its clients' host."""

    def __init__(self, member, method, target, body=None, headers=(), timeout=30, network=None):
        super().__init__(daemon=True)
        self.call = (method, target, body, headers, timeout)
        self.member, self.network, self.result, self.took_s = member, network, None, None
        self.start()

    def run(self):
        if self.network is not None:
            self.network.enter()
        began = time.monotonic()
        try:
            self.result = self.member.ask(*self.call)
        except (OSError, WireError) as failure:
            self.result = failure
        self.took_s = time.monotonic() - began

    def answer(self, timeout=30):
        self.join(timeout)
        assert not self.is_alive(), "no answer: %s" % (self.call,)
        return self.result


def kill_member(member):
    """The whole member at once, as a power switch would."""
    member.kill()


def kill_daemon(member, name):
    os.kill(member.daemon(name), signal.SIGKILL)


def data_root():
    return scratch_root()
