"""How far the log grows before a snapshot lets it be cut, and what all of it takes on the disk."""

import os
import re
import shutil
import time

import pytest

import harness
from harness import Keys, exchange, poll
from harness.flood import Flood
from harness.wire import FORM
from harness.workers import Workers
from sizes import sized
from specimen import start_or_refusal

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
        poll(lambda: snapshots(server), 10, "a snapshot")
        server.kill()
        first = snapshots(server)
        for _ in range(6):
            server.start()
            put(server, max(first.values()) // 4 // 8192, b"w" * 8192)
            server.kill()
        server.start()
        put(server, 30, b"x")
        poll(lambda: set(snapshots(server)) - set(first), 5, "another snapshot")


class Observer(Workers):
    """Looks at the files every so many seconds."""

    def __init__(self, server, every=0.1):
        self.server, self.every, self.snapshots_seen, self.segments_seen = server, every, set(), set()
        self.most_bytes, self.looks, self.most_snapshots = 0, 0, 0
        super().__init__(join_s=10)

    def bytes(self):
        total = 0
        for path, _, names in os.walk(self.server.data_dir):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total

    def work(self, _):
        while not self.pause(self.every):
            names = [n for n in os.listdir(os.path.join(self.server.data_dir, "member", "snap")) if n.endswith(".snap")]
            self.snapshots_seen.update(names)
            self.segments_seen.update(segments(self.server))
            self.looks += 1
            self.most_snapshots = max(self.most_snapshots, len(names))
            if self.every >= 0.1:  # It takes a while.
                self.most_bytes = max(self.most_bytes, self.bytes())


def segments_behind(server, snapshot):
    """Those that hold entries behind a snapshot."""
    names = segments(server)
    return [name for name, successor in zip(names, names[1:]) if index_of(successor) > index_of(snapshot) + 1] + names[-1:]


def snapshots_between(server):
    """Those that need a segment more than the newest snapshot, and one less than there are."""
    behind = {name: len(segments_behind(server, name)) for name in sorted(snapshots(server), key=index_of)}
    return [name for name, count in behind.items() if list(behind.values())[-1] < count < len(segments(server))]


def wait_for_recorded(server):
    """No snapshot is being made, and the log knows the newest; which that is."""
    def newest():
        folder = os.path.join(server.data_dir, "member", "snap")
        name = max(snapshots(server), key=index_of)
        is_made = not [n for n in os.listdir(folder) if n.endswith(".tmp")]
        return name if is_made and "raftd.snapshot.recorded index=%d " % index_of(name) in server.log() else None

    return poll(newest, 60, "the newest snapshot is recorded")


def keep_only_what_a_restart_needs(server):
    """Removes every snapshot but the newest, every segment without an entry behind it, and the state; says which it kept."""
    newest = max(snapshots(server), key=index_of)
    for name in set(snapshots(server)) - {newest}:
        os.unlink(os.path.join(server.data_dir, "member", "snap", name))
    kept = segments_behind(server, newest)
    for name in set(segments(server)) - set(kept):
        os.unlink(os.path.join(server.data_dir, "member", "wal", name))
    shutil.rmtree(os.path.join(server.data_dir, "member", "state"))
    return newest, kept


class Grown:
    """A member with several snapshots and segments, ended by kill -9; a trial gets a copy of some of its files, and no state."""

    def __init__(self, server, flood):
        self.server, self.flood = server, flood
        self.snapshots = sorted(snapshots(server), key=index_of)
        self.index = Keys(server.port).index()
        server.kill()

    def trial(self, kept_snapshots, kept_segments):
        server = harness.Quorate(flags=self.server.flags)
        for kind, names in (("snap", kept_snapshots), ("wal", kept_segments)):
            folder = os.path.join(server.data_dir, "member", kind)
            os.makedirs(folder, 0o700)
            for name in names:
                shutil.copy(os.path.join(self.server.data_dir, "member", kind, name), folder)
        return server

    def assert_is_whole(self, server):
        keys = Keys(server.port, 60)
        assert keys.index() >= self.index
        keys.close()
        assert self.flood.wrong(server) == []


@pytest.fixture(scope="module")
def grown():
    with harness.Quorate(flags=["--snapshot-count=50"]) as server:
        flood = Flood(server.start(), 20, 100000)  # A snapshot has its history in it, and the log grows by that before the next.
        poll(lambda: flood.write(100) or (snapshots_between(server) and wait_for_recorded(server) and snapshots_between(server)), 300,
             "snapshots in three segments")
        flood.close()
        yield Grown(server, flood)


def test_a_restart_needs_only_the_newest_snapshot_and_the_log_behind_it(grown):
    """Without a state, with one that was closed, with one that was killed; and all goes on from there."""
    newest = grown.snapshots[-1]
    kept = segments_behind(grown.server, newest)
    assert len(kept) < len(segments(grown.server)) - 1
    with grown.trial([newest], kept) as server:
        server.start(60)
        grown.assert_is_whole(server)
        loads = server.log().count("raftd.state.load ")
        assert loads == 1
        server.stop()
        server.start()
        grown.assert_is_whole(server)
        put(server, 10, b"more")
        server.kill()
        server.start()
        grown.assert_is_whole(server)
        assert server.log().count("raftd.state.load ") == loads, "the state was not trusted"
        flood = Flood(server, 20, 100000)
        poll(lambda: flood.write(100) or max(snapshots(server), key=index_of) != newest, 120, "the next snapshot")
        assert wait_for_recorded(server) != newest
        flood.close()
        server.kill()
        keep_only_what_a_restart_needs(server)
        server.start(60)
        assert flood.wrong(server) == []


def test_a_log_that_begins_behind_the_newest_snapshot_is_refused_with_both_positions(grown):
    """An older snapshot is there, and the log it would need is not."""
    older = snapshots_between(grown.server)
    with grown.trial(older[-1:], segments_behind(grown.server, grown.snapshots[-1])) as server:
        refused = start_or_refusal(server, 120)
        assert refused is not None, "it started"
        said = re.search(r"stored_index=(\d+) log_base=(\d+) log_last=(\d+) no snapshot fits", server.log())
        assert said and int(said.group(2)) > index_of(older[-1]), refused


def test_a_newest_snapshot_that_is_broken_falls_back_as_far_as_the_log_reaches(grown):
    newest = grown.snapshots[-1]
    older = snapshots_between(grown.server)[-1]
    for kept, is_to_start in ((segments_behind(grown.server, older), True), (segments_behind(grown.server, newest), False)):
        with grown.trial([older, newest], kept) as server:
            os.truncate(os.path.join(server.data_dir, "member", "snap", newest), 100000)
            refused = start_or_refusal(server, 120)
            assert (refused is None) == is_to_start, refused
            if is_to_start:
                grown.assert_is_whole(server)
                assert "raftd.snapshot.recorded index=%d " % index_of(newest) not in server.log(), "the broken one was recorded again"
            else:
                assert re.search(r"log_base=\d+ log_last=\d+ no snapshot fits", server.log())
            assert os.path.exists(os.path.join(server.data_dir, "member", "snap", newest + ".broken"))


@pytest.mark.slow
def test_never_are_there_more_snapshots_than_are_kept():
    """Not for a moment: the oldest goes before the next one is made."""
    with harness.Quorate(flags=["--snapshot-count=20", "--max-snapshots=3"]) as server, Observer(server.start(), 0.005) as observer:
        flood = Flood(server, 10, 2000)  # Each snapshot has about twice the history of the one before.
        poll(lambda: flood.write(50) or len(observer.snapshots_seen) >= 6, 240, "six snapshots")
        flood.close()
        seen = wait_for_recorded(server)
        server.restart(60)  # What the log knows already counts in another life too.
        flood = Flood(server, 10, 2000)
        poll(lambda: flood.write(50) or max(snapshots(server), key=index_of) != seen, 240, "another one")
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
        flood.write(100)  # And a few entries of the member's own: no more comes until it is made.
        first = poll(lambda: snapshots(server), 10, "the first snapshot")
        began = time.monotonic()
        used = []
        for part in range(10):
            flood.write((count - 10000) // 10)
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
        newest, _ = keep_only_what_a_restart_needs(server)
        began = time.monotonic()
        server.start(60)
        measured.say("restart with %s alone and %d segments: %.1f s" % (newest, len(segments(server)), time.monotonic() - began))
        assert flood.wrong(server) == []
        assert Keys(server.port).put("/after", "v").status == 201
