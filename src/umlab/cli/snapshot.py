"""``umlab snapshot``: the disks that labs keep for their guests, as they were."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson
from umlab.cli.output import Output
from umlab.cli.page import Page, Table, date_text, present, size_text

if TYPE_CHECKING:
    from umlab.daemon.disk import KeptDisk
    from umlab.lab.snapshot import Report, Snapshot

app = typer.Typer(help="Keep the disks of guests as they are, and put them back.", no_args_is_help=True)

_SAVE_EPILOG = """
Examples:

  umlab snapshot save office before-upgrade

  umlab snapshot save office/left clean
"""

_RESTORE_EPILOG = """
Examples:

  umlab snapshot restore office before-upgrade

  umlab snapshot restore left clean
"""

_LS_EPILOG = """
Examples:

  umlab snapshot ls

  umlab snapshot ls office/left --json
"""

_RM_EPILOG = """
Examples:

  umlab snapshot rm office before-upgrade
"""

_HEADINGS = ("LAB", "SNAPSHOT", "GUEST", "MADE", " ON DISK", "STATE")
_SPARE = ("MADE", " ON DISK")

TargetName = Annotated[
    str,
    typer.Argument(
        metavar="LAB|GUEST",
        help="A lab, of which all guests with a disk are meant, or a guest: LAB/GUEST, or its name alone.",
        autocompletion=complete.disk_names,
        show_default=False,
    ),
]
SnapshotName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The snapshot.",
        autocompletion=complete.snapshot_names,
        show_default=False,
    ),
]


@app.command("save", epilog=_SAVE_EPILOG)
def save(target: TargetName, name: SnapshotName, as_json: AsJson = False) -> None:
    """Keep copies of disks, of guests that do not run."""
    from umlab.cli.interrupt import interruptible
    from umlab.lab import snapshot

    output = Output(as_json=as_json)
    with interruptible():
        kept = snapshot.save(snapshot.find_target(target), name, _reporter(output, "copying"))
    _tell(output, kept, name, f"saved as {name}")


@app.command("restore", epilog=_RESTORE_EPILOG)
def restore(target: TargetName, name: SnapshotName, as_json: AsJson = False) -> None:
    """Put disks back as they were; what is on them now is lost."""
    from umlab.cli.interrupt import interruptible
    from umlab.lab import snapshot

    output = Output(as_json=as_json)
    with interruptible():
        snapshot.restore(
            snapshot.find_target(target),
            name,
            _reporter(output, "putting back"),
            lambda put: _tell(output, put, name, f"is as it was at {name}"),
        )


@app.command("ls", epilog=_LS_EPILOG)
def ls(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="LAB|GUEST",
            help="A lab or a guest; all unless given.",
            autocompletion=complete.disk_names,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List snapshots: when they were made, what they take on the disk, and whether they can be put back."""
    from umlab.lab import snapshot

    present(
        lambda: _page(snapshot.list_snapshots(None if target is None else snapshot.find_target(target))),
        as_json=as_json,
    )


@app.command("rm", epilog=_RM_EPILOG)
def rm(target: TargetName, name: SnapshotName, as_json: AsJson = False) -> None:
    """Remove a snapshot, or one guest's part of it."""
    from umlab.lab import snapshot

    removed = snapshot.remove(snapshot.find_target(target), name)
    _tell(Output(as_json=as_json), removed, name, f"removed {name}")


def _reporter(output: Output, doing: str) -> Report:
    return lambda disk: output.progress(f"{disk.lab}/{disk.guest}: {doing}")


def _tell(output: Output, disks: list[KeptDisk], name: str, text: str) -> None:
    for disk in disks:
        record = {"lab": disk.lab, "guest": disk.guest, "snapshot": name, "path": str(disk.path)}
        output.record(record, f"{disk.lab}/{disk.guest}: {text}")


def _page(found: list[Snapshot]) -> Page:
    rows = [
        (
            each.lab,
            each.name,
            each.guest,
            date_text(each.made_at),
            size_text(each.disk_size),
            "ok" if each.problem is None else each.problem,
        )
        for each in found
    ]
    table = Table(_HEADINGS, rows, _SPARE)
    return Page([dataclasses.asdict(each) for each in found], [table] if rows else ["there is no snapshot"])
