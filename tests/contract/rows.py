"""Helpers to write a table of the contract as a test: one parametrised case per row, its id names the row."""

import datetime
import re
import time

import pytest

from harness import exchange
from harness.wire import FORM

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
CORS = [
    ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
    ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
    ("Access-Control-Allow-Origin", "*"),
]


def rows(names, table):
    """rows("a, b", {"1.1-first": (1, 2)}): a parametrisation whose ids are the rows' names."""
    return pytest.mark.parametrize(names, list(table.values()), ids=list(table))


def put(port, target, body=b"", headers=(FORM,), **options):
    return exchange(port, "PUT", target, list(headers), body, **options)


def node(answer):
    return answer.json["node"]


def moment(stamp):
    """An expiration, in seconds since 1970."""
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z$", stamp), stamp
    whole, _, fraction = stamp[:-1].partition(".")
    parsed = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return parsed.timestamp() + float("0." + (fraction or "0"))


def in_time(write):
    """What write(TTL) answered, a list: all of it before the first of what it wrote expired. A machine may stand still for longer
    than a short TTL: then the same is written with a longer one."""
    for ttl in (1, 4, 16, 64):
        answers = write(ttl)
        taken = [a for a in answers if a.status in (200, 201)]
        deadlines = [moment(node(a)["expiration"]) for a in taken if "expiration" in node(a)]
        if taken == answers and time.time() < min(deadlines) - 0.1:
            return answers
    raise AssertionError("it expires before it is written: %s" % answers)


def assert_error(answer, status, code, message=None, cause=None, index=None):
    """A keys-style error, its fields and their order."""
    assert answer.status == status, answer
    body = answer.json
    assert body["errorCode"] == code, answer
    expected = ["errorCode", "message"] + (["cause"] if "cause" in body else []) + ["index"]
    assert list(body) == expected
    if message is not None:
        assert body["message"] == message
    if cause is not None:
        assert body.get("cause", "") == cause
    if index is not None:
        assert body["index"] == index
        assert answer.index == index
    assert answer.body.endswith(b"}\n")
    assert answer.header("Content-Type") == JSON
    assert answer.header("X-Etcd-Cluster-Id")
    assert answer.header("X-Raft-Index") is None and answer.header("X-Raft-Term") is None
