"""Holds a lock of a state's environment until it is killed: what a hostile gatewayd could do.

hold_lock.py DIR writer|readers    prints "held" once it has it
"""

import ctypes
import mmap
import os
import signal
import sys

LMDB = ctypes.CDLL("liblmdb.so.0")
READERS_MUTEX_OFFSET = 8  # behind magic and format of lock.mdb


def hold_writer(folder):
    """The write transaction that nobody ends."""
    env, txn = ctypes.c_void_p(), ctypes.c_void_p()
    assert LMDB.mdb_env_create(ctypes.byref(env)) == 0
    assert LMDB.mdb_env_open(env, folder.encode(), 0, 0o660) == 0
    assert LMDB.mdb_txn_begin(env, None, 0, ctypes.byref(txn)) == 0
    return env, txn


def hold_readers(folder):
    """The mutex under which readers find their slots, taken behind LMDB's back."""
    fd = os.open(os.path.join(folder, "lock.mdb"), os.O_RDWR)
    page = mmap.mmap(fd, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    assert ctypes.CDLL(None).pthread_mutex_lock(ctypes.c_void_p(address + READERS_MUTEX_OFFSET)) == 0
    return page, fd


held = {"writer": hold_writer, "readers": hold_readers}[sys.argv[2]](sys.argv[1])
print("held", flush=True)
signal.pause()
