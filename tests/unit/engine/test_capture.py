"""Which frames a capture keeps of all that happen, and how they are written down."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from support.capture_reading import ALL, IN, OUT, held, number_of, seen_until, shown
from support.deadline import wait_until
from support.guest_end import (
    BROADCAST,
    HEADERS,
    PLUGGED,
    GuestEnd,
    events_until,
    frame,
    mac,
    plug,
    plug_headed,
    plug_monitor,
    plug_shared,
    plug_unconnected,
    traffic_of,
    unread_limit,
)
from support.pcapng_blocks import Packet
from umlab._clock import ManualClock
from umlab.engine.contract import (
    CaptureCount,
    CaptureOrder,
    Engine,
)
from umlab.switch.bpf import parse_ddd
from umlab.switch.events import LinkClosed
from umlab.switch.model import (
    Framing,
    Link,
    MirrorSession,
    PortConfig,
    ReservedPolicy,
    SwitchConfig,
)
from umlab.switch.vlan import PortVlan, VidSet

EngineMaker = Callable[..., Engine]
Keep = Callable[[GuestEnd], GuestEnd]
STP = bytes.fromhex("0180c2000000")


class TestFrames:
    @pytest.mark.parametrize("framing", PLUGGED)
    def test_frame_is_kept_as_it_came_and_as_it_was_sent(
        self, make_engine: EngineMaker, framing: Framing, keep: Keep
    ) -> None:
        engine = make_engine(clock=ManualClock(5))
        left, right = keep(plug(engine, framing)), keep(plug(engine, framing))
        capture = engine.capture(CaptureOrder(epoch_offset_ns=1 << 60))
        sent = frame(BROADCAST, mac(1), 61, b"whole")
        left.send(sent)
        assert right.receive() == sent
        at_ns = (1 << 60) + 5
        wait_until(lambda: len(held(capture)) == 2, 5, "both are kept")
        assert held(capture) == [Packet(0, at_ns, sent, 61, IN), Packet(1, at_ns, sent, 61, OUT)]
        assert capture.counts() == {1: CaptureCount(1, 1, 0), 2: CaptureCount(1, 1, 0)}

    def test_nothing_is_kept_from_before(self, engine: Engine, guests: list[GuestEnd]) -> None:
        guests[0].send(frame(BROADCAST, mac(1)))
        assert guests[1].receive()
        assert guests[2].receive()
        capture = engine.capture(CaptureOrder())
        assert (capture.copy(), capture.read(ALL)) == (b"", b"")
        assert capture.counts() == {1: CaptureCount(), 2: CaptureCount(), 3: CaptureCount()}

    def test_dropped_on_the_way_in(self, make_engine: EngineMaker, keep: Keep) -> None:
        engine = make_engine(SwitchConfig(max_frame=1518))
        left, right = keep(plug(engine)), keep(plug(engine))
        capture = engine.capture(CaptureOrder())
        long = frame(BROADCAST, mac(1), 1600)
        for bad in (b"", b"x" * 13, long, frame(mac(1), mac(1))):
            left.send(bad)
        left.send(frame(BROADCAST, mac(1)))
        assert right.receive()
        seen_until(capture, 2, 1)
        assert shown(capture) == [
            (1, IN, "runt"),
            (1, IN, "runt"),
            (1, IN, "oversize"),
            (1, IN, "same_port"),
            (1, IN, ""),
            (2, OUT, ""),
        ]
        packets = held(capture)
        assert [packet.data for packet in packets[:3]] == [b"", b"x" * 13, long[:1519]]
        assert [packet.length for packet in packets[:3]] == [0, 13, 1519]

    def test_message_without_its_header_is_kept_whole(self, engine: Engine, keep: Keep) -> None:
        headed, other = keep(plug_headed(engine)), keep(plug(engine))
        capture = engine.capture(CaptureOrder())
        for message in (b"from nobody and more", b"", HEADERS.rx_header):
            headed.sock.send(message)
        sent = frame(BROADCAST, mac(1))
        headed.send(sent)
        assert other.receive() == sent
        seen_until(capture, 2, 1)
        assert shown(capture)[:3] == [(1, IN, "bad_header")] * 3
        datas = [packet.data for packet in held(capture)]
        assert datas == [b"from nobody and more", b"", HEADERS.rx_header, sent, sent]

    def test_dropped_for_its_vlan_its_address_or_a_mirror(self, make_engine: EngineMaker, keep: Keep) -> None:
        ports = {
            1: PortConfig(PortVlan.access(10)),
            2: PortConfig(reserved=ReservedPolicy.BRIDGE),
        }
        engine = make_engine(SwitchConfig(ports=ports, mirrors=(MirrorSession("m", 3, frozenset({2})),)))
        guests = [keep(plug(engine)) for _ in range(3)]
        capture = engine.capture(CaptureOrder())
        bad = [
            BROADCAST + mac(1) + bytes.fromhex("8100 0014 88b5") + bytes(50),
            frame(STP, mac(2)),
            frame(BROADCAST, mac(3)),
        ]
        for number, (guest, each) in enumerate(zip(guests, bad, strict=True), 1):
            guest.send(each)
            seen_until(capture, number, 1)
        assert shown(capture) == [(1, IN, "vlan"), (2, IN, "reserved"), (3, IN, "mirror")]
        assert [packet.data for packet in held(capture)] == bad

    def test_each_port_has_the_tag_that_lies_on_its_wire(self, make_engine: EngineMaker, keep: Keep) -> None:
        ports = {
            1: PortConfig(PortVlan.access(10)),
            2: PortConfig(PortVlan.trunk(VidSet.of([10]))),
            3: PortConfig(PortVlan.access(10)),
        }
        engine = make_engine(SwitchConfig(ports=ports))
        guests = [keep(plug(engine)) for _ in range(3)]
        is_tagged = parse_ddd("4\n40 0 0 12\n21 0 1 33024\n6 0 0 65535\n6 0 0 0")
        everything, tagged_only = (
            engine.capture(CaptureOrder()),
            engine.capture(CaptureOrder(program=is_tagged)),
        )
        plain = frame(BROADCAST, mac(1))
        tagged = plain[:12] + bytes.fromhex("8100000a") + plain[12:]
        guests[0].send(plain)
        assert [guests[1].receive(), guests[2].receive()] == [tagged, plain]
        wait_until(lambda: len(held(everything)) == 3, 5, "all is kept")
        assert [packet.data for packet in held(everything)] == [plain, tagged, plain]
        assert [(packet.interface, packet.data) for packet in held(tagged_only)] == [(1, tagged)]

    def test_tail_drops_and_what_waited_for_a_guest_that_went(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        depth = 3
        engine = make_engine(SwitchConfig(egress_queue_depth=depth))
        sender, stopped = keep(plug(engine)), keep(plug_unconnected(engine))
        capture = engine.capture(CaptureOrder(ports=frozenset({2})))
        took = unread_limit()
        sent = [frame(BROADCAST, mac(1), payload=bytes([number])) for number in range(took + depth + 2)]
        for each in sent:
            sender.send(each)
        seen_until(capture, 2, took + 2)
        stopped.close()
        seen_until(capture, 2, len(sent))
        assert shown(capture) == (
            [(2, OUT, "")] * took + [(2, OUT, "tail")] * 2 + [(2, OUT, "peer_gone")] * depth
        )
        expected = [*sent[:took], *sent[took + depth :], *sent[took : took + depth]]
        assert [packet.data for packet in held(capture)] == expected

    def test_queue_of_a_link_that_comes_to_its_end_is_dropped(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        engine = make_engine(SwitchConfig(egress_queue_depth=8))
        sender, stopped = keep(plug(engine)), keep(plug(engine, Framing.SEQPACKET))
        capture = engine.capture(CaptureOrder(ports=frozenset({2})))
        sent = 0
        while engine.snapshot().queued[2] < 4:
            sender.send(frame(BROADCAST, mac(1), 9000, sent.to_bytes(4, "big")))
            sent += 1
            wait_until(lambda: traffic_of(engine, 1) == sent, 5, "the frame is forwarded")  # noqa: B023
        stopped.close()
        events_until(engine, LinkClosed)
        sender.send(frame(BROADCAST, mac(1), 9000, sent.to_bytes(4, "big")))
        sent += 1
        seen_until(capture, 2, sent)
        reasons = [reason for _, _, reason in shown(capture)]
        assert reasons == [""] * (sent - 5) + ["peer_gone"] * 5
        numbers = [number_of(packet) for packet in held(capture)]
        assert numbers == list(range(sent))

    def test_frame_that_the_socket_refuses(self, engine: Engine, keep: Keep) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least, under 5000 bytes
        sender = keep(plug(engine))
        engine.attach(Link(ours.detach(), Framing.DATAGRAM))
        capture = engine.capture(CaptureOrder(snap_length=14))
        sender.send(frame(BROADCAST, mac(1), 9000))
        seen_until(capture, 2, 1)
        assert shown(capture) == [(1, IN, ""), (2, OUT, "refused")]
        assert [(len(packet.data), packet.length) for packet in held(capture)] == [(14, 9000)] * 2
        theirs.close()

    def test_frame_of_our_own(self, engine: Engine, guests: list[GuestEnd]) -> None:
        capture = engine.capture(CaptureOrder())
        ours = frame(STP, mac(9))
        engine.send(2, ours)
        assert guests[1].receive() == ours
        wait_until(lambda: len(held(capture)) == 1, 5, "it is kept")
        assert shown(capture) == [(2, OUT, "")]
        assert held(capture)[0].data == ours

    def test_monitor_and_ports_that_share_a_receiver(self, engine: Engine, keep: Keep) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as shared:
            shared.bind("")
            shared.setblocking(False)
            left, right, monitor = (
                keep(plug_shared(engine, shared)),
                keep(plug_shared(engine, shared)),
                keep(plug_monitor(engine)),
            )
            capture = engine.capture(CaptureOrder())
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                stranger.bind("")
                stranger.sendto(frame(BROADCAST, mac(9)), shared.getsockname())
            sent = frame(BROADCAST, mac(1))
            left.send(sent)
            assert right.receive() == monitor.receive() == sent
            seen_until(capture, 3, 1)
            # Who sends without being a port is in no port's counters, and so in no capture.
            assert shown(capture) == [(1, IN, ""), (2, OUT, ""), (3, OUT, "")]
            for each in (left, right, monitor):
                engine.detach(each.port_no)
                each.close()
