"""What engines do with tags, reserved addresses and mirror sessions, over real sockets."""

from __future__ import annotations

import select
from collections.abc import Callable

import pytest

from support.deadline import scaled, wait_until
from support.guest_end import PLUGGED, GuestEnd, plug, plug_headed, plug_unconnected, traffic_of
from support.vlan_cases import VLAN_CASES, A, B, C, VlanCase, access, plain, tagged, trunk
from umlab.engine.contract import Engine
from umlab.errors import NoSuchPort
from umlab.switch.core import LLDP_TYPE, MAX_PUNTS, PUNT_SIZE
from umlab.switch.counters import DropReason
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import Framing, MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import VidSet

EngineMaker = Callable[..., Engine]
Keep = Callable[[GuestEnd], GuestEnd]
NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
LLDP = (NEAREST_BRIDGE + A + LLDP_TYPE).ljust(60, b"\0")


def long_framing(case: VlanCase) -> Framing:
    """What carries frames of any length: a socket of a machine's defaults takes no more than these."""
    return Framing.STREAM if case.max_frame > 9018 else Framing.DATAGRAM


@pytest.mark.parametrize("case", VLAN_CASES, ids=lambda case: case.name)
def test_frame_leaves_where_its_vlan_is_and_as_each_port_is_told(
    make_engine: EngineMaker, keep: Keep, case: VlanCase
) -> None:
    engine = make_engine(case.config)
    guests = {number: keep(plug(engine, long_framing(case), number)) for number in case.ports}
    guests[1].send(case.frame)
    wait_until(lambda: traffic_of(engine, 1) == 1, 5, "the frame is counted")
    if isinstance(case.out, DropReason):
        assert engine.snapshot().ports[1].drops == {case.out: 1}
        assert engine.fdb() == []
    else:
        assert {number: guests[number].receive() for number in case.out} == case.out
        wait_until(lambda: sent_sizes(engine) == sizes_of(case.out), 5, "all is counted as it was sent")
    assert [guest.waiting() for guest in guests.values()] == [[] for _ in guests]


def sent_sizes(engine: Engine) -> dict[int, int]:
    return {number: port.tx_bytes for number, port in engine.snapshot().ports.items() if port.tx_frames}


def sizes_of(out: object) -> dict[int, int]:
    assert isinstance(out, dict)
    return {number: len(frame) for number, frame in out.items()}


@pytest.mark.parametrize(
    "framing", [*PLUGGED, None], ids=lambda framing: framing.value if framing else "headed"
)
def test_tags_are_put_in_and_taken_out_on_every_framing(
    make_engine: EngineMaker, keep: Keep, framing: Framing | None
) -> None:
    ports = {1: PortConfig(access(10)), 2: PortConfig(trunk("10")), 3: PortConfig(trunk("10,20"))}
    engine = make_engine(SwitchConfig(ports=ports))
    left, middle, right = (
        keep(plug_headed(engine) if framing is None else plug(engine, framing)) for _ in range(3)
    )
    for size in (14, 60, 1514, 2044, 2048, 9014):
        left.send(plain(size))
        assert middle.receive() == right.receive() == tagged(plain(size), 10)
        middle.send(tagged(plain(size, source=B), 10, 5))
        assert left.receive() == plain(size, source=B)
        assert right.receive() == tagged(plain(size, source=B), 10, 5)


def test_frames_that_wait_have_the_form_of_their_port(make_engine: EngineMaker, keep: Keep) -> None:
    """A queue keeps frames after the buffer of the one that came is used again."""
    ports = {number: PortConfig(access(10)) for number in (1, 2)} | {3: PortConfig(trunk("10"))}
    engine = make_engine(SwitchConfig(ports=ports))
    sender, reader, stopped = keep(plug(engine)), keep(plug(engine)), keep(plug_unconnected(engine))
    frames = [plain(60 + number, source=B) for number in range(200)]
    for frame in frames:
        sender.send(frame)
        assert reader.receive() == frame
    assert engine.snapshot().queued[3] > 100
    assert stopped.receive_many(200) == [tagged(frame, 10) for frame in frames]


def test_same_address_in_two_vlans_is_two_stations(make_engine: EngineMaker, keep: Keep) -> None:
    ports = {1: PortConfig(access(10)), 2: PortConfig(access(20)), 3: PortConfig(trunk("10,20"))}
    engine = make_engine(SwitchConfig(ports=ports))
    one, other, both = (keep(plug(engine)) for _ in range(3))
    for guest, vid in ((one, 10), (other, 20)):
        guest.send(plain(source=B))
        assert both.receive() == tagged(plain(source=B), vid)
    assert {(entry.vid, entry.mac, entry.port_no) for entry in engine.fdb()} == {(10, B, 1), (20, B, 2)}
    for guest, vid in ((one, 10), (other, 20)):
        both.send(tagged(plain(destination=B, source=C), vid))
        assert guest.receive() == plain(destination=B, source=C)
    assert one.waiting() == other.waiting() == []
    assert engine.flush_fdb(2) == 1
    assert engine.snapshot().counters.moved == 0


