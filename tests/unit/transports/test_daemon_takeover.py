"""The daemon listener and its sessions in another process: what goes on, and what stays the caller's."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from support.loop_guest import LoopGuest
from support.recording_sink import RecordingSink
from umlab.errors import TransportError
from umlab.transports.contract import KeptSession, Session
from umlab.transports.daemon import DaemonListener
from umlab.wire.daemon import parse_attach_reply


@pytest.fixture
def control(short_dir: Path) -> Path:
    return short_dir / "ctl"


@pytest.fixture
async def listener(control: Path, sink: RecordingSink) -> AsyncIterator[DaemonListener]:
    listening = DaemonListener(control)
    await listening.start(sink)
    yield listening
    await listening.close()


def kept_of(session: Session) -> KeptSession:
    fds = tuple(map(os.dup, (session.link.fd, *session.fds)))
    return KeptSession(session.peer, session.detail, dict(session.state), fds)


async def take_over(
    listening: DaemonListener, sink: RecordingSink, control: Path, data: Path | None = None
) -> DaemonListener:
    """End a listener as a process ends, its files staying, and return the next process's."""
    kept = {name: os.dup(fd) for name, fd in listening.descriptors().items()}
    paths = [control, data] if data else [control]
    for path in paths:
        os.link(path, f"{path}~")
    await listening.close()
    for path in paths:
        os.rename(f"{path}~", path)
    after = DaemonListener(control, data)
    await after.start(sink, kept)
    assert after.descriptors() == kept
    return after


async def test_dump_goes_on_as_a_monitor(
    control: Path, sink: RecordingSink, listener: DaemonListener
) -> None:
    later = RecordingSink()
    with LoopGuest(control) as dump:
        await dump.say(dump.request(3, dump=True))
        await wait_until_async(lambda: len(sink.opened) == 1, 10, "a session")
        kept = kept_of(sink.opened[0])
        after = await take_over(listener, later, control)
        session = after.resume(kept)
        assert (session.detail, session.link.monitor, session.state) == ("dump", True, sink.opened[0].state)
        os.close(session.link.fd)
        await after.close()


@pytest.mark.parametrize("version", [0, 1, 3])
async def test_sessions_go_on_in_another_process(short_dir: Path, sink: RecordingSink, version: int) -> None:
    paths = (short_dir / "ctl0", short_dir / "data")
    listening = DaemonListener(*paths)
    assert listening.descriptors() == {}
    await listening.start(sink)
    later = RecordingSink()
    with LoopGuest(paths[0]) as guest:
        await guest.say(guest.request(version))
        await wait_until_async(lambda: len(sink.opened) == 1, 10, "a session")
        if version:
            name = parse_attach_reply(await guest.read())
        kept = kept_of(sink.opened[0])
        assert len(kept.fds) == 2
        after = await take_over(listening, later, *paths)
        session = after.resume(kept)
        assert (session.detail, session.peer) == (f"v{version}", sink.opened[0].peer)
        assert session.link.rx_address == (guest.name if version == 0 else None)
        os.write(session.link.fd, b"to the guest")
        assert guest.data.recv(100) == b"to the guest"
        if version:
            guest.data.sendto(b"from the guest", name)
            assert os.read(session.link.fd, 100) == b"from the guest"
        else:
            assert session.link.rx_shared_fd == after.descriptors()["data"]
        # Others are served, late padding is taken, and the end is seen.
        with LoopGuest(paths[0]) as new:
            await new.attach(3)
        guest.stream.send(b"\0\0")
        guest.stream.shutdown(socket.SHUT_WR)
        await wait_until_async(lambda: session in later.closed, 10, "the end of the session")
        os.close(session.link.fd)
        await after.close()
    later.close_links()
    assert later.refused == []
    assert list(short_dir.iterdir()) == []


async def test_word_of_a_resumed_guest_ends_its_session(control: Path, sink: RecordingSink) -> None:
    listening = DaemonListener(control.with_name("ctl0"))
    await listening.start(sink)
    with LoopGuest(control.with_name("ctl0")) as guest:
        await guest.attach(3)
        later, kept = RecordingSink(), kept_of(sink.opened[0])
        after = await take_over(listening, later, control.with_name("ctl0"))
        session = after.resume(kept)
        guest.stream.send(b"abc")
        await wait_until_async(lambda: later.closed == [session], 10, "the end of the session")
        assert len(later.refused) == 1
        os.close(session.link.fd)
        await after.close()


async def test_session_that_was_resumed_is_ended_by_us_without_a_report(
    listener: DaemonListener, control: Path, sink: RecordingSink
) -> None:
    with LoopGuest(control) as guest:
        await guest.attach(3)
        kept = kept_of(sink.opened[0])
        sink.opened[0].close()
        session = listener.resume(kept)
        session.close()
        session.close()
        assert await guest.read() == b""
        os.close(session.link.fd)
    assert (sink.closed, sink.refused) == ([], [])


@pytest.mark.parametrize(
    ("state", "count", "error"),
    [
        ({"address": "00" * 108}, 2, TransportError),
        ({"address": "xy"}, 2, ValueError),
        ({"address": 5}, 2, TypeError),
        ({}, 0, ValueError),
        ({}, 1, ValueError),
        ({}, 3, ValueError),
        ({}, 2, OSError),
    ],
)
async def test_session_that_cannot_be_resumed_leaves_its_descriptors_to_the_caller(
    listener: DaemonListener, state: dict[str, object], count: int, error: type[Exception]
) -> None:
    fds = tuple(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(count))
    with pytest.raises(error):
        listener.resume(KeptSession(None, "v3", state, fds))
    for fd in fds:
        os.close(fd)


async def test_session_whose_data_socket_anybody_may_send_to_is_not_resumed(
    control: Path, sink: RecordingSink, listener: DaemonListener
) -> None:
    with LoopGuest(control) as guest:
        await guest.attach(3)
        kept = kept_of(sink.opened[0])
        guest.data.close()
        # The kernel undoes the connection when a frame finds nobody.
        with pytest.raises(ConnectionRefusedError):
            os.write(kept.fds[0], b"to the guest")
        with pytest.raises(OSError, match="not connected"):
            listener.resume(kept)
        for fd in kept.fds:
            os.close(fd)


@pytest.mark.parametrize("names", [(), ("control",), ("data",), ("control", "file")])
async def test_start_with_sockets_of_another_place_leaves_them_to_the_caller(
    short_dir: Path, sink: RecordingSink, names: tuple[str, ...]
) -> None:
    kept = {}
    for name in names:
        if name == "file":
            kept["data"] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        else:
            kept[name] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach()
    listening = DaemonListener(short_dir / "ctl0", short_dir / "data")
    with pytest.raises((LookupError, OSError)):
        await listening.start(sink, kept)
    await listening.close()
    for fd in kept.values():
        os.close(fd)
