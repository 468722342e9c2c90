"""What a capture is told to keep, and what it does when its memory is full."""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
from collections.abc import Callable

import pytest

from support.capture_reading import ALL, IN, OUT, held, number_of, seen_until, shown
from support.deadline import wait_until
from support.exchange import background
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    frame,
    mac,
    plug,
)
from support.pcapng_blocks import read_blocks, read_packets
from umlab.engine.contract import (
    MAX_CAPTURE,
    MAX_SNAP_LENGTH,
    MIN_CAPTURE,
    CaptureCount,
    CaptureOrder,
    Engine,
)
from umlab.switch.bpf import Instruction, Program, parse_ddd
from umlab.switch.model import (
    SwitchConfig,
)

EngineMaker = Callable[..., Engine]
Keep = Callable[[GuestEnd], GuestEnd]
#: Keeps 14 bytes of what has fewer than 14.
LESS_THAN_14 = parse_ddd("4\n128 0 0 0\n53 1 0 14\n6 0 0 99\n6 0 0 0")


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def beginning_with_1(kept: int) -> Program:
    """Keep so many bytes of frames whose payload begins with 1, nothing of others."""
    ethernet_payload = Instruction(0x30, 0, 0, 14)
    is_one = Instruction(0x15, 0, 1, 1)
    return Program((ethernet_payload, is_one, Instruction(6, 0, 0, kept), Instruction(6, 0, 0, 0)))


class TestOrder:
    @pytest.mark.parametrize(
        "values",
        [
            {"snap_length": 13},
            {"snap_length": MAX_SNAP_LENGTH + 1},
            {"capacity": MIN_CAPTURE - 1},
            {"capacity": MAX_CAPTURE + 1},
            {"epoch_offset_ns": -1},
            {"epoch_offset_ns": 1 << 63},
        ],
    )
    def test_number_out_of_its_bounds_is_refused(self, values: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"snap_length|memory|epoch_offset_ns"):
            CaptureOrder(**values)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("snap", "asked", "kept"), [(20, 40, 20), (40, 20, 20), (65_535, 1 << 31, 60)])
    def test_less_is_kept_of_what_program_and_snap_length_say(
        self, engine: Engine, guests: list[GuestEnd], snap: int, asked: int, kept: int
    ) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1}), snap, beginning_with_1(asked)))
        sent = frame(BROADCAST, mac(1), payload=b"\1")
        for each in (frame(BROADCAST, mac(1), payload=b"\2"), sent, b"short"):
            guests[0].send(each)
        seen_until(capture, 1, 3)
        assert [(packet.data, packet.length) for packet in held(capture)] == [(sent[:kept], 60)]
        assert capture.counts() == {1: CaptureCount(3, 1, 0)}

    def test_program_decides_on_dropped_frames_too(self, engine: Engine, guests: list[GuestEnd]) -> None:
        capture = engine.capture(CaptureOrder(program=LESS_THAN_14))
        guests[0].send(b"x" * 13)
        guests[0].send(frame(BROADCAST, mac(1)))
        seen_until(capture, 3, 1)
        assert shown(capture) == [(1, IN, "runt")]
        assert capture.counts()[1] == CaptureCount(2, 1, 0)

    def test_other_ports_are_left_out(self, engine: Engine, guests: list[GuestEnd]) -> None:
        capture = engine.capture(CaptureOrder(frozenset({2, 9})))
        guests[0].send(frame(BROADCAST, mac(1)))
        assert guests[1].receive()
        assert guests[2].receive()
        seen_until(capture, 2, 1)
        assert capture.interfaces() == [2]
        assert shown(capture) == [(2, OUT, "")]
        with contextlib.closing(plug(engine, port_no=9)), contextlib.closing(plug(engine, port_no=8)):
            assert capture.interfaces() == [2, 9]
            assert capture.counts().keys() == {2, 9}

    def test_interfaces_are_in_the_order_in_which_ports_came(self, engine: Engine) -> None:
        with contextlib.ExitStack() as stack:

            def come(port_no: int) -> GuestEnd:
                return stack.enter_context(contextlib.closing(plug(engine, port_no=port_no)))

            come(7)
            first = come(4)
            capture = engine.capture(CaptureOrder())
            assert capture.interfaces() == [4, 7]
            come(2)
            come(9)
            engine.detach(7)
            come(1)
            again = come(7)
            assert capture.interfaces() == [4, 7, 2, 9, 1]
            again.send(frame(BROADCAST, mac(1)))
            assert first.receive()
            wait_until(lambda: len(held(capture)) == 5, 5, "all is kept")
            # The guest's ports in their order, by the numbers of the capture's own.
            assert [packet.interface for packet in held(capture)] == [1, 4, 2, 0, 3]
            assert capture.interfaces() == [4, 7, 2, 9, 1]

    def test_captures_do_not_know_of_each_other(self, engine: Engine, guests: list[GuestEnd]) -> None:
        captures = [
            engine.capture(CaptureOrder(frozenset({number}), snap_length=13 + number)) for number in (1, 2, 3)
        ]
        guests[0].send(frame(BROADCAST, mac(1)))
        for number, capture in enumerate(captures, 1):
            seen_until(capture, number, 1)
        captures[0].read(ALL)
        assert [[len(packet.data) for packet in held(capture)] for capture in captures] == [[], [15], [16]]


