"""A lab without kernels and frames, for what stands above the service."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import time

from support.capture_switch import CaptureSwitches
from support.fake_execs import FakeExecs
from umlab.capture.talkers import Talker, TalkerPair, Talkers
from umlab.console.feed import ScreenFeed
from umlab.console.terminal import Terminal
from umlab.daemon.capture import CaptureSet
from umlab.daemon.device_order import DeviceOrder, new_kind, resolve_order
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest_console import GuestConsoles
from umlab.daemon.guest_device import GuestDevices
from umlab.daemon.guest_kernel import GuestKernels
from umlab.daemon.guest_process import GuestProcesses
from umlab.daemon.hook import Hook, HookSet
from umlab.daemon.lab import LabService
from umlab.daemon.record import SIZE_NAMES
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.switch_change import SwitchChange
from umlab.daemon.view import (
    ConsoleView,
    DeviceView,
    FdbEntryView,
    GuestView,
    GuestVitals,
    HookView,
    LabView,
    ListenerView,
    LogPiece,
    LogTime,
    PortView,
    ProcessView,
    SwitchView,
)
from umlab.errors import (
    AlreadyExists,
    NoSuchConsole,
    NoSuchDevice,
    NoSuchGuest,
    NoSuchHook,
    NoSuchPort,
    NoSuchSwitch,
    StateError,
)
from umlab.guest.cmdline import GuestSpec
from umlab.guest.device import DeviceName, parse_device, serialize_setting
from umlab.switch.counters import DropReason
from umlab.transports.contract import Argument

PORT_COUNTERS = {
    **{"rx_frames": 7, "rx_bytes": 448, "tx_frames": 5, "tx_bytes": 320},
    **{f"drop_{reason.value}": 0 for reason in DropReason},
    "drop_tail": 2,
    **{f"{kind}_size_{name}": 0 for kind in ("rx", "tx") for name in SIZE_NAMES},
    **{"rx_size_0_64": 7, "tx_size_0_64": 5},
}
SWITCH_COUNTERS = {
    **{"learned": 3, "moved": 1, "aged": 0, "learn_refused": 0, "unknown_sender": 0},
    **{"refused_sessions": 5, "lldp_malformed": 0, "lldp_refused": 0},
}


class FakeGuest:
    """What the fake keeps of a guest; its terminal is a pseudo terminal that the test holds the end of."""

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.log = bytearray(b"Linux version 6.1\n")
        #: What the terminal has printed, and when the parts of each console's output came.
        self.terminal_log = bytearray()
        self.times = {"con0": [LogTime(0, 1.0)], "con1": list[LogTime]()}
        #: Offset of the first byte that is kept.
        self.log_start = 0
        self.grown = asyncio.Event()
        self.state = "ready"
        self.vitals = GuestVitals(
            spec.umid, "answers", 0.5, "6.1.176", 93_784.5, (0.5, 0.25, 0.0), 96 << 20, 24 << 20, 0.125
        )
        self.devices = {"mem": "128M", "ubda": "/srv/left.img"}
        self.terminal: Terminal | None = None
        self.line = -1

    def open_terminal(self) -> Terminal:
        """Return the terminal, made when first asked for."""
        if self.terminal is None:
            master, self.line = os.openpty()
            self.terminal = Terminal(master, ScreenFeed(), on_output=self._record)
        return self.terminal

    def print(self, data: bytes) -> None:
        """Add to the log."""
        self.times["con0"].append(LogTime(len(self.log), time.time()))
        self.log += data
        self.grown.set()

    def _record(self, data: bytes) -> None:
        self.times["con1"].append(LogTime(len(self.terminal_log), time.time()))
        self.terminal_log += data
        self.grown.set()

    def end(self) -> None:
        """End."""
        self.state = "ended"
        self.grown.set()
        if self.terminal is not None:
            self.terminal.close()
        if self.line >= 0:
            os.close(self.line)
            self.line = -1


class FakeConsoles(GuestConsoles):
    """Consoles of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    def views(self, name: str) -> list[ConsoleView]:
        terminal = self._lab.held(name).terminal
        writers, readers = (terminal.count("write"), terminal.count("read")) if terminal else (0, 0)
        return [ConsoleView("con0", "log", 0, 0), ConsoleView("con1", "terminal", writers, readers)]

    def log(self, name: str, console: str, start: int, limit: int) -> LogPiece:
        log, first = self._kept(name, console)
        end = first + len(log)
        if start < 0:
            start += end
        start = min(max(start, first), end)
        data = bytes(log[start - first :][:limit])
        return LogPiece(start, start + len(data), data)

    def log_times(
        self, name: str, console: str, start: int, since: float | None, limit: int
    ) -> list[LogTime]:
        self._kept(name, console)
        times = self._lab.held(name).times[console]
        if since is not None:
            return [each for each in times if each.at >= since][:limit]
        older = sum(each.offset <= start for each in times)
        return times[max(0, older - 1) :][:limit]

    async def wait_log(self, name: str, console: str, end: int) -> None:
        held = self._lab.held(name)
        while held.state != "ended":
            log, first = self._kept(name, console)
            if first + len(log) > end:
                return
            held.grown.clear()
            await held.grown.wait()

    async def terminal(self, name: str, console: str) -> Terminal:
        held = self._lab.held(name)
        if console != "con1":
            raise NoSuchConsole(name, console)
        if held.state == "ended":
            raise StateError("the terminal is closed: its guest has ended")
        return held.open_terminal()

    def _kept(self, name: str, console: str) -> tuple[bytearray, int]:
        held = self._lab.held(name)
        if console not in ("con0", "con1"):
            raise NoSuchConsole(name, console)
        return (held.log, held.log_start) if console == "con0" else (held.terminal_log, 0)


