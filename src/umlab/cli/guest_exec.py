"""``umlab guest exec``: a command in guests of labs."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import complete
from umlab.cli.exit_status import EXIT_OWN_FAILURE, EXIT_TIMEOUT
from umlab.cli.option import AsJson, CommandWords, command_words
from umlab.cli.output import Output, print_error
from umlab.cli.run import RunCommand

if TYPE_CHECKING:
    from umlab.cli.guest_choice import Choice
    from umlab.client.exec import ExecOrder

EPILOG = """
Examples:

  umlab guest exec left -- uname -a

  umlab guest exec left -- sh

  tar c src | umlab guest exec left -w /srv -- tar x

  umlab guest exec left right 'web*' -- uptime

  umlab guest exec --all --json -- cat /etc/os-release
"""

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class ExecCommand(RunCommand, CommandWords):
    """A command whose words behind ``--`` are another one's, whose exit status it has."""


def execute(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GUEST",
            help="Guests, LAB/GUEST where several labs have one of that name, or patterns of these; with "
            "--all the lab.",
            autocompletion=complete.guest_names,
            show_default=False,
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All guests of a lab that run.")] = False,
    terminal: Annotated[
        bool, typer.Option("--tty", "-t", help="Give it a terminal, whatever standard input and output are.")
    ] = False,
    no_terminal: Annotated[
        bool, typer.Option("--no-tty", "-T", help="Give it no terminal: output and errors stay apart.")
    ] = False,
    no_input: Annotated[bool, typer.Option("--no-stdin", "-n", help="Leave standard input alone.")] = False,
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME=VALUE",
            help="A variable of its environment; may be repeated.",
            show_default=False,
        ),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--directory", "-w", metavar="DIR", help="Where it runs; /root unless given.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.001,
            help="Kill it after so many seconds, with status 124.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a command in guests, as root, and end with its status.

    In one guest it reads standard input, and has a terminal where standard input and output are one. In
    several, or with --json, it reads nothing, each line of output stands behind its guest's name, and the
    status is the highest. A guest that boots is waited for.

    The status is 125 for a failure of ours, 126 and 127 for a command that cannot be run or is not there,
    128 + n for signal n. Signals go to the command, and a second Ctrl-C or SIGTERM ends it; at a terminal
    Ctrl-] typed three times does.
    """
    command = command_words(ctx) or []
    if not command:
        raise typer.BadParameter("write the command behind --")
    if terminal and (no_terminal or no_input or as_json):
        raise typer.BadParameter("--tty goes with none of --no-tty, --no-stdin and --json")
    if not everyone and not names:
        raise typer.BadParameter("name the guests, or write --all")
    if everyone and len(names or ()) > 1:
        raise typer.BadParameter("--all takes one lab at most")
    environment = _environment(variables or [])
    from umlab.cli.guest_choice import choose
    from umlab.client.exec import ExecOrder
    from umlab.errors import CommandTimeout, UmlabError

    order = ExecOrder(tuple(command), environment=environment, directory=directory)
    try:
        choices = choose(names or [], everyone=everyone)
        if as_json or everyone or len(choices) > 1:
            if terminal:
                raise typer.BadParameter("--tty is for one guest")
            status = _run_many(choices, order, timeout, as_json=as_json)
        else:
            status = _run_one(
                choices[0], order, timeout, True if terminal else False if no_terminal else None, not no_input
            )
    except CommandTimeout as error:
        print_error(error)
        status = EXIT_TIMEOUT
    except UmlabError as error:
        print_error(error)
        status = EXIT_OWN_FAILURE
    raise typer.Exit(status)


def _run_one(
    choice: Choice, order: ExecOrder, timeout: float | None, terminal: bool | None, read_input: bool
) -> int:
    import asyncio
    from dataclasses import replace

    from umlab.cli.exec_session import run_session, streams_for

    streams = streams_for(terminal, read_input=read_input)
    order = replace(order, input=streams.input, window=streams.window())
    if streams.input == "tty":
        order = replace(order, environment={"TERM": os.environ.get("TERM", "dumb"), **order.environment})
    return asyncio.run(run_session(choice.lab, choice.guest, order, streams, timeout))


def _run_many(choices: list[Choice], order: ExecOrder, timeout: float | None, *, as_json: bool) -> int:
    from umlab.cli import exec_fleet
    from umlab.cli.interrupt import run_interruptible

    if not as_json:
        return run_interruptible(exec_fleet.stream(choices, order, timeout))

    async def gather() -> int:
        output, highest = Output(as_json=True), 0
        async for choice, ending in exec_fleet.gather(choices, order, timeout):
            output.record(ending.record(choice), "")
            highest = max(highest, ending.status)
        return highest

    return run_interruptible(gather())


def _environment(variables: list[str]) -> dict[str, str]:
    environment = {}
    for each in variables:
        match = _VARIABLE.fullmatch(each)
        if match is None:
            raise typer.BadParameter(f"{each!r}: write NAME=VALUE", param_hint="--env")
        environment[match[1]] = match[2]
    return environment
