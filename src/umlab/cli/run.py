"""``umlab run``: one kernel, one command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from typer.core import TyperCommand

from umlab.cli import complete
from umlab.cli.exit_status import EXIT_OWN_FAILURE, EXIT_SIGNAL
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.cli.run_guest import Outcome
    from umlab.cli.run_order import RunOptions

EPILOG = """
Examples:

  umlab run -- uname -r

  umlab run --kernel ./linux --timeout 60 --log kernel.log -- ./selftest.sh

  umlab run --shell

  umlab run --rw results -e CI=1 -- make -C tests O=results

  umlab run --root debian --disk data.img:cow --net lan --shell
"""

#: Lines of the console that are shown of a guest that has failed.
_TAIL_LINES = 30


class RunCommand(TyperCommand):
    """A command that has the exit status of another one, so that a wrong command line has another than 2."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Make the context; see ``TyperCommand``."""
        with _own_failure():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see ``TyperCommand``."""
        with _own_failure():
            return super().invoke(ctx)


@contextlib.contextmanager
def _own_failure() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        error.exit_code = EXIT_OWN_FAILURE
        raise


def run(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="The program and its arguments.", show_default=False),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            help="A name of `umlab kernel ls`, a program file, or the folder of a build; Debian's unless given.",
            autocompletion=complete.kernel_names,
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        str,
        typer.Option(
            metavar="ROOT",
            help="host: this machine's files, below a layer in memory; tiny: busybox; or an image.",
            autocompletion=complete.image_names,
        ),
    ] = "host",
    net: Annotated[
        str,
        typer.Option(
            metavar="SWITCH",
            help="A switch that runs, or the path of its socket; none for no network.",
            autocompletion=complete.switch_names,
        ),
    ] = "none",
    rw: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="A folder that the guest may write to; may be repeated.", show_default=False
        ),
    ] = None,
    mem: Annotated[str, typer.Option(metavar="SIZE", help="Its memory.")] = "256M",
    disk: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:cow]",
            # A bracket would begin a style.
            help="The next disk, from /dev/ubdb on; with :cow nothing is written to the file; may be repeated.",
            show_default=False,
        ),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME[=VALUE]",
            help="A variable beside those that it always gets, with its value here unless given; may be repeated.",
            show_default=False,
        ),
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="A shell in place of a command.")] = False,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Leave standard input alone.")] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS", help="End it after so many seconds, with status 124.", show_default=False
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write what the kernel prints to a file.", show_default=False),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the kernel prints, on standard error.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object at the end; the command's output goes to standard error."
        ),
    ] = False,
) -> None:
    """Boot a kernel, run a command in it, and end with its status.

    The command is root of a guest that ends with it. Unless told otherwise it sees this machine's files, starts in this
    folder, and writes nothing here. It gets PATH, HOME, USER, LOGNAME and SHELL (in the root host), TERM,
    COLORTERM, NO_COLOR, TZ, LANG, LANGUAGE and LC_*, and what -e says.

    The status is 125 for a failure of ours or of the guest, 126 and 127 for a command that cannot be run or is not
    there, 128 + n for signal n. Signals go to the command, and the second Ctrl-C ends the guest; on a terminal
    Ctrl-] typed three times does.
    """
    from umlab.errors import UmlabError

    try:
        options = _options(
            command or [], shell, kernel, root, net, rw or [], mem, disk or [], variable or [], bool(log or verbose)
        )
        seconds = _seconds(timeout)
        output = Output(as_json=as_json)
        try:
            outcome, facts = _run(options, seconds, log, read_input=not no_stdin, verbose=verbose, as_json=as_json)
        except (UmlabError, OSError) as error:
            from umlab.cli.run_guest import Outcome

            outcome, facts = Outcome(error=str(error)), {}
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_SIGNAL + 2) from None
    _explain(outcome)
    if as_json:
        import dataclasses

        output.record(facts | dataclasses.asdict(outcome), "")
    raise typer.Exit(outcome.status)


def _run(
    options: RunOptions, timeout: float | None, log: str | None, *, read_input: bool, verbose: bool, as_json: bool
) -> tuple[Outcome, dict[str, Any]]:
    """Return how it went, and what it was."""
    import asyncio

    from umlab.cli.run_guest import GuestRun, WatchedConsole
    from umlab.cli.run_order import make_order
    from umlab.cli.run_stream import choose_streams
    from umlab.guest.console import Console

    order = make_order(options, os.environ)
    streams = choose_streams(2 if as_json else 1, read_input=read_input)
    with _opened(log) as file:
        console = WatchedConsole(file) if verbose else Console(file)

        async def work() -> Outcome:
            return await GuestRun(order, streams, console, timeout).run()

        outcome = asyncio.run(work())
    facts = {
        "guest": order.spec.umid,
        "kernel": order.kernel.path,
        "release": order.kernel.release,
        "root": options.root,
        "command": list(options.command),
    }
    return outcome, facts


@contextlib.contextmanager
def _opened(log: str | None) -> Iterator[BinaryIO | None]:
    if log is None:
        yield None
        return
    with open(log, "wb") as file:
        yield file


def _options(
    command: list[str],
    shell: bool,
    kernel: str | None,
    root: str,
    net: str,
    folders: list[str],
    memory: str,
    disks: list[str],
    variables: list[str],
    all_output: bool,
) -> RunOptions:
    from umlab.cli.run_order import RunOptions
    from umlab.cli.setting import parse_size

    if shell and command:
        raise typer.BadParameter("write a command, or --shell, not both")
    if not shell and not command:
        raise typer.BadParameter("write a command, or --shell for a prompt")
    try:
        size = parse_size(memory)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--mem") from None
    return RunOptions(
        tuple(command), kernel, root, net, tuple(folders), size, tuple(disks), tuple(variables), all_output
    )


def _seconds(text: str | None) -> float | None:
    # typer would load much to check a number.
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise typer.BadParameter("write a number of seconds, such as 60", param_hint="--timeout")
    return seconds


def _explain(outcome: Outcome) -> None:
    """Say on standard error why the status is not the command's."""
    from umlab.guest.console import escape_text

    if not outcome.error:
        return
    print(f"umlab: {escape_text(outcome.error)}", file=sys.stderr)
    if outcome.console is not None:
        lines = outcome.console.splitlines()[-_TAIL_LINES:]
        print("umlab: the last lines of its console:", *lines, sep="\n  ", file=sys.stderr)
