"""The launcher: what it refuses, how it starts, restarts and stops the daemons (docs/configuration.md, Starting).

The daemons are fakes here (fake_daemon.py), so each behaviour can be called up; what needs the real ones is at the
end and runs when they are built. A copy of quorate lies beside the fakes: it finds its daemons beside itself.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness.places import free_ports, poll, scratch_dir  # noqa: E402
from harness.server import build_dir, clean_environment, pid_state  # noqa: E402
from harness.wire import exchange  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
DAEMONS = ("raftd", "stored", "gatewayd")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None, use_errno=True)


class Suite:
    """A quorate with fake daemons in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = os.path.join(folder, "bin")
        os.mkdir(self.bin)
        shutil.copy(os.path.realpath(os.path.join(build_dir(), "quorate")), os.path.join(self.bin, "quorate"))
        for name in DAEMONS:
            shutil.copy(os.path.join(HERE, "fake_daemon.py"), os.path.join(self.bin, name))
            os.chmod(os.path.join(self.bin, name), 0o755)
        self.port, self.peer_port = free_ports(2)
        self.url = "http://127.0.0.1:%d" % self.port
        self.peer_url = "http://127.0.0.1:%d" % self.peer_port
        self.data_dir = os.path.join(folder, "data")
        self.process = None

    def flags(self, **changed):
        flags = {"name": "m", "data-dir": self.data_dir, "listen-client-urls": self.url,
                 "advertise-client-urls": self.url, "listen-peer-urls": self.peer_url,
                 "initial-advertise-peer-urls": self.peer_url}
        flags.update({k.replace("_", "-"): v for k, v in changed.items()})
        return ["--%s=%s" % item for item in flags.items() if item[1] is not None]

    def environment(self, **behaviour):
        env = clean_environment({"FAKE_DIR": self.folder})
        for name, value in behaviour.items():
            env[("FAKE_" + name).upper() if name in DAEMONS else name] = value
        return env

    def run(self, *flags, env=None, **options):
        """To its end: for what is refused."""
        return subprocess.run([os.path.join(self.bin, "quorate"), *flags], env=env or self.environment(),
                              cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              **options)

    def start(self, *more, env=None, wait_for=None, flags=None, **options):
        def before_exec():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self.log_path = os.path.join(self.folder, "log")
        with open(self.log_path, "ab") as log:
            options = dict({"stdout": log, "stderr": log, "preexec_fn": before_exec}, **options)
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "quorate"), *(flags or self.flags()), *more],
                env=env or self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, start_new_session=True,
                **options)
        for name in DAEMONS if wait_for is None else wait_for:
            self.wait_event(name, "start")
        return self.process

    def events(self, name=None, what=None):
        try:
            with open(os.path.join(self.folder, "events")) as lines:
                found = [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []
        return [e for e in found if name in (None, e["name"]) and what in (None, e["event"])]

    def wait_event(self, name, what, count=1, timeout=10):
        return poll(lambda: len(self.events(name, what)) >= count and self.events(name, what)[count - 1], timeout,
                    "event %s of %s" % (what, name))

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def wait_log(self, text, timeout=10):
        poll(lambda: text in self.log(), timeout, "log line " + text)

    def wait_end(self, timeout=10):
        status = self.process.wait(timeout)
        return status if status >= 0 else 128 - status

    def living(self):
        return [e["pid"] for e in self.events(what="start") if pid_state(e["pid"]) not in (None, "Z")]

    def close(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            poll(lambda: not self.living(), 5, "all daemons are gone")


@pytest.fixture
def suite():
    if not os.path.exists(os.path.join(build_dir(), "quorate")):
        pytest.fail("quorate is not built in " + build_dir())
    with scratch_dir("quorate") as folder:
        made = Suite(folder)
        yield made
        made.close()


def assert_refused(result, status, *texts):
    assert result.returncode == status, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for text in texts:
        assert text in result.stderr


def tree(path):
    """Every path below with its type, size and time of change."""
    found = {}
    for folder, names, files in os.walk(path):
        for name in names + files:
            full = os.path.join(folder, name)
            stat = os.lstat(full)
            found[full] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found


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


# Start.

def test_daemons_get_the_flags_and_only_gateways_get_the_sockets(suite):
    suite.start("--gateways=2")
    gateways = poll(lambda: len(suite.events("gatewayd", "start")) == 2 and suite.events("gatewayd", "start"), 5,
                    "two gatewayds")
    assert [e["env"]["QUORATE_DAEMON"] for e in sorted(gateways, key=lambda e: e["env"]["QUORATE_DAEMON"])] == ["1", "2"]
    for gateway in gateways:
        assert gateway["env"]["LISTEN_PID"] == str(gateway["pid"])
        assert gateway["env"]["LISTEN_FDS"] == "1"
        assert gateway["env"]["LISTEN_FDNAMES"] == "client"
        assert gateway["listeners"] == [{"name": ["127.0.0.1", suite.port], "reuseport": 0, "listens": 1}]
    for name in ("raftd", "stored"):
        started, = suite.events(name, "start")
        assert "LISTEN_FDS" not in started["env"]
        assert started["argv"] == suite.flags() + ["--gateways=2"]


def test_localhost_is_bound_in_both_families(suite):
    url = "http://localhost:%d" % suite.port
    suite.start(flags=suite.flags(listen_client_urls=url))
    names = [entry["name"][:2] for entry in suite.events("gatewayd", "start")[0]["listeners"]]
    assert ["127.0.0.1", suite.port] in names
    if socket.has_ipv6 and len(names) > 1:
        assert names[1] == ["::1", suite.port]


def test_empty_host_listens_everywhere(suite):
    suite.start(flags=suite.flags(listen_client_urls="http://:%d" % suite.port))
    with socket.create_connection(("127.0.0.1", suite.port), timeout=5):
        pass
    suite.wait_log("quorate.listen.open")


def test_unix_socket_is_served_and_removed(suite):
    path = os.path.join(suite.folder, "client.sock")
    suite.start(flags=suite.flags(listen_client_urls="unix://" + path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    suite.process.terminate()
    suite.wait_end()
    assert not os.path.exists(path)


def test_socket_file_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not(suite):
    path = os.path.join(suite.folder, "client.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    suite.start(flags=suite.flags(listen_client_urls="unix://" + path))
    result = suite.run(*suite.flags(listen_client_urls="unix://" + path, data_dir=suite.data_dir + "2",
                                    listen_peer_urls="http://127.0.0.1:%d" % free_ports(1)[0]))
    assert_refused(result, 1, "address already in use", "-listen-client-urls")


def test_sockets_of_a_service_manager_are_passed_on(suite):
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        fd = fcntl.fcntl(given.fileno(), fcntl.F_DUPFD, 10)

        def hand_over():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(fd, 3)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="client")
            env = suite.environment()
            env.update({k: os.environ[k] for k in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")})
            os.execve(os.path.join(suite.bin, "quorate"), ["quorate", *suite.flags()], env)

        suite.start(preexec_fn=hand_over, close_fds=False)
        os.close(fd)
    assert suite.events("gatewayd", "start")[0]["listeners"][0]["name"] == ["127.0.0.1", port]


def test_directories_are_private(suite):
    suite.start()
    for name in ("", "/member", "/run", "/run/apply"):
        assert os.stat(suite.data_dir + name).st_mode & 0o777 == 0o700, name
    with open(suite.data_dir + "/member/LOCK") as lock:
        assert int(lock.read()) == suite.process.pid


def test_run_dir_is_where_it_was_asked_for(suite):
    run_dir = os.path.join(suite.folder, "r" * 100, "deep")
    suite.start("--run-dir=" + run_dir)
    assert os.path.isdir(run_dir + "/apply")
    assert not os.path.exists(suite.data_dir + "/run")


def test_logs_bear_the_name_of_the_daemon(suite):
    suite.start(env=suite.environment(stored="talk,die-on-file"))
    suite.wait_log("[stored] first line\n[stored] second line\n")
    open(os.path.join(suite.folder, "die-stored"), "w").close()
    suite.wait_log("[stored] no end\n")


def test_readiness_of_all_is_told_once(suite):
    suite.start("--gateways=2", env=suite.environment(stored="die-on-file"))
    suite.wait_log("quorate: quorate.ready name=m daemons=4\n")
    open(os.path.join(suite.folder, "die-stored"), "w").close()
    suite.wait_event("stored", "start", 2)
    suite.process.terminate()
    suite.wait_end()
    assert suite.log().count("quorate.ready") == 1


def test_closed_log_pipe_stops_nobody(suite):
    read_end, write_end = os.pipe()
    suite.start(stdout=write_end, stderr=write_end, env=suite.environment(stored="talk,die-on-file"))
    os.close(write_end)
    os.close(read_end)
    for life in (2, 3):
        open(os.path.join(suite.folder, "die-stored"), "w").close()
        suite.wait_event("stored", "start", life)
    assert suite.process.poll() is None


def test_full_log_pipe_stops_nobody(suite):
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    fcntl.fcntl(write_end, fcntl.F_SETFL, 0)
    suite.start(stdout=write_end, stderr=write_end, env=suite.environment(stored="talk,die-on-file"))
    for life in (2, 3):
        open(os.path.join(suite.folder, "die-stored"), "w").close()
        suite.wait_event("stored", "start", life)
    suite.process.terminate()
    assert suite.wait_end() == 143
    os.close(read_end)
    os.close(write_end)


def test_hints_are_printed_where_they_are_asked_for(suite):
    suite.start(env=suite.environment(QUORATE_HINTS="1"))
    suite.wait_log("wipe:")
    log = suite.log()
    assert "try it:  curl %s/v2/keys/greeting -XPUT -d value=hello" % suite.url in log
    assert suite.data_dir in log
    assert "kill %d" % suite.process.pid in log


def test_service_manager_is_told_that_we_listen(suite):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = os.path.join(suite.folder, "notify")
        manager.bind(path)
        manager.settimeout(10)
        suite.start(env=suite.environment(NOTIFY_SOCKET=path, gatewayd="silent", raftd="silent"))
        assert manager.recv(100) == b"READY=1"
        suite.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
    suite.wait_end()


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


def test_removed_member_ends_the_suite_with_zero(suite):
    suite.start(env=suite.environment(raftd="ready-exit=100"), wait_for=["raftd"])
    assert suite.wait_end() == 0
    assert "quorate.member.removed" in suite.log()
    assert suite.living() == []
    assert os.path.isdir(suite.data_dir)


# Stop.

@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_is_in_order_and_the_shell_sees_the_signal(suite, number, status):
    suite.start("--gateways=2")
    suite.wait_event("gatewayd", "start", 2)
    suite.process.send_signal(number)
    assert suite.wait_end() == status
    ends = [e["name"] for e in suite.events(what="end")]
    assert ends == ["gatewayd", "gatewayd", "raftd", "stored"]
    assert "signal, shutting down..." in suite.log()


def test_each_waits_for_the_one_before(suite):
    suite.start(env=suite.environment(gatewayd="slow=0.3", raftd="slow=0.3"))
    suite.process.terminate()
    assert suite.wait_end() == 143
    ended = {e["name"]: e["at"] for e in suite.events(what="end")}
    told = {e["name"]: e["at"] for e in suite.events(what="term")}
    assert told["raftd"] > ended["gatewayd"] and told["stored"] > ended["raftd"]


def test_deaf_daemons_are_gone_within_five_seconds(suite):
    suite.start(env=suite.environment(gatewayd="deaf", raftd="deaf", stored="deaf"))
    suite.wait_log("quorate.ready")
    began = time.monotonic()
    suite.process.terminate()
    assert suite.wait_end() == 143
    assert time.monotonic() - began < 5
    assert suite.living() == []


def test_stopped_daemon_is_gone_too(suite):
    suite.start()
    suite.wait_log("quorate.ready")
    os.kill(suite.events("gatewayd", "start")[0]["pid"], signal.SIGSTOP)
    suite.process.terminate()
    assert suite.wait_end() == 143
    assert suite.living() == []


def test_second_signal_kills_at_once(suite):
    suite.start(env=suite.environment(gatewayd="deaf", raftd="deaf", stored="deaf"))
    suite.wait_log("quorate.ready")
    suite.process.terminate()
    suite.wait_event("gatewayd", "term")
    began = time.monotonic()

    def signalled_again():
        suite.process.terminate()
        return "received another signal" in suite.log()

    poll(signalled_again, 2, "the second signal is taken", every=0.1)
    assert suite.wait_end() == 143
    assert time.monotonic() - began < 1.5
    assert suite.living() == []


def test_signal_that_comes_twice_at_once_is_one(suite):
    suite.start(env=suite.environment(gatewayd="slow=0.2"))
    suite.wait_log("quorate.ready")
    suite.process.terminate()
    suite.wait_event("gatewayd", "term")
    suite.process.terminate()
    assert suite.wait_end() == 143
    assert [e["name"] for e in suite.events(what="end")] == ["gatewayd", "raftd", "stored"]


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
    assert exchange(real.port, "GET", "/health").status == 200
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
