"""The filtering database: which port a station was last seen on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One learnt address.

    Attributes:
        mac: 6 bytes.
        port_no: The port it was last seen on.
        last_seen_ns: When that was, on the engine's clock.
    """

    mac: bytes
    port_no: int
    last_seen_ns: int
