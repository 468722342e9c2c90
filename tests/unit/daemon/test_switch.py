"""The switch service: sessions become ports, and every way in which one ends."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.guest_end import BROADCAST, frame, mac
from umlab._boot import Boot
from umlab._clock import ManualClock
from umlab.daemon.switch import (
    PortInfo,
    ServiceEvent,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SwitchService,
)
from umlab.engine._py import PyEngine
from umlab.errors import RemoteProtocolError, StateError, SwitchError, TransportError
from umlab.switch.counters import DropReason
from umlab.switch.events import LinkClosed, MacLearned, PortAttached, PortDetached
from umlab.switch.model import SECOND_NS, Framing, Link, SwitchConfig
from umlab.transports.contract import (
    Argument,
    KeptSession,
    Peer,
    Session,
    SessionSink,
    nothing_to_close,
)
from umlab.transports.daemon import DaemonListener
from umlab.wire.daemon import AttachRequest, parse_attach_reply, serialize_attach_request


@dataclass
class Plug:
    """A listener whose guests the test plugs in by hand."""

    kind: str = "plug"
    where: str = "here"
    arguments: tuple[Argument, ...] = ()
    error: Exception | None = None
    log: list[str] = field(default_factory=list)
    sink: SessionSink | None = None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        self.log.append("start")
        if self.error is not None:
            raise self.error
        self.sink = sink

    async def close(self) -> None:
        self.log.append("close")

    def descriptors(self) -> dict[str, int]:
        return {}

    def resume(self, kept: KeptSession) -> Session:
        link = Link(kept.fds[0], Framing.SEQPACKET)
        return Session(self.kind, link, kept.peer, kept.detail, nothing_to_close)

    def session(self, peer: Peer | None = None) -> tuple[Session, socket.socket]:
        """Return a session that is not opened yet, and the guest's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(scaled(10))
        number = ours.detach()
        os.set_blocking(number, False)
        link = Link(number, Framing.SEQPACKET)
        return Session(self.kind, link, peer, "by hand", lambda: self.log.append(f"end {number}")), theirs

    def plug(self, peer: Peer | None = None) -> tuple[int, Session, socket.socket]:
        """Open a session and return its port number, it and the guest's end."""
        assert self.sink is not None
        session, theirs = self.session(peer)
        return self.sink.session_opened(session), session, theirs


