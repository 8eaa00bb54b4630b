"""Connections between members: TLS on https peer URLs, seals on http ones, and what strangers get on either."""

import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import time

import pytest
from harness.places import poll, scratch_dir
from harness.server import clean_environment

from certs import Certs
from members import Cluster, Member

pytestmark = pytest.mark.ours


class TlsMember(Member):
    """A member whose peer URL is https while `tls` is set."""

    tls = True
    host = "127.0.0.1"

    @property
    def peer_url(self):
        return "%s://%s:%d" % ("https" if self.tls else "http", self.host, self.peer_port)


class TlsCluster(Cluster):
    """Members with these flags each: a list of lists."""

    def __init__(self, flags, kind=TlsMember, tls=True):
        self.members = [kind("m%d" % (i + 1), each) for i, each in enumerate(flags)]
        self.flags = []
        for member in self.members:
            member.tls = tls
        for member in self.members:
            member.initial = self.initial_cluster()


@pytest.fixture(scope="module")
def certs():
    with Certs() as made:
        for i in (1, 2, 3):
            made.cert("m%d" % i)
        made.make("ca", "other")
        yield made


@pytest.fixture
def cluster():
    """Makes clusters, closes them all."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(TlsCluster(*args, **options))


def flags_of(certs, count=3, **options):
    return [certs.flags("m%d" % (i + 1), **options) for i in range(count)]


def copied(certs, name, copy):
    """The same certificate in files of its own, which a test may replace."""
    for kind in (".pem", ".key"):
        shutil.copy(certs.path(name + kind), certs.path(copy + kind))
    return copy


def says(member, text, also="", timeout=20):
    """A line of the member's log that bears the text, and the other one."""

    def found():
        return next((line for line in member.log().splitlines() if text in line and also in line), None)

    return poll(found, timeout, "%s says %r" % (member.name, text))


def agree(cluster, key="/k", value="v"):
    assert cluster.members[0].put(key, value).status in (200, 201)
    for member in cluster.running():
        assert member.get(key, quorum=True).json["node"]["value"] == value


def refused_start(member, timeout=20):
    """Starts, and only checks, what is to be refused; the status of both, and the one line that both end in. Nothing is
    left on the disk."""
    checked = subprocess.run([*member.command(), "--check"], env=clean_environment(), stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=timeout)
    member.spawn()
    status = member.wait_end(timeout)
    line = member.log().splitlines()[-1]
    assert (checked.returncode, checked.stderr.splitlines()[-1]) == (status, line), checked.stdout[-2000:]
    assert "ok: would start" not in checked.stdout
    assert not os.path.exists(member.data_dir) or os.listdir(member.data_dir) == []
    return status, line


# TLS.


def test_three_members_with_certificates_of_one_authority_form_a_cluster_and_restart(certs, cluster):
    three = cluster(flags_of(certs)).start()
    agree(three)
    urls = {u for m in three.list_members() for u in m["peerURLs"]}
    assert urls == {m.peer_url for m in three.members} and all(u.startswith("https://") for u in urls)
    for member in three.members:
        assert member.stop() == 143
    three.start()
    agree(three, value="w")
    leader = three.leader()
    leader.kill()
    agree_after = [m for m in three.members if m is not leader]
    # One that was not answered in time may have been made all the same: then it is there.
    poll(lambda: agree_after[0].put("/after", "x").status in (200, 201), 15, "a write without the old leader")


def test_nothing_of_a_write_can_be_read_on_the_way(certs, cluster):
    """What the members send is TLS: whoever connects plainly gets no frame of theirs, and 1.1 is not spoken."""
    (one,) = cluster(flags_of(certs, 1)).start().members
    context = ssl.create_default_context(cafile=certs.path("ca.pem"))
    context.load_cert_chain(certs.path("m2.pem"), certs.path("m2.key"))
    with socket.create_connection(("127.0.0.1", one.peer_port)) as plain, \
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        assert wrapped.version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", one.peer_port)) as plain, \
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        assert wrapped.version() == "TLSv1.2"


def test_a_member_with_another_authoritys_certificate_is_refused_on_both_sides(certs, cluster):
    certs.cert("stranger", ca="other")
    flags = flags_of(certs)
    flags[2] = certs.flags("stranger")
    three = cluster(flags)
    for member in three.members:
        member.spawn()
    first, second, stranger = three.members
    first.wait_ready(30)
    second.wait_ready(30)
    line = says(first, "x509: certificate signed by unknown authority: CN=stranger was issued by CN=other", "raftd.peer.unsafe")
    assert "add that authority to -peer-trusted-ca-file" in line
    assert "from=127.0.0.1:" in line or "url=" + stranger.peer_url in line
    line = says(stranger, "does not take our certificate")
    assert "raftd." in line and certs.path("stranger.pem") in line and "its log says why" in line
    assert stranger.runs() and stranger.leader_id() in ("", "0")
    agree_two = [first, second]
    assert agree_two[0].put("/k", "v").status == 201


