"""What a guest's kernel says about itself, as values.

::

    guest = Mconsole.find("left")
    print(guest.read(MEMORY).available, guest.read(setting("ubd0")))

A `Reading` is a command and the parser of its answer; the parsers may be called alone.  They raise
`RemoteProtocolError` and nothing else.  Every text in a value is the guest's: it is untrusted.

Source: Linux fs/proc, arch/um/drivers (mconsole_kern.c, ubd_kern.c, line.c, chan_kern.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from umlab.errors import LocalProtocolError, MconsoleProtocolError, OversizeMessage, RemoteProtocolError
from umlab.mconsole.command import Command, config_get, proc, version

T = TypeVar("T")

__all__ = [
    "CPU_TIME",
    "INTERRUPTS",
    "LOAD_AVERAGE",
    "MEMORY",
    "UPTIME",
    "VERSION",
    "CpuTime",
    "DeviceSetting",
    "DiskSetting",
    "Interrupt",
    "Interrupts",
    "LineSetting",
    "LoadAverage",
    "Memory",
    "MemorySetting",
    "Reading",
    "Uptime",
    "Version",
    "parse_interrupts",
    "parse_loadavg",
    "parse_meminfo",
    "parse_setting",
    "parse_stat",
    "parse_uptime",
    "parse_version",
    "setting",
]

_MAX_TEXT = 65536
"""Characters of a file; no UML kernel's has so many, and a hostile guest could keep its reader busy."""
_MAX_NAME = 64
"""Characters of a name in a kernel's version (Linux include/uapi/linux/utsname.h)."""

_TICKS_PER_SECOND = 100
"""The kernel's USER_HZ, whatever its own HZ."""

