"""The VDE listener: its directory, its clients and their sockets, with a sink instead of a switch."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.deadline import wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from support.loop_guest import LoopGuest
from support.recording_sink import RecordingSink
from umlab._clock import MonotonicClock
from umlab.daemon.switch import SwitchService
from umlab.errors import SocketInUse, SwitchError, TransportError
from umlab.switch.model import Framing, SwitchConfig
from umlab.transports.contract import Access, Argument
from umlab.transports.vde import VdeListener
from umlab.wire.daemon import parse_attach_reply
from umlab.wire.sockaddr import pad_path
from umlab.wire.vde import VdeRequest, serialize_vde_request


@pytest.fixture
def directory(short_dir: Path) -> Path:
    return short_dir / "sw"


@pytest.fixture
async def listener(directory: Path, sink: RecordingSink) -> AsyncIterator[VdeListener]:
    listening = VdeListener(directory)
    await listening.start(sink)
    yield listening
    await listening.close()


class VdeClient(LoopGuest):
    """A client whose data socket is a file in the switch's directory, as libvdeplug's is.

    Args:
        directory: The switch's.
        name: Another name for its data socket.
    """

    count = 0

    def __init__(self, directory: Path, name: bytes | None = None) -> None:
        VdeClient.count += 1
        default = os.fsencode(directory / f".{os.getpid():05d}-{VdeClient.count:05d}")
        super().__init__(directory / "ctl", name or default)

    async def ask(self, port_no: int | None = None, text: bytes = b"", version: int = 3) -> Path:
        """Attach as libvdeplug does, its own file gone right after the reply; returns the switch's socket."""
        await self.say(serialize_vde_request(VdeRequest(version, pad_path(self.name), port_no, text)))
        path = os.fsdecode(parse_attach_reply(await self.read()).rstrip(b"\0"))
        self.data.connect(path)
        if self.name[:1] != b"\0":
            os.unlink(self.name)
        return Path(path)


def mode_of(path: Path) -> str:
    return stat.filemode(path.lstat().st_mode)


# A client attaches.


@pytest.mark.parametrize("version", [1, 3])
async def test_client_gets_a_connected_socket_named_after_its_port(
    directory: Path, listener: VdeListener, sink: RecordingSink, version: int
) -> None:
    with VdeClient(directory) as left, VdeClient(directory) as right:
        paths = [await left.ask(version=version), await right.ask(version=version)]
        for client, path, session in zip((left, right), paths, sink.opened, strict=True):
            port_no = sink.opened.index(session) + 1
            assert path == directory / f"{port_no:03d}.{session.link.fd}"
            assert (session.kind, session.detail) == ("vde", f"v{version}")
            assert (session.link.framing, session.wanted_port_no) == (Framing.DATAGRAM, None)
            assert session.peer is not None
            assert session.peer.pid == os.getpid()
            assert not os.get_blocking(session.link.fd)
            client.data.send(b"from the client")
            assert os.read(session.link.fd, 100) == b"from the client"
            os.write(session.link.fd, b"to the client")
            assert client.data.recv(100) == b"to the client"
        with pytest.raises(PermissionError):
            left.data.connect(os.fspath(paths[1]))
        assert sorted(each.name for each in directory.iterdir()) == sorted(
            ["ctl", *(each.name for each in paths)]
        )
        left.stream.shutdown(socket.SHUT_WR)
        assert await left.read() == b""
        assert not paths[0].exists()
        assert paths[1].exists()
    await wait_until_async(lambda: len(sink.closed) == 2, 10, "both ends")
    assert list(directory.iterdir()) == [directory / "ctl"]
    assert sink.refused == []


