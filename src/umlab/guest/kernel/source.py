"""The source of a kernel that is to be built, and the programs that build it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from umlab.errors import LabError

#: Where Debian's packages ``linux-source-*`` have their archives.
SOURCE_ROOT = "/usr/src"
_ARCHIVES = (".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
#: Programs, and the packages that have them in Debian.
_BUILDERS = {
    **dict.fromkeys(("make", "gcc", "ld"), "build-essential"),
    **{"flex": "flex", "bison": "bison", "bc": "bc", "depmod": "kmod"},
}
_UNPACKERS = {
    ".xz": ("xz", "xz-utils"),
    ".gz": ("gzip", "gzip"),
    ".bz2": ("bzip2", "bzip2"),
    ".zst": ("zstd", "zstd"),
}


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Where a kernel's source is.

    Attributes:
        path: A tree or an archive, absolute.
        is_tree: Whether it is a tree.
    """

    path: str
    is_tree: bool

    @property
    def name(self) -> str:
        """Its file's name, without an archive's ending."""
        name = os.path.basename(self.path)
        return name if self.is_tree else name[: name.rindex(".tar")]

    @property
    def identity(self) -> str:
        """What is another text for another source; a tree is the same one whatever changes in it."""
        if self.is_tree:
            return f"{self.path}\n"
        status = os.stat(self.path)
        return f"{self.path} {status.st_size} {status.st_mtime_ns}\n"


def find_source(word: str) -> KernelSource:
    """Return the source that a word stands for.

    Args:
        word: A tree's folder, an archive, or a package such as ``linux-source-6.12``.

    Raises:
        LabError: There is none, it is no kernel's, or it is a tree that was built in its own folder.
    """
    packaged = f"{SOURCE_ROOT}/{word}.tar.xz"
    if os.path.isdir(word):
        return _checked_tree(os.path.realpath(word))
    if os.path.isfile(word):
        if not word.endswith(_ARCHIVES):
            raise LabError(
                f"{word} is neither a kernel's source tree nor an archive ({', '.join(_ARCHIVES)})"
            )
        return KernelSource(os.path.realpath(word), is_tree=False)
    if "/" not in word and os.path.isfile(packaged):
        return KernelSource(packaged, is_tree=False)
    hint = f", nor {packaged}; install the package {word}" if word.startswith("linux-source-") else ""
    raise LabError(f"there is no kernel source {word}: no folder, no archive{hint}")


def build_programs(source: KernelSource) -> dict[str, str]:
    """Return the programs that unpack and build a source, and Debian's packages that have them."""
    needed = dict(_BUILDERS)
    if not source.is_tree:
        needed["tar"] = "tar"
        for ending, (program, package) in _UNPACKERS.items():
            if source.path.endswith(ending):
                needed[program] = package
    return needed


def _checked_tree(path: str) -> KernelSource:
    tree = Path(path)
    if not all(os.path.exists(tree / name) for name in ("Makefile", "Kconfig", "arch/um")):
        raise LabError(f"{path} is no kernel's source tree: it has no Makefile, Kconfig or arch/um")
    # What the kernel's own Makefile asks before it builds elsewhere.
    if any(
        os.path.exists(tree / name) for name in (".config", "include/config", "arch/um/include/generated")
    ):
        raise LabError(
            f"{path} was configured or built in its own folder, so it cannot be built elsewhere: "
            "run what is built there with --kernel, or clean it with `make ARCH=um mrproper`"
        )
    return KernelSource(path, is_tree=True)
