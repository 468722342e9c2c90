"""``umlab console``: the management shell of one guest or many, or one command for them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from umlab.cli import complete
from umlab.cli.console_line import parse_line
from umlab.cli.option import AsJson, CommandWords, UmlDirs, command_words

EPILOG = """
Examples:

  umlab console

  umlab console left

  umlab console left -- proc loadavg

  umlab console web1 web2 --json -- version

  umlab console --all -- version

  umlab console -- '@web*' proc loadavg

  echo version | umlab console left
"""


class ConsoleCommand(CommandWords):
    """A command whose words behind ``--`` are for guests."""

    words_usage = "[-- COMMAND...]"


def console(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Guests: GUEST, LAB/GUEST, or the path of a run directory or console socket; all that run "
            "in the shell unless given.",
            autocompletion=complete.console_names,
            show_default=False,
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Ask all guests that run.")] = False,
    uml_dir: UmlDirs = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.001,
            max=300,
            help="How long to wait for an answer; 5, and 30 for proc, sysrq and stack, unless given.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before commands that kill.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the management shell of guests, or ask them one command.

    Where standard input is no terminal, its lines are the commands.
    """
    command = command_words(ctx)
    if everyone and names:
        raise typer.BadParameter("--all is instead of names")
    if command is not None:
        line = parse_line(" ".join(command))
        if not line.text:
            raise typer.BadParameter("write a command behind --")
        if not names and not everyone and line.patterns is None:
            raise typer.BadParameter("name the guests that are to be asked, or write --all")
    from umlab.cli.console_run import Manner
    from umlab.cli.console_script import ask, run_lines
    from umlab.cli.interrupt import run_interruptible

    manner = Manner(as_json=as_json, timeout=timeout)
    chosen, uml_dirs = list(dict.fromkeys(names or ())), tuple(uml_dir or ())
    asks = os.isatty(0) and not yes
    if command is not None:
        work = ask(chosen, uml_dirs, " ".join(command), manner, asks=asks)
    elif os.isatty(0):
        from umlab.cli.console_shell import run_shell

        work = run_shell(chosen, uml_dirs, manner, asks=asks)
    else:
        work = run_lines(chosen, uml_dirs, manner)
    raise typer.Exit(run_interruptible(work))
