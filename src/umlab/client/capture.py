"""A capture, over a WebSocket that it lasts as long as: pcapng comes in, or word of the daemon's file.

::

    with client.capture(CaptureRequest("lan", filter="arp")) as capture:
        for item in capture:
            if isinstance(item, bytes):
                file.write(item)

Iteration gives bytes (whole blocks of pcapng, no file asked for) and a `CaptureProgress` at the start, each
second and, as the last item, at the end.  Leaving the ``with`` ends the capture; to have what it still holds,
and its last counts, call ``stop`` and go on to the end.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Self

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import unix_connect as async_unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.client import decode
from umlab.client.call import QUICK_TIMEOUT
from umlab.client.exchange import lost
from umlab.client.place import dial
from umlab.errors import ApiError, ApiTimeout

__all__ = ["AsyncCapture", "Capture", "CaptureProgress", "CaptureRequest"]

_URI = "ws://umlab/v1/captures"
_OPTIONS: dict[str, Any] = {
    "compression": None,
    "open_timeout": QUICK_TIMEOUT,
    "close_timeout": 1,
    # The daemon's end shows at once on a unix socket, and a reader may stall for as long as he likes.
    "ping_interval": None,
    "max_size": 4 << 20,
}
_STOP = json.dumps({"stop": True})


class Capture:
    """A capture, begun when it is made; one thread iterates, any may stop it.

    Args:
        lab: The lab.
        request: What to capture.

    Raises:
        LabNotRunning: No daemon answers.

    Iteration raises what the daemon refuses with (NoSuchSwitch, NoSuchPort, StateError where as many
    captures run as may, LabError for a filter or a file), and ConnectionLost where the daemon has ended.
    """

    def __init__(self, lab: str, request: CaptureRequest) -> None:
        self._lab = lab
        self._ended = False
        sock = dial(lab)
        sock.setblocking(True)
        try:
            self._connection: ClientConnection = unix_connect(sock=sock, uri=_URI, **_OPTIONS)
        except BaseException as error:
            sock.close()
            raise _not_opened(lab, error) from None
        # Entered here and left in ``close``, for its order goes out at once.
        self._connection.__enter__()
        try:
            self._connection.send(_order(request))
        except ConnectionClosed:
            raise lost(lab) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes | CaptureProgress:
        """Return what comes next, waiting for it."""
        if self._ended:
            raise StopIteration
        try:
            message = self._connection.recv()
        except ConnectionClosed:
            raise lost(self._lab) from None
        item = _item(self._lab, message)
        if isinstance(item, CaptureProgress) and item.event == "ended":
            self._ended = True
            self.close()
        return item

    def stop(self) -> None:
        """Ask for the end; what is held and the last counts still come.  A second call does nothing."""
        try:
            self._connection.send(_STOP)
        except ConnectionClosed:
            # Iteration tells what has happened.
            return

    def close(self) -> None:
        """End the capture, whatever is still to come.  Idempotent."""
        self._connection.close()


class AsyncCapture:
    """A capture for asyncio, made by :meth:`open`; as `Capture`, with ``async for``."""

    def __init__(self, lab: str, connection: AsyncConnection) -> None:
        self._lab = lab
        self._connection = connection
        self._ended = False

    @classmethod
    async def open(cls, lab: str, request: CaptureRequest) -> AsyncCapture:
        """Begin a capture.  Raises what `Capture` raises."""
        sock = dial(lab)
        try:
            connection = await async_unix_connect(sock=sock, uri=_URI, **_OPTIONS)
        except BaseException as error:
            sock.close()
            raise _not_opened(lab, error) from None
        try:
            await connection.send(_order(request))
        except ConnectionClosed:
            raise lost(lab) from None
        return cls(lab, connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | CaptureProgress:
        """Return what comes next, waiting for it."""
        if self._ended:
            raise StopAsyncIteration
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            raise lost(self._lab) from None
        item = _item(self._lab, message)
        if isinstance(item, CaptureProgress) and item.event == "ended":
            self._ended = True
            await self.close()
        return item

    async def stop(self) -> None:
        """Ask for the end; what is held and the last counts still come.  A second call does nothing."""
        try:
            await self._connection.send(_STOP)
        except ConnectionClosed:
            # Iteration tells what has happened.
            return

    async def close(self) -> None:
        """End the capture, whatever is still to come.  Idempotent."""
        await self._connection.close()


def _order(request: CaptureRequest) -> str:
    return json.dumps(asdict(request))


def _item(lab: str, message: str | bytes) -> bytes | CaptureProgress:
    """Return what a message stands for.

    Raises:
        UmlabError: The daemon's refusal.
        ApiError: It stands for nothing.
    """
    if isinstance(message, bytes):
        return message
    data = message.encode()
    try:
        progress: CaptureProgress = decode.value(CaptureProgress, data)
    except ValueError:
        raise decode.refusal(lab, 0, data) from None
    return progress


def _not_opened(lab: str, error: BaseException) -> BaseException:
    """Return what to raise where opening has failed."""
    if isinstance(error, InvalidStatus):
        return decode.refusal(lab, error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, TimeoutError):
        return _silent(lab)
    if isinstance(error, OSError | EOFError | InvalidHandshake):
        return lost(lab)
    return error


def _silent(lab: str) -> ApiError:
    return ApiTimeout(lab, "nothing came in time")
