"""Reserved addresses, 01-80-C2-00-00-00 up to -0F: three policies, and what the control protocols get."""

from __future__ import annotations

import pytest

from support.vlan_cases import A, B, access, plain, s_tagged, tagged
from umlab.switch.core import LLDP_TYPE, MAX_PUNTS, PUNT_SIZE, Punt, SwitchCore, Verdict
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.model import PortConfig, ReservedPolicy, SwitchConfig

RESERVED = [bytes.fromhex(f"0180c20000{last:02x}") for last in (0, 2, 3, 0x0E, 0x0F)]
#: The first address behind them, and one that looks like them.
ORDINARY = [bytes.fromhex("0180c2000010"), bytes.fromhex("0180c2000100")]
NEAREST_BRIDGE = RESERVED[3]
TRANSPARENT, BRIDGE, PEER = ReservedPolicy.TRANSPARENT, ReservedPolicy.BRIDGE, ReservedPolicy.PEER


def switch(policy: ReservedPolicy, **others: int) -> SwitchCore:
    core = SwitchCore(SwitchConfig(ports={1: PortConfig(reserved=policy)}, **others))  # type: ignore[arg-type]
    for _ in range(3):
        core.add_port(0)
    return core


def lldp(size: int = 60, destination: bytes = NEAREST_BRIDGE) -> bytes:
    return (destination + A + LLDP_TYPE).ljust(size, b"\0")


@pytest.mark.parametrize("destination", RESERVED)
class TestPolicies:
    def test_transparent_port_floods_as_to_any_group(self, destination: bytes) -> None:
        core = switch(TRANSPARENT)
        assert core.receive(1, plain(destination=destination), 0) == Verdict((2, 3))
        assert core.take_punts() == []

    def test_bridge_port_drops(self, destination: bytes) -> None:
        core = switch(BRIDGE)
        assert core.receive(1, plain(destination=destination), 0) == Verdict((), DropReason.RESERVED)
        assert core.port_counters(1) == PortCounters(drops={DropReason.RESERVED: 1})
        assert (core.take_punts(), core.fdb(0)) == ([], [])

    def test_peer_port_hands_over_and_forwards_nothing(self, destination: bytes) -> None:
        core = switch(PEER)
        frame = plain(destination=destination)
        assert core.receive(1, frame, 7) == Verdict(())
        assert core.port_counters(1) == PortCounters(1, len(frame))
        assert core.take_punts() == [Punt(7, 1, frame)]
        assert core.take_punts() == []
        assert core.fdb(7) == []

    def test_policy_is_that_of_the_port_it_comes_from(self, destination: bytes) -> None:
        for policy in ReservedPolicy:
            assert switch(policy).receive(2, plain(destination=destination), 0).egress == (1, 3)

    def test_what_is_too_short_is_dropped_for_that(self, destination: bytes) -> None:
        core = switch(PEER)
        assert core.receive(1, destination + A, 0) == Verdict((), DropReason.RUNT)
        assert core.take_punts() == []


@pytest.mark.parametrize("policy", list(ReservedPolicy))
@pytest.mark.parametrize("destination", ORDINARY)
def test_other_groups_are_not_reserved(policy: ReservedPolicy, destination: bytes) -> None:
    core = switch(policy)
    assert core.receive(1, plain(destination=destination), 0) == Verdict((2, 3))
    assert core.take_punts() == []


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [(TRANSPARENT, Verdict((2, 3))), (BRIDGE, Verdict((), DropReason.RESERVED)), (PEER, Verdict(()))],
)
def test_lldp_is_copied_to_the_control_protocols_whatever_the_policy(
    policy: ReservedPolicy, verdict: Verdict
) -> None:
    core = switch(policy)
    assert core.receive(1, lldp(), 3) == verdict
    assert core.take_punts() == [Punt(3, 1, lldp())]
    assert (core.counters.punted, core.counters.punt_lost) == (1, 0)


def test_lldp_type_to_any_other_address_is_none() -> None:
    core = switch(TRANSPARENT)
    for destination in (*ORDINARY, B):
        core.receive(1, lldp(destination=destination), 0)
    assert core.take_punts() == []


def test_vlan_is_not_asked_for_what_is_not_forwarded() -> None:
    """LLDP goes without a tag, also on trunk ports that drop what comes so."""
    core = SwitchCore(
        SwitchConfig(ports={1: PortConfig(access(10), BRIDGE), 2: PortConfig(access(10), TRANSPARENT)})
    )
    for _ in range(3):
        core.add_port(0)
    assert core.receive(1, tagged(plain(destination=RESERVED[0]), 10), 0).drop is DropReason.RESERVED
    assert core.receive(2, tagged(plain(destination=RESERVED[0]), 10), 0).drop is DropReason.VLAN
    assert core.receive(2, s_tagged(plain(destination=RESERVED[0]), 10), 0).egress == (1,)
    assert core.receive(2, lldp(), 5).egress == (1,)
    assert core.take_punts() == [Punt(5, 2, lldp())]


def test_long_frame_is_handed_over_up_to_a_size() -> None:
    core = switch(PEER)
    frames = [lldp(size) for size in (PUNT_SIZE, PUNT_SIZE + 1, 9018)]
    for frame in frames:
        core.receive(1, frame, 0)
    assert [punt.frame for punt in core.take_punts()] == [lldp(PUNT_SIZE)] * 3


def test_frames_that_nobody_takes_are_bounded_and_counted() -> None:
    core = switch(PEER)
    for number in range(MAX_PUNTS + 5):
        assert core.receive(1, lldp(), number) == Verdict(())
    assert (core.counters.punted, core.counters.punt_lost) == (MAX_PUNTS, 5)
    assert [punt.at_ns for punt in core.take_punts()] == list(range(MAX_PUNTS))
    core.receive(1, lldp(), 99)
    assert [punt.at_ns for punt in core.take_punts()] == [99]
