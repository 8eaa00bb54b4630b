"""Fixtures of the tests of the HTTP server."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

from echo import Server  # noqa: E402


@pytest.fixture
def serve():
    servers = []

    def start(**limits):
        servers.append(Server(**limits))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
        else:
            assert server.process.returncode == 0, server.process.communicate()[1].decode()


@pytest.fixture
def server(serve):
    return serve()
