"""Play one scene to a ``uml_switch``, the original or ours, and write down what it did.

The transcript is text: ``recorded/uml_switch`` has the original's, and ours is compared with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pty
import shutil
import signal
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from integration.peers.uml_switch import UmlSwitch, program_path, uml_switch


class Scene:
    """What a scene works with.

    Attributes:
        switch: The switch, attached, or ended where it refuses to start.
        directory: Where it runs; its control socket is ``ctl`` in there.
        notes: What was seen beside the switch's output.
    """

    def __init__(self, switch: UmlSwitch, directory: Path, terminal: int | None) -> None:
        self.switch = switch
        self.directory = directory
        self.notes: list[str] = []
        self._terminal = terminal
        self._guests = contextlib.ExitStack()

    def new_guest(self, control: str = "ctl") -> FakeGuest:
        """Connect a guest that has not asked for anything."""
        # v0 guests and the ones that never get a reply need the data socket's path.
        data = self.directory / "data"
        return self._guests.enter_context(FakeGuest(self.directory / control, data))

    async def attach(self, version: int = 3) -> FakeGuest:
        """Attach a guest and wait for the line that says so."""
        connected = self.switch.stdout.count("New connection")
        guest = self.new_guest().attach(version)
        await self.switch.wait_line("New connection", connected + 1)
        return guest

    async def teach(self, guest: FakeGuest, number: int) -> None:
        """Let the switch learn ``mac(number)`` behind a guest; every other guest must read one frame."""
        guest.send(frame(BROADCAST, mac(number)))
        await self.switch.wait_line(f"Addr: 02:00:00:00:00:{number:02x} New port")

    def note_stream(self, guest: FakeGuest) -> None:
        """Note whether the guest's control stream still stands."""
        guest.stream.setblocking(False)
        try:
            state = "closed" if guest.stream.recv(200) == b"" else "answered"
        except BlockingIOError:
            state = "still open"
        except ConnectionResetError:
            state = "closed"
        self.notes.append(f"control stream {state}")

    def type_keys(self, keys: bytes) -> None:
        """Type on the switch's terminal."""
        assert self._terminal is not None
        os.write(self._terminal, keys)

    def hang_up(self) -> None:
        """Close the switch's terminal."""
        assert self._terminal is not None
        os.close(self._terminal)
        self._terminal = None

    def close(self) -> None:
        """Close every guest and the terminal."""
        self._guests.close()
        if self._terminal is not None:
            self.hang_up()


Act = Callable[[Scene], Awaitable[None]]
Prepare = Callable[[Path], Callable[[], None]]


async def nothing(scene: Scene) -> None:
    pass


def _preparenothing(directory: Path) -> Callable[[], None]:
    return lambda: None


@dataclass(frozen=True)
class Scenario:
    """One scene.

    Attributes:
        options: The switch's command line.
        act: What happens while it runs; afterwards it gets SIGINT unless it has ended.
        prepare: What lies in its directory beforehand; returns what undoes it.
        terminal: Whether its standard input is a terminal instead of /dev/null.
        needs_root: Whether only root can see this.
    """

    options: tuple[str, ...]
    act: Act = nothing
    prepare: Prepare = _preparenothing
    terminal: bool = False
    needs_root: bool = False


async def play(which: str, scenario: Scenario) -> str:
    """Play a scene to a switch and return its transcript.

    Args:
        which: ``original`` or ``ours``.
        scenario: The scene.

    Returns:
        Lines that name their source; the program's path is ``uml_switch`` in them.
    """
    with _directory() as directory:
        undo = scenario.prepare(directory)
        before = set(os.listdir(directory))
        terminal, stdin = pty.openpty() if scenario.terminal else (None, asyncio.subprocess.DEVNULL)
        try:
            async with uml_switch(which, scenario.options, cwd=directory, stdin=stdin) as switch:
                if scenario.terminal:
                    os.close(stdin)
                scene = Scene(switch, directory, terminal)
                try:
                    if switch.process.returncode is None:
                        await scenario.act(scene)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        if switch.process.returncode is None:
                            switch.signal(signal.SIGINT)
                    status = await switch.wait()
                    scene.close()
        finally:
            undo()
        name = str(program_path(which))
        lines = [f"$ uml_switch {' '.join(map(repr_word, scenario.options))}".rstrip()]
        lines += [f"stdout: {line}" for line in switch.stdout]
        lines += [f"stderr: {line}" for line in _without_repetition(switch.stderr)]
        lines += [f"seen: {note}" for note in scene.notes]
        lines += [f"status: {status}" if status >= 0 else f"signal: {-status}"]
        lines += [f"left: {line}" for line in _listing(directory, before)]
        return "".join(line.replace(name, "uml_switch") + "\n" for line in lines)


def repr_word(word: str) -> str:
    """Return a word of a command line as a reader can tell it: long ones cut, the empty one quoted."""
    return "''" if not word else word if len(word) < 40 else f"{word[:8]}...({len(word)} bytes)"


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _without_repetition(lines: list[str]) -> Iterator[str]:
    """Yield lines, runs of failed sends as one: how many frames a socket holds depends on the kernel."""
    for line, run in itertools.groupby(lines):
        yield from [line] if line.startswith("send_sock") else run


def _listing(directory: Path, before: set[str]) -> list[str]:
    lines = []
    for path in sorted(directory.iterdir()):
        mode = path.lstat().st_mode
        kind = "socket" if stat.S_ISSOCK(mode) else "directory" if stat.S_ISDIR(mode) else "file"
        lines.append(f"{kind} {repr_word(path.name)}")
    gone = before - set(os.listdir(directory))
    return lines + [f"{name} is gone" for name in sorted(gone)]
