"""Images with a Debian system, made by mmdebstrap, which needs no root."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from umlab.errors import LabError
from umlab.guest.disk.apt_source import read_sources, sources_of
from umlab.guest.disk.image import new_image
from umlab.guest.disk.image_import import ARCHIVE_PROGRAMS, DEFAULT_SIZE, make_ext4
from umlab.guest.disk.staging import TEMPORARY_PREFIX, stage, temporary_folder
from umlab.guest.program import check_programs, run_program

#: How much of a system there is, in mmdebstrap's words, the smallest one first.
VARIANTS = ("essential", "apt", "minbase", "buildd", "important", "standard")
#: What a guest's kernel starts, and what else does that job, where a package of these is asked for.
_INIT = "systemd-sysv"
_INITS = frozenset({_INIT, "sysvinit-core", "runit-init", "openrc", "busybox-static", "finit-sysv", "dinit"})
#: Fits for a suite, a variant and a package, with a version or an architecture.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:=~_/-]*")
#: The guest's terminal is its user's, who needs no password; root has none, and no other console is read.
_GETTY = (
    "[Unit]",
    "ConditionKernelCommandLine=con1",
    "[Service]",
    "ExecStart=",
    "ExecStart=-/sbin/agetty --autologin root --noclear - xterm",
)
#: Run for the system's directory.  The name and the name servers would be this machine's, and whoever stops a
#: guest presses ctrl-alt-del, after which it is not to boot anew.
_SETTLE = f"""\
cd "$1/etc" && rm -f hostname resolv.conf && \
mkdir -p systemd/system/getty@tty1.service.d && cd systemd/system && \
ln -sf /dev/null getty-static.service && \
ln -sf /lib/systemd/system/poweroff.target ctrl-alt-del.target && \
printf '%s\\n' {shlex.join(_GETTY)} >getty@tty1.service.d/umlab.conf"""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A system that is to be made.

    Attributes:
        suite: The release, such as ``bookworm``.
        variant: One of :data:`VARIANTS`.
        include: More packages; an init is among them, or comes along.
        mirrors: Where packages come from: addresses, or lines of a sources.list; the mirror that mmdebstrap
            knows where there are none.
    """

    suite: str
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what mmdebstrap would take for something else.  Raises LabError."""
        for what, words in (("suite", (self.suite,)), ("package", self.include)):
            for word in words:
                if not _WORD.fullmatch(word):
                    raise LabError(f"{word[:64]!r} is no name of a {what}")
        if self.variant not in VARIANTS:
            raise LabError(f"there is no variant {self.variant[:64]!r}; there are {', '.join(VARIANTS)}")
        for mirror in self.mirrors:
            if not mirror or mirror.startswith("-") or not mirror.isprintable():
                raise LabError(f"{mirror[:64]!r} is no address of a mirror")

    def command(self, archive: str) -> list[str]:
        """Return the command that makes an archive of the system."""
        packages = list(self.include)
        if not _INITS.intersection(packages):
            packages.insert(0, _INIT)
        return [
            "mmdebstrap",
            # Root has a mount namespace of its own there; a plain user what is allowed to him.
            f"--mode={'unshare' if os.geteuid() == 0 else 'auto'}",
            "--format=tar",
            f"--variant={self.variant}",
            f"--include={','.join(packages)}",
            f"--customize-hook={_SETTLE}",
            self.suite,
            archive,
            *self.mirrors,
        ]


def own_suite() -> str:
    """Return the release of Debian that this machine has, or the one of Debian's kernel for guests."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME") or "bookworm"
    except OSError:
        return "bookworm"


def own_mirrors(suite: str) -> tuple[str, ...]:
    """Return where this machine would get a suite, as its apt is configured; nothing where it has none."""
    return tuple(each.line for each in sources_of(suite, own_suite(), read_sources()))


def build_image(
    name: str, system: Bootstrap, on_line: Callable[[str], None], *, size: int = DEFAULT_SIZE
) -> None:
    """Make an image with a Debian system; blocks for half a minute or more.

    Args:
        name: The new image's name.
        system: What is to be in it.
        on_line: Takes what mmdebstrap says, line by line.
        size: Bytes of its file system.

    Raises:
        LabError: There is an image of that name, a program is missing, or one fails: there is no network,
            or what is in it does not fit.
    """
    with new_image(name) as place:
        check_programs({"mmdebstrap": "mmdebstrap", **ARCHIVE_PROGRAMS})
        archive = str(place / "root.tar")
        errors: list[str] = []

        def take(line: str) -> None:
            on_line(line)
            if line.startswith("E: "):
                errors.append(line.removeprefix("E: "))

        try:
            with _temporary() as folder:
                run_program(
                    system.command(archive),
                    take,
                    on_end=lambda: on_line("I: ending mmdebstrap, and removing what it has made..."),
                    variables={"TMPDIR": str(folder)},
                )
        except LabError as error:
            # The first one is the reason, what follows is who gave up for it.
            raise LabError(
                f"mmdebstrap failed: {errors[0]}{_hint(errors[0])}" if errors else str(error)
            ) from None
        on_line("I: making the file system...")
        make_ext4(archive, place, size)


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """Yield a folder for what mmdebstrap unpacks, which it leaves where it is killed.

    Among the images it would not do: packages are fetched and unpacked there by other users.
    """
    with stage(temporary_folder(), TEMPORARY_PREFIX) as folder:
        os.chmod(folder, 0o711)
        yield folder


def _hint(error: str) -> str:
    if "Failed to fetch" in error or "Could not" in error:
        return "; is there a network? Another mirror is taken with --mirror"
    if "Unable to locate package" in error:
        return ", which the suite does not have"
    if "chroot mode" in error or "fakechroot" in error:
        return "; as root: apt-get install fakechroot"
    return ""
