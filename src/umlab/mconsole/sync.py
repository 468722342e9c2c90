"""The blocking client of a guest's console.

::

    guest = Mconsole.find("left")
    print(guest.version())
    guest.config_set("eth1", "daemon,,unix,/tmp/net1.ctl")

Loaded by the smallest program, hence the raw modules.
"""

from __future__ import annotations

import _socket
import _thread
import time

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
from umlab.mconsole.session import Answer, MconsoleSession, Silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate, ParamSpec, TypeVar

    from umlab.mconsole.reading import Reading

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["Mconsole"]


def _blocking(build: Callable[P, commands.Command]) -> Callable[Concatenate[Mconsole, P], str]:
    """Return the method that builds a command, runs it and returns its answer's text."""

    def method(self: Mconsole, /, *args: P.args, **kwargs: P.kwargs) -> str:
        return self.run(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    method.__name__ = build.__name__
    return method


class Mconsole:
    """One guest's console; may be shared by threads, whose requests go one after another.

    Every command's method returns the text of the answer and raises `MconsoleError` (the guest
    refused), `MconsoleTimeout` (it is silent), `MconsoleUnreachable` (it does not run),
    `MconsoleProtocolError` (it talks nonsense) or `LocalProtocolError` (the text cannot be sent).

    Args:
        path: The console's socket.
        umid: The guest's name for errors, by default the path.
    """

    def __init__(self, path: str, umid: str | None = None) -> None:
        self.path = path
        self.umid = path if umid is None else umid
        self._lock = _thread.allocate_lock()

    @classmethod
    def find(cls, name: str) -> Mconsole:
        """Return the console of a guest that is named by umid, run directory or socket path.

        Raises:
            MconsoleUnreachable: No such guest.
        """
        return cls(locate(name), name)

    def run(self, command: commands.Command) -> str:
        """Run one command and return its answer's text."""
        return command.result(self.exchange(command.text, command.timeout), self.umid)

    def read(self, reading: Reading[T]) -> T:
        """Ask for something and return the answer as a value, see `umlab.mconsole.reading`."""
        return reading.value(self.run(reading.command), self.umid)

    def exchange(self, text: bytes, timeout: float) -> Answer | Silence:
        """Send a command's bytes and return the guest's whole answer, an error's too.

        Args:
            text: The command, at most 511 bytes without NUL.
            timeout: Seconds in which the whole answer must arrive.

        Raises:
            LocalProtocolError: The text cannot be sent.
            MconsoleUnreachable: The guest does not run.
            MconsoleProtocolError: What came is no answer.
        """
        shown = text.decode("utf-8", "backslashreplace")
        with self._lock:
            session = MconsoleSession()
            session.request(text, time.monotonic_ns(), int(timeout * 1e9))
            sock = open_console(self.path, self.umid, shown)
            try:
                return self._converse(sock, session, shown)
            except RemoteProtocolError as error:
                raise garbled(self.umid, shown, session.received, error) from error
            except OSError as error:
                raise unreachable(self.path, self.umid, shown, error) from error
            finally:
                sock.close()

    def _converse(self, sock: _socket.socket, session: MconsoleSession, shown: str) -> Answer | Silence:
        outgoing = session.data_to_send()
        while True:
            deadline_ns = session.get_timer()
            if deadline_ns is not None:
                # The shortest wait is not 0, which would make the socket non-blocking.
                left = max(deadline_ns - time.monotonic_ns(), 1) / 1e9
                sock.settimeout(min(left, CHECK_INTERVAL))
            try:
                # The guest's queue may be full of requests that nobody reads: sending waits as well.
                while outgoing:
                    sock.send(outgoing[0])
                    del outgoing[0]
                session.receive_datagram(sock.recv(RECEIVE_SIZE), time.monotonic_ns())
            except TimeoutError:
                session.handle_timer(time.monotonic_ns())
                check_listening(self.path, self.umid, shown, None if outgoing else session.received)
            if event := session.next_event():
                return event

    version = _blocking(commands.version)
    help = _blocking(commands.help)
    halt = _blocking(commands.halt)
    reboot = _blocking(commands.reboot)
    cad = _blocking(commands.cad)
    stop = _blocking(commands.stop)
    go = _blocking(commands.go)
    config_set = _blocking(commands.config_set)
    config_get = _blocking(commands.config_get)
    remove = _blocking(commands.remove)
    sysrq = _blocking(commands.sysrq)
    log = _blocking(commands.log)
    proc = _blocking(commands.proc)
    stack = _blocking(commands.stack)
    raw = _blocking(commands.raw)