@pytest.mark.parametrize("sort", ["none", "expired", "revoked", "purpose", "name"])
def test_a_member_without_a_good_certificate_is_kept_out_and_told_why(certs, cluster, sort):
    names = {"expired": {"days": -1}, "revoked": {}, "purpose": {"usage": "serverAuth"}, "name": {"sans": "DNS:elsewhere.test"}}
    expected = {
        "none": "tls: client didn't provide a certificate; give it -peer-cert-file and -peer-key-file",
        "expired": "x509: certificate has expired: CN=bad-expired ended ",
        "revoked": "x509: certificate of CN=bad-revoked is revoked by ",
        "purpose": "x509: certificate specifies an incompatible key usage: CN=bad-purpose is not for TLS clients",
        "name": "x509: certificate is valid for elsewhere.test, not 127.0.0.1",
    }[sort]
    crl = None
    if sort == "none":
        bad = ["--peer-trusted-ca-file=" + certs.path("ca.pem")]  # and listens on http
    else:
        bad_name = certs.cert("bad-" + sort, **names[sort])
        bad = certs.flags(bad_name)
    if sort == "revoked":
        crl = "crl.pem"
        certs.make("crl", "ca", crl, bad_name)
    flags = flags_of(certs, crl=crl)
    flags[2] = bad
    three = cluster(flags)
    three.members[2].tls = sort != "none"
    for member in three.members:
        member.initial = three.initial_cluster()
        member.spawn()
    for member in three.members[:2]:
        member.wait_ready(30)
    line = says(three.members[0], expected)
    assert "; " in line
    if sort in ("expired", "revoked", "name"):  # The others may dial a member that listens on http, or is only good to be dialled.
        assert three.members[2].leader_id() == ""
    assert three.members[0].put("/k", "v").status == 201


@pytest.mark.slow
def test_without_client_cert_auth_a_certificate_is_needed_only_to_listen(certs, cluster):
    three = cluster(flags_of(certs, auth=False)).start()
    agree(three)


@pytest.mark.slow
def test_only_the_allowed_common_name_is_let_in(certs, cluster):
    names = [certs.cert(n) for n in ("quorate-peer", "imposter")]
    flags = [certs.flags(copied(certs, names[0], "allowed%d" % i)) + ["--peer-cert-allowed-cn=quorate-peer"] for i in (1, 2)]
    flags.append(certs.flags("imposter"))
    three = cluster(flags)
    for member in three.members:
        member.spawn()
    for member in three.members[:2]:
        member.wait_ready(30)
    says(three.members[0], "CommonName authentication failed: CN=imposter does not bear the name quorate-peer; ")
    assert three.members[2].leader_id() == ""


@pytest.mark.slow
def test_auto_tls_needs_no_files(cluster):
    three = cluster([["--peer-auto-tls"]] * 3).start()
    agree(three)
    three.members[0].said("with auto TLS nobody can tell who is at the other end")


def test_renewed_certificates_are_taken_without_a_restart(certs, cluster):
    names = [copied(certs, "m%d" % i, "live%d" % i) for i in (1, 2, 3)]
    three = cluster([certs.flags(name) for name in names]).start()
    agree(three)
    pids = [m.daemon("raftd") for m in three.members]
    for name in names:
        certs.cert("renewed")
        certs.replace(name, "renewed")
    for member in three.members:
        says(member, "raftd.tls.reloaded certificate=1 trust=0")
    # What listens now shows the new certificate.
    context = ssl.create_default_context(cafile=certs.path("ca.pem"))
    context.load_cert_chain(certs.path("m1.pem"), certs.path("m1.key"))
    with socket.create_connection(("127.0.0.1", three.members[0].peer_port)) as plain, \
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        assert (("commonName", "renewed"),) in wrapped.getpeercert()["subject"]
    assert [m.daemon("raftd") for m in three.members] == pids
    three.members[2].stop()
    three.members[2].start()
    agree(three, value="after")


