"""A kernel in the folder in which it was built: its program, and modules that nobody has installed.

Source: Linux Documentation/kbuild/kbuild.rst (modules.order, modules.builtin); depmod(8).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.kernel.config import parse_config
from umlab.guest.place import MODULES, cache_directory
from umlab.guest.program import program_path

#: Seconds that depmod has; some thousand modules take it one.
_DEPMOD_TIMEOUT = 60
#: What a tree has beside the modules themselves; older kernels do not have all of it.
_LISTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def is_tree(folder: Path) -> bool:
    """Say whether a kernel is configured or built in a folder, or could be."""
    return os.path.isfile(folder / ".config") or all(
        os.path.exists(folder / name) for name in ("Kbuild", "arch/um")
    )


def built_program(tree: Path) -> Path:
    """Return the program that was built in a tree.

    Raises:
        LabError: None was, or not for UML; says how.
    """
    program = tree / "linux"
    if os.path.isfile(program):
        return program
    try:
        config = parse_config((tree / ".config").read_bytes())
    except OSError:
        config = {}
    make = f"make -C {tree} ARCH=um"
    if config and config.get("CONFIG_UML") != "y":
        raise LabError(
            f"{tree} is configured for another architecture, not for User Mode Linux: "
            f"build one with `umlab kernel build`, or: {make} mrproper defconfig linux"
        )
    steps = "linux" if config else "defconfig linux"
    raise LabError(f"no kernel was built in {tree}; build it: {make} {steps}")


def parse_order(data: bytes) -> list[str]:
    """Return the paths of modules that a ``modules.order`` names, each once, as ``.ko``.

    Args:
        data: One path on each line, below the tree: ``drivers/net/dummy.o``, and before Linux 6.3
            ``drivers/net/dummy.ko`` or ``kernel/drivers/net/dummy.ko``.

    Raises:
        RemoteProtocolError: A path leaves the tree, or is no module's.
    """
    paths: dict[str, None] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line:
            continue
        stem, _, ending = line.rpartition(".")
        parts = stem.split("/")
        usable = line.isprintable() and not any(char.isspace() for char in line)
        if not usable or ending not in ("o", "ko") or not all(parts) or {".", ".."} & {*parts}:
            raise RemoteProtocolError(f"modules.order has {line[:80]!r}, which is no module of the tree")
        paths[f"{stem}.ko"] = None
    return list(paths)


def modules_in_place(tree: Path, release: str) -> str:
    """Return a modules directory, as an installed kernel has it, whose modules are those of a tree.

    It is in the cache, has links to the modules, and is made anew when the tree has changed.

    Args:
        tree: The folder in which a kernel was built.
        release: That kernel's release.

    Raises:
        LabError: The tree has modules and there is no depmod, or that fails; or the cache is full.
        RemoteProtocolError: Its list of modules is none.
    """
    modules = {
        path: file for path in parse_order(_read(tree / "modules.order")) if (file := _find(tree, path))
    }
    cache = cache_directory(MODULES)
    owner = _digest(str(tree))
    made = cache / f"{owner}-{_digest(_state(tree, release, modules))}"
    if not made.is_dir():
        try:
            with tempfile.TemporaryDirectory(dir=cache, prefix=".") as temporary:
                new = Path(temporary, "new")
                _make(new, tree, release, modules)
                _put(new, made)
        except OSError as error:
            raise LabError(f"cannot make a modules directory for {tree}: {error}") from None
        for old in cache.glob(f"{owner}-*"):
            if old != made:
                shutil.rmtree(old, ignore_errors=True)
    return str(made / "lib/modules" / release)


def _read(path: Path) -> bytes:
    """Return a list that a tree without modules does not have."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None


def _find(tree: Path, path: str) -> Path | None:
    """Return the file of a module; one that is listed may not have been built yet."""
    for name in (path, path.removeprefix("kernel/")):
        if os.path.isfile(tree / name):
            return tree / name
    return None


def _state(tree: Path, release: str, modules: dict[str, Path]) -> str:
    """Return a text that is another one when a module, or a list of them, has changed."""
    lines = [release]
    for file in (*(tree / name for name in _LISTS), *modules.values()):
        if file.exists():
            status = file.stat()
            lines.append(f"{file} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(lines)


def _make(new: Path, tree: Path, release: str, modules: dict[str, Path]) -> None:
    where = new / "lib/modules" / release
    where.mkdir(parents=True)
    for name in _LISTS[1:]:
        (where / name).write_bytes(_read(tree / name))
    order = {f"kernel/{file.relative_to(tree)}": file for file in modules.values()}
    (where / "modules.order").write_text("".join(f"{path}\n" for path in order))
    (where / "modules.dep").touch()
    for path, file in order.items():
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).symlink_to(file)
    if order:
        _run_depmod(new, release)


def _run_depmod(base: Path, release: str) -> None:
    depmod = shutil.which("depmod", path=program_path())
    if depmod is None:
        raise LabError("the modules of a kernel tree need depmod; install the package kmod")
    try:
        done = subprocess.run(
            [depmod, "-b", str(base), release],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DEPMOD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{depmod} does not end within {_DEPMOD_TIMEOUT} seconds") from None
    if done.returncode:
        raise LabError(f"{depmod} failed: {done.stderr.decode('utf-8', 'replace').strip()[:300]}")


def _put(new: Path, made: Path) -> None:
    """Give a finished directory its place; somebody else may have put an equal one there."""
    try:
        new.rename(made)
    except OSError:
        if not made.is_dir():
            raise


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
