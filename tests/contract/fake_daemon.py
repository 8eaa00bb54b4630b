#!/usr/bin/python3 -S
"""Stands for raftd, stored or gatewayd in tests of quorate: says what it was given and does what it is told.

Copied beside a copy of quorate under each daemon's name. FAKE_DIR is where it writes its events, one a line, as
"<name> <event> ..."; FAKE_<NAME> lists, comma separated, how it behaves:

  exit=N      end at once with status N            silent       never say that it is ready
  deaf        ignore SIGTERM                       slow=SECONDS take that long to stop
  talk        write three lines, one without end   spawn        leave an orphan behind
  once=N      exit=N, the first time only          ready-exit=N say ready, then end with status N
  die-on-file end with status 1 once FAKE_DIR/die-<name> is there, having removed it
  end=NAME    ask quorate to end the process of that name
  end-none=NAME  ask it to end process 0, as one whose peer's id is not known does, until NAME lives for the second time
"""

import json
import os
import signal
import socket
import sys
import time

NAME = os.path.basename(sys.argv[0])
FOLDER = os.environ["FAKE_DIR"]
WANT = {}
for _item in os.environ.get("FAKE_" + NAME.upper(), "").split(","):
    _key, _, _value = _item.partition("=")
    WANT[_key] = _value


def event(what, **more):
    line = json.dumps(dict(more, name=NAME, event=what, pid=os.getpid(), at=time.monotonic()))
    fd = os.open(os.path.join(FOLDER, "events"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
        sock.send(text.encode())


def on_term(*_):
    event("term")
    if "deaf" in WANT:
        return
    if "slow" in WANT:
        time.sleep(float(WANT["slow"]))
    event("end")
    os._exit(0)


def interrupt_is_masked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def listeners():
    found = []
    for i in range(int(os.environ.get("LISTEN_FDS", "0"))):
        with socket.socket(fileno=os.dup(3 + i)) as sock:
            name = sock.getsockname()
            reuseport = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            found.append({"name": name, "reuseport": reuseport,
                          "listens": sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)})
    return found


def once(key):
    """True at the first life of this name only."""
    path = os.path.join(FOLDER, "once-%s-%s" % (NAME, key))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def main():
    signal.signal(signal.SIGTERM, on_term)
    event("start", argv=sys.argv[1:], env={k: v for k, v in os.environ.items() if k.startswith(
        ("LISTEN", "NOTIFY", "QUORATE", "WATCHDOG"))}, listeners=listeners(), masked=interrupt_is_masked(),
        ppid=os.getppid(), group=os.getpgrp())
    if "talk" in WANT:
        os.write(1, b"first line\nsecond line\nno end")
    if "spawn" in WANT and os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.2)
            os._exit(7)
        os._exit(0)
    if "exit" in WANT:
        sys.exit(int(WANT["exit"]))
    if "once" in WANT and once("once"):
        sys.exit(int(WANT["once"]))
    if "silent" not in WANT:
        notify("READY=1")
    if "ready-exit" in WANT:
        sys.exit(int(WANT["ready-exit"]))
    if "end" in WANT and once("end"):
        path = os.path.join(FOLDER, "events")
        while True:
            with open(path) as events:
                pids = [e["pid"] for e in map(json.loads, events) if e["name"] == WANT["end"]]
            if pids:
                break
            time.sleep(0.01)
        notify("X_QUORATE_END_PID=%d" % pids[0])
    if "end-none" in WANT:
        path = os.path.join(FOLDER, "events")
        lives = 0
        while lives < 2:
            notify("X_QUORATE_END_PID=0")
            with open(path) as events:
                lives = sum(e["name"] == WANT["end-none"] and e["event"] == "start" for e in map(json.loads, events))
            time.sleep(0.005)
    trigger = os.path.join(FOLDER, "die-" + NAME)
    while True:
        if "die-on-file" in WANT:
            try:
                os.unlink(trigger)
                sys.exit(1)
            except FileNotFoundError:
                pass
        time.sleep(0.02)


main()
