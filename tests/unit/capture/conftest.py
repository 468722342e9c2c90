"""A capture whose frames the test makes up."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from umlab.capture.section import Subject
from umlab.engine._pycapture import PyCapture
from umlab.engine.contract import MIN_CAPTURE, CaptureOrder
from umlab.switch.bpf import parse_ddd
from umlab.wire.pcapng import INBOUND

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


class Source:
    """The Python engine's capture of ports 1 and 2, without an engine.

    Attributes:
        capture: What a session reads.
        subject: What it says of itself.
        now_ns: The time.
        closes: How often the capture was closed.
    """

    def __init__(self, *, filtered: bool = False, overwrite: bool = False) -> None:
        self.now_ns = NOW
        self.closes = 0
        # Accepts what begins with a byte that is not 0.
        program = parse_ddd("4\n48 0 0 0\n21 0 1 0\n6 0 0 0\n6 0 0 262144") if filtered else None
        order = CaptureOrder(program=program, capacity=MIN_CAPTURE, overwrite=overwrite)
        self.capture = PyCapture(order, self._forget)
        for port_no in (1, 2):
            self.capture.admit(port_no)
        self.subject = Subject("lan", "", 65_535, lambda port_no: f"guest {port_no}", lambda: self.now_ns)

    def send(
        self, count: int = 1, port_no: int = 1, size: int = 1000, first: int = 0, drop: str = ""
    ) -> None:
        """Have frames of a port happen; each has its number in front."""
        for number in range(first, first + count):
            frame = struct.pack(">I", number).ljust(size, b"\0")
            self.capture.note(port_no, frame, self.now_ns, INBOUND, drop)

    def release(self) -> None:
        """Let go of the capture, whose descriptor is open as long as anybody has it."""
        del self.capture

    def _forget(self, _capture: PyCapture) -> None:
        self.closes += 1


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.release()
