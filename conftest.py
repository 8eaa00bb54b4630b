"""Fixtures of the black-box suites.

server        a member shared by the whole run, started once; tests on it keep below keys.root of their own
keys          the keys API of that member
fresh_server  a member of the test's own, newly bootstrapped
measured      where a test says how long something took: no test asserts a time

QUORATE_TEST_TARGET=etcd runs the same tests against Debian's etcd. What we do differently on purpose bears the mark
deviation(NAME) and must fail there: a deviation that no longer is one is an error too.
"""

import os
import signal
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tests"))

import harness  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "deviation(name): we differ from etcd here on purpose")
    config.addinivalue_line("markers", "ours: about files or daemons that only we have; not run against etcd")
    config.addinivalue_line("markers", "slow: left out of tests/run.sh --quick")
    config.addinivalue_line("markers", "full: only in tests/run.sh --full")
    config.addinivalue_line("markers", "limit(seconds): may take longer than TEST_LIMIT_S")
    signal.signal(signal.SIGTERM, end_orderly)


def end_orderly(*_):
    """At SIGTERM: what runs is ended and removed, and the counts are told."""
    raise KeyboardInterrupt


TEST_LIMIT_S = 90


class TooLong(Exception):
    pass


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs fails after its limit, with the stack it hangs in; a busy machine has more time."""
    mark = item.get_closest_marker("limit")
    seconds = mark.args[0] if mark else TEST_LIMIT_S
    began = time.monotonic()

    def on_alarm(*_):
        ran = time.monotonic() - began
        more = harness.patience(seconds) - ran
        if more < 1:
            raise TooLong("still running after %d s" % ran)
        signal.alarm(int(more) + 1)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


_measured = []


class Measured:
    """What a test measured and does not judge, times above all: told at the end of the run."""

    @staticmethod
    def say(line):
        _measured.append(line)

    @staticmethod
    def times(what, seconds):
        """A distribution, in milliseconds."""
        ordered = sorted(seconds)
        p50, p90, p99 = (1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.9, 0.99))
        _measured.append("%s: %d, p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, longest %.1f ms" % (
            what, len(ordered), p50, p90, p99, 1000 * ordered[-1]))


@pytest.fixture
def measured():
    return Measured


def pytest_terminal_summary(terminalreporter):
    """What was measured, and the counts for tests/run.sh."""
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.write_line(line)
    path = os.environ.get("QUORATE_TEST_COUNTS")
    if path:
        count = {kind: len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")}
        with open(path, "w") as out:
            out.write("%d %d %d\n" % (count["passed"] + count["xfailed"], count["failed"] + count["error"] + count["xpassed"], count["skipped"]))


def pytest_collection_modifyitems(config, items):
    size = os.environ.get("QUORATE_TEST_SIZE", "default")
    if size == "quick":
        slow = [item for item in items if item.get_closest_marker("slow") or item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    for item in items:
        deviation = item.get_closest_marker("deviation")
        if deviation and harness.target_name() == "etcd":
            item.add_marker(pytest.mark.xfail(strict=True, reason="etcd differs: " + deviation.args[0]))
        if item.get_closest_marker("ours") and harness.target_name() == "etcd":
            item.add_marker(pytest.mark.skip(reason="only ours has it"))
        if item.get_closest_marker("full") and size != "full":
            item.add_marker(pytest.mark.skip(reason="a long run: tests/run.sh --full"))


@pytest.fixture(scope="session")
def shared_server():
    with harness.new_server() as server:
        yield server.start()


@pytest.fixture
def server(shared_server):
    if shared_server.process is None or shared_server.process.poll() is not None:
        shared_server.kill()
        shared_server.start()
    return shared_server


@pytest.fixture
def keys(server):
    keys = harness.Keys(server.port)
    yield keys
    keys.close()


_counter = iter(range(1, 1 << 30))


@pytest.fixture
def root(keys):
    """A directory name that no other test uses. It goes with the test: a TTL left in it would move the index later."""
    name = "/t%d" % next(_counter)
    yield name
    keys.delete(name, "recursive=true")


@pytest.fixture
def start():
    """start(FLAGS...) gives a running member that ends with the test."""
    servers = []

    def start_one(*flags, **options):
        options.setdefault("quick_clock", True)
        server = harness.new_server(flags, **options)
        servers.append(server)
        return server.start()

    yield start_one
    for server in servers:
        server.close()


@pytest.fixture
def fresh_server(start):
    return start()


@pytest.fixture
def fresh_keys(fresh_server):
    keys = harness.Keys(fresh_server.port)
    yield keys
    keys.close()
