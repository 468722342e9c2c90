"""VLANs (802.1Q): sets of VIDs, what a port does with tags, and frames with and without theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

#: What a customer's tag (C-tag) and a provider's (S-tag, 802.1ad) begin with, the tag protocol identifiers.
CTAG, STAG = 0x8100, 0x88A8
#: The VIDs that a VLAN can have; 0 says "no VLAN", and 4095 is reserved.
MIN_VID, MAX_VID = 1, 4094
#: Bytes of a tag: TPID u16, and the TCI u16 of PCP 3 bits, DEI 1 bit, VID 12 bits, all big-endian.
TAG_SIZE = 4
#: Where it lies: behind the two addresses.
_TAG_AT = 12
#: Addresses, a tag, and the type behind it.
MIN_TAGGED = _TAG_AT + TAG_SIZE + 2
_VID_MASK = 0x0FFF
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def check_vid(vid: int) -> int:
    """Return a VID that a VLAN can have.

    Raises:
        ValueError: It is none.
    """
    if not MIN_VID <= vid <= MAX_VID:
        raise ValueError(f"VID {vid} is not between {MIN_VID} and {MAX_VID}")
    return vid


@dataclass(frozen=True, slots=True)
class VidSet:
    """Some VLANs; ``in``, ``|``, ``&``, ``-`` and iteration in rising order are as those of a set.

    Attributes:
        bits: Bit ``vid`` is set for each.

    Raises:
        ValueError: A VID that no VLAN can have.
    """

    bits: int = 0

    def __post_init__(self) -> None:
        if self.bits < 0 or self.bits & 1 or self.bits >> MAX_VID + 1:
            raise ValueError(f"VIDs are between {MIN_VID} and {MAX_VID}")

    @classmethod
    def of(cls, vids: Iterable[int]) -> VidSet:
        """Return a set of these; raises ValueError for one that no VLAN can have."""
        bits = 0
        for vid in vids:
            bits |= 1 << check_vid(vid)
        return cls(bits)

    @classmethod
    def parse(cls, text: str) -> VidSet:
        """Read VIDs and ranges with commas between them, such as ``10,20-29``; nothing for none.

        Raises:
            ValueError: It is none, or has a VID that no VLAN can have; names it.
        """
        bits = 0
        for part in text.split(",") if text else ():
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"{part[:40]!r} is no VID or range of VIDs, such as 10 or 20-29")
            first = check_vid(int(match[1]))
            last = check_vid(int(match[2] or match[1]))
            if last < first:
                raise ValueError(f"the range {match[0]} runs backwards")
            bits |= (1 << last + 1) - (1 << first)
        return cls(bits)

    def __str__(self) -> str:
        """Return what ``parse`` reads, ranges as long as can be."""
        parts = []
        vids = self.bits
        while vids:
            first = (vids & -vids).bit_length() - 1
            count = (~(vids >> first) & ((vids >> first) + 1)).bit_length() - 1
            last = first + count - 1
            parts.append(f"{first}" if first == last else f"{first}-{last}")
            vids &= -1 << last + 1
        return ",".join(parts)

    def __contains__(self, vid: int) -> bool:
        return bool(self.bits >> vid & 1)

    def __iter__(self) -> Iterator[int]:
        vids = self.bits
        while vids:
            lowest = vids & -vids
            yield lowest.bit_length() - 1
            vids ^= lowest

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __or__(self, other: VidSet) -> VidSet:
        return VidSet(self.bits | other.bits)

    def __and__(self, other: VidSet) -> VidSet:
        return VidSet(self.bits & other.bits)

    def __sub__(self, other: VidSet) -> VidSet:
        return VidSet(self.bits & ~other.bits)


NO_VIDS = VidSet()


@dataclass(frozen=True)
class PortVlan:
    """What a VLAN-aware port does with tags.

    A frame that comes with a tag is of the tag's VLAN, one without, or with a tag of VID 0 (a priority
    tag), of ``pvid``'s.  It leaves with a tag where its VLAN is in ``tagged``, without where it is in
    ``untagged``.  A port with no tagged VLAN is an access port: frames that come there with a tag of a
    VLAN are dropped, even of its own.

    Attributes:
        pvid: The VLAN of what comes without a tag, a member of either set; ``None`` to drop that.
        tagged: VLANs whose frames leave with a tag.
        untagged: VLANs whose frames leave without.
        tpid: What counts as a tag, and is put in front: ``CTAG``, or ``STAG`` for 802.1ad.  Another tag is
            payload like any other.

    Raises:
        ValueError: No VLAN at all, one in both sets, a ``pvid`` in neither, or another TPID.

    Source: IEEE 802.1Q-2018 6.9, 8.6.1, 8.8.
    """

    pvid: int | None = None
    tagged: VidSet = NO_VIDS
    untagged: VidSet = NO_VIDS
    tpid: int = CTAG

    def __post_init__(self) -> None:
        both = self.tagged & self.untagged
        if both:
            raise ValueError(f"VLAN {both} cannot leave both with a tag and without")
        if not self.members:
            raise ValueError("a VLAN-aware port is a member of at least one VLAN")
        if self.pvid is not None and check_vid(self.pvid) not in self.members:
            raise ValueError(
                f"the port's own VLAN {self.pvid} is neither among its tagged nor untagged VLANs"
            )
        if self.tpid not in (CTAG, STAG):
            raise ValueError(f"a tag begins with {CTAG:#06x} or {STAG:#06x}, not {self.tpid:#06x}")

    @classmethod
    def access(cls, vid: int, tpid: int = CTAG) -> PortVlan:
        """Return a port of one VLAN, whose guest knows nothing of it."""
        return cls(vid, NO_VIDS, VidSet.of([vid]), tpid)

    @classmethod
    def trunk(cls, vids: VidSet, native: int | None = None, tpid: int = CTAG) -> PortVlan:
        """Return a port of many VLANs with tags, and of a ``native`` one without."""
        if native is None:
            return cls(None, vids, NO_VIDS, tpid)
        own = VidSet.of([native])
        return cls(native, vids - own, own, tpid)

    @cached_property
    def members(self) -> VidSet:
        """All VLANs that frames leave from here."""
        return self.tagged | self.untagged

    @property
    def admitted(self) -> VidSet:
        """The VLANs whose frames may come with a tag."""
        return self.members if self.tagged else NO_VIDS

    @property
    def mode(self) -> str:
        """``access``, ``trunk`` (at most one VLAN without a tag, the port's own) or ``hybrid``."""
        own = NO_VIDS if self.pvid is None else VidSet.of([self.pvid])
        if not self.tagged:
            return "access" if self.untagged == own else "hybrid"
        return "trunk" if not self.untagged - own else "hybrid"


def tag_of(frame: bytes, tpid: int) -> int | None:
    """Return the TCI of a frame's outer tag, ``None`` if it has none of this TPID.

    Args:
        frame: Of 14 bytes at least.
        tpid: What counts as a tag.
    """
    if len(frame) < _TAG_AT + TAG_SIZE or frame[_TAG_AT : _TAG_AT + 2] != tpid.to_bytes(2, "big"):
        return None
    return int.from_bytes(frame[_TAG_AT + 2 : _TAG_AT + TAG_SIZE], "big")


def vid_of(tci: int) -> int:
    """Return the VID of a tag."""
    return tci & _VID_MASK


def with_vid(tci: int, vid: int) -> int:
    """Return the TCI with another VID, of the same priority."""
    return tci & ~_VID_MASK | vid


def without_tag(frame: bytes) -> bytes:
    """Take out the outer tag."""
    return frame[:_TAG_AT] + frame[_TAG_AT + TAG_SIZE :]


def put_tag(frame: bytes, tpid: int, tci: int) -> bytes:
    """Put a tag into a frame, in front of those that it may have."""
    return frame[:_TAG_AT] + tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") + frame[_TAG_AT:]
