"""/v2/stats/store counts on, whoever is killed, and whatever becomes of the run folder."""

import os
import random
import shutil
import signal
import time

import pytest

import harness
from harness import Keys, exchange, poll
from harness.wire import WireError
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(300)]


def store(server):
    return exchange(server.port, "GET", "/v2/stats/store").json


def put(server, count, key="/k"):
    """So many sets, each acknowledged, and nothing else."""
    keys = Keys(server.port)
    for number in range(count):
        assert keys.put(key, str(number)).status in (200, 201)
    keys.close()


def pages(server):
    run = os.path.join(server.data_dir, "run")
    return [name for name in os.listdir(run) if name.startswith("counters-")]


def test_the_counts_of_killed_gatewayds_are_in_the_state():
    with harness.new_server(["--gateways=2"]) as server:
        server.start()
        counted = store(server)["setsSuccess"]
        for _ in range(sized(2, 5, 30)):
            put(server, 10)
            counted += 10
            killed = server.pids()["gatewayd"]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            poll(lambda: not set(killed) & set(server.pids().get("gatewayd", [])), 20, "they are gone")
            poll(lambda: try_store(server) == counted, 20, "%d sets" % counted)
        poll(lambda: len(pages(server)) == 2, 20, "the pages of the dead are gone")
        assert store(server)["setsSuccess"] == counted


def try_store(server):
    """The count, or why there is none: a gatewayd that was killed hangs up on those that it had accepted."""
    try:
        return store(server)["setsSuccess"]
    except (OSError, WireError) as why:
        return repr(why)


def test_they_outlive_the_run_folder():
    """As after a restart of the host, where it lies on tmpfs."""
    with harness.new_server() as server:
        server.start()
        put(server, 30)
        counted = store(server)
        assert server.stop() in (0, 143)
        shutil.rmtree(os.path.join(server.data_dir, "run"))
        server.start()
        after = store(server)
        assert after["setsSuccess"] == counted["setsSuccess"] >= 30
        assert after["getsSuccess"] >= counted["getsSuccess"]
        put(server, 5)
        assert store(server)["setsSuccess"] == counted["setsSuccess"] + 5


def test_a_rebuilt_state_has_those_of_its_snapshot():
    with harness.new_server(["--snapshot-count=100"]) as server:
        server.start()
        put(server, 30)
        counted = store(server)["setsSuccess"]
        server.restart()
        assert store(server)["setsSuccess"] == counted
        put(server, 150)
        snapshots = os.path.join(server.data_dir, "member", "snap")
        poll(lambda: [name for name in os.listdir(snapshots) if name.endswith(".snap")], 20, "a snapshot")
        server.kill()
        os.unlink(os.path.join(server.data_dir, "member", "state", "MARK"))
        server.start()
        assert store(server)["setsSuccess"] == counted + 150


def is_healthy(server):
    """A gatewayd that was killed hangs up here too."""
    try:
        return exchange(server.port, "GET", "/health").status == 200
    except (OSError, WireError):
        return False


@pytest.mark.slow
def test_nothing_is_counted_twice_or_lost_wherever_stored_is_killed():
    """gatewayd and stored are killed again and again, at moments that nobody chose; sets come in between, one by one."""
    with harness.new_server(["--gateways=2"]) as server:
        server.start()
        counted = store(server)["setsSuccess"]
        for _ in range(sized(5, 25, 300)):
            put(server, 3)
            counted += 3
            os.kill(random.choice(server.pids()["gatewayd"]), signal.SIGKILL)
            for _ in range(random.randrange(3)):
                stored = server.daemon("stored")
                time.sleep(random.expovariate(2))
                os.kill(stored, signal.SIGKILL)
                poll(lambda old=stored: server.daemon("stored", 20) != old, 20, "stored is back")
            poll(lambda: is_healthy(server), 20, "it serves")
            poll(lambda: len(server.pids().get("gatewayd", [])) == 2, 20, "two gatewayds run")
            poll(lambda: try_store(server) == counted, 10, "%d sets" % counted)
        assert store(server)["setsSuccess"] == counted
