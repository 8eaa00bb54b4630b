"""Data dirs that a test damages, and what a member says to them."""

import os
import re
import shutil

import harness
from harness import exchange, poll

REFUSED = re.compile(r"raftd\.start\.failed.*|raftd\.log\.behind_state.*|raftd\.state\.unreachable.*|quorate\.daemon\.ended daemon=raftd.*")


def start_or_refusal(server, timeout=20):
    """None when it runs; else the line that says why raftd would not start (it is tried again only after a while)."""
    old = len(server.log()) if os.path.exists(server.log_path) else 0
    server.spawn()

    def decided():
        refused = REFUSED.search(server.log()[old:])
        if refused or server.process.poll() is not None:
            return refused.group(0) if refused else "ended"
        try:
            return exchange(server.port, "GET", "/v2/keys?quorum=true", timeout=1).status == 200
        except (OSError, harness.wire.WireError):
            return False

    result = poll(decided, timeout, "it runs, or says why not")
    return None if result is True else result


class Specimen:
    """A data dir to damage: each trial gets a copy."""

    def __init__(self, folder, data, made):
        self.folder, self.data, self.made = folder, data, made

    def trial(self, damage, flags=()):
        """(server, why it was refused or None): started on a damaged copy. A copy's state is not trusted."""
        copy = os.path.join(self.folder, "trial")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data, copy, ignore=shutil.ignore_patterns("run"))
        damage(copy)
        server = harness.new_server(flags, data_dir=copy, quick_clock=True)
        return server, start_or_refusal(server)
