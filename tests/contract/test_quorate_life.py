"""The launcher: which daemon it starts again, and how all of them end; with the real daemons at the end."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness.places import poll
from harness.server import build_dir, pid_state
from harness.wire import exchange
from launcher import DAEMONS, PR_SET_PDEATHSIG, again_if_said, libc


# Restart.

@pytest.mark.parametrize("name", DAEMONS)
def test_killed_daemon_comes_back_alone(suite, name):
    suite.start()
    first = {n: suite.wait_event(n, "start")["pid"] for n in DAEMONS}
    suite.wait_log("quorate.ready")
    os.kill(first[name], signal.SIGKILL)
    again = suite.wait_event(name, "start", 2)
    assert again["pid"] != first[name]
    for other in set(DAEMONS) - {name}:
        assert len(suite.events(other, "start")) == 1
    suite.wait_log("daemon=%s with=\"signal 9 (Killed)\"" % name)


def test_restarted_gateway_gets_the_same_sockets(suite):
    suite.start()
    started = suite.wait_event("gatewayd", "start")
    os.kill(started["pid"], signal.SIGKILL)
    again = suite.wait_event("gatewayd", "start", 2)
    assert again["listeners"] == started["listeners"]
    assert again["env"]["LISTEN_PID"] == str(again["pid"])


def test_restarts_back_off(suite):
    suite.start(env=suite.environment(stored="silent,exit=1"), wait_for=["stored"])
    suite.wait_event("stored", "start", 5)
    at = [e["at"] for e in suite.events("stored", "start")][:5]
    waits = [later - earlier for earlier, later in zip(at, at[1:])]
    assert waits[0] >= 0.1 and waits[1] >= 0.2 and waits[2] >= 0.4 and waits[3] >= 0.8, waits
    assert "restart_in_ms=100" in suite.log() and "restart_in_ms=800" in suite.log()


def test_storage_error_of_raftd_is_given_rest(suite):
    suite.start(env=suite.environment(raftd="exit=3"), wait_for=["raftd"])
    suite.wait_log("restart_in_ms=30000")
    assert len(suite.events("raftd", "start")) == 1
    suite.process.terminate()
    assert suite.wait_end() == 143


@pytest.mark.full
@pytest.mark.limit(150)
def test_raftd_that_meets_a_storage_error_four_times_ends_the_suite(suite):
    """Three rests of half a minute, and then it is the operator's turn."""
    suite.start(env=suite.environment(raftd="exit=3"), wait_for=["raftd"])
    assert suite.wait_end(120) == 3
    at = [e["at"] for e in suite.events("raftd", "start")]
    assert len(at) == 4
    assert all(later - earlier >= 30 for earlier, later in zip(at, at[1:])), at
    assert "giving up: raftd met a storage error 4 times: look at the disk" in suite.log()
    assert suite.living() == []


def test_stuck_gateway_is_ended_when_stored_asks_for_it(suite):
    suite.start(env=suite.environment(stored="end=gatewayd"))
    suite.wait_event("gatewayd", "start", 2)
    suite.wait_log("quorate.daemon.stuck")


def test_nobody_but_our_own_children_is_ended_on_request(suite):
    suite.start(env=suite.environment(stored="end=raftd"))
    suite.wait_log("quorate.ready")
    suite.wait_event("stored", "start")
    poll(lambda: os.path.exists(os.path.join(suite.folder, "once-stored-end")), 5, "stored asked")
    os.kill(suite.events("gatewayd", "start")[0]["pid"], signal.SIGKILL)
    suite.wait_event("gatewayd", "start", 2)  # so quorate has read the request by now
    assert len(suite.events("raftd", "start")) == 1


def test_a_request_that_names_no_process_ends_none(suite):
    """While a gatewayd waits for its next life it has no process, and 0 is no name for one."""
    suite.start(env=suite.environment(stored="end-none=gatewayd", gatewayd="once=1"))
    suite.wait_event("gatewayd", "start", 2)
    suite.wait_log("quorate.ready")
    assert "quorate.daemon.stuck" not in suite.log()


def test_removed_member_ends_the_suite_with_zero(suite):
    suite.start(env=suite.environment(raftd="ready-exit=100"), wait_for=["raftd"])
    assert suite.wait_end() == 0
    assert "quorate.member.removed" in suite.log()
    assert suite.living() == []
    assert os.path.isdir(suite.data_dir)


