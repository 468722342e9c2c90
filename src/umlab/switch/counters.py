"""Counters of ports and switches, and the closed list of reasons for which a frame is dropped."""

from __future__ import annotations

import enum
from bisect import bisect_left
from dataclasses import dataclass, field, replace


class DropReason(enum.Enum):
    """Why a frame went no further; the value is the counter's name after ``drop_``."""

    #: Under 14 bytes, empty datagrams included (ingress).
    RUNT = "runt"
    #: Longer than ``max_frame`` (ingress).
    OVERSIZE = "oversize"
    #: It came without the header that its link has in front of every frame, such as with another
    #: session or cookie (ingress).
    BAD_HEADER = "bad_header"
    #: Its destination was learnt on the port it came from (ingress).
    SAME_PORT = "same_port"
    #: The port is not a member of its VLAN, takes no frame of this kind, or its VID is 4095 (ingress).
    VLAN = "vlan"
    #: It is for an address that bridges do not forward, and the port is one of a bridge (ingress).
    RESERVED = "reserved"
    #: It came from a port that a mirror session copies to (ingress).
    MIRROR = "mirror"
    #: The egress queue was full (egress).
    TAIL = "tail"
    #: The guest's socket is gone though its lease still stands (egress).
    PEER_GONE = "peer_gone"
    #: The guest's socket refused the frame for another reason, such as its size (egress).
    REFUSED = "refused"


#: The longest frame of each size bucket but the last, in bytes without FCS; those of RMON (RFC 2819).
SIZE_BUCKETS = (64, 127, 255, 511, 1023, 1518)


def size_bucket(size: int) -> int:
    """Return the number of the bucket that counts a frame of so many bytes."""
    return bisect_left(SIZE_BUCKETS, size)


def _no_sizes() -> list[int]:
    return [0] * (len(SIZE_BUCKETS) + 1)


@dataclass(slots=True)
class PortCounters:
    """Frames and bytes of one port, ingress (rx) and egress (tx) as the switch sees them.

    ``rx_*`` counts frames that were accepted from the guest, ``tx_*`` frames that its socket took.
    A dropped frame is in ``drops`` only.  ``rx_sizes`` and ``tx_sizes`` count the same frames by size, one
    for each bucket of ``SIZE_BUCKETS`` and one for longer ones.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    tx_frames: int = 0
    tx_bytes: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)
    # Which sizes they had says nothing of whether two ports have carried the same.
    rx_sizes: list[int] = field(default_factory=_no_sizes, compare=False)
    tx_sizes: list[int] = field(default_factory=_no_sizes, compare=False)

    def count_rx(self, size: int) -> None:
        """Add one accepted frame of so many bytes."""
        self.rx_frames += 1
        self.rx_bytes += size
        self.rx_sizes[size_bucket(size)] += 1

    def count_tx(self, size: int) -> None:
        """Add one sent frame of so many bytes."""
        self.tx_frames += 1
        self.tx_bytes += size
        self.tx_sizes[size_bucket(size)] += 1

    def count_drop(self, reason: DropReason) -> None:
        """Add one dropped frame."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def copy(self) -> PortCounters:
        """Return the present values."""
        return PortCounters(
            self.rx_frames,
            self.rx_bytes,
            self.tx_frames,
            self.tx_bytes,
            dict(self.drops),
            list(self.rx_sizes),
            list(self.tx_sizes),
        )


@dataclass(slots=True)
class SwitchCounters:
    """What belongs to a switch and to no port of it.

    Attributes:
        learned: Addresses learnt, moves not included.
        moved: Station moves.
        aged: Addresses forgotten for age.
        learn_refused: Frames whose source was not learnt because the FDB was full.
        unknown_sender: Frames on a shared socket from an address that never attached; not forwarded.
        punted: Frames handed to the control protocols,
        punt_lost: and those that were not because as many waited already as may.
    """

    learned: int = 0
    moved: int = 0
    aged: int = 0
    learn_refused: int = 0
    unknown_sender: int = 0
    punted: int = 0
    punt_lost: int = 0

    def copy(self) -> SwitchCounters:
        """Return the present values."""
        return replace(self)
