"""Calls of ``uml_mkcow`` and ``uml_moo``, each in a folder of its own, and the listed differences."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from support.cow_files import SECTOR, write_cow

PAGES = Path(__file__).parents[2] / "docs/reference"
HEADER = ["Cases", "Differs in", "Original", "Ours, and why"]

EVEN, TAIL = 1 << 20, (1 << 20) + 100
CHANGES = {0: b"A" * SECTOR, 9: b"B" * SECTOR, 2047: b"C" * SECTOR}
#: Also what a guest has written to the last sector, which is none of the backing file's as a whole.
TAIL_CHANGES = {**CHANGES, 2048: b"D" * SECTOR}

#: Name: the words, and what makes the folder.
Case = tuple[str, Callable[[], None]]


def image(size: int = EVEN) -> None:
    """Make a backing file and other things to name."""
    Path("image").write_bytes((bytes(range(251)) * (size // 251 + 1))[:size])
    os.utime("image", (7, 7))
    Path("folder").mkdir()
    Path("link").symlink_to("image")
    Path("loop").symlink_to("loop")
    Path("small").write_bytes(b"x")
    Path("empty").write_bytes(b"")
    for name in ("small", "empty"):
        os.utime(name, (8, 8))


def cow(kind: str = "v3", size: int = EVEN, changes: dict[int, bytes] = CHANGES) -> Callable[[], None]:
    """Return what makes a backing file and a COW file."""

    def make() -> None:
        image(size)
        write_cow(Path("cow"), kind, Path.cwd() / "image", changes)

    return make


def then(first: Callable[[], None], *more: Callable[[], object]) -> Callable[[], None]:
    """Return what does one thing after the other."""

    def make() -> None:
        first()
        for each in more:
            each()

    return make


def newer() -> None:
    """Change the backing file's time."""
    os.utime("image", (9, 9))


def touched(seconds: int) -> Callable[[], None]:
    """Return what makes a backing file of that time."""
    return then(image, lambda: os.utime("image", (seconds, seconds)))


def moved() -> None:
    """Give the backing file another name."""
    os.rename("image", "moved")


MKCOW: dict[str, Case] = {
    "new": ("new image", image),
    "new-tail": ("new image", lambda: image(TAIL)),
    "small": ("new small", image),
    "empty": ("new empty", image),
    "link": ("new link", image),
    "way": ("new folder/../image", image),
    "exists": ("cow image", cow()),
    "force": ("-f new image", image),
    "force-used": ("-f cow image", cow()),
    "more-words": ("new image more", image),
    "option-behind": ("new image -f", image),
    "usage": ("", image),
    "usage-one": ("new", image),
    "usage-force": ("-f new", image),
    "usage-help": ("--help", image),
    "no-backing": ("new none", image),
    "folder-as-backing": ("new folder", image),
    "no-folder": ("none/new image", image),
    "folder": ("folder image", image),
    "force-folder": ("-f folder image", image),
    "force-backing": ("-f image image", image),
    "loop": ("loop image", image),
    "force-loop": ("-f loop image", image),
    "before-1970": ("new image", touched(-5)),
    "after-2106": ("new image", touched(5_000_000_000)),
}

MOO: dict[str, Case] = {
    **{kind: ("cow new", cow(kind)) for kind in ("v1", "v2", "v3", "broken")},
    **{f"{kind}-tail": ("cow new", cow(kind, TAIL)) for kind in ("v1", "v2", "v3", "broken")},
    "tail-changed": ("cow new", cow("v3", TAIL, TAIL_CHANGES)),
    "exists": ("cow new", then(cow(), lambda: Path("new").write_bytes(b"x" * 9999))),
    "in-place": ("-d cow", cow()),
    "in-place-tail": ("-d cow", cow("v3", TAIL)),
    "in-place-tail-changed": ("-d cow", cow("v3", TAIL, TAIL_CHANGES)),
    "in-place-others": (
        "-d cow",
        then(cow(), lambda: write_cow(Path("other"), "v2", Path.cwd() / "image", {})),
    ),
    "backing": ("-b moved cow new", then(cow(), moved)),
    "backing-in-place": ("-d -b moved cow", then(cow(), moved)),
    "backing-in-place-as-told": ("-b moved -d cow", then(cow(), moved)),
    "usage": ("", cow()),
    "usage-one": ("cow", cow()),
    "usage-three": ("cow new more", cow()),
    "usage-help": ("--help", cow()),
    "usage-in-place": ("-d", cow()),
    "usage-in-place-two": ("-d cow new", cow()),
    "usage-twice": ("-d -d cow", cow()),
    "usage-backing": ("-b", cow()),
    "usage-backing-one": ("-b image cow", cow()),
    "usage-backing-twice": ("-b image -b image cow new", cow()),
    "usage-in-place-backing": ("-d -b", cow()),
    "usage-backing-behind": ("cow new -b image", cow()),
    "no-cow": ("none new", cow()),
    "no-cow-file": ("image new", cow()),
    "short": ("cow new", then(cow(), lambda: os.truncate("cow", 100))),
    "no-bitmap": ("cow new", then(cow(), lambda: os.truncate("cow", 8000))),
    "cut": ("cow new", then(cow(), lambda: os.truncate("cow", 20000))),
    "no-backing": ("cow new", then(cow(), moved)),
    "no-backing-named": ("-b none cow new", cow()),
    "mtime": ("cow new", then(cow(), newer)),
    "mtime-in-place": ("-d cow", then(cow(), newer)),
    "size": ("cow new", then(cow(), lambda: os.truncate("image", 5))),
    "no-folder": ("cow none/new", cow()),
    "folder": ("cow folder", cow()),
    "loop": ("cow loop", cow()),
    "into-backing": ("cow image", cow()),
    "into-cow": ("cow cow", cow()),
}


def listed_differences(program: str) -> dict[str, set[str]]:
    """Return, for each case of a program that differs, in what.

    Raises:
        AssertionError: The page's table is missing, or names a case twice.
    """
    lines = (PAGES / f"{program}-differences.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == HEADER
    listed: dict[str, set[str]] = {}
    for cases, parts, *_ in rows[2:]:
        for name in cases.replace("`", "").split(", "):
            assert name not in listed, f"{name} is listed twice"
            listed[name] = set(parts.split(", "))
    return listed
