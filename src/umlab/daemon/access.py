"""Who may attach, as people write it: a mode in octal, and names or numbers of users and groups."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterable

from umlab.transports.contract import MAX_ID, PRIVATE, Access

_MODE = re.compile(r"0?[0-7]{3}")
_NUMBER = re.compile(r"[0-9]{1,10}")
#: Characters of a wrong text that are shown.
_SHOWN = 64


def make_access(
    mode: str | None, group: str | None, allow_users: Iterable[str], allow_groups: Iterable[str]
) -> Access:
    """Return who may attach.

    Args:
        mode: Permission bits of sockets such as ``0660``; only for us unless given.
        group: Whose the sockets are; our own unless given.
        allow_users: Users who may attach.
        allow_groups: Groups whose members may attach.

    Raises:
        ValueError: The text is no mode, or nobody has the name.
    """
    return Access(
        mode=PRIVATE.mode if mode is None else read_mode(mode),
        gid=None if group is None else find_group(group),
        uids=tuple(sorted({find_user(each) for each in allow_users})),
        gids=tuple(sorted({find_group(each) for each in allow_groups})),
    )


def read_mode(text: str) -> int:
    """Return the permission bits of a text such as ``0660``.  Raises ValueError."""
    if not _MODE.fullmatch(text):
        raise ValueError(f"{text[:_SHOWN]!r} is no mode; write one like 0660")
    return int(text, 8)


def find_user(text: str) -> int:
    """Return the number of a user.  Raises ValueError."""
    try:
        return _number(text) if _NUMBER.fullmatch(text) else pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"there is no user {text[:_SHOWN]!r}") from None


def find_group(text: str) -> int:
    """Return the number of a group.  Raises ValueError."""
    try:
        return _number(text) if _NUMBER.fullmatch(text) else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f"there is no group {text[:_SHOWN]!r}") from None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _number(text: str) -> int:
    number = int(text)
    if number >= MAX_ID:
        raise ValueError(text)
    return number
