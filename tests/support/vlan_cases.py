"""What becomes of one frame on ports that deal with tags, case by case: for the core and for both engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umlab.switch.counters import DropReason
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan, VidSet

A, B, C = (bytes([2, 0, 0, 0, 0, number]) for number in (0xA, 0xB, 0xC))
BROADCAST = b"\xff" * 6
_TYPE = b"\x88\xb5"


def plain(size: int = 60, destination: bytes = BROADCAST, source: bytes = A) -> bytes:
    """Return a frame without a tag, whose payload is not all one byte."""
    payload = bytes(number % 251 for number in range(size))
    return (destination + source + _TYPE + payload)[:size]


def tagged(frame: bytes, vid: int, priority: int = 0, tpid: int = 0x8100) -> bytes:
    """Put a tag into a frame; the priority is the upper four bits of the TCI, PCP and DEI."""
    return frame[:12] + tpid.to_bytes(2, "big") + (priority << 12 | vid).to_bytes(2, "big") + frame[12:]


def s_tagged(frame: bytes, vid: int, priority: int = 0) -> bytes:
    """Put a provider's tag into a frame."""
    return tagged(frame, vid, priority, 0x88A8)


def access(vid: int) -> PortVlan:
    """Return a port of one VLAN."""
    return PortVlan.access(vid)


def trunk(vids: str, native: int | None = None, tpid: int = 0x8100) -> PortVlan:
    """Return a port of VLANs with tags."""
    return PortVlan.trunk(VidSet.parse(vids), native, tpid)


def hybrid(pvid: int | None, with_tag: str, without: str) -> PortVlan:
    """Return a port of any VLANs."""
    return PortVlan(pvid, VidSet.parse(with_tag), VidSet.parse(without))


@dataclass(frozen=True)
class VlanCase:
    """One frame.

    Attributes:
        name: What it shows.
        ports: Port settings by number, ``None`` for a transparent port; the frame comes to port 1.
        frame: It.
        out: What leaves where; or why it is dropped.
        max_frame: Of the switch.
    """

    name: str
    ports: Mapping[int, PortVlan | None]
    frame: bytes
    out: Mapping[int, bytes] | DropReason
    max_frame: int = 1518

    @property
    def config(self) -> SwitchConfig:
        """What the switch is told to be."""
        ports = {number: PortConfig(vlan) for number, vlan in self.ports.items() if vlan is not None}
        return SwitchConfig(max_frame=self.max_frame, ports=ports)


#: Ports of every kind in VLAN 10, and others.
_MANY = {2: access(10), 3: access(20), 4: trunk("10,20"), 5: trunk("20", 10), 6: trunk("20"), 7: None}
_Q_IN_Q = {1: PortVlan.access(100, STAG), 2: trunk("100", tpid=STAG), 3: PortVlan.access(100, STAG)}

