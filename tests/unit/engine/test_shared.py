"""Ports that receive on one shared socket, told apart by the sender's address (daemon protocol v0)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    events_until,
    frame,
    idle_cpu_ns,
    is_open,
    mac,
    plug,
    unread_limit,
)
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import Framing, Link, SwitchConfig

EngineMaker = Callable[..., Engine]
GARBAGE = b"\0of an older stack"


@dataclass
class SharedSwitch:
    """The transport's part: the shared socket, and the guests that it attaches."""

    engine: Engine
    directory: Path
    sock: socket.socket
    guests: list[socket.socket]

    def guest(self, name: bytes) -> socket.socket:
        guest = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        guest.bind(name)
        guest.settimeout(scaled(10))
        self.guests.append(guest)
        return guest

    def link(self, name: bytes, rx_address: bytes | None = None) -> Link:
        out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        out.connect(name)
        address = name.ljust(108, b"\0") if rx_address is None else rx_address
        return Link(out.detach(), Framing.DATAGRAM, self.sock.fileno(), address)

    def path(self, name: str) -> bytes:
        return os.fsencode(self.directory / name)

    def attached(self, name: bytes, rx_address: bytes | None = None) -> socket.socket:
        guest = self.guest(name)
        self.engine.attach(self.link(name, rx_address))
        return guest

    def send(self, guest: socket.socket, data: bytes) -> None:
        guest.sendto(data, self.sock.getsockname())


@pytest.fixture
def shared(engine: Engine, short_dir: Path) -> Iterator[SharedSwitch]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(os.fspath(short_dir / "data"))
    switch = SharedSwitch(engine, short_dir, sock, [])
    yield switch
    engine.stop()
    assert is_open(sock.fileno()), "the engine closed what is not its own"
    for each in (sock, *switch.guests):
        each.close()


def abstract(tail: bytes) -> bytes:
    """Return a name as a UML guest binds it: all 108 bytes, whatever they are."""
    return (b"\0\0\0\0\x9c\x78" + tail).ljust(107, b"\0") + b"\x42"


def detached_pair(kind: int) -> list[int]:
    return [each.detach() for each in socket.socketpair(socket.AF_UNIX, kind)]


def test_sender_address_selects_the_port(shared: SharedSwitch) -> None:
    by_name = shared.attached(abstract(b"left"))
    by_path = shared.attached(shared.path("right"))
    by_dirty_path = shared.attached(shared.path("far"), (shared.path("far") + GARBAGE).ljust(108, b"\xaa"))
    guests = [by_name, by_path, by_dirty_path]
    for number, guest in enumerate(guests):
        hello = frame(BROADCAST, mac(number))
        shared.send(guest, hello)
        assert [other.recv(100) for other in guests if other is not guest] == [hello, hello]
    assert [(entry.mac, entry.port_no) for entry in shared.engine.fdb()] == [
        (mac(0), 1),
        (mac(1), 2),
        (mac(2), 3),
    ]


def test_shared_and_own_sockets_are_one_broadcast_domain(shared: SharedSwitch) -> None:
    old, new = shared.attached(abstract(b"old")), plug(shared.engine)
    shared.send(old, frame(BROADCAST, mac(1)))
    assert new.receive() == frame(BROADCAST, mac(1))
    new.send(frame(mac(1), mac(2)))
    assert old.recv(100) == frame(mac(1), mac(2))
    new.close()


def test_stranger_is_counted_and_not_forwarded(shared: SharedSwitch) -> None:
    guest, other = shared.attached(abstract(b"guest")), shared.attached(abstract(b"other"))
    prefix = shared.guest(abstract(b"guest")[:-1])  # a shorter name is another name
    stranger = shared.guest(shared.path("stranger"))
    unbound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sender in (prefix, stranger, unbound):
        shared.send(sender, frame(BROADCAST, mac(66)))
    shared.send(guest, b"")
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert other.recv(100) == frame(BROADCAST, mac(1))
    snapshot = shared.engine.snapshot()
    assert snapshot.counters.unknown_sender == 3
    assert snapshot.ports[1].drops == {DropReason.RUNT: 1}
    assert [entry.mac for entry in shared.engine.fdb()] == [mac(1)]
    unbound.close()


