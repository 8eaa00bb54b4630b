"""Who may connect to the sockets between the daemons, whatever the modes of files and folders say."""

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

import harness
from harness import Keys, poll
from harness.places import scratch_root

pytestmark = [pytest.mark.ours]

NOBODY = 65534
VISIT = """
import socket, sys
visitor = socket.socket(socket.AF_UNIX)
visitor.settimeout(float(sys.argv[2]))
visitor.connect(sys.argv[1])
try:
    print("in" if visitor.recv(100) else "out")
except TimeoutError:
    print("in")
except OSError:
    print("out")
"""


def needs_users():
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to be another user")


def sockets_of(server):
    run = os.path.join(server.data_dir, "run")
    return [os.path.join(folder, name) for folder, _, names in os.walk(run) for name in names if name.endswith(".ipc")]


def open_up(server):
    """Modes as a careless operator leaves them: everybody may reach every socket."""
    for path in (scratch_root(), server.folder, server.data_dir):
        os.chmod(path, 0o711)
    for folder, _, _ in os.walk(os.path.join(server.data_dir, "run")):
        os.chmod(folder, 0o755)
    for path in sockets_of(server):
        os.chmod(path, 0o777)


def visit(path, uid, seconds):
    done = subprocess.run(["setpriv", "--reuid=%d" % uid, "--clear-groups", "/usr/bin/python3", "-c", VISIT, path, str(seconds)],
                          capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_let_in(path, uid):
    """Whether the daemon goes on listening to a process of that user: at least for a moment."""
    return visit(path, uid, 2) == "in"


def is_put_out(path, uid):
    """However long that takes."""
    return visit(path, uid, 60) == "out"


def refusals(server):
    return re.findall(r"\[(\w+)\] .*ipc\.stranger\.refused socket=(\S+) uid=(\d+) .*mend=(.*)", server.log())


def test_processes_of_other_users_are_hung_up_on_and_told_of_once():
    needs_users()
    with harness.new_server() as server:
        server.start()
        open_up(server)
        paths = sockets_of(server)
        assert {os.path.basename(path) for path in paths} >= {"raftd.ipc", "apply.ipc", "applied.ipc"}
        for _ in range(3):
            for path in paths:
                if os.path.basename(path) != "apply.ipc":  # a pair's second visitor waits until the first has gone
                    assert is_put_out(path, NOBODY), path
        for daemon in ("raftd", "stored"):
            server.said(r"\[%s\] .*ipc\.stranger\.refused" % daemon)
        told = refusals(server)
        assert {(daemon, uid) for daemon, _, uid, _ in told} >= {("raftd", str(NOBODY)), ("stored", str(NOBODY))}
        assert len(told) == len({daemon for daemon, _, _, _ in told}), "told more than once"
        assert all("--ipc-users" in mend for _, _, _, mend in told)
        assert Keys(server.port).put("/k", "v").status == 201
        # A user's number is not enough to be told of again, and root comes in as ever.
        assert is_let_in(paths[0], 0) or os.path.basename(paths[0]) == "apply.ipc"


def test_users_that_are_named_are_let_in():
    needs_users()
    with harness.new_server(["--ipc-users=%d" % NOBODY]) as server:
        server.start()
        open_up(server)
        for path in sockets_of(server):
            if os.path.basename(path) != "apply.ipc":
                assert is_let_in(path, NOBODY), path
                assert is_put_out(path, NOBODY - 1), path


def test_a_stranger_does_not_keep_stored_from_its_place():
    """apply.ipc has one place: while stored is away a stranger who takes it is put out at once."""
    needs_users()
    with harness.new_server() as server:
        server.start()
        open_up(server)
        path = os.path.join(server.data_dir, "run", "apply", "apply.ipc")
        stored = server.daemon("stored")
        os.kill(stored, signal.SIGSTOP)
        try:
            def is_given_up():
                with contextlib.suppress(OSError):
                    Keys(server.port, 0.5).put("/k", "v")  # on which nothing moves
                return "raftd.stored.down" in server.log()

            poll(is_given_up, 20, "raftd gives stored's place up")
            assert is_put_out(path, NOBODY)
        finally:
            os.kill(stored, signal.SIGCONT)
        assert poll(lambda: Keys(server.port).put("/k", "w").status in (200, 201), 20, "stored is back")


def test_an_unknown_user_is_refused_before_anything_is_made():
    with harness.new_server(["--ipc-users=no-such-user"]) as server:
        server.spawn()
        assert server.process.wait(20) == 2
        server.process = None
        assert 'the user "no-such-user", whom this host does not know' in server.log()
        assert not os.path.exists(server.data_dir)
