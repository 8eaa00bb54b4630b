"""The launcher: what it refuses, in one line that names the flag and the mend, and what --check says (docs/configuration.md, Starting)."""

import os
import resource
import signal
import socket

import pytest

from harness.places import free_ports, poll
from launcher import assert_refused, tree


# Refusals: one line that names the flag and the mend, nothing changed on disk.

def test_port_of_clients_in_use_is_refused_before_anything_is_written(suite):
    with socket.create_server(("127.0.0.1", suite.port)):
        result = suite.run(*suite.flags())
    assert_refused(result, 1, "listen tcp 127.0.0.1:%d: bind: address already in use; " % suite.port,
                   "-listen-client-urls")
    assert not os.path.exists(suite.data_dir)


def test_port_of_peers_in_use_is_refused_before_anything_is_written(suite):
    with socket.create_server(("127.0.0.1", suite.peer_port)):
        result = suite.run(*suite.flags())
    assert_refused(result, 1, "listen tcp 127.0.0.1:%d: bind: address already in use; " % suite.peer_port,
                   "-listen-peer-urls")
    assert not os.path.exists(suite.data_dir)


def test_ipv6_loopback_that_is_taken_refuses_localhost(suite):
    try:
        taken = socket.create_server(("::1", suite.port), family=socket.AF_INET6)
    except OSError:
        pytest.skip("the host has no IPv6")
    url = "http://localhost:%d" % suite.port
    with taken:
        result = suite.run(*suite.flags(listen_client_urls=url))
    assert_refused(result, 1, "listen tcp [::1]:%d: bind: address already in use" % suite.port)


def test_name_that_does_not_resolve_is_refused(suite):
    result = suite.run(*suite.flags(listen_client_urls="http://no-such-host.invalid:%d" % suite.port))
    assert_refused(result, 1, "listen tcp: lookup no-such-host.invalid: ", "; give -listen-client-urls ")
    assert not os.path.exists(suite.data_dir)


def test_data_dir_that_is_a_file_is_refused(suite):
    with open(suite.data_dir, "w") as file:
        file.write("mine")
    result = suite.run(*suite.flags())
    assert_refused(result, 2, "error listing data dir: %s is not a folder; give --data-dir " % suite.data_dir)
    with open(suite.data_dir) as file:
        assert file.read() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody without rights")
def test_data_dir_without_rights_is_refused(suite):
    os.mkdir(suite.data_dir, 0o555)
    os.chmod(suite.folder, 0o755)
    os.chmod(os.path.dirname(suite.folder), 0o755)
    result = suite.run(*suite.flags(), preexec_fn=lambda: os.setuid(65534))
    assert_refused(result, 1, "cannot access data directory: write to ", "; mend its rights, or give --data-dir ")
    assert os.listdir(suite.data_dir) == []
    missing = suite.run(*suite.flags(data_dir=suite.data_dir + "/deeper"), preexec_fn=lambda: os.setuid(65534))
    assert_refused(missing, 1, "cannot access data directory: mkdir in", "; mend its rights, or give --data-dir ")


def test_data_dir_with_member_and_proxy_is_refused(suite):
    os.makedirs(suite.data_dir + "/member")
    os.makedirs(suite.data_dir + "/proxy")
    before = tree(suite.data_dir)
    assert_refused(suite.run(*suite.flags()), 2,
                   "invalid datadir. Both member and proxy directories exist.; remove ", "--data-dir")
    assert tree(suite.data_dir) == before


def test_data_dir_of_a_proxy_is_refused(suite):
    os.makedirs(suite.data_dir + "/proxy")
    assert_refused(suite.run(*suite.flags()), 2, "is a proxy's", "; give --data-dir")


def test_data_dir_of_etcd_0_4_is_refused(suite):
    os.makedirs(suite.data_dir + "/snapshot")
    for name in ("log", "conf"):
        open(os.path.join(suite.data_dir, name), "w").close()
    before = tree(suite.data_dir)
    assert_refused(suite.run(*suite.flags()), 2, "etcd 0.4", "; give --data-dir")
    assert tree(suite.data_dir) == before


def test_data_dir_of_etcd_2_is_refused(suite):
    os.makedirs(suite.data_dir + "/member/wal")
    os.makedirs(suite.data_dir + "/member/snap")
    with open(suite.data_dir + "/member/wal/0000000000000000-0000000000000000.wal", "wb") as wal:
        wal.write(bytes.fromhex("0400000000000000080410002000000000000000" "0801109eb7d7c60e1a160893"))
    before = tree(suite.data_dir)
    assert_refused(suite.run(*suite.flags()), 2, "the data of etcd 2", "; give --data-dir")
    assert tree(suite.data_dir) == before


def test_data_dir_of_etcd_3_is_refused(suite):
    os.makedirs(suite.data_dir + "/member/snap")
    open(suite.data_dir + "/member/snap/db", "w").close()
    assert_refused(suite.run(*suite.flags()), 2, "the data of etcd", "member/snap/db", "; give --data-dir")


