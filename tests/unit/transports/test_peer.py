"""Who is at the other end: this process, with and without a memory file like a guest's."""

from __future__ import annotations

import os
import socket
import tempfile

from umlab.transports import peer
from umlab.transports.contract import Peer


def test_peer_is_the_process_that_connected() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert peer.peer_of(ours) == Peer(
            os.getpid(), os.geteuid(), os.getegid(), None, tuple(os.getgroups())
        )


def test_peer_of_a_guest_has_its_boot() -> None:
    with tempfile.TemporaryFile() as memory:
        memory.truncate(1 << 20)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            boot = peer.peer_of(ours).boot
            assert boot is not None
            assert boot.inode == os.fstat(memory.fileno()).st_ino
