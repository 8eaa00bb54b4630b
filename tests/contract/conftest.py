"""Makes the suite's own modules importable; fixtures of more than one of its files."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness.places import scratch_dir  # noqa: E402
from harness.server import build_dir  # noqa: E402
from launcher import Suite  # noqa: E402


@pytest.fixture
def suite():
    if not os.path.exists(os.path.join(build_dir(), "quorate")):
        pytest.fail("quorate is not built in " + build_dir())
    with scratch_dir("quorate") as folder:
        made = Suite(folder)
        yield made
        made.close()
