"""Clusters that find their members: by a discovery URL, ours and Debian's etcd as the registry, and by SRV records."""

import contextlib
import getpass
import glob
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import uuid

import pytest
from harness.places import FreePort, poll
from harness.server import SOURCE, Etcd, Quorate, _die_with_parent
from harness.wire import exchange

from certs import Certs
from members import JSON, Member

pytestmark = pytest.mark.ours

FORM = [("Content-Type", "application/x-www-form-urlencoded")]


class Finder(Member):
    """A member that knows no other; `how` are the flags that lead to them."""

    def __init__(self, name, how, **options):
        super().__init__(name, **options)
        self.how, self.initial = list(how), ""

    def command(self):
        return [word for word in super().command() if not word.startswith("--initial-cluster=")] + self.how


class Registry:
    """A server and a fresh token on it."""

    def __init__(self, server, size=None):
        self.server = server
        self.path = "/v2/keys/_etcd/registry/" + uuid.uuid4().hex
        if size is not None:
            assert self.put("_config/size", str(size)).status == 201

    @property
    def url(self):
        return self.server.url + self.path

    def put(self, key, value):
        return exchange(self.server.port, "PUT", "%s/%s" % (self.path, key), headers=FORM, body=b"value=" + value.encode())

    def registered(self):
        node = exchange(self.server.port, "GET", self.path).json["node"]
        return [n["key"].rsplit("/", 1)[1] for n in node.get("nodes", [])]


@pytest.fixture(scope="module", params=["quorate", "etcd"])
def server(request):
    with {"quorate": Quorate, "etcd": Etcd}[request.param](quick_clock=True) as started:
        yield started.start()


@pytest.fixture(scope="module")
def own_server():
    with Quorate(quick_clock=True) as started:
        yield started.start()


