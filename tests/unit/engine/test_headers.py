"""Links that have a header in front of every frame (L2TPv3, GRE)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

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
    traffic_of,
    unread_limit,
)
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import Encapsulation, Framing, Link, SwitchConfig

EngineMaker = Callable[..., Engine]
PLAIN = Encapsulation(rx_header=b"\x00\x03\0\0\x12\x34\x56\x78", tx_header=b"\x00\x03\0\0\x87\x65\x43\x21")
#: The longest header that can be.
LONGEST = Encapsulation(bytes(range(20)), bytes(range(32)), rx_skip=12)


class Wire:
    """The other ends of links, for messages as they are.

    Args:
        engine: Who serves ours.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ends: list[socket.socket] = []
        self.other = plug(engine)

    def attach(self, encapsulation: Encapsulation, *, send_buffer: int = 0) -> socket.socket:
        """Attach a link and return its other end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        return self._served(ours, theirs, encapsulation)

    def attach_udp(self, encapsulation: Encapsulation) -> socket.socket:
        """Attach a connected UDP socket and return the one that it is connected to."""
        ours, theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for each in (ours, theirs):
            each.bind(("127.0.0.1", 0))
        ours.connect(theirs.getsockname())
        theirs.connect(ours.getsockname())
        return self._served(ours, theirs, encapsulation)

    def attach_unconnected(self, encapsulation: Encapsulation) -> socket.socket:
        """Attach who has room for a known number of frames and return its end, which only reads."""
        ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        theirs.bind("")
        ours.connect(theirs.getsockname())
        return self._served(ours, theirs, encapsulation)

    def _served(
        self, ours: socket.socket, theirs: socket.socket, encapsulation: Encapsulation
    ) -> socket.socket:
        ours.setblocking(False)
        theirs.settimeout(scaled(10))
        self._ends.append(theirs)
        self._engine.attach(Link(ours.detach(), Framing.DATAGRAM, encapsulation=encapsulation))
        return theirs

    def close(self) -> None:
        """Close all other ends."""
        self.other.close()
        for each in self._ends:
            each.close()


@pytest.fixture
def wire(engine: Engine) -> Iterator[Wire]:
    wire = Wire(engine)
    yield wire
    wire.close()


def ipv4_header(words: int) -> bytes:
    """Return a header of so many words, as a raw socket has it, from an address to itself."""
    return (bytes([0x40 | words]) + bytes(19)).ljust(4 * words, b"\x01")


class TestSending:
    def test_header_comes_first(self, wire: Wire) -> None:
        peer = wire.attach(PLAIN)
        for size in (14, 60, 1514, 9018):
            wire.other.send(each := frame(BROADCAST, mac(1), size, os.urandom(size - 14)))
            assert peer.recv(70_000) == PLAIN.tx_header + each

    def test_counter_comes_behind_the_header_and_begins_anew_at_its_end(self, wire: Wire) -> None:
        peer = wire.attach(replace(PLAIN, tx_counter=0xFFFF_FFFE))
        hello = frame(BROADCAST, mac(1))
        for counter in ("fffffffe", "ffffffff", "00000000", "00000001"):
            wire.other.send(hello)
            assert peer.recv(100) == PLAIN.tx_header + bytes.fromhex(counter) + hello

    def test_counter_that_stays(self, wire: Wire) -> None:
        """It is part of the header then."""
        peer = wire.attach(replace(PLAIN, tx_header=PLAIN.tx_header + bytes(4)))
        for _ in range(3):
            wire.other.send(frame(BROADCAST, mac(1)))
            assert peer.recv(100) == PLAIN.tx_header + bytes(4) + frame(BROADCAST, mac(1))

    def test_each_link_has_its_own_counter(self, wire: Wire) -> None:
        peers = [wire.attach(replace(PLAIN, tx_counter=first)) for first in (0, 1000)]
        for number in range(3):
            wire.other.send(frame(BROADCAST, mac(1)))
            for peer, first in zip(peers, (0, 1000), strict=True):
                assert peer.recv(100)[8:12] == (first + number).to_bytes(4, "big")

    def test_counter_has_no_gap_where_frames_wait(self, make_engine: EngineMaker) -> None:
        """Half a batch is taken at a time, and the rest of it again: each counts when it is out."""
        depth = 100
        engine = make_engine(SwitchConfig(egress_queue_depth=depth))
        wire = Wire(engine)
        peer = wire.attach_unconnected(replace(PLAIN, tx_counter=0xFFFF_FFF0))
        kept = unread_limit() + depth
        frames = [frame(BROADCAST, mac(1), payload=bytes([number])) for number in range(kept + 20)]
        for each in frames:
            wire.other.send(each)
        wait_until(lambda: traffic_of(engine, 1) == len(frames), 10, "all are dealt with")
        counters = engine.snapshot().ports[2]
        assert counters == PortCounters(
            tx_frames=unread_limit(), tx_bytes=60 * unread_limit(), drops={DropReason.TAIL: 20}
        )
        for number in range(kept):
            counter = (0xFFFF_FFF0 + number) % (1 << 32)
            assert peer.recv(100) == PLAIN.tx_header + counter.to_bytes(4, "big") + frames[number]
        wire.close()

    def test_frame_that_is_refused_is_not_counted_for(self, engine: Engine, wire: Wire) -> None:
        peer = wire.attach(replace(PLAIN, tx_counter=7), send_buffer=1)
        for size in (60, 9000, 60):
            wire.other.send(frame(BROADCAST, mac(1), size))
            wait_until(lambda: engine.debug_counts()["queued_frames"] == 0, 10, "nothing waits")
        for counter in (7, 8):
            assert peer.recv(100)[8:12] == counter.to_bytes(4, "big")
        assert engine.snapshot().ports[2].drops == {DropReason.REFUSED: 1}

    def test_tx_bytes_are_the_frames(self, engine: Engine, wire: Wire) -> None:
        peer = wire.attach(LONGEST)
        wire.other.send(frame(BROADCAST, mac(1)))
        assert peer.recv(100) == LONGEST.tx_header + frame(BROADCAST, mac(1))
        wait_until(lambda: engine.snapshot().ports[2].tx_bytes == 60, 10, "it is counted")


class TestReceiving:
    @pytest.mark.parametrize("given", [PLAIN, LONGEST, Encapsulation(b"", b""), Encapsulation(b"", b"", 5)])
    def test_frame_behind_its_header_is_forwarded(
        self, engine: Engine, wire: Wire, given: Encapsulation
    ) -> None:
        peer = wire.attach(given)
        for size in (14, 60, 2047, 2048, 2049, 9018):
            each = frame(BROADCAST, mac(1), size, os.urandom(size - 14))
            peer.send(given.rx_header + os.urandom(given.rx_skip) + each)
            assert wire.other.receive() == each
        assert engine.snapshot().ports[2].drops == {}
        assert [(entry.mac, entry.port_no) for entry in engine.fdb()] == [(mac(1), 2)]

    def test_wrong_short_and_empty_messages_are_counted_and_not_learnt_from(
        self, engine: Engine, wire: Wire
    ) -> None:
        given = replace(PLAIN, rx_skip=4)
        peer = wire.attach(given)
        strange = frame(BROADCAST, mac(66))
        bad = [given.rx_header[:size] for size in range(8)]
        bad += [given.rx_header + bytes(size) for size in range(4)]
        for place in range(8):
            wrong = bytearray(given.rx_header)
            wrong[place] ^= 0x80
            bad.append(bytes(wrong + bytes(4) + strange))
        bad.append(strange)
        for each in bad:
            peer.send(each)
        peer.send(given.rx_header + bytes(4) + frame(BROADCAST, mac(1)))
        assert wire.other.receive() == frame(BROADCAST, mac(1))
        counters = engine.snapshot().ports[2]
        assert counters == PortCounters(1, 60, drops={DropReason.BAD_HEADER: len(bad)})
        assert [entry.mac for entry in engine.fdb()] == [mac(1)]

    def test_what_is_no_frame_behind_its_header_is_counted_as_everywhere(
        self, make_engine: EngineMaker
    ) -> None:
        engine = make_engine(SwitchConfig(max_frame=1518))
        wire = Wire(engine)
        peer = wire.attach(PLAIN)
        for size in (0, 1, 13, 1519, 1600, 2048, 9000, 65_536):
            peer.send(PLAIN.rx_header + frame(BROADCAST, mac(66), size)[:size])
        peer.send(PLAIN.rx_header + frame(BROADCAST, mac(1), 1518))
        assert wire.other.receive() == frame(BROADCAST, mac(1), 1518)
        assert engine.snapshot().ports[2].drops == {DropReason.RUNT: 3, DropReason.OVERSIZE: 5}
        assert [entry.mac for entry in engine.fdb()] == [mac(1)]
        wire.close()

    def test_longest_frame_of_all_has_its_headers_in_front_of_it(self, make_engine: EngineMaker) -> None:
        """The native engine took them off its room for the frame, and forwarded what was left of it."""
        engine = make_engine(SwitchConfig(max_frame=65_535))
        wire = Wire(engine)
        given = replace(LONGEST, ip_header=True)
        peer = wire.attach(given)
        front = ipv4_header(15) + given.rx_header + bytes(given.rx_skip)
        longest = frame(BROADCAST, mac(1), 65_535, os.urandom(65_000))
        peer.send(front + longest)
        assert wire.other.receive() == longest
        peer.send(front + longest + b"\0")
        wait_until(lambda: engine.snapshot().ports[2].drops == {DropReason.OVERSIZE: 1}, 10, "it is dropped")
        wire.close()

    def test_nothing_at_all_is_a_runt_where_no_header_is_wanted(self, engine: Engine, wire: Wire) -> None:
        peer = wire.attach(Encapsulation(b"", b"out"))
        peer.send(b"")
        peer.send(frame(BROADCAST, mac(1)))
        assert wire.other.receive()
        assert engine.snapshot().ports[2].drops == {DropReason.RUNT: 1}

    @pytest.mark.parametrize("words", [5, 6, 15])
    @pytest.mark.parametrize("max_frame", [1518, 9018])
    def test_ip_header_is_as_long_as_it_says(
        self, make_engine: EngineMaker, words: int, max_frame: int
    ) -> None:
        engine = make_engine(SwitchConfig(max_frame=max_frame))
        wire = Wire(engine)
        given = replace(LONGEST, ip_header=True)
        peer = wire.attach(given)
        front = ipv4_header(words) + given.rx_header + bytes(given.rx_skip)
        longest = frame(BROADCAST, mac(1), max_frame, os.urandom(max_frame - 14))
        peer.send(front + longest)
        assert wire.other.receive() == longest
        peer.send(front + longest + b"\0")
        peer.send(front[:-1])
        peer.send(ipv4_header(words)[:-1])
        peer.send(ipv4_header(words) + bytes(1) + given.rx_header + longest)
        peer.send(b"")
        peer.send(front + frame(BROADCAST, mac(1)))
        assert wire.other.receive() == frame(BROADCAST, mac(1))
        assert engine.snapshot().ports[2].drops == {DropReason.OVERSIZE: 1, DropReason.BAD_HEADER: 4}
        wire.close()

    def test_burst_of_good_and_bad_messages(self, engine: Engine, wire: Wire) -> None:
        peer = wire.attach(PLAIN)
        frames = [frame(BROADCAST, mac(1), payload=number.to_bytes(2, "big")) for number in range(250)]
        for number, each in enumerate(frames):
            peer.send((PLAIN.rx_header if number % 3 else PLAIN.tx_header) + each)
        wanted = [each for number, each in enumerate(frames) if number % 3]
        assert wire.other.receive_many(len(wanted)) == wanted
        wait_until(lambda: traffic_of(engine, 2) == 250, 10, "all are counted")
        assert engine.snapshot().ports[2].drops == {DropReason.BAD_HEADER: 250 - len(wanted)}


def test_udp_both_ways_between_links_with_headers_and_without(engine: Engine, wire: Wire) -> None:
    given = replace(PLAIN, rx_skip=4, tx_counter=0)
    left, right = wire.attach_udp(given), wire.attach_udp(LONGEST)
    hello = frame(BROADCAST, mac(1), 1514)
    left.send(given.rx_header + b"skip" + hello)
    assert right.recv(2000) == LONGEST.tx_header + hello
    assert wire.other.receive() == hello
    right.send(LONGEST.rx_header + bytes(12) + frame(mac(1), mac(2)))
    assert left.recv(2000) == given.tx_header + bytes(4) + frame(mac(1), mac(2))
    assert wire.other.waiting() == []


def test_socket_that_was_shut_down_ends_the_link_behind_what_was_sent(engine: Engine, wire: Wire) -> None:
    """What is read at such an end has no header, over and over."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with theirs, socket.socket(fileno=os.dup(ours.fileno())) as duplicate:
        theirs.send(PLAIN.rx_header + frame(BROADCAST, mac(1)))
        theirs.send(b"bad")
        duplicate.shutdown(socket.SHUT_RDWR)
        engine.attach(Link(ours.detach(), Framing.DATAGRAM, encapsulation=PLAIN))
        events = events_until(engine, LinkClosed)
        assert wire.other.receive() == frame(BROADCAST, mac(1))
        assert [(event.port_no, event.errno) for event in events if isinstance(event, LinkClosed)] == [(2, 0)]
        assert engine.snapshot().ports[2].drops == {DropReason.BAD_HEADER: 1}
        assert idle_cpu_ns() < 50_000_000


