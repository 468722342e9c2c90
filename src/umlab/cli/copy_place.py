"""Where files are copied from and to, as the command line says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from umlab.errors import LabError

_REMOTE = re.compile(r"((?:[^/:]+/)?[^/:]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A path here or in guests.

    Attributes:
        guest: The guest, as the user named it, ``""`` where ``--all`` says it; ``None`` for this machine.
        path: The path there; ``-`` for our standard streams.
    """

    guest: str | None
    path: str

    @property
    def name(self) -> str:
        """What it is called in the folder that it is copied to.  Raises LabError."""
        name = self.path.rstrip("/").rpartition("/")[2]
        if name in ("", ".", "..", "~"):
            raise LabError(f"{self.path}: write the name of a file or folder")
        return name


def parse_place(text: str) -> Place:
    """Return what a word means: ``GUEST:PATH``, ``LAB/GUEST:PATH``, or a path here.

    What begins with ``/`` or ``.`` is here in any case.
    """
    if text.startswith(("/", ".")) or (match := _REMOTE.fullmatch(text)) is None:
        return Place(None, text)
    return Place(match[1], match[2] or ".")
