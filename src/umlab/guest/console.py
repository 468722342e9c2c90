"""What a guest printed on its console: a bounded tail, an optional log file, waiting for a line."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import BinaryIO

from umlab.guest.log_times import LogTimes

_log = logging.getLogger(__name__)

#: Bytes of console output that are kept.
TAIL_SIZE = 64 * 1024
#: Bytes of a log file at which it ends: a guest must not fill its user's disk.
LOG_LIMIT = 64 << 20


def escape(data: bytes) -> str:
    r"""Return console output as text that a terminal or page shows as it is.

    Line ends become ``\n``; a tab stays; everything else that is not printable (escape sequences, other
    controls, direction marks, bytes that are not UTF-8) becomes ``\x1b``, ``\u202e`` and the like.
    """
    return escape_text(data.decode("utf-8", "surrogateescape"))


def escape_text(text: str) -> str:
    r"""Return text, such as a file's name, as `escape` returns bytes: what stands for a byte is ``\xNN``."""
    text = text.replace("\r\n", "\n")
    return "".join(char if char in "\n\t" or char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


class Console:
    """The output of one guest, fed as it arrives.

    Args:
        log: A file to which all of it goes too, up to 64 MiB; belongs to the caller.
        earlier: The tail of what the guest printed before this object was made.
        total: Bytes that it printed before.
        times: Takes note of when it was printed.

    Attributes:
        total: Bytes that the guest has printed.
    """

    def __init__(
        self,
        log: BinaryIO | None = None,
        *,
        earlier: bytes = b"",
        total: int = 0,
        times: LogTimes | None = None,
    ) -> None:
        self._tail = bytearray(earlier[-TAIL_SIZE:])
        self._log = log
        self._times = times
        self._logged = self.total = total
        self._grown: asyncio.Event | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._recent = b""

    @property
    def tail(self) -> bytes:
        """The last 64 KiB, raw: not fit for a terminal."""
        return bytes(self._tail)

    @property
    def text(self) -> str:
        """The last 64 KiB, escaped."""
        return escape(self.tail)

    def feed(self, data: bytes) -> None:
        """Take output that the guest printed."""
        self._tail += data
        del self._tail[:-TAIL_SIZE]
        if self._times is not None:
            self._times.add(self.total)
        self.total += len(data)
        self._write_log(data)
        if self._grown is not None:
            self._grown.set()
            self._grown = None
        if self._waiting:
            longest = max(len(marker) for marker, _ in self._waiting)
            self._recent = self._recent[-longest:] + data
            for marker, found in self._waiting:
                if marker in self._recent and not found.done():
                    found.set_result(None)

    async def grow(self, total: int) -> None:
        """Wait until the guest has printed more than ``total`` bytes."""
        while self.total <= total:
            if self._grown is None:
                self._grown = asyncio.Event()
            await self._grown.wait()

    async def wait_for(self, marker: bytes) -> None:
        """Wait until the guest prints ``marker``; what it printed before the call does not count."""
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (marker, found)
        if not self._waiting:
            self._recent = b""
        self._waiting.append(entry)
        try:
            await found
        finally:
            self._waiting.remove(entry)

    def _write_log(self, data: bytes) -> None:
        if self._log is None:
            return
        data = data[: max(0, LOG_LIMIT - self._logged)]
        try:
            if self._log.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._log.flush()
        except OSError as error:
            _log.warning("the console log ends: %s", error)
            self._log = None
            return
        self._logged += len(data)
        if self._logged >= LOG_LIMIT:
            _log.warning("the console log ends: it has %d bytes", LOG_LIMIT)
            self._log = None
