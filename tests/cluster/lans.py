"""Hosts on two networks, 10.0.1.0/24 and 10.0.2.0/24: host i is .1i on both, as in etcd 2's own examples (10.0.1.10 to 12).

Each has e1 and e2; a host whose e1 goes down reaches the others' 10.0.1 addresses through e2, as a routed network would
have it. For needs, names and faults see hosts.py.
"""

import os

from harness.faults import own_netns_names
from hosts import Network, _run, _set_netns

CLIENTS = 99


class TwoLans(Network):
    """Hosts 0..count-1 and the clients' host."""

    def open(self):
        own_netns_names()
        self._add(self.switch)
        for lan in (1, 2):
            _run("ip", "-n", self.switch, "link", "add", "br%d" % lan, "type", "bridge")
            _run("ip", "-n", self.switch, "link", "set", "br%d" % lan, "up")
        for host in list(range(self.count)) + [CLIENTS]:
            name = self.name(host)
            self._add(name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
            for lan in (1, 2):
                port, link = "p%d-%d" % (host, lan), "e%d" % lan
                _run("ip", "link", "add", link, "netns", name, "type", "veth", "peer", "name", port, "netns", self.switch)
                _run("ip", "-n", name, "addr", "add", "%s/24" % self.address(host, lan), "dev", link)
                _run("ip", "-n", name, "link", "set", link, "up")
                _run("ip", "-n", self.switch, "link", "set", port, "master", "br%d" % lan, "up")
            # Without its first link a host reaches the others over the second.
            for other in range(self.count):
                if other != host:
                    _run("ip", "-n", name, "route", "add", self.address(other, 1), "via", self.address(other, 2), "dev", "e2",
                         "src", self.address(host, 2), "metric", "200")
        self._home_fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.enter(CLIENTS)
        return self

    def address(self, host, lan=1):
        return "10.0.%d.%d" % (lan, 10 + host if host != CLIENTS else 200)

    def enter(self, host=CLIENTS):
        _set_netns("/run/netns/" + self.name(host))

    def set_first_link(self, host, up):
        """Its cable is pulled: the host notices, and takes the routes over it away."""
        name = self.name(host)
        _run("ip", "-n", name, "link", "set", "e1", "up" if up else "down")
        _run("ip", "-n", self.switch, "link", "set", "p%d-1" % host, "up" if up else "down")
