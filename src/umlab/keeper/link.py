"""The daemon's end of its connection to the keeper."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umlab.errors import LabError, LocalProtocolError, ProtocolError
from umlab.guest.group import Order
from umlab.keeper import message
from umlab.keeper.message import Message

_log = logging.getLogger(__name__)

#: Seconds that the keeper has to take a message or to answer one; then it counts as lost.
_TIMEOUT = 20.0
#: Seconds that it has to end, with all guests.
_END_TIMEOUT = 30.0
#: Seconds from the end of its connection to that of its process.
_DEATH_TIME = 2.0


@dataclass(frozen=True, slots=True)
class Thing:
    """Descriptors that an earlier daemon gave away, and what it wrote down about them."""

    meta: Message
    fds: tuple[int, ...]


@dataclass(slots=True)
class KeptGroup:
    """A process group that the keeper holds; see :class:`umlab.guest.group.Group`."""

    link: KeeperLink
    name: str
    pid: int
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def signal(self, number: int) -> None:
        """Send a signal to the main process."""
        self.link.say({"do": "signal", "name": self.name, "number": number, "all": False})

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        self.link.say({"do": "signal", "name": self.name, "number": signal.SIGKILL, "all": True})

    async def gone(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until no process is left, and say whether that came."""
        await asyncio.wait([self.ended], timeout=timeout)
        return self.ended.done()

    def forget(self) -> None:
        """Make the name free again, after the end."""
        self.link.groups.pop(self.name, None)
        self.link.say({"do": "forget", "name": self.name})


