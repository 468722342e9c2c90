"""What a lab daemon shows: plain frozen values that the API sends and ``umlab.client`` returns."""

from __future__ import annotations

from dataclasses import dataclass

import umlab.daemon.port_schema  # noqa: F401 (views are JSON)
from umlab.switch.control.lldp import Neighbour
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Argument


@dataclass(frozen=True, slots=True)
class LabView:
    """A running lab.

    Attributes:
        name: Its name.
        version: Of the daemon's umlab.
        pid: Of the daemon.
        keeper_pid: Of the process that holds its guests and descriptors.
        started_at: When this daemon began, seconds since 1970.
        switches: Names, sorted.
        guests: Names, sorted.
    """

    name: str
    version: str
    pid: int
    keeper_pid: int
    started_at: float
    switches: tuple[str, ...]
    guests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListenerView:
    """A place where guests attach.

    Attributes:
        kind: The transport, such as ``daemon``.
        where: A path, or a device.
        arguments: How to attach here, the best first.
    """

    kind: str
    where: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class SwitchView:
    """A switch.

    Attributes:
        name: Its name.
        engine: What moves its frames, ``py`` or ``native``.
        config: What it is told to be.
        listeners: Where guests attach.
        ports: How many ports it has.
        fdb_entries: How many addresses it knows.
        counters: By name, such as ``learned``.
        recorder: Bytes of memory of its flight recorder, 0 for none.
        lldp: Whether it tells its neighbours of itself.
    """

    name: str
    engine: str
    config: SwitchConfig
    listeners: tuple[ListenerView, ...]
    ports: int
    fdb_entries: int
    counters: dict[str, int]
    recorder: int = 0
    lldp: bool = False


@dataclass(frozen=True, slots=True)
class PortView:
    """A port and what is plugged in.

    Attributes:
        port_no: Its number, from 1.
        kind: The transport of its attachment.
        detail: What a person would want to see beside the kind, such as ``v3``; may be empty.
        state: ``up``, or ``down`` once the guest's end of the data path is gone.
        pid: The process behind it, 0 where it is not visible, ``None`` where there is none (a tap).
        uid: Its user,
        user: and that one's name, the number where it has none.
        guest: The lab's guest that this process is, if it is one.
        umid: What it calls itself, if it is a guest of this lab or elsewhere.
        macs: Addresses learnt here, such as ``02:00:00:00:00:01``; the latest 16.
        fdb_entries: How many addresses were learnt here.
        queued: Frames that wait for the guest.
        counters: By name, such as ``rx_frames`` and ``drop_tail``.
        neighbours: Who says by LLDP that it is at the other end, the longest known first.
    """

    port_no: int
    kind: str
    detail: str
    state: str
    pid: int | None
    uid: int | None
    user: str | None
    guest: str | None
    umid: str | None
    macs: tuple[str, ...]
    fdb_entries: int
    queued: int
    counters: dict[str, int]
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class FdbEntryView:
    """A learnt address.

    Attributes:
        mac: Such as ``02:00:00:00:00:01``.
        port_no: Where it was seen last.
        age: Seconds since then.
        vid: The VLAN that it was seen in, 0 on transparent ports.
    """

    mac: str
    port_no: int
    age: float
    vid: int = 0


@dataclass(frozen=True, slots=True)
class GuestView:
    """A guest that the lab started.

    Attributes:
        name: Its umid.
        state: ``booting`` until its agent answers (or for ever, where its root has none), ``ready``, or
            ``ended``.
        pid: Its main process and process group.
        status: Exit status of the main process, negative for a signal, ``None`` while it runs.
        kernel: The kernel's program file.
        memory: Bytes.
        started_at: Seconds since 1970.
        consoles: Names of its consoles, such as ``con1``.
        mconsole: Path of its management console's socket.
        answers: Whether its kernel answers there; ``None`` while it boots, and after its end.
    """

    name: str
    state: str
    pid: int
    status: int | None
    kernel: str
    memory: int
    started_at: float
    consoles: tuple[str, ...]
    mconsole: str
    answers: bool | None = None


