"""Socket pairs as ports: what a switch is told of one, and that a large frame goes through it."""

from __future__ import annotations

import os
import socket

import pytest

from support.recording_sink import RecordingSink
from umlab.errors import StateError
from umlab.switch.model import Framing
from umlab.transports.contract import KeptSession, Peer
from umlab.transports.fd import FdListener, socket_pair

PEER = Peer(4711, 1000, 1000, None)


async def test_end_becomes_a_session_of_the_guest(sink: RecordingSink) -> None:
    listener = FdListener()
    await listener.start(sink)
    assert (listener.kind, listener.where, listener.arguments, listener.descriptors()) == ("fd", "", (), {})
    ours, theirs = socket_pair()
    with ours, theirs:
        assert listener.plug(ours, PEER, "left vec0") == 1
        assert ours.fileno() < 0, "it is the switch's now"
        (session,) = sink.opened
        assert (session.kind, session.detail, session.peer) == ("fd", "left vec0", PEER)
        assert session.link.framing is Framing.SEQPACKET
        session.close()
        await listener.close()
        frame = os.urandom(16_014)
        theirs.send(frame)
        assert os.read(session.link.fd, 65_536) == frame
        os.write(session.link.fd, frame[::-1])
        assert theirs.recv(65_536) == frame[::-1]
    assert os.read(session.link.fd, 1) == b"", "the end of the guest's end"


async def test_end_without_a_port_stays_the_callers(sink: RecordingSink) -> None:
    sink.refusal = StateError("it does not run")
    listener = FdListener()
    await listener.start(sink)
    ours, theirs = socket_pair()
    with ours, theirs:
        with pytest.raises(StateError):
            listener.plug(ours, PEER, "")
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


async def test_another_process_goes_on_with_the_end(sink: RecordingSink) -> None:
    listener = FdListener()
    await listener.start(sink, {})
    ours, theirs = socket_pair()
    with theirs:
        session = listener.resume(KeptSession(PEER, "left vec0", {}, (ours.detach(),)))
        assert (session.kind, session.detail, session.peer) == ("fd", "left vec0", PEER)
        os.write(session.link.fd, b"a frame")
        assert theirs.recv(100) == b"a frame"
        os.close(session.link.fd)
    for fds in ((), (0, 1)):
        with pytest.raises(ValueError, match="unpack"):
            listener.resume(KeptSession(None, "", {}, fds))
    assert sink.opened == []


def test_neither_end_waits_and_both_hold_many_frames() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    ours, theirs = socket_pair()
    with ours, theirs:
        for end in (ours, theirs):
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > default
            for _ in range(90):
                end.send(bytes(1514))
            assert not end.getblocking()
