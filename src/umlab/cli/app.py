"""The ``umlab`` command: the map of its sub-commands, and how errors leave it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from umlab import __version__
from umlab.cli import (
    capture,
    console,
    cow,
    demo,
    doctor,
    events,
    gc,
    guest,
    hook,
    image,
    kernel_store,
    run,
    snapshot,
    switch,
    top,
)
from umlab.cli.exit_status import EXIT_SIGNAL, exit_status
from umlab.cli.output import print_error
from umlab.errors import UmlabError

app = typer.Typer(
    name="umlab",
    help="Labs of real Linux kernels on your own machine: no root, no KVM, no containers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command(
    "run", cls=run.RunCommand, epilog=run.EPILOG, context_settings={"allow_interspersed_args": False}
)(run.run)
app.add_typer(switch.app, name="switch")
app.add_typer(guest.app, name="guest")
app.command("console", cls=console.ConsoleCommand, epilog=console.EPILOG)(console.console)
app.command("capture", epilog=capture.EPILOG)(capture.capture)
app.command("top", epilog=top.EPILOG)(top.top)
app.command("events", epilog=events.EPILOG)(events.events)
app.add_typer(hook.app, name="hook")
app.add_typer(image.app, name="image")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(cow.app, name="cow")
app.add_typer(kernel_store.app, name="kernel")
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.command("gc", epilog=gc.EPILOG)(gc.gc)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"umlab {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Labs of real Linux kernels on your own machine: no root, no KVM, no containers."""


def main() -> None:
    """Run the command line; an error of ours is one line on stderr, status 1, or 3 for what does not run."""
    _open_standard_streams()
    try:
        app()
    except UmlabError as error:
        print_error(error)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        # No command has begun, or one has ended.
        sys.exit(EXIT_SIGNAL + signal.SIGINT)


def _open_standard_streams() -> None:
    """Put /dev/null where the caller closed a standard stream.

    The next socket would get that number, and what is printed there would go to a guest.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
