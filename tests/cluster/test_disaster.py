"""Backup, -force-new-cluster and what follows: a quorum that is lost for good costs no acknowledged write that a
survivor has, no index falls, no id comes again, and a start that would do harm is refused with the mend."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from harness.faults import Shim
from harness.flood import put_all
from harness.places import poll, scratch_dir
from harness.server import clean_environment
from harness.wire import WireError

import hosts
from disaster import backup_of, etcd_index, force, make_backup, plain_member, wait_voters
from members import JSON, Cluster, Writers, kill_daemon, kill_member
from test_faults import HostCluster

pytestmark = pytest.mark.ours

SIZE = os.environ.get("QUORATE_TEST_SIZE", "default")
QUICK, FULL = SIZE == "quick", SIZE == "full"


@pytest.fixture
def folder():
    with scratch_dir("disaster") as path:
        yield path


def write(member, count, prefix="/k"):
    """One after the other: the last but one is known to be committed, in the log of each member."""
    for i in range(count):
        assert member.put("%s/%d" % (prefix, i), str(i)).status in (200, 201)


def write_many(member, count, prefix="/k"):
    put_all(member, {"%s/%d" % (prefix, i): str(i) for i in range(count)})


def has_all(member, count, prefix="/k"):
    values = {node["key"]: node["value"] for node in member.get(prefix).json["node"]["nodes"]}
    for i in range(count):
        assert values.get("%s/%d" % (prefix, i)) == str(i), i


def test_a_members_own_data_keeps_its_ids_and_the_others_ids_never_come_again(three):
    write(three.members[0], 20)
    three.wait_equal()
    before = etcd_index(three.members[0])
    ids = {m["name"]: m["id"] for m in three.list_members()}
    for member in three.members:
        kill_member(member)
    chosen = force(three.members[1])
    has_all(chosen, 20)
    assert etcd_index(chosen) > before
    assert [m["id"] for m in three.list_members(chosen)] == [ids["m2"]]
    for name in ("m1", "m3"):
        assert chosen.ask("DELETE", "/v2/members/" + ids[name]).status == 410
        assert chosen.ask("PUT", "/v2/members/" + ids[name], '{"peerURLs":["http://127.0.0.1:1"]}', JSON).status != 204
    cluster_id = three.members[0].said(r"cluster_id=([0-9a-f]+)").group(1)
    chosen.said("in cluster %s at commit index" % cluster_id)


# ---- Three of five ----


def destroy(member):
    """The machine and its disk."""
    kill_member(member)
    shutil.rmtree(member.data_dir)


def destroy_one_after_the_other(cluster, writers):
    """The leader among them. What is acknowledged once two are gone is on all of the three that are left."""
    leader = cluster.leader()
    victims = [leader] + [m for m in cluster.members if m is not leader][:2]
    for victim in victims[:2]:
        destroy(victim)
    count = len(writers.moments)
    poll(lambda: len(writers.moments) > count + 100, 30, "writes with three of five")
    destroy(victims[2])
    return victims


def destroy_all_at_once(cluster, writers):
    """Four followers would leave no write behind, three leave the leader, who has every acknowledged one."""
    while True:
        leader = cluster.leader()
        victims = [m for m in cluster.members if m is not leader][:3]
        raftds = [victim.daemon("raftd") for victim in victims]
        for pid in raftds:
            os.kill(pid, signal.SIGSTOP)
        if leader.leader_id() == leader.id:
            break  # It leads still, and from here on nobody else can.
        for pid in raftds:
            os.kill(pid, signal.SIGCONT)
    for victim in victims:
        kill_member(victim)
    for victim in victims:
        shutil.rmtree(victim.data_dir)
    return victims


@pytest.mark.slow
@pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing()))
@pytest.mark.parametrize("destroy_three, through", [
    (destroy_one_after_the_other, "backup"), (destroy_all_at_once, "own data")] + ([
        (destroy_one_after_the_other, "own data"), (destroy_all_at_once, "backup")] if FULL else []))
def test_three_of_five_destroyed_under_load_cost_nothing(folder, destroy_three, through):
    with hosts.Network(5) as network, HostCluster(network, ["--snapshot-count=500"]) as cluster:
        cluster.start()
        with Writers(cluster.members) as writers:  # Threads of this one are on the clients' host, too.
            poll(lambda: len(writers.moments) > 1500, 60, "writes")
            victims = destroy_three(cluster, writers)
            survivors = [m for m in cluster.members if m not in victims]
            highest = max(etcd_index(m) for m in survivors)
        for survivor in survivors:
            kill_member(survivor)

        # The survivor whose log goes furthest goes on, alone.
        backups = {m: os.path.join(folder, m.name) for m in survivors}
        positions = {m: backup_of(m, backups[m]) for m in survivors}
        chosen = max(survivors, key=lambda m: positions[m])
        old_ids = {m["id"] for m in listed_before(cluster, chosen)}
        force(chosen, backups[chosen] if through == "backup" else None)
        writers.check(chosen)
        assert etcd_index(chosen) > highest
        listed = cluster.list_members(chosen)
        assert len(listed) == 1
        if through == "backup":
            assert listed[0]["id"] not in old_ids
            assert listed[0]["peerURLs"] == ["http://localhost:2380", "http://localhost:7001"]
        else:
            assert listed[0]["id"] in old_ids
            assert listed[0]["peerURLs"] == [chosen.peer_url]
        highest = etcd_index(chosen)
        chosen.restart()  # and without the flag
        assert etcd_index(chosen) >= highest

        # Its real URL, and back to five, with clients that write all the time.
        answer = cluster.change("PUT", "/v2/members/" + chosen.id, {"peerURLs": [chosen.peer_url]}, through=chosen)
        assert answer.status == 204, answer
        fresh = [m for m in cluster.members if m is not chosen]
        with Writers([chosen]) as more:
            grow(cluster, chosen, fresh)
            count = len(more.moments)
            poll(lambda: len(more.moments) > count + 100, 30, "writes with five")
        cluster.wait_equal()
        for member in cluster.members:
            writers_check_all(writers, more, member)
            assert etcd_index(member) > highest
        ids = {m["id"] for m in cluster.list_members()}
        assert len(ids) == 5 and ids & old_ids == ({chosen.id} & old_ids)
        # It is a cluster that loses any two again.
        for member in (cluster.leader(), cluster.followers()[0]):
            kill_member(member)
        rest = cluster.running()[0]
        poll(lambda: is_writable(rest), 20, "writes with three of five")


def listed_before(cluster, chosen):
    """The members of the dead cluster, as this one's state has them: plain reads need no quorum."""
    chosen.spawn()

    def answers():
        try:
            return cluster.list_members(chosen)
        except (OSError, WireError, ValueError, KeyError):  # Not there yet, or without a state to read from.
            return None

    listed = poll(answers, 20, "members")
    kill_member(chosen)
    return listed


