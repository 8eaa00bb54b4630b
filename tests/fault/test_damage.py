"""Damaged files: what was never synced may go, what was must not; and a refusal says where."""

import glob
import os
import re
import shutil
import signal
import subprocess

import pytest

import harness
from harness import Keys, exchange, poll
from harness.server import build_dir
from harness.wire import WireError
from sizes import sized
from specimen import Specimen, start_or_refusal

pytestmark = [pytest.mark.ours, pytest.mark.limit(900)]


def wal_files(data):
    folder = os.path.join(data, "member", "wal")
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if re.match(r"[0-9a-f]{16}-[0-9a-f]{16}\.wal$", name))


def end_of_data(path):
    """Where the zeros of the preallocation begin."""
    with open(path, "rb") as wal:
        return len(wal.read().rstrip(b"\0"))


def written(server, count, prefix="/k", padding=0):
    keys = Keys(server.port)
    made = [(prefix + str(n), keys.put("%s%d" % (prefix, n), "value %d" % n + "." * padding).index) for n in range(count)]
    keys.close()
    return made


def lost(server, made):
    keys = Keys(server.port)
    gone = [key for key, index in made if (lambda a: a.status != 200 or a.json["node"]["modifiedIndex"] != index)(keys.get(key))]
    keys.close()
    return gone