def test_stranger_whose_name_differs_in_its_last_byte_is_one(shared: SharedSwitch) -> None:
    """Names are looked up by a hash, which some of so many share with a guest's."""
    other = plug(shared.engine)
    prefixes = [os.urandom(100).hex().encode()[:106] for _ in range(4)]
    for prefix in prefixes:
        shared.attached(b"\0" + prefix + b"\x00")
    for prefix in prefixes:
        for last in range(1, 256):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                stranger.bind(b"\0" + prefix + bytes([last]))
                shared.send(stranger, frame(BROADCAST, mac(last)))
    count = 255 * len(prefixes)
    wait_until(lambda: shared.engine.snapshot().counters.unknown_sender == count, 10, "all are strangers")
    assert other.waiting() == []
    other.close()


def test_stranger_whose_name_is_a_guests_without_its_last_nuls_is_one(shared: SharedSwitch) -> None:
    name = b"\0" + os.urandom(20).hex().encode()
    guest, other = shared.attached(name.ljust(108, b"\0")), plug(shared.engine)
    for size in (len(name), len(name) + 1, 107):
        shared.send(shared.guest(name.ljust(size, b"\0")), frame(BROADCAST, mac(66)))
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert other.receive() == frame(BROADCAST, mac(1))
    assert shared.engine.snapshot().counters.unknown_sender == 3
    assert [entry.mac for entry in shared.engine.fdb()] == [mac(1)]
    other.close()


def test_unbound_sender_does_not_have_an_address_of_nuls(shared: SharedSwitch) -> None:
    shared.attached(abstract(b"nuls"), bytes(108))
    guest, other = shared.attached(abstract(b"guest")), plug(shared.engine)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unbound:
        shared.send(unbound, frame(BROADCAST, mac(66)))
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert other.receive() == frame(BROADCAST, mac(1))
    assert shared.engine.snapshot().counters.unknown_sender == 1
    other.close()


@pytest.mark.parametrize("address", [b"\0", b"\0short", bytes(107), bytes(109), b"/" * 109])
@pytest.mark.parametrize("first", [True, False])
def test_address_that_no_sender_has_is_refused(shared: SharedSwitch, address: bytes, first: bool) -> None:
    if not first:
        shared.attached(abstract(b"first"))
    shared.guest(abstract(b"guest"))
    link = shared.link(abstract(b"guest"), address)
    before = shared.engine.debug_counts()
    with pytest.raises(SwitchError, match="address"):
        shared.engine.attach(link)
    assert is_open(link.fd)
    assert shared.engine.debug_counts() == before
    os.close(link.fd)


def test_nothing_is_read_from_the_socket_that_a_shared_port_is_sent_on(shared: SharedSwitch) -> None:
    guest, other = shared.guest(abstract(b"guest")), plug(shared.engine)
    link = shared.link(abstract(b"guest"))
    with socket.socket(fileno=os.dup(link.fd)) as ours:
        ours.bind("")
        where = ours.getsockname()
    port_no = shared.engine.attach(link)
    guest.sendto(frame(BROADCAST, mac(66)), where)
    assert idle_cpu_ns() < 50_000_000
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert other.receive() == frame(BROADCAST, mac(1))
    assert shared.engine.snapshot().ports[port_no].rx_frames == 1
    other.close()


def test_address_of_another_port_is_refused(shared: SharedSwitch) -> None:
    shared.attached(abstract(b"guest"))
    link = shared.link(abstract(b"guest"))
    with pytest.raises(SwitchError, match="address"):
        shared.engine.attach(link)
    assert is_open(link.fd)
    os.close(link.fd)
    assert shared.engine.debug_counts()["ports"] == 1


