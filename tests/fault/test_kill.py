"""kill -9 of any daemon or of all, under 32 writers: every acknowledged write is there, with its index, once."""

import os
import random
import signal
import time

import pytest

import harness
from sizes import sized
from harness import Keys, poll
from harness.faults import Writers
from harness.server import DAEMONS

ROUNDS = sized(8, 100, 1000)


def victims(server):
    """Names of what can be killed: ours consists of several, the reference of one."""
    return [name for name in DAEMONS if server.pids().get(name)]


def kill_one(server, name):
    """SIGKILL; waits until it lives again."""
    old = server.daemon(name)
    os.kill(old, signal.SIGKILL)
    poll(lambda: any(pid != old for pid in server.pids().get(name, [])), 15, name + " is started again")


@pytest.mark.limit(120 + ROUNDS * 8)
def test_rounds_of_kill_9_lose_nothing():
    choice = random.Random(int(os.environ.get("QUORATE_TEST_SEED", 1)))
    with harness.new_server(quick_clock=True) as server:
        server.start()
        for batch in range(0, ROUNDS, 10):
            with Writers(server.port, "/batch%d" % batch) as writers:
                for _ in range(min(10, ROUNDS - batch)):
                    writers.wait_for(50)
                    names = victims(server)
                    if not names or choice.random() < 0.5:
                        server.kill()
                        server.start()
                    else:
                        kill_one(server, choice.choice(names))
                writers.wait_for(50)
            assert writers.problems() == []
            Keys(server.port).delete("/batch%d" % batch, "recursive=true")


@pytest.mark.ours
@pytest.mark.parametrize("name", ["raftd", "stored", "gatewayd"])
def test_a_killed_daemon_is_back(name, measured):
    with harness.new_server(quick_clock=True) as server:
        server.start()
        with Writers(server.port, "/w", count=4) as writers:
            writers.wait_for(20)
            began = time.monotonic()
            kill_one(server, name)
            writers.wait_for(20)
            taken = time.monotonic() - began
        assert writers.problems() == []
        measured.times("%s killed, 20 more writes acknowledged" % name, [taken])


def test_a_kill_of_the_launcher_alone_ends_all():
    """Whoever kills what he started must not leave daemons behind."""
    with harness.new_server(quick_clock=True) as server:
        server.start()
        os.kill(server.main_pid(), signal.SIGKILL)
        server.process.wait(10)
        poll(lambda: not server.session_pids(), 5, "the daemons follow")
        server.process = None
        server.start()
