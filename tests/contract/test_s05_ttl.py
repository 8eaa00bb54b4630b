"""Contract, section 5: time to live."""

import math
import time

import pytest

from harness import poll
from rows import assert_error, in_time, moment, node


def test_5_expiration_is_now_plus_ttl_in_utc(keys, root):
    before = time.time()
    made = node(keys.put(root + "/k", "v", ttl=100))
    assert before - 1 < moment(made["expiration"]) - 100 < time.time() + 1
    assert made["ttl"] == 100


def test_5_ttl_is_rounded_up(keys, root):
    began = time.time()
    made = node(keys.put(root + "/k", "v", ttl=100))
    late = time.time() - began  # By how much time goes slow behind a write that took so long.
    assert made["ttl"] == 100
    end = moment(made["expiration"])
    poll(lambda: time.time() > end - 98.9 + late, 3, "1.1 s pass")
    before = time.time()
    left = node(keys.get(root + "/k"))["ttl"]
    assert math.ceil(end - time.time() - 0.05) <= left <= math.ceil(end - before + late + 0.05)


def test_5_a_key_expires_not_early(keys, root, measured):
    answer = keys.put(root + "/k", "v", ttl=1)
    made = node(answer)
    with keys.watch(root + "/k", "waitIndex=%d" % (answer.index + 1)) as watch:
        assert watch.event()["action"] == "expire"
    late = time.time() - moment(made["expiration"])
    assert late >= -0.05, late
    measured.times("an expiry's event, after its deadline", [late])
    assert_error(keys.get(root + "/k"), 404, 100)


def test_5_keys_expire_in_the_order_of_their_deadlines(keys, root):
    *_, last = in_time(lambda ttl: [keys.put(root + "/late", "v", ttl=ttl + 1), keys.put(root + "/early", "v", ttl=ttl)])
    with keys.watch(root, "recursive=true&stream=true&waitIndex=%d" % (last.index + 1)) as watch:
        assert [watch.event()["node"]["key"] for _ in range(2)] == [root + "/early", root + "/late"]


def test_5_ttl_0_is_legal_and_expires_at_once(keys, root):
    answer = keys.put(root + "/k", "v", ttl=0)
    assert answer.status == 201 and "expiration" in node(answer) and "ttl" not in node(answer)
    poll(lambda: keys.get(root + "/k").status == 404, 3, "the key is gone")


def test_5_empty_ttl_is_none(keys, root):
    assert "expiration" not in node(keys.put(root + "/k", "v", ttl=""))
    keys.put(root + "/k", "v", ttl=100)
    assert "expiration" not in node(keys.put(root + "/k", "v", ttl=""))


@pytest.mark.parametrize("query", ["", "prevExist=true", "prevValue=v"])
def test_5_a_write_without_ttl_makes_permanent(keys, root, query):
    keys.put(root + "/k", "v", ttl=100)
    assert "ttl" not in node(keys.put(root + "/k", "v", query=query))
    assert "ttl" not in node(keys.get(root + "/k"))


def test_5_ttl_on_directories(keys, root):
    assert node(keys.put(root + "/d", dir="true", ttl=100))["ttl"] == 100
    assert node(keys.put(root + "/e", dir="true", ttl=100, query="prevExist=false"))["ttl"] == 100
    changed = node(keys.put(root + "/d", dir="true", ttl=50, query="prevExist=true"))
    assert changed["ttl"] == 50
    assert "ttl" not in node(keys.put(root + "/d", dir="true", query="prevExist=true"))
    assert "ttl" not in node(keys.get(root + "/d"))
    assert_error(keys.put(root + "/d", dir="true", ttl=50), 403, 102)


def test_5_a_directory_takes_its_children_along(keys, root):
    keys.put(root + "/d/k", "v", ttl=900)
    keys.put(root + "/d/e/f", "v")
    assert keys.put(root + "/d", dir="true", ttl=1, query="prevExist=true").status == 200
    poll(lambda: keys.get(root + "/d/e/f").status == 404, 4, "the directory is gone")
    assert_error(keys.get(root + "/d/k"), 404, 100, None, root + "/d")


@pytest.mark.parametrize("ttl", ["9223372037", "9300000000", "10000000000"])
def test_5_huge_ttl_is_permanent(keys, root, ttl):
    answer = keys.put(root + "/k", "v", ttl=ttl)
    assert answer.status == 201 and "expiration" not in node(answer)


