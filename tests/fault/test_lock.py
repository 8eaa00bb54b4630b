"""A process that may write the state's lock.mdb holds one of its locks for ever."""

import contextlib
import os
import signal
import subprocess
import time

import pytest

import harness
from harness import Keys, exchange, poll
from harness.faults import Writers

pytestmark = [pytest.mark.ours, pytest.mark.limit(180)]


def generation(server):
    with open(os.path.join(server.data_dir, "member", "state", "CURRENT")) as current:
        return current.read().strip()


@contextlib.contextmanager
def holder(server, which):
    """A process that holds the lock of the generation that lives now."""
    folder = os.path.join(server.data_dir, "member", "state", generation(server))
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hold_lock.py")
    process = subprocess.Popen(["/usr/bin/python3", script, folder, which], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
        assert process.poll() is None, "the lock was not held all the time"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_a_fresh_generation(server, old):
    poll(lambda: generation(server) > old, 60, "a fresh generation")
    server.said(r"stored\.lock\.held")
    server.said("status[ =]3")
    poll(lambda: not os.path.exists(os.path.join(server.data_dir, "member", "state", old)), 20, "the old one is gone")


def test_a_held_writers_lock_ends_in_a_fresh_generation_and_nothing_is_lost():
    with harness.new_server(["--snapshot-count=50"]) as server:
        server.start()
        old, stored = generation(server), server.daemon("stored")
        with Writers(server.port, "/w", count=4, timeout=20) as writers:
            writers.wait_for(200)
            with holder(server, "writer"):
                # Reads go on, whoever waits for what.
                assert exchange(server.port, "GET", "/v2/keys/w/w0/1").status == 200
                wait_for_a_fresh_generation(server, old)
                writers.wait_for(100, timeout=60)
        assert writers.problems() == []
        assert server.daemon("stored") != stored


@pytest.mark.slow
def test_a_lock_that_is_held_at_the_start_ends_in_a_fresh_generation_too():
    """The state is trusted, and cannot be opened."""
    with harness.new_server() as server:
        server.start()
        with Writers(server.port, "/w", count=4, timeout=20) as writers:
            writers.wait_for(100)
        old = generation(server)
        with holder(server, "writer"):
            os.kill(server.daemon("stored"), signal.SIGKILL)
            wait_for_a_fresh_generation(server, old)
            poll(lambda: Keys(server.port, 20).put("/after", "v").status in (200, 201), 30, "writes go on")
        assert writers.problems() == []


@pytest.mark.slow
def test_a_state_that_was_closed_cleanly_and_is_held_is_given_up_too():
    with harness.new_server() as server:
        server.start()
        with Writers(server.port, "/w", count=4, timeout=20) as writers:
            writers.wait_for(100)
        server.stop()
        old = generation(server)
        with holder(server, "writer"):
            server.start(timeout=60)
            wait_for_a_fresh_generation(server, old)
            assert Keys(server.port, 20).put("/after", "v").status == 201
        assert writers.problems() == []


@pytest.mark.slow
def test_a_held_readers_lock_is_noticed_by_whoever_looks_after_the_readers():
    with harness.new_server(["--gateways=2"]) as server:
        server.start()
        old = generation(server)
        with Writers(server.port, "/w", count=4, timeout=20) as writers:
            writers.wait_for(50)
            with holder(server, "readers"):
                # The slots of one that died are freed under the lock.
                for pid in server.pids()["gatewayd"]:
                    os.kill(pid, signal.SIGKILL)
                wait_for_a_fresh_generation(server, old)
                writers.wait_for(50, timeout=60)
        assert writers.problems() == []


@pytest.mark.slow
def test_a_stored_that_was_stopped_for_long_gives_nothing_up():
    """It was in nobody's way, and nobody in its."""
    with harness.new_server() as server:
        server.start()
        old, stored = generation(server), server.daemon("stored")
        with Writers(server.port, "/w", count=4, timeout=20) as writers:
            writers.wait_for(50)
            os.kill(stored, signal.SIGSTOP)
            time.sleep(4.5)
            os.kill(stored, signal.SIGCONT)
            writers.wait_for(50, timeout=60)
        assert generation(server) == old and server.daemon("stored") == stored
        assert writers.problems() == []
