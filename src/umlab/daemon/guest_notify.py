"""What guests say without being asked: their kernels, their watchdogs, and programs in them.

A notification does not say whose it is, so each guest has a socket of its own, beside the run directory that
it may write to.  Every process of the same user on this host may send one there: they are rumours.

Source: Linux arch/um/drivers/mconsole_user.c ``mconsole_notify``; uml_watchdog of uml-utilities.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from umlab._clock import Clock, MonotonicClock
from umlab.daemon.event_log import EventLog
from umlab.errors import RemoteProtocolError, UnsupportedType
from umlab.transports.socketfile import SocketFile
from umlab.wire.mconsole import HANG, PANIC, SOCKET, USER, Notification, parse_notification

_log = logging.getLogger(__name__)

_RECEIVE_SIZE = 4096
#: Notifications that are read without a pause, and seconds of rest behind them.  A kernel waits in its write
#: while its receiver's queue is full: whoever floods us is slowed down, and nobody else is.
_BATCH = 32
_REST_TIME = 0.02
#: Messages of programs, and news of the kernel, that become events: so many at once, and one more every so
#: many nanoseconds.
_MESSAGES = (20, 200_000_000)
_NEWS = (10, 1_000_000_000)
#: Seconds in which what was left out is counted before it is told.
_TELL_TIME = 1.0


def notify_path(guests: str, umid: str) -> str:
    """Return where a guest's notifications go.

    Args:
        guests: The directory that has all guests' run directories.
        umid: The guest.
    """
    # No guest's name begins with a dot.
    return os.path.join(guests, f".{umid}")


class GuestNotify:
    """The notifications of one guest, from :meth:`listen` until :meth:`let_go` or :meth:`close`.

    Args:
        umid: The guest.
        file: Where they come; belongs to this object from now on.
        events: Where they are published.
        booted: Whether the guest's kernel has said before that its management console is up.
        clock: Tells the time.

    Attributes:
        booted: Whether it has said so at all.
    """

    def __init__(
        self,
        umid: str,
        file: SocketFile,
        events: EventLog,
        *,
        booted: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.booted = booted
        self._umid = umid
        self._file = file
        self._events = events
        self._clock = clock or MonotonicClock()
        self._messages, self._news = _Allowance(*_MESSAGES), _Allowance(*_NEWS)
        self._over_limit = self._malformed = 0
        self._logged = False
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._tell: asyncio.TimerHandle | None = None
        self._on_boot: Callable[[], None]

    @property
    def fd(self) -> int:
        """The socket, with which another daemon may go on."""
        return self._file.socket.fileno()

    def listen(self, on_boot: Callable[[], None]) -> None:
        """Begin with what waits already.

        Args:
            on_boot: Is called whenever the kernel says that its management console is up.
        """
        self._on_boot = on_boot
        self._read_on()

    def read_rest(self) -> None:
        """Take what the guest said before it ended."""
        self._read(_BATCH)
        if self._tell is not None:
            self._tell.cancel()
            self._tell_dropped()

    def let_go(self) -> None:
        """Stop listening; whoever holds a duplicate of the socket may go on.  Idempotent."""
        self._stop()
        self._file.socket.close()

    def close(self) -> None:
        """Stop listening, and remove the socket's file.  Idempotent."""
        self._stop()
        self._file.close()

    def _stop(self) -> None:
        for timer in (self._rest, self._tell):
            if timer is not None:
                timer.cancel()
        if self.fd >= 0:
            self._loop.remove_reader(self.fd)

    def _read_on(self) -> None:
        self._loop.add_reader(self.fd, self._read_batch)

    def _read_batch(self) -> None:
        if not self._read(_BATCH):
            self._loop.remove_reader(self.fd)
            self._rest = self._loop.call_later(_REST_TIME, self._read_on)

    def _read(self, most: int) -> bool:
        """Take so many notifications at most, and say whether these were all."""
        for _ in range(most):
            try:
                data = self._file.socket.recv(_RECEIVE_SIZE)
            except BlockingIOError:
                return True
            try:
                self._take(parse_notification(data))
            except RemoteProtocolError as error:
                self._refuse(error)
        return False

    def _take(self, said: Notification) -> None:
        allowance = self._messages if said.kind == USER else self._news
        if not allowance.take(self._clock.now_ns()):
            self._over_limit += 1
            self._tell_later()
            return
        guest, publish = self._umid, self._events.publish
        text = said.data.decode("utf-8", "backslashreplace").removesuffix("\n")
        if said.kind == USER:
            publish({"event": "guest_message", "guest": guest, "message": text})
        elif said.kind == PANIC:
            publish({"event": "guest_panicked", "guest": guest, "message": text})
        elif said.kind == HANG:
            publish({"event": "guest_hung", "guest": guest})
        elif said.kind != SOCKET:
            raise UnsupportedType(said.kind)
        elif self.booted:
            publish({"event": "guest_rebooted", "guest": guest})
        else:
            publish({"event": "guest_console", "guest": guest})
        if said.kind == SOCKET:
            self.booted = True
            self._on_boot()

    def _refuse(self, error: RemoteProtocolError) -> None:
        if not self._logged:
            self._logged = True
            _log.warning("guest %s: a notification that is none: %s", self._umid, error)
        self._malformed += 1
        self._tell_later()

    def _tell_later(self) -> None:
        if self._tell is None:
            self._tell = self._loop.call_later(_TELL_TIME, self._tell_dropped)

    def _tell_dropped(self) -> None:
        guest, publish = self._umid, self._events.publish
        over, bad = self._over_limit, self._malformed
        self._tell, self._over_limit, self._malformed = None, 0, 0
        publish({"event": "guest_notify_dropped", "guest": guest, "over_limit": over, "malformed": bad})


class _Allowance:
    """So many at once, and one more every so often (the generic cell rate algorithm).

    Args:
        burst: How many at once.
        interval_ns: Nanoseconds until there may be one more.
    """

    def __init__(self, burst: int, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._burst_ns = burst * interval_ns
        #: When all are there again.
        self._full_ns = 0

    def take(self, now_ns: int) -> bool:
        """Take one and say whether there was one."""
        full_ns = max(self._full_ns, now_ns) + self._interval_ns
        if full_ns - now_ns > self._burst_ns:
            return False
        self._full_ns = full_ns
        return True
