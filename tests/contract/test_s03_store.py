"""Contract, sections 3 and 8: what the store does, and its errors."""


from harness.wire import FORM
from rows import assert_error, node, rows


# 3.1 The response object.

def test_3_1_order_of_fields(keys, root):
    keys.put(root + "/k", "v", ttl=100)
    answer = keys.put(root + "/k", "w", ttl=100)
    assert list(answer.json) == ["action", "node", "prevNode"]
    assert list(node(answer)) == ["key", "value", "expiration", "ttl", "modifiedIndex", "createdIndex"]
    keys.put(root + "/d", dir="true", ttl=100)
    keys.put(root + "/d/k", "v")
    assert list(node(keys.get(root + "/d"))) == ["key", "dir", "expiration", "ttl", "nodes", "modifiedIndex", "createdIndex"]


def test_3_1_what_is_left_out(keys, root):
    keys.put(root + "/k", "")
    assert list(node(keys.get(root + "/k"))) == ["key", "value", "modifiedIndex", "createdIndex"]
    assert node(keys.get(root + "/k"))["value"] == ""
    keys.put(root + "/d", dir="true")
    assert list(node(keys.get(root + "/d"))) == ["key", "dir", "modifiedIndex", "createdIndex"]
    deleted = keys.delete(root + "/k").json
    assert list(deleted["node"]) == ["key", "modifiedIndex", "createdIndex"]
    assert list(deleted["prevNode"]) == ["key", "value", "modifiedIndex", "createdIndex"]


def test_3_1_root_has_no_key_and_no_indexes(keys, root):
    keys.put(root + "/k", "v")
    assert list(node(keys.get("/"))) == ["dir", "nodes"]


# 3.2 Actions.

def test_3_2_get(keys, root):
    keys.put(root + "/k", "v")
    answer = keys.get(root + "/k")
    assert answer.status == 200 and list(answer.json) == ["action", "node"] and answer.json["action"] == "get"


def test_3_2_set_new_is_201(keys, root):
    answer = keys.put(root + "/k", "v")
    assert answer.status == 201 and list(answer.json) == ["action", "node"] and answer.json["action"] == "set"
    assert node(answer)["createdIndex"] == node(answer)["modifiedIndex"] == answer.index


def test_3_2_set_again_is_200_and_created_anew(keys, root):
    first = node(keys.put(root + "/k", "v", ttl=100))
    answer = keys.put(root + "/k", "w")
    assert answer.status == 200
    assert node(answer)["createdIndex"] == node(answer)["modifiedIndex"] == answer.index
    previous = answer.json["prevNode"]
    assert previous["value"] == "v" and previous["modifiedIndex"] == first["modifiedIndex"]
    assert previous["expiration"] == first["expiration"] and 90 < previous["ttl"] <= 100
    assert "expiration" not in node(answer)


def test_3_2_create_is_201(keys, root):
    answer = keys.put(root + "/k", "v", query="prevExist=false")
    assert answer.status == 201 and answer.json["action"] == "create" and "prevNode" not in answer.json


def test_3_2_update_keeps_the_created_index(keys, root):
    first = node(keys.put(root + "/k", "v"))
    answer = keys.put(root + "/k", "w", query="prevExist=true")
    assert answer.status == 200 and answer.json["action"] == "update"
    assert node(answer)["createdIndex"] == first["createdIndex"] and node(answer)["modifiedIndex"] == answer.index
    assert answer.json["prevNode"] == first


def test_3_2_compare_and_swap(keys, root):
    first = node(keys.put(root + "/k", "v"))
    answer = keys.put(root + "/k", "w", query="prevValue=v")
    assert answer.status == 200 and answer.json["action"] == "compareAndSwap"
    assert node(answer)["createdIndex"] == first["createdIndex"] and answer.json["prevNode"] == first


def test_3_2_delete(keys, root):
    first = node(keys.put(root + "/k", "v"))
    answer = keys.delete(root + "/k")
    assert answer.status == 200 and answer.json == {
        "action": "delete", "node": {"key": root + "/k", "modifiedIndex": answer.index, "createdIndex": first["createdIndex"]},
        "prevNode": first}


