"""``umlab hook``: commands that a lab's daemon runs when something happens to a guest."""

from __future__ import annotations

import dataclasses
import difflib
import os
import shlex
from collections.abc import Collection, Iterable
from typing import Annotated

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson, LabNames
from umlab.cli.output import Output

app = typer.Typer(help="Commands that are run when something happens to a guest.", no_args_is_help=True)

_SET_EPILOG = """
Examples:

  umlab hook set lan/mail --on panic --on hang -- mail -s "a guest is in trouble" me@example.org

  umlab hook set lan/collect --on panic --guest 'web*' -- ./collect.sh --all
"""

_LS_EPILOG = """
Examples:

  umlab hook ls

  umlab hook ls lan --json
"""

_RM_EPILOG = """
Examples:

  umlab hook rm lan/mail
"""

#: Short names of events.  A guest hangs where its own watchdog says so, or where its kernel answers no more.
EVENTS = {
    "start": ("guest_started",),
    "ready": ("guest_ready",),
    "reboot": ("guest_rebooted",),
    "message": ("guest_message",),
    "panic": ("guest_panicked",),
    "hang": ("guest_hung", "guest_silent"),
    "silent": ("guest_silent",),
    "answer": ("guest_answers",),
    "end": ("guest_ended",),
}
#: Characters of a name that is none which are shown.
_SHOWN = 64


def event_names(incomplete: str) -> list[str]:
    """Return short names of events for the shell's completion."""
    return [name for name in EVENTS if name.startswith(incomplete)]


def event_kinds(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the kinds of events that short names, or kinds themselves, stand for.

    Args:
        names: What the user has typed.
        known: The kinds that there are here.

    Raises:
        typer.BadParameter: There is none of such a name.
    """
    for name in names:
        if name not in EVENTS and name not in known:
            # Comparing takes long for long names, and those are nobody's slip.
            near = difflib.get_close_matches(name, (*EVENTS, *known), 1) if len(name) <= _SHOWN else []
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join((*EVENTS, *known))}"
            raise typer.BadParameter(f"--on {name[:_SHOWN]}: there is no such event here; {hint}")
    return list(dict.fromkeys(kind for name in names for kind in EVENTS.get(name, (name,))))


HookName = Annotated[
    str,
    typer.Argument(
        metavar="LAB/NAME",
        help="The lab, and the hook's name.",
        autocompletion=complete.hook_names,
        show_default=False,
    ),
]


@app.command("set", epilog=_SET_EPILOG)
def set_(
    name: HookName,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="The program and its arguments.", show_default=False),
    ],
    on: Annotated[
        list[str],
        typer.Option(
            "--on",
            metavar="EVENT",
            help=f"{', '.join(EVENTS)}, or a kind of event such as guest_silent; may be repeated.",
            autocompletion=event_names,
            show_default=False,
        ),
    ],
    guest: Annotated[
        str | None,
        typer.Option(
            "--guest", metavar="PATTERN", help="Only these guests, such as 'web*'.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have a command run, without a shell, whenever something happens to a guest of a lab.

    The event is in its environment (UMLAB_EVENT, UMLAB_GUEST, UMLAB_MESSAGE and so on) and, as JSON, on its
    standard input. A hook of this name is replaced.
    """
    from umlab.client.sync import Client
    from umlab.daemon.hook import GUEST_EVENTS

    lab, hook = _split(name)
    kinds = event_kinds(on, GUEST_EVENTS)
    with Client(lab) as client:
        changed = client.put_hook(hook, kinds, [_program(command[0]), *command[1:]], guest).changed
    text = f"{lab}/{hook}: {'set' if changed else 'as it was'}"
    Output(as_json=as_json).record({"lab": lab, "hook": hook, "changed": changed}, text)


@app.command("ls", epilog=_LS_EPILOG)
def ls(
    names: LabNames = None,
    as_json: AsJson = False,
) -> None:
    """List the hooks of labs, and where each logs what it prints."""
    from umlab.client import labs
    from umlab.client.sync import Client

    output = Output(as_json=as_json)
    for lab in dict.fromkeys(names or labs()):
        with Client(lab) as client:
            for hook in client.hooks():
                guests = f" of {hook.guests}" if hook.guests else ""
                text = f"{lab}/{hook.name}: on {', '.join(hook.on)}{guests}: {shlex.join(hook.run)}"
                output.record({"lab": lab, **dataclasses.asdict(hook)}, f"{text}  (log: {hook.log})")


@app.command("rm", epilog=_RM_EPILOG)
def rm(name: HookName, as_json: AsJson = False) -> None:
    """Remove a hook, and end its runs."""
    from umlab.client.sync import Client
    from umlab.errors import NoSuchHook

    lab, hook = _split(name)
    with Client(lab) as client:
        if not client.remove_hook(hook).changed:
            raise NoSuchHook(hook)
    Output(as_json=as_json).record({"lab": lab, "hook": hook, "changed": True}, f"{lab}/{hook}: removed")


def _split(name: str) -> tuple[str, str]:
    lab, sign, hook = name.partition("/")
    if not sign:
        raise typer.BadParameter(f"{name}: write LAB/NAME")
    return lab, hook


def _program(word: str) -> str:
    """Return a program as the daemon finds it, which has its own directory and perhaps another ``PATH``."""
    from shutil import which

    from umlab.errors import LabError

    found = which(word)
    if found is None:
        raise LabError(f"there is no program {word}")
    return os.path.abspath(found)