class FakeDevices(GuestDevices):
    """Devices of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    async def views(self, name: str) -> list[DeviceView]:
        return [await self.view(name, device) for device in sorted(self._lab.held(name).devices)]

    async def view(self, name: str, device: str) -> DeviceView:
        devices = self._lab.held(name).devices
        parsed, _ = parse_device(device)
        key = str(parsed)
        if key not in devices:
            raise NoSuchDevice(name, key)
        kind = {"mem": "memory", "ubd": "disk", "con": "console", "ssl": "serial"}.get(parsed.kind, "nic")
        return DeviceView(key, devices[key], kind)

    async def put(self, name: str, device: str, order: DeviceOrder) -> bool:
        devices = self._lab.held(name).devices
        parsed, letters = parse_device(device)
        text = serialize_setting(resolve_order(order, parsed, letters, self._listening_of))
        changed = devices.get(str(parsed)) != text
        devices[str(parsed)] = text
        return changed

    async def add(self, name: str, order: DeviceOrder) -> DeviceView:
        devices = self._lab.held(name).devices
        kind = new_kind(order)
        names = (DeviceName(kind, number) for number in itertools.count(2 if kind == "con" else 0))
        device = next(str(each) for each in names if str(each) not in devices)
        await self.put(name, device, order)
        return await self.view(name, device)

    async def remove(self, name: str, device: str, *, down: bool = False) -> bool:
        return self._lab.held(name).devices.pop(str(parse_device(device)[0]), None) is not None

    async def reset(self, name: str, device: str, *, down: bool = False) -> None:
        self._lab.asked.append(("reset", (await self.view(name, device)).name, down))

    def _listening_of(self, switch: str) -> tuple[str, ...]:
        return self._lab.spec(switch).listen


class FakeKernels(GuestKernels):
    """Kernels of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    async def vitals(self, name: str) -> GuestVitals:
        return self._lab.held(name).vitals

    async def stack(self, name: str, pid: int) -> str:
        self._lab.held(name)
        self._lab.asked.append(("stack", pid))
        await self._lab.pause.wait()
        return f"stack of {pid}"

    async def sysrq(self, name: str, letter: str) -> str:
        self._lab.held(name)
        self._lab.asked.append(("sysrq", letter))
        return f"sysrq {letter}"

    async def run(self, name: str, text: str, timeout: float | None = None) -> str:  # noqa: ASYNC109
        self._lab.held(name)
        self._lab.asked.append(("mconsole", (text, timeout)))
        return f"mconsole {text}"


