"""``umlab guest stack`` and ``umlab guest sysrq``: what a guest's kernel prints when it is asked to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import AsJson, GuestName, UmlDirs
from umlab.cli.output import Output
from umlab.mconsole.sysrq import KEYS, kills

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from umlab.client.find import GuestPlace
    from umlab.daemon.kernel import Kernel

STACK_EPILOG = """
Examples:

  umlab guest stack left 1

  umlab guest stack /tmp/uml/old 1
"""

SYSRQ_EPILOG = """
Examples:

  umlab guest sysrq left

  umlab guest sysrq left m

  umlab guest sysrq left b --yes
"""

#: What a kernel says instead of a stack,
_NO_STACK = "Received SIGSEGV in SIGSEGV handler"
#: and what that means.  Source: Linux arch/um/kernel/sysrq.c.
_NO_STACK_MEANS = (
    "the guest was busy: its kernel took the request on its signal stack, where it takes a look at any stack "
    "for a fault of its own. Nothing is wrong; ask when it idles, or between stop and go of its console"
)


def _letters(incomplete: str) -> list[tuple[str, str]]:
    return [(key.letter, key.does) for key in KEYS.values() if key.letter.startswith(incomplete)]


def stack(
    name: GuestName,
    pid: Annotated[
        int, typer.Argument(min=1, metavar="PID", help="A process of the guest.", show_default=False)
    ],
    uml_dir: UmlDirs = None,
    as_json: AsJson = False,
) -> None:
    """Print the kernel stack of a process in a guest, one that umlab did not start as well."""
    from umlab.client.find import find_guest
    from umlab.client.sync import Client

    place = find_guest(name, uml_dir or ())
    if place.lab is None:
        answer = _direct(place, lambda kernel: kernel.stack(pid))
    else:
        with Client(place.lab) as client:
            answer = client.stack(place.umid, pid)
    _print(answer, place, {"pid": pid}, as_json)
    if _NO_STACK in answer:
        typer.echo(f"umlab: {_NO_STACK_MEANS}", err=True)


def sysrq(
    name: GuestName,
    letter: Annotated[
        str | None,
        typer.Argument(
            metavar="LETTER",
            help="One small letter or digit, such as m; without one they are listed.",
            autocompletion=_letters,
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before letters that kill.")] = False,
    uml_dir: UmlDirs = None,
    as_json: AsJson = False,
) -> None:
    """Send a magic sysrq to a guest's kernel and print what it answers.

    The guest's console is made to let everything through meanwhile. A digit sets what it lets through for
    good.
    """
    from umlab.client.find import find_guest
    from umlab.client.sync import Client
    from umlab.errors import MconsoleUnreachable

    if letter is None:
        _list_letters(Output(as_json=as_json))
        return
    if not re.fullmatch(r"[0-9a-z]", letter):
        raise typer.BadParameter(f"{letter!r} is not one small letter or digit")
    place = find_guest(name, uml_dir or ())
    if not yes and kills(letter) and kills(letter, _release(place)):
        question = f"sysrq {letter} may end {_shown(place.umid)} or its programs. Send it?"
        typer.confirm(question, abort=True, err=True)
    deadly, ended = letter in KEYS and KEYS[letter].kills == "guest", False
    try:
        if place.lab is None:
            answer = _direct(place, lambda kernel: kernel.sysrq(letter))
        else:
            with Client(place.lab) as client:
                answer = client.sysrq(place.umid, letter)
    except MconsoleUnreachable as error:
        # It is what was asked for.
        if not deadly or error.said is None:
            raise
        answer, ended = error.said, True
    _print(answer, place, {"letter": letter, "ended": ended}, as_json)
    if ended:
        typer.echo(f"umlab: guest {_shown(place.umid)} has ended{', to reboot' * (letter == 'b')}", err=True)


def _direct(place: GuestPlace, ask: Callable[[Kernel], Coroutine[Any, Any, str]]) -> str:
    """Ask a guest that no daemon speaks for."""
    from umlab.cli.interrupt import run_interruptible
    from umlab.daemon.kernel import Kernel

    return run_interruptible(ask(Kernel(str(place.path), place.umid)))


def _release(place: GuestPlace) -> str:
    """Return a guest's kernel release, empty where it does not tell."""
    from umlab.client.sync import Client
    from umlab.errors import MconsoleError
    from umlab.mconsole.reading import VERSION
    from umlab.mconsole.sync import Mconsole

    if place.lab is not None:
        with Client(place.lab) as client:
            return client.vitals(place.umid).release or ""
    try:
        return Mconsole(str(place.path), place.umid).read(VERSION).release
    except MconsoleError:
        return ""


def _list_letters(output: Output) -> None:
    from umlab.cli.page import Page, Table, print_plain

    records = [key._asdict() for key in KEYS.values()]
    rows = [(key.letter, key.kills or "-", key.does) for key in KEYS.values()]
    print_plain(Page(records, [Table(("LETTER", "KILLS", "DOES"), rows)]), output)


def _print(answer: str, place: GuestPlace, facts: dict[str, Any], as_json: bool) -> None:
    record = {"lab": place.lab, "guest": place.umid, **facts, "output": answer}
    Output(as_json=as_json).record(record, _shown(answer).rstrip("\n"))


def _shown(text: str) -> str:
    from umlab.guest.console import escape_text

    return escape_text(text)
