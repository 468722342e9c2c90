"""Guests whose consoles answer as a kernel does, or as badly as a test wants, without any kernel.

::

    with SimulatedGuests(directory) as guests:
        web = guests.add("web1")
        Mconsole(str(web.path)).version()
        web.set_fault(silent)

Each has the run directory of a real one, ``<directory>/<umid>`` with ``mconsole`` and ``pid``, and real
sockets, so that programs in any language and process can speak to it.  One thread serves them all.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import shutil
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from umlab.testing.fault import DEATH, Fault, Step
from umlab.testing.kernel import Effect, SimulatedKernel
from umlab.testing.loop import Loop
from umlab.wire import mconsole as wire

__all__ = ["SimulatedGuest", "SimulatedGuests"]

_RECEIVE_SIZE = 4096
_TURN = 64
"""Steps of one guest after which the others get their turn."""
_WATCHDOG = struct.Struct("=Qiii4x")


class SimulatedGuest:
    """One guest, made by `SimulatedGuests.add`; every method may be called while it serves.

    Attributes:
        umid: Its name.
        path: Its console's socket.
        run_directory: Where the socket and the ``pid`` file are.
        pid: What the file says.
        kernel: What it answers from; ``kernel.facts``, ``.files`` and ``.devices`` may be changed.
        requests: The text of every request, in order of arrival.
        boots: How often it has started.
        running: Whether its console listens.
        failure: What a fault, or another function of a test's own, has raised; the guest has died of it.
    """

    def __init__(
        self, loop: Loop, run_directory: Path, kernel: SimulatedKernel, pid: int, notify: str | None
    ) -> None:
        self.umid = run_directory.name
        self.run_directory = run_directory
        self.path = self.run_directory / "mconsole"
        self.pid = pid
        self.kernel = kernel
        self.requests: list[bytes] = []
        self.boots = 0
        self.running = False
        self.failure: BaseException | None = None
        self._loop = loop
        self._notify_path = notify
        self._fault: Fault | None = None
        self._paused = False
        self._socket: socket.socket
        self._interest = 0
        self._steps: Iterator[Step] = iter(())
        self._waiting: bytes | None = None
        self._client: bytes | str = b""
        self._effect = Effect.NONE

    def set_fault(self, fault: Fault | None) -> None:
        """Answer the requests that come from now on with a fault of `umlab.testing.fault`, or well again."""
        self._fault = fault

    def pause(self) -> None:
        """Read no more requests, as a guest whose process is stopped; they wait until `resume`."""
        with self._loop.lock:
            self._paused = True
            self._watch(0)

    def resume(self) -> None:
        """Go on after `pause`, with what has come in the meantime."""
        with self._loop.lock:
            self._paused = False
            self._watch(select.EPOLLOUT)

    def notify(self, kind: int, data: bytes = b"") -> None:
        """Send a notification, if the guest was given a place for them.

        ``HANG`` goes out in the layout of ``uml_watchdog`` on a 64-bit machine, which is who sends it.

        Args:
            kind: ``SOCKET``, ``PANIC``, ``HANG`` or ``USER`` of `umlab.wire.mconsole`.
            data: The message.
        """
        if self._notify_path is None:
            return
        if kind == wire.HANG:
            datagram = _WATCHDOG.pack(wire.MAGIC, wire.VERSION, kind, 0)
        else:
            datagram = wire.serialize_notification(wire.Notification(kind, data))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.setblocking(False)
            sender.sendto(datagram, self._notify_path)

    def panic(self, message: str = "Attempted to kill init!") -> None:
        """Say why, and die."""
        self.notify(wire.PANIC, message.encode())
        self.die()

    def die(self) -> None:
        """End without a word: the run directory stays behind, and nobody listens on the socket."""
        with self._loop.lock:
            self._stop()

    def end(self) -> None:
        """End in order: the run directory goes away."""
        with self._loop.lock:
            self._stop()
            # Never that of somebody else, for whom we could not start.
            if self.boots:
                shutil.rmtree(self.run_directory, ignore_errors=True)

    def start(self) -> None:
        """Boot, or boot again after the end.

        Raises:
            OSError: The run directory cannot be made, or the socket's path is too long or another guest's.
        """
        with self._loop.lock:
            self._stop()
            self.run_directory.mkdir(exist_ok=True)
            if _listens(self.path):
                raise FileExistsError(errno.EEXIST, "another guest listens", os.fspath(self.path))
            self.path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                self._socket.bind(os.fspath(self.path))
            except BaseException:
                self._socket.close()
                raise
            (self.run_directory / "pid").write_text(f"{self.pid}\n")
            self.kernel.boot()
            self.boots += 1
            self.running = True
            self._paused = False
            self._steps = iter(())
            self._waiting = None
            self._effect = Effect.NONE
            self._interest = select.EPOLLIN
            self._loop.watch(self._socket.fileno(), self._serve_well, self._interest)
            self.notify(wire.SOCKET, os.fsencode(self.path))

    def _stop(self) -> None:
        if self.running:
            self.running = False
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _serve_well(self) -> None:
        """Serve; whatever a test's own function raises ends this guest alone."""
        try:
            self._serve()
        # What makes a test fail is none of the usual exceptions everywhere.
        except BaseException as error:
            self.failure = self.failure or error
            self._stop()

    def _serve(self) -> None:
        """Take the next request, or go on with the answer."""
        if not self.running or self._paused:
            return
        if self._interest == select.EPOLLIN:
            try:
                data, self._client = self._socket.recvfrom(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            outcome = self.kernel.receive(data)
            if outcome.request is not None:
                self.requests.append(outcome.request)
            self._effect = outcome.effect
            steps: Iterable[Step] = outcome.datagrams
            if (fault := self._fault) is not None:
                steps = fault(outcome.request or b"", outcome.datagrams)
            self._steps = iter(steps)
        for _ in range(_TURN):
            step = self._waiting if self._waiting is not None else next(self._steps, None)
            self._waiting = None
            if step is None:
                self._finish()
                return
            if step is DEATH:
                self._stop()
                return
            if isinstance(step, bytes):
                if not self._send(step):
                    break
            else:
                self._watch(0)
                self._loop.call_later(step, functools.partial(self._go_on, self._steps))
                return
        # As soon as there is room, which may be at once: the others have their turn before.
        self._watch(select.EPOLLOUT)

    def _go_on(self, steps: Iterator[Step]) -> None:
        # It may have died and be in another life by now.
        if steps is self._steps:
            self._serve_well()

    def _send(self, datagram: bytes) -> bool:
        """Send, or keep the datagram and return false, if there is no room for what we have sent.

        A kernel would lose it then; so it is where the client's queue is full, because it is not connected.
        """
        if not self._client:
            return True
        try:
            self._socket.sendto(datagram, self._client)
        except BlockingIOError:
            room = select.poll()
            room.register(self._socket, select.POLLOUT)
            if room.poll(0):
                return True
            self._waiting = datagram
            return False
        except OSError:
            # The client is gone, as a guest finds it after the client's time limit.
            self._steps = iter(())
        return True

    def _finish(self) -> None:
        effect, self._effect = self._effect, Effect.NONE
        self._watch(select.EPOLLIN)
        if effect is Effect.HALT:
            self.end()
        elif effect is Effect.REBOOT:
            self.start()
        elif effect is Effect.PANIC:
            self.panic("sysrq triggered crash")
        elif effect is Effect.CRASH:
            self.die()
        elif effect is Effect.WEDGE:
            self.pause()

    def _watch(self, interest: int) -> None:
        if self.running and interest != self._interest:
            self._interest = interest
            self._loop.change(self._socket.fileno(), interest)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


class SimulatedGuests:
    """Any number of simulated guests with one thread, which ends, with all they left, when this is exited.

    The end raises the `SimulatedGuest.failure` of the first guest that has one, unless an exception is on its
    way already.

    Attributes:
        directory: Their ``uml_dir``; exists before.

    Args:
        directory: See above.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._guests: dict[str, SimulatedGuest] = {}
        self._loop = Loop()

    def __enter__(self) -> SimulatedGuests:
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.stop()
        for guest in self._guests.values():
            guest.end()
        self._loop.close()
        failure = next((guest.failure for guest in self._guests.values() if guest.failure is not None), None)
        if error is None and failure is not None:
            raise failure

    def add(
        self,
        umid: str,
        *,
        release: str = "6.1.176",
        nodename: str = "(none)",
        memory: int = 113324 * 1024,
        pid: int | None = None,
        notify: str | Path | None = None,
        fault: Fault | None = None,
    ) -> SimulatedGuest:
        """Start a guest.

        Args:
            umid: Its name, and that of its run directory.
            release: The kernel's.
            nodename: Its host name.
            memory: Bytes that its kernel has.
            pid: What its ``pid`` file says; by default our own.
            notify: The socket that gets its notifications.
            fault: What goes wrong from the start, see `umlab.testing.fault`.

        Raises:
            ValueError: A guest of this name runs.
            OSError: See `SimulatedGuest.start`.
        """
        if (known := self._guests.get(umid)) is not None and known.running:
            raise ValueError(f"guest {umid} runs already")
        kernel = SimulatedKernel(release, nodename, memory)
        place = None if notify is None else os.fspath(notify)
        pid = os.getpid() if pid is None else pid
        guest = SimulatedGuest(self._loop, self.directory / umid, kernel, pid, place)
        guest.set_fault(fault)
        self._guests[umid] = guest
        guest.start()
        return guest
