"""The l2tpv3 transport: what its places mean, and who gets the port where the peer is not named."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from support.deadline import scaled, wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from support.recording_sink import RecordingSink
from umlab._clock import MonotonicClock
from umlab.daemon.switch import SwitchService
from umlab.errors import SwitchError, TransportError
from umlab.switch.counters import DropReason
from umlab.switch.model import Encapsulation, Framing, SwitchConfig
from umlab.transports import l2tpv3
from umlab.transports.contract import PRIVATE, KeptSession, Listener
from umlab.transports.l2tpv3 import TRANSPORT
from umlab.transports.tunnel import Socket
from umlab.wire.l2tpv3 import serialize_header

SESSIONS = "rx_session=1,tx_session=2"
DEVICE = " -device virtio-net-pci,netdev=n0"
COOKIES = "rx_cookie=0x01020304,tx_cookie=0x05060708"


def free_port() -> int:
    """Return a UDP port of the loopback address that nobody has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make(place: str) -> Listener:
    return TRANSPORT.make(place, PRIVATE)


class Peer:
    """A host somewhere that speaks with the switch.

    Args:
        port: The switch's.
        session: What it sends.
        cookie: What it sends.
        own_port: Where it is bound, any unless given.
    """

    def __init__(self, port: int, session: int = 1, cookie: bytes = b"", own_port: int = 0) -> None:
        self.header = serialize_header(session, cookie, udp=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(scaled(10))
        self.sock.bind(("127.0.0.1", own_port))
        self.sock.connect(("127.0.0.1", port))
        self.port = int(self.sock.getsockname()[1])

    @property
    def name(self) -> str:
        """Its address, for people."""
        return f"127.0.0.1:{self.port}"

    def send(self, data: bytes) -> None:
        """Send a frame."""
        self.sock.send(self.header + data)

    def receive(self) -> bytes:
        """Return the next datagram."""
        return self.sock.recv(2000)

    def hears(self) -> bool:
        """Tell whether a datagram waits."""
        return bool(select.select([self.sock], [], [], 0)[0])


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """Return a list whose peers are closed in the end."""
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.sock.close()


# Places.


@pytest.mark.parametrize(
    ("place", "encapsulation", "uml", "qemu"),
    [
        (
            "",
            Encapsulation(bytes.fromhex("0003000000000001"), bytes.fromhex("0003000000000002")),
            "rx_session=2,tx_session=1",
            "rxsession=2,txsession=1",
        ),
        (
            f",{COOKIES},counter=1",
            Encapsulation(
                bytes.fromhex("000300000000000101020304"),
                bytes.fromhex("000300000000000205060708"),
                rx_skip=4,
                tx_counter=1,
            ),
            "rx_session=2,tx_session=1,rx_cookie=0x05060708,tx_cookie=0x01020304,counter=1",
            "rxsession=2,txsession=1,rxcookie=0x05060708,txcookie=0x01020304,counter=on",
        ),
        (
            ",rx_cookie=1,tx_cookie=0xffffffffffffffff,cookie64=1,counter=1,pin_counter=1",
            Encapsulation(
                bytes.fromhex("00030000000000010000000000000001"),
                bytes.fromhex("0003000000000002ffffffffffffffff00000000"),
                rx_skip=4,
            ),
            "rx_session=2,tx_session=1,rx_cookie=0xffffffffffffffff,tx_cookie=0x0000000000000001"
            ",cookie64=1,counter=1,pin_counter=1",
            "rxsession=2,txsession=1,rxcookie=0xffffffffffffffff,txcookie=0x0000000000000001"
            ",cookie64=on,counter=on,pincounter=on",
        ),
    ],
)
async def test_place_with_a_peer_is_one_session_at_once_and_the_peer_is_told_the_mirror_image(
    place: str, encapsulation: Encapsulation, uml: str, qemu: str, sink: RecordingSink
) -> None:
    port = free_port()
    place = f"src=127.0.0.1,srcport={port},dst=127.0.0.1,dstport=9,{SESSIONS}{place}"
    listener = make(place)
    assert (listener.kind, listener.where) == ("l2tpv3", place)
    ends = f"src=127.0.0.1,dst=127.0.0.1,udp={{}},srcport=9,dstport={port}"
    assert [(each.program, each.needs, each.text) for each in listener.arguments] == [
        ("uml", "l2tpv3", f"vec0:transport=l2tpv3,{ends.format(1)},{uml}"),
        ("qemu", "", f"-netdev l2tpv3,id=n0,{ends.format('on')},{qemu}{DEVICE}"),
    ]
    await listener.start(sink)
    (session,) = sink.opened
    assert (session.kind, session.detail, session.peer) == ("l2tpv3", "127.0.0.1:9", None)
    assert (session.link.framing, session.link.encapsulation) == (Framing.DATAGRAM, encapsulation)
    with pytest.raises(TransportError, match=rf"^l2tpv3 127.0.0.1:{port}: Address already in use$"):
        await make(place).start(sink)
    await listener.close()


def test_session_is_told_to_the_kernel_as_it_reads_it() -> None:
    place = "src=::1,srcport=1701,v6=1,rx_session=0xffffffff,tx_session=0x80000000"
    uml, qemu = (each.text for each in make(place).arguments)
    ends = "src=::,dst=::1,udp={},srcport=0,dstport=1701"
    assert uml == f"vec0:transport=l2tpv3,{ends.format(1)},v6=1,rx_session=-2147483648,tx_session=-1"
    assert qemu == (
        f"-netdev l2tpv3,id=n0,{ends.format('on')},ipv6=on,rxsession=2147483648,txsession=4294967295{DEVICE}"
    )


def test_raw_place_has_no_ports() -> None:
    listener = make(f"src=127.0.0.1,dst=127.0.0.2,udp=0,{SESSIONS}")
    assert [each.text for each in listener.arguments] == [
        "vec0:transport=l2tpv3,src=127.0.0.2,dst=127.0.0.1,rx_session=2,tx_session=1",
        f"-netdev l2tpv3,id=n0,src=127.0.0.2,dst=127.0.0.1,rxsession=2,txsession=1{DEVICE}",
    ]


@pytest.mark.needs_plain_user
async def test_raw_place_of_a_plain_user_is_told_of_the_privilege(sink: RecordingSink) -> None:
    with pytest.raises(TransportError, match=r"^l2tpv3 127.0.0.1: .*CAP_NET_RAW"):
        await make(f"src=127.0.0.1,dst=127.0.0.2,udp=0,{SESSIONS}").start(sink)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (f"srcport=1,{SESSIONS}", "src= is missing"),
        (f"src=127.0.0.1,{SESSIONS}", "srcport= is missing"),
        (f"src=127.0.0.1,srcport=1,dst=127.0.0.1,{SESSIONS}", "dstport= is missing"),
        (f"src=127.0.0.1,srcport=1,dstport=1,{SESSIONS}", "dst= is missing"),
        (f"src=127.0.0.1,srcport=65536,{SESSIONS}", "srcport=65536 is no number of 16 bits"),
        (f"src=127.0.0.1,udp=0,{SESSIONS}", "dst= is missing"),
        (f"src=127.0.0.1,dst=127.0.0.2,srcport=1,udp=0,{SESSIONS}", "there are no ports with udp=0"),
        (f"src=0.0.0.0,srcport=1,{SESSIONS}", "src must be one address of this host"),
        (f"src=::,srcport=1,v6=1,{SESSIONS}", "src must be one address of this host"),
        ("src=127.0.0.1,srcport=1,rx_session=1", "tx_session= is missing"),
        ("src=127.0.0.1,srcport=1,rx_session=1,tx_session=-1", "tx_session=-1 is no number of 32 bits"),
        (f"src=127.0.0.1,srcport=1,{SESSIONS},rx_cookie=1", "tx_cookie= is missing"),
        (f"src=127.0.0.1,srcport=1,{SESSIONS},rx_cookie=1,tx_cookie=0x100000000", "no number of 32 bits"),
        (f"src=127.0.0.1,srcport=1,{SESSIONS},cookie64=1", "cookie64 needs rx_cookie and tx_cookie"),
        (f"src=127.0.0.1,srcport=1,{SESSIONS},pin_counter=1", "pin_counter needs counter=1"),
        (f"src=127.0.0.1,srcport=1,src_port=1,{SESSIONS}", "'src_port' is no option"),
    ],
)
def test_place_that_is_none_is_refused_with_the_reason(place: str, reason: str) -> None:
    with pytest.raises(TransportError, match=f"^l2tpv3: .*{reason}"):
        make(place)


