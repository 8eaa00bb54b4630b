"""Fixtures of the fault suite."""

import os
import resource
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import scratch_dir  # noqa: E402
from harness.faults import Disk, Shim, can_cut_power  # noqa: E402


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
