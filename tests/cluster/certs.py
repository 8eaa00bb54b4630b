"""A small authority for tests: certificates by tests/unit/tls/certs.sh in a folder of the test's own."""

import os
import subprocess

from harness.places import scratch_dir
from harness.server import SOURCE

SCRIPT = os.path.join(SOURCE, "tests", "unit", "tls", "certs.sh")
LOCAL = "DNS:localhost,IP:127.0.0.1"


class Certs:
    """An authority named ca, and what it signs."""

    def __init__(self):
        self._scratch = scratch_dir("certs")

    def __enter__(self):
        self.folder = self._scratch.__enter__()
        self.make("ca", "ca")
        return self

    def __exit__(self, *what):
        return self._scratch.__exit__(*what)

    def make(self, *words):
        done = subprocess.run(["sh", SCRIPT, *words], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)

    def cert(self, name, sans=LOCAL, usage="serverAuth,clientAuth", days=365, ca="ca"):
        self.make("cert", ca, name, sans, usage, str(days))
        return name

    def path(self, name):
        return os.path.join(self.folder, name)

    def replace(self, old, new):
        """The files of certificate `new` take the place of those of `old`."""
        for kind in (".key", ".pem"):
            os.replace(self.path(new + kind), self.path(old + kind))

    def flags(self, name, ca="ca", auth=True, crl=None):
        """The flags of a member that shows this certificate."""
        return ["--peer-cert-file=" + self.path(name + ".pem"), "--peer-key-file=" + self.path(name + ".key"),
                "--peer-trusted-ca-file=" + self.path(ca + ".pem")] + \
            (["--peer-client-cert-auth"] if auth else []) + (["--peer-crl-file=" + self.path(crl)] if crl else [])
