"""Contract, section 6: watches."""

import signal

import pytest

from harness import Connection, poll
from harness.flood import Flood
from harness.wire import WireError


# 6.1 Start.

def test_6_1_headers_come_at_once(keys, root):
    with keys.watch(root + "/none/at/all") as watch:
        names = watch.head.names()
        assert watch.head.status == 200
        assert names == ["Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin",
                         "Content-Type", "X-Etcd-Cluster-Id", "X-Etcd-Index", "X-Raft-Index", "X-Raft-Term", "Date",
                         "Transfer-Encoding"]
        assert watch.head.header("Content-Type") == "application/json"


def test_6_1_a_file_in_the_middle_is_fine(keys, root):
    keys.put(root + "/f", "v")
    with keys.watch(root + "/f/below") as watch:
        assert watch.head.status == 200 and watch.silent()


def test_6_1_no_index_means_what_comes_next(keys, root):
    keys.put(root + "/k", "old")
    for query in ("", "waitIndex=0"):
        with keys.watch(root + "/k", query) as watch:
            assert watch.silent(0.05)
            at = keys.put(root + "/k", "new").index
            assert watch.event()["node"]["modifiedIndex"] == at


def test_6_1_outdated_index(fresh_server, fresh_keys):
    with Flood(fresh_server, 1, 10, folder="") as flood:
        flood.write(1100)
    last = fresh_keys.index()
    watch = fresh_keys.watch("/k0", "waitIndex=1")
    answer = watch.head
    watch.close()
    assert answer.status == 400 and answer.index == last
    assert answer.header("X-Raft-Index") is None and answer.header("X-Etcd-Cluster-Id")
    assert answer.json == {"errorCode": 401, "message": "The event in requested index is outdated and cleared",
                           "cause": "the requested history has been cleared [%d/1]" % (last - 999), "index": last}
    # 6.2 The bound.
    with fresh_keys.watch("/k0", "waitIndex=%d" % (last - 999)) as watch:
        assert watch.event()["node"]["modifiedIndex"] == last - 999
    watch = fresh_keys.watch("/k0", "waitIndex=%d" % (last - 1000))
    assert watch.head.json["errorCode"] == 401
    watch.close()


def test_6_1_past_index_answers_at_once(keys, root):
    first = keys.put(root + "/k", "1").index
    keys.put(root + "/k", "2")
    for at, value in ((first, "1"), (first + 1, "2")):
        with keys.watch(root + "/k", "waitIndex=%d" % at) as watch:
            assert watch.event()["node"]["value"] == value


def test_6_1_past_index_without_a_match_goes_live(keys, root):
    first = keys.put(root + "/other", "1").index
    with keys.watch(root + "/k", "waitIndex=%d" % first) as watch:
        assert watch.silent(0.05)
        keys.put(root + "/k", "now")
        assert watch.event()["node"]["value"] == "now"


def test_6_1_future_index(keys, root):
    at = keys.put(root + "/k", "0").index
    with keys.watch(root + "/k", "waitIndex=%d" % (at + 3)) as watch:
        keys.put(root + "/k", "1")
        keys.put(root + "/k", "2")
        assert watch.silent(0.05)
        keys.put(root + "/k", "3")
        assert watch.event()["node"]["value"] == "3"


def test_6_1_one_event_one_chunk_and_the_connection_is_reusable(server, keys, root):
    with keys.watch(root + "/k") as watch:
        keys.put(root + "/k", "v")
        event = watch.event_bytes()
        assert event.startswith(b'{"action":"set"') and event.endswith(b"}\n")
        assert watch.connection.read_chunk() == b""
        assert watch.connection.request("GET", "/v2/keys%s/k" % root).status == 200


def test_6_1_stream_goes_on(keys, root):
    with keys.watch(root, "recursive=true&stream=true") as watch:
        for number in range(50):
            keys.put(root + "/k", str(number))
        assert [watch.event()["node"]["value"] for _ in range(50)] == [str(n) for n in range(50)]
        assert watch.silent(0.05)


def test_6_1_http_1_0_watch(server, keys, root):
    with Connection(server.port) as connection:
        connection.send_request("GET", "/v2/keys%s/k?wait=true" % root, version="1.0")
        head = connection.read_head()
        assert head.version == b"HTTP/1.0" and head.header("Transfer-Encoding") is None
        keys.put(root + "/k", "v")
        assert connection.read_to_end().endswith(b"}\n")


# 6.2 History.

def test_6_2_a_fresh_member_has_history_from_1(fresh_keys):
    with fresh_keys.watch("/k", "waitIndex=1") as watch:
        assert watch.head.status == 200
        fresh_keys.put("/k", "v")
        assert watch.event()["node"]["modifiedIndex"] == 4
    with fresh_keys.watch("/k", "waitIndex=1") as watch:
        assert watch.event()["node"]["modifiedIndex"] == 4


