"""Links to an interface, by an AF_PACKET socket: the kernel takes tags out, and they are put back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from integration.peers.namespace import NetworkNamespace, network_namespace
from support.deadline import scaled, wait_until
from support.guest_end import BROADCAST, frame, mac, plug, traffic_of
from support.require import unavailable
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.counters import DropReason
from umlab.switch.model import Framing, Link, SwitchConfig

pytestmark = pytest.mark.needs_root

_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_MTU = "9000"


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    """Yield a namespace with a pair of devices, ``ours`` and ``theirs``, on which nobody else speaks."""
    with network_namespace() as made:
        try:
            made.run("ip", "link", "add", "ours", "type", "veth", "peer", "name", "theirs")
        except AssertionError as error:
            unavailable(f"no veth pair can be made here: {error}")
        for device in ("ours", "theirs"):
            made.run("ip", "link", "set", device, "mtu", _MTU, "addrgenmode", "none", "up")
        yield made


def open_packet(device: str, protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, protocol))
    sock.settimeout(scaled(10))
    return sock


@pytest.fixture
def theirs(namespace: NetworkNamespace) -> Iterator[socket.socket]:
    """Yield a socket on the far device."""
    with namespace.entered(), open_packet("theirs", _ALL) as sock:
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        yield sock


@pytest.fixture
def attached(engine: Engine, namespace: NetworkNamespace) -> int:
    """Return the port of the near device."""
    with namespace.entered():
        sock = open_packet("ours", _ALL)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    sock.setblocking(False)
    return engine.attach(Link(sock.detach(), Framing.PACKET))


def tagged(whole: bytes, *tags: int) -> bytes:
    return whole[:12] + b"".join(struct.pack("!I", tag) for tag in tags) + whole[12:]


@pytest.mark.parametrize(
    "tags",
    [(), (0x8100_0001,), (0x8100_EFFF,), (0x8100_0000,), (0x88A8_0064,), (0x88A8_0064, 0x8100_2007)],
)
@pytest.mark.parametrize("size", [60, 2044, 2048, 8000])
def test_frames_come_in_as_they_were_sent(
    engine: Engine, attached: int, theirs: socket.socket, tags: tuple[int, ...], size: int
) -> None:
    guest = plug(engine)
    sent = tagged(frame(BROADCAST, mac(1), size, b"payload"), *tags)
    theirs.send(sent)
    assert guest.receive() == sent
    assert [(entry.mac, entry.port_no) for entry in engine.fdb()] == [(mac(1), attached)]
    guest.close()


def test_tag_belongs_to_its_own_frame_of_a_burst(
    engine: Engine, attached: int, theirs: socket.socket
) -> None:
    guest = plug(engine)
    sent = [
        tagged(frame(BROADCAST, mac(1), payload=bytes([number])), *[0x8100_0000 + number] * (number % 3 > 0))
        for number in range(200)
    ]
    for each in sent:
        theirs.send(each)
    assert guest.receive_many(len(sent)) == sent
    guest.close()


@pytest.mark.parametrize("tags", [(), (0x8100_0007,)])
def test_frames_go_out_as_they_came(
    engine: Engine, attached: int, theirs: socket.socket, tags: tuple[int, ...]
) -> None:
    guest = plug(engine)
    sent = tagged(frame(mac(1), mac(2), 1000), *tags)
    guest.send(sent)
    data, ancillary, _, _ = theirs.recvmsg(70_000, 100)
    ((_, _, auxiliary),) = ancillary
    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", auxiliary)
    assert tagged(data, *[tpid << 16 | tci] * bool(status & 0x10)) == sent
    assert guest.waiting() == [], "what we send there does not come back"
    wait_until(lambda: engine.snapshot().ports[attached].tx_frames == 1, 10, "it is counted")
    guest.close()


def test_tag_counts_for_the_longest_frame(engine: Engine, attached: int, theirs: socket.socket) -> None:
    engine.configure(SwitchConfig(max_frame=1518))
    guest = plug(engine)
    theirs.send(tagged(frame(BROADCAST, mac(1), 1514), 0x8100_0001))
    assert len(guest.receive()) == 1518
    theirs.send(tagged(frame(BROADCAST, mac(1), 1515), 0x8100_0001))
    wait_until(lambda: traffic_of(engine, attached) == 2, 10, "it is dealt with")
    assert engine.snapshot().ports[attached].drops == {DropReason.OVERSIZE: 1}
    guest.close()


def test_raw_socket_of_another_family_is_refused(engine: Engine) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE) as sock:
        sock.setblocking(False)
        with pytest.raises(SwitchError, match="packet"):
            engine.attach(Link(sock.fileno(), Framing.PACKET))


def test_interface_that_goes_down_and_up(
    engine: Engine, attached: int, theirs: socket.socket, namespace: NetworkNamespace
) -> None:
    guest = plug(engine)
    theirs.send(frame(BROADCAST, mac(1)))
    assert guest.receive()
    namespace.run("ip", "link", "set", "ours", "down")
    guest.send(frame(BROADCAST, mac(2)))
    wait_until(lambda: engine.snapshot().ports[attached].drops, 10, "a frame is lost")
    namespace.run("ip", "link", "set", "ours", "up")

    def comes_through() -> list[bytes]:
        theirs.send(frame(BROADCAST, mac(1), payload=b"again"))
        return guest.waiting()

    wait_until(comes_through, 10, "frames come again")
    guest.close()
