"""Names of the host's network interfaces.

Source: Linux net/core/dev.c (dev_valid_name, dev_alloc_name).
"""

from __future__ import annotations

import os
import re

from umlab.errors import TransportError

#: Bytes of an interface's name, without the NUL.
_MAX_NAME = 15
#: What the kernel refuses, and what it would replace by a number.
_NOT_IN_A_NAME = re.compile("[ /:%]")


def interface_name(text: str) -> bytes:
    """Return the name of an interface as the kernel is given it.

    Raises:
        TransportError: No interface has this name.
    """
    # What cannot be encoded is not printable.
    if (
        not text.isprintable()
        or not 0 < len(name := os.fsencode(text)) <= _MAX_NAME
        or _NOT_IN_A_NAME.search(text)
        or text in (".", "..")
    ):
        raise TransportError(f"{text!r} is not the name of an interface")
    return name
