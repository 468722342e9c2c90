"""VLANs against Open vSwitch: a trunk to it, and the same frames at ports of both that are told the same."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.openvswitch import OpenVSwitch, TapEnd, open_vswitch
from support.guest_end import BROADCAST, GuestEnd, mac, plug
from umlab.engine.contract import Engine
from umlab.engine.select import create_engine
from umlab.switch.model import Framing, Link, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan, VidSet

pytestmark = [pytest.mark.integration, pytest.mark.needs_root]

EXPERIMENT = b"\x88\xb5UML!"
FULL = 1500
#: Frames that are sent before it is seen what has become of them; a socket of Open vSwitch holds more.
BURST = 24
#: Where a frame went: the port, and what came out there.
Output = tuple[int, bytes]


@dataclass(frozen=True)
class PortPair:
    """A port of ours and one of Open vSwitch that are to be the same.

    Attributes:
        vlan: Ours.
        columns: Theirs.
        sentinel: The tag of a frame that passes in from here,
        to: and comes out there, by the place of the port in the list, from 1.
    """

    vlan: PortVlan
    columns: tuple[str, ...]
    sentinel: str
    to: int


def vids(*members: int) -> VidSet:
    return VidSet.of(members)


CUSTOMER = (
    PortPair(PortVlan.access(10), ("vlan_mode=access", "tag=10"), "", 3),
    PortPair(PortVlan.access(20), ("vlan_mode=access", "tag=20"), "", 3),
    PortPair(PortVlan.trunk(vids(10, 20)), ("vlan_mode=trunk", "trunks=10,20"), "8100000a", 1),
    PortPair(
        PortVlan.trunk(vids(10), native=30), ("vlan_mode=native-untagged", "tag=30", "trunks=10,30"), "", 6
    ),
    PortPair(PortVlan(30, vids(10, 20, 30)), ("vlan_mode=native-tagged", "tag=30", "trunks=10,20,30"), "", 6),
    PortPair(PortVlan.access(30), ("vlan_mode=access", "tag=30"), "", 4),
)
PROVIDER = (
    PortPair(PortVlan.access(100, STAG), ("vlan_mode=dot1q-tunnel", "tag=100"), "", 4),
    PortPair(PortVlan.access(100, STAG), ("vlan_mode=dot1q-tunnel", "tag=100"), "", 4),
    PortPair(PortVlan.access(200, STAG), ("vlan_mode=dot1q-tunnel", "tag=200"), "", 4),
    PortPair(PortVlan.trunk(vids(100, 200), tpid=STAG), ("vlan_mode=trunk", "trunks=100,200"), "88a80064", 1),
)
#: Tags of the frames, outer first: of one, and of more.
TAGS = (
    *("", "8100000a", "81000014", "8100001e", "81000028", "81000064", "810000c8"),
    *("8100a00a", "8100e01e", "8100a000", "81000fff", "81000ffe"),
)
#: Tags of a frame that may be dropped first where there are too many.
ELIGIBLE = ("8100b00a", "8100b000")
DOUBLE = ("8100000a81000014", "8100001e8100000a8100000a", "8100a0008100000a", "8100000a88a80064")
#: How Open vSwitch is told to look at more than the outer one.
TWO_TAGS = ("set", "Open_vSwitch", ".", "other_config:vlan-limit=2")
STAGS = ("88a80064", "88a8a064", "88a800648100000a", "88a800c881000fff", "88a8012c", "88a8a000", "88a80fff")
GROUPS = ("0180c2000000", "0180c2000002", "0180c2000003", "0180c200000e", "0180c200000f")
#: Those of Cisco's own protocols.
FOREIGN = ("01000ccccccc", "01000ccccccd")
OTHERS = ("0180c2000010", "01005e000001", "333300000001")


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def ovs(short_dir: Path, namespace: NetworkNamespace) -> Iterator[OpenVSwitch]:
    with open_vswitch(short_dir, namespace) as made:
        yield made


@contextmanager
def running_engine(config: SwitchConfig) -> Iterator[Engine]:
    engine = create_engine(config)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def tap(ovs: OpenVSwitch, stack: ExitStack, name: str, *settings: str) -> TapEnd:
    """Return who sends and receives at a new port of Open vSwitch."""
    end = TapEnd(ovs.plug(name, *settings))
    stack.callback(end.close)
    stack.callback(ovs.configure, "del-port", "br0", name)
    return end


def frame(number: int, tags: str, dst: bytes, src: bytes, size: int) -> bytes:
    """Return a frame with its number, of so many bytes behind addresses and tags."""
    rest = EXPERIMENT + number.to_bytes(4, "big")
    return dst + src + bytes.fromhex(tags) + rest.ljust(size + 2, b"\xa5")


def number_of(data: bytes) -> int | None:
    """Return the number of a frame of ours, wherever it is behind its tags."""
    at = data.find(EXPERIMENT)
    return None if at < 0 else int.from_bytes(data[at + 6 : at + 10], "big")


class Bench:
    """A switch with an end at each port.

    Args:
        ends: They, by port.
        pairs: What the ports are.
    """

    def __init__(self, ends: Mapping[int, GuestEnd], pairs: tuple[PortPair, ...]) -> None:
        self._ends = ends
        self._pairs = dict(enumerate(pairs, 1))
        self._numbers = itertools.count(1 << 24)

    def outputs(self, sent: Iterable[tuple[int, bytes]]) -> dict[int, set[Output]]:
        """Send frames, each in at a port, and return where each came out, by number."""
        for port_no, data in sent:
            self._ends[port_no].send(data)
        found: dict[int, set[Output]] = defaultdict(set)
        # A switch may have seen one burst of frames and sent a part of it: the second time it has sent all.
        for _ in range(2):
            for port_no in self._ends:
                self._pass_sentinel(port_no, found)
        for port_no, end in self._ends.items():
            for data in end.waiting():
                self._note(found, port_no, data)
        return {number: where for number, where in found.items() if number < 1 << 24}

    def _pass_sentinel(self, port_no: int, found: dict[int, set[Output]]) -> None:
        pair, number = self._pairs[port_no], next(self._numbers)
        self._ends[port_no].send(frame(number, pair.sentinel, BROADCAST, mac(0xE000 + port_no), 50))
        while number not in found:
            self._note(found, pair.to, self._ends[pair.to].receive())

    def _note(self, found: dict[int, set[Output]], port_no: int, data: bytes) -> None:
        if (number := number_of(data)) is not None:
            assert (port_no, data) not in found[number], "a frame came twice"
            found[number].add((port_no, data))


@contextmanager
def benches(
    ovs: OpenVSwitch, pairs: tuple[PortPair, ...], policy: ReservedPolicy
) -> Iterator[tuple[Bench, Bench]]:
    """Make the same ports of ours and of Open vSwitch."""
    ports = {number: PortConfig(pair.vlan, policy) for number, pair in enumerate(pairs, 1)}
    with ExitStack() as stack:
        engine = stack.enter_context(running_engine(SwitchConfig(ports=ports)))
        ours: dict[int, GuestEnd] = {}
        theirs: dict[int, GuestEnd] = {}
        for number, pair in enumerate(pairs, 1):
            ours[number] = plug(engine)
            stack.callback(ours[number].close)
            theirs[number] = tap(ovs, stack, f"port{number}", *pair.columns)
        yield Bench(ours, pairs), Bench(theirs, pairs)


def without_dei(data: bytes) -> bytes:
    """Return a frame that its tags do not say to be drop eligible."""
    at, made = 14, bytearray(data)
    while bytes(made[at - 2 : at]) in (b"\x81\x00", b"\x88\xa8"):
        made[at] &= 0xEF
        at += 4
    return bytes(made)


def compare(
    ours: Bench, theirs: Bench, sent: Iterable[tuple[int, bytes]], seen: Callable[[bytes], bytes] = bytes
) -> set[tuple[int, str]]:
    """Return at which ports and with which tags frames have come in whose ways differ.

    Args:
        ours, theirs: The switches.
        sent: The frames, and where they come in.
        seen: What is seen of a frame that comes out of ours.
    """
    found = set()
    sent = list(sent)
    for begin in range(0, len(sent), BURST):
        burst = sent[begin : begin + BURST]
        left, right = ours.outputs(burst), theirs.outputs(burst)
        for port_no, data in burst:
            number = number_of(data)
            assert number is not None
            if {(to, seen(out)) for to, out in left.get(number, ())} != right.get(number, set()):
                found.add((port_no, data[12 : data.find(EXPERIMENT)].hex()))
    return found


class Frames:
    """Makes frames that are all told apart."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, tags: str, dst: bytes = BROADCAST, src: bytes | None = None, size: int = 50) -> bytes:
        number = next(self._numbers)
        return frame(number, tags, dst, src or mac(0x10000 + number), size)


