"""Where a member comes from: one test per row of the operators' page, sections 2.1, 2.3, 2.6, 2.7 and 3.8. Discovery (2.4)
and SRV records (2.5) are in test_discovery.py; what is refused before a daemon runs is in ../contract.

First with etcd 2's own command lines, on the hosts of its examples; then on loopback, with one member that the joiners
share.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import threading

import pytest
from harness.places import FreePort, free_ports, poll
from harness.server import build_dir
from harness.wire import WireError, exchange

import hosts
import lans
from members import CLOCK, JSON, PATIENT, Cluster, Member, kill_member

pytestmark = pytest.mark.ours


# 2.3 static, as typed

# What etcd's own guide says to type on each host, but for the name of the program. The third member has two of each.
TYPED = """
-name infra0 -initial-advertise-peer-urls http://10.0.1.10:2380
  -listen-peer-urls http://10.0.1.10:2380
  -listen-client-urls http://10.0.1.10:2379,http://127.0.0.1:2379
  -advertise-client-urls http://10.0.1.10:2379
  -initial-cluster-token etcd-cluster-1
  -initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380,infra2=http://10.0.2.12:2380
  -initial-cluster-state new

-name infra1 -initial-advertise-peer-urls http://10.0.1.11:2380
  -listen-peer-urls http://10.0.1.11:2380
  -listen-client-urls http://10.0.1.11:2379,http://127.0.0.1:2379
  -advertise-client-urls http://10.0.1.11:2379
  -initial-cluster-token etcd-cluster-1
  -initial-cluster infra2=http://10.0.2.12:2380,infra1=http://10.0.1.11:2380,infra0=http://10.0.1.10:2380,infra2=http://10.0.1.12:2380
  -initial-cluster-state new

--name infra2 --initial-advertise-peer-urls http://10.0.1.12:2380,http://10.0.2.12:2380
  --listen-peer-urls=http://10.0.2.12:2380,http://10.0.1.12:2380
  --listen-client-urls=http://10.0.1.12:2379,http://10.0.2.12:2379
  --advertise-client-urls=http://10.0.1.12:2379,http://10.0.2.12:2379
  --initial-cluster-token=etcd-cluster-1
  --initial-cluster=infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380,infra2=http://10.0.2.12:2380
  --initial-cluster-state=new
