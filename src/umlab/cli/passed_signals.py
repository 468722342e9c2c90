"""Signals that a command in a guest gets in our place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from signal import Signals
from typing import Any

from umlab.cli.interrupt import heeded

#: Those that ask a program to end, and those that ask it for something of its own.
_ENDING = (Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP, Signals.SIGQUIT)
_TELLING = (Signals.SIGUSR1, Signals.SIGUSR2)


class PassedSignals:
    """Signals of ours for a command that runs elsewhere.

    Each goes to the command.  The second one of those that ask for the end, whichever the two are, ends us as
    well, and so does any signal that comes while there is no command.

    Args:
        send: Gives the command a signal by its short name, such as ``TERM``; whether there is one to give it
            to.

    Attributes:
        ended_by: The number of the signal that has ended us; 0 until then.
    """

    def __init__(self, send: Callable[[str], bool]) -> None:
        self.ended_by = 0
        self._send = send
        self._was_asked_to_end = False

    @contextlib.contextmanager
    def heard(self, task: asyncio.Future[Any]) -> Iterator[None]:
        """Take signals meanwhile; what our caller ignores, as nohup(1) does, is not the command's either.

        Args:
            task: All that we do, which is cancelled when a signal ends us.
        """

        def take(number: Signals) -> None:
            if self.ended_by:
                return
            asks = number in _ENDING
            if not (asks and self._was_asked_to_end) and self._send(number.name.removeprefix("SIG")):
                self._was_asked_to_end |= asks
                return
            self.ended_by = int(number)
            task.cancel()

        loop = asyncio.get_running_loop()
        numbers = heeded((*_ENDING, *_TELLING))
        for number in numbers:
            loop.add_signal_handler(number, take, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