def test_3_2_delete_of_a_directory(keys, root):
    made = node(keys.put(root + "/d", dir="true"))
    keys.put(root + "/d/k", "v")
    answer = keys.delete(root + "/d", "recursive=true")
    assert answer.json == {
        "action": "delete", "node": {"key": root + "/d", "dir": True, "modifiedIndex": answer.index, "createdIndex": made["createdIndex"]},
        "prevNode": {"key": root + "/d", "dir": True, "modifiedIndex": made["modifiedIndex"], "createdIndex": made["createdIndex"]}}


def test_3_2_compare_and_delete(keys, root):
    first = node(keys.put(root + "/k", "v"))
    answer = keys.delete(root + "/k", "prevValue=v")
    assert answer.status == 200 and answer.json["action"] == "compareAndDelete"
    assert answer.json["prevNode"] == first and "value" not in node(answer)


def test_3_2_expire_is_an_event_only(keys, root):
    answer = keys.put(root + "/k", "v", ttl=1)
    first = node(answer)
    with keys.watch(root + "/k", "waitIndex=%d" % (answer.index + 1)) as watch:
        event = watch.event()
    assert event["action"] == "expire" and list(event["node"]) == ["key", "modifiedIndex", "createdIndex"]
    assert event["prevNode"]["expiration"] == first["expiration"] and event["prevNode"]["value"] == "v"


# 3.3 Rules.

def test_3_3_get_names_the_first_missing_part(keys, root):
    keys.put(root + "/a", dir="true")
    assert_error(keys.get(root + "/a/b/c"), 404, 100, "Key not found", root + "/a/b", keys.index())
    assert_error(keys.get("/nowhere/b/c"), 404, 100, "Key not found", "/nowhere")


def test_3_3_get_through_a_file(keys, root):
    keys.put(root + "/f", "v")
    assert_error(keys.get(root + "/f/x/y"), 400, 104, "Not a directory", root + "/f", keys.index())


def test_3_3_listing_depth(keys, root):
    keys.put(root + "/a/b/c", "v")
    [child] = node(keys.get(root))["nodes"]
    assert child["dir"] is True and "nodes" not in child
    [child] = node(keys.get(root, "recursive=true"))["nodes"]
    assert child["nodes"][0]["nodes"][0]["value"] == "v"
    keys.put(root + "/f", "v")
    assert keys.get(root + "/f", "recursive=true").status == 200


def test_3_3_sorted_sorts_each_level_bytewise(keys, root):
    for name in ["b", "a", "B", "aa", "a/z", "a-", "é", "10", "9", "~"]:
        if name != "a":
            keys.put(root + "/" + name, "v")
    keys.put(root + "/a/y", "v")
    listing = node(keys.get(root, "recursive=true&sorted=true"))
    names = [n["key"] for n in listing["nodes"]]
    assert names == sorted(names, key=lambda n: n.encode())
    inner = [n["key"] for n in next(n for n in listing["nodes"] if n["key"] == root + "/a")["nodes"]]
    assert inner == [root + "/a/y", root + "/a/z"]


def test_3_3_set_through_a_file(keys, root):
    keys.put(root + "/f", "v")
    assert_error(keys.put(root + "/f/x", "v"), 400, 104, None, root + "/f")
    assert_error(keys.put(root + "/f/x/y", "v"), 400, 104, None, root + "/f")


def test_3_3_set_refresh_of_a_missing_key(keys, root):
    assert_error(keys.put(root + "/none", refresh="true", ttl=5), 404, 100)


@rows("method, query", {
    "3.3-root-set": ("PUT", ""), "3.3-root-create": ("PUT", "prevExist=false"), "3.3-root-update": ("PUT", "prevExist=true"),
    "3.3-root-cas": ("PUT", "prevValue=x"), "3.3-root-delete": ("DELETE", "recursive=true"), "3.3-root-delete-plain": ("DELETE", "")})
def test_3_3_root_is_read_only(keys, method, query):
    answer = keys.put("/", "v", query=query) if method == "PUT" else keys.delete("/", query)
    assert_error(answer, 400, 107, "Root is read only", "/", keys.index())