"""


class TypedMember(hosts.MemberElsewhere):
    """Runs what was typed, in a folder of its own; the data dir is the default one there."""

    def __init__(self, network, host, words):
        super().__init__(network, host, network.address(host), "infra%d" % host)
        self.words, self.network = words, network
        self.data_dir = os.path.join(self.folder, self.name + ".etcd")

    def command(self):
        return self.wrapper + [self.binary()] + self.words + self.flags


@pytest.fixture(scope="module")
def typed():
    reason = hosts.missing()
    if reason is not None:
        pytest.skip(reason)
    with lans.TwoLans(3) as network, contextlib.ExitStack() as stack:
        members = [stack.enter_context(TypedMember(network, i, block.split())) for i, block in enumerate(TYPED.strip().split("\n\n"))]
        for member in members:
            member.spawn()
        for member in members:
            member.wait_ready()
        members[0].network = network
        yield members


def test_2_3_the_command_lines_of_the_guide_make_a_cluster(typed):
    assert typed[0].put("/k", "1").status == 201
    for member in typed:
        assert member.get("/k", quorum=True).json["node"]["value"] == "1"
        assert os.path.isdir(member.data_dir + "/member"), "the default data dir, in the current folder"
    # A member registers once it runs; that it is ready does not mean that it is named.
    poll(lambda: all(m["name"] for m in typed[0].ask("GET", "/v2/members").json["members"]), 10, "the names")
    listed = {m["name"]: m for m in typed[0].ask("GET", "/v2/members").json["members"]}
    assert sorted(listed) == ["infra0", "infra1", "infra2"]
    assert listed["infra2"]["peerURLs"] == ["http://10.0.1.12:2380", "http://10.0.2.12:2380"]
    assert listed["infra2"]["clientURLs"] == ["http://10.0.1.12:2379", "http://10.0.2.12:2379"]
    assert listed["infra0"]["peerURLs"] == ["http://10.0.1.10:2380"]


def test_2_3_both_client_urls_answer(typed):
    for address in ("10.0.1.12", "10.0.2.12"):
        assert typed[2].ask("GET", "/version", address=address).status == 200


def test_2_3_a_member_with_two_of_each_loses_a_link_and_goes_on(typed):
    network = typed[0].network
    network.set_first_link(2, False)
    try:
        # It is heard of, through the other link, by all; it writes itself, and it is needed: another one goes.
        def writes_everywhere():
            try:
                return (typed[2].ask("PUT", "/v2/keys/link?value=1", address="10.0.2.12", timeout=3).status in (200, 201) and
                        typed[0].put("/link", "2", timeout=3).status == 200)
            except (OSError, WireError):
                return False

        poll(writes_everywhere, 30, "writes over the other link")
        kill_member(typed[1])
        try:
            poll(writes_everywhere, 30, "the one with one link is part of the quorum")
            # Of the writes above some may have been made that nobody waited for.
            assert typed[0].put("/last", "3").status == 201
            value = typed[2].ask("GET", "/v2/keys/last?quorum=true", address="10.0.2.12").json["node"]["value"]
            assert value == "3"
        finally:
            typed[1].start(30)
    finally:
        network.set_first_link(2, True)
    poll(lambda: typed[2].ask("GET", "/version").status == 200, 10, "the link is back")


def test_2_3_all_restart_from_the_same_lines(typed):
    assert typed[1].put("/restart", "1").status in (200, 201)
    for member in typed:
        member.stop()
    for member in typed:
        member.spawn()
    for member in typed:
        member.wait_ready()
        assert member.get("/restart", quorum=True).json["node"]["value"] == "1"
        member.said("the server is already initialized as member before, starting as etcd member...")


# Loopback: one member that is there, and who wants to join.

class Shown(Member):
    """Its peers see it at one port, and it listens on another: between them lies a relay."""

    def __init__(self, name):
        self._hidden = FreePort()
        super().__init__(name, ["--listen-peer-urls=http://127.0.0.1:%d" % self._hidden.port])

    def close(self):
        super().close()
        self._hidden.release()


class Relay:
    """Passes bytes on, and makes this member's version another one."""

    def __init__(self, port, target_port, old, new):
        self.target_port, self.old, self.new = target_port, old, new
        self.listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target_port))
                except OSError:  # It does not listen yet.
                    client.close()
                    continue
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data.replace(self.old, self.new))
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture(scope="module")
def first():
    member = Member("first", ["--strict-reconfig-check=false"])  # Else a change waits until all have been there for 5 s.
    member.initial = "first=" + member.peer_url
    with member:
        yield member.start()


@pytest.fixture
def made():
    with contextlib.ExitStack() as stack:
        yield lambda member: stack.enter_context(member)


def add(member, url):
    answer = member.ask("POST", "/v2/members", json.dumps({"peerURLs": [url]}), JSON)
    assert answer.status == 201, answer
    return answer.json["id"]


@contextlib.contextmanager
def added(first, joiner):
    """A member of the first one's cluster, until the end of the block. Whoever votes by then must be alive to be voted out."""
    id = add(first, joiner.peer_url)
    try:
        yield id
    finally:
        assert first.ask("DELETE", "/v2/members/" + id).status == 204
        joiner.kill()


def joining(name, first, **more):
    member = Member(name, **more)
    member.initial = "first=%s,%s=%s" % (first.peer_url, name, member.peer_url)
    member.state = "existing"
    return member


def refused(member, text, status=2, timeout=30):
    """It ends with etcd's text, then the mend; nothing was begun on the disk."""
    member.spawn()
    assert member.wait_end(timeout) == status, member.log()[-2000:]
    lines = [line for line in member.log().splitlines() if text in line]
    assert lines, member.log()[-2000:]
    assert re.search(r"; .{20}", lines[-1].split(text, 1)[1]), lines[-1]
    assert not glob.glob(member.data_dir + "/member/wal/*.wal")
    return lines[-1]


