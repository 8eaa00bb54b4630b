"""packaging/quickstart.sh --cluster, as the README has it: on the ports that it names, in a network of the test's own.

Alone it is typed on a bare machine, by fresh_machine.sh.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess

import pytest
from harness import exchange, new_server, poll, scratch_dir
from harness.server import SOURCE, build_dir, clean_environment, _die_with_parent
from harness.wire import FORM, WireError

pytestmark = pytest.mark.ours

CLONE_NEWNET = 0x40000000
PORTS = (2379, 22379, 32379)
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def own_network():
    """Only a loopback, where every port is free."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        pytest.skip("needs root, ip and unshare")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        pytest.skip("no right to make a network namespace")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def children(pid):
    with contextlib.suppress(OSError), open("/proc/%d/task/%d/children" % (pid, pid)) as listed:
        return [int(p) for p in listed.read().split()]
    return []


def in_a_session_of_its_own():
    """As typed at a prompt: a shell cannot trap what it was started to ignore, as what a script starts in the background ignores SIGINT."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Quickstart:
    """The script in a clone that is built already, and a folder to run it in. What it starts ends with this process, whatever happens."""

    def __init__(self, folder):
        self.clone, self.folder = os.path.join(folder, "clone"), os.path.join(folder, "here")
        for path in (self.clone, self.folder):
            os.mkdir(path)
        for name, target in (("packaging", "packaging"), ("deps", "deps"), ("build", build_dir())):
            os.symlink(os.path.join(SOURCE, target), os.path.join(self.clone, name))
        self.said_path = os.path.join(folder, "said")
        self.outer = None

    def start(self, *words):
        # quickstart.sh is not the first process of the namespace: signals to that one are special.
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", 'sh "$@"; exit $?', "sh",
                   os.path.join(self.clone, "packaging", "quickstart.sh"), *words]
        with open(self.said_path, "wb") as said:
            self.outer = subprocess.Popen(command, cwd=self.folder, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=said,
                                          stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=in_a_session_of_its_own)
        return self

    def said(self):
        with open(self.said_path, encoding="utf-8") as said:
            return said.read()

    def wait_said(self, text, timeout=60):
        def is_said():
            assert self.outer.poll() is None, self.said()
            return text in self.said()

        poll(is_said, timeout, text)

    def signal(self, number):
        first, = children(self.outer.pid)
        script, = children(first)
        os.kill(script, number)

    def wait_end(self):
        return self.outer.wait(60)

    def close(self):
        if self.outer is not None and self.outer.poll() is None:
            self.outer.kill()
            self.outer.wait()


@pytest.fixture
def quickstart(own_network):
    with scratch_dir("quickstart") as folder:
        made = Quickstart(folder)
        yield made
        made.close()


def put(port, value):
    return exchange(port, "PUT", "/v2/keys/k", [FORM], b"value=" + value.encode(), timeout=15)


def value(port):
    """By a quorum; None while there is no leader, as after a machine has stood still for longer than an election takes."""
    return exchange(port, "GET", "/v2/keys/k?quorum=true").json.get("node", {}).get("value")


def run(line):
    return subprocess.run(line, shell=True, capture_output=True, text=True).stdout


def is_refused(port):
    try:
        exchange(port, "GET", "/version", timeout=2)
    except (OSError, WireError):
        return True
    return False


def test_three_members_serve_together_stop_together_and_keep_their_data(quickstart):
    quickstart.start("--cluster", "3").wait_said("wipe:")
    for number, port in enumerate(PORTS):
        poll(lambda: put(port, str(number)).status in (200, 201), 60, "a write by %d" % port)
        for other in PORTS:
            poll(lambda other=other: value(other) == str(number), 60, "it is read by %d" % other)
    wanted = {("http://127.0.0.1:%d" % port,) for port in PORTS}  # Told by each a moment after it serves.
    poll(lambda: {tuple(m["clientURLs"]) for m in exchange(PORTS[0], "GET", "/v2/members").json["members"]} == wanted, 10, "all are named")
    said = quickstart.said()
    assert all("http://127.0.0.1:%d" % port in said for port in PORTS)
    write, read = re.findall(r"curl .*", said)
    assert '"value":"hello"' in run(write)
    poll(lambda: '"value":"hello"' in run(read), 10, "the last member has it, too")
    wipe = re.search(r"wipe: .*?(cd .*)", said).group(1)
    quickstart.signal(signal.SIGTERM)
    assert quickstart.wait_end() == 143
    assert all(map(is_refused, PORTS))

    quickstart.start("--cluster", "3", "--max-wals=7").wait_said("wipe:")
    poll(lambda: value(PORTS[2]) == "2", 60, "it is kept")
    quickstart.signal(signal.SIGINT)
    assert quickstart.wait_end() == 130
    subprocess.run(wipe, shell=True, check=True)
    assert sorted(os.listdir(quickstart.folder)) == ["infra1.log", "infra2.log", "infra3.log"]


def test_with_a_stranger_on_a_port_no_member_is_started(quickstart):
    """One that answers as a healthy member does: /health of the port alone says nothing."""
    with new_server(quick_clock=True) as stranger:
        stranger.port = PORTS[0]
        stranger.start()
        quickstart.start("--cluster", "3")
        assert quickstart.wait_end() == 1
        assert re.fullmatch(r"infra1 cannot start: listen tcp 127\.0\.0\.1:2379: bind: address already in use; .{20,}\n", quickstart.said())
    assert os.listdir(quickstart.folder) == []


@pytest.mark.parametrize("words, status, text", [
    (["--cluster"], 2, "--cluster wants a number from 1 to 7"), (["--cluster", "8"], 2, "--cluster wants a number from 1 to 7"),
    (["--cluster", "3", "--nosuch"], 1, "infra1 cannot start: flag provided but not defined: -nosuch")])
def test_what_it_does_not_understand_is_one_line(quickstart, words, status, text):
    quickstart.start(*words)
    assert quickstart.wait_end() == status
    assert text in quickstart.said() and quickstart.said().count("\n") == 1
    assert os.listdir(quickstart.folder) == []
