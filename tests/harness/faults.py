"""Faults: a shim between a process and its system calls, a disk whose power can be cut, and writers that remember.

What needs root says so by can_cut_power(); tests skip themselves then.
"""

import contextlib
import ctypes
import fcntl
import os
import random
import struct
import subprocess
import time

from harness.keys import Keys
from harness.places import patience, scratch_root
from harness.server import SOURCE, compile_c
from harness.wire import Connection, WireError
from harness.workers import Workers

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
SHUTDOWN_NO_LOG_FLUSH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Shim:
    """tests/fault/shim.c, compiled once a run, and its file of rules."""

    _library = None

    def __init__(self, folder):
        self.rules_path = os.path.join(folder, "shim-rules")
        self.log_path = os.path.join(folder, "shim-log")
        self.set()
        if Shim._library is None:
            Shim._library = compile_c("shim.so", os.path.join(SOURCE, "tests", "fault", "shim.c"), "-shared", "-fPIC", "-ldl")

    @property
    def env(self):
        preload = Shim._library
        if os.environ.get("LD_PRELOAD"):
            preload = os.environ["LD_PRELOAD"] + ":" + preload
        return {"LD_PRELOAD": preload, "QUORATE_SHIM_RULES": self.rules_path, "QUORATE_SHIM_LOG": self.log_path}

    def set(self, *rules):
        """The rules from now on; none: no faults. Replaced in one step, so that no process reads a half."""
        with open(self.rules_path + ".new", "w") as out:
            out.write("".join(rule + "\n" for rule in rules))
        os.rename(self.rules_path + ".new", self.rules_path)

    def hits(self):
        try:
            with open(self.log_path) as log:
                return log.read().splitlines()
        except FileNotFoundError:
            return []

    def forget(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log_path)


# Disks.

_own_mounts = False


