"""Names of guests, switches and labs: fit for a path, a socket address and a terminal."""

from __future__ import annotations

import re

from umlab.errors import LabError

#: Characters of a name; the kernel takes a umid of 63, ours leave room for a socket's path.
MAX_NAME = 24
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(kind: str, name: str) -> str:
    """Return a name that is usable.

    Args:
        kind: What is named, for the error's text.
        name: At most 24 letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit.

    Raises:
        LabError: It is not.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise LabError(
            f"the {kind} name {name[:64]!r} is not usable: take at most {MAX_NAME} letters, digits, "
            "'.', '_' and '-', and begin with a letter or digit"
        )
    return name
