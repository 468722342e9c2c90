"""The console's shell: a prompt with history, completion and a toolbar that never wait for a guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from umlab.cli.console_complete import ConsoleCompleter, Known
from umlab.cli.console_guest import Guests
from umlab.cli.console_page import shown_name
from umlab.cli.console_run import Manner, Runner
from umlab.cli.console_toolbar import toolbar
from umlab.client.console import GuestConsole, find_console
from umlab.client.find import Lookup
from umlab.daemon.place import state_base
from umlab.daemon.view import GuestVitals
from umlab.errors import LabError, UmlabError

#: No lab can have this name.
HISTORY_NAME = ".console_history"
#: Seconds between two looks at the present guest.
LOOK_INTERVAL = 5.0

_STYLE = Style.from_dict({"state.ok": "bg:ansigreen", "state.bad": "bg:ansired"})


async def run_shell(names: Sequence[str], uml_dirs: Sequence[str], manner: Manner, *, asks: bool) -> int:
    """Run what the user types until he leaves, and return the exit status.

    Args:
        names: The guests, the first one present; none for all that run.
        uml_dirs: Directories to look in beside the usual ones.
        manner: How lines are run.
        asks: Whether the user is asked before what is deadly.
    """
    lookup = Lookup(uml_dirs)
    guests = Guests([find_console(name, lookup) for name in names], uml_dirs)
    await Shell(guests, replace(manner, is_shell=True), asks=asks).run()
    return 0


class Shell:
    """One session.

    Args:
        guests: The guests.
        manner: How lines are run.
        asks: Whether the user is asked before what is deadly.
    """

    def __init__(self, guests: Guests, manner: Manner, *, asks: bool) -> None:
        self._guests = guests
        self._runner = Runner(guests, replace(manner, confirm=self._confirm if asks else None))
        self._states: dict[str, GuestVitals] = {}
        self._devices: dict[str, Mapping[str, str]] = {}
        self._processes: dict[str, Mapping[str, str]] = {}
        self._changed = asyncio.Event()
        depth = ColorDepth.MONOCHROME if os.environ.get("NO_COLOR") else None
        self._session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=ConsoleCompleter(self._known, self._look_for_processes),
            complete_while_typing=True,
            bottom_toolbar=self._toolbar,
            style=_STYLE,
            color_depth=depth,
        )
        self._question: PromptSession[str] = PromptSession(color_depth=depth)

    async def run(self) -> None:
        """Run lines until the user leaves."""
        await self._guests.refresh()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._runner.interrupt)
        looking = asyncio.create_task(self._keep_looking())
        try:
            while not self._runner.quitting:
                try:
                    line = await self._session.prompt_async(self._prompt, handle_sigint=False)
                except KeyboardInterrupt:
                    continue
                except EOFError:
                    return
                # Several that were pasted; what follows one that failed may need it.
                for each in line.split("\n"):
                    if not await self._runner.run(each) or self._runner.quitting:
                        break
                self._changed.set()
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    def _prompt(self) -> str:
        return f"{shown_name(self._guests.present) or '(no guest)'}> "

    def _present(self) -> GuestConsole | None:
        return self._guests.known.get(self._guests.present)

    def _toolbar(self) -> StyleAndTextTuples:
        name = self._guests.present
        return [*toolbar(name, self._present(), self._states.get(name))]

    def _known(self) -> Known:
        guests = {name: shown_name(guest.place) for name, guest in self._guests.known.items()}
        devices = self._devices.get(self._guests.present, {})
        return Known(guests, devices, self._processes.get(self._guests.present, {}))

    async def _confirm(self, question: str) -> bool:
        try:
            answer = await self._question.prompt_async(f"{shown_name(question)} [y/N] ", handle_sigint=False)
        except (KeyboardInterrupt, EOFError):
            return False
        return answer.strip().lower() in ("y", "yes")

    async def _keep_looking(self) -> None:
        while True:
            self._changed.clear()
            # What cannot be seen now, since there are no descriptors left, may be seen later.
            with contextlib.suppress(UmlabError, OSError):
                await self._guests.refresh()
                await self._look()
            self._session.app.invalidate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._changed.wait()

    async def _look(self) -> None:
        name, guest = self._guests.present, self._present()
        if guest is None:
            return
        state = await guest.vitals()
        self._states[name] = state
        self._runner.releases[name] = state.release or ""
        if state.is_current and (name not in self._devices or name in self._runner.touched):
            self._runner.touched.discard(name)
            # A guest that refuses has no more to tell.
            self._devices[name] = {}
            with contextlib.suppress(UmlabError):
                self._devices[name] = {each.name: shown_name(each.setting) for each in await guest.devices()}

    async def _look_for_processes(self) -> None:
        name, guest = self._guests.present, self._present()
        if guest is not None:
            found = []
            # Without an agent nobody knows.
            with contextlib.suppress(UmlabError):
                found = await guest.processes()
            self._processes[name] = {str(each.pid): shown_name(each.name) for each in found}


def _history() -> History:
    """Return the history of all sessions, in a file that nobody else can read, or one that is not kept."""
    try:
        directory = state_base()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / HISTORY_NAME
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except (OSError, LabError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"umlab: the history is not kept: {reason}", file=sys.stderr)
        return InMemoryHistory()
    return FileHistory(path)