def grow(cluster, chosen, fresh):
    """Adds each of these, one at a time; their folders are new."""
    joined = [chosen]
    for member in fresh:
        shutil.rmtree(member.data_dir, ignore_errors=True)
        answer = cluster.change("POST", "/v2/members", {"peerURLs": [member.peer_url]}, through=chosen)
        assert answer.status == 201, answer
        joined.append(member)
        member.initial = ",".join("%s=%s" % (m.name, m.peer_url) for m in joined)
        member.state = "existing"
        member.start(60)
        assert member.id == answer.json["id"]
    wait_voters(cluster, 5)


def writers_check_all(writers, more, member):
    """Of a key that both sets of clients wrote the later value counts."""
    for key, value in writers.acknowledged.items():
        if key not in more.acknowledged:
            assert member.get(key).status == 200, key
    more.check(member)


# ---- Backup ----


@pytest.mark.slow
def test_a_backup_of_a_running_member_has_all_that_was_acknowledged_before_it_began(folder):
    with Cluster(3, ["--snapshot-count=300", "--max-snapshots=2"]) as cluster:
        cluster.start()
        with Writers(cluster.members) as writers:
            for turn in range(3 if QUICK else 8):
                count = len(writers.moments)
                poll(lambda c=count: len(writers.moments) > c + 400, 60, "writes")
                before = dict(writers.acknowledged)
                leader = cluster.leader()  # Whoever leads by now has all of these.
                target = os.path.join(folder, "b%d" % turn)
                backup_of(leader, target)
                with plain_member("copy") as copy:
                    force(copy, target)
                    for key, value in before.items():
                        answer = copy.get(key)
                        assert answer.status == 200 and int(answer.json["node"]["value"]) >= int(value), (turn, key)


