"""The rows of clusters: three members of each kind on one machine, their rates, and how long they stand still.

What is asked of members of both kinds is what etcd's own clients ask; who leads is read from /v2/stats/self.
"""

import contextlib
import os
import sys
import time

from bench_rows import KEYS, at_least, at_most, below, connections_text, group, medians, report_load, rounds
from bench_tools import Void, background, fill, load, median, percentile, wrk
from harness import poll
from harness.server import Etcd, Quorate
from harness.wire import Connection, WireError
from harness.workers import Workers

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import hosts  # noqa: E402

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
HEARTBEAT_MS, ELECTION_MS = 100, 1000  # Both servers' defaults, said in full.


class _Member:
    """What a member of a cluster has on top of a server; mixed into both kinds."""

    initial = None
    host = None

    def __init__(self, name, flags, network=None, host=None):
        wrapper = ["ip", "netns", "exec", network.name(host)] if network else []
        super().__init__(flags, wrapper=wrapper)
        self.name, self.host = name, host
        self.address = "10.77.0.%d" % host if network else "127.0.0.1"
        if network:
            self.port, self.peer_port = 2379, 2380

    @property
    def url(self):
        return "http://%s:%d" % (self.address, self.port)

    @property
    def peer_url(self):
        return "http://%s:%d" % (self.address, self.peer_port)

    def command(self):
        return self.wrapper + [
            self.binary(), "--name=" + self.name, "--data-dir=" + self.data_dir,
            "--listen-client-urls=" + self.url, "--advertise-client-urls=" + self.url,
            "--listen-peer-urls=" + self.peer_url, "--initial-advertise-peer-urls=" + self.peer_url,
            "--initial-cluster=" + self.initial, "--enable-v2", "--heartbeat-interval=%d" % HEARTBEAT_MS,
            "--election-timeout=%d" % ELECTION_MS,
        ] + self.flags

    def main_pid(self):
        return self.process.pid  # ip replaced itself

    def ask(self, method, target, body=None, timeout=5):
        data = body.encode() if isinstance(body, str) else body
        with Connection(self.port, self.address, timeout) as connection:
            return connection.request(method, target, FORM if data else (), data)

    def stats(self):
        try:
            return self.ask("GET", "/v2/stats/self", timeout=2).json
        except (OSError, WireError, ValueError):
            return {}

    def leads(self):
        return self.stats().get("state") == "StateLeader"

    def term(self):
        return int(self.ask("GET", "/v2/keys").header("X-Raft-Term"))

    def position(self):
        return int(self.ask("GET", "/v2/keys").header("X-Raft-Index"))

    def writes(self, timeout=5, key="/probe"):
        """Whether a write through this member is acknowledged."""
        try:
            return self.ask("PUT", "/v2/keys" + key, "value=1", timeout).status in (200, 201)
        except (OSError, WireError):
            return False

    def wait_ready(self, timeout=30.0):
        def ready():
            if self.process.poll() is not None:
                raise RuntimeError("%s ended with %s:\n%s" % (self.name, self.process.returncode, self.log()[-2000:]))
            try:
                return self.ask("GET", "/v2/keys?quorum=true").status == 200
            except (OSError, WireError):
                return False

        poll(ready, timeout, self.name + " ready")


class _EtcdMember(_Member, Etcd):
    pass


class _QuorateMember(_Member, Quorate):
    pass


class Three:
    """Three members of one kind. Towards the rows of rates it is a server: its leader's address, all members' costs."""

    def __init__(self, kind, flags=(), network=None):
        make = _EtcdMember if kind == "etcd" else _QuorateMember
        self.kind = kind
        self.members = [make("m%d" % (i + 1), flags, network, i + 1 if network else None) for i in range(3)]
        for member in self.members:
            member.initial = ",".join("%s=%s" % (m.name, m.peer_url) for m in self.members)
        self._leader = None

    def __enter__(self):
        for member in self.members:
            member.spawn()
        for member in self.members:
            member.wait_ready()
        self.leader()
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.close()

    def running(self):
        return [m for m in self.members if m.process is not None]

    def leader(self, timeout=20):
        def found():
            leaders = [m for m in self.running() if m.leads()]
            return leaders[0] if len(leaders) == 1 else None

        self._leader = poll(found, timeout, "one leader")
        return self._leader

    def followers(self):
        leader = self.leader()
        return [m for m in self.running() if m is not leader]

    @property
    def url(self):
        return self._leader.url

    @property
    def port(self):
        return self._leader.port

    def cpu_seconds(self):
        return sum(m.cpu_seconds() for m in self.running())

    def wait_equal(self, timeout=60):
        poll(lambda: len({m.position() for m in self.running()}) == 1, timeout, "equal members", every=0.02)


@contextlib.contextmanager
def clusters(settings, flags=()):
    with contextlib.ExitStack() as stack:
        yield {kind: stack.enter_context(Three(kind, flags)) for kind in settings.kinds}


# Rates.

LOADS = [
    # script, connections, through a follower, aim
    ("put", 256, False, at_least(2)),
    ("put", 64, False, None),
    ("put", 1, False, at_most(1)),
    ("put", 64, True, None),
    ("put", 1, True, None),
    ("quorum", 64, False, at_least(2)),
    ("quorum", 1, False, None),
    ("quorum", 64, True, None),
]