# Stop.

@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@again_if_said("quorate.daemon.stop_timeout")
def test_stop_is_in_order_and_the_shell_sees_the_signal(suite, number, status):
    suite.start("--gateways=2")
    suite.wait_event("gatewayd", "start", 2)
    suite.process.send_signal(number)
    assert suite.wait_end() == status
    ends = [e["name"] for e in suite.events(what="end")]
    assert ends == ["gatewayd", "gatewayd", "raftd", "stored"]
    assert "signal, shutting down..." in suite.log()


@again_if_said("quorate.daemon.stop_timeout")
def test_each_waits_for_the_one_before(suite):
    suite.start(env=suite.environment(gatewayd="slow=0.3", raftd="slow=0.3"))
    suite.process.terminate()
    assert suite.wait_end() == 143
    ended = {e["name"]: e["at"] for e in suite.events(what="end")}
    told = {e["name"]: e["at"] for e in suite.events(what="term")}
    assert told["raftd"] > ended["gatewayd"] and told["stored"] > ended["raftd"]


def test_deaf_daemons_are_killed_each_in_its_turn(suite, measured):
    suite.start(env=suite.environment(gatewayd="deaf", raftd="deaf", stored="deaf"))
    suite.wait_log("quorate.ready")
    began = time.monotonic()
    suite.process.terminate()
    assert suite.wait_end(30) == 143
    measured.say("three deaf daemons were gone after %.1f s (five are promised)" % (time.monotonic() - began))
    assert re.findall(r"stop_timeout daemon=(\w+) action=kill", suite.log()) == ["gatewayd", "raftd", "stored"]
    assert suite.living() == []


def test_stopped_daemon_is_gone_too(suite):
    suite.start()
    suite.wait_log("quorate.ready")
    os.kill(suite.events("gatewayd", "start")[0]["pid"], signal.SIGSTOP)
    suite.process.terminate()
    assert suite.wait_end() == 143
    assert suite.living() == []


@again_if_said("quorate.daemon.stop_timeout")
def test_second_signal_kills_all_without_their_turn(suite):
    suite.start(env=suite.environment(gatewayd="deaf", raftd="deaf", stored="deaf"))
    suite.wait_log("quorate.ready")
    suite.process.terminate()
    suite.wait_event("gatewayd", "term")

    def signalled_again():
        suite.process.terminate()
        return "received another signal" in suite.log()

    poll(signalled_again, 10, "the second signal is taken", every=0.1)
    assert suite.wait_end() == 143
    assert suite.events("raftd", "term") == suite.events("stored", "term") == []
    assert suite.living() == []


@again_if_said("quorate.daemon.stop_timeout", "received another signal")
def test_signal_that_comes_twice_at_once_is_one(suite):
    suite.start(env=suite.environment(gatewayd="slow=0.2"))
    suite.wait_log("quorate.ready")
    suite.process.terminate()
    suite.wait_event("gatewayd", "term")
    suite.process.terminate()
    assert suite.wait_end() == 143
    assert [e["name"] for e in suite.events(what="end")] == ["gatewayd", "raftd", "stored"]


@again_if_said("quorate.daemon.stop_timeout")
def test_interrupt_of_the_whole_group_keeps_the_order(suite):
    suite.start()
    suite.wait_log("quorate.ready")
    assert all(e["masked"] for e in suite.events(what="start"))
    os.killpg(suite.process.pid, signal.SIGINT)
    assert suite.wait_end() == 130
    assert [e["name"] for e in suite.events(what="end")] == ["gatewayd", "raftd", "stored"]


def test_interrupt_inherited_as_ignored_still_ends(suite):
    def ignore():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    suite.start(preexec_fn=ignore)
    suite.process.send_signal(signal.SIGINT)
    assert suite.wait_end() == 130


def test_daemons_follow_a_killed_quorate_at_once(suite):
    suite.start()
    suite.process.kill()
    suite.process.wait()
    poll(lambda: not suite.living(), 2, "the daemons are gone")


def test_daemons_stay_in_the_process_group(suite):
    suite.start()
    assert {e["group"] for e in suite.events(what="start")} == {suite.process.pid}


