"""The socket of a tunnel: whom it hears, and what is said where it cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from support.deadline import scaled
from support.qemu_peer import free_address
from umlab.transports.tunnel import Socket, cannot_open

UDP = Socket(socket.AF_INET, socket.SOCK_DGRAM, 0)


def test_what_others_sent_before_the_peer_was_connected_to_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = free_address(socket.SOCK_DGRAM)
    with UDP.open(("127.0.0.1", 0), None) as peer, UDP.open(("127.0.0.1", 0), None) as stranger:

        class Attacked(socket.socket):
            def connect(self, peer: Any) -> None:
                stranger.sendto(b"spoofed", address)
                super().connect(peer)

        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Attacked)
            sock = UDP.open(address, peer.getsockname())
        with sock:
            sock.settimeout(scaled(10))
            peer.sendto(b"message", address)
            assert sock.recv(100) == b"message"


@pytest.mark.parametrize(("error", "is_told"), [(errno.EPERM, True), (errno.EACCES, False)])
def test_privilege_is_told_of_where_one_is_missing(error: int, is_told: bool) -> None:
    told = cannot_open("l2tpv3", ("127.0.0.1", 7), OSError(error, os.strerror(error)))
    assert ("CAP_NET_RAW" in str(told)) == is_told
