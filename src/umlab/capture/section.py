"""What a capture's pcapng has beside its packets: the section, the interfaces, their statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from umlab import __version__
from umlab.engine.contract import CaptureCount
from umlab.wire.pcapng import serialize_interface, serialize_section, serialize_statistics


@dataclass(frozen=True, slots=True)
class Subject:
    """What a capture is of.

    Attributes:
        switch: The switch's name.
        filter: The filter's text, empty for none.
        snap_length: Bytes of a frame that are kept at most.
        describe: Tells what is plugged in at a port; any thread may call it.
        epoch_ns: Tells the time, nanoseconds since 1970, by the clock that the packets have.
    """

    switch: str
    filter: str
    snap_length: int
    describe: Callable[[int], str]
    epoch_ns: Callable[[], int]

    def interface(self, port_no: int) -> bytes:
        """Return the Interface Description Block of a port."""
        name = f"{self.switch}:{port_no}"
        return serialize_interface(name, self.describe(port_no), self.snap_length, self.filter)


class Section:
    """One section of pcapng, from its beginning on.

    Args:
        subject: What is captured.
        begun_ns: When what it tells begins, nanoseconds since 1970; now unless given.

    Attributes:
        ports: Numbers of the ports that are described so far, in the order of their interfaces.
    """

    def __init__(self, subject: Subject, begun_ns: int | None = None) -> None:
        self._subject = subject
        self._begun_ns = subject.epoch_ns() if begun_ns is None else begun_ns
        self.ports: list[int] = []

    def header(self) -> bytes:
        """Return the block that begins the section."""
        return serialize_section(f"umlab {__version__}")

    def describe(self, ports: Sequence[int]) -> list[bytes]:
        """Return the blocks of interfaces that are not described yet.

        Args:
            ports: Port numbers in the order of all interfaces, those included that are.
        """
        new = ports[len(self.ports) :]
        self.ports += new
        return [self._subject.interface(port_no) for port_no in new]

    def statistics(self, interface: int, count: CaptureCount) -> bytes:
        """Return the statistics of an interface, as of now."""
        return serialize_statistics(
            interface, self._subject.epoch_ns(), self._begun_ns, count.seen, count.accepted, count.lost
        )
