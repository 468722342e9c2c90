"""Counters of ports and switches, and the closed list of reasons for which a frame is dropped."""

from __future__ import annotations

import enum
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
    #: The egress queue was full (egress).
    TAIL = "tail"
    #: The guest's socket is gone though its lease still stands (egress).
    PEER_GONE = "peer_gone"
    #: The guest's socket refused the frame for another reason, such as its size (egress).
    REFUSED = "refused"


@dataclass(slots=True)
class PortCounters:
    """Frames and bytes of one port, ingress (rx) and egress (tx) as the switch sees them.

    ``rx_*`` counts frames that were accepted from the guest, ``tx_*`` frames that its socket took.
    A dropped frame is in ``drops`` only.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    tx_frames: int = 0
    tx_bytes: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)

    def count_drop(self, reason: DropReason) -> None:
        """Add one dropped frame."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def copy(self) -> PortCounters:
        """Return the present values."""
        return PortCounters(self.rx_frames, self.rx_bytes, self.tx_frames, self.tx_bytes, dict(self.drops))


@dataclass(slots=True)
class SwitchCounters:
    """What belongs to a switch and to no port of it.

    Attributes:
        learned: Addresses learnt, moves not included.
        moved: Station moves.
        aged: Addresses forgotten for age.
        learn_refused: Frames whose source was not learnt because the FDB was full.
        unknown_sender: Frames on a shared socket from an address that never attached; not forwarded.
    """

    learned: int = 0
    moved: int = 0
    aged: int = 0
    learn_refused: int = 0
    unknown_sender: int = 0

    def copy(self) -> SwitchCounters:
        """Return the present values."""
        return replace(self)
