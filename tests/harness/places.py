"""Ports, folders and waiting.

A port is reserved by an abstract Unix socket that bears its number, so two runs of the tests on one host never
choose the same one, and nothing lies about afterwards. Ports come from below the range that the kernel hands
out to outgoing connections: a client's socket cannot take one between the choice and the bind.
"""

import atexit
import contextlib
import fcntl
import os
import random
import shutil
import socket
import tempfile
import time

PORT_MIN, PORT_MAX = 11000, 29000


class FreePort:
    """A loopback port that nobody listens on, ours until released or the process ends."""

    def __init__(self):
        for _ in range(2000):
            port = random.SystemRandom().randrange(PORT_MIN, PORT_MAX)
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind("\0quorate-test-port-%d" % port)
            except OSError:
                claim.close()
                continue
            if _is_free(port):
                self.port, self._claim = port, claim
                return
            claim.close()
        raise RuntimeError("no free port between %d and %d" % (PORT_MIN, PORT_MAX))

    def release(self):
        self._claim.close()


def _is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_claimed = []


def free_ports(count):
    """Port numbers that stay reserved until this process ends."""
    ports = [FreePort() for _ in range(count)]
    _claimed.extend(ports)
    return [p.port for p in ports]


ROOT_PREFIX = "quorate-test-"
_root = None
_root_lock = None


def scratch_root():
    """The folder of this run, on the disk (not /tmp, which may be memory), removed at exit."""
    global _root
    if _root is None:
        parent = os.environ.get("QUORATE_TEST_TMP") or os.environ.get("TMPDIR") or "/var/tmp"
        _remove_dead_roots(parent)
        _root = tempfile.mkdtemp(prefix=ROOT_PREFIX, dir=parent)
        global _root_lock
        _root_lock = _lock(_root)
        atexit.register(_remove_root, os.getpid(), _root)
    return _root


def _lock(root):
    """The open and locked file that says whose run this is; None when another run holds it."""
    fd = os.open(os.path.join(root, "in-use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError:
        os.close(fd)
        return None


def _remove_dead_roots(parent):
    """What runs left that were ended by SIGKILL: their lock is free, and a minute has passed."""
    for name in os.listdir(parent):
        root = os.path.join(parent, name)
        with contextlib.suppress(OSError):
            if name.startswith(ROOT_PREFIX) and time.time() - os.stat(root).st_mtime > 60 and os.path.exists(root + "/in-use"):
                fd = _lock(root)
                if fd is not None:
                    shutil.rmtree(root, ignore_errors=True)
                    os.close(fd)


def _remove_root(owner, path):
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def scratch_dir(name="dir"):
    path = tempfile.mkdtemp(prefix=name + "-", dir=scratch_root())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def patience(seconds):
    """How long to wait for what on a machine of its own is there within that many seconds, before it counts as hanging:
    with more to run than there are processors, each gets its share. It grows when the load does."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


# A machine that others share may stand still for seconds, and no load shows it: what is not there by then says little.
HANGS_S = 20.0


def poll(condition, timeout, what, every=0.01):
    """Calls condition until it answers something true, which is returned; fails loudly when the patience is at its end."""
    began, timeout = time.monotonic(), max(timeout, HANGS_S)
    while True:
        result = condition()
        if result:
            return result
        waited = time.monotonic() - began
        if waited > timeout and waited > patience(timeout):
            raise TimeoutError("%s: not within %.1f s" % (what, waited))
        time.sleep(every)


def comes_true(condition, seconds, every=0.01):
    """Whether it does within that time, for a test that goes on either way."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def file_system(path):
    """The type of the file system that holds path, as /proc/mounts names it."""
    path = os.path.realpath(path)
    best, kind = "", "unknown"
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            fields = line.split()
            point = fields[1].replace("\\040", " ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, fields[2]
    return kind
