"""What every black-box suite stands on: servers under test, the wire, and things that clean up.

places   free ports, temporary folders on a real file system, waiting without sleeping blindly
server   a member under test: ours (the quorate launcher) or Debian's etcd with the same flags
wire     HTTP/1.1 on a bare socket, so that a test sees the bytes that a client would see
keys     short spellings for the v2 keys API

Only the standard library is used, and only processes started here are ever signalled.
"""

from harness.places import FreePort, comes_true, free_ports, patience, poll, scratch_dir, scratch_root
from harness.server import Server, Etcd, Quorate, build_dir, new_server, target_name
from harness.wire import Connection, Response, exchange, form
from harness.keys import Keys

__all__ = [
    "Connection", "Etcd", "FreePort", "Keys", "Quorate", "Response", "Server", "build_dir", "comes_true", "exchange", "form",
    "free_ports", "new_server", "patience", "poll", "scratch_dir", "scratch_root", "target_name",
]
