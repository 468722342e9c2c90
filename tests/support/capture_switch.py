"""A switch without an engine's thread, whose captures see the frames that a test makes up."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

from umlab._clock import MonotonicClock
from umlab.capture.recorder import FlightRecorder
from umlab.engine._pycapture import OpenCaptures, PyCapture
from umlab.engine.contract import MIN_CAPTURE, CaptureOrder
from umlab.errors import NoSuchSwitch, StateError
from umlab.switch.counters import DropReason
from umlab.wire.pcapng import INBOUND


class CaptureSwitch:
    """What captures need of a switch and of its engine.

    Args:
        ports: Numbers of the ports that are there.
        capacity: Bytes of memory of a capture, whatever is asked for.

    Attributes:
        clock: The engine's.
        before_stop: What is called when the switch ends.
        recorder: The newest frames; ``None`` where the test has taken it away.
        open: How many captures are open, the recorder included.
    """

    def __init__(self, ports: tuple[int, ...] = (1, 2), capacity: int = MIN_CAPTURE) -> None:
        self.clock = MonotonicClock()
        self.engine = self
        self.before_stop: list[Callable[[], None]] = []
        self.ports = ports
        self._capacity = capacity
        self._captures = OpenCaptures()
        self.recorder: FlightRecorder | None = FlightRecorder(self, MIN_CAPTURE, self.clock)  # type: ignore[arg-type]

    @property
    def open(self) -> int:
        """How many captures are open."""
        return len(self._captures.all)

    def session(self, port_no: int) -> object | None:
        """Return what is plugged in."""
        return self if port_no in self.ports else None

    def capture(self, order: CaptureOrder) -> PyCapture:
        """Begin a capture.  Raises StateError."""
        object.__setattr__(order, "capacity", self._capacity)
        return self._captures.open(order, self.ports, self._captures.forget)

    def send(
        self, count: int = 1, port_no: int = 1, size: int = 1000, drop: DropReason | None = None
    ) -> None:
        """Have frames of a port happen, each with its number in front."""
        for number in range(count):
            frame = struct.pack(">I", number).ljust(size, b"\0")
            self._captures.note(port_no, frame, self.clock.now_ns(), INBOUND, drop)

    def end(self) -> None:
        """End, as a switch does."""
        for each in [*self.before_stop]:
            each()
        self._captures.end()


class CaptureSwitches:
    """Such switches by name."""

    def __init__(self, **switches: CaptureSwitch) -> None:
        self.by_name = switches

    def service(self, name: str) -> CaptureSwitch:
        """Return a switch.  Raises NoSuchSwitch."""
        with contextlib.suppress(KeyError):
            return self.by_name[name]
        raise NoSuchSwitch(name)

    def recorder(self, name: str) -> FlightRecorder:
        """Return its recorder.  Raises NoSuchSwitch, StateError."""
        recorder = self.service(name).recorder
        if recorder is None:
            raise StateError(f"switch {name} has no flight recorder")
        return recorder

    def describe(self, _switch: CaptureSwitch, port_no: int) -> str:
        """Return what is plugged in at a port."""
        return f"daemon, guest g{port_no}"
