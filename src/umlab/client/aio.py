"""The asyncio client of a lab's daemon: `umlab.client.sync` with ``await``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from umlab._readable import readable
from umlab.client import call as calls
from umlab.client.connection import Connections
from umlab.client.event import SILENCE_TIME, Event, EventFeed, Start
from umlab.client.exchange import END, Exchange, Head, Request, ResponseBuilder, lost
from umlab.client.life import process_descriptors
from umlab.errors import ApiTimeout, ConnectionLost, LabError, LabNotRunning

if TYPE_CHECKING:
    from umlab.capture.order import CaptureRequest
    from umlab.client.capture import AsyncCapture
    from umlab.client.exec import AsyncExec, ExecOrder, ExecResult
    from umlab.client.terminal import AsyncTerminal, TerminalOptions
    from umlab.daemon.view import LabView

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["AsyncClient"]

_RECEIVE_SIZE = 256 * 1024


def _awaited(
    build: Callable[P, calls.Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return the method that builds a call, runs it and returns its result."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    method.__name__ = build.__name__
    return method


class AsyncClient:
    """A lab's daemon; tasks may share a client.  Raises what `umlab.client.sync.Client` raises.

    Args:
        name: The lab's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._connections = Connections(name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that still runs over this client, such as `events`.  Idempotent."""
        self._connections.close()

    async def run(self, call: calls.Call[T]) -> T:
        """Run a call and return its result."""
        builder = ResponseBuilder(self.name)
        async with aclosing(self._exchange(call.request, call.timeout)) as events:
            async for event in events:
                builder.add(event)
        return call.result(self.name, builder.response())

    async def lab(self) -> LabView:
        """Return what the lab is."""
        return await self.run(calls.lab(self.name))

    async def stop(self, *, keep: bool = False) -> None:
        """End the lab with its guests and wait until it is gone.

        Args:
            keep: End the daemon alone; guests and ports wait in the keeper for the next one.
        """
        with process_descriptors(await self.lab(), daemon_only=keep) as descriptors:
            await self.run(calls.stop(self.name, keep=keep))
            try:
                async with asyncio.timeout(calls.LIFE_TIMEOUT):
                    for fd in descriptors:
                        await readable(fd)
            except TimeoutError:
                raise calls.not_ended(self.name) from None

    async def events(self, start: Start = "now", *, follow: bool = True) -> AsyncGenerator[Event, None]:
        """Return the lab's events as they happen; see `umlab.client.sync.Client.events`.

        Args:
            start: ``now``, or ``oldest`` for what the daemon still has.
            follow: Whether to wait for events that have not happened yet.
        """
        feed = EventFeed(self.name, start, "" if follow else await self._latest_event())
        while True:
            try:
                async with aclosing(self._stream(feed.request(), SILENCE_TIME)) as stream:
                    async for piece in stream:
                        for event in feed.receive(piece):
                            yield event
                        if feed.finished:
                            return
                error: LabError = lost(self.name)
            except (LabNotRunning, ConnectionLost, ApiTimeout) as failure:
                error = failure
            pause = None if self._connections.closed else feed.pause(time.monotonic())
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    async def follow_log(
        self, guest: str, start: int = 0, console: str = calls.LOG_CONSOLE
    ) -> AsyncGenerator[bytes, None]:
        """Return what a guest prints, as it comes, until the guest ends.

        Raises NoSuchGuest, NoSuchConsole.

        Args:
            guest: Its name.
            start: Offset of the first byte, negative to count from the end.
            console: Which console's output, as of `log`.
        """
        async with aclosing(self._stream(calls.follow_log(guest, start, console), None)) as stream:
            async for piece in stream:
                if isinstance(piece, bytes):
                    yield piece

    async def terminal(self, guest: str, console: str, **options: Unpack[TerminalOptions]) -> AsyncTerminal:
        """Return a terminal of a guest, open; use it in an ``async with``.

        Raises NoSuchGuest, NoSuchConsole.

        Args:
            guest: Its name.
            console: The terminal's name, such as ``con1``.
            options: See `umlab.client.terminal.TerminalOptions`.
        """
        from umlab.client.terminal import AsyncTerminal

        return await AsyncTerminal.open(self.name, guest, console, **options)

    async def exec(
        self,
        guest: str,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> ExecResult:
        """Run a command in a guest, as its root, and return its status and all that it wrote.

        Args:
            guest: Its name; one that boots is waited for.
            argv: The program and its arguments; 127 is the status where there is no such program.
            input: Its standard input; nothing unless given.
            environment: Variables that it has beside the guest's own.
            directory: Where it runs, absolute; ``/root`` unless given.
            timeout: Most seconds, then it is killed.

        Raises NoSuchGuest, StateError (no agent of the guest answers), CommandTimeout, GuestFailed, and
        LimitReached where it writes more than 64 MiB.
        """
        from umlab.client.exec import ExecOrder, run_async

        order = ExecOrder(
            tuple(argv), None, environment or {}, directory, "none" if input is None else "pipe"
        )
        return await run_async(self.name, guest, order, input, timeout)

    async def open_exec(self, guest: str, order: ExecOrder) -> AsyncExec:
        """Return a command that has begun in a guest; use it in an ``async with``, and read to its end.

        Args:
            guest: Its name.
            order: The command, see `umlab.daemon.exec_order.ExecOrder`.
        """
        from umlab.client.exec import AsyncExec

        return await AsyncExec.open(self.name, guest, order)

    async def capture(self, request: CaptureRequest) -> AsyncCapture:
        """Return a capture that has begun; use it in an ``async with`` and iterate over it."""
        from umlab.client.capture import AsyncCapture

        return await AsyncCapture.open(self.name, request)

    async def _latest_event(self) -> str:
        feed = EventFeed(self.name)
        async with aclosing(self._stream(feed.request(), calls.QUICK_TIMEOUT)) as stream:
            async for piece in stream:
                feed.receive(piece)
                if feed.last_id:
                    return feed.last_id
        raise lost(self.name)

    async def _exchange(
        self, request: Request, seconds: float, silence: float | None = None, *, stream: bool = False
    ) -> AsyncGenerator[Head | bytes, None]:
        """Send a request and return what comes.

        Args:
            request: What is asked.
            seconds: For the whole answer; of a stream, for its beginning.
            silence: Seconds in which a stream has to say something, ``None`` for any.
            stream: Whether the answer may go on for ever.
        """
        exchange = Exchange(self.name, request)
        loop = asyncio.get_running_loop()
        deadline: float | None = loop.time() + seconds
        with self._connections.open() as sock:
            with suppress(BrokenPipeError, ConnectionResetError):
                # Who refuses a request that he has not read to its end says why before he hangs up.
                async with asyncio.timeout_at(deadline):
                    await loop.sock_sendall(sock, exchange.data_to_send())
            while (event := exchange.next_event()) is not END:
                if event is not None:
                    yield event
                    if stream:
                        deadline = None if silence is None else loop.time() + silence
                    continue
                async with asyncio.timeout_at(deadline):
                    exchange.receive_data(await loop.sock_recv(sock, _RECEIVE_SIZE))

    def _stream(self, request: Request, silence: float | None) -> AsyncGenerator[Head | bytes, None]:
        return self._exchange(request, calls.QUICK_TIMEOUT, silence, stream=True)

    metrics = _awaited(calls.metrics)
    switches = _awaited(calls.switches)
    switch = _awaited(calls.switch)
    put_switch = _awaited(calls.put_switch)
    set_switch = _awaited(calls.set_switch)
    remove_switch = _awaited(calls.remove_switch)
    ports = _awaited(calls.ports)
    port = _awaited(calls.port)
    remove_port = _awaited(calls.remove_port)
    fdb = _awaited(calls.fdb)
    flush_fdb = _awaited(calls.flush_fdb)
    talkers = _awaited(calls.talkers)
    guests = _awaited(calls.guests)
    guest = _awaited(calls.guest)
    put_guest = _awaited(calls.put_guest)
    remove_guest = _awaited(calls.remove_guest)
    consoles = _awaited(calls.consoles)
    screen = _awaited(calls.screen)
    log = _awaited(calls.log)
    log_times = _awaited(calls.log_times)
    devices = _awaited(calls.devices)
    device = _awaited(calls.device)
    put_device = _awaited(calls.put_device)
    add_device = _awaited(calls.add_device)
    remove_device = _awaited(calls.remove_device)
    reset_device = _awaited(calls.reset_device)
    processes = _awaited(calls.processes)
    stack = _awaited(calls.stack)
    sysrq = _awaited(calls.sysrq)
    mconsole = _awaited(calls.mconsole)
    vitals = _awaited(calls.vitals)
    hooks = _awaited(calls.hooks)
    hook = _awaited(calls.hook)
    put_hook = _awaited(calls.put_hook)
    remove_hook = _awaited(calls.remove_hook)
