"""``umlab switch args``: what a guest's kernel, QEMU and others are told to attach to a switch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson, SwitchName
from umlab.cli.page import Page, Table, present

if TYPE_CHECKING:
    from umlab.transports.contract import Argument

EPILOG = """
Examples:

  umlab switch args lan

  umlab switch args lan --kernel ./linux

  ./linux $(umlab switch args lan --json | jq -r 'select(.missing == []).argument' | head -n 1) ...

  umlab switch args lan --json | jq -r 'select(.program == "qemu").argument'
"""


def args(
    name: SwitchName,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            help="The kernel to ask what it has; it is run with --showconfig. Debian's unless given.",
            autocompletion=complete.kernel_names,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what each kind of program is told to attach here, and whether a kernel has the transport."""
    from umlab.cli.target import missing_switch, switch_place
    from umlab.client.sync import Client
    from umlab.errors import NoSuchSwitch

    lab, switch = switch_place(name)
    with Client(lab) as client:
        try:
            listeners = client.switch(switch).listeners
        except NoSuchSwitch as error:
            raise missing_switch(client, error) from None
    missing = _missing_options(kernel)
    found = [
        (argument.program, each.kind, missing.get(argument.needs), argument.text)
        for each in listeners
        for argument in each.arguments
    ]
    records = [
        dict(zip(("program", "transport", "missing", "argument"), each, strict=True)) for each in found
    ]
    rows = [
        (program, kind, _verdict(options) if program == "uml" else "-", argument)
        for program, kind, options, argument in found
    ]
    table = Table(("PROGRAM", "TRANSPORT", "KERNEL HAS IT", "ARGUMENT"), rows)
    present(lambda: Page(records, [table] if rows else ["no guest attaches here"]), as_json=as_json)


def best_argument(arguments: Iterable[Argument]) -> str:
    """Return how a guest attaches, or where none does how another program; empty where nothing does."""
    found = list(arguments)
    for each in found:
        if each.program == "uml":
            return each.text
    return f"{found[0].program} {found[0].text}" if found else ""


def _missing_options(kernel: str | None) -> dict[str, list[str]]:
    """Return the options that a kernel lacks, by transport; nothing where there is no kernel to ask."""
    from umlab.errors import LabError
    from umlab.guest.kernel.config import read_kernel_config, transports_of
    from umlab.guest.kernel.store import DEBIAN, kernel_program

    try:
        config = read_kernel_config(kernel_program(kernel or DEBIAN))
    except LabError:
        if kernel is not None:
            raise
        return {}
    return {each.kind: list(each.missing) for each in transports_of(config)}


def _verdict(missing: list[str] | None) -> str:
    if missing is None:
        return "unknown"
    return f"no: {', '.join(missing)}" if missing else "yes"