def test_6_2_history_survives_a_restart(fresh_server, fresh_keys):
    first = fresh_keys.put("/k", "1").index
    fresh_keys.put("/k", "2")
    fresh_keys.close()
    fresh_server.restart()
    with fresh_keys.watch("/k", "waitIndex=%d" % first) as watch:
        assert watch.event()["node"]["value"] == "1"


# 6.3 Matching.

def events_of(keys, path, query, act, count=1):
    with keys.watch(path, query + "&stream=true") as watch:
        act()
        got = [watch.event() for _ in range(count)]
        return got if watch.silent(0.1) else "more than %d: %s %r" % (count, got, watch.connection.buffer)


def test_6_3_exact_key(keys, root):
    [event] = events_of(keys, root + "/k", "", lambda: keys.put(root + "/k", "v"))
    assert event["node"]["key"] == root + "/k"


def test_6_3_below_only_when_recursive(keys, root):
    assert events_of(keys, root, "", lambda: keys.put(root + "/a/b", "v"), 0) == []
    [event] = events_of(keys, root, "recursive=true", lambda: keys.put(root + "/a/b", "w"))
    assert event["node"]["key"] == root + "/a/b"


def test_6_3_a_name_that_begins_alike_is_not_below(keys, root):
    assert events_of(keys, root + "/a", "recursive=true", lambda: keys.put(root + "/ab", "v"), 0) == []


def test_6_3_deleted_ancestor_wakes_a_watch_on_an_existing_node(keys, root):
    keys.put(root + "/d/e/k", "v")
    [event] = events_of(keys, root + "/d/e/k", "", lambda: keys.delete(root + "/d", "recursive=true"))
    assert event["action"] == "delete" and event["node"]["key"] == root + "/d" and event["node"]["dir"] is True
    assert event["prevNode"]["key"] == root + "/d"


def test_6_3_deleted_ancestor_leaves_a_watch_on_no_node_asleep(keys, root):
    keys.put(root + "/d/k", "v")
    assert events_of(keys, root + "/d/none", "recursive=true", lambda: keys.delete(root + "/d", "recursive=true"), 0) == []


def test_6_3_existence_counts_at_deletion_time(keys, root):
    keys.put(root + "/d/gone", "v")

    def act():
        keys.put(root + "/d/born", "v")
        keys.delete(root + "/d/gone")
        keys.delete(root + "/d", "recursive=true")

    events = events_of(keys, root + "/d/born", "", act, 2)
    assert [e["action"] for e in events] == ["set", "delete"] and events[1]["node"]["key"] == root + "/d"


def test_6_3_expired_ancestor(keys, root):
    keys.put(root + "/d/k", "v")
    at = keys.put(root + "/d", dir="true", ttl=1, query="prevExist=true").index
    with keys.watch(root + "/d/k", "waitIndex=%d" % (at + 1)) as watch:
        event = watch.event()
    assert event["action"] == "expire" and event["node"] == {
        "key": root + "/d", "dir": True, "modifiedIndex": event["node"]["modifiedIndex"], "createdIndex": event["node"]["createdIndex"]}


def test_6_3_deleted_ancestor_in_history(keys, root):
    keys.put(root + "/d/k", "v")
    at = keys.delete(root + "/d", "recursive=true").index
    for path in ("/d/k", "/d/never"):
        with keys.watch(root + path, "waitIndex=%d" % at) as watch:
            assert watch.event()["node"]["key"] == root + "/d"


@pytest.mark.deviation("D4")
def test_6_3_history_compares_whole_names(keys, root):
    keys.put(root + "/pre/k", "v")
    at = keys.delete(root + "/pre", "recursive=true").index
    with keys.watch(root + "/prefix", "waitIndex=%d" % at) as watch:
        assert watch.silent(0.1)


def test_6_3_refresh_wakes_nobody(keys, root):
    keys.put(root + "/k", "v", ttl=100)
    assert events_of(keys, root + "/k", "", lambda: keys.put(root + "/k", refresh="true", ttl=100, query="prevExist=true"), 0) == []


def test_6_3_hidden_keys_live(keys, root):
    def act():
        keys.put(root + "/_x", "v")
        keys.put(root + "/a/_b/c", "v")
        keys.put(root + "/seen", "v")

    [event] = events_of(keys, root, "recursive=true", act)
    assert event["node"]["key"] == root + "/seen"
    [event] = events_of(keys, root + "/_y", "recursive=true", lambda: keys.put(root + "/_y/k", "v"))
    assert event["node"]["key"] == root + "/_y/k"
    [event] = events_of(keys, root + "/a/_z", "", lambda: keys.put(root + "/a/_z", "v"))
    assert event["node"]["key"] == root + "/a/_z"


@pytest.mark.deviation("D11")
def test_6_3_hidden_keys_in_history(keys, root):
    at = keys.put(root + "/_x", "v").index
    keys.put(root + "/seen", "v")
    with keys.watch(root, "recursive=true&waitIndex=%d" % at) as watch:
        assert watch.event()["node"]["key"] == root + "/seen"


