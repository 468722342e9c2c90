"""What every engine does; the Python engine defines it, others must be equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from umlab.switch.counters import PortCounters, SwitchCounters
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import Link, SwitchConfig


@dataclass(frozen=True, slots=True)
class SwitchSnapshot:
    """A consistent copy of a switch at one instant.

    Attributes:
        at_ns: The engine clock's reading.
        counters: Of the switch.
        ports: Counters of each port, in port order.
        queued: Frames that wait in each port's egress queue.
    """

    at_ns: int
    counters: SwitchCounters
    ports: dict[int, PortCounters]
    queued: dict[int, int]


class Engine(Protocol):
    """One switch in motion: a thread that moves frames between attached descriptors.

    Calls come from one control thread; none of them waits for a frame.  The engine owns the
    descriptor of each attached link and closes it at ``detach`` and ``stop``.  An engine whose thread
    died of a bug raises RuntimeError from every call, and ``event_fd`` becomes readable.
    """

    #: ``py`` or ``native``.
    kind: str
    config: SwitchConfig

    def start(self) -> None:
        """Start the thread.  Raises StateError if it was started before."""

    def stop(self) -> None:
        """End the thread, drop every port and close every descriptor; a second call does nothing.

        ``event_fd`` is closed too, so stop watching it before; the events that wait are still to be taken.
        """

    def attach(self, link: Link) -> int:
        """Serve a link as a new port and return its number, the lowest free one.

        Frames flow from here on.  On any error the link's descriptor is still the caller's.

        Raises:
            StateError: The engine does not run.
            SwitchError: The descriptor cannot be served.
        """

    def detach(self, port_no: int) -> None:
        """Drop a port, its queue, its descriptor and every address learnt on it.

        Raises:
            NoSuchPort: Nothing is attached there.
        """

    def fdb(self) -> list[FdbEntry]:
        """Return the learnt addresses that have not aged, oldest first."""

    def snapshot(self) -> SwitchSnapshot:
        """Return a copy of all counters and queue lengths."""

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events wait; it belongs to the engine.

        Raises:
            StateError: The engine does not run.
        """

    def take_events(self) -> list[Event]:
        """Return the events since the last call, oldest first, and make ``event_fd`` quiet."""

    def debug_counts(self) -> dict[str, int]:
        """Return what is held right now, all 0 after ``stop``.

        The keys are ``ports``, ``descriptors``, ``threads`` and ``queued_frames``.
        """
