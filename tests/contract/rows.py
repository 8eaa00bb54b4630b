"""Helpers to write a table of the contract as a test: one parametrised case per row, its id names the row."""

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
