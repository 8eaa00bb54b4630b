"""Plays keys that expire to two servers in lock step, and compares what they tell of it. Runner and the rest: diffrun.py."""

import time

from diffnorm import Differs
from diffrun import Runner
from harness import Connection
from harness.places import HANGS_S


def play_expiry(left, right, rounds=3):
    """Keys and directories that expire, watched; the events, their order, indexes and the history afterwards.

    Each round writes within a moment and then only waits, so that nothing is written while things expire. Where the machine
    stood still meanwhile, that is done again, on new members, where what expires lives for longer."""
    lives_s = [1, 1, 2, 4, 8, 16]
    for life_s in lives_s:
        with Runner(left, right) as runner:
            try:
                return play_rounds_of_expiry(runner, rounds, life_s)
            except Differs:
                if life_s == lives_s[-1] or not runner.wrote_slowly:
                    raise


def play_rounds_of_expiry(runner, rounds, life_s):
    once, twice = b"ttl=%d" % life_s, b"ttl=%d" % (2 * life_s)
    for round_number in range(rounds):
        runner.wrote_slowly = False
        base = b"/v2/keys/e%d" % round_number
        first = runner.index + 1 if runner.index else 4
        runner.play(("watch", 1, base + b"?wait=true&stream=true&recursive=true",
                     {"key": (b"e%d" % round_number,), "recursive": True, "stream": True, "index": None}))
        runner.play(("watch", 2, base + b"/dir/k?wait=true", {"key": (b"x",), "recursive": False, "stream": False, "index": None}))
        runner.play(("watch", 3, base + b"/one?wait=true&stream=true&waitIndex={{I+2}}",
                     {"key": (b"x",), "recursive": False, "stream": True, "index": None}))
        began = time.monotonic()
        try:
            for path, fields in [
                    (b"/one", b"value=1&" + once), (b"/two", b"value=2&" + twice), (b"/_hidden", b"value=h&" + once),
                    (b"/dir", b"dir=true&" + once), (b"/dir/k", b"value=k&" + once), (b"/dir/sub/l", b"value=l"),
                    (b"/kept", b"value=p&" + once), (b"/kept?prevExist=true", b"value=q"),
                    (b"/longer", b"value=s&" + once), (b"/longer", b"refresh=true&prevExist=true&" + twice),
                    (b"/shorter", b"value=s&ttl=500"), (b"/shorter?prevValue=s", b"value=t&" + once),
                    (b"/full", b"dir=true&" + twice), (b"/full/a", b"value=a&ttl=900"), (b"/zero", b"value=z&ttl=0")]:
                runner.play(("req", b"PUT", base + path, [(b"Content-Type", b"application/x-www-form-urlencoded")], fields,
                             {"version": "1.1"}))
        finally:
            runner.wrote_slowly = time.monotonic() - began > 0.9 * life_s
        for server in runner.servers:
            wait_for_expiry(server.port, base.decode(), 2 * life_s + HANGS_S)
        runner.play(("settle",))
        runner.play(("req", b"GET", base + b"?recursive=true&sorted=true", [], None, {}))
        for path in (b"/one", b"/dir", b"/dir/k", b"/kept", b"/longer", b"/full/a", b"/zero"):
            runner.play(("req", b"GET", base + path, [], None, {}))
            number = 100 + round_number
            runner.play(("watch", number, base + path + b"?wait=true&waitIndex=%d" % first,
                         {"key": (b"x",), "recursive": False, "stream": False, "index": None}))
            runner.play(("unwatch", number))
        for number in (1, 2, 3):
            runner.play(("unwatch", number))


def wait_for_expiry(port, base, timeout):
    deadline = time.monotonic() + timeout
    with Connection(port) as connection:
        while True:
            listing = connection.request("GET", base + "?recursive=true").body
            if b'"expiration"' not in listing and connection.request("GET", base + "/_hidden").status == 404:
                return
            if time.monotonic() > deadline:
                raise Differs("port %d: not all expired within %.0f s: %r" % (port, timeout, listing))
            time.sleep(0.02)
