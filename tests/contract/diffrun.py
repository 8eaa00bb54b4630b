"""Plays steps to two servers in lock step and compares what they answer.

    python3 tests/contract/diffrun.py [--seed N] [--steps N] [--run-steps N] [--left etcd] [--right quorate]
                                      [--keep-going] [--replay FILE|-]

The left server is the reference. A run begins with two freshly bootstrapped members, so their indexes agree; a long
test is several runs with seeds that follow from the first. On a difference the run's steps are cut down to few
that still differ, and those are printed as a list which --replay takes.

Watches are compared as transcripts. Where the reference is known to err in history scans and streams (D1, D4, D10,
D11), what it should have said is asked of it in other words: long polls for each event that the history of the
run's own writes says must match, then a live stream. So nothing is left out.
"""

import argparse
import ast
import os
import re
import select
import sys
import time
import urllib.parse

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import diffnorm
from diffgen import Generator
from diffnorm import Differs
from harness import Connection, new_server
from harness.places import HANGS_S
from harness.wire import WireError, chunked, render_request

MARK = re.compile(rb"\{\{([IM])([^}]*)\}\}")
LENGTH_NOT_SHOWN = 2049  # A longer body is chunked, and its HEAD has no length; an answer that is just at the border has one.


class ChunkReader:
    """Reads a watch's chunks as they come, without waiting."""

    def __init__(self, connection):
        self.connection = connection
        self.events = []
        self.finished = False  # the last chunk came
        self.closed = False
        self.garbage = b""

    def pump(self):
        connection = self.connection
        while not self.closed:
            ready, _, _ = select.select([connection], [], [], 0)
            if not ready:
                break
            try:
                data = connection.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                break
            connection.buffer += data
        while not self.finished:
            end = connection.buffer.find(b"\r\n")
            if end < 0:
                break
            size = int(connection.buffer[:end], 16)
            if len(connection.buffer) < end + 2 + size + 2:
                break
            data = connection.buffer[end + 2: end + 2 + size]
            connection.buffer = connection.buffer[end + 4 + size:]
            if size == 0:
                self.finished = True
                self.garbage = connection.buffer
            else:
                self.events.append(data)

    def close(self):
        self.connection.close()


def without_doubles(events):
    """D10: the reference writes a delete of the watched node twice to a stream."""
    return [e for i, e in enumerate(events) if i == 0 or events[i - 1] != e]


class Watched:
    """One watch on both servers. The left transcript may be put together from several connections."""

    def __init__(self, left, right, before=()):
        self.left, self.right, self.before = left, right, list(before)

    def transcripts(self, same_kind):
        self.left.pump()
        self.right.pump()
        right = without_doubles(self.right.events) if same_kind else self.right.events
        return self.before + without_doubles(self.left.events), right

    def ends(self):
        return (self.left.finished, self.left.closed), (self.right.finished, self.right.closed)

    def close(self):
        self.left.close()
        self.right.close()


class History:
    """The events of this run's writes, as (index, key, is a directory's removal, refresh), and who matches them."""

    def __init__(self):
        self.events = []

    def add(self, index, key, removed_dir, refresh):
        self.events.append((index, key, removed_dir, refresh))

    def matches(self, key, recursive, first, last, reference):
        """Indexes in [first, last] that a history scan answers with, by our rule or by the reference's."""
        found = []
        text = b"/" + b"/".join(key)
        for index, at, removed_dir, refresh in self.events:
            if not first <= index <= last or refresh:
                continue
            below = recursive and len(at) > len(key) and at[:len(key)] == key
            if reference:
                above = removed_dir and text.startswith(b"/" + b"/".join(at))
            else:
                below = below and not any(s.startswith(b"_") for s in at[len(key):])
                above = removed_dir and key[:len(at)] == at
            if at == key or below or above:
                found.append(index)
        return found