def own_mount_namespace():
    """From here on this process's mounts are its own: they vanish with it, whatever happens."""
    global _own_mounts
    if not _own_mounts:
        if _libc.unshare(CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
            raise OSError(ctypes.get_errno(), "a mount namespace of our own")
        _own_mounts = True


_own_netns_names = False


def own_netns_names():
    """From here on the network namespaces that ip makes by name are known in this process only, and go with it: by the
    kernel, so after a SIGKILL too."""
    global _own_netns_names
    if not _own_netns_names:
        own_mount_namespace()
        os.makedirs("/run/netns", exist_ok=True)
        if _libc.mount(b"netns", b"/run/netns", b"tmpfs", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "a /run/netns of our own")
        _own_netns_names = True


_can_cut = None


def can_cut_power():
    """Whether a loop-mounted ext4 can be made here: "" if so, else why not."""
    global _can_cut
    if _can_cut is None:
        if os.geteuid() != 0:
            _can_cut = "needs root (a loop-mounted disk)"
        else:
            try:
                with Disk(32):
                    _can_cut = ""
            except (OSError, subprocess.CalledProcessError) as why:
                _can_cut = "no loop-mounted ext4 here: %s" % why
    return _can_cut


class Disk:
    """An ext4 in a file, mounted. cut() is what a power cut does to it; size in MiB."""

    def __init__(self, mebibytes=1024):
        own_mount_namespace()
        number = random.randrange(1 << 30)
        self.image = os.path.join(scratch_root(), "disk-%d.img" % number)
        self.path = os.path.join(scratch_root(), "disk-%d" % number)
        self.mebibytes = mebibytes

    def __enter__(self):
        with open(self.image, "wb") as image:
            image.truncate(self.mebibytes << 20)
        os.mkdir(self.path)
        try:
            self._run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-m", "0", self.image)
            self.mount()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.umount()
        self._remove()

    def _remove(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
        os.unlink(self.image)

    @staticmethod
    def _run(*command):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, PATH="/usr/sbin:/sbin:" + os.environ.get("PATH", "/usr/bin:/bin")))

    def mount(self):
        self._run("mount", "-t", "ext4", "-o", "loop", self.image, self.path)

    def umount(self):
        self._run("umount", self.path)

    def cut(self):
        """From now on nothing reaches the disk, and what had not is gone. Kill the writers, then plug_in()."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def plug_in(self):
        """Mounted again, its journal replayed."""
        self.umount()
        self.mount()


def another_boot(folder):
    """A preexec for a server that shall read another boot id than the machine's: as after a restart of the host."""
    path = os.path.join(folder, "boot-id-%d" % random.randrange(1 << 30))
    digits = "%032x" % random.getrandbits(128)
    with open(path, "w") as out:
        out.write("%s-%s-%s-%s-%s\n" % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def preexec():
        if _libc.unshare(CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
            os._exit(120)
        if _libc.mount(path.encode(), b"/proc/sys/kernel/random/boot_id", None, MS_BIND, None) != 0:
            os._exit(121)

    return preexec


# Writers.

class Writers(Workers):
    """Threads that each put one new key after the other and note what was acknowledged, with its index."""

    def __init__(self, port, prefix, count=32, timeout=3.0, value_bytes=20):
        self.port, self.prefix, self.timeout = port, prefix, timeout
        self.padding = "x" * value_bytes
        self.acked = [[] for _ in range(count)]    # (sequence, index)
        self.unknown = [[] for _ in range(count)]  # (sequence, what came instead of an answer)
        self.longest_s = 0.0
        super().__init__(count, timeout + 10)

    def count(self):
        return sum(len(acks) for acks in self.acked)

    def wait_for(self, more, timeout=20.0):
        """Until so many more writes are acknowledged, however slow the disk is, as long as one comes after the other:
        timeout is for the next."""
        wanted, last = self.count() + more, None
        while (count := self.count()) < wanted:
            if count != last:
                last, since = count, time.monotonic()
            waited = time.monotonic() - since
            if waited > timeout and waited > patience(timeout):
                raise TimeoutError("%d of %d writes were acknowledged, and none for %.0f s; last: %s" % (
                    more - (wanted - count), more, waited, [u[-1:] for u in self.unknown][:4]))
            time.sleep(0.005)

    def value(self, writer, sequence):
        return "%d.%d.%s" % (writer, sequence, self.padding)

    def work(self, writer):
        keys = Keys(self.port, self.timeout)
        sequence = 0
        while not self.is_over():
            sequence += 1
            began = time.monotonic()
            try:
                answer = keys.put("%s/w%d/%d" % (self.prefix, writer, sequence), self.value(writer, sequence))
            except (OSError, WireError, ValueError) as why:
                self.unknown[writer].append((sequence, repr(why)))
                keys.close()
                time.sleep(0.005)
                continue
            if answer.status in (200, 201):
                self.acked[writer].append((sequence, answer.index))
                self.longest_s = max(self.longest_s, time.monotonic() - began)
            else:
                self.unknown[writer].append((sequence, "%d %r" % (answer.status, answer.body[:120])))
        keys.close()

    def problems(self, port=None):
        """What is wrong with the store by what was acknowledged: lost, changed, applied or answered twice."""
        with Connection(port or self.port, timeout=120) as connection:
            answer = connection.request("GET", "/v2/keys%s?recursive=true" % self.prefix)
        wrong, found = [], {}
        if answer.status == 200:
            for folder in answer.json["node"].get("nodes", []):
                for node in folder.get("nodes", []):
                    found[node["key"]] = node
        seen = {}
        for writer, acks in enumerate(self.acked):
            last = 0
            for sequence, index in acks:
                key = "%s/w%d/%d" % (self.prefix, writer, sequence)
                if index in seen:
                    wrong.append("index %d was answered for %s and for %s" % (index, seen[index], key))
                seen[index] = key
                if index <= last:
                    wrong.append("%s got index %d behind %d" % (key, index, last))
                last = index
                node = found.pop(key, None)
                if node is None:
                    wrong.append("%s, acknowledged at index %d, is lost" % (key, index))
                elif node["value"] != self.value(writer, sequence):
                    wrong.append("%s holds %r" % (key, node["value"]))
                elif (node["modifiedIndex"], node["createdIndex"]) != (index, index):
                    wrong.append("%s was acknowledged at %d and stands at %d, created %d" % (
                        key, index, node["modifiedIndex"], node["createdIndex"]))
            for sequence, _ in self.unknown[writer]:
                node = found.pop("%s/w%d/%d" % (self.prefix, writer, sequence), None)
                if node is not None and (node["value"] != self.value(writer, sequence) or node["modifiedIndex"] in seen):
                    wrong.append("an unanswered write stands as %s" % node)
        wrong += ["nobody wrote %s" % key for key in found]
        return wrong
