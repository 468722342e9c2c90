"""``umlab guest cp``: files into guests, and out of one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson
from umlab.cli.output import Output

EPILOG = """
Examples:

  umlab guest cp ./tests left:/root/

  umlab guest cp left:/var/log/messages .

  umlab guest cp --all --json hosts :/etc/hosts

  make -s config | umlab guest cp - left:/etc/config

  umlab guest cp left:/proc/config.gz - | zcat
"""


def copy(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Paths here, or GUEST:PATH, LAB/GUEST:PATH, on one side; - for a standard stream.",
            autocompletion=complete.copy_places,
            show_default=False,
        ),
    ],
    everyone: Annotated[
        bool, typer.Option("--all", help="Copy into all guests of a lab that run; DST is [LAB]:PATH.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy files and folders into a guest, or out of it, with modes and times; links stay links.

    A DST that is a folder gets what is copied; another one is its new name. Paths in a guest begin at /root.
    A file is there as a whole or not at all. Guests may be patterns where files are copied into them. What a
    guest sends stays in DST: links that lead out of it, devices, and the rights of other users are left out.
    """
    from umlab.cli.copy_place import parse_place

    *sources, target = map(parse_place, places)
    if not sources:
        raise typer.BadParameter("write what to copy, and where to")
    outgoing = [each for each in sources if each.guest is not None]
    if target.guest is None and len(outgoing) != len(sources):
        raise typer.BadParameter("write GUEST:PATH on one side; a path here with a colon in it as ./PATH")
    if target.guest is not None and outgoing:
        raise typer.BadParameter("write GUEST:PATH on one side only")
    if everyone and target.guest is None:
        raise typer.BadParameter("--all is for copying into guests")
    if any(each.path == "-" for each in sources) and len(sources) > 1:
        raise typer.BadParameter("- is a source by itself")
    if as_json and target.path == "-":
        raise typer.BadParameter("--json is for copies to other places than standard output")
    if not everyone and "" in (target.guest, *(each.guest for each in sources)):
        raise typer.BadParameter("write the guest before the colon, or --all")
    from umlab.cli.copy import Copied, Copy, named_sources, target_path
    from umlab.cli.guest_choice import choose
    from umlab.cli.interrupt import run_interruptible
    from umlab.errors import LabError

    def tell(copied: Copied) -> None:
        if as_json:
            Output(as_json=True).record(copied.record(), "")

    run = Copy(lambda text: print(f"umlab: {text}", file=sys.stderr), tell)
    try:
        if target.guest is not None:
            choices = choose([target.guest] if target.guest else [], everyone=everyone)
            paths = [each.path for each in sources]
            run_interruptible(run.put(None if paths == ["-"] else named_sources(paths), choices, target.path))
        else:
            for each in sources:
                (choice,) = choose([str(each.guest)], everyone=False)
                place = target.path if target.path == "-" else target_path(each, target.path)
                run_interruptible(run.get(choice, each, place))
    except OSError as error:
        raise LabError(f"{error.filename or target.path}: {error.strerror}") from None
    raise typer.Exit(int(run.failed))