def test_settings_change_while_it_runs_and_what_belongs_no_more_is_forgotten(
    make_engine: EngineMaker, keep: Keep
) -> None:
    engine = make_engine(SwitchConfig(ports={2: PortConfig(trunk("10,20"))}))
    first, trunk_guest = (keep(plug(engine)) for _ in range(2))
    for vid in (10, 20):
        trunk_guest.send(tagged(plain(source=B), vid))
    wait_until(lambda: len(engine.fdb()) == 2, 5, "both are learnt")
    assert first.waiting() == []
    engine.configure(SwitchConfig(ports={1: PortConfig(access(20)), 2: PortConfig(trunk("20"))}))
    assert [(entry.vid, entry.mac) for entry in engine.fdb()] == [(20, B)]
    first.send(plain())
    assert trunk_guest.receive() == tagged(plain(), 20)
    engine.configure(SwitchConfig())
    assert engine.fdb() == []
    first.send(plain())
    assert trunk_guest.receive() == plain()


def test_restored_address_belongs_to_its_vlan(make_engine: EngineMaker, keep: Keep) -> None:
    engine = make_engine(SwitchConfig(ports={1: PortConfig(access(10)), 2: PortConfig(access(10))}))
    first, second, third = (keep(plug(engine)) for _ in range(3))
    now_ns = engine.snapshot().at_ns
    kept = [FdbEntry(B, 2, now_ns, 10), FdbEntry(B, 3, now_ns)]
    engine.restore_fdb(
        [*kept, FdbEntry(C, 2, now_ns, 20), FdbEntry(C, 2, now_ns), FdbEntry(C, 3, now_ns, 10)]
    )
    assert engine.fdb() == kept
    first.send(plain(destination=B))
    assert second.receive() == plain(destination=B)
    assert third.waiting() == []


