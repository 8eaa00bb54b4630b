"""The status socket of each daemon says what that daemon does."""

import os
import signal

import pytest

import harness
from harness import Keys, poll

pytestmark = [pytest.mark.ours]


@pytest.fixture(scope="module")
def member():
    with harness.new_server(["--gateways=2"], quick_clock=True) as server:
        server.start()
        poll(lambda: all_are_there(server), 20, "each daemon knows the others")
        yield server


def all_are_there(server):
    """The second gatewayd may come later than the member serves."""
    try:
        return (numbers(server, "raftd")["raftd_gateways"] == 2 and numbers(server, "stored")["stored_subscribers"] == 2 and
                all(numbers(server, name)["gatewayd_ready"] == 1 for name in ("gatewayd", "gatewayd-2")))
    except OSError:
        return False


def numbers(server, daemon):
    return {name: int(value) for name, value in server.status(daemon).items() if value.isdigit()}


def test_each_daemon_says_who_it_is(member):
    for name, daemon in (("raftd", "raftd"), ("stored", "stored"), ("gatewayd", "gatewayd"), ("gatewayd-2", "gatewayd")):
        status = member.status(name)
        assert status["component"] == daemon
        assert int(status["pid"]) in member.pids()[daemon]
        assert status["version"][0].isdigit() and int(status["uptime_ms"]) > 0
    assert member.status("gatewayd")["pid"] != member.status("gatewayd-2")["pid"]


def test_raftd_tells_role_and_positions(member):
    before = numbers(member, "raftd")
    assert before["raftd_role"] == 3 and before["raftd_is_leader"] == 1
    assert before["raftd_leader_id"] == before["raftd_self_id"] != 0
    assert before["raftd_voters"] == 1 and before["raftd_learners"] == 0
    assert before["raftd_stored_up"] == 1 and before["raftd_gateways"] == 2 and before["raftd_has_space"] == 1
    for number in range(5):
        assert Keys(member.port).put("/status/%d" % number, "v" * 1000).status == 201
    after = numbers(member, "raftd")
    assert after["raftd_term"] == before["raftd_term"]
    assert after["raftd_last_index"] >= before["raftd_last_index"] + 5
    assert after["raftd_last_index"] >= after["raftd_commit_index"] >= before["raftd_commit_index"] + 5
    assert after["raftd_log_appended_bytes_total"] > before["raftd_log_appended_bytes_total"] + 5000
    assert after["raftd_log_writes_total"] > before["raftd_log_writes_total"]
    poll(lambda: numbers(member, "raftd")["raftd_unapplied_bytes"] == 0, 5, "all is applied")
    settled = numbers(member, "raftd")
    assert settled["raftd_applied_index"] == settled["raftd_commit_index"]


def test_stored_tells_what_is_applied(member):
    index = Keys(member.port).put("/status/k", "v").index
    status = numbers(member, "stored")
    assert status["stored_etcd_index"] >= index and status["stored_applied_index"] >= index
    assert status["stored_subscribers"] == 2 and status["stored_no_space"] == 0 and status["stored_generation"] == 1


def test_a_gatewayd_tells_its_clients_and_watchers(member):
    def total(name):
        return numbers(member, "gatewayd")[name] + numbers(member, "gatewayd-2")[name]

    poll(lambda: total("gatewayd_connections") == 0, 5, "no client of an earlier test is left")
    watchers = total("gatewayd_watchers")
    watches = [Keys(member.port).watch("/status/w") for _ in range(6)]
    poll(lambda: total("gatewayd_watchers") == watchers + 6, 5, "six watchers")
    assert total("gatewayd_connections") >= 6
    assert Keys(member.port).put("/status/w", "v").status == 201
    poll(lambda: total("gatewayd_watchers") == watchers, 5, "all were told")
    for watch in watches:
        watch.close()
    for name in ("gatewayd", "gatewayd-2"):
        status = numbers(member, name)
        assert status["gatewayd_ready"] == 1 and status["gatewayd_raftd_up"] == 1 and status["gatewayd_stored_up"] == 1
        assert status["gatewayd_draining"] == 0
    poll(lambda: total("gatewayd_requests_pending") == 0 and total("gatewayd_ops_in_flight") == 0, 5, "nothing is under way")


def test_a_socket_that_a_killed_daemon_left_is_taken_over(member):
    old = int(member.status("raftd")["pid"])
    os.kill(old, signal.SIGKILL)
    poll(lambda: member.pids().get("raftd", [old]) != [old], 10, "another raftd")

    def is_back():
        try:
            return int(member.status("raftd")["pid"]) != old
        except OSError:
            return False

    poll(is_back, 10, "its status")