def test_files_that_do_not_fit_leave_the_old_ones_in_force(certs, cluster):
    name = copied(certs, "m1", "torn")
    three = cluster([certs.flags(name), certs.flags("m2"), certs.flags("m3")]).start()
    shutil.copy(certs.path("m2.pem"), certs.path("half.pem"))
    os.replace(certs.path("half.pem"), certs.path("torn.pem"))  # Who looks meanwhile sees the whole of either.
    line = says(three.members[0], "raftd.tls.unusable")
    assert "tls: private key does not match public key: " in line and "; give -peer-key-file" in line
    three.members[1].stop()
    three.members[1].start()
    agree(three)


def test_a_revoked_member_is_cut_off_though_it_was_connected(certs, cluster):
    name = certs.cert("leaving")
    certs.make("crl", "ca", "live-crl.pem")
    flags = flags_of(certs, 2, crl="live-crl.pem") + [certs.flags(name)]
    three = cluster(flags).start()
    agree(three)
    certs.make("crl", "ca", "new-crl.pem", name)
    os.replace(certs.path("new-crl.pem"), certs.path("live-crl.pem"))
    for member in three.members[:2]:
        says(member, "raftd.tls.reloaded certificate=0 trust=1")
    says(three.members[0], "x509: certificate of CN=leaving is revoked by " + certs.path("live-crl.pem"))
    poll(lambda: three.members[0].put("/k", "w").status in (200, 201), 20, "the two others go on")
    poll(lambda: three.members[2].leader_id() in ("", "0"), 20, "the revoked one has no leader")


@pytest.mark.slow
def test_a_cluster_moves_from_http_to_https_member_by_member(certs, cluster):
    """operations.md R12: update the URL, restart with https, one at a time; the cluster serves all the while."""
    three = cluster(flags_of(certs, auth=False), tls=False).start()
    agree(three, value="plain")
    for number, member in enumerate(three.members):
        through = three.members[(number + 1) % 3]
        ident = member.id
        member.tls = True
        answer = three.change("PUT", "/v2/members/" + ident, {"peerURLs": [member.peer_url]}, through=through)
        assert answer.status == 204, answer
        member.stop()
        assert through.put("/during", str(number)).status in (200, 201)
        member.start()
        agree(three, value="after-%d" % number)
        urls = {u for m in three.list_members() for u in m["peerURLs"]}
        assert sum(u.startswith("https") for u in urls) == number + 1
    three.wait_equal()


def test_a_member_joins_over_https(certs, cluster):
    two = cluster(flags_of(certs, 2)).start()
    third = TlsMember("m3", certs.flags("m3"))
    with third:
        answer = two.change("POST", "/v2/members", {"peerURLs": [third.peer_url]})
        assert answer.status == 201, answer
        two.members.append(third)
        third.initial, third.state = two.initial_cluster(), "existing"
        third.start(30)
        agree(two)


@pytest.mark.slow
def test_one_side_http_and_one_https_is_told_on_both(certs, cluster):
    """The listener speaks what its URL says; the dialer what the member list says."""
    three = cluster(flags_of(certs, auth=False))
    for member in three.members:
        member.spawn()
    for member in three.members:
        member.wait_ready(30)
    plain = three.members[2]
    plain.stop()
    plain.tls = False
    plain.spawn()
    line = says(plain, "a TLS handshake where none is spoken; give both sides the same scheme")
    assert "raftd.peer.unsafe from=127.0.0.1:" in line and "url=http://" in line
    says(three.members[0], "the other side hung up in the handshake; its log says why: another scheme,",
         "url=https://127.0.0.1:%d" % plain.peer_port)


@pytest.mark.parametrize("row", [
    ("--peer-cert-file", "none.pem", "open {path}: No such file or directory; put the file there, or correct -peer-cert-file"),
    ("--peer-key-file", "none.key", "open {path}: No such file or directory; put the file there, or correct -peer-key-file"),
    ("--peer-key-file", "m2.key", "tls: private key does not match public key: {path} is not the key of the certificate in "),
    ("--peer-trusted-ca-file", "m1.key", "x509: malformed CA certificate in {path} "),
    ("--peer-crl-file", "ca.pem", "x509: malformed CRL in {path} "),
], ids=lambda row: row[0][7:] + "-" + row[1])
def test_a_file_that_is_no_good_ends_the_start(certs, cluster, row):
    flag, name, expected = row
    (one,) = cluster([certs.flags("m1") + ["%s=%s" % (flag, certs.path(name))]]).members
    status, line = refused_start(one)
    assert status == 2 and expected.format(path=certs.path(name)) in line and "; " in line


