"""A lab without kernels and frames, for what stands above the service."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time

from support.capture_switch import CaptureSwitches
from umlab.capture.talkers import Talker, TalkerPair, Talkers
from umlab.console.scrollback import Scrollback
from umlab.console.terminal import Terminal
from umlab.daemon.capture import CaptureSet
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest_console import GuestConsoles
from umlab.daemon.guest_device import GuestDevices
from umlab.daemon.guest_kernel import GuestKernels
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
    PortView,
    SwitchView,
)
from umlab.errors import (
    AlreadyExists,
    MconsoleError,
    NoSuchConsole,
    NoSuchGuest,
    NoSuchHook,
    NoSuchPort,
    NoSuchSwitch,
    StateError,
)
from umlab.guest.cmdline import GuestSpec
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
        #: Offset of the first byte that is kept.
        self.log_start = 0
        self.grown = asyncio.Event()
        self.state = "ready"
        self.vitals = GuestVitals(
            spec.umid, "answers", 0.5, "6.1.176", 93_784.5, (0.5, 0.25, 0.0), 96 << 20, 24 << 20, 0.125
        )
        self.devices = {"mem": "128M", "ubda": "/srv/left.img"}
        self.terminal: Terminal | None = None
        self.scrollback: Scrollback | None = None
        self.line = -1

    def open_terminal(self) -> Terminal:
        """Return the terminal, made when first asked for."""
        if self.terminal is None:
            master, self.line = os.openpty()
            self.scrollback = Scrollback()
            self.terminal = Terminal(master, self.scrollback)
        return self.terminal

    def print(self, data: bytes) -> None:
        """Add to the log."""
        self.log += data
        self.grown.set()

    def end(self) -> None:
        """End."""
        self.state = "ended"
        self.grown.set()
        if self.terminal is not None:
            self.terminal.close()
        if self.scrollback is not None:
            self.scrollback.close()
            self.scrollback = None
        if self.line >= 0:
            os.close(self.line)
            self.line = -1


class FakeConsoles(GuestConsoles):
    """Consoles of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    def views(self, name: str) -> list[ConsoleView]:
        terminal = self._lab.held(name).terminal
        viewers = terminal.viewers if terminal else 0
        return [ConsoleView("con0", "log", 0), ConsoleView("con1", "terminal", viewers)]

    def log(self, name: str, start: int, limit: int) -> LogPiece:
        held = self._lab.held(name)
        end = held.log_start + len(held.log)
        if start < 0:
            start += end
        start = min(max(start, held.log_start), end)
        data = bytes(held.log[start - held.log_start :][:limit])
        return LogPiece(start, start + len(data), data)

    async def wait_log(self, name: str, end: int) -> None:
        held = self._lab.held(name)
        while held.log_start + len(held.log) <= end and held.state != "ended":
            held.grown.clear()
            await held.grown.wait()

    def terminal(self, name: str, console: str) -> Terminal:
        held = self._lab.held(name)
        if console != "con1":
            raise NoSuchConsole(name, console)
        if held.state == "ended":
            raise StateError("the terminal is closed: its guest has ended")
        return held.open_terminal()


class FakeDevices(GuestDevices):
    """Devices of fake guests."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab

    async def views(self, name: str) -> list[DeviceView]:
        return [
            DeviceView(device, setting) for device, setting in sorted(self._lab.held(name).devices.items())
        ]

    async def view(self, name: str, device: str) -> DeviceView:
        devices = self._lab.held(name).devices
        if device not in devices:
            raise MconsoleError(name, f"config {device}", "no such device")
        return DeviceView(device, devices[device])

    async def put(self, name: str, device: str, setting: str) -> bool:
        devices = self._lab.held(name).devices
        changed = devices.get(device) != setting
        devices[device] = setting
        return changed

    async def remove(self, name: str, device: str) -> bool:
        return self._lab.held(name).devices.pop(device, None) is not None


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
        #: Calls of ``stack`` and ``sysrq``, and what the next ones wait for.
        self.asked: list[tuple[str, object]] = []
        self.pause = asyncio.Event()
        self.pause.set()
        self.started_at = time.time()
        self.consoles = FakeConsoles(self)
        self.devices = FakeDevices(self)
        self.kernels = FakeKernels(self)
        self.hooks = FakeHooks()
        #: What captures are of.
        self.capture_switches = CaptureSwitches()
        self.captures = CaptureSet(self.capture_switches, self.events)  # type: ignore[arg-type]

    def close(self) -> None:
        """End everything."""
        for guest in self.guest_by_name.values():
            guest.end()
        self.events.close()

    def add_port(self, switch: str, port_no: int, guest: str | None = None) -> None:
        """Plug something in."""
        mac = f"02:00:00:00:{port_no >> 8:02x}:{port_no & 255:02x}"
        self.port_views[switch][port_no] = PortView(
            port_no, "daemon", "v3", "up", 4711, 1000, "1000", guest, guest, (mac,), 1, 0, dict(PORT_COUNTERS)
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
        spec = self._spec(name)
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
        self._spec(switch)
        return [view for _, view in sorted(self.port_views[switch].items())]

    def port(self, switch: str, port_no: int) -> PortView:
        self._spec(switch)
        if port_no not in self.port_views[switch]:
            raise NoSuchPort(port_no)
        return self.port_views[switch][port_no]

    def fdb(self, switch: str) -> list[FdbEntryView]:
        self._spec(switch)
        return list(self.addresses[switch])

    async def talkers(self, switch: str, seconds: float, count: int) -> Talkers:
        self._spec(switch)
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
        spec = self._spec(name)
        change.check_attached(spec.config, self.port_views[name])
        lldp = spec.lldp if change.lldp is None else change.lldp
        self.specs[name] = dataclasses.replace(spec, config=change.of(spec.config), lldp=lldp)
        return self.specs[name] != spec

    async def remove_switch(self, name: str) -> bool:
        return self.specs.pop(name, None) is not None

    async def remove_port(self, switch: str, port_no: int) -> bool:
        self._spec(switch)
        return self.port_views[switch].pop(port_no, None) is not None

    def flush_fdb(self, switch: str, port_no: int | None = None) -> bool:
        if port_no is not None:
            self.port(switch, port_no)
        self._spec(switch)
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

    def _spec(self, name: str) -> SwitchSpec:
        if name not in self.specs:
            raise NoSuchSwitch(name)
        return self.specs[name]

    def held(self, name: str) -> FakeGuest:
        """Return a guest.  Raises NoSuchGuest."""
        if name not in self.guest_by_name:
            raise NoSuchGuest(name)
        return self.guest_by_name[name]
