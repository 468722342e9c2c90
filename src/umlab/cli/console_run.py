"""What a line of the console does: something here, or a command for one guest or many."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from umlab.cli import console_page
from umlab.cli.console_guest import Guests
from umlab.cli.console_line import Line, parse_line
from umlab.cli.console_verb import VERBS, danger, help_lines
from umlab.cli.output import Output
from umlab.cli.page import Page, Table, print_plain
from umlab.errors import LabError, UmlabError
from umlab.mconsole.command import Command
from umlab.mconsole.fleet import AsyncFleet, Console, Outcome
from umlab.mconsole.line import LOG_PIECE, absolute_disks, log_pieces, log_requests

T = TypeVar("T")

#: Asks the user before something is sent.
Confirm = Callable[[str], Awaitable[bool]]

#: Seconds of waiting after which it is told how far things are, and how often then.
PROGRESS_TIME, _PROGRESS_INTERVAL = 1.0, 0.25
_NOT_WAITED_FOR = "not waited for"
#: Names of guests that a question lists.
_MAX_ASKED = 4


@dataclass(frozen=True, slots=True)
class Manner:
    """How lines are run, and what comes is shown.

    Attributes:
        as_json: Answers are for programs.
        is_shell: Somebody types and sees OK and ERR; otherwise a lone guest's answer is printed as it is, and
            what goes wrong is told on standard error.
        timeout: Seconds for each answer, by default what suits the command.
        confirm: Asks before what is known to end guests; ``None`` where nobody is to be asked.
    """

    as_json: bool = False
    is_shell: bool = False
    timeout: float | None = None
    confirm: Confirm | None = None


class Runner:
    """Runs lines.

    Args:
        guests: Whom they are for.
        manner: How.

    Attributes:
        guests: See above.
        quitting: Whether the user wants to leave.
        touched: Names of guests whose devices may have changed.
        releases: The kernels of guests, by name, as far as they are known.
    """

    def __init__(self, guests: Guests, manner: Manner) -> None:
        self.guests = guests
        self.quitting = False
        self.touched: set[str] = set()
        self.releases: dict[str, str] = {}
        self._manner = manner
        self._output = Output(as_json=manner.as_json)
        self._waiting: asyncio.Future[Any] | None = None
        self._local: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "help": self._help,
            "guests": self._list,
            "switch": self._switch,
            "mconsole-version": self._version,
            "quit": self._quit,
            "exit": self._quit,
        }

    async def run(self, text: str) -> bool:
        """Run a line and show what comes of it; return whether all went well."""
        line = parse_line(text)
        try:
            if line.patterns is None and (local := self._local.get(line.verb)):
                await self._until_interrupted(local(line.rest))
                return True
            if line.patterns is None and not line.text:
                return True
            if not line.text:
                raise LabError(f"write a command behind {text.strip()}")
            outcomes = await self.ask(await self._until_interrupted(self._meant(line)), line)
        except UmlabError as error:
            console_page.complain(str(error))
            return False
        return outcomes is not None and all(outcome.error is None for outcome in outcomes)

    def interrupt(self) -> None:
        """Wait no longer for what has not come."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def ask(self, guests: Mapping[str, Console], line: Line) -> list[Outcome] | None:
        """Run a command in guests and show their answers, in the order of the guests.

        Returns:
            What came; ``None`` if the user does not want it sent.

        Raises:
            LabError: A file that the command names cannot be read.
        """
        does = danger(line.text, [self.releases.get(name, "") for name in guests])
        if does and self._manner.confirm:
            names = ", ".join(guests) if len(guests) <= _MAX_ASKED else f"{len(guests)} guests"
            if not await self._manner.confirm(f"{line.text}: {does}. Send it to {names}?"):
                return None
        results: dict[str, Outcome] = {}
        left = dict(guests)
        for command in _commands(line, self._manner.timeout):
            for outcome in await self._gather(left, command):
                earlier = results.get(outcome.umid)
                seconds = outcome.seconds + (earlier.seconds if earlier else 0)
                results[outcome.umid] = replace(outcome, seconds=seconds)
                if outcome.error is not None:
                    del left[outcome.umid]
            if not left:
                break
        outcomes = [results[name] for name in guests]
        if line.verb in ("config", "remove"):
            self.touched |= set(guests)
        self._show(guests, outcomes, alone=line.patterns is None and len(guests) == 1)
        return outcomes

    async def _until_interrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something here that may have to wait for a daemon."""
        self._waiting = waiting = asyncio.ensure_future(work)
        try:
            await asyncio.wait({waiting})
        finally:
            self._waiting = None
            waiting.cancel()
        if waiting.cancelled():
            raise LabError(_NOT_WAITED_FOR)
        return waiting.result()

    async def _meant(self, line: Line) -> Mapping[str, Console]:
        if line.patterns is not None:
            return await self.guests.choose(line.patterns)
        if not self.guests.present:
            raise LabError("no guest is chosen; choose one with: switch NAME, or ask several with: @NAMES")
        return {self.guests.present: self.guests.known[self.guests.present]}

    async def _gather(self, guests: Mapping[str, Console], command: Command) -> list[Outcome]:
        come: dict[str, Outcome] = {}

        async def gather() -> None:
            async with aclosing(AsyncFleet(guests).stream(command)) as outcomes:
                async for outcome in outcomes:
                    come[outcome.umid] = outcome

        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._waiting = waiting = asyncio.ensure_future(gather())
        shows_progress = sys.stderr.isatty() and sys.stdout.isatty()
        try:
            done, _ = await asyncio.wait({waiting}, timeout=PROGRESS_TIME)
            while not done:
                if shows_progress:
                    told = f"{len(come)} of {len(guests)} answered in {loop.time() - begin:.0f} s"
                    print(f"\r\x1b[K{told}; Ctrl-C stops waiting", end="", file=sys.stderr, flush=True)
                done, _ = await asyncio.wait({waiting}, timeout=_PROGRESS_INTERVAL)
        finally:
            if shows_progress and loop.time() - begin >= PROGRESS_TIME:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._waiting = None
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        if not waiting.cancelled():
            waiting.result()
        given_up = Outcome("", None, LabError(_NOT_WAITED_FOR), loop.time() - begin)
        return [come.get(name) or replace(given_up, umid=name) for name in guests]

    def _show(self, guests: Mapping[str, Console], outcomes: Sequence[Outcome], *, alone: bool) -> None:
        if self._manner.as_json:
            for outcome in outcomes:
                self._output.record(console_page.record(guests[outcome.umid], outcome), "")
        elif not alone:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            console_page.write(console_page.answers(outcomes, width), self._output)
        elif self._manner.is_shell:
            console_page.write(console_page.answer(outcomes[0]), self._output)
        elif outcomes[0].error is not None:
            console_page.complain(str(outcomes[0].error))
        elif outcomes[0].output:
            self._output.record({}, console_page.shown(outcomes[0].output).removesuffix("\n"))

    async def _help(self, rest: str) -> None:
        if rest and rest not in VERBS:
            raise LabError(f"there is no command {rest}; see all with: help")
        for line in help_lines(rest):
            self._output.progress(line)

    async def _list(self, rest: str) -> None:
        await self.guests.refresh()
        known = self.guests.known.items()
        records = [{"guest": guest.name, "lab": guest.lab, "path": guest.path} for _, guest in known]
        rows = [
            ("*" if name == self.guests.present else "", *map(console_page.shown_name, (name, guest.place)))
            for name, guest in known
        ]
        print_plain(
            Page(records, [Table(("", "GUEST", "PLACE"), rows)] if rows else ["no guest runs"]), self._output
        )

    async def _switch(self, rest: str) -> None:
        if not rest:
            raise LabError("name the guest: switch NAME; see them with: guests")
        await self.guests.switch(rest)

    async def _version(self, rest: str) -> None:
        self._output.progress("uml_mconsole client version 2")

    async def _quit(self, rest: str) -> None:
        self.quitting = True


def _commands(line: Line, timeout: float | None) -> Iterator[Command]:
    """Return what is sent for a line, one after another."""
    if line.verb == "log":
        for request in log_requests(_log_text(line.rest)):
            yield Command(os.fsdecode(request), timeout)
    else:
        text = os.fsdecode(absolute_disks(os.fsencode(line.text), _absolute))
        # The kernel puts a line's end before a file of its own.
        yield Command(text, timeout, prefix="\n" if line.verb == "proc" else "")


def _log_text(rest: str) -> Iterator[bytes]:
    option, _, path = rest.partition(" ")
    if option != "-f":
        yield from log_pieces(os.fsencode(rest))
        return
    path = os.path.expanduser(path.strip())
    try:
        with open(path, "rb", buffering=0) as file:
            yield from iter(lambda: file.read(LOG_PIECE), b"")
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None


def _absolute(name: bytes) -> bytes:
    directory, own = os.path.split(name)
    try:
        return os.path.join(os.path.realpath(directory or b".", strict=True), own)
    except OSError as error:
        raise LabError(f"cannot use the directory of {os.fsdecode(name)}: {error.strerror}") from None
