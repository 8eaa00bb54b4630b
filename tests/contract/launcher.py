"""A quorate whose daemons are fakes (fake_daemon.py), so each behaviour can be called up, for the test_quorate_* files.

A copy of quorate lies beside the fakes: it finds its daemons beside itself. Tests take one as the fixture `suite`.
"""

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess

from harness.places import HANGS_S, free_ports, poll
from harness.server import build_dir, clean_environment, pid_state

HERE = os.path.dirname(os.path.abspath(__file__))
DAEMONS = ("raftd", "stored", "gatewayd")
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class Suite:
    """A quorate with fake daemons in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = os.path.join(folder, "bin")
        os.mkdir(self.bin)
        shutil.copy(os.path.realpath(os.path.join(build_dir(), "quorate")), os.path.join(self.bin, "quorate"))
        for name in DAEMONS:
            shutil.copy(os.path.join(HERE, "fake_daemon.py"), os.path.join(self.bin, name))
            os.chmod(os.path.join(self.bin, name), 0o755)
        self.port, self.peer_port = free_ports(2)
        self.url = "http://127.0.0.1:%d" % self.port
        self.peer_url = "http://127.0.0.1:%d" % self.peer_port
        self.data_dir = os.path.join(folder, "data")
        self.process = None

    def flags(self, **changed):
        flags = {"name": "m", "data-dir": self.data_dir, "listen-client-urls": self.url,
                 "advertise-client-urls": self.url, "listen-peer-urls": self.peer_url,
                 "initial-advertise-peer-urls": self.peer_url}
        flags.update({k.replace("_", "-"): v for k, v in changed.items()})
        return ["--%s=%s" % item for item in flags.items() if item[1] is not None]

    def environment(self, **behaviour):
        env = clean_environment({"FAKE_DIR": self.folder})
        for name, value in behaviour.items():
            env[("FAKE_" + name).upper() if name in DAEMONS else name] = value
        return env

    def run(self, *flags, env=None, **options):
        """To its end: for what is refused."""
        return subprocess.run([os.path.join(self.bin, "quorate"), *flags], env=env or self.environment(),
                              cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              **options)

    def start(self, *more, env=None, wait_for=None, flags=None, **options):
        def before_exec():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self.log_path = os.path.join(self.folder, "log")
        with open(self.log_path, "ab") as log:
            options = dict({"stdout": log, "stderr": log, "preexec_fn": before_exec}, **options)
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "quorate"), *(flags or self.flags()), *more],
                env=env or self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, start_new_session=True,
                **options)
        for name in DAEMONS if wait_for is None else wait_for:
            self.wait_event(name, "start")
        return self.process

    def events(self, name=None, what=None):
        try:
            with open(os.path.join(self.folder, "events")) as lines:
                found = [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []
        return [e for e in found if name in (None, e["name"]) and what in (None, e["event"])]

    def wait_event(self, name, what, count=1, timeout=10):
        return poll(lambda: len(self.events(name, what)) >= count and self.events(name, what)[count - 1], timeout,
                    "event %s of %s" % (what, name))

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def wait_log(self, text, timeout=10):
        poll(lambda: text in self.log(), timeout, "log line " + text)

    def wait_end(self, timeout=10):
        status = self.process.wait(max(timeout, HANGS_S))
        return status if status >= 0 else 128 - status

    def living(self):
        return [e["pid"] for e in self.events(what="start") if pid_state(e["pid"]) not in (None, "Z")]

    def close(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            poll(lambda: not self.living(), 5, "all daemons are gone")


TRIES = 8


def again_if_said(*texts):
    """Of a test of an end in good order: quorate waits for a daemon a second or two, and for a second signal half of one. If
    the machine stood still for longer, quorate says one of these, and the test is made again, with another quorate."""
    def decorate(test):
        @functools.wraps(test)
        def run(suite, **others):
            for number in range(TRIES):
                try:
                    return test(suite, **others)
                except (AssertionError, KeyError, TimeoutError):
                    if number + 1 == TRIES or not any(text in suite.log() for text in texts):
                        raise
                suite.close()
                again = os.path.join(suite.folder, "again")
                os.mkdir(again)
                suite.__init__(again)
        return run
    return decorate


def assert_refused(result, status, *texts):
    assert result.returncode == status, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for text in texts:
        assert text in result.stderr


def tree(path):
    """Every path below with its type, size and time of change."""
    found = {}
    for folder, names, files in os.walk(path):
        for name in names + files:
            full = os.path.join(folder, name)
            stat = os.lstat(full)
            found[full] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found
