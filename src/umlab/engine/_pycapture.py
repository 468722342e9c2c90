"""The Python engine's captures: blocks of pcapng that wait, bounded by their bytes, until they are read."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from umlab.engine.contract import MAX_CAPTURES, CaptureCount, CaptureOrder
from umlab.errors import StateError, SwitchError
from umlab.switch.bpf import run
from umlab.switch.counters import DropReason
from umlab.wire.pcapng import serialize_packet


@dataclass(slots=True)
class _Tally:
    """What became of one port's frames; ``unsaid`` of ``lost`` are not yet in a block."""

    interface: int
    seen: int = 0
    accepted: int = 0
    lost: int = 0
    unsaid: int = 0


class PyCapture:
    """Frames of some ports; see ``umlab.engine.contract.Capture`` for the calls.

    The engine notes frames while it holds its own lock, and takes ``_lock`` after that; a reader takes
    ``_lock`` alone, which guards everything below it.

    Args:
        order: What is to be kept.
        forget: Makes the engine note nothing here any more.

    Raises:
        SwitchError: There is no descriptor left for it.
    """

    def __init__(self, order: CaptureOrder, forget: Callable[[PyCapture], None]) -> None:
        self._order = order
        self._forget = forget
        try:
            self._ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise SwitchError(f"there is no descriptor for a capture: {error}") from error
        # Whoever waits for it refers to the capture: nobody is left who does.
        weakref.finalize(self, os.close, self._ready_fd)
        self._lock = threading.Lock()
        self._blocks: deque[bytes] = deque()
        self._used = 0
        self._tallies: dict[int, _Tally] = {}
        self._closed = False
        self._is_ready = False

    def interfaces(self) -> list[int]:
        """Return the port numbers in the order of their interface numbers; it only grows."""
        with self._lock:
            return list(self._tallies)

    def ready_fd(self) -> int:
        """Return a descriptor that is readable while a quarter of the memory is used, and after ``close``."""
        return self._ready_fd

    def read(self, most: int) -> bytes:
        """Take the oldest whole blocks, of ``most`` bytes together, or one if it alone is larger."""
        with self._lock:
            taken: list[bytes] = []
            size = 0
            while self._blocks and (not taken or size + len(self._blocks[0]) <= most):
                taken.append(self._take())
                size += len(taken[-1])
            self._tell()
            return b"".join(taken)

    @contextlib.contextmanager
    def lend(self, most: int) -> Iterator[memoryview]:
        """Have what `read` takes, in a context."""
        yield memoryview(self.read(most))

    def copy(self) -> bytes:
        """Return all blocks that are held, oldest first, and leave them there."""
        with self._lock:
            return b"".join(self._blocks)

    def counts(self) -> dict[int, CaptureCount]:
        """Return the counts of each port in ``interfaces``, by number."""
        with self._lock:
            return {
                port_no: CaptureCount(tally.seen, tally.accepted, tally.lost)
                for port_no, tally in self._tallies.items()
            }

    def close(self) -> None:
        """Keep no more; what is held may still be read.  A second call does nothing."""
        self._forget(self)
        self.end()

    def end(self) -> None:
        """Be told that nothing will be noted any more."""
        with self._lock:
            self._closed = True
            self._tell()

    def admit(self, port_no: int) -> None:
        """Have an interface for a port that is there from now on, if its frames are to be kept."""
        if self._order.ports is None or port_no in self._order.ports:
            with self._lock:
                self._tallies.setdefault(port_no, _Tally(len(self._tallies)))

    def note(self, port_no: int, frame: bytes, at_ns: int, direction: int, drop: str) -> None:
        """Count a frame, and keep it if it is to be kept."""
        tally = self._tallies.get(port_no)
        if tally is None:
            return
        order = self._order
        # An empty frame is kept as well, of which no byte can be.
        kept = order.snap_length if order.program is None else run(order.program, frame)
        with self._lock:
            tally.seen += 1
            if not kept:
                return
            tally.accepted += 1
            block = serialize_packet(
                tally.interface,
                at_ns + order.epoch_offset_ns,
                frame[: min(kept, order.snap_length)],
                len(frame),
                direction,
                drop,
                tally.unsaid,
            )
            while order.overwrite and self._used + len(block) > order.capacity:
                self._take()
            if self._used + len(block) > order.capacity:
                tally.lost += 1
                tally.unsaid += 1
                return
            tally.unsaid = 0
            self._blocks.append(block)
            self._used += len(block)
            self._tell()

    def _take(self) -> bytes:
        block = self._blocks.popleft()
        self._used -= len(block)
        return block

    def _tell(self) -> None:
        """Make the descriptor readable, or quiet, if it is not."""
        is_ready = self._closed or self._used * 4 >= self._order.capacity
        if is_ready and not self._is_ready:
            os.eventfd_write(self._ready_fd, 1)
        elif self._is_ready and not is_ready:
            os.eventfd_read(self._ready_fd)
        self._is_ready = is_ready


class OpenCaptures:
    """The captures of one engine; guarded by the engine's lock.

    Attributes:
        all: Those that are open; while there is none, nothing need be noted.
    """

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: tuple[PyCapture, ...] = ()

    def open(
        self, order: CaptureOrder, ports: Iterable[int], forget: Callable[[PyCapture], None]
    ) -> PyCapture:
        """Begin one.

        Args:
            order: What is to be kept.
            ports: Those that are there, in their order.
            forget: Calls ``forget`` with the lock held.

        Raises:
            StateError: As many are open as may.
            SwitchError: There is no descriptor left for it.
        """
        if len(self.all) >= MAX_CAPTURES:
            raise StateError(f"{MAX_CAPTURES} captures are open already")
        capture = PyCapture(order, forget)
        for port_no in ports:
            capture.admit(port_no)
        self.all = (*self.all, capture)
        return capture

    def forget(self, capture: PyCapture) -> None:
        """Note nothing in a capture any more."""
        self.all = tuple(each for each in self.all if each is not capture)

    def end(self) -> None:
        """End all of them, with the engine."""
        for capture in self.all:
            capture.end()
        self.all = ()

    def admit(self, port_no: int) -> None:
        """Be told of a port that is there from now on."""
        for capture in self.all:
            capture.admit(port_no)

    def note(
        self, port_no: int, frame: bytes, at_ns: int, direction: int, drop: DropReason | None = None
    ) -> None:
        """Be told of a frame that a port's counters count.

        Args:
            port_no: Of the port.
            frame: As it came, or as it was to be sent.
            at_ns: The engine clock's reading.
            direction: ``INBOUND`` or ``OUTBOUND``.
            drop: Why it went no further, ``None`` if it did.
        """
        for capture in self.all:
            capture.note(port_no, frame, at_ns, direction, "" if drop is None else drop.value)