def rates_of(settings, report, script):
    with clusters(settings) as running:
        for cluster in running.values():
            fill(cluster, "/bench", KEYS)
        for name, connections, through_follower, aim in LOADS:
            if name != script:
                continue
            text = "cluster of 3: %s, %s%s" % (
                "PUT" if script == "put" else "quorum GET", connections_text(connections), " to a follower" if through_follower else "")

            def measure(cluster):
                cluster.leader()
                if through_follower:
                    cluster._leader = cluster.followers()[0]
                return wrk(cluster, script + ".lua", connections, settings.seconds)

            try:
                results = rounds(settings, running, measure)
            except Void as why:
                report.void(text, why)
                continue
            report_load(report, text, connections, results, aim, aim)
            report.row(text + ": CPU of all members", medians(results, "cpu_us"), "us")


@group("cluster-put")
def cluster_put(settings, report):
    rates_of(settings, report, "put")


@group("cluster-quorum-get")
def cluster_quorum_get(settings, report):
    rates_of(settings, report, "quorum")


# How long writes stand still.

def kinds_of(settings):
    """To see that it works one is enough: each of these rows waits for elections."""
    return settings.kinds[-1:] if settings.smoke else settings.kinds


class Writers(Workers):
    """Clients that write without pause at these members; when each write was acknowledged is kept."""

    def __init__(self, members, count=8, network=None):
        self.members, self.moments, self.refused, self.network = members, [], 0, network
        super().__init__(count)

    def work(self, number):
        if self.network:
            self.network.enter()
        member, connection, count = self.members[number % len(self.members)], None, 0
        while not self.is_over():
            count += 1
            try:
                connection = connection or Connection(member.port, member.address, 10)
                answer = connection.request("PUT", "/v2/keys/still/%d" % number, FORM, b"value=%d" % count)
                if answer.status in (200, 201):
                    self.moments.append(time.monotonic())
                else:
                    self.refused += 1
            except (OSError, WireError):
                self.refused += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.002)

    def warm(self):
        count = len(self.moments)
        poll(lambda: len(self.moments) > count + 50, 20, "writes")

    def gap_ms(self, since):
        """The longest time without an acknowledged write from `since` on."""
        moments = sorted(m for m in list(self.moments) if m >= since - 0.2)
        return max((b - a) * 1e3 for a, b in zip(moments, moments[1:]))


def distribution(values):
    return "min %.0f, p50 %.0f, p90 %.0f, p99 %.0f, max %.0f ms of %d" % (
        min(values), percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99), max(values), len(values))


def report_gaps(report, name, gaps, aim=None, extra=""):
    """gaps: {kind: [ms]}."""
    details = "; ".join("%s: %s" % (kind, distribution(values)) for kind, values in gaps.items())
    report.row(name + ": median", {k: median(v) for k, v in gaps.items()}, "ms", aim, details + extra)


def stand_still(settings, end_leader, settle_s):
    """{kind: ([ms without a write], writes refused)} over several leaders that were ended one after the other."""
    times = 10 * settings.rounds if not settings.smoke else 1
    gaps, refused = {}, {}
    for kind in kinds_of(settings):
        gaps[kind], refused[kind] = [], 0
        with Three(kind) as cluster:
            for _ in range(times):
                leader = cluster.leader()
                others = [m for m in cluster.members if m is not leader]
                with Writers(others) as writers:
                    writers.warm()
                    since = time.monotonic()
                    end_leader(leader)
                    poll(lambda: writers.moments[-1] > since + settle_s, 30, "writes go on")
                    writers.warm()
                gaps[kind].append(writers.gap_ms(since))
                refused[kind] += writers.refused
                leader.spawn()
                leader.wait_ready()
                cluster.wait_equal()
    return gaps, "; refused: " + ", ".join("%s %d" % item for item in refused.items())


@group("failover", is_long=True)
def failover(settings, report):
    """The leader killed with -9 under load."""
    gaps, extra = stand_still(settings, lambda leader: leader.kill(), 2 * ELECTION_MS / 1e3)
    report_gaps(report, "leader killed: no write for", gaps, below(1.5 * ELECTION_MS, "ms"), extra)


@group("planned-stop", is_long=True)
def planned_stop(settings, report):
    """The leader told to stop by SIGTERM under load."""
    gaps, extra = stand_still(settings, lambda leader: leader.stop(), 0.3)
    report_gaps(report, "leader stopped: no write for", gaps, below(100, "ms"), extra)


# Partitions and thin links: hosts of their own.

def can_have_hosts(report):
    why = hosts.missing()
    if why:
        report.skip("rows with hosts of their own", why)
    return why is None


@contextlib.contextmanager
def on_hosts(kind, flags=()):
    with hosts.Network(3) as network, Three(kind, flags, network) as cluster:
        yield network, cluster