class Runner:
    def __init__(self, left_kind, right_kind, options=()):
        self.servers = [new_server(options, kind=k, quick_clock=True) for k in (left_kind, right_kind)]
        self.same_kind = left_kind == right_kind
        self.sides = [diffnorm.Side(), diffnorm.Side()]
        self.connections = [None, None]
        self.index = 0
        self.modified = {}
        self.history = History()
        self.watches = {}
        self.count = 0
        self.longest_s = 0.0  # That a request took, from before the first server had it until both had answered.

    def __enter__(self):
        for server in self.servers:
            server.spawn()
        for server in self.servers:
            server.wait_ready()
        return self

    def __exit__(self, *_):
        for watched in self.watches.values():
            watched.close()
        for connection in self.connections:
            if connection is not None:
                connection.close()
        for server in self.servers:
            server.close()

    # Marks.

    def fill(self, data):
        def replace(match):
            if match.group(1) == b"I":
                return b"%d" % max(1, self.index + int(match.group(2)))
            return b"%d" % self.modified.get(match.group(2), 3)

        return MARK.sub(replace, data) if data is not None and b"{{" in data else data

    def render(self, step):
        _, method, target, headers, body, options = step
        target, body = self.fill(target), self.fill(body)
        headers = list(headers)
        if options.get("chunked") and body is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
            data = render_request(method, target, headers, chunked(body, options["chunked"]), options.get("version", "1.1"))
        else:
            data = render_request(method, target, headers, body, options.get("version", "1.1"))
        return target, data

    # Steps.

    def play(self, step):
        self.count += 1
        getattr(self, "play_" + step[0])(*step[1:])

    def ready_connections(self):
        for i in (0, 1):
            if self.connections[i] is None:
                self.connections[i] = Connection(self.servers[i].port)
        return self.connections

    def drop_connections(self):
        for connection in self.connections:
            if connection is not None:
                connection.close()
        self.connections = [None, None]

    def play_req(self, *rest):
        self.exchange([("req",) + rest])

    def play_pipe(self, steps):
        self.exchange(steps)

    def exchange(self, steps):
        rendered = [self.render(step) for step in steps]
        data = b"".join(d for _, d in rendered)
        connections = self.ready_connections()
        began = time.monotonic()
        for side, connection in enumerate(connections):
            try:
                connection.send(data)
            except OSError:
                pass  # Refused while the body was on its way: the answer says so.
        for step, (target, _) in zip(steps, rendered):
            answers = []
            for connection in connections:
                try:
                    answers.append(connection.read_response(step[1].decode()))
                except (WireError, OSError, ValueError) as error:
                    answers.append(error)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if all(isinstance(a, Exception) for a in answers):
                self.drop_connections()
                return
            for side, answer in zip(("left", "right"), answers):
                if isinstance(answer, Exception):
                    raise Differs("%s: %s: %s, the other answered %s" % (
                        side, type(answer).__name__, answer, [a for a in answers if a is not answer]))
            self.judge(step, target, *answers, alone=len(steps) == 1)
            if answers[0].closed or (answers[0].header("Connection") or "").lower() == "close" or \
                    answers[0].version == b"HTTP/1.0" and answers[0].header("Connection") is None:
                for side, connection in zip(("left", "right"), connections):
                    # A refusal below HTTP's level has its text for HEAD too; ours need not.
                    if step[1] == b"HEAD" and answers[0].status == 400 and connection.buffer == b"400 Bad Request":
                        connection.buffer = b""
                    if not connection.ended():
                        raise Differs("%s: the connection stays open or has more: %r" % (side, connection.buffer))
                self.drop_connections()
                return

    def judge(self, step, target, a, b, alone):
        method = step[1]
        if target == b"/health" and a.status != b.status and self.longest_s > 0.9:
            return  # Each asks for a read within a second, which a machine that stands still does not give.
        diffnorm.compare_responses(self.sides[0], a, self.sides[1], b, method, target, self.longest_s)
        if method == b"HEAD" and a.header("Content-Length") != b.header("Content-Length"):
            self.judge_head_lengths(step, a, b, alone)
        index = a.header("X-Etcd-Index")
        if index is not None and int(index) > 0:
            self.index = int(index)
        if method in (b"PUT", b"POST", b"DELETE") and a.status in (200, 201):
            self.remember(step, urllib.parse.unquote_to_bytes(target.split(b"?")[0]), a)

    def judge_head_lengths(self, step, a, b, alone):
        """Lengths may differ by what times in the body differ: ask for the bodies, where they are still the same."""
        if not alone:
            shown = [int(answer.header("Content-Length", LENGTH_NOT_SHOWN)) for answer in (a, b)]
            if abs(shown[0] - shown[1]) > 400:
                raise Differs("HEAD's lengths: %s and %s" % (a, b))
            return
        get = ("req", b"GET") + tuple(step[2:])
        lengths = []
        for side, connection in enumerate(self.ready_connections()):
            if connection.eof or (a, b)[side].closed:
                return
            connection = Connection(self.servers[side].port)
            connection.send(self.render(get)[1])
            lengths.append(connection.read_response("GET"))
            connection.close()
        for head, got in zip((a, b), lengths):
            said, times = head.header("Content-Length"), got.body.count(b'"expiration"')
            if said is not None and abs(int(said) - len(got.body)) > 12 * times:
                raise Differs("HEAD said %s bytes, GET has %d" % (said, len(got.body)))

    def remember(self, step, path, answer):
        method, options = step[1], step[5]
        if not path.startswith(b"/v2/keys"):
            return
        key = tuple(part for part in path[len(b"/v2/keys"):].split(b"/") if part)
        body = answer.body
        action = re.match(rb'\{"action":"(\w+)"', body)
        if not action:
            return
        if method == b"POST":
            key = key + (b"%020d" % self.index,)
        refresh = options.get("refresh", False) and action.group(1) in (b"set", b"update", b"compareAndSwap")
        removed_dir = action.group(1) == b"delete" and b'"prevNode":{"key":' in body and b'"dir":true' in \
            body.split(b'"prevNode":', 1)[1].split(b'"value":', 1)[0]
        self.history.add(self.index, key, removed_dir, refresh)
        self.modified[b"/".join(key)] = self.index

    # Watches.

    def open_watch(self, side, target):
        connection = Connection(self.servers[side].port)
        connection.send(render_request(b"GET", target))
        head = connection.read_head()
        return connection, head

    def play_watch(self, number, target, wanted):
        target = self.fill(target)
        connections, heads = zip(*(self.open_watch(side, target) for side in (0, 1)))
        if heads[0].status != 200 or heads[1].status != 200:
            for connection, head in zip(connections, heads):
                length = head.header("Content-Length")
                if length is None:
                    connection.close()
                    raise Differs("a watch: %r against %r" % heads)
                head.body = connection.read_exactly(int(length))
                connection.close()
            diffnorm.compare_responses(self.sides[0], heads[0], self.sides[1], heads[1], b"GET", target)
            return
        diffnorm.compare_heads(self.sides[0], heads[0], self.sides[1], heads[1], False)
        left, before = connections[0], []
        first = int(self.fill(wanted["index"]) or 0) if wanted["index"] else 0
        if 0 < first <= self.index:
            left, before = self.reference_history(left, target, wanted, first)
        self.watches[number] = Watched(ChunkReader(left), ChunkReader(connections[1]), before)

    def reference_history(self, left, target, wanted, first):
        """The reference's connection for a watch on the past, and the events to put before its own."""
        scan = (wanted["key"], wanted["recursive"], first, self.index)
        ours = self.history.matches(*scan, reference=False)
        theirs = self.history.matches(*scan, reference=True)
        if self.same_kind:
            self.check_model(left, theirs)
            return left, []
        if (ours[:1] == theirs[:1] and not wanted["stream"]):
            return left, []
        if not ours and not theirs:
            return left, []
        left.close()
        if not wanted["stream"]:
            again = ours[0] if ours else self.index + 1
            return self.open_watch(0, self.with_index(target, again))[0], []
        events = []
        for index in ours:
            connection, head = self.open_watch(0, self.with_index(re.sub(rb"stream=\w+", b"stream=0", target), index))
            event = connection.read_chunk()
            connection.close()
            if b'"modifiedIndex":%d,' % index not in event:
                raise AssertionError("the model of history expects index %d, the reference says %r" % (index, event))
            events.append(event)
        return self.open_watch(0, self.with_index(target, self.index + 1))[0], events

    def check_model(self, left, theirs):
        """Against itself the reference shows whether the model of history is right."""
        deadline = time.monotonic() + (1 if theirs else 0.002)
        pattern = re.compile(rb'"node":\{.*?"modifiedIndex":(\d+),', re.S)
        while not pattern.search(left.buffer) and time.monotonic() < deadline:
            if select.select([left], [], [], 0.001)[0]:
                left.buffer += left.sock.recv(65536)
        got = pattern.search(left.buffer)
        if (int(got.group(1)) if got else None) != (theirs[0] if theirs else None):
            raise AssertionError("the model of history expects %s, the reference says %r" % (theirs[:1], left.buffer))

    @staticmethod
    def with_index(target, index):
        return re.sub(rb"waitIndex=\d+", b"waitIndex=%d" % index, target)

    def play_unwatch(self, number):
        watched = self.watches.pop(number, None)
        if watched is None:
            return
        try:
            self.settle({number: watched})
        finally:
            watched.close()

    def play_halfclose(self, number):
        watched = self.watches.pop(number, None)
        if watched is None:
            return
        try:
            self.settle({number: watched})
            if not watched.left.finished:
                for reader in (watched.left, watched.right):
                    reader.connection.half_close()
                self.agree({number: watched}, lambda w: w.ends()[0] == w.ends()[1] and w.left.closed)
        finally:
            watched.close()

    def play_settle(self):
        self.settle(self.watches)
        for number in [n for n, w in self.watches.items() if w.left.finished and w.right.finished]:
            self.watches.pop(number).close()

    def settle(self, watches):
        """Both sides have said the same on each watch; an answer that one side keeps back is waited for."""
        for watched in watches.values():
            watched.transcripts(self.same_kind)
        self.agree(watches, lambda w: True)

    def agree(self, watches, also):
        deadline = None
        for number, watched in watches.items():
            while True:
                left, right = watched.transcripts(self.same_kind)
                if len(left) == len(right) and watched.left.finished == watched.right.finished and also(watched):
                    break
                if deadline is None:
                    deadline = time.monotonic() + HANGS_S
                if time.monotonic() > deadline:
                    raise Differs("watch %d: events\n  %s\n  %s\n ended (last chunk, closed): %s" % (
                        number, left, right, watched.ends()))
                time.sleep(0.001)
            for a, b in zip(left, right):
                diffnorm.compare_bodies(a, b, b"", self.longest_s)
            if watched.left.garbage or watched.right.garbage:
                raise Differs("watch %d: bytes after the last chunk: %r %r" % (
                    number, watched.left.garbage, watched.right.garbage))


