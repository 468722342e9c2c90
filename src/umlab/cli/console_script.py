"""The console without a shell: one command, or the lines of standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from umlab._readable import readable
from umlab.cli.console_guest import Guests
from umlab.cli.console_line import ALL, Line, parse_line
from umlab.cli.console_page import shown_name
from umlab.cli.console_run import Manner, Runner
from umlab.cli.exit_status import EXIT_ERROR, EXIT_NOT_RUNNING, exit_status
from umlab.client.console import find_console, labelled, running_guests
from umlab.client.find import Lookup
from umlab.errors import UmlabError
from umlab.mconsole.command import Command
from umlab.mconsole.fleet import Console, Outcome

_READ_SIZE = 64 * 1024


class _Unfound:
    """Stands for a guest that is not to be found, whatever it is asked."""

    def __init__(self, error: UmlabError) -> None:
        self._error = error

    async def run(self, command: Command) -> str:
        raise self._error


async def ask(names: Sequence[str], uml_dirs: Sequence[str], text: str, manner: Manner, *, asks: bool) -> int:
    """Ask guests one command and return the exit status.

    Args:
        names: The guests; none for all that run.
        uml_dirs: Directories to look in beside the usual ones.
        text: The command, behind `@NAMES` for those of them alone.
        manner: How it is asked.
        asks: Whether the user is asked before what is deadly.
    """
    line, lookup = parse_line(text), Lookup(uml_dirs)
    guests: Mapping[str, Console]
    if line.patterns is not None:
        guests = await Guests([find_console(name, lookup) for name in names], uml_dirs).choose(line.patterns)
    else:
        line = Line(None if len(names) == 1 else (ALL,), text)
        missing: dict[str, Console] = {}
        found = [] if names else await running_guests(uml_dirs)
        for name in names:
            try:
                found.append(find_console(name, lookup))
            except UmlabError as error:
                missing[name] = _Unfound(error)
        guests = {**labelled(found), **missing}
    if not guests:
        print("umlab: no guest runs", file=sys.stderr)
        return EXIT_NOT_RUNNING
    runner = Runner(Guests(), replace(manner, confirm=_confirm if asks else None))
    outcomes = await runner.ask(guests, line)
    return EXIT_ERROR if outcomes is None else _status(outcomes)


async def run_lines(names: Sequence[str], uml_dirs: Sequence[str], manner: Manner) -> int:
    """Run the lines of standard input and return the exit status, 1 if any of them failed.

    Args:
        names: The guests, the first one present; none for all that run.
        uml_dirs: Directories to look in beside the usual ones.
        manner: How lines are run.
    """
    lookup = Lookup(uml_dirs)
    guests = Guests([find_console(name, lookup) for name in names], uml_dirs)
    await guests.refresh()
    runner = Runner(guests, manner)
    status = 0
    async for line in _lines():
        if not await runner.run(line):
            status = EXIT_ERROR
        if runner.quitting:
            break
    return status


def _status(outcomes: Sequence[Outcome]) -> int:
    """Return the exit status: an error that a guest answered counts more than a guest that does not run."""
    statuses = {exit_status(outcome.error) for outcome in outcomes if outcome.error is not None}
    # Of the two kinds of failure the answer has the lower one.
    return min(statuses, default=0)


async def _confirm(question: str) -> bool:
    print(f"{shown_name(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    # A signal ends this, too.
    await readable(0)
    return os.read(0, _READ_SIZE).strip().lower() in (b"y", b"yes")


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input, without making it non-blocking: others may share it."""
    rest = b""
    while True:
        # A file cannot be waited for, and has everything at once.
        with suppress(PermissionError):
            await readable(0)
        data = os.read(0, _READ_SIZE)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield os.fsdecode(line)
        if not data:
            if rest:
                yield os.fsdecode(rest)
            return
