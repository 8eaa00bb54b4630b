"""Fixtures of the fault suite."""

import os
import resource
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import scratch_dir  # noqa: E402
from harness.faults import Disk, Shim, can_cut_power  # noqa: E402


_measured = []


class Measured:
    """What a test measured and does not judge: told at the end of the run."""

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
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.write_line(line)


@pytest.fixture
def folder():
    with scratch_dir("fault") as path:
        yield path


@pytest.fixture
def shim(folder):
    return Shim(folder)


@pytest.fixture
def disk():
    why = can_cut_power()
    if why:
        pytest.skip(why)
    with Disk() as disk:
        yield disk


@pytest.fixture
def many_files():
    """More open files than the usual 1,024, for this test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
