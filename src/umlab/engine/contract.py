"""What every engine does; the Python engine defines it, others must be equal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from umlab.switch.counters import PortCounters, SwitchCounters
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import Link, SwitchConfig


@dataclass(frozen=True, slots=True)
class SwitchSnapshot:
    """A copy of a switch's counters.

    Each is whole, and counts every frame that any guest had received when the copy was asked for.  While
    frames move, the counters of different ports may lie some frames apart.

    Attributes:
        at_ns: The engine clock's reading.
        counters: Of the switch.
        ports: Counters of each port, in port order.
        queued: Frames that wait in each port's egress queue, those of a burst in progress included.
        down: Ports whose guest's end is known to be gone.
        fdb_entries: Learnt addresses, those that have just aged included.
    """

    at_ns: int
    counters: SwitchCounters
    ports: dict[int, PortCounters]
    queued: dict[int, int]
    down: frozenset[int] = frozenset()
    fdb_entries: int = 0


class Engine(Protocol):
    """One switch in motion: a thread that moves frames between attached descriptors.

    Calls come from one control thread; none of them waits for a frame.  The engine owns the
    descriptor of each attached link and closes it at ``detach`` and ``stop``.  An engine whose thread
    died of a bug raises RuntimeError from every call, and ``event_fd`` becomes readable.
    """

    #: ``py`` or ``native``.
    kind: str
    config: SwitchConfig

    def start(self, *, held: bool = False) -> None:
        """Start the thread, or with ``held`` be ready for everything and move no frame before ``release``.

        Raises:
            StateError: It was started before.
        """

    def release(self) -> None:
        """Let frames move after a start that was held."""

    def stop(self) -> None:
        """End the thread, drop every port and close every descriptor; a second call does nothing.

        ``event_fd`` is closed too, so stop watching it before; the events that wait are still to be taken.
        """

    def configure(self, config: SwitchConfig) -> None:
        """Be told something else; no port goes down and no queue is emptied.

        Raises:
            StateError: The engine does not run.
            ValueError: ``first_port_no`` differs, which only a new switch can have.
        """

    def attach(self, link: Link, port_no: int | None = None) -> int:
        """Serve a link as a new port and return its number, the lowest free one unless it is given.

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

    def restore_fdb(self, entries: Iterable[FdbEntry]) -> None:
        """Learn what another engine's ``fdb`` returned, where ports are there and entries alive."""

    def flush_fdb(self, port_no: int | None = None) -> int:
        """Forget every learnt address, or those of one port, and return how many there were.

        Raises:
            NoSuchPort: Nothing is attached there.
        """

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