def test_2_6_own_name_must_be_in_the_list(first, made):
    member = made(joining("joiner", first))
    member.initial = "first=" + first.peer_url
    member.spawn()
    assert member.wait_end() == 2
    assert ("couldn't find local name \"joiner\" in the initial cluster configuration; add joiner=URL to --initial-cluster, "
            "or set --name to the name used there") in member.log()


def test_2_6_discovery_is_not_for_joining(made):
    member = made(Member("joiner", ["--discovery=http://127.0.0.1:1/x"]))
    member.initial, member.state = "", "existing"
    member.command = lambda: [w for w in Member.command(member) if not w.startswith("--initial-cluster=")]
    member.spawn()
    assert member.wait_end() == 2
    assert "discovery URL should not be set when joining existing initial cluster; leave -discovery out" in member.log()


def test_2_6_somebody_must_answer(first, made):
    member = made(joining("joiner", first))
    member.initial = "nobody=http://127.0.0.1:1,joiner=" + member.peer_url
    member.spawn()
    text = ("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given urls; "
            "start a member that is listed in --initial-cluster, or correct its URL")
    poll(lambda: text in member.log(), 30, "the refusal")
    poll(lambda: "daemon=raftd" in member.log() and "restart_in_ms" in member.log(), 10, "and another try")


def test_2_6_any_of_the_others_may_answer(first, made):
    with Cluster(2) as two:
        two.start()
        member = made(two.add())
        kill_member(two.followers()[0])  # The first in the list may be the one that is away.
        member.spawn()
        poll(lambda: "raftd.bootstrap.joining" in member.log(), 20, "one answered")


def test_2_6_the_number_of_members_must_be_that_of_the_cluster(first, made):
    member = made(joining("joiner", first))  # It was not added.
    line = refused(member, "error validating peerURLs {ClusterID:%s Members:[{ID:%s PeerURLs:[%s] Name:first}]}: "
                           "member count is unequal" % (cluster_id(first), first.id, first.peer_url))
    assert "--initial-cluster names 2 members, the cluster has 1: add this member first" in line


def test_2_6_the_urls_must_be_those_of_the_cluster(first, made):
    member = made(joining("joiner", first))
    with added(first, member):
        good = member.initial
        member.initial = good.replace("first=" + first.peer_url, "first=%s,first=http://127.0.0.1:1" % first.peer_url)
        line = refused(member, ": unmatched member while checking PeerURLs")
        assert "error validating peerURLs {ClusterID:" in line and "the cluster knows no member with the URLs of first (http" in line
        member.initial = "first=%s,joiner=http://127.0.0.1:1" % first.peer_url
        refused(member, ": unmatched member while checking PeerURLs")


def cluster_id(member):
    return member.ask("GET", "/v2/members").header("X-Etcd-Cluster-Id")


def own_version():
    program = os.path.join(build_dir(), "quorate")
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return shown.split("Quorate Version: ")[1].split()[0]


def test_2_6_the_versions_must_be_neighbours(made):
    own = own_version()
    other = re.sub(r"\.\d+\.", ".9.", own, count=1)
    assert len(other) == len(own)
    shown = made(Shown("shown"))
    shown.initial = "shown=" + shown.peer_url
    relay = Relay(shown.peer_port, shown._hidden.port, own.encode(), other.encode())
    try:
        shown.start()
        member = made(joining("joiner", shown))
        member.initial = "shown=%s,joiner=%s" % (shown.peer_url, member.peer_url)
        add(shown, member.peer_url)
        line = refused(member, "incomptible with current running cluster")
        assert "; a member there has version %s, this is %s: start the version that the members have" % (other, own) in line
        relay.new = own.encode()
        member.spawn()
        poll(lambda: "raftd.bootstrap.joining" in member.log(), 20, "with its own version it joins")
    finally:
        relay.close()


def test_2_2_another_protocol_is_refused_on_both_sides(made):
    shown, other = made(Shown("shown")), made(Member("other"))
    for member in (shown, other):
        member.initial = "shown=%s,other=%s" % (shown.peer_url, other.peer_url)
    # A hello begins with its protocol and its version (proto/peer.def).
    version = own_version().encode()
    hello = b"\x01\x01\x02\xc4" + bytes([len(version)]) + version
    relay = Relay(shown.peer_port, shown._hidden.port, hello, b"\x01\x07" + hello[2:])
    try:
        shown.spawn()
        other.spawn()
        text = "incompatible version: peer protocol 7 and 1 differ; run neighbouring versions"
        poll(lambda: text in shown.log(), 40, "who is called tells it")
        poll(lambda: text in other.log(), 40, "and who calls")
        relay.new = hello
        shown.wait_ready(30)
    finally:
        relay.close()


