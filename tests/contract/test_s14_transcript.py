"""Contract, section 14: the golden transcript, line by line on a fresh member."""

import re

from harness.wire import FORM
from rows import in_time

STAMP = r'"expiration":"[^"]*Z"'
LATE = r'(,"ttl":-\d+)?'  # By how many whole seconds, on a machine that stood still.

LINES = [
    ("PUT /foo", "value=bar", 201, '{"action":"set","node":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}'),
    ("PUT /foo", "value=baz", 200, '{"action":"set","node":{"key":"/foo","value":"baz","modifiedIndex":5,"createdIndex":5},"prevNode":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}'),
    ("GET ", None, 200, '{"action":"get","node":{"dir":true,"nodes":[{"key":"/foo","value":"baz","modifiedIndex":5,"createdIndex":5}]}}'),
    ("PUT ", "value=x", 400, '{"errorCode":107,"message":"Root is read only","cause":"/","index":5}'),
    ("DELETE ?prevValue=x", None, 403, '{"errorCode":102,"message":"Not a file","index":5}'),
    ("POST ", "value=x", 201, '{"action":"create","node":{"key":"/00000000000000000006","value":"x","modifiedIndex":6,"createdIndex":6}}'),
    ("PUT /s/f", "value=1", 201, '{"action":"set","node":{"key":"/s/f","value":"1","modifiedIndex":7,"createdIndex":7}}'),
    ("GET /s/f/x/y", None, 400, '{"errorCode":104,"message":"Not a directory","cause":"/s/f","index":7}'),
    ("GET /s/no/x", None, 404, '{"errorCode":100,"message":"Key not found","cause":"/s/no","index":7}'),
    ("PUT /s/d", "dir=true", 201, '{"action":"set","node":{"key":"/s/d","dir":true,"modifiedIndex":8,"createdIndex":8}}'),
    ("PUT /s/d", "dir=true", 403, '{"errorCode":102,"message":"Not a file","cause":"/s/d","index":8}'),
    ("PUT /s/d?prevExist=false", "dir=true", 412, '{"errorCode":105,"message":"Key already exists","cause":"/s/d","index":8}'),
    ("PUT /s/d?prevExist=true&dir=true", "ttl=100", 200, '{"action":"update","node":{"key":"/s/d","dir":true,"expiration":"E","ttl":100,"modifiedIndex":9,"createdIndex":8},"prevNode":{"key":"/s/d","dir":true,"modifiedIndex":8,"createdIndex":8}}'),
    ("GET /s/d", None, 200, '{"action":"get","node":{"key":"/s/d","dir":true,"expiration":"E","ttl":100,"modifiedIndex":8,"createdIndex":8}}'),
    ("PUT /s/d/k", "value=x", 201, '{"action":"set","node":{"key":"/s/d/k","value":"x","modifiedIndex":10,"createdIndex":10}}'),
    ("DELETE /s/d", None, 403, '{"errorCode":102,"message":"Not a file","cause":"/s/d","index":10}'),
    ("DELETE /s/d?dir=true", None, 403, '{"errorCode":108,"message":"Directory not empty","cause":"/s/d","index":10}'),
    ("DELETE /s/d?recursive=true", None, 200, '{"action":"delete","node":{"key":"/s/d","dir":true,"modifiedIndex":11,"createdIndex":8},"prevNode":{"key":"/s/d","dir":true,"expiration":"E","ttl":100,"modifiedIndex":8,"createdIndex":8}}'),
    ("PUT /s/f?prevValue=1", "value=2", 200, '{"action":"compareAndSwap","node":{"key":"/s/f","value":"2","modifiedIndex":12,"createdIndex":7},"prevNode":{"key":"/s/f","value":"1","modifiedIndex":7,"createdIndex":7}}'),
    ("PUT /s/f?prevValue=9&prevIndex=1", "value=3", 412, '{"errorCode":101,"message":"Compare failed","cause":"[9 != 2] [1 != 12]","index":12}'),
    ("PUT /s/f", "dir=true", 200, '{"action":"set","node":{"key":"/s/f","dir":true,"modifiedIndex":13,"createdIndex":13},"prevNode":{"key":"/s/f","value":"2","modifiedIndex":12,"createdIndex":7}}'),
    ("PUT /n?noValueOnSuccess=true", "value=1", 201, '{"action":"set"}'),
    ("PUT /n?ttl=x", "", 400, '{"errorCode":202,"message":"The given TTL in POST form is not a number","cause":"invalid value for \\"ttl\\"","index":0}'),
    ("GET /n?recursive=", None, 400, '{"errorCode":209,"message":"Invalid field","cause":"invalid value for \\"recursive\\"","index":0}'),
    ("PUT /n?wait=true", "", 400, '{"errorCode":209,"message":"Invalid field","cause":"\\"wait\\" can only be used with GET requests","index":0}'),
    ("PUT /n?prevValue=", "", 400, '{"errorCode":201,"message":"PrevValue is Required in POST form","cause":"\\"prevValue\\" cannot be empty","index":0}'),
]


def test_14_golden_transcript(fresh_keys):
    for number, (request, body, status, expected) in enumerate(LINES):
        method, path = request.split(" ")
        answer = fresh_keys.call(method, "/v2/keys" + path, [FORM] if body is not None else [], body.encode() if body is not None else None)
        shown = re.sub(STAMP, '"expiration":"E"', answer.body.decode())
        shown = re.sub(r'"ttl":9\d\b', '"ttl":100', shown)  # What is left of it.
        assert (answer.status, shown) == (status, expected + "\n"), "line %d: %s" % (number + 1, request)


def test_14_raw_watch_exchange(fresh_keys):
    at = fresh_keys.put("/w/b", "v").index
    with fresh_keys.watch("/w", "recursive=true") as watch:
        head = watch.head.head.decode().split("\r\n")
        assert head[0] == "HTTP/1.1 200 OK"
        assert [line.split(":")[0] for line in head[4:10]] == [
            "Content-Type", "X-Etcd-Cluster-Id", "X-Etcd-Index", "X-Raft-Index", "X-Raft-Term", "Date"]
        assert head[10] == "Transfer-Encoding: chunked"
        fresh_keys.put("/w/a", "v")
        event = b'{"action":"set","node":{"key":"/w/a","value":"v","modifiedIndex":%d,"createdIndex":%d}}\n' % (at + 1, at + 1)
        raw = watch.connection.read_until(b"0\r\n\r\n")
        assert raw == b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event)


def test_14_expire_events(fresh_keys):
    made = [answer.index for answer in in_time(lambda ttl: [
        fresh_keys.delete("/ed", "dir=true"), fresh_keys.put("/ed", dir="true", ttl=ttl), fresh_keys.put("/ek", "1", ttl=ttl)][1:])]
    with fresh_keys.watch("/", "recursive=true&stream=true&waitIndex=%d" % (made[1] + 1)) as watch:
        events = [re.sub(STAMP + LATE, '"expiration":"E"', watch.event_bytes().decode()) for _ in range(2)]
    assert events == [
        '{"action":"expire","node":{"key":"/ed","dir":true,"modifiedIndex":%d,"createdIndex":%d},"prevNode":{"key":"/ed","dir":true,"expiration":"E","modifiedIndex":%d,"createdIndex":%d}}\n' % (
            made[1] + 1, made[0], made[0], made[0]),
        '{"action":"expire","node":{"key":"/ek","modifiedIndex":%d,"createdIndex":%d},"prevNode":{"key":"/ek","value":"1","expiration":"E","modifiedIndex":%d,"createdIndex":%d}}\n' % (
            made[1] + 2, made[1], made[1], made[1])]
