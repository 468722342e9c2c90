"""A guest's terminal, over a WebSocket: what it prints comes in, what is typed goes out.

First comes what paints the screen as it is: of umlab's making, not the guest's; what follows is what the
guest prints, and untrusted.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import unix_connect as async_unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from umlab.client.call import QUICK_TIMEOUT, terminal_path
from umlab.client.decode import refusal
from umlab.client.exchange import lost
from umlab.client.place import dial
from umlab.errors import (
    ApiError,
    ApiTimeout,
    LimitReached,
    NoSuchConsole,
    NoSuchGuest,
    StateError,
    UmlabError,
)

if TYPE_CHECKING:
    from umlab.console.terminal import Role

__all__ = ["AsyncTerminal", "Terminal", "TerminalOptions"]

_OPTIONS: dict[str, Any] = {
    "compression": None,
    "open_timeout": QUICK_TIMEOUT,
    "close_timeout": 1,
    # Bytes of one message: a viewer that was slow for a while gets all that waits at once.
    "max_size": 4 << 20,
}
#: Close codes.
_ENDED = 1000
_NO_SUCH_CONSOLE = 4404
_TOO_SLOW = 4408
_TOO_MANY = 4429


class TerminalOptions(TypedDict, total=False):
    """How a terminal is looked at.

    Attributes:
        role: ``write``, unless given, or ``read``: then nothing can be typed or resized.
        window: Rows and columns that the guest shall know from the beginning.
        picture: Whether what paints the screen comes first; ``True`` unless given.
    """

    role: Role
    window: tuple[int, int]
    picture: bool


def _resize_message(rows: int, columns: int) -> str:
    return json.dumps({"resize": [rows, columns]})


class _Name:
    """Which terminal it is, how large its screen is, and what its errors mean."""

    def __init__(self, lab: str, guest: str, console: str, options: TerminalOptions) -> None:
        self.size = (24, 80)
        self.path = terminal_path(
            guest,
            console,
            options.get("role", "write"),
            options.get("window"),
            options.get("picture", True),
        )
        self.lab = lab
        self.guest = guest
        self.console = console

    @property
    def uri(self) -> str:
        """Where the WebSocket is; the host says nothing."""
        return f"ws://umlab{self.path}"

    def not_opened(self, error: BaseException) -> BaseException:
        """Return what to raise where opening has failed."""
        if isinstance(error, InvalidStatus):
            return refusal(self.lab, error.response.status_code, bytes(error.response.body or b""))
        if isinstance(error, TimeoutError):
            return _silent(self.lab)
        if isinstance(error, OSError | EOFError | InvalidHandshake):
            return lost(self.lab)
        return error

    def output(self, message: str | bytes) -> bytes:
        """Return what the guest printed; text is the daemon's.

        Returns:
            Empty for a new size of the screen.

        Raises:
            UmlabError: The daemon has refused what was sent to it.
        """
        if isinstance(message, bytes):
            return message
        try:
            rows, columns = json.loads(message)["resize"]
            self.size = int(rows), int(columns)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise refusal(self.lab, 0, message.encode()) from None
        return b""

    def ended(self, error: ConnectionClosed) -> UmlabError | None:
        """Return the error for an end, ``None`` where the guest has ended."""
        code = error.rcvd.code if error.rcvd else None
        if code == _ENDED:
            return None
        if code == _NO_SUCH_CONSOLE:
            missing = NoSuchGuest(self.guest)
            is_guest = error.rcvd is not None and error.rcvd.reason == str(missing)
            return missing if is_guest else NoSuchConsole(self.guest, self.console)
        if code == _TOO_SLOW:
            return LimitReached(f"guest {self.guest}: {self.console} printed more than was read in time")
        if code == _TOO_MANY:
            return LimitReached(f"guest {self.guest}: {self.console} has as many viewers as it can have")
        return lost(self.lab)

    def closed(self) -> UmlabError:
        """Return the error for typing where the guest has ended."""
        return StateError(f"guest {self.guest}: {self.console} is closed: the guest has ended")


class Terminal:
    """A terminal, open from the beginning; one thread reads while others may write.

    Args:
        lab: The lab.
        guest: The guest.
        console: The terminal's name, such as ``con1``.
        options: See `TerminalOptions`.

    Raises:
        LabNotRunning: No daemon answers.
        NoSuchGuest: No such guest.
        NoSuchConsole: The guest has no such terminal.
        LimitReached: It has too many viewers.
    """

    def __init__(self, lab: str, guest: str, console: str, **options: Unpack[TerminalOptions]) -> None:
        self._name = _Name(lab, guest, console, options)
        sock = dial(lab)
        sock.setblocking(True)
        try:
            self._connection: ClientConnection = unix_connect(
                sock=sock,
                uri=self._name.uri,
                **_OPTIONS,
            )
        except BaseException as error:
            sock.close()
            raise self._name.not_opened(error) from None

    def __enter__(self) -> Self:
        self._connection.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the screen, as they were for what was read last."""
        return self._name.size

    def read(self, timeout: float | None = None) -> bytes:
        """Return what the guest prints next, waiting for it.

        Args:
            timeout: Most seconds to wait; ``None`` waits for ever.

        Returns:
            Raw bytes, untrusted; empty once the guest has ended.

        Raises:
            ApiTimeout: Nothing was printed in time.
            LimitReached: So much was printed and not read that this terminal's place is lost; or the guest
                does not read, and what was typed last is lost.
            ConnectionLost: The daemon has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                message = self._connection.recv(left)
            except TimeoutError:
                raise _silent(self._name.lab) from None
            except ConnectionClosed as error:
                if failure := self._name.ended(error):
                    raise failure from None
                return b""
            if output := self._name.output(message):
                return output

    def write(self, data: bytes) -> None:
        """Type bytes.  Raises what `read` raises, and StateError where the guest has ended."""
        self._send(data)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the guest how large the window is, in characters, 1 to 9999 each."""
        self._send(_resize_message(rows, columns))

    def close(self) -> None:
        """Leave; the guest does not notice.  Idempotent."""
        self._connection.close()

    def _send(self, message: str | bytes) -> None:
        try:
            self._connection.send(message)
        except ConnectionClosed as error:
            raise self._name.ended(error) or self._name.closed() from None