def test_who_has_all_that_comes_gets_what_no_other_port_has(shared: SharedSwitch) -> None:
    by_address, by_path = shared.attached(abstract(b"guest")), shared.attached(shared.path("path"))
    sole = shared.attached(abstract(b"sole"), b"")
    shared.send(by_address, frame(BROADCAST, mac(1)))
    assert by_path.recv(100) == sole.recv(100) == frame(BROADCAST, mac(1))
    stranger, short = shared.guest(shared.path("stranger")), shared.guest(b"\0short" + os.urandom(20))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unbound:
        for number, sender in enumerate((stranger, short, unbound), 2):
            shared.send(sender, frame(BROADCAST, mac(number)))
            assert by_path.recv(100) == by_address.recv(100) == frame(BROADCAST, mac(number))
    shared.send(by_path, frame(BROADCAST, mac(5)))
    assert by_address.recv(100) == sole.recv(100) == frame(BROADCAST, mac(5))
    ports = {entry.mac: entry.port_no for entry in shared.engine.fdb()}
    assert ports == {mac(1): 1, mac(2): 3, mac(3): 3, mac(4): 3, mac(5): 2}
    assert shared.engine.snapshot().counters.unknown_sender == 0


def test_what_comes_without_the_one_who_has_all_is_of_strangers_again(shared: SharedSwitch) -> None:
    guest, other = shared.attached(abstract(b"guest")), plug(shared.engine)
    shared.attached(abstract(b"sole"), b"")
    stranger = shared.guest(shared.path("stranger"))
    shared.send(stranger, frame(BROADCAST, mac(1)))
    assert guest.recv(100) == other.receive() == frame(BROADCAST, mac(1))
    shared.engine.detach(3)
    shared.send(stranger, frame(BROADCAST, mac(66)))
    shared.send(guest, frame(BROADCAST, mac(2)))
    assert other.receive() == frame(BROADCAST, mac(2))
    assert shared.engine.snapshot().counters.unknown_sender == 1
    shared.engine.attach(shared.link(abstract(b"sole"), b""))
    shared.engine.detach(1)
    shared.send(stranger, frame(BROADCAST, mac(1)))
    assert other.receive() == frame(BROADCAST, mac(1))
    other.close()


def test_only_one_has_all_that_comes(shared: SharedSwitch) -> None:
    shared.attached(abstract(b"sole"), b"")
    shared.guest(abstract(b"second"))
    link = shared.link(abstract(b"second"), b"")
    with pytest.raises(SwitchError, match="address"):
        shared.engine.attach(link)
    os.close(link.fd)


def test_one_port_on_two_udp_sockets(engine: Engine) -> None:
    """As multicast has it: one to send on, one where whatever comes is the port's."""
    out, back, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
    other = plug(engine)
    with back, sender:
        for each in (out, back, sender):
            each.bind(("127.0.0.1", 0))
            each.settimeout(scaled(10))
        out.connect(sender.getsockname())
        out.setblocking(False)
        port_no = engine.attach(Link(out.detach(), Framing.DATAGRAM, back.fileno(), b""))
        for number in range(3):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
                anybody.sendto(frame(BROADCAST, mac(number)), back.getsockname())
                assert other.receive() == frame(BROADCAST, mac(number))
        other.send(frame(mac(1), mac(9)))
        assert sender.recv(100) == frame(mac(1), mac(9))
        snapshot = engine.snapshot()
        assert snapshot.ports[port_no] == PortCounters(3, 180, 1, 60)
        assert (snapshot.counters.unknown_sender, snapshot.down) == (0, frozenset())
        before = engine.debug_counts()["descriptors"]
        engine.detach(port_no)
        assert engine.debug_counts()["descriptors"] == before - 2
    other.close()


@pytest.mark.needs_root
def test_udp_senders_from_low_ports_are_no_strangers(engine: Engine) -> None:
    """The first byte of such an address is 0, as an abstract name's is."""
    back, out, low = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
    other = plug(engine)
    with back, low:
        back.bind(("127.0.0.1", 0))
        for port in range(200, 256):
            with contextlib.suppress(OSError):
                low.bind(("127.0.0.1", port))
                break
        assert low.getsockname()[1] < 256
        out.connect(back.getsockname())
        out.setblocking(False)
        engine.attach(Link(out.detach(), Framing.DATAGRAM, back.fileno(), b""))
        low.sendto(frame(BROADCAST, mac(1)), back.getsockname())
        assert other.receive() == frame(BROADCAST, mac(1))
    other.close()