# Bounded: a number that is longer is nonsense, and costs time to convert.
_WHOLE = r"[0-9]{1,20}"
_REAL = rf"{_WHOLE}\.[0-9]{{1,9}}"
_ADDRESS = re.compile(f"({_WHOLE})")
_UPTIME = re.compile(rf"({_REAL}) ({_REAL})\n?")
_LOADAVG = re.compile(rf"({_REAL}) ({_REAL}) ({_REAL}) ({_WHOLE})/({_WHOLE}) ({_WHOLE})\n?")
_AMOUNT = re.compile(rf"^(\w+): +({_WHOLE}) kB$", re.ASCII | re.MULTILINE)
_CPU = re.compile(rf"^cpu +({_WHOLE}(?: {_WHOLE}){{3,19}})$", re.MULTILINE)
_SWITCHES = re.compile(rf"^ctxt ({_WHOLE})$", re.MULTILINE)
_CPU_COLUMNS = re.compile(r"(?: +CPU[0-9]{1,5})+ *")
_INTERRUPT = re.compile(rf" *(\w{{1,20}}): *((?:{_WHOLE}(?: +|$))+)(.*)", re.ASCII)
_DEVICE = re.compile(r"(ubd|con|ssl|mem)([0-9a-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """Which kernel it is.

    Attributes:
        system: ``Linux``.
        nodename: The guest's host name, ``(none)`` until it has one.
        release: Such as ``6.1.176``.
        build: Such as ``#1 Sat Jul  4 15:38:16 UTC 2026``.
        machine: Such as ``x86_64``.
    """

    system: str
    nodename: str
    release: str
    build: str
    machine: str


@dataclass(frozen=True, slots=True)
class Uptime:
    """Since when it runs.

    Attributes:
        seconds: Since its boot.
        idle: Seconds of them in which there was nothing to do, of all processors together.
    """

    seconds: float
    idle: float


@dataclass(frozen=True, slots=True)
class LoadAverage:
    """How many tasks want to run.

    Attributes:
        one: Their number, averaged over a minute.
        five: Over five minutes.
        fifteen: Over fifteen minutes.
        running: Tasks that run or could.
        tasks: Tasks that there are, the kernel's own included.
        last_pid: The pid that was given last.
    """

    one: float
    five: float
    fifteen: float
    running: int
    tasks: int
    last_pid: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel's memory is used for, in bytes.

    Attributes:
        total: What the kernel manages: somewhat less than ``mem=`` says.
        free: Used for nothing.
        available: What programs could have without swapping.
        buffers: Cached for block devices.
        cached: Cached for files.
        swap_total: Swap space.
        swap_free: Swap space used for nothing.
    """

    total: int
    free: int
    available: int
    buffers: int
    cached: int
    swap_total: int
    swap_free: int


@dataclass(frozen=True, slots=True)
class CpuTime:
    """What all processors together have done since the boot, in seconds.

    Attributes:
        user: Programs.
        nice: Programs of low priority.
        system: The kernel.
        idle: Nothing.
        waiting: Nothing, while some task waited for a disk.
        stolen: Nothing, because the machine below had other things to do.
        switches: How often they went on with another task since then; ``None`` where that is not told.
    """

    user: float
    nice: float
    system: float
    idle: float
    waiting: float
    stolen: float
    switches: int | None = None

    @property
    def busy(self) -> float:
        """Seconds of work."""
        return self.user + self.nice + self.system


@dataclass(frozen=True, slots=True)
class Interrupt:
    """One line of interrupts.

    Attributes:
        number: As the kernel names it: a number, or letters for its own kinds.
        count: How often it came, to all processors together.
        source: What follows, such as ``SIGIO mconsole``.
    """

    number: str
    count: int
    source: str


@dataclass(frozen=True, slots=True)
class Interrupts:
    """Every interrupt since the boot.

    Attributes:
        lines: In the kernel's order.
    """

    lines: tuple[Interrupt, ...]

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(line.count for line in self.lines)


@dataclass(frozen=True, slots=True)
class DiskSetting:
    """A ``ubd`` device.

    Attributes:
        device: Such as ``ubd0``.
        file: What is written to: the disk's file, or its COW file.
        backing: The file below a COW file, which is only read.
    """

    device: str
    file: str
    backing: str | None


@dataclass(frozen=True, slots=True)
class LineSetting:
    """A ``con`` or ``ssl`` device.

    Attributes:
        device: Such as ``con0``.
        input: Such as ``null``, ``fd:0`` or ``pts``; with what is behind it while the line is open, such
            as ``pts:/dev/pts/2``.
        output: The same, where it is another one.  Only of pairs from the command line: the kernel tells
            but the first half of those that were set later.
    """

    device: str
    input: str
    output: str | None


@dataclass(frozen=True, slots=True)
class MemorySetting:
    """``mem``, which tells where memory begins and not how much there is: a bug of the kernel.

    Attributes:
        device: ``mem``.
        base: The address in the guest's process at which its memory begins.  For its size read `MEMORY`.
    """

    device: str
    base: int


DeviceSetting = DiskSetting | LineSetting | MemorySetting


def parse_version(text: str) -> Version:
    """Return the answer of ``version`` as a value.

    Raises:
        RemoteProtocolError: It is none.
    """
    # A host name is any text that the guest's root likes: all else is taken off from both sides.
    system, _, rest = text.partition(" ")
    rest, _, machine = rest.rpartition(" ")
    rest, sign, build = rest.rpartition(" #")
    nodename, _, release = rest.rpartition(" ")
    if not all(0 < len(name) <= _MAX_NAME for name in (system, release, build, machine)):
        raise RemoteProtocolError(f"{text[:80]!r} is not a kernel's version")
    return Version(system, nodename, release, sign.strip() + build, machine)


def parse_uptime(text: str) -> Uptime:
    """Return ``/proc/uptime`` as a value.

    Raises:
        RemoteProtocolError: It is none.
    """
    return Uptime(*map(float, _fields(_UPTIME, text, "/proc/uptime")))


def parse_loadavg(text: str) -> LoadAverage:
    """Return ``/proc/loadavg`` as a value.

    Raises:
        RemoteProtocolError: It is none.
    """
    one, five, fifteen, running, tasks, last_pid = _fields(_LOADAVG, text, "/proc/loadavg")
    return LoadAverage(float(one), float(five), float(fifteen), int(running), int(tasks), int(last_pid))


def parse_meminfo(text: str) -> Memory:
    """Return ``/proc/meminfo`` as a value.

    Raises:
        RemoteProtocolError: An amount is missing that every kernel since 3.14 tells.
    """
    _bound(text)
    amounts = {name: int(kilobytes) * 1024 for name, kilobytes in _AMOUNT.findall(text)}
    names = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree")
    if missing := [name for name in names if name not in amounts]:
        raise RemoteProtocolError(f"/proc/meminfo without {', '.join(missing)}")
    return Memory(*(amounts[name] for name in names))


def parse_stat(text: str) -> CpuTime:
    """Return what ``/proc/stat`` says of all processors together as a value.

    Raises:
        RemoteProtocolError: There is no line of them.
    """
    _bound(text)
    line = _CPU.search(text)
    if line is None:
        raise RemoteProtocolError(f"/proc/stat without its processors: {text[:80]!r}")
    # Later kernels have more columns than earlier ones.
    seconds = [int(ticks) / _TICKS_PER_SECOND for ticks in line[1].split()] + [0.0] * 4
    user, nice, system, idle, waiting, irq, softirq, stolen = seconds[:8]
    switches = _SWITCHES.search(text)
    times = user, nice, system + irq + softirq, idle, waiting, stolen
    return CpuTime(*times, None if switches is None else int(switches[1]))


def parse_interrupts(text: str) -> Interrupts:
    """Return ``/proc/interrupts`` as a value.

    Raises:
        RemoteProtocolError: It is none, or longer than any.
    """
    _bound(text)
    head, *lines = text.splitlines() or [""]
    if not _CPU_COLUMNS.fullmatch(head):
        raise RemoteProtocolError(f"/proc/interrupts without its processors: {head[:80]!r}")
    processors = len(head.split())
    found = []
    for line in lines:
        number, counts, source = _fields(_INTERRUPT, line, "a line of /proc/interrupts")
        # What does not belong to processors follows them, and may begin with a number too.
        numbers = counts.split()
        source = " ".join([*numbers[processors:], *source.split()])
        found.append(Interrupt(number, sum(map(int, numbers[:processors])), source))
    return Interrupts(tuple(found))


def parse_setting(device: str, text: str) -> DeviceSetting | None:
    """Return the answer of ``config DEVICE`` as a value, ``None`` where the kernel has no such device.

    Args:
        device: What was asked for: ``mem``, or a ``ubd``, ``con`` or ``ssl`` with its number.
        text: The answer.

    Raises:
        RemoteProtocolError: It is none.
    """
    first, comma, second = text.partition(",")
    if device.startswith("mem"):
        return MemorySetting(device, int(_fields(_ADDRESS, text, "an address")[0]))
    if text == ("" if device.startswith("ubd") else "none"):
        return None
    if not first or bool(comma) != bool(second):
        raise RemoteProtocolError(f"no setting of {device}: {text[:80]!r}")
    kind = DiskSetting if device.startswith("ubd") else LineSetting
    return kind(device, first, second or None)


def _bound(text: str) -> None:
    if len(text) > _MAX_TEXT:
        raise OversizeMessage(len(text), _MAX_TEXT)


def _fields(pattern: re.Pattern[str], text: str, what: str) -> tuple[str, ...]:
    match = pattern.fullmatch(text)
    if match is None:
        raise RemoteProtocolError(f"{text[:80]!r} is not {what}")
    return match.groups()


class Reading(Generic[T]):
    """A command that asks, and what its answer means.

    Args:
        command: What is sent.
        parse: Returns the answer's text as a value; raises `RemoteProtocolError` where it is none.
    """

    def __init__(self, command: Command, parse: Callable[[str], T]) -> None:
        self.command = command
        self._parse = parse

    def value(self, output: str, umid: str) -> T:
        """Return what a guest has answered as a value.

        Args:
            output: The answer's text.
            umid: The guest's name, for errors.

        Raises:
            MconsoleProtocolError: It is no such answer.
        """
        try:
            return self._parse(output)
        except RemoteProtocolError as error:
            raise MconsoleProtocolError(umid, self.command.display, output, str(error)) from error


VERSION = Reading(version(), parse_version)
UPTIME = Reading(proc("uptime"), parse_uptime)
LOAD_AVERAGE = Reading(proc("loadavg"), parse_loadavg)
MEMORY = Reading(proc("meminfo"), parse_meminfo)
CPU_TIME = Reading(proc("stat"), parse_stat)
INTERRUPTS = Reading(proc("interrupts"), parse_interrupts)


def setting(device: str) -> Reading[DeviceSetting | None]:
    """Return what asks how a device is configured, for ``None`` where the kernel has no such device.

    Args:
        device: ``mem``, or a ``ubd``, ``con`` or ``ssl`` with its number; NICs do not tell.

    Raises:
        LocalProtocolError: It is none of these.
    """
    if not _DEVICE.fullmatch(device):
        raise LocalProtocolError(f"'{device}' does not tell how it is configured; ubd, con, ssl and mem do")
    return Reading(config_get(device), lambda text: parse_setting(device, text))
