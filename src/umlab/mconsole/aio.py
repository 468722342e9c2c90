"""The asyncio client of a guest's console: `umlab.mconsole.sync` with ``await``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from umlab._clock import MonotonicClock
from umlab.errors import RemoteProtocolError
from umlab.mconsole import command as commands
from umlab.mconsole.endpoint import (
    CHECK_INTERVAL,
    RECEIVE_SIZE,
    check_listening,
    garbled,
    open_console,
    unreachable,
)
from umlab.mconsole.locate import locate
from umlab.mconsole.reading import Reading
from umlab.mconsole.session import Answer, MconsoleSession, Silence

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["AsyncMconsole"]


def _awaited(
    build: Callable[P, commands.Command],
) -> Callable[Concatenate[AsyncMconsole, P], Coroutine[Any, Any, str]]:
    """Return the method that builds a command, runs it and returns its answer's text."""

    async def method(self: AsyncMconsole, /, *args: P.args, **kwargs: P.kwargs) -> str:
        return await self.run(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    method.__name__ = build.__name__
    return method


class AsyncMconsole:
    """One guest's console; tasks may share it, their requests go in the order in which they asked.

    Raises what `umlab.mconsole.sync.Mconsole` raises.  A cancelled request costs the next one nothing,
    since each has its own socket; the guest may still run the command.

    Args:
        path: The console's socket.
        umid: The guest's name for errors, by default the path.
    """

    def __init__(self, path: str, umid: str | None = None) -> None:
        self.path = path
        self.umid = path if umid is None else umid
        self._clock = MonotonicClock()
        self._lock = asyncio.Lock()

    @classmethod
    def find(cls, name: str) -> AsyncMconsole:
        """Return the console of a guest that is named by umid, run directory or socket path.

        Raises:
            MconsoleUnreachable: No such guest.
        """
        return cls(locate(name), name)

    async def run(self, command: commands.Command) -> str:
        """Run one command and return its answer's text."""
        return command.result(await self.exchange(command.text, command.timeout), self.umid)

    async def read(self, reading: Reading[T]) -> T:
        """Ask for something and return the answer as a value, see `umlab.mconsole.reading`."""
        return reading.value(await self.run(reading.command), self.umid)

    async def exchange(self, text: bytes, timeout: float) -> Answer | Silence:  # noqa: ASYNC109
        """Send a command's bytes and return the guest's whole answer, an error's too.

        Args:
            text: The command, at most 511 bytes without NUL.
            timeout: Seconds in which the whole answer must arrive, counted from the caller's turn.

        Raises:
            LocalProtocolError: The text cannot be sent.
            MconsoleUnreachable: The guest does not run.
            MconsoleProtocolError: What came is no answer.
        """
        shown = text.decode("utf-8", "backslashreplace")
        async with self._lock:
            session = MconsoleSession()
            session.request(text, self._clock.now_ns(), int(timeout * 1e9))
            raw = open_console(self.path, self.umid, shown)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, raw.detach()) as sock:
                sock.setblocking(False)
                try:
                    return await self._converse(sock, session, shown)
                except RemoteProtocolError as error:
                    raise garbled(self.umid, shown, session.received, error) from error
                except OSError as error:
                    raise unreachable(self.path, self.umid, shown, error) from error

    async def _converse(self, sock: socket.socket, session: MconsoleSession, shown: str) -> Answer | Silence:
        loop = asyncio.get_running_loop()
        outgoing = session.data_to_send()
        while True:
            deadline_ns = session.get_timer()
            left_ns = 0 if deadline_ns is None else deadline_ns - self._clock.now_ns()
            try:
                async with asyncio.timeout(min(left_ns / 1e9, CHECK_INTERVAL)):
                    # The guest's queue may be full of requests that nobody reads: sending waits as well.
                    while outgoing:
                        await loop.sock_sendall(sock, outgoing[0])
                        del outgoing[0]
                    data = await loop.sock_recv(sock, RECEIVE_SIZE)
                session.receive_datagram(data, self._clock.now_ns())
            except TimeoutError:
                session.handle_timer(self._clock.now_ns())
                check_listening(self.path, self.umid, shown, None if outgoing else session.received)
            if event := session.next_event():
                return event
            # Receiving what is there already does not let others run, and a hostile guest sends without end.
            await asyncio.sleep(0)

    version = _awaited(commands.version)
    help = _awaited(commands.help)
    halt = _awaited(commands.halt)
    reboot = _awaited(commands.reboot)
    cad = _awaited(commands.cad)
    stop = _awaited(commands.stop)
    go = _awaited(commands.go)
    config_set = _awaited(commands.config_set)
    config_get = _awaited(commands.config_get)
    remove = _awaited(commands.remove)
    sysrq = _awaited(commands.sysrq)
    log = _awaited(commands.log)
    proc = _awaited(commands.proc)
    stack = _awaited(commands.stack)
    raw = _awaited(commands.raw)
