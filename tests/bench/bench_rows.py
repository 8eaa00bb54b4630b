"""The rows of the comparison, in groups that can be run alone."""

import calendar
import contextlib
import json
import os
import re
import selectors
import subprocess
import threading
import time
from collections import namedtuple

import harness
from bench_tools import (Void, background, count_syncs, disk_use, fill, load, load_binary, median, percentile,
                         slow_sync_wrapper, wrk)
from harness import Connection, Keys, exchange, poll
from harness.wire import WireError

Settings = namedtuple("Settings", "kinds rounds seconds million smoke")
Group = namedtuple("Group", "measure is_long")
GROUPS = {}
KEYS = 10000
RESTART_LIMIT_S = 300


def group(name, is_long=False):
    def register(function):
        GROUPS[name] = Group(function, is_long)
        return function
    return register


def at_least(bound):
    return ">= %gx" % bound, lambda ratio, ours: ratio >= bound


def at_most(bound):
    return "<= %gx" % bound, lambda ratio, ours: ratio <= bound


def below(bound, unit):
    return "<= %g %s" % (bound, unit), lambda ratio, ours: ours <= bound


@contextlib.contextmanager
def servers(settings, flags=(), **options):
    """{kind: running server}, all at once: who is not under load is idle."""
    with contextlib.ExitStack() as stack:
        running = {}
        for kind in settings.kinds:
            running[kind] = stack.enter_context(harness.new_server(flags, kind=kind, **options))
            running[kind].start()
        yield running


def rounds(settings, running, measure):
    """{kind: [figures per round]}, the servers taking turns, the first of a round changing."""
    results = {kind: [] for kind in running}
    for number in range(settings.rounds):
        order = list(running) if number % 2 == 0 else list(reversed(list(running)))
        for kind in order:
            results[kind].append(measure(running[kind]))
    return results


def medians(results, field):
    return {kind: median([r[field] for r in figures]) for kind, figures in results.items()}


def spread(results, field):
    return ", ".join("%s %s" % (kind, " ".join("%.0f" % r[field] for r in figures)) for kind, figures in results.items())


# Rates and latencies.

LOADS = [
    # script, connections, aim of the rate, aim of the median latency, aim of the CPU
    ("put", 256, at_least(2.5), None, None),
    ("put", 64, at_least(2.0), None, at_most(0.4)),
    ("put", 1, None, at_most(1.25), None),
    ("get", 256, at_least(1.8), None, None),
    ("get", 64, at_least(1.8), None, at_most(0.4)),
    ("get", 1, None, at_most(1.0), None),
]


def connections_text(count):
    return "%d connection%s" % (count, "" if count == 1 else "s")


def report_load(report, name, connections, results, rate_aim, latency_aim):
    """Of one connection the latency, of more the rate; and the 99th percentile."""
    if connections == 1:
        report.row(name + ": median latency", {k: v / 1e3 for k, v in medians(results, "p50_us").items()}, "ms", latency_aim)
    else:
        report.row(name + ": rate", medians(results, "rate"), "/s", rate_aim, "rounds: " + spread(results, "rate"))
    report.row(name + ": p99", {k: v / 1e3 for k, v in medians(results, "p99_us").items()}, "ms")


@group("rates")
def rates(settings, report):
    with servers(settings) as running:
        for server in running.values():
            fill(server, "/bench", KEYS)
        for script, connections, rate_aim, latency_aim, cpu_aim in LOADS:
            name = "%s, %s" % (script.upper(), connections_text(connections))
            try:
                results = rounds(settings, running, lambda s: wrk(s, script + ".lua", connections, settings.seconds))
            except Void as why:
                report.void(name, why)
                continue
            report_load(report, name, connections, results, rate_aim, latency_aim)
            report.row(name + ": server CPU per request", medians(results, "cpu_us"), "us", cpu_aim)
            # The cores are shared with it: its time in a request bounds how far apart two servers' rates can be.
            report.row(name + ": wrk's own CPU per request", medians(results, "wrk_cpu_us"), "us")


