"""``umlab cow``: COW files, which guests keep the changes of a shared disk image in."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli.exit_status import EXIT_ERROR
from umlab.cli.option import AsJson
from umlab.cli.output import Output
from umlab.cli.page import size_text

if TYPE_CHECKING:
    from umlab.guest.disk.cow_check import CowFacts

app = typer.Typer(
    help="COW files: a guest's changes of a disk image that others share.", no_args_is_help=True
)

_CREATE_EPILOG = """
Examples:

  umlab cow create left.cow debian.img
"""

_INFO_EPILOG = """
Examples:

  umlab cow info left.cow

  umlab cow info *.cow --json
"""

_CHECK_EPILOG = """
Examples:

  umlab cow check left.cow right.cow
"""

_MERGE_EPILOG = """
Examples:

  umlab cow merge left.cow left.img

  umlab cow merge left.cow --in-place
"""

_REBASE_EPILOG = """
Examples:

  umlab cow rebase left.cow /srv/images/debian.img
"""

Cow = Annotated[str, typer.Argument(metavar="COW", help="The COW file.", show_default=False)]
Cows = Annotated[list[str], typer.Argument(metavar="COW...", help="COW files.", show_default=False)]


@app.command("create", epilog=_CREATE_EPILOG)
def create(
    cow: Cow,
    backing: Annotated[
        str,
        typer.Argument(metavar="BACKING", help="The disk image, which must not be changed any more."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there; what it has is lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a COW file without changes for a disk image, as the kernel does."""
    from umlab.guest.disk.cow import create_cow

    header = create_cow(cow, backing, replace=force)
    path = os.fsdecode(header.backing)
    record = {"cow": cow, "backing": path, "size": header.size, "mtime": header.mtime}
    _print(record, [f"{cow}: made, for {path}"], as_json)


@app.command("info", epilog=_INFO_EPILOG)
def info(cows: Cows, as_json: AsJson = False) -> None:
    """Show what COW files are, and how much their guests have changed.

    The status is 1 if one of them cannot be shown.
    """
    from umlab.errors import LabError
    from umlab.guest.disk.cow_check import cow_facts

    ok = True
    for cow in cows:
        try:
            facts = cow_facts(cow)
        except LabError as error:
            ok = False
            typer.echo(f"umlab: {_shown(str(error))}", err=True)
            continue
        _print(dataclasses.asdict(facts), _facts_lines(facts), as_json)
    if not ok:
        raise typer.Exit(EXIT_ERROR)


@app.command("check", epilog=_CHECK_EPILOG)
def check(cows: Cows, as_json: AsJson = False) -> None:
    """Look whether COW files are whole and fit their backing files, and say how to mend what is wrong.

    Nothing is changed. The status is 1 if something is wrong.
    """
    from umlab.guest.disk.cow_check import cow_problems, cow_user

    ok = True
    for cow in cows:
        problems, user = list(cow_problems(cow)), cow_user(cow)
        ok = ok and not problems
        lines = [] if problems else [f"{cow}: ok"]
        for each in problems:
            lines += [f"{cow}: {each.problem}", f"  fix: {each.fix}"]
        if user is not None:
            lines.append(f"{cow}: in use by {user}")
        record = {
            "cow": cow,
            "ok": not problems,
            "problems": [dataclasses.asdict(each) for each in problems],
            "used_by": user,
        }
        _print(record, lines, as_json)
    if not ok:
        raise typer.Exit(EXIT_ERROR)


@app.command("merge", epilog=_MERGE_EPILOG)
def merge(
    cow: Cow,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="The image to make.", show_default=False)
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Put the image in the place of the backing file.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace NEW, or a backing file that other COW files need."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merge a COW file and its backing file into one image, which is there as a whole or not at all.

    The guest must not run. The COW file stays as it is.
    """
    from umlab.cli.interrupt import interruptible
    from umlab.cli.progress import ProgressLine
    from umlab.guest.disk.cow_merge import merge_cow, merge_in_place

    if (new is None) is not in_place:
        raise typer.BadParameter("write either NEW or --in-place")
    with interruptible(), ProgressLine(f"merging {cow}") as progress:
        if new is not None:
            size = merge_cow(cow, new, replace=force, progress=progress)
            _print({"cow": cow, "image": new, "size": size}, [f"{new}: made, {size_text(size)}"], as_json)
            return
        useless = [cow, *_others(cow, force)]

        def tell(image: str) -> None:
            progress.clear()
            record = {"cow": cow, "image": image, "of_no_use": useless}
            _print(record, [f"{image}: merged; of no use any more: {', '.join(useless)}"], as_json)

        merge_in_place(cow, progress=progress, done=tell)


@app.command("rebase", epilog=_REBASE_EPILOG)
def rebase(
    cow: Cow,
    backing: Annotated[
        str, typer.Argument(metavar="BACKING", help="The backing file from now on.", show_default=False)
    ],
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Take a file with another time of change, and do not compare what it has."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write into a COW file where its backing file is now, which has to be as it was.

    A file with another time of change is compared with the old one, as far as the guest has not changed it.
    """
    from umlab.cli.interrupt import interruptible
    from umlab.cli.progress import ProgressLine
    from umlab.guest.disk.cow import rebase_cow

    with interruptible(), ProgressLine(f"comparing {backing}") as progress:
        changed = rebase_cow(cow, backing, unsafe=unsafe, progress=progress)
    text = f"{cow}: for {backing} now" if changed else f"{cow}: as it was"
    _print({"cow": cow, "backing": backing, "changed": changed}, [text], as_json)


def _others(cow: str, force: bool) -> list[str]:
    """Return the other COW files of the same backing file.

    Raises:
        LabError: There are some, and nobody has said that they need not be kept.
    """
    from umlab.daemon.place import state_base
    from umlab.errors import LabError
    from umlab.guest.disk.cow_check import other_dependents

    backing, others = other_dependents(cow, os.fspath(state_base()))
    if others and not force:
        raise LabError(
            f"{backing} is the backing file of {', '.join(others)} as well, of no use after that; "
            "merge into a new file, or use --force"
        )
    return others


def _facts_lines(facts: CowFacts) -> list[str]:
    layout = " of old 64-bit programs" if facts.broken else ""
    share = f"{size_text(facts.changed * facts.sector_size)}, {facts.changed} of {facts.sectors} sectors"
    lines = {
        "version": f"{facts.version}{layout}",
        "backing file": facts.backing,
        "disk": size_text(facts.size),
        "changed": share,
        "on disk": f"{size_text(facts.on_disk)} of {size_text(facts.length)}",
        "in use by": facts.used_by or "nobody",
    }
    return [f"{facts.path}:", *(f"  {name:<12}  {value}" for name, value in lines.items())]


def _print(record: dict[str, Any], lines: list[str], as_json: bool) -> None:
    Output(as_json=as_json).record(record, "\n".join(map(_shown, lines)))


def _shown(line: str) -> str:
    from umlab.guest.console import escape_text

    # A path in a header may have any byte, and is not to look like another line.
    return escape_text(line).replace("\n", "\\n")