def every(frames: Frames, count: int, tags: Iterable[str], **fields: Any) -> list[tuple[int, bytes]]:
    """Return a frame with each of these tags, once for every port of so many."""
    return [(port_no, frames(each, **fields)) for each in tags for port_no in range(1, count + 1)]


def test_same_frames_take_the_same_ways_as_through_open_vswitch(ovs: OpenVSwitch) -> None:
    frames, count = Frames(), len(CUSTOMER)
    takes_untagged = set(range(1, count + 1)) - {3}
    with benches(ovs, CUSTOMER, ReservedPolicy.BRIDGE) as (ours, theirs):
        sent = every(frames, count, (*TAGS, *DOUBLE))
        sent += every(frames, count, TAGS[:4], size=FULL)
        for group in (*GROUPS, *OTHERS):
            sent += every(frames, count, TAGS[:2], dst=bytes.fromhex(group))
        sent += every(frames, count, TAGS[:2], src=b"\x03" + bytes(5))
        assert compare(ours, theirs, sent) == set()
        # They do not forward what is Cisco's either; to us it is like any group.
        for group in FOREIGN:
            passing = at_each(takes_untagged, ("",)) | at_each({3, 4, 5}, ("8100000a",))
            assert compare(ours, theirs, every(frames, count, TAGS[:2], dst=bytes.fromhex(group))) == passing
        # They forget that a frame is drop eligible.
        assert compare(ours, theirs, every(frames, count, ELIGIBLE), without_dei) == set()
        # A provider's tag is payload to us, and a tag like a customer's to them.
        assert compare(ours, theirs, every(frames, count, STAGS)) == at_each(takes_untagged, STAGS)

        # Stations are known now: each at its port in one VLAN, and one in two VLANs at two ports.
        sent = [(number, frames(pair.sentinel, src=mac(number))) for number, pair in enumerate(CUSTOMER, 1)]
        sent += [(number, frames("", src=mac(0x77))) for number in (1, 2)]
        assert compare(ours, theirs, sent) == set()
        for station in (1, 2, 3, 4, 5, 6, 0x77):
            assert compare(ours, theirs, every(frames, count, TAGS[:4], dst=mac(station))) == set()
    ovs.configure("set", "bridge", "br0", "other_config:forward-bpdu=true")
    with benches(ovs, CUSTOMER, ReservedPolicy.TRANSPARENT) as (ours, theirs):
        for group in GROUPS:
            assert compare(ours, theirs, every(frames, count, TAGS[:2], dst=bytes.fromhex(group))) == set()


