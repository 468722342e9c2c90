"""``umlab top``: what switches, ports and guests do right now, the busiest first."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umlab.cli.option import AsJson, LabNames
from umlab.cli.output import Output

EPILOG = """
Examples:

  umlab top

  umlab top lan --interval 1

  umlab top --once --json
"""

#: Seconds between the two looks of ``--once``.
_ONCE = 1.0


def top(
    names: LabNames = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Look again so often.")
    ] = 2,
    once: Annotated[bool, typer.Option("--once", help="Show what one second brings, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what switches, ports and guests do, and who talks most, again and again; "q" leaves.

    Rates are seen from the switch: IN is from guests, OUT is to them. CPU is what a guest uses of one
    processor of this machine. LOAD, MEMORY (used, and all that there is) and UPTIME are its kernel's words,
    which need nothing else in the guest.
    """
    from umlab.cli.interrupt import run_interruptible
    from umlab.cli.top_watch import show, tell

    if not once and not as_json and sys.stdout.isatty():
        run_interruptible(show(names, interval))
    else:
        run_interruptible(tell(names, _ONCE if once else interval, Output(as_json=as_json), once=once))
