"""Throw bytes at what reads the messages between daemon and keeper: only `RemoteProtocolError` may come out.

Run: ``python tests/fuzz/fuzz_keeper_message.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.keeper.message import close_all, receive

_LEFT, _RIGHT = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
#: The next descriptor to be opened, unless one was left open.
_NEXT = os.dup(0)
os.close(_NEXT)


def one_input(data: bytes) -> None:
    """Feed one message with two descriptors; it is an object or refused, and nothing stays open."""
    socket.send_fds(_LEFT, [data[:100_000]], [0, 1])
    with contextlib.suppress(RemoteProtocolError):
        received = receive(_RIGHT)
        if received is not None:
            assert isinstance(received[0], dict)
            assert len(received[1]) == 2
            close_all(received[1])
    after = os.dup(0)
    os.close(after)
    assert after == _NEXT


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
