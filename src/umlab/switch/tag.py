"""Which VLAN a frame is of, and with what tag it leaves."""

from __future__ import annotations

from dataclasses import dataclass

from umlab.switch.counters import DropReason
from umlab.switch.vlan import (
    MIN_TAGGED,
    PortVlan,
    put_tag,
    tag_of,
    vid_of,
    with_vid,
    without_tag,
)


@dataclass(frozen=True, slots=True)
class Tagging:
    """A frame's VLAN, and the tag that it came with.

    Attributes:
        vid: The VLAN, 0 on a transparent port.
        tpid: What its tag begins with; 0 if it came without.
        tci: Its tag's; 0 if it came without.
    """

    vid: int
    tpid: int = 0
    tci: int = 0

    def form(self, frame: bytes, vlan: PortVlan) -> bytes:
        """Return a frame of this tagging as it leaves from a port that is a member of its VLAN.

        The very same object if nothing is changed.  A tag that is put in has the priority of the one that
        came, 0 if none did.
        """
        if self.vid not in vlan.tagged:
            return without_tag(frame) if self.tpid else frame
        tci = with_vid(self.tci, self.vid)
        if (self.tpid, self.tci) == (vlan.tpid, tci):
            return frame
        return put_tag(without_tag(frame) if self.tpid else frame, vlan.tpid, tci)


TRANSPARENT = Tagging(0)


def tagging_of(vlan: PortVlan | None, frame: bytes) -> Tagging | DropReason:
    """Return what VLAN a frame is of, or why it is dropped.

    Args:
        vlan: Of the port that it came from; ``None`` for a transparent one.
        frame: Of 14 bytes at least.

    Source: IEEE 802.1Q-2018 6.9.1 (classification), 8.6.2 (ingress filtering).
    """
    if vlan is None:
        return TRANSPARENT
    if frame[12:14] == vlan.tpid.to_bytes(2, "big") and len(frame) < MIN_TAGGED:
        return DropReason.RUNT
    tci = tag_of(frame, vlan.tpid)
    if tci is not None and vid_of(tci):
        vid = vid_of(tci)
        return Tagging(vid, vlan.tpid, tci) if vid in vlan.admitted else DropReason.VLAN
    if vlan.pvid is None:
        return DropReason.VLAN
    return Tagging(vlan.pvid) if tci is None else Tagging(vlan.pvid, vlan.tpid, tci)


def is_admitted(vlan: PortVlan | None, vid: int) -> bool:
    """Tell whether frames of a VLAN leave from a port, or for VID 0, those of the transparent ports."""
    return not vid if vlan is None else vid in vlan.members
