"""What may come next in a line of the console's shell."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from umlab.cli.console_line import ALL, MARK
from umlab.cli.console_verb import DEVICES, PROC_FILES, VERBS
from umlab.mconsole.sysrq import KEYS

#: A line that is about to name a file.
_FILE = re.compile(r"\s*(?:@\S*\s+)?log\s+-f\s+(.*)")

#: What makes a name mean others, or several, behind the mark.
_NOT_PLAIN = re.compile(r"[\s,*?\[]")

#: A line that is about to name a process of the present guest: it is looked for once, not for each digit.
_PROCESS = re.compile(r"\s*stack\s+")


@dataclass(frozen=True, slots=True)
class Known:
    """What can be named.

    Attributes:
        guests: Guests, each with where it is.
        devices: Devices of the present guest, each with what it is.
        processes: Processes of the present guest, each pid with its name.
    """

    guests: Mapping[str, str]
    devices: Mapping[str, str]
    processes: Mapping[str, str] = field(default_factory=dict)


def candidates(text: str, known: Known) -> tuple[str, dict[str, str]]:
    """Return what is being typed at the end of a line, and what it may become, with what each means.

    Args:
        text: The line up to the cursor.
        known: What can be named.
    """
    text = text.lstrip()
    local = True
    if text.startswith(MARK):
        selector, blank, text = text.partition(" ")
        typed = selector.removeprefix(MARK).rpartition(",")[2]
        if not blank:
            plain = {name: place for name, place in known.guests.items() if not _NOT_PLAIN.search(name)}
            return typed, _beginning(typed, {**plain, ALL: "every guest"})
        text, local = text.lstrip(), False
    verb, blank, rest = text.partition(" ")
    if not blank:
        verbs = {name: each.does for name, each in VERBS.items() if local or not each.local}
        return verb, _beginning(verb, verbs)
    typed = rest.lstrip()
    return typed, _beginning(typed, _arguments(verb, known) if local or not _is_local(verb) else {})


def _is_local(verb: str) -> bool:
    return verb in VERBS and VERBS[verb].local


def _arguments(verb: str, known: Known) -> Mapping[str, str]:
    devices = {**DEVICES, **known.devices}
    match verb:
        case "proc":
            return PROC_FILES
        case "sysrq":
            return {letter: f"{key.does}{' (deadly)' if key.kills else ''}" for letter, key in KEYS.items()}
        case "config":
            return devices
        case "remove":
            return known.devices or devices
        case "switch":
            return known.guests
        case "help":
            return {name: each.does for name, each in VERBS.items()}
        case "log":
            return {"-f": "the lines of a file"}
        case "stack":
            return known.processes
        case _:
            return {}


def _beginning(typed: str, words: Mapping[str, str]) -> dict[str, str]:
    return {word: does for word, does in words.items() if word.startswith(typed) and word.isprintable()}


class ConsoleCompleter(Completer):
    """Completes lines.

    Args:
        known: Returns what can be named now.
        look: Looks for the processes of the present guest, which are known afterwards if it tells them.
    """

    def __init__(self, known: Callable[[], Known], look: Callable[[], Awaitable[None]]) -> None:
        self._known = known
        self._look = look
        self._paths = PathCompleter(expanduser=True)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Yield what `get_completions` returns; nobody waits for it who types on."""
        if _PROCESS.fullmatch(document.text_before_cursor):
            await self._look()
        for completion in self.get_completions(document, complete_event):
            yield completion

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what the word before the cursor may become."""
        text = document.text_before_cursor
        if file := _FILE.fullmatch(text):
            yield from self._paths.get_completions(Document(file[1]), complete_event)
            return
        typed, words = candidates(text, self._known())
        for word, does in words.items():
            yield Completion(word, -len(typed), display_meta=does)
