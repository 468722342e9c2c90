"""The daemon listener and its guests' control connections, with a sink instead of a switch."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.deadline import wait_until_async
from support.loop_guest import LoopGuest
from support.recording_sink import RecordingSink
from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports import acceptor
from umlab.transports import control as control_module
from umlab.transports.contract import Peer
from umlab.transports.control import MAX_SILENT, ControlSocket
from umlab.transports.daemon import DaemonListener
from umlab.transports.datasocket import open_data_socket
from umlab.wire.daemon import MAGIC, parse_attach_reply
from umlab.wire.sockaddr import pad_path

UNREACHABLE = "the guest's data socket {} cannot be reached"


@pytest.fixture
def control(short_dir: Path) -> Path:
    return short_dir / "ctl"


@pytest.fixture
async def listener(control: Path, sink: RecordingSink) -> AsyncIterator[DaemonListener]:
    listening = DaemonListener(control)
    await listening.start(sink)
    yield listening
    await listening.close()
    assert not control.exists()


pytestmark = pytest.mark.usefixtures("listener")


def served_by(listener: DaemonListener) -> ControlSocket:
    """Return a listener's connections."""
    assert listener._control is not None
    return listener._control


# A guest attaches.


@pytest.mark.parametrize("version", [1, 3])
async def test_guest_gets_a_data_socket_of_its_own(control: Path, sink: RecordingSink, version: int) -> None:
    with LoopGuest(control) as left, LoopGuest(control) as right:
        names = [await left.attach(version), await right.attach(version)]
        assert names[0] != names[1]
        for name in names:
            assert re.fullmatch(rb"\0umlab-[0-9a-f]{32}\0{69}", name), "programs that read /proc/net/unix can"
        for guest, name, session in zip((left, right), names, sink.opened, strict=True):
            assert (session.kind, session.detail) == ("daemon", f"v{version}")
            assert session.peer == Peer(os.getpid(), os.geteuid(), os.getegid(), None)
            assert session.link.framing is Framing.DATAGRAM
            assert session.link.rx_shared_fd is None
            assert not os.get_blocking(session.link.fd)
            guest.data.sendto(b"from the guest", name)
            assert os.read(session.link.fd, 100) == b"from the guest"
            os.write(session.link.fd, b"to the guest")
            assert guest.data.recv(100) == b"to the guest"
        with pytest.raises(PermissionError):
            right.data.sendto(b"from another guest", names[0])


async def test_dump_is_a_monitor_with_the_reply_of_a_guest(control: Path, sink: RecordingSink) -> None:
    with LoopGuest(control) as dump:
        await dump.say(dump.request(3, dump=True) + b"\0\0")
        assert len(await dump.read()) == 110
        (session,) = sink.opened
        assert (session.kind, session.detail, session.link.monitor) == ("daemon", "dump", True)
        assert session.link.framing is Framing.DATAGRAM
        os.write(session.link.fd, b"a frame")
        assert dump.data.recv(100) == b"a frame"
        dump.stream.shutdown(socket.SHUT_WR)
        assert await dump.read() == b""
    assert sink.closed == sink.opened


async def test_guest_with_a_path_gets_its_frames(control: Path, short_dir: Path, sink: RecordingSink) -> None:
    with LoopGuest(control, os.fsencode(short_dir / "guest")) as guest:
        await guest.attach()
        os.write(sink.opened[0].link.fd, b"to the guest")
        assert guest.data.recv(100) == b"to the guest"


async def test_reply_is_110_bytes_and_then_there_is_silence(control: Path) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(3))
        assert len(await guest.read()) == 110
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            guest.stream.recv(1)


@pytest.mark.parametrize("version", [1, 3])
async def test_request_that_comes_byte_by_byte_is_one_request(
    control: Path, sink: RecordingSink, version: int
) -> None:
    with LoopGuest(control) as guest:
        for byte in guest.request(version):
            assert sink.opened == []
            await guest.say(bytes((byte,)))
        assert len(await guest.read()) == 110
    assert len(sink.opened) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\xaa\xbb"],
        [b"", b"\xaa\xbb"],
        [b"\xaa", b"\xbb"],
        [b"", b"\xaa", b"\xbb"],
        [b"plug: user=root pid=1"],
        [b"x" * 128],
    ],
)
async def test_v3_may_be_padded_late_or_carry_a_text(
    control: Path, sink: RecordingSink, pieces: list[bytes]
) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(3) + pieces[0])
        for piece in pieces[1:]:
            await guest.say(piece)
        parse_attach_reply(await guest.read())
        await asyncio.sleep(0)
        assert (len(sink.opened), sink.closed, sink.refused) == (1, [], [])


