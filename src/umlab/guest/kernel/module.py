"""Kernel modules for a guest: what a set of modules needs, in the order in which it must be loaded.

Source: depmod(8), modules.dep(5); Linux scripts/depmod.sh.
"""

from __future__ import annotations

import lzma
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from umlab.errors import LabError, RemoteProtocolError

#: Where Debian's package ``user-mode-linux`` has its modules, one folder for each kernel release.
MODULES_ROOT = "/usr/lib/uml/modules"
#: Bytes of one module, unpacked, that are accepted.
MAX_MODULE = 64 << 20
_SUFFIXES = (".ko", ".ko.xz")


@dataclass(frozen=True, slots=True)
class ModuleIndex:
    """The modules of one kernel.

    Attributes:
        needs: For each module, by normalised name: its path in the modules directory, and the paths of
            all that it needs, the most basic one last.
        builtin: Normalised names of what the kernel has built in.
    """

    needs: dict[str, tuple[str, tuple[str, ...]]]
    builtin: frozenset[str]

    def load_order(self, names: Iterable[str]) -> list[str]:
        """Return the paths to load for ``names``, each once, what is needed before what needs it.

        Args:
            names: Modules as for modprobe; ``-`` and ``_`` are the same; what is built in needs nothing.

        Raises:
            LabError: There is no such module; names it.
        """
        order: dict[str, None] = {}
        for asked in names:
            name = normalize(asked)
            if name not in self.needs:
                if name in self.builtin:
                    continue
                raise LabError(
                    f"the kernel has no module {asked!r}: it is not built in, and not among the "
                    f"{len(self.needs)} modules that were built for it"
                )
            path, needed = self.needs[name]
            order.update(dict.fromkeys(reversed(needed)))
            order[path] = None
        return list(order)


def normalize(name: str) -> str:
    """Return a module's name as the kernel has it: ``_`` for ``-``."""
    return name.replace("-", "_")


def parse_modules(dep: bytes, builtin: bytes) -> ModuleIndex:
    """Decode a kernel's module lists.

    Args:
        dep: ``modules.dep``: lines ``PATH: NEEDED...``, all needed ones, the most basic one last.
        builtin: ``modules.builtin``: one path on each line.

    Raises:
        RemoteProtocolError: A line is not of that form, a path leaves the directory, or has another
            ending than ``.ko`` or ``.ko.xz``.
    """
    needs: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in _lines(dep):
        path, colon, rest = line.partition(":")
        if not colon:
            raise RemoteProtocolError(f"modules.dep has a line without a colon: {line[:80]!r}")
        needs[_name_of(path)] = (path, tuple(rest.split()))
        for needed in rest.split():
            _name_of(needed)
    return ModuleIndex(needs, frozenset(_name_of(line) for line in _lines(builtin)))


def load_index(release: str, directory: str | None = None) -> tuple[str, ModuleIndex]:
    """Read the module lists of an installed kernel.

    Args:
        release: The kernel's release, such as ``6.1.176``.
        directory: Its modules directory; ``/usr/lib/uml/modules/RELEASE`` by default.

    Returns:
        The directory and its index.

    Raises:
        LabError: There are no modules for that release.
        RemoteProtocolError: The lists are not what :func:`parse_modules` takes.
    """
    where = directory or os.path.join(MODULES_ROOT, release)
    try:
        with open(os.path.join(where, "modules.dep"), "rb") as file:
            dep = file.read()
        with open(os.path.join(where, "modules.builtin"), "rb") as file:
            builtin = file.read()
    except OSError as error:
        raise LabError(f"no modules for kernel {release}: {error.filename}: {error.strerror}") from None
    return where, parse_modules(dep, builtin)


def read_module(directory: str, path: str) -> bytes:
    """Return a module as the kernel loads it, unpacked.

    Raises:
        LabError: It cannot be read or unpacked, or has more than 64 MiB.
    """
    try:
        with open(os.path.join(directory, path), "rb") as packed:
            if path.endswith(".xz"):
                with lzma.open(packed) as unpacked:
                    data = unpacked.read(MAX_MODULE + 1)
            else:
                data = packed.read(MAX_MODULE + 1)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise LabError(f"cannot read kernel module {path}: {error}") from None
    if len(data) > MAX_MODULE:
        raise LabError(f"kernel module {path} has more than {MAX_MODULE} bytes")
    return data


def _lines(data: bytes) -> Iterable[str]:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise RemoteProtocolError("a list of modules is not ASCII") from None
    return (line for line in text.split("\n") if line.strip())


def _name_of(path: str) -> str:
    base = posixpath.basename(path)
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or path.strip() != path or not path.isprintable():
        raise RemoteProtocolError(f"a list of modules has the path {path[:80]!r}")
    for suffix in _SUFFIXES:
        if base.endswith(suffix) and len(base) > len(suffix):
            return normalize(base[: -len(suffix)])
    raise RemoteProtocolError(f"a list of modules has {path[:80]!r}, which is not a .ko or .ko.xz file")
