"""Thousands of links that come and go leave nothing behind, whatever was under way on them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from support.guest_end import (
    BROADCAST,
    GuestEnd,
    frame,
    mac,
    plug,
    plug_headed,
    plug_monitor,
    plug_narrow_stream,
    with_length,
)
from umlab.engine.contract import Engine
from umlab.switch.model import Framing, Link

COUNT = 1500
#: What a process may grow for other reasons; one page of each link would be half as much again.
SLACK = 4 << 20
#: It keeps what is freed for a while, and looks for leaks itself.
IS_SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def plug_stream(engine: Engine) -> GuestEnd:
    """Attach a stream that stops within a frame, in both directions."""
    guest = plug_narrow_stream(engine)
    guest.sock.send(with_length(frame(mac(1), mac(2)))[:-1])
    return guest


def plug_all(engine: Engine) -> GuestEnd:
    """Attach who has all that comes on a socket of its own, which goes with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        return GuestEnd(theirs, engine.attach(Link(ours.detach(), Framing.DATAGRAM, receiver.fileno(), b"")))


@pytest.mark.parametrize("how", [plug_stream, plug_headed, plug_monitor, plug_all])
def test_links_that_come_and_go_leave_nothing(engine: Engine, how: Callable[[Engine], GuestEnd]) -> None:
    sender = plug(engine)

    def come_and_go(times: int) -> None:
        for _ in range(times):
            guest = how(engine)
            sender.send(frame(BROADCAST, mac(3), 9018))
            assert guest.sock.recv(100)
            engine.detach(guest.port_no)
            guest.close()
            engine.take_events()

    come_and_go(COUNT // 5)
    before = resident(), descriptors(), engine.debug_counts()
    come_and_go(COUNT)
    assert (descriptors(), engine.debug_counts()) == before[1:]
    assert IS_SANITIZED or resident() - before[0] < SLACK
    sender.close()