@pytest.mark.deviation("D7")
@pytest.mark.parametrize("ttl", ["9300000000", "18446744073709551615", "18446744073"])
def test_5_huge_ttl_is_permanent_on_update_too(keys, root, ttl):
    """Overflow means permanent, everywhere."""
    keys.put(root + "/k", "v")
    answer = keys.put(root + "/k", "w", ttl=ttl, query="prevExist=true")
    assert "expiration" not in node(answer)


@pytest.mark.deviation("D7")
def test_5_the_largest_ttl_is_permanent(keys, root):
    assert "expiration" not in node(keys.put(root + "/k", "v", ttl="18446744073709551615"))


def test_5_largest_sane_ttl(keys, root):
    assert node(keys.put(root + "/k", "v", ttl=7000000000))["expiration"].startswith("22")


# Refresh.

def test_5_refresh_of_a_file(keys, root):
    first = node(keys.put(root + "/k", "v", ttl=10))
    answer = keys.put(root + "/k", refresh="true", ttl=100)
    assert answer.status == 200 and answer.json["action"] == "set"
    assert node(answer)["value"] == "v" and node(answer)["createdIndex"] != first["createdIndex"] and node(answer)["ttl"] == 100


def test_5_refresh_with_prevExist(keys, root):
    first = node(keys.put(root + "/k", "v", ttl=10))
    answer = keys.put(root + "/k", refresh="true", ttl=100, query="prevExist=true")
    assert answer.json["action"] == "update" and node(answer)["value"] == "v"
    assert node(answer)["createdIndex"] == first["createdIndex"] and "refresh" not in answer.body.decode()


def test_5_refresh_with_conditions(keys, root):
    keys.put(root + "/k", "v", ttl=10)
    assert_error(keys.put(root + "/k", refresh="true", ttl=100, query="prevValue=x"), 412, 101)
    answer = keys.put(root + "/k", refresh="true", ttl=100, query="prevValue=v")
    assert answer.json["action"] == "compareAndSwap" and node(answer)["value"] == "v"


@pytest.mark.parametrize("query", ["", "prevExist=true"])
def test_5_refresh_of_a_missing_key(keys, root, query):
    assert_error(keys.put(root + "/none", refresh="true", ttl=5, query=query), 404, 100)


def test_5_refresh_and_create(keys, root):
    with keys.watch(root, "recursive=true&stream=true") as watch:
        answer = keys.put(root + "/k", refresh="true", ttl=100, query="prevExist=false")
        assert answer.status == 201 and node(answer)["value"] == ""
        assert keys.post(root, refresh="true", ttl=100).status == 201
        assert [watch.event()["action"] for _ in range(2)] == ["create", "create"]


def test_5_refresh_of_a_directory(keys, root):
    keys.put(root + "/d", dir="true")
    assert_error(keys.put(root + "/d", refresh="true", ttl=5), 403, 102)
    answer = keys.put(root + "/d", refresh="true", ttl=500, query="prevExist=true")
    assert answer.json["action"] == "update" and node(answer)["ttl"] == 500


def test_5_refresh_with_dir_on_a_file(keys, root):
    keys.put(root + "/k", "v")
    assert node(keys.put(root + "/k", refresh="true", ttl=500, dir="true"))["dir"] is True


def test_5_refresh_on_get_and_delete_is_only_checked(keys, root):
    keys.put(root + "/k", "v")
    assert keys.get(root + "/k", "refresh=true&ttl=5").json["action"] == "get"
    assert keys.delete(root + "/k", "refresh=true&ttl=5").json["action"] == "delete"


def test_5_refresh_notifies_nobody(keys, root):
    first = keys.put(root + "/k", "v", ttl=100).index
    with keys.watch(root + "/k", "stream=true") as watch:
        for query in ("", "prevExist=true", "prevValue=v"):
            keys.put(root + "/k", refresh="true", ttl=100, query=query)
        last = keys.put(root + "/k", "seen").index
        assert watch.event()["node"]["value"] == "seen"
    with keys.watch(root + "/k", "waitIndex=%d" % (first + 1)) as watch:
        assert watch.event()["node"]["modifiedIndex"] == last == first + 4


def test_5_refresh_moves_the_deadline(keys, root):
    *_, refreshed = in_time(lambda ttl: [
        keys.put(root + "/k", "v", ttl=ttl), keys.put(root + "/k", refresh="true", ttl=ttl + 2, query="prevExist=true")])
    later = moment(node(refreshed)["expiration"])
    with keys.watch(root + "/k", "waitIndex=%d" % (refreshed.index + 1)) as watch:
        assert watch.event()["action"] == "expire"
    assert time.time() >= later - 0.05
