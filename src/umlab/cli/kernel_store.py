"""``umlab kernel``: the kernels that guests can run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli import complete, kernel_build
from umlab.cli.exit_status import EXIT_ERROR
from umlab.cli.option import AsJson
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.cli.page import Page

app = typer.Typer(help="Kernels that guests can run: build, list, remove.", no_args_is_help=True)
app.command("build", epilog=kernel_build.EPILOG)(kernel_build.build)

_LS_EPILOG = """
Examples:

  umlab kernel ls

  umlab kernel ls --kernel ~/src/linux --json
"""

_RM_EPILOG = """
Examples:

  umlab kernel rm linux-source-6.12
"""

_HEADINGS = ("KERNEL", "RELEASE", "MODULES", "TRANSPORTS", "HAS", "PATH")
_SPARE = ("PATH", "MODULES")


@app.command("ls", epilog=_LS_EPILOG)
def ls(
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            "--kernel",
            metavar="KERNEL",
            help="Another kernel, a file or the folder where it was built, as well; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the kernels that guests can run, each with its transports and what else it has.

    The first one is Debian's, which guests run where no other is named. The status is 1 where one that
    --kernel names cannot be run.
    """
    from umlab.cli.page import present

    page = _page(kernel or [])
    present(lambda: page, as_json=as_json)
    if any(record["error"] is not None for record in page.records[len(page.records) - len(kernel or []) :]):
        raise typer.Exit(EXIT_ERROR)


@app.command("rm", epilog=_RM_EPILOG)
def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The kernel.", autocompletion=complete.built_kernel_names, show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Remove a kernel that was built, with what its build has left. Guests that run it go on."""
    from umlab.cli.progress import told_if_long
    from umlab.guest.kernel.build import remove

    output = Output(as_json=as_json)
    with told_if_long(f"removing {name}; its source and objects may take a minute"):
        remove(name)
    output.record({"kernel": name, "changed": True}, f"{name}: removed")


def _page(others: list[str]) -> Page:
    from umlab.cli.page import Page, Table
    from umlab.guest.kernel.store import DEBIAN, kernel_names

    records = [_record(name) for name in (DEBIAN, *kernel_names(), *others)]
    rows = [_row(record) for record in records if record["error"] is None]
    lines = [str(record["error"]) for record in records if record["error"] is not None]
    return Page(records, [*([Table(_HEADINGS, rows, _SPARE)] if rows else []), *lines])


def _record(name: str) -> dict[str, Any]:
    """Return what a kernel says of itself, or why it cannot be run."""
    from umlab.errors import LabError, RemoteProtocolError
    from umlab.guest.kernel.config import features_of, read_kernel_config, transports_of
    from umlab.guest.kernel.store import find_kernel

    record: dict[str, Any] = {"name": name, "path": None, "release": None, "modules_directory": None}
    record |= {"modules": None, "transports": None, "features": None, "error": None}
    try:
        kernel = find_kernel(name)
        config = read_kernel_config(kernel.path)
    except (LabError, RemoteProtocolError) as error:
        return record | {"error": f"{name}: {error}"}
    record |= dataclasses.asdict(kernel)
    record["modules"] = config.get("CONFIG_MODULES") == "y"
    for key, found in (("transports", transports_of(config)), ("features", features_of(config))):
        record[key] = {each.kind: list(each.missing) for each in found}
    return record


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    modules = "no" if not record["modules"] else "yes" if record["modules_directory"] else "not found"
    lists = [
        ", ".join(kind for kind, missing in record[key].items() if not missing) or "-"
        for key in ("transports", "features")
    ]
    return (record["name"], record["release"], modules, *lists, record["path"])
