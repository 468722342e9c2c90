"""The daemon's end of its connection to the keeper."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umlab.errors import LabError, ProtocolError
from umlab.guest.group import Order
from umlab.keeper import message
from umlab.keeper.message import Message

_log = logging.getLogger(__name__)

#: Seconds that the keeper has to take a message or to answer one.
_TIMEOUT = 20.0


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

    Attributes:
        pid: The keeper's process.
        things: What an earlier daemon has left: descriptors belong to whoever takes them out of here.
        groups: By name, ended ones until they are forgotten.
        lost: Done once the keeper is gone.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Use :meth:`connect`."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        self.things: dict[str, Thing] = {}
        self.groups: dict[str, KeptGroup] = {}
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._starting: dict[str, asyncio.Future[KeptGroup]] = {}

    @classmethod
    def connect(cls, path: str) -> KeeperLink:
        """Connect to a keeper and take over what it holds; blocks for the milliseconds that this takes.

        Raises:
            LabError: Another daemon is connected, or the keeper does not answer.
            OSError: There is no keeper.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(_TIMEOUT)
            sock.connect(path)
            message.set_up(sock)
            link = cls(sock)
            link._take_over()
        except BaseException:
            sock.close()
            raise
        link._loop.add_reader(sock, link._receive)
        return link

    def put(self, name: str, meta: Message, fds: Sequence[int]) -> None:
        """Have descriptors held under a name, in place of those that are."""
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
            async with asyncio.timeout(_TIMEOUT):
                group = await answer
        except TimeoutError:
            raise OSError("the keeper does not answer") from None
        finally:
            del self._starting[name]
        watch_end(group, on_end)
        return group

    def say(self, request: Message, fds: Sequence[int] = ()) -> None:
        """Send a request; nothing happens where the keeper is gone, which ``lost`` tells.

        Raises:
            LabError: The keeper does not read.
        """
        try:
            message.send(self._sock, request, fds)
        except TimeoutError:
            raise LabError(f"the keeper, process {self.pid}, does not answer") from None
        except OSError as error:
            _log.debug("the keeper is gone: %s", error)
            self._lose()

    async def end(self) -> None:
        """End the keeper and every group, and wait until it is gone."""
        self.say({"do": "end"})
        await self.lost

    def close(self) -> None:
        """Leave; the keeper keeps everything for the next daemon.  Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        for thing in self.things.values():
            message.close_all(thing.fds)
        self.things.clear()

    def _take_over(self) -> None:
        while True:
            try:
                received = message.receive(self._sock)
            except (ProtocolError, TimeoutError) as error:
                raise LabError(f"the keeper does not answer: {error}") from None
            if received is None or received[0]["is"] == "busy":
                raise LabError("the keeper serves another daemon")
            told, fds = received
            match told["is"]:
                case "keeper":
                    self.pid = told["pid"]
                case "thing":
                    self.things[told["name"]] = Thing(told["meta"], tuple(fds))
                case "group":
                    group = self.groups[told["name"]] = KeptGroup(self, told["name"], told["pid"])
                    if told["status"] is not None:
                        group.ended.set_result(told["status"])
                case "held":
                    return

    def _receive(self) -> None:
        try:
            received = message.receive(self._sock)
        except (OSError, ProtocolError) as error:
            _log.error("the keeper: %s", error)
            received = None
        if received is None:
            self._lose()
            return
        told, _ = received
        name: str = told["name"]
        match told["is"]:
            case "started":
                group = self.groups[name] = KeptGroup(self, name, told["pid"])
                self._answer(name, lambda answer: answer.set_result(group))
            case "failed":
                self._answer(name, lambda answer: answer.set_exception(OSError(told["error"])))
            case "ended" if name in self.groups:
                self.groups[name].ended.set_result(told["status"])

    def _answer(self, name: str, give: Callable[[asyncio.Future[KeptGroup]], None]) -> None:
        answer = self._starting.get(name)
        if answer is not None and not answer.done():
            give(answer)

    def _lose(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
        for name in list(self._starting):
            self._answer(name, lambda answer: answer.set_exception(OSError("the keeper is gone")))
        # It took them with it.
        for group in self.groups.values():
            if not group.ended.done():
                group.ended.set_result(-signal.SIGKILL)
        if not self.lost.done():
            self.lost.set_result(None)


def watch_end(group: KeptGroup, on_end: Callable[[int], None]) -> None:
    """Have a function called in the loop's thread with the exit status, also where the end is past."""
    group.ended.add_done_callback(lambda ended: None if ended.cancelled() else on_end(ended.result()))