@group("quorum-reads")
def quorum_reads(settings, report):
    with servers(settings) as running:
        for server in running.values():
            Keys(server.port).put("/bench/k", "v" * 256)

        def measure(server):
            before, count, end = time.monotonic(), 0, time.monotonic() + settings.seconds
            with Connection(server.port) as connection:
                while time.monotonic() < end:
                    if connection.request("GET", "/v2/keys/bench/k?quorum=true").status != 200:
                        raise Void("a quorum GET failed")
                    count += 1
            return {"ms": (time.monotonic() - before) * 1e3 / count}

        report.row("quorum GET, 1 connection: mean latency", medians(rounds(settings, running, measure), "ms"), "ms")


@group("syncs")
def syncs(settings, report):
    for connections in (1, 64):
        values = {}
        for kind in settings.kinds:
            calls, puts = count_syncs(kind, connections, settings.seconds)
            values[kind] = calls / puts
        report.row("syncs per acknowledged PUT, " + connections_text(connections), values, "")


def answered_after(server, target, limit_s, status):
    """Seconds from the start of the process to the first such answer to a GET."""
    began = time.monotonic()
    server.spawn()

    def is_answered():
        try:
            return exchange(server.port, "GET", target, timeout=30).status == status
        except (OSError, WireError):
            return False

    poll(is_answered, limit_s, "first GET after a start", every=0.002)
    return time.monotonic() - began


@group("start")
def start(settings, report):
    """A member's first start, with an empty data folder, and its second."""
    first, second = ({kind: [] for kind in settings.kinds} for _ in range(2))
    for _ in range(settings.rounds):
        for kind in settings.kinds:
            with harness.new_server(kind=kind) as server:
                first[kind].append(answered_after(server, "/v2/keys/k", 30, 404))
                server.wait_ready(30)
                Keys(server.port).put("/k", "v")
                server.stop()
                second[kind].append(answered_after(server, "/v2/keys/k", 30, 200))
    for name, taken in (("first", first), ("second", second)):
        report.row(name + " start: first GET answered", {kind: median(values) for kind, values in taken.items()}, "s",
                   below(2, "s") if name == "second" else None,
                   "; ".join(kind + " " + " ".join("%.3f" % v for v in values) for kind, values in taken.items()))


@group("slow-disk")
def slow_disk(settings, report):
    """The PUT rows with time added to each sync, by the same means for both."""
    for added_ms in (2, 10):
        with servers(settings, wrapper=slow_sync_wrapper(added_ms)) as running:
            for server in running.values():
                fill(server, "/bench", KEYS if not settings.smoke else 200)
            for connections, aim in ((256, at_least(2.5)), (64, at_least(2.0)), (1, at_most(1.25))):
                name = "PUT, %s, syncs %d ms slower" % (connections_text(connections), added_ms)
                try:
                    results = rounds(settings, running, lambda s: load(
                        "run", s.port, settings.seconds, connections, "put", "/bench", KEYS, 256))
                except Void as why:
                    report.void(name, why)
                    continue
                for figures in results.values():
                    for r in figures:
                        r["rate"] = r["requests"] / r["seconds"]
                if connections == 1:
                    report.row(name + ": p50", {k: v / 1e3 for k, v in medians(results, "p50_us").items()}, "ms", aim)
                else:
                    report.row(name + ": rate", medians(results, "rate"), "/s", aim)


# Listings and watches.

@group("listing")
def listing(settings, report):
    with servers(settings) as running:
        for server in running.values():
            fill(server, "/thousand", 1000)
        results = rounds(settings, running, lambda s: wrk(s, "list.lua", 16, settings.seconds))
        report.row("1,000-key directory, recursive: rate", medians(results, "rate"), "/s", at_least(3))
        report.row("1,000-key directory, recursive: CPU each", medians(results, "cpu_us"), "us")


SETTLE_S = 0.05  # What a server still does for an answer that the client has already.