def test_3_3_set_makes_parents(keys, root):
    answer = keys.put(root + "/a/b/c", "v")
    for path in ("/a", "/a/b"):
        parent = node(keys.get(root + path))
        assert parent["dir"] and parent["createdIndex"] == parent["modifiedIndex"] == answer.index


def test_3_3_set_on_a_directory(keys, root):
    keys.put(root + "/d", dir="true")
    assert_error(keys.put(root + "/d", "v"), 403, 102, "Not a file", root + "/d")
    assert_error(keys.put(root + "/d", dir="true"), 403, 102, "Not a file", root + "/d")


def test_3_3_set_dir_replaces_a_file(keys, root):
    keys.put(root + "/k", "v")
    answer = keys.put(root + "/k", "lost", dir="true")
    assert answer.status == 200 and node(answer)["dir"] is True and "value" not in node(answer)
    assert answer.json["prevNode"]["value"] == "v"


def test_3_3_create_failures(keys, root):
    keys.put(root + "/f", "v")
    keys.put(root + "/d", dir="true")
    assert_error(keys.put(root + "/f/x", "v", query="prevExist=false"), 400, 104)
    for name in ("/f", "/d"):
        assert_error(keys.put(root + name, "v", query="prevExist=false"), 412, 105, "Key already exists", root + name)
    assert_error(keys.put(root + "/d", dir="true", query="prevExist=false"), 412, 105)


def test_3_3_create_of_a_directory_ignores_value(keys, root):
    answer = keys.put(root + "/d", "lost", dir="true", query="prevExist=false")
    assert answer.status == 201 and node(answer)["dir"] is True and "value" not in node(answer)


def test_3_3_post_names_the_key_by_the_next_index(keys, root):
    answer = keys.post(root + "/queue", "v")
    assert answer.status == 201 and answer.json["action"] == "create"
    assert node(answer)["key"] == "%s/queue/%020d" % (root, answer.index)
    assert node(keys.get(root + "/queue"))["dir"] is True


def test_3_3_post_on_root_and_below_a_file(keys, root):
    answer = keys.post("/", "v")
    assert node(answer)["key"] == "/%020d" % answer.index
    keys.delete(node(answer)["key"])
    keys.put(root + "/f", "v")
    assert_error(keys.post(root + "/f", "v"), 400, 104, None, root + "/f")


def test_3_3_post_of_a_directory(keys, root):
    answer = keys.post(root, dir="true")
    assert node(answer)["dir"] is True


def test_3_3_post_collides_until_the_index_moves(keys, root):
    following = keys.index() + 2
    keys.put("%s/q/%020d" % (root, following), "v")
    for _ in range(2):
        assert_error(keys.post(root + "/q", "w"), 412, 105)
    keys.put(root + "/other", "v")
    assert keys.post(root + "/q", "w").status == 201


def test_3_3_update_failures(keys, root):
    keys.put(root + "/d", dir="true")
    assert_error(keys.put(root + "/none", "v", query="prevExist=true"), 404, 100, None, root + "/none")
    assert_error(keys.put(root + "/d", "v", query="prevExist=true"), 403, 102, None, root + "/d")


def test_3_3_update_details(keys, root):
    keys.put(root + "/k", "v", ttl=100)
    answer = keys.put(root + "/k", dir="true", query="prevExist=true")
    assert answer.json["action"] == "update" and node(answer)["value"] == "" and "ttl" not in node(answer)
    keys.put(root + "/k", "v", ttl=100)
    assert "ttl" not in node(keys.call("PUT", "/v2/keys%s/k?prevExist=true" % root, [FORM], b"value=w&ttl="))


def test_3_3_update_of_a_directory_leaves_its_stored_index(keys, root):
    made = node(keys.put(root + "/d", dir="true"))
    answer = keys.put(root + "/d", dir="true", ttl=100, query="prevExist=true")
    assert node(answer)["modifiedIndex"] == answer.index > made["modifiedIndex"]
    after = node(keys.get(root + "/d"))
    assert after["modifiedIndex"] == made["modifiedIndex"] and 90 < after["ttl"] <= 100


