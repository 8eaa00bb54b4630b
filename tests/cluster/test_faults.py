"""Bad days: members on hosts of their own, clients that write, swap and read without pause, and rounds of faults.

Whatever happens, no client may be shown what a single register could not have shown, no acknowledged write may be lost
and none done twice, watchers see every event once and in order, and in the end all members are equal. Of three members
one is struck in each round, of five one or two.

QUORATE_TEST_SEED repeats a run's choice of faults.
"""

import contextlib
import itertools
import os
import random
import signal
import threading
import time

import pytest
from harness.faults import Shim
from harness.flood import put_all
from harness.places import poll, scratch_dir
from harness.wire import Connection, WireError

import hosts
from members import ELECTION_MS, HEARTBEAT_MS, PATIENT, PATIENT_MS, Cluster
from registers import Operation, check

pytestmark = [pytest.mark.ours, pytest.mark.slow]

# Of members: rounds.
ROUNDS = {"quick": {3: 4, 5: 2}, "default": {3: 18, 5: 12}, "full": {3: 600, 5: 400}}[
    os.environ.get("QUORATE_TEST_SIZE", "default")]
SEED = int(os.environ.get("QUORATE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
CLIENTS, REGISTERS = 16, 6
FAULT_S, REST_S = 1.2, 0.9
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


class HostCluster(Cluster):
    """One member a host. With shims: each member's system calls can be tampered with."""

    def __init__(self, network, flags=(), shims=()):
        self.members = [hosts.HostMember(network, i + 1, flags, env=shims[i].env if shims else None)
                        for i in range(network.count)]
        for member, shim in zip(self.members, shims):
            member.shim = shim
        self.network, self.flags = network, list(flags)
        for member in self.members:
            member.initial = self.initial_cluster()


class Inhabitant(threading.Thread):
    """Takes step after step on the clients' host until `over` is set; what ends it before that the test shows."""

    def __init__(self, world, over, pause_s=0.0):
        super().__init__(daemon=True)
        self.world, self.over, self.pause_s = world, over, pause_s
        self.failure = None

    def run(self):
        try:
            self.world.network.enter()
            while not self.over.is_set():
                self.step()
                time.sleep(self.pause_s)
        except BaseException as failure:
            self.failure = failure

    def step(self):
        raise NotImplementedError


class Client(Inhabitant):
    """One client: works on the registers of the round, at any member, and writes down what it saw."""

    def __init__(self, number, world):
        super().__init__(world, world.over, pause_s=0.004)
        self.number = number
        self.rng = random.Random(SEED * 1000 + number)
        self.count = 0

    def step(self):
        key = "%d-%d" % (self.world.round, self.rng.randrange(REGISTERS))
        member = self.rng.choice(self.world.cluster.members)
        kind = self.rng.choice(["write", "write", "read", "read", "cas", "queue"])
        self.count += 1
        value = "%d.%d" % (self.number, self.count)
        began = time.monotonic()
        if kind == "queue":
            self.post(member, value)
        elif kind == "write":
            answer = self.ask(member, "PUT", key, "value=" + value)
            done = answer is not None and answer.status in (200, 201)
            before = answer.json.get("prevNode", {}).get("value") if done else None
            self.note(key, "write", value, before, began, done)
        elif kind == "read":
            answer = self.ask(member, "GET", key + "?quorum=true")
            if answer is not None and answer.status in (200, 404):
                seen = answer.json["node"]["value"] if answer.status == 200 else None
                self.note(key, "read", None, seen, began, True)
        else:
            self.swap(member, key, value, began)

    def swap(self, member, key, value, began):
        known = self.world.last.get(key)
        if known is None:
            return
        answer = self.ask(member, "PUT", key + "?prevValue=" + known, "value=" + value)
        if answer is not None and answer.status == 200:
            self.note(key, "cas", (known, value), True, began, True)
        elif answer is not None and answer.status in (412, 404):
            # "[expected != found]" names what is there.
            found = answer.json["cause"].strip("[]").split(" != ")[1] if answer.status == 412 else None
            self.note(key, "cas", (known, value), ("was", found), began, True)
        else:
            self.note(key, "cas", (known, value), None, began, False)

    def post(self, member, value):
        answer = self.ask(member, "POST", "queue", "value=" + value, "/v2/keys/")
        if answer is not None and answer.status == 201:
            self.world.posted.append((answer.json["node"]["key"], value))

    def ask(self, member, method, key, body=None, root="/v2/keys/r/"):
        try:
            return member.ask(method, root + key, body, FORM if body else (), timeout=1.0)
        except (OSError, WireError):
            return None

    def note(self, key, kind, value, result, began, done):
        ended = time.monotonic() if done else None
        self.world.histories.setdefault(key, []).append(Operation(kind, value, result, began, ended))
        if done and kind == "write":
            self.world.last[key] = value
        elif done and kind == "cas" and result is True:
            self.world.last[key] = value[1]


class Watcher(Inhabitant):
    """Follows /w at one member, from the first event on."""

    def __init__(self, member, world, index):
        super().__init__(world, world.watch_over)
        self.member, self.next = member, index
        self.events = []

    def step(self):
        try:
            answer = self.member.ask("GET", "/v2/keys/w?wait=true&recursive=true&waitIndex=%d" % self.next, timeout=2.0)
            if answer.status != 200 or not answer.body:
                time.sleep(0.02)
                return
            node = answer.json["node"]
        except (OSError, WireError, ValueError):
            time.sleep(0.02)
            return
        self.events.append((node["modifiedIndex"], node["value"]))
        self.next = node["modifiedIndex"] + 1


class Teller(Inhabitant):
    """Writes what the watchers follow: seldom enough that no history is overrun."""

    def __init__(self, world):
        super().__init__(world, world.over, pause_s=0.05)
        self.count = 0

    def step(self):
        self.count += 1
        try:
            answer = self.world.cluster.members[self.count % len(self.world.cluster.members)].ask(
                "PUT", "/v2/keys/w/%d" % (self.count % 7), "value=%d" % self.count, FORM, timeout=1.0)
            if answer.status in (200, 201):
                self.world.told.append((answer.json["node"]["modifiedIndex"], "%d" % self.count))
        except (OSError, WireError):
            pass


class World:
    def __init__(self, network, cluster):
        self.network, self.cluster = network, cluster
        self.round = 0
        self.over, self.watch_over = threading.Event(), threading.Event()
        self.histories, self.last, self.posted, self.told = {}, {}, [], []


def signal_all(member, number):
    for pid in member.session_pids():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def others(network, host):
    return [i for i in range(1, network.count + 1) if i != host]


def cut(network, member):
    """Between it and the other hosts nothing passes."""
    network.drop(*[pair for other in others(network, member.host) for pair in ((member.host, other), (other, member.host))])


def fault_kill_member(world, member, rng):
    member.kill()
    yield
    member.spawn()


def fault_kill_daemon(world, member, rng):
    name = rng.choice(["raftd", "stored", "gatewayd"])
    try:
        os.kill(member.daemon(name), signal.SIGKILL)
    except (ProcessLookupError, TimeoutError):
        pass
    yield


def fault_freeze(world, member, rng):
    signal_all(member, signal.SIGSTOP)
    yield
    signal_all(member, signal.SIGCONT)


def fault_link_down(world, member, rng):
    world.network.set_link(member.host, False)
    yield
    world.network.set_link(member.host, True)


def fault_deaf(world, member, rng):
    world.network.drop(*[(other, member.host) for other in others(world.network, member.host)])
    yield
    world.network.heal()


def fault_mute(world, member, rng):
    world.network.drop(*[(member.host, other) for other in others(world.network, member.host)])
    yield
    world.network.heal()


def fault_cut_off(world, member, rng):
    cut(world.network, member)
    yield
    world.network.heal()


def fault_one_pair(world, member, rng):
    other = rng.choice(others(world.network, member.host))
    world.network.drop((member.host, other))
    yield
    world.network.heal()


def fault_slow_disk(world, member, rng):
    """Each sync of its log takes a quarter of an election timeout longer, or more than a whole one."""
    member.shim.set("proc=raftd call=fdatasync,fsync do=delay:%d" % rng.choice([ELECTION_MS // 4, ELECTION_MS * 5 // 4]))
    yield
    member.shim.set()


FAULTS = [fault_kill_member, fault_kill_daemon, fault_freeze, fault_link_down, fault_deaf, fault_mute, fault_cut_off,
          fault_one_pair, fault_slow_disk]


def choose_victims(world, rng):
    """The leader in every other round; of five members sometimes two."""
    members = list(world.cluster.members)
    rng.shuffle(members)
    if rng.random() < 0.5:
        leader_id = next((m.leader_id() for m in members if m.leader_id()), "")
        members.sort(key=lambda m: safe_id(m) != leader_id)
    return members[:rng.randint(1, (len(members) - 1) // 2)]


def certain_count(world):
    """Of how many operations it is known what became of them."""
    return sum(o.ended is not None for h in list(world.histories.values()) for o in h)


def play(world, rounds):
    """So many rounds, and more where clients got little done in them: of a history of nothing, nothing is shown."""
    rng = random.Random(SEED)
    for number in itertools.count():
        if number >= rounds and certain_count(world) > rounds * 40:
            return
        world.round = number
        under_way = []
        for member in choose_victims(world, rng):
            fault = FAULTS[number % len(FAULTS)] if number < len(FAULTS) and not under_way else rng.choice(FAULTS)
            steps = fault(world, member, rng)
            next(steps)
            under_way.append(steps)
        time.sleep(FAULT_S)
        for steps in under_way:
            next(steps, None)
        time.sleep(REST_S)


def safe_id(member):
    try:
        return member.id
    except (OSError, WireError, ValueError):
        return None


def listing(member, path):
    answer = member.ask("GET", "/v2/keys%s?recursive=true&sorted=true" % path)
    return answer.json, answer.header("X-Etcd-Index")


def run_world(network, cluster, rounds):
    world = World(network, cluster)
    index = cluster.leader().put("/w/0", "0").index
    clients = [Client(i, world) for i in range(CLIENTS)]
    watchers = [Watcher(m, world, index) for m in cluster.members]
    teller = Teller(world)
    workers = clients + watchers + [teller]
    for worker in workers:
        worker.start()
    try:
        play(world, rounds)
    finally:
        world.over.set()
        network.heal()
        for member in cluster.members:
            member.shim.set()
        for worker in clients + [teller]:
            worker.join(30)
    for member in cluster.members:
        member.wait_ready(30)
    cluster.leader()
    last = cluster.members[0].put("/w/end", "end").json["node"]["modifiedIndex"]
    cluster.wait_equal()
    try:
        poll(lambda: all(w.events and w.events[-1][0] == last for w in watchers), 20, "the watchers see the end")
    finally:
        world.watch_over.set()
        for watcher in watchers:
            watcher.join(10)
    for worker in workers:
        assert worker.failure is None, worker.failure
    return world, watchers


def verify(world, watchers):
    cluster = world.cluster
    bad = check(world.histories)
    assert bad == [], "seed %d: no register can have done this: %s" % (SEED, {k: sorted(world.histories[k], key=lambda o: o.began) for k in bad[:1]})
    states = [listing(m, "/") for m in cluster.members]
    assert all(s == states[0] for s in states), "seed %d: the members differ" % SEED
    queue = {n["key"]: n["value"] for n in listing(cluster.members[0], "/queue")[0]["node"].get("nodes", [])}
    for key, value in world.posted:
        assert queue.get(key) == value, "seed %d: %s is lost" % (SEED, key)
    assert len(set(queue.values())) == len(queue), "seed %d: one POST, two entries" % SEED
    assert set(world.told) <= set(watchers[0].events), "seed %d: acknowledged, and never seen by a watcher" % SEED
    for watcher in watchers:
        assert watcher.events == watchers[0].events, "seed %d: watchers differ" % SEED
        indexes = [i for i, _ in watcher.events]
        assert indexes == sorted(set(indexes)), "seed %d: watchers' order" % SEED


@pytest.fixture
def network_of():
    reason = hosts.missing()
    if reason:
        pytest.skip(reason)
    opened = []

    def make(count):
        network = hosts.Network(count)
        opened.append(network)
        return network.open()

    yield make
    for network in opened:
        network.close()


@pytest.mark.limit(120 + max(ROUNDS.values()) * 6)
@pytest.mark.parametrize("size", sorted(ROUNDS))
def test_rounds_of_faults_show_no_client_what_a_register_could_not(network_of, size):
    rounds = ROUNDS[size]
    network = network_of(size)
    with contextlib.ExitStack() as stack:
        shims = [Shim(stack.enter_context(scratch_dir("shim"))) for _ in range(size)]
        # A watcher that was away asks for what it missed: more than the thousand events that are shown by default.
        cluster = stack.enter_context(HostCluster(network, ["--event-history=65536"], shims))
        cluster.start()
        world, watchers = run_world(network, cluster, rounds)
        operations = sum(len(h) for h in world.histories.values())
        print("seed %d: %d members, %d rounds, %d operations, %d with a known end, %d queued, %d events" % (
            SEED, size, world.round + 1, operations, certain_count(world), len(world.posted), len(watchers[0].events)))
        verify(world, watchers)


class Reader(threading.Thread):
    """So many linearizable reads on one connection."""

    def __init__(self, network, member, count):
        super().__init__(daemon=True)
        self.network, self.member, self.count, self.failure = network, member, count, None
        self.start()

    def run(self):
        try:
            self.network.enter()
            with Connection(self.member.port, self.member.address, 30) as connection:
                for _ in range(self.count):
                    answer = connection.request("GET", "/v2/keys/k?quorum=true", (), None)
                    assert answer.status == 200, answer
        except BaseException as failure:
            self.failure = failure


def answer_index(member):
    try:
        return int(member.get("/", timeout=5).header("X-Raft-Index"))
    except (OSError, WireError, TypeError):
        return None


def has(member, key):
    try:
        return member.get(key).status == 200
    except (OSError, WireError):
        return False


@pytest.mark.limit(240)
def test_seven_members_lose_three(network_of):
    network = network_of(7)
    with HostCluster(network) as cluster:
        cluster.start()
        assert cluster.leader().put("/k", "7").status == 201
        leader = cluster.leader()
        for member in [leader] + [m for m in cluster.members if m is not leader][:2]:
            member.kill()
        rest = cluster.running()

        def is_written():
            with contextlib.suppress(OSError, WireError):
                return rest[0].put("/k", "4").status == 200

        poll(is_written, 10 * ELECTION_MS / 1000 + 10, "writes")
        for member in rest:
            assert member.get("/k", quorum=True).json["node"]["value"] == "4"


@pytest.mark.limit(120)
def test_after_a_partition_heals_all_write_and_the_leader_stays(network_of, measured):
    network = network_of(3)
    with HostCluster(network, PATIENT) as cluster:
        cluster.start()
        member = cluster.followers()[0]
        leader = cluster.leader()
        term = leader.get("/").header("X-Raft-Term")
        cut(network, member)
        time.sleep(3 * PATIENT_MS / 1000)  # Long enough for it to miss the leader.
        network.heal()
        healed = time.monotonic()

        def writes():
            try:
                return member.put("/k", "1").status in (200, 201)
            except (OSError, WireError):
                return False

        poll(writes, 10, "writes through the one that was away")
        measured.times("a partition has healed, writes through the one that was away", [time.monotonic() - healed])
        assert leader.get("/").header("X-Raft-Term") == term, "a needless election"


@pytest.mark.limit(120)
def test_what_a_member_missed_goes_over_a_thin_link_about_once(network_of):
    """And not once more with each heartbeat that is answered before it is all there: a queue that outlasts the outage."""
    network = network_of(3)
    with HostCluster(network) as cluster:
        cluster.start()
        member = cluster.followers()[0]
        member.kill()
        missed = len(member.log())
        leader = cluster.leader()
        put_all(leader, {"/m/%d" % i: "x" * 1000 for i in range(800)})
        last = int(leader.get("/").header("X-Raft-Index"))
        network.limit(member.host, "1mbit")
        before = network.sent_bytes(member.host)
        member.spawn()
        poll(lambda: (answer_index(member) or 0) >= last, 60, "it has what it missed")
        poll(lambda: "etcdserver: published" in member.log()[missed:], 60, "and its own name")
        said = int(leader.get("/").header("X-Raft-Index")) - last
        assert said <= 1 + member.log()[missed:].count("raftd.peer.down"), "its name, again and again while it was behind"
        assert leader.put("/after", "1").status == 201
        poll(lambda: has(member, "/after"), 60, "and what came after")
        assert network.sent_bytes(member.host) - before < 4 * 800 * 1000, "and the same again and again"


@pytest.mark.limit(120)
def test_a_full_member_is_not_sent_the_same_entries_over_and_over(network_of):
    with contextlib.ExitStack() as stack:
        network = network_of(3)
        shims = [Shim(stack.enter_context(scratch_dir("shim"))) for _ in range(3)]
        cluster = stack.enter_context(HostCluster(network, (), shims))
        cluster.start()
        full = cluster.followers()[0]
        leader = cluster.leader()
        full.shim.set("proc=stored call=any path=/state/ do=error:ENOSPC")
        assert leader.put("/first", "1").status == 201
        poll(lambda: "raftd.space.none" in full.log(), 20, "its disk is full")
        for i in range(20):
            assert leader.put("/f/%d" % i, "x" * 20000).status == 201
        before = network.sent_bytes(full.host)
        terms = [int(m.get("/").header("X-Raft-Term")) for m in cluster.members]
        time.sleep(40 * HEARTBEAT_MS / 1000)
        # All of it, again with each heartbeat, would be 16 MB.
        assert network.sent_bytes(full.host) - before < 20 * 20000
        full.shim.set()
        cluster.wait_equal(30)
        assert [int(m.get("/").header("X-Raft-Term")) for m in cluster.members] == terms, "a needless election"


@pytest.mark.limit(120)
def test_reads_elsewhere_do_not_fill_a_thin_link_with_rounds(network_of):
    """A round of heartbeats for each, as fast as a quorum without it answers: until the link broke."""
    network = network_of(3)
    with HostCluster(network) as cluster:
        cluster.start()
        member, leader = cluster.followers()[0], cluster.leader()
        assert leader.put("/k", "1").status == 201
        network.limit(member.host, "256kbit")
        before = len(member.log())
        readers = [Reader(network, leader, 1500) for _ in range(4)]
        for reader in readers:
            reader.join(90)
        assert [r.failure for r in readers] == [None] * 4
        assert "raftd.peer.down" not in member.log()[before:], "the link broke under heartbeats"
        assert member.get("/k", quorum=True).json["node"]["value"] == "1"


@pytest.mark.limit(120)
def test_a_snapshot_that_is_refused_is_not_sent_over_and_over(network_of):
    with contextlib.ExitStack() as stack:
        network = network_of(3)
        shims = [Shim(stack.enter_context(scratch_dir("shim"))) for _ in range(3)]
        cluster = stack.enter_context(HostCluster(network, ["--snapshot-count=100", "--max-snapshots=1"], shims))
        cluster.start()
        member = cluster.followers()[0]
        member.kill()
        leader = cluster.leader()
        for i in range(400):
            assert leader.put("/s/%d" % (i % 200), "x" * 5000).status in (200, 201)
        member.shim.set("proc=raftd call=any path=/recv/ do=error:ENOSPC")
        member.spawn()
        poll(lambda: "raftd.snapshot.not_taken" in member.log(), 60, "it has no room for it")
        before = len(member.log())
        time.sleep(60 * HEARTBEAT_MS / 1000)
        assert member.log()[before:].count("raftd.snapshot.not_taken") <= 3, "again with each heartbeat"
        member.shim.set()
        poll(lambda: "recovered from incoming snapshot" in member.log(), 60, "it is sent again in the end")


@pytest.mark.limit(120)
def test_a_snapshot_over_a_thin_link_costs_no_election(network_of):
    network = network_of(3)
    with HostCluster(network, PATIENT + ["--snapshot-count=300", "--max-snapshots=1"]) as cluster:
        cluster.start()
        member = cluster.followers()[0]
        member.kill()
        leader = cluster.leader()
        turns = itertools.count()
        cluster.outrun(lambda: put_all(leader, {"/s/%d" % i: "%d-" % next(turns) + "x" * 1000 for i in range(600)}))
        term = leader.get("/").header("X-Raft-Term")
        network.limit(member.host, "1mbit")
        member.spawn()
        poll(lambda: "recovered from incoming snapshot" in member.log(), 60, "the snapshot comes over 1 Mbit/s")
        poll(lambda: has(member, "/s/599"), 20, "it is served")
        assert leader.get("/").header("X-Raft-Term") == term, "a needless election"
        assert cluster.leader() is leader
