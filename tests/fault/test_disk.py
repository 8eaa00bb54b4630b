"""A full disk, and a disk that fails: nothing is acknowledged that is not there, reads go on, and it resumes."""

import os
import re
import shutil
import signal
import time

import pytest

import harness
from harness import Keys, comes_true, exchange, poll
from harness.faults import Disk, Writers, can_cut_power
from harness.server import stat_fields
from harness.wire import FORM, WireError
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(900)]


def put(port, key, value="v", timeout=10.0):
    """(status, body) of a PUT, or (0, what happened)."""
    try:
        answer = exchange(port, "PUT", "/v2/keys" + key, [FORM], b"value=" + value.encode(), timeout=timeout)
        return answer.status, answer.body
    except (OSError, WireError) as why:
        return 0, repr(why).encode()


def is_read(port, key):
    try:
        return exchange(port, "GET", "/v2/keys" + key, timeout=5).status == 200
    except (OSError, WireError):
        return False


def fill_up(folder):
    """A file that takes all the room there is."""
    path = os.path.join(folder, "filler")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for size in (1 << 20, 1 << 12, 512):
        try:
            while True:
                os.write(fd, b"f" * size)
        except OSError:
            pass
    os.close(fd)
    return path


def test_a_full_disk_refuses_writes_keeps_reads_and_resumes():
    why = can_cut_power()
    if why:
        pytest.skip(why)
    with Disk(300) as disk, harness.new_server(data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/before", count=8, value_bytes=2000) as writers:
            writers.wait_for(300)
        assert writers.problems() == []
        filler = fill_up(disk.path)
        with Writers(server.port, "/meanwhile", count=8, timeout=10, value_bytes=20000) as meanwhile:
            # A write that was in the log when the state met the end of the space can only time out; those behind it
            # are refused at once, and told why.
            def refused():
                status, body = put(server.port, "/probe", "x" * 3000)
                assert exchange(server.port, "GET", "/v2/keys/before/w0/1").status == 200
                return status == 500 and b'"errorCode":300' in body and b"no space" in body.lower()

            poll(refused, 60, "writes are refused for want of space")
        # Reads, and all daemons, are still there.
        assert exchange(server.port, "GET", "/v2/keys/before?recursive=true").status == 200
        assert set(server.pids()) >= {"raftd", "stored", "gatewayd"}
        poll(lambda: exchange(server.port, "GET", "/health").status == 503, 20, "monitors are told")
        assert exchange(server.port, "GET", "/health").body == b'{"health":"false"}\n'
        # One that is killed now comes back, or waits for space: nobody is given up.
        for name in ("gatewayd", "stored", "raftd"):
            os.kill(server.daemon(name, 20), signal.SIGKILL)
            poll(lambda: is_read(server.port, "/before/w0/1"), 20, "reads go on without " + name)
        os.unlink(filler)
        poll(lambda: put(server.port, "/probe")[0] in (200, 201), 30, "writes resume when there is space")
        assert meanwhile.problems() == [] and writers.problems() == []
        server.kill()
        server.start()
        assert meanwhile.problems() == [] and writers.problems() == []


@pytest.mark.parametrize("name, rule", [
    ("raftd", "proc=raftd call=any path=/wal/ do=error:ENOSPC"), ("stored", "proc=stored call=any path=/state/ do=error:ENOSPC")], ids=["log", "state"])
def test_a_start_on_a_full_disk_waits_for_space_and_is_not_given_up(shim, name, rule):
    """No error of the disk's: nothing is lost, nobody has to rest, and reads go on where there is a state."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        assert put(server.port, "/k")[0] == 201
        server.kill()
        old = len(server.log())
        shim.set(rule)
        server.spawn()
        said = r"quorate\.daemon\.ended daemon=%s with=\"status 4\" .* restart_in_ms=5000 note=no space" % name
        poll(lambda: re.search(said, server.log()[old:]), 20, "it is said")
        if name == "raftd":
            poll(lambda: is_read(server.port, "/k"), 20, "reads go on without raftd")
        shim.set()
        server.wait_ready(40)
        assert put(server.port, "/k")[0] == 200
        assert not os.path.exists(os.path.join(server.data_dir, "member", "wal", "FAILED"))


def test_a_gatewayd_that_starts_on_a_full_disk_serves_without_its_counters(shim):
    """They lie in a mapped file of its own."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        assert put(server.port, "/k")[0] == 201
        first = server.daemon("gatewayd")
        shim.set("proc=gatewayd call=any path=counters do=error:ENOSPC")
        os.kill(first, signal.SIGKILL)
        poll(lambda: server.pids().get("gatewayd", [first]) != [first] and is_read(server.port, "/k"), 20, "reads go on")
        assert shim.hits() and server.said(r"gatewayd\.counters\.not_kept")
        assert exchange(server.port, "GET", "/v2/stats/store").status == 200


# By which call a running member writes where; the others come with a start, a new segment or a snapshot.
REACHED = {"/wal/": ["pwritev", "any"], "/state/": ["pwrite", "writev", "any"]}
def test_health_of_a_member_whose_log_has_no_space_is_bad_unless_that_is_excluded():
    why = can_cut_power()
    if why:
        pytest.skip(why)
    with Disk(200) as disk, harness.Quorate(["--wal-dir=%s/wal" % disk.path], quick_clock=True) as server:
        server.start()

        def health(query):
            return exchange(server.port, "GET", "/health" + query).status

        def is_well(query):  # It asks for a read within a second, which a machine that stands still does not give.
            poll(lambda: health(query) == 200, 20, "all is well")

        is_well("")
        is_well("?exclude=NOSPACE")
        fill_up(disk.path)
        # Not before the segment is full that is there.
        poll(lambda: b"no space" in put(server.port, "/probe", "x" * 1000000)[1].lower(), 60, "writes are refused for want of space")
        poll(lambda: health("") == 503, 20, "monitors are told")
        is_well("?exclude=NOSPACE")
        is_well("?a=b&exclude=NOSPACE")
        assert {health(query) for query in ("?exclude=NOSPACEX", "?xexclude=NOSPACE", "?exclude=", "")} == {503}


WRITE_SITES = ["write", "pwrite", "writev", "pwritev", "fallocate", "ftruncate", "rename", "any"]
NTHS = sized([1], [1, 3, 9], range(1, 60))


@pytest.mark.slow
@pytest.mark.limit(120 + len(WRITE_SITES) * len(NTHS) * 10)
@pytest.mark.parametrize("path", sorted(REACHED))
def test_no_space_at_each_write_site_loses_nothing(shim, path):
    """The nth call and all behind it fail with ENOSPC; then there is space again. Every site has its turn."""
    with harness.new_server(["--snapshot-count=50"], env=shim.env, quick_clock=True) as server:
        server.start()
        for call in WRITE_SITES:
            for nth in NTHS:
                shim.forget()
                with Writers(server.port, "/%s%s%d" % (call, path.replace("/", ""), nth), count=4, timeout=4) as writers:
                    writers.wait_for(20)
                    shim.set("call=%s path=%s nth=%d do=error:ENOSPC" % (call, path, nth))
                    if call in REACHED[path]:
                        poll(shim.hits, 20, "%s %d in %s" % (call, nth, path))
                    else:
                        comes_true(shim.hits, 1)
                    if shim.hits():
                        # Reads go on meanwhile.
                        assert exchange(server.port, "GET", "/v2/keys/?quorum=false").status == 200
                    shim.set()
                    writers.wait_for(20, timeout=60)
                assert writers.problems() == [], (call, nth)


SNAPSHOT_SITES = ["write", "fallocate", "ftruncate", "rename"]


@pytest.mark.parametrize("call", [SNAPSHOT_SITES[0]] + [pytest.param(c, marks=pytest.mark.slow) for c in SNAPSHOT_SITES[1:]])
def test_no_space_at_any_step_of_a_snapshot_costs_that_snapshot_alone(shim, call):
    with harness.new_server(["--snapshot-count=50"], env=shim.env, quick_clock=True) as server:
        server.start()
        folder = os.path.join(server.data_dir, "member", "snap")

        def made():
            return [n for n in os.listdir(folder) if n.endswith(".snap")]

        shim.set("proc=stored call=%s path=/snap/ do=error:ENOSPC" % call)
        with Writers(server.port, "/w", count=4, timeout=5) as writers:
            poll(shim.hits, 30, call + " is called")
            writers.wait_for(20)
            if call != "fallocate":  # Which only asks for room before it is needed.
                assert made() == []
            shim.set()
            poll(made, 60, "the next one is made")
            writers.wait_for(20)
        assert writers.problems() == []
        poll(lambda: not [n for n in os.listdir(folder) if n.endswith(".tmp")], 20, "nothing half-made is left")
        server.kill()
        shutil.rmtree(os.path.join(server.data_dir, "member", "state"))
        server.start()
        assert writers.problems() == []


@pytest.mark.parametrize("call", ["fdatasync", pytest.param("pwritev", marks=pytest.mark.slow)])
def test_an_error_of_the_log_acknowledges_nothing_and_stops_raftd(shim, call):
    """What the kernel kept after a failed sync is unknown: raftd ends with status 3, and recovers from the disk."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/w", count=8, timeout=3) as writers:
            writers.wait_for(50)
            first = server.daemon("raftd")
            shim.set("proc=raftd call=%s path=.wal do=error:EIO" % call)
            poll(lambda: shim.hits(), 5, "the error is met")
            acked = writers.count()
            poll(lambda: first not in server.pids().get("raftd", []), 5, "raftd ends")
            assert writers.count() - acked <= 8, "writes were acknowledged behind a failed sync"
            assert exchange(server.port, "GET", "/v2/keys/w?recursive=true").status == 200
            shim.set()
        server.said(r"raftd\.log\.failed .*status=3 noted=1")
        note = os.path.join(server.data_dir, "member", "wal", "FAILED")
        with open(note) as text:
            lines = text.read().splitlines()
        assert lines[0] == "failures 1" and lines[1].startswith("last 20") and {"fdatasync": "sync", "pwritev": "write"}[call] in lines[2], lines
        # It is left alone for 30 s: a new start does not wait.
        server.kill()
        server.start()
        assert writers.problems() == []
        assert put(server.port, "/after")[0] == 201
        server.said(r"raftd\.log\.failed_before failures=1")
        assert not os.path.exists(note), "a log that is written again needs no note"


def test_failures_are_counted_until_the_log_is_written_again(shim):
    """The sync of the log that a start writes anew fails too: that is told with the number of times."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        assert put(server.port, "/k")[0] == 201
        server.stop()
        shim.set("proc=raftd call=fdatasync,fsync path=.wal do=error:EIO")
        for number in (1, 2):
            server.spawn()
            poll(lambda: server.log().count("quorate.daemon.ended daemon=raftd") == number, 20, "raftd ends")
            server.kill()
        with open(os.path.join(server.data_dir, "member", "wal", "FAILED")) as text:
            assert text.readline() == "failures 2\n"
        shim.set()
        server.start()
        assert exchange(server.port, "GET", "/v2/keys/k").status == 200


@pytest.mark.slow
@pytest.mark.limit(120)
def test_raftd_comes_back_by_itself_when_the_disk_has_had_its_rest(shim):
    """Half a minute; what was acknowledged is there, and what comes next is taken."""
    with harness.new_server(env=shim.env) as server:
        server.start()
        with Writers(server.port, "/w", count=4, timeout=3) as writers:
            writers.wait_for(20)
            first = server.daemon("raftd")
            lived = time.clock_gettime(time.CLOCK_BOOTTIME)
            shim.set("proc=raftd call=fdatasync path=.wal do=error:EIO")
            while first in server.pids().get("raftd", []):
                lived = time.clock_gettime(time.CLOCK_BOOTTIME)
                time.sleep(0.01)
            shim.set()
            assert exchange(server.port, "GET", "/v2/keys/w").status == 200
            again = server.daemon("raftd", 60)
            rested = int(stat_fields(again)[19]) / os.sysconf("SC_CLK_TCK") - lived
            assert rested > 29, "started again after %.1f s" % rested
            poll(lambda: put(server.port, "/after")[0] in (200, 201), 40, "writes resume")
        server.said("storage error 1, 2 restarts are left")
        assert writers.problems() == []


@pytest.mark.slow
def test_an_error_of_the_state_is_mended_from_the_log(shim):
    """The state is a cache of the log: stored may throw it away, but nothing is lost."""
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/w", count=8, timeout=5) as writers:
            writers.wait_for(50)
            shim.set("proc=stored call=pwrite,writev,pwritev,write path=data.mdb nth=3 count=1 do=error:EIO")
            poll(lambda: shim.hits(), 5, "the error is met")
            shim.set()
            poll(lambda: put(server.port, "/probe", timeout=5)[0] in (200, 201), 60, "writes resume", every=0.1)
        server.kill()
        server.start()
        assert writers.problems() == []


def test_short_writes_of_the_log_are_completed(shim):
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/w", count=4, value_bytes=500) as writers:
            writers.wait_for(20)
            shim.set("call=pwrite,pwritev,writev,write path=.wal do=short")
            writers.wait_for(20)
            shim.set()
        assert [h for h in shim.hits() if ".wal" in h]
        server.kill()
        server.start()
        assert writers.problems() == []


def test_slow_syncs_slow_writes_and_nothing_else(shim):
    with harness.new_server(env=shim.env, quick_clock=True) as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/k", "v")
        shim.set("proc=raftd call=fdatasync path=.wal do=delay:300")
        began = time.monotonic()
        assert keys.put("/k", "w").status == 200
        assert time.monotonic() - began >= 0.29
        shim.forget()
        shim.set("proc=raftd call=fdatasync path=.wal do=hold")
        with Writers(server.port, "/w", count=8, timeout=30) as writers:
            poll(shim.hits, 10, "a sync hangs")
            for _ in range(50):
                assert keys.get("/k").status == 200
            assert writers.count() == 0
            shim.set()
            writers.wait_for(8)
        keys.close()
