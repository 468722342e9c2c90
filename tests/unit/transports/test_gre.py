"""Places of the gre transport: the headers, the socket and the guest's argument that they mean."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from support.recording_sink import RecordingSink
from umlab.errors import StateError, TransportError
from umlab.switch.model import Encapsulation, Framing
from umlab.transports.contract import PRIVATE, KeptSession
from umlab.transports.gre import TRANSPORT
from umlab.transports.tunnel import Address, Socket

ENDS = "src=127.0.0.1,dst=127.0.0.2"
RAW = Socket(socket.AF_INET, socket.SOCK_RAW, 47)


class FakeRawSockets:
    """Gives a plain socket where a raw one is asked for.

    Attributes:
        asked: What was, and between which addresses.
        given: The descriptors.
        error: Raised instead, when set.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Socket, Address, Address | None]] = []
        self.given: list[int] = []
        self.error: OSError | None = None
        monkeypatch.setattr(Socket, "open", lambda *words: self._open(*words))

    def _open(self, sort: Socket, address: Address, peer: Address | None) -> socket.socket:
        self.asked.append((sort, address, peer))
        if self.error is not None:
            raise self.error
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.given.append(sock.fileno())
        return sock


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeRawSockets:
    return FakeRawSockets(monkeypatch)


@pytest.mark.parametrize(
    ("place", "encapsulation", "guest"),
    [
        ("", Encapsulation(b"\0\0\x65\x58", b"\0\0\x65\x58", ip_header=True), ""),
        (
            ",rx_key=1,tx_key=0xfffffffe,sequence=1",
            Encapsulation(
                bytes.fromhex("3000655800000001"),
                bytes.fromhex("30006558fffffffe"),
                rx_skip=4,
                tx_counter=1,
                ip_header=True,
            ),
            ",rx_key=-2,tx_key=1,sequence=1",
        ),
        (
            ",sequence=1,pin_sequence=1",
            Encapsulation(
                bytes.fromhex("10006558"), bytes.fromhex("1000655800000000"), rx_skip=4, ip_header=True
            ),
            ",sequence=1,pin_sequence=1",
        ),
    ],
)
async def test_place_is_one_session_at_once_and_the_guest_is_told_the_mirror_image(
    place: str, encapsulation: Encapsulation, guest: str, kernel: FakeRawSockets, sink: RecordingSink
) -> None:
    listener = TRANSPORT.make(ENDS + place, PRIVATE)
    assert (listener.kind, listener.where) == ("gre", ENDS + place)
    (argument,) = listener.arguments
    assert (argument.program, argument.needs) == ("uml", "gre")
    assert argument.text == f"vec0:transport=gre,src=127.0.0.2,dst=127.0.0.1{guest}"
    await listener.start(sink)
    assert kernel.asked == [(RAW, ("127.0.0.1", 0), ("127.0.0.2", 0))]
    (session,) = sink.opened
    assert (session.kind, session.detail, session.peer) == ("gre", "127.0.0.2", None)
    assert (session.link.framing, session.link.encapsulation) == (Framing.DATAGRAM, encapsulation)
    session.close()
    await listener.close()
    os.fstat(session.link.fd)  # the engine's


