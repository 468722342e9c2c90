"""Who connected: this process, with its groups, as far as the kernel tells."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from umlab._peer_credentials import PeerCredentials, peer_credentials, peer_groups


class Refusing(socket.socket):
    """A socket of which the kernel does not tell."""

    number = errno.ERANGE

    def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
        raise OSError(self.number, os.strerror(self.number))


def test_we_have_connected_and_are_in_our_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
        assert sorted(peer_groups(ours)) == sorted(os.getgroups())


@pytest.mark.parametrize("number", [errno.ERANGE, errno.ENOPROTOOPT])
def test_more_groups_than_are_asked_for_are_none(number: int) -> None:
    with Refusing() as sock:
        sock.number = number
        assert peer_groups(sock) == ()


def test_other_errors_are_told() -> None:
    with Refusing() as sock:
        sock.number = errno.ENODATA
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            peer_groups(sock)
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            peer_credentials(sock)


@pytest.mark.needs_root
def test_hundreds_of_groups_of_a_real_process_do_not_make_it_a_member() -> None:
    before = os.getgroups()
    try:
        os.setgroups(range(1, 301))
        ours, theirs = socket.socketpair()
    finally:
        os.setgroups(before)
    with ours, theirs:
        assert peer_groups(ours) == ()