class KeeperLink:
    """What a daemon asks of its keeper, made by :meth:`connect`; it also starts guests.

    A keeper that is lost is told nothing any more, and its daemon has to end.

    Attributes:
        pid: The keeper's process.
        things: What an earlier daemon has left: descriptors belong to whoever takes them out of here.
        groups: By name, ended ones until they are forgotten.
        lost: Done once the keeper serves us no more; says whether it is dead, and all guests with it.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Use :meth:`connect`."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        self._pidfd = -1
        self.things: dict[str, Thing] = {}
        self.groups: dict[str, KeptGroup] = {}
        self.lost: asyncio.Future[bool] = self._loop.create_future()
        self._starting: dict[str, asyncio.Future[KeptGroup]] = {}

    @classmethod
    def connect(cls, path: str) -> KeeperLink:
        """Connect to a keeper and take over what it holds; blocks for the milliseconds that this takes.

        Raises:
            LabError: The keeper does not answer, or is of another version.
            BlockingIOError: It serves another daemon, one that is just ending perhaps.
            OSError: There is no keeper, or it is ending.
        """
        link = cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            link._sock.settimeout(_TIMEOUT)
            link._sock.connect(path)
            message.set_up(link._sock)
            link._take_over()
            link._loop.add_reader(link._sock, link._receive)
        except BaseException:
            link.close()
            raise
        return link

    def put(self, name: str, meta: Message, fds: Sequence[int]) -> None:
        """Have descriptors held under a name, in place of those that are.

        Raises:
            LabError: It is too much for one message.
        """
        self.say({"do": "put", "name": name, "meta": meta}, fds)

    def drop(self, name: str) -> None:
        """Have the descriptors of a name closed.  Idempotent."""
        self.say({"do": "drop", "name": name})

    async def start(
        self, name: str, order: Order, output: int, files: Sequence[int], on_end: Callable[[int], None]
    ) -> KeptGroup:
        """Start a process group; see :class:`umlab.guest.group.Starter`."""
        answer: asyncio.Future[KeptGroup] = self._loop.create_future()
        self._starting[name] = answer
        try:
            self.say(
                {"do": "start", "name": name, "words": order.words, "cwd": order.cwd, "env": order.env},
                [output, *files],
            )
            if self.lost.done():
                raise OSError("the keeper is gone")
            async with asyncio.timeout(_TIMEOUT):
                group = await answer
        except TimeoutError:
            self._lose("it does not answer")
            raise OSError("the keeper does not answer") from None
        except LabError as error:
            raise OSError(str(error)) from None
        finally:
            del self._starting[name]
        watch_end(group, on_end)
        return group

    def say(self, request: Message, fds: Sequence[int] = ()) -> None:
        """Send a request; nothing happens where the keeper is lost.

        Raises:
            LabError: It is too large.
        """
        if self.lost.done() or self._sock.fileno() < 0:
            return
        try:
            message.send(self._sock, request, fds)
        except LocalProtocolError as error:
            raise LabError(str(error)) from None
        except OSError as error:
            self._lose(error)

    async def end(self) -> None:
        """End the keeper and every group, and wait until it is gone.

        Raises:
            LabError: It goes on.
        """
        self.say({"do": "end"})
        await asyncio.wait([self.lost], timeout=_END_TIMEOUT)
        if not (self.lost.done() and self.lost.result()):
            raise LabError(f"the keeper, process {self.pid}, does not end")

    def close(self) -> None:
        """Leave; the keeper keeps everything for the next daemon.  Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        for thing in self.things.values():
            message.close_all(thing.fds)
        self.things.clear()

    def _take_over(self) -> None:
        while True:
            try:
                received = message.receive(self._sock)
            except (ProtocolError, TimeoutError) as error:
                raise LabError(f"the keeper does not answer: {error}") from None
            if received is None:
                raise ConnectionResetError("the keeper is gone")
            told, fds = received
            try:
                if self._take(told, fds):
                    return
            except (LookupError, TypeError, ValueError) as error:
                raise LabError(f"the keeper is of another version: {error!r}") from None
            finally:
                # What is no thing.
                message.close_all(fds)

    def _take(self, told: Message, fds: list[int]) -> bool:
        """Take one of the messages that tell what is held; say whether it was the last."""
        match told["is"]:
            case "busy":
                raise BlockingIOError(errno.EAGAIN, "the keeper serves another daemon")
            case "keeper":
                self.pid = told["pid"]
                self._pidfd = os.pidfd_open(self.pid)
            case "thing":
                self.things[told["name"]] = Thing(told["meta"], tuple(fds))
                fds.clear()
            case "group":
                group = self.groups[told["name"]] = KeptGroup(self, told["name"], told["pid"])
                if told["status"] is not None:
                    group.ended.set_result(told["status"])
        return bool(told["is"] == "held")

    def _receive(self) -> None:
        try:
            received = message.receive(self._sock)
        except (OSError, ProtocolError) as error:
            self._lose(error)
            return
        if received is None:
            self._lose("the connection has ended")
            return
        told, fds = received
        message.close_all(fds)
        name = told.get("name", "")
        match told.get("is"):
            case "started":
                group = self.groups[name] = KeptGroup(self, name, told["pid"])
                if not self._answer(name, lambda answer: answer.set_result(group)):
                    # Whoever asked for it has gone.
                    end_stray(group)
            case "failed":
                self._answer(name, lambda answer: answer.set_exception(OSError(told["error"])))
            case "ended" if name in self.groups:
                self.groups[name].ended.set_result(told["status"])

    def _answer(self, name: str, give: Callable[[asyncio.Future[KeptGroup]], None]) -> bool:
        answer = self._starting.get(name)
        if answer is None or answer.done():
            return False
        give(answer)
        return True

    def _lose(self, why: object) -> None:
        if self.lost.done():
            return
        self._loop.remove_reader(self._sock)
        dead = self._is_dead()
        self.lost.set_result(dead)
        for name in list(self._starting):
            self._answer(name, lambda answer: answer.set_exception(OSError("the keeper is gone")))
        if not dead:
            _log.error("the keeper, process %d, is lost and goes on: %s", self.pid, why)
        else:
            for group in self.groups.values():
                if not group.ended.done():
                    group.ended.set_result(-signal.SIGKILL)

    def _is_dead(self) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(_DEATH_TIME * 1000))


def watch_end(group: KeptGroup, on_end: Callable[[int], None]) -> None:
    """Have a function called in the loop's thread with the exit status, also where the end is past."""
    group.ended.add_done_callback(lambda ended: None if ended.cancelled() else on_end(ended.result()))


def end_stray(group: KeptGroup) -> None:
    """End a group that nobody looks after; its name is free as soon as it is gone."""
    group.kill()
    watch_end(group, lambda _: group.forget())
