"""The steps of ``umlab demo``: each one is checked, and its outcome recorded."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.errors import GuestFailed, LabError, UmlabError
from umlab.guest.cmdline import BessNic, DaemonNic, GuestSpec
from umlab.guest.console import escape
from umlab.guest.process import HALT_STATUSES
from umlab.guest.watch import group_members
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener
from umlab.transports.daemon import DaemonListener
from umlab.wire.ethernet import format_mac, parse_mac

_BOOT_TIMEOUT = 30.0
_COMMAND_TIMEOUT = 20.0
_ADDRESSES = {"left": "10.11.0.1", "right": "10.11.0.2"}
_DEVICES = {"left": "eth0", "right": "vec0"}
_PINGS = 3


class Progress(Protocol):
    """Takes text for people whenever something begins or has happened."""

    def __call__(self, text: str, end: str = "\n") -> None:
        """Print ``text`` and ``end``."""


class StepFailed(LabError):
    """A step of the demo did not show what it should."""


class Scenario:
    """One run of the demo.

    Args:
        kernel: Program file of both kernels.
        progress: Where the run shows how far it is.
    """

    def __init__(self, kernel: str, *, progress: Progress) -> None:
        self._kernel = os.path.abspath(kernel)
        self._progress = progress
        self._steps: list[dict[str, Any]] = []
        self._guests: dict[str, GuestService] = {}
        self._switch: SwitchService
        self._directory: Path

    async def run(self) -> dict[str, Any]:
        """Take every step and return the record.

        Its keys are ``ok``, ``seconds``, ``steps`` and, when a step failed, ``error``.
        """
        begin = time.monotonic()
        error = ""
        try:
            async with self._everything():
                await self._take_steps()
            await self._step("see that nothing is left behind", self._check_nothing_left())
        except (UmlabError, OSError) as failure:
            error = str(failure)
            self._progress(error)
        seconds = round(time.monotonic() - begin, 2)
        if not error:
            self._progress(f"done in {seconds:.1f} s: two kernels, one switch, no root needed")
        result: dict[str, Any] = {"ok": not error, "seconds": seconds, "steps": self._steps}
        return result | ({"error": error} if error else {})

    @asynccontextmanager
    async def _everything(self) -> AsyncIterator[None]:
        """Hold the run's directory, switch and guests; all are gone afterwards, whatever happened."""
        async with AsyncExitStack() as stack:
            self._directory = Path(tempfile.mkdtemp(prefix="umlab-demo-"))
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            stack.push_async_callback(self._stop_guests)
            listeners: list[Listener] = [
                DaemonListener(str(self._directory / "switch.ctl")),
                BessListener(str(self._directory / "switch.bess")),
            ]
            self._switch = SwitchService("demo", SwitchConfig(), listeners)
            await self._step("start a switch", self._switch.start())
            stack.push_async_callback(self._switch.stop)
            yield

    async def _take_steps(self) -> None:
        await self._step("boot two guests", self._boot())
        await self._step("bring their NICs up", self._configure())
        await self._step("left pings right", self._ping("left", "right"))
        await self._step("right pings left", self._ping("right", "left"))
        await self._step("see both addresses in the FDB", self._check_fdb())
        for name in self._guests:
            await self._step(f"console: {name} version", self._version(name))
            await self._step(f"console: {name} proc uptime", self._uptime(name))
        await self._step("console: plug a second NIC into left", self._hot_plug())
        for name in self._guests:
            await self._step(f"console: {name} halt", self._halt(name))

    async def _step(self, name: str, work: Coroutine[Any, Any, str | None]) -> None:
        begin = time.monotonic()
        try:
            self._progress(f"  {name} ... ", end="")
            detail = await work or ""
        except (UmlabError, OSError) as failure:
            self._progress("FAILED")
            self._steps.append({"step": name, "ok": False, "detail": str(failure)})
            raise
        finally:
            # It has not begun where nobody could be told.
            work.close()
        seconds = time.monotonic() - begin
        self._steps.append({"step": name, "ok": True, "detail": detail, "seconds": round(seconds, 2)})
        self._progress("\n      ".join([f"{seconds:.1f} s", *detail.splitlines()]))

    async def _boot(self) -> str:
        control = str(self._directory / "switch.ctl")
        nics: dict[str, DaemonNic | BessNic] = {
            "left": DaemonNic(control),
            "right": BessNic(str(self._directory / "switch.bess")),
        }
        for name, nic in nics.items():
            spec = GuestSpec(umid=name, kernel=self._kernel, nics=(nic,))
            self._guests[name] = await GuestService.start(spec, str(self._directory))
        await asyncio.gather(*(guest.ready(_BOOT_TIMEOUT) for guest in self._guests.values()))
        return "\n".join(f"{name}: pid {guest.guest.pid}" for name, guest in self._guests.items())

    async def _configure(self) -> str:
        for name, address in _ADDRESSES.items():
            device = _DEVICES[name]
            await self._command(name, f"ip addr add {address}/24 dev {device} && ip link set {device} up")
        return "\n".join(f"{name}: {_DEVICES[name]} {_ADDRESSES[name]}" for name in self._guests)

    async def _ping(self, source: str, target: str) -> str:
        output = await self._command(source, f"ping -c {_PINGS} -W 5 {_ADDRESSES[target]}")
        match = re.search(r"^(\d+) packets transmitted, (\d+) packets received.*$", output, re.MULTILINE)
        if match is None or match.groups() != (str(_PINGS), str(_PINGS)):
            raise StepFailed(f"{source} pinged {target}: {output.strip()}")
        return f"{match[2]}/{match[1]} answered"

    async def _check_fdb(self) -> str:
        learned = {entry.mac: entry.port_no for entry in self._switch.fdb()}
        kinds = {port.port_no: port.kind for port in self._switch.ports()}
        lines = []
        for name, device in _DEVICES.items():
            mac = parse_mac((await self._command(name, f"cat /sys/class/net/{device}/address")).strip())
            if mac not in learned:
                raise StepFailed(f"the FDB does not have {format_mac(mac)} of {name}")
            lines.append(f"{format_mac(mac)}  port {learned[mac]} ({kinds[learned[mac]]})  {name}")
        return "\n".join(lines)

    async def _version(self, name: str) -> str:
        answer = await self._guests[name].mconsole.version()
        release = (await self._command(name, "uname -r")).strip()
        if release not in answer:
            raise StepFailed(f"{name} runs {release} but its console says {answer!r}")
        return answer.strip()

    async def _uptime(self, name: str) -> str:
        answer = (await self._guests[name].mconsole.proc("uptime")).strip()
        if not re.fullmatch(r"\d+\.\d+ \d+\.\d+", answer):
            raise StepFailed(f"{name}: proc uptime: {answer!r}")
        return answer

    async def _hot_plug(self) -> str:
        ports = len(self._switch.ports())
        await self._guests["left"].mconsole.config_set("eth1", f"daemon,,unix,{self._directory}/switch.ctl")
        shown = (await self._command("left", "ip -o link show eth1")).strip()
        # The console says OK even where the NIC found no switch, so the switch has to show it too.
        if len(self._switch.ports()) != ports + 1:
            raise StepFailed(f"eth1 of left has no port on the switch; the guest shows {shown!r}")
        return shown.replace("\\", "").replace("    ", " ")

    async def _halt(self, name: str) -> str:
        guest = self._guests[name]
        await guest.mconsole.halt()
        begin = time.monotonic()
        try:
            status = await asyncio.wait_for(guest.guest.wait(), _COMMAND_TIMEOUT)
        except TimeoutError:
            raise StepFailed(f"{name} did not end after halt") from None
        seconds = time.monotonic() - begin
        if status not in HALT_STATUSES:
            raise GuestFailed(name, status, guest.guest.console.text)
        return f"ended {seconds:.1f} s later"

    async def _command(self, name: str, command: str) -> str:
        """Run a command in a guest and return its output; a status other than 0 fails the step."""
        result = await self._guests[name].run(command, _COMMAND_TIMEOUT)
        output = escape(result.stdout + result.stderr)
        if result.status != 0:
            raise StepFailed(f"{name}: {command}: status {result.status}: {output.strip()}")
        return output

    async def _stop_guests(self) -> None:
        # They are halted, or have failed, or nobody waits for the rest: none has anything to put away.
        await asyncio.gather(*(guest.guest.stop(term_timeout=0) for guest in self._guests.values()))

    async def _check_nothing_left(self) -> str:
        left = [
            f"process group {guest.guest.pid}"
            for guest in self._guests.values()
            if group_members(guest.guest.pid)
        ]
        if self._directory.exists():
            left.append(str(self._directory))
        if left:
            raise StepFailed(f"left behind: {', '.join(left)}")
        return "no process, no socket, no file"
