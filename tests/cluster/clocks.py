"""Clocks that a test sets: clock.c between a member and its host's."""

import mmap
import os
import struct
import time

from harness.server import SOURCE, compile_c

HOUR_S = 3600
_library = None


def library():
    """clock.c, compiled once a run."""
    global _library
    if _library is None:
        _library = compile_c("clock.so", os.path.join(SOURCE, "tests", "cluster", "clock.c"), "-shared", "-fPIC", "-ldl")
    return _library


class Clock:
    """One host's: give its env to the member before it starts. Offsets hold at once, for running processes too."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "clock")
        self.boot_id_path = os.path.join(folder, "boot-id")
        with open(self.path, "wb") as file:
            file.write(bytes(4096))
        with open(self.path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        self.wall_s = self.boot_s = 0.0
        self.reboots = 0
        self._write_boot_id()

    @property
    def env(self):
        preload = [library()] + ([os.environ["LD_PRELOAD"]] if os.environ.get("LD_PRELOAD") else [])
        return {"LD_PRELOAD": ":".join(preload), "QUORATE_CLOCK": self.path, "QUORATE_BOOT_ID": self.boot_id_path}

    def _write_boot_id(self):
        with open(self.boot_id_path, "w") as file:
            file.write("00000000-0000-4000-8000-%012d\n" % (os.getpid() * 1000 + self.reboots))

    def _set(self, wall_s, boot_s):
        self.wall_s, self.boot_s = wall_s, boot_s
        self._page[:16] = struct.pack("<qq", int(wall_s * 1e9), int(boot_s * 1e9))

    def step_wall(self, seconds):
        """Somebody sets the clock; time itself goes on."""
        self._set(self.wall_s + seconds, self.boot_s)

    def pass_time(self, seconds):
        """So much time goes by."""
        self._set(self.wall_s + seconds, self.boot_s + seconds)

    def reboot(self, seconds):
        """So much time goes by, and the host starts anew at its end. Only with the member stopped."""
        self.reboots += 1
        self._write_boot_id()
        self._set(self.wall_s + seconds, 30 - time.clock_gettime(time.CLOCK_BOOTTIME))