# Frames.


@pytest.mark.parametrize("kind", sorted(ENGINES))
async def test_frames_go_both_ways_and_a_peer_that_is_not_up_yet_harms_nothing(
    kind: str, peers: list[Peer]
) -> None:
    engine = ENGINES[kind](SwitchConfig(), MonotonicClock())
    left, right, theirs = free_port(), free_port(), free_port()
    named = f"src=127.0.0.1,srcport={left},dst=127.0.0.1,dstport={theirs},{SESSIONS},{COOKIES},counter=1"
    awaited = f"src=127.0.0.1,srcport={right},{SESSIONS}"
    switch = SwitchService("lan", SwitchConfig(), [make(named), make(awaited)], engine=engine)
    await switch.start()
    try:
        peers.append(Peer(right))
        peers[0].send(frame(BROADCAST, mac(1)))
        await wait_until_async(lambda: len(switch.ports()) == 2, 10, "the port of who came")
        for _ in range(200):
            # Nobody is there: each comes back as an error of the next.
            peers[0].send(frame(BROADCAST, mac(1)))
        gone = DropReason.PEER_GONE
        await wait_until_async(lambda: switch.snapshot().ports[1].drops.get(gone, 0), 10, "an error")

        peers.append(late := Peer(left, 1, b"\1\2\3\4", theirs))
        late.send(b"\0\0\0\7" + frame(BROADCAST, mac(2)))
        assert peers[0].receive() == serialize_header(2, b"", udp=True) + frame(BROADCAST, mac(2))
        peers[0].send(frame(mac(2), mac(1)))
        peers[0].send(frame(mac(2), mac(1), 1514))
        # Some that were on their way to nobody may still come.
        first = next(data for data in iter(late.receive, b"") if data[16:] == frame(mac(2), mac(1)))
        second = late.receive()
        header = serialize_header(2, b"\5\6\7\10", udp=True)
        assert first[:12] == header
        assert second[16:] == frame(mac(2), mac(1), 1514)
        assert int.from_bytes(second[12:16], "big") == int.from_bytes(first[12:16], "big") + 1

        late.sock.send(header[:8] + b"\0\0\0\0" + bytes(64))
        late.sock.send(b"\0")
        bad = DropReason.BAD_HEADER
        await wait_until_async(lambda: switch.snapshot().ports[1].drops.get(bad) == 2, 10, "two drops")
        assert [(port.kind, port.detail) for port in switch.ports()] == [
            ("l2tpv3", f"127.0.0.1:{theirs}"),
            ("l2tpv3", peers[0].name),
        ]
    finally:
        await switch.stop()