async def test_ipv6_has_no_header_in_front(kernel: FakeRawSockets, sink: RecordingSink) -> None:
    listener = TRANSPORT.make("v6=1,src=::1,dst=fd00::2", PRIVATE)
    assert listener.arguments[0].text == "vec0:transport=gre,src=fd00::2,dst=::1,v6=1"
    await listener.start(sink)
    ((sort, address, peer),) = kernel.asked
    assert (sort.family, address[:2], peer and peer[:2]) == (socket.AF_INET6, ("::1", 0), ("fd00::2", 0))
    assert sink.opened[0].link.encapsulation == Encapsulation(b"\0\0\x65\x58", b"\0\0\x65\x58")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("src=127.0.0.1", "dst= is missing"),
        ("dst=127.0.0.1", "src= is missing"),
        ("src=localhost,dst=127.0.0.1", "src=localhost is no address of IPv4"),
        ("src=::1,dst=::1", r"src=::1 is no address of IPv4 \(or v6=1 is missing\)"),
        ("src=127.0.0.1,dst=127.0.0.1,v6=1", "src=127.0.0.1 is no address of IPv6"),
        (f"src={'1' * 300},dst=127.0.0.1", "is no address"),
        (f"{ENDS},rx_key=1", "tx_key= is missing"),
        (f"{ENDS},rx_key=1,tx_key=0x100000000", "tx_key=0x100000000 is no number of 32 bits"),
        (f"{ENDS},pin_sequence=1", "pin_sequence needs sequence=1"),
        (f"{ENDS},srcport=1", "'srcport' is no option"),
    ],
)
def test_place_that_is_none_is_refused_with_the_reason(place: str, reason: str) -> None:
    with pytest.raises(TransportError, match=f"^gre: .*{reason}"):
        TRANSPORT.make(place, PRIVATE)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.EPERM, "Operation not permitted; a raw IP socket needs the capability CAP_NET_RAW"),
        (errno.EADDRNOTAVAIL, "Cannot assign requested address$"),
    ],
)
async def test_socket_that_cannot_be_had_says_what_helps(
    error: int, reason: str, kernel: FakeRawSockets, sink: RecordingSink
) -> None:
    kernel.error = OSError(error, os.strerror(error))
    with pytest.raises(TransportError, match=f"^gre 127.0.0.1: {reason}"):
        await TRANSPORT.make(ENDS, PRIVATE).start(sink)


@pytest.mark.needs_root
@pytest.mark.parametrize("ends", [ENDS, "src=::1,dst=::1,v6=1"])
async def test_raw_socket_hears_its_peer(ends: str, sink: RecordingSink) -> None:
    if "v6" in ends and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    listener = TRANSPORT.make(f"{ends},rx_key=0x{os.getpid():x},tx_key=1", PRIVATE)
    await listener.start(sink)
    (session,) = sink.opened
    encapsulation = session.link.encapsulation
    assert encapsulation is not None
    sort = Socket(socket.AF_INET6 if "v6" in ends else socket.AF_INET, socket.SOCK_RAW, 47)
    own, peer = (end.partition("=")[2] for end in ends.split(",")[:2])
    with sort.open((peer, 0), (own, 0)) as other:
        other.send(encapsulation.rx_header + b"frame")
        # Others may have sent there as well.
        await wait_until_async(
            lambda: encapsulation.rx_header + b"frame" in os.read(session.link.fd, 100), 10, "the message"
        )


@pytest.mark.needs_plain_user
async def test_plain_user_is_told_of_the_privilege(sink: RecordingSink) -> None:
    with pytest.raises(TransportError, match="CAP_NET_RAW"):
        await TRANSPORT.make(ENDS, PRIVATE).start(sink)


async def test_refused_session_closes_the_socket(kernel: FakeRawSockets, sink: RecordingSink) -> None:
    sink.refusal = StateError("it does not run")
    with pytest.raises(TransportError, match=r"^gre 127.0.0.1: it does not run$"):
        await TRANSPORT.make(ENDS, PRIVATE).start(sink)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kernel.given[0])


async def test_another_process_goes_on_with_the_socket(kernel: FakeRawSockets, sink: RecordingSink) -> None:
    listener = TRANSPORT.make(ENDS, PRIVATE)
    assert listener.descriptors() == {}
    await listener.start(sink, {})
    assert (sink.opened, kernel.asked) == ([], [])
    session = listener.resume(KeptSession(None, "127.0.0.2", {}, (7,)))
    assert (session.kind, session.detail, session.link.fd) == ("gre", "127.0.0.2", 7)
    for fds in ((), (7, 8)):
        with pytest.raises(ValueError, match="unpack"):
            listener.resume(KeptSession(None, "127.0.0.2", {}, fds))
