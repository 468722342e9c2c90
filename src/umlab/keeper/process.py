"""The keeper's process: holds what must outlive a daemon, and knows nothing of what it is for.

Run by path as ``python -I -S process.py LISTENER PATH LIMIT``: an inherited listening SOCK_SEQPACKET
socket, its path, and how many descriptors a program may have open that it starts.  What else it inherits
(a lock) it holds until its end.  One daemon at a time connects; it is given everything that is held, a
``thing`` or ``group`` each, then ``held``.  It says

* ``put`` with descriptors: hold these under a name, in place of others; ``drop``: close them;
* ``start`` with descriptors, the output first: start a process group under a name; answered by
  ``started`` or ``failed``, and once the group is gone, however much later, by ``ended``;
* ``signal`` to a group's main process, or to ``all`` of it; ``forget`` a group that has ended;
* ``end``: kill every group, and end.

A daemon that goes without ``end`` has crashed or is being upgraded: all is kept for the next one.  One that
says what is not understood here is let go in the same way.  While the keeper is ending it takes no daemon.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import select
import selectors
import signal
import socket
import sys
import time
from ctypes import CDLL
from functools import partial

if __name__ == "__main__":
    # At the end of the path: nothing beside the package may shadow the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from umlab._descriptor_limit import raise_descriptor_limit
from umlab._peer_credentials import peer_credentials
from umlab.errors import ProtocolError
from umlab.guest.launch import command_line
from umlab.guest.watch import WatchedGroup
from umlab.keeper import message
from umlab.keeper.message import Message

_log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds that a daemon has to take a message; then it counts as dead.
_SEND_TIMEOUT = 10.0
#: Seconds without accepting when there is no descriptor left for a daemon.
_PAUSE = 0.1


class _Group:
    """A process group; ``status`` is set once it is gone."""

    def __init__(self, watch: WatchedGroup) -> None:
        self.watch = watch
        self.pid = 0
        self.status: int | None = None


class Keeper:
    """Everything that is held, and the daemon that is connected.

    Args:
        listener: Where daemons connect, non-blocking; belongs to the keeper from now on.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._daemon: socket.socket | None = None
        self._things: dict[str, tuple[Message, list[int]]] = {}
        self._groups: dict[str, _Group] = {}
        #: Ends of groups, from the threads that watch them; ``None`` asks for our own.
        self._ends: queue.SimpleQueue[tuple[_Group, int] | None] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake, selectors.EVENT_READ, self._take_ends)

    def run(self) -> None:
        """Serve until the end was asked for and every group is gone."""
        while not self._ending or any(group.status is None for group in self._groups.values()):
            for key, _ in self._selector.select():
                key.data()
        self._drop_daemon()
        for name in list(self._things):
            self._drop({"name": name})
        self._selector.close()
        os.close(self._wake)

    def ask_end(self) -> None:
        """Have every group killed and the keeper end when they are gone; fit for a signal's handler."""
        self._ends.put(None)
        os.eventfd_write(self._wake, 1)

    def _begin_end(self) -> None:
        if not self._ending:
            self._ending = True
            self._selector.unregister(self._listener)
            self._listener.close()
            for group in self._groups.values():
                group.watch.kill()

    # The daemon.

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # It waits in the backlog, which is readable all the while.
                time.sleep(_PAUSE)
            return
        if peer_credentials(sock).uid not in (0, os.geteuid()):
            sock.close()
            return
        message.set_up(sock)
        sock.settimeout(_SEND_TIMEOUT)
        # One that is gone may have said something before, and its end may come behind this.
        while (daemon := self._daemon) is not None and _hung_up(daemon):
            self._receive(daemon)
        if self._daemon is not None:
            with contextlib.suppress(OSError):
                message.send(sock, {"is": "busy"})
        if self._daemon is not None or self._ending:
            sock.close()
            return
        self._daemon = sock
        self._selector.register(sock, selectors.EVENT_READ, partial(self._receive, sock))
        self._tell({"is": "keeper", "pid": os.getpid()})
        for name, (meta, fds) in list(self._things.items()):
            self._tell({"is": "thing", "name": name, "meta": meta}, fds)
        for name, group in list(self._groups.items()):
            self._tell({"is": "group", "name": name, "pid": group.pid, "status": group.status})
        self._tell({"is": "held"})

    def _receive(self, sock: socket.socket) -> None:
        if sock is not self._daemon:
            # It was let go after the selector saw something of it.
            return
        try:
            received = message.receive(sock)
        except ConnectionResetError:
            # It went with something unread, which is said once; what it said before comes next.
            return
        except (OSError, ProtocolError) as error:
            _log.error("the daemon: %s", error)
            received = None
        if received is None:
            self._drop_daemon()
            return
        request, fds = received
        try:
            _REQUESTS[request["do"]](self, request, fds)
        except Exception as error:
            # Whatever it is: with us all guests would die.
            _log.error("the daemon said what is no request: %r", error)
            self._drop_daemon()
        finally:
            # All but those that are held from now on, which are not in there any more.
            message.close_all(fds)

    def _tell(self, told: Message, fds: list[int] | None = None) -> None:
        if self._daemon is not None:
            try:
                message.send(self._daemon, told, fds or (), back=True)
            except (OSError, ProtocolError) as error:
                _log.error("the daemon does not listen: %s", error)
                self._drop_daemon()

    def _drop_daemon(self) -> None:
        if self._daemon is not None:
            self._selector.unregister(self._daemon)
            self._daemon.close()
            self._daemon = None

    # Things.

    def _put(self, request: Message, fds: list[int]) -> None:
        name, meta = request["name"], request["meta"]
        old = self._things.get(name, ({}, []))[1]
        self._things[name] = (meta, fds.copy())
        fds.clear()
        message.close_all(old)

    def _drop(self, request: Message, fds: list[int] | None = None) -> None:
        message.close_all(self._things.pop(request["name"], ({}, []))[1])

    # Groups.

    def _start(self, request: Message, fds: list[int]) -> None:
        name = request["name"]
        group: _Group
        watch = WatchedGroup(
            command_line(fds[1:], request["words"]),
            cwd=request["cwd"],
            env=request["env"],
            output=fds[0],
            pass_fds=fds[1:],
            on_end=lambda status: self._ended_in_thread(group, status),
        )
        group = _Group(watch)
        try:
            if name in self._groups or self._ending:
                raise OSError("it runs already" if name in self._groups else "the keeper is ending")
            group.pid = watch.start()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._tell({"is": "failed", "name": name, "error": reason})
        else:
            self._groups[name] = group
            self._tell({"is": "started", "name": name, "pid": group.pid})

    def _signal(self, request: Message, fds: list[int]) -> None:
        group = self._groups.get(request["name"])
        if group is not None and group.status is None:
            if request["all"]:
                group.watch.kill()
            else:
                group.watch.signal(request["number"])

    def _forget(self, request: Message, fds: list[int]) -> None:
        group = self._groups.get(request["name"])
        if group is not None and group.status is not None:
            del self._groups[request["name"]]

    def _end(self, request: Message, fds: list[int]) -> None:
        self._begin_end()

    def _ended_in_thread(self, group: _Group, status: int) -> None:
        self._ends.put((group, status))
        os.eventfd_write(self._wake, 1)

    def _take_ends(self) -> None:
        os.eventfd_read(self._wake)
        with contextlib.suppress(queue.Empty):
            while True:
                end = self._ends.get_nowait()
                if end is None:
                    self._begin_end()
                    continue
                group, status = end
                group.status = status
                _reap_orphans(group.pid)
                for name, each in self._groups.items():
                    if each is group:
                        self._tell({"is": "ended", "name": name, "status": status})


_REQUESTS = {
    "put": Keeper._put,
    "drop": Keeper._drop,
    "start": Keeper._start,
    "signal": Keeper._signal,
    "forget": Keeper._forget,
    "end": Keeper._end,
}


def _hung_up(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))


def _reap_orphans(group: int) -> None:
    """Take the exit statuses of what a dead group has left us as its next of kin."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def main(argv: list[str]) -> None:
    """Become a process of its own and keep until told to end; the socket's file goes with it."""
    listener = socket.socket(fileno=int(argv[0]))
    listener.setblocking(False)
    # No child of the daemon: that one may end, or become another program, at any time.
    if os.fork():
        os._exit(0)
    CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    logging.basicConfig(format="%(asctime)s keeper[%(process)d]: %(message)s")
    raise_descriptor_limit(int(argv[2]))
    keeper = Keeper(listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.ask_end())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper.run()
    with contextlib.suppress(OSError):
        os.unlink(argv[1])


if __name__ == "__main__":
    main(sys.argv[1:])
