"""``umlab guest``: the guests of running labs, and of this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import attach, device, guest_ls, kernel
from umlab.cli.option import AsJson, GuestName, WatchCommand
from umlab.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umlab.client.sync import Client

app = typer.Typer(help="Guests of running labs.", no_args_is_help=True)
app.command("ls", cls=WatchCommand, epilog=guest_ls.EPILOG)(guest_ls.ls)
app.command("attach", epilog=attach.EPILOG)(attach.attach)
app.command("stack", epilog=kernel.STACK_EPILOG)(kernel.stack)
app.command("sysrq", epilog=kernel.SYSRQ_EPILOG)(kernel.sysrq)
app.add_typer(device.app, name="device")

_LOGS_EPILOG = """
Examples:

  umlab guest logs left

  umlab guest logs ring/left --follow

  umlab guest logs left --raw > left.log
"""

#: Bytes after which a line is taken for whole.
_MAX_LINE = 64 * 1024


@app.command("logs", epilog=_LOGS_EPILOG)
def logs(
    name: GuestName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the guest ends.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print bytes as they are; not to a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a guest has printed on its first console, control characters shown as text."""
    if raw and as_json:
        raise typer.BadParameter("--raw and --json exclude each other")
    if raw and sys.stdout.isatty():
        raise typer.BadParameter("--raw is not for a terminal, which would obey what the guest says")
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        pieces = client.follow_log(guest) if follow else _pieces(client, guest)
        if raw:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            return
        _print_log(pieces, Output(as_json=as_json))


def _pieces(client: Client, guest: str) -> Iterator[bytes]:
    start = 0
    while (piece := client.log(guest, start)).data:
        yield piece.data
        start = piece.end


def _print_log(pieces: Iterator[bytes], output: Output) -> None:
    """Print whole lines, escaped; what the guest has begun is printed with what ends it, or at the end."""
    from umlab.guest.console import escape

    def show(data: bytes) -> None:
        line = escape(data.removesuffix(b"\r"))
        output.record({"line": line}, line)

    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            show(line)
        while len(rest) > _MAX_LINE:
            show(rest[:_MAX_LINE])
            rest = rest[_MAX_LINE:]
    if rest:
        show(rest)