@pytest.mark.parametrize(
    ("version", "pieces"),
    [
        (3, [b"\xaa\xbb", b"c"]),
        (3, [b"", b"\xaa\xbbc"]),
        (3, [b"plug: user=root pid=1", b"c"]),
        (3, [b"x" * 128, b"c"]),
        (3, [b"", b"x" * 100_000]),
        (1, [b"", b"c"]),
    ],
)
async def test_word_after_the_request_ends_the_session(
    control: Path, sink: RecordingSink, version: int, pieces: list[bytes]
) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(version) + pieces[0])
        parse_attach_reply(await guest.read())
        guest.stream.send(pieces[1])
        assert await guest.read() == b""
    assert sink.closed == sink.opened
    assert len(sink.refused) == 1
    assert "the limit is" in sink.reasons[0]


async def test_end_of_the_stream_is_reported_once(control: Path, sink: RecordingSink) -> None:
    with LoopGuest(control) as guest:
        await guest.attach()
        guest.stream.shutdown(socket.SHUT_WR)
        assert await guest.read() == b""
    assert (sink.closed, sink.refused) == (sink.opened, [])


async def test_guest_that_dies_without_reading_the_reply_is_reported_once(
    control: Path, sink: RecordingSink
) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(3))
    await wait_until_async(lambda: bool(sink.closed), 10, "the end")
    assert (sink.closed, sink.refused) == (sink.opened, [])


async def test_guest_that_is_gone_when_we_reply_is_reported_once(control: Path, sink: RecordingSink) -> None:
    with LoopGuest(control) as guest:
        guest.stream.send(guest.request(3))
        guest.stream.close()
        await wait_until_async(lambda: bool(sink.closed), 10, "the end")
    assert (len(sink.opened), sink.closed, sink.refused) == (1, sink.opened, [])


async def test_session_that_we_close_ends_without_a_report(control: Path, sink: RecordingSink) -> None:
    with LoopGuest(control) as guest:
        await guest.attach()
        sink.opened[0].close()
        sink.opened[0].close()
        assert await guest.read() == b""
    assert (sink.closed, sink.refused) == ([], [])


# Version 0.


async def test_v0_has_no_reply_and_receives_on_the_shared_socket(
    short_dir: Path, sink: RecordingSink
) -> None:
    listening = DaemonListener(short_dir / "ctl0", short_dir / "data")
    await listening.start(sink)
    assert listening.where == f"{short_dir}/ctl0,{short_dir}/data"
    with LoopGuest(short_dir / "ctl0") as left, LoopGuest(short_dir / "ctl0") as right:
        await left.say(left.request(0))
        await right.say(right.request(0))
        await wait_until_async(lambda: len(sink.opened) == 2, 10, "two sessions")
        assert [session.detail for session in sink.opened] == ["v0", "v0"]
        shared = listening.data_socket
        assert shared is not None
        assert {session.link.rx_shared_fd for session in sink.opened} == {shared.fileno()}
        assert [session.link.rx_address for session in sink.opened] == [left.name, right.name]
        os.write(sink.opened[1].link.fd, b"to right")
        assert right.data.recv(100) == b"to right"
        left.data.sendto(b"from left", os.fspath(short_dir / "data"))
        assert pad_path(shared.recvfrom(100)[1]) == left.name
        with pytest.raises(BlockingIOError):
            left.stream.recv(1)
        left.stream.send(b"c")
        assert await left.read() == b""
        await wait_until_async(lambda: bool(sink.refused), 10, "the report")
        assert sink.closed == sink.opened[:1]
    await listening.close()
    assert sorted(short_dir.iterdir()) == [short_dir / "ctl"]


async def test_v1_and_v3_are_served_beside_v0(short_dir: Path, sink: RecordingSink) -> None:
    listening = DaemonListener(short_dir / "ctl0", short_dir / "data")
    await listening.start(sink)
    with LoopGuest(short_dir / "ctl0") as old, LoopGuest(short_dir / "ctl0") as new:
        await old.attach(1)
        await new.attach(3)
    await listening.close()
    assert [session.link.rx_shared_fd for session in sink.opened] == [None, None]


