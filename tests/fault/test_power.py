"""Power cuts: what was acknowledged before is there after, with its index; and the test notices a disk that lies.

The disk is an ext4 in a file; the cut is its shutdown ioctl without a flush of the journal, after which nothing
reaches the image. Then the processes are killed and the image is mounted again."""

import os
import random

import pytest

import harness
from harness import Keys
from harness.flood import Flood
from harness.faults import Writers, another_boot
from sizes import sized

pytestmark = pytest.mark.limit(7200)


def cut_once(server, disk, prefix, writes, preexec=None):
    """Writes, cuts, mounts, starts; what is wrong then. preexec: for the start after the cut."""
    with Writers(server.port, prefix, timeout=2.0) as writers:
        writers.wait_for(writes)
        disk.cut()
        server.kill()
    disk.plug_in()
    server.preexec = preexec
    server.start(60)
    return writers.problems()


@pytest.mark.parametrize("boot", ["the-same-boot", "another-boot"])
def test_power_cuts_lose_nothing(disk, folder, boot):
    rounds = sized(4, 50, 500)
    choice = random.Random(int(os.environ.get("QUORATE_TEST_SEED", 1)))
    with harness.new_server(data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        for number in range(rounds):
            preexec = another_boot(folder) if boot == "another-boot" else None
            wrong = cut_once(server, disk, "/r%d" % number, choice.randrange(20, 300), preexec)
            assert wrong == [], "round %d" % number
            if number >= 3:
                Keys(server.port).delete("/r%d" % (number - 3), "recursive=true")


@pytest.mark.slow
@pytest.mark.ours
def test_a_power_cut_in_a_snapshot_loses_nothing(disk):
    """Snapshots all the time: their files, renames and the purge of old segments meet the cut too."""
    rounds = sized(2, 12, 200)
    with harness.new_server(["--snapshot-count=100"], data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        for number in range(rounds):
            assert cut_once(server, disk, "/r%d" % number, 600) == [], "round %d" % number


@pytest.mark.ours
def test_the_test_notices_a_disk_that_lies(disk, shim):
    """The same with syncs that do nothing: if no acknowledged write is ever lost then, the test above proves nothing."""
    lost = []
    for number in range(10):
        with harness.new_server(data_dir=disk.path + "/data%d" % number, env=shim.env, quick_clock=True) as server:
            server.start()
            shim.set("call=fdatasync,fsync,msync do=nop")
            try:
                lost = cut_once(server, disk, "/lie", 300)
            except (RuntimeError, TimeoutError) as why:  # It may also be unable to start at all.
                lost = [str(why)]
            shim.set()
        if lost:
            break
    assert lost, "10 cuts with syncs that do nothing lost nothing"


def test_a_power_cut_of_an_idle_member(disk):
    with harness.new_server(data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        keys = Keys(server.port)
        last = [keys.put("/k%d" % n, "v").index for n in range(5)][-1]
        keys.close()
        disk.cut()
        server.kill()
        disk.plug_in()
        server.start(60)
        keys = Keys(server.port)
        assert keys.get("/k4").json["node"]["modifiedIndex"] == last
        assert keys.put("/after", "v").index > last
        keys.close()


@pytest.mark.slow
def test_two_cuts_without_a_word_between(disk):
    """The restart after a cut is cut too, before anyone wrote."""
    with harness.new_server(data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/w", timeout=2.0) as writers:
            writers.wait_for(200)
            disk.cut()
            server.kill()
        for _ in range(sized(2, 5, 50)):
            disk.plug_in()
            server.start(60)
            disk.cut()
            server.kill()
        disk.plug_in()
        server.start(60)
        assert writers.problems() == []


@pytest.mark.ours
def test_no_read_sees_an_empty_store_while_the_state_is_rebuilt(disk):
    """After a cut the state comes from snapshot and log. Until it is there, a GET may wait or fail; it must not say 404."""
    count = sized(2000, 20000, 200000)
    with harness.new_server(["--snapshot-count=%d" % (count // 2)], data_dir=disk.path + "/data", quick_clock=True) as server:
        server.start()
        flood = Flood(server, count, 10)
        flood.write(count)
        flood.close()
        disk.cut()
        server.kill()
        disk.plug_in()
        server.spawn()
        answers = []

        def answered():
            try:
                answers.append(harness.exchange(server.port, "GET", "/v2/keys/d/k%d" % (count - 1), timeout=30).status)
            except (OSError, harness.wire.WireError):
                return False
            return answers[-1] == 200

        harness.poll(answered, 60, "the last key is read", every=0.001)
        assert set(answers) - {500, 503} == {200}, answers
