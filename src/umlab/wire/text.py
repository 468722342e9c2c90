"""Text that a peer has sent, for people."""

from __future__ import annotations


def printable_line(data: bytes) -> str:
    """Return bytes as one line that a terminal shows as it is: up to their first NUL, the rest escaped."""
    text = data.partition(b"\0")[0].decode("utf-8", "backslashreplace").strip()
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