#: Seconds after which what a guest has said is not how it is, unless it says so again: whoever looks every
#: few seconds sees the last.
STALE_AGE = 10.0


@dataclass(frozen=True, slots=True)
class GuestVitals:
    """How a guest is, as its kernel tells; ``None`` for what that does not serve or has never told.

    Attributes:
        name: Its umid.
        state: ``answers``; ``stopped`` by the console's ``stop``, in which it answers, too; ``silent``;
            ``garbled``, where nothing that it says makes sense; ``unreachable``, where no kernel listens: it
            boots, or has ended; ``?`` before anything is known.
        age: Seconds since all the following was so.
        release: The kernel's, such as ``6.1.176``.
        uptime: Seconds.
        load: The load of one, five and fifteen minutes.
        memory_total: Bytes that the kernel manages.
        memory_used: Bytes of them that programs could not have.
        cpu: Which share of its time its processor was busy since the reading before, or since it booted.
    """

    name: str
    state: str
    age: float | None = None
    release: str | None = None
    uptime: float | None = None
    load: tuple[float, float, float] | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    cpu: float | None = None

    @property
    def is_current(self) -> bool:
        """Whether it is so now: the last that a silent guest has said, or one long ago, is not how it is."""
        return self.state in ("answers", "stopped") and (self.age is None or self.age < STALE_AGE)


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process of a guest.

    Attributes:
        pid: Its number there.
        name: What it calls itself, untrusted.
    """

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class HookView:
    """A command that is run when something happens to a guest.

    Attributes:
        name: Its name.
        on: The kinds of events, such as ``guest_panicked``.
        guests: A pattern of guests' names, ``None`` for all.
        run: The program and its arguments.
        log: The file of what it prints.
    """

    name: str
    on: tuple[str, ...]
    guests: str | None
    run: tuple[str, ...]
    log: str


@dataclass(frozen=True, slots=True)
class ConsoleView:
    """A console of a guest.

    Attributes:
        name: ``con0``, where the kernel logs (only to be read), or ``con1``, a terminal.
        kind: ``log`` or ``terminal``.
        writers: How many viewers are attached right now that may type,
        readers: and how many that only look.
    """

    name: str
    kind: str
    writers: int
    readers: int


@dataclass(frozen=True, slots=True)
class ScreenView:
    """What a terminal shows now.

    Attributes:
        rows: Its height.
        columns: Its width.
        lines: Text of each row, without the blanks at its end; untrusted, but printable.
        cursor_row: Where the cursor is, from 1.
        cursor_column: Its column, from 1.
        cursor_shown: Whether it is to be seen.
        alternate: Whether a program uses the alternate screen, as editors do.
    """

    rows: int
    columns: int
    lines: tuple[str, ...]
    cursor_row: int
    cursor_column: int
    cursor_shown: bool
    alternate: bool


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device of a guest.

    Attributes:
        name: Such as ``eth0``, ``vec0``, ``ubda``, ``con1`` or ``mem``; the name that it has in the guest.
        setting: How it is plugged, in the form that ``config`` takes, a disk's letters in front of it
            (``r=/srv/a.img``); of ``mem`` how much there is.  Empty for a NIC that somebody else plugged.
        kind: ``nic``, ``disk``, ``console``, ``serial`` or ``memory``.
        switch: Of a NIC, the lab's switch that it is plugged into,
        port_no: and the port there; ``None`` where it has none, or shares what would tell them apart.
    """

    name: str
    setting: str
    kind: str
    switch: str | None = None
    port_no: int | None = None


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of a guest's console log.

    Attributes:
        start: Offset of its first byte in everything that the guest has printed since it was started.
        end: Offset behind its last byte: where to go on.
        data: Raw bytes, untrusted.
    """

    start: int
    end: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogTime:
    """When a part of a console log was printed.

    Attributes:
        offset: Offset of its first byte; it ends where the next one begins.
        at: Seconds since 1970.
    """

    offset: int
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    """What a call that may be repeated has done.

    Attributes:
        changed: ``False`` when everything was already as asked for.
    """

    changed: bool
