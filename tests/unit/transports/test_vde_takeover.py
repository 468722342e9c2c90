"""The VDE listener and its sessions in another process: what goes on, and what stays the caller's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from support.recording_sink import RecordingSink
from umlab.transports.contract import KeptSession
from umlab.transports.vde import VdeListener
from unit.transports.test_vde import VdeClient


@pytest.fixture
def directory(short_dir: Path) -> Path:
    return short_dir / "sw"


async def test_sessions_go_on_in_another_process(directory: Path, sink: RecordingSink) -> None:
    before = VdeListener(directory)
    await before.start(sink)
    later = RecordingSink()
    with VdeClient(directory) as client, VdeClient(directory) as other:
        paths = [await client.ask(text=b"a client"), await other.ask()]
        kept = []
        for session in sink.opened:
            fds = tuple(map(os.dup, (session.link.fd, *session.fds)))
            kept.append(KeptSession(session.peer, session.detail, dict(session.state), fds))
        sockets = {name: os.dup(fd) for name, fd in before.descriptors().items()}
        # A process that crashes removes nothing.
        saved = directory.rename(directory.with_name("saved"))
        await before.close()
        saved.rename(directory)

        after = VdeListener(directory)
        await after.start(later, sockets)
        assert after.descriptors() == sockets
        sessions = [after.resume(each) for each in kept]
        assert [each.detail for each in sessions] == ["a client", "v3"]
        assert sessions[0].peer == sink.opened[0].peer
        client.data.send(b"from the client")
        assert os.read(sessions[0].link.fd, 100) == b"from the client"
        os.write(sessions[0].link.fd, b"to the client")
        assert client.data.recv(100) == b"to the client"

        # The end is seen, others are served, and the files go with their ports.
        with VdeClient(directory) as new:
            assert (await new.ask()).parent == directory
        client.stream.shutdown(socket.SHUT_WR)
        await wait_until_async(lambda: sessions[0] in later.closed, 10, "the end of the session")
        assert not paths[0].exists()
        assert paths[1].exists()
        sessions[1].close()
        assert not paths[1].exists()
        for session in sessions:
            os.close(session.link.fd)
        await after.close()
    later.close_links()
    assert later.refused == []
    assert not directory.exists()


@pytest.mark.parametrize("kind", ["no socket", "no name", "abstract", "elsewhere", "undone", "no pair"])
async def test_session_that_cannot_be_resumed_leaves_its_descriptors_to_the_caller(
    directory: Path, sink: RecordingSink, kind: str
) -> None:
    listener = VdeListener(directory)
    await listener.start(sink)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    match kind:
        case "abstract":
            link.bind(b"\0" + os.urandom(16))
        case "undone":
            link.bind(os.fspath(directory / "001.5"))
        case "elsewhere":
            link.bind(os.fspath(directory.with_name("001.5")))
    # A control connection that could go on.
    control, guest = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fds = {"no socket": (null, control.fileno()), "no pair": (link.fileno(),)}.get(
        kind, (link.fileno(), control.fileno())
    )
    with pytest.raises((ValueError, OSError)):
        listener.resume(KeptSession(None, "v3", {}, fds))
    os.close(null)
    for each in (control, guest, link):
        each.close()
    await listener.close()


@pytest.mark.parametrize("names", [(), ("data",)])
async def test_start_with_sockets_of_another_place_leaves_them_to_the_caller(
    directory: Path, sink: RecordingSink, names: tuple[str, ...]
) -> None:
    kept = {name: os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for name in names}
    listener = VdeListener(directory)
    with pytest.raises(LookupError):
        await listener.start(sink, kept)
    await listener.close()
    for fd in kept.values():
        os.close(fd)
