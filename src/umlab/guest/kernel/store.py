"""Which kernels there are, by name: Debian's, those in the store, and others where they were built."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umlab._name import check_name
from umlab.errors import LabError
from umlab.guest.cmdline import DEFAULT_KERNEL
from umlab.guest.kernel.answer import kernel_release
from umlab.guest.kernel.module import MODULES_ROOT
from umlab.guest.kernel.tree import built_program, is_tree, modules_in_place
from umlab.guest.place import KERNELS, data_base, data_directory

#: What :data:`~umlab.guest.cmdline.DEFAULT_KERNEL` is called.
DEBIAN = "debian"
#: Where the boot protocol of x86 has its magic number, and what it is.
#: Source: Linux Documentation/arch/x86/boot.rst.
_BZIMAGE = slice(0x202, 0x206), b"HdrS"
_HEAD = 0x206


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that guests can run.

    Attributes:
        path: Its program file, absolute.
        release: What it calls itself, such as ``6.12.117``.
        modules_directory: Where its ``modules.dep`` and ``modules.builtin`` are, absolute; ``None`` where
            nothing is known of its modules.
        name: What it is found by: ``debian``, its name in the store, or its file or folder as it was given.
    """

    path: str
    release: str
    modules_directory: str | None
    name: str


def find_kernel(name: str | None = None) -> Kernel:
    """Return a kernel; runs it to be told its release.

    Args:
        name: A kernel of the store, ``debian``, a program file, or a folder in which one was built; what
            has a ``/`` in it, or is ``.`` or ``..``, is a file or a folder.  Debian's by default.

    Raises:
        LabError: There is no such kernel, or what there is is none that can be run; says which.
        RemoteProtocolError: Its tree's list of modules is none.
    """
    name = DEBIAN if name is None else name
    return _kernel(Path(kernel_program(name)), name)


def kernel_program(name: str, folder: str = ".") -> str:
    """Return the program file that a word stands for, as :func:`find_kernel` takes it, absolute.

    It is not looked at; a file's name is returned whether the file is there or not.

    Args:
        name: The word.
        folder: Where relative paths begin.

    Raises:
        LabError: There is no kernel of that name, or none was built in that folder.
    """
    if name == DEBIAN:
        return DEFAULT_KERNEL
    if "/" not in name and name not in (".", ".."):
        program = data_base() / KERNELS / check_name("kernel", name) / "linux"
        if not os.path.exists(program):
            raise _no_kernel(name, folder)
        return str(program)
    path = Path(os.path.abspath(os.path.join(folder, name)))
    if os.path.isdir(path):
        path = built_program(path) if is_tree(path) else path / "linux"
    return str(path)


def modules_directory(program: Path, release: str) -> str | None:
    """Return where the modules of a kernel are: those built with it, else those of Debian's package.

    Args:
        program: The kernel's program file, absolute.
        release: What it calls itself.

    Raises:
        LabError: They cannot be had from the tree in which it was built.
        RemoteProtocolError: The tree's list of modules is none.
    """
    # `./linux` of a tree is the tree's.
    if is_tree(program.parent):
        return modules_in_place(program.parent.resolve(), release)
    for directory in (program.parent / "modules/lib/modules" / release, Path(MODULES_ROOT) / release):
        if os.path.isdir(directory):
            return str(directory)
    return None


def kernel_names() -> list[str]:
    """Return the names of all kernels in the store, sorted.

    Raises:
        LabError: It cannot be read.
    """
    store = data_base() / KERNELS
    try:
        return sorted(name for name in os.listdir(store) if not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"cannot read {store}: {error.strerror}") from None


def replace_kernel(new: Path, name: str) -> None:
    """Move a folder with a kernel into the store, in place of what is there by that name.

    Raises:
        LabError: It is no kernel that can be run; then the store is as it was.
        OSError: It cannot be moved there.
    """
    check_kernel_name(name)
    _check_program(new / "linux")
    kernel_release(str(new / "linux"))
    store = data_directory(KERNELS)
    arriving = store / f".{name}.new"
    shutil.rmtree(arriving, ignore_errors=True)
    try:
        # The cache may be on another file system, and a copy is not whole at once.
        shutil.move(new, arriving)
        with _moved_away(store / name):
            arriving.rename(store / name)
    except BaseException:
        shutil.rmtree(arriving, ignore_errors=True)
        raise


def remove_kernel(name: str) -> None:
    """Remove a kernel from the store; guests that run it go on.

    Raises:
        LabError: There is none of that name, or it cannot be removed.
    """
    folder = data_directory(KERNELS) / check_name("kernel", name)
    if not os.path.isdir(folder):
        raise _no_kernel(name)
    try:
        with _moved_away(folder):
            pass
    except OSError as error:
        raise LabError(f"cannot remove the kernel {name}: {error}") from None


def check_kernel_name(name: str) -> None:
    """Refuse a name that no kernel of the store can have.  Raises LabError."""
    if check_name("kernel", name) == DEBIAN:
        raise LabError(f"{DEBIAN} is {DEFAULT_KERNEL}, of the package user-mode-linux; take another name")


@contextlib.contextmanager
def _moved_away(folder: Path) -> Iterator[None]:
    """Put a folder out of sight for the block, then remove it; after an error it is back."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    try:
        yield
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _kernel(program: Path, name: str) -> Kernel:
    _check_program(program)
    release = kernel_release(str(program))
    return Kernel(str(program), release, modules_directory(program, release), name)


def _check_program(path: Path) -> None:
    """Refuse a file that is no program, or another kernel's; says which.  Raises LabError."""
    try:
        # Of a pipe nothing may ever come.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LabError(f"{path} is not a User Mode Linux kernel: it is no file")
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        hint = "; install the package user-mode-linux" if str(path) == DEFAULT_KERNEL else ""
        raise LabError(f"there is no kernel {path}{hint}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LabError(f"cannot read the kernel {path}: {reason}") from None
    where, magic = _BZIMAGE
    if head[where] == magic:
        raise LabError(f"{path} is a kernel for an x86 machine (a bzImage), not a User Mode Linux kernel")
    if not head.startswith((b"\x7fELF", b"#!")):
        raise LabError(f"{path} is not a User Mode Linux kernel: it is no program at all")
    if not os.access(path, os.X_OK):
        raise LabError(f"the kernel {path} may not be executed: chmod +x {path}")


def _no_kernel(name: str, folder: str = ".") -> LabError:
    there = ", ".join([DEBIAN, *kernel_names()])
    hint = f"; or do you mean ./{name}?" if os.path.exists(os.path.join(folder, name)) else ""
    return LabError(
        f"there is no kernel {name!r}; there is {there}; `umlab kernel build --name {name}` builds one{hint}"
    )
