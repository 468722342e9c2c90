"""What comes from a guest on a serial line for one command after the other.

Source: Linux net/core/sock.c ``SK_WMEM_MAX``, which is 256 packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from umlab.errors import UmlabError

#: Seconds of silence after a command's end, in which what it has started writes nothing more.
GRACE = 1.0
_READ_SIZE = 64 * 1024
#: Reads that empty any socket, were it not filled anew.
_SOCKET_READS = 16
#: Bytes that a socket takes while nobody reads, if each has been a write of its own.
_TAKEN_AT_ONCE = 200


class Stream:
    """What comes on one of a session's lines for one command.

    Args:
        sock: Our end of the line, which does not block; stays the caller's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waking: asyncio.Future[None] | None = None
        self._has_ended = False
        self._has_exited = False
        self._failure: UmlabError | None = None
        # What is out of the socket and has not been read.
        self._here = b""
        self._received = 0

    def send(self, data: bytes) -> bool:
        """Send all of it at once and say whether there was room."""
        try:
            return self._sock.send(data) == len(data)
        except BlockingIOError:
            return False
        except ConnectionError:
            # The line's end is the guest's: who reads the control line tells how it ended.
            return True

    async def read(self) -> bytes:
        """Return what comes next, empty at the end.

        Raises:
            UmlabError: The guest has gone, or makes no sense.
        """
        while True:
            # Others have their turn however fast the guest writes.
            await asyncio.sleep(0)
            if self._here:
                data, self._here = self._here, b""
                return data
            if self._failure is not None:
                raise self._failure
            try:
                data = self._sock.recv(_READ_SIZE)
            except BlockingIOError:
                if self._has_ended or not await self._woken():
                    return b""
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                await self._told()
                continue
            self._received += len(data)
            return data

    def exited(self) -> None:
        """Take note of the command's end."""
        self._has_exited = True
        self._wake()

    def ended(self) -> None:
        """Take note that nothing comes after what is there by now."""
        self._has_ended = True
        self._wake()

    def fail(self, error: UmlabError) -> None:
        """Have everybody who reads get an error behind what is there; the line is used no more."""
        if self._failure is None:
            self._take()
            self._failure = error
            self._wake()

    def is_settled(self) -> bool:
        """Say whether nothing can be left in the guest's kernel of what was written until now."""
        self._take()
        return self._received <= _TAKEN_AT_ONCE

    def clear(self) -> None:
        """Throw away what is there."""
        self._here = b""
        take_all(self._sock)

    def _take(self) -> None:
        data = take_all(self._sock)
        self._here += data
        self._received += len(data)
        if data:
            # Who waits for the socket would not hear of it.
            self._wake()

    async def _woken(self) -> bool:
        """Wait for bytes or news; say whether either came before everything had been silent long enough."""
        loop = asyncio.get_running_loop()
        self._waking = loop.create_future()
        loop.add_reader(self._sock, self._wake)
        limit = GRACE if self._has_exited and not self._has_ended else None
        try:
            async with asyncio.timeout(limit):
                await self._waking
        except TimeoutError:
            return False
        finally:
            self._waking = None
            # Whoever has closed it has done so.
            if self._sock.fileno() >= 0:
                loop.remove_reader(self._sock)
        return True

    async def _told(self) -> None:
        self._waking = asyncio.get_running_loop().create_future()
        try:
            await self._waking
        finally:
            self._waking = None

    def _wake(self) -> None:
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)


def take_all(line: socket.socket) -> bytes:
    """Return what is there on a line, of which a socket holds so much only."""
    found = b""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        for _ in range(_SOCKET_READS):
            data = line.recv(_READ_SIZE)
            if not data:
                break
            found += data
    return found
