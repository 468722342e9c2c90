"""A drop-in's end by a signal: it cleans up, and dies of the signal as the original does.

Whoever interrupts a program means also its first tenth of a second, in which Python imports modules.  So
this imports nothing that is not built in, and others are imported in the block.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum
import os

_SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class _Interruption(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _: object) -> None:
    raise _Interruption(number)


class Interruptible:
    """A block that SIGINT, SIGTERM and SIGHUP end, and the process with it; a context manager.

    Those that the caller has ignored, as nohup(1) does, stay so.
    """

    def __enter__(self) -> None:
        """Begin to listen."""
        self._before = [
            (number, _signal.signal(number, _interrupt))
            for number in _SIGNALS
            if _signal.getsignal(number) != _signal.SIG_IGN
        ]

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Die of the signal that came, if one came."""
        for number, handler in self._before:
            _signal.signal(number, handler)
        if isinstance(error, _Interruption):
            _signal.signal(error.number, _signal.SIG_DFL)
            os.kill(os.getpid(), error.number)