class FakeProcesses(GuestProcesses):
    """Processes of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    async def views(self, name: str) -> list[ProcessView]:
        if self._lab.held(name).state != "ready":
            raise StateError(f"guest {name} has no agent that answers")
        return [ProcessView(1, "init"), ProcessView(42, "sh")]


class FakeHooks(HookSet):
    """Hooks that are run for nothing."""

    def __init__(self) -> None:
        self._hooks: dict[str, Hook] = {}

    def views(self) -> list[HookView]:
        return [self.view(name) for name in sorted(self._hooks)]

    def view(self, name: str) -> HookView:
        if name not in self._hooks:
            raise NoSuchHook(name)
        hook = self._hooks[name]
        return HookView(name, hook.on, hook.guests, hook.run, f"/var/log/hook-{name}.log")

    async def put(self, hook: Hook) -> bool:
        changed = self._hooks.get(hook.name) != hook
        self._hooks[hook.name] = hook
        return changed

    async def remove(self, name: str) -> bool:
        return self._hooks.pop(name, None) is not None


class FakeLab(LabService):
    """A lab in memory: named ``demo``, with whatever the test puts into it."""

    def __init__(self) -> None:
        self.name = "demo"
        self.events = EventLog()
        self.specs: dict[str, SwitchSpec] = {}
        self.port_views: dict[str, dict[int, PortView]] = {}
        self.addresses: dict[str, list[FdbEntryView]] = {}
        self.guest_by_name: dict[str, FakeGuest] = {}
        #: Whether its switches have a flight recorder.
        self.has_recorder = True
        #: Calls of ``stack``, ``sysrq`` and others, and what the next ones wait for.
        self.asked: list[tuple[object, ...]] = []
        self.pause = asyncio.Event()
        self.pause.set()
        self.started_at = time.time()
        self.consoles = FakeConsoles(self)
        self.devices = FakeDevices(self)
        self.kernels = FakeKernels(self)
        self.processes = FakeProcesses(self)
        self.execs = FakeExecs(self)
        self.hooks = FakeHooks()
        #: What captures are of.
        self.capture_switches = CaptureSwitches()
        self.captures = CaptureSet(self.capture_switches, self.events)  # type: ignore[arg-type]

    def close(self) -> None:
        """End everything."""
        for guest in self.guest_by_name.values():
            guest.end()
        self.events.close()

    def add_port(self, switch: str, port_no: int, guest: str | None = None, pid: int = 4711) -> None:
        """Plug something in."""
        mac = f"02:00:00:00:{port_no >> 8:02x}:{port_no & 255:02x}"
        self.port_views[switch][port_no] = PortView(
            port_no, "daemon", "v3", "up", pid, 1000, "1000", guest, guest, (mac,), 1, 0, dict(PORT_COUNTERS)
        )
        self.addresses[switch].append(FdbEntryView(mac, port_no, 1.5))

    def lab(self) -> LabView:
        return LabView(
            self.name,
            "0.1.0",
            os.getpid(),
            os.getppid(),
            self.started_at,
            tuple(sorted(self.specs)),
            tuple(sorted(self.guest_by_name)),
        )

    def switches(self) -> list[SwitchView]:
        return [self.switch(name) for name in sorted(self.specs)]

    def switch(self, name: str) -> SwitchView:
        spec = self.spec(name)
        listeners = tuple(
            ListenerView(kind, where, (Argument("uml", f"eth0=daemon,,unix,{where}", "daemon"),))
            for kind, _, where in (each.partition(":") for each in spec.listen)
        )
        ports, entries = len(self.port_views[name]), len(self.addresses[name])
        counters = dict(SWITCH_COUNTERS)
        return SwitchView(
            name, "py", spec.config, listeners, ports, entries, counters, spec.recorder, spec.lldp
        )

    def ports(self, switch: str) -> list[PortView]:
        self.spec(switch)
        return [view for _, view in sorted(self.port_views[switch].items())]

    def port(self, switch: str, port_no: int) -> PortView:
        self.spec(switch)
        if port_no not in self.port_views[switch]:
            raise NoSuchPort(port_no)
        return self.port_views[switch][port_no]

    def fdb(self, switch: str) -> list[FdbEntryView]:
        self.spec(switch)
        return list(self.addresses[switch])

    async def talkers(self, switch: str, seconds: float, count: int) -> Talkers:
        self.spec(switch)
        if not self.has_recorder:
            raise StateError(f"switch {switch} has no flight recorder")
        pairs = (
            TalkerPair("02:00:00:00:00:01", "02:00:00:00:00:02", 3, 192),
            TalkerPair("02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", 1, 60),
        )
        sources = tuple(Talker(each.source, each.frames, each.bytes) for each in pairs)
        return Talkers(seconds, 4, 252, sources[:count], pairs[:count])

    def guests(self) -> list[GuestView]:
        return [self.guest(name) for name in sorted(self.guest_by_name)]

    def guest(self, name: str) -> GuestView:
        guest = self.held(name)
        status = 0 if guest.state == "ended" else None
        spec = guest.spec
        path = f"/run/umlab/{name}/mconsole"
        return GuestView(
            name, guest.state, 4711, status, spec.kernel, spec.memory, 1.0, ("con0", "con1"), path
        )

    async def put_switch(self, spec: SwitchSpec) -> bool:
        known = self.specs.get(spec.name)
        if known is None:
            self.specs[spec.name] = spec
            self.port_views[spec.name] = {}
            self.addresses[spec.name] = []
        elif known != spec:
            raise AlreadyExists("switch", spec.name)
        return known is None

    async def set_switch(self, name: str, change: SwitchChange) -> bool:
        spec = self.spec(name)
        change.check_attached(spec.config, self.port_views[name])
        lldp = spec.lldp if change.lldp is None else change.lldp
        self.specs[name] = dataclasses.replace(spec, config=change.of(spec.config), lldp=lldp)
        return self.specs[name] != spec

    async def remove_switch(self, name: str) -> bool:
        return self.specs.pop(name, None) is not None

    async def remove_port(self, switch: str, port_no: int) -> bool:
        self.spec(switch)
        return self.port_views[switch].pop(port_no, None) is not None

    def flush_fdb(self, switch: str, port_no: int | None = None) -> bool:
        if port_no is not None:
            self.port(switch, port_no)
        self.spec(switch)
        kept = [each for each in self.addresses[switch] if port_no not in (None, each.port_no)]
        changed = kept != self.addresses[switch]
        self.addresses[switch] = kept
        return changed

    async def put_guest(self, spec: GuestSpec) -> bool:
        known = self.guest_by_name.get(spec.umid)
        if known is not None and known.state != "ended":
            if known.spec != spec:
                raise AlreadyExists("guest", spec.umid)
            return False
        self.guest_by_name[spec.umid] = FakeGuest(spec)
        return True

    async def remove_guest(self, name: str) -> bool:
        guest = self.guest_by_name.pop(name, None)
        if guest is not None:
            guest.end()
        return guest is not None

    def spec(self, name: str) -> SwitchSpec:
        """Return a switch's description.  Raises NoSuchSwitch."""
        if name not in self.specs:
            raise NoSuchSwitch(name)
        return self.specs[name]

    def held(self, name: str) -> FakeGuest:
        """Return a guest.  Raises NoSuchGuest."""
        if name not in self.guest_by_name:
            raise NoSuchGuest(name)
        return self.guest_by_name[name]
