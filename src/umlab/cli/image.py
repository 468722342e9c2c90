"""``umlab image``: root file systems that guests share."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson
from umlab.cli.output import Output
from umlab.cli.page import Page, Table, date_text, present, size_text

if TYPE_CHECKING:
    from umlab.guest.disk.bootstrap import Bootstrap

app = typer.Typer(help="Disk images that guests share: build, import, list, remove.", no_args_is_help=True)

_BUILD_EPILOG = """
Examples:

  umlab image build bookworm

  umlab image build tools --include iproute2,iperf3,tcpdump --size 4G

  umlab image build trixie --suite trixie --mirror http://deb.debian.org/debian

  umlab image build bookworm --dry-run
"""

_IMPORT_EPILOG = """
Examples:

  umlab image import debian-12.img.xz debian

  umlab image import rootfs.tar.gz alpine --size 1G
"""

_LS_EPILOG = """
Examples:

  umlab image ls

  umlab image ls --json
"""

_RM_EPILOG = """
Examples:

  umlab image rm debian

  umlab image rm debian --force
"""

#: What kernels keep of a file at a time: with smaller blocks they read wrong behind one that was changed.
_PAGE = 4096
_HEADINGS = ("IMAGE", " SIZE", " ON DISK", "HAS", "MADE", "USED BY")
_SPARE = (" SIZE", "MADE", "HAS")

NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="What the image is to be called.", show_default=False)
]
Size = Annotated[
    str,
    typer.Option("--size", metavar="SIZE", help="Of the file system; what is not used takes no room."),
]


@app.command("build", epilog=_BUILD_EPILOG)
def build(
    name: NewName,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE", help="The release; this machine's own unless given.", show_default=False
        ),
    ] = None,
    variant: Annotated[
        str,
        typer.Option(
            metavar="VARIANT",
            help="How much of it: essential, apt, minbase, buildd, important or standard.",
        ),
    ] = "minbase",
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE,...", help="Packages to have as well; may be repeated.", show_default=False
        ),
    ] = None,
    size: Size = "2G",
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where packages come from; as apt here has it unless given.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an image with a Debian system, by mmdebstrap, which needs no root.

    It has systemd unless another init is among the packages. Root has no password, and the terminal that
    `umlab guest attach` opens asks for none.
    """
    from umlab.cli.interrupt import interruptible
    from umlab.guest.disk.bootstrap import Bootstrap, build_image, own_mirrors, own_suite

    wanted = suite or own_suite()
    packages = tuple(word for words in include or () for word in words.split(",") if word)
    mirrors = (mirror,) if mirror is not None else own_mirrors(wanted)
    system = Bootstrap(wanted, variant, packages, mirrors)
    output, room = Output(as_json=as_json), _bytes(size)
    if dry_run:
        _print_commands(output, name, system, size)
        return
    with interruptible():
        build_image(name, system, lambda line: output.progress(_line(line)), size=room)
    _tell(output, name)


@app.command("import", epilog=_IMPORT_EPILOG)
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A raw image, or a tar archive of a root file system; also compressed.",
            show_default=False,
        ),
    ],
    name: NewName,
    size: Size = "2G",
    as_json: AsJson = False,
) -> None:
    """Make an image of a file from elsewhere. An archive is put into an ext4 file system."""
    from umlab.cli.interrupt import interruptible
    from umlab.cli.progress import ProgressLine
    from umlab.guest.disk.image_import import import_image

    with interruptible(), ProgressLine(f"importing {file}") as progress:
        import_image(str(file), name, progress, size=_bytes(size))
    _tell(Output(as_json=as_json), name)


@app.command("ls", epilog=_LS_EPILOG)
def ls(as_json: AsJson = False) -> None:
    """List the images, and the disks that labs keep over them; LAB/GUEST@NAME is a snapshot."""
    present(_page, as_json=as_json)


@app.command("rm", epilog=_RM_EPILOG)
def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The image.", autocompletion=complete.image_names, show_default=False
        ),
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also where disks or guests need it, which are lost then.", show_default=False
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an image that nobody needs."""
    from umlab.daemon.disk import disks_on, refuse_unreadable
    from umlab.guest.disk.image import image_path, remove_image

    if not force:
        refuse_unreadable()
    users = list(map(str, disks_on(image_path(name))))
    remove_image(name, users, force=force)
    Output(as_json=as_json).record({"image": name, "changed": True}, f"{name}: removed")


def _page() -> Page:
    from umlab.daemon.disk import disks_on
    from umlab.guest.disk.image import list_images

    records: list[dict[str, Any]] = []
    rows = []
    for image in list_images():
        users = list(map(str, disks_on(image.path)))
        records.append(dataclasses.asdict(image) | {"used_by": users})
        sizes = (size_text(image.size), size_text(image.disk_size))
        made = date_text(image.made_at)
        rows.append((image.name, *sizes, image.file_system or "?", made, ", ".join(users) or "-"))
    return Page(records, [Table(_HEADINGS, rows, _SPARE)] if rows else ["there is no image"])


def _print_commands(output: Output, name: str, system: Bootstrap, size: str) -> None:
    from umlab.guest.disk.image import image_path

    image_path(name)
    archive = f"{name}.tar"
    commands = [system.command(archive), ["umlab", "image", "import", archive, name, "--size", size]]
    output.record({"commands": commands}, "\n".join(map(shlex.join, commands)))


def _tell(output: Output, name: str) -> None:
    from umlab.guest.disk.image import find_image, list_images

    path = str(find_image(name))
    (image,) = (each for each in list_images() if each.path == path)
    text = f"image {name}: {image.file_system or 'unknown contents'}, {size_text(image.size)}"
    output.record(dataclasses.asdict(image), f"{text}, {size_text(image.disk_size)} on the disk")
    if image.block_size is not None and image.block_size < _PAGE:
        output.progress(
            f"its file system has blocks of {image.block_size} bytes: kernels may read wrong what a guest "
            f"writes to a COW disk of it; make it with: mke2fs -b {_PAGE}"
        )


def _line(line: str) -> str:
    """Return a line of mmdebstrap's for a terminal; most are informational."""
    from umlab.wire.text import printable_line

    return printable_line(os.fsencode(line.removeprefix("I: ")))


def _bytes(size: str) -> int:
    from umlab.cli.setting import parse_size
    from umlab.guest.disk.image_import import MIN_SIZE

    try:
        number = parse_size(size)
        if number < MIN_SIZE:
            raise ValueError(f"a file system has {MIN_SIZE >> 20}M at least")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--size") from None
    return number