def test_6_3_a_directory_itself(keys, root):
    [event] = events_of(keys, root + "/d", "", lambda: keys.put(root + "/d", dir="true"))
    assert event["node"]["dir"] is True
    [event] = events_of(keys, root + "/d", "", lambda: keys.put(root + "/d", dir="true", ttl=100, query="prevExist=true"))
    assert event["action"] == "update"
    assert events_of(keys, root + "/d", "", lambda: keys.put(root + "/d/k", "v"), 0) == []


def test_6_3_root_watch_sees_user_keys_only(keys, root):
    with keys.watch("/", "recursive=true") as watch:
        keys.put(root + "/k", "v")
        assert watch.event()["node"]["key"] == root + "/k"


def test_6_3_many_watchers_of_one_write(keys, root):
    watches = [keys.watch(root + "/k") for _ in range(20)] + [keys.watch(root, "recursive=true") for _ in range(20)]
    body = keys.put(root + "/k", "v").body
    for watch in watches:
        assert watch.event_bytes() == body
        watch.close()


# 6.4 Streams.

@pytest.mark.deviation("D10")
@pytest.mark.parametrize("query", ["", "prevValue=v"])
@pytest.mark.parametrize("recursive", ["false", "true"])
def test_6_4_a_delete_of_the_watched_node_comes_once(keys, root, query, recursive):
    keys.put(root + "/k", "v")
    [event] = events_of(keys, root + "/k", "recursive=" + recursive, lambda: keys.delete(root + "/k", query))
    assert event["action"] in ("delete", "compareAndDelete")


def test_6_4_a_delete_comes_once_to_the_parent_and_to_a_descendant(keys, root):
    keys.put(root + "/d/k", "v")
    [event] = events_of(keys, root, "recursive=true", lambda: keys.delete(root + "/d/k"))
    keys.put(root + "/d/k", "v")
    [event] = events_of(keys, root + "/d/k", "", lambda: keys.delete(root + "/d", "recursive=true"))


@pytest.mark.deviation("D1")
def test_6_4_a_stream_from_the_past_replays_and_goes_on(keys, root):
    first = keys.put(root + "/k", "0").index
    for number in range(1, 5):
        keys.put(root + "/k", str(number))
    with keys.watch(root + "/k", "stream=true&waitIndex=%d" % first) as watch:
        assert watch.event()["node"]["value"] == "0"
        keys.put(root + "/k", "live")
        assert [watch.event()["node"]["value"] for _ in range(5)] == ["1", "2", "3", "4", "live"]


def test_6_4_a_stream_from_the_future(keys, root):
    at = keys.put(root + "/k", "0").index
    with keys.watch(root + "/k", "stream=true&waitIndex=%d" % (at + 2)) as watch:
        for number in range(1, 4):
            keys.put(root + "/k", str(number))
        assert [watch.event()["node"]["value"] for _ in range(2)] == ["2", "3"]


@pytest.mark.deviation("D2")
def test_6_4_a_stream_that_cannot_follow_is_closed(keys, root):
    """Whoever does not read is disconnected in the end, so that he can notice; what he got before has no gap."""
    count, value = 80, "x" * 500000
    with keys.watch(root + "/k", "stream=true") as watch:
        for number in range(count):
            keys.put(root + "/k", "%d %s" % (number, value), query="noValueOnSuccess=true")
        got = []
        with pytest.raises((WireError, ConnectionError, ValueError)):
            while True:
                event = watch.event()
                if event is None:
                    raise WireError("ended")
                got.append(int(event["node"]["value"].split(" ")[0]))
    assert got == list(range(len(got))) and len(got) < count


# 6.5 The end of a watch.

def test_6_5_disconnect_unregisters(fresh_server, fresh_keys):
    def watchers():
        return fresh_keys.call("GET", "/v2/stats/store").json["watchers"]

    assert watchers() == 0
    open_watches = [fresh_keys.watch("/k%d" % n) for n in range(5)]
    poll(lambda: watchers() == 5, 2, "5 watchers are counted")
    open_watches.pop().close()
    poll(lambda: watchers() == 4, 2, "a disconnect is noticed")
    half = open_watches.pop()
    half.connection.half_close()
    poll(lambda: watchers() == 3, 2, "a half-close is noticed")
    for watch in open_watches + [half]:
        watch.close()
    poll(lambda: watchers() == 0, 2, "none is left")


def test_6_5_server_stop_closes_without_a_last_chunk(fresh_server, fresh_keys):
    with fresh_keys.watch("/k") as watch:
        fresh_server.process.send_signal(signal.SIGTERM)
        assert watch.connection.read_to_end() == b""
    fresh_server.process.wait(10)


# 6.6 Client loops.

def test_6_6_the_prescribed_loop_loses_nothing(keys, root):
    keys.put(root + "/k", "start")
    following = keys.get(root + "/k").index + 1
    for number in range(30):
        keys.put(root + "/k", str(number))
    got = []
    while len(got) < 30:
        with keys.watch(root + "/k", "waitIndex=%d" % following) as watch:
            event = watch.event()
        got.append(event["node"]["value"])
        following = event["node"]["modifiedIndex"] + 1
    assert got == [str(n) for n in range(30)]