def test_3_3_compare_and_swap_failures(keys, root):
    keys.put(root + "/d", dir="true")
    assert_error(keys.put(root + "/none", "v", query="prevValue=x"), 404, 100)
    assert_error(keys.put(root + "/d", "v", query="prevValue=x"), 403, 102)
    keys.put(root + "/k", "v")
    assert_error(keys.put(root + "/k", "w", query="prevValue=x"), 412, 101, "Compare failed", "[x != v]")


def test_3_3_compare_and_swap_replaces_the_ttl(keys, root):
    keys.put(root + "/k", "v", ttl=100)
    assert "ttl" not in node(keys.put(root + "/k", "v", query="prevValue=v"))
    assert node(keys.put(root + "/k", "v", query="prevValue=v&dir=true", ttl=50))["ttl"] == 50


def test_3_3_both_conditions_must_hold(keys, root):
    index = node(keys.put(root + "/k", "v"))["modifiedIndex"]
    assert keys.put(root + "/k", "w", query="prevValue=x&prevIndex=%d" % index).status == 412
    assert keys.put(root + "/k", "w", query="prevValue=v&prevIndex=1").status == 412
    assert keys.put(root + "/k", "w", query="prevValue=v&prevIndex=%d" % index).status == 200


def test_3_3_delete_rules(keys, root):
    assert_error(keys.delete(root + "/none"), 404, 100, None, root)
    keys.put(root + "/f", "v")
    assert keys.delete(root + "/f", "dir=true&recursive=true").status == 200
    keys.put(root + "/d", dir="true")
    assert_error(keys.delete(root + "/d"), 403, 102, "Not a file", root + "/d")
    keys.put(root + "/d/_hidden", "v")
    assert_error(keys.delete(root + "/d", "dir=true"), 403, 108, "Directory not empty", root + "/d")
    assert keys.delete(root + "/d", "recursive=true&dir=false").status == 200
    keys.put(root + "/e", dir="true")
    assert keys.delete(root + "/e", "dir=true").status == 200


def test_3_3_compare_and_delete_rules(keys, root):
    assert_error(keys.delete(root + "/none", "prevValue=x"), 404, 100)
    keys.put(root + "/d", dir="true")
    assert_error(keys.delete(root + "/d", "prevValue=x&recursive=true"), 403, 102, None, root + "/d")
    answer = keys.delete("/", "prevValue=x")
    assert_error(answer, 403, 102, "Not a file")
    assert "cause" not in answer.json
    keys.put(root + "/k", "v")
    assert_error(keys.delete(root + "/k", "prevValue=x"), 412, 101, None, "[x != v]")


def test_3_3_causes_of_a_failed_compare(keys, root):
    index = node(keys.put(root + "/k", "5"))["modifiedIndex"]
    assert keys.put(root + "/k", "w", query="prevValue=4").json["cause"] == "[4 != 5]"
    assert keys.put(root + "/k", "w", query="prevIndex=1").json["cause"] == "[1 != %d]" % index
    assert keys.put(root + "/k", "w", query="prevIndex=1&prevValue=4").json["cause"] == "[4 != 5] [1 != %d]" % index
    assert keys.put(root + "/k", "w", query="prevIndex=1&prevValue=5").json["cause"] == "[1 != %d]" % index
    assert keys.put(root + "/k", "w", query="prevIndex=%d&prevValue=4" % index).json["cause"] == "[4 != 5]"
    keys.put(root + "/k", "")
    assert keys.delete(root + "/k", "prevValue=2").json["cause"] == "[2 != ]"


# 3.4 Directories and hidden nodes.

def test_3_4_implicit_parents_are_permanent(keys, root):
    keys.put(root + "/a/k", "v", ttl=100)
    assert "ttl" not in node(keys.get(root + "/a"))


def test_3_4_children_do_not_touch_the_parents_indexes(keys, root):
    made = node(keys.put(root + "/d", dir="true"))
    keys.put(root + "/d/k", "v")
    keys.delete(root + "/d/k")
    after = node(keys.get(root + "/d"))
    assert (after["modifiedIndex"], after["createdIndex"]) == (made["modifiedIndex"], made["createdIndex"])