def test_a_check_of_good_files_says_what_is_to_be_noted_and_starts_nothing(certs, cluster):
    (one,) = cluster([certs.flags(certs.cert("ending", days=3))]).members
    checked = subprocess.run([*one.command(), "--check"], env=clean_environment(), stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=20)
    assert checked.returncode == 0 and "ok: would start a new member" in checked.stdout, checked.stderr
    assert "raftd.tls.note" in checked.stderr and "ending.pem" in checked.stderr
    assert not os.path.exists(one.data_dir) or os.listdir(one.data_dir) == []


# Strangers.


def exchange_bytes(member, data, timeout=10):
    """What the peer port answers to these bytes until it hangs up."""
    with socket.create_connection(("127.0.0.1", member.peer_port), timeout=timeout) as raw:
        raw.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := raw.recv(65536):
                got += piece
        return got


TOLD_AGAIN_S = 10  # What goes on is said again after that.
HTTP = b"GET /members HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sort", ["plain", "tls", "sealed"])
def test_an_http_request_is_hung_up_on_and_told_once(certs, cluster, sort):
    with key_file() as key:
        flags = {"plain": [], "tls": flags_of(certs, 1, auth=False)[0], "sealed": ["--cluster-key-file=" + key]}[sort]
        (one,) = cluster([flags], tls=sort == "tls").start().members
        began = time.monotonic()
        for _ in range(20):
            exchange_bytes(one, HTTP)
        expected = "an HTTP request to an HTTPS server" if sort == "tls" else "an HTTP request on the peer port"
        line = says(one, expected)
        assert "raftd.peer.unsafe from=127.0.0.1:" in line and "; " in line
        assert one.log().count(expected) <= 1 + (time.monotonic() - began) // TOLD_AGAIN_S
        assert one.put("/k", "v").status == 201


@pytest.mark.slow
def test_an_http_request_over_tls_is_told_too(certs, cluster):
    (one,) = cluster(flags_of(certs, 1, auth=False)).start().members
    context = ssl.create_default_context(cafile=certs.path("ca.pem"))
    with socket.create_connection(("127.0.0.1", one.peer_port)) as plain, \
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        wrapped.sendall(HTTP)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert wrapped.recv(100) == b""
    says(one, "an HTTP request on the peer port, where members speak to each other; send it to a client URL")


@pytest.mark.slow
@pytest.mark.parametrize("sort", ["plain", "tls", "sealed"])
def test_garbage_ends_its_own_connection_only(certs, cluster, sort):
    with key_file() as key:
        flags = {"plain": [[]] * 3, "tls": flags_of(certs), "sealed": [["--cluster-key-file=" + key]] * 3}[sort]
        three = cluster(flags, tls=sort == "tls").start()
        pids = [m.daemon("raftd") for m in three.members]
        seed = int(os.environ.get("QUORATE_TEST_SEED", "1"))
        source = random.Random(seed)
        begins = [b"", b"\x16\x03\x01\x00\x20", b"QSL1", b"QSL1" + bytes(48), b"\x00\x00\x00\x20", b"\x15\x03\x03\x00\x02"]
        for i in range(60):
            data = begins[i % len(begins)] + source.randbytes(source.randrange(1, 3000))
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", three.members[i % 3].peer_port), 5) as raw:
                raw.sendall(data)
        agree(three)
        assert [m.daemon("raftd") for m in three.members] == pids


@pytest.mark.slow
@pytest.mark.limit(180)
@pytest.mark.parametrize("sort", ["plain", "tls", "sealed"])
def test_a_thousand_half_open_connections_keep_no_member_out(certs, cluster, sort):
    """They stay open and say no more than the beginning; a member restarts meanwhile and gets in."""
    with key_file() as key, contextlib.ExitStack() as stack:
        flags = {"plain": [[]] * 3, "tls": flags_of(certs), "sealed": [["--cluster-key-file=" + key]] * 3}[sort]
        three = cluster(flags, tls=sort == "tls").start()
        begin = {"plain": b"\x00\x00", "tls": b"\x16\x03\x01\x02\x00\x01\x00", "sealed": b"QSL1abc"}[sort]
        victim = next(m for m in three.members if m is not three.leader())
        other = next(m for m in three.members if m is not victim)
        other.stop()
        for _ in range(1000):
            with contextlib.suppress(OSError):
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", victim.peer_port), 5))
                raw.sendall(begin)
        raftd = victim.daemon("raftd")
        assert count_sockets(raftd) < 600  # 512 at most, and its own
        other.start(30)
        agree(three)
        # Who says nothing is hung up on: none of them is left after two election timeouts and a little.
        poll(lambda: count_sockets(raftd) < 100, 20, "they are let go")


