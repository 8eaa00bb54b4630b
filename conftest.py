"""Fixtures of the black-box suites.

server        a member shared by the whole run, started once; tests on it keep below keys.root of their own
keys          the keys API of that member
fresh_server  a member of the test's own, newly bootstrapped

QUORATE_TEST_TARGET=etcd runs the same tests against Debian's etcd. What we do differently on purpose bears the mark
deviation(NAME) and must fail there: a deviation that no longer is one is an error too.
"""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tests"))

import harness  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "deviation(name): we differ from etcd here on purpose")
    config.addinivalue_line("markers", "ours: about files or daemons that only we have; not run against etcd")
    config.addinivalue_line("markers", "quick: in the suite also with --quick")
    config.addinivalue_line("markers", "full: only with QUORATE_TEST_SIZE=full")


def pytest_collection_modifyitems(items):
    size = os.environ.get("QUORATE_TEST_SIZE", "default")
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
    """A directory name that no other test uses."""
    return "/t%d" % next(_counter)


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
