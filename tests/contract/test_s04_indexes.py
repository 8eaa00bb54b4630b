"""Contract, section 4: which operation moves the index, and by how much."""


from rows import in_time, node

STEPS = {
    "4-set": (1, lambda k: k.put("/a", "v")),
    "4-create": (1, lambda k: k.put("/b", "v", query="prevExist=false")),
    "4-update": (1, lambda k: k.put("/a", "w", query="prevExist=true")),
    "4-cas": (1, lambda k: k.put("/a", "x", query="prevValue=w")),
    "4-refresh": (1, lambda k: k.put("/a", refresh="true", ttl=100, query="prevExist=true")),
    "4-post": (1, lambda k: k.post("/q", "v")),
    "4-cad": (1, lambda k: k.delete("/a", "prevValue=x")),
    "4-delete": (1, lambda k: k.delete("/b")),
    "4-recursive-delete": (1, lambda k: k.delete("/q", "recursive=true")),
    "4-failed-set": (0, lambda k: k.put("/", "v")),
    "4-failed-delete": (0, lambda k: k.delete("/none")),
    "4-failed-cas": (0, lambda k: k.put("/none", "v", query="prevValue=x")),
    "4-get": (0, lambda k: k.get("/")),
    "4-quorum-get": (0, lambda k: k.get("/", "quorum=true")),
}


def test_4_each_operation_moves_the_index_by_its_due(fresh_keys):
    for name, (moves, call) in STEPS.items():
        before = fresh_keys.index()
        call(fresh_keys)
        assert fresh_keys.index() == before + moves, name


def test_4_a_watch_does_not_move_it(keys, root):
    before = keys.index()
    keys.watch(root).close()
    assert keys.index() == before


def test_4_expiry_costs_one_per_node(fresh_keys):
    keys, root = fresh_keys, "/r"
    last = in_time(lambda ttl: [keys.put(root + "/a", "v", ttl=ttl), keys.put(root + "/b", "v", ttl=ttl)])[-1].index
    with keys.watch(root, "recursive=true&stream=true&waitIndex=%d" % (last + 1)) as watch:
        events = [watch.event(), watch.event()]
    assert [e["node"]["modifiedIndex"] for e in events] == [last + 1, last + 2]
    assert [e["node"]["key"] for e in events] == [root + "/a", root + "/b"]


def test_4_expiry_of_a_directory_is_one_event(fresh_keys):
    keys, root = fresh_keys, "/r"
    keys.put(root + "/d", dir="true")
    last = in_time(lambda ttl: [keys.put(root + "/d", dir="true", ttl=ttl, query="prevExist=true"),
                                keys.put(root + "/d/k", "v", ttl=ttl), keys.put(root + "/e", "v", ttl=ttl + 1)])[-1].index
    with keys.watch(root, "recursive=true&stream=true&waitIndex=%d" % (last + 1)) as watch:
        first, second = watch.event(), watch.event()
    assert first["node"]["key"] == root + "/d" and first["node"]["dir"] is True
    assert second["node"]["key"] == root + "/e" and second["node"]["modifiedIndex"] == last + 2


def test_4_first_write_of_a_fresh_member_is_4(fresh_keys):
    answer = fresh_keys.put("/foo", "bar")
    assert node(answer) == {"key": "/foo", "value": "bar", "modifiedIndex": 4, "createdIndex": 4}


def test_4_a_restart_costs_one(fresh_server, fresh_keys):
    last = fresh_keys.put("/foo", "bar").index
    fresh_keys.close()
    fresh_server.restart()
    assert fresh_keys.index() == last + 1
    assert node(fresh_keys.get("/foo"))["modifiedIndex"] == last


def test_4_header_is_the_new_index_on_a_write_and_the_global_one_on_a_get(keys, root):
    first = keys.put(root + "/a", "v")
    assert first.index == node(first)["modifiedIndex"]
    last = keys.put(root + "/b", "v").index
    assert keys.get(root + "/a").index == last


def test_4_header_of_a_watch_is_the_index_of_its_registration(keys, root):
    at = keys.put(root + "/a", "v").index
    with keys.watch(root + "/a") as watch:
        keys.put(root + "/other", "v")
        keys.put(root + "/a", "w")
        assert watch.head.index == at and watch.event()["node"]["modifiedIndex"] == at + 2


def test_4_raft_headers(keys, root):
    first = keys.put(root + "/a", "v")
    second = keys.put(root + "/a", "w")
    assert int(second.header("X-Raft-Index")) > int(first.header("X-Raft-Index")) > 0
    assert int(first.header("X-Raft-Term")) >= 1
    failed = keys.get(root + "/none")
    assert failed.header("X-Raft-Index") is None and failed.header("X-Raft-Term") is None


def test_4_indexes_survive_a_kill(fresh_server, fresh_keys):
    last = [fresh_keys.put("/k%d" % n, "v").index for n in range(20)][-1]
    fresh_keys.close()
    fresh_server.kill()
    fresh_server.start()
    assert fresh_keys.index() == last + 1
    listing = node(fresh_keys.get("/", "sorted=true"))["nodes"]
    assert sorted(n["modifiedIndex"] for n in listing) == list(range(last - 19, last + 1))