def count_sockets(pid):
    """Not descriptors: of a connection there are two for the same socket, nng's and ours."""
    sockets, folder = set(), "/proc/%d/fd" % pid
    for fd in os.listdir(folder):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(os.path.join(folder, fd)))
    return len([name for name in sockets if name.startswith("socket:")])


@pytest.mark.parametrize("sort", ["tls", "sealed"])
def test_a_slow_handshake_is_ended(certs, cluster, sort):
    with key_file() as key:
        flags = {"tls": flags_of(certs, 1)[0], "sealed": ["--cluster-key-file=" + key]}[sort]
        (one,) = cluster([flags], tls=sort == "tls").start().members
        with socket.create_connection(("127.0.0.1", one.peer_port), timeout=20) as raw:
            began = {"tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "sealed": b"QSL1"}[sort]
            raw.sendall(began)
            raw.settimeout(0.3)

            def ended():
                """A byte now and then does not help."""
                try:
                    raw.sendall(b"\x01")
                    return raw.recv(1000) == b""
                except socket.timeout:
                    return False
                except OSError:
                    return True

            poll(ended, 20, "hung up on")


# Seals.


@contextlib.contextmanager
def key_file(text=None):
    """A cluster key, made as docs/configuration.md says."""
    with scratch_dir("key") as folder:
        path = os.path.join(folder, "cluster.key")
        if text is None:
            text = new_key()
        write_key(path, text)
        yield path


def new_key():
    return subprocess.run(["openssl", "rand", "-hex", "32"], capture_output=True, text=True, check=True).stdout


def write_key(path, text):
    with open(path + ".new", "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)
    os.replace(path + ".new", path)


def test_members_with_one_cluster_key_form_a_cluster_and_restart(cluster):
    with key_file() as key:
        three = cluster([["--cluster-key-file=" + key]] * 3, tls=False).start()
        agree(three)
        for member in three.members:
            member.stop()
        three.start()
        agree(three, value="w")


@pytest.mark.parametrize("sort", ["missing", "different"])
def test_a_member_with_no_or_another_cluster_key_is_refused_on_both_sides(cluster, sort):
    with key_file() as key, key_file() as another:
        flags = [["--cluster-key-file=" + key]] * 2 + [[] if sort == "missing" else ["--cluster-key-file=" + another]]
        three = cluster(flags, tls=False)
        for member in three.members:
            member.spawn()
        for member in three.members[:2]:
            member.wait_ready(30)
        outsider = three.members[2]
        theirs, its = {
            "missing": ("the other side does not seal its connections; give all members the same -cluster-key-file",
                        "the connection is sealed, but here is no -cluster-key-file; give all members the same one"),
            "different": ("the other side seals with another cluster key; give all members the same -cluster-key-file",) * 2,
        }[sort]
        assert "raftd.peer.unsafe" in says(three.members[0], theirs)
        assert "raftd.peer.unsafe" in says(outsider, its)
        assert outsider.leader_id() == ""
        assert three.members[0].put("/k", "v").status == 201


@pytest.mark.slow
def test_the_cluster_key_is_changed_without_a_restart(cluster):
    """docs/configuration.md: add the new one behind the old on each member, then swap, then take the old one off."""
    old, new = new_key(), new_key()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(key_file(old)) for _ in range(3)]
        three = cluster([["--cluster-key-file=" + f] for f in files], tls=False).start()
        pids = [m.daemon("raftd") for m in three.members]
        for turn, text in enumerate((old + new, new + old, new)):
            for path, member in zip(files, three.members):
                write_key(path, text)
                poll(lambda: member.log().count("raftd.seal.reloaded") == turn + 1, 15, "read again")
                poll(lambda: three.members[0].put("/k", text[:8]).status in (200, 201), 15, "a write")
        agree(three, value="after")
        assert [m.daemon("raftd") for m in three.members] == pids
        assert not any("another cluster key" in m.log() for m in three.members)


@pytest.mark.parametrize("text", ["", "abc", "0" * 63, "0" * 65, "g" * 64, ("0" * 64 + "\n") * 3])
def test_a_key_file_that_holds_no_key_ends_the_start(cluster, text):
    with key_file(text) as key:
        (one,) = cluster([["--cluster-key-file=" + key]], tls=False).members
        status, line = refused_start(one)
        assert status == 2 and key + " holds no cluster key; " in line and "openssl rand -hex 32" in line


def test_a_key_file_that_is_not_there_ends_the_start(cluster):
    (one,) = cluster([["--cluster-key-file=/nonexistent/key"]], tls=False).members
    status, line = refused_start(one)
    assert status == 2 and "open /nonexistent/key: No such file or directory; put the cluster's key there" in line
