"""One thread that serves any number of descriptors and alarms."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections.abc import Callable

__all__ = ["Loop"]

Serve = Callable[[], None]


class Loop:
    """Calls what serves a descriptor when this is ready, and alarms when they are due.

    Descriptors may be added, changed and taken out by any thread that holds the lock.

    Attributes:
        lock: Held during each call.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._serving: dict[int, Serve] = {}
        self._alarms: list[tuple[float, int, Serve]] = []
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._run, name="simulated-guests", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._epoll = select.epoll()
        self._closing = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._closing, select.EPOLLIN)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; whoever serves is called no more."""
        os.eventfd_write(self._closing, 1)
        self._thread.join()

    def close(self) -> None:
        """Give the rest back, once nothing is added or taken out any more."""
        self._epoll.close()
        os.close(self._closing)

    def watch(self, descriptor: int, serve: Serve, interest: int) -> None:
        """Serve a descriptor.

        Args:
            descriptor: A new one.
            serve: What does so.
            interest: When: ``select.EPOLLIN``, ``EPOLLOUT`` or 0.
        """
        self._serving[descriptor] = serve
        self._epoll.register(descriptor, interest)

    def change(self, descriptor: int, interest: int) -> None:
        """Serve a descriptor at another time."""
        self._epoll.modify(descriptor, interest)

    def forget(self, descriptor: int) -> None:
        """Serve a descriptor no more; to be called before it is closed."""
        del self._serving[descriptor]
        self._epoll.unregister(descriptor)

    def call_later(self, seconds: float, serve: Serve) -> None:
        """Call something once, after a span; only from what the loop has called."""
        heapq.heappush(self._alarms, (time.monotonic() + seconds, next(self._order), serve))

    def _run(self) -> None:
        while True:
            left = max(self._alarms[0][0] - time.monotonic(), 0) if self._alarms else None
            ready = self._epoll.poll(left)
            with self.lock:
                for descriptor, _ in ready:
                    if descriptor == self._closing:
                        return
                    if serve := self._serving.get(descriptor):
                        serve()
                while self._alarms and self._alarms[0][0] <= time.monotonic():
                    heapq.heappop(self._alarms)[2]()