@pytest.mark.parametrize("half", ["fd", "address"])
def test_half_a_shared_link_is_refused(shared: SharedSwitch, half: str) -> None:
    name = abstract(b"guest")
    shared.guest(name)
    whole = shared.link(name)
    with pytest.raises(SwitchError, match="together"):
        shared.engine.attach(
            Link(
                whole.fd,
                whole.framing,
                whole.rx_shared_fd if half == "fd" else None,
                whole.rx_address if half == "address" else None,
            )
        )
    os.close(whole.fd)


@pytest.mark.parametrize("what", ["closed", "file", "pipe", "stream", "seqpacket"])
def test_shared_descriptor_that_cannot_be_served_is_refused(shared: SharedSwitch, what: str) -> None:
    name = abstract(b"guest")
    shared.guest(name)
    openers: dict[str, Callable[[], Iterable[int]]] = {
        "closed": lambda: [987_654],
        "file": lambda: [os.open(shared.directory / "file", os.O_CREAT | os.O_RDWR)],
        "pipe": os.pipe,
        "stream": lambda: detached_pair(socket.SOCK_STREAM),
        "seqpacket": lambda: detached_pair(socket.SOCK_SEQPACKET),
    }
    bad, *others = openers[what]()
    whole = shared.link(name)
    before = shared.engine.debug_counts()
    with pytest.raises(SwitchError):
        shared.engine.attach(Link(whole.fd, whole.framing, bad, whole.rx_address))
    assert shared.engine.debug_counts() == before
    os.close(whole.fd)
    if what != "closed":
        assert is_open(bad), "the transport's socket was closed"
        for fd in (bad, *others):
            os.close(fd)
    assert shared.attached(abstract(b"next")), "the engine goes on"


def test_shared_socket_is_left_with_the_last_port_and_joined_again(shared: SharedSwitch) -> None:
    name = abstract(b"guest")
    guest, other = shared.attached(name), plug(shared.engine)
    base = shared.engine.debug_counts()["descriptors"]
    shared.engine.detach(1)
    assert shared.engine.debug_counts()["descriptors"] == base - 2
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert idle_cpu_ns() < 50_000_000
    assert shared.engine.attach(shared.link(name)) == 1
    assert other.receive() == frame(BROADCAST, mac(1)), "what waited in the transport's socket is served"
    other.close()


def test_dead_guest_is_counted_and_the_engine_stays_idle(shared: SharedSwitch) -> None:
    guest, dead = shared.attached(abstract(b"guest")), shared.attached(abstract(b"dead"))
    dead.close()
    for _ in range(3):
        shared.send(guest, frame(BROADCAST, mac(1)))
    wait_until(lambda: shared.engine.snapshot().ports[2].drops, 5, "drops are counted")
    assert idle_cpu_ns() < 50_000_000
    assert shared.engine.snapshot().ports[2].drops == {DropReason.PEER_GONE: 3}


def test_error_on_a_socket_that_is_only_written_is_taken_off(shared: SharedSwitch) -> None:
    """A guest that connects to our socket, then elsewhere with frames unread, leaves ECONNRESET on it:
    epoll reports that until somebody takes it, and nobody reads there."""
    guest, other = shared.guest(abstract(b"guest")), plug(shared.engine)
    elsewhere = shared.guest(shared.path("elsewhere"))
    link = shared.link(abstract(b"guest"))
    with socket.socket(fileno=os.dup(link.fd)) as ours:
        ours.bind("")
        where = ours.getsockname()
    port_no = shared.engine.attach(link)
    guest.connect(where)
    other.send(frame(BROADCAST, mac(2)))
    wait_until(lambda: shared.engine.snapshot().ports[port_no].tx_frames, 5, "a frame waits for the guest")
    guest.connect(elsewhere.getsockname())
    assert idle_cpu_ns() < 50_000_000
    shared.send(guest, frame(BROADCAST, mac(1)))
    assert other.receive() == frame(BROADCAST, mac(1))
    other.close()