class AsyncTerminal:
    """A terminal for asyncio, made by :meth:`open`; as `Terminal`, with ``await``."""

    def __init__(self, name: _Name, connection: AsyncConnection) -> None:
        self._name = name
        self._connection = connection

    @classmethod
    async def open(
        cls, lab: str, guest: str, console: str, **options: Unpack[TerminalOptions]
    ) -> AsyncTerminal:
        """Open a terminal.  Raises what `Terminal` raises."""
        name = _Name(lab, guest, console, options)
        sock = dial(lab)
        try:
            connection = await async_unix_connect(
                sock=sock,
                uri=name.uri,
                **_OPTIONS,
            )
        except BaseException as error:
            sock.close()
            raise name.not_opened(error) from None
        return cls(name, connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the screen, as they were for what was read last."""
        return self._name.size

    async def read(self) -> bytes:
        """Return what the guest prints next, waiting for it; empty once the guest has ended."""
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as error:
                if failure := self._name.ended(error):
                    raise failure from None
                return b""
            if output := self._name.output(message):
                return output

    async def write(self, data: bytes) -> None:
        """Type bytes.  Raises what `read` raises, and StateError where the guest has ended."""
        await self._send(data)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the guest how large the window is, in characters, 1 to 9999 each."""
        await self._send(_resize_message(rows, columns))

    async def close(self) -> None:
        """Leave; the guest does not notice.  Idempotent."""
        await self._connection.close()

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise self._name.ended(error) or self._name.closed() from None


def _silent(lab: str) -> ApiError:
    return ApiTimeout(lab, "nothing came in time")
