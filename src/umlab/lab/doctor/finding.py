"""What a check is given and what it finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Status(enum.StrEnum):
    """How bad a finding is: ``fail`` keeps guests or labs from running, ``warn`` makes them less."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at.

    Attributes:
        kernel: The kernel's program file, absolute.
        runtime: The directory that holds, or will hold, the labs' sockets.
        state: The directory that holds, or will hold, the labs' logs and disks.
    """

    kernel: str
    runtime: str
    state: str


class Verdict(NamedTuple):
    """What one check says.

    Attributes:
        status: How bad it is.
        detail: What was seen.
        fix: What to do about it; empty where all is well.
    """

    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's name and verdict; the fields are those of :class:`Verdict`."""

    name: str
    status: Status
    detail: str
    fix: str