# Who comes where nobody was named.


async def test_first_with_the_right_session_has_the_port_and_strangers_do_not(
    sink: RecordingSink, peers: list[Peer]
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    assert listener.descriptors() == {}
    await listener.start(sink)
    peers += [Peer(port, session=3), Peer(port)]
    wrong, first = peers
    wrong.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    assert sink.reasons == [f"datagram from {wrong.name} refused: session 3"]
    for _ in range(5):
        wrong.send(b"frame")
    first.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session")
    (session,) = sink.opened
    assert (session.kind, session.detail, session.peer) == ("l2tpv3", first.name, None)
    os.write(session.link.fd, b"to the first")
    assert first.receive() == b"to the first"
    first.send(b"to the engine")
    assert os.read(session.link.fd, 100) == first.header + b"to the engine"
    session.close()
    peers.append(last := Peer(port))
    last.send(b"frame")
    await wait_until_async(lambda: len(sink.opened) == 2, 10, "the port is free again")
    assert sink.opened[1].detail == last.name
    assert (len(sink.reasons), sink.closed) == (1, [])
    await listener.close()
    await listener.close()


async def test_peer_that_shows_the_cookie_may_have_another_address(
    sink: RecordingSink, peers: list[Peer]
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS},{COOKIES}")
    await listener.start(sink)
    cookie = b"\1\2\3\4"
    peers += [Peer(port, cookie=b"\1\2\3\5"), Peer(port, cookie=cookie), Peer(port, cookie=cookie)]
    wrong, before, after = peers
    for _ in range(3):
        before.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session")
    wrong.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    assert sink.reasons == [f"datagram from {wrong.name} refused: another cookie"]
    assert len(sink.opened) == 1
    after.send(b"frame")
    await wait_until_async(lambda: len(sink.opened) == 2, 10, "another session")
    assert sink.closed == sink.opened[:1]
    assert sink.opened[1].detail == after.name
    os.write(sink.opened[1].link.fd, b"to the new address")
    assert after.receive() == b"to the new address"
    assert not before.hears()
    await listener.close()


async def test_stranger_without_the_cookie_takes_nothing_from_the_peer(
    sink: RecordingSink, peers: list[Peer]
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)
    peers += [Peer(port), Peer(port)]
    first, second = peers
    first.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session")
    second.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    assert sink.reasons == [f"datagram from {second.name} refused: the peer is {first.name}"]
    assert (len(sink.opened), sink.closed) == (1, [])
    await listener.close()


async def test_flood_is_reported_now_and_then_and_looked_at_in_bursts(
    sink: RecordingSink, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)
    peers.append(stranger := Peer(port))
    for _ in range(100):
        stranger.sock.send(b"garbage")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    peers.append(peer := Peer(port))
    peer.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session behind all the garbage")
    assert sink.reasons == [f"datagram from {stranger.name} refused: message is cut: 7 of 8 bytes"]
    sink.opened[0].close()
    monkeypatch.setattr(listener, "_report_at", 0.0)
    stranger.sock.send(b"garbage")
    await wait_until_async(lambda: len(sink.reasons) == 2, 10, "the next report")
    assert sink.reasons[1].endswith("bytes, and 99 before it")
    await listener.close()


async def test_each_datagram_is_followed_by_the_pause(
    sink: RecordingSink, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l2tpv3, "_PAUSE", 3600.0)
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)
    peers += [Peer(port, session=3), Peer(port)]
    stranger, peer = peers
    stranger.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    peer.send(b"frame")
    for _ in range(5):  # turns of the loop
        await asyncio.sleep(0)
    assert sink.opened == []
    assert select.select([listener.descriptors()["listener"]], [], [], 0)[0], "it waits there"
    await listener.close()