class TestMemory:
    def test_what_is_new_is_lost_and_said_once_there_is_room(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1}), capacity=MIN_CAPTURE))
        sent = 200

        def send(numbers: range) -> None:
            for number in numbers:
                guests[0].send(frame(mac(9), mac(9), 1514, number.to_bytes(4, "big")))
            seen_until(capture, 1, numbers.stop)

        send(range(sent))
        count = capture.counts()[1]
        first = held(capture)
        assert len(capture.copy()) <= MIN_CAPTURE
        assert len(first) * 1600 > MIN_CAPTURE - 4096, "memory is left unused"
        assert count == CaptureCount(sent, sent, sent - len(first))
        assert read_packets(capture.read(ALL)) == first
        send(range(sent, sent + 3))
        assert [packet.lost for packet in first] == [0] * len(first)
        assert [packet.lost for packet in held(capture)] == [count.lost, 0, 0]
        numbers = [number_of(packet) for packet in (*first, *held(capture))]
        assert numbers == [*range(len(first)), *range(sent, sent + 3)]
        assert capture.counts()[1] == CaptureCount(sent + 3, sent + 3, count.lost)

    def test_memory_is_used_to_its_last_byte(self, engine: Engine, guests: list[GuestEnd]) -> None:
        # 28 bytes in front of a frame of 60, and behind it 20 that say "same_port", and 16.
        block, fitting = 124, 1100
        capture = engine.capture(CaptureOrder(frozenset({1}), capacity=fitting * block))
        for _ in range(fitting + 1):
            guests[0].send(frame(mac(9), mac(9)))
        seen_until(capture, 1, fitting + 1)
        assert capture.counts()[1] == CaptureCount(fitting + 1, fitting + 1, 1)
        assert len(capture.read(ALL)) == fitting * block

    def test_each_interface_says_what_it_has_lost_itself(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1, 2}), capacity=MIN_CAPTURE))
        # More ingress of the first than egress of the second.
        for number in range(150):
            guests[0].send(frame(mac(8) if number % 3 else BROADCAST, mac(8), 1514))
            if not number % 3:
                assert guests[1].receive()
                assert guests[2].receive()
        seen_until(capture, 1, 150)
        seen_until(capture, 2, 50)
        capture.read(ALL)
        before = capture.counts()
        assert before[1].lost > before[2].lost > 0
        # One after the other: an engine may take in both before it sends the first.
        for seen in (51, 52):
            guests[0].send(frame(BROADCAST, mac(8)))
            seen_until(capture, 2, seen)
        assert [(packet.interface, packet.lost) for packet in held(capture)] == [
            (0, before[1].lost),
            (1, before[2].lost),
            (0, 0),
            (1, 0),
        ]

    @pytest.mark.parametrize("size", [60, 1514, 9018])
    def test_what_is_oldest_makes_room(self, engine: Engine, guests: list[GuestEnd], size: int) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1}), capacity=MIN_CAPTURE, overwrite=True))
        sent = 6 * MIN_CAPTURE // size
        for number in range(sent):
            guests[0].send(frame(mac(9), mac(9), size, number.to_bytes(4, "big")))
        seen_until(capture, 1, sent)
        kept = held(capture)
        assert MIN_CAPTURE - 2 * (size + 60) < len(capture.copy()) <= MIN_CAPTURE
        numbers = [number_of(packet) for packet in kept]
        assert numbers == list(range(sent - len(kept), sent))
        assert {packet.lost for packet in kept} == {0}
        assert capture.counts() == {1: CaptureCount(sent, sent, 0)}

    def test_frames_of_all_sizes_stay_whole_while_they_are_overwritten_and_read(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        engine = make_engine(SwitchConfig(max_frame=65_535))
        guest = keep(plug(engine))
        guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        capture = engine.capture(CaptureOrder(capacity=MIN_CAPTURE, overwrite=True))
        rng = random.Random(3)
        sent = []
        for number in range(120):
            size = rng.choice([14, 60, 61, 62, 63, 1514, 9018, 40_000, 65_535])
            sent.append(frame(mac(9), mac(9), size, number.to_bytes(4, "big") if size > 14 else b""))
            guest.send(sent[-1])
            seen_until(capture, 1, number + 1)
            if number % 7 == 0:
                for packet in read_packets(capture.read(rng.choice([0, 100, 5000, ALL]))):
                    assert packet.data in sent
            kept = [packet.data for packet in held(capture)]
            assert kept == sent[len(sent) - len(kept) :]
            assert kept or number % 7 == 0

    def test_copies_hold_whole_blocks_in_order_while_a_flood_overwrites_them(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        # Nobody reads: each frame is kept once as it comes, and six times as it is dropped.
        capacity = 4 << 20
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(contextlib.closing(plug(engine)))
            capture = engine.capture(CaptureOrder(capacity=capacity, overwrite=True))
            number = itertools.count()

            def send() -> None:
                guests[0].send(frame(BROADCAST, mac(1), 1514, next(number).to_bytes(4, "big")))

            with background(send):
                for take in itertools.chain([lambda: capture.read(1 << 20)] * 5, [capture.copy] * 10):
                    wait_until(lambda: len(capture.copy()) > capacity // 2, 10, "there is much to take")
                    last: dict[tuple[int, int], int] = {}
                    for packet in read_packets(take()):
                        where = (packet.interface, packet.direction)
                        assert last.get(where, -1) < number_of(packet)
                        last[where] = number_of(packet)
            block = 1700  # or fewer bytes
            wait_until(lambda: capacity - block < len(capture.copy()) <= capacity, 10, "all is copied")

    def test_read_takes_whole_blocks_up_to_a_size(self, engine: Engine, guests: list[GuestEnd]) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1})))
        for number in range(5):
            guests[0].send(frame(mac(9), mac(9), 60, bytes([number])))
        seen_until(capture, 1, 5)
        whole = capture.copy()
        one = len(whole) // 5
        assert len(read_blocks(whole)) == 5
        parts = [capture.read(most) for most in (1, one - 1, 2 * one + 3, 0)]
        assert [len(part) // one for part in parts] == [1, 1, 2, 1]
        assert b"".join(parts) == whole
        assert (capture.read(ALL), capture.copy()) == (b"", b"")

    def test_descriptor_is_readable_from_a_quarter_on(self, engine: Engine, guests: list[GuestEnd]) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1}), capacity=MIN_CAPTURE))
        assert not is_readable(capture.ready_fd())
        sent = 0
        while len(capture.copy()) + 1600 < MIN_CAPTURE // 4:
            assert not is_readable(capture.ready_fd())
            guests[0].send(frame(mac(9), mac(9), 1500))
            sent += 1
            seen_until(capture, 1, sent)
        assert not is_readable(capture.ready_fd())
        for _ in range(3):
            guests[0].send(frame(mac(9), mac(9), 1500))
        assert select.select([capture.ready_fd()], [], [], 5)[0]
        seen_until(capture, 1, sent + 3)
        capture.copy()
        assert is_readable(capture.ready_fd())
        capture.read(MIN_CAPTURE // 8)
        assert not is_readable(capture.ready_fd())
        for _ in range(sent):
            guests[0].send(frame(mac(9), mac(9), 1500))
        assert select.select([capture.ready_fd()], [], [], 5)[0]