@pytest.mark.parametrize("which", ["shared", "own"])
def test_socket_that_was_shut_down_ends_the_link_without_spinning(shared: SharedSwitch, which: str) -> None:
    name = abstract(b"guest")
    shared.guest(name)
    link = shared.link(name)
    duplicate = os.dup(link.fd)
    port_no = shared.engine.attach(link)
    if which == "shared":
        shared.sock.shutdown(socket.SHUT_RDWR)
    else:
        with socket.socket(fileno=duplicate) as own:
            duplicate = -1
            own.shutdown(socket.SHUT_RDWR)
    events = events_until(shared.engine, LinkClosed)
    assert [event.port_no for event in events if isinstance(event, LinkClosed)] == [port_no]
    other, reader = plug(shared.engine), plug(shared.engine)
    other.send(frame(BROADCAST, mac(1)))
    assert reader.receive() == frame(BROADCAST, mac(1))
    assert shared.engine.snapshot().ports[port_no].drops == {DropReason.PEER_GONE: 1}
    for each in (other, reader):
        shared.engine.detach(each.port_no)
        each.close()
    assert idle_cpu_ns() < 50_000_000
    shared.engine.detach(port_no)
    assert shared.engine.debug_counts()["ports"] == 0
    if duplicate >= 0:
        os.close(duplicate)


class GatedClock(ManualClock):
    """Holds the engine's thread up, so that much is ready when it next asks epoll."""

    def __init__(self) -> None:
        super().__init__(1)
        self.reached, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def now_ns(self) -> int:
        if not self.gate.is_set() and threading.current_thread().name == "umlab-engine":
            self.reached.set()
            assert self.gate.wait(scaled(60))
        return super().now_ns()

    def hold(self, guest: GuestEnd) -> None:
        """Let the thread receive a frame of a guest's and stand still."""
        self.gate.clear()
        guest.send(frame(mac(98), mac(98)))
        assert self.reached.wait(scaled(10))


@pytest.mark.parametrize("receiver_first", [True, False])
@pytest.mark.parametrize("what", ["writable", "hung up", "both"])
def test_shut_down_receiver_and_what_else_is_ready_end_each_link_once(
    make_engine: EngineMaker, short_dir: Path, receiver_first: bool, what: str
) -> None:
    clock = GatedClock()
    engine = make_engine(SwitchConfig(), clock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(os.fspath(short_dir / "data"))
        switch = SharedSwitch(engine, short_dir, sock, [])
        sender, reader = plug(engine, port_no=8), plug(engine, port_no=9)
        own: list[socket.socket] = []
        for port_no in (5, 3, 4):  # not in the order of their numbers
            switch.guest(name := abstract(b"%d" % port_no))
            link = switch.link(name)
            own.append(socket.socket(fileno=os.dup(link.fd)))
            engine.attach(link, port_no)
        for _ in range(unread_limit() + 3):
            sender.send(frame(BROADCAST, mac(1)))
            assert reader.receive()
        wait_until(lambda: engine.debug_counts()["queued_frames"] == 9, 10, "frames wait for three guests")
        clock.hold(sender)
        if receiver_first:
            sock.shutdown(socket.SHUT_RDWR)
        if what != "hung up":
            for guest in switch.guests:
                guest.recv(100)
        if what != "writable":
            for each in own:
                each.shutdown(socket.SHUT_RDWR)
        if not receiver_first:
            sock.shutdown(socket.SHUT_RDWR)
        clock.gate.set()
        sender.send(frame(mac(2), mac(1)))
        assert reader.receive() == frame(mac(2), mac(1))
        reader.send(frame(mac(1), mac(2)))
        assert sender.receive() == frame(mac(1), mac(2))
        closed = [event.port_no for event in engine.take_events() if isinstance(event, LinkClosed)]
        assert sorted(closed) == [3, 4, 5]
        if receiver_first:
            assert closed == [3, 4, 5]
        wait_until(lambda: engine.debug_counts()["queued_frames"] == 0, 10, "no frame waits")
        assert idle_cpu_ns() < 50_000_000
        for port_no in (3, 4, 5):
            engine.detach(port_no)
        for each in (*own, *switch.guests):
            each.close()
    for end in (sender, reader):
        end.close()
