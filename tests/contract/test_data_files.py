"""The files of a data dir: names, modes, what is kept and what is purged (operations, section 4, as far as it is kept)."""

import os
import re
import shutil
import stat
import time

import pytest

import harness
from harness import Keys, poll
from harness.flood import Flood

pytestmark = pytest.mark.ours


def member(server, *parts):
    return os.path.join(server.data_dir, "member", *parts)


def snapshots(server):
    return sorted(n for n in os.listdir(member(server, "snap")) if n.endswith(".snap"))


def segments(server):
    return sorted(n for n in os.listdir(member(server, "wal")) if n.endswith(".wal"))


def write(server, count, value_bytes=20):
    """Writes to 50 keys below /; returns the index after them."""
    with Flood(server, 50, value_bytes, folder="") as flood:
        flood.write(count)
    keys = Keys(server.port)
    last = keys.index()
    keys.close()
    return last


def test_4_layout_and_modes(fresh_server):
    write(fresh_server, 5)
    assert {"snap", "wal", "state"} <= set(os.listdir(member(fresh_server)))
    assert stat.S_IMODE(os.stat(fresh_server.data_dir).st_mode) == 0o700
    for path, folders, names in os.walk(fresh_server.data_dir):
        for name in folders + names:
            mode = os.lstat(os.path.join(path, name)).st_mode
            # Sockets are for the group too, which gets no further than their folder here.
            allowed = 0o660 if stat.S_ISSOCK(mode) else 0o700
            assert stat.S_IMODE(mode) & ~allowed == 0, "%s/%s is open to others: %o" % (path, name, mode)


def test_4_1_segment_name_is_sequence_and_first_index(fresh_server):
    assert segments(fresh_server) == ["0000000000000000-0000000000000001.wal"]


def test_4_1_preallocated(fresh_server):
    [name] = segments(fresh_server)
    assert os.stat(member(fresh_server, "wal", name)).st_blocks * 512 >= 64 * 1000 * 1000


def test_4_1_restart_keeps_names_in_order(fresh_server):
    write(fresh_server, 20)
    fresh_server.restart()
    write(fresh_server, 20)
    fresh_server.restart()
    names = segments(fresh_server)
    assert all(re.match(r"[0-9a-f]{16}-[0-9a-f]{16}\.wal$", n) for n in names)
    sequences = [int(n.split("-")[0], 16) for n in names]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


def test_4_1_unknown_files_are_left_alone(fresh_server):
    write(fresh_server, 5)
    fresh_server.stop()
    for name in ("notes.txt", "x.wal", "0000.wal.broken"):
        with open(member(fresh_server, "wal", name), "w") as out:
            out.write("mine")
    fresh_server.start()
    assert {"notes.txt", "x.wal", "0000.wal.broken"} <= set(os.listdir(member(fresh_server, "wal")))


def test_4_2_snapshot_names_are_term_and_index(start):
    server = start("--snapshot-count=20")
    write(server, 200)
    names = poll(lambda: snapshots(server), 10, "a snapshot")
    for name in names:
        term, index = (int(part, 16) for part in re.match(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap$", name).groups())
        assert term >= 1 and 1 <= index <= 210


def test_4_2_none_before_more_than_count_entries(start):
    server = start("--snapshot-count=100")
    write(server, 60)
    time.sleep(0.3)
    assert snapshots(server) == []
    write(server, 60)
    poll(lambda: snapshots(server), 10, "the first snapshot")


@pytest.mark.slow
@pytest.mark.limit(300)
def test_4_2_defaults_snapshot_by_entry_10001(start):
    server = start()
    write(server, 9900)
    assert snapshots(server) == []
    write(server, 100)  # And a few entries of the member's own. No more comes: a snapshot has what there is when it is begun.
    poll(lambda: snapshots(server), 10, "the first snapshot")


@pytest.mark.slow
def test_4_2_and_4_3_five_snapshots_are_kept_and_broken_ones_stay(start):
    server = start("--snapshot-count=10")
    with open(member(server, "snap", "0000000000000001-0000000000000001.snap.broken"), "w") as out:
        out.write("evidence")
    seen = set()
    with Flood(server, 50, 1000) as flood:  # A snapshot waits until the log has grown by the last one's size: they stay small.
        while len(seen) < 6:
            flood.write_in_vain(50)
            seen |= set(snapshots(server))
    poll(lambda: len(snapshots(server)) <= 5, 35, "old ones are purged")
    assert "0000000000000001-0000000000000001.snap.broken" in os.listdir(member(server, "snap"))
    newest = snapshots(server)
    seen |= set(newest)
    assert newest == sorted(seen)[-len(newest):], "the oldest go first"


@pytest.mark.slow
@pytest.mark.limit(300)
def test_4_3_old_segments_are_purged(start):
    server = start("--snapshot-count=100")
    first = segments(server)[0]
    with Flood(server, 50, 100000) as flood:
        while first in segments(server):
            flood.write_in_vain(16)  # Not more megabytes under way than a busy machine syncs in a request's time.
    server.kill()
    server.start()
    assert write(server, 1) > 0


def window(server, last):
    """What watches are told of the events up to this index, from as far back as they may ask."""
    first, told = max(1, last - 990), []
    with Keys(server.port).watch("/", "recursive=true&stream=true&waitIndex=%d" % first) as watch:
        while not told or told[-1]["node"]["modifiedIndex"] < last:
            told.append(watch.event())
    return told


def test_4_2_restart_needs_only_the_newest_snapshot(start):
    server = start("--snapshot-count=20")
    last = 0
    while len(snapshots(server)) < 2:
        last = write(server, 100, value_bytes=5000)
    told = window(server, last)
    server.said(r"raftd\.snapshot\.recorded")
    server.stop()
    # One that was renamed and not recorded, the member being stopped within that moment, does not serve alone.
    recorded = {int(index) for index in re.findall(r"raftd\.snapshot\.recorded index=(\d+)", server.log())}
    newest = [name for name in snapshots(server) if int(name[17:33], 16) in recorded][-1]
    for name in set(snapshots(server)) - {newest}:
        os.unlink(member(server, "snap", name))
    shutil.rmtree(member(server, "state"))
    server.start()
    keys = Keys(server.port)
    assert keys.index() == last + 1 and len(keys.get("/").json["node"]["nodes"]) == 50
    keys.close()
    # 6.2 The window of events comes back with it.
    assert window(server, last) == told


def test_3_8_a_second_process_is_refused_and_names_the_first(start):
    """operations 3.8: the lock, and who holds it."""
    server = start()
    other = harness.new_server(data_dir=server.data_dir, folder=server.folder, quick_clock=True)
    other.log_path = os.path.join(server.folder, "log2")
    with pytest.raises(RuntimeError) as refused:
        other.start(10)
    assert str(server.main_pid()) in str(refused.value) or "lock" in str(refused.value).lower()
    assert write(server, 3) > 0
    other._ports[0].release()


def test_3_8_a_killed_holder_releases_the_lock(start):
    server = start()
    server.kill()
    server.start()


def test_a_state_without_its_log_is_refused_and_left_alone(start):
    """The log was moved away, or --wal-dir is another: a new log would end with the state thrown away."""
    server = start()
    write(server, 10)
    server.stop()
    away = os.path.join(server.folder, "away")
    os.rename(member(server, "wal"), away)
    before = sorted(os.walk(server.data_dir))
    with pytest.raises(RuntimeError, match="but no log in .*; give --wal-dir"):
        server.start()
    server.kill()
    assert sorted(os.walk(server.data_dir)) == before
    os.rename(away, member(server, "wal"))
    server.start()
    assert write(server, 1) > 0
