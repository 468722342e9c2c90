"""``umlab gc``: remove what dead labs left."""

from __future__ import annotations

from typing import Annotated

import typer

from umlab.cli.output import Output

EPILOG = """
Examples:

  umlab gc

  umlab gc --dry-run

  umlab gc --json
"""


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Remove what dead labs left: directories, guests that run without an owner, memory directories.

    And images and snapshots that were left half-made. Labs that run, disks that are kept, and everything
    that belongs to other users, are left alone.
    """
    import dataclasses

    from umlab.lab.gc import collect

    output = Output(as_json=as_json)
    removed = collect(dry_run=dry_run)
    if as_json:
        output.record({"dry_run": dry_run, "removed": [dataclasses.asdict(each) for each in removed]}, "")
        return
    for each in removed:
        did = "would remove" if dry_run else "removed"
        group = "" if each.group is None else f", process group {each.group}"
        output.progress(f"{did} {each.kind} {each.name}: {each.where}{group}")
    if not removed:
        output.progress("nothing to do")
