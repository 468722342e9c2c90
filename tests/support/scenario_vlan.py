"""What scenarios with VLANs are made of: settings of ports, mirror sessions, tags."""

from __future__ import annotations

import random
from collections.abc import Iterable

from umlab.switch.core import LLDP_TYPE
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy
from umlab.switch.vlan import CTAG, MAX_VID, STAG, PortVlan, VidSet

#: The VLANs that ports are members of.
VIDS = (1, 2, 77, MAX_VID)
#: What frames are tagged with beside those: no VLAN, a VLAN of nobody, and what no VLAN can have.
OTHER_VIDS = (0, 5, 4095)
#: Reserved addresses, and the first one that is none any more.
RESERVED = [bytes.fromhex(f"0180c20000{last:02x}") for last in (0x03, 0x0E, 0x0F, 0x10)]
_TPIDS = (CTAG, CTAG, CTAG, STAG)


def random_ports(rng: random.Random, numbers: Iterable[int]) -> dict[int, PortConfig]:
    """Return settings of ports, some of which are transparent."""
    return {
        number: PortConfig(
            None if rng.random() < 0.15 else _random_vlan(rng), rng.choice(tuple(ReservedPolicy))
        )
        for number in numbers
    }


def _random_vlan(rng: random.Random) -> PortVlan:
    tpid = rng.choice(_TPIDS)
    own = rng.choice(VIDS)
    choice = rng.random()
    if choice < 0.3:
        return PortVlan.access(own, tpid)
    if choice < 0.6:
        return PortVlan.trunk(_some(rng), rng.choice([None, own]), tpid)
    tagged = _some(rng)
    untagged = _some(rng) - tagged
    return PortVlan(rng.choice([None, *(tagged | untagged)]), tagged, untagged, tpid)


def _some(rng: random.Random) -> VidSet:
    return VidSet.of(rng.sample(VIDS, rng.randint(1, len(VIDS))))


def random_mirrors(rng: random.Random, numbers: list[int]) -> tuple[MirrorSession, ...]:
    """Return up to three sessions, mostly none; of some, nothing is plugged in at the destination."""
    count = rng.choice([0, 0, 0, 1, 2, 3])
    destinations = [rng.choice([*numbers, 999]) for _ in range(count)]
    others = sorted({*numbers} - {*destinations})
    sessions = []
    for place, destination in enumerate(destinations):
        ports = frozenset(rng.sample(others, rng.randint(0, len(others))))
        vids = VidSet() if ports and rng.random() < 0.6 else _some(rng)
        ingress, egress = rng.choice([(True, True), (True, False), (False, True)])
        sessions.append(MirrorSession(f"m{place}", destination, ports, vids, ingress, egress))
    return tuple(sessions)


def random_tags(rng: random.Random) -> bytes:
    """Return what lies between a frame's addresses and its type: up to three tags."""
    count = rng.choice([0, 0, 1, 1, 1, 1, 2, 3])
    return b"".join(_random_tag(rng) for _ in range(count))


def _random_tag(rng: random.Random) -> bytes:
    priority = rng.choice([0, rng.randrange(16)])
    vid = rng.choice([*VIDS, *VIDS, *OTHER_VIDS])
    return rng.choice(_TPIDS).to_bytes(2, "big") + (priority << 12 | vid).to_bytes(2, "big")


def random_type(rng: random.Random) -> bytes:
    """Return a frame's type, now and then that of LLDP."""
    return rng.choice([b"\x88\xb5", b"\x88\xb5", LLDP_TYPE])
