"""What the benchmark's rows are made of: the load generators, counters and figures."""

import array
import contextlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

import harness
from harness.places import file_system, scratch_root
from harness.server import compile_c

HERE = os.path.dirname(os.path.abspath(__file__))
REFUSED_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlay", "devtmpfs")


class Void(Exception):
    """A row that had errors says nothing about speed."""


class Refused(Exception):
    """The place or the machine cannot give honest figures."""


_load = None


def load_binary():
    """Compiles load.c once per run."""
    global _load
    if _load is None:
        _load = compile_c("load", os.path.join(HERE, "load.c"))
    return _load


def load(*arguments, timeout=900):
    """Runs load.c's tool; its line of figures, or Void."""
    done = subprocess.run([load_binary()] + [str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout)
    try:
        figures = json.loads(done.stdout)
    except ValueError:
        raise Void("load %s: %s" % (arguments[0], done.stderr.strip() or done.stdout)) from None
    if figures["errors"] or done.returncode:
        raise Void("%d errors, the first: %s" % (figures["errors"], figures.get("first_error")))
    return figures


def children_cpu_seconds():
    """Of those that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wrk(server, script, connections, seconds, timeout_s=10):
    """wrk's figures, with the CPU time per request that the server spent meanwhile, and wrk itself; or Void. What answers nothing in so
    short a time, and refuses nothing, is measured for longer."""
    threads = 1 if connections == 1 else 2
    before, wrk_before = server.cpu_seconds(), children_cpu_seconds()
    done = subprocess.run(  # wrk takes whole seconds.
        ["wrk", "-t%d" % threads, "-c%d" % connections, "-d%ds" % max(1, round(seconds)), "--timeout", "%ds" % timeout_s, "-s", os.path.join(HERE, script),
         server.url], env=dict(os.environ, QUORATE_BENCH_LUA=HERE), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cpu, wrk_cpu = server.cpu_seconds() - before, children_cpu_seconds() - wrk_before
    match = re.search(r"^JSON(\{.*\})$", done.stdout, re.M)
    if done.returncode or not match:
        raise Void("wrk: " + done.stdout[-300:])
    figures = json.loads(match.group(1))
    if not figures["errors"] and not figures["requests"] and seconds < timeout_s:
        return wrk(server, script, connections, max(1, seconds) * 4, timeout_s)
    if figures["errors"] or figures["requests"] == 0:
        raise Void("wrk counts %d errors in %d requests" % (figures["errors"], figures["requests"]))
    figures["rate"] = figures["requests"] / figures["seconds"]
    figures["cpu_us"] = cpu * 1e6 / figures["requests"]
    figures["wrk_cpu_us"] = wrk_cpu * 1e6 / figures["requests"]
    return figures


def measure_sync(folder, count=300):
    """(median, p99) in ms of a write of 4 KiB into a preallocated file and its fdatasync."""
    path = os.path.join(folder, "sync-probe")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, count * 4096)
        os.fsync(fd)
        times = []
        for number in range(count):
            os.pwrite(fd, b"x" * 4096, number * 4096)
            began = time.monotonic()
            os.fdatasync(fd)
            times.append((time.monotonic() - began) * 1e3)
        times.sort()
        return times[count // 2], times[count * 99 // 100]
    finally:
        os.close(fd)
        os.unlink(path)


def check_place(folder):
    """The file system's name; Refused for one that does not sync."""
    kind = file_system(folder)
    if kind in REFUSED_FILE_SYSTEMS:
        raise Refused("%s is on %s: name a folder on a disk with QUORATE_TEST_TMP" % (folder, kind))
    return kind


def count_syncs(server_kind, connections, seconds):
    """(fdatasync and fsync calls, acknowledged PUTs) of a server of its own under strace."""
    with tempfile.TemporaryDirectory(dir=scratch_root()) as folder:
        out = os.path.join(folder, "counts")
        wrapper = ["strace", "-f", "-qq", "-c", "-S", "calls", "--seccomp-bpf", "-e", "trace=fdatasync,fsync,msync,sync_file_range", "-o", out]
        with harness.new_server(kind=server_kind, wrapper=wrapper) as server:
            server.start()
            fill(server, "/bench", 1000)
            before = 0  # Start-up and filling are counted apart by a second run without the load.
            figures = load("run", server.port, seconds, connections, "put", "/bench", 1000, 256)
            server.stop()
            total = _calls(out)
        with harness.new_server(kind=server_kind, wrapper=wrapper) as server:
            server.start()
            fill(server, "/bench", 1000)
            server.stop()
            before = _calls(out)
    return max(0, total - before), figures["requests"]


def _calls(path):
    with open(path) as table:
        found = [line.split() for line in table if re.search(r" (fdatasync|fsync|msync|sync_file_range)$", line)]
    return sum(int(fields[3]) for fields in found)


def slow_sync_wrapper(milliseconds):
    """Each fdatasync and fsync takes that much longer, for whatever process of the server calls it."""
    return ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=fdatasync,fsync",
            "-e", "inject=fdatasync,fsync:delay_enter=%dms" % milliseconds]


def fill(server, prefix, count, value_bytes=256, connections=64, first=0, query=""):
    """count keys below prefix; how many a second."""
    figures = load("fill", server.port, connections, prefix, first, count, value_bytes, query)
    return figures["requests"] / figures["seconds"]


def median(values):
    return statistics.median(values)


def percentile(values, point):
    if not len(values):
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(point * len(ordered)))]


class Recorded:
    """The latencies that load run wrote: when each was answered (seconds since the epoch), and how long it took (ms)."""

    def __init__(self, path):
        pairs = array.array("Q")
        with open(path, "rb") as record:
            pairs.frombytes(record.read())
        self.at = [value / 1e6 for value in pairs[0::2]]
        self.ms = [value / 1e3 for value in pairs[1::2]]

    def within(self, begin, end):
        """Latencies of requests that were under way at some time in [begin, end]."""
        return [ms for at, ms in zip(self.at, self.ms) if at >= begin and at - ms / 1e3 <= end]


@contextlib.contextmanager
def background(server, seconds, connections, work, prefix, keys, value_bytes=256):
    """load run beside the body; yields a function that waits for its end and gives what it recorded."""
    with tempfile.TemporaryDirectory(dir=scratch_root()) as folder:
        path = os.path.join(folder, "record")
        process = subprocess.Popen(
            [load_binary(), "run"] + [str(a) for a in (server.port, seconds, connections, work, prefix, keys, value_bytes, path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def finish():
            out, err = process.communicate(timeout=seconds + 60)
            if process.returncode:
                raise Void(out.strip() or err.strip())
            return Recorded(path)

        try:
            yield finish
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def version_of(kind):
    binary = harness.Etcd().binary() if kind == "etcd" else os.path.join(harness.build_dir(), "quorate")
    done = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "; ".join(done.stdout.strip().splitlines())


def disk_use(folder):
    """(bytes on disk, {suffix: count}) below folder."""
    total, kinds = 0, {}
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
                suffix = name.rsplit(".", 1)[-1]
                kinds[suffix] = kinds.get(suffix, 0) + 1
    return total, kinds


def need(tool):
    if shutil.which(tool) is None:
        raise Refused("%s is missing: sh packaging/deps.sh test" % tool)
