"""What an operator does when the quorum is lost, as docs/runbooks/quorum-lost.md has it, step by step."""

import re
import subprocess

from harness.places import poll

from members import Member


def make_backup(member, target, *flags):
    """quorate --backup-dir on a member's data, whether it runs or not."""
    return subprocess.run(
        member.wrapper + [member.binary(), "--data-dir=" + member.data_dir, "--backup-dir=" + target, *flags],
        capture_output=True, text=True, timeout=120)


def backup_of(member, target):
    """A backup that must work: (last term, last index)."""
    done = make_backup(member, target)
    assert done.returncode == 0, done
    said = re.search(r"last index (\d+), last term (\d+)", done.stdout)
    return int(said.group(2)), int(said.group(1))


def force(member, data_dir=None, timeout=30):
    """Starts a member with -force-new-cluster, on other data if given, and leaves the flag out from then on."""
    if data_dir is not None:
        member.data_dir = data_dir
    member.flags.append("-force-new-cluster")
    try:
        member.start(timeout)
    finally:
        member.flags.remove("-force-new-cluster")
    return member


def etcd_index(member):
    return int(member.get("/").header("X-Etcd-Index"))


def wait_voters(cluster, count, timeout=30):
    """Until that many members are listed and each has said its name."""

    def there():
        listed = cluster.list_members()
        return len(listed) == count and all(m["name"] for m in listed)

    poll(there, timeout, "%d started members" % count)


def plain_member(name, flags=()):
    """A member that is in nobody's list: for restores."""
    member = Member(name, flags)
    member.initial = "%s=%s" % (name, member.peer_url)
    return member
