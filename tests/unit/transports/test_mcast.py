"""The multicast group on the loopback device: who is heard, and that nobody hears himself."""

from __future__ import annotations

import os
import select
import socket

import pytest

from support.deadline import scaled
from support.no_descriptors import out_of_descriptors
from support.recording_sink import RecordingSink
from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports import mcast
from umlab.transports.contract import PRIVATE, KeptSession, Listener
from umlab.transports.mcast import TRANSPORT

GROUP = "239.192.168.7"


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make(port: int, group: str = GROUP, interface: str = ",127.0.0.1") -> Listener:
    return TRANSPORT.make(f"{group}:{port}{interface}", PRIVATE)


def member(port: int) -> socket.socket:
    """Return a socket as a guest has one: it sends from the group's own port, and hears itself."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((GROUP, port))
    lo = socket.inet_aton("127.0.0.1")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + lo)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)
    sock.settimeout(scaled(10))
    return sock


def hear(receiver: int) -> bytes:
    """Return what a listener's receiving socket gets next."""
    assert select.select([receiver], [], [], scaled(10))[0], "nothing came"
    return os.read(receiver, 10_000)


async def test_group_is_one_port_that_hears_all_but_itself(port: int, sink: RecordingSink) -> None:
    listener = make(port)
    assert (listener.kind, listener.where) == ("mcast", f"{GROUP}:{port},127.0.0.1")
    assert listener.descriptors() == {}
    await listener.start(sink)
    (session,) = sink.opened
    receiver = listener.descriptors()["receiver"]
    assert (session.kind, session.detail, session.peer) == ("mcast", listener.where, None)
    link = session.link
    assert (link.framing, link.rx_shared_fd, link.rx_address) == (Framing.DATAGRAM, receiver, b"")
    assert not os.get_blocking(link.fd)
    assert not os.get_blocking(receiver)
    with member(port) as guest:
        os.write(link.fd, b"our own")
        assert guest.recv(100) == b"our own"
        guest.sendto(b"from a guest", (GROUP, port))
        assert hear(receiver) == b"from a guest", "our own came before it"
        session.close()
        await listener.close()
        await listener.close()
    assert sink.closed == []


async def test_two_switches_hear_each_other(port: int, sink: RecordingSink) -> None:
    left, right = make(port), make(port)
    await left.start(sink)
    await right.start(sink)
    for sender, other, text in ((0, right, b"from left"), (1, left, b"from right")):
        os.write(sink.opened[sender].link.fd, text)
        assert hear(other.descriptors()["receiver"]) == text
    for listener in (left, right):
        with pytest.raises(BlockingIOError):
            os.read(listener.descriptors()["receiver"], 100)
        await listener.close()


async def test_our_port_on_another_host_is_not_ours(port: int, sink: RecordingSink) -> None:
    listener = make(port)
    await listener.start(sink)
    with (
        socket.socket(fileno=os.dup(sink.opened[0].link.fd)) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.bind(("127.0.0.2", ours.getsockname()[1]))
        theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        theirs.sendto(b"from another host", (GROUP, port))
        assert hear(listener.descriptors()["receiver"]) == b"from another host"
    await listener.close()


async def test_frames_of_every_size_come_through(port: int, sink: RecordingSink) -> None:
    listener = make(port)
    await listener.start(sink)
    with member(port) as guest:
        for size in (1, 14, 1514, 9018):
            os.write(sink.opened[0].link.fd, bytes(size))
            assert guest.recv(10_000) == bytes(size)
            guest.sendto(bytes(size), (GROUP, port))
            assert guest.recv(10_000) == bytes(size), "its own"
            assert hear(listener.descriptors()["receiver"]) == bytes(size)
    await listener.close()


async def test_other_groups_on_the_port_are_not_heard(port: int, sink: RecordingSink) -> None:
    listener = make(port)
    other = make(port, "239.192.168.8")
    await listener.start(sink)
    await other.start(sink)
    os.write(sink.opened[1].link.fd, b"to the other group")
    with member(port) as guest:
        guest.sendto(b"to ours", (GROUP, port))
        assert hear(listener.descriptors()["receiver"]) == b"to ours"
    await listener.close()
    await other.close()


async def test_another_process_goes_on_with_both_sockets(port: int, sink: RecordingSink) -> None:
    before, after = make(port), make(port)
    await before.start(sink)
    kept = {name: os.dup(fd) for name, fd in before.descriptors().items()}
    old = sink.opened[0]
    session = KeptSession(old.peer, old.detail, old.state, (os.dup(old.link.fd),))
    await before.close()
    with pytest.raises(TransportError, match="it was left"):
        after.resume(session)
    await after.start(sink, kept)
    assert after.descriptors() == kept
    resumed = after.resume(session)
    assert resumed.link.rx_shared_fd == kept["receiver"]
    with member(port) as guest:
        os.write(resumed.link.fd, b"our own")
        assert guest.recv(100) == b"our own"
        guest.sendto(b"from a guest", (GROUP, port))
        assert hear(kept["receiver"]) == b"from a guest"
    with pytest.raises(ValueError, match="unpack"):
        after.resume(KeptSession(None, "", {}, ()))
    os.close(resumed.link.fd)
    await after.close()
    assert len(sink.opened) == 1


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refused_session_leaves_nothing(port: int, sink: RecordingSink, error: Exception) -> None:
    sink.refusal = error
    listener = make(port)
    with pytest.raises(TransportError, match=f"multicast group .*: {error}"):
        await listener.start(sink)
    assert listener.descriptors() == {}


async def test_interface_that_is_none_of_ours_is_refused_with_what_helps(
    port: int, sink: RecordingSink
) -> None:
    listener = make(port, interface=",192.0.2.1")
    with pytest.raises(TransportError, match="No such device; name the address of an interface"):
        await listener.start(sink)


async def test_lack_of_descriptors_is_told(
    port: int, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        out_of_descriptors(monkeypatch),
        pytest.raises(TransportError, match=r"multicast group .*: Too many open files"),
    ):
        await make(port).start(sink)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("10.0.0.1:1", "10.0.0.1 is not an IPv4 multicast address"),
        ("[ff02::1]:1", "ff02::1 is not an IPv4 multicast address"),
        (GROUP, "is not ADDRESS:PORT"),
        (f"{GROUP}:0", "0 is not a port"),
        (f"{GROUP}:1,lo", "'lo' is not the IPv4 address of an interface"),
        (f"{GROUP}:1,::1", "'::1' is not the IPv4 address of an interface"),
    ],
)
def test_what_names_no_group_is_refused(place: str, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        TRANSPORT.make(place, PRIVATE)


def test_what_guests_are_told() -> None:
    uml, qemu = make(1102, interface="").arguments
    assert (uml.program, uml.text, uml.needs) == ("uml", f"eth0=mcast,,{GROUP},1102,1", "mcast")
    device = "-device virtio-net-pci,netdev=n0"
    assert (qemu.program, qemu.text) == ("qemu", f"-netdev socket,id=n0,mcast={GROUP}:1102 {device}")
    _, qemu = make(1102).arguments
    assert f"mcast={GROUP}:1102,localaddr=127.0.0.1 " in qemu.text
    assert mcast.TRANSPORT.resolve(f"{GROUP}:1102", lambda path: "/" + path) == f"{GROUP}:1102"