@pytest.fixture
def finders():
    """Makes members, closes them all."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Finder(*args, **options))


@pytest.fixture(scope="module")
def certs():
    with Certs() as made:
        for name in ("infra0", "infra1", "infra2"):
            made.cert(name)
        yield made


def by_url(registry, *more):
    return ["--discovery=" + registry.url, *more]


def started(members):
    for member in members:
        member.spawn()
    for member in members:
        member.wait_ready(30)
    return members


def names(member):
    """Sorted, once all have told theirs: a member does so a moment after it is ready."""
    def told():
        found = sorted(m["name"] for m in member.ask("GET", "/v2/members").json["members"])
        return found if all(found) else None
    return poll(told, 10, "all members have told their names")


def refusal(member, timeout=20):
    """Starts what is to be refused; what it said last of why. Its status is 2."""
    member.spawn()
    status = member.wait_end(timeout)
    lines = [line for line in member.log().splitlines() if "raftd.start.failed" in line]
    assert status == 2 and lines, (status, member.log()[-2000:])
    assert "; " in lines[-1]
    return lines[-1]


class Before:
    """A server that stands before another one, at `target`; what derives from it says what becomes of a request."""

    scheme, server_class = "http", http.server.ThreadingHTTPServer

    def __init__(self, target):
        self.target = target

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(handler):
                self.answer(handler, handler.rfile.read(int(handler.headers.get("Content-Length") or 0)))

            do_GET = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = self.server_class(("127.0.0.1", 0), Handler)
        self.url = "%s://127.0.0.1:%d" % (self.scheme, self.server.server_port)
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def answer(self, handler, body):
        raise NotImplementedError

    def pass_on(self, handler, path, body):
        with socket.create_connection(self.target) as onward:
            head = "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\nContent-Type: %s\r\n\r\n" % (
                handler.command, path, len(body), handler.headers.get("Content-Type", "text/plain"))
            onward.sendall(head.encode() + body)
            while piece := onward.recv(65536):
                handler.wfile.write(piece)
        handler.close_connection = True

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Middle(Before):
    """Sends everybody on to another server, or, as a proxy, fetches the answer itself."""

    def __init__(self, target, status):
        super().__init__(target)
        self.status, self.seen = status, []

    def answer(self, handler, body):
        self.seen.append((handler.command, handler.path))
        if self.status == 200:
            self.pass_on(handler, "/" + handler.path.split("/", 3)[3], body)
            return
        handler.send_response(self.status)
        handler.send_header("Location", self.target + handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


# The URL.


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_followed_also_when_registering(own_server, finders, status):
    registry = Registry(own_server, 1)
    with Middle(own_server.url, status) as middle:
        started([finders("infra0", ["--discovery=%s%s" % (middle.url, registry.path)])])
        assert "PUT" in {method for method, _ in middle.seen}
    assert len(registry.registered()) == 1


def test_the_proxy_serves_discovery_and_nothing_else(own_server, finders):
    registry = Registry(own_server, 1)
    with Middle(("127.0.0.1", own_server.port), 200) as middle:
        # Nobody listens there: only through the proxy does it lead anywhere.
        with_proxy = ["--discovery=http://registry.invalid" + registry.path, "--discovery-proxy=" + middle.url[len("http://"):]]
        started([finders("infra0", with_proxy)])
        assert all(path.startswith("http://registry.invalid" + registry.path) for _, path in middle.seen)
    assert len(registry.registered()) == 1


def test_three_members_find_each_other_by_a_url(server, finders):
    registry = Registry(server, 3)
    three = started([finders("infra%d" % i, by_url(registry)) for i in range(3)])
    assert three[0].put("/k", "v").status == 201
    for member in three:
        assert member.get("/k", quorum=True).json["node"]["value"] == "v"
        assert names(member) == ["infra0", "infra1", "infra2"]
    assert len(registry.registered()) == 3
    token = registry.path.rsplit("/", 1)[1]
    assert not any(token in member.log() for member in three)


class HungUpOn(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # By who does not trust us.


class Front(Before):
    """TLS before a server that speaks none."""

    scheme, server_class = "https", HungUpOn

    def __init__(self, server, cert, key):
        super().__init__(("127.0.0.1", server.port))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def answer(self, handler, body):
        self.pass_on(handler, handler.path, body)


def test_a_registry_behind_tls_is_believed_if_its_authority_is_known(own_server, finders, certs):
    registry = Registry(own_server, 1)
    certs.cert("registry")
    with Front(own_server, certs.path("registry.pem"), certs.path("registry.key")) as front:
        member = finders("infra0", ["--discovery=" + front.url + registry.path])
        member.spawn()
        line = poll(lambda: next((text for text in member.log().splitlines() if "error connecting to " in text), None), 15, "told")
        assert front.url + "/***, retrying in 2s; add its authority to the system's" in line
        assert registry.registered() == []
        member.kill()
        member.env = {"SSL_CERT_FILE": certs.path("ca.pem")}
        started([member])
    assert len(registry.registered()) == 1


def test_a_restart_needs_no_registry(finders):
    with Quorate(quick_clock=True) as server:
        registry = Registry(server.start(), 2)
        two = started([finders("infra%d" % i, by_url(registry)) for i in range(2)])
        assert two[0].put("/k", "v").status == 201
    for member in two:
        member.stop()
    for member in two:
        member.how = by_url(registry)
    started(two)
    assert two[1].get("/k", quorum=True).json["node"]["value"] == "v"
    assert "error connecting" not in two[0].log()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_member_ended_while_it_waits_goes_on_where_it_was(own_server, finders, end):
    registry = Registry(own_server, 2)
    first, second = (finders("infra%d" % i, by_url(registry)) for i in range(2))
    first.spawn()
    poll(registry.registered, 10, "registered")
    poll(lambda: "waiting for 1 more" in first.log(), 10, "waits")
    assert getattr(first, end)() == {"kill": None, "stop": 143}[end]
    started([first, second])
    assert names(first) == ["infra0", "infra1"]


def test_a_registry_that_is_down_is_asked_again(finders):
    with Quorate(quick_clock=True) as server:
        registry = Registry(server.start(), 1)
        server.stop()  # With the size in it: whoever asks when it is back finds it.
        member = finders("infra0", by_url(registry))
        member.spawn()
        poll(lambda: "cluster status check: error connecting to %s/***, retrying in 2s; " % server.url in member.log(), 10, "told")
        server.start()
        member.wait_ready(30)
        assert names(member) == ["infra0"]


def test_what_is_no_member_is_not_counted_as_one(own_server, finders):
    registry = Registry(own_server, 2)
    first, second = (finders("infra%d" % i, by_url(registry)) for i in range(2))
    first.spawn()
    poll(lambda: "waiting for 1 more" in first.log(), 10, "waits")
    registry.put("_config/size", "2")
    registry.put("_other", "x")
    second.spawn()
    for member in (first, second):
        member.wait_ready(30)
    assert names(first) == ["infra0", "infra1"]


def test_a_late_comer_finds_it_full(server, finders):
    registry = Registry(server, 1)
    started([finders("infra0", by_url(registry))])
    late = finders("infra1", by_url(registry, "--discovery-fallback=exit"))
    assert "failed to join discovery cluster (discovery: cluster is full); " in refusal(late)
    proxy = finders("infra2", by_url(registry))
    assert "discovery cluster full, falling back to proxy; a proxy is not served" in refusal(proxy)
    assert len(registry.registered()) == 1
    assert not glob.glob(late.data_dir + "/member/wal/*")


def test_a_registry_without_a_size_is_refused(server, finders):
    member = finders("infra0", by_url(Registry(server)))
    assert "discovery: size key not found; " in refusal(member)


def test_a_size_that_is_no_number_is_refused(server, finders):
    assert "discovery: size key is bad; " in refusal(finders("infra0", by_url(Registry(server, "three"))))


def test_a_url_that_is_no_key_space_is_refused(server, finders):
    member = finders("infra0", ["--discovery=%s/version" % server.url])
    assert "discovery: bad discovery endpoint; " in refusal(member)


def test_a_value_that_is_no_member_is_refused(own_server, finders):
    registry = Registry(own_server, 2)
    registry.put("abc", "junk")
    assert "discovery: invalid URL; member abc " in refusal(finders("infra0", by_url(registry)))


def test_a_member_that_lost_its_data_is_told_of_its_registration(server, finders):
    registry = Registry(server, 2)
    member = finders("infra0", by_url(registry))
    member.spawn()
    poll(lambda: "waiting for 1 more" in member.log(), 10, "waits")
    member.kill()
    member.data_dir += "-other"
    line = refusal(member).replace("\\", "")
    assert 'member "infra0" has previously registered with discovery service token (' in line


def test_two_members_of_one_name_are_refused_both(own_server, finders):
    registry = Registry(own_server, 2)
    two = [finders("same", by_url(registry)) for _ in range(2)]
    two[0].spawn()
    poll(registry.registered, 10, "registered")
    assert "member with duplicated name has registered with discovery service token(" in refusal(two[1])
    assert two[0].wait_end() == 2


def test_a_url_is_not_for_joining_a_running_cluster(finders):
    member = finders("infra0", ["--discovery=http://127.0.0.1:1/x", "--initial-cluster-state=existing"])
    member.spawn()
    assert member.wait_end() == 2
    assert "discovery URL should not be set when joining existing initial cluster; " in member.log()


# The service.

@pytest.fixture(scope="module")
def service():
    with Quorate(["--enable-discovery"], quick_clock=True) as started_:
        yield started_.start()


def new_url(service, query=""):
    answer = exchange(service.port, "GET", "/new" + query)
    assert answer.status == 200, answer
    return answer.body.decode()


def test_a_cluster_starts_from_a_url_of_the_service(service, finders):
    url = new_url(service, "?size=2")
    two = started([finders("infra%d" % i, ["--discovery=" + url]) for i in range(2)])
    assert names(two[0]) == ["infra0", "infra1"]
    shown = exchange(service.port, "GET", "/" + url.rsplit("/", 1)[1]).json["node"]
    assert sorted(n["value"].split("=")[0] for n in shown["nodes"]) == ["infra0", "infra1"]


@pytest.mark.parametrize("query, size", [("", "3"), ("?size=1", "1"), ("?size=9", "9"), ("?other=x&size=4", "4")])
def test_the_service_writes_the_size_asked_for(service, query, size):
    url = new_url(service, query)
    assert url.startswith(service.url + "/v2/keys/_etcd/registry/")
    assert exchange(service.port, "GET", url[len(service.url):] + "/_config/size").json["node"]["value"] == size


@pytest.mark.parametrize("size", ["0", "10", "-1", "", "x", "3x", "03"])
def test_other_sizes_are_refused(service, size):
    assert exchange(service.port, "GET", "/new?size=" + size).status == 400


def test_each_token_is_a_fresh_one(service):
    tokens = {new_url(service).rsplit("/", 1)[1] for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(t) == 32 and set(t) <= set("0123456789abcdef") for t in tokens)


def test_only_get_is_served_there(service):
    for path in ("/new", "/" + "0" * 32):
        answer = exchange(service.port, "PUT", path)
        assert (answer.status, answer.header("Allow")) == (405, "GET")


def test_an_unknown_token_is_a_key_that_is_not_there(service):
    answer = exchange(service.port, "GET", "/" + "0" * 32)
    assert (answer.status, answer.json["errorCode"]) == (404, 100)


def test_without_the_flag_there_is_no_service(own_server):
    for path in ("/new", "/" + "0" * 32):
        for method in ("GET", "PUT"):
            answer = exchange(own_server.port, method, path)
            assert (answer.status, answer.body) == (404, b"404 page not found\n")


# SRV records.

class NamedFinder(Finder):
    """Its peer URL bears a name, as SRV records do."""

    scheme = "http"

    @property
    def peer_url(self):
        return "%s://localhost:%d" % (self.scheme, self.peer_port)


class NameServer:
    """dnsmasq on a port of its own, with these records (service, target, port) of one domain."""

    domain = "cluster.test"

    def __init__(self, records):
        self._port = FreePort()
        self.address = "127.0.0.1:%d" % self._port.port
        self.command = [
            shutil.which("dnsmasq", path="/usr/sbin:" + os.path.join(SOURCE, "deps", "dnsmasq")), "--keep-in-foreground", "--conf-file=/dev/null",
            "--port=%d" % self._port.port, "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts",
            "--pid-file=", "--user=" + getpass.getuser(), "--log-facility=-", "--local=/test/", "--local=/localhost/",
        ] + ["--srv-host=%s._tcp.%s,%s,%d" % (service, self.domain, target, port) for service, target, port in records]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=_die_with_parent)
        for line in self.process.stderr:
            if b"started" in line:
                return self
        raise RuntimeError("dnsmasq ended with %s" % self.process.wait())

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self._port.release()


@pytest.fixture
def named():
    with contextlib.ExitStack() as stack:
        def make(*names_):
            made = [stack.enter_context(NamedFinder(name, ["--discovery-srv=" + NameServer.domain])) for name in names_]
            for member in made:
                member.env = {}
            return made

        yield make


def use(members, records):
    """A name server with the records, which the members ask."""
    dns = NameServer(records)
    for member in members:
        member.env["QUORATE_RESOLVER"] = dns.address
    return dns


def http_records(members, service="_etcd-server", target="localhost"):
    return [(service, target, m.peer_port) for m in members]


def test_three_members_find_each_other_by_srv_records_and_restart_without_dns(named):
    three = named("infra0", "infra1", "infra2")
    with use(three, http_records(three)):
        started(three)
        assert three[0].put("/k", "v").status == 201
        for member in three:
            assert names(member) == ["infra0", "infra1", "infra2"]
        urls = {u for m in three[0].ask("GET", "/v2/members").json["members"] for u in m["peerURLs"]}
        assert urls == {m.peer_url for m in three}
    for member in three:
        member.stop()
    started(three)
    assert three[2].get("/k", quorum=True).json["node"]["value"] == "v"


def test_the_suffix_is_part_of_the_service(named):
    (member,) = named("infra0")
    member.how.append("--discovery-srv-name=blue")
    with use([member], http_records([member], "_etcd-server-blue")):
        started([member])


def with_tls(certs, members, auth=True):
    for member in members:
        member.scheme = "https"
        member.how += certs.flags(member.name, auth=auth)
    return members


def test_three_members_with_tls_find_each_other_by_ssl_records_alone(named, certs):
    three = with_tls(certs, named("infra0", "infra1", "infra2"))
    with use(three, http_records(three, "_etcd-server-ssl")):
        started(three)
        assert three[0].put("/k", "v").status == 201
        assert names(three[1]) == ["infra0", "infra1", "infra2"]
        three[0].said("error querying DNS SRV records for _etcd-server lookup ")
    urls = {u for m in three[0].ask("GET", "/v2/members").json["members"] for u in m["peerURLs"]}
    assert urls == {m.peer_url for m in three} and all(u.startswith("https://localhost:") for u in urls)
    for member in three:
        member.stop()
    started(three)
    assert three[2].get("/k", quorum=True).json["node"]["value"] == "v"


def test_members_of_both_services_are_one_cluster(named, certs):
    three = named("infra0", "infra1", "infra2")
    with_tls(certs, three[:2], auth=False)
    three[2].how.append("--peer-trusted-ca-file=" + certs.path("ca.pem"))
    with use(three, http_records(three[:2], "_etcd-server-ssl") + http_records(three[2:])):
        started(three)
        assert three[2].put("/k", "v").status == 201
        for member in three:
            assert names(member) == ["infra0", "infra1", "infra2"]


def test_ports_that_both_services_name_are_those_with_tls(named, certs):
    three = with_tls(certs, named("infra0", "infra1", "infra2"))
    with use(three, http_records(three, "_etcd-server-ssl") + http_records(three)):
        started(three)
        assert names(three[0]) == ["infra0", "infra1", "infra2"]


def test_without_an_authority_of_their_own_members_answer_for_the_domain(named, certs):
    """operations.md 2.5: the expected name is then the domain, not the target."""
    three = named("infra0", "infra1", "infra2")
    for member in three:
        name = certs.cert("domain-" + member.name, "DNS:" + NameServer.domain)
        member.scheme = "https"
        member.how += certs.flags(name, auth=False)[:2]
    with use(three, http_records(three, "_etcd-server-ssl")):
        for member in three:
            member.env["SSL_CERT_FILE"] = certs.path("ca.pem")
        started(three)
        assert names(three[0]) == ["infra0", "infra1", "infra2"]


def test_a_record_with_another_scheme_than_is_advertised_is_refused(named):
    (member,) = named("infra0")
    with use([member], http_records([member], "_etcd-server-ssl")):
        line = refusal(member)
    assert "--initial-cluster must include infra0=http://localhost:%d given " % member.peer_port in line
    assert "; make --initial-advertise-peer-urls and the SRV records name the same scheme" in line


def test_a_member_that_no_record_leads_to_is_refused(named):
    member, other = named("infra0", "infra1")
    with use([member], http_records([other])):
        line = refusal(member).replace("\\", "")
        assert 'cannot find local etcd member "infra0" in SRV records; ' in line


def test_a_domain_without_records_is_refused(named):
    (member,) = named("infra0")
    with use([member], []):
        refusal(member)
    log = member.log()
    assert "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.cluster.test: " in log
    assert "error querying DNS SRV records for cluster.test: " in log and "; publish _etcd-server._tcp records" in log


def test_a_target_without_an_address_is_left_out(named):
    (member,) = named("infra0")
    with use([member], http_records([member]) + [("_etcd-server", "gone.cluster.test", 1)]):
        started([member])
        assert names(member) == ["infra0"]
        member.said("couldn't resolve host gone.cluster.test of an SRV record: ")


def test_an_address_in_place_of_the_records_name_is_refused(named):
    (member,) = named("infra0")
    member.how.append("--initial-advertise-peer-urls=http://127.0.0.1:%d" % member.peer_port)
    with use([member], http_records([member])):
        line = refusal(member)
        assert "--initial-cluster must include infra0=http://127.0.0.1:%d given " % member.peer_port in line
        assert "; make --initial-advertise-peer-urls and the SRV records name the same" in line


def test_an_advertised_name_that_leads_nowhere_is_refused(named):
    (member,) = named("infra0")
    member.how.append("--initial-advertise-peer-urls=http://gone.cluster.test:%d" % member.peer_port)
    with use([member], http_records([member])):
        assert "couldn't resolve host gone.cluster.test: " in refusal(member)


def test_a_joining_member_finds_the_others_by_srv_records(named):
    first, second = named("infra0", "infra1")
    with use([first], http_records([first])):
        started([first])
    answer = first.ask("POST", "/v2/members", json.dumps({"peerURLs": [second.peer_url]}), JSON)
    assert answer.status == 201, answer
    second.state = "existing"
    with use([second], http_records([first, second])):
        started([second])
        assert names(second) == ["infra0", "infra1"]
