"""Fuzz target: any text is a set of VIDs or ValueError; no bytes leave the VLANs of a switch.

Run as ``python tests/fuzz/fuzz_vlan.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from umlab.switch.core import SwitchCore
    from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
    from umlab.switch.vlan import STAG, PortVlan, VidSet

_TRUNK = VidSet.parse("1-20,256-4094")
_CONFIG = SwitchConfig(
    max_frame=1518,
    ports={
        1: PortConfig(PortVlan.trunk(_TRUNK, 5), ReservedPolicy.PEER),
        2: PortConfig(PortVlan.trunk(_TRUNK)),
        3: PortConfig(PortVlan.access(5)),
        4: PortConfig(PortVlan.trunk(_TRUNK, tpid=STAG), ReservedPolicy.BRIDGE),
    },
    mirrors=(MirrorSession("m", 6, frozenset({3}), VidSet.of([7])),),
)


def fuzz_one(data: bytes) -> None:
    """Feed one input to the reader of VIDs, and to each port of a switch."""
    try:
        vids = VidSet.parse(data.decode(errors="replace"))
    except ValueError:
        pass
    else:
        assert VidSet.parse(str(vids)) == vids
    core = SwitchCore(_CONFIG)
    for _ in range(6):
        core.add_port(0)
    for port_no in core.ports():
        verdict = core.receive(port_no, data, 0)
        assert verdict.drop is None or not verdict.egress
        # Port 5 is transparent, and alone: only what is of no VLAN would come there.
        assert not {port_no, 5} & set(verdict.egress)
        assert all(len(form) >= 14 for form in verdict.changed.values())


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