def test_3_4_a_failed_operation_changes_nothing(keys, root):
    before = keys.index()
    for query in ("prevExist=true", "prevValue=x"):
        keys.put(root + "/a/b/c", "v", query=query)
    assert keys.index() == before
    assert_error(keys.get(root + "/a"), 404, 100)


def test_3_4_empty_directories_stay(keys, root):
    keys.put(root + "/d/k", "v")
    keys.delete(root + "/d/k")
    assert "nodes" not in node(keys.get(root + "/d"))


def test_3_4_hidden_nodes(keys, root):
    keys.put(root + "/_h/k", "v")
    keys.put(root + "/d/_x", "v")
    keys.put(root + "/d/y", "v")
    listed = [n["key"] for n in node(keys.get(root))["nodes"]]
    assert listed == [root + "/d"]
    deep = node(keys.get(root, "recursive=true"))["nodes"]
    assert [n["key"] for n in deep[0]["nodes"]] == [root + "/d/y"]
    assert node(keys.get(root + "/_h/k"))["value"] == "v"
    assert [n["key"] for n in node(keys.get(root + "/_h"))["nodes"]] == [root + "/_h/k"]
    keys.delete(root + "/d/y")
    assert_error(keys.delete(root + "/d", "dir=true"), 403, 108)


# 3.5 The index of an error.

def test_3_5_errors_before_the_log_have_index_0(keys, root):
    assert_error(keys.put(root + "/k", "v", query="ttl=x"), 400, 202, index=0)


def test_3_5_errors_of_the_store_have_its_index(keys, root):
    keys.put(root + "/k", "v")
    at = keys.index()
    assert_error(keys.get(root + "/none"), 404, 100, index=at)
    assert_error(keys.put(root + "/k", "v", query="prevExist=false"), 412, 105, index=at)
    assert_error(keys.delete(root + "/none"), 404, 100, index=at)


# 8 Errors. Each code that a server raises is raised somewhere in this folder; their messages and statuses at one glance:

ERRORS = {
    "8-100": (lambda k, r: k.get(r + "/none"), 404, 100, "Key not found"),
    "8-101": (lambda k, r: (k.put(r + "/k", "v"), k.put(r + "/k", "v", query="prevValue=x"))[1], 412, 101, "Compare failed"),
    "8-102": (lambda k, r: (k.put(r + "/d", dir="true"), k.put(r + "/d", "v"))[1], 403, 102, "Not a file"),
    "8-104": (lambda k, r: (k.put(r + "/k", "v"), k.get(r + "/k/x"))[1], 400, 104, "Not a directory"),
    "8-105": (lambda k, r: (k.put(r + "/k", "v"), k.put(r + "/k", "v", query="prevExist=false"))[1], 412, 105, "Key already exists"),
    "8-107": (lambda k, r: k.put("/", "v"), 400, 107, "Root is read only"),
    "8-108": (lambda k, r: (k.put(r + "/d/k", "v"), k.delete(r + "/d", "dir=true"))[1], 403, 108, "Directory not empty"),
    "8-201": (lambda k, r: k.put(r, "v", query="prevValue="), 400, 201, "PrevValue is Required in POST form"),
    "8-202": (lambda k, r: k.put(r, "v", query="ttl=a"), 400, 202, "The given TTL in POST form is not a number"),
    "8-203": (lambda k, r: k.put(r, "v", query="prevIndex=a"), 400, 203, "The given index in POST form is not a number"),
    "8-209": (lambda k, r: k.put(r, "v", query="dir=a"), 400, 209, "Invalid field"),
    "8-210": (lambda k, r: k.put(r, "v", query="%zz"), 400, 210, "Invalid POST form"),
    "8-211": (lambda k, r: k.put(r, "v", query="refresh=1&ttl=5"), 400, 211, "Value provided on refresh"),
    "8-212": (lambda k, r: k.put(r, query="refresh=1"), 400, 212, "A TTL must be provided on refresh"),
}


@rows("call, status, code, message", ERRORS)
def test_8_errors(keys, root, call, status, code, message):
    assert_error(call(keys, root), status, code, message)
