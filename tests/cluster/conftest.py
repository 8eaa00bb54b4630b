"""Makes the suite's own modules importable; clusters of three; what of it all a quick run has time for."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from members import Cluster  # noqa: E402

# In tests/run.sh --quick these run whole, and of each other file the first test: clusters take their time to start.
QUICK_FILES = {"test_registers.py", "test_members.py"}


@pytest.fixture
def three(request):
    """The test's own; with these flags, if it names some."""
    with Cluster(3, getattr(request, "param", ())) as made:
        yield made.start()


@pytest.fixture(scope="module")
def cluster():
    """Shared by the tests of a file."""
    with Cluster(3) as made:
        yield made.start()


def pytest_collection_modifyitems(config, items):
    if os.environ.get("QUORATE_TEST_SIZE") != "quick":
        return
    kept, left, seen = [], [], set()
    for item in items:
        is_first = item.path.name not in seen
        seen.add(item.path.name)
        is_here = item.path.parent == config.rootpath / "tests" / "cluster"
        (kept if not is_here or is_first or item.path.name in QUICK_FILES else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