async def test_description_and_port_are_passed_on(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        await client.ask(7, b"qemu \x1b[2J user=me pid=1")
    (session,) = sink.opened
    assert (session.detail, session.wanted_port_no) == (r"qemu \x1b[2J user=me pid=1", 7)


async def test_guest_of_the_daemon_transport_attaches_to_the_control_socket(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    """Its name is abstract, and two bytes of padding are no description."""
    with VdeClient(directory, b"\0\0\0\0" + os.urandom(104)) as guest:
        path = await guest.ask(text=b"\x9c\x78")
        guest.data.send(b"from the guest")
        assert os.read(sink.opened[0].link.fd, 100) == b"from the guest"
        assert path.exists()
    assert sink.opened[0].detail == "v3"


async def test_description_may_come_late_and_too_much_of_it_ends_the_port(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        path = await client.ask()
        await client.say(b"x" * 128)
        assert sink.closed == []
        client.stream.send(b"x" * 3)
        assert await client.read() == b""
    assert sink.closed == sink.opened
    assert sink.reasons == ["message of 253 bytes, the limit is 252"]
    assert not path.exists()


async def test_session_that_we_close_takes_its_file_along(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        path = await client.ask()
        sink.opened[0].close()
        assert not path.exists()
        assert await client.read() == b""
    assert (sink.closed, sink.refused) == ([], [])


# What comes to nothing.


@pytest.mark.parametrize(
    ("port_no", "reason"),
    [(65_536, "port 65536 is out of range, the last is 65535"), ((1 << 24) - 1, "port 16777215 is out of")],
)
async def test_port_out_of_range_is_refused(
    directory: Path, listener: VdeListener, sink: RecordingSink, port_no: int, reason: str
) -> None:
    with VdeClient(directory) as client:
        await client.say(serialize_vde_request(VdeRequest(3, pad_path(client.name), port_no)))
        assert await client.read() == b""
    assert sink.reasons[0].startswith(reason)


async def test_refusal_of_the_switch_is_passed_on(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    sink.refusal = SwitchError("port 3 cannot be had")
    with VdeClient(directory) as client:
        await client.say(serialize_vde_request(VdeRequest(3, pad_path(client.name), 3)))
        assert await client.read() == b""
    assert sink.reasons == ["port 3 cannot be had"]
    assert (directory / "ctl").exists()


async def test_client_without_a_data_socket_is_refused(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        os.unlink(client.name)
        await client.say(serialize_vde_request(VdeRequest(3, pad_path(client.name))))
        assert await client.read() == b""
    assert sink.reasons == [
        f"the guest's data socket {os.fsdecode(client.name)} cannot be reached: No such file or directory"
    ]


async def test_directory_that_vanishes_refuses_newcomers_and_leaves_the_others_alone(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    away = directory.with_name("away")
    with VdeClient(directory) as old, VdeClient(directory, b"\0\0\0\0" + os.urandom(104)) as new:
        await old.ask()
        directory.rename(away)
        await new.say(serialize_vde_request(VdeRequest(3, new.name)))
        assert await new.read() == b""
        fd = sink.opened[1].link.fd
        assert sink.reasons == [
            f"cannot bind the data socket {directory}/002.{fd}: No such file or directory"
        ]
        assert sink.closed == [sink.opened[1]]
        old.data.send(b"still here")
        assert os.read(sink.opened[0].link.fd, 100) == b"still here"
        await listener.close()
        assert await old.read() == b""


async def test_folder_in_the_place_of_a_socket_stops_nobody(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        # Any descriptor that the next data socket may have.
        for fd in range(256):
            (directory / f"001.{fd}").mkdir()
        path = await client.ask()
        assert re.fullmatch(r"001-[0-9a-f]{10}", path.name)
        client.data.send(b"from the client")
        assert os.read(sink.opened[0].link.fd, 100) == b"from the client"
    await wait_until_async(lambda: len(sink.closed) == 1, 10, "the end")
    assert not path.exists()
    assert sink.refused == []


@pytest.mark.parametrize(
    "make", [Path.touch, lambda path: path.symlink_to("../victim")], ids=["file", "link"]
)
async def test_permissions_go_to_no_file_that_a_client_puts_in_the_place_of_a_socket(
    directory: Path,
    listener: VdeListener,
    sink: RecordingSink,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
) -> None:
    victim = directory.with_name("victim")
    victim.touch(0o400)

    class Exchanged(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            os.unlink(address)
            make(Path(address))

    with VdeClient(directory) as client:
        monkeypatch.setattr(socket, "socket", Exchanged)
        await client.say(serialize_vde_request(VdeRequest(3, pad_path(client.name))))
        assert await client.read() == b""
    assert sink.reasons[0].endswith(": another file has taken its place")
    assert sink.closed == sink.opened
    assert mode_of(victim) == "-r--------"


async def test_file_of_another_switch_in_a_new_directory_is_left_alone(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with VdeClient(directory) as client:
        path = await client.ask()
        directory.rename(directory.with_name("away"))
        directory.mkdir()
        path.touch()
        sink.opened[0].close()
        assert path.exists()
        await listener.close()
        assert path.exists()


# Who may attach.


@pytest.mark.parametrize(
    ("mode", "directory_mode", "file_mode"),
    [
        (0o600, "drwx------", "srw-------"),
        (0o660, "drwxrwx--T", "srw-rw----"),
        (0o666, "drwxrwxrwt", "srw-rw-rw-"),
        (0o640, "drwxr-x---", "srw-r-----"),
        (0o620, "drwx-wx--T", "srw--w----"),
    ],
)
async def test_modes_are_those_that_were_asked_for(
    directory: Path, sink: RecordingSink, mode: int, directory_mode: str, file_mode: str
) -> None:
    gid = os.getegid()
    listening = VdeListener(directory, Access(mode, gid))
    await listening.start(sink)
    with VdeClient(directory) as client:
        path = await client.ask()
        assert mode_of(directory) == directory_mode
        for file in (directory / "ctl", path):
            assert (mode_of(file), file.lstat().st_gid) == (file_mode, gid)
    await listening.close()
    assert not directory.exists()


async def test_umask_decides_where_no_mode_is_given(directory: Path, sink: RecordingSink) -> None:
    before = os.umask(0o027)
    try:
        listening = VdeListener(directory, Access(None))
        await listening.start(sink)
        assert mode_of(directory) == "drwxr-x---"
        assert mode_of(directory / "ctl") == "srwxr-x---"
        await listening.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["ctl", "sw"])
async def test_group_that_we_may_not_give_is_refused_and_leaves_nothing(
    directory: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(path: str, *_: object) -> None:
        if os.path.basename(os.readlink(path)) == name:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(TransportError, match=f"/{name}.*: Operation not permitted"):
        await VdeListener(directory, Access(0o660, 12345)).start(sink)
    assert not directory.exists()


# The directory.


async def test_directory_goes_when_the_listener_closes(directory: Path, sink: RecordingSink) -> None:
    listening = VdeListener(directory)
    assert listening.descriptors() == {}
    await listening.close()
    await listening.start(sink)
    with VdeClient(directory) as attached, VdeClient(directory) as silent:
        await attached.ask()
        await listening.close()
        await listening.close()
        assert await attached.read() == b""
        assert await silent.read() == b""
        # The silent one lives, and its socket is its own.
        assert list(directory.iterdir()) == [Path(os.fsdecode(silent.name))]
    assert (sink.closed, sink.refused) == ([], [])


async def test_what_a_dead_switch_and_killed_clients_left_is_replaced(
    directory: Path, sink: RecordingSink
) -> None:
    directory.mkdir(0o755)
    for name, kind in [
        ("ctl", socket.SOCK_STREAM),
        ("001.7", socket.SOCK_DGRAM),
        ("mgmt", socket.SOCK_STREAM),
        (".00017-00000", socket.SOCK_DGRAM),
    ]:
        with socket.socket(socket.AF_UNIX, kind) as dead:
            dead.bind(os.fspath(directory / name))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as living:
        living.bind(os.fspath(directory / ".00018-00000"))
        listening = VdeListener(directory)
        await listening.start(sink)
        assert mode_of(directory) == "drwx------"
        assert sorted(each.name for each in directory.iterdir()) == [".00018-00000", "ctl"]
    await listening.close()
    assert not directory.exists()


async def test_directory_of_a_living_switch_is_refused_and_goes_on(
    directory: Path, listener: VdeListener, sink: RecordingSink
) -> None:
    with pytest.raises(SocketInUse, match="sw/ctl has another switch attached"):
        await VdeListener(directory, Access(0o666)).start(RecordingSink())
    assert mode_of(directory) == "drwx------"
    with VdeClient(directory) as client:
        await client.ask()
    assert len(sink.opened) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.touch, "is there already and is no directory"),
        (lambda path: path.symlink_to("."), "is there already and is no directory"),
        (lambda path: (path / "letters").mkdir(parents=True), "other things than sockets in it.*'letters'"),
        (lambda path: path.parent.rmdir(), "cannot make the directory.*No such file"),
    ],
    ids=["file", "link", "full", "no parent"],
)
async def test_place_that_is_no_switchs_directory_is_refused_and_left_alone(
    short_dir: Path, sink: RecordingSink, spoil: Callable[[Path], None], words: str
) -> None:
    place = short_dir / "parent" / "sw"
    place.parent.mkdir()
    spoil(place)
    with pytest.raises(TransportError, match=words):
        await VdeListener(place).start(sink)
    assert not (place / "ctl").exists()


@pytest.mark.parametrize(("mode", "starts"), [(0o770, True), (0o755, False)])
async def test_what_others_put_into_the_directory_keeps_no_switch_from_starting(
    directory: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, mode: int, starts: bool
) -> None:
    (directory / "letters").mkdir(parents=True)
    directory.chmod(mode)
    theirs = (directory / "letters").stat().st_ino
    true_scandir = os.scandir

    class Foreign:
        """An entry that somebody else owns, which only root could make."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def stat(self, *, follow_symlinks: bool) -> SimpleNamespace:
            status = self._entry.stat(follow_symlinks=follow_symlinks)
            other = status.st_uid + (status.st_ino == theirs)
            return SimpleNamespace(st_mode=status.st_mode, st_uid=other)

    @contextlib.contextmanager
    def scandir(path: str) -> Iterator[Iterator[Foreign]]:
        with true_scandir(path) as entries:
            yield map(Foreign, entries)

    monkeypatch.setattr(os, "scandir", scandir)
    listening = VdeListener(directory)
    if not starts:
        # Only we can have put it there.
        with pytest.raises(TransportError, match="other things than sockets"):
            await listening.start(sink)
        return
    await listening.start(sink)
    with VdeClient(directory) as client:
        await client.ask()
    await listening.close()
    assert [each.name for each in directory.iterdir()] == ["letters"]


async def test_directory_of_another_user_is_refused(
    directory: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(TransportError, match="belongs to another user"):
        await VdeListener(directory).start(sink)
    assert list(directory.iterdir()) == []


def test_path_must_leave_room_for_the_sockets_in_it() -> None:
    VdeListener("/" + "x" * 89)
    with pytest.raises(TransportError, match="has 108 bytes, at most 107 fit"):
        VdeListener("/" + "x" * 90)


def test_programs_are_told_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert VdeListener("sw").arguments == (
        Argument("vde_plug", "vde:///tmp/sw"),
        Argument("uml", "eth0=vde,/tmp/sw", "vde"),
        Argument("uml", "vec0:transport=vde,vnl=vde:///tmp/sw", "vec-vde"),
        Argument("qemu", "-netdev vde,id=n0,sock=/tmp/sw -device virtio-net-pci,netdev=n0"),
    )


# With a switch.


@pytest.mark.parametrize("engine", ENGINES)
async def test_clients_are_on_one_network_and_have_the_ports_that_they_ask_for(
    directory: Path, engine: str
) -> None:
    clock, config = MonotonicClock(), SwitchConfig(first_port_no=3)
    switch = SwitchService(
        "sw", config, [VdeListener(directory)], engine=ENGINES[engine](config, clock), clock=clock
    )
    await switch.start()
    try:
        with VdeClient(directory) as left, VdeClient(directory) as right, VdeClient(directory) as low:
            paths = [await left.ask(9), await right.ask(9)]
            assert [path.name.partition(".")[0] for path in paths] == ["009", "003"]
            await low.say(serialize_vde_request(VdeRequest(3, pad_path(low.name), 2)))
            assert await low.read() == b"", "a port below the first"
            left.data.send(frame(BROADCAST, mac(1)))
            assert right.data.recv(100) == frame(BROADCAST, mac(1))
            right.data.send(frame(mac(1), mac(2)))
            assert left.data.recv(100) == frame(mac(1), mac(2))
            assert [port.port_no for port in switch.ports()] == [3, 9]
        await wait_until_async(lambda: not switch.ports(), 10, "the end of both")
    finally:
        await switch.stop()
    assert not directory.exists()
