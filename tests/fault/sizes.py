"""How much a run does."""

import os


def sized(quick, default, full):
    """A count by the size of the run: tests/run.sh --quick, without an option, --full."""
    return {"quick": quick, "default": default, "full": full}[os.environ.get("QUORATE_TEST_SIZE", "default")]