def test_2_6_names_and_token_of_a_joiner_mean_nothing(first, made):
    member = made(joining("joiner", first))
    member.initial = "anything=%s,joiner=%s" % (first.peer_url, member.peer_url)
    member.token = "another"
    with added(first, member) as id:
        member.start(30)
        assert (member.id, cluster_id(member)) == (id, cluster_id(first))
        poll(lambda: all(m["name"] for m in first.ask("GET", "/v2/members").json["members"]), 10, "the names")
        names = {m["id"]: m["name"] for m in first.ask("GET", "/v2/members").json["members"]}
        assert names == {first.id: "first", id: "joiner"}


def test_2_6_a_data_dir_that_was_wiped_does_not_come_back_under_its_old_id(made):
    with Cluster(2, ["--strict-reconfig-check=false"]) as two:
        two.start()
        member = made(two.add()).start(30)
        id = member.id
        two.wait_equal()
        kill_member(member)
        shutil.rmtree(member.data_dir)
        refused(member, "member %s has already been bootstrapped" % id)
        assert two.members[0].put("/k", "1").status in (200, 201)


def test_2_6_a_joiner_that_forgets_existing_stays_apart_and_is_told(first, made):
    member = made(joining("joiner", first))
    with added(first, member):
        member.state = "new"
        member.spawn()
        poll(lambda: "cluster ID mismatch: " in member.log(), 20, "it is told")
        poll(lambda: "cluster ID mismatch: " in first.log(), 20, "and the cluster")
        for log in (member.log(), first.log()):
            assert "; start both with the same --initial-cluster and --initial-cluster-token, or a joiner on an empty data" in log
        assert first.put("/apart", "1").status in (200, 201)


# 1.4: which URLs are the same place

def test_1_4_order_and_spelling_of_lists_do_not_count_but_scheme_and_port_do(made):
    member = made(Member("m"))
    urls = ["http://127.0.0.1:%d" % member.peer_port, "http://127.0.0.1:%d" % free_ports(1)[0]]
    member.flags = CLOCK + ["--listen-peer-urls=" + ",".join(urls), "--initial-advertise-peer-urls=%s, %s" % tuple(urls)]
    member.initial = "m=%s,m=%s" % (urls[1], urls[0])
    member.start(30)
    member.stop()
    shutil.rmtree(member.data_dir)
    for wrong in ("m=" + urls[0], "m=%s,m=%s" % (urls[0], urls[1].replace("127.0.0.1", "localhost")),
                  "m=%s,m=%s" % (urls[0], urls[1].replace("http:", "https:"))):
        member.initial = wrong
        member.spawn()
        assert member.wait_end() == 2, wrong
    assert member.log().count("--initial-cluster must include m=%s,m=%s given --initial-advertise-peer-urls=" %
                              tuple(sorted(urls))) == 3


def test_1_4_names_are_the_place_that_they_resolve_to(made):
    """But for localhost, which stays as it is written (the test above)."""
    if socket.gethostname() not in open("/etc/hosts").read():
        pytest.skip("this host does not know its own name")
    member = made(Member("m"))
    address = socket.gethostbyname(socket.gethostname())
    member.initial = "m=http://%s:%d" % (socket.gethostname(), member.peer_port)
    member.flags = CLOCK + ["--listen-peer-urls=http://%s:%d" % (address, member.peer_port),
                            "--initial-advertise-peer-urls=http://%s:%d" % (address, member.peer_port)]
    member.start(30)


# 2.1 which path is taken

def test_2_1_a_stray_file_where_the_log_will_be_does_not_make_it_a_restart(made):
    """The reference takes it for a log, and dies."""
    member = made(Member("m"))
    member.initial = "m=" + member.peer_url
    os.makedirs(member.data_dir + "/member/wal", 0o700)
    for name in ("stray", "core.1"):
        with open(member.data_dir + "/member/wal/" + name, "w"):
            pass
    member.start(30)
    assert member.put("/k", "1").status == 201
    member.restart()
    assert member.get("/k").json["node"]["value"] == "1"


