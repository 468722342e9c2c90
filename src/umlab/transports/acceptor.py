"""Accepting connections on a listening socket, also when there is no descriptor left for one."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from umlab._descriptor_limit import descriptor_limit_hint

_log = logging.getLogger(__name__)

#: Seconds without accepting when there is no descriptor left.
PAUSE = 1.0
#: Connections that are accepted before other descriptors of the loop have their turn.
_BURST = 16
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Takes connections from a listening socket in the running event loop until it is closed.

    Out of descriptors, it pauses, says so once, and goes on when there are some again: whoever waits in
    the backlog is served then.

    Args:
        listener: Listening and non-blocking; stays the caller's.
        where: What it listens on, for the log.
        take: Is given each connection, non-blocking; owns it from then on.
    """

    def __init__(self, listener: socket.socket, where: str, take: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._where = where
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._exhausted = False
        self._watch()

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    def _watch(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait(error)
                return
            self._exhausted = False
            sock.setblocking(False)
            self._take(sock)

    def _wait(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            hint = f" ({descriptor_limit_hint()})" if error.errno == errno.EMFILE else ""
            reason = f"{error.strerror}{hint}"
            _log.warning("%s: cannot accept: %s; tried again every %g s", self._where, reason, PAUSE)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE, self._watch)
