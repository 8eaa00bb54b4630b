"""stored stands still while clients write on: what waits for it is bounded, and all goes on when it does."""

import json
import os
import signal
import time

import pytest

import harness
from harness import Connection, Keys, exchange, poll
from harness.faults import Writers
from harness.wire import FORM, WireError
from harness.workers import Workers
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(300)]

MIB = 1 << 20
LOG_BYTES_MAX = 256 * MIB    # BACKLOG_BYTES_MAX of daemons/raftd/backlog.h
QUEUE_BYTES_MAX = 64 * MIB   # WAITING_BYTES_MAX of daemons/raftd/gateways.c


class Flood(Workers):
    """Clients that write a mebibyte, wait for a moment, hang up and come again; `answers` is what they were told. A few wait for what
    they are told: on a slow machine a moment is too short for any answer."""

    def __init__(self, port, count=64, patience=1.0):
        self.port, self.patience = port, patience
        self.answers, self.sent = [], 0
        super().__init__(count, 20)

    def work(self, number):
        body = b"value=" + b"x" * MIB
        while not self.is_over():
            try:
                with Connection(self.port, timeout=60 if number < 4 else self.patience) as connection:
                    self.sent += 1
                    answer = connection.request("PUT", "/v2/keys/flood/%d" % (number % 8), [FORM], body)
                    self.answers.append((answer.status, answer.body[:300]))
            except (OSError, WireError):
                pass
            self.pause(0.01)


def memory_bytes(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))


def folder_bytes(path):
    return sum(os.stat(os.path.join(path, name)).st_blocks * 512 for name in os.listdir(path))


@pytest.mark.slow
def test_a_stored_that_stands_still_under_64_writers_bounds_raftd_and_its_log():
    with harness.new_server() as server:
        server.start()
        log_path = os.path.join(server.data_dir, "member", "wal")
        stored, raftd = server.daemon("stored"), server.daemon("raftd")
        with Writers(server.port, "/w", count=4, timeout=60) as writers:
            writers.wait_for(20)
            # What the log has before; segments are made ahead of their use.
            log_before = folder_bytes(log_path)
            os.kill(stored, signal.SIGSTOP)
            try:
                with Flood(server.port) as flood:
                    def refused():
                        return [body for status, body in flood.answers if status == 500 and b"too many requests" in body]

                    poll(lambda: "raftd.stored.behind" in server.log(), 120, "raftd has enough")
                    poll(refused, 120, "writes are refused")
                    log_then, sent_then = folder_bytes(log_path), flood.sent
                    memory = memory_bytes(raftd)
                    poll(lambda: flood.sent > sent_then + sized(64, 300, 3000), 120, "they go on writing")
                    log_bytes, memory = folder_bytes(log_path), max(memory, memory_bytes(raftd))
                    answer = json.loads(refused()[0])
                    assert b"quorate_writes_wait 1\n" in exchange(server.port, "GET", "/metrics").body
                    # Reads, of course, go on.
                    assert Keys(server.port).get("/w").status == 200
            finally:
                os.kill(stored, signal.SIGCONT)
            assert answer["errorCode"] == 300 and answer["message"] == "Raft Internal Error"
            assert answer["cause"].startswith("etcdserver: too many requests; ")
            assert log_bytes - log_before < LOG_BYTES_MAX + 3 * 64 * MIB, "%d MiB of log" % (log_bytes / MIB)
            assert log_bytes - log_then <= 64 * MIB, "the log went on growing"
            assert memory < 6 * QUEUE_BYTES_MAX, "raftd takes %d MiB" % (memory / MIB)
            poll(lambda: try_put(server.port) in (200, 201), 120, "writes go on")
            poll(lambda: b"quorate_writes_wait 0\n" in exchange(server.port, "GET", "/metrics").body, 20, "and say so")
            writers.wait_for(40, timeout=60)
        assert writers.problems() == []
        server.said(r"raftd\.stored\.caught_up")
        assert server.daemon("raftd") == raftd and server.daemon("stored") == stored
        print("log %d MiB, raftd %d MiB, %d answers, %d sent" % (
            (log_bytes - log_before) / MIB, memory / MIB, len(flood.answers), flood.sent))


def test_many_clients_at_once_are_never_refused():
    """A thousand writes in one moment, and all of them again: that is no backlog."""
    with harness.new_server() as server:
        server.start()
        connections = [server.connect() for _ in range(sized(300, 1000, 1000))]
        for _ in range(sized(3, 10, 30)):
            for number, connection in enumerate(connections):
                connection.send_request("PUT", "/v2/keys/k%d" % (number % 100), [FORM], b"value=" + b"v" * 2000)
            for connection in connections:
                assert connection.read_response().status in (200, 201)
        for connection in connections:
            connection.close()
        assert "raftd.stored.behind" not in server.log()


@pytest.mark.slow
def test_a_restart_far_behind_takes_writes_as_soon_as_it_has_caught_up():
    """Entries beyond the bound are to be applied again: the write that comes meanwhile waits for them and is answered."""
    count = sized(70000, 80000, 200000)
    with harness.new_server(["--snapshot-count=10000000"]) as server:
        server.start()
        fill(server.port, count)
        server.kill()
        # A state that is gone is filled from the log.
        state = os.path.join(server.data_dir, "member", "state")
        os.unlink(os.path.join(state, "MARK"))
        server.spawn()
        began = time.monotonic()
        poll(lambda: try_put(server.port) in (200, 201), 60, "a write is answered")
        print("answered after %.1f s" % (time.monotonic() - began))
        assert Keys(server.port).get("/fill/7").status == 200
        assert "too many requests" not in server.log()


def try_put(port):
    try:
        return Keys(port, 10).put("/early", "v").status
    except (OSError, WireError):
        return 0


def fill(port, count, connections=512):
    """Writes on many connections at once, from one thread."""
    import selectors
    body = b"value=v"

    def request(number):
        return (b"PUT /v2/keys/fill/%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\n%s" % (number % 1000, len(body), body))

    selector, sent, done = selectors.DefaultSelector(), 0, 0
    for _ in range(connections):
        connection = Connection(port)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.send(request(sent))
        sent += 1
    while done < sent:
        for key, _ in selector.select(10):
            assert key.data.read_response().status in (200, 201)
            done += 1
            if sent < count:
                key.data.send(request(sent))
                sent += 1
    for key in list(selector.get_map().values()):
        key.data.close()
