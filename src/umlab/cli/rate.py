"""How fast things go in running labs: two looks at what was counted, by the time between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from umlab.capture.talkers import Talkers
from umlab.daemon.view import GuestView, GuestVitals, PortView, SwitchView

_TICKS = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat behind the command's name: utime, stime, cutime, cstime.
_TIMES = slice(11, 15)


@dataclass(frozen=True, slots=True)
class LabLook:
    """One look at a lab.

    Attributes:
        at: When, seconds on any clock that does not jump.
        switches: Its switches.
        ports: By switch.
        talkers: By switch, where there is a flight recorder.
        guests: Its guests.
        cpu: Seconds of processor time that each guest has used.
        vitals: By guest, what its kernel tells, where that came in time.
    """

    at: float
    switches: tuple[SwitchView, ...] = ()
    ports: Mapping[str, list[PortView]] = field(default_factory=dict)
    talkers: Mapping[str, Talkers] = field(default_factory=dict)
    guests: tuple[GuestView, ...] = ()
    cpu: Mapping[str, float] = field(default_factory=dict)
    vitals: Mapping[str, GuestVitals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast something goes, per second, as the switch sees it; ``None`` where that is not known yet.

    Attributes:
        rx_frames: Frames from guests that were accepted.
        rx_bits: Their bits.
        tx_frames: Frames that guests have taken.
        tx_bits: Their bits.
        drops: Dropped frames.
    """

    rx_frames: float | None = None
    rx_bits: float | None = None
    tx_frames: float | None = None
    tx_bits: float | None = None
    drops: float | None = None

    def __add__(self, other: Rate) -> Rate:
        """Return both together; what is not known of one is not known of both."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in self.__slots__]
        return Rate(*(None if a is None or b is None else a + b for a, b in pairs))


_NOTHING = Rate(0, 0, 0, 0, 0)


def port_rates(before: LabLook | None, after: LabLook, switch: str) -> dict[int, Rate]:
    """Return the rates of the ports of a switch, by number.

    A port that has come since the first look has counted from 0 since then, and so has one whose counters are
    lower than they were: another guest is plugged in.
    """
    ports = after.ports[switch]
    if before is None or switch not in before.ports or after.at <= before.at:
        return dict.fromkeys((port.port_no for port in ports), Rate())
    span = after.at - before.at
    earlier = {port.port_no: _counted(port) for port in before.ports[switch]}
    rates = {}
    for port in ports:
        now = _counted(port)
        then = earlier.get(port.port_no, (0,) * len(now))
        if any(new < old for new, old in zip(now, then, strict=True)):
            then = (0,) * len(now)
        frames_in, bytes_in, frames_out, bytes_out, drops = (
            (new - old) / span for new, old in zip(now, then, strict=True)
        )
        rates[port.port_no] = Rate(frames_in, bytes_in * 8, frames_out, bytes_out * 8, drops)
    return rates


def total(rates: Mapping[int, Rate]) -> Rate:
    """Return the rate of a switch."""
    return sum(rates.values(), _NOTHING)


def guest_rate(before: LabLook | None, after: LabLook, guest: str) -> Rate:
    """Return the rate of all ports that a guest is behind; nothing is known of one that has none."""
    rates = [
        port_rates(before, after, switch)[port.port_no]
        for switch, ports in after.ports.items()
        for port in ports
        if port.guest == guest
    ]
    return sum(rates, _NOTHING) if rates else Rate()


def cpu_share(before: LabLook | None, after: LabLook, guest: str) -> float | None:
    """Return how many processors a guest has kept busy, ``None`` where that is not known."""
    if before is None or guest not in before.cpu or guest not in after.cpu or after.at <= before.at:
        return None
    # The time of a process that has just ended is for an instant nobody's.
    return max(0.0, (after.cpu[guest] - before.cpu[guest]) / (after.at - before.at))


def cpu_seconds(pid: int, read: Callable[[str], str] | None = None) -> float | None:
    """Return the processor time of a guest: its kernel's process, and those that its programs run in.

    Args:
        pid: The kernel's process, whose children the others are.
        read: Returns the text of a file below ``/proc``; raises OSError.

    Returns:
        ``None`` where there is no such process.

    Source: proc(5).
    """
    read = read or _read
    try:
        ticks = sum(_ticks(read(f"{pid}/stat")))
        children = read(f"{pid}/task/{pid}/children").split()
    except OSError:
        return None
    for child in children:
        try:
            # Without children that it has waited for: it has none.
            ticks += sum(_ticks(read(f"{child}/stat"))[:2])
        except OSError:
            continue
    return ticks / _TICKS


def _read(name: str) -> str:
    with open(f"/proc/{name}", encoding="ascii", errors="replace") as file:
        return file.read()


def _ticks(stat: str) -> list[int]:
    # The command's name is in parentheses and may have any.
    return [int(word) for word in stat.rpartition(")")[2].split()[_TIMES]]


def _counted(port: PortView) -> tuple[int, ...]:
    counters: Mapping[str, Any] = port.counters
    drops = sum(count for name, count in counters.items() if name.startswith("drop_"))
    return (*(counters[name] for name in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes")), drops)