@pytest.mark.parametrize("framing", [each for each in Framing if each is not Framing.DATAGRAM])
def test_headers_on_what_is_no_datagram_socket_are_refused(engine: Engine, framing: Framing) -> None:
    kind = socket.SOCK_STREAM if framing is Framing.STREAM else socket.SOCK_SEQPACKET
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    with ours, theirs:
        with pytest.raises(SwitchError, match="header"):
            engine.attach(Link(ours.fileno(), framing, encapsulation=PLAIN))
        assert is_open(ours.fileno())
    assert set(engine.debug_counts().values()) <= {0, 1, 3}


def test_headers_and_a_shared_receiver_are_refused(engine: Engine) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as shared:
        with pytest.raises(SwitchError, match="shared"):
            engine.attach(Link(ours.fileno(), Framing.DATAGRAM, shared.fileno(), b"", encapsulation=PLAIN))
        assert is_open(ours.fileno())


def test_headed_guests_are_one_broadcast_domain_with_all_others(engine: Engine, wire: Wire) -> None:
    peer = wire.attach(PLAIN)
    others: list[GuestEnd] = [wire.other, plug(engine, Framing.SEQPACKET), plug(engine, Framing.STREAM)]
    peer.send(PLAIN.rx_header + frame(BROADCAST, mac(1)))
    for other in others:
        assert other.receive() == frame(BROADCAST, mac(1))
        other.send(frame(mac(1), mac(2)))
        assert peer.recv(100) == PLAIN.tx_header + frame(mac(1), mac(2))
    for other in others[1:]:
        other.close()
