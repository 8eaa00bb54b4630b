"""Debian's etcdctl, v2 mode, unchanged."""

import json
import os
import select
import subprocess

import pytest

from harness import Keys, poll
from harness.server import clean_environment
from rows import node

pytestmark = pytest.mark.skipif(not os.path.exists("/usr/bin/etcdctl"), reason="etcd-client is not installed")


class Etcdctl:
    def __init__(self, server):
        self.server = server

    def command(self, *arguments):
        """By default it gives up after 2 s."""
        return ["/usr/bin/etcdctl", "--timeout", "30s", "--total-timeout", "60s", "--endpoints", self.server.url] + list(arguments)

    def run(self, *arguments, status=0, stdin=None):
        done = subprocess.run(self.command(*arguments), env=clean_environment({"ETCDCTL_API": "2"}), input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=80)
        assert done.returncode == status, (arguments, done)
        return done.stdout if status == 0 else done.stderr

    def start(self, *arguments):
        return subprocess.Popen(self.command(*arguments), env=clean_environment({"ETCDCTL_API": "2"}), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def ctl(server):
    return Etcdctl(server)


def test_set_get_update_rm(ctl, root):
    assert ctl.run("set", root + "/k", "value one") == "value one\n"
    assert ctl.run("get", root + "/k") == "value one\n"
    assert ctl.run("get", "--quorum", root + "/k") == "value one\n"
    assert ctl.run("update", root + "/k", "two") == "two\n"
    assert ctl.run("rm", root + "/k") == "PrevNode.Value: two\n"
    assert ctl.run("get", root + "/k", status=4).startswith("Error:  100: Key not found (%s/k) [" % root)


def test_mk_and_in_order(ctl, root, keys):
    assert ctl.run("mk", root + "/k", "v") == "v\n"
    assert "105: Key already exists" in ctl.run("mk", root + "/k", "v", status=4)
    assert ctl.run("mk", "--in-order", root + "/queue", "v") == "v\n"
    assert len(node(keys.get(root + "/queue"))["nodes"]) == 1


def test_value_from_stdin(ctl, root):
    ctl.run("set", root + "/k", stdin="lines\nof text\n")
    assert ctl.run("get", root + "/k") == "lines\nof text\n\n"


def test_swap(ctl, root, keys):
    ctl.run("set", root + "/k", "a")
    assert ctl.run("set", "--swap-with-value", "a", root + "/k", "b") == "b\n"
    assert "101: Compare failed" in ctl.run("set", "--swap-with-value", "a", root + "/k", "c", status=4)
    index = str(node(keys.get(root + "/k"))["modifiedIndex"])
    assert ctl.run("set", "--swap-with-index", index, root + "/k", "d") == "d\n"
    assert "101" in ctl.run("rm", "--with-value", "x", root + "/k", status=4)
    ctl.run("rm", "--with-value", "d", root + "/k")


def test_ttl(ctl, root, keys):
    ctl.run("set", "--ttl", "100", root + "/k", "v")
    assert node(keys.get(root + "/k"))["ttl"] in range(90, 101)
    ctl.run("mkdir", "--ttl", "50", root + "/d")
    assert node(keys.get(root + "/d"))["ttl"] in range(40, 51)
    ctl.run("updatedir", "--ttl", "500", root + "/d")
    assert node(keys.get(root + "/d"))["ttl"] in range(490, 501)


def test_directories(ctl, root):
    ctl.run("mkdir", root + "/d")
    assert "105" in ctl.run("mkdir", root + "/d", status=4)
    ctl.run("set", root + "/d/k", "v")
    ctl.run("setdir", root + "/e")
    assert "102" in ctl.run("rm", root + "/d", status=4)
    assert "108" in ctl.run("rmdir", root + "/d", status=4)
    ctl.run("rm", "--recursive", root + "/d")
    ctl.run("rmdir", root + "/e")
    assert "is a directory" in ctl.run("get", root, status=1)


def test_ls(ctl, root):
    for name in ("/b", "/a/x", "/_hidden"):
        ctl.run("set", root + name, "v")
    assert ctl.run("ls", "--sort", root) == "%s/a\n%s/b\n" % (root, root)
    assert ctl.run("ls", "--sort", "--recursive", "-p", root) == "".join(root + n + "\n" for n in ("/a/", "/a/x", "/b"))
    assert ctl.run("ls", root + "/b") == root + "/b\n"


def test_output_json_and_extended(ctl, root):
    ctl.run("set", root + "/k", "v")
    shown = json.loads(ctl.run("-o", "json", "get", root + "/k"))
    assert shown["action"] == "get" and shown["node"]["value"] == "v"
    extended = ctl.run("-o", "extended", "get", root + "/k")
    assert "Key: %s/k" % root in extended and "Created-Index:" in extended and "Index:" in extended


def test_watch_one_and_from_the_past(ctl, keys, root):
    first = keys.put(root + "/k", "1").index
    assert ctl.run("watch", "--after-index", str(first - 1), root + "/k") == "1\n"
    process = ctl.start("watch", "--after-index", str(first), root + "/k")
    try:
        keys.put(root + "/k", "2")
        assert process.communicate(timeout=60)[0] == "2\n"
    finally:
        process.kill()
        process.communicate()


def test_watch_without_an_index(server, ctl, root):
    """Written to until the watch, whenever it begins, has seen one."""
    writer = Keys(server.port)
    process = ctl.start("watch", root + "/k")
    try:
        def seen():
            writer.put(root + "/k", "again")
            return select.select([process.stdout], [], [], 0)[0]

        poll(seen, 10, "etcdctl prints an event")
        assert process.communicate(timeout=60)[0] == "again\n"
    finally:
        writer.close()
        process.kill()
        process.communicate()


def test_watch_forever_recursive(ctl, keys, root):
    process = ctl.start("watch", "--forever", "--recursive", "--after-index", str(keys.index()), root)
    try:
        for number in range(5):
            keys.put(root + "/k%d" % number, str(number))
        keys.delete(root + "/k0")
        lines = [process.stdout.readline() for _ in range(12)]
        assert lines[0:2] == ["[set] %s/k0\n" % root, "0\n"] and lines[8:10] == ["[set] %s/k4\n" % root, "4\n"]
        assert lines[10] == "[delete] %s/k0\n" % root
    finally:
        process.kill()
        process.communicate()


def test_exec_watch(server, ctl, root):
    """Written to until the watch, whenever it begins, has run its command."""
    writer = Keys(server.port)
    process = ctl.start("exec-watch", "--recursive", root, "--", "sh", "-c",
                        "echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_MODIFIED_INDEX")
    try:
        written = []

        def seen():
            written.append(writer.put(root + "/k", "hello").index)
            return select.select([process.stdout], [], [], 0)[0]

        poll(seen, 10, "etcdctl runs the command")
        action, key, value, index = process.stdout.readline().split()
        assert (action, key, value) == ("set", root + "/k", "hello") and int(index) in written
    finally:
        writer.close()
        process.kill()
        process.communicate()


def test_cluster_health_and_member_list(ctl, server):
    health = ctl.run("cluster-health")
    assert "got healthy result from " + server.url in health and "cluster is healthy" in health
    listing = ctl.run("member", "list")
    assert "name=default peerURLs=%s clientURLs=%s isLeader=true" % (server.peer_url, server.url) in listing


def test_without_sync(ctl, root):
    ctl.run("--no-sync", "set", root + "/k", "v")
    assert ctl.run("--no-sync", "get", root + "/k") == "v\n"


@pytest.mark.ours
@pytest.mark.parametrize("words", [("put", "a", "b"), ("get", "a"), ("member", "list")])
def test_a_v3_client_is_told_at_once_which_variable_to_set(ctl, words):
    done = subprocess.run([ctl.command()[0], "--dial-timeout=30s", "--command-timeout=30s", "--endpoints=127.0.0.1:%d" % ctl.server.port, *words], env=clean_environment({"ETCDCTL_API": "3"}),
                          capture_output=True, text=True, timeout=80)
    assert done.returncode != 0
    assert "Set ETCDCTL_API=2 for etcdctl, or use a v2 client" in done.stderr
