"""How frames leave the Python engine: at once where there is room, otherwise through the port's queue."""

from __future__ import annotations

import errno
import select

from umlab._clock import Clock
from umlab.engine._pycapture import OpenCaptures
from umlab.engine._pyframing import BURST
from umlab.engine._pyport import Port, drop_reason
from umlab.switch.counters import DropReason
from umlab.wire.pcapng import OUTBOUND


class Egress:
    """Writes to ports, and counts what became of each frame; guarded by the engine's lock.

    Args:
        epoll: Says when a port is writable that was not.
        captures: Are told of each frame when it is counted.
        clock: Where the time comes from.
        depth: Frames that wait for one port at most.
    """

    __slots__ = ("_captures", "_clock", "_epoll", "depth")

    def __init__(self, epoll: select.epoll, captures: OpenCaptures, clock: Clock, depth: int) -> None:
        self._epoll = epoll
        self._captures = captures
        self._clock = clock
        self.depth = depth

    def send(self, port: Port, frame: bytes) -> None:
        """Send a frame, or have it wait behind those that do, or drop it."""
        if port.queue or port.closed:
            self._enqueue(port, frame)
            return
        try:
            port.wire.write(frame)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                self._enqueue(port, frame)
            else:
                self._count_refusal(port, frame, error)
            return
        self._count_sent(port, frame)

    def drain(self, port: Port) -> None:
        """Send frames that wait for a port that is writable."""
        queue = port.queue
        for _ in range(BURST):
            if not queue:
                break
            frame = queue[0]
            try:
                port.wire.write(frame)
            except BlockingIOError:
                return
            except OSError as error:
                # ENOBUFS as well: epoll says "writable" all the while, and to wait would be to spin.
                self._count_refusal(port, frame, error)
            else:
                self._count_sent(port, frame)
            queue.popleft()
        if not queue:
            self._epoll.modify(port.fd, port.mask)

    def purge(self, port: Port) -> None:
        """Drop the frames that wait for a port whose guest is gone."""
        for frame in port.queue:
            self._count_drop(port, frame, DropReason.PEER_GONE)
        port.queue.clear()

    def _enqueue(self, port: Port, frame: bytes) -> None:
        queue = port.queue
        if port.closed:
            self._count_drop(port, frame, DropReason.PEER_GONE)
        elif len(queue) >= self.depth:
            self._count_drop(port, frame, DropReason.TAIL)
        else:
            queue.append(frame)
            if len(queue) == 1:
                self._epoll.modify(port.fd, port.mask | select.EPOLLOUT)

    def _count_refusal(self, port: Port, frame: bytes, error: OSError) -> None:
        """Count a frame that a descriptor would not take, and listen no more to one that lost its guest.

        The kernel undoes the connection of a datagram socket whose peer is gone; from then on anybody
        could send to it.
        """
        reason = drop_reason(error)
        self._count_drop(port, frame, reason)
        if reason is DropReason.PEER_GONE and port.is_unix_datagram and port.mask:
            port.mask = 0
            self._epoll.modify(port.fd, select.EPOLLOUT if port.queue else 0)

    def _count_sent(self, port: Port, frame: bytes) -> None:
        port.counters.count_tx(len(frame))
        if self._captures.all:
            self._captures.note(port.port_no, frame, self._clock.now_ns(), OUTBOUND)

    def _count_drop(self, port: Port, frame: bytes, reason: DropReason) -> None:
        port.counters.count_drop(reason)
        if self._captures.all:
            self._captures.note(port.port_no, frame, self._clock.now_ns(), OUTBOUND, reason)
