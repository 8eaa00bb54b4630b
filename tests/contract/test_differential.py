"""Random requests to Debian's etcd and to us in lock step: 0 differences.

A failure prints the seed and a few steps that still differ; see diffrun.py for what is compared and how.
QUORATE_TEST_SEED fixes the first seed, QUORATE_TEST_STEPS the number of steps.
"""

import os
import time

import pytest

import diffexpiry
import diffrun
import harness

STEPS = {"quick": 4000, "default": 20000, "full": 200000}
RUN_STEPS = 7000  # More than a thousand events, so that the window of history is left.


def first_seed():
    return int(os.environ.get("QUORATE_TEST_SEED", 0)) or int(time.time()) % 1000000 * 100


@pytest.mark.limit(900)  # 20,000 requests to each of two servers, one after the other
def test_random_requests_are_answered_alike():
    steps = int(os.environ.get("QUORATE_TEST_STEPS", 0)) or STEPS[os.environ.get("QUORATE_TEST_SIZE", "default")]
    seed = first_seed()
    print("seed", seed)
    try:
        assert diffrun.run_many("etcd", harness.target_name(), seed, steps, RUN_STEPS) == steps
    except diffrun.Found as found:
        pytest.fail(diffrun.explain(found, "etcd", harness.target_name()), pytrace=False)


@pytest.mark.limit(300)
def test_expiry_is_reported_alike():
    diffexpiry.play_expiry("etcd", harness.target_name())


def test_the_comparison_notices_a_byte():
    """Proof that it bites: an answer that differs in one byte of its body, one header, or one header's place."""
    from diffnorm import Differs, Side, compare_responses
    from harness.wire import Response

    def response(body=b'{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}\n', headers=None):
        made = Response()
        made.version, made.status, made.reason, made.body = b"HTTP/1.1", 200, b"OK", body
        made.headers = headers or [("Content-Type", "application/json"), ("X-Etcd-Index", "4"), ("Content-Length", str(len(body)))]
        made.interim = 0
        return made

    def differs(a, b):
        try:
            compare_responses(Side(), a, Side(), b, b"GET", b"/v2/keys/a")
        except Differs:
            return True
        return False

    same = response()
    assert not differs(same, response())
    assert differs(same, response(body=same.body.replace(b'"1"', b'"2"')))
    assert differs(same, response(body=same.body[:-1]))
    assert differs(same, response(headers=list(reversed(same.headers))))
    assert differs(same, response(headers=[("content-type", "application/json")] + same.headers[1:]))
    timed = b'{"action":"get","node":{"key":"/a","value":"1","expiration":"2026-11-22T06:42:%02d.5Z","ttl":%d,"modifiedIndex":4,"createdIndex":4}}\n'
    assert not differs(response(timed % (10, 9)), response(timed % (11, 10)))
    assert differs(response(timed % (10, 9)), response(timed % (12, 9)))
    assert differs(response(timed % (10, 9)), response(timed % (10, 7)))
