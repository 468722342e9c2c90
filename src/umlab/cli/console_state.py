"""How the present guest is, for the toolbar of the console's shell."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass

from umlab.cli.console_page import shown_name
from umlab.client.console import GuestConsole
from umlab.errors import (
    ApiTimeout,
    LabNotRunning,
    MconsoleTimeout,
    MconsoleUnreachable,
    NoSuchGuest,
    UmlabError,
)
from umlab.mconsole.command import Command
from umlab.mconsole.reading import parse_loadavg, parse_version

#: Seconds in which a guest has to answer to count as one that does.
ANSWER_TIME = 2.0
#: Seconds in which its lab's daemon has to tell what it answered.
_TOLD_TIME = ANSWER_TIME + 1.0
#: Characters of a release that the toolbar has room for.
_MAX_WORD = 32
#: Seconds in which a kernel that runs is done with what an answer makes it do.
_PAUSE = 0.1

_SWITCHES = re.compile(r"^ctxt (\d+)$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GuestState:
    """What is known of a guest.

    Attributes:
        word: ``answers``, ``stopped``, ``silent``, ``garbled`` (its answer makes no sense),
            ``dead``, or ``?`` before anything is known.
        release: Its kernel's, untrusted; empty where it is not known.
        load: Its load of 1, 5 and 15 minutes; empty where it is not known.
    """

    word: str = "?"
    release: str = ""
    load: str = ""


async def look(guest: GuestConsole) -> GuestState:
    """Ask a guest how it is.

    One that is stopped answers all the same, but without a switch of context; every other one makes some
    for each answer.  Of one whose daemon hangs nothing is known: it is silent, too.

    Source: Linux arch/um/drivers/mconsole_kern.c, ``mconsole_stop``.
    """
    try:
        async with asyncio.timeout(_TOLD_TIME):
            release = parse_version(await guest.run(Command("version", ANSWER_TIME))).release[:_MAX_WORD]
    except (MconsoleUnreachable, NoSuchGuest, LabNotRunning):
        return GuestState("dead")
    except (MconsoleTimeout, ApiTimeout, TimeoutError):
        return GuestState("silent")
    except UmlabError:
        return GuestState("garbled")
    load, switches = "", []
    # Not every kernel can tell these.
    with suppress(UmlabError):
        average = parse_loadavg(await guest.run(Command("proc loadavg", ANSWER_TIME, "\n")))
        load = f"{average.one:.2f} {average.five:.2f} {average.fifteen:.2f}"
    with suppress(UmlabError):
        for pause in (0, _PAUSE):
            await asyncio.sleep(pause)
            switches.append(_SWITCHES.findall(await guest.run(Command("proc stat", ANSWER_TIME, "\n"))))
    is_stopped = len(switches) == 2 and switches[0] == switches[1] != []
    return GuestState("stopped" if is_stopped else "answers", release, load)


def toolbar(name: str, guest: GuestConsole | None, state: GuestState) -> list[tuple[str, str]]:
    """Return what the toolbar says, as pieces of text with their styles.

    Args:
        name: The guest's, as it is called here.
        guest: The present guest, ``None`` for none.
        state: How it is.
    """
    if guest is None:
        return [("", " no guest; choose one with: switch NAME ")]
    lab = f"lab {shown_name(guest.lab)}" if guest.lab else "no lab"
    parts = [("bold", f" {shown_name(name)} "), ("", f" {lab} ")]
    parts.append((f"class:state.{'ok' if state.word == 'answers' else 'bad'}", f" {state.word} "))
    if state.release:
        parts.append(("", f" {shown_name(state.release)} "))
    if state.load:
        parts.append(("", f" load {shown_name(state.load)} "))
    return parts