def as_process_one(suite, *flags):
    """quorate as the first process of a PID namespace."""
    unshare = shutil.which("unshare")
    command = [unshare, "--pid", "--fork", "--kill-child", "--mount-proc", os.path.join(suite.bin, "quorate"), *flags]
    probe = subprocess.run([unshare, "--pid", "--fork", "--mount-proc", "true"], capture_output=True) if unshare else None
    if probe is None or probe.returncode != 0:
        pytest.skip("no right to make a PID namespace")
    return command


def test_process_one_exits_zero_and_reaps_orphans(suite):
    command = as_process_one(suite, *suite.flags())
    log = open(os.path.join(suite.folder, "log"), "ab")
    suite.log_path = log.name
    with log:
        suite.process = subprocess.Popen(command, env=suite.environment(stored="spawn"), cwd=suite.folder, stdout=log,
                                         stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    suite.wait_log("quorate.ready")

    def quorate_pid():
        with contextlib.suppress(OSError):
            with open("/proc/%d/task/%d/children" % (suite.process.pid, suite.process.pid)) as children:
                return int(children.read().split()[0])
        return None

    pid = poll(quorate_pid, 5, "quorate's own pid")

    def children_states():
        with open("/proc/%d/task/%d/children" % (pid, pid)) as children:
            return [pid_state(int(p)) for p in children.read().split()]

    poll(lambda: len(children_states()) == 3 and "Z" not in children_states(), 5, "the orphan was reaped")
    os.kill(pid, signal.SIGTERM)
    assert suite.process.wait(10) == 0
    suite.process = None


# With the real daemons.

@pytest.fixture
def real(suite):
    missing = [name for name in DAEMONS if not os.path.exists(os.path.join(build_dir(), name))]
    if missing:
        pytest.fail("not built in %s: %s" % (build_dir(), ", ".join(missing)))
    for name in DAEMONS:
        shutil.copy(os.path.realpath(os.path.join(build_dir(), name)), os.path.join(suite.bin, name))
    return suite


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as listed:
        return [int(p) for p in listed.read().split()]


def test_real_daemons_start_serve_and_stop(real):
    real.start(wait_for=[])
    real.wait_log("quorate.ready", timeout=15)
    for line in ("etcdserver: published {Name:m ClientURLs:[%s]}" % real.url,
                 "etcdserver: set the initial cluster version to 3.4", "enabled capabilities for version 3.4"):
        real.wait_log(line)
    poll(lambda: exchange(real.port, "GET", "/health").status == 200, 20, "it is well")
    real.process.terminate()
    assert real.wait_end() == 143


def test_real_daemons_work_below_a_path_longer_than_a_socket_address(real):
    real.data_dir = os.path.join(real.folder, "d" * 150)
    real.start(wait_for=[])
    real.wait_log("quorate.ready", timeout=15)
    assert exchange(real.port, "PUT", "/v2/keys/a", [("Content-Type", "application/x-www-form-urlencoded")],
                    b"value=1").status == 201


def test_real_gateways_share_the_port_and_each_survives_the_other(real):
    real.start("--gateways=2", wait_for=[])
    real.wait_log("quorate.ready", timeout=15)
    for pid in children(real.process.pid):
        with open("/proc/%d/comm" % pid) as comm:
            is_gateway = comm.read() == "gatewayd\n"
        if is_gateway:
            os.kill(pid, signal.SIGKILL)
            poll(lambda: exchange(real.port, "GET", "/version").status == 200, 5, "the other one answers")


def test_real_daemons_follow_a_killed_quorate_and_the_next_start_finds_all(real):
    real.start(wait_for=[])
    real.wait_log("quorate.ready", timeout=15)
    put = exchange(real.port, "PUT", "/v2/keys/kept", [("Content-Type", "application/x-www-form-urlencoded")], b"value=1")
    assert put.status == 201
    daemons = children(real.process.pid)
    assert len(daemons) == 3
    real.process.kill()
    real.process.wait()
    poll(lambda: all(pid_state(pid) in (None, "Z") for pid in daemons), 2, "the daemons are gone")
    os.unlink(real.log_path)
    real.start(wait_for=[])
    real.wait_log("quorate.ready", timeout=15)
    assert exchange(real.port, "GET", "/v2/keys/kept").json["node"]["value"] == "1"
