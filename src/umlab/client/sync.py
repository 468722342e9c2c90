"""The blocking client of a lab's daemon."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar, Unpack

from umlab.client import call as calls
from umlab.client.connection import Connections
from umlab.client.event import SILENCE_TIME, Event, EventFeed, Start
from umlab.client.exchange import END, Exchange, Head, Request, ResponseBuilder, lost
from umlab.client.life import process_descriptors
from umlab.errors import ApiTimeout, ConnectionLost, LabError, LabNotRunning

if TYPE_CHECKING:
    from umlab.capture.order import CaptureRequest
    from umlab.client.capture import Capture
    from umlab.client.exec import Exec, ExecOrder, ExecResult
    from umlab.client.terminal import Terminal, TerminalOptions
    from umlab.daemon.view import LabView

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["Client"]

_RECEIVE_SIZE = 256 * 1024


def _blocking(build: Callable[P, calls.Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """Return the method that builds a call, runs it and returns its result."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    method.__name__ = build.__name__
    return method


class Client:
    """A lab's daemon; threads may share a client.

    Every method raises `LabNotRunning` where no daemon answers, `ConnectionLost` where it ends before it has
    answered, `ApiTimeout` where it is silent, `ApiError` where it answers nonsense, and what its own text
    names.

    Args:
        name: The lab's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._connections = Connections(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that still runs over this client, such as `events`.  Idempotent."""
        self._connections.close()

    def run(self, call: calls.Call[T]) -> T:
        """Run a call and return its result."""
        builder = ResponseBuilder(self.name)
        for event in self._exchange(call.request, call.timeout):
            builder.add(event)
        return call.result(self.name, builder.response())

    def lab(self) -> LabView:
        """Return what the lab is."""
        return self.run(calls.lab(self.name))

    def stop(self, *, keep: bool = False) -> None:
        """End the lab with its guests and wait until it is gone.

        Args:
            keep: End the daemon alone; guests and ports wait in the keeper for the next one.
        """
        with process_descriptors(self.lab(), daemon_only=keep) as descriptors:
            self.run(calls.stop(self.name, keep=keep))
            end = time.monotonic() + calls.LIFE_TIMEOUT
            for fd in descriptors:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if not poll.poll(max(end - time.monotonic(), 0) * 1000):
                    raise calls.not_ended(self.name)

    def events(self, start: Start = "now", *, follow: bool = True) -> Generator[Event, None, None]:
        """Return the lab's events as they happen.

        The iterator survives restarts of the daemon; an event of kind ``lost`` stands for those that are
        gone.  It ends with `LabNotRunning` when no daemon has come back for 10 seconds.

        Args:
            start: ``now``, or ``oldest`` for what the daemon still has.
            follow: Whether to wait for events that have not happened yet.
        """
        feed = EventFeed(self.name, start, "" if follow else self._latest_event())
        while True:
            try:
                with closing(self._stream(feed.request(), SILENCE_TIME)) as stream:
                    for piece in stream:
                        yield from feed.receive(piece)
                        if feed.finished:
                            return
                error: LabError = lost(self.name)
            except (LabNotRunning, ConnectionLost, ApiTimeout) as failure:
                error = failure
            pause = None if self._connections.closed else feed.pause(time.monotonic())
            if pause is None:
                raise error
            time.sleep(pause)

    def follow_log(
        self, guest: str, start: int = 0, console: str = calls.LOG_CONSOLE
    ) -> Generator[bytes, None, None]:
        """Return what a guest prints, as it comes, until the guest ends.

        Raises NoSuchGuest, NoSuchConsole.

        Args:
            guest: Its name.
            start: Offset of the first byte, negative to count from the end.
            console: Which console's output, as of `log`.
        """
        with closing(self._stream(calls.follow_log(guest, start, console), None)) as stream:
            yield from (piece for piece in stream if isinstance(piece, bytes))

    def terminal(self, guest: str, console: str, **options: Unpack[TerminalOptions]) -> Terminal:
        """Return a terminal of a guest, open; use it in a ``with``.  Raises NoSuchGuest, NoSuchConsole.

        Args:
            guest: Its name.
            console: The terminal's name, such as ``con1``.
            options: See `umlab.client.terminal.TerminalOptions`.
        """
        from umlab.client.terminal import Terminal

        return Terminal(self.name, guest, console, **options)

    def exec(
        self,
        guest: str,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        timeout: float | None = None,
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
        from umlab.client.exec import ExecOrder, run

        order = ExecOrder(
            tuple(argv), None, environment or {}, directory, "none" if input is None else "pipe"
        )
        return run(self.name, guest, order, input, timeout)

    def open_exec(self, guest: str, order: ExecOrder) -> Exec:
        """Return a command that has begun in a guest; use it in a ``with``, and read to its end.

        Args:
            guest: Its name.
            order: The command, see `umlab.daemon.exec_order.ExecOrder`.
        """
        from umlab.client.exec import Exec

        return Exec(self.name, guest, order)

    def capture(self, request: CaptureRequest) -> Capture:
        """Return a capture that has begun; use it in a ``with`` and iterate over it."""
        from umlab.client.capture import Capture

        return Capture(self.name, request)

    def _latest_event(self) -> str:
        feed = EventFeed(self.name)
        with closing(self._stream(feed.request(), calls.QUICK_TIMEOUT)) as stream:
            for piece in stream:
                feed.receive(piece)
                if feed.last_id:
                    return feed.last_id
        raise lost(self.name)

    def _exchange(
        self, request: Request, timeout: float, silence: float | None = None, *, stream: bool = False
    ) -> Generator[Head | bytes, None, None]:
        """Send a request and return what comes.

        Args:
            request: What is asked.
            timeout: Seconds for the whole answer; of a stream, for its beginning.
            silence: Seconds in which a stream has to say something, ``None`` for any.
            stream: Whether the answer may go on for ever.
        """
        exchange = Exchange(self.name, request)
        deadline: float | None = time.monotonic() + timeout
        with self._connections.open() as sock:
            _set_time(sock, deadline)
            with suppress(BrokenPipeError, ConnectionResetError):
                # Who refuses a request that he has not read to its end says why before he hangs up.
                sock.sendall(exchange.data_to_send())
            while (event := exchange.next_event()) is not END:
                if event is not None:
                    yield event
                    if stream:
                        deadline = None if silence is None else time.monotonic() + silence
                    continue
                _set_time(sock, deadline)
                exchange.receive_data(sock.recv(_RECEIVE_SIZE))

    def _stream(self, request: Request, silence: float | None) -> Generator[Head | bytes, None, None]:
        return self._exchange(request, calls.QUICK_TIMEOUT, silence, stream=True)

    metrics = _blocking(calls.metrics)
    switches = _blocking(calls.switches)
    switch = _blocking(calls.switch)
    put_switch = _blocking(calls.put_switch)
    set_switch = _blocking(calls.set_switch)
    remove_switch = _blocking(calls.remove_switch)
    ports = _blocking(calls.ports)
    port = _blocking(calls.port)
    remove_port = _blocking(calls.remove_port)
    fdb = _blocking(calls.fdb)
    flush_fdb = _blocking(calls.flush_fdb)
    talkers = _blocking(calls.talkers)
    guests = _blocking(calls.guests)
    guest = _blocking(calls.guest)
    put_guest = _blocking(calls.put_guest)
    remove_guest = _blocking(calls.remove_guest)
    consoles = _blocking(calls.consoles)
    screen = _blocking(calls.screen)
    log = _blocking(calls.log)
    log_times = _blocking(calls.log_times)
    devices = _blocking(calls.devices)
    device = _blocking(calls.device)
    put_device = _blocking(calls.put_device)
    add_device = _blocking(calls.add_device)
    remove_device = _blocking(calls.remove_device)
    reset_device = _blocking(calls.reset_device)
    processes = _blocking(calls.processes)
    stack = _blocking(calls.stack)
    sysrq = _blocking(calls.sysrq)
    mconsole = _blocking(calls.mconsole)
    vitals = _blocking(calls.vitals)
    hooks = _blocking(calls.hooks)
    hook = _blocking(calls.hook)
    put_hook = _blocking(calls.put_hook)
    remove_hook = _blocking(calls.remove_hook)


def _set_time(sock: socket.socket, deadline: float | None) -> None:
    # The shortest wait is not 0, which would make the socket non-blocking.
    sock.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
