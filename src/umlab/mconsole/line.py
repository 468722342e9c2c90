"""What a line that a person typed becomes on its way to a guest.

Bytes in, bytes out: neither a file nor a file's name need to be UTF-8.  Loaded by the smallest program.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["LOG_PIECE", "absolute_disks", "log_pieces", "log_requests"]

LOG_PIECE = 506
"""Bytes of text that one ``log`` request takes, as the original client cuts them."""


def log_pieces(text: bytes) -> Iterator[bytes]:
    """Cut text into pieces that each fit into a ``log`` request."""
    return (text[at : at + LOG_PIECE] for at in range(0, len(text), LOG_PIECE))


def log_requests(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Return the requests that put text into a guest's kernel log, in order.

    The kernel keeps back a line without its end, which is added when the last piece has none.

    Args:
        pieces: At most 506 bytes each.
    """
    last = b""
    for last in pieces:
        yield b"log " + last
    if not last.endswith(b"\n"):
        yield b"log \n"


def absolute_disks(line: bytes, absolute: Callable[[bytes], bytes]) -> bytes:
    """Return a ``config ubdN=file[,backing]`` whose file names do not depend on our directory.

    The guest's process opens them, and it runs in another directory.  Any other line is returned as it is.

    Args:
        line: The command.
        absolute: Returns the absolute form of a file's name.
    """
    device, sign, value = line.partition(b"=")
    name = device.removeprefix(b"config").lstrip(b" \t")
    if not (sign and device.startswith((b"config ", b"config\t")) and name.startswith(b"ubd")):
        return line
    names = value.split(b",", 2)
    # The backing file first, as the original: it shows in the order of complaints.
    for index in (1, 0):
        if index < len(names) and names[index]:
            names[index] = absolute(names[index])
    return device + sign + b",".join(names)
