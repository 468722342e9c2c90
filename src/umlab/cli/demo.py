"""``umlab demo``: two real kernels on one switch, step by step."""

from __future__ import annotations

from typing import Annotated

import typer

from umlab.cli import complete
from umlab.cli.output import Output

_EPILOG = """
Examples:

  umlab demo

  umlab demo --json

  umlab demo --kernel ./linux
"""


def demo(
    kernel: Annotated[
        str,
        typer.Option(
            metavar="KERNEL", help="The kernel of both guests.", autocompletion=complete.kernel_names
        ),
    ] = "debian",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Boot two guests on one switch, let them ping each other, manage and halt them.

    Guest "left" attaches as old kernels do (eth0=daemon), guest "right" as new ones do (vec0, bess).
    Needs no root and leaves nothing behind. The status is 0 only if every step really happened.
    """
    from umlab.cli.interrupt import run_interruptible
    from umlab.cli.scenario import Scenario
    from umlab.guest.kernel.store import kernel_program

    output = Output(as_json=as_json)
    scenario = Scenario(kernel_program(kernel), progress=output.progress)
    result = run_interruptible(scenario.run())
    if as_json:
        output.record(result, "")
    if not result["ok"]:
        raise typer.Exit(1)
