"""What a switch reports beside forwarding: one frozen value for each kind of event, and their queue.

``vid`` is the VLAN that a frame was of, 0 on transparent ports.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

#: Events about stations that wait for a reader; more are counted in ``EventsLost``.
MAX_WAITING_EVENTS = 4096


@dataclass(frozen=True, slots=True)
class PortAttached:
    """A port exists from now on."""

    at_ns: int
    port_no: int


@dataclass(frozen=True, slots=True)
class PortDetached:
    """A port is gone, and every address learnt on it."""

    at_ns: int
    port_no: int


@dataclass(frozen=True, slots=True)
class MacLearned:
    """A source address was seen for the first time, or again after it had aged."""

    at_ns: int
    mac: bytes
    port_no: int
    vid: int = 0


@dataclass(frozen=True, slots=True)
class StationMoved:
    """A learnt address sent from another port."""

    at_ns: int
    mac: bytes
    port_no: int
    old_port_no: int
    vid: int = 0


@dataclass(frozen=True, slots=True)
class MacAged:
    """A learnt address was not seen for the ageing time and is forgotten."""

    at_ns: int
    mac: bytes
    port_no: int
    vid: int = 0


@dataclass(frozen=True, slots=True)
class UnknownUnicast:
    """A frame to an unlearnt unicast address was flooded; at most once per source and ageing time."""

    at_ns: int
    source: bytes
    destination: bytes
    port_no: int
    vid: int = 0


@dataclass(frozen=True, slots=True)
class FdbFull:
    """The FDB refused an address; reported when it becomes full, not for each refusal."""

    at_ns: int
    capacity: int


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """An engine saw the end of a port's descriptor; the port stays until it is detached.

    Attributes:
        errno: 0 for an orderly end, else the error number.
    """

    at_ns: int
    port_no: int
    errno: int


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The reader was slow: ``count`` events before this one were thrown away."""

    at_ns: int
    count: int


Event = (
    PortAttached
    | PortDetached
    | MacLearned
    | StationMoved
    | MacAged
    | UnknownUnicast
    | FdbFull
    | LinkClosed
    | EventsLost
)


class EventQueue:
    """Events that wait for a reader, oldest first.

    Guests cause the events about stations, as many as they like, so those are bounded: the newest are
    thrown away and counted.  Events about ports are never lost: there are as many as the control side
    has attached and detached, and a lost ``LinkClosed`` would leave a dead port for ever.  Nor is
    ``FdbFull``, which tells of the very flood that others are lost in: between two of them an address
    must have aged or a port have gone.
    """

    __slots__ = ("_lost", "_lost_at_ns", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._lost_at_ns = 0

    def __len__(self) -> int:
        return len(self._waiting) + (self._lost > 0)

    def put_station(self, event: MacLearned | StationMoved | MacAged | UnknownUnicast) -> None:
        """Add an event about a station; it may be lost."""
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            self._lost += 1
            self._lost_at_ns = event.at_ns
            return
        self._settle()
        self._waiting.append(event)

    def put_certain(self, event: PortAttached | PortDetached | LinkClosed | FdbFull) -> None:
        """Add an event about a port, or a full FDB; it is never lost."""
        self._settle()
        self._waiting.append(event)

    def next(self) -> Event | None:
        """Take the oldest event; ``None`` when there is none."""
        if not self._waiting:
            self._settle()
        return self._waiting.popleft() if self._waiting else None

    def take(self) -> list[Event]:
        """Take all events, oldest first."""
        self._settle()
        events = list(self._waiting)
        self._waiting.clear()
        return events

    def _settle(self) -> None:
        if self._lost:
            self._waiting.append(EventsLost(self._lost_at_ns, self._lost))
            self._lost = 0
