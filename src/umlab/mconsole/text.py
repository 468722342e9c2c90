"""Make text from a guest harmless for a terminal.

A guest chooses what its console says.  Sent to a terminal as it is, it could move the cursor, change
the title, or make the terminal answer as if the user had typed.
"""

from __future__ import annotations

__all__ = ["escape_controls"]

_ALLOWED = "\n\t"
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _ALLOWED
}


def escape_controls(data: bytes) -> str:
    """Return text in which a terminal finds nothing to obey.

    Args:
        data: UTF-8 from a guest; what is not becomes ``\\xNN``.

    Returns:
        The text, with the control characters of ASCII and Latin-1, but for line feed and tab, as ``\\xNN``.
    """
    return data.decode("utf-8", "backslashreplace").translate(_CONTROLS)
