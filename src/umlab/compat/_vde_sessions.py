"""The sockets of a ``vde_switch`` console: who is there, what they say, what they are told."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from umlab.compat._vde_console import PROGRAM, Console, End
from umlab.transports.acceptor import Acceptor
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile
from umlab.wire.vde_console import END_OF_SESSION, MAX_COMMAND, PROMPT, banner, read_command

#: Consoles that may be open at a time; one more is closed.
MAX_SESSIONS = 32


class ConsoleSessions:
    """Serves a console's socket in the running event loop.

    Args:
        file: The socket; stays the caller's.
        console: What commands are given to.
        shut_down: Called when somebody ends the switch.
    """

    def __init__(self, file: SocketFile, console: Console, shut_down: Callable[[], None]) -> None:
        self.console = console
        self.shut_down = shut_down
        self.open: set[_Session] = set()
        self._acceptor = Acceptor(file.socket, file.path, self._take)

    def close(self) -> None:
        """Accept no more and close every session."""
        self._acceptor.close()
        for session in list(self.open):
            session.close()

    def _take(self, sock: socket.socket) -> None:
        if len(self.open) >= MAX_SESSIONS:
            sock.close()
        else:
            self.open.add(_Session(self, sock))


class _Session:
    """One client.  It is not read from while it has not taken all of a reply."""

    def __init__(self, sessions: ConsoleSessions, sock: socket.socket) -> None:
        self._sessions = sessions
        self._socket = sock
        self._owner = peer_of(sock).uid in (0, os.geteuid())
        self._unsent = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._receive)
        self._say(banner(PROGRAM))

    def close(self) -> None:
        """End it; what it has not taken is lost."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._sessions.open.discard(self)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(MAX_COMMAND)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        outcome = self._sessions.console.execute(read_command(os.fsdecode(data)), owner=self._owner)
        if outcome.end is End.NOTHING:
            self._say(outcome.reply + PROMPT)
            return
        self._say(outcome.reply + END_OF_SESSION)
        self.close()
        if outcome.end is End.SWITCH:
            self._sessions.shut_down()

    def _say(self, data: bytes) -> None:
        self._unsent += data
        self._loop.remove_reader(self._socket)
        self._loop.add_writer(self._socket, self._send)
        self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            # It left, and what it said before is what we read now.
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            self._loop.add_reader(self._socket, self._receive)