def part(network, way, away, rest):
    """Cut off both ways, deaf, mute, or with its link down."""
    to = [(m.host, away.host) for m in rest]
    back = [(away.host, m.host) for m in rest]
    if way == "link down":
        network.set_link(away.host, False)
    else:
        network.drop(*{"cut off": to + back, "deaf": to, "mute": back}[way])


def mend(network, way, away):
    if way == "link down":
        network.set_link(away.host, True)
    else:
        network.heal()


@group("heal", is_long=True)
def heal(settings, report):
    """A member parted from the others for three election timeouts, the leader or a follower in turns, in one of four ways; from
    the healing on, until writes through every member are acknowledged. Terms are counted: a healing must not cost one."""
    if not can_have_hosts(report):
        return
    times = 4 * settings.rounds if not settings.smoke else 2
    took, needless = {}, {}
    for kind in kinds_of(settings):
        took[kind], needless[kind] = {"follower": [], "leader": []}, 0
        with on_hosts(kind) as (network, cluster):
            for number in range(times):
                role = "follower" if number % 2 == 0 else "leader"
                leader = cluster.leader()
                away = leader if role == "leader" else cluster.followers()[0]
                rest = [m for m in cluster.members if m is not away]
                way = ("cut off", "deaf", "mute", "link down")[number // 2 % 4]
                part(network, way, away, rest)
                time.sleep(3 * ELECTION_MS / 1e3)
                poll(lambda: rest[0].writes(0.5), 20, "the majority writes")
                term = rest[0].term()
                mend(network, way, away)
                healed = time.monotonic()
                for member in [away] + rest:
                    poll(lambda m=member: m.writes(0.2), 30, "writes through " + member.name, every=0.002)
                took[kind][role].append((time.monotonic() - healed) * 1e3)
                time.sleep(2 * ELECTION_MS / 1e3)
                needless[kind] += rest[0].term() - term
    for role in ("follower", "leader"):
        report_gaps(report, "a parted %s comes back: all members write after" % role, {k: v[role] for k, v in took.items()},
                    below(1000, "ms"))
    report.row("needless elections in %d healings" % times, needless, "", ("ours 0", lambda ratio, ours: ours == 0))


@group("thin-snapshot", is_long=True)
def thin_snapshot(settings, report):
    """A follower far behind is brought a snapshot over 1 Mbit/s."""
    if not can_have_hosts(report):
        return
    seconds, elections = {}, {}
    for kind in [k for k in kinds_of(settings) if k == "quorate"]:  # etcd keeps 5,000 entries behind its snapshot: it would send those.
        with on_hosts(kind, ["--snapshot-count=300", "--max-snapshots=1"]) as (network, cluster):
            away = cluster.followers()[0]
            away.kill()
            leader = cluster.leader()
            with Connection(leader.port, leader.address) as connection:
                for i in range(1200):
                    answer = connection.request("PUT", "/v2/keys/s/%d" % (i % 600), FORM, b"value=" + b"x" * 1000)
                    if answer.status not in (200, 201):
                        raise Void("a write failed: %d" % answer.status)
            term = leader.term()
            network.limit(away.host, "1mbit")
            began = time.monotonic()
            away.spawn()
            poll(lambda: away.process is not None and away.stats() and away.position() >= leader.position(), 120, "it has caught up")
            seconds[kind] = time.monotonic() - began
            time.sleep(2 * ELECTION_MS / 1e3)
            elections[kind] = leader.term() - term
    report.row("600 keys of 1 KB by snapshot over 1 Mbit/s", seconds, "s")
    report.row("elections meanwhile", elections, "", ("ours 0", lambda ratio, ours: ours == 0))


# Catching up.

@group("catch-up", is_long=True)
def catch_up(settings, report):
    """A member that was away for a million writes comes back while 64 clients write."""
    before, during, seconds = {}, {}, {}
    window_s = 10 if not settings.smoke else 1
    for kind in kinds_of(settings):
        with Three(kind) as cluster:
            away = cluster.followers()[0]
            away.kill()
            leader = cluster.leader()
            written = 0
            while written < settings.million:
                written += load("run", leader.port, 5 if not settings.smoke else 0.5, 128, "put", "/c", 10000, 256)["requests"]
            with background(leader, window_s, 64, "put", "/c", 10000) as finish:
                before[kind] = percentile(finish().ms, 0.99)
            with background(leader, 90 if not settings.smoke else 10, 64, "put", "/c", 10000) as finish:
                time.sleep(0.5)
                began = time.time()
                away.spawn()
                target = leader.position()
                poll(lambda: away.stats() and position_or_none(away) >= target, 85, "it has caught up", every=0.02)
                end = time.time()
                record = finish()
            seconds[kind] = end - began
            during[kind] = percentile(record.within(began, end), 0.99)
    report.row("%d writes missed: caught up after" % settings.million, seconds, "s")
    report.row("leader's PUT p99 before (64 connections, two members)", before, "ms")
    report.row("leader's PUT p99 while the third catches up", during, "ms")
    grown = {k: during[k] / before[k] for k in during}
    report.row("the second to the first", grown, "", ("ours <= 2", lambda ratio, ours: ours <= 2))


def position_or_none(member):
    try:
        return member.position()
    except (OSError, WireError, TypeError):
        return -1
