"""The launcher: sockets, folders, logs and readiness (docs/configuration.md, Starting)."""

import contextlib
import fcntl
import os
import signal
import socket

from harness.places import free_ports, poll
from launcher import PR_SET_PDEATHSIG, assert_refused, libc


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


def test_a_first_start_that_fails_takes_nothing_from_a_run_dir_that_was_there(suite):
    run_dir = os.path.join(suite.folder, "shared")
    os.makedirs(os.path.join(run_dir, "apply"))
    for name in ("mine", "apply/mine"):
        open(os.path.join(run_dir, name), "w").close()
    result = suite.run("--run-dir=" + run_dir, *suite.flags(), env=suite.environment(raftd="exit=2"))
    assert result.returncode == 2
    assert not os.path.exists(suite.data_dir)
    for name in ("mine", "apply/mine"):
        assert os.path.exists(os.path.join(run_dir, name)), name


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
