"""Whatever is written between daemon and keeper is read as it was, or refused as a whole."""

from __future__ import annotations

import contextlib
import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.keeper.message import close_all, receive, send

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(), children, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters()), VALUES, max_size=8), st.integers(0, 5))
def test_message_is_read_as_written(message: dict[str, object], count: int) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        send(left, message, [left.fileno()] * count)
        received = receive(right)
        assert received is not None
        close_all(received[1])
        assert (received[0], len(received[1])) == (message, count)


@given(st.binary(max_size=300) | VALUES.map(lambda value: repr(value).encode("utf-8", "replace")))
def test_any_bytes_are_a_message_the_end_or_a_protocol_error(data: bytes) -> None:
    before = os.listdir("/proc/self/fd")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        socket.send_fds(left, [data], [0])
        with contextlib.suppress(RemoteProtocolError):
            received = receive(right)
            if received is None:
                assert not data
            else:
                assert isinstance(received[0], dict)
                close_all(received[1])
    assert os.listdir("/proc/self/fd") == before
