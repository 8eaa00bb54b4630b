"""How far the log grows before a snapshot lets it be cut, and what all of it takes on the disk."""

import os
import re
import shutil
import threading
import time

import pytest

import harness
from flood import Flood
from harness import Keys, exchange, poll
from harness.wire import FORM
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(3600)]

MIB = 1 << 20


def put(server, count, value):
    for i in range(count):
        answer = exchange(server.port, "PUT", "/v2/keys/k%03d" % (i % 100), body=b"value=" + value, headers=[FORM])
        assert answer.status in (200, 201)


def snapshots(server):
    folder = os.path.join(server.data_dir, "member", "snap")
    return {name: os.path.getsize(os.path.join(folder, name))
            for name in os.listdir(folder) if name.endswith(".snap")}


def index_of(name):
    """The index in a snapshot's or a segment's name."""
    return int(name.split("-")[1].split(".")[0], 16)


def segments(server):
    return sorted(name for name in os.listdir(os.path.join(server.data_dir, "member", "wal")) if name.endswith(".wal"))


def test_a_log_that_grows_over_many_lives_is_cut_too():
    """Each life writes less than a snapshot's worth, all of them together far more."""
    with harness.Quorate(flags=["--snapshot-count=20"]) as server:
        server.start()
        put(server, 100, b"v" * 8192)
        server.kill()
        first = snapshots(server)
        for _ in range(6):
            server.start()
            put(server, max(first.values()) // 4 // 8192, b"w" * 8192)
            server.kill()
        server.start()
        put(server, 30, b"x")
        poll(lambda: set(snapshots(server)) - set(first), 5, "another snapshot")


class Observer:
    """Looks at the files every so many seconds."""

    def __init__(self, server, every=0.1):
        self.server, self.every, self.snapshots_seen, self.segments_seen = server, every, set(), set()
        self.most_bytes, self.looks, self.most_snapshots = 0, 0, 0
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)

    def bytes(self):
        total = 0
        for path, _, names in os.walk(self.server.data_dir):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total

    def _work(self):
        while not self._stop.wait(self.every):
            names = [n for n in os.listdir(os.path.join(self.server.data_dir, "member", "snap")) if n.endswith(".snap")]
            self.snapshots_seen.update(names)
            self.segments_seen.update(segments(self.server))
            self.looks += 1
            self.most_snapshots = max(self.most_snapshots, len(names))
            if self.every >= 0.1:  # It takes a while.
                self.most_bytes = max(self.most_bytes, self.bytes())


def keep_only_what_a_restart_needs(server):
    """Moves away every snapshot but the newest, every segment that ends before it, and the state; says which."""
    away = os.path.join(server.folder, "away")
    os.mkdir(away)
    newest = sorted(snapshots(server))[-1]
    for name in set(snapshots(server)) - {newest}:
        shutil.move(os.path.join(server.data_dir, "member", "snap", name), away)
    names = segments(server)
    moved = [name for name, successor in zip(names, names[1:]) if index_of(successor) <= index_of(newest) + 1]
    for name in moved:
        shutil.move(os.path.join(server.data_dir, "member", "wal", name), away)
    shutil.move(os.path.join(server.data_dir, "member", "state"), away)
    return newest, moved


@pytest.mark.slow
def test_never_are_there_more_snapshots_than_are_kept():
    """Not for a moment: the oldest goes before the next one is made."""
    with harness.Quorate(flags=["--snapshot-count=20", "--max-snapshots=3"]) as server, Observer(server.start(), 0.005) as observer:
        flood = Flood(server, 10, 2000)  # Each snapshot has about twice the history of the one before.
        poll(lambda: flood.write(50) or len(observer.snapshots_seen) >= 6, 240, "six snapshots")
        flood.close()
        assert observer.most_snapshots == 3 and len(snapshots(server)) in (2, 3)


@pytest.mark.slow
def test_a_million_writes_with_default_flags_leave_a_bounded_heap_of_files(measured):
    """60,000 but with --full: then the log is not yet long enough for a segment of it to be purged."""
    count, value_bytes = sized(20000, 60000, 1000000), 256
    with harness.new_server() as server, Observer(server.start()) as observer:
        flood = Flood(server, 1000, value_bytes)
        flood.write(9900)
        assert snapshots(server) == {}
        flood.write(300)
        first = poll(lambda: snapshots(server), 10, "the first snapshot")
        assert index_of(min(first)) <= 10001 + 2 * Flood.DEPTH * Flood.CONNECTIONS, first
        began = time.monotonic()
        used = []
        for part in range(10):
            flood.write((count - 10200) // 10)
            used.append(observer.bytes() // MIB)
        took = time.monotonic() - began
        if count >= 1000000:
            assert len(observer.snapshots_seen) > 5 and len(snapshots(server)) in (4, 5)
            assert min(observer.segments_seen) not in segments(server), "the first segment is still there"
        assert observer.looks > 10 and observer.most_snapshots <= 5
        flood.close()
        wrong = flood.wrong(server)
        assert wrong == [], wrong[:5]
        measured.say(
            "%d writes of %d bytes to 1000 keys, default flags, %.0f s: first snapshot at index %d, %d made, %d kept (never more than %d in %d looks), "
            "%d segments of the log, %d left; MiB on the disk after each tenth: %s, at most %d" % (
                flood.written, value_bytes, took, index_of(min(first)), len(observer.snapshots_seen), len(snapshots(server)),
                observer.most_snapshots, observer.looks, len(observer.segments_seen), len(segments(server)), used, observer.most_bytes // MIB))
        assert observer.most_bytes < 1024 * MIB
        if count >= 1000000:
            assert used[-1] <= 1.25 * used[4] + 128, "it goes on growing: %s" % used
        server.kill()
        newest, moved = keep_only_what_a_restart_needs(server)
        if moved:  # The older snapshots need them, and the log knows of those: it is refused by name, and nothing is made up.
            with pytest.raises((RuntimeError, TimeoutError)):
                server.start(30)
            server.kill()
            assert re.search(r"the log begins with [0-9a-f-]+\.wal, but entries from \d+ on are needed", server.log())
            for name in moved:
                shutil.move(os.path.join(server.folder, "away", name), os.path.join(server.data_dir, "member", "wal"))
            shutil.rmtree(os.path.join(server.data_dir, "member", "state"), ignore_errors=True)
        began = time.monotonic()
        server.start(60)
        measured.say("restart with %s alone and %d segments: %.1f s" % (newest, len(segments(server)), time.monotonic() - began))
        assert flood.wrong(server) == []
        assert Keys(server.port).put("/after", "v").status == 201
