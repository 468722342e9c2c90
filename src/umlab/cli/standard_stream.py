"""Our standard streams: there, and with one meaning of what cannot be written to them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from umlab.errors import LabError


def prepare_standard_streams() -> None:
    """Open what the caller has closed, and name the trouble with what cannot be written.

    Output that is lost is an error of ours, once; a reader who has left has seen enough, and BrokenPipeError
    ends the command line without a word.  What standard error does not take is lost: nobody could be told,
    and the status stays what it is.
    """
    _open_closed()
    sys.stdout = _guarded(sys.stdout, 1, _fail)
    sys.stderr = _guarded(sys.stderr, 2, lambda _error: None)


def _open_closed() -> None:
    """Put /dev/null where there is no standard stream.

    The next socket would get that number, and what is printed there would go to a guest.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)


def _fail(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    raise LabError(f"cannot write to standard output: {error.strerror}") from None


class _Guarded(io.BufferedWriter):
    """A descriptor, not to be closed, of which the first error is told and what comes after it is lost.

    The buffer has what was given to it before any handler of a signal can raise: below it, what was written
    already would be written again.
    """

    def __init__(self, fd: int, on_error: Callable[[OSError], None], *, at_once: bool) -> None:
        super().__init__(io.FileIO(fd, "wb", closefd=False))
        self._on_error: Callable[[OSError], None] | None = on_error
        self._at_once = at_once

    def write(self, data: Any, /) -> int:
        if self._on_error is not None:
            try:
                written = super().write(data)
                if self._at_once:
                    super().flush()
                return written
            except OSError as error:
                self._lose(error)
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self._on_error is not None:
            try:
                super().flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        # The interpreter flushes once more at its end what could not be written.
        on_error, self._on_error = self._on_error, None
        if on_error is not None:
            on_error(error)


def _guarded(stream: TextIO | None, fd: int, on_error: Callable[[OSError], None]) -> TextIO:
    """Return a stream like this one, or this one where it is not the process's own."""
    if stream is not None and (not isinstance(stream, io.TextIOWrapper) or _number(stream) != fd):
        return stream
    if stream is None:
        binary = _Guarded(fd, on_error, at_once=False)
        return io.TextIOWrapper(binary, errors="backslashreplace", line_buffering=fd == 2)
    # As where Python is told to buffer nothing.
    binary = _Guarded(fd, on_error, at_once=stream.write_through)
    return io.TextIOWrapper(
        binary,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _number(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except OSError:
        return -1
