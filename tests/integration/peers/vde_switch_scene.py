"""Play one scene to a ``vde_switch``, the original or ours, and write down what it did.

The transcript is text: ``recorded/vde_switch`` has the original's, and ours is compared with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from integration.peers.uml_switch import UmlSwitch
from integration.peers.uml_switch_scene import repr_word
from integration.peers.vde_switch import VdeClient, VdeConsole, program_path, vde_switch
from support.deadline import wait_until_async

#: What differs from run to run, and what stands for it.
_VARIABLE = (
    (r"pid \d+", "pid PID"),
    (r"Current User: (?!NONE)\S+", "Current User: USER"),
    (r"MAC (?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC ADDRESS"),
    (r"uptime \d+", "uptime N"),
    (r"has \d+ bytes", "has N bytes"),
    (r"endpoint ID \d{4}", "endpoint ID NNNN"),
    (r"age \d+ secs", "age N secs"),
    (r"Hash: \d{4}", "Hash: NNNN"),
)


class Scene:
    """What a scene works with.

    Attributes:
        switch: The switch, ready, or ended where it refuses to start.
        directory: Where it runs; clients attach in its ``s``, its console is ``m``.
        notes: What was seen beside the switch's output.
    """

    def __init__(self, switch: UmlSwitch, directory: Path, terminal: int | None) -> None:
        self.switch = switch
        self.directory = directory
        self.notes: list[str] = []
        self._terminal = terminal
        self._console: VdeConsole | None = None
        self._clients = contextlib.ExitStack()
        self._serial = 0

    @property
    def console(self) -> VdeConsole:
        """The console, with one client."""
        if self._console is None:
            self._console = VdeConsole(self.directory / "m")
            self._clients.callback(self._console.close)
        return self._console

    def say(self, *commands: str | bytes) -> None:
        """Give commands on the console and note the replies."""
        for command in commands:
            shown = command if isinstance(command, str) else repr(command)
            self.notes += [f"> {shown}", *self.console.say(command).splitlines()]

    def attach(self, port_no: int = 0, description: bytes = b"") -> VdeClient:
        """Ask for a port and note which it is."""
        self._serial += 1
        client = VdeClient(self.directory / "s", f"client{self._serial}")
        self._clients.enter_context(client)
        name = client.ask(port_no, description or b"client %d" % self._serial)
        number = name.partition(b".")[0].decode()
        self.notes.append(f"client {self._serial} has {f'port {number}' if number else 'no port'}")
        return client

    async def leave(self, client: VdeClient, port_no: int) -> None:
        """End a client and wait until the console shows its port as unused."""
        client.close()
        await wait_until_async(
            lambda: f"Port {port_no:04d}" not in self.console.say("port/print"), 10, "the client left"
        )

    async def type_keys(self, keys: bytes) -> None:
        """Write to the switch's standard input."""
        if self._terminal is not None:
            os.write(self._terminal, keys)
        else:
            assert self.switch.process.stdin is not None
            self.switch.process.stdin.write(keys)
            await self.switch.process.stdin.drain()

    async def end_input(self) -> None:
        """End the switch's standard input, and wait for the switch."""
        if self._terminal is not None:
            os.write(self._terminal, b"\x04")
        else:
            assert self.switch.process.stdin is not None
            self.switch.process.stdin.close()
        await self.switch.wait()

    def note_files(self) -> None:
        """Note what lies in the directory, with permissions, once a console is answered."""
        assert self.console.greeting
        for path in sorted(self.directory.rglob("*")):
            self.notes.append(f"{path.relative_to(self.directory)} {stat.filemode(path.lstat().st_mode)}")

    def close(self) -> None:
        """Close every client and the terminal."""
        self._clients.close()
        if self._terminal is not None:
            os.close(self._terminal)


Act = Callable[[Scene], Awaitable[None]]
Prepare = Callable[[Path], Callable[[], None] | None]


async def nothing(scene: Scene) -> None:
    pass


def _prepare_nothing(directory: Path) -> None:
    """Leave the directory empty."""


@dataclass(frozen=True)
class Scenario:
    """One scene.

    Attributes:
        options: The switch's command line.
        act: What happens while it runs; afterwards its standard input ends unless it has.
        prepare: Puts things into its directory beforehand; may return what undoes it.
        terminal: Whether its standard input is a terminal instead of a pipe.
        empty_input: Whether its standard input is /dev/null.
        needs_root: Whether only root can see this.
    """

    options: tuple[str, ...]
    act: Act = nothing
    prepare: Prepare = _prepare_nothing
    terminal: bool = False
    empty_input: bool = False
    needs_root: bool = False


async def play(which: str, scenario: Scenario) -> str:
    """Play a scene to a switch and return its transcript.

    Args:
        which: ``original`` or ``ours``.
        scenario: The scene.

    Returns:
        Lines that name their source, with names for what differs from run to run.
    """
    with _directory() as directory:
        undo = scenario.prepare(directory)
        before = set(os.listdir(directory))
        terminal, stdin = None, asyncio.subprocess.PIPE
        if scenario.terminal:
            terminal, stdin = pty.openpty()
        elif scenario.empty_input:
            stdin = asyncio.subprocess.DEVNULL
        ready = [directory / name for name in ("s/ctl", *(["m"] if "-M" in scenario.options else []))]
        async with vde_switch(which, scenario.options, cwd=directory, stdin=stdin, ready=ready) as switch:
            if scenario.terminal:
                os.close(stdin)
            scene = Scene(switch, directory, terminal)
            try:
                if switch.process.returncode is None and not scenario.empty_input:
                    await scenario.act(scene)
                    if switch.process.returncode is None:
                        await scene.end_input()
                status = await switch.wait()
            finally:
                scene.close()
                if undo is not None:
                    undo()
        lines = [f"$ vde_switch {' '.join(map(repr_word, scenario.options))}".rstrip()]
        lines += [f"stdout: {line}" for line in switch.stdout]
        lines += [f"stderr: {line}" for line in switch.stderr]
        lines += [f"seen: {note}" for note in scene.notes]
        lines += [f"status: {status}" if status >= 0 else f"signal: {-status}"]
        lines += [f"left: {line}" for line in _listing(directory, before)]
        text = "".join(f"{line}\n" for line in lines)
        text = text.replace(str(program_path(which)), "vde_switch").replace(str(directory), "DIR")
        for pattern, name in _VARIABLE:
            text = re.sub(pattern, name, text)
        return text


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="vde"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _listing(directory: Path, before: set[str]) -> list[str]:
    lines = [
        f"{stat.filemode(path.lstat().st_mode)} {repr_word(path.name)}"
        for path in sorted(directory.iterdir())
    ]
    gone = before - set(os.listdir(directory))
    return lines + [f"{name} is gone" for name in sorted(gone)]


def send_signal(number: signal.Signals) -> Act:
    """Return what sends a signal that ends the switch, and waits for that."""

    async def act(scene: Scene) -> None:
        scene.switch.signal(number)
        await scene.switch.wait()

    return act