async def test_v0_without_a_data_socket_is_refused(control: Path, sink: RecordingSink) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(0))
        assert await guest.read() == b""
    assert sink.reasons == ["bad magic 0x00000000"]


# Requests that come to nothing.


def v3(path: bytes, *, version: int = 3, kind: int = 0, family: int = 1) -> bytes:
    return struct.pack("=IIIH", MAGIC, version, kind, family) + path.ljust(108, b"\0") + bytes(2)


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad magic 0x20544547"),
        (b"x" * 100_000, "bad magic 0x78787878"),
        (v3(b"\0x", version=2), "version 2 is not supported"),
        (v3(b"\0x", version=99), "version 99 is not supported"),
        (v3(b"\0x", kind=7), "bad request type 7"),
        (struct.pack("=II", MAGIC, 1), "bad request type 1"),
        (v3(b"\0x", family=2), "a data socket of family 2, not AF_UNIX"),
        (v3(b""), "a data socket without a name"),
        (v3(b"\0x") + b"y" * 127, "message of 251 bytes, the limit is 250"),
        (v3(b"x" * 108), f"the guest's data socket {'x' * 108} cannot be reached: a pathname without an end"),
        (v3(b"\0nobody"), "the guest's data socket @nobody cannot be reached: Connection refused"),
        (
            v3(b"/no\nsuch"),
            r"the guest's data socket /no\x0asuch cannot be reached: No such file or directory",
        ),
    ],
)
async def test_request_is_refused_with_its_reason(
    control: Path, sink: RecordingSink, request_bytes: bytes, reason: str
) -> None:
    with LoopGuest(control) as guest:
        guest.stream.send(request_bytes)
        assert await guest.read() == b""
        ((kind, error, peer),) = sink.refused
        assert (kind, str(error)) == ("daemon", reason)
        assert peer is not None
        assert peer.pid == os.getpid()
        with LoopGuest(control) as honest:
            await honest.attach()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.touch, "Connection refused"),
        (Path.mkdir, "Connection refused"),
        (os.mkfifo, "Connection refused"),
        (lambda path: path.symlink_to("ctl"), "Protocol wrong type for socket"),
        (lambda path: path.symlink_to("thing"), "Too many levels of symbolic links"),
    ],
    ids=["file", "folder", "fifo", "stream socket", "circle"],
)
async def test_path_that_is_no_data_socket_is_refused(
    control: Path, short_dir: Path, sink: RecordingSink, make: Callable[[Path], None], reason: str
) -> None:
    make(short_dir / "thing")
    with LoopGuest(control) as guest:
        await guest.say(v3(os.fsencode(short_dir / "thing")))
        assert await guest.read() == b""
    assert sink.reasons == [f"{UNREACHABLE.format(short_dir / 'thing')}: {reason}"]


@pytest.mark.parametrize(("uid", "served"), [(os.geteuid() + 1, False), (0, True), (os.geteuid(), True)])
async def test_data_socket_at_a_path_must_belong_to_the_user_who_asks(
    control: Path,
    short_dir: Path,
    sink: RecordingSink,
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    served: bool,
) -> None:
    """A guest must not have us send frames to a system's service that it may not speak to itself."""
    monkeypatch.setattr(control_module, "peer_of", lambda sock: Peer(os.getpid(), uid, uid, None))
    path = control.with_name("service")
    with LoopGuest(control, os.fsencode(path)) as guest:
        await guest.say(guest.request(3))
        reply = await guest.read()
    if served:
        parse_attach_reply(reply)
    else:
        assert reply == b""
        assert sink.reasons == [f"{UNREACHABLE.format(path)}: it belongs to another user"]


