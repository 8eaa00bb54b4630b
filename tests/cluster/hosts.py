"""Members on hosts of their own: network namespaces on one bridge, where links can be cut and packets dropped.

Host i is 10.77.0.i; the clients are on a host too, so that a member cut off from the others still talks to them. The
calling thread, and each thread that calls enter(), is put on the clients' host. Needs root and ip, nft.
"""

import ctypes
import json
import os
import shutil
import subprocess

from harness.faults import own_netns_names
from harness.places import poll
from harness.wire import Connection, WireError
from members import Member

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
CLIENTS = 200


def missing():
    """Why this cannot be run here; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return "needs " + tool
    try:
        own_netns_names()
    except OSError as why:
        return str(why)
    probe = "quorate-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode != 0:
        return "no network namespaces"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


def _run(*words, data=None):
    done = subprocess.run(words, input=data, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)


def _set_netns(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        assert _libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(fd)


class Network:
    """Hosts 1..count and the clients' host."""

    def __init__(self, count):
        self.prefix = "quorate"
        self.count = count
        self.switch = self.prefix + "-sw"
        self._made = []

    def name(self, host):
        return "%s-%d" % (self.prefix, host)

    def _add(self, name):
        _run("ip", "netns", "add", name)
        self._made.append(name)

    def open(self):
        own_netns_names()
        self._add(self.switch)
        _run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", self.switch, "link", "set", "br0", "up")
        for host in list(range(1, self.count + 1)) + [CLIENTS]:
            name = self.name(host)
            self._add(name)
            _run("ip", "link", "add", "e0", "netns", name, "type", "veth", "peer", "name", "p%d" % host, "netns", self.switch)
            _run("ip", "-n", name, "addr", "add", "10.77.0.%d/24" % host, "dev", "e0")
            _run("ip", "-n", name, "link", "set", "e0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", self.switch, "link", "set", "p%d" % host, "master", "br0", "up")
        self._home = "/proc/self/ns/net"
        self._home_fd = os.open(self._home, os.O_RDONLY)
        self.enter()
        return self

    def close(self):
        if hasattr(self, "_home_fd"):
            _libc.setns(self._home_fd, CLONE_NEWNET)
            os.close(self._home_fd)
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def __enter__(self):
        try:
            return self.open()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def enter(self):
        """Puts the calling thread on the clients' host."""
        _set_netns("/run/netns/" + self.name(CLIENTS))

    # Faults. All of one network's rules are in one place, the bridge.

    def drop(self, *pairs):
        """Packets from one host to another are lost: one way. Those of ARP pass: whoever lost a neighbour's address asks
        for it once a second, which on routed networks nobody waits for."""
        rules = "".join('iifname "p%d" oifname "p%d" ether type ip drop; ' % pair for pair in pairs)
        _run("ip", "netns", "exec", self.switch, "nft", "-f", "-",
             data="table bridge part {\n chain f { type filter hook forward priority 0; policy accept; %s}\n}\n" % rules)

    def drop_to_port(self, source, target, port):
        """Of what one host says to another only what is for this port is lost: it cannot call, but it can be called."""
        _run("ip", "netns", "exec", self.switch, "nft", "-f", "-",
             data="table bridge part {\n chain f { type filter hook forward priority 0; policy accept; "
                  'iifname "p%d" oifname "p%d" ether type ip tcp dport %d drop; }\n}\n' % (source, target, port))

    def heal(self):
        _run("ip", "netns", "exec", self.switch, "nft", "flush", "ruleset")

    def limit(self, host, rate):
        """No more than that passes to the host, with a queue of 400 ms."""
        _run("ip", "netns", "exec", self.switch, "tc", "qdisc", "add", "dev", "p%d" % host, "root", "tbf",
             "rate", rate, "burst", "10kb", "latency", "400ms")

    def sent_bytes(self, host):
        """What has gone to it over its link so far."""
        done = subprocess.run(["ip", "-n", self.switch, "-s", "-j", "link", "show", "p%d" % host], capture_output=True, check=True)
        return json.loads(done.stdout)[0]["stats64"]["tx"]["bytes"]

    def set_link(self, host, up):
        _run("ip", "-n", self.switch, "link", "set", "p%d" % host, "up" if up else "down")


class MemberElsewhere(Member):
    """A member on a host of a network, asked at this address of the host's."""

    def __init__(self, network, host, address, name, flags=(), env=None):
        super().__init__(name, flags, env=env, wrapper=["ip", "netns", "exec", network.name(host)])
        self.host, self.address = host, address
        self.port, self.peer_port = 2379, 2380

    def main_pid(self):
        return self.process.pid  # ip replaced itself

    def ask(self, method, target, body=None, headers=(), timeout=15, address=None):
        data = body.encode() if isinstance(body, str) else body
        with Connection(self.port, address or self.address, timeout) as connection:
            return connection.request(method, target, headers, data)

    def wait_ready(self, timeout=30.0):
        def ready():
            if self.process.poll() is not None:
                raise RuntimeError("%s ended with %s:\n%s" % (self.name, self.process.returncode, self.log()[-3000:]))
            try:
                return self.ask("GET", "/v2/keys?quorum=true", timeout=5).status == 200
            except (OSError, WireError):
                return False

        poll(ready, timeout, self.name + " ready")


class HostMember(MemberElsewhere):
    """With flags that are the same on each host but for its address."""

    def __init__(self, network, host, flags=(), env=None):
        super().__init__(network, host, "10.77.0.%d" % host, "m%d" % host, flags, env)

    @property
    def url(self):
        return "http://%s:2379" % self.address

    @property
    def peer_url(self):
        return "http://%s:2380" % self.address
