"""What a switch reports beside forwarding: one frozen value for each kind of event."""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class StationMoved:
    """A learnt address sent from another port."""

    at_ns: int
    mac: bytes
    port_no: int
    old_port_no: int


@dataclass(frozen=True, slots=True)
class MacAged:
    """A learnt address was not seen for the ageing time and is forgotten."""

    at_ns: int
    mac: bytes
    port_no: int


@dataclass(frozen=True, slots=True)
class UnknownUnicast:
    """A frame to an unlearnt unicast address was flooded; at most once per source and ageing time."""

    at_ns: int
    source: bytes
    destination: bytes
    port_no: int


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