class Found(Exception):
    """A difference: at, the number of the step; steps, all that were played."""

    def __init__(self, seed, at, steps, why):
        self.seed, self.at, self.steps, self.why = seed, at, steps, why
        super().__init__("seed %d, step %d: %s\nstep: %r" % (seed, at, why, steps[at]))


def run(left, right, seed, steps, keep_going=None, options=()):
    """Plays steps on two fresh members; raises Found, or hands differences to keep_going and goes on."""
    with Runner(left, right, options) as runner:
        for at, step in enumerate(steps):
            try:
                runner.play(step)
            except Differs as why:
                found = Found(seed, at, steps, why)
                if keep_going is None:
                    raise found from None
                keep_going(found)
                runner.drop_connections()
                if not in_step(runner):
                    return at
        # What was held back comes now or never.
        time.sleep(0.05)
        try:
            runner.play(("settle",))
        except Differs as why:
            found = Found(seed, len(steps) - 1, steps, why)
            if keep_going is None:
                raise found from None
            keep_going(found)
    return len(steps)


def in_step(runner):
    """After a difference: whether both stores still have the same index, so that going on means something."""
    indexes = []
    for server in runner.servers:
        with Connection(server.port) as connection:
            indexes.append(connection.request("GET", "/v2/keys").index)
    return indexes[0] == indexes[1]


