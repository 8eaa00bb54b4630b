"""A member under test.

Both servers take the same flags, so a test runs on either: ours is the launcher in the build directory
(QUORATE_BUILD, default build/), the reference is Debian's etcd with its v2 API enabled. QUORATE_TEST_TARGET
chooses. Each runs in a session of its own with a parent-death signal: whatever becomes of the test, it ends.
"""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

from harness.places import FreePort, patience, poll, scratch_root
from harness.wire import Connection, WireError, exchange

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PR_SET_PDEATHSIG = 1
QUICK_CLOCK = ["--heartbeat-interval=20", "--election-timeout=200"]
DAEMONS = ("raftd", "stored", "gatewayd")

_libc = ctypes.CDLL(None, use_errno=True)


def target_name():
    return os.environ.get("QUORATE_TEST_TARGET", "quorate")


def build_dir():
    return os.path.join(SOURCE, os.environ.get("QUORATE_BUILD", "build"))


def compiler():
    """$CC as make takes it: a program and its first arguments, "ccache cc"."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def compile_c(name, source, *flags):
    """Compiles a source into this run's folder; returns the path of what was made."""
    made = os.path.join(scratch_root(), name)
    subprocess.run([*compiler(), "-std=gnu17", "-D_GNU_SOURCE", "-O2", source, "-o", made, *flags], check=True)
    return made


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def clean_environment(extra=None):
    """Ours without the variables that the servers under test would read."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_", "QUORATE_DAEMON"))}
    env.update(extra or {})
    return env


class Server:
    """Life cycle common to both. The folder is removed by close(), the processes are gone then too."""

    kind = "?"

    def __init__(self, flags=(), data_dir=None, env=None, wrapper=(), preexec=None, folder=None, quick_clock=False):
        self._ports = [FreePort(), FreePort()]
        self.port, self.peer_port = (p.port for p in self._ports)
        self._own_folder = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix=self.kind + "-", dir=scratch_root())
        self.data_dir = data_dir or os.path.join(self.folder, "data")
        self.log_path = os.path.join(self.folder, "log")
        self.flags = (QUICK_CLOCK if quick_clock else []) + list(flags)
        self.env, self.wrapper, self.preexec = env, list(wrapper), preexec
        self.process = None

    def binary(self):
        raise NotImplementedError

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def peer_url(self):
        return "http://127.0.0.1:%d" % self.peer_port

    def command(self):
        return self.wrapper + [
            self.binary(), "--name=default", "--data-dir=" + self.data_dir,
            "--listen-client-urls=" + self.url, "--advertise-client-urls=" + self.url,
            "--listen-peer-urls=" + self.peer_url, "--initial-advertise-peer-urls=" + self.peer_url,
            "--initial-cluster=default=" + self.peer_url, "--enable-v2",
        ] + self.flags

    # Starting and ending.

    def spawn(self):
        """Starts the processes and does not wait for them."""
        assert self.process is None, "is running"

        def before_exec():
            _die_with_parent()
            if self.preexec is not None:
                self.preexec()

        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=clean_environment(self.env), start_new_session=True, preexec_fn=before_exec)
        return self

    def start(self, timeout=20.0):
        self.spawn()
        try:
            self.wait_ready(timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, timeout=20.0):
        """Until a leader is known, the member's own bookkeeping is applied, and a quorum read answers."""

        def ready():
            if self.process.poll() is not None:
                raise RuntimeError("%s ended with %s:\n%s" % (self.kind, self.process.returncode, self.log()[-3000:]))
            try:
                if exchange(self.port, "GET", "/health", timeout=5).status != 200:
                    return False
                version = exchange(self.port, "GET", "/version", timeout=5)
                if b"not_decided" in version.body:
                    return False
                answer = exchange(self.port, "GET", "/v2/keys?quorum=true", timeout=10)
                return answer.status == 200 and answer.index >= 3
            except (OSError, WireError):
                return False

        poll(ready, timeout, "%s ready on port %d" % (self.kind, self.port))

    def _group_gone(self):
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return not any(is_alive(pid) for pid in self.session_pids())

    def session_pids(self):
        """Every process of the session that the server was started in."""
        found = []
        if self.process is None:
            return found
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = stat_fields(int(entry))
                if fields and int(fields[3]) == self.process.pid:
                    found.append(int(entry))
        return found

    def pids(self):
        """{daemon's name: [pids]} of what runs now."""
        found = {}
        for pid in self.session_pids():
            with contextlib.suppress(OSError):
                with open("/proc/%d/comm" % pid) as comm:
                    found.setdefault(comm.read().strip(), []).append(pid)
        return found

    def daemon(self, name, timeout=5.0):
        """The pid of a daemon, waited for when it is being restarted."""
        return poll(lambda: self.pids().get(name), timeout, name + " runs")[0]

    def main_pid(self):
        """The server's first process; with a wrapper such as strace it is not the one that was started."""
        if self.wrapper:
            name = os.path.basename(self.binary())
            own = self.pids().get(name)
            if own:
                return min(own)
        return self.process.pid

    def wait_end(self, timeout=20.0):
        """Until it has ended by itself. Returns the exit status; it may be started again."""
        try:
            poll(lambda: self.process.poll() is not None, timeout, self.kind + " ends")
        except TimeoutError as late:
            raise TimeoutError("%s\n%s" % (late, self.log()[-2000:])) from None
        status = self.process.returncode
        poll(self._group_gone, 5, "the processes of " + self.kind + " are gone")
        self.process = None
        return status

    def stop(self, timeout=15.0):
        """SIGTERM, then until all are gone. Returns the exit status as a shell would see it."""
        if self.process is None:
            return None
        os.kill(self.main_pid(), signal.SIGTERM)
        try:
            poll(lambda: self.process.poll() is not None, timeout, "%s stops at SIGTERM" % self.kind)
        except TimeoutError:
            self.kill()
            raise
        status = self.process.returncode
        poll(self._group_gone, 5, "the processes of " + self.kind + " are gone")
        self.process = None
        return 128 - status if status < 0 else status

    def kill(self):
        """SIGKILL to the whole group, waited for."""
        if self.process is None:
            return
        began = time.monotonic()
        while True:
            for pid in self.session_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            left = [pid for pid in self.session_pids() if is_alive(pid)]
            if self.process.returncode is not None and not left:
                break
            if time.monotonic() > began + patience(10):
                raise TimeoutError("%s could not be killed: %s" % (self.kind, left))
            time.sleep(0.005)
        self.process = None

    def restart(self, timeout=20.0):
        self.stop()
        return self.start(timeout)

    def close(self):
        self.kill()
        for port in self._ports:
            port.release()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def log(self):
        with open(self.log_path, "rb") as log:
            return log.read().decode("utf-8", "replace")

    def said(self, pattern):
        """The match of a line, waited for: what a daemon says comes here through quorate, and later than what it did."""
        return poll(lambda: re.search(pattern, self.log()), 20, "a line with " + pattern)

    def connect(self, timeout=15.0):
        return Connection(self.port, timeout=timeout)

    # Costs.

    def cpu_seconds(self):
        """User and system time of all its processes, those that ended and were waited for included."""
        ticks = 0
        for pid in self.session_pids():
            fields = stat_fields(pid)
            if fields:
                ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))
        return ticks / os.sysconf("SC_CLK_TCK")

    def cpu_ns(self):
        """Time on a CPU of all threads that live now: finer than ticks, for short spans."""
        total = 0
        for pid in self.session_pids():
            with contextlib.suppress(OSError):
                for task in os.listdir("/proc/%d/task" % pid):
                    with contextlib.suppress(OSError):
                        with open("/proc/%d/task/%s/schedstat" % (pid, task)) as stat:
                            total += int(stat.read().split()[0])
        return total

    def memory_kib(self):
        """(PSS without the state's page cache, PSS of mapped files in the data dir), summed, in KiB."""
        own = state = 0
        for pid in self.session_pids():
            with contextlib.suppress(OSError):
                with open("/proc/%d/smaps" % pid) as smaps:
                    in_state = False
                    for line in smaps:
                        if line[0] in "0123456789abcdef" and "-" in line.split(" ", 1)[0]:
                            in_state = self.data_dir in line
                        elif line.startswith("Pss:"):
                            if in_state:
                                state += int(line.split()[1])
                            else:
                                own += int(line.split()[1])
        return own, state


