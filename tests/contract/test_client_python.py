"""Debian's python3-etcd, unchanged."""

import threading

import pytest

etcd = pytest.importorskip("etcd", reason="python3-etcd is not installed")



@pytest.fixture
def client(server):
    return etcd.Client(host="127.0.0.1", port=server.port, allow_redirect=False)


def test_write_and_read(client, root):
    made = client.write(root + "/k", "välue")
    assert made.newKey and made.key == root + "/k"
    got = client.read(root + "/k")
    assert got.value == "välue" and got.etcd_index >= got.modifiedIndex > 0 and got.raft_index > 0
    assert client.read(root + "/k", quorum=True).value == "välue"
    assert root + "/k" in client and root + "/none" not in client


def test_get_set_pop_and_errors(client, root):
    client.set(root + "/k", "1")
    assert client.get(root + "/k").value == "1"
    assert client.pop(root + "/k").value == "1"
    with pytest.raises(etcd.EtcdKeyNotFound):
        client.get(root + "/k")
    client.write(root + "/d", None, dir=True)
    with pytest.raises(etcd.EtcdNotFile):
        client.write(root + "/d", "v")
    client.write(root + "/f", "v")
    with pytest.raises(etcd.EtcdNotDir):
        client.write(root + "/f/x", "v")
    with pytest.raises(etcd.EtcdRootReadOnly):
        client.write("/", "v")
    client.write(root + "/d/k", "v")
    with pytest.raises(etcd.EtcdDirNotEmpty):
        client.delete(root + "/d", dir=True)


def test_conditions(client, root):
    client.write(root + "/k", "a", prevExist=False)
    with pytest.raises(etcd.EtcdAlreadyExist):
        client.write(root + "/k", "a", prevExist=False)
    client.test_and_set(root + "/k", "b", "a")
    with pytest.raises(etcd.EtcdCompareFailed):
        client.test_and_set(root + "/k", "c", "a")
    index = client.read(root + "/k").modifiedIndex
    client.write(root + "/k", "d", prevIndex=index)
    with pytest.raises(etcd.EtcdCompareFailed):
        client.delete(root + "/k", prevValue="x")
    client.delete(root + "/k", prevValue="d")


def test_update_of_a_read_object(client, root):
    client.write(root + "/k", "a", ttl=100)
    got = client.read(root + "/k")
    got.value = "b"
    client.update(got)
    after = client.read(root + "/k")
    assert after.value == "b" and after.createdIndex == got.createdIndex


def test_ttl_and_refresh(client, root):
    client.write(root + "/k", "v", ttl=10)
    client.refresh(root + "/k", ttl=100)
    got = client.read(root + "/k")
    assert got.value == "v" and got.ttl in range(90, 101)


def test_append_and_listing(client, root):
    for number in range(3):
        client.write(root + "/queue", str(number), append=True)
    values = [child.value for child in client.read(root + "/queue", recursive=True, sorted=True).children]
    assert values == ["0", "1", "2"]
    client.delete(root, recursive=True)


def test_watch(client, server, root):
    first = client.write(root + "/k", "1").modifiedIndex
    assert client.watch(root + "/k", index=first).value == "1"
    got = []
    other = etcd.Client(host="127.0.0.1", port=server.port)
    thread = threading.Thread(target=lambda: got.append(other.watch(root, recursive=True, index=first + 1, timeout=60)), daemon=True)
    thread.start()
    client.write(root + "/x", "2")
    thread.join(60)
    assert got and got[0].key == root + "/x" and got[0].action == "set"
    with pytest.raises(etcd.EtcdWatchTimedOut):
        client.watch(root + "/k", timeout=0.3)


def test_eternal_watch(client, root):
    first = client.write(root + "/k", "0").modifiedIndex
    for number in range(1, 4):
        client.write(root + "/k", str(number))
    seen = []
    for event in client.eternal_watch(root + "/k", index=first):
        seen.append(event.value)
        if len(seen) == 4:
            break
    assert seen == ["0", "1", "2", "3"]


def test_lock_is_exclusive(server, root):
    """The lock recipe: in-order keys, watched by those who wait."""
    name, inside, most = root.strip("/"), [], []
    guard = threading.Lock()

    def work(number):
        client = etcd.Client(host="127.0.0.1", port=server.port)
        with etcd.Lock(client, name):
            with guard:
                inside.append(number)
                most.append(len(inside))
            client.read("/", quorum=True)
            with guard:
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1, 1]


def test_lock_that_is_held_is_not_taken(server, root):
    first = etcd.Lock(etcd.Client(host="127.0.0.1", port=server.port), root.strip("/"))
    second = etcd.Lock(etcd.Client(host="127.0.0.1", port=server.port), root.strip("/"))
    assert first.acquire(lock_ttl=60) and first.is_acquired
    assert not second.acquire(blocking=False, lock_ttl=60)
    first.release()
    assert second.acquire(lock_ttl=60, timeout=10)
    second.release()


def test_election_by_create_and_ttl(client, root):
    """An election as 2.x users write it: create with a TTL, refresh while leading, the key's end frees the seat."""
    seat = root + "/leader"
    client.write(seat, "one", prevExist=False, ttl=60)
    with pytest.raises(etcd.EtcdAlreadyExist):
        client.write(seat, "two", prevExist=False, ttl=60)
    leads = client.write(seat, None, prevValue="one", prevExist=True, ttl=2, refresh=True)
    assert client.watch(seat, index=leads.modifiedIndex + 1, timeout=60).action == "expire"
    client.write(seat, "two", prevExist=False, ttl=60)
    assert client.read(seat).value == "two"


def test_what_it_asks_of_a_cluster(client, server):
    assert client.machines == [server.url] or client.machines == []
    [member] = client.members.values()
    assert member["clientURLs"] == [server.url]
    assert client.leader["clientURLs"] == [server.url]
    assert client.stats["state"] == "StateLeader"
    assert client.store_stats["setsSuccess"] >= 0
    assert client.leader_stats["followers"] == {}
    assert client.version == "3.4.23" and client.cluster_version == "3.4.0"


def test_machines_are_discovered(server, root):
    client = etcd.Client(host="127.0.0.1", port=server.port, allow_reconnect=True)
    client.write(root + "/k", "v")
    assert client.read(root + "/k").value == "v"