@pytest.fixture
def torn(shim, folder):
    """Stopped by kill -9 with one batch written and not synced: (specimen, where it begins, where it ends)."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        made = written(server, 20)
        [wal] = wal_files(server.data_dir)
        with open(wal, "rb") as log:
            synced = log.read()
        shim.set("proc=raftd call=fdatasync,fsync path=.wal do=hold")
        for number in range(3):
            connection = server.connect()
            connection.send_request("PUT", "/v2/keys/unsynced%d?value=%s" % (number, "u" * 30))
        poll(shim.hits, 5, "the sync is held")
        server.kill()
        shim.set()
        with open(wal, "rb") as log:
            torn = log.read()
        after = end_of_data(wal)
        before = next(at for at, (old, new) in enumerate(zip(synced, torn)) if old != new)
        assert torn[:before] == synced[:before] and not synced[before:].strip(b"\0"), "the log is appended to, never changed"
        yield Specimen(folder, server.data_dir, made), before, after


def cut_at(offset, how):
    def damage(data):
        wal = wal_files(data)[-1]
        size = os.stat(wal).st_size
        with open(wal, "r+b") as out:
            out.truncate(offset)
            if how == "zeros":
                out.truncate(size)
            elif how == "garbage":
                out.seek(offset)
                out.write(b"\xa5" * 64)
                out.truncate(size)
    return damage


def test_a_log_torn_at_every_byte_of_its_unsynced_batch_opens_and_loses_only_that(torn, folder, measured):
    """The log that raftd left, opened again and again by raftd's own code in one process."""
    specimen, before, after = torn
    tool = os.path.join(build_dir(), "tests", "fault", "tear_log")
    log = os.path.join(specimen.data, "member", "wal")
    every = sized(128, 16, 1)  # At how many bytes it is written to as well, which takes most of the time.
    said = subprocess.run([tool, log, str(before), str(after), os.path.join(folder, "scratch"), str(every)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    whole, without = map(int, re.search(r"(\d+) with all that was written, (\d+) without", said.stdout).groups())
    assert whole >= 3 and without > 3 * (after - before) - 16 and whole + without == 4 * (after - before + 1), said.stdout
    measured.say("a log torn at each of %d bytes, in 4 ways: %s" % (after - before + 1, said.stdout.strip()))


@pytest.mark.parametrize("how", ["short", "zeros", "garbage"])
def test_a_member_starts_on_a_log_torn_in_its_unsynced_batch(torn, how):
    """At some of those places the whole member is started, and asked for what was acknowledged."""
    specimen, before, after = torn
    every = max(1, (after - before) // sized(2, 6, 60))
    for offset in range(before, after + 1, every):
        server, refused = specimen.trial(cut_at(offset, how))
        with server:
            assert refused is None, "cut at %d of %d..%d: %s" % (offset, before, after, server.log()[-1500:])
            assert lost(server, specimen.made) == []
            assert written(server, 1, "/after")[0][1] > specimen.made[-1][1]


@pytest.fixture
def sound(folder):
    """Stopped by kill -9 with everything synced and applied."""
    with harness.new_server(quick_clock=True) as server:
        server.start()
        made = written(server, 30)
        server.kill()
        yield Specimen(folder, server.data_dir, made)


def test_a_log_cut_below_what_was_applied_is_refused_with_both_positions():
    """Acknowledged writes are gone from the log: an operator must know, and nobody must be served less."""
    with harness.new_server(quick_clock=True) as server:
        server.start()
        made = written(server, 30)
        server.kill()
        cut_at(end_of_data(wal_files(server.data_dir)[-1]) * 2 // 3, "zeros")(server.data_dir)
        refused = start_or_refusal(server)  # In place: the state is trusted, and ahead of the log.
        if refused is None:
            pytest.fail("it started; lost: %s" % lost(server, made))
        said = re.search(r"raftd\.log\.behind_state applied_index=(\d+) log_last=(\d+) ", refused)
        assert said, refused
        applied, log_last = map(int, said.groups())
        assert 0 < log_last < 30 <= applied, refused


def flip_bit(path_of, at):
    def damage(data):
        path = path_of(data)
        with open(path, "r+b") as out:
            size = end_of_data(path)
            offset = int(size * at)
            out.seek(offset)
            byte = out.read(1)
            out.seek(offset)
            out.write(bytes([byte[0] ^ 0x10]))
    return damage


@pytest.mark.parametrize("at", [0.02, 0.5] + [pytest.param(x, marks=pytest.mark.slow) for x in (0.1, 0.3, 0.7)])
def test_a_flipped_bit_before_synced_data_is_refused_with_file_and_offset(sound, at):
    server, refused = sound.trial(flip_bit(lambda data: wal_files(data)[-1], at))
    with server:
        assert refused is not None, "it started on a damaged log"
        name = os.path.basename(wal_files(server.data_dir)[-1])
        assert re.search(re.escape(name) + r".*offset \d+", refused), refused
        # Nothing was cut, repaired or renamed.
        assert [(os.path.basename(p), os.stat(p).st_size) for p in wal_files(server.data_dir)] == \
            [(os.path.basename(p), os.stat(p).st_size) for p in wal_files(sound.data)]


@pytest.fixture
def with_snapshots(folder):
    with harness.new_server(["--snapshot-count=20"], quick_clock=True) as server:
        server.start()
        made = written(server, 100)
        snap = os.path.join(server.data_dir, "member", "snap")
        # The log must have grown by a share of the last snapshot's size before the next one.
        while len(snapshots(server.data_dir)) < 2:
            written(server, 100, "/filler", 2000)
        made += written(server, 30, "/later")
        poll(lambda: not [n for n in os.listdir(snap) if n.endswith(".tmp")] and is_recorded(server, snapshots(server.data_dir)[-1]), 20,
             "none is being written, and the log knows the newest")
        server.kill()
        # Another one, renamed and not recorded within that moment, would not serve alone.
        for path in snapshots(server.data_dir):
            if not is_recorded(server, path):
                os.unlink(path)
        yield Specimen(folder, server.data_dir, made)


def is_recorded(server, path):
    return "raftd.snapshot.recorded index=%d " % int(path[-21:-5], 16) in server.log()


def snapshots(data):
    folder = os.path.join(data, "member", "snap")
    return sorted(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".snap"))


def distrust(data):
    os.unlink(os.path.join(data, "member", "state", "MARK"))


def test_a_state_that_is_not_trusted_is_rebuilt(with_snapshots):
    server, refused = with_snapshots.trial(distrust)
    with server:
        assert refused is None, server.log()[-2000:]
        assert lost(server, with_snapshots.made) == []


@pytest.mark.parametrize("damage", ["flip", "short", "empty"])
def test_a_broken_newest_snapshot_falls_back_to_the_one_before(with_snapshots, damage):
    def spoil(data):
        distrust(data)
        newest = snapshots(data)[-1]
        size = os.stat(newest).st_size
        if damage == "flip":
            flip_bit(lambda _: newest, 0.5)(data)
        else:
            os.truncate(newest, size // 2 if damage == "short" else 0)

    server, refused = with_snapshots.trial(spoil)
    with server:
        assert refused is None, server.log()[-2000:]
        assert lost(server, with_snapshots.made) == []
        names = os.listdir(os.path.join(server.data_dir, "member", "snap"))
        assert [n for n in names if n.endswith(".broken")] == [os.path.basename(snapshots(with_snapshots.data)[-1]) + ".broken"]


def test_a_damaged_state_is_rebuilt_or_refused_but_never_served(with_snapshots):
    """Bytes of the state overwritten behind a mark that trusts it: caught by nothing but distrust, which MARK's absence is."""
    def spoil(data):
        distrust(data)
        for path, _, names in os.walk(os.path.join(data, "member", "state")):
            for name in names:
                if name == "data.mdb":
                    with open(os.path.join(path, name), "r+b") as out:
                        out.write(b"\0" * 8192)

    server, refused = with_snapshots.trial(spoil)
    with server:
        assert refused is None, server.log()[-2000:]
        assert lost(server, with_snapshots.made) == []


def test_without_any_state_all_comes_back(with_snapshots):
    server, refused = with_snapshots.trial(lambda data: shutil.rmtree(os.path.join(data, "member", "state")))
    with server:
        assert refused is None, server.log()[-2000:]
        assert lost(server, with_snapshots.made) == []


@pytest.fixture
def with_pages():
    with harness.Quorate(quick_clock=True) as server:
        server.start()
        keys = Keys(server.port)
        for number in range(100):
            assert keys.put("/k%d" % number, "v" * 2000).status == 201
        keys.close()
        yield server


def meet_in_gatewayd(server, path):
    """A read ends gatewayd, which names the page."""
    gatewayd = server.daemon("gatewayd")
    with pytest.raises((OSError, WireError)):
        exchange(server.port, "GET", "/v2/keys/k7")
    poll(lambda: gatewayd not in server.pids().get("gatewayd", []), 10, "gatewayd has ended")
    said = server.said(r"gatewayd\.state\.unreadable file=(\S+) offset=(\d+) action=exit status=3")
    assert said.group(1) == path


def wait_until_rebuilt(server):
    def is_there():
        try:
            return (exchange(server.port, "PUT", "/v2/keys/after?value=x", timeout=15).status in (200, 201) and
                    exchange(server.port, "GET", "/v2/keys/k7", timeout=15).json["node"]["value"] == "v" * 2000)
        except (OSError, WireError, KeyError):
            return False

    poll(is_there, 90, "the state is rebuilt from the log")


def test_a_page_of_the_state_that_cannot_be_read_is_named_and_the_state_rebuilt(with_pages):
    """The file shrinks beneath the daemons that have it mapped: SIGBUS, here in stored, at the next write."""
    path, = glob.glob(os.path.join(with_pages.data_dir, "member", "state", "*", "data.mdb"))
    os.truncate(path, 0)
    wait_until_rebuilt(with_pages)
    said = with_pages.said(r"stored\.state\.unreadable file=(\S+) offset=(\d+) action=exit status=3")
    assert said.group(1) == path


def test_a_page_that_gatewayd_alone_could_not_read_has_the_state_rebuilt_too(with_pages):
    path, = glob.glob(os.path.join(with_pages.data_dir, "member", "state", "*", "data.mdb"))
    with open(path, "rb") as file:
        pages = file.read()
    stored = with_pages.daemon("stored")
    os.kill(stored, signal.SIGSTOP)
    os.truncate(path, 0)
    meet_in_gatewayd(with_pages, path)
    with open(path, "r+b") as file:  # stored finds all as it was.
        file.write(pages)
    os.kill(stored, signal.SIGCONT)
    poll(lambda: "stored.state.told_unreadable" in with_pages.log(), 30, "stored is told")
    wait_until_rebuilt(with_pages)
    poll(lambda: not os.path.exists(os.path.dirname(path)), 20, "the state of before is gone")
    assert "stored.state.unreadable" not in with_pages.log()
    note = os.path.join(with_pages.data_dir, "run", "state.unreadable")
    poll(lambda: not os.path.exists(note), 10, "gatewayd's note is gone")


@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_a_page_that_cannot_be_read_as_the_state_is_opened_has_it_rebuilt(with_pages, ends):
    """Of the first pages that a start reads, whatever kind of end it trusts: no life after it would come further."""
    path, = glob.glob(os.path.join(with_pages.data_dir, "member", "state", "*", "data.mdb"))
    if ends == "stopped":
        with_pages.stop()
    else:
        with_pages.kill()
    os.truncate(path, 8192)  # What LMDB reads without the map is there.
    with_pages.start()
    wait_until_rebuilt(with_pages)
    assert re.findall(r"stored\.state\.unreadable file=(\S+) action=exit status=3", with_pages.log()) == [path]