def stat_fields(pid):
    """/proc/PID/stat after the command's name: [state, ppid, pgrp, session, ...]; None when gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stat:
            return stat.read().rpartition(b")")[2].split()
    except OSError:
        return None


def pid_state(pid):
    fields = stat_fields(pid)
    return fields[0].decode() if fields else None


def is_alive(pid):
    """Whether it may still hold files and locks: a thread in a system call outlives the first one, which is a zombie by then."""
    try:
        return pid_state(pid) not in ("Z", None) or len(os.listdir("/proc/%d/task" % pid)) > 1
    except OSError:
        return False


class Etcd(Server):
    kind = "etcd"

    def binary(self):
        installed = "/usr/bin/etcd"
        return installed if os.path.exists(installed) else os.path.join(SOURCE, "deps", "etcd", "etcd")


class Quorate(Server):
    kind = "quorate"

    def binary(self):
        return os.path.join(build_dir(), "quorate")

    def status(self, daemon):
        """What a daemon says of itself: {name: text}; daemon is the beginning of its status socket's name."""
        def told():
            done = subprocess.run([os.path.join(build_dir(), "tests", "status_get"),
                                   os.path.join(self.data_dir, "run", daemon + "-status.ipc")],
                                  capture_output=True, text=True, timeout=30)
            return None if "no answer" in done.stderr else done  # Within five seconds: it may have much to do.

        done = poll(told, 20, "status of " + daemon)
        if done.returncode != 0:
            raise OSError("status of %s: %s" % (daemon, done.stderr.strip()))
        return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


def new_server(flags=(), kind=None, **options):
    """The server that QUORATE_TEST_TARGET (or kind) names, not started yet."""
    return {"etcd": Etcd, "quorate": Quorate}[kind or target_name()](flags, **options)