@pytest.mark.slow
def test_a_backup_with_log_folders_of_its_own_is_restored(folder):
    wal, target, target_wal = (os.path.join(folder, name) for name in ("wal", "b", "bw"))
    with plain_member("one", ["--wal-dir=" + wal]) as member:
        member.start()
        write(member, 20)
        done = make_backup(member, target, "--wal-dir=" + wal, "--backup-wal-dir=" + target_wal)
        assert done.returncode == 0, done
        assert not os.path.exists(os.path.join(target, "member", "wal"))
        with plain_member("copy", ["--wal-dir=" + target_wal]) as copy:
            force(copy, target)
            has_all(copy, 20)


@pytest.mark.slow
def test_each_restore_is_a_cluster_of_its_own(three, folder):
    write(three.members[0], 5)
    three.wait_equal()
    ids = set()
    for name in ("a", "b"):
        backup_of(three.members[0], os.path.join(folder, name))
        with plain_member(name) as copy:
            force(copy, os.path.join(folder, name))
            ids.add(copy.said(r"in cluster ([0-9a-f]+) at commit").group(1))
    ids.add(three.members[0].said(r"cluster_id=([0-9a-f]+)").group(1))
    assert len(ids) == 3


def test_a_backup_alone_is_refused_with_the_mend(three, folder):
    write(three.members[0], 5)
    target = os.path.join(folder, "b")
    backup_of(three.members[0], target)
    with plain_member("copy") as copy:
        copy.data_dir = target
        copy.spawn()
        assert copy.wait_end() == 2
        assert "is no member of any cluster yet; start it once with -force-new-cluster" in copy.log()
        force(copy)
        has_all(copy, 5)


def test_a_backup_goes_only_into_an_empty_folder(folder):
    target = os.path.join(folder, "b")
    with plain_member("one") as member:
        member.start()
        os.mkdir(target)
        assert make_backup(member, target).returncode == 0
        done = make_backup(member, target)
        assert done.returncode == 1 and "file already exists; name a folder that is empty" in done.stderr
        done = make_backup(member, member.data_dir)
        assert done.returncode == 1 and "file already exists" in done.stderr
        member.stop()
        shutil.rmtree(os.path.join(member.data_dir, "member", "wal"))
        done = make_backup(member, os.path.join(folder, "c"))
        assert done.returncode == 1 and "there is no log in" in done.stderr
        assert not os.path.exists(os.path.join(folder, "c"))


def test_a_backup_that_cannot_be_begun_leaves_the_folder_as_it_was(folder):
    target = os.path.join(folder, "b")
    kept = os.path.join(target, "member", "kept")
    too_long = folder + "/x" * 2048
    with plain_member("one") as member:
        member.start()
        os.makedirs(kept)
        done = make_backup(member, target, "--backup-wal-dir=" + too_long)
        assert done.returncode == 1 and "no backup was made: " in done.stderr
        assert os.path.isdir(kept)
        done = make_backup(member, target)
        assert done.returncode == 1 and "file already exists" in done.stderr
        assert os.path.isdir(kept)
        # A log whose name is taken by then.
        shutil.rmtree(target)
        taken = os.path.join(folder, "not", "there", "wal")
        done = make_backup(member, target, "--backup-wal-dir=" + taken)
        assert done.returncode == 1 and "no backup was made: " in done.stderr
        assert not os.path.exists(target)


def test_a_backup_that_was_not_finished_is_refused(folder):
    target = os.path.join(folder, "b")
    os.makedirs(os.path.join(target, "member", "wal.part"))
    for flags in ([], ["-force-new-cluster"]):
        with plain_member("copy", flags) as copy:
            copy.data_dir = target
            copy.spawn()
            assert copy.wait_end() == 2
            assert "is of a backup that was not finished; remove the folder" in copy.log()


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def files(member, kind):
    folder = os.path.join(member.data_dir, "member", kind)
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith((".wal", ".snap")))


@pytest.mark.parametrize("runs", [True, False])
def test_a_damaged_log_is_refused_with_file_and_offset_and_nothing_is_left(folder, runs):
    target = os.path.join(folder, "b")
    with plain_member("one") as member:
        member.start()
        write(member, 50)
        if not runs:
            member.stop()
        log = files(member, "wal")[-1]
        flip(log, 2000)
        done = make_backup(member, target)
        assert done.returncode == 1, done
        assert re.search(os.path.basename(log) + r" is damaged at offset \d+", done.stderr), done.stderr
        assert not os.path.exists(target)