VLAN_CASES = [
    VlanCase(
        "access port to all others of its VLAN",
        {1: access(10), **_MANY},
        plain(),
        {2: plain(), 4: tagged(plain(), 10), 5: plain()},
    ),
    VlanCase(
        "trunk port with a tag to all others of its VLAN",
        {1: trunk("10,20"), **_MANY},
        tagged(plain(), 10),
        {2: plain(), 4: tagged(plain(), 10), 5: plain()},
    ),
    VlanCase(
        "trunk port without a tag is in its native VLAN",
        {1: trunk("20", 10), **_MANY},
        plain(),
        {2: plain(), 4: tagged(plain(), 10), 5: plain()},
    ),
    VlanCase(
        "trunk port takes its native VLAN with a tag too",
        {1: trunk("20", 10), **_MANY},
        tagged(plain(), 10),
        {2: plain(), 4: tagged(plain(), 10), 5: plain()},
    ),
    VlanCase("trunk port without a native VLAN", {1: trunk("10"), **_MANY}, plain(), DropReason.VLAN),
    VlanCase("trunk port of other VLANs", {1: trunk("10"), **_MANY}, tagged(plain(), 20), DropReason.VLAN),
    VlanCase("access port with a tag", {1: access(10), **_MANY}, tagged(plain(), 20), DropReason.VLAN),
    VlanCase("access port with its own tag", {1: access(10), **_MANY}, tagged(plain(), 10), DropReason.VLAN),
    VlanCase(
        "transparent ports are apart, tag or no tag",
        {1: None, **_MANY, 8: None},
        tagged(plain(), 10, 7),
        {7: tagged(plain(), 10, 7), 8: tagged(plain(), 10, 7)},
    ),
    VlanCase("VLAN of nobody else", {1: access(30), **_MANY}, plain(), {}),
    VlanCase(
        "priority and DEI stay from trunk to trunk",
        {1: trunk("10"), 2: trunk("10")},
        tagged(plain(), 10, 0b1011),
        {2: tagged(plain(), 10, 0b1011)},
    ),
    VlanCase(
        "priority tag is of the port's own VLAN and its priority stays",
        {1: access(10), 2: trunk("10"), 3: access(10)},
        tagged(plain(), 0, 0b1100),
        {2: tagged(plain(), 10, 0b1100), 3: plain()},
    ),
    VlanCase(
        "priority tag on a trunk port with a native VLAN",
        {1: trunk("20", 10), 2: trunk("10"), 3: trunk("20", 10)},
        tagged(plain(), 0, 0b0010),
        {2: tagged(plain(), 10, 0b0010), 3: plain()},
    ),
    VlanCase(
        "priority tag on a trunk port without one",
        {1: trunk("10"), 2: trunk("10")},
        tagged(plain(), 0, 5),
        DropReason.VLAN,
    ),
    VlanCase(
        "VID 4095 is of no VLAN",
        {1: trunk("1-4094", 10), 2: trunk("1-4094")},
        tagged(plain(), 4095),
        DropReason.VLAN,
    ),
    VlanCase(
        "VID 4095 crosses transparent ports",
        {1: None, 2: None},
        tagged(plain(), 4095),
        {2: tagged(plain(), 4095)},
    ),
    VlanCase(
        "highest VID of all",
        {1: trunk("1-4094"), 2: trunk("4094"), 3: trunk("1-4093"), 4: access(4094)},
        tagged(plain(), 4094, 0xF),
        {2: tagged(plain(), 4094, 0xF), 4: plain()},
    ),
    VlanCase(
        "hybrid port without a tag",
        {1: hybrid(1, "10", "1,5"), 2: hybrid(1, "10", "1,5"), 3: access(5), 4: trunk("1")},
        plain(),
        {2: plain(), 4: tagged(plain(), 1)},
    ),
    VlanCase(
        "hybrid port with the tag of a VLAN that leaves without",
        {1: hybrid(1, "10", "1,5"), 2: hybrid(1, "10", "1,5"), 3: access(5), 4: trunk("1,5")},
        tagged(plain(), 5, 3),
        {2: plain(), 3: plain(), 4: tagged(plain(), 5, 3)},
    ),
    VlanCase(
        "own VLAN that leaves with a tag",
        {1: hybrid(10, "10,20", ""), 2: hybrid(10, "10,20", "")},
        plain(),
        {2: tagged(plain(), 10)},
    ),
    VlanCase(
        "port that sends only",
        {1: access(5), 2: hybrid(None, "", "5,6")},
        plain(),
        {2: plain()},
    ),
    VlanCase(
        "port that sends only, the other way",
        {1: hybrid(None, "", "5"), 2: access(5)},
        plain(),
        DropReason.VLAN,
    ),
    VlanCase(
        "provider's tag in front of a customer's",
        _Q_IN_Q,
        tagged(plain(), 10, 6),
        {2: s_tagged(tagged(plain(), 10, 6), 100), 3: tagged(plain(), 10, 6)},
    ),
    VlanCase(
        "provider's tag taken off",
        {**_Q_IN_Q, 1: trunk("100", tpid=STAG)},
        s_tagged(tagged(plain(), 10, 6), 100, 4),
        {2: s_tagged(tagged(plain(), 10, 6), 100, 4), 3: tagged(plain(), 10, 6)},
    ),
    VlanCase(
        "customer's tag is none for a provider's port",
        {**_Q_IN_Q, 1: trunk("100", tpid=STAG)},
        tagged(plain(), 100),
        DropReason.VLAN,
    ),
    VlanCase(
        "provider's tag becomes a customer's",
        {1: trunk("10", tpid=STAG), 2: trunk("10")},
        s_tagged(plain(), 10, 0b0111),
        {2: tagged(plain(), 10, 0b0111)},
    ),
    VlanCase(
        "customer's tag becomes a provider's",
        {1: trunk("10"), 2: trunk("10", tpid=STAG), 3: access(10)},
        tagged(plain(), 10, 1),
        {2: s_tagged(plain(), 10, 1), 3: plain()},
    ),
    VlanCase(
        "provider's tag is payload elsewhere",
        {1: access(10), 2: trunk("10"), 3: access(10)},
        s_tagged(plain(), 20, 5),
        {2: tagged(s_tagged(plain(), 20, 5), 10), 3: s_tagged(plain(), 20, 5)},
    ),
    VlanCase(
        "inner tag stays where the outer one goes",
        {1: trunk("10,20"), 2: access(10), 3: trunk("10")},
        tagged(tagged(plain(), 20, 1), 10, 2),
        {2: tagged(plain(), 20, 1), 3: tagged(tagged(plain(), 20, 1), 10, 2)},
    ),
    VlanCase(
        "full-sized frame with a tag crosses transparent ports",
        {1: None, 2: None},
        tagged(plain(1514), 10),
        {2: tagged(plain(1514), 10)},
    ),
    VlanCase(
        "longest frame grows by its tag",
        {1: access(10), 2: trunk("10"), 3: access(10)},
        plain(1518),
        {2: tagged(plain(1518), 10), 3: plain(1518)},
    ),
    VlanCase(
        "longest frame with a tag",
        {1: trunk("10"), 2: trunk("10"), 3: access(10)},
        tagged(plain(1514), 10),
        {2: tagged(plain(1514), 10), 3: plain(1514)},
    ),
    VlanCase(
        "frame with a tag is too long as it comes",
        {1: trunk("10"), 2: access(10)},
        tagged(plain(1515), 10),
        DropReason.OVERSIZE,
    ),
    VlanCase(
        "longest frame that there can be grows as well",
        {1: access(10), 2: trunk("10"), 3: trunk("10", tpid=STAG)},
        plain(65_535),
        {2: tagged(plain(65_535), 10), 3: s_tagged(plain(65_535), 10)},
        max_frame=65_535,
    ),
    VlanCase(
        "shortest frame without a tag",
        {1: access(10), 2: trunk("10")},
        plain(14),
        {2: tagged(plain(14), 10)},
    ),
    VlanCase(
        "shortest frame with a tag",
        {1: trunk("10"), 2: access(10), 3: trunk("10")},
        tagged(plain(14), 10),
        {2: plain(14), 3: tagged(plain(14), 10)},
    ),
    *(
        VlanCase(
            f"frame of {size} bytes that begins a tag",
            {1: trunk("10", 20), 2: trunk("10", 20)},
            tagged(plain(14), 10)[:size],
            DropReason.RUNT,
        )
        for size in (14, 15, 16, 17)
    ),
    *(
        VlanCase(
            f"frame of {size} bytes that begins a tag crosses transparent ports",
            {1: None, 2: None},
            tagged(plain(14), 10)[:size],
            {2: tagged(plain(14), 10)[:size]},
        )
        for size in (14, 17)
    ),
    VlanCase(
        "frame of 14 bytes that begins another tag",
        {1: access(10), 2: access(10)},
        s_tagged(plain(14), 10)[:14],
        {2: s_tagged(plain(14), 10)[:14]},
    ),
]