def test_snapshots_without_a_log_are_refused_with_both_paths(suite):
    os.makedirs(suite.data_dir + "/member/snap")
    open(suite.data_dir + "/member/snap/0000000000000002-0000000000000010.snap", "w").close()
    before = tree(suite.data_dir)
    assert_refused(suite.run(*suite.flags()), 2, suite.data_dir + "/member/snap", suite.data_dir + "/member/wal; give --wal-dir ")
    assert tree(suite.data_dir) == before


def test_locked_data_dir_is_refused_with_the_holder(suite):
    suite.start()
    other = free_ports(2)
    result = suite.run(*suite.flags(listen_client_urls="http://127.0.0.1:%d" % other[0],
                                    listen_peer_urls="http://127.0.0.1:%d" % other[1]))
    assert_refused(result, 1, "open wal error: file already locked; data directory %s is in use by process %d"
                   % (suite.data_dir, suite.process.pid), "or give --data-dir another folder")


def test_lock_left_by_a_killed_process_does_not_hinder(suite):
    suite.start()
    os.killpg(suite.process.pid, signal.SIGKILL)
    suite.process.wait()
    poll(lambda: not suite.living(), 5, "all daemons are gone")
    suite.start()
    suite.wait_event("raftd", "start", 2)


def test_too_few_descriptors_are_refused(suite):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))

    result = suite.run(*suite.flags(), preexec_fn=limit)
    assert_refused(result, 1, "file descriptor limit[120] of etcd process is too low, and should be set higher than 150",
                   "; raise it with ulimit -n")


@pytest.mark.parametrize("says, status", [(2, 2), (1, 1), (3, 1)])
def test_only_what_raftd_refuses_of_its_keys_is_final(suite, says, status):
    """With status 2 nobody starts us again (the unit's RestartPreventExitStatus); a lack of memory, say, may pass."""
    key = os.path.join(suite.folder, "key")
    with open(key, "w") as file:
        file.write("0" * 64)
    result = suite.run("--cluster-key-file=" + key, *suite.flags(), env=suite.environment(raftd="exit=%d" % says))
    assert_refused(result, status, "raftd --check: status %d" % says)


def test_missing_daemon_is_refused(suite):
    os.unlink(os.path.join(suite.bin, "stored"))
    result = suite.run(*suite.flags())
    assert_refused(result, 1, "the executable stored")
    assert not os.path.exists(suite.data_dir)


@pytest.mark.parametrize("changed, status, text", [
    ({"initial_cluster": "a=http://127.0.0.1:1"}, 2,
     "couldn't find local name \"m\" in the initial cluster configuration; add m=URL to --initial-cluster"),
    ({"initial_cluster": "m=http://127.0.0.1:1"}, 2, "--initial-cluster must include m={0} given "
     "--initial-advertise-peer-urls={0}; make the two agree"),
    ({"initial_cluster": "m=http://127.0.0.1:1", "initial_advertise_peer_urls": None}, 2,
     "--initial-cluster must include m=http://localhost:2380,m=http://localhost:7001 given --initial-advertise-peer-urls="
     "http://localhost:2380,http://localhost:7001; forgot to set --initial-advertise-peer-urls flag?"),
    ({"initial_cluster": "m=http://127.0.0.1:1,n=http://127.0.0.1:1"}, 2,
     "initial cluster m=http://127.0.0.1:1,n=http://127.0.0.1:1 has duplicate url; "),
    ({"name": None}, 2, "; forgot to set --initial-cluster flag?"),
])
def test_bootstrap_that_contradicts_itself_is_refused(suite, changed, status, text):
    result = suite.run(*suite.flags(**changed))
    assert_refused(result, status, text.format(suite.peer_url))
    assert not os.path.exists(suite.data_dir)


def test_bootstrap_flags_are_not_checked_again_once_there_is_a_log(suite):
    os.makedirs(suite.data_dir + "/member/wal")
    open(suite.data_dir + "/member/wal/0000000000000000-0000000000000001.wal", "w").close()
    suite.start(flags=suite.flags(initial_cluster="a=http://127.0.0.1:1"))


def test_daemon_that_refuses_its_configuration_ends_the_suite_and_leaves_no_empty_data_dir(suite):
    suite.start(env=suite.environment(raftd="exit=2"), wait_for=["raftd"])
    assert suite.wait_end() == 2
    assert not os.path.exists(suite.data_dir)
    assert "giving up: raftd refuses its configuration" in suite.log()


# Check.

def test_check_starts_and_writes_nothing(suite):
    result = suite.run("--check", *suite.flags())
    assert result.returncode == 0, result.stderr
    assert "data-dir = %s  (flag)" % suite.data_dir in result.stdout
    assert "wal-dir = %s/member/wal  (derived)" % suite.data_dir in result.stdout
    assert "snapshot-count = 10000  (default)" in result.stdout
    assert "ok: would start a new member" in result.stdout
    assert suite.events() == []
    assert not os.path.exists(suite.data_dir)


def test_check_names_the_environment_as_origin(suite):
    result = suite.run("--check", *suite.flags(), env=suite.environment(ETCD_MAX_WALS="7"))
    assert "max-wals = 7  (environment)" in result.stdout


def test_check_refuses_what_a_start_refuses(suite):
    os.makedirs(suite.data_dir + "/member/snap")
    open(suite.data_dir + "/member/snap/db", "w").close()
    assert_refused(suite.run("--check", *suite.flags()), 2, "the data of etcd")