@pytest.mark.slow
def test_a_damaged_snapshot_gives_way_to_the_one_before_it_and_stays_where_it_is(folder):
    with plain_member("one", ["--snapshot-count=100"]) as member:
        member.start()
        # One is due once the log behind the last has grown to its size: how far that is depends on when the last was begun.
        while len(files(member, "snap")) < 2:
            write_many(member, 3000)
        poll(lambda: member.log().count("raftd.snapshot.recorded") >= 2, 20, "and recorded")
        member.stop()
        recorded = {int(index) for index in re.findall(r"raftd\.snapshot\.recorded index=(\d+)", member.log())}
        *_, older, newest = [path for path in files(member, "snap") if int(path[-21:-5], 16) in recorded]
        flip(newest, os.path.getsize(newest) // 2)
        target = os.path.join(folder, "b")
        done = make_backup(member, target)
        assert done.returncode == 0, done
        assert os.path.basename(newest) in done.stderr and "checksum does not match" in done.stderr
        assert os.listdir(os.path.join(target, "member", "snap")) == [os.path.basename(older)]
        assert os.path.exists(newest)  # and is not renamed in the source
        with plain_member("copy") as copy:
            force(copy, target)
            has_all(copy, 3000)


@pytest.mark.slow
def test_a_backup_that_is_killed_at_any_step_is_no_data_folder(folder):
    """Held at each of its calls on the target in turn, and killed there: it has a log only when all of it is there."""
    with plain_member("one", ["--snapshot-count=100"]) as member:
        member.start()
        write(member, 110)  # A snapshot, and not much behind it: each entry there is a step.
        poll(lambda: "raftd.snapshot.recorded" in member.log(), 20, "a snapshot")
        member.stop()
        shim = Shim(folder)
        target = os.path.join(folder, "target")
        held = 0
        for nth in range(1, 200, 1 if FULL else 2):
            shutil.rmtree(target, ignore_errors=True)
            shim.forget()
            shim.set("proc=raftd call=any path=target/ nth=%d count=1 do=hold" % nth)
            process = subprocess.Popen(
                [member.binary(), "--data-dir=" + member.data_dir, "--backup-dir=" + target],
                env=clean_environment(shim.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            poll(lambda p=process: shim.hits() or p.poll() is not None, 60, "held or done")
            done = process.poll() is not None
            process.kill()
            process.wait()
            shim.set()
            has_log = os.path.isdir(os.path.join(target, "member", "wal"))
            if has_log:
                with plain_member("copy") as copy:
                    force(copy, target)
                    has_all(copy, 110)
            else:
                # Not to be mistaken for a backup, neither by a start nor by the next try.
                held += 1
                again = make_backup(member, target)
                assert again.returncode == 1 and "file already exists" in again.stderr
            if done:
                assert process.returncode == 0
                break
        assert done and held >= 2, (done, held)


# ---- -force-new-cluster ----


@pytest.mark.slow
def test_it_is_refused_while_another_member_of_the_cluster_runs(three):
    write(three.members[0], 3)
    three.wait_equal()
    stopped, *others = three.members
    kill_member(stopped)
    kill_member(others[0])
    stopped.flags.append("-force-new-cluster")
    stopped.spawn()
    assert stopped.wait_end() == 2
    assert re.search(r"member [0-9a-f]+ of this cluster runs \(%s\)" % re.escape(others[1].peer_url), stopped.log())
    # Nothing has changed: all three go on as before.
    stopped.flags.remove("-force-new-cluster")
    stopped.start()
    others[0].start()
    assert len(three.list_members()) == 3
    has_all(stopped, 3)


@pytest.mark.slow
def test_a_flag_that_is_left_set_throws_nobody_out(three):
    write(three.members[0], 3)
    three.wait_equal()
    for member in three.members:
        kill_member(member)
    chosen = three.members[0]
    chosen.flags.append("-force-new-cluster")
    chosen.start(30)
    for member in three.members[1:]:
        member.close()
    three.members[1:] = []
    added = three.add()
    added.start(30)
    wait_voters(three, 2)
    kill_daemon(chosen, "raftd")  # quorate starts it again, with the same flags
    poll(lambda: is_writable(chosen), 30, "writes with two")
    assert len(three.list_members()) == 2
    kill_member(chosen)
    chosen.spawn()
    assert chosen.wait_end() == 2
    assert "of this cluster runs" in chosen.log()
    chosen.flags.remove("-force-new-cluster")
    chosen.start(30)
    assert len(three.list_members()) == 2


@pytest.mark.slow
def test_a_removed_member_goes_on_as_a_backup_only(three, folder):
    write(three.members[0], 5)
    follower = three.followers()[0]
    assert three.change("DELETE", "/v2/members/" + follower.id, through=three.leader()).status == 204
    assert follower.wait_end() == 0
    follower.flags.append("-force-new-cluster")
    follower.spawn()
    assert follower.wait_end() == 2
    assert "was removed from its cluster, and no id is valid again; make a backup" in follower.log()
    target = os.path.join(folder, "b")
    backup_of(follower, target)
    with plain_member("copy") as copy:
        force(copy, target)
        has_all(copy, 5)


def test_an_empty_folder_is_bootstrapped_as_without_it():
    with plain_member("one") as member:
        force(member)
        member.said("raftd.standalone.no_data")
        assert member.put("/k", "1").json["node"]["createdIndex"] == 4


@pytest.mark.slow
def test_without_the_flag_a_lone_survivor_changes_nothing_and_says_no(three):
    write(three.members[0], 3)
    three.wait_equal()
    for member in three.members[1:]:
        kill_member(member)
    rest = three.members[0]
    assert rest.put("/k/0", "x", timeout=30).status == 500
    assert len(three.list_members(rest)) == 3


@pytest.mark.slow
def test_killed_between_any_two_steps_the_log_is_as_it_was_or_done(folder):
    """raftd is held at each of its calls in turn, on the log's folder, and killed there."""
    with Cluster(3) as cluster:
        cluster.start()
        write(cluster.leader(), 30)
        cluster.wait_equal()
        before = etcd_index(cluster.members[0])
        for member in cluster.members:
            kill_member(member)
        chosen = cluster.members[0]
        kept = os.path.join(folder, "kept")
        shutil.copytree(chosen.data_dir, kept, ignore=shutil.ignore_patterns("run"))
        shim = Shim(folder)
        outcomes = []
        step = 1 if FULL else 3
        for nth in range(1, 100, step):
            shutil.rmtree(chosen.data_dir)
            shutil.copytree(kept, chosen.data_dir)
            shim.forget()
            shim.set("proc=raftd call=any path=member/wal nth=%d count=1 do=hold" % nth)
            chosen.env = shim.env
            chosen.flags.append("-force-new-cluster")
            chosen.spawn()
            held = poll(lambda: "held" if shim.hits() else "ready" if is_writable(chosen, 1) else None, 30, "held or ready")
            chosen.flags.remove("-force-new-cluster")
            chosen.kill()
            shim.set()
            if held == "ready":
                break
            # Without the flag: three members that lack a quorum, or one that is alone and whole.
            chosen.spawn()
            poll(lambda: answers(chosen), 20, "reads")
            is_done = "raftd.leader.known" in life_of(chosen)
            outcomes.append((shim_call(shim), is_done))
            if is_done or poll_quietly(lambda: is_writable(chosen, 1), 0.3):
                poll(lambda: is_writable(chosen), 20, "writes")
            chosen.kill()
            # With it: alone in any case, and nothing is lost.
            force(chosen)
            assert len(cluster.list_members(chosen)) == 1
            has_all(chosen, 30)
            assert etcd_index(chosen) > before
            chosen.kill()
        assert held == "ready", "it never came to serve"
        assert len(outcomes) >= (6 if FULL else 2), outcomes


def shim_call(shim):
    return shim.hits()[0] if shim.hits() else ""


def life_of(member):
    """What its last life has logged."""
    return member.log().rpartition("raftd.log.recovered")[2]


def is_writable(member, timeout=15):
    try:
        return member.put("/probe", "1", timeout=timeout).status in (200, 201)
    except (OSError, ValueError, WireError):
        return False


def answers(member):
    try:
        return member.get("/k/0", timeout=1).status == 200
    except (OSError, WireError):
        return False


def poll_quietly(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
