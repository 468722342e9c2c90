"""What daemon and keeper say to each other, over a real socket."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from umlab.errors import LocalProtocolError, RemoteProtocolError
from umlab.keeper import message
from umlab.keeper.message import MAX_FDS, MAX_MESSAGE, receive, send, set_up

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        set_up(left)
        right.setblocking(False)
        yield left, right


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_message_arrives_with_its_descriptors(pair: Pair) -> None:
    left, right = pair
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    send(left, {"text": "\udcff", "list": [1, None]}, [fd] * MAX_FDS)
    received = receive(right)
    assert received is not None
    assert received[0] == {"text": "\udcff", "list": [1, None]}
    assert len({fd, *received[1]}) == MAX_FDS + 1
    assert all(os.path.sameopenfile(fd, each) for each in received[1])
    assert not any(os.get_inheritable(each) for each in received[1])
    message.close_all([fd, *received[1]])
    # Closed before, which is no error.
    message.close_all([fd])


def test_largest_message_fits_and_one_more_byte_is_refused(pair: Pair) -> None:
    left, right = pair
    empty = len('{"x":""}')
    send(left, {"x": "y" * (MAX_MESSAGE - empty)})
    assert receive(right) == ({"x": "y" * (MAX_MESSAGE - empty)}, [])
    with pytest.raises(LocalProtocolError, match="131073 bytes and 0 descriptors"):
        send(left, {"x": "y" * (MAX_MESSAGE - empty + 1)})
    with pytest.raises(LocalProtocolError, match="254 descriptors"):
        send(left, {}, [0] * (MAX_FDS + 1))
    with pytest.raises(BlockingIOError):
        receive(right)


def test_end_of_the_connection_is_none(pair: Pair) -> None:
    left, right = pair
    send(left, {"last": 1})
    left.close()
    assert receive(right) == ({"last": 1}, [])
    assert receive(right) is None
    with pytest.raises(BrokenPipeError):
        send(right, {})


def test_empty_message_ends_the_connection_too_and_its_descriptors_are_closed(pair: Pair) -> None:
    left, right = pair
    before = descriptors()
    socket.send_fds(left, [b""], [0, 1])
    assert receive(right) is None
    assert descriptors() == before


@pytest.mark.parametrize(
    "data",
    [b"x", b"\xff", b"[]", b"1", b"null", b"[" * 50_000, b'{"a":' * 20_000, b"9" * 5000, b"{}" * MAX_MESSAGE],
    ids=lambda data: data[:20].decode("latin-1"),
)
def test_what_is_no_message_is_an_error_and_its_descriptors_are_closed(pair: Pair, data: bytes) -> None:
    left, right = pair
    before = descriptors()
    socket.send_fds(left, [data], [0, 1])
    with pytest.raises(RemoteProtocolError, match="between daemon and keeper"):
        receive(right)
    assert descriptors() == before


def test_descriptors_that_did_not_all_arrive_are_an_error_and_closed(pair: Pair) -> None:
    left, right = pair
    before = descriptors()
    send(left, {}, [0] * 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, hard))
    try:
        with pytest.raises(RemoteProtocolError, match="cut"):
            receive(right)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before
