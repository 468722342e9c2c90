"""The bess listener: each connection is a session, whoever refuses it or not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from support.recording_sink import RecordingSink
from umlab.errors import SocketInUse, StateError, SwitchError
from umlab.switch.model import Framing
from umlab.transports.bess import BessListener
from umlab.transports.contract import KeptSession


def connect(path: Path) -> socket.socket:
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest.connect(os.fspath(path))
    return guest


async def test_each_connection_is_a_session_of_its_own(short_dir: Path, sink: RecordingSink) -> None:
    path = short_dir / "bess"
    listener = BessListener(path)
    assert (listener.kind, listener.where) == ("bess", str(path))
    await listener.start(sink)
    with connect(path) as left, connect(path) as right:
        await wait_until_async(lambda: len(sink.opened) == 2, 10, "two sessions")
        for session in sink.opened:
            assert (session.kind, session.detail, session.link.framing) == ("bess", "", Framing.SEQPACKET)
            assert session.peer is not None
            assert (session.peer.pid, session.peer.uid) == (os.getpid(), os.getuid())
            assert not os.get_blocking(session.link.fd)
            session.close()
        os.write(sink.opened[1].link.fd, b"to right")
        assert right.recv(100) == b"to right"
        left.send(b"from left")
        assert os.read(sink.opened[0].link.fd, 100) == b"from left"
        await listener.close()
        await listener.close()
        assert not path.exists()
        left.send(b"still served by the engine")
    assert (sink.closed, sink.refused) == ([], [])


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refused_session_ends_the_connection(
    short_dir: Path, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    listener = BessListener(str(short_dir / "bess"))
    await listener.start(sink)
    with connect(short_dir / "bess") as guest:
        await wait_until_async(lambda: bool(sink.refused), 10, "the refusal")
        assert guest.recv(100) == b""
    ((kind, reason, peer),) = sink.refused
    assert (kind, reason) == ("bess", error)
    assert peer is not None
    assert peer.pid == os.getpid()
    await listener.close()


async def test_path_in_use_is_refused_and_closing_does_nothing(short_dir: Path, sink: RecordingSink) -> None:
    first, second = BessListener(short_dir / "bess"), BessListener(short_dir / "bess")
    await first.start(sink)
    with pytest.raises(SocketInUse):
        await second.start(sink)
    await second.close()
    connect(short_dir / "bess").close()
    await wait_until_async(lambda: bool(sink.opened), 10, "the first one's session")
    await first.close()


async def test_another_process_goes_on_with_listener_and_connection(
    short_dir: Path, sink: RecordingSink
) -> None:
    path = short_dir / "bess"
    before = BessListener(path)
    assert before.descriptors() == {}
    await before.start(sink)
    with connect(path) as guest:
        await wait_until_async(lambda: len(sink.opened) == 1, 10, "a session")
        old = sink.opened[0]
        kept = {name: os.dup(fd) for name, fd in before.descriptors().items()}
        session = KeptSession(old.peer, old.detail, old.state, (os.dup(old.link.fd), *map(os.dup, old.fds)))
        # As a process ends: its file stays.
        os.link(path, short_dir / "aside")
        await before.close()
        os.rename(short_dir / "aside", path)

        after = BessListener(path)
        await after.start(sink, kept)
        assert after.descriptors() == kept
        resumed = after.resume(session)
        assert (resumed.kind, resumed.peer, resumed.link.framing) == ("bess", old.peer, Framing.SEQPACKET)
        os.write(resumed.link.fd, b"to the guest")
        assert guest.recv(100) == b"to the guest"
        os.close(resumed.link.fd)
        with connect(path):
            await wait_until_async(lambda: len(sink.opened) == 2, 10, "a session on the new one")
        await after.close()
    assert not path.exists()


async def test_what_is_not_its_own_stays_the_callers(short_dir: Path, sink: RecordingSink) -> None:
    listener = BessListener(short_dir / "bess")
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for kept in ({}, {"control": fd}, {"listener": fd}):
        with pytest.raises((LookupError, OSError)):
            await listener.start(sink, kept)
    for fds in ((), (fd, fd)):
        with pytest.raises(ValueError, match="unpack"):
            listener.resume(KeptSession(None, "", {}, fds))
    await listener.close()
    os.close(fd)
