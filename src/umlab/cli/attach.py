"""``umlab guest attach``: this terminal becomes one of a guest."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from umlab.cli import complete

EPILOG = """
Examples:

  umlab guest attach left

  umlab guest attach ring/left --console con1 --read-only

  umlab guest attach left --detach-key ^A

  umlab guest attach --all --tmux ring

  echo uptime | umlab guest attach left
"""

_DETACH_KEY = "^]"


def attach(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The guest, or LAB/GUEST where several labs have one of that name; with --all, the lab.",
            autocompletion=complete.guest_names,
            show_default=False,
        ),
    ] = None,
    console: Annotated[
        str | None,
        typer.Option("--console", help="The console; the first terminal unless given.", show_default=False),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only look: nothing is typed, nothing of the guest passes.")
    ] = False,
    detach_key: Annotated[
        str, typer.Option("--detach-key", metavar="KEY", help="What leaves: ^A to ^Z, ^\\, ^], ^^ or ^_.")
    ] = _DETACH_KEY,
    every: Annotated[bool, typer.Option("--all", help="Every guest of a lab; with --tmux.")] = False,
    tmux: Annotated[bool, typer.Option("--tmux", help="Lay guests out in tmux; with --all.")] = False,
) -> None:
    """Type into a guest and see what it prints; Ctrl-] leaves, and the guest does not notice.

    The screen is painted as it is now.  Should the daemon end, this waits for the next one.

    Where standard input is no terminal, all of it is sent, and what the guest answers is printed until it has
    been silent for a second.
    """
    key = _key(detach_key)
    if every or tmux:
        if not (every and tmux) or console is not None:
            raise typer.BadParameter("--all and --tmux go together, and with every guest's first terminal")
        from umlab.cli.attach_tmux import attach_all

        raise typer.Exit(attach_all(name, read_only=read_only, detach_key=detach_key))
    if name is None:
        raise typer.BadParameter("write the guest's name")
    if read_only and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("--read-only is for a terminal; elsewhere: umlab guest logs --console con1")
    from umlab.cli.attach_session import Session
    from umlab.cli.interrupt import run_interruptible
    from umlab.cli.target import guest_place

    lab, guest = guest_place(name)
    run_interruptible(Session(lab, guest, console, key, read_only=read_only).run())


def _key(text: str) -> bytes:
    """Return the control character that stands for a key.  Raises BadParameter."""
    if not re.fullmatch(r"\^[A-Za-z\\\]^_]", text):
        raise typer.BadParameter(f"--detach-key {text}: write ^ and a letter or one of \\ ] ^ _, such as ^]")
    return bytes([ord(text[1].upper()) & 0x1F])