def test_provider_bridge_is_one_of_open_vswitch(ovs: OpenVSwitch) -> None:
    frames, count = Frames(), len(PROVIDER)
    ovs.configure(*TWO_TAGS)
    with benches(ovs, PROVIDER, ReservedPolicy.BRIDGE) as (ours, theirs):
        sent = every(frames, count, TAGS) + every(frames, count, ("", "8100000a"), size=FULL)
        # A customer's tag is payload to us on the trunk as well, and a tag like a provider's to them.
        assert compare(ours, theirs, sent) == at_each({4}, ("81000064", "810000c8"))
        assert compare(ours, theirs, every(frames, count, ELIGIBLE), without_dei) == set()
        assert compare(ours, theirs, every(frames, count, ELIGIBLE)) == at_each({1, 2, 3}, ELIGIBLE)
        # They know two tags of a frame at most, and cut out what is behind; and what a customer sends with a
        # provider's tag gets another one in front there, and is dropped by us as on any access port.
        for tags in (DOUBLE, STAGS):
            assert compare(ours, theirs, every(frames, count, tags)) == at_each({1, 2, 3}, tags)


def at_each(ports: Iterable[int], tags: Iterable[str]) -> set[tuple[int, str]]:
    """Return these tags at each of these ports."""
    return set(itertools.product(ports, tags))


def test_trunks_to_open_vswitch_carry_vlans_and_customers_tags_both_ways(
    ovs: OpenVSwitch, stack: ExitStack
) -> None:
    """Whole frames, many under way in all VLANs at once; none is lost, changed, or seen elsewhere."""
    trunk, provider = 1, 2
    vlans = {
        3: PortVlan.access(10),
        4: PortVlan.access(20),
        5: PortVlan.access(30),
        6: PortVlan.access(100, STAG),
    }
    vlans[trunk] = PortVlan.trunk(vids(10, 20), native=30)
    vlans[provider] = PortVlan.trunk(vids(100), tpid=STAG)
    config = SwitchConfig(ports={number: PortConfig(vlan) for number, vlan in vlans.items()})
    engine = stack.enter_context(running_engine(config))
    ovs.configure(*TWO_TAGS)
    cables = {
        trunk: ("vlan_mode=native-untagged", "tag=30", "trunks=10,20,30"),
        provider: ("vlan_mode=trunk", "trunks=100"),
    }
    for port_no, columns in cables.items():
        engine.attach(Link(ovs.plug(f"cable{port_no}", *columns), Framing.DEVICE), port_no)
    pairs: list[tuple[GuestEnd, GuestEnd]] = []
    for columns in (("tag=10",), ("tag=20",), ("tag=30",), ("vlan_mode=dot1q-tunnel", "tag=100")):
        pairs.append((plug(engine), tap(ovs, stack, f"port{len(pairs)}", *columns)))
        stack.callback(pairs[-1][0].close)
    frames = Frames()
    for _ in range(40):
        for way in (0, 1):
            sent = [
                [
                    frames("" if vlan < 3 else "8100000a", src=mac(8 + way), dst=dst, size=size)
                    for size in (46, FULL) * 6
                ]
                for vlan in range(len(pairs))
                for dst in (mac(9 - way),)
            ]
            for index, pair in enumerate(pairs):
                for data in sent[index]:
                    pair[way].send(data)
            for index, pair in enumerate(pairs):
                assert received(pair[1 - way], len(sent[index])) == sent[index]
    for end in itertools.chain(*pairs):
        assert not [data for data in end.waiting() if number_of(data) is not None]
    assert not any(port.drops for port in engine.snapshot().ports.values())


def received(end: GuestEnd, count: int) -> list[bytes]:
    """Return the next frames of ours."""
    found: list[bytes] = []
    while len(found) < count:
        if number_of(data := end.receive()) is not None:
            found.append(data)
    return found