@group("herd")
def herd(settings, report):
    watchers = 1000 if not settings.smoke else 100
    with servers(settings) as running:
        def once(server):
            process = subprocess.Popen([load_binary(), "herd", str(server.port), str(watchers), "/herd"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if process.stdout.readline() != "ready\n":
                raise Void("herd: " + process.communicate()[1])
            before = server.cpu_ns()
            process.stdin.write("\n")
            process.stdin.flush()
            answered = process.stdout.readline()
            time.sleep(SETTLE_S)
            cpu_ns = server.cpu_ns() - before  # Before the connections are closed, which is not asked for.
            _, err = process.communicate(timeout=60)
            if process.returncode:
                raise Void("herd: " + err)
            return {"ms": json.loads(answered)["ms"], "cpu_ms": cpu_ns / 1e6}

        def measure(server):
            herds = [once(server) for _ in range(5 if not settings.smoke else 1)]
            return {field: median([h[field] for h in herds]) for field in ("ms", "cpu_ms")}

        results = rounds(settings, running, measure)
        report.row("%d long polls on one key, all answered" % watchers, medians(results, "ms"), "ms", at_most(0.9))
        report.row("the same: server CPU", medians(results, "cpu_ms"), "ms", at_most(0.5))


@group("idle-watches")
def idle_watches(settings, report):
    count = 5000 if not settings.smoke else 500
    values = {}
    for kind in settings.kinds:
        with harness.new_server(kind=kind) as server:
            server.start()
            exchange(server.port, "GET", "/v2/keys")
            before = sum(server.memory_kib())
            process = subprocess.Popen([load_binary(), "idle", str(server.port), str(count), "/idle"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
            try:
                if process.stdout.readline() != "ready\n":
                    raise Void("idle watches could not be opened")
                values[kind] = (sum(server.memory_kib()) - before) / count
            finally:
                process.kill()
                process.communicate()
    report.row("memory of an idle long poll (of %d)" % count, values, "KiB", below(4, "KiB"))


# Expiry.

@group("expiry")
def expiry(settings, report):
    """How late the expire event of a key reaches a watcher, by the deadline that the key bore."""
    def lateness(server, count):
        # A watch for each key: one for all would overflow the reference's buffer when a tick expires many at once.
        keys, selector, late = Keys(server.port), selectors.DefaultSelector(), []
        for number in range(count):
            put = keys.put("/expire/k%d" % number, "v", ttl=2 + number % 3)
            # From there on: it may be over before the watch begins.
            watch = keys.watch("/expire/k%d" % number, "waitIndex=%d" % (put.json["node"]["modifiedIndex"] + 1))
            selector.register(watch.connection.sock, selectors.EVENT_READ, watch)
        while len(late) < count:
            ready = selector.select(20)
            if not ready:
                raise Void("%d of %d keys expired" % (len(late), count))
            now = time.time()
            for key, _ in ready:
                event = key.data.event()
                selector.unregister(key.fileobj)
                key.data.close()
                whole, fraction = re.match(r"(.*T\d\d:\d\d:\d\d)(\.\d+)?Z", event["prevNode"]["expiration"]).groups()
                deadline = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(fraction or 0)
                late.append((now - deadline) * 1e3)
        keys.close()
        return late

    count = 1000 if not settings.smoke else 50
    with servers(settings) as running:
        late = {kind: lateness(server, count) for kind, server in running.items()}
        report.row("%d keys expire: event after deadline, p50" % count, {k: percentile(v, 0.5) for k, v in late.items()}, "ms")
        report.row("%d keys expire: event after deadline, p99" % count, {k: percentile(v, 0.99) for k, v in late.items()}, "ms",
                   below(100, "ms"))
        early = {k: -min(v) for k, v in late.items()}
        report.row("the earliest of them, before its deadline", early, "ms")


# A million keys.

def add_million(settings, server, prefix="/m", query=""):
    return fill(server, prefix, settings.million, connections=128, query=query)


@group("million", is_long=True)
def million(settings, report):
    """Memory, the write rate, snapshots and restarts with a million keys."""
    memory, state, rate_small, rate_large, filled = {}, {}, {}, {}, {}
    outside, during, first_get, untrusted = {}, {}, {}, {}
    for kind in settings.kinds:
        with harness.new_server(kind=kind) as server:
            server.start()
            fill(server, "/bench", KEYS)
            small = [load("run", server.port, settings.seconds, 64, "put", "/bench", KEYS, 256) for _ in range(3)]
            rate_small[kind] = median([f["requests"] / f["seconds"] for f in small])
            filled[kind] = add_million(settings, server)
            own, mapped = server.memory_kib()
            memory[kind], state[kind] = own / 1024, mapped / 1024
            large = [load("run", server.port, settings.seconds, 64, "put", "/m", settings.million, 256) for _ in range(3)]
            rate_large[kind] = median([f["requests"] / f["seconds"] for f in large])
            outside[kind], during[kind] = snapshot_latencies(settings, server)
            for figures, distrust in ((first_get, False), (untrusted, True)):
                if kind == "quorate" or not distrust:
                    try:
                        figures[kind] = restart_seconds(server, distrust)
                    except TimeoutError as why:  # Said, and the other figures kept.
                        report.void("%s: restart" % kind, why)
                        server.kill()
    report.row("filling: rate", filled, "/s")
    report.row("memory with %d keys (PSS, all processes)" % settings.million, memory, "MiB", at_most(0.4))
    report.row("beside it: mapped pages of the state", state, "MiB")
    report.row("PUT rate, 64 connections, with 10,000 keys", rate_small, "/s")
    report.row("PUT rate, 64 connections, with %d keys" % settings.million, rate_large, "/s")
    share = {k: rate_large[k] / rate_small[k] for k in rate_large}
    report.row("the second to the first", share, "", ("ours >= 0.8", lambda ratio, ours: ours >= 0.8))
    report.row("PUT p99 between snapshots", outside, "ms")
    report.row("PUT p99 while a snapshot is written", during, "ms")
    grown = {k: during[k] / outside[k] for k in during if during[k] == during[k] and outside[k]}
    report.row("the second to the first", grown, "", ("ours <= 2", lambda ratio, ours: ours <= 2))
    report.row("kill -9 of all, start, first GET", first_get, "s", below(0.5, "s"))
    report.row("the same with a state that is not trusted", untrusted, "s", below(10, "s"))


def snapshot_latencies(settings, server):
    """p99 in ms of PUTs (outside, inside) the times when a snapshot was being written, seen in the snapshot directory."""
    folder = os.path.join(server.data_dir, "member", "snap")
    limit_s = 120 if not settings.smoke else 2
    spans, stop = [], threading.Event()

    def look():
        """A span begins when a temporary file appears and ends when a new .snap stands complete."""
        known = set(os.listdir(folder))
        began = None
        while not stop.is_set():
            names = set(os.listdir(folder))
            temporary = [n for n in names if not n.endswith((".snap", ".broken")) and n not in ("db",)]
            fresh = {n for n in names - known if n.endswith(".snap")}
            if temporary and began is None:
                began = time.time()
            if fresh:
                spans.append((began if began is not None else time.time() - 0.05, time.time()))
                began, known = None, names
            elif not temporary:
                began = None
            time.sleep(0.002)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    recorded = []
    deadline = time.monotonic() + limit_s
    try:
        while time.monotonic() < deadline and len(spans) < 2:
            with background(server, 10 if not settings.smoke else 1, 64, "put", "/m", settings.million) as finish:
                recorded.append(finish())
    finally:
        stop.set()
        watcher.join()
    inside, rest = [], []
    for record in recorded:
        for at, ms in zip(record.at, record.ms):
            begin = at - ms / 1e3
            (inside if any(begin <= b and at >= a for a, b in spans) else rest).append(ms)
    return percentile(rest, 0.99), percentile(inside, 0.99)


def restart_seconds(server, distrust=False):
    """kill -9 of all, then from the start of the process to the first answered GET."""
    server.kill()
    if distrust:
        os.unlink(os.path.join(server.data_dir, "member", "state", "MARK"))
    taken = answered_after(server, "/v2/keys/m/k0000001", RESTART_LIMIT_S, 200)
    server.wait_ready(60)
    return taken


# What one client's huge request does to the others.

@group("stalls", is_long=True)
def stalls(settings, report):
    steps = ("the expiry of %d keys of one deadline" % settings.million, "a recursive delete of %d nodes" % settings.million,
             "a listing of %d nodes" % settings.million)
    calm = {}
    p99 = {step: {} for step in steps}
    for kind in settings.kinds:
        with harness.new_server(kind=kind) as server:
            server.start()
            fill(server, "/bench", KEYS)
            with background(server, max(2, settings.seconds), 16, "mix", "/bench", KEYS) as finish:
                calm[kind] = percentile(finish().ms, 0.99)
            add_million(settings, server, "/m")
            seconds = 20 if not settings.smoke else 3
            p99[steps[2]][kind] = beside(server, seconds, "GET", "/v2/keys/m?recursive=true")
            p99[steps[1]][kind] = beside(server, seconds, "DELETE", "/v2/keys/m?recursive=true", after_s=1)
            p99[steps[0]][kind] = during_expiry(settings, server)
    report.row("others' p99, calm (16 connections, half PUT)", calm, "ms")
    for step in steps:
        times = {k: p99[step][k] / calm[k] for k in p99[step]}
        report.row("others' p99 during " + step, p99[step], "ms")
        report.row("    to the calm one", times, "x", ("ours <= 5", lambda ratio, ours: ours <= 5))


def beside(server, seconds, method, target, after_s=0):
    """Others' p99 in ms while one such request is under way, and so long after."""
    with background(server, seconds, 16, "mix", "/bench", KEYS) as finish:
        time.sleep(1)
        began = time.time()
        with Connection(server.port, timeout=seconds + 60) as connection:
            answer = connection.request(method, target)
        if answer.status != 200:
            raise Void("%s %s answered %d" % (method, target, answer.status))
        end = max(time.time(), began + 1) + after_s
        record = finish()
    return percentile(record.within(began, end), 0.99)


def during_expiry(settings, server):
    """A million keys under one deadline: a ttl that ends when all are written."""
    def stats():
        return exchange(server.port, "GET", "/v2/stats/store", timeout=60).json["expireCount"]

    before = stats()  # Of them, too, if filling takes longer than was reckoned.
    rate = fill(server, "/rate", 20000, connections=128, query="?ttl=86400") if not settings.smoke else 5000
    ahead_s = int(settings.million / rate * 1.6) + 3
    end_at = time.time() + ahead_s
    written = 0
    while written < settings.million:
        part = min(settings.million // 20 or 1, settings.million - written)
        ttl = max(1, round(end_at - time.time()))
        fill(server, "/x", part, connections=128, first=written, query="?ttl=%d" % ttl)
        written += part
    with background(server, max(4, end_at - time.time() + 60 * settings.million / 1e6 + 3), 16, "mix", "/bench", KEYS) as finish:
        poll(lambda: stats() > before, ahead_s + 30, "the first key expires", every=0.01)
        began = time.time()
        with contextlib.suppress(TimeoutError):
            poll(lambda: stats() >= before + written, 60, "all keys expire", every=0.05)
        end = time.time()
        record = finish()
    return percentile(record.within(began, end), 0.99)


# Defaults: what a million writes leave on the disk.

@group("defaults", is_long=True)
def defaults(settings, report):
    writes = settings.million
    used, snapshots, logs = {}, {}, {}
    for kind in settings.kinds:
        with harness.new_server(kind=kind) as server:
            server.start()
            done = 0
            while done < writes:
                done += load("run", server.port, 5 if not settings.smoke else 0.5, 128, "put", "/d", 1000, 256)["requests"]
                if settings.smoke:
                    break
            bytes_used, kinds = disk_use(server.data_dir)
            used[kind], snapshots[kind], logs[kind] = bytes_used / 2**20, kinds.get("snap", 0), kinds.get("wal", 0)
    report.row("disk use after %d writes to 1,000 keys" % writes, used, "MiB")
    report.row("snapshots kept", snapshots, "", ("ours <= 5", lambda ratio, ours: ours <= 5))
    report.row("log segments kept", logs, "")
