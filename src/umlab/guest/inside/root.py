"""The initramfs that every guest begins with: busybox, our init and agent, and kernel modules.

It is the root ``tiny`` by itself; for the others its init mounts the root, and leaves the agent running in
it.  What a guest is called and what its root is, the kernel's command line says, so that all guests of one
kernel have the same initramfs.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence

from umlab.errors import LabError
from umlab.guest.inside import cpio
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.kernel import module

_DIRECTORIES = (
    *(
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "mnt",
        "new",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "umlab",
        "var",
    ),
)
#: What makes a root of the host's: its files below a layer of the guest's own.
OVERLAY = "overlay"
_PT_INTERP = 3


def find_busybox() -> str:
    """Return the path of a statically linked busybox.

    Raises:
        LabError: There is none; names the package.
    """
    found = shutil.which("busybox") or "/bin/busybox"
    try:
        with open(found, "rb") as program:
            head = program.read(4096)
    except FileNotFoundError:
        raise LabError("a guest needs busybox; install the package busybox-static") from None
    except OSError as error:
        raise LabError(f"cannot read {found}: {error.strerror}") from None
    if not _is_static(head):
        raise LabError(f"{found} is not statically linked; install the package busybox-static")
    return found


def build_initramfs(
    modules: Sequence[str] = (),
    *,
    optional: Sequence[str] = (),
    release: str = "",
    modules_directory: str | None = None,
) -> bytes:
    """Build the initramfs; not compressed, since to unpack it would be a tenth of a guest's boot.

    Equal arguments give equal bytes.  Blocks on files and a run of busybox, a tenth of a second or so.

    Args:
        modules: Kernel modules to load at boot, with what they need.
        optional: The same, left out where the kernel has none.
        release: The kernel's release, for its modules; not used without any.
        modules_directory: As for :func:`umlab.guest.kernel.module.load_index`.

    Raises:
        LabError: Busybox or a module is missing.
    """
    members = list(_base())
    paths: list[str] = []
    for where, path in _modules(modules, optional, release, modules_directory):
        name = f"lib/modules/{os.path.basename(path).removesuffix('.xz')}"
        members.append(cpio.file(name, module.read_module(where, path)))
        paths.append(f"/{name}\n")
    members.append(cpio.file("etc/modules", "".join(paths).encode()))
    return cpio.serialize_archive(members)


def _modules(
    modules: Sequence[str], optional: Sequence[str], release: str, directory: str | None
) -> list[tuple[str, str]]:
    """Return the modules to load, in order, each with the directory that it is in."""
    if not modules and not optional:
        return []
    try:
        where, index = module.load_index(release, directory)
    except LabError:
        if modules:
            raise
        return []
    names = [*modules, *(name for name in optional if module.normalize(name) in index.needs)]
    return [(where, path) for path in index.load_order(names)]


def _base() -> Iterable[cpio.Member]:
    yield from (cpio.directory(name) for name in _DIRECTORIES)
    yield cpio.symlink("sbin", "bin")
    # What init needs before it mounts devtmpfs, or where the kernel has none.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.character_device("dev/null", 1, 3, 0o666)
    for number in range(1 + 2 * SESSIONS):
        yield cpio.character_device(f"dev/ttyS{number}", 4, 64 + number)
    busybox = find_busybox()
    with open(busybox, "rb") as program:
        yield cpio.file("bin/busybox", program.read(), 0o755)
    for applet in _applets(busybox):
        yield cpio.symlink(f"bin/{applet}", "busybox")
    scripts = importlib.resources.files("umlab.guest.inside")
    yield cpio.file("init", scripts.joinpath("init.sh").read_bytes(), 0o755)
    for name in ("agent", "session", "terminal"):
        yield cpio.file(f"umlab/{name}", scripts.joinpath(f"{name}.sh").read_bytes())
    yield cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")


def _applets(busybox: str) -> list[str]:
    try:
        done = subprocess.run(
            [busybox, "--list"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"cannot run {busybox}: {error}") from None
    return sorted(name for name in done.stdout.decode("ascii").split() if name != "busybox")


def _is_static(head: bytes) -> bool:
    """Say whether a 64-bit ELF file, of which these are the first bytes, asks for no interpreter."""
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return False
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if table + size * count > len(head):
        return False
    types = [struct.unpack_from("<I", head, table + size * number)[0] for number in range(count)]
    return _PT_INTERP not in types
