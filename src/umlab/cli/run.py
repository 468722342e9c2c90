"""``umlab run``: one kernel, one command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
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
        typer.Argument(metavar="COMMAND", help="The program and its arguments.", show_default=False),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            help="A name of `umlab kernel ls`, a program file, or the folder of a build; else Debian's.",
            autocompletion=complete.kernel_names,
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        str,
        typer.Option(
            metavar="ROOT",
            help="host: this machine's files, below a layer in memory; tiny: busybox; or an image.",
            autocompletion=complete.root_names,
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
            help="The next disk, from /dev/ubdb on; with :cow the file stays as it is; may be repeated.",
            show_default=False,
        ),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME[=VALUE]",
            help="A further variable, with its value here unless given; may be repeated.",
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

    The command is root of a guest that ends with it. Unless told otherwise it sees this machine's files,
    starts in this folder, and writes nothing here. Its variables are TERM, COLORTERM, NO_COLOR, TZ, LANG,
    LANGUAGE, LC_*, with the root host also PATH, HOME, USER, LOGNAME and SHELL, and what -e says.

    The status is 124 for --timeout, 125 for a failure of ours or of the guest, 126 and 127 for a command
    that cannot be run or is not there, 128 + n for signal n. Signals go to the command, and a second
    Ctrl-C or SIGTERM ends the guest; on a terminal Ctrl-] does, typed three times.
    """
    from umlab.cli.run_guest import Outcome
    from umlab.cli.run_order import RunOptions
    from umlab.errors import UmlabError

    options = RunOptions(
        command=_command(command or [], shell),
        kernel=kernel,
        root=root,
        net=net,
        writable=tuple(rw or []),
        memory=_memory(mem),
        disks=tuple(disk or []),
        variables=tuple(variable or []),
        all_output=log is not None or verbose,
    )
    seconds = _seconds(timeout)
    output = Output(as_json=as_json)
    try:
        with _opened(log) as file:
            outcome, facts = _run(
                options, seconds, file, read_input=not no_stdin, verbose=verbose, output=2 if as_json else 1
            )
    except (UmlabError, OSError) as error:
        outcome, facts = Outcome(error=str(error)), {}
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_SIGNAL + signal.SIGINT) from None
    _explain(outcome)
    if as_json:
        output.record(facts | dataclasses.asdict(outcome), "")
    raise typer.Exit(outcome.status)


def _run(
    options: RunOptions,
    timeout: float | None,
    log: BinaryIO | None,
    *,
    read_input: bool,
    verbose: bool,
    output: int,
) -> tuple[Outcome, dict[str, Any]]:
    """Return how it went, and what it was."""
    import asyncio

    from umlab.cli.run_guest import GuestRun, WatchedConsole
    from umlab.cli.run_order import make_order
    from umlab.cli.run_stream import choose_streams
    from umlab.guest.console import Console

    order = make_order(options, os.environ)
    streams = choose_streams(output, read_input=read_input)
    console = WatchedConsole(log) if verbose else Console(log)

    async def work() -> Outcome:
        return await GuestRun(order, streams, console, timeout).run()

    facts = {
        "guest": order.spec.umid,
        "kernel": order.kernel.path,
        "release": order.kernel.release,
        "root": options.root,
        "command": list(order.argv),
    }
    return asyncio.run(work()), facts


@contextlib.contextmanager
def _opened(log: str | None) -> Iterator[BinaryIO | None]:
    from umlab.errors import LabError

    if log is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(log, "wb"))
        except OSError as error:
            raise LabError(f"cannot write to {log}: {error.strerror}") from None
        yield file


def _command(command: list[str], shell: bool) -> tuple[str, ...]:
    if shell and command:
        raise typer.BadParameter("write a command, or --shell, not both")
    if not shell and not command:
        raise typer.BadParameter("write a command, or --shell for a prompt")
    return tuple(command)


def _memory(text: str) -> int:
    from umlab.cli.setting import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--mem") from None


def _seconds(text: str | None) -> float | None:
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
