"""The stop ladder that joins a guest and its console, with doubles for both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from support.deadline import scaled
from umlab._boot import Boot
from umlab.daemon.guest import GuestService
from umlab.errors import MconsoleTimeout, UmlabError
from umlab.guest.cmdline import DiskRoot, TinyRoot
from umlab.guest.inside.agent import ExecResult
from umlab.guest.process import Rung, StopReport

DISK = DiskRoot("/nowhere.img")


class Console:
    """A management console that records what it is asked, and does not answer when ``silent``."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.asked: list[str] = []

    async def cad(self) -> str:
        return self._answer("cad")

    async def halt(self) -> str:
        return self._answer("halt")

    def _answer(self, command: str) -> str:
        self.asked.append(command)
        if self.silent:
            raise MconsoleTimeout("g", command, "")
        return ""


class Guest:
    """Takes every rung as the real one does, and never ends before SIGKILL."""

    def __init__(self, root: TinyRoot | DiskRoot) -> None:
        self.spec = SimpleNamespace(umid="g", root=root)
        self.run = SimpleNamespace(mconsole_path="/nowhere")
        self.agent = Agent()
        self.console = Output()
        self.boot: Boot | None = Boot(1, 0)
        self.rungs: list[str] = []

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Be ready at once."""

    async def stop(self, rungs: Sequence[Rung]) -> StopReport:
        for rung in rungs:
            self.rungs.append(rung.name)
            try:
                await rung.action()
            except UmlabError:
                continue
        return StopReport("kill", -9)


class Output:
    """What a guest prints, which a test says."""

    def __init__(self) -> None:
        self.said = asyncio.Event()

    async def wait_for(self, text: bytes) -> None:
        await self.said.wait()


class Agent:
    """Runs every command at once."""

    async def run(self, command: str, timeout: float) -> ExecResult:  # noqa: ASYNC109
        return ExecResult(0, b"", b"")


def service(silent: bool, root: TinyRoot | DiskRoot = DISK) -> tuple[GuestService, Any, Any]:
    guest: Any = Guest(root)
    made = GuestService(guest)
    console: Any = Console(silent)
    made.mconsole = console
    return made, guest, console


@pytest.mark.parametrize("silent", [False, True])
async def test_console_is_asked_twice_only_when_it_answers(silent: bool) -> None:
    made, guest, console = service(silent)
    assert (await made.stop()).rung == "kill"
    assert guest.rungs == ["cad", "halt"]
    assert console.asked == (["cad"] if silent else ["cad", "halt"])


async def test_console_that_answers_again_is_asked_again() -> None:
    made, _, console = service(silent=True)
    await made.stop()
    console.silent = False
    await made.stop()
    assert console.asked == ["cad", "cad", "halt"]


async def test_leaving_the_block_stops() -> None:
    made, guest, _ = service(silent=False)
    async with made:
        assert made.umid == "g"
        assert guest.rungs == []
    assert guest.rungs == ["cad", "halt"]


async def test_tiny_root_that_was_never_ready_is_not_asked_to_end_its_programs() -> None:
    """Its kernel takes ctrl-alt-del for a reboot before init asks for the signal: 10 seconds were lost."""
    made, guest, console = service(silent=False, root=TinyRoot())
    await made.stop()
    assert guest.rungs == ["cad", "halt"]
    assert console.asked == ["halt"]


@pytest.mark.parametrize("sign", ["ready", "run"])
async def test_tiny_root_that_has_booted_is_asked_to_end_its_programs(sign: str) -> None:
    made, _, console = service(silent=False, root=TinyRoot())
    if sign == "ready":
        await made.ready(1)
    else:
        assert (await made.run("true", 1)).status == 0
    await made.stop()
    assert console.asked == ["cad", "halt"]


@pytest.mark.parametrize("sign", ["said", "rebooted"])
async def test_asking_the_programs_to_end_is_done_when_they_have(sign: str) -> None:
    """An image's own init takes ctrl-alt-del for a reboot: the second boot is not waited for."""
    made, guest, _ = service(silent=False)
    went_down = asyncio.ensure_future(made._went_down())
    await asyncio.sleep(0)
    guest.boot = None
    done, _ = await asyncio.wait([went_down], timeout=0.5)
    assert not done
    if sign == "said":
        guest.console.said.set()
    else:
        guest.boot = Boot(2, 0)
    await asyncio.wait_for(went_down, scaled(5))
