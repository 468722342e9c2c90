"""What every engine does; the Python engine defines it, others must be equal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from umlab.switch.bpf import Program
from umlab.switch.core import Punt
from umlab.switch.counters import PortCounters, SwitchCounters
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MIN_FRAME, Link, SwitchConfig

#: The longest snap length: every frame whole.
MAX_SNAP_LENGTH = 65_535
#: Bytes of a capture's memory: room for the longest block at least.
MIN_CAPTURE, MAX_CAPTURE = 1 << 17, 1 << 30
#: Captures of one engine at once.
MAX_CAPTURES = 8


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


@dataclass(frozen=True, slots=True)
class CaptureOrder:
    """What a capture is to keep.

    Attributes:
        ports: Port numbers; ``None`` for all, also those that come later.
        snap_length: Bytes of a frame that are kept at most.
        program: What decides which frames are kept, by the frame as it came or is sent; ``None`` for all.
        capacity: Bytes of memory for what has not been read.
        overwrite: What is oldest makes room for what is new; otherwise what is new is lost, and counted.
        epoch_offset_ns: What is added to the engine's clock to make nanoseconds since 1970.

    Raises:
        ValueError: A number is out of its bounds.
    """

    ports: frozenset[int] | None = None
    snap_length: int = MAX_SNAP_LENGTH
    program: Program | None = None
    capacity: int = 16 << 20
    overwrite: bool = False
    epoch_offset_ns: int = 0

    def __post_init__(self) -> None:
        if not MIN_FRAME <= self.snap_length <= MAX_SNAP_LENGTH:
            raise ValueError(f"snap_length must be between {MIN_FRAME} and {MAX_SNAP_LENGTH}")
        if not MIN_CAPTURE <= self.capacity <= MAX_CAPTURE:
            raise ValueError(f"the memory of a capture must be between {MIN_CAPTURE} and {MAX_CAPTURE} bytes")
        if not 0 <= self.epoch_offset_ns < 1 << 63:
            raise ValueError("epoch_offset_ns has 63 bits")


@dataclass(frozen=True, slots=True)
class CaptureCount:
    """What a capture has done with the frames of one port, both directions and drops together.

    Attributes:
        seen: Frames that the port's counters count, drops included, since the capture began.
        accepted: Those that the program has accepted.
        lost: Those of the accepted that found no memory.  With ``overwrite`` none is lost.
    """

    seen: int = 0
    accepted: int = 0
    lost: int = 0


class Capture(Protocol):
    """Frames of some ports as blocks of pcapng, from ``Engine.capture`` to ``close``.

    ``read`` and ``lend`` may be called from one thread while control goes on in another.  Every frame that a
    counter of a port counts is seen once, at the moment when it is counted: as it came (inbound), as it was
    sent (outbound), or dropped, with the reason; so what is kept and lost adds up to the port's counters.

    Blocks are Enhanced Packet Blocks as ``umlab.wire.pcapng.serialize_packet`` writes them.  Their interface
    is the place of the port's number in ``interfaces``.  A frame that is too long is what was read of it,
    ``max_frame`` + 1 bytes; one without the header that its link has is the whole message.
    """

    def interfaces(self) -> list[int]:
        """Return the port numbers in the order of their interface numbers; it only grows.

        Ports that are attached when the capture begins come first, in port order, then others as they are
        attached.  A number keeps its place whatever is plugged in there.
        """

    def ready_fd(self) -> int:
        """Return a descriptor that is readable while a quarter of the memory is used, and after ``close``.

        It is open as long as there is the capture: keep a reference while you wait for it.
        """

    def read(self, most: int) -> bytes:
        """Take the oldest whole blocks, of ``most`` bytes together, or one if it alone is larger.

        Every interface that they name is in ``interfaces`` by then.  Nothing when there is nothing.
        """

    def lend(self, most: int) -> AbstractContextManager[memoryview]:
        """Have what `read` takes without a copy, or the first part of it.

        Returns:
            A context, which yields the blocks; they are there until it ends, and may take room until then.
            Nothing else reads meanwhile.
        """

    def copy(self) -> bytes:
        """Return all blocks that are held, oldest first, and leave them there."""

    def counts(self) -> dict[int, CaptureCount]:
        """Return the counts of each port in ``interfaces``, by number."""

    def close(self) -> None:
        """Keep no more; what is held may still be read.  A second call does nothing."""


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

    def take_punts(self) -> list[Punt]:
        """Return the frames for the control protocols since the last call, oldest first.

        ``event_fd`` becomes readable for them as for events, and quiet by ``take_events``: call that first.
        """

    def send(self, port_no: int, frame: bytes) -> None:
        """Send a frame of our own out of a port; it waits in the port's queue like others.

        Raises:
            NoSuchPort: Nothing is attached there.
            ValueError: It has fewer than ``MIN_FRAME`` bytes, or more than ``PUNT_SIZE``.
        """

    def capture(self, order: CaptureOrder) -> Capture:
        """Begin to keep frames.

        Raises:
            StateError: The engine does not run, or ``MAX_CAPTURES`` captures are open.
            SwitchError: There is no descriptor left for it.
            MemoryError: There is no memory for it.
        """

    def debug_counts(self) -> dict[str, int]:
        """Return what is held right now, all 0 after ``stop``.

        The keys are ``ports``, ``descriptors``, ``threads``, ``queued_frames`` and ``captures``.
        """
