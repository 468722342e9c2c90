"""What a guest's agent says on its control line.

One line each, in ASCII: ``umlab-agent 2 HOW BOOT PID`` when it begins, ``N more``, ``N heard``,
``N exit STATUS``, ``N end`` and ``N settled`` for session N, and ``0 reset NUMBER HOW``, HOW being ``file`` or
``line`` and BOOT the kernel's boot identity.  Before its greeting the guest's terminal may echo what the host
has said to the kernel before a reboot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from umlab.errors import RemoteProtocolError

#: Commands that run at once in one guest.
SESSIONS = 8
_GREETING = re.compile(rb"umlab-agent 2 (file|line) ([0-9a-f-]{1,36}) ([0-9]{1,10})")
_SESSION = rf"([1-{SESSIONS}])".encode()
_MORE = re.compile(_SESSION + rb" more")
_HEARD = re.compile(_SESSION + rb" heard")
_EXIT = re.compile(_SESSION + rb" exit ([0-9]{1,3})")
_END = re.compile(_SESSION + rb" end")
_SETTLED = re.compile(_SESSION + rb" settled")
_RESET = re.compile(rb"0 reset ([0-9]{1,9}) (file|line)")
#: Any beginning of what the host says.
_ECHO = re.compile(rb"(?:[a-z]{1,6}(?: [0-9A-Za-z-]*)*)?\r?")


@dataclass(frozen=True, slots=True)
class Greeting:
    """The agent has begun; what it ran before a reboot has ended.

    Attributes:
        has_files: It reads what the host has in their common folder.
        boot: Tells the kernel's boots apart.
        pid: Tells the agents of one boot apart.
    """

    has_files: bool
    boot: str
    pid: int


@dataclass(frozen=True, slots=True)
class More:
    """A session has taken the last piece of its input."""

    session: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A signal has been sent on to a session's command, if it is still there."""

    session: int


@dataclass(frozen=True, slots=True)
class Exit:
    """A session's command has ended; what it has started may go on to write.

    Attributes:
        session: From 1.
        status: Exit status, 128 + n when signal n ended it.
    """

    session: int
    status: int


@dataclass(frozen=True, slots=True)
class End:
    """A session is free for the next command; all that the last one wrote is in the guest's lines."""

    session: int


@dataclass(frozen=True, slots=True)
class Settled:
    """All that was in a line of the session is with the host."""

    session: int


@dataclass(frozen=True, slots=True)
class Reset:
    """All sessions have been ended.

    Attributes:
        number: As it was asked for.
        has_files: As in :class:`Greeting`.
    """

    number: int
    has_files: bool


@dataclass(frozen=True, slots=True)
class Echo:
    """What the host has said, or the beginning of it."""


Line = Greeting | More | Heard | Exit | End | Settled | Reset | Echo


def parse_line(line: bytes) -> Line:
    """Decode a line, without its newline.

    Raises:
        RemoteProtocolError: An agent of this version does not say that.
    """
    if match := _MORE.fullmatch(line):
        return More(int(match[1]))
    if match := _HEARD.fullmatch(line):
        return Heard(int(match[1]))
    if (match := _EXIT.fullmatch(line)) and int(match[2]) <= 255:
        return Exit(int(match[1]), int(match[2]))
    if match := _END.fullmatch(line):
        return End(int(match[1]))
    if match := _SETTLED.fullmatch(line):
        return Settled(int(match[1]))
    if match := _GREETING.fullmatch(line):
        return Greeting(match[1] == b"file", match[2].decode(), int(match[3]))
    if match := _RESET.fullmatch(line):
        return Reset(int(match[1]), match[2] == b"file")
    if _ECHO.fullmatch(line):
        return Echo()
    raise RemoteProtocolError(f"the guest's agent said {line[:80]!r}")