def test_data_socket_of_root_is_roots_or_ours(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fsencode(short_dir / "service")
    ours = os.geteuid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(path)
        for owner in (0, ours):
            with monkeypatch.context() as patch:
                patch.setattr(os, "fstat", lambda fd, uid=owner: SimpleNamespace(st_uid=uid))
                open_data_socket(pad_path(path), 0).close()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda fd: SimpleNamespace(st_uid=ours + 1))
            with pytest.raises(TransportError, match="it belongs to another user"):
                open_data_socket(pad_path(path), 0)


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refusal_of_the_switch_is_passed_on(
    control: Path, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    with LoopGuest(control) as guest:
        await guest.say(guest.request(3))
        assert await guest.read() == b""
    assert sink.reasons == [str(error)]


async def test_lack_of_descriptors_refuses_one_guest(
    control: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with LoopGuest(control) as guest:
        await guest.say(guest.request(3)[:50])
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", none_left)
            await guest.say(guest.request(3)[50:])
            assert await guest.read() == b""
    assert len(sink.reasons) == 1
    assert "cannot be reached: Too many open files" in sink.reasons[0]


@pytest.mark.parametrize("length", [0, 1, 4, 121])
async def test_connection_that_ends_before_its_request_is_reported(
    control: Path, sink: RecordingSink, length: int
) -> None:
    with LoopGuest(control) as guest:
        await guest.say(guest.request(3)[:length])
    await wait_until_async(lambda: bool(sink.refused), 10, "the refusal")
    assert len(sink.reasons) == 1
    assert sink.reasons[0].startswith(f"message is cut: {length} of ")


# Connections that say nothing.


@pytest.mark.parametrize("length", [0, 121])
async def test_connection_without_a_request_is_closed_in_the_end(
    control: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(control_module, "HELLO_TIMEOUT", 0.01)
    with LoopGuest(control) as guest:
        guest.stream.send(guest.request(3)[:length])
        assert await guest.read() == b""
    assert sink.reasons == ["no whole request in 0.01 seconds"]


async def test_attached_guest_may_be_silent_for_ever(control: Path, listener: DaemonListener) -> None:
    with LoopGuest(control) as guest:
        await guest.attach()
        (connection,) = served_by(listener)._connections
        assert connection._deadline.cancelled()


async def connected(control: Path, listener: DaemonListener, count: int) -> list[socket.socket]:
    """Return connections that say nothing; a full backlog is waited for."""
    silent: list[socket.socket] = []
    while len(silent) < count:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(os.fspath(control))
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(0)
        else:
            silent.append(sock)
    return silent


async def test_500_silent_connections_keep_nobody_out(
    control: Path, listener: DaemonListener, sink: RecordingSink
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    silent = await connected(control, listener, 500)
    with LoopGuest(control) as guest:
        await guest.attach()
        held = len(os.listdir("/proc/self/fd")) - before - len(silent)
        # The guest has four: two ends of its stream, its data socket and ours.
        assert held <= MAX_SILENT + 4
        assert sink.reasons == ["more than 128 connections have not asked for a port"] * (500 - MAX_SILENT)
        closed = [sock for sock in silent if is_at_end(sock)]
        assert closed == silent[: 500 - MAX_SILENT], "the oldest are closed"
    for sock in silent:
        sock.close()


def is_at_end(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


async def test_request_that_arrives_with_a_crowd_is_read_before_its_connection_is_given_up(
    control: Path, listener: DaemonListener, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_BURST", 1000)
    with LoopGuest(control) as guest:
        await wait_until_async(lambda: len(served_by(listener)._silent) == 1, 10, "it is accepted")
        guest.stream.send(guest.request(3))
        crowd = await connected(control, listener, MAX_SILENT)
        assert len(served_by(listener)._silent) == 1, "nobody has been looked at since"
        served_by(listener)._acceptor._accept()
        assert len(sink.opened) == 1
        assert sink.refused == []
        parse_attach_reply(await guest.read())
    for sock in crowd:
        sock.close()


# The listener's own life.


async def test_close_ends_everything_without_a_report(short_dir: Path, sink: RecordingSink) -> None:
    listening = DaemonListener(str(short_dir / "ctl0"), str(short_dir / "data"))
    await listening.start(sink)
    with LoopGuest(short_dir / "ctl0") as attached, LoopGuest(short_dir / "ctl0") as silent:
        await attached.attach()
        await silent.say(b"\xce")
        await listening.close()
        await listening.close()
        assert await attached.read() == b""
        assert await silent.read() == b""
    assert (sink.closed, sink.refused) == ([], [])
    assert sorted(short_dir.iterdir()) == [short_dir / "ctl"]


@pytest.mark.parametrize("spoil", [Path.touch, Path.mkdir])
async def test_start_that_fails_leaves_no_socket(
    short_dir: Path, sink: RecordingSink, spoil: Callable[[Path], None]
) -> None:
    spoil(short_dir / "data")
    listening = DaemonListener(short_dir / "ctl0", short_dir / "data")
    with pytest.raises(TransportError, match="data is there already and is no socket"):
        await listening.start(sink)
    assert sorted(short_dir.iterdir()) == [short_dir / "ctl", short_dir / "data"]


async def test_listener_that_never_started_closes() -> None:
    await DaemonListener("/nowhere/ctl").close()