async def test_listener_that_pauses_is_closed_like_any_other(
    sink: RecordingSink, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l2tpv3, "_PAUSE", 3600.0)
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)
    peers.append(stranger := Peer(port))
    for _ in range(64):
        stranger.sock.send(b"garbage")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    await listener.close()
    assert listener.descriptors() == {}


async def test_peer_that_gets_no_port_is_told_in_the_log_and_may_come_again(
    sink: RecordingSink, peers: list[Peer]
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)
    peers.append(peer := Peer(port))
    sink.refusal = SwitchError("no port left")
    peer.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    assert sink.reasons == [f"datagram from {peer.name} refused: no port left"]
    sink.refusal = None
    peer.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session")
    await listener.close()


async def test_socket_that_cannot_be_had_for_the_peer_is_reported(
    sink: RecordingSink, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    listener = make(f"src=127.0.0.1,srcport={port},{SESSIONS}")
    await listener.start(sink)

    def out_of_descriptors(*words: object, **options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Socket, "open", out_of_descriptors)
    peers.append(peer := Peer(port))
    peer.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    reason = f"l2tpv3 127.0.0.1:{port}: Too many open files"
    assert sink.reasons == [f"datagram from {peer.name} refused: {reason}"]
    assert sink.opened == []
    await listener.close()


async def test_ipv6_is_another_family_of_the_same(sink: RecordingSink) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        try:
            peer.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6")
        peer.settimeout(scaled(10))
        port = free_port()
        listener = make(f"src=::1,srcport={port},v6=1,{SESSIONS}")
        await listener.start(sink)
        peer.sendto(serialize_header(1, b"", udp=True), ("::1", port))
        await wait_until_async(lambda: sink.opened, 10, "a session")
        assert sink.opened[0].detail == f"[::1]:{peer.getsockname()[1]}"
        os.write(sink.opened[0].link.fd, b"to the peer")
        assert peer.recv(100) == b"to the peer"
        await listener.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_port_that_is_taken_is_refused(sink: RecordingSink, shared: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(TransportError, match=rf"^l2tpv3 127.0.0.1:{port}: Address already in use$"):
            await make(f"src=127.0.0.1,srcport={port},{SESSIONS}").start(sink)


async def test_another_process_goes_on_with_the_socket_and_the_peer(
    sink: RecordingSink, peers: list[Peer]
) -> None:
    port = free_port()
    place = f"src=127.0.0.1,srcport={port},{SESSIONS}"
    before, after = make(place), make(place)
    await before.start(sink)
    peers += [Peer(port), Peer(port)]
    first, second = peers
    first.send(b"frame")
    await wait_until_async(lambda: sink.opened, 10, "a session")
    (old,) = sink.opened
    kept = {name: os.dup(fd) for name, fd in before.descriptors().items()}
    session = KeptSession(old.peer, old.detail, old.state, (os.dup(old.link.fd),))
    await before.close()

    await after.start(sink, kept)
    assert after.descriptors() == kept
    resumed = after.resume(session)
    assert (resumed.kind, resumed.detail) == ("l2tpv3", first.name)
    assert resumed.link.encapsulation == old.link.encapsulation
    os.write(resumed.link.fd, b"to the first")
    assert first.receive() == b"to the first"
    os.close(resumed.link.fd)
    second.send(b"frame")
    await wait_until_async(lambda: sink.reasons, 10, "a refusal")
    assert sink.reasons == [f"datagram from {second.name} refused: the peer is {first.name}"]
    with pytest.raises(ValueError, match="unpack"):
        after.resume(KeptSession(None, "", {}, ()))
    await after.close()


async def test_what_is_not_its_own_stays_the_callers(sink: RecordingSink) -> None:
    listener = make(f"src=127.0.0.1,srcport={free_port()},{SESSIONS}")
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for kept in ({}, {"control": fd}, {"listener": fd}):
        with pytest.raises((LookupError, OSError)):
            await listener.start(sink, kept)
    await listener.close()
    os.close(fd)