def shrink(left, right, found, budget=60.0, options=()):
    """Fewer steps that still differ, found by leaving out ever smaller parts, within the seconds given."""
    deadline = time.monotonic() + budget
    steps = list(found.steps[:found.at + 1])
    if steps[-1][0] != "settle":
        steps.append(("settle",))

    def differs(candidate):
        try:
            run(left, right, found.seed, candidate, None, options)
        except Found:
            return True
        except (OSError, AssertionError, RuntimeError):
            return False
        return False

    part = max(1, len(steps) // 2)
    while part >= 1 and time.monotonic() < deadline:
        at = 0
        while at < len(steps) and time.monotonic() < deadline:
            candidate = steps[:at] + steps[at + part:]
            if candidate and differs(candidate):
                steps = candidate
            else:
                at += part
        part = part // 2 if part > 1 else 0
    return steps


def explain(found, left, right, budget=60.0, options=()):
    """The text that a failing test prints."""
    few = shrink(left, right, found, budget, options)
    return "\n".join([
        str(found), "",
        "minimal replay, %d steps (python3 tests/contract/diffrun.py --replay - reads it):" % len(few),
        "[" + ",\n ".join(repr(s) for s in few) + "]", "",
        "the whole run: python3 tests/contract/diffrun.py --seed %d --steps %d --run-steps %d" % (
            found.seed, len(found.steps), len(found.steps)),
    ])


def run_many(left, right, seed, steps, run_steps, keep_going=None, progress=None):
    """Several runs, steps in all."""
    done = 0
    while done < steps:
        count = min(run_steps, steps - done)
        run(left, right, seed, Generator(seed).steps(count), keep_going)
        done += count
        seed += 1
        if progress:
            progress(done)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--run-steps", type=int, default=6000)
    parser.add_argument("--left", default="etcd")
    parser.add_argument("--right", default="quorate")
    parser.add_argument("--keep-going", action="store_true", help="list differences instead of stopping at one")
    parser.add_argument("--shrink", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--replay", metavar="FILE")
    arguments = parser.parse_args()
    began = time.monotonic()
    differences = []

    def note(found):
        differences.append(found)
        print("- %s\n" % found, flush=True)

    try:
        if arguments.replay:
            source = sys.stdin if arguments.replay == "-" else open(arguments.replay)
            steps = ast.literal_eval(source.read())
            done = run(arguments.left, arguments.right, arguments.seed, steps, note if arguments.keep_going else None)
        else:
            done = run_many(arguments.left, arguments.right, arguments.seed, arguments.steps, arguments.run_steps,
                            note if arguments.keep_going else None,
                            lambda n: print("%d steps, %.0f s" % (n, time.monotonic() - began), flush=True))
    except Found as found:
        print(explain(found, arguments.left, arguments.right, arguments.shrink))
        return 1
    print("%d steps, %d differences, %.0f s" % (done, len(differences), time.monotonic() - began))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