class TestReserved:
    @pytest.mark.parametrize(
        ("policy", "forwarded", "drops"),
        [
            (ReservedPolicy.TRANSPARENT, True, {}),
            (ReservedPolicy.BRIDGE, False, {DropReason.RESERVED: 1}),
            (ReservedPolicy.PEER, False, {}),
        ],
    )
    def test_policy_of_a_port_and_lldp_beside_it(
        self,
        make_engine: EngineMaker,
        keep: Keep,
        policy: ReservedPolicy,
        forwarded: bool,
        drops: dict[DropReason, int],
    ) -> None:
        engine = make_engine(SwitchConfig(ports={1: PortConfig(reserved=policy)}))
        first, second = (keep(plug(engine)) for _ in range(2))
        engine.take_events()
        first.send(LLDP)
        assert select.select([engine.event_fd()], [], [], scaled(5))[0]
        engine.take_events()
        (punt,) = engine.take_punts()
        assert (punt.port_no, punt.frame) == (1, LLDP)
        assert punt.at_ns <= engine.snapshot().at_ns
        wait_until(lambda: traffic_of(engine, 1) == 1, 5, "it is counted")
        assert engine.snapshot().ports[1].drops == drops
        if forwarded:
            assert second.receive() == LLDP
        assert second.waiting() == []
        assert engine.take_punts() == []
        engine.take_events()
        assert not select.select([engine.event_fd()], [], [], 0)[0]

    def test_descriptor_is_quiet_for_a_reader_that_takes_no_punts(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        """One that knows nothing of control protocols was woken for ever."""
        engine = make_engine()
        first, second = (keep(plug(engine)) for _ in range(2))
        first.send(LLDP)
        assert second.receive() == LLDP
        wait_until(lambda: engine.snapshot().counters.punted == 1, 5, "it waits")
        engine.take_events()
        for _ in range(3):
            engine.snapshot()
            assert not select.select([engine.event_fd()], [], [], 0.02)[0]
        first.send(LLDP)
        assert select.select([engine.event_fd()], [], [], scaled(5))[0]
        assert second.receive() == LLDP
        wait_until(lambda: len(engine.take_punts()) > 0, 5, "both can be had")

    def test_punts_are_bounded_in_number_and_size(self, make_engine: EngineMaker, keep: Keep) -> None:
        engine = make_engine(SwitchConfig(ports={1: PortConfig(reserved=ReservedPolicy.PEER)}))
        guest = keep(plug(engine))
        frames = [
            (LLDP[:14] + number.to_bytes(4, "big")).ljust(5000, b"\1") for number in range(MAX_PUNTS + 9)
        ]
        for frame in frames:
            guest.send(frame)
        wait_until(lambda: traffic_of(engine, 1) == len(frames), 5, "all came")
        counters = engine.snapshot().counters
        assert (counters.punted, counters.punt_lost) == (MAX_PUNTS, 9)
        assert [punt.frame for punt in engine.take_punts()] == [
            frame[:PUNT_SIZE] for frame in frames[:MAX_PUNTS]
        ]
        guest.send(LLDP)
        wait_until(lambda: [punt.frame for punt in engine.take_punts()] == [LLDP], 5, "there is room again")


class TestSend:
    def test_frame_of_our_own_goes_out_as_it_is(self, make_engine: EngineMaker, keep: Keep) -> None:
        engine = make_engine(SwitchConfig(ports={1: PortConfig(trunk("10"))}))
        first, second = (keep(plug(engine)) for _ in range(2))
        for frame in (LLDP, plain(14), plain(PUNT_SIZE)):
            engine.send(1, frame)
            assert first.receive() == frame
        wait_until(lambda: engine.snapshot().ports[1].tx_frames == 3, 5, "all are counted")
        assert engine.snapshot().ports[1].tx_bytes == len(LLDP) + 14 + PUNT_SIZE
        assert second.waiting() == []

    def test_frame_of_our_own_waits_in_the_queue_behind_others(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        engine = make_engine()
        sender, stopped = keep(plug(engine)), keep(plug_unconnected(engine))
        frames = [plain(60 + number) for number in range(30)]
        for frame in frames:
            sender.send(frame)
        wait_until(lambda: traffic_of(engine, 1) == 30, 5, "all came")
        engine.send(2, LLDP)
        assert stopped.receive_many(31) == [*frames, LLDP]

    @pytest.mark.parametrize("size", [0, 13, PUNT_SIZE + 1])
    def test_frame_that_is_none_is_refused(self, make_engine: EngineMaker, keep: Keep, size: int) -> None:
        engine = make_engine()
        guest = keep(plug(engine))
        with pytest.raises(ValueError, match=f"14 to {PUNT_SIZE} bytes"):
            engine.send(1, bytes(size))
        assert guest.waiting() == []

    def test_port_that_does_not_exist_is_refused(self, engine: Engine) -> None:
        with pytest.raises(NoSuchPort):
            engine.send(1, LLDP)


class TestMirrors:
    def test_copies_of_both_directions_and_nothing_else(self, make_engine: EngineMaker, keep: Keep) -> None:
        ports = {1: PortConfig(access(10)), 2: PortConfig(trunk("10"))}
        engine = make_engine(SwitchConfig(ports=ports, mirrors=(MirrorSession("m", 4, frozenset({2})),)))
        left, right, _, probe = (keep(plug(engine)) for _ in range(4))
        left.send(plain())
        assert right.receive() == tagged(plain(), 10)
        assert probe.receive() == plain()
        right.send(tagged(plain(destination=A, source=B), 10, 3))
        assert left.receive() == plain(destination=A, source=B)
        assert probe.receive() == tagged(plain(destination=A, source=B), 10, 3)
        probe.send(plain(source=C))
        wait_until(lambda: traffic_of(engine, 4) == 1, 5, "the probe's frame is counted")
        assert engine.snapshot().ports[4].drops == {DropReason.MIRROR: 1}
        assert left.waiting() == right.waiting() == probe.waiting() == []
        assert {entry.mac for entry in engine.fdb()} == {A, B}

    def test_session_begins_and_ends_while_it_runs(self, make_engine: EngineMaker, keep: Keep) -> None:
        engine = make_engine()
        left, right, probe = (keep(plug(engine)) for _ in range(3))
        probe.send(plain(source=C))
        assert left.receive() == right.receive() == plain(source=C)
        session = MirrorSession("m", 3, frozenset({1}), egress=False)
        for mirrors, copied in (((session,), True), ((), False)):
            engine.configure(SwitchConfig(mirrors=mirrors))
            assert not engine.fdb() or not copied
            right.send(plain(source=B))
            assert left.receive() == plain(source=B)
            if not copied:
                assert probe.receive() == plain(source=B)
            left.send(plain(destination=B, source=A))
            assert right.receive() == plain(destination=B, source=A)
            if copied:
                assert probe.receive() == plain(destination=B, source=A)
        assert probe.waiting() == []

    def test_vlan_is_copied(self, make_engine: EngineMaker, keep: Keep) -> None:
        ports = {number: PortConfig(trunk("10,20")) for number in (1, 2)}
        session = MirrorSession("m", 3, vids=VidSet.of([20]))
        engine = make_engine(SwitchConfig(ports=ports, mirrors=(session,)))
        left, right, probe = (keep(plug(engine)) for _ in range(3))
        for vid in (10, 20):
            left.send(tagged(plain(), vid))
            assert right.receive() == tagged(plain(), vid)
        assert probe.receive() == tagged(plain(), 20)
        assert probe.waiting() == []
