"""QEMU's streams without QEMU: who listens, who connects, and what becomes of a connection."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.no_descriptors import out_of_descriptors
from support.qemu_peer import Address, free_address
from support.recording_sink import RecordingSink
from umlab.errors import SocketInUse, StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports import qemu
from umlab.transports.contract import PRIVATE, KeptSession, Listener
from umlab.transports.qemu import TRANSPORT, QemuConnector, QemuListener


def make(place: str) -> Listener:
    return TRANSPORT.make(place, PRIVATE)


def connect(address: Address) -> socket.socket:
    guest = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    guest.settimeout(scaled(10))
    guest.connect(address)
    return guest


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, short_dir: Path) -> Address:
    return f"{short_dir}/q" if request.param == "unix" else free_address(socket.SOCK_STREAM)


@pytest.fixture
def place(address: Address) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "RETRY", 0.02)


def kept_of(sink: RecordingSink) -> KeptSession:
    """Return the last session as another process gets it."""
    old = sink.opened[-1]
    return KeptSession(old.peer, old.detail, old.state, (os.dup(old.link.fd), *map(os.dup, old.fds)))


async def test_each_connection_is_a_session_of_its_own(
    address: Address, place: str, sink: RecordingSink
) -> None:
    listener = make(place)
    assert (listener.kind, listener.where, listener.descriptors()) == ("qemu", place, {})
    await listener.start(sink)
    with connect(address) as left, connect(address) as right:
        await wait_until_async(lambda: len(sink.opened) == 2, 10, "two sessions")
        for session, guest in zip(sink.opened, (left, right), strict=True):
            assert (session.kind, session.link.framing) == ("qemu", Framing.STREAM)
            assert not os.get_blocking(session.link.fd)
            if isinstance(address, str):
                assert session.detail == ""
                assert session.peer is not None
                assert (session.peer.pid, session.peer.uid) == (os.getpid(), os.getuid())
            else:
                assert session.detail == "{}:{}".format(*guest.getsockname())
                assert session.peer is None
                with socket.socket(fileno=os.dup(session.link.fd)) as ours:
                    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            os.write(session.link.fd, b"to it")
            assert guest.recv(100) == b"to it"
        await listener.close()
        await listener.close()
        left.send(b"still served by the engine")
    assert (sink.closed, sink.refused) == ([], [])
    assert not isinstance(address, str) or not os.path.exists(address)


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refused_session_ends_the_connection(
    address: Address, place: str, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    listener = make(place)
    await listener.start(sink)
    with connect(address) as guest:
        await wait_until_async(lambda: bool(sink.refused), 10, "the refusal")
        assert guest.recv(100) == b""
    ((kind, reason, peer),) = sink.refused
    assert (kind, reason) == ("qemu", error)
    assert (peer is not None) == isinstance(address, str)
    await listener.close()
    # TCP remembers the connection that we ended, and that keeps nobody from listening there.
    await listener.start(sink)
    await listener.close()


async def test_connections_are_bounded_and_one_that_ended_makes_room(
    short_dir: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "MAX_CONNECTIONS", 2)
    path = f"{short_dir}/q"
    listener = QemuListener(path)
    await listener.start(sink)
    with connect(path), connect(path), connect(path) as third:
        await wait_until_async(lambda: bool(sink.refused), 10, "the refusal")
        assert sink.reasons == [f"{path}: more than 2 connections"]
        assert third.recv(100) == b""
        for _ in range(2):  # a second call is none
            sink.opened[0].close()
        with connect(path), connect(path):
            await wait_until_async(lambda: len(sink.refused) == 2, 10, "the next refusal")
    assert len(sink.opened) == 3
    await listener.close()


async def test_place_that_is_taken_or_not_ours_is_refused(
    address: Address, place: str, sink: RecordingSink
) -> None:
    first, second = make(place), make(place)
    await first.start(sink)
    with pytest.raises(
        TransportError, match=r"has another switch attached|cannot listen on .*: Address already in use"
    ) as raised:
        await second.start(sink)
    assert isinstance(raised.value, SocketInUse) == isinstance(address, str)
    await second.close()
    await first.close()
    with pytest.raises(TransportError, match=r"cannot listen on 192\.0\.2\.1:1: "):
        await make("192.0.2.1:1").start(sink)


async def test_connection_that_was_reset_before_it_was_taken_is_the_engines_to_close(
    sink: RecordingSink,
) -> None:
    address = free_address(socket.SOCK_STREAM)
    listener = QemuListener(address)
    await listener.start(sink)
    guest = connect(address)
    guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    guest.close()
    await wait_until_async(lambda: bool(sink.opened), 10, "a session")
    assert (sink.opened[0].detail, sink.opened[0].peer) == ("", None)
    with pytest.raises(ConnectionResetError):
        os.read(sink.opened[0].link.fd, 100)
    await listener.close()


async def test_ipv6_address_takes_ipv6_only(sink: RecordingSink) -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this kernel has no IPv6")
    port = free_address(socket.SOCK_STREAM)[1]
    listener = make(f"[::]:{port}")
    await listener.start(sink)
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", port))
    with socket.create_connection(("::1", port)) as guest:
        await wait_until_async(lambda: bool(sink.opened), 10, "a session")
        assert sink.opened[0].detail == f"[::1]:{guest.getsockname()[1]}"
    await listener.close()


async def test_another_process_goes_on_with_listener_and_connection(
    address: Address, place: str, sink: RecordingSink
) -> None:
    before, after = make(place), make(place)
    await before.start(sink)
    with connect(address) as guest:
        await wait_until_async(lambda: len(sink.opened) == 1, 10, "a session")
        kept = {name: os.dup(fd) for name, fd in before.descriptors().items()}
        session = kept_of(sink)
        await after.start(sink, kept)
        assert after.descriptors() == kept
        resumed = after.resume(session)
        assert (resumed.kind, resumed.peer, resumed.detail, resumed.link.framing) == (
            "qemu",
            sink.opened[0].peer,
            sink.opened[0].detail,
            Framing.STREAM,
        )
        os.write(resumed.link.fd, b"to the guest")
        assert guest.recv(100) == b"to the guest"
        resumed.close()
        os.close(resumed.link.fd)
        with pytest.raises(ValueError, match="unpack"):
            after.resume(KeptSession(None, "", {}, ()))
    await before.close()
    await after.close()


@pytest.mark.usefixtures("_impatient")
async def test_connector_waits_for_who_listens_and_comes_back_to_it(
    address: Address, place: str, sink: RecordingSink
) -> None:
    connector = make(f"connect={place}")
    assert (connector.kind, connector.where) == ("qemu", f"connect={place}")
    await connector.start(sink)
    assert connector.descriptors() == {}
    await wait_until_async(lambda: bool(sink.refused), 10, "nobody is there")
    for round_no in range(1, 3):
        with listening(address) as server:
            await wait_until_async(lambda: len(sink.opened) == round_no, 10, "a session")  # noqa: B023
            server.settimeout(scaled(10))
            guest, _ = server.accept()
        with guest:
            session = sink.opened[-1]
            assert (session.kind, session.link.framing) == ("qemu", Framing.STREAM)
            assert session.detail == ("" if isinstance(address, str) else place)
            assert (session.peer is not None) == isinstance(address, str)
            os.write(session.link.fd, b"frame")
            assert guest.recv(100) == b"frame"
            # Were there a second connection, it would have been made within two of these pauses.
            await asyncio.sleep(5 * qemu.RETRY)
            assert len(sink.opened) == round_no
            session.close()  # as the switch does when the link is at its end
            await wait_until_async(lambda: len(sink.refused) == 1 + round_no, 10, "it is gone")  # noqa: B023
    for reason in sink.reasons:
        assert reason.startswith(f"cannot connect to {place}: ")
        assert reason.endswith("; tried again every 0.02 s")
    await connector.close()
    await connector.close()


def listening(address: Address) -> socket.socket:
    if isinstance(address, str):
        Path(address).unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
    else:
        server = socket.socket(socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen()
    return server


@pytest.mark.usefixtures("_impatient")
async def test_connector_does_not_take_a_full_backlog_for_a_connection(
    short_dir: Path, sink: RecordingSink
) -> None:
    path = f"{short_dir}/q"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        with connect(path):
            connector = QemuConnector(path)
            await connector.start(sink)
            await wait_until_async(lambda: bool(sink.refused), 10, "no room")
            assert "Resource temporarily unavailable" in sink.reasons[0]
            server.accept()[0].close()
            await wait_until_async(lambda: bool(sink.opened), 10, "a session")
            await connector.close()


@pytest.mark.usefixtures("_impatient")
async def test_connector_that_gets_no_port_hangs_up_says_so_once_and_tries_again(
    address: Address, place: str, sink: RecordingSink
) -> None:
    sink.refusal = SwitchError("no port left")
    connector = make(f"connect={place}")
    with listening(address) as server:
        server.settimeout(scaled(10))
        await connector.start(sink)
        for _ in range(2):
            guest, _ = await asyncio.to_thread(server.accept)
            with guest:
                guest.settimeout(scaled(10))
                assert await asyncio.to_thread(guest.recv, 100) == b""
        assert sink.reasons == ["no port left"]
        sink.refusal = None
        await wait_until_async(lambda: bool(sink.opened), 10, "a session")
        await connector.close()


@pytest.mark.usefixtures("_impatient")
async def test_lack_of_descriptors_ends_no_connector_and_no_listener_begins(
    address: Address, place: str, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = make(f"connect={place}")
    with listening(address):
        with out_of_descriptors(monkeypatch) as failures:
            await connector.start(sink)
            await wait_until_async(lambda: len(failures) > 1, 10, "two attempts")
            if isinstance(address, tuple):
                with pytest.raises(TransportError, match=r"cannot listen on .*: Too many open files"):
                    await make(place).start(sink)
        assert len(sink.reasons) == 1
        assert "Too many open files; tried again" in sink.reasons[0]
        await wait_until_async(lambda: bool(sink.opened), 10, "a session")
        await connector.close()


@pytest.mark.usefixtures("_impatient")
async def test_connector_does_not_connect_to_itself(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_address(socket.SOCK_STREAM)
    made = qemu._stream

    def unlucky(address: Address) -> socket.socket:
        sock = made(address)
        sock.bind(port)
        return sock

    monkeypatch.setattr(qemu, "_stream", unlucky)
    connector = QemuConnector(port)
    await connector.start(sink)
    await wait_until_async(lambda: bool(sink.refused or sink.opened), 10, "an attempt")
    assert sink.opened == []
    assert "Connection refused" in sink.reasons[0]
    await connector.close()


async def test_connector_pauses_between_two_attempts(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def refused(address: object) -> socket.socket:
        nonlocal attempts
        attempts += 1
        raise TransportError("nobody")

    monkeypatch.setattr(qemu, "_connect", refused)
    monkeypatch.setattr(qemu, "RETRY", scaled(1000))
    connector = make("connect=127.0.0.1:4000")
    await connector.start(sink)
    for _ in range(100):
        await asyncio.sleep(0)
    assert attempts == 1
    await connector.close()


async def test_connector_gives_up_on_who_does_not_answer(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "CONNECT_TIMEOUT", 0.02)

    async def silence(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: object) -> None:
        await asyncio.sleep(scaled(100))

    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_connect", silence)
    connector = make("connect=192.0.2.1:4000")
    await connector.start(sink)
    await wait_until_async(lambda: bool(sink.refused), 10, "the time is over")
    assert sink.reasons[0].startswith("cannot connect to 192.0.2.1:4000: no answer")
    monkeypatch.setattr(qemu, "CONNECT_TIMEOUT", 100)
    await connector.close()


@pytest.mark.usefixtures("_impatient")
async def test_connector_goes_on_with_a_kept_connection_and_makes_no_other(
    short_dir: Path, sink: RecordingSink
) -> None:
    path = f"{short_dir}/q"
    with listening(path) as server:
        server.settimeout(scaled(10))
        before, after = QemuConnector(path), QemuConnector(path)
        await before.start(sink)
        await wait_until_async(lambda: bool(sink.opened), 10, "a session")
        server.accept()[0].close()
        await after.start(sink, {})
        for _ in range(10):  # as other listeners are started in the meantime
            await asyncio.sleep(0)
        resumed = after.resume(kept_of(sink))
        assert resumed.link.framing is Framing.STREAM
        await before.close()
        await asyncio.sleep(5 * qemu.RETRY)
        assert len(sink.opened) == 1
        resumed.close()
        os.close(resumed.link.fd)
        await wait_until_async(lambda: len(sink.opened) == 2, 10, "the next one")
        await after.close()


@pytest.mark.parametrize(
    ("place", "argument"),
    [
        ("/s/lan.qemu", "stream,id=n0,server=off,addr.type=unix,addr.path=/s/lan.qemu"),
        ("/s/a b", "'stream,id=n0,server=off,addr.type=unix,addr.path=/s/a b'"),
        ("127.0.0.1:4000", "stream,id=n0,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=4000"),
        ("[::1]:4000", "stream,id=n0,server=off,addr.type=inet,addr.host=::1,addr.port=4000"),
        ("connect=/s/passt", "stream,id=n0,server=on,addr.type=unix,addr.path=/s/passt"),
    ],
)
def test_what_qemu_is_told(place: str, argument: str) -> None:
    (told,) = make(place).arguments
    assert told.program == "qemu"
    assert told.text == f"-netdev {argument} -device virtio-net-pci,netdev=n0"


@pytest.mark.parametrize(
    ("place", "resolved"),
    [
        ("lan.qemu", "/lab/lan.qemu"),
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("connect=passt", "connect=/lab/passt"),
        ("connect=127.0.0.1:4000", "connect=127.0.0.1:4000"),
    ],
)
def test_relative_paths_begin_where_they_are_told_to(place: str, resolved: str) -> None:
    assert TRANSPORT.resolve(place, "/lab/".__add__) == resolved


@pytest.mark.parametrize("place", ["localhost:1", "connect=", "connect=127.0.0.1:0"])
def test_what_names_no_place_is_refused(place: str) -> None:
    with pytest.raises(TransportError):
        make(place)