def test_2_1_other_names_in_the_data_dir_are_a_warning(made):
    member = made(Member("m"))
    member.initial = "m=" + member.peer_url
    os.makedirs(member.data_dir + "/backup", 0o700)
    member.start(30)
    member.said(re.escape("found invalid file/dir backup under data dir %s (Ignore this if you are upgrading etcd)" % member.data_dir))


def test_2_1_raftd_alone_sees_a_lost_log_too(made):
    """Under systemd nobody has looked before it."""
    member = made(Member("m"))
    member.initial = "m=" + member.peer_url
    member.start(30)
    member.stop()
    shutil.rmtree(member.data_dir + "/member/wal")
    command = [os.path.join(build_dir(), "raftd")] + member.command()[1:]
    os.makedirs(member.data_dir + "/run/apply", exist_ok=True)
    done = subprocess.run(command, cwd=member.folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "there is a state in %s/member/state but no log in %s/member/wal; give --wal-dir" % ((member.data_dir,) * 2) in done.stderr
    shutil.rmtree(member.data_dir + "/member/state")
    with open(member.data_dir + "/member/snap/0000000000000002-0000000000000010.snap", "w"):
        pass
    done = subprocess.run(command, cwd=member.folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "there are snapshots in %s/member/snap but no log in %s/member/wal; give --wal-dir" % ((member.data_dir,) * 2) in done.stderr
    assert not glob.glob(member.data_dir + "/member/wal/*")


# 2.7 restart

@pytest.fixture(scope="module")
def second_life():
    """A member that was stopped after its first life, with its id."""
    member = Member("one")
    member.initial = "one=" + member.peer_url
    with member:
        member.start()
        assert member.put("/k", "1").status == 201
        member.own_id = member.id
        yield member


@pytest.fixture
def again(second_life):
    member = second_life
    flags, env = list(member.flags), member.env
    if member.runs():
        member.stop()
    member.process = None
    yield member
    member.flags, member.env, member.name = flags, env, "one"
    member.__dict__.pop("command", None)
    if member.runs():
        member.stop()


def own_entry(member):
    [entry] = member.ask("GET", "/v2/members").json["members"]
    return entry


def test_2_7_a_new_name_is_published(again):
    again.name = "two"
    again.start(30)
    poll(lambda: own_entry(again)["name"] == "two", 10, "the name")
    assert again.self_stats()["name"] == "two" and again.id == again.own_id


def test_2_7_new_client_urls_are_published(again):
    again.flags.append("--advertise-client-urls=http://127.0.0.1:1,http://10.0.0.1:2")
    again.start(30)
    poll(lambda: own_entry(again)["clientURLs"] == ["http://10.0.0.1:2", "http://127.0.0.1:1"], 10, "the URLs")


def test_2_7_a_new_listen_url_takes_effect(again):
    port = FreePort()
    again.flags.append("--listen-client-urls=%s,http://127.0.0.1:%d" % (again.url, port.port))
    again.start(30)
    assert exchange(port.port, "GET", "/version").status == 200
    again.stop()
    port.release()


@pytest.mark.parametrize("flag", [
    "--initial-cluster=somebody=http://127.0.0.1:1", "--initial-cluster-state=existing", "--initial-cluster-token=another",
    "--initial-advertise-peer-urls=http://127.0.0.1:1"])
def test_2_7_what_says_how_to_begin_is_ignored(again, flag):
    again.flags.append(flag)
    again.start(30)
    assert again.id == again.own_id and again.get("/k").json["node"]["value"] == "1"
    assert own_entry(again)["peerURLs"] == [again.peer_url]


@pytest.mark.parametrize("flag", ["--discovery=http://127.0.0.1:1/token", "--discovery-srv=gone.invalid"])
def test_2_7_where_to_find_the_members_is_not_asked(again, flag):
    again.command = lambda: [w for w in Member.command(again) if not w.startswith("--initial-cluster=")] + [flag]
    again.start(30)
    assert again.id == again.own_id

    def is_ignored():
        life = again.log().split("shutting down")[-1]
        return "discovery token ignored since a cluster has already been initialized. Valid log found at " in life

    if flag.startswith("--discovery="):
        poll(is_ignored, 10, "that is told")
    assert is_ignored() == flag.startswith("--discovery=")
    assert "127.0.0.1:1/token" not in again.log()


@pytest.mark.parametrize("flag, text", [
    ("--initial-cluster=word", "error setting up initial cluster: URL scheme must be http or https: ; "),
    ("--initial-cluster-state=other", 'invalid value "other" for flag -initial-cluster-state: '),
    ("--initial-advertise-peer-urls=ftp://a:1", "URL scheme must be http or https: ftp://a:1")])
def test_2_7_what_is_ignored_is_read_all_the_same(again, flag, text):
    again.flags.append(flag)
    again.spawn()
    assert again.wait_end() == 2
    assert text in again.log()


def test_2_7_another_wal_dir_is_refused(again):
    again.flags.append("--wal-dir=" + again.folder + "/other")
    again.spawn()
    assert again.wait_end() == 2
    assert "; give --wal-dir the folder that this member's log is in" in again.log()


# 3.8 the data dir

@pytest.fixture(scope="module")
def trio():
    with Cluster(3, PATIENT) as cluster:  # What a leader knows of a member that is away it does not tell the next one.
        yield cluster.start()


def test_3_8_a_foreign_data_dir_speaks_for_its_own_cluster_and_is_refused(trio, made):
    """Identity follows the folder, not the flags."""
    other = made(Member("other"))
    other.initial = "other=" + other.peer_url
    other.start(30)
    foreign_id = cluster_id(other)
    other.stop()
    victim = trio.followers()[0]
    victim.stop()
    own_dir, victim.data_dir = victim.data_dir, other.data_dir
    try:
        victim.spawn()
        poll(lambda: "cluster_id=" + foreign_id in victim.log(), 20, "it runs as what the folder says")
        rest = [m for m in trio.running() if m is not victim]
        poll(lambda: any("cluster ID mismatch: " in m.log() + victim.log() for m in rest), 20, "where its flags say it is refused")
        assert rest[0].put("/k", "1").status in (200, 201)
        victim.kill()
    finally:
        victim.data_dir = own_dir
    victim.start(30)
    trio.wait_equal()


def test_3_8_a_member_whose_disk_went_back_in_time_is_stopped_with_the_mend(trio):
    """A copy of an earlier day in its place: the reference dies of the same, and says no more."""
    old, leader = trio.followers()[0], trio.leader()
    assert leader.put("/k", "1").status in (200, 201)
    trio.wait_equal()
    old.stop()
    saved = old.data_dir + ".saved"
    shutil.copytree(old.data_dir, saved, ignore=shutil.ignore_patterns("run"))
    old.start(30)
    for i in range(20):
        assert leader.put("/k", str(i)).status == 200
    trio.wait_equal()
    old.stop()
    shutil.rmtree(old.data_dir)
    os.rename(saved, old.data_dir)
    old.spawn()
    assert old.wait_end() == 2
    assert re.search(r"tocommit\(\d+\) is out of range \[lastIndex\(\d+\)\]. Was the raft log corrupted, truncated, or lost\?; "
                     + re.escape(old.data_dir) + " is older than what this member has acknowledged: remove the member", old.log())
    assert leader.put("/k", "200").status == 200


def test_3_8_files_are_their_owners_alone(made):
    member = made(Member("m", ["--snapshot-count=10"]))
    member.initial = "m=" + member.peer_url
    member.start(30)
    for i in range(40):
        member.put("/k", str(i))
    poll(lambda: glob.glob(member.data_dir + "/member/snap/*.snap"), 20, "a snapshot")
    for folder, names, files in os.walk(member.data_dir):
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0, name
        for name in files:
            try:
                mode = os.lstat(os.path.join(folder, name)).st_mode
            except FileNotFoundError:
                continue  # What it was written as; it has its name by now.
            assert mode & 0o077 == 0 or stat.S_ISSOCK(mode), name  # A folder above keeps others from the sockets.