@dataclass
class Setup:
    """A running service, the plug board and what was published."""

    service: SwitchService
    board: Plug
    clock: ManualClock
    events: list[ServiceEvent] = field(default_factory=list)

    def of(self, *kinds: type) -> list[ServiceEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def wait_for(self, kind: type, count: int = 1) -> list[ServiceEvent]:
        await wait_until_async(lambda: len(self.of(kind)) >= count, 10, f"{count} {kind.__name__}")
        return self.of(kind)


@pytest.fixture
async def running() -> AsyncIterator[Setup]:
    clock = ManualClock(5)
    board = Plug()
    setup = Setup(SwitchService("lan", SwitchConfig(), [board], clock=clock), board, clock)
    setup.service.subscribe(setup.events.append)
    await setup.service.start()
    yield setup
    await setup.service.stop()
    assert setup.service.engine.debug_counts() == dict.fromkeys(setup.service.engine.debug_counts(), 0)


GUEST = Peer(500, 1000, 1000, Boot(70, 0))


async def test_session_is_a_port_that_carries_frames_and_is_described(running: Setup) -> None:
    one, _, left = running.board.plug(GUEST)
    two, _, right = running.board.plug()
    with left, right:
        left.send(frame(BROADCAST, mac(1)))
        assert right.recv(100) == frame(BROADCAST, mac(1))
        await running.wait_for(MacLearned)
    assert (one, two) == (1, 2)
    assert running.service.ports() == [
        PortInfo(1, "plug", "by hand", GUEST),
        PortInfo(2, "plug", "by hand", None),
    ]
    assert running.of(SessionOpened) == [
        SessionOpened(5, 1, "plug", "by hand", GUEST),
        SessionOpened(5, 2, "plug", "by hand", None),
    ]
    assert [(entry.mac, entry.port_no) for entry in running.service.fdb()] == [(mac(1), 1)]
    assert running.service.snapshot().ports[1].rx_frames == 1


async def test_engine_and_service_share_the_clock(running: Setup) -> None:
    running.clock.advance(SECOND_NS)
    _, _, left = running.board.plug()
    left.close()
    await running.wait_for(SessionClosed)
    assert {event.at_ns for event in running.events} == {5 + SECOND_NS}


async def test_session_that_its_guest_ended_is_closed_and_its_addresses_are_gone(running: Setup) -> None:
    port_no, session, left = running.board.plug()
    with left:
        left.send(frame(BROADCAST, mac(1)))
        await running.wait_for(MacLearned)
        running.service.session_closed(session)
        assert left.recv(100) == b""
    assert running.service.ports() == []
    assert running.service.fdb() == []
    assert running.board.log[-1] == f"end {session.link.fd}"
    assert running.of(SessionClosed) == [SessionClosed(5, port_no, "plug", "guest")]
    running.service.session_closed(session)
    assert len(running.of(SessionClosed)) == 1, "a session is closed once"


async def test_link_that_came_to_its_end_closes_the_session(running: Setup) -> None:
    port_no, session, left = running.board.plug()
    left.close()
    assert await running.wait_for(SessionClosed) == [SessionClosed(5, port_no, "plug", "link")]
    assert running.service.ports() == []
    assert f"end {session.link.fd}" in running.board.log
    assert running.of(LinkClosed) == [LinkClosed(5, port_no, 0)]
    await running.wait_for(PortDetached)


async def test_end_of_a_link_after_the_session_is_no_second_report(running: Setup) -> None:
    _, session, left = running.board.plug()
    await running.wait_for(PortAttached)
    left.close()
    wait_for_unread_event(running)
    running.service.session_closed(session)
    await running.wait_for(PortDetached)
    assert [event.cause for event in running.of(SessionClosed) if isinstance(event, SessionClosed)] == [
        "guest"
    ]


def wait_for_unread_event(running: Setup) -> None:
    """Wait, with every earlier event read, until the engine has another; the loop stands still meanwhile."""
    assert select.select([running.service.engine.event_fd()], [], [], scaled(10))[0]


async def test_reboot_retires_the_ports_of_the_earlier_boot_only(running: Setup) -> None:
    other = Peer(501, 1000, 1000, Boot(90, 0))
    ends = [running.board.plug(peer)[2] for peer in (GUEST, GUEST, other, None)]
    rebooted = Peer(500, 1000, 1000, Boot(71, 0))
    first, _, end = running.board.plug(rebooted)
    second, _, another = running.board.plug(rebooted)
    assert (first, second) == (1, 2), "the numbers of the retired ports are free at once"
    assert [ends[0].recv(1), ends[1].recv(1)] == [b"", b""]
    assert running.of(SessionClosed) == [
        SessionClosed(5, 1, "plug", "retired"),
        SessionClosed(5, 2, "plug", "retired"),
    ]
    assert [port.peer for port in running.service.ports()] == [rebooted, rebooted, other, None]
    for sock in (*ends, end, another):
        sock.close()


async def test_end_of_a_retired_link_is_not_the_end_of_the_session_that_has_its_number(
    running: Setup,
) -> None:
    """The end of the old boot's link, still unread, took the new boot's port away."""
    other = running.board.plug()[2]
    old_port_no, _, old_end = running.board.plug(GUEST)
    await running.wait_for(PortAttached, 2)
    old_end.close()
    wait_for_unread_event(running)
    rebooted = Peer(500, 1000, 1000, Boot(71, 0))
    port_no, session, end = running.board.plug(rebooted)
    with other, end:
        assert port_no == old_port_no
        await running.wait_for(PortAttached, 3)
        assert len(running.of(LinkClosed)) == 1
        assert [port.peer for port in running.service.ports()] == [None, rebooted]
        end.send(frame(BROADCAST, mac(1)))
        assert other.recv(100) == frame(BROADCAST, mac(1))
        end.close()
        await running.wait_for(SessionClosed, 2)
        assert running.of(SessionClosed)[1] == SessionClosed(5, port_no, "plug", "link"), "its own end counts"
        assert f"end {session.link.fd}" in running.board.log


async def test_session_that_the_engine_refuses_is_still_the_listeners(running: Setup) -> None:
    read_end, write_end = os.pipe()
    session = Session("plug", Link(read_end, Framing.SEQPACKET), None, "", lambda: None)
    with pytest.raises(SwitchError):
        running.service.session_opened(session)
    os.close(read_end)
    os.close(write_end)
    assert running.service.ports() == []
    assert running.events == []


async def test_refused_request_is_published_each_time_and_logged_once_for_each_user(
    running: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    error = RemoteProtocolError("bad magic")
    for peer in (GUEST, None, GUEST):
        running.service.session_refused("daemon", error, peer)
        running.clock.advance(SECOND_NS // 2)
    assert running.of(SessionRefused) == [
        SessionRefused(5, "daemon", error, GUEST),
        SessionRefused(5 + SECOND_NS // 2, "daemon", error, None),
        SessionRefused(5 + SECOND_NS, "daemon", error, GUEST),
    ]
    line = "switch lan: daemon request of pid 500 refused: bad magic"
    assert [record.getMessage() for record in caplog.records] == [line, line.replace("500", "None")]


async def test_stop_ends_sessions_then_ports_then_listeners_and_reports_the_ports() -> None:
    board, second = Plug(), Plug()
    service = SwitchService("lan", SwitchConfig(), [board, second])
    events: list[ServiceEvent] = []
    service.subscribe(events.append)
    await service.start()
    _, session, left = board.plug()
    await service.stop()
    with left:
        assert left.recv(1) == b""
    assert board.log == ["start", f"end {session.link.fd}", "close"]
    assert second.log == ["start", "close"]
    assert [type(event) for event in events] == [SessionOpened, PortAttached, PortDetached]
    await service.stop()
    assert second.log == ["start", "close"]
    assert service.ports() == []


async def test_session_after_the_stop_is_refused() -> None:
    board = Plug()
    service = SwitchService("lan", SwitchConfig(), [board])
    await service.start()
    await service.stop()
    session, left = board.session()
    with left, pytest.raises(StateError, match="switch lan does not run"):
        service.session_opened(session)
    os.close(session.link.fd)


async def test_stop_before_the_start_does_nothing() -> None:
    board = Plug()
    await SwitchService("lan", SwitchConfig(), [board]).stop()
    assert board.log == []


async def test_start_that_fails_leaves_nothing(short_dir: Path) -> None:
    first, bad, last = DaemonListener(short_dir / "ctl"), Plug(error=TransportError("taken")), Plug()
    service = SwitchService("lan", SwitchConfig(), [first, bad, last])
    with pytest.raises(TransportError, match="taken"):
        await service.start()
    assert list(short_dir.iterdir()) == []
    assert service.engine.debug_counts()["threads"] == 0
    with pytest.raises(StateError):
        await service.start()


async def test_stopped_switch_hears_of_no_refusal() -> None:
    board = Plug()
    service = SwitchService("lan", SwitchConfig(), [board])
    events: list[ServiceEvent] = []
    service.subscribe(events.append)
    await service.start()
    assert board.sink is not None
    await service.stop()
    board.sink.session_refused("plug", TransportError("too late"), None)
    assert (events, service.refused) == ([], 0)


async def test_engine_that_died_is_reported_once_and_stop_cleans_up_all_the_same(
    running: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that stays readable must not keep the loop busy for ever."""
    board, engine = Plug(), PyEngine(SwitchConfig())
    service = SwitchService("lan", SwitchConfig(), [board], engine=engine)
    await service.start()
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    monkeypatch.setattr(engine, "_failure", ZeroDivisionError("a bug"))
    os.eventfd_write(engine._event_fd, 1)
    await wait_until_async(lambda: bool(contexts), 10, "the report")
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(contexts) == 1
    assert isinstance(contexts[0]["exception"], RuntimeError)
    with pytest.raises(RuntimeError, match="died of a bug"):
        await service.stop()
    assert board.log == ["start", "close"]
    await service.stop()


# With the daemon transport and the engine behind it.


class V0Guest:
    """A guest of protocol v0 with a chosen address, in the service's own loop."""

    def __init__(self, folder: Path, name: bytes) -> None:
        self.data_path = os.fspath(folder / "data")
        self.data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.data.bind(name)
        self.data.settimeout(scaled(10))
        self.stream = self.ask(folder, name)

    @staticmethod
    def ask(folder: Path, name: bytes, version: int = 0) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(os.fspath(folder / "ctl"))
        stream.send(serialize_attach_request(AttachRequest(version, name)))
        return stream

    def send(self, data: bytes) -> None:
        self.data.sendto(data, self.data_path)

    def close(self) -> None:
        self.stream.close()
        self.data.close()


@pytest.fixture
async def old(short_dir: Path) -> AsyncIterator[Setup]:
    clock = ManualClock()
    listener = DaemonListener(short_dir / "ctl", short_dir / "data")
    setup = Setup(SwitchService("lan", SwitchConfig(), [listener], clock=clock), Plug(), clock)
    setup.service.subscribe(setup.events.append)
    await setup.service.start()
    yield setup
    await setup.service.stop()
    assert list(short_dir.iterdir()) == []


def name(text: bytes) -> bytes:
    return (b"\0" + text + os.urandom(8)).ljust(108, b"x")


async def test_two_v0_guests_are_told_apart_and_a_third_with_a_taken_address_is_refused(
    old: Setup, short_dir: Path
) -> None:
    names = [name(b"left"), name(b"right")]
    left, right = (V0Guest(short_dir, each) for each in names)
    await old.wait_for(SessionOpened, 2)
    thief = V0Guest.ask(short_dir, names[0])
    (refused,) = await old.wait_for(SessionRefused)
    assert isinstance(refused, SessionRefused)
    assert "another port has this address" in str(refused.error)
    left.send(frame(BROADCAST, mac(1)))
    assert right.data.recv(100) == frame(BROADCAST, mac(1))
    right.send(frame(mac(1), mac(2)))
    assert left.data.recv(100) == frame(mac(1), mac(2))
    assert thief.recv(1) == b""
    for each in (left, right, thief):
        each.close()


async def test_v0_guest_that_left_may_come_back_with_its_address(old: Setup, short_dir: Path) -> None:
    here, there = name(b"here"), name(b"there")
    stays = V0Guest(short_dir, there)
    for round_no in range(1, 4):
        guest = V0Guest(short_dir, here)
        await old.wait_for(SessionOpened, round_no + 1)
        guest.send(frame(BROADCAST, mac(round_no)))
        assert stays.data.recv(100) == frame(BROADCAST, mac(round_no))
        guest.close()
        await old.wait_for(SessionClosed, round_no)
    stays.close()
    await old.wait_for(SessionClosed, 4)
    last = V0Guest(short_dir, here)
    await old.wait_for(SessionOpened, 5)
    last.send(frame(BROADCAST, mac(9)))
    await wait_until_async(
        lambda: [entry.mac for entry in old.service.fdb()] == [mac(9)],
        10,
        "the shared socket is served again",
    )
    last.close()


async def test_v0_stranger_is_counted_and_not_forwarded(old: Setup, short_dir: Path) -> None:
    guest = V0Guest(short_dir, name(b"guest"))
    other = V0Guest(short_dir, name(b"other"))
    await old.wait_for(SessionOpened, 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for _ in range(3):
            stranger.sendto(frame(BROADCAST, mac(66)), os.fspath(short_dir / "data"))
    other.send(frame(BROADCAST, mac(2)))
    assert guest.data.recv(100) == frame(BROADCAST, mac(2))
    assert old.service.snapshot().counters.unknown_sender == 3
    assert [entry.mac for entry in old.service.fdb()] == [mac(2)]
    guest.close()
    other.close()


async def test_guest_whose_data_socket_died_keeps_its_port_until_its_stream_ends(
    old: Setup, short_dir: Path
) -> None:
    living = V0Guest(short_dir, name(b"living"))
    dying_name = name(b"dying")
    dying = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dying.bind(dying_name)
    stream = V0Guest.ask(short_dir, dying_name, version=3)
    await old.wait_for(SessionOpened, 2)
    parse_attach_reply(stream.recv(200))
    (port_no,) = [port.port_no for port in old.service.ports() if port.detail == "v3"]
    dying.close()
    for _ in range(5):
        living.send(frame(BROADCAST, mac(1)))
    await wait_until_async(
        lambda: old.service.snapshot().ports[port_no].drops == {DropReason.PEER_GONE: 5}, 10, "five drops"
    )
    assert len(old.service.ports()) == 2
    assert old.of(SessionClosed) == []
    stream.close()
    assert await old.wait_for(SessionClosed) == [SessionClosed(0, port_no, "daemon", "guest")]
    living.close()


async def test_connection_that_the_switch_ends_is_reported_once(old: Setup, short_dir: Path) -> None:
    guest = V0Guest(short_dir, name(b"guest"))
    await old.wait_for(SessionOpened)
    guest.stream.send(b"!")
    await old.wait_for(SessionRefused)
    assert guest.stream.recv(1) == b""
    guest.close()
    await old.wait_for(PortDetached)
    ours = old.of(SessionOpened, SessionClosed, SessionRefused)
    assert [type(event) for event in ours] == [SessionOpened, SessionClosed, SessionRefused]
